"""Code before and after a change, one change a pair, as people make them: one operation after another."""

# ruff: noqa: N805  # a class is only the name of a pair here

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from semel import Context, Retry
from semel.errors import StepError

Function = Callable[..., Any]
PAIRS: dict[str, tuple[Function, Function]] = {}
RATE = 2
OTHER_RATE = 3
QUICK = Retry(attempts=2, first_delay_ms=100, jitter="none")
PATIENT = Retry(attempts=4, first_delay_ms=5_000, jitter="none")


def pair(change: str) -> Callable[[type], type]:
    """A class with `before` and `after` is a pair."""

    def add(both: type) -> type:
        assert change not in PAIRS
        PAIRS[change] = (vars(both)["before"], vars(both)["after"])
        return both

    return add


async def give(value: int) -> int:
    return value


async def give_more(value: int) -> int:
    return value + 1000


def plain(value: int) -> int:
    return value


async def slow(value: int, ms: int) -> int:
    await asyncio.sleep(ms / 1000)
    return value


async def refuse(value: int) -> int:
    raise ValueError(value)


@pair("nothing")
class Nothing:
    async def before(ctx: Context) -> list[int]:
        first = await ctx.step(give, 1)
        await ctx.wait(ms=100)
        return [first, await ctx.step(give, 2)]

    async def after(ctx: Context) -> list[int]:
        """The same."""
        one: int = await ctx.step(give, 1)  # under another name
        await ctx.wait(ms=100)
        two = await ctx.step(give, 2)
        return [one, two]


@pair("a step added at the end")
class AddedAtEnd:
    async def before(ctx: Context) -> list[int]:
        return [await ctx.step(give, n) for n in (1, 2)]

    async def after(ctx: Context) -> list[int]:
        return [await ctx.step(give, n) for n in (1, 2)] + [await ctx.step(give_more, 3)]


@pair("a step added in the middle")
class AddedInMiddle:
    async def before(ctx: Context) -> list[int]:
        return [await ctx.step(give, 1), await ctx.step(plain, 2)]

    async def after(ctx: Context) -> list[int]:
        return [await ctx.step(give, 1), await ctx.step(give_more, 7), await ctx.step(plain, 2)]


@pair("a step added at the beginning")
class AddedAtBeginning:
    async def before(ctx: Context) -> list[int]:
        return [await ctx.step(give, 1), await ctx.step(plain, 2)]

    async def after(ctx: Context) -> list[int]:
        return [await ctx.step(give_more, 7), await ctx.step(give, 1), await ctx.step(plain, 2)]


@pair("a step added whose name comes next anyway")
class AddedSameName:
    async def before(ctx: Context) -> list[int]:
        return [await ctx.step(give, 1), await ctx.step(give, 2)]

    async def after(ctx: Context) -> list[int]:
        return [await ctx.step(give, 7), await ctx.step(give, 1), await ctx.step(give, 2)]


@pair("a step removed at the end")
class RemovedAtEnd:
    async def before(ctx: Context) -> list[int]:
        return [await ctx.step(give, 1), await ctx.step(plain, 2), await ctx.step(give_more, 3)]

    async def after(ctx: Context) -> list[int]:
        return [await ctx.step(give, 1), await ctx.step(plain, 2)]


@pair("a step removed in the middle")
class RemovedInMiddle:
    async def before(ctx: Context) -> list[int]:
        return [await ctx.step(give, 1), await ctx.step(plain, 2), await ctx.step(give_more, 3)]

    async def after(ctx: Context) -> list[int]:
        return [await ctx.step(give, 1), await ctx.step(give_more, 3)]


@pair("a step renamed")
class Renamed:
    async def before(ctx: Context) -> list[int]:
        return [await ctx.step(give, 1), await ctx.step(give, 2, name="charge"), await ctx.step(give, 3)]

    async def after(ctx: Context) -> list[int]:
        return [await ctx.step(give, 1), await ctx.step(give, 2, name="take"), await ctx.step(give, 3)]


@pair("a step's function replaced under its name")
class Replaced:
    async def before(ctx: Context) -> list[int]:
        return [await ctx.step(give, 1), await ctx.step(give, 2, name="charge")]

    async def after(ctx: Context) -> list[int]:
        return [await ctx.step(give, 1), await ctx.step(plain, 2, name="charge")]


