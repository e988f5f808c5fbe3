"""What the journal must be after every commit, and what the world outside saw of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from semel.function import PER_RETRY
from semel.kernel.entry import ARRIVING, Controlled, Effect, HeartbeatReceived, Kind, Settled, Started, Status
from semel.store import codec
from semel.store.base import FUNCTION, Filter, Reader, Row, Stream, Transaction, Worker
from semel.testing.faults import FaultStore
from semel.testing.trail import Model, Place, Trail

STREAMS_MAX = 1_000_000


class Violation(Struct, frozen=True):
    """A rule that did not hold: J1 to J11, G2 to G8, R4 or "liveness"."""

    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}"


class Begun(Struct, frozen=True):
    """A step's body at work: in which life of the process, under which effect key, with which values."""

    life: int
    name: str
    key: str
    values: str
    attempt: int


class Audit:
    """Follows a journal commit by commit (`committed`), and the effects of its steps (`effect`)."""

    def __init__(
        self, journal_id: str, *, now_ms: Callable[[], int], models: Mapping[str, Model] | None = None
    ) -> None:
        self.violations: list[Violation] = []
        self.trails: dict[int, Trail] = {}
        self.effects: list[Begun] = []
        self.workers: dict[str, Worker] = {}
        self._journal_id = journal_id
        self._models = {} if models is None else models
        self._now_ms = now_ms
        self._names: dict[tuple[str, str, str], int] = {}
        self._answers: dict[str, str] = {}

    def report(self, rule: str, message: str) -> None:
        """Note a violation."""
        self.violations.append(Violation(rule, message))

    # The journal.

    def committed(self, transaction: Transaction, writer: FaultStore) -> None:
        """Check a commit: its rows, who wrote them, and the rows of the streams as they are now."""
        for number, stream in transaction.created.items():
            self._created(number, stream)
        for row in transaction.rows:
            trail = self.trails[row.stream]
            holder = trail.stream.holder
            append = trail.add(row)
            if _is_holders(append, trail.places) and holder not in writer.workers:
                trail.report("J4", f"row {row.seq} was written by someone who was not its holder, {holder!r}")
        for name, worker in transaction.workers.items():
            if worker is None:
                self.workers.pop(name, None)
            else:
                self.workers[name] = worker
        now_ms = self._now_ms()
        for number, stream in (transaction.moved | transaction.created | transaction.changed).items():
            self.trails[number].check_row(stream, now_ms=now_ms)

    def _created(self, number: int, stream: Stream) -> None:
        name = (stream.namespace, f"{stream.type}:{stream.name}", stream.key)
        if name in self._names:
            self.report("J10", f"{stream.name}/{stream.key}: a second stream was made under that key")
        self._names[name] = number
        self.trails[number] = Trail(stream, journal_id=self._journal_id, models=self._models, report=self.report)

    def check_stored(self, reader: Reader) -> None:
        """G1: what was committed is what is stored, byte for byte."""
        stored = {stream.number: stream for stream in reader.list(Filter(limit=STREAMS_MAX))}
        if stored.keys() != self.trails.keys():
            self.report("G1", f"the store has streams {sorted(stored)}, expected {sorted(self.trails)}")
        for number, trail in self.trails.items():
            rows = [Row(row.stream, row.seq, row.count, bytes(row.body)) for row in reader.rows(number)]
            if rows != trail.rows or stored.get(number) != trail.stream:
                trail.report("G1", "what is stored is not what was committed")

    def open_work(self) -> list[str]:
        """The requests that were accepted and have no outcome yet."""
        return [work for trail in self.trails.values() if (work := trail.open_work)]

    def functions(self) -> list[Stream]:
        """The executions that run."""
        return [t.stream for t in self.trails.values() if t.stream.type == FUNCTION and t.open_work]

    def held(self) -> list[Stream]:
        """The streams that somebody holds."""
        return [trail.stream for trail in self.trails.values() if trail.stream.holder is not None]

    # The world outside.

    def effect(self, name: str, key: str, *, life: int, values: tuple[Any, ...]) -> int:
        """A step's body did something. Returns how many effects there were before."""
        place = self._place(key)
        attempt = 0 if place is None else place.retries
        effect = Begun(life, name, key, repr(values), attempt)
        if key:
            self._check_effect(effect, place)
        self.effects.append(effect)
        return len(self.effects) - 1

    def _place(self, key: str) -> Place | None:
        for trail in self.trails.values():
            if key in trail.effects:
                return trail.effects[key]
        return None

    def _check_effect(self, effect: Begun, place: Place | None) -> None:
        earlier = [other for other in self.effects if other.key == effect.key]
        if place is not None and place.state in ("settled", "pending"):
            self.report("G3", f"step {effect.name} began, and it was {place.state}")
        for other in earlier:
            if (other.name, other.values) != (effect.name, effect.values):
                self.report(
                    "R4", f"step {effect.name} began with {effect.values}, and in life {other.life} with {other.values}"
                )
        if place is None:
            return
        if place.effect is Effect.AT_MOST_ONCE and earlier:
            self.report("G4", f"step {effect.name} began again, and it is at most once")
        if place.semantics == PER_RETRY and any(other.attempt == effect.attempt for other in earlier):
            self.report("G4", f"attempt {effect.attempt} of step {effect.name} began again")

    def check_effects(self) -> None:
        """G4: an at-most-once step whose start is recorded began once at most, and never before its start."""
        for trail in self.trails.values():
            for key, place in trail.effects.items():
                begun = [effect for effect in self.effects if effect.key == key]
                if place.effect is Effect.AT_MOST_ONCE and len(begun) > 1:
                    self.report("G4", f"step {begun[0].name} began {len(begun)} times, and it is at most once")

    def answer(self, request: str, answer: str) -> None:
        """A caller was told the outcome of a request: all of one request are told the same (J10)."""
        first = self._answers.setdefault(request, answer)
        if first != answer:
            self.report("J10", f"{request} was answered {answer}, and before that {first}")


def _is_holders(append: codec.Append, places: Mapping[str, Place]) -> bool:
    """Whether only the holder may write such a row: not an arrival, a start or control."""
    for entry in append.entries:
        match entry:
            case Controlled() | Settled(status=Status.STOPPED | Status.TIMED_OUT):
                return False
            case Started(kind=Kind.MESSAGE | Kind.EXECUTION) | HeartbeatReceived():
                return False
            case Settled(operation=name, status=status) if status is not Status.CANCELLED:
                if name in places and places[name].kind in ARRIVING:
                    return False
            case _:
                pass
    return True
