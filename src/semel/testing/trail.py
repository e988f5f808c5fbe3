"""One stream as it is written, checked entry by entry against J1 to J11.

Written against the rules and not against the engine: it keeps its own plain fold, so that a
mistake in the kernel's is not checked with itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from semel.errors import JournalCorruptError
from semel.journal import chunks
from semel.kernel import ids, values
from semel.kernel.entry import (
    ARRIVING,
    CLOCKED,
    EXECUTION_MS_MAX,
    SETTLED,
    Control,
    Controlled,
    Delivered,
    Effect,
    Entry,
    HeartbeatReceived,
    InvocationEnded,
    Kind,
    Payload,
    RetryReady,
    RetryScheduled,
    Settled,
    Started,
    Status,
    TurnEnded,
)
from semel.store import codec
from semel.store.base import ACTOR, FUNCTION, PARKED, PAUSED, RUNNING, Row, Stream

Report = Callable[[str, str], None]


class Model(Struct, frozen=True):
    """What an actor's state should be: its first state, and `apply(state, method, arguments)` for each good turn.

    A method may depend on nothing else. `apply` may change the state it is given, and returns the new one.
    """

    init: Callable[[], Any]
    apply: Callable[[Any, str, tuple[Any, ...]], Any]


class Place(Struct):
    """An operation as its entries left it."""

    id: str
    kind: Kind
    parent: str
    seq: int
    state: str = "open"
    due_ms: int | None = None
    effect: Effect = Effect.REPEATABLE
    semantics: str = ""
    name: str = ""
    payload: bytes | None = None
    retries: int = 0
    key: str = ""
    has_turn_ended: bool = False
    deadline_ms: int | None = None
    heartbeat_ms: int = 0
    outcome: str = ""
    is_delivered: bool = False


class Trail:
    """The rows of one stream so far. `report(rule, message)` is called for each violation."""

    def __init__(self, stream: Stream, *, journal_id: str, models: Mapping[str, Model], report: Report) -> None:
        self.chunks: dict[bytes, bytes] = {}
        self.stream = stream
        self.rows: list[Row] = []
        self.places: dict[str, Place] = {}
        self.effects: dict[str, Place] = {}
        self.reason = ""
        self._journal_id = journal_id
        self._report = report
        self._model = models.get(stream.name) if stream.type == ACTOR else None
        self._state = None if self._model is None else self._model.init()
        self._recorded: list[tuple[str, bytes]] = []
        self._head = 0
        self._time_ms = 0
        self._epoch = 0
        self._held: tuple[int, int] | None = None

    def report(self, rule: str, message: str) -> None:
        self._report(rule, f"{self.stream.name}/{self.stream.key}: {message}")

    # Rows.

    def add(self, row: Row) -> codec.Append:
        """Take in the next row."""
        append = codec.decode(row.body, stream=row.stream, seq=row.seq)
        if row.seq != self._head + 1 or row.count != len(append.entries) or not append.entries:
            self.report("J1", f"row {row.seq} with {row.count} entries follows seq {self._head}")
        if append.time_ms < self._time_ms:
            self.report("J1", f"row {row.seq} has time {append.time_ms}, after {self._time_ms}")
        if append.epoch < self._epoch:
            self.report("J4", f"row {row.seq} was written under epoch {append.epoch}, after {self._epoch}")
        for payload in append.payloads():
            self._check_chunks(payload, row.seq)
        self.rows.append(row)
        self._head += len(append.entries)
        self._time_ms = max(self._time_ms, append.time_ms)
        self._epoch = append.epoch
        for place, entry in enumerate(append.entries, row.seq):
            self._entry(entry, place, append.time_ms + entry.offset_ms)
        return append

    def chunk(self, stream: int, digest: bytes) -> bytes | None:  # noqa: ARG002
        """A chunk that was committed."""
        return self.chunks.get(digest)

    def _check_chunks(self, payload: Payload, seq: int) -> None:
        """G1: what a row names is on disk no later than the row."""
        try:
            chunks.whole(self, self.stream.number, payload)
        except JournalCorruptError as error:
            self.report("G1", f"row {seq} names what is not stored: {error}")

    def _entry(self, entry: Entry, seq: int, at_ms: int) -> None:
        match entry:
            case Started():
                self._started(entry, seq, at_ms)
            case RetryScheduled() | RetryReady() | HeartbeatReceived():
                self._changed(entry, seq, at_ms)
            case Settled():
                self._settled(entry, seq, at_ms)
            case Delivered():
                self._delivered(entry, seq)
            case TurnEnded():
                self._turn_ended(entry, seq)
            case InvocationEnded():
                self._check_not_over(f"InvocationEnded at seq {seq}")
            case Controlled():
                if entry.action is not Control.UNPIN:
                    self.reason = entry.reason if entry.action is Control.PARK else ""
                self._check_not_over(f"Controlled at seq {seq}")
                if entry.action in CLOCKED:
                    self._controlled(entry, seq, at_ms)

    def _controlled(self, entry: Controlled, seq: int, at_ms: int) -> None:
        """G8: what a pause holds of a deadline is given back by the resume, up to 366 days after the start."""
        scope = next((place for place in self.places.values() if place.kind is Kind.EXECUTION), None)
        if scope is None:
            return
        if entry.action is Control.RESUME:
            expected = scope.due_ms
            if self._held is not None:
                due_ms, since_ms = self._held
                expected = min(due_ms + at_ms - since_ms, max(due_ms, self.stream.created_ms + EXECUTION_MS_MAX))
            if entry.due_ms != expected:
                self.report("G8", f"the resume at seq {seq} sets the deadline {entry.due_ms}, expected {expected}")
            self._held = None
        elif entry.due_ms not in (None, scope.due_ms):
            self.report("G8", f"the {entry.action} at seq {seq} sets the deadline {entry.due_ms}, not {scope.due_ms}")
        elif entry.due_ms is None and scope.due_ms is not None:
            self._held = (scope.due_ms, at_ms)
        scope.due_ms = entry.due_ms

    def _check_not_over(self, what: str) -> None:
        if any(place.kind is Kind.EXECUTION and place.state == "settled" for place in self.places.values()):
            self.report("J7", f"{what}, after the execution settled")

    def _check_scope(self, place: Place, seq: int) -> None:
        """J7: nothing follows the settling of a scope that contains the operation. J8: turns do not overlap."""
        if place.kind not in (Kind.EXECUTION, Kind.MESSAGE):
            self._check_not_over(f"{place.kind} {place.id} changed at seq {seq}")
        parent = place.parent
        while parent and (scope := self.places.get(parent)) is not None:
            if scope.state == "settled" or scope.has_turn_ended:
                self.report("J7", f"{place.kind} {place.id} changed at seq {seq}, after its scope {scope.id} settled")
            if scope.kind is Kind.MESSAGE and scope is not self.next_message():
                self.report("J8", f"{place.kind} {place.id} at seq {seq} belongs to {scope.id}, whose turn it is not")
            parent = scope.parent
        if parent and parent not in self.places:
            self.report("J2", f"{place.kind} {place.id} at seq {seq} is inside {parent}, which has no start")

    def _started(self, entry: Started, seq: int, at_ms: int) -> None:
        known = self.places.get(entry.operation)
        if known is not None:
            if known.kind is not Kind.STEP or known.state != "ready":
                rule = "J3" if known.state == "settled" else "J2"
                self.report(rule, f"{entry.kind} {entry.operation} started again at seq {seq}, when {known.state}")
            known.state = "open"
            known.due_ms = None
            self._check_scope(known, seq)
            return
        payload = None if entry.payload is None else chunks.whole(self, self.stream.number, entry.payload).data
        place = Place(entry.operation, entry.kind, entry.parent, seq, due_ms=entry.due_ms, name=entry.name)
        place.effect, place.semantics, place.payload = entry.effect, entry.semantics, payload
        place.deadline_ms, place.heartbeat_ms = entry.due_ms, entry.heartbeat_ms
        if entry.heartbeat_ms:
            self._give_time(place, at_ms)
        if entry.message is not None:
            place.key = entry.message.key
            if place.key and any(other.key == place.key for other in self.places.values()):
                self.report("J10", f"message {place.id} has key {place.key!r}, and so has an earlier one")
        self._check_scope(place, seq)
        self.places[place.id] = place
        if place.kind is Kind.STEP:
            origin = self.stream.origin or self.stream.uid
            self.effects[ids.effect_key(self._journal_id, origin, place.id)] = place

    def _open(self, operation: str, seq: int) -> Place | None:
        place = self.places.get(operation)
        if place is None:
            self.report("J2", f"an entry about {operation} at seq {seq} precedes its start")
        elif place.state == "settled":
            self.report("J3", f"an entry about {operation} at seq {seq} follows its outcome")
        return place

    def _changed(self, entry: RetryScheduled | RetryReady | HeartbeatReceived, seq: int, at_ms: int) -> None:
        place = self._open(entry.operation, seq)
        if place is None:
            return
        self._check_scope(place, seq)
        if isinstance(entry, RetryScheduled):
            place.state, place.due_ms = "pending", entry.due_ms
            place.retries += 1
        elif isinstance(entry, RetryReady):
            self._check_due(place, seq, at_ms)
            place.state, place.due_ms = "ready", None
        else:
            self._give_time(place, at_ms)

    def _give_time(self, place: Place, at_ms: int) -> None:
        """A sign of life: the time that a callback may be silent begins anew, within its deadline."""
        if place.heartbeat_ms:
            silent_ms = at_ms + place.heartbeat_ms
            place.due_ms = silent_ms if place.deadline_ms is None else min(silent_ms, place.deadline_ms)

    def _check_due(self, place: Place, seq: int, at_ms: int) -> None:
        if place.due_ms is not None and at_ms < place.due_ms:
            self.report("G8", f"{place.kind} {place.id} came due at seq {seq}, {place.due_ms - at_ms} ms early")

    def _settled(self, entry: Settled, seq: int, at_ms: int) -> None:
        place = self._open(entry.operation, seq)
        if place is None:
            return
        self._check_scope(place, seq)
        if entry.status is (Status.SUCCEEDED if place.kind is Kind.WAIT else Status.TIMED_OUT):
            self._check_due(place, seq, at_ms)
        place.outcome = entry.status
        if place.kind is Kind.MESSAGE:
            self._message_settled(place, entry, seq)
        if entry.status not in SETTLED:
            self.report("J3", f"{place.id} settled at seq {seq} with {entry.status}, which is no outcome")
        place.state, place.due_ms = "settled", None

    def _delivered(self, entry: Delivered, seq: int) -> None:
        place = self.places.get(entry.operation)
        if place is None or place.kind not in ARRIVING:
            self.report("J2", f"an outcome of {entry.operation} was delivered at seq {seq}, and nobody else settles it")
            return
        if place.state != "settled" or place.outcome == Status.CANCELLED or place.is_delivered:
            self.report("J3", f"the outcome of {place.id} was delivered at seq {seq}, when {place.state}, or twice")
        place.is_delivered = True
        self._check_scope(place, seq)

    # Turns.

    def next_message(self) -> Place | None:
        """The message whose turn it is: the first that has had none."""
        waiting = (
            place
            for place in self.places.values()
            if place.kind is Kind.MESSAGE and not place.has_turn_ended and place.state != "settled"
        )
        return min(waiting, key=lambda place: place.seq, default=None)

    def _turn_ended(self, entry: TurnEnded, seq: int) -> None:
        if entry.operation:
            place = self._open(entry.operation, seq)
            if place is None:
                return
            if place is not self.next_message():
                self.report("J8", f"the turn of {place.id} ended at seq {seq}, out of order or twice")
            place.has_turn_ended = True
        if entry.state is not None:
            self._recorded.append((entry.operation, chunks.whole(self, self.stream.number, entry.state).data))
            if not entry.operation:
                self._compare_states()

    def _message_settled(self, place: Place, entry: Settled, seq: int) -> None:
        if not place.has_turn_ended and entry.status in (Status.SUCCEEDED, Status.FAILED):
            self.report("J8", f"message {place.id} settled at seq {seq}, before its turn ended")
        if self._model is not None and entry.status is Status.SUCCEEDED:
            arguments = () if place.payload is None else tuple(values.decode(place.payload))
            self._state = self._model.apply(self._state, place.name, arguments)
        self._compare_states()

    def _compare_states(self) -> None:
        """J9: a snapshot is what the turns up to it make."""
        recorded, self._recorded = self._recorded, []
        if self._model is None:
            return
        for operation, data in recorded:
            found = values.decode(data)
            if found != self._state:
                self.report("J9", f"the snapshot of turn {operation!r} is {found!r}, expected {self._state!r}")

    # The stream's row.

    def check_row(self, stream: Stream, *, now_ms: int) -> None:
        """J6, J11: after each commit, whoever should be woken will be."""
        self.stream = stream
        if stream.head != self._head:
            self.report("J1", f"the row says head {stream.head}, the journal {self._head}")
        if stream.epoch < self._epoch:
            self.report("J4", f"the row says epoch {stream.epoch}, the journal {self._epoch}")
        if stream.status == PAUSED:
            self._check_paused(stream, now_ms=max(now_ms, self._time_ms))
            return
        if stream.status != RUNNING:
            if stream.wake_ms is not None or stream.holder is not None:
                self.report("J11", f"it is {stream.status}, and yet it is held or wakes")
            if stream.status == PARKED:
                self.report("liveness", f"it is parked: {self.reason}")
            return
        if stream.holder is not None:
            if stream.wake_ms is not None:
                self.report("J11", "it is held, and yet it wakes")
            return
        # The journal's time does not go back when the clock does.
        needed = self._needed_wake(max(now_ms, self._time_ms))
        if needed is not None and (stream.wake_ms is None or stream.wake_ms > needed):
            wakes = "never wakes" if stream.wake_ms is None else f"wakes {stream.wake_ms - needed} ms late"
            rule = "J6" if stream.type == ACTOR and not stream.turn else "J11"
            self.report(rule, f"it is suspended at seq {stream.head} and {wakes}")

    def _check_paused(self, stream: Stream, *, now_ms: int) -> None:
        """J11: a paused stream wakes for its deadline only, and in time, unless the pause holds it."""
        due_ms = self.places[stream.uid].due_ms
        wanted = None if due_ms is None or stream.holder is not None else max(due_ms, now_ms)
        wake_ms = stream.wake_ms if stream.wake_ms is None else max(stream.wake_ms, now_ms)
        if wake_ms != wanted:
            self.report("J11", f"it is paused at seq {stream.head} and wakes at {stream.wake_ms}, expected {wanted}")

    def _needed_wake(self, now_ms: int) -> int | None:
        due: dict[bool, list[int]] = {True: [], False: []}
        for place in self.places.values():
            if place.due_ms is not None and place.state in ("open", "pending") and not self._is_frozen(place):
                due[place.kind is Kind.EXECUTION].append(place.due_ms)
        is_awaited = any(
            place.kind in ARRIVING and place.state == "open" and not self._is_frozen(place)
            for place in self.places.values()
        )
        if due[False] or (is_awaited and due[True]):
            return max(min(due[False] + due[True]), now_ms)  # what is overdue cannot be asked for sooner than now
        if is_awaited:
            return None  # somebody else's outcome wakes it
        if self.stream.type == FUNCTION:
            return now_ms  # nothing that an arrival settles is left, so the code itself must go on
        return None if self.next_message() is None else now_ms

    def _is_frozen(self, place: Place) -> bool:
        parent = place.parent
        while parent and (scope := self.places.get(parent)) is not None:
            if scope.state == "settled" or scope.has_turn_ended:
                return True
            parent = scope.parent
        return False

    @property
    def open_work(self) -> str:
        """What was accepted and has no outcome yet; empty if there is none."""
        if self.stream.status not in (RUNNING, PAUSED):
            return ""
        if self.stream.type == FUNCTION:
            return f"execution {self.stream.name}/{self.stream.key}"
        waiting = self.next_message()
        return "" if waiting is None else f"message {waiting.id} to {self.stream.name}/{self.stream.key}"
