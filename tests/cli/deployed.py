"""Durable code of which a test deploys a version: DEPLOYED says which."""

import os
import sys

from semel import Retry, durable_function

DEPLOYED = os.environ.get("DEPLOYED", "first")


async def reserve(n: int) -> int:
    print("reserved", n, file=sys.stderr)
    return n


async def ship(n: int) -> int:
    return n


if DEPLOYED != "gone":

    @durable_function(name="deployed-order")
    async def order(ctx, n: int) -> int:
        print("replaying order", n)
        await ctx.step(reserve, n, name="book" if DEPLOYED == "renamed" else "reserve", retry=Retry(attempts=1))
        await ctx.wait(days=1, name="night")
        return await ctx.step(ship, n)


LONG_MS = 300

if DEPLOYED != "gone":

    @durable_function(name="deployed-pinned", pin=True)
    async def pinned(ctx, n: int) -> int:
        await ctx.wait(ms=LONG_MS, name="night")
        return n
