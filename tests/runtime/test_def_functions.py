"""Durable functions written as plain `def`: the same operations, blocking, in a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import semel
from semel import Context, Retry, SyncContext, durable_function
from semel.errors import ChildContextError, ExecutionError, ParkedError, StepError, Suspend
from tests.runtime.places import Place, redefine, run, types_of, until

ONCE = Retry(attempts=1)


async def give(value: Any) -> Any:
    return value


def give_in_a_thread(value: Any) -> Any:
    time.sleep(0.001)
    return value


async def fail() -> None:
    raise ValueError("no")


@pytest.mark.parametrize("residents_max", [0, 1000])
def test_a_def_function_has_the_same_operations(place: Place, residents_max: int) -> None:
    threads: set[str] = set()

    def inner(ctx: SyncContext, value: int) -> int:
        got = ctx.step(give_in_a_thread, value)
        ctx.wait(ms=3)
        return int(got) + ctx.run_in_child_context(leaf, 1)

    def leaf(ctx: SyncContext, value: int) -> int:
        return int(ctx.step(give, value))

    def broken(ctx: SyncContext) -> None:
        ctx.wait(ms=1)
        raise KeyError("x")

    @durable_function
    def everything(ctx: SyncContext, start: int) -> list[Any]:
        threads.add(threading.current_thread().name)
        found: list[Any] = [ctx.step(give, start), ctx.step(give_in_a_thread, (1, {2}), name="again")]
        ctx.wait(ms=10)
        found.append(ctx.run_in_child_context(inner, 5))
        try:
            ctx.step(fail, retry=ONCE)
        except StepError as error:
            found.append(str(error))
        try:
            ctx.run_in_child_context(broken)
        except ChildContextError as error:
            found.append(str(error))
        return found

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            answer = await engine.run(everything, 7, key="k")
            assert answer == [
                7,
                (1, {2}),
                6,
                "step 'fail' failed with ValueError: no",
                "child context 'broken' failed with KeyError: 'x'",
            ]
            (info,) = (await engine.executions.list()).items
            types = types_of(await engine.executions.history(info.id))
        async with place.engine() as engine:
            assert await engine.run(everything, 7, key="k") == answer
        assert types.count("StepSucceeded") == 4
        assert types.count("ContextSucceeded") == 2
        assert types[-1] == "ExecutionSucceeded"
        assert all(name.startswith("semel-body") for name in threads)

    run(scenario())


def test_recorded_steps_of_a_def_function_do_not_run_again(place: Place) -> None:
    calls: list[int] = []

    def note(value: int) -> int:
        calls.append(value)
        return value

    @durable_function
    def noted(ctx: SyncContext) -> int:
        total = 0
        for value in range(4):
            total += ctx.step(note, value)
            ctx.wait(ms=2)
        return total

    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.run(noted) == 6
        assert calls == [0, 1, 2, 3]

    run(scenario())


def test_suspend_is_raised_again_at_each_further_call_and_no_outcome_is_recorded(place: Place) -> None:
    signals: list[str] = []
    later: list[int] = []

    async def note() -> None:
        later.append(1)

    @durable_function
    def swallowing(ctx: SyncContext) -> str:
        try:
            ctx.wait(ms=30)
        except BaseException as error:
            signals.append(type(error).__name__)
            further: list[Callable[[], None]] = [lambda: ctx.step(note), lambda: ctx.wait(ms=1)]
            for again in further:
                try:
                    again()
                except Suspend:
                    signals.append("again")
            return "swallowed"
        return "done"

    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.run(swallowing, key="k") == "done"
        assert signals == ["Suspend", "again", "again"]
        assert later == []

    run(scenario())


def test_a_raise_after_a_suspension_is_not_an_outcome_either(place: Place) -> None:
    @durable_function
    def raising(ctx: SyncContext) -> str:
        try:
            ctx.wait(ms=20)
        except Suspend:
            raise ValueError("not an outcome") from None
        return "done"

    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.run(raising, key="k") == "done"

    run(scenario())


def test_a_def_function_in_back_off_holds_no_thread(place: Place) -> None:
    tries: list[float] = []

    def flaky() -> int:
        tries.append(time.time())
        if len(tries) == 1:
            raise ConnectionError
        return len(tries)

    @durable_function
    def patient(ctx: SyncContext) -> int:
        return ctx.step(flaky, retry=Retry(attempts=2, first_delay_ms=100, jitter="none"))

    @durable_function
    def quick(ctx: SyncContext) -> int:
        return int(ctx.step(give, 1))

    async def scenario() -> None:
        async with place.engine(body_threads_max=1) as engine:
            execution = await engine.start(patient, key="k")
            await until(lambda: tries)
            assert await engine.run(quick) == 1
            assert len(tries) == 1
            assert await execution.result() == 2
        assert tries[1] - tries[0] >= 0.099

    run(scenario())


def test_more_def_functions_than_threads_finish(place: Place) -> None:
    @durable_function
    def sleepy(ctx: SyncContext, value: int) -> int:
        ctx.wait(ms=5)
        return int(ctx.step(give_in_a_thread, value))

    async def scenario() -> None:
        async with place.engine(body_threads_max=2, step_threads_max=1) as engine:
            answers = await asyncio.gather(*(engine.run(sleepy, value, key=f"k{value}") for value in range(12)))
        assert answers == list(range(12))

    run(scenario())


def test_an_operation_asked_for_by_another_thread_is_refused(place: Place) -> None:
    @durable_function
    def threaded(ctx: SyncContext) -> str:
        found: list[BaseException] = []

        def work() -> None:
            try:
                ctx.step(give, 1)
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(5)
        return f"{type(found[0]).__name__}: {found[0]}" if found else "nothing"

    async def scenario() -> None:
        async with place.engine() as engine:
            answer = await engine.run(threaded)
        assert answer.startswith("ValidationError")
        assert "asked for outside the body" in answer

    run(scenario())


def test_a_divergence_of_a_def_function_parks_it(place: Place) -> None:
    def first(ctx: SyncContext) -> int:
        ctx.step(give, 1, name="old")
        ctx.wait(ms=100)
        return 1

    def second(ctx: SyncContext) -> int:
        ctx.step(give, 1, name="new")
        return 2

    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(redefine("def-diverging", first), key="k")
            await until(lambda: engine.running_count == 0)
        function = redefine("def-diverging", second)
        async with place.engine() as engine:
            with pytest.raises(semel.errors.ReplayError, match=r"recorded STEP 'old'.*STEP 'new'"):
                await engine.run(function, key="k")
            info = await engine.executions.get(execution.id)
            assert info.status == "PARKED"
            mended = redefine("def-diverging", first)
            await engine.executions.resume(execution.id)
            assert await engine.run(mended, key="k") == 1

    run(scenario())


def test_wrong_arguments_of_a_def_function_are_its_failure(place: Place) -> None:
    @durable_function
    def two(ctx: SyncContext, left: int, right: int) -> int:
        return left + right

    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(ExecutionError, match="TypeError"):
                await engine.run(two, 1)  # type: ignore[arg-type]

    run(scenario())


def test_closing_the_engine_lets_a_blocked_def_function_go(place: Place) -> None:
    @durable_function
    def long(ctx: SyncContext) -> str:
        ctx.step(give_in_a_thread, 1)
        ctx.wait(ms=200)
        return "done"

    async def scenario() -> None:
        async with place.engine() as engine:
            await engine.start(long, key="k")
        async with place.engine() as engine:
            assert await engine.run(long, key="k") == "done"
        await until(lambda: not any(thread.name.startswith("semel-body") for thread in threading.enumerate()))

    run(scenario())


def test_async_and_def_code_meet_in_one_engine(place: Place) -> None:
    @durable_function
    async def outer(ctx: Context) -> Any:
        return await ctx.step(give_in_a_thread, 3)

    @durable_function
    def plain(ctx: SyncContext) -> Any:
        return ctx.step(give, 3)

    async def scenario() -> None:
        async with place.engine() as engine:
            assert await asyncio.gather(engine.run(outer), engine.run(plain)) == [3, 3]  # type: ignore[comparison-overlap]
            with pytest.raises(ParkedError):
                await engine.run(redefine("def-stuck", stuck))

    async def stuck(ctx: Context) -> None:
        await asyncio.Event().wait()

    run(scenario())
