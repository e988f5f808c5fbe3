"""Large values that cross from stream to stream, come from outside, or stay between two checks."""

from __future__ import annotations

from typing import Any

import pytest

from semel import Context, Poll, SyncContext, durable_function
from semel.errors import CallbackClosedError, ExecutionError, LimitExceededError
from semel.journal.chunks import CHUNK_BYTES
from tests.runtime.places import Place, redefine, run, until

SIZE = 3 * CHUNK_BYTES
TWICE = Poll(until=lambda state: len(state) > SIZE, first_delay_ms=5, factor=1.0)
IDS: list[str] = []


def text(letter: str) -> str:
    return letter * SIZE


@durable_function(name="large-child")
async def child(ctx: Context, given: str) -> str:
    await ctx.wait(ms=2)
    return given.upper()


async def hand_out(callback_id: str) -> None:
    IDS.append(callback_id)


async def look(state: str) -> str:
    return state + text("e")


async def outside(ctx: Context) -> list[str]:
    invoked = await ctx.invoke(child, text("i"))
    told = await ctx.wait_for_callback(hand_out)
    seen = await ctx.wait_for_condition(look, "", poll=TWICE)
    await ctx.wait(ms=2)
    return [invoked, told, seen]


def outside_def(ctx: SyncContext) -> list[str]:
    invoked = ctx.invoke(child, text("i"))
    told = ctx.wait_for_callback(hand_out)
    seen = ctx.wait_for_condition(look, "", poll=TWICE)
    ctx.wait(ms=2)
    return [invoked, told, seen]


@pytest.mark.parametrize("body", [outside, outside_def])
@pytest.mark.parametrize("residents_max", [0, 1000])
def test_they_are_the_same_live_and_replayed(place: Place, body: Any, residents_max: int) -> None:
    async def scenario() -> None:
        function = redefine(f"large-{body.__name__}", body)
        async with place.engine(residents_max=residents_max) as engine:
            handle = await engine.start(function, key="k")
            await until(lambda: IDS)
            callback = IDS.pop()
            await engine.callbacks.succeed(callback, text("t"))
            await engine.callbacks.succeed(callback, text("t"))  # the same once more
            with pytest.raises(CallbackClosedError):
                await engine.callbacks.succeed(callback, text("u"))
            assert await handle.result() == [text("I"), text("t"), text("e") * 2]
        async with place.engine() as engine:
            assert await engine.run(function, key="k") == [text("I"), text("t"), text("e") * 2]

    run(scenario())


async def asking(ctx: Context, given: str) -> list[str]:
    told = []
    for attempt in (lambda: ctx.invoke(child, given), lambda: ctx.wait(ms=1)):
        try:
            told.append(str(await attempt())[:1])
        except LimitExceededError as error:
            told.append(str(error))
    return told


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_the_arguments_and_the_outcome_of_an_invoke_count(place: Place, more: int) -> None:
    async def scenario() -> None:
        function = redefine("large-asking", asking)
        # The arguments of both, the outcome of the invoke, and what is returned.
        limit = 1_004 + 1_004 + 1_003 + 5 - more
        async with place.engine(execution_bytes_max=limit) as engine:
            if more <= 0:
                assert await engine.run(function, "g" * 1_000) == ["G", "N"]
            else:
                with pytest.raises(ExecutionError, match=f"recorded {limit + 1} bytes"):
                    await engine.run(function, "g" * 1_000)

    run(scenario())


def test_after_the_arguments_of_an_invoke_are_refused_nothing_is_begun(place: Place) -> None:
    async def scenario() -> None:
        function = redefine("large-asking", asking)
        async with place.engine(execution_bytes_max=2_007) as engine:
            told = await engine.run(function, "g" * 1_000, key="r")
            assert "arguments of CHAINED_INVOKE 'large-child' it would have recorded 2008 bytes" in told[0]
            assert "would be operation 1, expected at most 0" in told[1]

    run(scenario())
