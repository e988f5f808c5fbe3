"""`python -m benchmarks.sweep [--quick]`: W1 while the retention sweep removes terminal executions, and without.

The executions are written straight into the file, as finished as any: a start, steps and an outcome
each. Slices of W1 with the sweep and without it alternate in one engine on one file, so that the
disk's moods cancel out.
Ends with one line for machines. Exits 1 if W1 loses 20 % or more.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.__main__ import bench_folder
from benchmarks.raw import fsync_ms
from benchmarks.report import machine
from benchmarks.subjects import SUBJECTS
from benchmarks.workloads import payments
from semel import Limits
from semel.kernel import ids, values
from semel.kernel.entry import InvocationEnded, Kind, Payload, Settled, Started
from semel.runtime.services import Services
from semel.runtime.sweeper import Sweeper
from semel.store import codec
from semel.store.base import FUNCTION, Key, KeyId, Stream
from semel.store.sqlite import SqliteStore

OLD_MS = 1_700_000_000_000
STEPS = 5
BATCH = 500
LOSS_MAX = 0.2


def fill(path: Path, count: int) -> None:
    """Write executions that ended years ago, each with its key."""
    store = SqliteStore.open(path)
    payload = Payload(values.encode(["order", 250, "EUR"]))
    for first in range(0, count, BATCH):
        transaction = store.begin(())
        for number in range(first, min(first + BATCH, count)):
            uid = ids.stream_uid(OLD_MS + number, number.to_bytes(ids.UID_ENTROPY_BYTES, "big"))
            key = f"old-{number}"
            stream = Stream(store.next_stream(), uid, "default", FUNCTION, "old", key, created_ms=OLD_MS)
            transaction.create(stream)
            entries = [Started(uid, Kind.EXECUTION, name=key, payload=payload)]
            for step in range(STEPS + 1):
                if step:
                    entries = [Started(f"1_{step}", Kind.STEP, name="step"), Settled(f"1_{step}", result=payload)]
                body = codec.encode(codec.Append(OLD_MS, tuple(entries)), stream=stream.number, seq=stream.head + 1)
                stream = transaction.append(None, stream, count=len(entries), body=body, time_ms=OLD_MS)
            ended = (InvocationEnded(1), Settled(uid, result=payload))
            body = codec.encode(codec.Append(OLD_MS, ended), stream=stream.number, seq=stream.head + 1)
            transaction.append(
                None, stream, count=2, body=body, time_ms=OLD_MS, status="SUCCEEDED", ended_ms=OLD_MS, wake_ms=None
            )
            transaction.put_key(Key(KeyId("default", "fn:old", key), stream.number, uid, b"print"))
        store.commit(transaction)
    store.close()


async def measure(path: Path, *, count: int, seconds: float) -> tuple[list[float], list[float], float]:
    """Rates of W1 slices without the sweep and with it, and the seconds that the sweep took of the slices with it."""
    async with SUBJECTS["semel"](path) as subject:
        services: Services = subject.engine._services
        subject.engine._sweeper.close()  # it is ours to run
        before = len(services.reader.scan_ended(0, until_ms=OLD_MS, limit=count + 1).found)
        if before != count:
            raise SystemExit(f"sweep: found {before} terminal executions, expected {count}")
        alone: list[float] = []
        beside: list[float] = []
        swept, place = 0.0, 0
        sweeping: asyncio.Task[int] | None = None
        sweeper = Gate(services)
        while sweeping is None or not sweeping.done():
            for is_beside in (False, True):
                place += 1
                sweeper.let(is_beside)
                if is_beside and sweeping is None:
                    sweeping = asyncio.create_task(sweeper.sweep())
                begun = time.perf_counter()
                rate = await payments(subject, first=place * 10_000_000, seconds=seconds)
                took = time.perf_counter() - begun
                if is_beside and sweeping is not None and sweeping.done():
                    continue  # it ended within this slice
                (beside if is_beside else alone).append(rate.per_second)
                swept += took if is_beside else 0
        removed = await sweeping
        if removed != count:
            raise SystemExit(f"sweep: removed {removed}, expected {count}")
        return alone, beside, swept


class Gate(Sweeper):
    """A sweeper that waits between two batches while it is told to."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._is_open = asyncio.Event()

    def let(self, is_open: object) -> None:
        """Let it work, or wait."""
        if is_open:
            self._is_open.set()
        else:
            self._is_open.clear()

    async def _rest(self, begun_s: float) -> None:
        await super()._rest(begun_s)
        await self._is_open.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2,000 executions: that it works, not how fast")
    parser.add_argument("--count", type=int, default=100_000, help="how many executions; 100,000 unless said")
    options = parser.parse_args()
    count, seconds = (2_000, 0.5) if options.quick else (options.count, 2.0)
    with bench_folder() as folder:
        print(machine(folder, fsync_ms=fsync_ms), flush=True)
        path = folder / "sweep.db"
        begun = time.perf_counter()
        fill(path, count)
        print(
            f"{count:,} terminal executions of {STEPS} steps written in {time.perf_counter() - begun:.0f} s", flush=True
        )
        alone, beside, swept = asyncio.run(measure(path, count=count, seconds=seconds))
    without, beside_it = median(alone), median(beside) if beside else median(alone)
    ratio = beside_it / without
    spread = (
        f"{min(alone):.0f}-{max(alone):.0f} without, {min(beside, default=0):.0f}-{max(beside, default=0):.0f} with"
    )
    print(
        f"W1 in slices of {seconds:g} s: median {without:.0f}/s without the sweep, {beside_it:.0f}/s with it; {spread}"
    )
    print(
        f"swept in {swept:.0f} s of W1, {count / max(swept, 1e-9):.0f} executions/s, {Limits().sweep_batch_max} a batch"
    )
    print(f"bench: sweep w1={without:.0f} beside={beside_it:.0f} ratio={ratio:.2f}")
    return 0 if ratio > 1 - LOSS_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
