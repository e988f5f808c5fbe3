"""An execution's deadline, as its entries say it: set by the start, held by a pause, moved by a resume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from semel.kernel.entry import CLOCKED, EXECUTION_MS_MAX, Control, Controlled, Entry, Kind, Started
from semel.store import codec
from semel.store.base import Row, Stream, Transaction


class Deadline(Struct):
    """When an execution times out: at `due_ms`, unless that is None. `held_due_ms` is what a pause holds."""

    started_ms: int = 0
    due_ms: int | None = None
    held_due_ms: int | None = None
    held_since_ms: int = 0

    @classmethod
    def of(cls, entries: Iterable[tuple[Entry, int]]) -> Deadline:
        """The fold of a stream's entries and the times they were recorded at."""
        deadline = cls()
        for entry, at_ms in entries:
            match entry:
                case Started(kind=Kind.EXECUTION):
                    deadline.started_ms = at_ms
                    deadline.due_ms = entry.due_ms
                case Controlled(action=action) if action in CLOCKED:
                    deadline._control(entry, at_ms)
                case _:
                    pass
        return deadline

    def _control(self, entry: Controlled, at_ms: int) -> None:
        if entry.action is Control.RESUME:
            self.held_due_ms = None
        elif entry.due_ms is None and self.due_ms is not None:
            self.held_due_ms, self.held_since_ms = self.due_ms, at_ms
        self.due_ms = entry.due_ms

    def after(self, now_ms: int) -> int | None:
        """The deadline of an execution that goes on now: later by the time it was held, and 366 days at most."""
        if self.held_due_ms is None:
            return self.due_ms
        longest_ms = max(self.held_due_ms, self.started_ms + EXECUTION_MS_MAX)
        return min(self.held_due_ms + max(now_ms - self.held_since_ms, 0), longest_ms)


def deadline_of(transaction: Transaction, stream: Stream) -> Deadline:
    """The deadline of an execution. One that never had any costs the reading of its first row only."""
    first = transaction.row_at(stream.number, 1)
    if first is None or not _has_deadline(first):
        return Deadline()
    return Deadline.of(_entries(transaction, stream))


def _has_deadline(row: Row) -> bool:
    entries = codec.decode(row.body, stream=row.stream, seq=row.seq).entries
    return any(isinstance(entry, Started) and entry.due_ms is not None for entry in entries)


def _entries(transaction: Transaction, stream: Stream) -> Iterator[tuple[Entry, int]]:
    # What this batch has added is not in the store yet.
    added = [row for row in transaction.rows if row.stream == stream.number]
    for row in [*transaction.store.rows(stream.number), *added]:
        append = codec.decode(row.body, stream=row.stream, seq=row.seq)
        for entry in append.entries:
            yield entry, append.time_ms + entry.offset_ms
