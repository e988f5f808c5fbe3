"""Each limit at one below, at it and at one over, in `async def` and in `def`, live and after a restart."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from semel import Context, DurabilityFacet, Engine, GenServer, Retry, SyncContext, call
from semel.errors import ActorError, ChildContextError, ExecutionError, LimitExceededError, StepError
from semel.kernel import values
from tests.runtime.places import Place, redefine, run, until_it

ONCE = Retry(attempts=1)
EDGES = [-1, 0, 1]
LIMIT = 10_000
colours = pytest.mark.parametrize("colour", ["async", "def"])
edges = pytest.mark.parametrize("more", EDGES)
memories = pytest.mark.parametrize("residents_max", [0, 1000])


def of_size(size: int) -> bytes:
    """A value that takes exactly so many bytes."""
    value = b"x" * (size - (2 if size < 258 else 3))
    assert len(values.encode(value)) == size
    return value


async def give(size: int) -> bytes:
    return of_size(size)


async def fail_with(size: int) -> None:
    raise ValueError("x" * size)


def named(colour: str, name: str, *, in_async: Any, in_def: Any) -> Any:
    return redefine(f"limits-{name}-{colour}", in_async if colour == "async" else in_def)


# A value: Limits.payload_bytes_max.


async def at_the_edge(ctx: Context, where: str, size: int) -> Any:
    async def inner(ctx: Context) -> bytes:
        return of_size(size)

    try:
        if where == "step":
            return len(await ctx.step(give, size))
        if where == "child":
            return len(await ctx.run_in_child_context(inner))
    except (StepError, ChildContextError) as error:
        return error.error_type
    return of_size(size)


def at_the_edge_def(ctx: SyncContext, where: str, size: int) -> Any:
    def inner(ctx: SyncContext) -> bytes:
        return of_size(size)

    try:
        if where == "step":
            return len(ctx.step(give, size))
        if where == "child":
            return len(ctx.run_in_child_context(inner))
    except (StepError, ChildContextError) as error:
        return error.error_type
    return of_size(size)


@colours
@edges
@pytest.mark.parametrize("where", ["step", "child", "outcome"])
def test_a_value_of_exactly_the_limit_is_recorded_and_one_of_a_byte_more_is_not(
    place: Place, colour: str, more: int, where: str
) -> None:
    async def scenario() -> None:
        function = named(colour, "value", in_async=at_the_edge, in_def=at_the_edge_def)
        async with place.engine(payload_bytes_max=LIMIT) as engine:
            size = LIMIT + more
            if where == "outcome":
                if more > 0:
                    with pytest.raises(ExecutionError, match=f"found {LIMIT + 1} bytes, expected at most") as caught:
                        await engine.run(function, where, size)
                    assert caught.value.error_type == "LimitExceededError"
                else:
                    assert len(await engine.run(function, where, size)) == size - 3
                return
            expected = "LimitExceededError" if more > 0 else size - 3
            assert await engine.run(function, where, size, key="k") == expected
            assert await engine.run(function, where, size, key="k") == expected

    run(scenario())


@edges
def test_arguments_of_exactly_the_limit_are_taken(place: Place, more: int) -> None:
    async def length(ctx: Context, value: bytes) -> int:
        return len(value)

    async def scenario() -> None:
        function = redefine("limits-arguments", length)
        async with place.engine(payload_bytes_max=LIMIT) as engine:
            value = of_size(LIMIT + more - 1)  # the list around them takes one
            assert len(values.encode([value])) == LIMIT + more
            if more > 0:
                with pytest.raises(LimitExceededError, match="arguments of 'limits-arguments'"):
                    await engine.run(function, value)
                assert (await engine.executions.list()).items == []
            else:
                assert await engine.run(function, value) == LIMIT + more - 4

    run(scenario())


class Shelf(GenServer[bytes]):
    """Keeps bytes, and answers with as many."""

    facets = [DurabilityFacet()]

    def init(self) -> bytes:
        return b""

    @call
    async def keep(self, ctx: Context, size: int) -> int:
        self.state = of_size(size)
        return size

    @call
    async def answer(self, ctx: Context, size: int) -> bytes:
        return of_size(size)

    @call
    def answer_def(self, ctx: SyncContext, size: int) -> bytes:
        return of_size(size)


@edges
def test_replies_and_states_of_an_actor_have_the_limit_of_a_value_and_no_other(place: Place, more: int) -> None:
    async def scenario() -> None:
        bounds = {"payload_bytes_max": LIMIT, "execution_bytes_max": 20, "execution_operations_max": 1}
        async with place.engine(**bounds) as engine:
            shelf = engine.actor(Shelf, "s")
            for method in (Shelf.keep, Shelf.answer, Shelf.answer_def):
                if more > 0:
                    with pytest.raises(ActorError) as caught:
                        await shelf.call(method, LIMIT + more)
                    assert caught.value.error_type == "LimitExceededError"
                else:
                    await shelf.call(method, LIMIT + more)

    run(scenario())


# An execution: Limits.execution_bytes_max.


async def in_parts(ctx: Context, sizes: list[int], wait_ms: int) -> list[str]:
    found = []
    for size in sizes:
        try:
            await ctx.step(give, size, retry=ONCE)
            found.append("")
        except StepError as error:
            found.append(error.error_type)
        if wait_ms:
            await ctx.wait(ms=wait_ms)
    return found


def in_parts_def(ctx: SyncContext, sizes: list[int], wait_ms: int) -> list[str]:
    found = []
    for size in sizes:
        try:
            ctx.step(give, size, retry=ONCE)
            found.append("")
        except StepError as error:
            found.append(error.error_type)
        if wait_ms:
            ctx.wait(ms=wait_ms)
    return found


def spent(*values_: Any) -> int:
    return sum(len(values.encode(value)) for value in values_)


@colours
@edges
@memories
@pytest.mark.parametrize("wait_ms", [0, 2])
def test_an_execution_records_exactly_as_many_bytes_as_its_limit(
    place: Place, colour: str, more: int, residents_max: int, wait_ms: int
) -> None:
    async def scenario() -> None:
        function = named(colour, "bytes", in_async=in_parts, in_def=in_parts_def)
        sizes = [4000, 3000, 500]
        result = ["", "", ""]
        limit = spent([sizes, wait_ms], result) + sum(sizes) - more
        if more > 0:
            limit -= spent(result)  # what it returns has to fit too, after the last step was refused
        async with place.engine(residents_max=residents_max, execution_bytes_max=limit) as engine:
            if more > 0:
                with pytest.raises(ExecutionError, match=f"expected at most {limit}") as caught:
                    await engine.run(function, sizes, wait_ms, key="k")
                assert caught.value.error_type == "LimitExceededError"
                history = await engine.executions.history((await engine.executions.list()).items[0].id)
                errors = [event.error_message for event in history if event.type == "StepFailed"]
                assert len(errors) == 1
                assert f"'k' of limits-bytes-{colour}" in errors[0]
                assert f"{limit + 1} bytes" in errors[0]
            else:
                assert await engine.run(function, sizes, wait_ms, key="k") == result

    run(scenario())


@colours
def test_what_is_over_the_limit_is_the_bodys_to_catch_and_smaller_things_go_on(place: Place, colour: str) -> None:
    async def scenario() -> None:
        function = named(colour, "caught", in_async=in_parts, in_def=in_parts_def)
        for residents_max in (0, 1000):
            async with place.engine(residents_max=residents_max, execution_bytes_max=LIMIT) as engine:
                found = await engine.run(function, [4000, 9000, 9000, 400], 2, key=f"k{residents_max}")
                assert found == ["", "LimitExceededError", "LimitExceededError", ""]

    run(scenario())


@edges
def test_bytes_are_counted_on_after_a_restart(place: Place, more: int) -> None:
    async def scenario() -> None:
        function = named("async", "restart", in_async=in_parts, in_def=None)
        sizes, wait_ms = [4000, 3000], 300
        limit = spent([sizes, wait_ms], ["", ""]) + sum(sizes) - more
        async with place.engine(execution_bytes_max=limit) as engine:
            handle = await engine.start(function, sizes, wait_ms, key="k")
            await until_it(lambda: waiting(engine, handle.id))
        async with place.engine(execution_bytes_max=limit) as engine:
            if more > 0:  # both steps fit, and then not what is returned
                with pytest.raises(ExecutionError, match=f"recorded {limit + 1} bytes, expected at most {limit}"):
                    await engine.run(function, sizes, wait_ms, key="k")
            else:
                assert await engine.run(function, sizes, wait_ms, key="k") == ["", ""]

    run(scenario())


async def waiting(engine: Engine, execution: str) -> bool:
    return (await engine.executions.history(execution))[-1].type == "InvocationCompleted"


@colours
def test_a_step_is_not_tried_again_when_its_errors_have_used_up_the_limit(place: Place, colour: str) -> None:
    often = Retry(attempts=1000, first_delay_ms=1, factor=1.0, jitter="none")

    async def failing(ctx: Context) -> str:
        try:
            await ctx.step(fail_with, 1000, retry=often)
        except StepError as error:
            return error.error_type
        return "unreachable"

    def failing_def(ctx: SyncContext) -> str:
        try:
            ctx.step(fail_with, 1000, retry=often)
        except StepError as error:
            return error.error_type
        return "unreachable"

    async def scenario() -> None:
        function = named(colour, "errors", in_async=failing, in_def=failing_def)
        async with place.engine(execution_bytes_max=LIMIT) as engine:
            handle = await engine.start(function)
            assert await handle.result() == "LimitExceededError"
            failures = [e for e in await engine.executions.history(handle.id) if e.type == "StepFailed"]
            assert 3 <= len(failures) <= 10
            assert "expected at most 10000" in failures[-1].error_message

    run(scenario())


# An execution: Limits.execution_operations_max.


async def operations(ctx: Context, count: int, *, catch: bool = False) -> Any:
    done = 0
    try:
        while done < count:
            match done % 3:
                case 0:
                    await ctx.step(give, 10)
                case 1:
                    await ctx.wait(ms=1)
                case _:
                    await asyncio.sleep(0.001)
            done += 1
    except LimitExceededError as error:
        if not catch:
            raise
        return [done, str(error)]
    return done


async def operations_caught(ctx: Context, count: int) -> Any:
    return await operations(ctx, count, catch=True)


def operations_def(ctx: SyncContext, count: int, *, catch: bool = False) -> Any:
    done = 0
    try:
        while done < count:
            if done % 2:
                ctx.wait(ms=1)
            else:
                ctx.step(give, 10)
            done += 1
    except LimitExceededError as error:
        if not catch:
            raise
        return [done, str(error)]
    return done


def operations_caught_def(ctx: SyncContext, count: int) -> Any:
    return operations_def(ctx, count, catch=True)


async def operations_let_out(ctx: Context, count: int) -> Any:
    return await operations(ctx, count)


def operations_let_out_def(ctx: SyncContext, count: int) -> Any:
    return operations_def(ctx, count)


@colours
@edges
@memories
def test_an_execution_has_exactly_as_many_operations_as_its_limit(
    place: Place, colour: str, more: int, residents_max: int
) -> None:
    async def scenario() -> None:
        caught = named(colour, "operations", in_async=operations_caught, in_def=operations_caught_def)
        let_out = named(colour, "let-out", in_async=operations_let_out, in_def=operations_let_out_def)
        async with place.engine(residents_max=residents_max, execution_operations_max=7) as engine:
            if more <= 0:
                assert await engine.run(caught, 7 + more) == 7 + more
                return
            done, said = await engine.run(caught, 8, key="k")
            assert done == 7
            assert said.startswith(f"execution 'k' of limits-operations-{colour}: ")
            assert "would be operation 8, expected at most 7" in said
            with pytest.raises(ExecutionError) as failed:
                await engine.run(let_out, 8)
            assert failed.value.error_type == "LimitExceededError"

    run(scenario())


@memories
def test_operations_asked_for_at_once_count_and_a_child_contexts_are_among_them(
    place: Place, residents_max: int
) -> None:
    async def child(ctx: Context) -> int:
        await ctx.step(give, 10)
        return len(await ctx.step(give, 11))

    async def wide(ctx: Context) -> list[str]:
        await ctx.run_in_child_context(child)  # three operations
        await ctx.wait(ms=1)
        asked = [ctx.step(give, 10) for _ in range(5)]
        return [type(found).__name__ for found in await asyncio.gather(*asked, return_exceptions=True)]

    async def scenario() -> None:
        function = redefine("limits-wide", wide)
        async with place.engine(residents_max=residents_max, execution_operations_max=7) as engine:
            assert await engine.run(function) == ["bytes"] * 3 + ["LimitExceededError"] * 2

    run(scenario())


def test_a_higher_limit_lets_an_execution_go_on_where_it_was_refused(place: Place) -> None:
    async def patient(ctx: Context) -> str:
        first = asyncio.ensure_future(ctx.wait(ms=300))
        await asyncio.sleep(0)  # it is the one operation that is allowed
        try:
            await ctx.step(give, 10)
        except LimitExceededError:
            await first
            return "refused"
        await first
        return "done"

    async def scenario() -> None:
        function = redefine("limits-patient", patient)
        async with place.engine(execution_operations_max=1) as engine:
            handle = await engine.start(function, key="k")
            await until_it(lambda: waiting(engine, handle.id))
        async with place.engine() as engine:
            assert await engine.run(function, key="k") == "done"

    run(scenario())


# The warning before.


def warnings_of(caplog: pytest.LogCaptureFixture, limit: str) -> list[str]:
    found = [record for record in caplog.records if f"Limits.{limit}" in record.getMessage()]
    assert {(record.name, record.levelname) for record in found} <= {("semel", "WARNING")}
    return [record.getMessage() for record in found]


@colours
def test_at_80_percent_of_each_limit_a_run_says_so_once(
    place: Place, colour: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        function = named(colour, "warned", in_async=in_parts, in_def=in_parts_def)
        sizes = [800, 1000, 1000, 1000, 1000, 1000, 1000, 1000]
        total = spent([sizes, 0]) + sum(sizes)
        bounds = {"payload_bytes_max": 1250, "execution_operations_max": 10}
        async with place.engine(execution_bytes_max=total * 100 // 80, **bounds) as engine:
            assert await engine.run(function, sizes, 0, key="k") == [""] * len(sizes)
        for limit, found in (
            ("payload_bytes_max", "1,000 bytes, which is 80 %"),
            ("execution_bytes_max", f"{total:,} bytes recorded, which is 80 %"),
            ("execution_operations_max", "8 operations, which is 80 %"),
        ):
            (message,) = warnings_of(caplog, limit)
            assert f"execution 'k' of limits-warned-{colour}" in message
            assert found in message

    with caplog.at_level(logging.WARNING, "semel"):
        run(scenario())


def test_below_80_percent_nothing_is_said(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        function = redefine("limits-quiet", in_parts)
        sizes = [500, 600, 700]
        total = spent([sizes, 0], ["", "", ""]) + sum(sizes)
        bounds = {"payload_bytes_max": 876, "execution_operations_max": 4}
        async with place.engine(execution_bytes_max=total * 100 // 80 + 2, **bounds) as engine:
            assert await engine.run(function, sizes, 0) == ["", "", ""]
        assert [record for record in caplog.records if "Limits." in record.getMessage()] == []

    with caplog.at_level(logging.WARNING, "semel"):
        run(scenario())


def test_each_run_says_it_again(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        function = redefine("limits-again", in_parts)
        for life in range(2):
            async with place.engine(execution_operations_max=2) as engine:
                handle = await engine.start(function, [10], 150, key="k")
                await (handle.result() if life else until_it(lambda: waiting(engine, handle.id)))  # noqa: B023
        assert len(warnings_of(caplog, "execution_operations_max")) == 2

    with caplog.at_level(logging.WARNING, "semel"):
        run(scenario())
