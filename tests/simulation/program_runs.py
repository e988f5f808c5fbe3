"""Runs of random programs: every order, every single crash, and what each left, replayed.

What has to hold of each run, beside the rules that World watches over: the journal explains the
outcome. Its code, run again over the whole journal, comes to the recorded outcome; run again over
each beginning of it, to a beginning of the same events.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from semel import Limits
from semel.function import function_spec
from semel.kernel import values
from semel.kernel.entry import Record, Settled
from semel.runtime.rehearsal import Verdict, rehearse
from semel.store import codec
from semel.testing import Client, Crash, Plan, Shape, Violation, World
from semel.testing.place import MemoryPlace
from semel.testing.trail import Trail
from semel.testing.world import silence
from tests.simulation import program_body
from tests.simulation.program_body import RACE, Player, run_program
from tests.simulation.programs import program

ORDERS = 5
KEY = "k"
READER = MemoryPlace(0).open()  # of a journal with the same id; no value is so large that it is kept apart
PATIENT = {"poll_ms": 600_000, "lease_ms": 86_400_000}


class Tally(Struct):
    """What was run. `races` are the winners seen at each race, `replays` those of a journal's beginnings."""

    programs: int = 0
    orders: int = 0
    crashes: int = 0
    replays: int = 0
    writes: int = 0
    constructs: Counter[str] = Counter()
    races: int = 0
    decided: int = 0
    found: list[str] = []

    def add(self, other: Tally) -> None:
        for field in ("programs", "orders", "crashes", "replays", "writes", "races", "decided"):
            setattr(self, field, getattr(self, field) + getattr(other, field))
        self.constructs = self.constructs + other.constructs
        self.found = self.found + other.found

    def __str__(self) -> str:
        constructs = ", ".join(f"{name} {count}" for name, count in sorted(self.constructs.items()))
        return (
            f"{self.programs:,} programs in {self.orders:,} orders, {self.crashes:,} crashes, "
            f"{self.replays:,} replays of {self.writes:,} writes, {len(self.found)} divergences; "
            f"{self.decided:,} of {self.races:,} races decided by the order of delivery; "
            f"programs by construct: {constructs}"
        )


def shape(number: int, order: int) -> Shape:
    """A program in one of its orders. Every other order keeps nothing in memory, and replays after each wait."""

    async def scenario(client: Client) -> Any:
        return await client.run(run_program, number, order, key=KEY)

    residents_max = 0 if order % 2 else 1000
    return Shape(
        name=f"program {number}, order {order}",
        scenario=scenario,
        limits=Limits(**PATIENT, residents_max=residents_max),
        has_answers=True,
    )


def explore_programs(numbers: range) -> Tally:
    """Several programs, for a process of its own."""
    total = Tally(found=[])
    for number in numbers:
        total.add(explore_program(number))
    return total


def explore_program(number: int, *, orders: int = ORDERS) -> Tally:
    """One program under each order and each single crash."""
    tally = Tally(programs=1, constructs=Counter({node.kind for node in program(number).walk()}), found=[])
    winners: dict[str, set[str]] = defaultdict(set)
    with silence():
        for order in range(orders):
            explorer = _Explorer(number, order, tally)
            explorer.run()
            for race, winner in explorer.winners.items():
                winners[race].add(winner)
    tally.races = len(winners)
    tally.decided = sum(len(seen) > 1 for seen in winners.values())
    return tally


