"""What the journal must be after every commit, and what the world outside saw of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from semel.function import PER_RETRY
from semel.journal.chunks import whole_outcome
from semel.journal.executions import kept_outcome
from semel.journal.outcomes import settled_in
from semel.kernel.entry import ARRIVING, Controlled, Effect, HeartbeatReceived, Kind, Settled, Started, Status
from semel.store import codec
from semel.store.base import FUNCTION, PAUSED, Filter, KeyId, Reader, Row, Stream, Transaction, Worker
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
        self,
        journal_id: str,
        *,
        now_ms: Callable[[], int],
        retention_ms: int,
        models: Mapping[str, Model] | None = None,
    ) -> None:
        self.violations: list[Violation] = []
        self.trails: dict[int, Trail] = {}
        self.effects: list[Begun] = []
        self.workers: dict[str, Worker] = {}
        self._journal_id = journal_id
        self._models = {} if models is None else models
        self._now_ms = now_ms
        self._retention_ms = retention_ms
        self.paused: dict[str, float] = {}  # since when those are whose pause was acknowledged, and no resume asked for
        self.forgotten: set[KeyId] = set()  # somebody asked for it
        self._gone: list[Trail] = []
        self._names: dict[tuple[str, str, str], str] = {}
        self._answers: dict[tuple[str, int], str] = {}
        self._lives_of_keys: Counter[KeyId | None] = Counter()

    def report(self, rule: str, message: str) -> None:
        """Note a violation."""
        self.violations.append(Violation(rule, message))

    # The journal.

    def committed(self, transaction: Transaction, writer: FaultStore) -> None:
        """Check a commit: its rows, who wrote them, and the rows of the streams as they are now."""
        for id, key in transaction.changed_keys.items():
            if key is None:
                self._key_removed(id)
        for number, stream in transaction.created.items():
            self._created(number, stream)
        for (number, digest), chunk in transaction.chunks.items():
            self.trails[number].chunks.setdefault(digest, chunk)
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
        for number in transaction.deleted:
            self._deleted(self.trails.pop(number), transaction)

    def _created(self, number: int, stream: Stream) -> None:
        name = (stream.namespace, f"{stream.type}:{stream.name}", stream.key)
        known = self._trail_of(name)
        if known is not None and not self._is_over(known.stream):
            self.report("J10", f"{stream.name}/{stream.key}: a second stream was made under that key")
        if known is not None and name in self._names:
            self._lives_of_keys[KeyId(*name)] += 1
        self._names[name] = stream.uid
        self.trails[number] = Trail(stream, journal_id=self._journal_id, models=self._models, report=self.report)

    def _trail_of(self, name: tuple[str, str, str]) -> Trail | None:
        """The stream that a key stands for: one that is there, or the last of those that were deleted."""
        uid = self._names.get(name)
        return next((trail for trail in self._all_trails() if trail.stream.uid == uid), None)

    def _is_over(self, stream: Stream) -> bool:
        """Whether the retention of an execution is over, so that its key may be used again."""
        return stream.ended_ms is not None and self._now_ms() >= stream.ended_ms + self._retention_ms

    def _key_removed(self, id: KeyId) -> None:
        """J10: a key is kept until its retention is over, unless somebody asks to forget it."""
        name = (id.namespace, id.operation, id.key)
        trail = self._trail_of(name)
        self._names.pop(name, None)
        self._lives_of_keys[id] += 1
        if trail is not None and trail.stream.ended_ms is None:
            self.report("J10", f"the key {id.key!r} was removed, and its execution has not ended")
        elif trail is not None and id not in self.forgotten and not self._is_over(trail.stream):
            self.report("J10", f"the key {id.key!r} was removed before its retention was over")

    def _deleted(self, trail: Trail, transaction: Transaction) -> None:
        """J10: the outcome of an execution that is deleted is in its key row, as it was."""
        stream = trail.stream
        self._gone.append(trail)
        if stream.ended_ms is None:
            trail.report("J3", f"it was deleted, and it is {stream.status}")
        id = KeyId(stream.namespace, f"{stream.type}:{stream.name}", stream.key)
        if self._names.get((id.namespace, id.operation, id.key)) != stream.uid:
            return
        key = transaction.changed_keys.get(id)
        last = trail.rows[-1]
        outcome = settled_in(codec.decode(last.body, stream=last.stream, seq=last.seq), stream.uid)
        if outcome is not None:
            outcome = whole_outcome(trail, stream.number, outcome)
        if key is None or kept_outcome(key) != outcome or key.operation != stream.uid:
            trail.report("J10", f"it was deleted, and its key says {key!r}, expected {outcome!r}")

    def check_stored(self, reader: Reader) -> None:
        """G1: what was committed is what is stored, byte for byte."""
        stored = {stream.number: stream for stream in reader.list(Filter(limit=STREAMS_MAX))}
        if stored.keys() != self.trails.keys():
            self.report("G1", f"the store has streams {sorted(stored)}, expected {sorted(self.trails)}")
        for number, trail in self.trails.items():
            rows = [Row(row.stream, row.seq, row.count, bytes(row.body)) for row in reader.rows(number)]
            if rows != trail.rows or stored.get(number) != trail.stream:
                trail.report("G1", "what is stored is not what was committed")
            if any(reader.chunk(number, digest) != chunk for digest, chunk in trail.chunks.items()):
                trail.report("G1", "a chunk is not stored as it was committed")

        for number in {trail.stream.number for trail in self._gone} - self.trails.keys():
            if reader.rows(number):
                self.report("G1", f"stream {number} was deleted, and it has rows")

    def open_work(self) -> list[str]:
        """The requests that were accepted and have no outcome yet."""
        return [work for trail in self.trails.values() if (work := trail.open_work)]

    def functions(self) -> list[Stream]:
        """The executions that run."""
        return [t.stream for t in self.trails.values() if t.stream.type == FUNCTION and t.open_work]

    def ended(self) -> list[Stream]:
        """The executions that have an outcome."""
        return [trail.stream for trail in self.trails.values() if trail.stream.ended_ms is not None]

    def asleep(self) -> list[Stream]:
        """The executions that are paused."""
        return [trail.stream for trail in self.trails.values() if trail.stream.status == PAUSED]

    def held(self) -> list[Stream]:
        """The streams that somebody holds."""
        return [trail.stream for trail in self.trails.values() if trail.stream.holder is not None]

    # The world outside.

    def effect(self, name: str, key: str, *, life: int, at_s: float, values: tuple[Any, ...]) -> int:
        """A step's body did something. Returns how many effects there were before."""
        place = self._place(key)
        attempt = 0 if place is None else place.retries
        effect = Begun(life, name, key, repr(values), attempt)
        if key:
            self._check_effect(effect, place)
            self._check_paused(name, place, at_s=at_s)
        self.effects.append(effect)
        return len(self.effects) - 1

    def _place(self, key: str) -> Place | None:
        return next((trail.effects[key] for trail in self._all_trails() if key in trail.effects), None)

    def _all_trails(self) -> list[Trail]:
        return [*self.trails.values(), *self._gone]

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

    def _check_paused(self, name: str, place: Place | None, *, at_s: float) -> None:
        """Where all that is open is paused, no step begins, unless its start was on disk or it was with a thread."""
        had_to = place is not None and (place.effect is Effect.AT_MOST_ONCE or place.semantics == PER_RETRY)
        open_streams = [trail.stream.uid for trail in self.trails.values() if trail.open_work]
        if open_streams and not had_to and all(at_s > self.paused.get(uid, at_s) for uid in open_streams):
            self.report("pause", f"step {name} began, and whatever is open is paused")

    def check_effects(self) -> None:
        """G4: an at-most-once step whose start is recorded began once at most, and never before its start."""
        for trail in self._all_trails():
            for key, place in trail.effects.items():
                begun = [effect for effect in self.effects if effect.key == key]
                if place.effect is Effect.AT_MOST_ONCE and len(begun) > 1:
                    self.report("G4", f"step {begun[0].name} began {len(begun)} times, and it is at most once")

    def answer(self, request: str, answer: str, *, key: KeyId | None = None) -> None:
        """A caller was told an outcome: all of one request are told the same while its key is kept (J10)."""
        first = self._answers.setdefault((request, self._lives_of_keys[key]), answer)
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
