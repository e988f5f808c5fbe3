"""R2: a step's true outcome does not use up the cancellation of its awaiter, which comes at its next wait."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from semel import Context, Retry, durable_function
from semel.errors import StepError
from tests.runtime.places import Place, run, until

ONCE = Retry(attempts=1)
both_ways = pytest.mark.parametrize("residents_max", [0, 1000])


begun = threading.Event()


@pytest.fixture(autouse=True)
def _nothing_begun() -> None:
    begun.clear()


def in_thread(value: int, ms: int) -> int:
    """A step that cannot be told."""
    begun.set()
    time.sleep(ms / 1000)
    return value


async def until_begun() -> None:
    await until(begun.is_set)


async def fail() -> int:
    await until_begun()
    raise ValueError("no")


async def note(text: str) -> str:
    return text


def outcome(place: Place, function: Any, *, residents_max: int) -> Any:
    async def scenario() -> Any:
        async with place.engine(residents_max=residents_max) as engine:
            return await engine.run(function)

    return run(scenario())


@both_ways
def test_a_worker_of_a_failed_group_ends_although_its_step_could_not_be_told(place: Place, residents_max: int) -> None:
    @durable_function
    async def pool(ctx: Context) -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        done: list[int] = []

        async def worker() -> None:
            while True:
                done.append(await ctx.step(in_thread, await queue.get(), 50))

        queue.put_nowait(1)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(worker())
                group.create_task(ctx.step(fail, retry=ONCE))
        except* StepError:
            await ctx.wait(ms=1)
        return done

    assert outcome(place, pool, residents_max=residents_max) == [1]


@both_ways
def test_a_step_after_the_limit_never_begins(place: Place, residents_max: int) -> None:
    @durable_function
    async def limited(ctx: Context) -> list[Any]:
        found: list[Any] = []
        try:
            async with asyncio.timeout(0.1):
                found.append(await ctx.step(in_thread, 1, 300))
                found.append(await ctx.step(note, "never"))
        except TimeoutError:
            found.append("too late")
        found.append(await ctx.step(note, "after"))
        await ctx.wait(ms=1)
        return found

    assert outcome(place, limited, residents_max=residents_max) == [1, "too late", "after"]


@both_ways
def test_what_ends_with_the_step_has_its_outcome(place: Place, residents_max: int) -> None:
    @durable_function
    async def ended(ctx: Context) -> list[Any]:
        task = asyncio.create_task(ctx.step(in_thread, 1, 50))
        await ctx.step(until_begun)
        task.cancel()
        found: list[Any] = [await task]
        async with asyncio.timeout(0.1):
            found.append(await ctx.step(in_thread, 2, 300))
        found.append(await ctx.step(note, "after"))
        await ctx.wait(ms=1)
        return found

    assert outcome(place, ended, residents_max=residents_max) == [1, 2, "after"]


@both_ways
def test_who_is_cleaning_up_is_not_cancelled_again_by_a_limit_that_is_over(place: Place, residents_max: int) -> None:
    @durable_function
    async def cleans_up(ctx: Context) -> list[Any]:
        found: list[Any] = []

        async def work() -> None:
            try:
                await ctx.wait(hours=1)
            except asyncio.CancelledError:
                async with asyncio.timeout(0.1):
                    found.append(await ctx.step(in_thread, 1, 300))
                found.append(await ctx.step(note, "cleaned up"))
                raise

        task = asyncio.create_task(work())
        await ctx.wait(ms=1)
        task.cancel()
        await asyncio.wait([task])
        found.append(task.cancelled())
        return found

    assert outcome(place, cleans_up, residents_max=residents_max) == [1, "cleaned up", True]


@both_ways
def test_an_interrupted_awaiter_that_handles_the_failure_is_cancelled_at_its_next_wait(
    place: Place, residents_max: int
) -> None:
    async def stubborn() -> int:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("half done") from None
        return 1

    @durable_function
    async def handles(ctx: Context) -> list[Any]:
        found: list[Any] = []

        async def work() -> None:
            try:
                await ctx.step(stubborn, retry=ONCE)
            except StepError as error:
                found.append(error.error_type)
            await ctx.wait(hours=1)
            found.append("never")

        task = asyncio.create_task(work())
        await ctx.step(until_begun)
        task.cancel("enough")
        try:
            await task
        except asyncio.CancelledError as error:
            found.append(str(error))
        await ctx.wait(ms=1)
        return found

    assert outcome(place, handles, residents_max=residents_max) == ["OSError", "enough"]