class _Explorer:
    def __init__(self, number: int, order: int, tally: Tally) -> None:
        self.shape = shape(number, order)
        self.arguments = (number, order)
        self.tally = tally
        self.winners: dict[str, str] = {}

    def run(self) -> None:
        trail = self._run(())
        self.tally.orders += 1
        if trail is None:
            return
        writes = self.tally.writes
        self._check_beginnings((), trail)
        for write in range(1, self.writes + 1):
            for moment in ("before", "after"):
                self._run(((Crash(write, moment),),))
                self.tally.crashes += 1
        self.tally.writes = writes + self.writes

    def _run(self, plan: Plan) -> Trail | None:
        world = World(self.shape, MemoryPlace(0), plan=plan)
        run = world.run()
        if not plan:
            self.writes = run.writes[0]
        if run.violations or not run.outcome.startswith("returned ["):
            self._found(plan, [*run.violations, Violation("outcome", run.outcome)])
            return None
        (trail,) = (trail for trail in world.audit.trails.values() if trail.stream.key == KEY)
        self._check_whole(plan, trail)
        return trail

    def _found(self, plan: Plan, violations: list[Violation]) -> None:
        said = "\n  ".join(str(violation) for violation in violations[:5])
        self.tally.found.append(f"{self.shape.name}, plan {plan!r}\n  {said}")

    def _check_whole(self, plan: Plan, trail: Trail) -> None:
        records = list(records_of(trail))
        settled = records[-1].entry
        assert isinstance(settled, Settled)
        assert settled.result is not None
        recorded = values.decode(settled.result.data)
        replay = Replay(trail, records)
        self.tally.replays += 1
        if replay.problem or replay.record != recorded:
            said = replay.problem or f"a replay came to {difference(recorded, replay.record)}"
            self._found(plan, [Violation("replay", said)])
        if not plan:
            self.winners = dict(races(recorded))

    def _check_beginnings(self, plan: Plan, trail: Trail) -> None:
        """Every prefix of the journal, as a crash after that write would leave it."""
        whole = Replay(trail, list(records_of(trail))).record
        for count in range(1, len(trail.rows)):
            replay = Replay(trail, list(records_of(trail, count)))
            self.tally.replays += 1
            known = replay.record[: replay.replayed]
            if replay.problem or known != whole[: len(known)]:
                said = replay.problem or difference(whole, known)
                self._found(plan, [Violation("replay", f"of {count} rows: {said}")])


def records_of(trail: Trail, count: int | None = None) -> Iterator[Record]:
    """The first rows of a stream, as records."""
    for row in trail.rows[:count]:
        yield from codec.records(codec.decode(row.body, stream=row.stream, seq=row.seq), seq=row.seq)


def races(record: list[str]) -> Iterator[tuple[str, str]]:
    """Each race of a run, named by its place in the program and how often it was run there, with its winner."""
    seen: Counter[str] = Counter()
    for event in record:
        node, word, winner = (*event.split(" ", 2), "")[:3]
        if word == RACE:
            seen[node] += 1
            yield f"{node}.{seen[node]}", winner


def difference(wanted: list[str], found: list[str]) -> str:
    """The first place at which two records differ."""
    at = next((n for n, (one, other) in enumerate(zip(wanted, found, strict=False)) if one != other), None)
    if at is None:
        return f"{len(found)} events, expected {len(wanted)}"
    return f"{found[at]!r} at event {at}, expected {wanted[at]!r}"


class Replay:
    """The code run over the records of its stream, by itself, as `semel check` does: nothing begins, nothing is due.

    `problem` says how it went another way than the records, empty if it did not.
    """

    def __init__(self, trail: Trail, records: list[Record]) -> None:
        program_body.on_begin.append(self._begun)
        try:
            open_records = without_end(records, trail.stream.uid)
            finding = rehearse(function_spec(run_program), trail.stream, open_records, reader=READER)
        finally:
            program_body.on_begin.remove(self._begun)
        self.problem = "" if finding.verdict is Verdict.SAFE else f"{finding.verdict}: {finding.reason}"
        self.record = list(self._record)
        self.replayed = self._player.replayed

    def _begun(self, player: Player) -> None:
        self._player = player
        self._record = player.record


def without_end(records: list[Record], uid: str) -> list[Record]:
    """The records of an execution as if it had its outcome still to come."""
    return [one for one in records if not (isinstance(one.entry, Settled) and one.entry.operation == uid)]
