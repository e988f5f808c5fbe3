"""R1, as a table: every operation × how its body leaves memory while it waits × the code around it."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from semel.errors import Evicted
from semel.kernel.entry import Settled, Started
from semel.runtime.body import Body
from semel.runtime.invocation import Invocation
from semel.testing import Close, Crash, Plan, Takeover, World
from semel.testing.explore import Opener, StoreName
from semel.testing.world import silence
from tests.simulation.cancel_shapes import ROWS
from tests.simulation.cancel_table import Cell, entries_of, is_target
from tests.simulation.evict_shapes import FORMS, GAVE_UP, UNWOUND, WAYS, evict_shape, missing_way

SHARE = 0.12  # of the plans, in every run of the tests; the rest is soak
RUNS: Counter[str] = Counter()
CALM: dict[tuple[str, ...], str] = {}  # what comes of a body that stays in memory


class Case(NamedTuple):
    row: str
    moment: str
    form: str
    way: str

    def __str__(self) -> str:
        return " × ".join(self)


EVERY = [
    Case(row, moment, form, way)
    for row in ROWS
    for moment in ("in flight", "in back-off")
    for form in FORMS
    for way in WAYS
]


def missing(case: Case) -> str:
    return ROWS[case.row].never.get(case.moment, "") or missing_way(case.row, case.moment, case.way)


CASES = [case for case in EVERY if not missing(case)]


class Evictions:
    """Runs of one cell, each compared with the one in which nothing is evicted."""

    def __init__(self, case: Case, store: StoreName = "memory") -> None:
        self.case = case
        self.opener = Opener(store)
        self.problems: list[str] = []
        self.evictions = 0
        self.runs = 0

    def explore(self, share: float, seed: int = 0) -> None:
        luck = random.Random(f"{self.case} {seed}")
        with silence():
            calm = CALM.get(self.case[:3])
            if calm is None:
                calm = CALM[self.case[:3]] = self.run((), "lost")[0]
            _, writes = self.run((), self.case.way, calm)
            for plan in self.plans(writes):
                if luck.random() < share:
                    self.run(plan, self.case.way, calm)

    def plans(self, writes: int) -> Iterator[Plan]:
        for write in range(1, writes + 1):
            match self.case.way:
                case "closed":
                    yield ((Close(write),),)
                case "lost":
                    for moment in ("before", "after"):
                        yield ((Takeover(write, moment, "second engine"),),)
                        yield ((Takeover(write, moment, "theft"), Crash(writes, "before")),)
                case _:
                    yield from (((Crash(write, moment),),) for moment in ("before", "after"))

    def run(self, plan: Plan, way: str, calm: str = "") -> tuple[str, int]:
        """One run, checked. Returns its outcome and how many writes it made."""
        case = self.case
        world = World(evict_shape(case.row, case.moment, case.form, way), self.opener.open(0), plan=plan)
        world.audit.effect = self.watch(world)  # type: ignore[method-assign]
        before = UNWOUND[case.form]
        run = world.run()
        self.runs += 1
        self.evictions += UNWOUND[case.form] - before - 1
        problems = [str(violation) for violation in run.violations]
        if GAVE_UP in run.outcome or not run.outcome.startswith("returned ["):
            problems.append(f"R1: it {run.outcome}")
        is_interrupted = "StepInterruptedError" in run.outcome or "CallbackSubmitterError" in run.outcome
        if calm and run.outcome != calm and not is_interrupted and not self.is_late(run.outcome):
            problems.append(f"it {run.outcome}, and undisturbed it {calm}")
        problems += self.too_early(world)
        self.problems += [f"{case}, {plan}: {problem}" for problem in problems]
        return run.outcome, run.writes[0]

    def is_late(self, outcome: str) -> bool:
        """A batch one of whose branches was interrupted has fewer results."""
        return self.case.row.startswith(("map", "parallel")) and outcome.startswith('returned ["returned [')

    def watch(self, world: World) -> Callable[..., int]:
        """What user code does when it leaves the operation, it does once, and not before that has an outcome."""
        effect = world.audit.effect

        def watched(name: str, key: str, **fields: Any) -> int:
            if name in ("finally", "after") and not self.has_ended(world):
                self.problems.append(f"{self.case}: R1: {name!r} was begun while it waits")
            return effect(name, key, **fields)

        return watched

    def has_ended(self, world: World) -> bool:
        target = Cell(self.case.row, "in flight", "task.cancel")
        for trail in world.audit.trails.values():
            names = [
                entry.operation
                for entry, at_ms in entries_of(trail)
                if isinstance(entry, Started) and is_target(target, entry, at_ms)
            ]
            if names:
                return trail.places[names[0]].state == "settled"
        return True  # settled and asked for in one append, which is on its way

    def too_early(self, world: World) -> list[str]:
        """Nothing of user code's `finally` is recorded before the operation has an outcome."""
        target, waits, found = Cell(self.case.row, "in flight", "task.cancel"), "", list[str]()
        trails = [trail for trail in world.audit.trails.values() if trail.stream.name == "table.evicted"]
        for entry, at_ms in [pair for trail in trails for pair in entries_of(trail)]:
            if isinstance(entry, Started) and not waits and is_target(target, entry, at_ms):
                waits = entry.operation
            elif isinstance(entry, Started) and entry.name in ("finally", "after") and waits != "over":
                found.append(f"R1: {entry.name!r} was recorded while it waits")
            elif isinstance(entry, Settled) and entry.operation == waits:
                waits = "over"
        return found


