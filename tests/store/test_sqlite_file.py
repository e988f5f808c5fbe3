"""Which files a SqliteStore opens, how it sets them up, and what it says to the others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import msgspec
import pytest

from semel.errors import JournalCorruptError, StoreError, UnavailableError
from semel.store import sqlite_file
from semel.store import sqlite_statements as sql
from semel.store.base import ACTOR, Filter, Key, KeyId, Needs, Stream, Transaction
from semel.store.sqlite import SqliteReader, SqliteStore
from semel.store.sqlite_file import (
    APPLICATION_ID,
    NETWORK_FILE_SYSTEMS,
    _schema,
    file_system,
    file_system_verdict,
    open_reader,
    sqlite_verdict,
)
from tests.store.backends import a_key, created, key_id, new_actor, write

NEWEST = len(_schema())
NEVER_CHANGES = {"number", "uid", "namespace", "type", "name", "key", "origin", "created_ms"}


def pragma(store: SqliteStore, name: str) -> object:
    return store._database.execute(f"pragma {name}").fetchall()[0][0]


def refused(path: Path, kind: type[StoreError], *said: str) -> None:
    """Opening raises with these words, and leaves each file byte for byte as it was.

    To look into a database with a log SQLite makes the log's index, and an empty log; no more than that.
    """

    def folder() -> dict[str, bytes]:
        files = {
            file.name: file.read_bytes()
            for file in path.parent.glob("*")
            if file.is_file() and file.suffix != ".db-shm"
        }
        return {name: data for name, data in files.items() if data or not name.endswith("-wal")}

    before = folder()
    for opening in (lambda: SqliteStore.open(path), lambda: open_reader(str(path))):
        with pytest.raises(kind) as caught:
            opening()
        assert str(path) in str(caught.value)
        assert [word for word in said if word not in str(caught.value)] == []
        assert caught.value.definite
    assert folder() == before


def test_a_commit_is_an_fsync(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "x.db")
    assert pragma(store, "journal_mode") == "wal"
    assert pragma(store, "synchronous") == 2
    assert pragma(store, "mmap_size") == 0
    assert pragma(store, "busy_timeout") > 0
    assert pragma(store, "wal_autocheckpoint") > 0
    assert pragma(store, "journal_size_limit") > 0
    assert pragma(store, "application_id") == APPLICATION_ID
    assert pragma(store, "user_version") == NEWEST
    store.close()
    again = SqliteStore.open(tmp_path / "x.db")
    assert pragma(again, "journal_mode") == "wal"
    assert pragma(again, "synchronous") == 2
    again.close()


def test_every_table_is_strict(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "x.db")
    tables = store._database.execute("select name, strict from pragma_table_list where schema = 'main'").fetchall()
    assert {name for name, strict in tables if strict} == {"meta", "stream", "record", "chunk", "key", "worker"}
    store.close()


def test_every_field_of_a_stream_is_a_column_and_only_names_are_fixed(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "x.db")
    columns = [row[0] for row in store._database.execute("select name from pragma_table_info('stream')").fetchall()]
    assert columns == list(Stream.__struct_fields__)
    stream = created(store)
    changes = {
        field: "changed" if isinstance(value, str) or field == "holder" else 77
        for field, value in msgspec.structs.asdict(stream).items()
        if field not in NEVER_CHANGES
    }
    changed = msgspec.structs.replace(stream, **changes)
    write(store, lambda t: t.put(changed))
    assert store.stream(stream.number) == changed
    store.close()


@pytest.mark.parametrize(
    ("statement", "bindings", "index"),
    [
        (sql.DUE, {"now": 1, "names": None, "versions": None, "limit": 1}, "stream_wake"),
        (sql.NEXT_WAKE, {"after": 5, "names": None, "versions": None}, "stream_wake"),
        (sql.PINNED_NAMES, (), "stream_pinned"),
        (sql.HELD_BY, ("w",), "stream_holder"),
        (sql.DEAD_WORKERS, (1,), "stream_holder"),
        (sql.STREAM_BY_UID, ("u",), "stream_uid"),
        (sql.STREAM_BY_ADDRESS, ("n", "t", "k"), "stream_address"),
        (sql.ROW_AT, (1, 1), "record_place"),
        (sql.ROWS, {"stream": 1, "first": 1, "limit": 1}, "record_place"),
        (*next(sql.FIND_ADDRESSES.statements([1, 2, 3] * 256)), "stream_address"),
        (*next(sql.FIND_KEYS.statements([1, 2, 3] * 256)), "record_place"),
    ],
)
def test_nothing_on_the_hot_path_reads_a_whole_table(
    tmp_path: Path, statement: str, bindings: object, index: str
) -> None:
    store = SqliteStore.open(tmp_path / "x.db")
    plan = [row[3] for row in store._database.execute("explain query plan " + statement, bindings).fetchall()]
    assert any(index in line for line in plan), plan
    tables = [
        line for line in plan if line.startswith("SCAN") and line.split()[1] in ("stream", "s", "record", "r", "k")
    ]
    assert [line for line in tables if index not in line] == []
    assert [line for line in plan if "TEMP B-TREE FOR ORDER BY" in line and statement is not sql.DUE] == []
    store.close()


def test_a_batch_reads_what_its_calls_need_with_one_statement_for_each_kind(tmp_path: Path) -> None:
    """A repeated request is answered from the batch: its key, its stream, and the row of its outcome."""
    store = SqliteStore.open(tmp_path / "x.db")
    executions = [created(store) for _ in range(100)]
    actors = [new_actor(store, f"a{place}") for place in range(100)]

    def settle(t: Transaction, stream: Stream, row: int) -> None:
        for body in (b"begun", b"outcome", b"after")[: 2 + row]:
            now = t.append(None, t.stream(stream.number), count=2, body=body)
        t.put(msgspec.structs.replace(now, status="RUNNING" if row else "SUCCEEDED"))
        t.put_key(a_key(store, stream.uid, stream, settled_seq=3 * row))

    write(store, *(lambda t, a=a: t.create(a) for a in actors))
    write(store, *(lambda t, s=s: settle(t, s, int(s.type == ACTOR)) for s in executions + actors))
    statements: list[str] = []
    store._database.exec_trace = lambda cursor, statement, bindings: statements.append(statement) or True
    transaction = store.begin([Needs(keys=(key_id(stream.uid),)) for stream in executions + actors])
    for stream in executions + actors:
        key = transaction.key(key_id(stream.uid))
        assert transaction.row_at(key.stream, key.settled_seq or transaction.stream(key.stream).tail).body == b"outcome"
    assert len(statements) == 1
    statements.clear()
    transaction = store.begin(
        [Needs(streams=(stream.number,)) for stream in executions]
        + [Needs(addresses=(actor.address,)) for actor in actors]
    )
    for stream in executions:
        transaction.append(None, transaction.stream(stream.number), count=1, body=b"x")
    for actor in actors:
        transaction.append(None, transaction.stream_by_address(actor.address), count=1, body=b"x")
        transaction.forget_key(key_id(actor.uid))
    store.commit(transaction)
    assert len(statements) == 2 + len(["begin", "write", "forget keys", "commit"])
    store.close()


@pytest.mark.parametrize("name", ["a b.db", "ü?#%41.db", ":memory:", "file:x.db", "x.db?mode=ro"])
def test_a_file_has_the_name_it_was_given(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore.open(name)
    created(store)
    assert (tmp_path / name).is_file()
    reader = store.reader()
    assert reader.stream(1) is not None
    reader.close()
    store.close()
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_an_empty_file_becomes_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch()
    store = SqliteStore.open(path)
    created(store)
    store.close()
    empty = apsw.Connection(str(tmp_path / "y.db"))
    empty.execute("pragma journal_mode = wal; create table x (y); drop table x").fetchall()
    empty.close()
    SqliteStore.open(tmp_path / "y.db").close()


def test_garbage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"#!/bin/sh\necho no database\n" * 300)
    refused(path, JournalCorruptError, "expected a SQLite database", "check the path")
    path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    refused(path, JournalCorruptError, "with a semel journal")


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("application", [0, 1234])
def test_a_database_of_another_program_is_refused(tmp_path: Path, mode: str, application: int) -> None:
    path = tmp_path / "x.db"
    other = apsw.Connection(str(path))
    other.execute(
        f"pragma journal_mode = {mode}; pragma application_id = {application}; create table theirs (x)"
    ).fetchall()
    other.close()
    refused(path, JournalCorruptError, "another program", hex(application), hex(APPLICATION_ID), "check the path")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    SqliteStore.open(path).close()
    newer = apsw.Connection(str(path))
    newer.execute(f"pragma user_version = {NEWEST + 1}")
    newer.close()
    said = (f"schema version {NEWEST + 1}", f"expected {NEWEST} or older", "use the semel that wrote it")
    refused(path, JournalCorruptError, *said)


def a_file_of_version_1(path: Path) -> KeyId:
    """A journal as the first release made it, with a stream and its key."""
    first = (Path(sqlite_file.__file__).parent / "schema" / "0001_first.sql").read_text("utf-8")
    old = apsw.Connection(str(path))
    old.execute(first).fetchall()
    old.execute(f"pragma application_id = {APPLICATION_ID}; pragma user_version = 1").fetchall()
    old.execute("insert into meta values (1, 'journal')")
    old.execute("insert into key values ('default', 'fn:pay', 'k', 1, 'uid-1', x'01', 0, null)")
    old.close()
    return KeyId("default", "fn:pay", "k")


def test_an_old_file_is_brought_up_to_date_when_an_engine_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    key = a_file_of_version_1(path)
    store = SqliteStore.open(path)
    assert (pragma(store, "user_version"), store.journal_id) == (NEWEST, "journal")
    assert store.key(key) == Key(key, 1, "uid-1", b"\x01")
    transaction = store.begin([Needs(keys=(key,))])
    kept = Key(key, 1, "uid-1", b"\x01", 3, 5, b"outcome")
    transaction.put_key(kept)
    store.commit(transaction)
    assert store.key(key) == store.begin([Needs(keys=(key,))]).key(key) == kept
    store.close()


def test_an_old_file_can_be_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    key = a_file_of_version_1(path)
    before = path.read_bytes()
    reader = SqliteReader(open_reader(str(path)), str(path))
    assert reader.key(key) == Key(key, 1, "uid-1", b"\x01")
    assert reader.list(Filter()) == []
    reader.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", range(1, NEWEST))
def test_a_file_of_an_older_version_is_brought_to_the_newest(tmp_path: Path, version: int) -> None:
    path = tmp_path / "x.db"
    older = apsw.Connection(str(path))
    older.execute(f"pragma application_id = {APPLICATION_ID}")
    for script in _schema()[:version]:
        older.execute(script)
    older.execute("insert into meta (id, journal_id) values (1, 'the-first')")
    older.execute(f"pragma user_version = {version}")
    older.close()
    store = SqliteStore.open(path)
    new = SqliteStore.open(tmp_path / "new.db")
    tables = "select name, sql from sqlite_schema order by name"
    assert store._database.execute(tables).fetchall() == new._database.execute(tables).fetchall()
    assert (store.journal_id, pragma(store, "user_version")) == ("the-first", NEWEST)
    store.close()
    new.close()


def test_a_directory_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, UnavailableError, "is a directory", "add a file name")
    refused(tmp_path / "none" / "x.db", UnavailableError, "found no directory", "make it")
    os.mkfifo(tmp_path / "fifo")
    refused(tmp_path / "fifo", UnavailableError, "not a regular file")


def test_a_reader_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no such file"):
        open_reader(str(tmp_path / "x.db"))
    assert list(tmp_path.iterdir()) == []


@contextmanager
def an_ordinary_user() -> Iterator[Path]:
    """A folder of everybody, and no rights of root meanwhile."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    root = os.geteuid() == 0
    try:
        if root:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        yield folder
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(folder)


