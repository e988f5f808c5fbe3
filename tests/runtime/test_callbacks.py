"""Callbacks: operations that somebody outside settles, and what is refused of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from semel import Callback, Context, Engine, Retry, SyncContext, durable_function
from semel.errors import CallbackError
from semel.kernel import ids
from tests.runtime.places import Place, run, types_of
from tests.runtime.post import Post, told

both_ways = pytest.mark.parametrize("residents_max", [0, 1000])
ONCE = Retry(attempts=1)


async def events_of(engine: Engine) -> list[Any]:
    (info,) = (await engine.executions.list()).items
    return await engine.executions.history(info.id)


def awaiting(post: Post, **options: Any) -> Any:
    """A durable function that makes a callback, gives its id away, and returns what becomes of it."""

    @durable_function(name="callbacks.await")
    async def wait(ctx: Context) -> Any:
        callback = await ctx.create_callback(name="approve", **options)
        await ctx.step(post.take, callback.id, name="send")
        try:
            return await callback.result()
        except CallbackError as error:
            return (type(error).__name__, error.error_type, error.message)

    return wait


def awaiting_in_a_thread(post: Post, **options: Any) -> Any:
    @durable_function(name="callbacks.await def")
    def wait(ctx: SyncContext) -> Any:
        callback = ctx.create_callback(name="approve", **options)
        ctx.step(post.take, callback.id, name="send")
        try:
            return callback.result()
        except CallbackError as error:
            return (type(error).__name__, error.error_type, error.message)

    return wait


colours = pytest.mark.parametrize("make", [awaiting, awaiting_in_a_thread], ids=["async", "def"])


@both_ways
@colours
def test_a_value_from_outside_is_the_result(place: Place, make: Any, residents_max: int) -> None:
    post = Post()

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            execution = await engine.start(make(post), key="k")
            await engine.callbacks.succeed(await post.first(), {"by": ("ann", 3)})
            assert await execution.result() == {"by": ("ann", 3)}
            types = types_of(await events_of(engine))
            types.remove("CallbackSucceeded")  # it may come before the step is recorded that gave the id away
            assert types == [
                "ExecutionStarted",
                "CallbackStarted",
                "StepStarted",
                "StepSucceeded",
                "ExecutionSucceeded",
            ]
        assert len(post.ids) == 1

    run(scenario())


@both_ways
@colours
def test_a_failure_from_outside_is_raised_with_its_type_and_message(
    place: Place, make: Any, residents_max: int
) -> None:
    post = Post()
    cases: list[tuple[Any, str | None, tuple[str, str]]] = [
        (ValueError("no funds"), None, ("ValueError", "no funds")),
        ("rejected", None, ("CallbackFailed", "rejected")),
        ("rejected", "Rejected", ("Rejected", "rejected")),
        (ValueError("no"), "Other", ("Other", "no")),
    ]

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            for number, (error, error_type, expected) in enumerate(cases):
                post.ids.clear()
                execution = await engine.start(make(post), key=f"k{number}")
                await engine.callbacks.fail(await post.first(), error, error_type=error_type)
                assert await execution.result() == ("CallbackError", *expected)

    run(scenario())


@both_ways
@colours
def test_one_that_nobody_settles_in_its_time_has_timed_out(place: Place, make: Any, residents_max: int) -> None:
    post = Post()

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            result = await engine.run(make(post, timeout_ms=40), key="k")
            assert result == ("CallbackTimeoutError", "Callback.Timeout", "Callback timed out")
            refused = await told(engine.callbacks.succeed(await post.first(), 1))
            assert refused.startswith("CallbackClosedError: CALLBACK")
            assert [event.type for event in await events_of(engine) if "Callback" in event.type] == [
                "CallbackStarted",
                "CallbackTimedOut",
            ]

    run(scenario())


@both_ways
def test_a_heartbeat_begins_the_time_anew_and_silence_ends_it(place: Place, residents_max: int) -> None:
    post = Post()

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            execution = await engine.start(awaiting(post, heartbeat_ms=400, timeout_ms=60_000), key="k")
            which = await post.first()
            for _ in range(4):
                await asyncio.sleep(0.15)
                await engine.callbacks.heartbeat(which)
            assert (await engine.executions.get(execution.id)).status == "RUNNING"
            result = await execution.result()
            assert result == ("CallbackTimeoutError", "Callback.Heartbeat", "Callback timed out on heartbeat")
            assert (await told(engine.callbacks.heartbeat(which))).startswith("CallbackClosedError")

    run(scenario())


@both_ways
@colours
def test_it_may_be_settled_before_anybody_waits_and_while_the_engine_is_down(
    place: Place, make: Any, residents_max: int
) -> None:
    post = Post()

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            await engine.start(make(post), key="k")
            which = await post.first()
        async with place.engine(residents_max=residents_max) as engine:
            await engine.callbacks.succeed(which, "later")
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(make(post), key="k") == "later"
        assert len(post.ids) == 1

    run(scenario())


def test_the_same_outcome_once_more_changes_nothing_and_another_is_refused(place: Place) -> None:
    post = Post()

    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(awaiting(post), key="k")
            which = await post.first()
            callbacks = engine.callbacks
            await callbacks.succeed(which, 7)
            for _ in range(2):
                await callbacks.succeed(which, 7)
                assert "SUCCEEDED already, expected an open one" in await told(callbacks.succeed(which, 8))
                assert "SUCCEEDED already, expected an open one" in await told(callbacks.fail(which, "no"))
                assert (await told(callbacks.heartbeat(which))).startswith("CallbackClosedError")
                assert await execution.result() == 7
            assert [event.type for event in await events_of(engine)].count("CallbackSucceeded") == 1

    run(scenario())


def test_an_id_that_is_none_or_of_another_journal_is_refused(place: Place) -> None:
    post = Post()
    garbage: list[Any] = ["", "x", "ü", "QUJD", "Q" * 200, None, 3, b"abc"]

    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(awaiting(post), key="k")
            which = await post.first()
            other = ids.callback_id("another journal", execution.id, "1_1")
            altered = which[:10] + ("A" if which[10] != "A" else "B") + which[11:]
            for wrong in [*garbage, which[:-4], altered, other]:
                for ask in (engine.callbacks.succeed, engine.callbacks.heartbeat):
                    assert (await told(ask(wrong))).startswith("ValidationError: callback id")
                assert (await told(engine.callbacks.fail(wrong, "no"))).startswith("ValidationError: callback id")
            await engine.callbacks.succeed(which, "right")
            assert await execution.result() == "right"

    run(scenario())


def test_an_id_of_an_operation_that_is_none_is_not_found(place: Place) -> None:
    post = Post()

    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(awaiting(post), key="k")
            await post.first()
            journal_id = engine.callbacks._journal_id
            for operation in ("1_99", "1_2", execution.id):  # none, a step, the execution itself
                named = ids.callback_id(journal_id, execution.id, operation)
                assert "NotFoundError" in await told(engine.callbacks.succeed(named, 1))
            gone = ids.callback_id(journal_id, "0" * 32, "1_1")
            assert "it was deleted, or never was" in await told(engine.callbacks.succeed(gone, 1))

    run(scenario())


def test_a_value_that_cannot_be_kept_is_refused_and_the_callback_stays_open(place: Place) -> None:
    post = Post()

    async def scenario() -> None:
        async with place.engine(payload_bytes_max=1_000) as engine:
            execution = await engine.start(awaiting(post), key="k")
            which = await post.first()
            assert "LimitExceededError: callback value" in await told(engine.callbacks.succeed(which, b"x" * 1_001))
            assert "SerializationError" in await told(engine.callbacks.succeed(which, object()))
            wrong: Any = 3
            assert "ValidationError: callback error: found 3" in await told(engine.callbacks.fail(which, wrong))
            await engine.callbacks.succeed(which)
            assert await execution.result() is None

    run(scenario())


@pytest.mark.parametrize("end", ["stop", "return", "delete"])
def test_one_whose_execution_has_ended_takes_no_outcome(place: Place, end: str) -> None:
    post = Post()

    @durable_function(name="callbacks.left open")
    async def left_open(ctx: Context, *, wait: bool = True) -> str:
        callback = await ctx.create_callback()
        await ctx.step(post.take, callback.id)
        if end == "stop":
            await callback.result()
        return "returned"

    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(left_open, key="k")
            which = await post.first()
            if end == "stop":
                await engine.executions.stop(execution.id)
            else:
                assert await execution.result() == "returned"
            if end == "delete":
                await engine.executions.delete(execution.id)
            refused = await told(engine.callbacks.succeed(which, 1))
            expected = "NotFoundError" if end == "delete" else "CallbackClosedError"
            assert refused.startswith(expected)
            assert "has ended" in refused or end == "delete"

    run(scenario())


@both_ways
def test_one_that_was_given_up_is_shown_as_cancelled_and_takes_no_outcome(place: Place, residents_max: int) -> None:
    post = Post()

    @durable_function(name="callbacks.given up")
    async def given_up(ctx: Context) -> list[str]:
        callback = await ctx.create_callback(name="late")
        await ctx.step(post.take, callback.id)
        found = []
        try:
            async with asyncio.timeout(0.03):
                await callback.result()
        except TimeoutError:
            found.append("timeout")
        try:
            await callback.result()
        except CallbackError as error:
            found.append(f"{error.error_type}: {error.message}")
        await ctx.wait(ms=5)
        return found

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            first, second = await engine.run(given_up, key="k")
            assert first == "timeout"
            assert second.startswith("Cancelled: it was cancelled with who waited for it")
            assert (await told(engine.callbacks.succeed(post.ids[0], 1))).startswith("CallbackClosedError")
            shown = [event for event in await events_of(engine) if event.type.startswith("Callback")]
        assert [(event.type, event.error_type) for event in shown] == [
            ("CallbackStarted", ""),
            ("CallbackFailed", "Cancelled"),
        ]

    run(scenario())


@both_ways
def test_a_shielded_wait_leaves_the_callback_open(place: Place, residents_max: int) -> None:
    post = Post()

    @durable_function(name="callbacks.shielded")
    async def shielded(ctx: Context) -> str:
        callback = await ctx.create_callback()
        await ctx.step(post.take, callback.id)
        waiting = asyncio.ensure_future(callback.result())
        try:
            async with asyncio.timeout(0.02):
                await asyncio.shield(waiting)
        except TimeoutError:
            return f"then {await waiting}"
        return "at once"

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            execution = await engine.start(shielded, key="k")
            await post.first()
            await asyncio.sleep(0.08)
            await engine.callbacks.succeed(post.ids[0], "came")
            assert await execution.result() == "then came"

    run(scenario())


@both_ways
def test_several_tasks_may_wait_for_one_callback(place: Place, residents_max: int) -> None:
    post = Post()

    @durable_function(name="callbacks.shared")
    async def shared(ctx: Context) -> list[Any]:
        callback = await ctx.create_callback()
        await ctx.step(post.take, callback.id)
        giving_up = asyncio.create_task(callback.result())
        waiting = [asyncio.create_task(callback.result()) for _ in range(3)]
        await asyncio.sleep(0.01)
        giving_up.cancel()
        found = await asyncio.gather(*waiting)
        return [*found, await callback.result(), giving_up.cancelled()]

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            execution = await engine.start(shared, key="k")
            await post.first()
            await asyncio.sleep(0.05)
            await engine.callbacks.succeed(post.ids[0], "x")
            assert await execution.result() == ["x", "x", "x", "x", True]

    run(scenario())


@both_ways
def test_one_made_in_a_child_context_that_has_ended_says_so_to_who_waits_outside(
    place: Place, residents_max: int
) -> None:
    post = Post()

    @durable_function(name="callbacks.frozen")
    async def frozen(ctx: Context) -> list[str]:
        made: list[Callback] = []
        may_end = asyncio.Event()

        async def inner(ctx: Context) -> None:
            made.append(await ctx.create_callback(name="inside"))
            await ctx.step(post.take, made[0].id)
            await may_end.wait()

        async def outcome() -> str:
            try:
                return str(await made[0].result())
            except CallbackError as error:
                return f"{error.error_type}: {error.message}"

        child = asyncio.create_task(ctx.run_in_child_context(inner))
        await ctx.wait(ms=20)
        waiting = asyncio.create_task(outcome())
        await ctx.wait(ms=5)
        may_end.set()
        await child
        return [await waiting, await outcome()]

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            found = await engine.run(frozen, key="k")
            assert [text.partition(",")[0] for text in found] == ["ScopeEnded: its child context has ended"] * 2
            refused = await told(engine.callbacks.succeed(post.ids[0], 1))
            assert refused.startswith("CallbackClosedError")
            assert "has ended" in refused

    run(scenario())


def test_the_id_is_on_disk_before_a_step_has_it(place: Place) -> None:
    found: list[Any] = []

    @durable_function(name="callbacks.durable id")
    async def durable_id(ctx: Context) -> None:
        callback = await ctx.create_callback()

        async def send(which: str) -> None:
            if found:
                return  # it is the copy's engine that goes on with it
            found.append("begun")
            crashed = place.crashed()
            async with crashed.engine() as other:
                found.append(await told(other.callbacks.succeed(which, 1)))

        await ctx.step(send, callback.id, retry=ONCE)

    async def scenario() -> None:
        async with place.engine() as engine:
            await engine.run(durable_id, key="k")

    run(scenario())
    assert found == ["begun", ""]


def test_an_outcome_and_the_time_out_in_the_same_moment_leave_one(place: Place) -> None:
    """Whichever is first in the journal stands, and both sides hear of the same one."""
    post = Post()
    kept, refused = 0, 0

    async def settle(engine: Engine, which: str) -> bool:
        return not await told(engine.callbacks.succeed(which, "came"))

    async def scenario() -> None:
        nonlocal kept, refused
        async with place.engine(poll_ms=50) as engine:
            for number in range(30):
                post.ids.clear()
                execution = await engine.start(awaiting(post, timeout_ms=30), key=f"k{number}")
                which = await post.first()
                await asyncio.sleep(0.02 + 0.0005 * number)
                was_kept = await settle(engine, which)
                result = await execution.result()
                assert (result == "came") is was_kept
                assert was_kept or result[1] == "Callback.Timeout"
                kept, refused = kept + was_kept, refused + (not was_kept)
                events = await engine.executions.history(execution.id)
                ends = [event.type for event in events if event.type.startswith("Callback")][1:]
                assert ends == ["CallbackSucceeded" if was_kept else "CallbackTimedOut"]

    run(scenario())
    assert kept + refused == 30


def test_a_second_engines_arrival_reaches_whoever_runs_the_execution(tmp_path: Any) -> None:
    place = Place("memory", tmp_path)
    post = Post()

    async def scenario() -> None:
        async with place.engine(poll_ms=100) as engine:
            first = await engine.start(awaiting(post), key="k")
            which = await post.first()
            async with place.engine_beside(poll_ms=100) as other:
                await other.callbacks.succeed(which, "from the other")
                assert await first.result() == "from the other"

    run(scenario())
