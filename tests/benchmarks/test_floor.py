"""The floor is a yardstick only if it keeps its promises: it is durable, and it deduplicates."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ParamSpec

import pytest

from benchmarks.floor import Execution, Floor

P = ParamSpec("P")


def on_a_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def scenario() -> None:
            await test(*args, **kwargs)

        asyncio.run(scenario())

    return run


class Trace:
    """A body of five steps that notes each step it runs and holds before the third."""

    def __init__(self, gate: asyncio.Event) -> None:
        self.ran: list[str] = []
        self.gate = gate

    async def body(self, execution: Execution, order: dict[str, Any]) -> dict[str, Any]:
        total = 0
        for name in ("one", "two", "three", "four", "five"):
            total += await execution.step(self._step, (name, order["amount"]))
        return {"order": order["id"], "total": total}

    async def _step(self, argument: tuple[str, int]) -> int:
        name, amount = argument
        if name == "three":
            await self.gate.wait()
        self.ran.append(name)
        return amount


@on_a_loop
async def test_a_result_is_the_bodys_and_each_step_runs_once(tmp_path: Path) -> None:
    trace = Trace(_open_gate())
    floor = Floor(str(tmp_path / "floor.db"))
    results = await asyncio.gather(*(floor.run(trace.body, _order(n), key=f"k-{n}") for n in range(200)))
    floor.close()
    assert results == [{"order": n, "total": 5 * n} for n in range(200)]
    assert len(trace.ran) == 1000


@on_a_loop
async def test_a_finished_key_answers_from_disk_also_after_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "floor.db")
    trace = Trace(_open_gate())
    floor = Floor(path)
    first = await floor.run(trace.body, _order(7), key="k")
    assert await floor.run(trace.body, _order(7), key="k") == first
    floor.close()
    floor = Floor(path)
    mixed = await asyncio.gather(*(floor.run(trace.body, _order(n), key=k) for n, k in ((7, "k"), (8, "new"))))
    floor.close()
    assert mixed == [first, {"order": 8, "total": 40}]
    assert len(trace.ran) == 10


@on_a_loop
async def test_concurrent_callers_of_one_key_share_one_run(tmp_path: Path) -> None:
    gate = asyncio.Event()
    trace = Trace(gate)
    floor = Floor(str(tmp_path / "floor.db"))
    callers = [asyncio.create_task(floor.run(trace.body, _order(3), key="k")) for _ in range(10)]
    await _until(lambda: trace.ran == ["one", "two"])
    gate.set()
    assert await asyncio.gather(*callers) == [{"order": 3, "total": 15}] * 10
    floor.close()
    assert trace.ran == ["one", "two", "three", "four", "five"]


@on_a_loop
async def test_an_unfinished_execution_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = str(tmp_path / "floor.db")
    stopped = Trace(asyncio.Event())
    floor = Floor(path)
    runs = [asyncio.create_task(floor.run(stopped.body, _order(n), key=f"k-{n}")) for n in range(5)]
    await _until(lambda: len(stopped.ran) == 10)
    for run in runs:
        run.cancel()
    await asyncio.gather(*runs, return_exceptions=True)
    floor.close()

    resumed = Trace(_open_gate())
    floor = Floor(path, [resumed.body])
    joined = await floor.run(resumed.body, _order(2), key="k-2")
    finished = await asyncio.gather(*floor.recovered)
    floor.close()
    assert joined == finished[2] == {"order": 2, "total": 10}
    assert sorted(resumed.ran) == sorted(["three", "four", "five"] * 5)


@on_a_loop
async def test_an_actor_handles_calls_one_at_a_time_and_keeps_its_state(tmp_path: Path) -> None:
    path = str(tmp_path / "floor.db")
    floor = Floor(path)
    replies = await asyncio.gather(*(floor.call("a", _slow_add, 1) for _ in range(50)))
    floor.close()
    floor = Floor(path)
    again = await floor.call("a", _slow_add, 0)
    floor.close()
    assert sorted(replies) == list(range(1, 51))
    assert again == 50


@on_a_loop
async def test_a_commit_that_fails_reaches_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    floor = Floor(str(tmp_path / "floor.db"))

    def refuse(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(floor, "_write", refuse)
    with pytest.raises(OSError, match="no space"):
        await floor.run(Trace(_open_gate()).body, _order(1), key="k")
    floor.close()


async def _slow_add(state: int | None, amount: int) -> tuple[int, int]:
    await asyncio.sleep(0)
    total = (state or 0) + amount
    return total, total


def _order(number: int) -> dict[str, int]:
    return {"id": number, "amount": number}


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)
