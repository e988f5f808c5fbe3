"""Journals in a SQLite file, through apsw: WAL, `synchronous=FULL`, one writer, a batch per commit.

The writer is alone on its file (`runtime/owner.py` sees to that), so it reads before its write
transaction what it checks against, and counts stream numbers in memory. A store is used by one
thread at a time; `reader` gives another thread a connection of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NoReturn, TypeVar

import apsw
import msgspec

from semel.errors import ConflictError, StoreError, StoreFullError, UnavailableError
from semel.store import sqlite_statements as sql
from semel.store.base import ACTOR, Address, Ended, Filter, Key, KeyId, KeyScan, Needs, Row, Scan, Stream, Transaction
from semel.store.sqlite_file import open_reader, open_writer, refusal, schema_version, unreadable

T = TypeVar("T")

Streams = list[Stream]
Rows = list[Row]
Names = list[str]
_KEY_COLUMNS: Final = 9
_ROW_COLUMNS: Final = 3

_json: Final = msgspec.json.Encoder().encode
_rows_of_json: Final = msgspec.json.Decoder(list[list[Any]]).decode


class SqliteReader:
    """What can be read of a SQLite journal, through one connection."""

    def __init__(self, database: apsw.Connection, path: str) -> None:
        self.path = path
        self._database = database
        self._process = os.getpid()
        self._closed = False
        self._failure = ""
        self.journal_id: str = self._read(sql.JOURNAL_ID, ())[0][0]
        self._key_statement = sql.KEY if schema_version(database) > 1 else sql.KEY_OF_VERSION_1

    def stream(self, number: int) -> Stream | None:
        return _only(self._read(sql.STREAM, (number,)), _stream)

    def stream_by_uid(self, uid: str) -> Stream | None:
        return _only(self._read(sql.STREAM_BY_UID, (uid,)), _stream)

    def stream_by_address(self, address: Address) -> Stream | None:
        return _only(self._read(sql.STREAM_BY_ADDRESS, (address.namespace, address.name, address.key)), _stream)

    def key(self, key: KeyId) -> Key | None:
        return _only(self._read(self._key_statement, (key.namespace, key.operation, key.key)), _key)

    def rows(self, stream: int, *, first: int = 1, limit: int | None = None) -> Rows:
        bindings = {"stream": stream, "first": first, "limit": -1 if limit is None else limit}
        return [Row(*row) for row in self._read(sql.ROWS, bindings)]

    def row_at(self, stream: int, seq: int) -> Row | None:
        return _only(self._read(sql.ROW_AT, (stream, seq)), _row)

    def chunk(self, stream: int, digest: bytes) -> bytes | None:
        return _only(self._read(sql.CHUNK, (stream, digest)), _bytes)

    def due(
        self, now_ms: int, *, limit: int, names: Sequence[str] | None = None, versions: Sequence[str] = ()
    ) -> Streams:
        bindings = {"now": now_ms, "names": _names(names), "versions": _names(versions), "limit": limit}
        return [Stream(*row) for row in self._read(sql.DUE, bindings)]

    def next_wake(
        self, *, names: Sequence[str] | None = None, versions: Sequence[str] = (), after_ms: int = -1
    ) -> int | None:
        bindings = {"names": _names(names), "versions": _names(versions), "after": after_ms}
        found = self._read(sql.NEXT_WAKE, bindings)
        return _integer(found[0]) if found else None

    def pinned(self) -> Names:
        return [name for (name,) in self._read(sql.PINNED_NAMES, ())]

    def held_by(self, worker: str) -> Streams:
        return [Stream(*row) for row in self._read(sql.HELD_BY, (worker,))]

    def dead_workers(self, now_ms: int) -> Names:
        return [holder for (holder,) in self._read(sql.DEAD_WORKERS, (now_ms,))]

    def list(self, which: Filter) -> Streams:
        statement = sql.LIST_OLDEST_FIRST if which.oldest_first else sql.LIST
        bindings = msgspec.structs.asdict(which) | {"statuses": _names(which.statuses)}
        return [Stream(*row) for row in self._read(statement, bindings)]

    def scan_ended(self, after: int, *, until_ms: int, limit: int) -> Scan:
        bindings = {"after": after, "until": until_ms, "limit": limit}
        ((last, count, found),) = self._read(sql.SCAN_ENDED, bindings)
        return Scan(last if count == limit else None, [Ended(*row) for row in _rows_of_json(found)])

    def scan_expired(self, after: KeyId | None, *, now_ms: int, limit: int) -> KeyScan:
        first = KeyId("", "", "") if after is None else after
        bindings = {"now": now_ms, "limit": limit, **msgspec.structs.asdict(first)}
        page = self._found(sql.SCAN_EXPIRED, bindings)
        last = KeyId(*page[-1][:3]) if len(page) == limit else None
        return KeyScan(last, [KeyId(*row[:3]) for row in page if row[3]])

    def close(self) -> None:
        # In a forked child the file is its parent's: closing it here could take the parent's locks or log.
        self._closed = True
        if os.getpid() == self._process:
            self._database.close(force=True)

    def _read(self, statement: str, bindings: Any) -> Any:
        self._check_usable()
        try:
            return self._database.execute(statement, bindings).fetchall()
        except apsw.Error as error:
            raise unreadable(self.path, error) from error

    def _found(self, statement: str, bindings: Any) -> Any:
        return _rows_of_json(self._read(statement, bindings)[0][0])

    def _check_usable(self) -> None:
        process = os.getpid()
        if process != self._process:
            raise refusal(
                f"{self.path!r}: it was opened in process {self._process}, this is process {process}; "
                f"a SQLite file cannot be carried over a fork; open the store after it"
            )
        if self._closed:
            raise refusal(f"{self.path!r}: the store is closed, expected an open one; open it again")
        if self._failure:
            raise refusal(self._failure)


Spelled = list[sql.Statement]


class SqliteStore(SqliteReader):
    """Journals in one SQLite file. Use `SqliteStore.open`."""

    def __init__(self, database: apsw.Connection, path: str, *, vfs: str | None) -> None:
        super().__init__(database, path)
        self._vfs = vfs
        # The rows of held streams as last committed. Exact, because there is one writer; it spares
        # reading each row again before each of its appends.
        self._held: dict[int, Stream] = {}
        self._held_actors: dict[Address, int] = {}
        self._last_number: int = self._read(sql.LAST_NUMBER, ())[0][0]

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, vfs: str | None = None) -> SqliteStore:
        """Open the file, or make it. `vfs` names a SQLite virtual file system.

        Raises UnavailableError or JournalCorruptError, with nothing written, for anything else than a
        journal of this version or older on a local disk.
        """
        name = os.fspath(path)
        database = open_writer(name, vfs=vfs)
        try:
            return cls(database, name, vfs=vfs)
        except BaseException:
            database.close(force=True)
            raise

    def reader(self) -> SqliteReader:
        """Another connection, read-only, for another thread."""
        self._check_usable()
        return SqliteReader(open_reader(self.path, vfs=self._vfs), self.path)

    def next_stream(self) -> int:
        """A number that no stream has, counted in memory: there is one writer."""
        self._check_usable()
        self._last_number += 1
        return self._last_number

    def begin(self, needs: Iterable[Needs]) -> Transaction:
        """Open a batch. Keys come with their streams and the rows of their outcomes."""
        self._check_usable()
        transaction = Transaction(self)
        streams: set[int] = set()
        for need in needs:
            streams.update(need.streams)
            if need.keys:
                transaction.keys.update(dict.fromkeys(need.keys))
            if need.addresses:
                transaction.addresses.update(dict.fromkeys(need.addresses))
        if transaction.keys:
            self._fetch_keys(transaction)
        if transaction.addresses:
            self._recall_addresses(transaction)
        streams.difference_update(transaction.streams)
        for number in streams & self._held.keys():
            transaction.streams[number] = self._held[number]
            streams.discard(number)
        if streams:
            for row in self._found(sql.STREAMS, (_json(list(streams)).decode(),)):
                transaction.streams[row[0]] = Stream(*row)
        return transaction

    def commit(self, transaction: Transaction) -> None:
        """Make the batch durable with one write transaction."""
        if transaction.has_writes:
            self.write(self.spell(transaction))

    def spell(self, transaction: Transaction) -> Spelled:
        """The batch as statements. No other batch may begin before these are written."""
        self._check_usable()
        statements = list(_writes(transaction))
        for rows in (transaction.moved, transaction.changed, transaction.created):
            for number, stream in rows.items():
                if stream.holder is None:
                    self._held.pop(number, None)
                else:
                    self._held[number] = stream
                if stream.type == ACTOR and rows is not transaction.moved:
                    self._remember_actor(stream)
        for number in transaction.deleted:
            self._held.pop(number, None)
        return statements

    def write(self, spelled: Spelled) -> None:
        """Execute what `spell` gave, as one transaction. Touches nothing but the database."""
        self._check_usable()
        execute = self._database.execute
        is_begun = False
        try:
            if len(spelled) > 1:
                execute("begin immediate")
                is_begun = True
            for statement, bindings in spelled:
                execute(statement, bindings)
            if is_begun:
                execute("commit")
        except apsw.BusyError as error:
            self._forget_held()
            self._roll_back()
            raise refusal(
                f"{self.path!r}: a write could not begin ({type(error).__name__}: {error}), expected to be the only "
                f"writer; end the other one"
            ) from error
        except apsw.Error as error:
            self._forget_held()
            self._give_up(error)
        except BaseException:
            self._forget_held()
            self._roll_back()
            raise

    def _remember_actor(self, stream: Stream) -> None:
        if stream.holder is None:
            self._held_actors.pop(stream.address, None)
        else:
            self._held_actors[stream.address] = stream.number

    def _forget_held(self) -> None:
        """What was remembered may not be what is stored."""
        self._held.clear()
        self._held_actors.clear()

    def _give_up(self, error: apsw.Error) -> NoReturn:
        """Undo a write that failed, and raise what that means. Nothing is tried again in place."""
        undone = self._roll_back()
        raised: StoreError
        if undone and isinstance(error, apsw.FullError):
            raised = StoreFullError(f"{self.path!r}: no space is left ({error}); nothing was written; free some space")
        elif undone and isinstance(error, apsw.ConstraintError):
            raised = ConflictError(
                f"{self.path!r}: another row is in the way ({error}); nothing was written; read again"
            )
        elif undone and isinstance(error, apsw.TooBigError):
            raised = refusal(f"{self.path!r}: a row is too large ({error}); nothing was written; send less")
        else:
            self._failure = (
                f"{self.path!r}: a commit failed ({type(error).__name__}: {error}); it may be on disk or not, "
                f"and nothing is written or read after it; see to the disk, then open the store again"
            )
            raised = UnavailableError(self._failure)
        raise raised from error

    def _roll_back(self) -> bool:
        # After some errors SQLite has rolled back by itself.
        try:
            if self._database.in_transaction:
                self._database.execute("rollback")
        except apsw.Error:
            return False
        return True

    def _fetch_keys(self, transaction: Transaction) -> None:
        streams = transaction.streams
        wanted: list[Any] = []
        for key in transaction.keys:
            wanted += (key.namespace, key.operation, key.key)
        after_row = _KEY_COLUMNS + _ROW_COLUMNS
        for statement, bindings in sql.FIND_KEYS.statements(wanted):
            for found in self._found(statement, bindings):
                found[5] = bytes.fromhex(found[5])
                found[8] = bytes.fromhex(found[8]) if found[8] else None
                stored = _key(found)
                transaction.keys[stored.id] = stored
                number = found[after_row]
                if number is None:
                    continue
                if number not in streams:
                    streams[number] = Stream(*found[after_row:])
                seq, count, body = found[_KEY_COLUMNS:after_row]
                if body is not None:
                    transaction.stored_rows[number, seq] = Row(number, seq, count, bytes.fromhex(body))

    def _recall_addresses(self, transaction: Transaction) -> None:
        """Find actors by type and key: those that are held are known."""
        unknown = []
        for address in transaction.addresses:
            number = self._held_actors.get(address)
            if number is None:
                unknown.append(address)
            else:
                transaction.addresses[address] = number
                transaction.streams[number] = self._held[number]
        if unknown:
            self._fetch_addresses(transaction, unknown)

    def _fetch_addresses(self, transaction: Transaction, unknown: Sequence[Address]) -> None:
        wanted: list[Any] = []
        for address in unknown:
            wanted += (address.namespace, address.name, address.key)
        for statement, bindings in sql.FIND_ADDRESSES.statements(wanted):
            for row in self._found(statement, bindings):
                stream = Stream(*row)
                transaction.streams[stream.number] = stream
                transaction.addresses[stream.address] = stream.number


def _row(row: Any) -> Row:
    return Row(*row)


def _bytes(row: Any) -> bytes:
    return bytes(row[0])


def _integer(row: Any) -> int | None:
    return None if row[0] is None else int(row[0])


def _stream(row: Any) -> Stream:
    return Stream(*row)


def _key(row: Any) -> Key:
    return Key(KeyId(row[0], row[1], row[2]), row[3], row[4], row[5], row[6], row[7], row[8])


def _names(names: Sequence[str] | None) -> str | None:
    return None if names is None else _json(names).decode()


def _only(rows: Sequence[Any], make: Callable[[Any], T]) -> T | None:
    return make(rows[0]) if rows else None


def _writes(transaction: Transaction) -> Iterator[sql.Statement]:
    """The statements that write a batch: one, unless it is large or has other things than rows of streams and keys."""
    for (number, digest), chunk in transaction.chunks.items():
        yield sql.PUT_CHUNK, (number, digest, chunk)
    moved = transaction.moved
    values: list[Any] = []
    last = {row.stream: row.seq for row in transaction.rows} if moved else {}
    for row in transaction.rows:
        number, seq = row.stream, row.seq
        stream = moved.get(number)
        if stream is not None and last[number] == seq and number not in transaction.changed:
            values += (sql.MOVE, number, seq, row.count, row.body, stream.head, stream.time_ms, stream.base, *_PAD_MOVE)
        else:
            values += (sql.APPEND, number, seq, row.count, row.body, *_PAD_APPEND)
    for s in transaction.created.values():
        values.append(sql.CREATE)
        values += msgspec.structs.astuple(s)
    for s in transaction.changed.values():
        values += (sql.CHANGE, s.number, s.epoch, s.holder, s.head, s.tail, s.signal, s.base, s.turn, s.time_ms)
        values += (s.wake_ms, s.status, s.invocation, s.version, s.ended_ms, *_PAD_CHANGE)
    forgotten: list[Any] = []
    for id, key in transaction.changed_keys.items():
        if key is None:
            forgotten += (id.namespace, id.operation, id.key)
        else:
            values += (sql.PUT_KEY, id.namespace, id.operation, id.key, key.stream, key.operation, key.fingerprint)
            values += (key.settled_seq, key.expiry_ms, key.outcome, *_PAD_KEY)
    if values:
        yield from sql.WRITE.statements(values)
    if transaction.deleted:
        numbers = list(transaction.deleted)
        yield from sql.DELETE_RECORDS.statements(numbers)
        yield from sql.DELETE_CHUNKS.statements(numbers)
        yield from sql.DELETE_STREAMS.statements(numbers)
    if forgotten:
        yield from sql.FORGET_KEYS.statements(forgotten)
    for name, worker in transaction.workers.items():
        if worker is None:
            yield sql.FORGET_WORKER, (name,)
        else:
            yield sql.PUT_WORKER, (worker.id, worker.lease_until_ms)


def _pad(width: int) -> tuple[None, ...]:
    return (None,) * (sql.WRITE_WIDTH - width)


_PAD_APPEND = _pad(4)
_PAD_MOVE = _pad(7)
_PAD_CHANGE = _pad(14)
_PAD_KEY = _pad(9)