def test_a_file_that_may_not_be_written_or_read_is_refused() -> None:
    with an_ordinary_user() as folder:
        path = folder / "x.db"
        SqliteStore.open(path).close()
        path.chmod(0o444)
        before = path.read_bytes()
        with pytest.raises(UnavailableError, match="permissions"):
            SqliteStore.open(path)
        assert path.read_bytes() == before
        path.chmod(0o000)
        with pytest.raises(UnavailableError, match="permissions"):
            SqliteStore.open(path)
        path.chmod(0o644)
        SqliteStore.open(path).close()
        folder.chmod(0o555)
        with pytest.raises(UnavailableError, match="permissions"):
            SqliteStore.open(folder / "y.db")


@pytest.mark.parametrize(
    ("version", "sound"),
    [
        *(("3.54.1", True), ("3.51.3", True), ("3.50.7", True), ("3.50.9", True), ("3.44.6", True), ("4.0.0", True)),
        *(("3.51.2", False), ("3.51.0", False), ("3.50.6", False), ("3.49.2", False), ("3.45.0", False)),
        *(("3.44.5", False), ("3.40.1", False), ("3.7.0", False)),
    ],
)
def test_a_sqlite_with_the_wal_reset_bug_is_told_apart(version: str, sound: bool) -> None:
    verdict = sqlite_verdict(version)
    assert (verdict == "") == sound
    assert sound or (version in verdict and "3.51.3" in verdict)


