"""An execution that has no outcome when its time is over ends TIMED_OUT, wherever it is then."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from semel import Context, SyncContext, durable_function
from semel.errors import ExecutionTimedOutError, ValidationError
from semel.kernel.entry import EXECUTION_MS_MAX
from tests.runtime.places import Place, run, types_of, until


@durable_function(name="timeouts-wait", timeout_ms=100)
async def waits(ctx: Context) -> str:
    await ctx.wait(hours=1)
    return "unreachable"


async def nothing() -> int:
    return 1


def test_a_waiting_execution_times_out_and_who_waits_is_told(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            begun = time.monotonic()
            with pytest.raises(ExecutionTimedOutError, match="no outcome when its time was over"):
                await engine.run(waits, key="k")
            assert 0.1 <= time.monotonic() - begun < 2
            info = await engine.executions.get("k", function="timeouts-wait")
            assert (info.status, info.error_type) == ("TIMED_OUT", "ExecutionTimedOut")
            assert info.ended_ms is not None
            assert info.ended_ms - info.started_ms >= 100
            assert types_of(await engine.executions.history(info.id)) == [
                "ExecutionStarted",
                "WaitStarted",
                "ExecutionTimedOut",
            ]
            assert engine.running_count == 0
        async with place.engine() as engine:
            with pytest.raises(ExecutionTimedOutError):
                await engine.run(waits, key="k")

    run(scenario())


def test_a_start_may_set_another_time_than_its_function(place: Place) -> None:
    async def scenario() -> None:
        @durable_function(name="timeouts-short-wait", timeout_ms=50)
        async def short(ctx: Context) -> str:
            await ctx.wait(ms=120)
            return "in time"

        async with place.engine() as engine:
            assert await engine.run(short, key="k", timeout_ms=60_000) == "in time"
            assert await engine.run(short, key="k", timeout_ms=1) == "in time"  # one that is there keeps its own
            with pytest.raises(ExecutionTimedOutError):
                await (await engine.start(short, key="k-2")).result()

    run(scenario())


def test_a_step_that_runs_ends_and_its_result_is_dropped(place: Place) -> None:
    async def scenario() -> None:
        begun, may_end = threading.Event(), threading.Event()
        after: list[int] = []

        def work() -> None:
            begun.set()
            may_end.wait(5)

        @durable_function(name="timeouts-step")
        async def slow(ctx: Context) -> None:
            await ctx.step(work)
            after.append(1)

        async with place.engine() as engine:
            execution = await engine.start(slow, key="k", timeout_ms=80)
            await until(begun.is_set)
            with pytest.raises(ExecutionTimedOutError):
                await execution.result()
            before = await engine.executions.history(execution.id)
            may_end.set()
            await until(lambda: engine.running_count == 0)
            assert await engine.executions.history(execution.id) == before
            assert after == []

    run(scenario())


def test_a_def_body_that_computes_times_out(place: Place) -> None:
    async def scenario() -> None:
        may_end = threading.Event()

        @durable_function(name="timeouts-def")
        def computes(ctx: SyncContext) -> None:
            may_end.wait(5)

        async with place.engine() as engine:
            with pytest.raises(ExecutionTimedOutError):
                await engine.run(computes, key="k", timeout_ms=80)
            may_end.set()

    run(scenario())


def test_a_time_that_was_over_while_no_engine_ran_is_noticed_by_the_next(place: Place) -> None:
    async def scenario() -> None:
        calls: list[int] = []

        async def count() -> None:
            calls.append(1)

        @durable_function(name="timeouts-down")
        async def counts(ctx: Context) -> None:
            await ctx.wait(ms=10)
            await ctx.step(count)

        async with place.engine() as engine:
            execution = await engine.start(counts, key="k", timeout_ms=60)
            await engine.executions.pause(execution.id, timeout_paused=False)
        await asyncio.sleep(0.1)
        async with place.engine() as engine:
            with pytest.raises(ExecutionTimedOutError):
                await engine.run(counts, key="k")
            assert calls == []

    run(scenario())


def test_an_execution_that_ends_in_time_keeps_its_outcome(place: Place) -> None:
    async def scenario() -> None:
        @durable_function(name="timeouts-in-time", timeout_ms=100)
        async def quick(ctx: Context) -> int:
            return await ctx.step(nothing)

        async with place.engine() as engine:
            assert await engine.run(quick, key="k") == 1
            await asyncio.sleep(0.15)
            assert await engine.run(quick, key="k") == 1

    run(scenario())


@pytest.mark.parametrize("timeout_ms", [0, -1, 1.5, True, "1", EXECUTION_MS_MAX + 1])
def test_a_timeout_that_is_none_is_refused_and_nothing_starts(place: Place, timeout_ms: Any) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(ValidationError, match=r"timeout_ms: found .*, expected a whole number from 1 to"):
                await engine.start(waits, key="k", timeout_ms=timeout_ms)
            assert (await engine.executions.list()).items == []

    with pytest.raises(ValidationError, match="timeout_ms"):
        durable_function(name="timeouts-refused", timeout_ms=timeout_ms)
    run(scenario())


def test_the_longest_timeout_is_taken(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(waits, key="k", timeout_ms=EXECUTION_MS_MAX)
            await asyncio.sleep(0.12)
            assert (await engine.executions.get(execution.id)).status == "RUNNING"

    run(scenario())
