"""A SqliteStore on a disk that fails, fills up or lies, after a kill, and after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from semel.errors import JournalCorruptError, StoreFullError, UnavailableError
from semel.kernel.entry import RetryReady
from semel.store import codec
from semel.store.base import Needs, Stream
from semel.store.codec import Append
from semel.store.sqlite import SqliteStore
from tests.store.backends import a_key, contents, created, key_id, new_stream, write


class Disk(apsw.VFS):
    """A disk that counts fsyncs of the write-ahead log, and fails the one named `fails_at`."""

    def __init__(self) -> None:
        self.name = f"disk-{id(self)}"
        self.syncs = 0
        self.fails_at = 0
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return DiskFile(self, name, flags)


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self.disk = disk
        self.is_log = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:
        if self.is_log:
            self.disk.syncs += 1
            if self.disk.syncs == self.disk.fails_at:
                raise apsw.IOError("fsync failed")
        super().xSync(flags)


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.unregister()


def append(store: SqliteStore, stream: Stream, body: bytes = b"x") -> Stream:
    (after,) = write(store, lambda t: t.append(None, t.stream(stream.number), count=1, body=body))
    return after


def test_each_commit_is_one_fsync_whatever_its_size(tmp_path: Path, disk: Disk) -> None:
    store = SqliteStore.open(tmp_path / "x.db", vfs=disk.name)
    streams = [created(store) for _ in range(5)]
    for _ in range(20):
        before = disk.syncs
        write(store, *(lambda t, s=s: t.append(None, t.stream(s.number), count=1, body=b"x") for s in streams))
        assert disk.syncs == before + 1
    before = disk.syncs
    store.commit(store.begin([Needs(streams=(1,))]))
    assert disk.syncs == before, "a batch without writes costs no commit"
    store.close()


@pytest.mark.parametrize("nth", range(1, 13))
def test_a_failed_fsync_is_never_acknowledged(tmp_path: Path, disk: Disk, nth: int) -> None:
    """And the store refuses every call after it: what is on disk is known when it is opened again."""
    path = tmp_path / "x.db"
    store = SqliteStore.open(path, vfs=disk.name)
    stream = created(store)
    disk.fails_at = disk.syncs + nth
    for _ in range(nth - 1):
        append(store, stream)
    acknowledged = nth - 1
    with pytest.raises(UnavailableError, match=r"may be on disk or not.*open the store again") as caught:
        append(store, stream)
    assert not caught.value.definite
    assert str(path) in str(caught.value)
    for call in (lambda: append(store, stream), lambda: store.stream(1), lambda: store.begin(()), store.next_stream):
        with pytest.raises(UnavailableError, match="a commit failed") as caught:
            call()
        assert caught.value.definite
    store.close()
    again = SqliteStore.open(path)
    assert len(again.rows(stream.number)) in (acknowledged, acknowledged + 1)
    append(again, stream)
    assert again._database.execute("pragma integrity_check").fetchall() == [("ok",)]
    again.close()


def fill(store: SqliteStore, stream: Stream, size: int) -> tuple[int, StoreFullError]:
    """Append until there is no space; how often that went well, and what was said then."""
    for written in range(10_000):
        try:
            append(store, stream, b"x" * size)
        except StoreFullError as full:
            return written, full
    raise AssertionError("the disk did not fill")


def test_a_full_disk_is_definite_and_passes_without_reopening(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "x.db")
    stream = created(store)
    pages = store._database.execute("pragma page_count").fetchall()[0][0]
    store._database.execute(f"pragma max_page_count = {pages + 4}").fetchall()
    written, full = fill(store, stream, 2000)
    assert "no space is left" in str(full)
    assert full.definite
    assert not store._database.in_transaction
    before = contents(store)
    assert len(store.rows(stream.number)) == written
    for _ in range(3):
        with pytest.raises(StoreFullError):
            append(store, stream, b"x" * 200_000)
    assert contents(store) == before
    store._database.execute(f"pragma max_page_count = {pages + 1000}").fetchall()
    append(store, stream, b"x" * 200_000)
    assert len(store.rows(stream.number)) == written + 1
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError as error:
        pytest.skip(f"a small disk needs mount: {error}")
    if mounted.returncode != 0:
        pytest.skip(f"a small disk needs the right to mount one: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], timeout=10, check=True)


def test_a_disk_that_fills_takes_reads_and_later_writes_again(small_disk: Path) -> None:
    store = SqliteStore.open(small_disk / "x.db")
    stream = created(store)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_000_000)
    written, full = fill(store, stream, 500)
    assert full.definite
    assert written > 10
    with pytest.raises(StoreFullError):
        append(store, stream, b"x" * 500)
    assert len(store.rows(stream.number)) == written
    reader = store.reader()
    assert len(reader.rows(stream.number)) == written
    reader.close()
    ballast.unlink()
    append(store, stream, b"x" * 500)
    assert len(store.rows(stream.number)) == written + 1
    assert store._database.execute("pragma integrity_check").fetchall() == [("ok",)]
    store.close()


CHILD = """
import os, signal, sys
from semel.store.base import Worker
from semel.store.sqlite import SqliteStore
from tests.store.backends import created, write
store = SqliteStore.open(sys.argv[1])
stream = created(store)
append = lambda t: t.append(None, t.stream(stream.number), count=1, body=b"x")
for _ in range(3):
    write(store, append)
