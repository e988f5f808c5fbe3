"""Who may write to a stream as its holder: workers, claims, and reading what is held."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from semel.journal.deadline import deadline_of
from semel.kernel.entry import Record
from semel.store import codec
from semel.store.base import PAUSED, RUNNING, Lease, Reader, Stream, Transaction, Worker

ROWS_AT_A_TIME = 256  # in memory as bytes, beside what was made of those before


def lease_of(stream: Stream) -> Lease:
    """The lease of a stream that is held."""
    if stream.holder is None:
        raise AssertionError(f"stream {stream.uid} has no holder, expected one: claim it first")
    return Lease(stream.number, stream.epoch, stream.holder)


def claim(
    transaction: Transaction,
    worker: str,
    *,
    now_ms: int,
    limit: int,
    names: Collection[str],
    versions: Collection[str] = (),
) -> list[Stream]:
    """Take up to `limit` streams that are due and whose code is among `names`, and if pinned, among `versions`.

    Each gets a new epoch, so that its former holder may write no more.
    """
    claimed = []
    for candidate in transaction.store.due(now_ms, limit=limit, names=tuple(names), versions=tuple(versions)):
        stream = transaction.stream(candidate.number)
        if stream is None or not is_due(stream, now_ms):
            continue
        claimed.append(take(transaction, stream, worker))
    return claimed


def claim_one(transaction: Transaction, number: int, worker: str) -> Stream | None:
    """Take one stream that nobody holds, due or not. None if it is held, or needs no holder."""
    stream = transaction.stream(number)
    if stream is None or stream.status != RUNNING or stream.holder is not None:
        return None
    return take(transaction, stream, worker)


def take(transaction: Transaction, stream: Stream, worker: str) -> Stream:
    """Make the worker the stream's holder, whoever held it before. No promise to that one is broken: J4."""
    held = msgspec.structs.replace(
        stream, epoch=stream.epoch + 1, holder=worker, wake_ms=None, invocation=stream.invocation + 1, turn=""
    )
    transaction.put(held)
    return held


def is_due(stream: Stream, now_ms: int) -> bool:
    """Whether a stream asks for a holder now. A paused one does when its time is over."""
    is_in_service = stream.status in (RUNNING, PAUSED)
    return is_in_service and stream.holder is None and stream.wake_ms is not None and stream.wake_ms <= now_ms


def register_worker(transaction: Transaction, worker: str, *, now_ms: int, lease_ms: int) -> None:
    """Add a worker, or renew its lease until `now_ms + lease_ms`."""
    transaction.put_worker(Worker(worker, now_ms + lease_ms))


FOREVER_MS = 2**62


def void_leases_of_the_dead(
    transaction: Transaction, *, judged_at_ms: int, now_ms: int, alive: Collection[str] = ()
) -> int:
    """Make due every stream whose holder is dead: its lease ran out before `judged_at_ms`, or it has none.

    On SQLite the owner lock proves all former holders dead, so a new owner judges at FOREVER_MS
    (R5). Returns how many streams were freed. The epoch moves with the next claim.
    """
    freed = 0
    for worker in transaction.store.dead_workers(judged_at_ms):
        if worker in alive:
            continue
        for held in transaction.store.held_by(worker):
            stream = transaction.stream(held.number)
            if stream is not None and stream.holder == worker:
                free(transaction, stream, now_ms=now_ms)
                freed += 1
        transaction.forget_worker(worker)
    return freed


def free(transaction: Transaction, stream: Stream, *, now_ms: int) -> None:
    """Take a stream from its holder and make it due, or one that is paused when its time is over."""
    wake_ms = deadline_of(transaction, stream).due_ms if stream.status == PAUSED else now_ms
    transaction.put(msgspec.structs.replace(stream, holder=None, wake_ms=wake_ms))


def read(reader: Reader, stream: Stream) -> list[Record]:
    """The records that recovery needs, in order. Raises JournalCorruptError if one is missing or damaged."""
    records: list[Record] = []
    first = stream.base
    while rows := reader.rows(stream.number, first=first, limit=ROWS_AT_A_TIME):
        for row in rows:
            append = codec.decode(row.body, stream=row.stream, seq=row.seq)
            records.extend(codec.records(append, seq=row.seq))
        first = rows[-1].seq + rows[-1].count
    return records
