"""Lists of executions by filter and page, and histories by page."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from semel import Context, Event, durable_function
from semel.errors import ExecutionError, LimitExceededError, ValidationError
from tests.runtime.places import Place, run


async def one() -> int:
    return 1


@durable_function(name="listing-steps")
async def steps(ctx: Context, count: int) -> int:
    return sum([await ctx.step(one) for _ in range(count)])


@durable_function(name="listing-fails")
async def fails(ctx: Context) -> None:
    raise ValueError("no")


@durable_function(name="listing-long")
async def long(ctx: Context) -> None:
    await ctx.wait(hours=1)


def test_a_list_is_filtered_by_function_statuses_start_and_name(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            listed = engine.executions.list
            await engine.run(steps, 1, key="order-1")
            with pytest.raises(ExecutionError):
                await engine.run(fails, key="order-2")
            await asyncio.sleep(0.005)
            paused = await engine.start(long, key="order-3")
            await engine.start(long, key="refund-1")
            await engine.executions.pause(paused.id)

            async def names(**filters: Any) -> list[str]:
                return [item.name for item in (await listed(**filters)).items]

            assert await names() == ["refund-1", "order-3", "order-2", "order-1"]
            assert await names(oldest_first=True) == ["order-1", "order-2", "order-3", "refund-1"]
            assert await names(function="listing-long") == ["refund-1", "order-3"]
            assert await names(status="FAILED") == ["order-2"]
            assert await names(status=["FAILED", "SUCCEEDED"]) == ["order-2", "order-1"]
            assert await names(status=("PAUSED", "PAUSING")) == ["order-3"]
            assert await names(name_prefix="order-") == ["order-3", "order-2", "order-1"]
            assert await names(name_prefix="order-%") == []
            started_ms = (await engine.executions.get(paused.id)).started_ms
            assert await names(started_after_ms=started_ms) == ["refund-1", "order-3"]
            assert await names(started_before_ms=started_ms) == ["order-2", "order-1"]
            assert await names(function="listing-long", status="RUNNING", name_prefix="re") == ["refund-1"]

    run(scenario())


@pytest.mark.parametrize("oldest_first", [False, True])
def test_every_execution_is_on_one_page_in_either_order(place: Place, *, oldest_first: bool) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            for number in range(7):
                await engine.run(steps, 0, key=f"k{number}")
            found, after = [], None
            while True:
                page = await engine.executions.list(limit=3, after=after, oldest_first=oldest_first)
                found += [item.name for item in page.items]
                await engine.run(steps, 0, key=f"later {len(found)}")  # what comes meanwhile moves nothing
                if page.next is None or len(found) >= 7:
                    break
                after = page.next
            names = [f"k{number}" for number in range(7)]
            assert found[:7] == (names if oldest_first else names[::-1])

    run(scenario())


def test_what_a_list_cannot_be_asked_for_is_refused(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine(page_max=5) as engine:
            for number in range(3):
                await engine.run(steps, 0, key=str(number))
            newest = (await engine.executions.list(limit=2)).next
            refusals: list[tuple[dict[str, Any], type[Exception], str]] = [
                ({"status": "GONE"}, ValidationError, "found 'GONE', expected some of RUNNING, PAUSING"),
                ({"status": ["RUNNING", "x"]}, ValidationError, "found 'x'"),
                ({"limit": 0}, ValidationError, "page limit: found 0"),
                ({"limit": 6}, LimitExceededError, "page limit: found 6"),
                ({"after": "7"}, ValidationError, "list marker '7': expected `next` of a page .* newest first"),
                ({"after": "nx"}, ValidationError, "list marker 'nx'"),
                ({"after": newest, "oldest_first": True}, ValidationError, "asked for oldest first"),
                ({"started_after_ms": "today"}, ValidationError, "started_after_ms: found 'today'"),
                ({"started_before_ms": True}, ValidationError, "started_before_ms: found True"),
            ]
            for filters, kind, said in refusals:
                with pytest.raises(kind, match=said):
                    await engine.executions.list(**filters)

    run(scenario())


def test_a_history_is_read_page_by_page_from_either_end(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            await engine.run(steps, 4, key="k")
            history = engine.executions.history

            async def pages(**options: Any) -> list[Event]:
                found: list[Event] = []
                while page := await history("k", function="listing-steps", limit=3, **options):
                    assert len(page) <= 3
                    found += page
                    options["after"] = page[-1].event_id
                return found

            whole = await history("k", function="listing-steps")
            assert [event.event_id for event in whole] == list(range(1, len(whole) + 1))
            assert len(whole) == 11
            assert await pages() == whole
            assert await pages(reverse=True) == whole[::-1]
            assert await history("k", function="listing-steps", reverse=True) == whole[::-1]
            assert await history("k", function="listing-steps", after=5) == whole[5:]
            assert await history("k", function="listing-steps", after=5, reverse=True) == whole[3::-1]
            assert await history("k", function="listing-steps", after=99) == []
            for wrong in ({"limit": 0}, {"after": 0}, {"limit": 1.5}, {"after": "x"}):
                with pytest.raises(ValidationError, match=r"history .*: found"):
                    await history("k", function="listing-steps", **wrong)  # type: ignore[arg-type]

    run(scenario())
