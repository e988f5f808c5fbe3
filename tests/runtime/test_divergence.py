"""Code that disagrees with its journal is stopped and reported; mended, it goes on. (G10)"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

import semel
from semel import Context
from semel.errors import Evicted, NonDeterminismError, ParkedError, ReplayError, WrongStatusError
from semel.function import REGISTRY
from semel.kernel.registry import REGISTRY as VALUES
from tests.runtime.places import Place, redefine, run, until_it

NAME = "diverging"


async def give(value: int) -> int:
    return value


async def waits_long_after(ctx: Context) -> int:
    return await ctx.step(give, 1)


async def original(ctx: Context) -> list[int]:
    found = [await ctx.step(give, 1), await ctx.step(give, 2, name="second")]
    await ctx.wait(ms=300, name="night")
    return found


async def renamed_step(ctx: Context) -> list[int]:
    found = [await ctx.step(give, 1), await ctx.step(give, 2, name="zweiter")]
    await ctx.wait(ms=300, name="night")
    return found


async def other_kind(ctx: Context) -> list[int]:
    await ctx.wait(ms=1)
    return [1]


async def fewer(ctx: Context) -> list[int]:
    return [await ctx.step(give, 1)]


async def never_asks(ctx: Context) -> list[int]:
    event = asyncio.Event()
    await event.wait()
    return []


async def swallows(ctx: Context) -> list[int]:
    found = [await ctx.step(give, 1)]
    try:
        await ctx.step(give, 2, name="zweiter")
    except BaseException:
        return [99]
    return found


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.CRITICAL, "semel"):
        yield


@asynccontextmanager
async def parked(place: Place, changed: Callable[..., Any]) -> AsyncIterator[tuple[semel.Engine, semel.ExecutionInfo]]:
    """An execution that was suspended under the original code and is woken under the changed one."""
    async with place.engine() as engine:
        execution = await engine.start(redefine(NAME, original), key="k")

        async def is_waiting() -> bool:
            history = await engine.executions.history(execution.id)
            return any(event.type == "WaitStarted" for event in history)

        await until_it(is_waiting)
    redefine(NAME, changed)
    async with place.engine() as engine:

        async def is_parked() -> bool:
            return (await engine.executions.get(execution.id)).status == "PARKED"

        await until_it(is_parked)
        yield engine, await engine.executions.get(execution.id)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (renamed_step, ["STEP 'second'", "STEP 'zweiter'", "test_divergence.py:"]),
        (other_kind, ["STEP 'give'", "WAIT", "test_divergence.py:"]),
        (fewer, ["STEP 'second'"]),
        (never_asks, ["STEP 'give'"]),
        (swallows, ["STEP 'second'", "STEP 'zweiter'"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_divergence_parks_the_execution_and_names_both_sides(
    place: Place, changed: Callable[..., Any], named: list[str]
) -> None:
    async def scenario() -> None:
        async with parked(place, changed) as (engine, info):
            assert info.reason.startswith("NonDeterminismError: operation 1_")
            for part in named:
                assert part in info.reason
            before = await engine.executions.history(info.id)
            with pytest.raises(ParkedError, match=f"semel executions resume {info.id}"):
                await engine.run(redefine(NAME, changed), key="k")
            assert await engine.executions.history(info.id) == before
            assert (await engine.executions.list(status="PARKED")).items[0].id == info.id

    run(scenario())


def test_whoever_waits_is_told_of_the_divergence(place: Place) -> None:
    async def short(ctx: Context) -> int:
        await ctx.wait(ms=30)
        return await ctx.step(give, 1, name="new" if ctx.is_replaying else "old")

    async def bad(ctx: Context) -> int:
        await ctx.step(give, 1, name="new" if runs else "old")
        runs.append(1)
        await ctx.wait(ms=20)
        return 1

    runs: list[int] = []

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            with pytest.raises(ReplayError, match="recorded STEP 'old'"):
                await engine.run(redefine("diverging-short", bad), key="k")

    run(scenario())


def test_the_report_is_with_whoever_waits_or_asks_later_and_in_the_log(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[int] = []

    async def bad(ctx: Context) -> int:
        await ctx.step(give, 1, name="new" if runs else "old")
        runs.append(1)
        await ctx.wait(ms=20)
        return 1

    async def scenario() -> None:
        durable = redefine("diverging-report", bad)
        async with place.engine(residents_max=0) as engine:
            with pytest.raises(NonDeterminismError) as waiting:
                await engine.run(durable, key="k")
            with pytest.raises(ParkedError) as later:
                await engine.run(durable, key="k")
            info = (await engine.executions.list()).items[0]
            info = await engine.executions.get(info.id)
            report = waiting.value.report
            assert report == later.value.report == info.report
            assert info.reason == f"NonDeterminismError: {waiting.value.summary}"
            text = report.text(stream=info.id)
            for told in (str(waiting.value), str(later.value), caplog.text):
                assert text in told

    with caplog.at_level(logging.ERROR, "semel"):
        run(scenario())


def test_what_is_gone_from_the_code_is_noticed_before_anything_new_begins(place: Place) -> None:
    """A recorded wait in a task that is not started any more: its end would have come years later."""
    begun: list[str] = []

    async def effect(name: str) -> None:
        begun.append(name)

    async def remind(ctx: Context) -> None:
        await ctx.wait(hours=9_000 // 24, name="remind")

    async def before(ctx: Context) -> None:
        task = asyncio.create_task(remind(ctx))
        await ctx.step(effect, "first")
        await ctx.wait(ms=100)
        await task

    async def after(ctx: Context) -> None:
        await ctx.step(effect, "first")
        await ctx.wait(ms=100)
        await ctx.step(effect, "second")

    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(redefine("diverging-task", before), key="k")

            async def is_waiting() -> bool:
                events = await engine.executions.history(execution.id)
                return [event.type for event in events].count("WaitStarted") == 2

            await until_it(is_waiting)
        redefine("diverging-task", after)
        async with place.engine() as engine:

            async def is_parked() -> bool:
                return (await engine.executions.get(execution.id)).status == "PARKED"

            await until_it(is_parked)
            assert begun == ["first"]

    run(scenario())


@pytest.mark.parametrize("strict", [False, True])
def test_other_arguments_stop_a_strict_function_only(place: Place, *, strict: bool) -> None:
    runs: list[int] = []

    async def counts(ctx: Context) -> int:
        runs.append(1)
        found = await ctx.step(give, len(runs))
        await ctx.wait(ms=20)
        return found

    async def scenario() -> None:
        REGISTRY.functions.pop("diverging-strict", None)
        durable = semel.durable_function(name="diverging-strict", strict=strict)(counts)
        async with place.engine(residents_max=0) as engine:
            if not strict:
                assert await engine.run(durable, key="k") == 1
                return
            with pytest.raises(NonDeterminismError, match="with other arguments") as stopped:
                await engine.run(durable, key="k")
            assert stopped.value.report.cause == "arguments differ"
            runs.clear()
            info = (await engine.executions.list()).items[0]
            await engine.executions.resume(info.id)
            assert await engine.run(durable, key="k") == 1

    run(scenario())


def test_a_mended_execution_goes_on_when_it_is_resumed(place: Place) -> None:
    async def scenario() -> None:
        async with parked(place, renamed_step) as (engine, info):
            function = redefine(NAME, original)
            resumed = await engine.executions.resume(info.id, reason="code restored")
            assert resumed.status == "RUNNING"
            assert await engine.run(function, key="k") == [1, 2]
            types = [event.type for event in await engine.executions.history(info.id)]
            assert types.index("ExecutionParked") < types.index("ExecutionResumed")
        async with place.engine() as engine:
            assert await engine.run(redefine(NAME, original), key="k") == [1, 2]

    run(scenario())


def test_resuming_without_a_cure_parks_again_and_a_healthy_one_is_not_resumed(place: Place) -> None:
    async def scenario() -> None:
        async with parked(place, renamed_step) as (engine, info):
            await engine.executions.resume(info.id)

            async def is_parked() -> bool:
                return (await engine.executions.get(info.id)).status == "PARKED"

            await until_it(is_parked)
            assert (await engine.executions.get(info.id)).reason == info.reason
            done = await engine.start(redefine("diverging-fine", waits_long_after), key="fine")
            await done.result()
            with pytest.raises(WrongStatusError, match="cannot be resumed, it is SUCCEEDED"):
                await engine.executions.resume(done.id)

    run(scenario())


def test_a_parked_execution_can_be_stopped(place: Place) -> None:
    async def scenario() -> None:
        async with parked(place, fewer) as (engine, info):
            assert (await engine.executions.stop(info.id, reason="given up")).status == "STOPPED"

    run(scenario())


def test_a_body_that_nothing_can_wake_is_parked_with_a_sentence(place: Place) -> None:
    async def forever(ctx: Context) -> None:
        await ctx.step(give, 1)
        await asyncio.get_running_loop().create_future()

    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(ParkedError, match="waits for something that no operation will bring"):
                await engine.run(redefine("diverging-forever", forever), key="k")

    run(scenario())


def test_a_body_that_never_rests_is_parked_with_a_sentence(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def spin(ctx: Context) -> None:
        while True:
            await asyncio.sleep(0)

    monkeypatch.setattr("semel.runtime.body_loop.BodyLoop.run_to_rest", quickly_to_rest)

    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(ParkedError, match="did not come to rest"):
                await engine.run(redefine("diverging-spin", spin), key="k")

    run(scenario())


def quickly_to_rest(loop: Any) -> None:
    if not loop._pump(2000):
        raise RuntimeError("a body ran 2000 callbacks and did not come to rest")


# Leaving memory: what a body does then is not recorded. (R1)


def test_finally_blocks_run_at_eviction_and_what_they_ask_for_is_not_recorded(place: Place) -> None:
    notes: list[str] = []

    async def note(text: str) -> str:
        notes.append(text)
        return text

    async def tidy(ctx: Context) -> str:
        try:
            await ctx.wait(ms=20)
            return "done"
        finally:
            await ctx.step(note, "cleaned")

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            assert await engine.run(redefine("evicting-tidy", tidy), key="k") == "done"
        assert notes == ["cleaned"]

    run(scenario())


def test_a_body_that_swallows_its_eviction_has_no_outcome_then(place: Place) -> None:
    signals: list[type[BaseException]] = []

    async def greedy(ctx: Context) -> str:
        try:
            await ctx.wait(ms=20)
        except BaseException as error:
            signals.append(type(error))
            return "swallowed"
        return "done"

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            assert await engine.run(redefine("evicting-greedy", greedy), key="k") == "done"
        assert signals == [Evicted]

    run(scenario())


def test_a_task_that_will_not_end_is_kept_and_named_in_a_warning(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    let_go: list[int] = []

    async def immortal(ctx: Context) -> str:
        while not let_go:
            try:
                await ctx.wait(ms=40)
                return "done"
            except BaseException:
                continue
        return "let go"

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            assert await engine.run(redefine("evicting-immortal", immortal), key="k") == "done"

    with caplog.at_level(logging.WARNING, "semel"):
        run(scenario())
    assert "1 task(s) of 'evicting-immortal' did not end when it left memory" in caplog.text
    let_go.append(1)


def test_async_generators_and_task_groups_are_unwound_by_eviction(place: Place) -> None:
    unwound: list[str] = []

    async def numbers(ctx: Context) -> AsyncIterator[int]:
        try:
            for number in range(3):
                await ctx.wait(ms=5)
                yield number
        finally:
            unwound.append("generator")

    async def branch(ctx: Context) -> int:
        try:
            total = 0
            async for number in numbers(ctx):
                total += number
            return total
        except asyncio.CancelledError:
            unwound.append("branch")
            raise

    async def grouped(ctx: Context) -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(branch(ctx)) for _ in range(2)]
        return sum(task.result() for task in tasks)

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            assert await engine.run(redefine("evicting-grouped", grouped), key="k") == 6
        assert unwound.count("generator") >= 2

    run(scenario())


# What this code cannot read. (DESIGN: ReplayError parks)


class Withdrawn:
    """Makes a class of values unknown to the codec, as a deployment without it would."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cls: type | None = None

    def __enter__(self) -> None:
        self.cls = VALUES._by_name.pop(self.name).cls

    def __exit__(self, *_: object) -> None:
        assert self.cls is not None
        VALUES.add(self.name, self.cls)


