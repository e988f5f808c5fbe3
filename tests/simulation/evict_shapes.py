"""Every operation, with a body that leaves memory while it waits for it: the ways out, and the code around it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import Any

from semel import EFFECT_KEY as KEY
from semel import Context, Limits, durable_function
from semel.errors import OperationError
from semel.testing import Client, Shape, effect
from tests.simulation.cancel_shapes import ROWS, Moment

WAYS = ("suspended", "by limit", "closed", "lost")
FORMS = ("finally", "swallows", "task group", "timeout")
LONG_MS = 8_000  # longer than an engine that closes waits for a step
NEVER_SUSPENDS = "while its step's body runs, its own body stays in memory"
GAVE_UP = "gave up"

UNWOUND: Counter[str] = Counter()  # how often code left the operation, by form: more than once if it was evicted


async def note(what: str, effect_key: str = KEY) -> None:
    effect(what, effect_key)


async def awaited(operation: Awaitable[Any]) -> str:
    try:
        return f"returned {await operation!r}"
    except OperationError as error:
        return f"raised {type(error).__name__} {error.error_type}"


async def with_finally(ctx: Context, operation: Awaitable[Any]) -> str:
    try:
        return await awaited(operation)
    finally:
        UNWOUND["finally"] += 1
        await ctx.step(note, "finally", name="finally")
        await asyncio.gather(ctx.wait(ms=10, name="finally"), asyncio.sleep(0.01))


async def swallowing(ctx: Context, operation: Awaitable[Any]) -> str:
    try:
        return await awaited(operation)
    except BaseException:  # the shape: what a closed seam raises, taken for a failure of one's own
        return GAVE_UP
    finally:
        UNWOUND["swallows"] += 1


async def in_group(ctx: Context, operation: Awaitable[Any]) -> str:
    async def beside() -> None:
        try:
            await ctx.wait(ms=50, name="beside")
            await ctx.wait(seconds=1, name="beside")
        finally:
            UNWOUND["task group"] += 1

    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(awaited(operation))
            group.create_task(beside())
    except BaseException:  # the shape
        return GAVE_UP
    return task.result()


async def in_timeout(ctx: Context, operation: Awaitable[Any]) -> str:
    try:
        async with asyncio.timeout(30 * 86_400):  # longer than a thief's lease
            return await awaited(operation)
    except TimeoutError:
        return GAVE_UP
    finally:
        UNWOUND["timeout"] += 1
        await ctx.step(note, "finally", name="finally")


AROUND = {"finally": with_finally, "swallows": swallowing, "task group": in_group, "timeout": in_timeout}


@durable_function(name="table.evicted")
async def evicted(ctx: Context, name: str, moment: str, form: str) -> list[str]:
    told = await AROUND[form](ctx, ROWS[name].ask(ctx, Moment(moment, LONG_MS)))
    if form != "swallows":  # that one has its outcome as soon as it thinks so
        await ctx.step(note, "after", name="after")
    return [told]


@durable_function(name="table.pushes_out")
async def pushes_out(ctx: Context) -> str:
    """Suspends again and again, and so comes between another and the place of a resident."""
    for _ in range(5):
        await ctx.wait(ms=60)
    return "pushed"


LIMITS = {"suspended": 0, "by limit": 1, "closed": 1_000, "lost": 1_000}


def missing_way(row: str, moment: str, way: str) -> str:
    """Why a body cannot leave memory in this way; empty if it can."""
    holds = row.startswith(("step", "wait_for_condition", "child", "with_retry", "map", "parallel"))
    return NEVER_SUSPENDS if holds and moment == "in flight" and way in ("suspended", "by limit") else ""


def evict_shape(row: str, moment: str, form: str, way: str) -> Shape:
    """One cell."""
    limits = Limits(poll_ms=600_000, lease_ms=86_400_000, residents_max=LIMITS[way])

    async def scenario(client: Client) -> Any:
        runs = [client.run(evicted, row, moment, form, key="k")]
        if way == "by limit":
            runs.append(client.run(pushes_out, key="other"))
        return (await asyncio.gather(*runs))[0]

    return Shape(name=f"{row} × {moment} × {form} × {way}", scenario=scenario, limits=limits)
