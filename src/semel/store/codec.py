"""Entries to bytes and back: one row holds the entries of one append.

Row body: version (1 byte), CRC-32 (4 bytes, big-endian, over the stream number, the seq and
the rest, so that a row in the wrong place is detected), then msgpack of `Append`. Old
versions stay readable here and nowhere else.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct

from semel.errors import JournalCorruptError
from semel.kernel.entry import Entry, Payload, Record, RetryScheduled, Settled, Started, TurnEnded

VERSION: Final = 1
_HEAD: Final = struct.Struct(">BI")
_PLACE: Final = struct.Struct(">QQ")
_FIELDS: Final = {
    "time_ms": "t",
    "entries": "e",
    "epoch": "p",
    "invocation": "v",
    "client_token": "c",
    "data_key": "k",
    "worker": "w",
}


class Append(Struct, frozen=True, gc=False, omit_defaults=True, rename=_FIELDS):
    """What one append carries beside its place. An entry's own time is `time_ms + offset_ms`."""

    time_ms: int
    entries: tuple[Entry, ...]
    epoch: int = 0
    invocation: int = 0
    client_token: str = ""
    data_key: str = ""
    worker: str = ""

    @property
    def has_chunks(self) -> bool:
        """Whether a value of the append is in chunks."""
        return any(payload.digest for payload in self.payloads())

    def payloads(self) -> Iterator[Payload]:
        """The values that the entries carry, in order."""
        for entry in self.entries:
            match entry:
                case Started(payload=found) | RetryScheduled(payload=found) | Settled(result=found):
                    pass
                case TurnEnded(state=found):
                    pass
                case _:
                    continue
            if found is not None:
                yield found


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Append).decode


def encode(append: Append, *, stream: int, seq: int) -> bytes:
    """Spell an append as the body of the row at (stream, seq)."""
    body = _encode(append)
    return _HEAD.pack(VERSION, zlib.crc32(body, zlib.crc32(_PLACE.pack(stream, seq)))) + body


def decode(row: bytes, *, stream: int, seq: int) -> Append:
    """Read a row body back. Raises JournalCorruptError, naming the place, for anything not written by `encode`."""
    place = f"journal row (stream {stream}, seq {seq})"
    if len(row) <= _HEAD.size:
        raise JournalCorruptError(f"{place}: found {len(row)} bytes, expected more than {_HEAD.size}; restore a backup")
    version, checksum = _HEAD.unpack_from(row)
    if version != VERSION:
        raise JournalCorruptError(
            f"{place}: found format version {version}, expected {VERSION} or older; use the semel that wrote it"
        )
    body = memoryview(row)[_HEAD.size :]
    found = zlib.crc32(body, zlib.crc32(_PLACE.pack(stream, seq)))
    if found != checksum:
        raise JournalCorruptError(
            f"{place}: its checksum is {found:08x}, expected {checksum:08x}; "
            f"the bytes changed on disk, restore a backup"
        )
    try:
        return _decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise JournalCorruptError(f"{place}: {error}; expected an append; restore a backup") from error


def records(append: Append, *, seq: int) -> Iterator[Record]:
    """The records of an append whose first entry is `seq`."""
    for place, entry in enumerate(append.entries, seq):
        yield Record(place, append.time_ms, append.epoch, append.invocation, entry)
