"""Every moment a shape can be disturbed at, one run for each."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Literal

from msgspec import Struct

from semel.runtime import blocking
from semel.testing.audit import Violation
from semel.testing.client import Client
from semel.testing.faults import Arrival, ArrivalKind, Close, Crash, Fault, Jump, Moment, Plan, Takeover, TakeoverKind
from semel.testing.place import MemoryPlace, SqlitePlace, SqliteTemplate
from semel.testing.silence import silence
from semel.testing.world import Run, Shape, World

Kind = Literal["crash", "pair", "expiry", "close", "arrival", "takeover", "jump", "random"]
StoreName = Literal["memory", "sqlite"]
ALL: Final[tuple[Kind, ...]] = ("crash", "pair", "expiry", "close", "arrival", "takeover", "jump", "random")
MOMENTS: Final[tuple[Moment, ...]] = ("before", "after")
JUMPS_MS: Final = (45_000, -45_000)
RANDOM_RUNS: Final = 5


class Found(Struct, frozen=True):
    """A run that broke a rule, with what is needed to run it again."""

    shape: str
    store: str
    seed: int
    plan: Plan
    violations: list[Violation]

    def __str__(self) -> str:
        lines = [f"{self.shape} on {self.store}, seed {self.seed}, plan {self.plan!r}"]
        return "\n  ".join([*lines, *(str(violation) for violation in self.violations[:5])])


class Report(Struct):
    """What an exploration came to. `runs` and `fired` count by kind of plan and by kind of fault.

    `same` counts pairs that were not run, because their first crash left what an earlier one left, byte for byte.
    """

    shape: str
    store: str
    writes: int = 0
    runs: Counter[str] = Counter()
    fired: Counter[str] = Counter()
    same: int = 0
    refused: int = 0
    found: list[Found] = []

    def __str__(self) -> str:
        runs = ", ".join(f"{count} {kind}" for kind, count in self.runs.items())
        return f"{self.shape} on {self.store}: {self.writes} writes, {runs}, {len(self.found)} violations"


def explore(
    shape: Shape | Callable[[Client], Awaitable[Any]],
    *,
    store: StoreName = "memory",
    kinds: tuple[Kind, ...] = ALL,
    pairs: float = 1.0,
    plans_max: int | None = None,
    seed: int = 0,
) -> Report:
    """Run a scenario once undisturbed, then once for every crash, pair of crashes, arrival, takeover and so on.

    A crash lies before or after each write; the second of a pair is counted from the restart, and
    `pairs` is the share of them that is run, chosen by `seed`. `plans_max` is how many of each kind
    but single crashes are run, chosen likewise; None means all. Every run must come to the
    outcome of the undisturbed one and keep every rule; `Report.found` has those that did not.
    A line whose body blocks (a file, a socket, a process) is a RuntimeWarning.
    """
    with silence(), warnings_of_blocking():
        return _Explorer(shape, store, kinds, pairs, seed=seed, plans_max=plans_max).run()


def run_once(
    shape: Shape | Callable[[Client], Awaitable[Any]], *, plan: Plan = (), store: StoreName = "memory", seed: int = 0
) -> Run:
    """One run by one plan, such as one that `explore` found."""
    with warnings_of_blocking():
        return World(as_shape(shape), Opener(store).open(seed), plan=plan, seed=seed).run()


@contextlib.contextmanager
def warnings_of_blocking() -> Iterator[None]:
    """What blocks in a body is warned about at its own line, once it is all over, as a filter may make it an error."""
    found: list[blocking.Blocking] = []
    stop = blocking.watch(found.append)
    try:
        yield
    finally:
        stop()
        for one in found:
            warnings.warn_explicit(str(one), RuntimeWarning, one.file, one.line)


def as_shape(scenario: Shape | Callable[[Client], Awaitable[Any]]) -> Shape:
    """A bare scenario as a shape with its name."""
    if isinstance(scenario, Shape):
        return scenario
    return Shape(name=getattr(scenario, "__name__", "scenario"), scenario=scenario)


class Opener:
    """Makes new, empty places for journals."""

    def __init__(self, store: StoreName) -> None:
        self._template = None if store == "memory" else SqliteTemplate()

    def open(self, seed: int) -> MemoryPlace | SqlitePlace:
        """One for a world."""
        return MemoryPlace(seed) if self._template is None else SqlitePlace(self._template)


class _Explorer:
    def __init__(
        self,
        shape: Shape | Callable[[Client], Awaitable[Any]],
        store: StoreName,
        kinds: tuple[Kind, ...],
        pairs: float,
        *,
        seed: int,
        plans_max: int | None,
    ) -> None:
        self.shape = as_shape(shape)
        self.store: StoreName = store
        self.places = Opener(store)
        self.kinds = kinds
        self.pairs = pairs
        self.seed = seed
        self.plans_max = plans_max
        self.luck = random.Random(f"{self.shape.name} {seed}")  # noqa: S311  # which plans are run
        self.report = Report(self.shape.name, store, 0, Counter(), Counter(), 0, 0, [])
        self.outcomes: frozenset[str] = frozenset()
        self.alone: dict[Plan, Run] = {}

    def run(self) -> Report:
        record = self._run((), "record")
        self.outcomes = self.shape.outcomes | {record.outcome}
        writes = self.report.writes = record.writes[0]
        if record.violations:
            return self.report
        for kind in self.kinds:
            for plan in self._chosen(kind, writes):
                run = self._run(plan, kind)
                if kind == "crash":
                    self.alone[plan] = run
        return self.report

    def _chosen(self, kind: Kind, writes: int) -> Iterator[Plan] | list[Plan]:
        """The plans of a kind that are run."""
        if kind == "crash" or self.plans_max is None:
            return self._plans(kind, writes)
        plans = list(self._plans(kind, writes))
        return plans if len(plans) <= self.plans_max else self.luck.sample(plans, self.plans_max)

    def _world(self, plan: Plan) -> Run:
        return World(self.shape, self.places.open(self.seed), plan=plan, seed=self.seed).run()

    def _run(self, plan: Plan, kind: str) -> Run:
        run = self._world(plan)
        report = self.report
        report.runs[kind] += 1
        report.refused += run.refused
        for fault in run.fired:
            report.fired[spell_kind(fault)] += 1
        violations = run.violations
        if not self._is_expected(run):
            wanted = " or ".join(sorted(self.outcomes))
            violations = [*violations, Violation("outcome", f"it {run.outcome}, expected: {wanted}")]
        if violations:
            report.found.append(Found(self.shape.name, self.store, self.seed, plan, violations))
        return run

    def _is_expected(self, run: Run) -> bool:
        if not self.outcomes or run.outcome in self.outcomes:
            return True
        was_stopped = any(isinstance(fault, Arrival) and fault.kind.endswith("stop") for fault in run.fired)
        return was_stopped and run.outcome.startswith("raised ExecutionStoppedError")

    def _plans(self, kind: Kind, writes: int) -> Iterator[Plan]:
        places = [(write, moment) for write in range(1, writes + 1) for moment in MOMENTS]
        match kind:
            case "crash":
                yield from (((Crash(write, moment),),) for write, moment in places)
            case "expiry":
                yield from (((Crash(write, moment, "expire"),),) for write, moment in places)
            case "pair":
                yield from self._pairs(places)
            case "close":
                yield from (((Close(write),),) for write in range(1, writes + 1))
            case "arrival":
                for arrival in self._arrivals():
                    yield from (((Arrival(write, moment, arrival),),) for write, moment in places)
            case "takeover":
                for takeover in self._takeovers():
                    yield from (((Takeover(write, moment, takeover),),) for write, moment in places)
            case "jump":
                yield from (((Jump(write, by_ms),),) for write in range(1, writes + 1) for by_ms in JUMPS_MS)
            case "random":
                yield from (self._random(writes) for _ in range(RANDOM_RUNS))

    def _arrivals(self) -> tuple[ArrivalKind, ...]:
        is_alone = self.store == "sqlite"  # a file has one writer: nothing comes from outside its engine
        kinds: tuple[ArrivalKind, ...] = ("message",) if self.shape.message is not None else ("stop", "pause", "delete")
        if self.shape.has_answers:
            kinds += ("answer",)
        outside: dict[str, ArrivalKind] = {
            "message": "outside message",
            "stop": "outside stop",
            "pause": "outside pause",
            "delete": "outside delete",
            "answer": "outside answer",
        }
        return ("duplicate", *kinds) if is_alone else ("duplicate", *kinds, *(outside[kind] for kind in kinds))

    def _takeovers(self) -> tuple[TakeoverKind, ...]:
        return () if self.store == "sqlite" else ("theft", "second engine")

    def _pairs(self, places: list[tuple[int, Moment]]) -> Iterator[Plan]:
        left: set[str] = set()
        for write, moment in places:
            first = Crash(write, moment)
            alone = self.alone[((first,),)] if self.alone else self._world(((first,),))
            if alone.remains[0] in left:
                if self.pairs >= 1:
                    self.report.same += 2 * alone.writes[-1]
                continue
            left.add(alone.remains[0])
            for second in range(1, alone.writes[-1] + 1):
                for later in MOMENTS:
                    if self.pairs >= 1 or self.luck.random() < self.pairs:
                        yield (first,), (Crash(second, later),)

    def _random(self, writes: int) -> Plan:
        """Several lives with several faults each."""
        luck = self.luck
        lives: list[tuple[Fault, ...]] = []
        for _ in range(luck.randint(1, 4)):
            faults: list[Fault] = []
            for _ in range(luck.randint(0, 2)):
                write, moment = luck.randint(1, writes), luck.choice(MOMENTS)
                kinds: list[Fault] = [Jump(write, luck.randint(-60_000, 60_000))]
                kinds.extend(Arrival(write, moment, arrival) for arrival in self._arrivals())
                kinds.extend(Takeover(write, moment, takeover) for takeover in self._takeovers())
                faults.append(luck.choice(kinds))
            end = luck.randint(1, writes)
            ends: list[Fault] = [Crash(end, luck.choice(MOMENTS)), Close(end)]
            faults.append(luck.choice(ends))
            lives.append(tuple(faults))
        return tuple(lives)


def spell_kind(fault: Fault) -> str:
    """A kind of fault, for counting."""
    match fault:
        case Crash(moment=moment):
            return f"crash {moment}"
        case Arrival(kind=kind) | Takeover(kind=kind):
            return kind
        case _:
            return type(fault).__name__.lower()
