"""What a holder writes: its body's updates, and with them the end, the release or the turn.

One append carries everything that happened since the last one, so that a delivery and what
the body did with it are durable together or not at all.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from enum import Enum
from typing import Any

import msgspec
from msgspec import Struct

from semel.errors import LeaseLost
from semel.journal import arrivals, executions
from semel.journal.arrivals import Touched
from semel.journal.chunks import keep, keep_values
from semel.journal.deadline import deadline_of
from semel.kernel.entry import (
    ARRIVING,
    SETTLED,
    Delivered,
    Entry,
    InvocationEnded,
    Kind,
    Payload,
    Record,
    TurnEnded,
)
from semel.kernel.operation import Action, Deliver, Operation, Update, next_wake, record
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

    `seen` is the last seq the holder has looked at, `operations` its fold up to there. What arrived
    since changes nothing of what only the holder settles. `awaited` are the open operations that others settle,
    `timed` those of `operations` that have a time set, if that is known.
    """

    def __init__(
        self,
        lease: Lease,
        *,
        seen: int,
        operations: MutableMapping[str, Operation],
        updates: Sequence[Update | Deliver | EndTurn],
        now_ms: int,
        then: Then = Then.KEEP,
        base: int = 0,
        turn: str = "",
        retention_ms: int = 0,
        awaited: Collection[str] = (),
        timed: Mapping[str, Operation] | None = None,
    ) -> None:
        self.lease = lease
        self.seen = seen
        self.operations = operations
        self.updates = updates
        self.now_ms = now_ms
        self.then = then
        self.base = base
        self.turn = turn
        self.retention_ms = retention_ms
        self.awaited = awaited
        self.timed = timed


# Found once: an enum's class looks a member up through a hook of its metaclass, at the price of a call.
_KEEP, _EXECUTION = Then.KEEP, Kind.EXECUTION
_SCOPES = frozenset({Kind.EXECUTION, Kind.CONTEXT, Kind.MESSAGE})


class Advanced(Struct, frozen=True, gc=False):
    """What an append changed: the stream's row, the operations, the records as others will read them, other streams.

    `is_awaiting` tells whether operations that others settle are among those that changed.
    """

    stream: Stream
    changes: dict[str, Operation]
    append: codec.Append | None
    seq: int
    others: tuple[Touched, ...] = ()
    is_awaiting: bool = False

    def records(self) -> list[Record]:
        return [] if self.append is None else list(codec.records(self.append, seq=self.seq))


def advance(transaction: Transaction, request: Advance) -> Advanced:
    """Record the updates. Raises LeaseLost or IllegalTransitionError."""
    stream = transaction.streams.get(request.lease.stream) or held_stream(transaction, request.lease)
    time_ms = max(request.now_ms, stream.time_ms)
    entries: list[Entry] = []
    changes: dict[str, Operation] = {}
    arriving: list[Update] = []
    for update in request.updates:
        if isinstance(update, Update):
            kind, name = update.kind, update.id
            if update.payload is not None or kind in ARRIVING:
                update = keep_values(transaction, stream.number, update)  # noqa: PLW2901  # memory has what the row has
            if kind is _EXECUTION:
                entries.append(InvocationEnded(stream.invocation, None, update.at_ms - time_ms))
            operation = changes.get(name)
            if operation is None:
                operation = request.operations.get(name)
            if kind in ARRIVING:
                if _came_too_late(transaction, stream, request, update, operation):
                    continue
                arriving.append(update)
            changes[name] = record(operation, update, time_ms, entries)
        elif isinstance(update, Deliver):
            entries.append(Delivered(update.id, update.at_ms - time_ms))
        else:
            state = None if update.state is None else keep(transaction, stream.number, update.state)
            entries.append(TurnEnded(update.operation, state, update.version, update.at_ms - time_ms))
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
    others: tuple[Touched, ...] = ()
    if arriving or request.awaited or (request.then is Then.FINISH and _outcome_of(changes).message is not None):
        others = _tell_others(transaction, request, after, changes, arriving)
    return Advanced(after, changes, append, seq, others, bool(arriving))


def _came_too_late(
    transaction: Transaction, stream: Stream, request: Advance, update: Update, operation: Operation | None
) -> bool:
    """Whether a holder cancels what somebody else has settled meanwhile. The outcome stands, undelivered (R2)."""
    if update.action is not Action.CANCEL or operation is None:
        return False
    if operation.status in SETTLED:
        return True
    if stream.head == request.seen or operation.id not in request.operations:
        return False
    return not arrivals.is_open(transaction, stream, operation.id)


def _tell_others(
    transaction: Transaction,
    request: Advance,
    stream: Stream,
    changes: dict[str, Operation],
    arriving: Sequence[Update],
) -> tuple[Touched, ...]:
    """What an append means for other streams: executions it starts, the one that waits for its outcome."""
    others: list[Touched] = []
    awaited = set(request.awaited)
    for update in arriving:
        operation = changes[update.id]
        if operation.status in SETTLED:
            arrivals.close(transaction, stream, operation.id)
            awaited.discard(operation.id)
        elif update.action is Action.START:
            arrivals.open_(transaction, stream, operation.id)
            awaited.add(operation.id)
            if operation.kind is Kind.CHAINED_INVOKE:
                others.append(executions.start_child(transaction, stream, operation, now_ms=update.at_ms))
    if awaited:
        everything = ChainMap(changes, request.operations)
        for operation in changes.values():
            if operation.status in SETTLED and operation.kind in _SCOPES:
                scope = "" if operation.kind is _EXECUTION else operation.id
                arrivals.close_inside(transaction, stream, everything, awaited, scope)
    if request.then is Then.FINISH:
        ended = _outcome_of(changes)
        told = executions.tell_parent(transaction, stream, ended, ended.message)
        others.extend([] if told is None else [told])
    return tuple(others)


def _outcome_of(changes: dict[str, Operation]) -> Operation:
    """The execution that an append ends, which is the last that it changes."""
    return next(operation for operation in reversed(changes.values()) if operation.kind is _EXECUTION)


def held_stream(transaction: Transaction, lease: Lease) -> Stream:
    """The row of a held stream. Raises LeaseLost if it is gone."""
    stream = transaction.stream(lease.stream)
    if stream is None:
        raise LeaseLost(f"stream {lease.stream}: it was deleted; this run ends")
    return stream


def _leave(
    request: Advance, stream: Stream, changes: dict[str, Operation], time_ms: int, fields: dict[str, Any]
) -> None:
    """Add the fields of the stream's row that change when the holder lets it go."""
    fields["holder"] = None
    if request.then is Then.FINISH:
        scope = _outcome_of(changes)
        fields.update(wake_ms=None, status=scope.status.value, ended_ms=time_ms)
        return
    # Not a copy of everything: a stream that suspends a thousand times would copy a thousand times more.
    timed = None if request.timed is None else {**request.timed, **changes}
    wake_ms = next_wake(ChainMap(changes, request.operations), timed=timed)
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
