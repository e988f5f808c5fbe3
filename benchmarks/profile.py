"""Where the CPU of one W1 execution goes, by module of semel, and what leaving each out would give.

A timer interrupts the loop's thread a thousand times a second. Each thread's CPU clock is read
then, and what it advanced is booked on the innermost frame of semel that the thread is in: so
time in the standard library counts for who called it, and waiting counts for nothing. Only
the loop's thread is split by module; the others are interrupted where they give up the GIL.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Self

import semel
from benchmarks.report import number
from benchmarks.subjects import SemelSubject
from benchmarks.workloads import Rate, payments

PACKAGE = str(Path(semel.__file__).parent)
CALLING = {str(Path(__file__).with_name(name)) for name in ("subjects.py", "workloads.py")}
INTERVAL_SECONDS = 0.001
SHOWN_MODULES = 16
SHOWN_FUNCTIONS = 4
SHOWN_CLOSING = 6


class Sampler:
    """Books CPU seconds on (module, function) while it is on. Used on the main thread only."""

    def __init__(self) -> None:
        self.loop_seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.thread_seconds: defaultdict[str, float] = defaultdict(float)
        self._clocks: dict[int, float] = {}

    def __enter__(self) -> Self:
        self._read()
        self._previous = signal.signal(signal.SIGALRM, self._sample)
        signal.setitimer(signal.ITIMER_REAL, INTERVAL_SECONDS, INTERVAL_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._previous)

    def _sample(self, signum: int, frame: FrameType | None) -> None:
        for thread, seconds in self._read():
            if thread is threading.main_thread():
                self.loop_seconds[_place(frame)] += seconds
            else:
                self.thread_seconds[thread.name] += seconds

    def _read(self) -> list[tuple[threading.Thread, float]]:
        """How far each thread's CPU clock went since it was read last."""
        advanced = []
        for thread in threading.enumerate():
            ident = thread.ident or 0
            try:
                now = time.clock_gettime(time.pthread_getcpuclockid(ident))
            except OSError:  # it ended meanwhile
                continue
            advanced.append((thread, now - self._clocks.get(ident, now)))
            self._clocks[ident] = now
        return advanced


def _place(frame: FrameType | None) -> tuple[str, str]:
    while frame is not None and frame.f_code.co_filename == __file__:  # a signal within a signal
        frame = frame.f_back
    innermost = "" if frame is None else frame.f_code.co_qualname
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE):
            return code.co_filename[len(PACKAGE) + 1 :], code.co_qualname
        if code.co_filename in CALLING:
            return "(the benchmark's steps and callers)", code.co_qualname
        frame = frame.f_back
    return "(asyncio and other libraries)", innermost


async def profile(path: Path, *, seconds: float, floor: float) -> list[str]:
    """The lines to print. The sampled run is a few percent slower than one without.

    `floor` is what the floor did in the same run, in executions per second.
    """
    async with SemelSubject(path) as subject:
        await payments(subject, first=0, seconds=seconds / 4)
        with Sampler() as sampler:
            rate = await payments(subject, first=10_000_000, seconds=seconds)
    return [*_breakdown(sampler, rate), *_closing(sampler, rate, floor)]


def _breakdown(sampler: Sampler, rate: Rate) -> list[str]:
    functions: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for (module, function), seconds in sampler.loop_seconds.items():
        functions[module][function] = seconds / rate.done * 1e6
    modules = _by_size({module: sum(costs.values()) for module, costs in functions.items()})
    lines = [f"    CPU of one W1 execution on semel: {rate.cpu_us:.0f} us at {rate.per_second:,.0f} executions/s"]
    for module, us in modules[:SHOWN_MODULES]:
        most = _by_size(functions[module])[:SHOWN_FUNCTIONS]
        lines.append(
            f"    {us:7.1f} us  {module:<36} {', '.join(f'{name} {number(cost)}' for name, cost in most if name)}"
        )
    lines.append(f"    {sum(us for _, us in modules[SHOWN_MODULES:]):7.1f} us  (other modules)")
    for thread, seconds in _by_size(sampler.thread_seconds):
        lines.append(f"    {seconds / rate.done * 1e6:7.1f} us  thread {thread}")
    return lines


def _closing(sampler: Sampler, rate: Rate, floor: float) -> list[str]:
    """What limits W1, what a quarter of the floor asks for, and W1 if one part cost nothing."""
    parts: defaultdict[str, float] = defaultdict(float)
    for (module, _), seconds in sampler.loop_seconds.items():
        parts[module] += seconds / rate.done * 1e6
    loop_us, wall_us = sum(parts.values()), rate.seconds / rate.done * 1e6
    for thread, seconds in sampler.thread_seconds.items():
        parts[f"thread {thread}"] = seconds / rate.done * 1e6
    threads_us = sum(parts.values()) - loop_us
    limit = "one thread at a time runs Python" if loop_us + threads_us > 0.85 * wall_us else "the disk is waited for"
    lines = [
        f"    Wall time {wall_us:.0f} us: the loop's thread works {loop_us:.0f}, others {threads_us:.0f}; {limit}.",
        f"    A quarter of the floor is {floor / 4:,.0f} executions/s, {4e6 / floor:.0f} us of wall time each.",
        "    What would close the rest, W1 if that part cost nothing:",
    ]
    own = [(part, us) for part, us in _by_size(parts) if not part.startswith("(")]
    for part, us in own[:SHOWN_CLOSING]:
        lines.append(f"        without {part:<30} {1e6 / (wall_us - us):8,.0f} executions/s")
    return lines


def _by_size(costs: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(costs.items(), key=lambda item: -item[1])


def run(path: Path, *, seconds: float, floor: float) -> list[str]:
    return asyncio.run(profile(path, seconds=seconds, floor=floor))
