"""`python -m benchmarks.replay`: how long an execution of many sequential steps takes to replay.

An engine runs the steps and is closed while the execution waits. Then it is opened again, finds the
wait over, replays every step from the file and finishes. The time is that from opening the engine to the
outcome; the line of 0 steps says what of it is not replay. Each step ran once, in the first engine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from pathlib import Path

import semel
from benchmarks.__main__ import bench_folder
from benchmarks.raw import fsync_ms
from benchmarks.report import machine
from semel import Context, durable_function

SIZES = (0, 1_000, 3_000, 10_000)
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


async def seconds_to_replay(path: Path, steps: int) -> float:
    """Run `steps` steps, close, reopen, and return how long the second engine took to the outcome."""
    before = ran
    store = f"sqlite:///{path}"
    async with semel.Engine(store) as engine:
        handle = await engine.start(replayed, steps, key="k")
        while (await engine.executions.get(handle.id)).holder is not None:
            await asyncio.sleep(0.002)
    await asyncio.sleep(WAIT_MS / 1000)
    gc.collect()
    began = time.perf_counter()
    async with semel.Engine(store) as engine:
        found = await engine.run(replayed, steps, key="k")
        seconds = time.perf_counter() - began
    if (found, ran - before) != (steps * (steps - 1) // 2, steps):
        raise AssertionError(f"{steps} steps gave {found} in {ran - before} runs, expected each step to run once")
    return seconds


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, nargs="*", default=SIZES)
    sizes: list[int] = list(parser.parse_args(arguments).steps)
    base: float | None = None
    nothing = 0.0
    with bench_folder() as folder:
        print(machine(folder, fsync_ms=fsync_ms))
        print("replay of one execution of sequential steps, from opening the file to its outcome")
        print(f"{'steps':>8} {'seconds':>9} {'µs a step':>10} {'ratio':>6}")
        for size in sizes:
            runs = [asyncio.run(seconds_to_replay(folder / f"{size}-{n}.db", size)) for n in range(REPEATS)]
            seconds = min(runs)
            if not size:
                nothing = seconds
                print(f"{size:>8,} {seconds:>9.3f}")
                continue
            each = (seconds - nothing) / size * 1e6
            base = base or each
            print(f"{size:>8,} {seconds:>9.3f} {each:>10.1f} {each / base:>6.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