transaction = store.begin(())
transaction.attempt(append)
if sys.argv[2] == "inside the commit":
    from semel.store import sqlite
    class Kill(list):
        def __iter__(self):
            yield from super().__iter__()
            os.kill(os.getpid(), signal.SIGKILL)
    sqlite.list = Kill
    transaction.put_worker(Worker("w", 1))  # a second statement, so that the first is not the commit
    store.commit(transaction)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["before the commit", "inside the commit"])
def test_a_kill_before_the_commit_leaves_nothing_of_the_batch(tmp_path: Path, when: str) -> None:
    path = tmp_path / "x.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-c", CHILD, str(path), when]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert child.returncode == -9, child.stderr
    store = SqliteStore.open(path)
    assert len(store.rows(1)) == 3
    assert store.stream(1).head == 3
    append(store, store.stream(1))
    store.close()


def test_another_writer_is_refused_definitely_and_the_store_goes_on(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "x.db")
    stream = created(store)
    other = apsw.Connection(str(tmp_path / "x.db"))
    other.execute("begin immediate")
    store._database.set_busy_timeout(1)
    with pytest.raises(UnavailableError, match="only writer") as caught:
        append(store, stream)
    assert caught.value.definite
    assert store.rows(stream.number) == []
    other.execute("rollback")
    other.close()
    append(store, stream)
    store.close()


def test_a_row_that_is_too_large_is_refused_and_the_store_goes_on(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "x.db")
    stream = created(store)
    store._database.limit(apsw.SQLITE_LIMIT_LENGTH, 100_000)
    with pytest.raises(UnavailableError, match="too large") as caught:
        append(store, stream, b"x" * 200_000)
    assert caught.value.definite
    append(store, stream)
    assert len(store.rows(stream.number)) == 1
    store.close()


def test_a_value_that_no_column_holds_undoes_the_batch(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "x.db")
    stream = created(store)
    with pytest.raises(OverflowError):
        write(store, lambda t: t.append(None, stream, count=1, body=b"x", wake_ms=2**70))
    assert not store._database.in_transaction
    append(store, stream)
    assert len(store.rows(stream.number)) == 1
    store.close()


def test_a_store_is_not_carried_over_a_fork(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "x.db")
    stream = created(store)
    transaction = store.begin(())
    transaction.append(None, stream, count=1, body=b"x")
    reader = store.reader()
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        said = []
        calls = [lambda: store.stream(1), lambda: store.begin(()), lambda: store.commit(transaction), store.reader]
        for call in (*calls, store.next_stream, lambda: reader.stream(1)):
            try:
                call()
            except UnavailableError as error:
                said.append(str(error))
        store.close()
        os.write(into, "\n".join(said).encode())
        os._exit(0)
    os.close(into)
    os.waitpid(child, 0)
    with os.fdopen(out) as pipe:
        said = pipe.read().splitlines()
    assert len(said) == 6
    for line in said:
        assert f"process {os.getpid()}" in line
        assert f"process {child}" in line
    store.commit(transaction)
    assert len(store.rows(stream.number)) == 1
    store.close()


def test_a_store_opened_in_one_thread_works_in_another(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "x.db")
    reader = store.reader()
    stream = created(store)
    seen: list[int] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.append(len(reader.rows(stream.number)))

    def write_all() -> None:
        for _ in range(100):
            append(store, stream)

    threads = [threading.Thread(target=look), threading.Thread(target=write_all)]
    for thread in threads:
        thread.start()
    threads[1].join()
    stop.set()
    threads[0].join()
    assert seen == sorted(seen)
    assert len(reader.rows(stream.number)) == 100
    reader.close()
    store.close()


def test_a_bit_that_flips_in_a_row_on_disk_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    store = SqliteStore.open(path)
    stream = created(store)
    marker = "find-me-in-the-file"
    body = codec.encode(Append(1, (RetryReady(marker),)), stream=stream.number, seq=1)
    append(store, stream, body)
    store.close()
    data = path.read_bytes()
    start = data.index(body)
    for byte in range(len(body)):
        damaged = bytearray(data)
        damaged[start + byte] ^= 0x10
        path.write_bytes(damaged)
        store = SqliteStore.open(path)
        (row,) = store.rows(stream.number)
        with pytest.raises(JournalCorruptError, match=r"stream 1, seq 1"):
            codec.decode(row.body, stream=row.stream, seq=row.seq)
        store.close()


def test_a_damaged_page_is_corrupt_or_harmless_and_never_another_answer(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    store = SqliteStore.open(path)
    for place in range(40):
        stream = new_stream(store)
        write(store, lambda t, s=stream: t.create(s))
        append(store, stream, b"%d" % place * 50)
        write(store, lambda t, s=stream: t.put_key(a_key(store, s.uid, s)))
    whole = contents(store)
    store.close()
    data = path.read_bytes()
    refused = 0
    for page in range(0, len(data), 4096):
        damaged = bytearray(data)
        damaged[page : page + 8] = b"\xff" * 8
        path.write_bytes(damaged)
        try:
            store = SqliteStore.open(path)
        except JournalCorruptError:
            refused += 1
            continue
        try:
            found = contents(store)
            store.key(key_id("uid-1"))
            assert found == whole
        except JournalCorruptError:
            refused += 1
        finally:
            store.close()
    assert refused > 3
