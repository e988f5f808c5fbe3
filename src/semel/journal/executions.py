"""Starting and asking after executions of durable functions."""

from __future__ import annotations

from msgspec import Struct

from semel.errors import IdempotencyConflictError, JournalCorruptError
from semel.journal import chunks
from semel.journal.arrivals import Arrival, Touched, find, is_open, settle
from semel.journal.outcomes import outcome_in, settled_in
from semel.kernel.entry import Kind, MessageHeader, Payload, Settled, Started, Status
from semel.kernel.operation import Action, Operation
from semel.store import codec
from semel.store.base import FUNCTION, RUNNING, Key, KeyId, Reader, Stream, Transaction


class StartRequest(Struct, frozen=True, gc=False):
    """A request to run a function under a key. `worker` holds the new stream at once, or None.

    `version` ends with PINNED if the execution is to be pinned. `due_ms` is the deadline of an execution
    that it makes: one that is there keeps its own.
    """

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
    due_ms: int | None = None
    message: MessageHeader | None = None

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
    if found is not None and (known := _known(transaction, request, found)) is not None:
        if found.fingerprint != request.fingerprint:
            raise IdempotencyConflictError(f"function {request.function!r}", request.key)
        outcome = outcome_in(transaction, known) if found.outcome is None else kept_outcome(found)
        return StartAnswer(known, is_new=False, outcome=outcome)
    stream, append = _create(transaction, request)
    transaction.put_key(Key(key_id, stream.number, request.uid, request.fingerprint))
    return StartAnswer(stream, is_new=True, append=append)


def _known(transaction: Transaction, request: StartRequest, found: Key) -> Stream | None:
    """The execution that a key stands for, or None if the key has expired. Of a deleted one, what its key says."""
    if found.outcome is not None:
        if found.expiry_ms is not None and request.now_ms >= found.expiry_ms:
            return None
        status = kept_outcome(found).status.value
        named = (request.namespace, FUNCTION, request.function, request.key)
        return Stream(found.stream, found.operation, *named, status=status, ended_ms=found.expiry_ms)
    stream = transaction.stream(found.stream)
    if stream is None:
        raise JournalCorruptError(
            f"key {request.key!r}: it names stream {found.stream}, which is gone; expected it until the key expires"
        )
    is_kept = stream.ended_ms is None or request.now_ms < stream.ended_ms + request.retention_ms
    return stream if is_kept else None


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
        version=stream.code_version,
        payload=chunks.keep(transaction, stream.number, request.payload),
        fingerprint=request.fingerprint,
        source=request.source,
        due_ms=request.due_ms,
        origin=request.uid,
        message=request.message,
    )
    append = codec.Append(request.now_ms, (started,), stream.epoch, stream.invocation)
    body = codec.encode(append, stream=stream.number, seq=1)
    return transaction.append(None, stream, count=1, body=body, time_ms=request.now_ms), append


INVOKE = "invoke"


def start_child(transaction: Transaction, parent: Stream, operation: Operation, *, now_ms: int) -> Touched:
    """Start the execution that an invoke asks for, in the transaction that records the invoke."""
    start, header = operation.start, operation.message
    if start is None or header is None or start.payload is None:
        raise AssertionError(f"operation {operation.id}: its start is {start!r}, expected that of an invoke")
    name = f"{parent.uid}:{operation.id}"
    request = StartRequest(
        parent.namespace,
        header.method,
        name,
        start.child,
        chunks.whole(transaction, parent.number, start.payload),
        b"",
        start.version,
        max(now_ms, parent.time_ms),
        0,
        due_ms=header.deadline_ms or None,
        message=MessageHeader(INVOKE, header.method, sender=parent.uid, sender_operation=operation.id),
    )
    stream, append = _create(transaction, request)
    transaction.put_key(Key(request.key_id, stream.number, request.uid, b""))
    return Touched(stream, append, 1)


_ENDS = {
    Status.SUCCEEDED: Action.SUCCEED,
    Status.FAILED: Action.FAIL,
    Status.TIMED_OUT: Action.TIME_OUT,
    Status.STOPPED: Action.STOP,
}


def tell_parent(
    transaction: Transaction, child: Stream, outcome: Operation | Settled, header: MessageHeader | None = None
) -> Touched | None:
    """Settle the invoke that started an execution with the outcome of that. None if nobody waits for it any more."""
    if header is None or header.kind != INVOKE:
        return None
    parent = find(transaction, header.sender)
    if parent is None or parent.ended_ms is not None or not is_open(transaction, parent, header.sender_operation):
        return None
    arrival = Arrival(
        header.sender,
        header.sender_operation,
        Kind.CHAINED_INVOKE,
        _ENDS[outcome.status],
        child.time_ms,
        outcome.result and chunks.whole(transaction, child.number, outcome.result),
        outcome.error,
    )
    return settle(transaction, parent, arrival)


def header_of(source: Transaction | Reader, stream: Stream) -> MessageHeader | None:
    """Who asked for an execution, if it was another stream."""
    row = source.row_at(stream.number, 1)
    if row is None:
        return None
    first = codec.decode(row.body, stream=row.stream, seq=row.seq).entries[0]
    return first.message if isinstance(first, Started) else None


def keep_outcome(source: Transaction | Reader, settled: Settled, stream: Stream) -> bytes:
    """An outcome as the key row has it once its stream is deleted, and its chunks with it."""
    settled = chunks.whole_outcome(source, stream.number, settled)
    return codec.encode(codec.Append(stream.time_ms, (settled,)), stream=stream.number, seq=stream.tail)


def kept_outcome(key: Key) -> Settled:
    """The outcome of an execution that was deleted. Raises JournalCorruptError."""
    settled = None
    if key.outcome is not None:
        settled = settled_in(codec.decode(key.outcome, stream=key.stream, seq=key.settled_seq), key.operation)
    if settled is None:
        raise JournalCorruptError(
            f"key {key.id.key!r}: the outcome of {key.operation!r} is missing from it; restore a backup"
        )
    return settled


def is_running(stream: Stream) -> bool:
    """Whether an execution has no outcome and is in service."""
    return stream.status == RUNNING
