"""How much an execution has recorded: the bytes of its values and errors, as they are encoded.

What the journal adds to them (ids, times, rows) does not count: how much that is depends on which
entries share an append, and whether something is refused must be the same wherever a crash falls.
"""

from __future__ import annotations

from semel.kernel.entry import Entry, InvocationEnded, Payload, RetryScheduled, Settled, Started, TurnEnded
from semel.kernel.values import ErrorData


def size_of(payload: Payload) -> int:
    """How many bytes a value has, in its row or in chunks."""
    return payload.size if payload.digest else len(payload.data)


def error_size(error: ErrorData) -> int:
    """How many characters and bytes an error has."""
    return len(error.type) + len(error.message) + len(error.data) + sum(map(len, error.stack))


def outcome_size(result: Payload | None, error: ErrorData | None) -> int:
    """How much an outcome takes."""
    size = 0 if result is None else size_of(result)
    return size if error is None else size + error_size(error)


def entry_size(entry: Entry) -> int:
    """What an entry adds to the size of its execution."""
    match entry:
        case Started(payload=payload):
            error = None
        case Settled(result=payload, error=error) | RetryScheduled(payload=payload, error=error):
            pass
        case TurnEnded(state=payload):
            error = None
        case InvocationEnded(error=error):
            payload = None
        case _:
            return 0
    return outcome_size(payload, error)
