"""What is read in compiled code: where a name is mentioned, what may come after a call, who set a timer."""

# branches are what is looked at

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import semel
from semel import Context
from semel.runtime.present_code import PresentCode
from tests.runtime.places import Place, redefine, run, until_it


async def reserve() -> None: ...
async def charge() -> None: ...


@semel.step(name="ship-parcel")
async def ship() -> None:
    await charge()


async def straight(ctx: Context) -> None:
    await ctx.step(reserve)
    await ctx.step(
        ship,
        name=None,
    )


async def branching(ctx: Context, is_big: bool) -> None:
    if is_big:
        await ctx.step(reserve)
    else:
        await ctx.step(charge)


async def looping(ctx: Context) -> None:
    for _ in range(3):
        await ctx.step(charge)
        await ctx.step(reserve)
    try:
        await ctx.step(ship)
    except ValueError:
        await ctx.step(charge, name="again")


async def settle(ctx: Context) -> None:
    await ctx.step(charge)


async def nested(ctx: Context) -> None:
    async def inner() -> None:
        await ctx.step(reserve)

    await asyncio.gather(inner(), settle(ctx))


def line_of(function: Callable[..., Any], offset: int) -> str:
    return f"runtime/test_present_code.py:{function.__code__.co_firstlineno + offset}"


def test_a_name_is_where_the_call_is_that_it_is_handed_to() -> None:
    code = PresentCode(straight)
    assert code.places("reserve") == (line_of(straight, 1),)
    assert code.places("ship-parcel") == code.places("ship") == (line_of(straight, 2),)
    assert code.places("charge") == ()


def test_what_stands_in_the_other_branch_does_not_follow() -> None:
    code = PresentCode(branching)
    assert code.follows("charge", line_of(branching, 2)) is False
    assert code.follows("reserve", line_of(branching, 4)) is False
    assert PresentCode(straight).follows("ship", line_of(straight, 1)) is True
    assert PresentCode(straight).follows("reserve", line_of(straight, 2)) is False


def test_going_round_a_loop_and_an_exception_do_not_count_as_following() -> None:
    code = PresentCode(looping)
    assert code.follows("reserve", line_of(looping, 2)) is True
    assert code.follows("charge", line_of(looping, 3)) is False
    assert code.follows("ship-parcel", line_of(looping, 3)) is True
    assert code.follows("again", line_of(looping, 5)) is False


def test_functions_inside_and_helpers_are_read_and_steps_are_not() -> None:
    code = PresentCode(nested)
    assert code.places("reserve") == (line_of(nested, 2),)
    assert code.places("charge") == (line_of(settle, 1),)
    assert code.follows("charge", line_of(nested, 2)) is None
    assert PresentCode(straight).places("charge") == ()


def test_methods_of_a_handlers_class_are_read() -> None:
    class Till:
        async def pay(self, ctx: Context) -> None:
            await self.finish(ctx)

        async def finish(self, ctx: Context) -> None:
            await ctx.step(reserve)

    assert PresentCode(Till.pay, owner=Till).places("reserve") == (line_of(Till.finish, 1),)


def test_a_function_without_a_body_of_python_mentions_nothing() -> None:
    assert PresentCode(print).places("reserve") == ()


async def sleeps(ctx: Context) -> None:
    await asyncio.sleep(3600)


async def times_out(ctx: Context) -> None:
    async with asyncio.timeout(3600):
        await ctx.wait(hours=2)


async def waits_for(ctx: Context) -> None:
    await asyncio.wait_for(ctx.wait(hours=2), timeout=3600)


async def calls_later(ctx: Context) -> None:
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(3600, done.set_result, None)
    await done


async def calls_by_itself(ctx: Context) -> None:
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_later, 3600, print)
    await ctx.wait(hours=2)


@pytest.mark.parametrize(
    ("function", "offset"),
    [(sleeps, 1), (times_out, 1), (waits_for, 1), (calls_later, 2), (calls_by_itself, None)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_timer_is_recorded_with_the_line_that_set_it(
    place: Place, function: Callable[..., Any], offset: int | None
) -> None:
    async def scenario() -> list[str]:
        async with place.engine() as engine:
            execution = await engine.start(redefine("timed", function), key="k")

            async def is_waiting() -> bool:
                return any(event.name == "timer" for event in await engine.executions.history(execution.id))

            await until_it(is_waiting)
            return [event.source for event in await engine.executions.history(execution.id) if event.name == "timer"]

    assert run(scenario()) == ["" if offset is None else line_of(function, offset)]
