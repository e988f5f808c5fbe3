"""What somebody else writes to a running stream: the outcome of a callback or invoke, a sign of life.

An arrival has no lease and is refused for none (J5). While such an operation is open it has a row in
the key table, put with its start and gone with its end or with that of a scope around it (J7), so that
who brings an outcome need not read the journal to know whether it is still wanted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from msgspec import Struct

from semel.errors import CallbackClosedError, NotFoundError
from semel.journal.chunks import keep, outline
from semel.kernel.entry import ARRIVING, SETTLED, Entry, Kind, Payload, Status
from semel.kernel.operation import Action, Operation, Update, decide, fold, time_out_error
from semel.kernel.values import ErrorData
from semel.store import codec
from semel.store.base import RUNNING, Key, KeyId, Stream, Transaction


class Touched(Struct, frozen=True, gc=False):
    """A stream that something was written to, and what: none if it was only made due."""

    stream: Stream
    append: codec.Append | None = None
    seq: int = 0


class Arrival(Struct, frozen=True, gc=False):
    """An outcome or sign of life for an operation of the stream `uid`."""

    uid: str
    operation: str
    kind: Kind
    action: Action
    now_ms: int
    payload: Payload | None = None
    error: ErrorData | None = None


_SAID = {Action.SUCCEED: Status.SUCCEEDED, Action.FAIL: Status.FAILED}


def place_of(stream: Stream, operation: str) -> KeyId:
    """The row that an operation has while it is open."""
    return KeyId(stream.namespace, f"open:{stream.uid}", operation)


def open_(transaction: Transaction, stream: Stream, operation: str) -> None:
    """The operation began."""
    transaction.put_key(Key(place_of(stream, operation), stream.number, operation, b""))


def close(transaction: Transaction, stream: Stream, operation: str) -> None:
    """The operation ended, or came to no end any more."""
    if is_open(transaction, stream, operation):
        transaction.forget_key(place_of(stream, operation))


def is_open(transaction: Transaction, stream: Stream, operation: str) -> bool:
    """Whether an outcome of the operation is still wanted."""
    return transaction.key(place_of(stream, operation)) is not None


def close_inside(
    transaction: Transaction, stream: Stream, operations: Mapping[str, Operation], inside: Collection[str], scope: str
) -> None:
    """A scope settled: what is open `inside` it comes to no end any more (J7)."""
    for name in inside:
        parent = operations[name].parent if name in operations else ""
        while parent and parent != scope:
            outer = operations.get(parent)
            parent = "" if outer is None else outer.parent
        if parent == scope:
            close(transaction, stream, name)


def find(transaction: Transaction, uid: str) -> Stream | None:
    """A stream by the world's name for it, as this batch has it."""
    stored = transaction.store.stream_by_uid(uid)
    return None if stored is None else transaction.stream(stored.number)


def arrive(transaction: Transaction, arrival: Arrival) -> Touched | None:
    """Record an arrival. None if nothing was written, because the same outcome is recorded already.

    Raises NotFoundError (no such operation), CallbackClosedError (it has another outcome, or its scope ended).
    """
    stream = find(transaction, arrival.uid)
    if stream is None:
        raise NotFoundError(
            f"{_spell(arrival)}: there is no execution or actor {arrival.uid!r}; it was deleted, or never was"
        )
    if stream.ended_ms is not None or not is_open(transaction, stream, arrival.operation):
        _refuse(transaction, stream, arrival)
        return None
    return settle(transaction, stream, arrival)


def settle(transaction: Transaction, stream: Stream, arrival: Arrival) -> Touched:
    """Write an arrival for an operation that is open."""
    time_ms = max(arrival.now_ms, stream.time_ms)
    payload = arrival.payload and keep(transaction, stream.number, arrival.payload)
    update = Update(arrival.operation, arrival.kind, arrival.action, time_ms, payload=payload, error=arrival.error)
    is_heartbeat = arrival.action is Action.HEARTBEAT
    entries: tuple[Entry, ...] = decide(Operation(arrival.operation, arrival.kind, Status.STARTED), update, time_ms)
    if not is_heartbeat:
        transaction.forget_key(place_of(stream, arrival.operation))
    append = codec.Append(time_ms, entries, stream.epoch)
    seq = stream.head + 1
    body = codec.encode(append, stream=stream.number, seq=seq)
    changes = {} if is_heartbeat else waking(stream, arrival.now_ms)
    after = transaction.append(None, stream, count=len(entries), body=body, time_ms=time_ms, **changes)
    return Touched(after, append, seq)


def waking(stream: Stream, now_ms: int) -> dict[str, Any]:
    """What makes a stream due that nobody holds. Its holder is told, and J6 covers the moment between."""
    if stream.holder is not None or stream.status != RUNNING:
        return {}
    return {"wake_ms": now_ms if stream.wake_ms is None else min(now_ms, stream.wake_ms)}


def time_out(transaction: Transaction, uid: str, operation: str, *, now_ms: int) -> Touched | None:
    """End an open callback or invoke whose time is up. None if it has ended, or got more time meanwhile."""
    stream = find(transaction, uid)
    if stream is None or stream.ended_ms is not None or not is_open(transaction, stream, operation):
        return None
    found = fold_of(transaction, stream).get(operation)
    if found is None or found.due_ms is None or found.due_ms > now_ms:
        return None
    error = time_out_error(found)
    return settle(transaction, stream, Arrival(uid, operation, found.kind, Action.TIME_OUT, now_ms, error=error))


def fold_of(transaction: Transaction, stream: Stream) -> dict[str, Operation]:
    """Every operation of a stream, as this batch has it."""
    operations: dict[str, Operation] = {}
    for row in transaction.rows_of(stream.number, first=stream.base):
        append = codec.decode(row.body, stream=row.stream, seq=row.seq)
        fold(operations, [(entry, append.time_ms + entry.offset_ms) for entry in append.entries])
    return operations


def _refuse(transaction: Transaction, stream: Stream, arrival: Arrival) -> None:
    """Say why an operation takes no outcome. The same outcome once more is none of these: it stands."""
    operation = fold_of(transaction, stream).get(arrival.operation)
    if operation is None or operation.kind not in ARRIVING:
        raise NotFoundError(
            f"{_spell(arrival)}: execution {stream.uid} has no such operation; expected the id of one that it made"
        )
    if operation.status not in SETTLED:
        what = f"{stream.name} {stream.key!r} has ended" if stream.ended_ms is not None else "its scope has ended"
        raise CallbackClosedError(
            f"{_spell(arrival)}: {what}, expected it to run; nobody waits for an outcome any more"
        )
    said = (_SAID.get(arrival.action), arrival.payload and outline(arrival.payload), arrival.error)
    if (operation.status, operation.result, operation.error) != said:
        raise CallbackClosedError(
            f"{_spell(arrival)}: it is {operation.status} already, expected an open one; the first outcome stands"
        )


def _spell(arrival: Arrival) -> str:
    return f"{arrival.kind} {arrival.operation!r}"
