"""Sending messages to actors: an arrival, which no lease refuses (J5)."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from semel.errors import IdempotencyConflictError, JournalCorruptError
from semel.journal import chunks
from semel.journal.outcomes import settled_at
from semel.kernel.entry import Kind, MessageHeader, Payload, Settled, Started
from semel.store import codec
from semel.store.base import Address, Key, KeyId, Stream, Transaction


class SendRequest(Struct, frozen=True, gc=False):
    """A message for an actor. `uid` names the actor's stream if this is the first one it gets."""

    address: Address
    uid: str
    header: MessageHeader
    payload: Payload
    fingerprint: bytes
    version: str
    now_ms: int
    worker: str | None = None

    @property
    def key_id(self) -> KeyId:
        return KeyId(self.address.namespace, operation_of(self.address), self.header.key)


class SendAnswer(Struct, frozen=True, gc=False):
    """The message's id. `outcome` if it has settled; `append` and `seq` if this request added it."""

    stream: Stream
    message: str
    outcome: Settled | None = None
    append: codec.Append | None = None
    seq: int = 0
    is_claimed: bool = False


def operation_of(address: Address) -> str:
    """What the keys of an actor's messages are unique within; the method is part of the fingerprint."""
    return f"actor:{address.name}/{address.key}"


def send(transaction: Transaction, request: SendRequest) -> SendAnswer:
    """Add a message to the mailbox, or find the one under its key. Raises IdempotencyConflictError."""
    if request.header.key:
        found = transaction.key(request.key_id)
        if found is not None and (found.expiry_ms is None or request.now_ms < found.expiry_ms):
            return _join(transaction, request, found)
    stream = transaction.stream_by_address(request.address)
    if stream is None:
        stream = _create(transaction, request)
    return _add(transaction, stream, request)


def _join(transaction: Transaction, request: SendRequest, found: Key) -> SendAnswer:
    if found.fingerprint != request.fingerprint:
        raise IdempotencyConflictError(operation_of(request.address), request.header.key)
    stream = transaction.stream(found.stream)
    if stream is None:
        raise JournalCorruptError(
            f"key {request.header.key!r}: it names stream {found.stream}, which is gone; "
            f"expected it until the key expires"
        )
    if not found.settled_seq:
        return SendAnswer(stream, found.operation)
    row = transaction.row_at(stream.number, found.settled_seq)
    return SendAnswer(stream, found.operation, outcome=settled_at(row, stream, found.operation))


def _create(transaction: Transaction, request: SendRequest) -> Stream:
    address = request.address
    stream = Stream(
        transaction.store.next_stream(),
        request.uid,
        address.namespace,
        address.type,
        address.name,
        address.key,
        version=request.version,
        origin=request.uid,
        created_ms=request.now_ms,
    )
    transaction.create(stream)
    return stream


def _add(transaction: Transaction, stream: Stream, request: SendRequest) -> SendAnswer:
    time_ms = max(request.now_ms, stream.time_ms)
    seq = stream.head + 1
    message = f"m{seq}"
    started = Started(
        message,
        Kind.MESSAGE,
        name=request.header.method,
        payload=chunks.keep(transaction, stream.number, request.payload),
        message=request.header,
        fingerprint=request.fingerprint,
        version=request.version,
    )
    append = codec.Append(time_ms, (started,), stream.epoch)
    body = codec.encode(append, stream=stream.number, seq=seq)
    changes = _waking(stream, request)
    after = transaction.append(None, stream, count=1, body=body, time_ms=time_ms, **changes)
    if request.header.key:
        transaction.put_key(Key(request.key_id, stream.number, message, request.fingerprint))
    return SendAnswer(after, message, append=append, seq=seq, is_claimed="holder" in changes)


def _waking(stream: Stream, request: SendRequest) -> dict[str, Any]:
    """Who is told of the message: its holder, the sender's own worker, or whoever claims next.

    While a turn is open the message waits behind it, and wakes nobody (no re-entrancy).
    """
    if stream.holder is not None or stream.turn or stream.status != "RUNNING":
        return {}
    if request.worker is None:
        return {"wake_ms": request.now_ms}
    return {
        "holder": request.worker,
        "epoch": stream.epoch + 1,
        "invocation": stream.invocation + 1,
        "wake_ms": None,
    }