@pair("steps in another order")
class Reordered:
    async def before(ctx: Context) -> list[int]:
        a = await ctx.step(give, 1)
        b = await ctx.step(plain, 2)
        return [a, b]

    async def after(ctx: Context) -> list[int]:
        b = await ctx.step(plain, 2)
        a = await ctx.step(give, 1)
        return [a, b]


@pair("steps of one name in another order")
class ReorderedSameName:
    async def before(ctx: Context) -> list[int]:
        a = await ctx.step(give, 1)
        b = await ctx.step(give, 2)
        return [a, b]

    async def after(ctx: Context) -> list[int]:
        b = await ctx.step(give, 2)
        a = await ctx.step(give, 1)
        return [a, b]


@pair("a later argument changed")
class LaterArgument:
    async def before(ctx: Context) -> list[int]:
        first = await ctx.step(give, 1)
        await ctx.wait(ms=100)
        return [first, await ctx.step(give, 2)]

    async def after(ctx: Context) -> list[int]:
        first = await ctx.step(give, 1)
        await ctx.wait(ms=100)
        return [first, await ctx.step(give, 20)]


@pair("every argument changed")
class EveryArgument:
    async def before(ctx: Context) -> list[int]:
        first = await ctx.step(give, 1)
        await ctx.wait(ms=100)
        return [first, await ctx.step(give, 2)]

    async def after(ctx: Context) -> list[int]:
        first = await ctx.step(give, 10)
        await ctx.wait(ms=100)
        return [first, await ctx.step(give, 20)]


def doubled(n: int) -> int:
    return n * RATE


def tripled(n: int) -> int:
    return n * OTHER_RATE


@pair("a helper changed, after the operations")
class HelperAfter:
    async def before(ctx: Context) -> int:
        n = await ctx.step(give, 1)
        await ctx.wait(ms=100)
        return doubled(n)

    async def after(ctx: Context) -> int:
        n = await ctx.step(give, 1)
        await ctx.wait(ms=100)
        return tripled(n)


@pair("a helper changed, which decides on a branch")
class HelperBranch:
    async def before(ctx: Context) -> int:
        n = await ctx.step(give, 1)
        if doubled(n) < 3:
            return await ctx.step(give, 5) + await ctx.step(give, 6)
        return await ctx.step(plain, 7)

    async def after(ctx: Context) -> int:
        n = await ctx.step(give, 1)
        if tripled(n) < 3:
            return await ctx.step(give, 5) + await ctx.step(give, 6)
        return await ctx.step(plain, 7)


async def charged(ctx: Context, n: int) -> int:
    return await ctx.step(give, n, name="charge")


async def checked_and_charged(ctx: Context, n: int) -> int:
    await ctx.step(give, n, name="check")
    return await ctx.step(give, n, name="charge")


@pair("a helper changed, which has operations")
class HelperOperations:
    async def before(ctx: Context) -> list[int]:
        return [await ctx.step(give, 1), await charged(ctx, 2), await ctx.step(plain, 3)]

    async def after(ctx: Context) -> list[int]:
        return [await ctx.step(give, 1), await checked_and_charged(ctx, 2), await ctx.step(plain, 3)]


@pair("a branch added that is not taken")
class BranchNotTaken:
    async def before(ctx: Context) -> int:
        n = await ctx.step(give, 1)
        return n + await ctx.step(plain, 2)

    async def after(ctx: Context) -> int:
        n = await ctx.step(give, 1)
        if n > 10:
            await ctx.step(give_more, n)
        return n + await ctx.step(plain, 2)


@pair("a branch added that is taken")
class BranchTaken:
    async def before(ctx: Context) -> int:
        n = await ctx.step(give, 1)
        return n + await ctx.step(plain, 2)

    async def after(ctx: Context) -> int:
        n = await ctx.step(give, 1)
        if n > 0:
            await ctx.step(give_more, n)
        return n + await ctx.step(plain, 2)


@pair("retries: more, and slower")
class RetryOptions:
    async def before(ctx: Context) -> list[Any]:
        try:
            found: list[Any] = [await ctx.step(refuse, 1, retry=QUICK)]
        except StepError as error:
            found = [error.error_type]
        return [*found, await ctx.step(give, 2)]

    async def after(ctx: Context) -> list[Any]:
        try:
            found: list[Any] = [await ctx.step(refuse, 1, retry=PATIENT)]
        except StepError as error:
            found = [error.error_type]
        return [*found, await ctx.step(give, 2)]


