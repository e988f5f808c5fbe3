"""Journals in memory: the reference implementation, and what the other stores are tested against.

The data outlives its handles: closing one `MemoryStore` and opening another on the same
`MemoryData` is what a crash and a restart are to a store on disk.
"""

from __future__ import annotations

import secrets
import threading
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import TypeVar

from msgspec.structs import astuple

from semel.errors import ConflictError, UnavailableError
from semel.store.base import (
    ACTOR,
    FUNCTION,
    Address,
    Ended,
    Filter,
    Key,
    KeyId,
    KeyScan,
    Needs,
    Row,
    Scan,
    Stream,
    Transaction,
    Worker,
)

K = TypeVar("K")
V = TypeVar("V")

Streams = list[Stream]
Names = list[str]
_seq = attrgetter("seq")


class MemoryData:
    """What is stored: each committed row, and nothing of a batch that was not committed."""

    def __init__(self) -> None:
        self.journal_id = secrets.token_hex(16)
        self.last_number = 0
        self.streams: dict[int, Stream] = {}
        self.numbers_by_uid: dict[str, int] = {}
        self.numbers_by_address: dict[Address, int] = {}
        self.rows: dict[int, list[Row]] = {}
        self.chunks: dict[int, dict[bytes, bytes]] = {}
        self.keys: dict[KeyId, Key] = {}
        self.workers: dict[str, Worker] = {}
        self.lock = threading.Lock()


