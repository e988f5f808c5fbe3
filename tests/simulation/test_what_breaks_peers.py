"""Two programs that other engines could not replay: several coroutines at once, recovered or evicted on their way.

Both were reported by users: dbos-transact-py#688, three different steps in one gather, recovered by
another worker, which met them in another order and tried again for ever; hatchet#4816, pipelines of
two stages with work in threads between them, evicted and restored, of which a quarter diverged.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

import semel
from semel import Context, Limits, durable_function
from semel.testing import Client, Report, Shape, effect, explore
from semel.testing.explore import Kind
from tests.runtime.places import Place, run

KEY = semel.EFFECT_KEY
KINDS: tuple[Kind, ...] = ("crash", "pair", "expiry", "close", "takeover", "random")
EVICTED = Limits(residents_max=0)


async def work(name: str, part: str, ms: int, effect_key: str) -> dict[str, str]:
    effect(name, effect_key, part)
    await asyncio.sleep(ms / 1000)
    return {name: part}


async def stock(part: str, effect_key: str = KEY) -> dict[str, str]:
    return await work("stock", part, 30, effect_key)


async def price(part: str, effect_key: str = KEY) -> dict[str, str]:
    return await work("price", part, 10, effect_key)


async def terms(part: str, effect_key: str = KEY) -> dict[str, str]:
    return await work("terms", part, 20, effect_key)


@durable_function(name="peers.three_steps")
async def three_steps(ctx: Context, part: str) -> list[dict[str, str]]:
    """Different steps at once, which end in another order than they began in."""
    first = await asyncio.gather(ctx.step(stock, part), ctx.step(price, part), ctx.step(terms, part))
    await ctx.wait(seconds=1)
    return [*first, *await asyncio.gather(ctx.step(terms, "again"), ctx.step(stock, "again"))]


@durable_function(name="peers.three_helpers")
async def three_helpers(ctx: Context, part: str) -> list[str]:
    """The same with several steps each, and with an order that the outcome shows."""
    ended: list[str] = []

    async def ask(step: Callable[..., Any], delay_ms: int) -> None:
        found = await ctx.step(step, part)
        await ctx.wait(ms=delay_ms)
        found |= await ctx.step(step, f"{part} again")
        ended.extend(found)

    async with asyncio.TaskGroup() as group:
        for step, delay_ms in ((stock, 5), (price, 45), (terms, 15)):
            group.create_task(ask(step, delay_ms))
    return sorted(ended)


def hop(value: int, effect_key: str = KEY) -> int:
    """Between the stages, in a thread."""
    effect("hop", effect_key, value)
    return value + 1


async def stage(number: int, value: int, effect_key: str = KEY) -> int:
    effect("stage", effect_key, number, value)
    await asyncio.sleep(random.Random(f"{number} {value}").random() / 20)
    return value * 10 + number


async def first_stage(ctx: Context, value: int) -> int:
    found = await ctx.step(stage, 1, value)
    await ctx.wait(ms=20)
    return await ctx.step(hop, found)


async def second_stage(ctx: Context, value: int) -> int:
    return await ctx.step(stage, 2, value)


@durable_function(name="peers.pipelines")
async def pipelines(ctx: Context, count: int) -> list[int]:
    async def pipeline(value: int) -> int:
        found = await ctx.run_in_child_context(first_stage, value)
        found = await ctx.step(hop, found)
        return await ctx.run_in_child_context(second_stage, found)

    return await asyncio.gather(*(pipeline(value) for value in range(count)))


@durable_function(name="peers.child")
async def child(ctx: Context, number: int, value: int) -> int:
    found = await ctx.step(stage, number, value)
    await ctx.wait(ms=20)
    return await ctx.step(hop, found) if number == 1 else found


@durable_function(name="peers.spawns")
async def spawns(ctx: Context, count: int) -> list[int]:
    """The pipelines once more, each stage an execution of its own."""

    async def pipeline(value: int) -> int:
        found = await ctx.invoke(child, 1, value)
        found = await ctx.step(hop, found)
        return await ctx.invoke(child, 2, found)

    return await asyncio.gather(*(pipeline(value) for value in range(count)))


EIGHT = [((value * 10 + 1) + 2) * 10 + 2 for value in range(8)]
PROGRAMS: dict[str, tuple[Any, tuple[Any, ...], Any]] = {
    "dbos-transact-py#688, as reported": (
        three_steps,
        ("p",),
        [{"stock": "p"}, {"price": "p"}, {"terms": "p"}, {"terms": "again"}, {"stock": "again"}],
    ),
    "dbos-transact-py#688, helpers of several steps": (three_helpers, ("p",), ["price", "stock", "terms"]),
    "hatchet#4816": (pipelines, (8,), EIGHT),
    "hatchet#4816, children as executions": (spawns, (4,), EIGHT[:4]),
}


@pytest.mark.parametrize("limits", [Limits(), EVICTED], ids=["resident", "evicted"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_it_survives_every_crash_and_every_takeover(name: str, limits: Limits) -> None:
    function, arguments, expected = PROGRAMS[name]

    async def scenario(client: Client) -> Any:
        return await client.run(function, *arguments, key="k")

    shape = Shape(name=name, scenario=scenario, limits=limits, outcomes=frozenset({f"returned {expected!r}"}))
    report: Report = explore(shape, kinds=KINDS, pairs=0.5 if name.startswith("dbos") else 0.01)
    assert report.found == [], report.found[0]
    assert report.runs["crash"] == 2 * report.writes >= 20
    assert report.runs["pair"] > 20


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_it_replays_after_every_wait_in_real_time(name: str, store: str, tmp_path: Any) -> None:
    function, arguments, expected = PROGRAMS[name]

    async def scenario() -> None:
        async with Place(store, tmp_path).engine(residents_max=0) as engine:
            found = await asyncio.gather(*(engine.run(function, *arguments, key=f"k{n}") for n in range(5)))
        assert found == [expected] * 5

    run(scenario())
