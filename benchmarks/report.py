"""How figures are summed up and printed: medians, their spread, and ratios by pair."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import apsw

from benchmarks.workloads import Figures


@dataclass(slots=True)
class Series:
    """What one workload gave, run by run. The runs of floor and semel with one index are a pair."""

    floor: list[Figures] = field(default_factory=list)
    semel: list[Figures] = field(default_factory=list)
    others_cpus: float = 0.0

    def median_of(self, name: str, figure: str) -> float:
        return median(self._values(name, figure))

    def ratio(self, figure: str) -> float:
        """How semel's median stands to the floor's: 1 is as fast, less is slower."""
        return _ratio(figure, self.median_of("semel", figure), self.median_of("floor", figure))

    def pair_ratios(self, figure: str) -> list[float]:
        pairs = zip(self._values("semel", figure), self._values("floor", figure), strict=True)
        return [_ratio(figure, semel, floor) for semel, floor in pairs]

    def lines(self) -> list[str]:
        """One line a figure; figures that only one of the two has stand alone."""
        figures = list(dict.fromkeys(key for run in self.semel + self.floor for key in run))
        lines = [self._line(figure) for figure in figures]
        return [*lines, f"    other processes meanwhile: {number(self.others_cpus)} CPUs"]

    def _line(self, figure: str) -> str:
        sides = [name for name in ("semel", "floor") if self._values(name, figure)]
        cells = "".join(f"  {name} {spread(self._values(name, figure)):<30}" for name in sides)
        if len(sides) == 1:
            return f"    {figure:<20}{cells}".rstrip()
        pairs = " ".join(number(ratio) for ratio in self.pair_ratios(figure))
        return f"    {figure:<20}{cells}  ratio {number(self.ratio(figure))}  pairs {pairs}"

    def _values(self, name: str, figure: str) -> list[float]:
        runs = self.floor if name == "floor" else self.semel
        return [run[figure] for run in runs if figure in run]


def _ratio(figure: str, semel: float, floor: float) -> float:
    return semel / floor if figure.endswith("/s") else floor / semel


def number(value: float) -> str:
    """Three significant digits, or whole thousands."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """The median, and what it lies between."""
    if len(values) == 1:
        return number(values[0])
    return f"{number(median(values))} ({number(min(values))}–{number(max(values))})"


def machine(folder: Path, *, fsync_ms: Callable[[Path], float]) -> str:
    """Where this ran, as far as it matters for the figures."""
    return " · ".join(
        (
            f"{os.cpu_count()} × {_cpu_model()}",
            f"{platform.system()} {platform.release()}",
            f"Python {platform.python_version()}",
            f"SQLite {apsw.sqlite_lib_version()} (apsw {apsw.apsw_version()})",
            f"{_file_system(folder)}, 4 KiB fdatasync {fsync_ms(folder):.2f} ms",
            "asyncio's own loop, commits in a thread",
        )
    )


class Others:
    """How many CPUs other processes keep busy, from here on. On a busy machine no figure means much."""

    def __init__(self) -> None:
        self._begun = time.perf_counter(), self._busy_seconds()

    def cpus(self) -> float:
        seconds = time.perf_counter() - self._begun[0]
        return max(0.0, (self._busy_seconds() - self._begun[1]) / seconds)

    def _busy_seconds(self) -> float:
        """What all processes have used but this one and its children."""
        own = os.times()
        try:
            fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
        except OSError:
            return 0.0
        user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in fields[:7])
        busy = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
        return busy - own.user - own.system - own.children_user - own.children_system


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file_system(folder: Path) -> str:
    """The type of the mount that holds the folder."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "file system not known"
    holding = [(mount[1], mount[2]) for mount in mounts if folder.resolve().is_relative_to(mount[1])]
    return max(holding, key=lambda mount: len(mount[0]))[1]
