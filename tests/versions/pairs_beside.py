"""Code before and after a change: operations side by side, with limits, and in scopes."""

# ruff: noqa: N805  # a class is only the name of a pair here

from __future__ import annotations

import asyncio
from typing import Any

from semel import Context
from semel.errors import ChildContextError
from tests.versions.pairs import QUICK, give, give_more, pair, plain, refuse, slow


async def two(ctx: Context, a: int, b: int) -> int:
    return await ctx.step(give, a) + await ctx.step(give, b)


async def waiting_child(ctx: Context, a: int) -> int:
    first = await ctx.step(give, a)
    await ctx.wait(ms=100)
    return first + await ctx.step(give, 1)


async def other_child(ctx: Context, a: int) -> int:
    first = await ctx.step(give_more, a)
    await ctx.wait(ms=100)
    return first


@pair("gather instead of one after another")
class Gathered:
    async def before(ctx: Context) -> list[int]:
        return [await ctx.step(slow, 1, 50), await ctx.step(slow, 2, 20)]

    async def after(ctx: Context) -> list[int]:
        return list(await asyncio.gather(ctx.step(slow, 1, 50), ctx.step(slow, 2, 20)))


@pair("one after another instead of gather")
class Ungathered:
    async def before(ctx: Context) -> list[int]:
        return list(await asyncio.gather(ctx.step(slow, 1, 50), ctx.step(slow, 2, 20)))

    async def after(ctx: Context) -> list[int]:
        return [await ctx.step(slow, 1, 50), await ctx.step(slow, 2, 20)]


@pair("a branch added to a gather, last")
class GatherMore:
    async def before(ctx: Context) -> list[int]:
        return list(await asyncio.gather(two(ctx, 1, 2), two(ctx, 3, 4)))

    async def after(ctx: Context) -> list[int]:
        return list(await asyncio.gather(two(ctx, 1, 2), two(ctx, 3, 4), two(ctx, 5, 6)))


@pair("a branch added to a gather, first")
class GatherMoreFirst:
    async def before(ctx: Context) -> list[int]:
        return list(await asyncio.gather(two(ctx, 1, 2), two(ctx, 3, 4)))

    async def after(ctx: Context) -> list[int]:
        return list(await asyncio.gather(ctx.step(plain, 9), two(ctx, 1, 2), two(ctx, 3, 4)))


@pair("a branch removed from a gather")
class GatherFewer:
    async def before(ctx: Context) -> list[int]:
        await asyncio.gather(two(ctx, 1, 2), ctx.step(slow, 3, 50), ctx.step(slow, 5, 20))
        return [await ctx.step(give, 7)]

    async def after(ctx: Context) -> list[int]:
        await asyncio.gather(two(ctx, 1, 2), ctx.step(slow, 3, 50))
        return [await ctx.step(give, 7)]


@pair("an edit in one branch of a gather")
class GatherEdited:
    async def before(ctx: Context) -> list[int]:
        return list(await asyncio.gather(ctx.step(slow, 1, 50), two(ctx, 3, 4)))

    async def after(ctx: Context) -> list[int]:
        async def three() -> int:
            return await two(ctx, 3, 4) + await ctx.step(plain, 100)

        return list(await asyncio.gather(ctx.step(slow, 1, 50), three()))


@pair("the branches of a gather in another order")
class GatherReordered:
    async def before(ctx: Context) -> list[int]:
        return list(await asyncio.gather(ctx.step(slow, 1, 50), two(ctx, 3, 4)))

    async def after(ctx: Context) -> list[int]:
        second, first = await asyncio.gather(two(ctx, 3, 4), ctx.step(slow, 1, 50))
        return [first, second]


@pair("a task group instead of a gather")
class TaskGroup:
    async def before(ctx: Context) -> list[int]:
        return list(await asyncio.gather(two(ctx, 1, 2), two(ctx, 3, 4)))

    async def after(ctx: Context) -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(two(ctx, 1, 2)), group.create_task(two(ctx, 3, 4))]
        return [task.result() for task in tasks]


