"""wait_for_callback: an id given away in a step, and the wait for what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from semel import Context, Retry, SyncContext, durable_function
from semel.errors import CallbackError, ExecutionError
from tests.runtime.places import Place, run, types_of
from tests.runtime.post import Post

both_ways = pytest.mark.parametrize("residents_max", [0, 1000])
ONCE = Retry(attempts=1)


def waiting_for(post: Post, submitter: Any, **options: Any) -> Any:
    @durable_function(name="callbacks.wait_for")
    async def wait(ctx: Context) -> Any:
        try:
            return await ctx.wait_for_callback(submitter, "order", **options)
        except CallbackError as error:
            return (type(error).__name__, error.error_type, error.message)

    return wait


def waiting_for_in_a_thread(post: Post, submitter: Any, **options: Any) -> Any:
    @durable_function(name="callbacks.wait_for def")
    def wait(ctx: SyncContext) -> Any:
        try:
            return ctx.wait_for_callback(submitter, "order", **options)
        except CallbackError as error:
            return (type(error).__name__, error.error_type, error.message)

    return wait


both_colours = pytest.mark.parametrize("make", [waiting_for, waiting_for_in_a_thread], ids=["async", "def"])


@both_ways
@both_colours
def test_wait_for_callback_gives_the_id_away_and_waits(place: Place, make: Any, residents_max: int) -> None:
    post = Post()

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            for number, submitter in enumerate((post.take, post.take_in_a_thread)):
                post.ids.clear()
                execution = await engine.start(make(post, submitter, name="ask"), key=f"k{number}")
                await engine.callbacks.succeed(await post.first(), "yes")
                assert await execution.result() == "yes"
            events = await engine.executions.history(execution.id)
        types = types_of(events)
        types.remove("CallbackSucceeded")  # it may come before the step is recorded that gave the id away
        assert types == [
            "ExecutionStarted",
            "ContextStarted",
            "CallbackStarted",
            "StepStarted",
            "StepSucceeded",
            "ContextSucceeded",
            "ExecutionSucceeded",
        ]
        names = {event.type: event.name for event in events if event.type.endswith("Started")}
        assert names["ContextStarted"] == "ask"
        assert names["CallbackStarted"] == "ask create callback id"
        assert names["StepStarted"] == "ask submitter"

    run(scenario())


@both_ways
@both_colours
def test_wait_for_callback_raises_what_became_of_it(place: Place, make: Any, residents_max: int) -> None:
    post = Post()

    async def unable(_which: str, _order: str) -> None:
        raise ConnectionError("nobody there")

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            timed_out = await engine.run(make(post, post.take, timeout_ms=30), key="k1")
            assert timed_out == ("CallbackTimeoutError", "Callback.Timeout", "Callback timed out")
            silent = await engine.run(make(post, post.take, heartbeat_ms=30), key="k2")
            assert silent[:2] == ("CallbackTimeoutError", "Callback.Heartbeat")
            name, error_type, message = await engine.run(make(post, unable, retry=ONCE), key="k3")
            assert (name, error_type) == ("CallbackSubmitterError", "CallbackSubmitterError")
            assert "ConnectionError: nobody there" in message
            post.ids.clear()
            execution = await engine.start(make(post, post.take), key="k4")
            await engine.callbacks.fail(await post.first(), "no", error_type="Refused")
            assert await execution.result() == ("CallbackError", "Refused", "no")

    run(scenario())


def test_a_callback_error_that_nobody_catches_is_the_executions(place: Place) -> None:
    post = Post()

    @durable_function(name="callbacks.uncaught")
    async def uncaught(ctx: Context) -> Any:
        return await ctx.wait_for_callback(post.take, timeout_ms=10)

    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(ExecutionError) as caught:
                await engine.run(uncaught, key="k")
            assert caught.value.error_type == "CallbackTimeoutError"

    run(scenario())
