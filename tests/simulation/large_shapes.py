"""Values of several chunks, in functions and actors, at every point where a crash might tear a row from its chunks."""

import asyncio
from typing import Any

import semel
from semel import Context, DurabilityFacet, GenServer, Limits, Poll, SyncContext, call, cast, durable_function
from semel.errors import LimitExceededError, StepError
from semel.testing import Client, Message, Model, Shape, answer, effect

KEY = semel.EFFECT_KEY
SIZE = 150_000  # three chunks
TWICE = Poll(until=lambda state: len(state) > SIZE, first_delay_ms=300, factor=1.0)
State = dict[str, str]


async def page(letter: str, effect_key: str = KEY) -> str:
    effect("page", effect_key, letter)
    return letter * SIZE


async def join(*pages: str, effect_key: str = KEY) -> str:
    effect("join", effect_key, *(page[:1] for page in pages))
    return "".join(pages)


async def chapter(ctx: Context, letter: str) -> str:
    return await ctx.step(page, letter)


@durable_function(name="sim.large")
async def large(ctx: Context, given: str) -> str:
    first = await ctx.step(page, "a")
    second = await ctx.run_in_child_context(chapter, "b")
    await ctx.wait(ms=500)
    return await ctx.step(join, given, first, second)


def plain_chapter(ctx: SyncContext, letter: str) -> str:
    return ctx.step(page, letter)


@durable_function(name="sim.large_sync")
def large_sync(ctx: SyncContext, given: str) -> str:
    first = ctx.step(page, "a")
    second = ctx.run_in_child_context(plain_chapter, "b")
    ctx.wait(ms=500)
    return ctx.step(join, given, first, second)


@durable_function(name="sim.chunked_child")
async def chunked_child(ctx: Context, given: str) -> str:
    return given + await ctx.step(page, "c")


async def ask_for_a_page(callback_id: str, effect_key: str = KEY) -> None:
    effect("ask", effect_key)
    answer(callback_id, "d" * SIZE, after_ms=50)


async def look(state: str, effect_key: str = KEY) -> str:
    effect("look", effect_key)
    return state + "e" * SIZE


@durable_function(name="sim.large_outside")
async def large_outside(ctx: Context, given: str) -> str:
    """Values that go from stream to stream, come from outside, and stay between two checks."""
    child = await ctx.invoke(chunked_child, given)
    told = await ctx.wait_for_callback(ask_for_a_page)
    seen = await ctx.wait_for_condition(look, "", poll=TWICE)
    return child + told + seen


async def some(n: int, effect_key: str = KEY) -> str:
    effect("some", effect_key, n)
    return "x" * n


@durable_function(name="sim.limited")
async def limited(ctx: Context) -> list[str]:
    """Runs into both limits of an execution, and goes on."""
    found = []
    for n in (400, 5_000, 300):
        try:
            found.append(str(len(await ctx.step(some, n))))
        except StepError as error:
            found.append(error.error_type)
        await ctx.wait(ms=300)
    try:
        await asyncio.gather(ctx.step(some, 1), ctx.step(some, 2), ctx.step(some, 3))
    except LimitExceededError:
        found.append("too many")
    return found


@durable_function(name="sim.limited_sync")
def limited_sync(ctx: SyncContext) -> list[str]:
    found = []
    for n in (400, 5_000, 300):
        try:
            found.append(str(len(ctx.step(some, n))))
        except StepError as error:
            found.append(error.error_type)
        ctx.wait(ms=300)
    try:
        while True:
            ctx.step(some, 1)
    except LimitExceededError:
        found.append("too many")
    return found


async def run_limited(client: Client) -> Any:
    return await asyncio.gather(client.run(limited, key="k"), client.run(limited_sync, key="k"))


class Library(GenServer[State]):
    """Keeps pages."""

    facets = [DurabilityFacet(checkpoint_interval=2)]

    def init(self) -> State:
        return {}

    @call
    async def add(self, ctx: Context, letter: str, text: str) -> str:
        drawn = await ctx.step(page, letter)
        self.state[letter] = text + drawn
        return drawn

    @cast
    async def note(self, ctx: Context, text: str) -> None:
        self.state["note"] = text


def apply(state: State, method: str, arguments: tuple[Any, ...]) -> State:
    """What the handlers make of the state."""
    if method == "note":
        return state | {"note": arguments[0]}
    letter, text = arguments
    return state | {letter: text + letter * SIZE}


async def library(client: Client) -> Any:
    first = await client.call(Library, "l", Library.add, "a", "x" * SIZE, key="k1")
    again = await client.call(Library, "l", Library.add, "a", "x" * SIZE, key="k1")
    second = await client.call(Library, "l", Library.add, "b", "y" * SIZE, key="k2")
    return [len(first), first == again, len(second)]


def run_of(function: Any) -> Any:
    async def scenario(client: Client) -> Any:
        result = await client.run(function, "g" * SIZE, key="k")
        return [len(result), result[0], result[SIZE], result[-1]]

    return scenario


def large_shapes() -> list[Shape]:
    gone = Limits(residents_max=0)
    models = {"Library": Model(init=dict, apply=apply)}
    message = Message(Library, "l", "note", ("n" * SIZE,))
    bounded = {"execution_bytes_max": 3_000, "execution_operations_max": 8}
    return [
        Shape(name="limits", scenario=run_limited, limits=Limits(**bounded)),
        Shape(name="limits, evicted", scenario=run_limited, limits=Limits(residents_max=0, **bounded)),
        Shape(name="large values", scenario=run_of(large), limits=Limits()),
        Shape(name="large values, evicted", scenario=run_of(large), limits=gone),
        Shape(name="large values from outside", scenario=run_of(large_outside), limits=Limits()),
        Shape(name="large values from outside, evicted", scenario=run_of(large_outside), limits=gone),
        Shape(name="large values, sync", scenario=run_of(large_sync), limits=Limits()),
        Shape(
            name="large values of an actor",
            scenario=library,
            limits=Limits(passivate_ms=3_000),
            models=models,
            message=message,
            linger_s=5,
        ),
    ]
