"""Large values outside the journal's rows, in chunks of their stream that are named by their digest.

A row then carries the digests, so that reading a stream, folding it and keeping it in memory cost
as much as its operations, whatever they returned; a value is read when somebody wants it. Equal
chunks of one stream are stored once. Chunks belong to one stream and go with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import msgspec

from semel.errors import JournalCorruptError
from semel.kernel import values
from semel.kernel.entry import Payload, Settled
from semel.kernel.operation import Update
from semel.store.base import Transaction

CHUNK_BYTES: Final = 65_536
DIGEST_BYTES: Final = 20


class Chunks(Protocol):
    """Where chunks are read: a reader, or a transaction."""

    def chunk(self, stream: int, digest: bytes) -> bytes | None: ...


def keep(transaction: Transaction, stream: int, payload: Payload) -> Payload:
    """The payload as a row of the stream is to carry it; the chunks of a large one become part of the batch.

    One that is in chunks already is taken to be in those of the same stream.
    """
    if len(payload.data) <= CHUNK_BYTES:
        return payload
    return _split(payload, lambda digest, chunk: transaction.put_chunk(stream, digest, chunk))


def keep_values(transaction: Transaction, stream: int, update: Update) -> Update:
    """The update with its values as a row of the stream is to carry them."""
    payload, start = update.payload, update.start
    if payload is not None and len(payload.data) > CHUNK_BYTES:
        update = msgspec.structs.replace(update, payload=keep(transaction, stream, payload))
    if start is not None and start.payload is not None and len(start.payload.data) > CHUNK_BYTES:
        start = msgspec.structs.replace(start, payload=keep(transaction, stream, start.payload))
        update = msgspec.structs.replace(update, start=start)
    return update


def outline(payload: Payload) -> Payload:
    """What `keep` returns, with nothing stored: equal values have equal outlines."""
    return payload if len(payload.data) <= CHUNK_BYTES else _split(payload, _nowhere)


def _split(payload: Payload, put: Callable[[bytes, bytes], None]) -> Payload:
    data = payload.data
    digests = []
    for start in range(0, len(data), CHUNK_BYTES):
        chunk = data[start : start + CHUNK_BYTES]
        digests.append(digest_of(chunk))
        put(digests[-1], chunk)
    return msgspec.structs.replace(payload, data=b"", digest=b"".join(digests), size=len(data))


def _nowhere(digest: bytes, chunk: bytes) -> None:
    """Nothing is stored."""


def digest_of(chunk: bytes) -> bytes:
    """What a chunk is named by."""
    return hashlib.blake2b(chunk, digest_size=DIGEST_BYTES).digest()


def digests_of(payload: Payload) -> list[bytes]:
    """The names of a payload's chunks, in order. None for one that is in its row."""
    named = payload.digest
    return [named[start : start + DIGEST_BYTES] for start in range(0, len(named), DIGEST_BYTES)]


def whole(source: Chunks, stream: int, payload: Payload) -> Payload:
    """The payload with its bytes. Raises JournalCorruptError if a chunk is missing or damaged."""
    if not payload.digest:
        return payload
    data = b"".join(_read(source, stream, payload))
    if len(data) != payload.size:
        raise JournalCorruptError(
            f"stream {stream}: the chunks of a value hold {len(data)} bytes, expected {payload.size}; restore a backup"
        )
    return msgspec.structs.replace(payload, data=data, digest=b"", size=0)


def _read(source: Chunks, stream: int, payload: Payload) -> Iterator[bytes]:
    digests = digests_of(payload)
    for place, digest in enumerate(digests, 1):
        chunk = source.chunk(stream, digest)
        found = "it is missing" if chunk is None else f"its digest is {digest_of(chunk).hex()}"
        if chunk is None or digest_of(chunk) != digest:
            raise JournalCorruptError(
                f"chunk {place} of {len(digests)} of a value (stream {stream}): {found}, "
                f"expected the bytes of digest {digest.hex()}; restore a backup"
            )
        yield chunk


def whole_outcome(source: Chunks, stream: int, settled: Settled) -> Settled:
    """An outcome with the bytes of its result. Raises JournalCorruptError."""
    if settled.result is None or not settled.result.digest:
        return settled
    return msgspec.structs.replace(settled, result=whole(source, stream, settled.result))


def value(source: Chunks, stream: int, payload: Payload | None) -> Any:
    """What was kept as this payload. Raises JournalCorruptError, or SerializationError if this code cannot read it."""
    return None if payload is None else values.decode(whole(source, stream, payload).data)
