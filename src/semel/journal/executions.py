"""Starting, stopping and asking after executions of durable functions."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from semel.errors import IdempotencyConflictError, JournalCorruptError
from semel.journal.advance import settled_in
from semel.kernel.entry import Entry, InvocationEnded, Kind, Payload, Settled, Started, Status
from semel.kernel.operation import Action, Operation, Update, decide
from semel.kernel.values import ErrorData
from semel.store import codec
from semel.store.base import FUNCTION, RUNNING, Key, KeyId, Reader, Row, Stream, Transaction


class StartRequest(Struct, frozen=True, gc=False):
    """A request to run a function under a key. `worker` holds the new stream at once, or None."""

    namespace: str
    function: str
    key: str
    uid: str
    payload: Payload
    fingerprint: bytes
    version: str
    now_ms: int
    retention_ms: int
    worker: str | None = None
    source: str = ""

    @property
    def key_id(self) -> KeyId:
        return KeyId(self.namespace, operation_of(self.function), self.key)


class StartAnswer(Struct, frozen=True, gc=False):
    """The execution under the key. `outcome` if it has one; `is_new` if this request made it."""

    stream: Stream
    is_new: bool
    outcome: Settled | None = None
    append: codec.Append | None = None


def operation_of(function: str) -> str:
    """What a function's keys are unique within."""
    return f"fn:{function}"


def start(transaction: Transaction, request: StartRequest) -> StartAnswer:
    """Start an execution, or find the one under the key. Raises IdempotencyConflictError."""
    key_id = request.key_id
    found = transaction.key(key_id)
    if found is not None:
        stream = transaction.stream(found.stream)
        if stream is None:
            raise JournalCorruptError(
                f"key {request.key!r}: it names stream {found.stream}, which is gone; expected it until the key expires"
            )
        if stream.ended_ms is None or request.now_ms < stream.ended_ms + request.retention_ms:
            if found.fingerprint != request.fingerprint:
                raise IdempotencyConflictError(f"function {request.function!r}", request.key)
            return StartAnswer(stream, is_new=False, outcome=outcome_in(transaction, stream))
    stream, append = _create(transaction, request)
    transaction.put_key(Key(key_id, stream.number, request.uid, request.fingerprint))
    return StartAnswer(stream, is_new=True, append=append)


def _create(transaction: Transaction, request: StartRequest) -> tuple[Stream, codec.Append]:
    held = request.worker is not None
    stream = Stream(
        transaction.store.next_stream(),
        request.uid,
        request.namespace,
        FUNCTION,
        request.function,
        request.key,
        epoch=1 if held else 0,
        holder=request.worker,
        wake_ms=None if held else request.now_ms,
        invocation=1 if held else 0,
        version=request.version,
        origin=request.uid,
        created_ms=request.now_ms,
    )
    transaction.create(stream)
    started = Started(
        request.uid,
        Kind.EXECUTION,
        name=request.key,
        version=request.version,
        payload=request.payload,
        fingerprint=request.fingerprint,
        source=request.source,
        origin=request.uid,
    )
    append = codec.Append(request.now_ms, (started,), stream.epoch, stream.invocation)
    body = codec.encode(append, stream=stream.number, seq=1)
    return transaction.append(None, stream, count=1, body=body, time_ms=request.now_ms), append


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


def stop(transaction: Transaction, number: int, *, reason: str, now_ms: int) -> Stream | None:
    """End an execution as STOPPED, whoever holds it; that holder may write no more.

    One that has an outcome keeps it. Operations in progress stay as they stand (J7).
    """
    stream = transaction.stream(number)
    if stream is None or stream.ended_ms is not None:
        return stream
    time_ms = max(now_ms, stream.time_ms)
    update = Update(
        stream.uid, Kind.EXECUTION, Action.STOP, time_ms, error=ErrorData("ExecutionStopped", reason or "stopped")
    )
    running = Operation(stream.uid, Kind.EXECUTION, Status.STARTED)
    entries: tuple[Entry, ...] = (InvocationEnded(stream.invocation), *decide(running, update, time_ms))
    append = codec.Append(time_ms, entries, stream.epoch + 1, stream.invocation)
    body = codec.encode(append, stream=stream.number, seq=stream.head + 1)
    changes: dict[str, Any] = {
        "epoch": stream.epoch + 1,
        "holder": None,
        "wake_ms": None,
        "status": Status.STOPPED.value,
        "ended_ms": time_ms,
    }
    return transaction.append(None, stream, count=len(entries), body=body, time_ms=time_ms, **changes)


def is_running(stream: Stream) -> bool:
    """Whether an execution has no outcome and is in service."""
    return stream.status == RUNNING
