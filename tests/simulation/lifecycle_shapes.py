"""Executions that are paused, resumed, stopped, timed out, deleted and swept, by those who also wait for them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from semel import Context, Limits, SyncContext, durable_function
from semel.errors import ExecutionError
from semel.testing import Client, Shape
from tests.simulation.function_shapes import QUICK, add, aliases, always_broken, once, plain, slow

TIMED_OUT = "raised ExecutionTimedOutError: execution 'k' failed with ExecutionTimedOut: it had no outcome"
OUT_OF_TIME = f"{TIMED_OUT} when its time was over"


@durable_function(name="sim.long_way")
async def long_way(ctx: Context, n: int) -> int:
    n = await ctx.step(add, n, 1)
    await ctx.wait(seconds=2)
    n = await ctx.step(slow, n, 1_500)
    return await ctx.step(add, n, 1)


@durable_function(name="sim.side_ways")
async def side_ways(ctx: Context) -> list[Any]:
    async def wait_then(inner: Context, seconds: float) -> int:
        await inner.wait(seconds=seconds)
        return await inner.step(add, 1, 1)

    return list(
        await asyncio.gather(
            ctx.run_in_child_context(wait_then, 0.5),
            ctx.step(slow, 2, 1_500),
            ctx.step(always_broken, retry=QUICK),
            ctx.run_in_child_context(wait_then, 1),
            ctx.step(once, 3),
            return_exceptions=True,
        )
    )[:2]


@durable_function(name="sim.sync_way")
def sync_way(ctx: SyncContext) -> int:
    n = ctx.step(plain, 1)
    ctx.wait(seconds=2)
    return ctx.step(plain, n)


def paused(function: Any, *arguments: Any, after_s: float, for_s: float, **options: Any) -> Any:
    async def scenario(client: Client) -> Any:
        await client.start(function, *arguments, key="k")
        await asyncio.sleep(after_s)
        await client.pause(function, "k", **options)
        await asyncio.sleep(for_s)
        await client.resume(function, "k")
        return await client.run(function, *arguments, key="k")

    return scenario


@durable_function(name="sim.timed", timeout_ms=2_000)
async def timed(ctx: Context) -> int:
    n = await ctx.step(add, 1, 1)
    await ctx.wait(seconds=5)
    return await ctx.step(add, n, 1)


@durable_function(name="sim.timed_step", timeout_ms=1_000)
async def timed_step(ctx: Context) -> int:
    async def inside(inner: Context) -> int:
        return await inner.step(slow, 1, 3_000)

    first, _ = await asyncio.gather(ctx.run_in_child_context(inside), ctx.wait(days=1))
    return first


@durable_function(name="sim.timed_sync", timeout_ms=1_000)
def timed_sync(ctx: SyncContext) -> int:
    n = ctx.step(plain, 1)
    ctx.wait(seconds=3)
    return ctx.step(plain, n)


@durable_function(name="sim.just_in_time", timeout_ms=2_000)
async def just_in_time(ctx: Context) -> int:
    await ctx.wait(seconds=2)
    return await ctx.step(add, 1, 1)


async def stopped(client: Client) -> str:
    await client.start(long_way, 1, key="k")
    await asyncio.sleep(2.5)
    await client.stop(long_way, "k")
    try:
        return str(await client.run(long_way, 1, key="k"))
    except ExecutionError as error:
        return type(error).__name__


@durable_function(name="sim.grandchild")
async def grandchild(ctx: Context) -> int:
    await ctx.wait(seconds=4)
    return await ctx.step(add, 1, 1)


@durable_function(name="sim.child")
async def child(ctx: Context) -> int:
    return await ctx.invoke(grandchild)


@durable_function(name="sim.family")
async def family(ctx: Context) -> list[int]:
    return await asyncio.gather(ctx.invoke(child), ctx.invoke(grandchild))


def stopped_family(**options: Any) -> Any:
    async def scenario(client: Client) -> str:
        await client.start(family, key="k")
        await asyncio.sleep(1.5)
        await client.stop(family, "k", **options)
        try:
            return str(await client.run(family, key="k"))
        except ExecutionError as error:
            return type(error).__name__

    return scenario


async def deleted(client: Client) -> list[Any]:
    first = await client.run(long_way, 1, key="k")
    await client.delete(long_way, "k")
    return [first, await client.run(long_way, 1, key="k")]


async def deleted_and_forgotten(client: Client) -> list[Any]:
    first = await client.run(long_way, 1, key="k")
    await client.delete(long_way, "k")
    await client.forget_key(long_way, "k")
    return [first, await client.run(long_way, 1, key="k")]


async def swept(client: Client) -> list[Any]:
    found = await asyncio.gather(client.run(sync_way, key="a"), client.run(aliases, key="b"))
    await client.delete(sync_way, "a")
    await asyncio.sleep(9)
    return [*found, await client.run(sync_way, key="a")]


def run_of(function: Any) -> Callable[[Client], Awaitable[Any]]:
    async def scenario(client: Client) -> Any:
        return await client.run(function, key="k")

    return scenario


PAUSES: dict[str, tuple[Any, Limits]] = {
    "paused while it waits": (paused(long_way, 1, after_s=1, for_s=3), Limits()),
    "paused in a step": (paused(long_way, 1, after_s=2.5, for_s=3), Limits()),
    "paused in a step, evicted": (paused(long_way, 1, after_s=2.5, for_s=3), Limits(residents_max=0)),
    "paused and resumed in a step": (paused(long_way, 1, after_s=2.5, for_s=0.2), Limits()),
    "paused beside": (paused(side_ways, after_s=0.3, for_s=4), Limits()),
    "paused beside, resumed early": (paused(side_ways, after_s=0.3, for_s=0.4), Limits()),
    "sync, paused": (paused(sync_way, after_s=1, for_s=2), Limits()),
}
TIMES: dict[str, tuple[Any, Limits, frozenset[str]]] = {
    "timed out in a wait": (run_of(timed), Limits(), frozenset({"returned 3"})),
    "timed out in a wait, evicted": (run_of(timed), Limits(residents_max=0), frozenset({"returned 3"})),
    "timed out in a step": (run_of(timed_step), Limits(), frozenset({"returned 1"})),
    "timed out, sync": (run_of(timed_sync), Limits(), frozenset({"returned 4"})),
    "just in time": (run_of(just_in_time), Limits(), frozenset({"returned 2", OUT_OF_TIME})),
    "timed out while paused": (
        paused(timed, after_s=1, for_s=3, timeout_paused=False),
        Limits(),
        frozenset({"returned 3"}),
    ),
    "paused with its clock held": (
        paused(just_in_time, after_s=1, for_s=5),
        Limits(),
        frozenset({"returned 2", OUT_OF_TIME}),
    ),
}
SWEEP = Limits(retention_ms=6_000, sweep_ms=1_000)


def lifecycle_shapes() -> list[Shape]:
    shapes = [Shape(name=name, scenario=scenario, limits=limits) for name, (scenario, limits) in PAUSES.items()]
    shapes.extend(
        Shape(name=name, scenario=scenario, limits=limits, outcomes=outcomes)
        for name, (scenario, limits, outcomes) in TIMES.items()
    )
    stopped_or_not = frozenset({"returned '3'", "returned 'ExecutionStoppedError'"})
    shapes.append(Shape(name="stopped by its caller", scenario=stopped, limits=Limits(), outcomes=stopped_or_not))
    for name, options in {"a family stopped": {"children": True}, "a parent stopped": {}}.items():
        outcomes = frozenset({"returned '[2, 2]'", "returned 'ExecutionStoppedError'", "returned 'ExecutionError'"})
        shapes.append(Shape(name=name, scenario=stopped_family(**options), limits=Limits(), outcomes=outcomes))
    shapes.append(Shape(name="deleted", scenario=deleted, limits=Limits()))
    shapes.append(Shape(name="deleted and forgotten", scenario=deleted_and_forgotten, limits=Limits()))
    shapes.append(Shape(name="swept", scenario=swept, limits=SWEEP))
    return shapes
