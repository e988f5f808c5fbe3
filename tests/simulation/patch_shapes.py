"""Durable functions whose code changes while the process is down: before and after, told apart by ctx.patched."""

import asyncio
import contextlib
from typing import Any

from semel import Context, Limits, SyncContext, durable_function
from semel.errors import NotFoundError, WrongStatusError
from semel.testing import Client, Shape
from tests.simulation.function_shapes import add, plain, slow


def is_deployed(ctx: Any) -> bool:
    """Whether the code that runs is the new one: it was deployed while the process was down for the first time."""
    seam = getattr(ctx._seam, "_body", ctx._seam)
    number: int = seam.services.loop.witness._process.number
    return number > 0


# What is new stands in a context of its own: a step that was begun and not recorded by the old code has
# the effect key of its number, and no other step may have that.


async def checked_payment(ctx: Context, n: int) -> int:
    return await ctx.step(plain, n) + 1000


@durable_function(name="sim.patched")
async def patched(ctx: Context) -> int:
    """What is recorded decides which path a run takes, and every later replay takes it too."""
    n = await ctx.step(add, 1, 1)
    await ctx.wait(ms=50)
    if is_deployed(ctx) and ctx.patched("checked payment"):
        n += await ctx.run_in_child_context(checked_payment, n)
    else:
        n = await ctx.step(add, n, 100)
    await ctx.wait(ms=50)
    return await ctx.step(add, n, int(is_deployed(ctx) and ctx.patched("checked payment")))


async def branch(ctx: Context, n: int, ms: int) -> int:
    n = await ctx.step(slow, n, ms)
    if is_deployed(ctx) and ctx.patched("both"):
        return await ctx.run_in_child_context(checked_payment, n)
    return await ctx.step(add, n, 100)


@durable_function(name="sim.patched_beside")
async def patched_beside(ctx: Context) -> list[int]:
    """Two branches come to the same patch: they are told the same."""
    found = await asyncio.gather(branch(ctx, 1, 30), branch(ctx, 2, 60))
    await ctx.wait(ms=50)
    return found


@durable_function(name="sim.patched_before_wait")
async def patched_before_wait(ctx: Context) -> int:
    """All that tells a run which went past is a wait that has begun."""
    n = await ctx.step(add, 1, 1)
    if is_deployed(ctx) and ctx.patched("fee"):
        n = await ctx.run_in_child_context(checked_payment, n)
    await ctx.wait(ms=50)
    return n


@durable_function(name="sim.sync_patched")
def sync_patched(ctx: SyncContext) -> int:
    n = ctx.step(add, 1, 1)
    if is_deployed(ctx) and ctx.patched("fee"):
        n += ctx.step(plain, 500)
    ctx.wait(ms=50)
    return n


@durable_function(name="sim.pinned", pin=True)
async def pinned(ctx: Context) -> int:
    n = await ctx.step(add, 1, 1)
    await ctx.wait(ms=50)
    n = await ctx.step(add, n, 100)
    await ctx.wait(ms=50)
    return await ctx.step(plain, n)


async def unpinned(client: Client) -> Any:
    """Let go at any moment of its life, and again in each life of the process."""

    async def let_go() -> None:
        await asyncio.sleep(0.07)
        with contextlib.suppress(WrongStatusError, NotFoundError):
            await client.engine.executions.unpin("k", function="sim.pinned")

    found, _ = await asyncio.gather(client.run(pinned, key="k"), let_go())
    return found


# What the new code makes of a run that the old one began.
SHAPES: dict[str, tuple[Any, frozenset[str]]] = {
    "patched": (patched, frozenset({"returned 1007"})),
    "patched beside": (patched_beside, frozenset({"returned [1002, 1004]"})),
    "patched before a wait": (patched_before_wait, frozenset({"returned 1004"})),
    "sync patched": (sync_patched, frozenset({"returned 1002"})),
    "pinned": (pinned, frozenset()),
}


def patch_shapes() -> list[Shape]:
    shapes = []
    for name, (function, outcomes) in SHAPES.items():
        for variant, limits in {name: Limits(), f"{name}, evicted": Limits(residents_max=0)}.items():
            shapes.append(Shape(name=variant, scenario=one_run(function), limits=limits, outcomes=outcomes))
    shapes.extend(
        Shape(name=name, scenario=unpinned, limits=limits)
        for name, limits in {"unpinned": Limits(), "unpinned, evicted": Limits(residents_max=0)}.items()
    )
    return [shape for shape in shapes if shape.name != "sync patched, evicted"]  # it is never resident


def one_run(function: Any) -> Any:
    async def scenario(client: Client) -> Any:
        return await client.run(function, key="k")

    return scenario
