"""The branches of map and parallel: how many at a time, what becomes of those left open, what is run again."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Literal

import pytest

from semel import BatchResult, Completion, Context, Engine, Retry, SyncContext, durable_function
from tests.runtime.places import Place, run

both_ways = pytest.mark.parametrize("residents_max", [0, 1000])
nestings = pytest.mark.parametrize("nesting", ["nested", "flat"])
ONCE = Retry(attempts=1)
Nesting = Literal["nested", "flat"]


async def give(value: Any) -> Any:
    return value


async def fail(value: Any) -> Any:
    raise ValueError(f"no {value}")


async def branch(ctx: Context, item: int) -> int:
    """Ends after `item` ticks; a negative one fails."""
    await ctx.wait(ms=2 * abs(item))
    return await ctx.step(fail if item < 0 else give, item, retry=ONCE)


def def_branch(ctx: SyncContext, item: int) -> int:
    ctx.wait(ms=2 * abs(item))
    value: int = ctx.step(fail if item < 0 else give, item, retry=ONCE)
    return value


async def events_of(engine: Engine) -> list[Any]:
    (info,) = (await engine.executions.list()).items
    return await engine.executions.history(info.id)


def statuses(result: BatchResult[Any]) -> list[str]:
    return [item.status for item in result.items]


@nestings
@pytest.mark.parametrize("colour", ["async", "def"])
def test_no_more_branches_are_open_than_max_concurrency(place: Place, nesting: Nesting, colour: str) -> None:
    lock = threading.Lock()
    begun: list[int] = []
    inside: set[int] = set()
    most = [0]

    async def work(item: int) -> int:
        with lock:
            begun.append(item)
            inside.add(item)
            most[0] = max(most[0], len(inside))
        await asyncio.sleep(0.002 * (item % 3))
        return item

    async def leave(item: int) -> None:
        with lock:
            inside.discard(item)

    async def one(ctx: Context, item: int) -> int:
        await ctx.step(work, item)
        await ctx.wait(ms=2)  # one that waits keeps its place
        await ctx.step(leave, item)
        return item

    def one_def(ctx: SyncContext, item: int) -> int:
        ctx.step(work, item)
        ctx.wait(ms=2)
        ctx.step(leave, item)
        return item

    @durable_function(name="batch.bound")
    async def bound(ctx: Context) -> list[int]:
        return (await ctx.map(one, range(9), max_concurrency=3, nesting=nesting)).results

    @durable_function(name="batch.bound def")
    def bound_def(ctx: SyncContext) -> list[int]:
        return ctx.map(one_def, range(9), max_concurrency=3, nesting=nesting).results

    chosen: Any = bound if colour == "async" else bound_def

    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.run(chosen, key="k") == list(range(9))
        assert most == [3]
        assert sorted(begun) == list(range(9))
        assert begun[:3] == [0, 1, 2]

    run(scenario())


@both_ways
@nestings
@pytest.mark.parametrize("colour", ["async", "def"])
def test_what_an_abandoned_branch_does_is_not_recorded(
    place: Place, nesting: Nesting, colour: str, residents_max: int
) -> None:
    went_on: list[str] = []

    async def scenario() -> None:
        may_end = asyncio.Event()

        async def hang() -> str:
            await may_end.wait()
            return "late"

        async def more() -> None:
            went_on.append("more")

        async def slow(ctx: Context) -> str:
            value = await ctx.step(hang)
            await ctx.step(more)
            return value

        def slow_def(ctx: SyncContext) -> str:
            value = ctx.step(hang)
            ctx.step(more)
            return value

        async def quick(ctx: Context) -> str:
            return str(await ctx.step(give, "quick"))

        def quick_def(ctx: SyncContext) -> str:
            return str(ctx.step(give, "quick"))

        first = Completion.first_successful()

        @durable_function(name="batch.abandoned")
        async def abandoned(ctx: Context) -> list[Any]:
            result = await ctx.parallel([slow, quick], completion=first, nesting=nesting)
            await ctx.step(release)
            await ctx.wait(ms=20)
            return [statuses(result), result.results, await ctx.step(give, "after")]

        @durable_function(name="batch.abandoned def")
        def abandoned_def(ctx: SyncContext) -> list[Any]:
            result = ctx.parallel([slow_def, quick_def], completion=first, nesting=nesting)
            ctx.step(release)
            ctx.wait(ms=20)
            return [statuses(result), result.results, ctx.step(give, "after")]

        async def release() -> None:
            may_end.set()

        chosen: Any = abandoned if colour == "async" else abandoned_def
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(chosen, key="k") == [["STARTED", "SUCCEEDED"], ["quick"], "after"]
            events = await events_of(engine)
        assert went_on == []
        ended = [event.name for event in events if event.type == "StepSucceeded"]
        assert ended == ["give", "release", "give"]
        place_of_end = [event.type for event in events].index("ContextSucceeded")
        names = {event.name for event in events[place_of_end:] if event.type.startswith(("Step", "Context"))}
        assert "hang" not in names

    run(scenario())


@both_ways
def test_a_map_under_a_timeout_ends_with_it(place: Place, residents_max: int) -> None:
    @durable_function(name="batch.timeout")
    async def bounded(ctx: Context) -> list[Any]:
        try:
            async with asyncio.timeout(0.03):
                await ctx.map(branch, [1, 5_000])
        except TimeoutError:
            return ["timeout", await ctx.step(give, 1), (await ctx.map(branch, [1, 2])).results]
        return ["went through"]

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(bounded, key="k") == ["timeout", 1, [1, 2]]
        async with place.engine() as engine:
            assert await engine.run(bounded, key="k") == ["timeout", 1, [1, 2]]

    run(scenario())


@nestings
def test_a_result_that_cannot_be_kept_fails_its_branch_alone(place: Place, nesting: Nesting) -> None:
    async def odd(ctx: Context, item: int) -> Any:
        return await ctx.step(give, item) if item else object()

    @durable_function(name="batch.odd")
    async def mapped(ctx: Context) -> list[Any]:
        result = await ctx.map(odd, [0, 1, 2], completion=Completion.all_completed(), nesting=nesting)
        return [statuses(result), result.results, result.failed[0].error_type]

    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.run(mapped, key="k") == [
                ["FAILED", "SUCCEEDED", "SUCCEEDED"],
                [1, 2],
                "SerializationError",
            ]

    run(scenario())


@both_ways
@nestings
def test_a_large_result_is_made_anew_from_the_branches(place: Place, nesting: Nesting, residents_max: int) -> None:
    runs: list[int] = []

    async def work(item: int) -> int:
        runs.append(item)
        return item

    async def large(ctx: Context, item: int) -> str:
        await ctx.wait(ms=2 + 900 * (item == 2))
        return str(await ctx.step(work, item)) * 200_000

    @durable_function(name="batch.large")
    async def mapped(ctx: Context) -> list[Any]:
        result = await ctx.map(large, [0, 1, 2], completion=Completion(min_successful=2), nesting=nesting)
        await ctx.wait(ms=10)
        return [result.completion_reason, statuses(result), [value[:2] for value in result.results]]

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            answer = await engine.run(mapped, key="k")
            assert answer == ["MIN_SUCCESSFUL_REACHED", ["SUCCEEDED", "SUCCEEDED", "STARTED"], ["00", "11"]]
        assert sorted(runs) == [0, 1]

    run(scenario())


def test_branches_of_def_code_may_be_more_than_there_are_threads_and_nested(place: Place) -> None:
    def leaf(ctx: SyncContext, item: int) -> int:
        ctx.wait(ms=1)
        return int(ctx.step(give, item))

    def nested(ctx: SyncContext, item: int) -> int:
        return sum(ctx.map(leaf, range(item)).results)

    @durable_function(name="batch.many threads")
    def many(ctx: SyncContext) -> list[int]:
        return ctx.map(nested, [3, 4, 5, 6, 7, 8]).results

    async def scenario() -> None:
        async with place.engine(body_threads_max=1, step_threads_max=1) as engine:
            assert await engine.run(many, key="k") == [3, 6, 10, 15, 21, 28]

    run(scenario())


@both_ways
def test_branches_that_had_ended_do_not_run_again_after_a_crash(place: Place, residents_max: int) -> None:
    calls: list[int] = []

    async def work(item: int) -> int:
        calls.append(item)
        return item

    async def one(ctx: Context, item: int) -> int:
        value = await ctx.step(work, item)
        await ctx.wait(ms=5 if item < 3 else 400)
        return value

    @durable_function(name="batch.crashed")
    async def mapped(ctx: Context) -> list[int]:
        return (await ctx.map(one, range(4))).results

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            execution = await engine.start(mapped, key="k")
            while len([e for e in await engine.executions.history(execution.id) if e.type == "ContextSucceeded"]) < 3:
                await asyncio.sleep(0.005)
            crashed = place.crashed()
        async with crashed.engine() as engine:
            assert await engine.run(mapped, key="k") == [0, 1, 2, 3]
        assert calls == [0, 1, 2, 3]

    run(scenario())
