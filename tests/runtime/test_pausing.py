"""Pause and resume of executions that run, wait or are in no memory at all."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from semel import Context, Engine, Retry, SyncContext, durable_function, step
from semel.errors import ExecutionStoppedError, ExecutionTimedOutError, NotFoundError, WrongStatusError
from tests.runtime.places import Place, run, types_of, until, until_it


class Gate:
    """Lets a step begin, wait and end as the test says."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.calls: list[str] = []

    async def slow(self, name: str) -> str:
        self.calls.append(name)
        self.begun.set()
        await self.may_end.wait()
        return name

    async def quick(self, name: str) -> str:
        self.calls.append(name)
        return name


async def status(engine: Engine, id: str) -> str:
    return (await engine.executions.get(id)).status


async def is_paused(engine: Engine, id: str) -> bool:
    return await status(engine, id) == "PAUSED"


def test_a_step_that_runs_is_recorded_and_no_other_begins_until_the_resume(place: Place) -> None:
    async def scenario() -> None:
        gate = Gate()

        @durable_function(name="pausing-two-steps")
        async def two(ctx: Context) -> list[str]:
            return [await ctx.step(gate.slow, "one"), await ctx.step(gate.quick, "two")]

        async with place.engine() as engine:
            execution = await engine.start(two, key="k")
            waiting = asyncio.create_task(execution.result())
            await gate.begun.wait()
            info = await engine.executions.pause(execution.id, reason="lunch")
            assert (info.status, info.reason) == ("PAUSING", "lunch")
            assert (await engine.executions.pause(execution.id)).status == "PAUSING"
            gate.may_end.set()
            await until_it(lambda: is_paused(engine, execution.id))
            await asyncio.sleep(0.05)
            assert (gate.calls, waiting.done(), engine.running_count) == (["one"], False, 0)
            assert (await engine.executions.resume(execution.id)).status == "RUNNING"
            assert await waiting == ["one", "two"]
            assert gate.calls == ["one", "two"]
            types = types_of(await engine.executions.history(execution.id))
            assert types.count("ExecutionPaused") == types.count("ExecutionResumed") == 1

    run(scenario())


def test_steps_beside_one_another_end_and_what_they_lead_to_waits(place: Place) -> None:
    async def scenario() -> None:
        gate = Gate()

        async def then(ctx: Context, name: str) -> str:
            await ctx.step(gate.slow, name)
            return await ctx.step(gate.quick, f"{name}, then")

        @durable_function(name="pausing-beside")
        async def beside(ctx: Context) -> list[str]:
            return await asyncio.gather(*(ctx.run_in_child_context(then, name) for name in "abc"))

        async with place.engine() as engine:
            execution = await engine.start(beside, key="k")
            await until(lambda: len(gate.calls) == 3)
            await engine.executions.pause(execution.id)
            gate.may_end.set()
            await until_it(lambda: is_paused(engine, execution.id))
            assert sorted(gate.calls) == ["a", "b", "c"]
        async with place.engine() as engine:  # a pause outlives its engine
            await asyncio.sleep(0.05)
            assert await status(engine, execution.id) == "PAUSED"
            await engine.executions.resume(execution.id)
            assert await engine.run(beside, key="k") == ["a, then", "b, then", "c, then"]
            assert len(gate.calls) == 6

    run(scenario())


def test_a_resume_while_a_step_still_runs_lets_it_go_on(place: Place) -> None:
    async def scenario() -> None:
        gate = Gate()

        @durable_function(name="pausing-resumed-early")
        async def early(ctx: Context) -> list[str]:
            first, _ = await asyncio.gather(ctx.step(gate.slow, "one"), ctx.wait(ms=1))
            return [first, await ctx.step(gate.quick, "two")]

        async with place.engine() as engine:
            execution = await engine.start(early, key="k")
            await gate.begun.wait()
            await engine.executions.pause(execution.id)
            assert (await engine.executions.resume(execution.id)).status == "RUNNING"
            gate.may_end.set()
            assert await execution.result() == ["one", "two"]
            assert gate.calls == ["one", "two"]

    run(scenario())


def test_a_wait_and_a_retry_that_come_due_meanwhile_take_effect_after_the_resume(place: Place) -> None:
    async def scenario() -> None:
        tries: list[int] = []

        @step(retry=Retry(attempts=2, first_delay_ms=20, jitter="none"))
        async def second_time() -> str:
            tries.append(1)
            if len(tries) == 1:
                raise OSError("not yet")
            return "done"

        @durable_function(name="pausing-due")
        async def due(ctx: Context) -> list[Any]:
            return list(await asyncio.gather(ctx.step(second_time), ctx.wait(ms=20)))

        async with place.engine() as engine:
            execution = await engine.start(due, key="k")
            await until(lambda: tries)
            await engine.executions.pause(execution.id)
            await asyncio.sleep(0.1)
            assert (await status(engine, execution.id), tries) == ("PAUSED", [1])
            await engine.executions.resume(execution.id)
            assert await execution.result() == ["done", None]

    run(scenario())


