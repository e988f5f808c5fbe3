"""The workloads W1 to W7: what is done, and how a figure is taken from it. Each runs on a fresh file.

A rate is taken by closed loops: so many callers, each sending its next request when the last
is answered, until the time is over; everything begun is waited for and counted.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import median

from benchmarks.floor import Counts
from benchmarks.raw import RawLoop, row_bytes_of
from benchmarks.subjects import HOLD, SUBJECTS, FloorSubject, Subject

CALLERS = 256
SLICES = 4
CHILD_SECONDS_MAX = 120
Figures = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured. The shape of each workload does not depend on it."""

    pairs: int
    seconds: float
    steps: int
    finished_keys: int
    sleepers: tuple[int, int]
    in_flight: int
    single_runs: int


FULL = Scale(
    pairs=5,
    seconds=2.0,
    steps=1_000,
    finished_keys=100_000,
    sleepers=(5_000, 20_000),
    in_flight=1_000,
    single_runs=300,
)
QUICK = Scale(
    pairs=1,
    seconds=0.5,
    steps=200,
    finished_keys=5_000,
    sleepers=(1_500, 3_000),
    in_flight=200,
    single_runs=50,
)


@dataclass(frozen=True, slots=True)
class Rate:
    done: int
    seconds: float
    cpu_seconds: float

    @classmethod
    def of(cls, rates: list[Rate]) -> Rate:
        """All of them, one after another."""
        return cls(
            sum(rate.done for rate in rates),
            sum(rate.seconds for rate in rates),
            sum(rate.cpu_seconds for rate in rates),
        )

    @property
    def per_second(self) -> float:
        return self.done / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_seconds / self.done * 1e6


async def closed_loop(callers: int, *, seconds: float, work: Callable[[int, int], Awaitable[object]]) -> Rate:
    """Rate of `work(caller, number)` by this many callers for about this long."""
    numbers = count()
    done = 0

    async def call(caller: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await work(caller, next(numbers))
            done += 1

    begun, cpu = time.perf_counter(), time.process_time()
    end = begun + seconds
    await asyncio.gather(*(call(caller) for caller in range(callers)))
    return Rate(done, time.perf_counter() - begun, time.process_time() - cpu)


async def each(callers: int, numbers: list[int], *, work: Callable[[int], Awaitable[object]]) -> Rate:
    """Rate of `work` over all numbers, by this many callers."""
    remaining = iter(numbers)

    async def call() -> None:
        for number in remaining:
            await work(number)

    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(call() for _ in range(callers)))
    return Rate(len(numbers), time.perf_counter() - begun, time.process_time() - cpu)


async def w1(name: str, folder: Path, scale: Scale) -> Figures:
    """Payments, 256 at a time, in slices; on the floor each slice is followed by one of the disk alone.

    The disk of a shared machine changes its speed from second to second: only slices side by
    side compare.
    """
    path, raw = folder / "w1.db", RawLoop(folder / "raw.db")
    rates, beside = [], []
    async with SUBJECTS[name](path) as subject:
        for index in range(SLICES):
            before = replace(subject.engine.counts) if isinstance(subject, FloorSubject) else None
            rates.append(await payments(subject, first=index * 10_000_000, seconds=scale.seconds / SLICES))
            if isinstance(subject, FloorSubject) and before:
                beside.append(_beside_raw(subject.engine.counts, before, rates[-1], raw, row_bytes_of(path)))
    raw.close()
    rate = Rate.of(rates)
    figures = {"executions/s": rate.per_second, "cpu us/execution": rate.cpu_us}
    return figures | {figure: median(each[figure] for each in beside) for figure in (beside[0] if beside else ())}


async def payments(subject: Subject, *, first: int, seconds: float) -> Rate:
    """W1 from this order number on."""
    return await closed_loop(CALLERS, seconds=seconds, work=lambda _, number: subject.pay(first + number))


def _beside_raw(counts: Counts, before: Counts, rate: Rate, raw: RawLoop, row_bytes: int) -> Figures:
    rows, commits = counts.rows - before.rows, counts.commits - before.commits
    alone = raw.rows_per_second(rows_per_commit=round(rows / commits), row_bytes=row_bytes, seconds=rate.seconds / 2)
    return {
        "rows/s": rows / rate.seconds,
        "rows/commit": rows / commits,
        "commits/s": commits / rate.seconds,
        "bytes/row": row_bytes,
        "raw rows/s": alone,
        "floor/raw": rows / rate.seconds / alone,
    }


