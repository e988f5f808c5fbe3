"""What W5, W6 and the cold start run in a process of its own: `python -m benchmarks.child TASK SUBJECT FILE N`."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from pathlib import Path

import apsw

from benchmarks.subjects import SUBJECTS, SemelSubject

STARTERS = 256
QUIET_SHARE = 0.05  # of one core, over half a second


async def pay(name: str, path: Path, number: int) -> None:
    """Run this many payments at once, or join those that are under way; print the seconds it took."""
    begun = time.perf_counter()
    async with SUBJECTS[name](path) as subject:
        await asyncio.gather(*(subject.pay(n) for n in range(number)))
        print(f"{time.perf_counter() - begun:.6f}")


async def sleep(path: Path, number: int) -> None:
    """Put this many executions to sleep; print the resident bytes before and after, and SQLite's own."""
    async with SemelSubject(path) as subject:
        await subject.pay(0)
        before = rss()
        remaining = iter(range(number))

        async def start() -> None:
            for n in remaining:
                await subject.sleep(n)

        await asyncio.gather(*(start() for _ in range(STARTERS)))
        await quiet()
        gc.collect()
        print(before, rss(), apsw.memory_used())


async def quiet() -> None:
    """Return when this process has nothing to do."""
    while True:
        cpu = time.process_time()
        await asyncio.sleep(0.5)
        if time.process_time() - cpu < QUIET_SHARE * 0.5:
            return


def rss() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def main(task: str, name: str, path: str, number: str) -> None:
    match task:
        case "pay":
            asyncio.run(pay(name, Path(path), int(number)))
        case "sleep":
            asyncio.run(sleep(Path(path), int(number)))


if __name__ == "__main__":
    main(*sys.argv[1:5])
