"""`python -m benchmarks [--only w1,w3] [--quick]`: semel beside the floor, in alternating pairs.

Ends with one line for machines. Exits 1 if the floor is too slow to be a yardstick: if it
writes fewer than 0.6 × the rows per second of the disk alone, at its own rows per commit.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import profile, workloads
from benchmarks.raw import fsync_ms
from benchmarks.report import Others, Series, machine, number
from benchmarks.workloads import FULL, QUICK, Figures, Scale

ROOT = Path(__file__).resolve().parents[1]
FLOOR_TO_RAW_MIN = 0.6
OTHERS_CPUS_MAX = 0.2
NAMES = ("floor", "semel")
TITLES = {
    "w1": "W1  payment: five recorded steps and a recorded result, 256 at a time",
    "w2": "W2  one execution of {0.steps:,} sequential steps",
    "w3": "W3  {0.finished_keys:,} finished keys again, random order, just reopened, 256 at a time",
    "w4": "W4  durable counter: 32 callers of one actor, one caller, 100 actors",
    "w5": "W5  executions asleep for an hour: memory of the process (semel only)",
    "w6": "W6  SIGKILL with {0.in_flight:,} payments in step 3 of 5: seconds until all are done after the restart",
    "w7": "W7  payment, one at a time",
    "cold": "Cold  from the start of a process to its first result",
}


@contextmanager
def bench_folder() -> Iterator[Path]:
    """A fresh folder on $SEMEL_BENCH_DIR, or on the file system of the checkout."""
    chosen = os.environ.get("SEMEL_BENCH_DIR")
    temporary = Path(tempfile.gettempdir())
    parent = Path(chosen) if chosen else temporary if temporary.stat().st_dev == ROOT.stat().st_dev else ROOT
    folder = Path(tempfile.mkdtemp(prefix="semel-bench-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def pairs(folder: Path, scale: Scale, *, measure: Callable[[str, Path, int], Figures]) -> Series:
    """Run floor and semel in turn, each run in a folder of its own that is gone after it."""
    series = Series()
    for index in range(scale.pairs):
        for name in NAMES:
            with tempfile.TemporaryDirectory(dir=folder) as fresh:
                gc.collect()
                (series.floor if name == "floor" else series.semel).append(measure(name, Path(fresh), index))
    return series


def in_loop(folder: Path, scale: Scale, workload: Callable[[str, Path, Scale], Awaitable[Figures]]) -> Series:
    async def measured(name: str, fresh: Path) -> Figures:
        return await workload(name, fresh, scale)

    return pairs(folder, scale, measure=lambda name, fresh, _: asyncio.run(measured(name, fresh)))


def repeated_keys(folder: Path, scale: Scale) -> Series:
    """W3: the finished keys are made once; each run opens the files again."""
    for name in NAMES:
        asyncio.run(workloads.w3_prepare(name, folder / f"w3-{name}.db", scale))
    return pairs(
        folder,
        scale,
        measure=lambda name, _, seed: asyncio.run(workloads.w3(name, folder / f"w3-{name}.db", scale, seed=seed)),
    )


def memory(folder: Path, scale: Scale) -> list[str]:
    """W5: what more sleepers cost more. SQLite's page cache fills up to its bound and is shown apart."""
    few, many = scale.sleepers
    small, large = workloads.w5(folder, few), workloads.w5(folder, many)
    lines = []
    for count, figures in ((few, small), (many, large)):
        before, after, sqlite = (figures[part] / 2**20 for part in ("before", "after", "sqlite"))
        lines.append(f"    {count:>7,} asleep      {after:.1f} MiB, SQLite's {sqlite:.1f}; before {before:.1f} MiB")
    growth, cache = (large[part] - small[part] for part in ("after", "sqlite"))
    further = many - few
    return [
        *lines,
        f"    each further one    {growth / further:.0f} bytes, SQLite's cache {cache / further:.0f} of them",
    ]


def measure(workload: str, folder: Path, scale: Scale) -> Series:
    match workload:
        case "w1":
            return in_loop(folder, scale, workloads.w1)
        case "w2":
            return in_loop(folder, scale, workloads.w2)
        case "w3":
            return repeated_keys(folder, scale)
        case "w4":
            return in_loop(folder, scale, workloads.w4)
        case "w6":
            return pairs(folder, scale, measure=lambda name, fresh, _: workloads.w6(name, fresh, scale))
        case "w7":
            return in_loop(folder, scale, workloads.w7)
    return pairs(folder, scale, measure=lambda name, fresh, _: workloads.cold(name, fresh))


def chosen_workloads(only: str | None) -> list[str]:
    asked = set(only.split(",")) if only else set(TITLES)
    if unknown := asked - set(TITLES):
        raise SystemExit(f"--only: found {', '.join(sorted(unknown))}, expected some of {', '.join(TITLES)}")
    return [workload for workload in TITLES if workload in asked or workload == "w1"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="w1,w3", help="these workloads; W1 always runs")
    parser.add_argument("--quick", action="store_true", help="one short pair of each: that it works, not how fast")
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    with bench_folder() as folder:
        print(machine(folder, fsync_ms=fsync_ms), flush=True)
        print(f"median (min–max) of {scale.pairs} alternating pairs; ratio: 1 is as fast as the floor", flush=True)
        for workload in chosen_workloads(options.only):
            print("\n" + TITLES[workload].format(scale), flush=True)
            if workload == "w5":
                print("\n".join(memory(folder, scale)), flush=True)
                continue
            others = Others()
            series = measure(workload, folder, scale)
            series.others_cpus = others.cpus()
            print("\n".join(series.lines()), flush=True)
            if workload == "w1":
                payments = series
                floor = payments.median_of("floor", "executions/s")
                print("\n".join(profile.run(folder / "profile.db", seconds=scale.seconds, floor=floor)), flush=True)
    to_raw = payments.median_of("floor", "floor/raw")
    is_yardstick = to_raw >= FLOOR_TO_RAW_MIN
    verdict = "fast enough to be measured against" if is_yardstick else "too slow to be measured against"
    print(f"\nfloor: {number(to_raw)} of the disk alone, at least {FLOOR_TO_RAW_MIN} expected; {verdict}")
    if payments.others_cpus > OTHERS_CPUS_MAX:
        print(f"note: other processes used {number(payments.others_cpus)} CPUs during W1: run this on a quiet machine")
    semel, floor = (payments.median_of(name, "executions/s") for name in ("semel", "floor"))
    print(f"bench: w1={semel:.0f} executions/s floor={floor:.0f} ratio={semel / floor:.2f}")
    return 0 if is_yardstick else 1


if __name__ == "__main__":
    sys.exit(main())