@pair("a task group waits for one more step before it begins")
class TaskGroupLater:
    async def before(ctx: Context) -> list[int]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(ctx.step(slow, 1, 50))
            first = await ctx.step(give, 2)
        return [first, task.result()]

    async def after(ctx: Context) -> list[int]:
        first = await ctx.step(give, 2)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(ctx.step(slow, 1, 50))
        return [first, task.result()]


@pair("a timeout added that is long")
class TimeoutAdded:
    async def before(ctx: Context) -> list[int]:
        first = await ctx.step(give, 1)
        return [first, await ctx.step(slow, 2, 50), await ctx.step(give, 3)]

    async def after(ctx: Context) -> list[int]:
        first = await ctx.step(give, 1)
        async with asyncio.timeout(60):
            second = await ctx.step(slow, 2, 50)
        return [first, second, await ctx.step(give, 3)]


@pair("a timeout removed")
class TimeoutRemoved:
    async def before(ctx: Context) -> list[int]:
        async with asyncio.timeout(60):
            found = await ctx.step(slow, 2, 50)
        return [found, await ctx.step(give, 3)]

    async def after(ctx: Context) -> list[int]:
        return [await ctx.step(slow, 2, 50), await ctx.step(give, 3)]


@pair("a timeout that cut a wait short is longer")
class TimeoutLonger:
    async def before(ctx: Context) -> list[Any]:
        try:
            async with asyncio.timeout(0.1):
                await ctx.wait(seconds=5)
                found = "waited"
        except TimeoutError:
            found = "cut"
        return [found, await ctx.step(give, 3)]

    async def after(ctx: Context) -> list[Any]:
        try:
            async with asyncio.timeout(60):
                await ctx.wait(seconds=5)
                found = "waited"
        except TimeoutError:
            found = "cut"
        return [found, await ctx.step(give, 3)]


@pair("the task that lost a race is not cancelled any more")
class NotCancelled:
    async def before(ctx: Context) -> int:
        tasks = [asyncio.create_task(ctx.step(slow, 1, 20)), asyncio.create_task(asyncio.sleep(5))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        tasks[1].cancel()
        await ctx.wait(ms=100)
        return await ctx.step(give, 3)

    async def after(ctx: Context) -> int:
        tasks = [asyncio.create_task(ctx.step(slow, 1, 20)), asyncio.create_task(asyncio.sleep(5))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await ctx.wait(ms=100)
        return await ctx.step(give, 3)


@pair("a child context changed inside")
class ChildInside:
    async def before(ctx: Context) -> list[int]:
        first = await ctx.run_in_child_context(waiting_child, 1, name="child")
        await ctx.wait(ms=100)
        return [first, await ctx.step(give, 3)]

    async def after(ctx: Context) -> list[int]:
        first = await ctx.run_in_child_context(other_child, 1, name="child")
        await ctx.wait(ms=100)
        return [first, await ctx.step(give, 3)]


@pair("a child context around what was there")
class ChildAdded:
    async def before(ctx: Context) -> list[int]:
        return [await waiting_child(ctx, 1), await ctx.step(give, 3)]

    async def after(ctx: Context) -> list[int]:
        return [await ctx.run_in_child_context(waiting_child, 1), await ctx.step(give, 3)]


@pair("a child context taken away")
class ChildRemoved:
    async def before(ctx: Context) -> list[int]:
        return [await ctx.run_in_child_context(waiting_child, 1), await ctx.step(give, 3)]

    async def after(ctx: Context) -> list[int]:
        return [await waiting_child(ctx, 1), await ctx.step(give, 3)]


async def failing_child(ctx: Context) -> int:
    return await ctx.step(refuse, 1, retry=QUICK)


@pair("a child context's failure is caught now")
class ChildCaught:
    async def before(ctx: Context) -> int:
        await ctx.step(give, 1)
        return await ctx.run_in_child_context(failing_child)

    async def after(ctx: Context) -> int:
        await ctx.step(give, 1)
        try:
            return await ctx.run_in_child_context(failing_child)
        except ChildContextError:
            return 0
