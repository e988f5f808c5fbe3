"""The store's contract, and the transaction that every store shares.

A store keeps five tables: streams (one row each: run queue, timer table and mailbox in one),
the journal (append-only rows), chunks (the bytes of large values, by stream and digest),
idempotency keys, and workers with their leases. It knows which bytes, never what they mean.

A `Transaction` is a batch of journal calls that commit together. Each call reads rows as the
calls before it left them, and a call that raises leaves no trace (`attempt`). Writes are kept
in memory until `Store.commit` spells them as a few multi-row statements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from semel.errors import ConflictError, LeaseLost
from semel.kernel.ids import PINNED

T = TypeVar("T")

FUNCTION = "fn"
ACTOR = "actor"
_ABSENT = object()
RUNNING = "RUNNING"
PARKED = "PARKED"
PAUSED = "PAUSED"
PAUSING = "PAUSING"  # how a paused stream is shown while somebody holds it; never stored


class Address(Struct, frozen=True, gc=False):
    """How a stream is found by name. `type` is FUNCTION or ACTOR, `name` the function or actor type."""

    namespace: str
    type: str
    name: str
    key: str


class Stream(Struct, frozen=True, gc=False):
    """The one row of a stream.

    `number` is the store's own name for it, `uid` the world's. `head` is the last seq, `tail` the
    seq of the last journal row. `signal` is 0: a column that the format
    has, and no rule needs. `base` is the first seq that recovery needs. `turn` is the message whose turn is
    open while its actor is suspended. `wake_ms` is None while the
    stream is held, settled, parked, paused without a deadline, or waits for arrivals only. `status` is
    RUNNING, PARKED, PAUSED or how the execution settled. `number` to `key`, `origin` and `created_ms` never change.
    """

    number: int
    uid: str
    namespace: str
    type: str
    name: str
    key: str
    epoch: int = 0
    holder: str | None = None
    head: int = 0
    tail: int = 0
    signal: int = 0
    base: int = 1
    turn: str = ""
    time_ms: int = 0
    wake_ms: int | None = None
    status: str = RUNNING
    invocation: int = 0
    version: str = ""
    origin: str = ""
    created_ms: int = 0
    ended_ms: int | None = None

    @property
    def address(self) -> Address:
        return Address(self.namespace, self.type, self.name, self.key)

    @property
    def is_pinned(self) -> bool:
        """Whether only the version that it began with may run it."""
        return self.version.endswith(PINNED)

    @property
    def code_version(self) -> str:
        """The version of the code that it began with."""
        return self.version.removesuffix(PINNED)

    @property
    def shown_status(self) -> str:
        """The status as people see it: a paused execution is PAUSING while somebody holds it."""
        return PAUSING if self.status == PAUSED and self.holder is not None else self.status


class KeyId(Struct, frozen=True, gc=False):
    """What an idempotency key is unique within. `operation` is `fn:NAME` or `actor:TYPE/KEY`."""

    namespace: str
    operation: str
    key: str


class Key(Struct, frozen=True, gc=False):
    """The row of an idempotency key: what it started, and the digest of the request.

    `settled_seq` is the journal row that holds the outcome of a message (0 while it is open; a
    function's outcome is in its stream's last row). `expiry_ms` counts from completion. `outcome` is the body of
    a journal row at (`stream`, `settled_seq`) with nothing but the outcome, once the stream itself is deleted.
    """

    id: KeyId
    stream: int
    operation: str
    fingerprint: bytes
    settled_seq: int = 0
    expiry_ms: int | None = None
    outcome: bytes | None = None


class Row(Struct, frozen=True, gc=False):
    """A journal row: the entries of one append, `seq` the first of them, `count` how many."""

    stream: int
    seq: int
    count: int
    body: bytes


class Lease(Struct, frozen=True, gc=False):
    """The right to write to a stream as its holder, until a higher epoch is given out."""

    stream: int
    epoch: int
    worker: str


class Worker(Struct, frozen=True, gc=False):
    """A worker and until when its streams are its own."""

    id: str
    lease_until_ms: int


class Needs(Struct, frozen=True, gc=False):
    """The rows a call will read, so that a store can fetch those of a whole batch at once. A hint only."""

    streams: tuple[int, ...] = ()
    keys: tuple[KeyId, ...] = ()
    addresses: tuple[Address, ...] = ()


class Filter(Struct, frozen=True, gc=False):
    """Which streams to list, newest first unless `oldest_first`.

    `statuses` are as they are shown. Streams are numbered in the order of their creation: those `before` a number
    and `after` one are listed, created at or after one time and before the other.
    """

    type: str | None = None
    namespace: str | None = None
    name: str | None = None
    statuses: tuple[str, ...] | None = None
    before: int | None = None
    limit: int = 100
    after: int | None = None
    oldest_first: bool = False
    key_prefix: str = ""
    created_after_ms: int | None = None
    created_before_ms: int | None = None


class Ended(Struct, frozen=True, gc=False):
    """An execution that has ended: its stream's number, when that was, and what its key row is found by."""

    stream: int
    namespace: str
    name: str
    key: str
    ended_ms: int


