"""Where the outcome of an execution or message is found in its journal."""

from __future__ import annotations

from semel.errors import JournalCorruptError
from semel.kernel.entry import Settled
from semel.store import codec
from semel.store.base import Reader, Row, Stream, Transaction


def settled_in(append: codec.Append, operation: str) -> Settled | None:
    """The outcome of an operation within an append, or None."""
    for entry in append.entries:
        if isinstance(entry, Settled) and entry.operation == operation:
            return entry
    return None


def outcome_in(source: Transaction | Reader, stream: Stream) -> Settled | None:
    """The outcome of an execution, or None while it has none. Raises JournalCorruptError."""
    if stream.ended_ms is None:
        return None
    return settled_at(source.row_at(stream.number, stream.tail), stream, stream.uid)


def settled_at(row: Row | None, stream: Stream, operation: str) -> Settled:
    """The outcome of an operation that is known to be in a row."""
    settled = None
    if row is not None:
        settled = settled_in(codec.decode(row.body, stream=row.stream, seq=row.seq), operation)
    if settled is None:
        raise JournalCorruptError(
            f"stream {stream.uid}: the outcome of {operation!r} is missing from its journal; restore a backup"
        )
    return settled