@semel.value("diverging-money")
@dataclass
class Money:
    amount: int


async def takes_money(ctx: Context, money: Money) -> int:
    await ctx.wait(ms=200)
    return money.amount


async def makes_money(ctx: Context) -> int:
    money = await ctx.step(make, 7)
    try:
        await ctx.wait(ms=200)
    except Exception:
        return -1
    return money.amount


async def make(amount: int) -> Money:
    return Money(amount)


@pytest.mark.parametrize(("function", "arguments"), [(takes_money, (Money(7),)), (makes_money, ())], ids=str)
def test_a_value_of_a_class_that_is_gone_parks_and_is_read_when_it_is_back(
    place: Place, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    async def scenario() -> None:
        durable = redefine("diverging-values", function)
        async with place.engine() as engine:
            execution = await engine.start(durable, *arguments, key="k")

            async def is_waiting() -> bool:
                events = await engine.executions.history(execution.id)
                return any(event.type == "WaitStarted" for event in events)

            await until_it(is_waiting)
        async with place.engine() as engine:
            with Withdrawn("diverging-money"):

                async def is_parked() -> bool:
                    return (await engine.executions.get(execution.id)).status == "PARKED"

                await until_it(is_parked)
            info = await engine.executions.get(execution.id)
            assert info.reason.startswith("SerializationError: ")
            assert "diverging-money" in info.reason
            await engine.executions.resume(execution.id)
            assert await engine.run(durable, *arguments, key="k") == 7

    run(scenario())
