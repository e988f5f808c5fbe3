"""Whether every suspended stream will be woken in time (J11), read from the file itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct, field

from semel.errors import JournalCorruptError
from semel.journal.holding import read
from semel.kernel.entry import SETTLED, Kind, Record
from semel.kernel.operation import Operation, fold, is_frozen, next_wake
from semel.store.base import ACTOR, FUNCTION, PARKED, PAUSED, RUNNING, Filter, Reader, Stream

PAGE: Final = 500
TRIES_MAX: Final = 5
_SETTLED_BY_ARRIVAL: Final = (Kind.CALLBACK, Kind.CHAINED_INVOKE)


class Scan(Struct):
    """What a pass over the streams found. `sleepers` breaks J11, `damaged` cannot be read, by stream and reason."""

    streams: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    handlers: Counter[tuple[str, str]] = field(default_factory=Counter)
    parked: list[str] = field(default_factory=list)
    pinned: list[Stream] = field(default_factory=list)
    unheld: Counter[str] = field(default_factory=Counter)
    sleepers: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    held: int = 0
    newest_ms: int = 0


def scan(reader: Reader) -> Scan:
    """Look at every stream. Beside a running engine, one that changes meanwhile is looked at again."""
    found = Scan()
    for stream in every_stream(reader):
        found.streams += 1
        found.counts[stream.type, stream.status] += 1
        found.newest_ms = max(found.newest_ms, stream.time_ms)
        if stream.status == PARKED:
            found.parked.append(stream.uid)
        if stream.is_pinned and stream.ended_ms is None:
            found.pinned.append(stream)
        if stream.status in (RUNNING, PAUSED):
            found.handlers[stream.type, stream.name] += 1
        if stream.status != RUNNING:
            continue
        if stream.holder is not None:
            found.held += 1
            continue
        if stream.type == FUNCTION and not stream.is_pinned:
            found.unheld[stream.name] += 1
        try:
            problem = _steady_problem(reader, stream)
        except JournalCorruptError as error:
            found.damaged.append((stream.uid, str(error)))
        else:
            if problem:
                found.sleepers.append((stream.uid, problem))
    return found


def every_stream(reader: Reader) -> Iterator[Stream]:
    """All streams, newest first."""
    before: int | None = None
    while True:
        page = reader.list(Filter(before=before, limit=PAGE))
        yield from page
        if len(page) < PAGE:
            return
        before = page[-1].number


def _steady_problem(reader: Reader, stream: Stream) -> str:
    """The problem of a stream whose row and records were read without a change between them."""
    now: Stream | None = stream
    for _ in range(TRIES_MAX):
        if now is None or now.status != RUNNING or now.holder is not None:
            return ""
        stream = now
        problem = sleeping_problem(stream, read(reader, stream))
        if not problem:
            return ""
        now = reader.stream(stream.number)
        if now == stream:
            return problem
    return ""  # it changes all the time: it is awake


def sleeping_problem(stream: Stream, records: list[Record]) -> str:
    """Why a stream that nobody holds may sleep too long (J11); empty if it will not."""
    operations: dict[str, Operation] = {}
    fold(operations, [(record.entry, record.time_ms + record.entry.offset_ms) for record in records])
    due_ms = next_wake(operations)
    if stream.wake_ms is not None:
        if due_ms is not None and stream.wake_ms > due_ms:
            return f"it wakes at {stream.wake_ms}, expected at {due_ms}, when an operation comes due"
        return ""
    if due_ms is not None:
        return f"it has no time to wake, expected {due_ms}, when an operation comes due"
    if _waits_for_arrival(operations):
        return ""
    if stream.type == ACTOR:
        waiting = sum(1 for operation in operations.values() if _is_open(operation, Kind.MESSAGE))
        return f"it has {waiting} open messages and no time to wake, expected one" if waiting else ""
    return "it has no time to wake and waits for nothing from outside, expected either"


def _waits_for_arrival(operations: Mapping[str, Operation]) -> bool:
    return any(
        _is_open(operation, *_SETTLED_BY_ARRIVAL) and not is_frozen(operations, operation)
        for operation in operations.values()
    )


def _is_open(operation: Operation, *kinds: Kind) -> bool:
    return operation.kind in kinds and operation.status not in SETTLED
