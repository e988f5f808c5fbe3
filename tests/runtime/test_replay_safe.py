"""now, uuid4 and random are the same on replay, the logger says each line once, and is_replaying tells."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from typing import Any

import pytest

from semel import Context, GenServer, SyncContext, call, durable_function
from tests.runtime.places import Place, run

both_ways = pytest.mark.parametrize("residents_max", [0, 1000])


async def give(value: Any) -> Any:
    return value


class Draws:
    """What a body drew, by place, in each of its runs."""

    def __init__(self) -> None:
        self.drawn: dict[str, list[Any]] = {}

    def take(self, where: str, ctx: Context | SyncContext) -> list[Any]:
        found = [str(ctx.uuid4()), ctx.random.random(), ctx.random.randint(0, 10**9), ctx.now(), ctx.now_ms()]
        self.drawn.setdefault(where, []).append(found)
        return found

    def check(self, runs_min: int, columns: int = 5) -> None:
        """Each place drew the same in every run, and no two places the same."""
        assert self.drawn
        assert max(len(runs) for runs in self.drawn.values()) >= runs_min
        for runs in self.drawn.values():
            assert [found for found in runs if found[:columns] != runs[0][:columns]] == []
        for column in (0, 1, 2):
            firsts = [runs[0][column] for runs in self.drawn.values()]
            assert len(set(firsts)) == len(firsts)


@both_ways
def test_each_task_and_child_context_draws_the_same_in_every_run(place: Place, residents_max: int) -> None:
    draws = Draws()

    async def inside(ctx: Context, name: str) -> None:
        draws.take(f"child {name}", ctx)
        await ctx.wait(ms=3)
        draws.take(f"child {name}, later", ctx)

    @durable_function(name="safe.async")
    async def drawing(ctx: Context) -> list[Any]:
        async def task(name: str, ms: int) -> None:
            draws.take(f"task {name}", ctx)
            await ctx.wait(ms=ms)
            draws.take(f"task {name}, later", ctx)

        first = draws.take("body", ctx)
        await asyncio.gather(task("a", 4), task("b", 1), ctx.run_in_child_context(inside, "c"))
        await ctx.run_in_child_context(inside, "d")
        await ctx.wait(ms=2)
        last = draws.take("body, last", ctx)
        assert first[4] <= last[4]
        return [first[:3], last[:3]]

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            answer = await engine.run(drawing, key="k")
            other = await engine.run(drawing, key="other")
            assert {answer[0][0], answer[1][0]} & {other[0][0], other[1][0]} == set()

    draws_of_one = Draws()
    draws_of_one.drawn = draws.drawn
    run(scenario())
    # Two executions drew: every second run is the other's.
    first = {where: [found for found in runs if found[0] == runs[0][0]] for where, runs in draws.drawn.items()}
    draws_of_one.drawn = first
    draws_of_one.check(runs_min=3 if residents_max == 0 else 1)


@both_ways
def test_def_code_and_its_branches_draw_the_same_in_every_run(place: Place, residents_max: int) -> None:
    draws = Draws()

    def branch(ctx: SyncContext, n: int) -> None:
        draws.take(f"branch {n}", ctx)
        ctx.wait(ms=2 * n)
        draws.take(f"branch {n}, later", ctx)

    @durable_function(name="safe.def")
    def drawing(ctx: SyncContext) -> None:
        draws.take("body", ctx)
        ctx.map(branch, [2, 0, 1])
        ctx.run_in_child_context(branch, 7)
        ctx.wait(ms=2)
        draws.take("last", ctx)

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            await engine.run(drawing, key="k")

    run(scenario())
    draws.check(runs_min=3)


def test_an_actors_turn_draws_the_same_in_every_run(place: Place) -> None:
    draws = Draws()

    class Drawing(GenServer[int]):
        actor_type = "safe.actor"

        def init(self) -> int:
            return 0

        @call
        async def draw(self, ctx: Context, name: str) -> None:
            draws.take(f"{name}, first", ctx)
            await ctx.wait(ms=3)
            draws.take(f"{name}, second", ctx)

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            ref = engine.actor(Drawing, "a")
            await ref.call(Drawing.draw, "one")
            await ref.call(Drawing.draw, "two")

    run(scenario())
    # A delivery that was not yet on disk when the actor left memory is made again, later.
    draws.check(runs_min=2, columns=3)


def test_now_is_an_aware_time_of_what_the_body_was_told_last(place: Place) -> None:
    @durable_function(name="safe.now")
    async def now(ctx: Context) -> list[Any]:
        before = ctx.now()
        await ctx.wait(ms=25)
        after = ctx.now()
        uid = ctx.uuid4()
        return [before, after, uid.version, ctx.now_ms() == round(after.timestamp() * 1000)]

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            started = dt.datetime.now(dt.UTC)
            before, after, version, is_same = await engine.run(now, key="k")
        assert before.tzinfo is not None
        assert abs(before - started) < dt.timedelta(seconds=5)
        assert dt.timedelta(milliseconds=25) <= after - before < dt.timedelta(seconds=5)
        assert (version, is_same) == (4, True)

    run(scenario())


@pytest.mark.parametrize("colour", ["async", "def"])
def test_the_logger_says_each_line_once_and_is_replaying_tells_why(
    place: Place, colour: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="semel.function")
    caplog.set_level(logging.INFO, logger="semel")
    replaying: list[bool] = []

    @durable_function(name="safe.log")
    async def in_async(ctx: Context) -> None:
        replaying.append(ctx.is_replaying)
        ctx.logger.info("begun")
        for number in range(3):
            await ctx.wait(ms=2)
            ctx.logger.info("after %d", number, extra={"number": number})
        await ctx.step(give, 1)
        ctx.logger.warning("done")
        replaying.append(ctx.is_replaying)

    @durable_function(name="safe.log def")
    def in_def(ctx: SyncContext) -> None:
        replaying.append(ctx.is_replaying)
        ctx.logger.info("begun")
        for number in range(3):
            ctx.wait(ms=2)
            ctx.logger.info("after %d", number, extra={"number": number})
        ctx.step(give, 1)
        ctx.logger.warning("done")
        replaying.append(ctx.is_replaying)

    chosen: Any = in_async if colour == "async" else in_def
    ids: list[str] = []

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            execution = await engine.start(chosen, key="k")
            await execution.result()
            ids.append(execution.id)

    run(scenario())
    records = [record for record in caplog.records if record.name == "semel.function"]
    assert [record.getMessage() for record in records] == ["begun", "after 0", "after 1", "after 2", "done"]
    assert {getattr(record, "execution_id", None) for record in records} == set(ids)
    assert [getattr(record, "number", None) for record in records] == [None, 0, 1, 2, None]
    assert replaying[0] is False
    assert True in replaying
    assert replaying[-1] is False