def check(case: Case, share: float, store: StoreName = "memory") -> None:
    evictions = Evictions(case, store)
    evictions.explore(share)
    RUNS[case.way] += evictions.runs
    RUNS["evictions"] += evictions.evictions
    assert evictions.problems == []
    if case.way == "suspended" or (case.way == "closed" and share == 1):
        assert evictions.evictions > 0, "nothing was evicted"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_R1_nothing_that_leaves_memory_is_recorded(case: Case) -> None:
    check(case, SHARE)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("row", [*ROWS][::4])
def test_R1_holds_on_sqlite(row: str) -> None:
    for case in [case for case in CASES if case.row == row and case.way in ("suspended", "closed")]:
        check(case, SHARE / 4, "sqlite")


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_R1_holds_for_every_way_out_at_every_moment(case: Case) -> None:
    check(case, 1.0)


def test_the_table_of_evictions_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = Counter(why for case in EVERY if (why := missing(case)))
    with capsys.disabled():
        print(
            f"\neviction: {len(ROWS)} operations × 2 moments × {len(FORMS)} forms × {len(WAYS)} ways = {len(EVERY)}: "
            f"{len(CASES)} cells; {sum(RUNS.values()) - RUNS['evictions']:,} runs, {RUNS['evictions']:,} evictions"
        )
        for why, count in reasons.most_common():
            print(f"  {count:3} × {why}")
    assert sum(reasons.values()) + len(CASES) == len(EVERY)


# Each rule taken away: the table says so.


def problems_of(*case: str) -> str:
    evictions = Evictions(Case(*case))
    evictions.explore(1.0)
    return "\n".join(evictions.problems)


@pytest.mark.mutant
@pytest.mark.parametrize("row", ["step", "child context", "with_retry"])
def test_R1e_the_return_value_of_an_evicted_run_that_is_recorded_is_found(
    row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    evict = Body.evict

    def evict_and_look_at_what_it_returned(body: Body, signal: type[BaseException], name: str) -> None:
        evict(body, signal, name)
        body.closed = None
        body._at_rest()

    monkeypatch.setattr(Body, "evict", evict_and_look_at_what_it_returned)
    monkeypatch.setattr(Invocation, "_leave", lambda invocation: None)
    assert GAVE_UP in problems_of(row, "in flight", "swallows", "closed")


@pytest.mark.mutant
def test_R1b_a_seam_that_stays_open_while_tasks_are_cancelled_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    evict = Body.evict

    def cancel_first(body: Body, signal: type[BaseException], name: str) -> None:
        if body.closed is None and body.main is not None and signal is Evicted:
            for task in body.loop._still_live():
                task.cancel()
            body.pump()
        evict(body, signal, name)

    monkeypatch.setattr(Body, "evict", cancel_first)
    assert problems_of("map", "in flight", "finally", "closed")
