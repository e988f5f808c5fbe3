"""Code before and after a change: operations that others settle, and that are made of others."""

# ruff: noqa: N805  # a class is only the name of a pair here

from __future__ import annotations

from typing import Any

import semel
from semel import Context, Poll, SyncContext
from semel.errors import OperationError
from tests.versions.pairs import QUICK, give, give_more, pair, plain, refuse

POLL = Poll(until=lambda n: n >= 3, first_delay_ms=50, jitter="none")
SLOWER = Poll(until=lambda n: n >= 3, first_delay_ms=500, jitter="none")


@semel.durable_function(name="versions.child")
async def child(ctx: Context, n: int) -> int:
    await ctx.wait(ms=50)
    return await ctx.step(give, n)


@semel.durable_function(name="versions.other_child")
async def other_child(ctx: Context, n: int) -> int:
    return await ctx.step(give_more, n)


async def count(n: int) -> int:
    return n + 1


async def one_item(ctx: Context, n: int) -> int:
    first = await ctx.step(give, n)
    await ctx.wait(ms=20 * n)
    return first


async def one_item_more(ctx: Context, n: int) -> int:
    first = await one_item(ctx, n)
    return first + await ctx.step(plain, n)


async def first_branch(ctx: Context) -> int:
    return await one_item(ctx, 1)


async def second_branch(ctx: Context) -> int:
    return await one_item(ctx, 2)


async def failing_block(ctx: Context) -> int:
    await ctx.step(give, 1)
    return await ctx.step(refuse, 2, retry=semel.Retry(attempts=1))


@pair("an invoke with more after it")
class InvokeMore:
    async def before(ctx: Context) -> int:
        return await ctx.invoke(child, 1)

    async def after(ctx: Context) -> int:
        found = await ctx.invoke(child, 1)
        return found + await ctx.step(give, 1)


@pair("an invoke of another function")
class InvokeOther:
    async def before(ctx: Context) -> list[int]:
        found = await ctx.invoke(child, 1)
        await ctx.wait(ms=50)
        return [found]

    async def after(ctx: Context) -> list[int]:
        found = await ctx.invoke(other_child, 1)
        await ctx.wait(ms=50)
        return [found]


@pair("an invoke of another function under its name")
class InvokeOtherNamed:
    async def before(ctx: Context) -> list[int]:
        found = await ctx.invoke(child, 1, name="ship")
        await ctx.wait(ms=50)
        return [found, await ctx.step(plain, 5)]

    async def after(ctx: Context) -> list[int]:
        found = await ctx.invoke(other_child, 1, name="ship")
        await ctx.wait(ms=50)
        return [found, await ctx.step(plain, 6)]


@pair("an invoke instead of a step")
class InvokeInstead:
    async def before(ctx: Context) -> list[int]:
        found = await ctx.step(give, 1, name="ship")
        await ctx.wait(ms=50)
        return [found]

    async def after(ctx: Context) -> list[int]:
        found = await ctx.invoke(child, 1, name="ship")
        await ctx.wait(ms=50)
        return [found]


@pair("map: more items")
class MapMore:
    async def before(ctx: Context) -> list[Any]:
        return (await ctx.map(one_item, [1, 2])).results

    async def after(ctx: Context) -> list[Any]:
        return (await ctx.map(one_item, [1, 2, 3])).results


@pair("map: fewer items")
class MapFewer:
    async def before(ctx: Context) -> list[Any]:
        return (await ctx.map(one_item, [1, 2, 3])).results

    async def after(ctx: Context) -> list[Any]:
        return (await ctx.map(one_item, [1, 2])).results


@pair("map: a step more in each branch")
class MapInside:
    async def before(ctx: Context) -> list[Any]:
        return (await ctx.map(one_item, [1, 2, 3])).results

    async def after(ctx: Context) -> list[Any]:
        return (await ctx.map(one_item_more, [1, 2, 3], name="one_item")).results


@pair("map: flat instead of nested")
class MapFlat:
    async def before(ctx: Context) -> list[Any]:
        return (await ctx.map(one_item, [1, 2])).results

    async def after(ctx: Context) -> list[Any]:
        return (await ctx.map(one_item, [1, 2], nesting="flat")).results


@pair("map: fewer at once")
class MapConcurrency:
    async def before(ctx: Context) -> list[Any]:
        return (await ctx.map(one_item, [1, 2, 3])).results

    async def after(ctx: Context) -> list[Any]:
        return (await ctx.map(one_item, [1, 2, 3], max_concurrency=1)).results


@pair("parallel: its branches in another order")
class ParallelReordered:
    async def before(ctx: Context) -> list[Any]:
        return (await ctx.parallel({"a": first_branch, "b": second_branch})).results

    async def after(ctx: Context) -> list[Any]:
        return (await ctx.parallel({"b": second_branch, "a": first_branch})).results


@pair("parallel instead of map")
class ParallelInstead:
    async def before(ctx: Context) -> list[Any]:
        return (await ctx.map(one_item, [1, 2], name="both")).results

    async def after(ctx: Context) -> list[Any]:
        return (await ctx.parallel([first_branch, second_branch], name="both")).results


@pair("a condition is asked less often")
class ConditionSlower:
    async def before(ctx: Context) -> int:
        return await ctx.wait_for_condition(count, 0, poll=POLL)

    async def after(ctx: Context) -> int:
        return await ctx.wait_for_condition(count, 0, poll=SLOWER)


@pair("a step instead of a condition")
class ConditionReplaced:
    async def before(ctx: Context) -> list[int]:
        found = await ctx.wait_for_condition(count, 0, poll=POLL)
        await ctx.wait(ms=50)
        return [found]

    async def after(ctx: Context) -> list[int]:
        found = await ctx.step(count, 2)
        await ctx.wait(ms=50)
        return [found]


@pair("a block is retried more often")
class BlockRetried:
    async def before(ctx: Context) -> str:
        try:
            await ctx.with_retry(failing_block, retry=QUICK)
        except OperationError as error:
            return type(error).__name__
        return "no"

    async def after(ctx: Context) -> str:
        try:
            await ctx.with_retry(failing_block, retry=semel.Retry(attempts=4, first_delay_ms=100, jitter="none"))
        except OperationError as error:
            return type(error).__name__
        return "no"


@pair("a callback that nobody answers has another time")
class CallbackTime:
    async def before(ctx: Context) -> str:
        callback = await ctx.create_callback(name="approval", timeout_ms=100)
        try:
            return str(await callback.result())
        except OperationError as error:
            return type(error).__name__

    async def after(ctx: Context) -> str:
        callback = await ctx.create_callback(name="approval", timeout_ms=500)
        try:
            return str(await callback.result())
        except OperationError as error:
            return type(error).__name__


@pair("a callback is not waited for any more")
class CallbackGone:
    async def before(ctx: Context) -> str:
        callback = await ctx.create_callback(name="approval", timeout_ms=100)
        try:
            await callback.result()
        except OperationError:
            await ctx.step(give, 1)
        await ctx.wait(ms=50)
        return "done"

    async def after(ctx: Context) -> str:
        await ctx.step(give, 1)
        await ctx.wait(ms=50)
        return "done"


@pair("def: map, more items")
class SyncMap:
    def before(ctx: SyncContext) -> list[Any]:
        return ctx.map(sync_item, [1, 2]).results

    def after(ctx: SyncContext) -> list[Any]:
        return ctx.map(sync_item, [1, 2, 3]).results


def sync_item(ctx: SyncContext, n: int) -> int:
    first = ctx.step(plain, n)
    ctx.wait(ms=20 * n)
    return first
