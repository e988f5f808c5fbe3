"""What can happen to an engine between two of its writes, and the store that lets it happen.

Writes are counted per life of the process: the commits that the engine's own handle makes.
Between two of them nothing an engine did is on disk, so that these are all the moments there
are to die, and the moments at which others may write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from semel.errors import UnavailableError
from semel.store.base import Address, Filter, Key, KeyId, KeyScan, Needs, Reader, Row, Scan, Store, Stream, Transaction

Streams = list[Stream]
Rows = list[Row]
Names = list[str]

Moment = Literal["before", "after"]
ArrivalKind = Literal[
    "message",
    "outside message",
    "duplicate",
    "stop",
    "outside stop",
    "pause",
    "outside pause",
    "delete",
    "outside delete",
    "answer",
    "outside answer",
]
TakeoverKind = Literal["theft", "second engine"]


class Crash(Struct, frozen=True):
    """The process dies `before` write number `write` (nothing is stored) or `after` it (nobody is told).

    The next one has the owner's lock, which voids the leases of the dead, or it waits until they `expire`.
    """

    write: int
    moment: Moment
    leases: Literal["void", "expire"] = "void"


class Close(Struct, frozen=True):
    """The engine is closed in good order after a write, and opened again."""

    write: int
    moment: Moment = "after"


class Arrival(Struct, frozen=True):
    """Someone else writes, after a write or just before the batch of the write is looked at.

    A stop, pause or delete is of every execution that it can be of; a pause is followed by a resume, after a while.
    """

    write: int
    moment: Moment
    kind: ArrivalKind


class Takeover(Struct, frozen=True):
    """Another worker takes every held stream, while the holder goes on and writes.

    "theft": a worker that then does nothing, and whose lease has run out. "second engine": one that runs them.
    """

    write: int
    moment: Moment
    kind: TakeoverKind


class Jump(Struct, frozen=True):
    """The wall clock is set forward or back after a write."""

    write: int
    by_ms: int
    moment: Moment = "after"


Fault = Crash | Close | Arrival | Takeover | Jump
Plan = tuple[tuple[Fault, ...], ...]
"""What happens in each life of the process, the first life first."""


class Crashed(SystemExit):
    """The process is dead. A SystemExit, because an event loop stops for nothing else."""


class Witness(Protocol):
    """Who is told of each commit."""

    def committed(self, transaction: Transaction, writer: FaultStore) -> None: ...


class FaultStore:
    """A store handle of one process: counts its writes, and asks at each one what is to happen.

    `on_fault` is called with each fault when its moment comes. After `die`, the handle raises
    UnavailableError at every write.
    """

    def __init__(
        self, inner: Store, witness: Witness, *, faults: Iterable[Fault] = (), on_fault: Callable[[Fault], None]
    ) -> None:
        self.inner = inner
        self.journal_id = inner.journal_id
        self.workers: set[str] = set()
        self.writes = 0
        self.refused = 0
        self.is_dead = False
        self._witness = witness
        self._faults = list(faults)
        self._on_fault = on_fault

    def die(self) -> None:
        """Let nothing more through."""
        self.is_dead = True

    def _happen(self, write: int, moment: Moment, *kinds: type[Fault]) -> None:
        for fault in [fault for fault in self._faults if fault.write == write and fault.moment == moment]:
            if isinstance(fault, kinds):
                self._faults.remove(fault)
                self._on_fault(fault)

    def begin(self, needs: Iterable[Needs]) -> Transaction:
        if self.is_dead:
            raise UnavailableError("the process that had this handle is dead, expected a living one")
        if self._faults:
            self._happen(self.writes + 1, "before", Arrival, Takeover)
        transaction = self.inner.begin(needs)
        attempt = transaction.attempt

        def counted(call: Callable[[Transaction], object]) -> object:
            try:
                return attempt(call)
            except BaseException:
                self.refused += 1
                raise

        transaction.attempt = counted  # type: ignore[method-assign,assignment]
        return transaction

    def spell(self, transaction: Transaction) -> Transaction:
        return transaction

    def write(self, spelled: Transaction) -> None:
        self.commit(spelled)

    def commit(self, transaction: Transaction) -> None:
        self.writes += 1
        self._happen(self.writes, "before", Crash)
        self.inner.commit(transaction)
        self.workers.update(name for name, worker in transaction.workers.items() if worker is not None)
        self._witness.committed(transaction, self)
        self._happen(self.writes, "after", Arrival, Takeover, Jump, Close)
        self._happen(self.writes, "after", Crash)

    def next_stream(self) -> int:
        return self.inner.next_stream()

    def reader(self) -> Reader:
        return self.inner.reader()

    def stream(self, number: int) -> Stream | None:
        return self.inner.stream(number)

    def stream_by_uid(self, uid: str) -> Stream | None:
        return self.inner.stream_by_uid(uid)

    def stream_by_address(self, address: Address) -> Stream | None:
        return self.inner.stream_by_address(address)

    def key(self, key: KeyId) -> Key | None:
        return self.inner.key(key)

    def rows(self, stream: int, *, first: int = 1, limit: int | None = None) -> Rows:
        return self.inner.rows(stream, first=first, limit=limit)

    def row_at(self, stream: int, seq: int) -> Row | None:
        return self.inner.row_at(stream, seq)

    def chunk(self, stream: int, digest: bytes) -> bytes | None:
        return self.inner.chunk(stream, digest)

    def due(
        self, now_ms: int, *, limit: int, names: Sequence[str] | None = None, versions: Sequence[str] = ()
    ) -> Streams:
        return self.inner.due(now_ms, limit=limit, names=names, versions=versions)

    def next_wake(
        self, *, names: Sequence[str] | None = None, versions: Sequence[str] = (), after_ms: int = -1
    ) -> int | None:
        return self.inner.next_wake(names=names, versions=versions, after_ms=after_ms)

    def pinned(self) -> Names:
        return self.inner.pinned()

    def held_by(self, worker: str) -> Streams:
        return self.inner.held_by(worker)

    def dead_workers(self, now_ms: int) -> Names:
        return self.inner.dead_workers(now_ms)

    def list(self, which: Filter) -> Streams:
        return self.inner.list(which)

    def scan_ended(self, after: int, *, until_ms: int, limit: int) -> Scan:
        return self.inner.scan_ended(after, until_ms=until_ms, limit=limit)

    def scan_expired(self, after: KeyId | None, *, now_ms: int, limit: int) -> KeyScan:
        return self.inner.scan_expired(after, now_ms=now_ms, limit=limit)

    def close(self) -> None:
        self.inner.close()