class MemoryStore:
    """A handle on journals in memory, new ones unless `data` is given."""

    def __init__(self, data: MemoryData | None = None) -> None:
        self.data = MemoryData() if data is None else data
        self.journal_id = self.data.journal_id
        self._closed = False

    def stream(self, number: int) -> Stream | None:
        return self._open_data().streams.get(number)

    def stream_by_uid(self, uid: str) -> Stream | None:
        data = self._open_data()
        number = data.numbers_by_uid.get(uid)
        return None if number is None else data.streams[number]

    def stream_by_address(self, address: Address) -> Stream | None:
        data = self._open_data()
        number = data.numbers_by_address.get(address)
        return None if number is None else data.streams[number]

    def key(self, key: KeyId) -> Key | None:
        return self._open_data().keys.get(key)

    def rows(self, stream: int, *, first: int = 1, limit: int | None = None) -> list[Row]:
        rows = self._open_data().rows.get(stream, [])
        place = bisect_right(rows, first, key=_seq)
        if place and rows[place - 1].seq + rows[place - 1].count > first:
            place -= 1
        return rows[place:] if limit is None else rows[place : place + limit]

    def row_at(self, stream: int, seq: int) -> Row | None:
        rows = self._open_data().rows.get(stream, [])
        place = bisect_right(rows, seq, key=_seq) - 1
        return rows[place] if place >= 0 and rows[place].seq == seq else None

    def chunk(self, stream: int, digest: bytes) -> bytes | None:
        return self._open_data().chunks.get(stream, {}).get(digest)

    def due(
        self, now_ms: int, *, limit: int, names: Sequence[str] | None = None, versions: Sequence[str] = ()
    ) -> Streams:
        due = [
            (stream.wake_ms, stream.number, stream)
            for stream in self._all_streams()
            if stream.wake_ms is not None
            and stream.wake_ms <= now_ms
            and stream.holder is None
            and _is_runnable(stream, names, versions)
        ]
        return [stream for _, _, stream in sorted(due)[:limit]]

    def next_wake(
        self, *, names: Sequence[str] | None = None, versions: Sequence[str] = (), after_ms: int = -1
    ) -> int | None:
        return min(
            (
                stream.wake_ms
                for stream in self._all_streams()
                if stream.wake_ms is not None
                and stream.wake_ms > after_ms
                and stream.holder is None
                and _is_runnable(stream, names, versions)
            ),
            default=None,
        )

    def pinned(self) -> Names:
        return sorted({s.name for s in self._all_streams() if s.is_pinned and s.ended_ms is None})

    def held_by(self, worker: str) -> Streams:
        return sorted((s for s in self._all_streams() if s.holder == worker), key=attrgetter("number"))

    def dead_workers(self, now_ms: int) -> list[str]:
        workers = self._open_data().workers
        holders = {stream.holder for stream in self._all_streams() if stream.holder is not None}
        return sorted(holder for holder in holders if holder not in workers or workers[holder].lease_until_ms <= now_ms)

    def list(self, which: Filter) -> Streams:
        found = [
            stream
            for stream in self._all_streams()
            if which.type in (None, stream.type)
            and which.namespace in (None, stream.namespace)
            and which.name in (None, stream.name)
            and (which.statuses is None or stream.shown_status in which.statuses)
            and (which.before is None or stream.number < which.before)
            and (which.after is None or stream.number > which.after)
            and stream.key.startswith(which.key_prefix)
            and (which.created_after_ms is None or stream.created_ms >= which.created_after_ms)
            and (which.created_before_ms is None or stream.created_ms < which.created_before_ms)
        ]
        return sorted(found, key=attrgetter("number"), reverse=not which.oldest_first)[: which.limit]

    def scan_ended(self, after: int, *, until_ms: int, limit: int) -> Scan:
        streams = sorted((s for s in self._all_streams() if s.number > after), key=attrgetter("number"))[:limit]
        found = [
            Ended(s.number, s.namespace, s.name, s.key, s.ended_ms)
            for s in streams
            if s.type == FUNCTION and s.ended_ms is not None and s.ended_ms <= until_ms
        ]
        return Scan(streams[-1].number if len(streams) == limit else None, found)

    def scan_expired(self, after: KeyId | None, *, now_ms: int, limit: int) -> KeyScan:
        data = self._open_data()
        with data.lock:
            keys = [*data.keys.values()]
        order = astuple  # as an index has them
        later = sorted(
            (key for key in keys if after is None or order(key.id) > order(after)), key=lambda k: order(k.id)
        )
        page = later[:limit]
        found = [key.id for key in page if key.expiry_ms is not None and key.expiry_ms <= now_ms]
        return KeyScan(page[-1].id if len(page) == limit else None, found)

    def begin(self, needs: Iterable[Needs]) -> Transaction:  # noqa: ARG002
        """Open a batch. There is nothing to fetch ahead."""
        self._open_data()
        return Transaction(self)

    def spell(self, transaction: Transaction) -> Transaction:
        return transaction

    def write(self, spelled: Transaction) -> None:
        self.commit(spelled)

    def commit(self, transaction: Transaction) -> None:
        """Apply the batch, whole or not at all. Raises ConflictError if a row is in the way."""
        data = self._open_data()
        with data.lock:
            _check(data, transaction)
            for number, stream in transaction.created.items():
                data.numbers_by_uid[stream.uid] = number
                if stream.type == ACTOR:
                    data.numbers_by_address[stream.address] = number
            data.streams.update(transaction.created)
            data.streams.update(transaction.moved)
            data.streams.update(transaction.changed)
            for row in transaction.rows:
                data.rows.setdefault(row.stream, []).append(row)
            for (number, digest), chunk in transaction.chunks.items():
                data.chunks.setdefault(number, {}).setdefault(digest, chunk)
            for number, stream in transaction.deleted.items():
                data.streams.pop(number, None)
                data.rows.pop(number, None)
                data.chunks.pop(number, None)
                data.numbers_by_uid.pop(stream.uid, None)
            for id, key in transaction.changed_keys.items():
                _put(data.keys, id, key)
            for name, worker in transaction.workers.items():
                _put(data.workers, name, worker)

    def next_stream(self) -> int:
        """A number that no stream has."""
        data = self._open_data()
        with data.lock:
            data.last_number += 1
            return data.last_number

    def reader(self) -> MemoryStore:
        """Another handle on the same data."""
        return MemoryStore(self._open_data())

    def close(self) -> None:
        self._closed = True

    def _all_streams(self) -> Streams:
        data = self._open_data()
        with data.lock:
            return [*data.streams.values()]

    def _open_data(self) -> MemoryData:
        if self._closed:
            error = UnavailableError("memory://: the store is closed, expected an open one; open it again")
            error.definite = True
            raise error
        return self.data


def _is_runnable(stream: Stream, names: Sequence[str] | None, versions: Sequence[str]) -> bool:
    if names is None:
        return True
    return stream.name in names and (not stream.is_pinned or stream.version in versions)


def _check(data: MemoryData, transaction: Transaction) -> None:
    """Raise ConflictError where a table on disk would have a unique index."""
    uids: set[str] = set()
    for number, stream in transaction.created.items():
        if number in data.streams or stream.uid in data.numbers_by_uid or stream.uid in uids:
            raise ConflictError(f"stream {stream.uid}: another row is in the way; nothing was written; read again")
        if stream.type == ACTOR and stream.address in data.numbers_by_address:
            raise ConflictError(f"stream {stream.uid}: its address is taken; nothing was written; read again")
        uids.add(stream.uid)
    for row in transaction.rows:
        rows = data.rows.get(row.stream)
        if rows and row.seq <= rows[-1].seq:
            raise ConflictError(f"stream {row.stream}: it has a row at seq {row.seq}; nothing was written; read again")


def _put(rows: dict[K, V], id: K, row: V | None) -> None:
    if row is None:
        rows.pop(id, None)
    else:
        rows[id] = row
