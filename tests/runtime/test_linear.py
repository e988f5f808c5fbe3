"""What grows with the length of an execution grows in proportion: counted in lines that run, never in seconds."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import semel
from semel import Context, SyncContext
from semel.runtime.body import Body
from tests.runtime.places import Place, redefine, run, until_it

PACKAGE = str(Path(semel.__file__).parent)
SIZES = (40, 80, 160)


class Lines:
    """How many lines of semel were run, each round of a loop again."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: FrameType, _event: str, _argument: object) -> Any:
        return self._line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _line(self, _frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line":
            self.count += 1
        return self._line


@contextmanager
def counted() -> Iterator[Lines]:
    """Count the lines of this thread and of those that it starts."""
    lines, before = Lines(), sys.gettrace()
    threading.settrace(lines)
    sys.settrace(lines)
    try:
        yield lines
    finally:
        sys.settrace(before)
        threading.settrace(None)  # type: ignore[arg-type]


def growth(counts: list[int]) -> float:
    """What the last doubling cost, beside the one before: 2 if cost is in proportion, 4 if it is the square."""
    small, middle, large = counts
    return (large - middle) / (middle - small)


async def give(value: int) -> int:
    return value


async def steps(ctx: Context, count: int) -> int:
    for number in range(count):
        await ctx.step(give, number)
    await ctx.wait(ms=150)
    return count


def steps_def(ctx: SyncContext, count: int) -> int:
    for number in range(count):
        ctx.step(give, number)
    ctx.wait(ms=150)
    return count


async def steps_alone(ctx: Context, count: int) -> int:
    for number in range(count):
        await ctx.step(give, number)
    return count


async def wide(ctx: Context, count: int) -> int:
    await asyncio.gather(*(ctx.step(give, number) for number in range(count)))
    await ctx.wait(ms=150)
    return count


async def branch(ctx: Context, number: int) -> int:
    return await ctx.step(give, number)


async def children(ctx: Context, count: int) -> int:
    await asyncio.gather(*(ctx.run_in_child_context(branch, number) for number in range(count)))
    await ctx.wait(ms=150)
    return count


async def wide_alone(ctx: Context, count: int) -> int:
    return len(await asyncio.gather(*(ctx.step(give, number) for number in range(count))))


async def children_alone(ctx: Context, count: int) -> int:
    return len(await asyncio.gather(*(ctx.run_in_child_context(branch, number) for number in range(count))))


async def batch(ctx: Context, count: int) -> int:
    return len((await ctx.map(branch, range(count))).results)


async def waits(ctx: Context, count: int) -> int:
    for _ in range(count):
        await ctx.wait(ms=1)
    return count


async def replayed(place: Place, function: Any, size: int) -> int:
    """The lines of an engine that finishes an execution which another one has brought to its wait."""
    async with place.engine() as engine:
        handle = await engine.start(function, size, key=f"k{size}")

        async def suspended() -> bool:
            return (await engine.executions.get(handle.id)).holder is None

        await until_it(suspended)
    await asyncio.sleep(0.15)
    with counted() as lines:
        async with place.engine() as engine:
            assert await engine.run(function, size, key=f"k{size}") == size
    return lines.count


async def live(place: Place, function: Any, size: int) -> int:
    with counted() as lines:
        async with place.engine() as engine:
            assert await engine.run(function, size, key=f"k{size}") == size
    return lines.count


def counts_of(place: Place, measure: Callable[..., Any], body: Any) -> list[int]:
    async def scenario() -> list[int]:
        function = redefine(f"linear-{body.__name__}", body)
        return [await measure(place, function, size) for size in SIZES]

    return run(scenario())


@pytest.mark.parametrize("body", [steps, steps_def, wide, children])
def test_a_replay_costs_in_proportion_to_what_is_recorded(place: Place, body: Any) -> None:
    counts = counts_of(place, replayed, body)
    assert counts[0] > SIZES[0]
    assert 1.8 < growth(counts) < 2.2, counts


@pytest.mark.parametrize("body", [waits, steps_alone, wide_alone, children_alone, batch])
def test_a_run_costs_in_proportion_to_what_it_asks_for(place: Place, body: Any) -> None:
    counts = counts_of(place, live, body)
    assert 1.8 < growth(counts) < 2.3, counts


def test_what_costs_the_square_is_noticed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scope that looks through all that is open when it ends."""

    def freeze_inside(body: Body, scope: str) -> None:
        body._closed_scopes.add(scope)
        for slot in list(body._slots.values()):
            if body._is_closed(slot.parent):
                del body._slots[slot.id]

    monkeypatch.setattr(Body, "_freeze_inside", freeze_inside)
    assert growth(counts_of(place, live, children_alone)) > 2.3
