"""R2: an operation settles once, with what happened; what cancelling its awaiter does to it."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

import semel
from semel import Context, Retry, durable_function
from semel.errors import StepError, StepInterruptedError
from tests.runtime.places import Place, run, until, until_it

ONCE = Retry(attempts=1)
both_ways = pytest.mark.parametrize("residents_max", [0, 1000])


async def awaited(task: asyncio.Task[Any]) -> str:
    try:
        return f"returned {await task}"
    except asyncio.CancelledError:
        return "cancelled"
    except StepError as error:
        return f"raised {error.error_type}"


def ended(history: list[semel.Event]) -> list[tuple[str, str]]:
    return [
        (event.type, event.error_type)
        for event in history
        if event.type.startswith(("Step", "Wait")) and not event.type.endswith("Started")
    ]


async def history_of(engine: semel.Engine) -> list[semel.Event]:
    (execution,) = (await engine.executions.list()).items
    return await engine.executions.history(execution.id)


async def hang() -> str:
    await asyncio.sleep(60)
    return "slept"


@both_ways
def test_a_step_cancelled_before_it_began_never_begins(place: Place, residents_max: int) -> None:
    begun: list[int] = []

    async def note() -> int:
        begun.append(1)
        return 1

    @durable_function
    async def cancel_early(ctx: Context) -> list[str]:
        never = asyncio.create_task(ctx.step(note))
        never.cancel()
        found = [await awaited(never)]
        asked = asyncio.create_task(ctx.step(note))
        await asyncio.sleep(0)
        asked.cancel()
        found.append(await awaited(asked))
        await ctx.wait(ms=5)
        return found

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(cancel_early) == ["cancelled", "cancelled"]
            history = await history_of(engine)
        assert begun == []
        assert ended(history) == [("StepFailed", "Cancelled"), ("WaitSucceeded", "")]

    run(scenario())


@both_ways
def test_a_running_async_step_is_told_and_its_true_outcome_comes_back(place: Place, residents_max: int) -> None:
    async def obey() -> str:
        await hang()
        return "slept"

    async def tidy_up() -> str:
        try:
            return await hang()
        except asyncio.CancelledError:
            return "tidied"

    async def break_down() -> str:
        try:
            return await hang()
        except asyncio.CancelledError:
            raise ValueError("no") from None

    @durable_function
    async def cancel_running(ctx: Context) -> list[str]:
        found = []
        for function in (obey, tidy_up, break_down):
            task = asyncio.create_task(ctx.step(function, retry=Retry(attempts=5, first_delay_ms=1)))
            await ctx.wait(ms=20)
            task.cancel()
            found.append(await awaited(task))
        await ctx.wait(ms=5)
        return found

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(cancel_running) == ["cancelled", "returned tidied", "raised ValueError"]
            history = await history_of(engine)
        steps = [pair for pair in ended(history) if pair[0].startswith("Step")]
        assert steps == [("StepFailed", "Cancelled"), ("StepSucceeded", ""), ("StepFailed", "ValueError")]

    run(scenario())


@both_ways
def test_a_running_def_step_comes_back_with_its_true_outcome(place: Place, residents_max: int) -> None:
    async def scenario() -> None:
        may_end, begun = threading.Event(), threading.Event()

        def work() -> str:
            begun.set()
            may_end.wait(5)
            return "done"

        async def release() -> None:
            may_end.set()

        @durable_function
        async def cancel_def(ctx: Context) -> str:
            task = asyncio.create_task(ctx.step(work))
            await ctx.wait(ms=20)
            task.cancel()
            await ctx.step(release)
            answer = await awaited(task)
            await ctx.wait(ms=5)
            return answer

        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(cancel_def) == "returned done"
        assert begun.is_set()

    run(scenario())


@both_ways
def test_a_timeout_over_a_running_step_waits_for_its_end(place: Place, residents_max: int) -> None:
    @durable_function
    async def time_out(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.02):
                return await ctx.step(hang)
        except TimeoutError:
            await ctx.wait(ms=5)
            return "timeout"

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(time_out) == "timeout"

    run(scenario())


@both_ways
def test_a_step_in_back_off_and_a_wait_settle_cancelled_at_once(place: Place, residents_max: int) -> None:
    tries: list[int] = []

    async def flaky() -> None:
        tries.append(1)
        raise ConnectionError

    @durable_function
    async def cancel_resting(ctx: Context) -> list[str]:
        tasks = [
            asyncio.create_task(
                ctx.step(
                    flaky, retry=Retry(attempts=9, first_delay_ms=3_600_000, delay_max_ms=3_600_000, jitter="none")
                )
            ),
            asyncio.create_task(ctx.wait(hours=9)),
        ]
        await ctx.wait(ms=30)
        for task in tasks:
            task.cancel()
        found = [await awaited(task) for task in tasks]
        await ctx.wait(ms=5)
        return found

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(cancel_resting) == ["cancelled", "cancelled"]
            history = await history_of(engine)
        assert len(tries) == 1
        assert ("StepFailed", "Cancelled") in ended(history)
        assert ("WaitCancelled", "") in ended(history)

    run(scenario())


@both_ways
def test_an_abandoned_step_is_cancelled_now_and_its_late_result_dropped(
    place: Place, residents_max: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        may_end = threading.Event()

        def work() -> str:
            may_end.wait(5)
            return "too late"

        @durable_function
        async def abandon(ctx: Context) -> str:
            task = asyncio.create_task(ctx.step(work, on_cancel="abandon"))
            await ctx.wait(ms=20)
            task.cancel()
            answer = await awaited(task)
            await ctx.step(let_go)
            await ctx.wait(ms=50)
            return answer

        async def let_go() -> None:
            may_end.set()

        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(abandon) == "cancelled"
            history = await history_of(engine)
        assert [pair for pair in ended(history) if pair[0].startswith("Step")] == [
            ("StepFailed", "Cancelled"),
            ("StepSucceeded", ""),
        ]
        assert all(event.result != "too late" for event in history)

    with caplog.at_level(logging.WARNING, "semel"):
        run(scenario())
    assert "ended after it was abandoned" in caplog.text


def test_cancelling_a_settled_operation_writes_nothing(place: Place) -> None:
    async def quick(value: int) -> int:
        return value

    @durable_function
    async def cancel_settled(ctx: Context) -> list[str]:
        tasks = [asyncio.create_task(ctx.step(quick, value)) for value in (1, 2)]
        await ctx.wait(ms=20)
        found = []
        for task in tasks:
            task.cancel()
            found.append(await awaited(task))
        await ctx.wait(ms=5)
        return found

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            assert await engine.run(cancel_settled) == ["returned 1", "returned 2"]
            history = await history_of(engine)
        assert [pair for pair in ended(history) if pair[0].startswith("Step")] == [("StepSucceeded", "")] * 2

    run(scenario())


def test_a_crash_between_the_telling_and_the_end_counts_as_an_interruption(place: Place) -> None:
    async def scenario() -> None:
        begun: list[int] = []
        told: list[int] = []
        may_end = asyncio.Event()

        async def stubborn() -> str:
            begun.append(1)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                told.append(1)
                await may_end.wait()
            return "done"

        @durable_function
        async def tell(ctx: Context) -> str:
            task = asyncio.create_task(ctx.step(stubborn))
            await ctx.wait(ms=20)
            task.cancel()
            try:
                return await task
            except StepInterruptedError:
                return "interrupted"

        async with place.engine() as engine:
            await engine.start(tell, key="k")
            await until(lambda: told)

            async def is_durable() -> bool:
                return ("WaitSucceeded", "") in ended(await history_of(engine))

            await until_it(is_durable)
            left = place.crashed()
            may_end.set()
        async with left.engine() as engine:
            assert await engine.run(tell, key="k") == "interrupted"
        assert len(begun) == 1

    run(scenario())


def test_cancelling_a_child_context_settles_what_is_in_it(place: Place) -> None:
    async def child(ctx: Context) -> None:
        await ctx.wait(hours=9)

    @durable_function
    async def cancel_child(ctx: Context) -> str:
        task = asyncio.create_task(ctx.run_in_child_context(child))
        await ctx.wait(ms=5)
        task.cancel()
        answer = await awaited(task)
        await ctx.wait(ms=5)
        return answer

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            assert await engine.run(cancel_child) == "cancelled"
            history = await history_of(engine)
        assert ("WaitCancelled", "") in ended(history)
        assert ("ContextFailed", "Cancelled") in [(event.type, event.error_type) for event in history]

    run(scenario())


def test_a_body_that_lets_cancellation_out_fails(place: Place) -> None:
    @durable_function
    async def cancel_itself(ctx: Context) -> None:
        task = asyncio.create_task(ctx.wait(hours=1))
        await ctx.wait(ms=1)
        task.cancel()
        await task

    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(semel.errors.ExecutionError, match="ended with CancelledError"):
                await engine.run(cancel_itself)

    run(scenario())


@both_ways
def test_whoever_answered_first_while_nobody_looked_is_told_first(place: Place, residents_max: int) -> None:
    ids: list[str] = []

    async def give(callback_id: str) -> None:
        ids.append(callback_id)

    @durable_function
    async def race(ctx: Context) -> list[str]:
        calls = [await ctx.create_callback(name=f"c{number}") for number in range(3)]
        for call in calls:
            await ctx.step(give, call.id)
        told: list[str] = []

        async def follow(call: semel.Callback) -> None:
            told.append(await call.result())

        await asyncio.gather(*map(follow, calls))
        return told

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            handle = await engine.start(race, key="k")
            await until(lambda: len(ids) == 3)
            await engine.executions.pause(handle.id)
            for number in (2, 0, 1):
                await engine.callbacks.succeed(ids[number], f"c{number}")
            await engine.executions.resume(handle.id)
            assert await handle.result() == ["c2", "c0", "c1"]

    run(scenario())