class Scan(Struct, frozen=True, gc=False):
    """What a look at some streams in order of their numbers found. `last` is where to go on, None at the end."""

    last: int | None
    found: list[Ended]


class KeyScan(Struct, frozen=True, gc=False):
    """What a look at some keys in their order found. `last` is where to go on, None at the end."""

    last: KeyId | None
    found: list[KeyId]


class Reader(Protocol):
    """What can be read. A reader sees committed rows only."""

    journal_id: str

    def stream(self, number: int) -> Stream | None: ...
    def stream_by_uid(self, uid: str) -> Stream | None: ...
    def stream_by_address(self, address: Address) -> Stream | None:
        """An actor by type and key. Executions are found by their key row or uid."""
        ...

    def key(self, key: KeyId) -> Key | None: ...
    def rows(self, stream: int, *, first: int = 1, limit: int | None = None) -> list[Row]:
        """The journal rows from the one that contains seq `first`, in order."""
        ...

    def row_at(self, stream: int, seq: int) -> Row | None:
        """The journal row whose first seq is `seq`."""
        ...

    def chunk(self, stream: int, digest: bytes) -> bytes | None:
        """The bytes that a stream keeps under a digest."""
        ...

    def due(
        self, now_ms: int, *, limit: int, names: Sequence[str] | None = None, versions: Sequence[str] = ()
    ) -> list[Stream]:
        """Unheld streams with `wake_ms` at or before `now_ms`, longest due first.

        `names` is the functions and actor types that the caller can run; None means all. Of a pinned
        stream its `version`, too, must be among `versions`.
        """
        ...

    def next_wake(
        self, *, names: Sequence[str] | None = None, versions: Sequence[str] = (), after_ms: int = -1
    ) -> int | None:
        """The earliest `wake_ms` after `after_ms` of any unheld stream, of code that the caller can run as in `due`."""
        ...

    def pinned(self) -> list[str]:
        """The functions that have pinned executions without an outcome, each once."""
        ...

    def held_by(self, worker: str) -> list[Stream]: ...
    def dead_workers(self, now_ms: int) -> list[str]:
        """Holders of streams that have no worker row whose lease still runs."""
        ...

    def list(self, which: Filter) -> list[Stream]: ...
    def scan_ended(self, after: int, *, until_ms: int, limit: int) -> Scan:
        """Of the `limit` streams after number `after`, the executions that ended at or before `until_ms`."""
        ...

    def scan_expired(self, after: KeyId | None, *, now_ms: int, limit: int) -> KeyScan:
        """Of the `limit` keys after `after`, those whose `expiry_ms` is `now_ms` or before."""
        ...

    def close(self) -> None:
        """Let go of what is open. A second call does nothing; any other call after it raises UnavailableError."""
        ...


class Store(Reader, Protocol):
    """A place for journals. Every method may raise StoreError, and nothing else of its own."""

    def begin(self, needs: Iterable[Needs]) -> Transaction:
        """Open a batch, with the rows that its calls will read fetched together."""
        ...

    def commit(self, transaction: Transaction) -> None:
        """Make the batch durable, whole or not at all. A batch without writes costs no commit.

        Raises StoreFullError or ConflictError (definite: nothing changed), or UnavailableError: unless
        that one is definite, the store refuses every call after it until it is opened again.
        """
        ...

    def spell(self, transaction: Transaction) -> Any:
        """The first half of `commit`: what is to be written, in the store's own form. Does no I/O.

        No other batch may begin before it is written.
        """
        ...

    def write(self, spelled: Any) -> None:
        """The second half, which may run in another thread. Raises as `commit` does."""
        ...

    def next_stream(self) -> int:
        """A number that no stream has. Numbers grow; one not used leaves a gap."""
        ...

    def reader(self) -> Reader:
        """Another connection, for reading in another thread than the writer's. Its user closes it."""
        ...


