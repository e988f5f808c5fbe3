"""What a holder writes: its body's updates, and with them the end, the release or the turn.

One append carries everything that happened since the last one, so that a delivery and what
the body did with it are durable together or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import msgspec
from msgspec import Struct

from semel.errors import ConflictError, LeaseLost
from semel.journal.deadline import deadline_of
from semel.kernel.entry import (
    SETTLED,
    Entry,
    InvocationEnded,
    Kind,
    Payload,
    Record,
    Settled,
    TurnEnded,
)
from semel.kernel.operation import Operation, Update, next_wake, record
from semel.store import codec
from semel.store.base import ACTOR, FUNCTION, PAUSED, Key, KeyId, Lease, Stream, Transaction


class Then(Enum):
    """What the holder does with the stream after the append."""

    KEEP = "keep"
    RELEASE = "release"
    YIELD = "yield"  # let go in the middle of its work, and due at once
    FINISH = "finish"


class EndTurn(Struct, frozen=True, gc=False):
    """A turn's end as an update: recorded as TurnEnded, with the state at snapshot points."""

    operation: str
    at_ms: int
    state: Payload | None = None
    version: str = ""


class Advance:
    """One append of a holder.

    `seen` is the last seq the holder has looked at, `operations` its fold up to there; both hold
    only while nothing arrived for a running body, which `signal` proves.
    """

    def __init__(
        self,
        lease: Lease,
        *,
        seen: int,
        signal: int,
        operations: Mapping[str, Operation],
        updates: Sequence[Update | EndTurn],
        now_ms: int,
        then: Then = Then.KEEP,
        base: int = 0,
        turn: str = "",
        retention_ms: int = 0,
    ) -> None:
        self.lease = lease
        self.seen = seen
        self.signal = signal
        self.operations = operations
        self.updates = updates
        self.now_ms = now_ms
        self.then = then
        self.base = base
        self.turn = turn
        self.retention_ms = retention_ms


# Found once: an enum's class looks a member up through a hook of its metaclass, at the price of a call.
_KEEP, _EXECUTION = Then.KEEP, Kind.EXECUTION


class Advanced(Struct, frozen=True, gc=False):
    """What an append changed: the stream's row, the operations, and the records as others will read them."""

    stream: Stream
    changes: dict[str, Operation]
    append: codec.Append | None
    seq: int

    def records(self) -> list[Record]:
        return [] if self.append is None else list(codec.records(self.append, seq=self.seq))


def advance(transaction: Transaction, request: Advance) -> Advanced:
    """Record the updates. Raises LeaseLost, ConflictError (read again) or IllegalTransitionError."""
    stream = transaction.streams.get(request.lease.stream) or held_stream(transaction, request.lease)
    if stream.signal > request.signal:
        raise ConflictError(
            f"stream {stream.uid}: an arrival at seq {stream.signal} was not seen by this run, "
            f"which has read to {request.signal}; it is replayed"
        )
    time_ms = max(request.now_ms, stream.time_ms)
    entries: list[Entry] = []
    changes: dict[str, Operation] = {}
    for update in request.updates:
        if isinstance(update, Update):
            if update.kind is _EXECUTION:
                entries.append(InvocationEnded(stream.invocation, None, update.at_ms - time_ms))
            name = update.id
            operation = changes.get(name)
            if operation is None:
                operation = request.operations.get(name)
            changes[name] = record(operation, update, time_ms, entries)
        else:
            entries.append(TurnEnded(update.operation, update.state, update.version, update.at_ms - time_ms))
    # A message that the holder has not seen is needed for recovery, whatever the holder thinks; what
    # was not needed any more is not needed again.
    base = max(min(request.base, request.seen + 1), stream.base)
    fields: dict[str, Any] = {}
    if request.then is not _KEEP:
        if request.then is not Then.FINISH and stream.type == FUNCTION:
            entries.append(InvocationEnded(stream.invocation))
        _leave(request, stream, changes, time_ms, fields)
        if stream.status == PAUSED and request.then is not Then.FINISH:
            # Whatever arrived or came due takes effect after the resume, which wakes it.
            fields["wake_ms"] = deadline_of(transaction, stream).due_ms
    if not entries:
        after = msgspec.structs.replace(stream, base=base or stream.base, **fields)
        transaction.put(after, lease=request.lease)
        return Advanced(after, changes, None, 0)
    append = codec.Append(time_ms, tuple(entries), stream.epoch, stream.invocation)
    seq = stream.head + 1
    body = codec.encode(append, stream=stream.number, seq=seq)
    after = transaction.append(
        request.lease, stream, count=len(entries), body=body, time_ms=time_ms, base=base, **fields
    )
    if stream.type == ACTOR:
        _settle_keys(transaction, stream, changes, seq=seq, expiry_ms=time_ms + request.retention_ms)
    return Advanced(after, changes, append, seq)


def held_stream(transaction: Transaction, lease: Lease) -> Stream:
    """The row of a held stream. Raises LeaseLost if it is gone."""
    stream = transaction.stream(lease.stream)
    if stream is None:
        raise LeaseLost(f"stream {lease.stream}: it was deleted; this run ends")
    return stream


def _leave(
    request: Advance, stream: Stream, changes: Mapping[str, Operation], time_ms: int, fields: dict[str, Any]
) -> None:
    """Add the fields of the stream's row that change when the holder lets it go."""
    fields["holder"] = None
    if request.then is Then.FINISH:
        scope = next(operation for operation in changes.values() if operation.kind is Kind.EXECUTION)
        fields.update(wake_ms=None, status=scope.status.value, ended_ms=time_ms)
        return
    wake_ms = next_wake({**request.operations, **changes})
    if request.then is Then.YIELD:
        wake_ms = request.now_ms
    elif stream.head > request.seen:
        # Whatever arrived after `seen` was not looked at by this holder. Sleeping on it
        # would lose it: no one else will be told. (J6)
        wake_ms = request.now_ms
    fields.update(wake_ms=wake_ms, turn=request.turn)


def _settle_keys(
    transaction: Transaction, stream: Stream, changes: Mapping[str, Operation], *, seq: int, expiry_ms: int
) -> None:
    """Point the key of each message that settled at its outcome; its expiry starts now."""
    for operation in changes.values():
        header = operation.message
        if operation.kind is not Kind.MESSAGE or header is None or not header.key or operation.status not in SETTLED:
            continue
        name = KeyId(stream.namespace, f"actor:{stream.name}/{stream.key}", header.key)
        stored = transaction.key(name)
        if stored is not None and stored.operation == operation.id:
            transaction.put_key(
                Key(name, stored.stream, stored.operation, stored.fingerprint, settled_seq=seq, expiry_ms=expiry_ms)
            )


def settled_in(append: codec.Append, operation: str) -> Settled | None:
    """The outcome of an operation within an append, or None."""
    for entry in append.entries:
        if isinstance(entry, Settled) and entry.operation == operation:
            return entry
    return None