def test_an_unsound_sqlite_or_a_network_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.db"
    with monkeypatch.context() as patch:
        patch.setattr("semel.store.sqlite_file.sqlite_version", lambda: "3.40.1")
        with pytest.raises(UnavailableError, match="WAL-reset"):
            SqliteStore.open(path)
    with monkeypatch.context() as patch:
        patch.setattr("semel.store.sqlite_file.file_system", lambda path, *, mounts: "nfs4")
        with pytest.raises(UnavailableError, match=r"network file system \(nfs4\)"):
            SqliteStore.open(path)
    assert list(tmp_path.iterdir()) == []


def test_the_innermost_mount_decides(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/vda / ext4 rw 0 0\nserver:/x /share nfs4 rw 0 0\ntmpfs /share/local tmpfs rw 0 0\n"
        "//share /share/a\\040b cifs rw 0 0\nserver:/y /srv nfs rw 0 0\n/dev/vdb /srv xfs rw 0 0\n"
    )
    kinds = {"/": "ext4", "/far/x.db": "ext4", "/share/x.db": "nfs4", "/sharex/x.db": "ext4", "/share": "nfs4"}
    kinds |= {"/share/local/x.db": "tmpfs", "/share/a b/x.db": "cifs", "/srv/x.db": "xfs"}
    assert {path: file_system(path, mounts=str(mounts)) for path in kinds} == kinds
    verdicts = {path: file_system_verdict(path, mounts=str(mounts)) for path in kinds}
    assert {path for path, verdict in verdicts.items() if verdict} == {"/share/x.db", "/share", "/share/a b/x.db"}
    assert file_system("/x", mounts=str(tmp_path / "none")) == ""
    assert file_system_verdict("/x", mounts=str(tmp_path / "none")) == ""
    assert {"ext4", "xfs", "btrfs", "tmpfs", "overlay", "apfs", ""} & NETWORK_FILE_SYSTEMS == set()


def test_a_reader_leaves_the_writer_s_locks_alone(tmp_path: Path) -> None:
    """G1: a program that opens and closes the file must not take the log from under its owner."""
    path = tmp_path / "x.db"
    store = SqliteStore.open(path)
    store.reader().close()
    open_reader(str(path)).close()
    foreign = "import sys, apsw; c = apsw.Connection(sys.argv[1]); list(c.execute('select 1 from stream')); c.close()"
    subprocess.run([sys.executable, "-c", foreign, str(path)], check=True, timeout=30)
    try:
        assert (tmp_path / "x.db-wal").exists()
    finally:
        store.close()
