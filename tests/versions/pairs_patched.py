"""Code before and after a change: patches, and `def` functions."""

# ruff: noqa: N805  # a class is only the name of a pair here

from __future__ import annotations

import asyncio

from semel import Context, SyncContext
from tests.versions.pairs import doubled, give, give_more, pair, plain, slow, tripled


@pair("patched: a step added in the middle")
class PatchedAdded:
    async def before(ctx: Context) -> list[int]:
        first = await ctx.step(give, 1)
        await ctx.wait(ms=100)
        return [first, await ctx.step(plain, 2)]

    async def after(ctx: Context) -> list[int]:
        first = await ctx.step(give, 1)
        if ctx.patched("more"):
            await ctx.step(give_more, 7)
        await ctx.wait(ms=100)
        return [first, await ctx.step(plain, 2)]


@pair("patched: a step replaced by another")
class PatchedReplaced:
    async def before(ctx: Context) -> list[int]:
        first = await ctx.step(give, 1)
        second = await ctx.step(give, 2)
        await ctx.wait(ms=100)
        return [first, second]

    async def after(ctx: Context) -> list[int]:
        first = await ctx.step(give, 1)
        second = await ctx.step(plain, 2) if ctx.patched("plain") else await ctx.step(give, 2)
        await ctx.wait(ms=100)
        return [first, second]


@pair("patched: in the branches of a gather")
class PatchedGather:
    async def before(ctx: Context) -> list[int]:
        async def branch(n: int, ms: int) -> int:
            return await ctx.step(slow, n, ms) + await ctx.step(give, n)

        return list(await asyncio.gather(branch(1, 20), branch(2, 50)))

    async def after(ctx: Context) -> list[int]:
        async def branch(n: int, ms: int) -> int:
            first = await ctx.step(slow, n, ms)
            return first + (await ctx.step(plain, n) if ctx.patched("plain") else await ctx.step(give, n))

        return list(await asyncio.gather(branch(1, 20), branch(2, 50)))


@pair("patched: retired too soon")
class PatchRetired:
    async def before(ctx: Context) -> list[int]:
        first = await ctx.step(give, 1)
        second = await ctx.step(plain, 2) if ctx.patched("plain") else await ctx.step(give, 2)
        await ctx.wait(ms=100)
        return [first, second]

    async def after(ctx: Context) -> list[int]:
        first = await ctx.step(give, 1)
        second = await ctx.step(plain, 2)
        await ctx.wait(ms=100)
        return [first, second]


@pair("def: a step added in the middle")
class SyncAdded:
    def before(ctx: SyncContext) -> list[int]:
        first = ctx.step(plain, 1)
        ctx.wait(ms=100)
        return [first, ctx.step(plain, 2)]

    def after(ctx: SyncContext) -> list[int]:
        first = ctx.step(plain, 1)
        ctx.step(plain, 7, name="more")
        ctx.wait(ms=100)
        return [first, ctx.step(plain, 2)]


def sync_child(ctx: SyncContext, n: int) -> int:
    first = ctx.step(plain, n)
    ctx.wait(ms=100)
    return first + ctx.step(give, n)


@pair("def: a helper changed, after the operations")
class SyncHelper:
    def before(ctx: SyncContext) -> int:
        n = ctx.run_in_child_context(sync_child, 1)
        ctx.wait(ms=100)
        return doubled(n)

    def after(ctx: SyncContext) -> int:
        n = ctx.run_in_child_context(sync_child, 1)
        ctx.wait(ms=100)
        return tripled(n)


@pair("def: patched")
class SyncPatched:
    def before(ctx: SyncContext) -> list[int]:
        first = ctx.step(plain, 1)
        ctx.wait(ms=100)
        return [first, ctx.step(plain, 2)]

    def after(ctx: SyncContext) -> list[int]:
        first = ctx.step(plain, 1)
        if ctx.patched("more"):
            ctx.step(plain, 7, name="more")
        ctx.wait(ms=100)
        return [first, ctx.step(plain, 2)]


@pair("def: a wait removed")
class SyncWaitRemoved:
    def before(ctx: SyncContext) -> int:
        ctx.step(plain, 1)
        ctx.wait(ms=100)
        return ctx.step(give, 2)

    def after(ctx: SyncContext) -> int:
        ctx.step(plain, 1)
        return ctx.step(give, 2)