async def w2(name: str, folder: Path, scale: Scale) -> Figures:
    """One execution of sequential steps."""
    async with SUBJECTS[name](folder / "w2.db") as subject:
        begun = time.perf_counter()
        height = await subject.climb(scale.steps)
        seconds = time.perf_counter() - begun
    assert height == scale.steps
    return {"steps/s": scale.steps / seconds}


async def w3_prepare(name: str, path: Path, scale: Scale) -> None:
    """Finish the executions whose keys W3 repeats, and close the engine."""
    async with SUBJECTS[name](path) as subject:
        await each(CALLERS, list(range(scale.finished_keys)), work=subject.pay)


async def w3(name: str, path: Path, scale: Scale, *, seed: int) -> Figures:
    """Finished keys again, in random order, by an engine that was just opened on the file."""
    numbers = list(range(scale.finished_keys))
    random.Random(seed).shuffle(numbers)
    async with SUBJECTS[name](path) as subject:
        rate = await each(CALLERS, numbers, work=subject.pay)
    return {"duplicates/s": rate.per_second}


async def w4(name: str, folder: Path, scale: Scale) -> Figures:
    """A durable counter: 32 callers of one actor, one caller of one actor, 100 callers of their own actors."""
    async with SUBJECTS[name](folder / "w4.db") as subject:
        hot = await closed_loop(32, seconds=scale.seconds / 2, work=lambda _, __: subject.add("hot", 1))
        assert await subject.add("hot", 0) == hot.done
        alone = await closed_loop(1, seconds=scale.seconds / 2, work=lambda _, __: subject.add("alone", 1))
        wide = await closed_loop(
            100, seconds=scale.seconds / 2, work=lambda caller, _: subject.add(f"actor-{caller}", 1)
        )
    return {
        "hot calls/s": hot.per_second,
        "sequential calls/s": alone.per_second,
        "100 actors calls/s": wide.per_second,
    }


async def w7(name: str, folder: Path, scale: Scale) -> Figures:
    """Latency of one payment at a time."""
    times = []
    async with SUBJECTS[name](folder / "w7.db") as subject:
        for number in range(scale.single_runs):
            begun = time.perf_counter()
            await subject.pay(number)
            times.append((time.perf_counter() - begun) * 1000)
    times.sort()
    return {"p50 ms": times[len(times) // 2], "p99 ms": times[len(times) * 99 // 100]}


def w5(folder: Path, count_: int) -> Figures:
    """Memory of a process in which this many executions sleep for an hour (semel only)."""
    answer = _child("sleep", "semel", folder / f"w5-{count_}.db", count_)
    before, after, sqlite = (int(word) for word in answer.split())
    return {"before": before, "after": after, "sqlite": sqlite}


def w6(name: str, folder: Path, scale: Scale) -> Figures:
    """SIGKILL with every payment in its third step of five; time until all are done after the restart."""
    path = folder / f"w6-{name}.db"
    command = [sys.executable, "-m", "benchmarks.child", "pay", name, str(path), str(scale.in_flight)]
    with subprocess.Popen(command, env=_environment() | {HOLD: "1"}, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        held = 0
        while held < scale.in_flight:
            dots = os.read(child.stdout.fileno(), 4096)
            if not dots:
                raise RuntimeError(f"W6: the {name} child ended with {held} payments in their third step")
            held += dots.count(b".")
        child.kill()
    return {"s": float(_child("pay", name, path, scale.in_flight))}


def cold(name: str, folder: Path) -> Figures:
    """From the start of a process to its first result."""
    begun = time.perf_counter()
    _child("pay", name, folder / f"cold-{name}.db", 1)
    return {"s": time.perf_counter() - begun}


def _child(task: str, name: str, path: Path, number: int) -> str:
    command = [sys.executable, "-m", "benchmarks.child", task, name, str(path), str(number)]
    done = subprocess.run(
        command, env=_environment(), stdout=subprocess.PIPE, text=True, check=True, timeout=CHILD_SECONDS_MAX
    )
    return done.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
