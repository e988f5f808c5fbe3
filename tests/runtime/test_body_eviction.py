"""How a body is let go (rule R1), and that its loop leaves the outer one as it found it."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from semel.errors import Evicted
from semel.runtime.body_loop import REFUSALS_MAX, BodyLoop
from tests.runtime.outside import Body, Outside, quiet, run


@pytest.fixture(autouse=True)
def _no_noise() -> Iterator[None]:
    with quiet():
        yield


def evict(outside: Outside, *, rounds: int = 1000) -> list[Any]:
    outside.loop.close_seam(Evicted)
    before = list(outside.requested)
    alive = outside.loop.cancel_all(rounds=rounds)
    assert outside.requested == before
    assert outside.cancelled == []
    assert outside.reports == []
    return alive


def outcome(outside: Outside) -> str:
    if outside.task.cancelled():
        return "CancelledError"
    error = outside.task.exception()
    return repr(outside.task.result()) if error is None else type(error).__name__


async def plain(outside: Outside) -> None:
    await outside.op("x")


async def returns(outside: Outside) -> str:
    try:
        await outside.op("x")
    except BaseException:  # the shape of R1
        return "swallowed"
    return "never"


async def finally_op(outside: Outside) -> None:
    try:
        await outside.op("x")
    finally:
        await outside.op("undo")


async def finally_gather(outside: Outside) -> None:
    try:
        await outside.op("x")
    finally:
        await asyncio.gather(outside.op("undo"), outside.op("tell"))


async def finally_wait_for(outside: Outside) -> None:
    try:
        await outside.op("x")
    finally:
        await asyncio.wait_for(outside.op("undo"), 5)


async def finally_sleep(outside: Outside) -> None:
    try:
        await outside.op("x")
    finally:
        await asyncio.sleep(5)


async def finally_group(outside: Outside) -> None:
    try:
        await outside.op("x")
    finally:
        async with asyncio.TaskGroup() as group:
            group.create_task(outside.op("undo"))


async def in_group(outside: Outside) -> None:
    async with asyncio.TaskGroup() as group:
        for shape in (plain, finally_op, finally_sleep):
            group.create_task(shape(outside))


async def in_timeout(outside: Outside) -> None:
    async with asyncio.timeout(60), asyncio.Lock():
        await outside.op("x")


async def in_sleep(outside: Outside) -> None:
    await asyncio.sleep(60)


async def left_alone(outside: Outside) -> str:
    task = asyncio.create_task(outside.op("x"))
    await asyncio.sleep(0)
    return f"ended before {task.done()}"


async def finally_yields(outside: Outside) -> None:
    try:
        await outside.op("x")
    finally:
        for _ in range(5_000):
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (plain, "CancelledError"),
        (returns, "'swallowed'"),
        (finally_op, "Evicted"),
        (finally_gather, "Evicted"),
        (finally_wait_for, "Evicted"),
        (finally_sleep, "Evicted"),
        (finally_group, "BaseExceptionGroup"),
        (in_group, "BaseExceptionGroup"),
        (in_timeout, "CancelledError"),
        (in_sleep, "CancelledError"),
        (left_alone, "'ended before False'"),
        (finally_yields, "CancelledError"),
    ],
)
def test_R1_an_evicted_body_unwinds_and_nothing_is_recorded(shape: Body, expected: str) -> None:
    outside = Outside(shape)
    assert evict(outside) == []
    assert outcome(outside) in {expected, "Evicted"}


def stubborn_task(outside: Outside) -> Any:
    async def body() -> None:
        never = asyncio.get_running_loop().create_future()
        while True:
            try:
                await asyncio.shield(never)
            except BaseException:  # the shape of R1
                continue

    return body()


def stubborn_operations(outside: Outside) -> Any:
    async def body() -> None:
        while True:
            try:
                await outside.op("again")
            except BaseException:  # the shape of R1
                continue

    return body()


def stubborn_sleeps(outside: Outside) -> Any:
    async def body() -> None:
        while True:
            try:
                await asyncio.sleep(1)
                await asyncio.create_task(asyncio.sleep(1))
            except BaseException:  # the shape of R1
                continue

    return body()


def stubborn_yields(outside: Outside) -> Any:
    async def body() -> None:
        await outside.op("x")

    async def spinning() -> None:
        try:
            await body()
        finally:
            while True:
                try:
                    await asyncio.sleep(0)
                except BaseException:  # the shape of R1
                    continue

    return spinning()


STUBBORN = [stubborn_task, stubborn_operations, stubborn_sleeps, stubborn_yields]


@pytest.mark.parametrize("shape", STUBBORN)
def test_R1_what_still_lives_after_the_rounds_is_returned_and_held(shape: Body) -> None:
    outside = Outside(shape)
    loop = outside.loop
    loop.close_seam(Evicted)
    alive = loop.cancel_all(rounds=20)
    assert alive == [outside.task]
    assert not outside.task.done()
    assert list(loop._live) == alive
    KEPT.append(alive)


KEPT: list[Any] = []  # as the engine keeps them: collecting one would run its `finally` blocks


def test_R1_a_body_that_swallows_the_signal_is_made_to_wait() -> None:
    outside = Outside(stubborn_task)
    outside.loop.close_seam(Evicted)
    raised = 0
    for _ in range(REFUSALS_MAX + 5):
        try:
            outside.loop.create_future()
        except Evicted:
            raised += 1
    assert raised == REFUSALS_MAX
    outside.loop.call_later(1, raise_).cancel()
    KEPT.append(outside.loop.cancel_all(rounds=1))


def raise_() -> None:
    raise AssertionError


@pytest.mark.parametrize("begin", ["create_future", "call_later", "call_at", "create_task"])
def test_R1_a_closed_seam_begins_nothing_but_call_soon_works(begin: str) -> None:
    async def body(outside: Outside) -> None:
        await outside.op("x")

    outside, log = Outside(body), []
    loop = outside.loop
    loop.close_seam(Evicted)
    arguments = {"create_task": lambda: (body(outside),), "create_future": tuple}
    with pytest.raises(Evicted):
        getattr(loop, begin)(*arguments.get(begin, lambda: (1, raise_))())
    loop.call_soon(log.append, "unwinding")
    loop.run_to_rest()
    assert log == ["unwinding"]
    assert evict(outside) == []


def test_a_pending_task_that_is_lost_makes_no_noise() -> None:
    outside = Outside(plain)
    reports = outside.reports
    del outside
    gc.collect()
    assert reports == []


def test_cancel_all_with_an_open_seam_ends_what_a_finished_body_left() -> None:
    log: list[str] = []

    async def left(outside: Outside) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            log.append(await outside.op("undo"))

    async def body(outside: Outside) -> None:
        outside.left = asyncio.create_task(left(outside))
        await asyncio.sleep(0)

    outside = Outside(body)
    assert outside.task.done()
    assert outside.loop.cancel_all() == []
    assert outside.cancelled == ["1-1_1:timer"]
    assert outside.requested == ["1-1_1:timer", "1-1_2:undo"]
    assert log == []


def test_async_generators_are_closed_by_the_loop_the_innermost_first_and_never_by_the_collector() -> None:
    log: list[str] = []

    async def numbers(outside: Outside, name: str) -> AsyncIterator[int]:
        try:
            yield 1
            await outside.op("x")
            yield 2
        finally:
            log.append(name)
            await asyncio.sleep(0)
            log.append(f"{name} closed")

    async def body(outside: Outside) -> None:
        for name in ("first", "second"):
            async for _ in numbers(outside, name):
                break
        gc.collect()
        log.append("body goes on")
        async for _ in numbers(outside, "third"):
            pass

    outside = Outside(body)
    gc.collect()
    assert log == ["body goes on"]
    assert evict(outside) == []
    # The third is unwound with its task, then the two that were left are closed side by side.
    assert log[1:] == ["third", "third closed", "second", "first", "second closed", "first closed"]
    outside.loop._release_asyncgens()
    assert outside.loop._asyncgens == []


def test_an_async_generator_that_refuses_to_close_is_held_and_its_error_reported_while_the_seam_is_open() -> None:
    log: list[str] = []

    async def stubborn() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            yield 2
            log.append("never")

    async def body(outside: Outside) -> None:
        async for _ in stubborn():
            break

    outside = Outside(body)
    assert outside.loop.cancel_all() == []
    assert [type(report["exception"]) for report in outside.reports] == [RuntimeError]
    assert len(outside.loop._asyncgens) == 1
    del outside
    gc.collect()
    assert log == []


def test_a_body_may_shut_its_async_generators_down_and_finished_ones_are_let_go() -> None:
    async def numbers() -> AsyncIterator[int]:
        for n in range(2):
            yield n

    async def body(outside: Outside) -> int:
        for _ in range(1000):
            async for _n in numbers():
                pass
        noted = len(outside.loop._asyncgens)
        async for _ in numbers():
            break
        await outside.loop.shutdown_asyncgens()
        assert outside.loop._asyncgens == []
        return noted

    assert run(body) < 100


def test_errors_of_callbacks_and_unretrieved_ones_are_reported_until_the_seam_is_closed() -> None:
    async def fails() -> None:
        raise ValueError("nobody looks")

    async def body(outside: Outside) -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        asyncio.get_running_loop().create_task(fails())
        await outside.op("x")
        await outside.op("y")

    outside = Outside(body)
    gc.collect()
    reported = {type(report["exception"]) for report in outside.reports}
    assert reported == {ZeroDivisionError, ValueError}
    outside.reports.clear()
    outside.loop.close_seam(Evicted)
    outside.loop.call_soon(raise_)
    outside.loop.run_to_rest()
    assert evict(outside) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_comes_out_and_leaves_nothing_set(stop: type[BaseException]) -> None:
    async def body(outside: Outside) -> None:
        await outside.op("x")
        raise stop

    outside, hooks = Outside(body), sys.get_asyncgen_hooks()
    with pytest.raises(stop):
        outside.complete("1_1:x")
    assert asyncio._get_running_loop() is None
    assert sys.get_asyncgen_hooks() == hooks
    assert not outside.loop.is_running()
    assert isinstance(outside.task.exception(), stop)
    assert evict(outside) == []


def test_a_body_pumped_from_the_outer_loop_leaves_it_alone() -> None:
    inside: list[Any] = []

    async def body(outside: Outside) -> str:
        for n in range(5):
            await outside.op(f"x{n}")
            loop = asyncio.get_running_loop()
            inside.append((type(loop), loop.is_running(), asyncio.current_task() is outside.task))
            inside.append(asyncio.all_tasks() == {outside.task})
        return "done"

    async def outer() -> tuple[int, set[Any], Any]:
        loop, ticks, seen, finished = asyncio.get_running_loop(), [], set(), asyncio.Event()
        outside: list[Outside] = []

        async def ticking() -> None:
            while not finished.is_set():
                ticks.append(len(ticks))
                await asyncio.sleep(0.0005)

        def pump() -> None:
            outside[0].complete(outside[0].pending()[0]) if outside else outside.append(Outside(body))
            seen.add((asyncio.get_running_loop() is loop, asyncio.current_task(), sys.get_asyncgen_hooks() == hooks))
            finished.set() if outside[0].task.done() else loop.call_later(0.001, pump)

        hooks = sys.get_asyncgen_hooks()
        loop.call_soon(pump)
        await asyncio.gather(ticking(), ticking())
        return len(ticks), seen, outside[0].task.result()

    ticks, seen, result = asyncio.run(outer())
    assert ticks > 4
    assert seen == {(True, None, True)}
    assert result == "done"
    assert inside == [(BodyLoop, True, True), True] * 5
