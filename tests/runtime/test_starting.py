"""Starting, joining, finding, stopping: the table of answers under a key, and what is refused."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from typing import Any

import pytest

import semel
from semel import Context, durable_function
from semel.errors import (
    ExecutionError,
    ExecutionStoppedError,
    IdempotencyConflictError,
    LimitExceededError,
    NotFoundError,
    SerializationError,
    UnavailableError,
    UnknownHandlerError,
    ValidationError,
)
from tests.runtime.places import Place, forget, run, types_of, until, until_it

RUNS: list[Any] = []


@durable_function(name="starting-add")
async def add(ctx: Context, left: Any, right: Any) -> Any:
    RUNS.append((left, right))
    await ctx.wait(ms=10)
    return left + right


@durable_function(name="starting-refuse")
async def refuse(ctx: Context) -> None:
    raise ValueError("declined")


@durable_function(name="starting-long")
async def long(ctx: Context) -> str:
    await ctx.wait(hours=1)
    return "over"


@pytest.fixture(autouse=True)
def _no_runs() -> None:
    RUNS.clear()


def test_a_new_key_runs_and_the_same_request_gets_the_recorded_outcome(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.run(add, 1, Decimal("2.50"), key="k") == Decimal("3.50")
            assert await engine.run(add, 1, Decimal("2.50"), key="k") == Decimal("3.50")
            first = await engine.start(add, 1, Decimal("2.50"), key="k")
            assert await first.result() == Decimal("3.50")
            assert await first.result() == Decimal("3.50")
        async with place.engine() as engine:
            again = await engine.start(add, 1, Decimal("2.50"), key="k")
            assert (again.id, again.name) == (first.id, "k")
            assert await again.result() == Decimal("3.50")
            assert len((await engine.executions.list()).items) == 1
        assert len(RUNS) == 1

    run(scenario())


def test_a_handle_gives_an_outcome_that_came_before_it_was_asked(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine(poll_ms=60_000) as engine:
            execution = await engine.start(add, 1, 2, key="k")

            async def is_over() -> bool:
                return (await engine.executions.get(execution.id)).status == "SUCCEEDED"

            await until_it(is_over)
            assert await execution.result() == 3
        with pytest.raises(UnavailableError, match="it is closed"):
            await execution.result()

    run(scenario())


def test_fifty_callers_at_once_share_one_execution(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine(workers=2) as engine:
            answers = await asyncio.gather(*(engine.run(add, 2, 3, key="k") for _ in range(50)))
        assert answers == [5] * 50
        assert RUNS == [(2, 3)]

    run(scenario())


@pytest.mark.parametrize(
    "other", [(1, 3), (1, 2, 3), (True, 2), (1.0, 2), ("1", 2), (Decimal(1), 2)], ids=lambda other: repr(other)
)
def test_another_request_under_a_key_is_refused_and_changes_nothing(place: Place, other: tuple[Any, ...]) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(add, 1, 2, key="k")
            for _ in range(2):
                with pytest.raises(IdempotencyConflictError, match="'k' of function 'starting-add'"):
                    await engine.run(add, *other, key="k")
                assert await execution.result() == 3
            assert len((await engine.executions.list()).items) == 1

    run(scenario())


def test_keys_belong_to_one_function_and_one_namespace(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.run(add, 1, 2, key="k") == 3
            with pytest.raises(ExecutionError):
                await engine.run(refuse, key="k")
        async with place.engine(namespace="other") as engine:
            assert (await engine.executions.list()).items == []
            assert await engine.run(add, 5, 5, key="k") == 10
            with pytest.raises(NotFoundError):
                await engine.executions.get("x", function="starting-add")

    run(scenario())


def test_without_a_key_each_start_is_an_execution_of_its_own(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            first, second = await engine.start(add, 1, 2), await engine.start(add, 1, 2)
            assert first.id != second.id
            assert first.name == first.id
            assert [await first.result(), await second.result()] == [3, 3]

    run(scenario())


def test_a_failure_is_an_outcome_like_any_other(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            messages = []
            for _ in range(2):
                with pytest.raises(ExecutionError) as caught:
                    await engine.run(refuse, key="k")
                messages.append((caught.value.name, caught.value.error_type, caught.value.message))
            assert messages == [("k", "ValueError", "declined")] * 2
            info = await engine.executions.get("k", function="starting-refuse")
            assert (info.status, info.error_type, info.error_message) == ("FAILED", "ValueError", "declined")

    run(scenario())


@pytest.mark.parametrize(
    "key", ["", "x" * 256, "café", "tab\tkey", "new\nline", "\ud800", 7, b"k"], ids=lambda key: repr(key)[:12]
)
def test_a_key_that_will_not_do_is_refused_and_nothing_is_stored(place: Place, key: Any) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(ValidationError, match="printable ASCII"):
                await engine.run(add, 1, 2, key=key)
            assert (await engine.executions.list()).items == []
            assert await engine.run(add, 1, 2, key="x" * 255) == 3
        assert RUNS == [(1, 2)]

    run(scenario())


class Unkept:
    """Nothing the codec knows."""


def test_an_argument_that_cannot_be_kept_is_refused_and_nothing_is_stored(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine(payload_bytes_max=1000) as engine:
            with pytest.raises(SerializationError, match="Unkept"):
                await engine.run(add, 1, Unkept(), key="k")
            with pytest.raises(LimitExceededError, match=r"expected at most 1000; keep it elsewhere"):
                await engine.run(add, "x" * 1000, "y", key="k")
            assert (await engine.executions.list()).items == []
            assert await engine.run(add, 1, 2, key="k") == 3

    run(scenario())


def test_a_return_value_that_cannot_be_kept_is_a_failure(place: Place) -> None:
    @durable_function
    async def leak(ctx: Context) -> Any:
        return {"deep": [Unkept()]}

    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(ExecutionError, match="Unkept") as caught:
                await engine.run(leak)
            assert caught.value.error_type == "SerializationError"

    run(scenario())


@pytest.mark.parametrize("where", ["step", "child", "outcome"])
def test_no_value_over_the_payload_limit_is_recorded(place: Place, where: str) -> None:
    async def big() -> str:
        return "x" * 2000

    async def child(ctx: Context) -> str:
        return "x" * 2000

    @durable_function
    async def grow(ctx: Context, where: str) -> str:
        try:
            if where == "step":
                return await ctx.step(big, retry=semel.Retry(attempts=1))
            if where == "child":
                return await ctx.run_in_child_context(child)
        except semel.errors.OperationError as error:
            return error.error_type
        return "x" * 2000

    async def scenario() -> None:
        async with place.engine(payload_bytes_max=1000) as engine:
            if where == "outcome":
                with pytest.raises(ExecutionError, match="expected at most 1000"):
                    await engine.run(grow, where)
            else:
                assert await engine.run(grow, where) == "LimitExceededError"

    run(scenario())


def test_a_function_that_is_not_durable_is_refused(place: Place) -> None:
    async def plain(ctx: Context) -> int:
        return 1

    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(UnknownHandlerError, match="@durable_function"):
                await engine.run(plain)

    run(scenario())


def test_wrong_arguments_are_a_failure_of_the_execution(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(ExecutionError) as caught:
                await engine.run(add, 1, key="k")  # type: ignore[arg-type]
            assert caught.value.error_type == "TypeError"

    run(scenario())


# Looking.


def test_lists_are_paged_newest_first_and_filtered(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine(page_max=4) as engine:
            for number in range(5):
                await engine.run(add, number, 0, key=f"k{number}")
            with pytest.raises(ExecutionError):
                await engine.run(refuse, key="r")
            first = await engine.executions.list(limit=4)
            rest = await engine.executions.list(limit=4, after=first.next)
            assert [info.name for info in [*first.items, *rest.items]] == ["r", "k4", "k3", "k2", "k1", "k0"]
            assert rest.next is None
            assert [info.name for info in (await engine.executions.list(status="FAILED", limit=4)).items] == ["r"]
            assert len((await engine.executions.list(function="starting-add", limit=4)).items) == 4
            with pytest.raises(LimitExceededError):
                await engine.executions.list(limit=5)
            with pytest.raises(ValidationError):
                await engine.executions.list(limit=0)

    run(scenario())


def test_an_execution_is_found_by_id_and_by_name_and_shows_its_outcome(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(add, 1, 2, key="k")
            running = await engine.executions.get(execution.id)
            assert (running.status, running.name, running.ended_ms) == ("RUNNING", "k", None)
            await execution.result()
            by_id = await engine.executions.get(execution.id)
            assert by_id == await engine.executions.get("k", function="starting-add")
            assert (by_id.status, by_id.result, by_id.holder) == ("SUCCEEDED", 3, None)
            assert by_id.ended_ms is not None
            assert by_id.ended_ms >= by_id.started_ms + 10
            for wrong in ("k", "nothing"):
                with pytest.raises(NotFoundError, match="there is none in namespace 'default'"):
                    await engine.executions.get(wrong)
            history = await engine.executions.history(execution.id)
            assert [event.event_id for event in history] == list(range(1, len(history) + 1))
            assert types_of(history) == ["ExecutionStarted", "WaitStarted", "WaitSucceeded", "ExecutionSucceeded"]

    run(scenario())


# Stopping.


def test_stopping_a_waiting_execution_ends_it_and_tells_who_waits(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(long, key="k")
            waiting = asyncio.create_task(execution.result())
            await asyncio.sleep(0.02)
            info = await engine.executions.stop("k", function="starting-long", reason="enough")
            assert (info.status, info.error_message) == ("STOPPED", "enough")
            with pytest.raises(ExecutionStoppedError, match="enough"):
                await waiting
            with pytest.raises(ExecutionStoppedError, match="enough"):
                await engine.run(long, key="k")
        async with place.engine() as engine:
            with pytest.raises(ExecutionStoppedError):
                await engine.run(long, key="k")

    run(scenario())


def test_stopping_while_a_step_runs_drops_its_result(place: Place) -> None:
    async def scenario() -> None:
        begun, may_end = threading.Event(), threading.Event()
        after: list[int] = []

        def work() -> str:
            begun.set()
            may_end.wait(5)
            return "dropped"

        @durable_function
        async def stopped(ctx: Context) -> None:
            await ctx.step(work)
            after.append(1)

        async with place.engine() as engine:
            execution = await engine.start(stopped, key="k")
            await until(begun.is_set)
            info = await engine.executions.stop(execution.id)
            assert info.status == "STOPPED"
            with pytest.raises(ExecutionStoppedError):
                await execution.result()
            before = await engine.executions.history(execution.id)
            may_end.set()
            await until(lambda: engine.running_count == 0)
            assert await engine.executions.history(execution.id) == before
        assert after == []

    run(scenario())


def test_stopping_after_the_end_changes_nothing(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(add, 1, 2, key="k")
            assert await execution.result() == 3
            before = await engine.executions.history(execution.id)
            info = await engine.executions.stop(execution.id, reason="late")
            assert (info.status, info.result) == ("SUCCEEDED", 3)
            assert await engine.executions.history(execution.id) == before
            assert await engine.run(add, 1, 2, key="k") == 3
            with pytest.raises(NotFoundError):
                await engine.executions.stop("nothing")

    run(scenario())


def test_an_execution_whose_code_is_not_here_waits_and_is_listed(place: Place) -> None:
    name = "starting-elsewhere"

    async def elsewhere(ctx: Context) -> str:
        await ctx.wait(ms=50)
        return "here again"

    async def scenario() -> None:
        function = durable_function(name=name)(elsewhere)
        async with place.engine() as engine:
            await engine.start(function, key="k")
        forget(name)
        async with place.engine() as engine:
            await asyncio.sleep(0.1)
            (info,) = (await engine.executions.list()).items
            assert (info.status, info.function) == ("RUNNING", name)
            assert engine.running_count == 0
        function = durable_function(name=name)(elsewhere)
        async with place.engine() as engine:
            assert await engine.run(function, key="k") == "here again"

    run(scenario())
