"""with_retry: a block of operations, from its beginning again while the policy says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from semel import Context, Engine, Retry, SyncContext, durable_function
from semel.errors import ChildContextError, StepError
from tests.runtime.places import Place, run

both_ways = pytest.mark.parametrize("residents_max", [0, 1000])
QUICK = Retry(attempts=4, first_delay_ms=2, factor=2.0, jitter="none")
ONCE = Retry(attempts=1)


class Work:
    """A step that fails until it has been tried often enough, and what came before it."""

    def __init__(self, good_from: int) -> None:
        self.good_from = good_from
        self.tries = 0
        self.before = 0

    async def prepare(self) -> int:
        self.before += 1
        return self.before

    async def deliver(self, prepared: int) -> str:
        self.tries += 1
        if self.tries < self.good_from:
            raise ConnectionError(f"try {self.tries}")
        return f"delivered {prepared}"


def retrying(work: Work, retry: Retry, **options: Any) -> Any:
    async def block(ctx: Context, greeting: str) -> str:
        prepared = await ctx.step(work.prepare)
        return f"{greeting}, {await ctx.step(work.deliver, prepared, retry=ONCE)}"

    @durable_function(name="with_retry.async")
    async def parent(ctx: Context) -> Any:
        try:
            return await ctx.with_retry(block, "hello", retry=retry, **options)
        except ChildContextError as error:
            return (error.name, error.error_type, error.message)

    return parent


def retrying_in_a_thread(work: Work, retry: Retry, **options: Any) -> Any:
    def block(ctx: SyncContext, greeting: str) -> str:
        prepared = ctx.step(work.prepare)
        return f"{greeting}, {ctx.step(work.deliver, prepared, retry=ONCE)}"

    @durable_function(name="with_retry.def")
    def parent(ctx: SyncContext) -> Any:
        try:
            return ctx.with_retry(block, "hello", retry=retry, **options)
        except ChildContextError as error:
            return (error.name, error.error_type, error.message)

    return parent


colours = pytest.mark.parametrize("make", [retrying, retrying_in_a_thread], ids=["async", "def"])


async def events_of(engine: Engine) -> list[Any]:
    (info,) = (await engine.executions.list()).items
    return await engine.executions.history(info.id)


@both_ways
@colours
def test_a_block_that_failed_is_run_from_its_beginning_after_a_durable_delay(
    place: Place, make: Any, residents_max: int
) -> None:
    work = Work(good_from=3)

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(make(work, QUICK, name="ship"), key="k") == "hello, delivered 3"
            events = await events_of(engine)
        assert (work.before, work.tries) == (3, 3)
        contexts = [event for event in events if event.type.startswith("Context")]
        assert [(event.type, event.name, event.subtype) for event in contexts] == [
            ("ContextStarted", "ship", "WithRetry"),
            ("ContextSucceeded", "ship", "WithRetry"),
        ]
        waits = [event for event in events if event.type == "WaitStarted"]
        assert [(event.name, event.due_ms - event.time_ms) for event in waits if event.due_ms] == [
            ("ship-backoff-1", 2),
            ("ship-backoff-2", 4),
        ]

    run(scenario())


@both_ways
@colours
def test_when_the_policy_gives_up_the_last_failure_is_raised(place: Place, make: Any, residents_max: int) -> None:
    work = Work(good_from=9)

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            name, error_type, message = await engine.run(make(work, QUICK), key="k")
        assert (name, error_type) == ("block", "StepError")
        assert message.endswith("ConnectionError: try 4")
        assert work.tries == 4

    run(scenario())


@both_ways
@colours
def test_a_decision_of_ones_own_sees_the_error_and_the_number(place: Place, make: Any, residents_max: int) -> None:
    work = Work(good_from=9)
    seen: list[tuple[str, int]] = []

    def decide(error: BaseException, attempt: int) -> int | None:
        if (type(error).__name__, attempt) not in seen:
            seen.append((type(error).__name__, attempt))
        return 1 if attempt < 2 else None

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            result = await engine.run(make(work, Retry(decide=decide)), key="k")
        assert result[1] == "StepError"
        assert seen == [("StepError", 1), ("StepError", 2)]
        assert work.tries == 2

    run(scenario())


@colours
def test_an_error_that_is_not_worth_it_is_not_tried_again(place: Place, make: Any) -> None:
    work = Work(good_from=9)

    async def scenario() -> None:
        async with place.engine() as engine:
            await engine.run(make(work, Retry(only=(KeyError,), first_delay_ms=1)), key="k1")
            assert work.tries == 1
            await engine.run(make(work, Retry(only=(StepError,), attempts=3, first_delay_ms=1)), key="k2")
            assert work.tries == 4

    run(scenario())


@both_ways
@colours
def test_after_a_crash_in_the_delay_no_earlier_attempt_runs_again(place: Place, make: Any, residents_max: int) -> None:
    work = Work(good_from=2)

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            await engine.start(make(work, Retry(first_delay_ms=200, jitter="none")), key="k")
            while "WaitStarted" not in [event.type for event in await events_of(engine)]:
                await asyncio.sleep(0.005)
            crashed = place.crashed()
        async with crashed.engine(residents_max=residents_max) as engine:
            expected = "hello, delivered 2"
            assert await engine.run(make(work, Retry(first_delay_ms=200, jitter="none")), key="k") == expected
        assert (work.before, work.tries) == (2, 2)

    run(scenario())


def test_a_cancelled_block_is_not_tried_again(place: Place) -> None:
    tries: list[int] = []

    async def block(ctx: Context) -> None:
        tries.append(1)
        await ctx.wait(days=1)

    @durable_function(name="with_retry.cancelled")
    async def cancelled(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.02):
                await ctx.with_retry(block, retry=QUICK)
        except TimeoutError:
            return "timeout"
        return "went through"

    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.run(cancelled, key="k") == "timeout"
        assert tries == [1]

    run(scenario())
