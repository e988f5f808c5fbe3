"""`python -m benchmarks.replay`: how long an execution of many sequential steps takes to replay.

An engine runs the steps and is closed while the execution waits. Then it is opened again, finds the
wait over, replays every step from the file and finishes. Each step ran once, in the first engine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import semel
from benchmarks.__main__ import bench_folder
from benchmarks.raw import fsync_ms
from benchmarks.report import machine
from semel import Context, durable_function
from semel.kernel.entry import Record
from semel.runtime.worker import Worker
from semel.store.base import Stream

SIZES = (1_000, 3_000, 10_000)
REPEATS = 3
WAIT_MS = 300
ran = 0


async def add(total: int, number: int) -> int:
    global ran  # noqa: PLW0603
    ran += 1
    return total + number


@durable_function(name="bench.replayed")
async def replayed(ctx: Context, steps: int) -> int:
    total = 0
    for number in range(steps):
        total = await ctx.step(add, total, number)
    await ctx.wait(ms=WAIT_MS)
    return total


@contextmanager
def timed_replays() -> Iterator[list[float]]:
    """How long each claimed stream takes to be read, folded and run again, which is one call."""
    seconds: list[float] = []
    adopt = Worker.adopt

    def timed(worker: Worker, stream: Stream, records: list[Record] | None = None) -> None:
        began = time.perf_counter()
        adopt(worker, stream, records)
        seconds.append(time.perf_counter() - began)

    Worker.adopt = timed  # type: ignore[assignment, method-assign]
    try:
        yield seconds
    finally:
        Worker.adopt = adopt  # type: ignore[assignment, method-assign]


async def replay(path: Path, steps: int) -> tuple[float, float]:
    """Run `steps` steps, close, reopen. Return the seconds of the replay, and those from opening to the outcome."""
    before = ran
    store = f"sqlite:///{path}"
    async with semel.Engine(store) as engine:
        handle = await engine.start(replayed, steps, key="k")
        while (await engine.executions.get(handle.id)).holder is not None:
            await asyncio.sleep(0.002)
    await asyncio.sleep(WAIT_MS / 1000)
    gc.collect()
    with timed_replays() as seconds:
        began = time.perf_counter()
        async with semel.Engine(store) as engine:
            found = await engine.run(replayed, steps, key="k")
            whole = time.perf_counter() - began
    if (found, ran - before, len(seconds)) != (steps * (steps - 1) // 2, steps, 1):
        raise AssertionError(f"{steps} steps gave {found}, {ran - before} ran, {len(seconds)} replays; expected one")
    return seconds[0], whole


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, nargs="*", default=SIZES)
    sizes: list[int] = list(parser.parse_args(arguments).steps)
    first: float | None = None
    with bench_folder() as folder:
        print(machine(folder, fsync_ms=fsync_ms))
        print(f"best of {REPEATS}; ratio: µs a step beside that of the first line, 1 is linear")
        print(f"{'steps':>8} {'replay s':>9} {'µs a step':>10} {'ratio':>6} {'opening to outcome s':>21}")
        for size in sizes:
            runs = [asyncio.run(replay(folder / f"{size}-{n}.db", size)) for n in range(REPEATS)]
            seconds, whole = min(run[0] for run in runs), min(run[1] for run in runs)
            each = seconds / size * 1e6
            first = first or each
            print(f"{size:>8,} {seconds:>9.3f} {each:>10.1f} {each / first:>6.2f} {whole:>21.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
