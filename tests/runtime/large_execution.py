"""One process of a large execution, and how much memory it took: run by `test_memory.py`.

`python -m tests.runtime.large_execution STORE live|replay COUNT SIZE`: COUNT steps of SIZE bytes each, then a
wait. `live` runs them and closes while the execution waits; `replay` goes on from there to the outcome.
Prints the highest resident memory of the process in bytes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import semel
from semel import Context, durable_function

WAIT_MS = 500


async def make(number: int, size: int) -> bytes:
    return number.to_bytes(4, "big") + os.urandom(size)


@durable_function(name="memory.large")
async def large(ctx: Context, count: int, size: int) -> int:
    total = 0
    for number in range(count):
        made = await ctx.step(make, number, size)
        total += len(made) - 4
    await ctx.wait(ms=WAIT_MS)
    return total


async def live(store: str, count: int, size: int) -> None:
    async with semel.Engine(store) as engine:
        handle = await engine.start(large, count, size, key="k")
        while (await engine.executions.get(handle.id)).holder is not None:
            await asyncio.sleep(0.01)
    await asyncio.sleep(WAIT_MS / 1000)


async def replay(store: str, count: int, size: int) -> None:
    async with semel.Engine(store) as engine:
        total = await engine.run(large, count, size, key="k")
    if total != count * size:
        raise AssertionError(f"replayed {total} bytes, expected {count * size}")


def highest_resident_bytes() -> int:
    """The most memory that this process has had, by what Linux says of it."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def main(store: str, what: str, count: str, size: str) -> None:
    run = live if what == "live" else replay
    asyncio.run(run(store, int(count), int(size)))
    print(highest_resident_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
