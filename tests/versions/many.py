"""A store with as many open executions as one asks for: each has steps, a child context, a gather and a long wait."""

from __future__ import annotations

import asyncio
from typing import Any

import semel
from semel import Context, SyncContext


async def give(value: int) -> int:
    return value


def plain(value: int) -> int:
    return value


async def child(ctx: Context, n: int) -> int:
    return await ctx.step(give, n) + await ctx.step(give, n + 1)


@semel.durable_function(name="many.order")
async def order(ctx: Context, n: int) -> int:
    total = 0
    for place in range(3):
        total += await ctx.step(give, n + place)
    total += await ctx.run_in_child_context(child, n)
    total += sum(await asyncio.gather(*(ctx.step(give, place) for place in range(3))))
    await ctx.wait(days=1, name="night")
    return total


@semel.durable_function(name="many.sync")
def sync_order(ctx: SyncContext, n: int) -> int:
    total = ctx.step(give, n) + ctx.step(give, n + 1)
    ctx.wait(days=1, name="night")
    return total


@semel.durable_function(name="many.other")
async def other(ctx: Context, n: int) -> int:
    await ctx.step(give, n)
    await ctx.wait(days=1, name="night")
    return n


async def fill(store: str, count: int, functions: tuple[Any, ...] = (order,)) -> None:
    async with semel.Engine(store) as engine:
        for start in range(0, count, 1000):
            begun = (
                engine.start(functions[n % len(functions)], n, key=f"k-{n}")
                for n in range(start, min(start + 1000, count))
            )
            await asyncio.gather(*begun)
        while engine.running_count:
            await asyncio.sleep(0.01)