def test_a_wait_goes_on_beside_a_step_of_a_pausing_execution_only_after_the_resume(place: Place) -> None:
    async def scenario() -> None:
        gate = Gate()

        async def wait_then(ctx: Context) -> str:
            await ctx.wait(ms=30)
            return await ctx.step(gate.quick, "after the wait")

        @durable_function(name="pausing-wait-beside")
        async def beside(ctx: Context) -> list[Any]:
            return list(await asyncio.gather(ctx.step(gate.slow, "slow"), ctx.run_in_child_context(wait_then)))

        async with place.engine() as engine:
            execution = await engine.start(beside, key="k")
            await gate.begun.wait()
            await engine.executions.pause(execution.id)
            await asyncio.sleep(0.1)
            assert gate.calls == ["slow"]
            gate.may_end.set()
            await until_it(lambda: is_paused(engine, execution.id))
            assert gate.calls == ["slow"]
            await engine.executions.resume(execution.id)
            assert await execution.result() == ["slow", "after the wait"]

    run(scenario())


def test_an_at_most_once_step_whose_start_is_recorded_is_not_interrupted_by_a_pause(place: Place) -> None:
    async def scenario() -> None:
        calls: list[int] = []

        @step(effect="at_most_once")
        async def charge(number: int) -> int:
            calls.append(number)
            await asyncio.sleep(0.004)
            return number

        @durable_function(name="pausing-at-most-once")
        async def once(ctx: Context) -> list[int]:
            return [await ctx.step(charge, number) for number in range(25)]

        async with place.engine() as engine:
            execution = await engine.start(once, key="k")
            for _ in range(6):
                await asyncio.sleep(0.007)
                await engine.executions.pause(execution.id)
                await until_it(lambda: is_paused(engine, execution.id))
                await engine.executions.resume(execution.id)
            assert await execution.result() == calls == list(range(25))

    run(scenario())


def test_a_def_function_is_paused_between_its_steps(place: Place) -> None:
    async def scenario() -> None:
        begun, may_end = threading.Event(), threading.Event()
        calls: list[str] = []

        def slow() -> None:
            calls.append("slow")
            begun.set()
            may_end.wait(5)

        def quick() -> None:
            calls.append("quick")

        @durable_function(name="pausing-def")
        def blocking(ctx: SyncContext) -> str:
            ctx.step(slow)
            ctx.step(quick)
            return "done"

        async with place.engine() as engine:
            execution = await engine.start(blocking, key="k")
            await until(begun.is_set)
            await engine.executions.pause(execution.id)
            may_end.set()
            await until_it(lambda: is_paused(engine, execution.id))
            assert calls == ["slow"]
            await engine.executions.resume(execution.id)
            assert await execution.result() == "done"
            assert calls == ["slow", "quick"]

    run(scenario())


def test_a_paused_execution_can_be_stopped_and_is_then_over(place: Place) -> None:
    async def scenario() -> None:
        @durable_function(name="pausing-stopped")
        async def waits(ctx: Context) -> None:
            await ctx.wait(hours=1)

        async with place.engine() as engine:
            execution = await engine.start(waits, key="k")
            await engine.executions.pause(execution.id)
            assert (await engine.executions.stop(execution.id, reason="enough")).status == "STOPPED"
            with pytest.raises(ExecutionStoppedError, match="enough"):
                await execution.result()
            for act in (engine.executions.pause, engine.executions.resume):
                with pytest.raises(WrongStatusError, match="it is STOPPED"):
                    await act(execution.id)
            with pytest.raises(NotFoundError):
                await engine.executions.pause("nothing")

    run(scenario())


def test_a_pause_holds_the_timeout_unless_told_otherwise(place: Place) -> None:
    async def scenario() -> None:
        @durable_function(name="pausing-timeout", timeout_ms=300)
        async def waits(ctx: Context) -> str:
            await ctx.wait(ms=150)
            return "in time"

        async with place.engine() as engine:
            held = await engine.start(waits, key="held")
            counted = await engine.start(waits, key="counted")
            await engine.executions.pause(held.id)
            await engine.executions.pause(counted.id, timeout_paused=False)
            with pytest.raises(ExecutionTimedOutError):
                await counted.result()
            assert await status(engine, held.id) == "PAUSED"
            await engine.executions.resume(held.id)
            assert await held.result() == "in time"

    run(scenario())