@pair("a failure is caught now")
class FailureCaught:
    async def before(ctx: Context) -> int:
        await ctx.step(give, 1)
        return await ctx.step(refuse, 2, retry=QUICK)

    async def after(ctx: Context) -> int:
        await ctx.step(give, 1)
        try:
            return await ctx.step(refuse, 2, retry=QUICK)
        except StepError:
            return await ctx.step(give, 3)


@pair("a failure is not caught any more")
class FailureNotCaught:
    async def before(ctx: Context) -> int:
        try:
            return await ctx.step(refuse, 2, retry=QUICK)
        except StepError:
            found = await ctx.step(give, 3)
            await ctx.wait(ms=100)
            return found

    async def after(ctx: Context) -> int:
        return await ctx.step(refuse, 2, retry=QUICK)


@pair("a wait longer")
class LongerWait:
    async def before(ctx: Context) -> int:
        await ctx.step(give, 1)
        await ctx.wait(ms=100)
        return await ctx.step(give, 2)

    async def after(ctx: Context) -> int:
        await ctx.step(give, 1)
        await ctx.wait(hours=1)
        return await ctx.step(give, 2)


@pair("a wait removed")
class WaitRemoved:
    async def before(ctx: Context) -> int:
        await ctx.step(give, 1)
        await ctx.wait(ms=100)
        return await ctx.step(give, 2)

    async def after(ctx: Context) -> int:
        await ctx.step(give, 1)
        return await ctx.step(give, 2)


@pair("a wait added at the end")
class WaitAdded:
    async def before(ctx: Context) -> int:
        await ctx.step(give, 1)
        return await ctx.step(give, 2)

    async def after(ctx: Context) -> int:
        await ctx.step(give, 1)
        found = await ctx.step(give, 2)
        await ctx.wait(ms=100)
        return found


@pair("a step instead of a wait")
class KindChanged:
    async def before(ctx: Context) -> int:
        await ctx.step(give, 1)
        await ctx.wait(ms=100, name="night")
        return await ctx.step(give, 2)

    async def after(ctx: Context) -> int:
        await ctx.step(give, 1)
        await ctx.step(give, 5, name="night")
        return await ctx.step(give, 2)


@pair("a loop goes on for longer")
class LoopLonger:
    async def before(ctx: Context) -> int:
        return sum([await ctx.step(give, n) for n in range(3)])

    async def after(ctx: Context) -> int:
        return sum([await ctx.step(give, n) for n in range(5)])


@pair("a loop ends sooner")
class LoopShorter:
    async def before(ctx: Context) -> int:
        return sum([await ctx.step(give, n) for n in range(4)])

    async def after(ctx: Context) -> int:
        return sum([await ctx.step(give, n) for n in range(2)])


@pair("a loop has another step in each round")
class LoopBody:
    async def before(ctx: Context) -> int:
        total = 0
        for n in range(3):
            total += await ctx.step(give, n)
        return total

    async def after(ctx: Context) -> int:
        total = 0
        for n in range(3):
            total += await ctx.step(give, n)
            total += await ctx.step(plain, n)
        return total


@pair("it returns before the end")
class ReturnsEarly:
    async def before(ctx: Context) -> list[int]:
        first = await ctx.step(give, 1)
        await ctx.wait(ms=100)
        return [first, await ctx.step(give, 2)]

    async def after(ctx: Context) -> list[int]:
        return [await ctx.step(give, 1)]


@pair("it raises now, once the outcomes are in")
class RaisesNow:
    async def before(ctx: Context) -> int:
        n = await ctx.step(give, 1)
        await ctx.wait(ms=100)
        return n

    async def after(ctx: Context) -> int:
        n = await ctx.step(give, 1)
        await ctx.wait(ms=100)
        raise ValueError(n)


@pair("it waits for what nothing brings")
class WaitsForNothing:
    async def before(ctx: Context) -> int:
        n = await ctx.step(give, 1)
        await ctx.wait(ms=100)
        return n

    async def after(ctx: Context) -> int:
        n = await ctx.step(give, 1)
        await asyncio.Event().wait()
        return n