class Transaction:
    """The batch that every store shares: rows as changed so far, and what to write.

    `moved` are streams that only got entries (head, tail, time and base changed); one that is in
    `changed` or `created` too is as it is there. One in `deleted` is gone, whatever else the batch wrote to it.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.streams: dict[int, Stream] = {}
        self.created: dict[int, Stream] = {}
        self.changed: dict[int, Stream] = {}
        self.moved: dict[int, Stream] = {}
        self.deleted: dict[int, Stream] = {}
        self.keys: dict[KeyId, Key | None] = {}
        self.changed_keys: dict[KeyId, Key | None] = {}
        self.addresses: dict[Address, int | None] = {}
        self.rows: list[Row] = []
        self.chunks: dict[tuple[int, bytes], bytes] = {}
        self.stored_rows: dict[tuple[int, int], Row] = {}
        self.workers: dict[str, Worker | None] = {}
        self._undo: list[tuple[dict[Any, Any], Any, Any]] = []

    def attempt(self, call: Callable[[Transaction], T]) -> T:
        """Run one call. If it raises, everything it wrote is undone, and the batch goes on."""
        self._undo.clear()
        rows = len(self.rows)
        try:
            return call(self)
        except BaseException:
            del self.rows[rows:]
            for table, name, before in reversed(self._undo):
                if before is _ABSENT:
                    del table[name]
                else:
                    table[name] = before
            raise

    @property
    def has_writes(self) -> bool:
        return bool(
            self.rows
            or self.created
            or self.changed
            or self.changed_keys
            or self.workers
            or self.chunks
            or self.deleted
        )

    def stream(self, number: int) -> Stream | None:
        """The row of a stream as this batch has it."""
        found = self.streams.get(number)
        if found is None and number not in self.deleted:
            found = self.store.stream(number)
            if found is not None:
                self.streams[number] = found
        return found

    def stream_by_address(self, address: Address) -> Stream | None:
        """An actor's row by type and key, as this batch has it."""
        if address not in self.addresses:
            found = self.store.stream_by_address(address)
            self.addresses[address] = None if found is None else found.number
            if found is not None:
                self.streams.setdefault(found.number, found)
        number = self.addresses[address]
        return None if number is None else self.stream(number)

    def key(self, key: KeyId) -> Key | None:
        """The row of an idempotency key as this batch has it."""
        if key not in self.keys:
            self.keys[key] = self.store.key(key)
        return self.keys[key]

    def rows_of(self, stream: int, *, first: int = 1) -> list[Row]:
        """The journal rows from the one that contains seq `first`, in order, with those that this batch adds."""
        own = [row for row in self.rows if row.stream == stream]
        if stream in self.created:
            return own
        return self.store.rows(stream, first=first) + own

    def row_at(self, stream: int, seq: int) -> Row | None:
        """A journal row by its first seq, also one that this batch has not committed yet."""
        row = self.stored_rows.get((stream, seq))
        if row is None and (stream in self.moved or stream in self.changed or stream in self.created):
            row = next((row for row in reversed(self.rows) if row.stream == stream and row.seq == seq), None)
        return self.store.row_at(stream, seq) if row is None else row

    def chunk(self, stream: int, digest: bytes) -> bytes | None:
        """The bytes that a stream keeps under a digest, also those of this batch."""
        found = self.chunks.get((stream, digest))
        return self.store.chunk(stream, digest) if found is None else found

    def put_chunk(self, stream: int, digest: bytes, data: bytes) -> None:
        """Keep bytes under their digest. What the stream keeps under it already stays."""
        self._put(self.chunks, (stream, digest), data)

    def create(self, stream: Stream) -> None:
        """Add a stream under a number from `Store.next_stream`. Raises ConflictError if there is such an actor."""
        if stream.type == ACTOR and self.stream_by_address(stream.address) is not None:
            raise ConflictError(
                f"actor {stream.name!r} {stream.key!r} in namespace {stream.namespace!r}: found a stream of that "
                f"address, expected none; read again"
            )
        self._put(self.created, stream.number, stream)
        self._put(self.streams, stream.number, stream)
        if stream.type == ACTOR:
            self._put(self.addresses, stream.address, stream.number)

    def append(
        self,
        lease: Lease | None,
        stream: Stream,
        *,
        count: int,
        body: bytes,
        time_ms: int = 0,
        base: int = 0,
        **changes: Any,
    ) -> Stream:
        """Add a journal row of `time_ms` after `stream.head`, and the stream row after it, with `changes` to it.

        Raises LeaseLost if `lease` is not the stream's present epoch (J4): checked here and in
        `put`, nowhere else. An arrival has no lease and is never refused for one (J5). Raises
        ConflictError if `stream` is not the present row (J1), or there is none.
        """
        number = stream.number
        stored = self.streams.get(number) or self._stored(stream)
        check_epoch(stored, lease)
        if stream.head != stored.head:
            raise ConflictError(
                f"stream {stream.uid}: the append follows seq {stream.head}, expected {stored.head}; read again"
            )
        seq = stream.head + 1
        self.rows.append(Row(number, seq, count, body))
        after = msgspec.structs.replace(
            stream,
            head=stream.head + count,
            tail=seq,
            time_ms=time_ms or stream.time_ms,
            base=base or stream.base,
            **changes,
        )
        if changes or number in self.changed or number in self.created:
            self._store_row(after)
        else:
            self._put(self.moved, number, after)
            self._put(self.streams, number, after)
        return after

    def put(self, stream: Stream, *, lease: Lease | None = None) -> None:
        """Change a stream's row without an entry (claim, release). Raises LeaseLost as `append` does."""
        check_epoch(self._stored(stream), lease)
        self._store_row(stream)

    def delete(self, stream: Stream) -> None:
        """Remove an execution's row, journal rows and chunks. Raises ConflictError if it is gone already."""
        number = stream.number
        if stream.type == ACTOR:
            raise AssertionError(f"stream {stream.uid}: it is an actor, expected an execution")
        stored = self._stored(stream)
        self._undo.append((self.streams, number, self.streams.pop(number)))
        self._put(self.deleted, number, stored)

    def _stored(self, stream: Stream) -> Stream:
        stored = self.stream(stream.number)
        if stored is None:
            raise ConflictError(f"stream {stream.uid}: found no stream {stream.number}, expected one; create it first")
        return stored

    def _store_row(self, stream: Stream) -> None:
        number = stream.number
        self._put(self.created if number in self.created else self.changed, number, stream)
        self._put(self.streams, stream.number, stream)

    def put_key(self, key: Key) -> None:
        """Add or replace the row of an idempotency key."""
        self._put(self.keys, key.id, key)
        self._put(self.changed_keys, key.id, key)

    def forget_key(self, key: KeyId) -> None:
        """Delete the row of an idempotency key."""
        self._put(self.keys, key, None)
        self._put(self.changed_keys, key, None)

    def put_worker(self, worker: Worker) -> None:
        """Register a worker, or renew its lease."""
        self._put(self.workers, worker.id, worker)

    def forget_worker(self, worker: str) -> None:
        """Remove a worker; what it holds is then held by nobody alive."""
        self._put(self.workers, worker, None)

    def _put(self, rows: dict[Any, Any], name: Any, row: Any) -> None:
        self._undo.append((rows, name, rows.get(name, _ABSENT)))
        rows[name] = row


def check_epoch(stored: Stream, lease: Lease | None) -> None:
    """Raise LeaseLost if `lease` was superseded (J4). An arrival has none."""
    if lease is not None and (stored.epoch != lease.epoch or stored.holder != lease.worker):
        raise LeaseLost(
            f"stream {stored.uid}: epoch {lease.epoch} of worker {lease.worker!r} was superseded by "
            f"epoch {stored.epoch} of {stored.holder!r}; this run ends, the new holder goes on"
        )
