"""pin=True: an execution runs under the version it began with, or waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import semel
from semel import Context, ExecutionInfo
from semel.errors import NotFoundError, WrongStatusError
from semel.function import REGISTRY, function_spec
from tests.runtime.places import Place, forget, run, until_it

NAME = "pinning"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    forget(NAME)


async def give(value: str) -> str:
    return value


async def first(ctx: Context) -> list[str]:
    found = [await ctx.step(give, "first")]
    await ctx.wait(ms=50, name="night")
    return [*found, await ctx.step(give, "first again")]


async def second(ctx: Context) -> list[str]:
    found = [await ctx.step(give, "first")]
    await ctx.wait(ms=50, name="night")
    return [*found, await ctx.step(give, "second")]


async def diverging(ctx: Context) -> list[str]:
    return [await ctx.step(give, "first", name="other")]


def deploy(function: Callable[..., Any], *, pin: bool = True) -> Any:
    forget(NAME)
    return semel.durable_function(name=NAME, pin=pin)(function)


async def left_at_night(place: Place, function: Callable[..., Any], *, pin: bool = True) -> str:
    """An execution that is left in its wait."""
    async with place.engine() as engine:
        execution = await engine.start(deploy(function, pin=pin), key="k")

        async def is_night() -> bool:
            return any(event.name == "night" for event in await engine.executions.history(execution.id))

        await until_it(is_night)
    return execution.id


async def after_the_night(engine: semel.Engine, which: str) -> ExecutionInfo:
    """What there is of it once the wait is over and a worker has looked."""
    await asyncio.sleep(0.35)
    return await engine.executions.get(which)


def version_of(function: Callable[..., Any]) -> str:
    return function_spec(deploy(function)).version


def test_the_version_it_began_with_goes_on(place: Place) -> None:
    async def scenario() -> None:
        which = await left_at_night(place, first)
        async with place.engine() as engine:
            assert await engine.run(deploy(first), key="k") == ["first", "first again"]
            info = await engine.executions.get(which)
            assert (info.is_pinned, info.waiting_for, info.version) == (True, "", version_of(first))

    run(scenario())


@pytest.mark.parametrize("pin", [True, False])
def test_another_version_leaves_it_alone_and_it_is_shown_as_waiting(place: Place, pin: bool) -> None:
    async def scenario() -> None:
        which = await left_at_night(place, first)
        version = version_of(first)
        function = deploy(second, pin=pin)
        async with place.engine() as engine:
            info = await after_the_night(engine, which)
            assert (info.status, info.holder, info.waiting_for) == ("RUNNING", None, version)
            assert (await engine.executions.list()).items[0].waiting_for == version
            assert await engine.run(function, key="new") == ["first", "second"], "others go on"
        deploy(first)
        async with place.engine() as engine:
            assert await engine.run(REGISTRY.function(NAME).function, key="k") == ["first", "first again"]

    run(scenario())


def test_a_process_without_the_function_leaves_it_alone(place: Place) -> None:
    async def scenario() -> None:
        which = await left_at_night(place, first)
        version = version_of(first)
        forget(NAME)
        async with place.engine() as engine:
            assert (await after_the_night(engine, which)).waiting_for == version

    run(scenario())


def test_the_same_code_goes_on_whether_or_not_it_still_pins(place: Place) -> None:
    async def scenario() -> None:
        await left_at_night(place, first)
        async with place.engine() as engine:
            assert await engine.run(deploy(first, pin=False), key="k") == ["first", "first again"]

    run(scenario())


def test_without_a_pin_another_version_goes_on(place: Place) -> None:
    async def scenario() -> None:
        which = await left_at_night(place, first, pin=False)
        async with place.engine() as engine:
            assert await engine.run(deploy(second), key="k") == ["first", "second"]
            info = await engine.executions.get(which)
            assert (info.is_pinned, info.waiting_for) == (False, "")

    run(scenario())


def test_an_unpinned_one_goes_on_under_the_code_that_is_there(place: Place) -> None:
    async def scenario() -> None:
        which = await left_at_night(place, first)
        version = version_of(first)
        async with place.engine() as engine:
            function = deploy(second)
            await after_the_night(engine, which)
            info = await engine.executions.unpin(which, reason="the old code is gone")
            assert (info.is_pinned, info.waiting_for, info.version) == (False, "", version)
            assert await engine.run(function, key="k") == ["first", "second"]
            events = await engine.executions.history(which)
            (unpinned,) = [event for event in events if event.type == "ExecutionUnpinned"]
            assert unpinned.error_message == "the old code is gone"

    run(scenario())


def test_an_unpinned_one_is_checked_by_its_replay(place: Place) -> None:
    async def scenario() -> None:
        which = await left_at_night(place, first)
        async with place.engine() as engine:
            deploy(diverging)
            await engine.executions.unpin(which)

            async def is_parked() -> bool:
                return (await engine.executions.get(which)).status == "PARKED"

            await until_it(is_parked)
            assert (await engine.executions.get(which)).reason.startswith("NonDeterminismError")
            # Unpinning what is parked keeps the reason, and is nothing for one that has no pin.
            assert (await engine.executions.unpin(which)).reason.startswith("NonDeterminismError")

    run(scenario())


def test_a_parked_one_keeps_its_reason_when_it_is_unpinned(place: Place) -> None:
    async def stuck(ctx: Context) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(deploy(stuck), key="k")

            async def is_parked() -> bool:
                return (await engine.executions.get(execution.id)).status == "PARKED"

            await until_it(is_parked)
            reason = (await engine.executions.get(execution.id)).reason
            info = await engine.executions.unpin(execution.id, reason="another")
            assert (info.status, info.reason, info.is_pinned) == ("PARKED", reason, False)

    run(scenario())


def test_one_that_runs_here_is_unpinned_while_it_runs(place: Place) -> None:
    going_on = asyncio.Event()

    async def waits_in_step(ctx: Context) -> str:
        async def body() -> str:
            await going_on.wait()
            return "done"

        return await ctx.step(body)

    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(deploy(waits_in_step), key="k")
            await asyncio.sleep(0.02)
            assert (await engine.executions.unpin(execution.id)).is_pinned is False
            going_on.set()
            assert await execution.result() == "done"
            with pytest.raises(WrongStatusError, match="unpinned"):
                await engine.executions.unpin(execution.id)
            with pytest.raises(NotFoundError):
                await engine.executions.unpin("nothing")

    run(scenario())


def test_the_check_says_that_it_is_pinned(place: Place) -> None:
    async def scenario() -> None:
        await left_at_night(place, first)

    run(scenario())
    store: Any = f"sqlite:///{place.path}" if place.name == "sqlite" else place._memory()
    deploy(first)
    assert [one.verdict for one in semel.check(store)] == ["safe"]
    deploy(diverging)
    (found,) = semel.check(store)
    assert (found.verdict, found.version) == ("pinned", version_of(first))
