"""invoke: another function as an execution of its own, and its outcome as the result."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import semel
from semel import Context, Engine, Retry, SyncContext, durable_function, plain_function
from semel.errors import ExecutionError, ExecutionStoppedError, InvokeError, InvokeTimeoutError
from tests.runtime.places import Place, forget, redefine, run, types_of, until_it

both_ways = pytest.mark.parametrize("residents_max", [0, 1000])
NOBODY = "invoke.nobody has this"


async def give(value: Any) -> Any:
    return value


@durable_function(name="invoke.double")
async def double(ctx: Context, n: int, *, by: int = 2) -> int:
    await ctx.wait(ms=2)
    return int(await ctx.step(give, n)) * by


@durable_function(name="invoke.double def")
def double_def(ctx: SyncContext, n: int) -> int:
    ctx.wait(ms=2)
    return int(ctx.step(give, n)) * 2


@plain_function(name="invoke.plain")
async def plain(n: int, text: str) -> str:
    return text * n


@plain_function(name="invoke.plain def")
def plain_def(n: int, text: str) -> str:
    return text * n


@plain_function(name="invoke.plain broken")
def plain_broken() -> None:
    raise OSError("disk")


@durable_function(name="invoke.broken")
async def broken(ctx: Context) -> None:
    raise LookupError("no such order")


@durable_function(name="invoke.slow")
async def slow(ctx: Context) -> str:
    await ctx.wait(ms=400)
    return await ctx.step(give, "slow")


@durable_function(name="invoke.forever")
async def forever(ctx: Context) -> None:
    await ctx.wait(days=1)


def invoking(*asked: Any, **options: Any) -> Any:
    """A durable function that invokes, and returns the result or what was raised."""

    @durable_function(name="invoke.parent")
    async def parent(ctx: Context) -> Any:
        try:
            return await ctx.invoke(*asked, **options)
        except InvokeError as error:
            return (type(error).__name__, error.name, error.error_type, error.message)

    return parent


def invoking_in_a_thread(*asked: Any, **options: Any) -> Any:
    @durable_function(name="invoke.parent def")
    def parent(ctx: SyncContext) -> Any:
        try:
            return ctx.invoke(*asked, **options)
        except InvokeError as error:
            return (type(error).__name__, error.name, error.error_type, error.message)

    return parent


colours = pytest.mark.parametrize("make", [invoking, invoking_in_a_thread], ids=["async", "def"])


async def children(engine: Engine, function: str) -> list[semel.ExecutionInfo]:
    return (await engine.executions.list(function=function)).items


@both_ways
@colours
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((double, 21), 42),
        ((double_def, 21), 42),
        (("invoke.double", 4), 8),
        ((plain, 3, "ab"), "ababab"),
        ((plain_def, 3, "ab"), "ababab"),
        (("invoke.plain def", 1, "x"), "x"),
    ],
    ids=["durable", "def", "by name", "plain", "plain def", "plain by name"],
)
def test_the_outcome_of_the_other_function_is_the_result(
    place: Place, make: Any, asked: Any, expected: Any, residents_max: int
) -> None:
    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            execution = await engine.start(make(*asked), key="k")
            assert await execution.result() == expected
            events = await engine.executions.history(execution.id)
            assert types_of(events) == [
                "ExecutionStarted",
                "ChainedInvokeStarted",
                "ChainedInvokeSucceeded",
                "ExecutionSucceeded",
            ]
            started, ended = events[1], next(event for event in events if event.type == "ChainedInvokeSucceeded")
            name = asked[0] if isinstance(asked[0], str) else asked[0].__semel_function__.name
            assert (started.name, started.subtype, started.result) == (name, "ChainedInvoke", list(asked[1:]))
            assert ended.result == expected
            (child,) = await children(engine, name)
            assert (child.status, child.name) == ("SUCCEEDED", f"{execution.id}:{started.id}")
        async with place.engine() as engine:
            assert await engine.run(make(*asked), key="k") == expected
            assert len(await children(engine, name)) == 1

    run(scenario())


@both_ways
@colours
def test_a_failure_is_raised_with_the_type_and_message_of_the_other(
    place: Place, make: Any, residents_max: int
) -> None:
    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            found = await engine.run(make(broken, name="look"), key="k1")
            assert found == ("InvokeError", "look", "LookupError", "no such order")
            found = await engine.run(make(plain_broken), key="k2")
            assert found == ("InvokeError", "invoke.plain broken", "OSError", "disk")

    run(scenario())


@both_ways
@colours
def test_after_its_time_the_invoke_fails_and_the_other_goes_on(place: Place, make: Any, residents_max: int) -> None:
    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            execution = await engine.start(make(slow, timeout_ms=40), key="k")
            name, _, error_type, message = await execution.result()
            assert (name, error_type) == ("InvokeTimeoutError", "ChainedInvoke.Timeout")
            assert message.startswith("CHAINED_INVOKE timed out")
            assert issubclass(InvokeTimeoutError, InvokeError)
            (child,) = await children(engine, "invoke.slow")
            assert child.status == "RUNNING"
            await until_it(lambda: _has_ended(engine, child.id))
            assert (await engine.executions.get(child.id)).result == "slow"
            types = [event.type for event in await engine.executions.history(execution.id)]
            assert types.count("ChainedInvokeTimedOut") == 1
            assert "ChainedInvokeSucceeded" not in types

    run(scenario())


async def _has_ended(engine: Engine, which: str) -> bool:
    return (await engine.executions.get(which)).status != "RUNNING"


@both_ways
@colours
def test_one_that_was_stopped_is_an_error_of_the_invoke(place: Place, make: Any, residents_max: int) -> None:
    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            execution = await engine.start(make(forever), key="k")
            await until_it(lambda: children(engine, "invoke.forever"))
            (child,) = await children(engine, "invoke.forever")
            await engine.executions.stop(child.id, reason="enough")
            name, asked, _, message = await execution.result()
            assert (name, asked) == ("InvokeError", "invoke.forever")
            assert "enough" in message
            types = [event.type for event in await engine.executions.history(execution.id)]
            assert "ChainedInvokeStopped" in types

    run(scenario())


@both_ways
def test_one_that_had_no_time_of_its_own_left_is_an_error_of_the_invoke(place: Place, residents_max: int) -> None:
    @durable_function(name="invoke.short", timeout_ms=30)
    async def short(ctx: Context) -> None:
        await ctx.wait(days=1)

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            name, _, _, message = await engine.run(invoking(short), key="k")
            assert name == "InvokeError"
            assert message == "it had no outcome when its time was over"
            (child,) = await children(engine, "invoke.short")
            assert child.status == "TIMED_OUT"

    run(scenario())


@both_ways
@pytest.mark.parametrize("end", ["stop", "cancel", "return"])
def test_the_other_goes_on_when_the_one_that_asked_ends(place: Place, end: str, residents_max: int) -> None:
    @durable_function(name="invoke.parent that ends")
    async def parent(ctx: Context) -> str:
        task = asyncio.create_task(ctx.invoke(slow))
        await ctx.wait(ms=20)
        if end == "cancel":
            task.cancel()
            await ctx.wait(ms=5)
        if end == "stop":
            await ctx.wait(days=1)
        return "parent"

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            execution = await engine.start(parent, key="k")
            await until_it(lambda: children(engine, "invoke.slow"))
            if end == "stop":
                await engine.executions.stop(execution.id)
                with pytest.raises(ExecutionStoppedError):
                    await execution.result()
            else:
                assert await execution.result() == "parent"
            (child,) = await children(engine, "invoke.slow")
            await until_it(lambda: _has_ended(engine, child.id))
            assert (await engine.executions.get(child.id)).result == "slow"

    run(scenario())


@both_ways
@colours
def test_an_invoke_survives_that_the_engine_goes_away_between_start_and_end(
    place: Place, make: Any, residents_max: int
) -> None:
    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            await engine.start(make(slow), key="k")
            await until_it(lambda: children(engine, "invoke.slow"))
            crashed = place.crashed()
        for one in (crashed, place):
            async with one.engine(residents_max=residents_max) as engine:
                assert await engine.run(make(slow), key="k") == "slow"
                assert len(await children(engine, "invoke.slow")) == 1

    run(scenario())


@both_ways
def test_invokes_side_by_side_are_told_in_one_order_for_ever(place: Place, residents_max: int) -> None:
    @durable_function(name="invoke.fan out")
    async def fan_out(ctx: Context) -> list[Any]:
        order: list[int] = []

        async def one(n: int) -> int:
            value = await ctx.invoke(double, n, name=f"double {n}")
            order.append(n)
            return value

        found = await asyncio.gather(*(one(n) for n in range(8)))
        told = list(order)
        await ctx.step(give, told)
        await ctx.wait(ms=5)
        return [found, sorted(told)]

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(fan_out, key="k") == [[0, 2, 4, 6, 8, 10, 12, 14], list(range(8))]

    run(scenario())


@both_ways
def test_invokes_nest_and_a_function_may_invoke_itself(place: Place, residents_max: int) -> None:
    @durable_function(name="invoke.factorial")
    async def factorial(ctx: Context, n: int) -> int:
        return 1 if n == 0 else n * int(await ctx.invoke("invoke.factorial", n - 1))

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(factorial, 6, key="k") == 720
            assert len(await children(engine, "invoke.factorial")) == 7

    run(scenario())


def test_arguments_that_the_other_does_not_take_are_its_failure(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            name, _, error_type, message = await engine.run(invoking("invoke.double"), key="k")
        assert (name, error_type) == ("InvokeError", "TypeError")
        assert "missing 1 required positional argument" in message

    run(scenario())


def test_a_name_that_no_worker_has_waits_and_is_told_of_once(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="semel")
    forget(NOBODY)

    @durable_function(name="invoke.twice nobody")
    async def twice(ctx: Context) -> list[Any]:
        return list(await asyncio.gather(ctx.invoke(NOBODY, 1), ctx.invoke(NOBODY, 2)))

    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(twice, key="k")
            await until_it(lambda: children(engine, NOBODY))
            await asyncio.sleep(0.05)
            waiting = await children(engine, NOBODY)
            assert [(info.status, info.waiting_for) for info in waiting] == [("RUNNING", NOBODY)] * 2
            assert (await engine.executions.get(execution.id)).waiting_for == ""

            async def now_there(ctx: Context, n: int) -> int:
                return n

            redefine(NOBODY, now_there)
            assert await execution.result() == [1, 2]
        forget(NOBODY)

    run(scenario())
    warnings = [record.getMessage() for record in caplog.records if NOBODY in record.getMessage()]
    assert len(warnings) == 1
    assert "no worker of this engine has it" in warnings[0]


def test_a_name_that_no_worker_has_may_be_given_a_time(place: Place) -> None:
    forget(NOBODY)

    async def scenario() -> None:
        async with place.engine() as engine:
            name, _, error_type, _ = await engine.run(invoking(NOBODY, timeout_ms=30), key="k")
        assert (name, error_type) == ("InvokeTimeoutError", "ChainedInvoke.Timeout")

    run(scenario())


def test_a_plain_function_runs_once_and_takes_no_context(place: Place) -> None:
    calls: list[int] = []

    @plain_function(name="invoke.counted")
    def counted(n: int) -> int:
        calls.append(n)
        raise OSError("once")

    async def scenario() -> None:
        async with place.engine() as engine:
            assert (await engine.run(invoking(counted, 1), key="k"))[0] == "InvokeError"
            with pytest.raises(ExecutionError):
                await engine.run(counted, 2, key="direct")  # type: ignore[arg-type]
        assert calls == [1, 2]
        assert plain_def(2, "x") == "xx"

    run(scenario())


def test_an_invoke_under_a_timeout_is_given_up_and_shown_so(place: Place) -> None:
    @durable_function(name="invoke.gives up")
    async def gives_up(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.03):
                await ctx.invoke(forever)
        except TimeoutError:
            await ctx.step(give, 1, retry=Retry.none())
        return "gave up"

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            execution = await engine.start(gives_up, key="k")
            assert await execution.result() == "gave up"
            shown = [event for event in await engine.executions.history(execution.id) if "Invoke" in event.type]
            assert [(event.type, event.error_type) for event in shown] == [
                ("ChainedInvokeStarted", ""),
                ("ChainedInvokeFailed", "Cancelled"),
            ]
            (child,) = await children(engine, "invoke.forever")
            await engine.executions.stop(child.id)  # its end is told to nobody, and that is no fault
            assert (await engine.executions.get(execution.id)).result == "gave up"

    run(scenario())
