"""Whether the code at hand may go on with what a store holds: every open execution, rehearsed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from semel.errors import JournalCorruptError, UnknownHandlerError, ValidationError
from semel.function import REGISTRY
from semel.journal import holding
from semel.runtime.rehearsal import SAFE, Finding, Verdict, rehearse
from semel.runtime.services import Limits
from semel.store.base import FUNCTION, PARKED, PAUSED, PAUSING, RUNNING, Filter, Reader, Stream
from semel.store.sqlite import SqliteReader
from semel.store.sqlite_file import open_reader

PAGE: Final = 500
OPEN: Final = (RUNNING, PAUSING, PAUSED, PARKED)
SQLITE: Final = "sqlite:///"


class Checked(Struct, frozen=True):
    """One open execution, and what the code at hand would make of it. The other fields are those of a `Finding`."""

    id: str
    function: str
    name: str
    version: str
    verdict: Verdict
    reason: str = ""
    operation: str = ""
    number: int = 0
    source: str = ""
    recorded: str = ""
    requested: str = ""


def check(
    store: str | Reader, *, namespace: str = "default", limits: Limits | None = None, seconds_max: float = 10
) -> list[Checked]:
    """Rehearse every open execution of a store on the functions that this process has registered.

    Reads only, and beside a running engine too. No step, timer or append happens; the code between
    the operations runs as it does in any replay. "safe": it takes every recorded operation and
    outcome as recorded. "diverges": a worker with this code would park it. "unknown": the function
    is not registered, its arguments cannot be read, or the code raises, blocks, or was given an
    outcome of other arguments. "pinned": it waits for another version than that at hand. Raises
    ValidationError, NotFoundError or StoreError for the store.
    """
    if not isinstance(store, str):
        return list(_checked(store, namespace, limits, seconds_max))
    path = store.removeprefix(SQLITE)
    if path == store or not path:
        raise ValidationError(
            f"store {store!r}: expected a SQLite file, as 'sqlite:///relative.db' or 'sqlite:////absolute/path.db'"
        )
    reader = SqliteReader(open_reader(path), path)
    try:
        return list(_checked(reader, namespace, limits, seconds_max))
    finally:
        reader.close()


def _checked(reader: Reader, namespace: str, limits: Limits | None, seconds_max: float) -> Iterator[Checked]:
    for stream in _open_executions(reader, namespace):
        found = _look_at(reader, stream, limits, seconds_max)
        yield Checked(
            stream.uid,
            stream.name,
            stream.key,
            stream.code_version,
            found.verdict,
            found.reason,
            found.operation,
            found.number,
            found.source,
            found.recorded,
            found.requested,
        )


def _open_executions(reader: Reader, namespace: str) -> Iterator[Stream]:
    before: int | None = None
    while page := reader.list(Filter(FUNCTION, namespace, None, OPEN, before, PAGE)):
        yield from page
        before = page[-1].number


def _look_at(reader: Reader, stream: Stream, limits: Limits | None, seconds_max: float) -> Finding:
    try:
        spec = REGISTRY.function(stream.name)
    except UnknownHandlerError as error:
        return Finding(Verdict.UNKNOWN, str(error))
    if stream.is_pinned and stream.version != spec.pinned_version:
        return Finding(
            Verdict.PINNED, f"it waits for version {stream.code_version}; this code, {spec.version}, runs others"
        )
    try:
        records = holding.read(reader, stream)
    except JournalCorruptError as error:
        return Finding(Verdict.UNKNOWN, str(error))
    if not records:
        return SAFE  # it was deleted meanwhile
    return rehearse(spec, stream, records, reader=reader, limits=limits, seconds_max=seconds_max)
