"""The holder's side of one stream: what is to be recorded, and one append in flight at a time.

Updates gather while an append is under way and go into the next one, so that appends of one
stream follow each other and those of many share a commit. Memory is folded after the commit.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping

from semel.errors import (
    ConflictError,
    JournalCorruptError,
    LeaseLost,
    NonDeterminismError,
    StoreError,
    UnavailableError,
)
from semel.journal import arrivals, holding
from semel.journal.advance import Advance, Advanced, EndTurn, Then, advance
from semel.journal.lifecycle import park
from semel.kernel.entry import ARRIVING, SETTLED, Record
from semel.kernel.operation import Deliver, Operation, Update, fold
from semel.kernel.report import DivergenceReport
from semel.runtime.committer import Job
from semel.runtime.services import Services
from semel.store import codec
from semel.store.base import KeyId, Needs, Stream, Transaction

logger = logging.getLogger("semel.holder")
WITH_VALUES_MAX = 256  # operations of one stream that keep their values in memory for a while


class _Flight(Advance, Job):
    """An append of a holder on its way."""

    def __init__(self, holder: Holder, then: Then, *, base: int, turn: str) -> None:
        self.holder = holder
        self.lease = holder.lease
        self.seen = holder.seen
        self.operations = holder.operations
        self.updates = holder.outbox.copy()
        # What is recorded last was recorded just now.
        self.awaited = holder.awaited.copy() if holder.awaited else ()
        self.timed = holder.timed
        self.now_ms = self.updates[-1].at_ms if self.updates else holder.services.clock.now_ms()
        self.then = then
        self.base = base
        self.turn = turn
        self.retention_ms = holder.services.limits.retention_ms
        self.needs = holder.needs if not holder.keys else Needs(holder.needs.streams, tuple(holder.keys))
        holder.outbox.clear()
        holder.keys.clear()

    def perform(self, transaction: Transaction) -> Advanced:
        return advance(transaction, self)

    def done(self, result: Advanced, error: BaseException | None) -> None:
        if error is not None:
            self.holder.refused = self
        self.holder.landed(result, error, self.then)


class Holder:
    """Writes to one claimed stream.

    `on_durable(advanced, then)` is called after each append; `on_lost(error)` when there will be
    no more of them: LeaseLost, ConflictError (replay), StoreFullError (retry later) or StoreError.
    """

    def __init__(
        self,
        services: Services,
        stream: Stream,
        *,
        on_durable: Callable[[Advanced, Then], None],
        on_lost: Callable[[BaseException], None],
    ) -> None:
        self.services = services
        self.operations: dict[str, Operation] = {}
        self.outbox: list[Update | Deliver | EndTurn] = []
        self.record = self.outbox.append  # puts an update into the next append
        self.awaited: dict[str, None] = {}  # open operations that others settle
        self.timed: dict[str, Operation] = {}  # open operations that have a time set
        self._with_values: list[str] = []  # operations whose values may be dropped
        self.in_flight = False
        self.refused: _Flight | None = None
        self.keys: list[KeyId] = []
        self._on_durable = on_durable
        self._on_lost = on_lost
        self.take(stream, seen=stream.head)

    def take(self, stream: Stream, *, seen: int) -> None:
        """Go on under a new claim, having looked at everything up to `seen`."""
        self.stream = stream
        self.lease = holding.lease_of(stream)
        self.needs = Needs((stream.number,))
        self.seen = seen

    def flush(self, then: Then = Then.KEEP, *, base: int = 0, turn: str = "") -> None:
        """Append what is recorded, with what becomes of the stream after it. One append at a time."""
        if self.in_flight:
            raise AssertionError(f"stream {self.stream.uid}: an append is under way, expected none")
        self.in_flight = True
        self.services.committer.enqueue(_Flight(self, then, base=base, turn=turn))

    def landed(self, advanced: Advanced, error: BaseException | None, then: Then) -> None:
        """The append was committed, or refused."""
        self.in_flight = False
        if error is not None:
            self._on_lost(error)
            return
        if advanced.changes:
            self.fold_in(advanced.changes)
            if advanced.is_awaiting:
                self.note(advanced.changes)
            if len(self._with_values) >= WITH_VALUES_MAX:
                self.drop_values()
        self.stream = advanced.stream
        if advanced.append is not None and advanced.seq == self.seen + 1:
            self.seen = advanced.stream.head
        for touched in advanced.others:
            self.services.touched(touched)
        self._on_durable(advanced, then)

    def load(self, records: Iterable[Record]) -> None:
        """Fold what is recorded."""
        operations: dict[str, Operation] = {}
        fold(operations, [(record.entry, record.time_ms + record.entry.offset_ms) for record in records])
        self.fold_in(operations)
        self.note(operations)

    def fold_in(self, changes: Mapping[str, Operation]) -> None:
        """Operations are as they are in `changes`."""
        self.operations.update(changes)
        self._with_values += changes
        timed = self.timed
        for name, operation in changes.items():
            if operation.due_ms is not None:
                timed[name] = operation
            elif timed:
                timed.pop(name, None)

    def forget(self, operation: str) -> None:
        """An operation is not asked about again."""
        self.operations.pop(operation, None)
        self.timed.pop(operation, None)

    def drop_values(self) -> None:
        """Keep the statuses and times of operations only: their values are delivered, or on disk."""
        names, self._with_values = self._with_values, []
        for name in names:
            operation = self.operations.get(name)
            if operation is not None:
                self.operations[name] = operation.without_values()

    def note(self, changes: Mapping[str, Operation]) -> None:
        """Keep count of the open operations that others settle."""
        for name, operation in changes.items():
            if operation.kind not in ARRIVING:
                continue
            if operation.status in SETTLED:
                self.awaited.pop(name, None)
            else:
                self.awaited[name] = None

    def take_in(self, record: Record) -> Operation | None:
        """Fold what somebody else recorded, and return the operation that it changed."""
        entry = record.entry
        fold(self.operations, [(entry, record.time_ms + entry.offset_ms)])
        name = getattr(entry, "operation", "")
        operation = self.operations.get(name)
        if operation is not None:
            self.fold_in({name: operation})
            self.note({name: operation})
        return operation

    def unseen(self) -> list[Record]:
        """What others appended since this run last looked; from now on it has been looked at.

        The run's own appends are among the rows, and were folded when they landed; arrivals belong to no invocation.
        """
        found: list[Record] = []
        for row in self.services.reader.rows(self.stream.number, first=self.seen + 1):
            append = codec.decode(row.body, stream=row.stream, seq=row.seq)
            for record in codec.records(append, seq=row.seq):
                if record.seq > self.seen:
                    self.seen = record.seq
                    if not record.invocation:
                        found.append(record)
        return found

    def time_out(self, operation: str) -> bool:
        """End a callback or invoke whose time is up, unless somebody else was first. False if it is not on disk yet."""
        if operation not in self.operations:
            return False
        uid, now_ms = self.stream.uid, self.services.clock.now_ms()

        def call(transaction: Transaction) -> arrivals.Touched | None:
            return arrivals.time_out(transaction, uid, operation, now_ms=now_ms)

        def done(touched: arrivals.Touched | None, error: BaseException | None) -> None:
            if touched is not None:
                self.services.touched(touched)
            elif error is not None and not is_expected(error):
                logger.error("stream %s: timing %r out failed", uid, operation, exc_info=error)

        self.services.committer.submit(call, done, needs=Needs((self.stream.number,)))
        return True

    def append_later(self) -> None:
        """There was no space, and nothing was written: try the refused append again, after a moment.

        Dropped, it would take what step bodies have done with it, and they would do it again.
        """
        flight, self.refused = self.refused, None
        if flight is None:
            raise AssertionError(f"stream {self.stream.uid}: no append was refused, expected one")
        self.in_flight = True
        delay_ms = max(self.services.limits.poll_ms, 1)
        self.services.loop.call_later(delay_ms / 1000, self._append_again, flight)

    def _append_again(self, flight: _Flight) -> None:
        flight.result = flight.error = None
        with contextlib.suppress(UnavailableError):  # the engine was closed meanwhile: the next one replays
            self.services.committer.enqueue(flight)

    def let_go(self) -> None:
        """Hold on to nobody: what holds the stream no more is then freed at once, without the collector."""
        self._on_durable = _no_durable
        self._on_lost = _no_lost
        self.refused = None

    def park(self, error: Exception, *, then: Callable[[], None]) -> None:
        """Take the stream out of service; what was recorded and not appended is dropped."""
        self.outbox.clear()
        lease, now_ms = self.lease, self.services.clock.now_ms()

        def call(transaction: Transaction) -> Stream:
            return park(transaction, lease, reason=reason_of(error), report=report_of(error), now_ms=now_ms)

        def done(stream: Stream, error: BaseException | None) -> None:
            if error is not None:
                self._on_lost(error)
                return
            self.stream = stream
            then()

        self.services.committer.submit(call, done, needs=Needs((lease.stream,)))


def reason_of(error: Exception) -> str:
    """Why a stream is parked, in a sentence: what else there is to say is in the report."""
    said = error.summary if isinstance(error, NonDeterminismError) else str(error)
    return f"{type(error).__name__}: {said}"


def report_of(error: Exception) -> DivergenceReport | None:
    """The report that an error carries, if any."""
    report = getattr(error, "report", None)
    return report if isinstance(report, DivergenceReport) else None


def _no_durable(advanced: Advanced, then: Then) -> None:
    """Nobody is told any more."""


def _no_lost(error: BaseException) -> None:
    """Nobody is told any more."""


def is_retryable(error: BaseException) -> bool:
    """Whether the stream is still ours and can be replayed and tried again."""
    return isinstance(error, ConflictError) or is_refused(error) or not is_expected(error)


def is_refused(error: BaseException) -> bool:
    """Whether the store refused an append that may be tried again as it is: no space, or another program writes."""
    is_ours = isinstance(error, (ConflictError, JournalCorruptError))
    return isinstance(error, StoreError) and error.definite and not is_ours


def is_expected(error: BaseException) -> bool:
    """Whether losing a stream with this error is part of normal life."""
    return isinstance(error, (LeaseLost, StoreError))
