"""ctx.patched: new runs take the new path, runs that went past it keep the old one, for good."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import semel
from semel import Context, GenServer, SyncContext
from semel.errors import ExecutionError, ValidationError
from semel.testing import World
from semel.testing.explore import Opener
from semel.testing.faults import Crash
from tests.runtime.places import Place, forget, redefine, run, until_it
from tests.simulation.corpus import SHAPES

NAME = "patching"
LONG_MS = 400


async def give(value: str) -> str:
    return value


async def before(ctx: Context) -> list[str]:
    found = [await ctx.step(give, "a")]
    await ctx.wait(ms=LONG_MS, name="first night")
    found.append(await ctx.step(give, "old"))
    await ctx.wait(ms=LONG_MS, name="second night")
    return found


async def after(ctx: Context) -> list[str]:
    found = [await ctx.step(give, "a")]
    await ctx.wait(ms=LONG_MS, name="first night")
    if ctx.patched("new path"):
        found.append(await ctx.step(give, "new", name="other"))
        await ctx.step(give, "more")
    else:
        found.append(await ctx.step(give, "old"))
    await ctx.wait(ms=LONG_MS, name="second night")
    return [*found, str(ctx.patched("new path"))]


async def retired(ctx: Context) -> list[str]:
    found = [await ctx.step(give, "a")]
    await ctx.wait(ms=LONG_MS, name="first night")
    found.append(await ctx.step(give, "new", name="other"))
    await ctx.step(give, "more")
    await ctx.wait(ms=LONG_MS, name="second night")
    return [*found, "retired"]


def sync_before(ctx: SyncContext) -> list[str]:
    found = [ctx.step(give, "a")]
    ctx.wait(ms=LONG_MS, name="first night")
    found.append(ctx.step(give, "old"))
    ctx.wait(ms=LONG_MS, name="second night")
    return found


def sync_after(ctx: SyncContext) -> list[str]:
    found = [ctx.step(give, "a")]
    ctx.wait(ms=LONG_MS, name="first night")
    if ctx.patched("new path"):
        found.append(ctx.step(give, "new", name="other"))
        ctx.step(give, "more")
    else:
        found.append(ctx.step(give, "old"))
    ctx.wait(ms=LONG_MS, name="second night")
    return [*found, str(ctx.patched("new path"))]


PAIRS = [(before, after), (sync_before, sync_after)]
both = pytest.mark.parametrize(("old", "new"), PAIRS, ids=["async", "sync"])


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    forget(NAME)


async def until_waiting(engine: semel.Engine, execution: str, name: str) -> None:
    async def is_waiting() -> bool:
        return any(event.name == name for event in await engine.executions.history(execution))

    await until_it(is_waiting)


async def left_at(place: Place, function: Callable[..., Any], wait: str) -> str:
    """An execution that old code began, and left at a wait."""
    async with place.engine() as engine:
        execution = await engine.start(redefine(NAME, function), key="k")
        await until_waiting(engine, execution.id, wait)
        return execution.id


@both
def test_a_new_run_takes_the_new_path_and_keeps_it_on_replay(place: Place, old: Any, new: Any) -> None:
    async def scenario() -> None:
        await left_at(place, new, "second night")
        async with place.engine() as engine:
            assert await engine.run(redefine(NAME, new), key="k") == ["a", "new", "True"]

    run(scenario())


@both
def test_a_run_that_had_not_come_there_takes_the_new_path(place: Place, old: Any, new: Any) -> None:
    async def scenario() -> None:
        await left_at(place, old, "first night")
        async with place.engine() as engine:
            assert await engine.run(redefine(NAME, new), key="k") == ["a", "new", "True"]

    run(scenario())


@both
def test_a_run_that_went_past_keeps_the_old_path(place: Place, old: Any, new: Any) -> None:
    async def scenario() -> None:
        await left_at(place, old, "second night")
        async with place.engine(residents_max=0) as engine:
            assert await engine.run(redefine(NAME, new), key="k") == ["a", "old", "False"]

    run(scenario())


def test_the_marker_shifts_no_operation_and_is_recorded_once(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            execution = await engine.start(redefine(NAME, after), key="k")
            assert await execution.result() == ["a", "new", "True"]
            events = await engine.executions.history(execution.id)
        ids = [event.id for event in events if event.type.endswith("Started") and event.id != execution.id]
        assert ids == ["1_1", "1_2", "h" + ids[2][1:], "1_3", "1_4", "1_5"]
        assert [event.name for event in events if event.type == "StepStarted"] == ["give", "new path", "other", "give"]

    run(scenario())


def test_a_patch_is_retired_once_no_run_is_on_the_old_path(place: Place) -> None:
    async def scenario() -> None:
        await left_at(place, after, "second night")
        async with place.engine() as engine:
            assert await engine.run(redefine(NAME, retired), key="k") == ["a", "new", "retired"]

    run(scenario())


def test_the_name_decides_and_not_the_place(place: Place) -> None:
    async def two(ctx: Context) -> list[bool]:
        found = [ctx.patched("a b"), ctx.patched("a b"), ctx.patched("x" * 255), ctx.patched("c")]
        await ctx.wait(ms=1)
        return [*found, ctx.patched("a b"), ctx.patched("c")]

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            execution = await engine.start(redefine(NAME, two), key="k")
            assert await execution.result() == [True] * 6
            events = await engine.executions.history(execution.id)
            assert sum(event.type == "StepSucceeded" for event in events) == 3

    run(scenario())


@pytest.mark.parametrize("name", ["", "é", None, "x" * 256])
def test_a_name_that_is_none_is_refused(place: Place, name: Any) -> None:
    async def bad(ctx: Context) -> bool:
        return ctx.patched(name)

    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(ExecutionError, match="patch"):
                await engine.run(redefine(NAME, bad), key="k")

    run(scenario())


def test_a_patch_is_decided_in_the_body_and_not_in_a_step(place: Place) -> None:
    async def asks_in_step(ctx: Context) -> str:
        async def body() -> str:
            with pytest.raises(ValidationError, match="outside the body"):
                ctx.patched("p")
            return "refused"

        def in_thread() -> str:
            with pytest.raises(ValidationError, match="outside the body"):
                ctx.patched("p")
            return threading.current_thread().name

        return await ctx.step(body, name="async") + (await ctx.step(in_thread))[:5]

    def sync_asks(ctx: SyncContext) -> str:
        def body() -> str:
            with pytest.raises(ValidationError, match="outside the body"):
                ctx.patched("p")
            return "refused"

        return ctx.step(body)

    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.run(redefine(NAME, asks_in_step), key="k") == "refusedsemel"
            assert await engine.run(redefine(NAME, sync_asks), key="s") == "refused"

    run(scenario())


def test_a_patch_asked_for_while_a_run_leaves_memory_stops_it(place: Place) -> None:
    seen: list[object] = []

    async def leaves(ctx: Context) -> str:
        try:
            await ctx.wait(ms=LONG_MS, name="night")
        finally:
            try:
                seen.append(ctx.patched("late"))
            except BaseException as error:
                seen.append(type(error).__name__)
                raise
        return "done"

    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(redefine(NAME, leaves), key="k")
            await until_waiting(engine, execution.id, "night")
        assert seen == ["Evicted"]
        async with place.engine() as engine:
            assert await engine.run(redefine(NAME, leaves), key="k") == "done"
        assert seen == ["Evicted", True]

    run(scenario())


class Till(GenServer[int]):
    actor_type = "patching.till"
    state = 0
    facets = (semel.DurabilityFacet(checkpoint_interval=100),)
    is_new = False

    @semel.call
    async def add(self, ctx: Context, n: int) -> int:
        if type(self).is_new and ctx.patched("double"):
            n *= 2
        self.state += await ctx.step(give_number, n)
        return self.state


async def give_number(n: int) -> int:
    return n


def test_turns_that_are_over_keep_the_old_path_when_they_run_again(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.actor(Till, "a").call(Till.add, 1) == 1
            crashed = place.crashed()
        Till.is_new = True
        try:
            async with crashed.engine() as engine:
                assert await engine.actor(Till, "a").call(Till.add, 1) == 3
                again = crashed.crashed()
            async with again.engine() as engine:
                assert await engine.actor(Till, "a").call(Till.add, 1) == 5
        finally:
            Till.is_new = False

    run(scenario())


@pytest.mark.parametrize("name", ["patched", "patched beside", "patched before a wait", "sync patched"])
def test_the_shapes_of_patches_take_both_paths(name: str) -> None:
    """Else the crash points would prove nothing."""
    opener = Opener("memory")
    record = World(SHAPES[name], opener.open(0)).run()
    runs = [World(SHAPES[name], opener.open(0), plan=((Crash(write, "after"),),)).run() for write in range(1, 100)]
    outcomes = {run.outcome for run in runs[: record.writes[0]]}
    assert outcomes == {record.outcome, *SHAPES[name].outcomes}
    assert len(outcomes) == 2
