"""A SQLite file: whether this SQLite and this disk can be trusted with it, whether it is ours, and its schema.

Nothing is written to a file before it is known to be ours, or empty.
"""

from __future__ import annotations

import os
import secrets
from importlib import resources
from pathlib import Path
from typing import Final
from urllib.parse import quote

import apsw

from semel.errors import JournalCorruptError, StoreError, UnavailableError
from semel.store import sqlite_statements as sql

APPLICATION_ID: Final = 0x53454D4C  # "SEML"

BUSY_TIMEOUT_MS: Final = 2_000
STATEMENTS_KEPT: Final = 256
# Pages of 4 KiB in the write-ahead log before they are copied into the database.
CHECKPOINT_PAGES: Final = 4_000
LOG_BYTES_KEPT: Final = 32 << 20
# What random look-ups among a hundred thousand keys touch, kept in memory.
CACHE_KIB: Final = 65_536

# Their locks or shared memory do not hold between machines, so that a WAL on them corrupts.
NETWORK_FILE_SYSTEMS: Final = frozenset(
    {
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "lustre", "ncpfs", "nfs", "nfs4"),
        *("ocfs2", "prl_fs", "smb3", "smbfs", "vboxsf", "vmhgfs"),
        *("fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "fuse.vmhgfs-fuse"),
    }
)
_MOUNTS: Final = "/proc/self/mounts"


def sqlite_version() -> str:
    """The version of the SQLite that journals are kept with."""
    return apsw.sqlite_lib_version()


def sqlite_verdict(version: str) -> str:
    """Why a SQLite of this version cannot be trusted with a journal; empty if it can.

    Versions before 3.51.3 can lose committed data when a write-ahead log is reset while another
    connection checkpoints; the fix is also in 3.50.7 and 3.44.6.
    """
    numbers = tuple(int(part) for part in version.split(".")[:3])
    if numbers >= (3, 51, 3) or (3, 50, 7) <= numbers < (3, 51) or (3, 44, 6) <= numbers < (3, 45):
        return ""
    return (
        f"SQLite {version}: it can corrupt a write-ahead log (the WAL-reset bug), expected 3.51.3 or later, "
        f"or 3.50.7, or 3.44.6; install a current apsw"
    )


def file_system(path: str, *, mounts: str = _MOUNTS) -> str:
    """The type of the file system that holds `path`; empty where the system does not say."""
    try:
        lines = Path(mounts).read_text("utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    real = os.path.realpath(path)
    found = ("", "")
    for line in lines:
        _, mounted, kind, *_ = line.split(" ")
        where = mounted.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
        if (real == where or real.startswith(where.rstrip("/") + "/")) and len(where) >= len(found[0]):
            found = (where, kind)
    return found[1]


def file_system_verdict(path: str, *, mounts: str = _MOUNTS) -> str:
    """Why the file system that holds `path` cannot be trusted with a journal; empty if it can or is unknown."""
    kind = file_system(path, mounts=mounts)
    if kind not in NETWORK_FILE_SYSTEMS:
        return ""
    return (
        f"{path!r}: it is on a network file system ({kind}), where SQLite's write-ahead log breaks; expected a "
        f"local disk; move it there"
    )


def refusal(message: str) -> UnavailableError:
    """An UnavailableError that is definite: nothing was done."""
    error = UnavailableError(message)
    error.definite = True
    return error


def unreadable(path: str, error: apsw.Error) -> StoreError:
    """What a failed read means."""
    match error:
        case apsw.NotADBError() | apsw.CorruptError():
            return JournalCorruptError(f"{path!r}: {error}; expected an intact semel journal; restore a backup")
        case _:
            return refusal(
                f"{path!r}: reading failed with {type(error).__name__}: {error}; see to the disk, then reopen"
            )


def open_writer(path: str, *, vfs: str | None = None) -> apsw.Connection:
    """Open the file for writing, made and brought to the newest schema if need be.

    Raises UnavailableError or JournalCorruptError if it cannot be trusted or is not ours, with the file as it was.
    """
    for verdict in (sqlite_verdict(sqlite_version()), file_system_verdict(path)):
        if verdict:
            raise refusal(verdict)
    _check_path(path)
    try:
        _check_ours(path, vfs)
        database = _connect(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, vfs)
    except apsw.Error as error:
        raise _unopened(path, error) from error
    try:
        if database.readonly("main"):
            raise refusal(f"{path!r}: it is read-only, expected a file that can be written; change its permissions")
        _set_up(database)
    except apsw.Error as error:
        database.close(force=True)
        raise _unopened(path, error) from error
    except BaseException:
        database.close(force=True)
        raise
    return database


def open_reader(path: str, *, vfs: str | None = None) -> apsw.Connection:
    """Open a file of ours for reading only. Raises as `open_writer` does, and if there is no file."""
    _check_path(path)
    if not Path(path).exists():
        raise refusal(f"{path!r}: there is no such file, expected a semel journal; check the path")
    try:
        _check_ours(path, vfs)
        return _connect(path, apsw.SQLITE_OPEN_READONLY, vfs)
    except apsw.Error as error:
        raise _unopened(path, error) from error


def _connect(path: str, flags: int, vfs: str | None, *, options: str = "") -> apsw.Connection:
    # As a URI, so that no name means anything special (":memory:", "").
    uri = "file:" + quote(Path(path).absolute().as_posix()) + options
    database = apsw.Connection(uri, flags | apsw.SQLITE_OPEN_URI, vfs, STATEMENTS_KEPT)
    database.set_busy_timeout(BUSY_TIMEOUT_MS)
    database.execute("pragma mmap_size = 0").fetchall()
    return database


def _unopened(path: str, error: apsw.Error) -> StoreError:
    match error:
        case apsw.NotADBError() | apsw.CorruptError():
            return JournalCorruptError(
                f"{path!r}: {error}; expected a SQLite database, with a semel journal; "
                f"check the path, or restore a backup"
            )
        case _:
            return refusal(
                f"{path!r}: opening failed with {type(error).__name__}: {error}; expected a file that this process "
                f"can read and write; check its permissions, disk and users"
            )


def _check_path(path: str) -> None:
    place = Path(path)
    if place.is_dir():
        raise refusal(f"{path!r}: it is a directory, expected a file; add a file name")
    if not place.parent.is_dir():
        raise refusal(f"{path!r}: found no directory {str(place.parent)!r}, expected one; make it")
    if place.exists() and not place.is_file():
        raise refusal(f"{path!r}: it is not a regular file, expected one; check the path")


def _check_ours(path: str, vfs: str | None) -> None:
    """Refuse what is not a journal of ours, through a connection that cannot write.

    Never through a descriptor of our own, nor an immutable connection: closing either would drop
    the locks that other connections of this process hold on the file (POSIX), and the next
    program to close it would delete the log under them.
    """
    if not Path(path).exists():
        return
    database = _connect(path, apsw.SQLITE_OPEN_READONLY, vfs)
    try:
        application = _number(database, "pragma application_id")
        version = _number(database, "pragma user_version")
        tables = _number(database, "select count(*) from sqlite_schema")
    finally:
        database.close(force=True)
    if application == 0 and version == 0 and tables == 0:
        return
    if application != APPLICATION_ID:
        raise JournalCorruptError(
            f"{path!r}: it is a SQLite database of another program (application_id {application:#x}, {tables} tables), "
            f"expected a semel journal ({APPLICATION_ID:#x}); check the path"
        )
    newest = len(_schema())
    if version > newest:
        raise JournalCorruptError(
            f"{path!r}: it has schema version {version}, expected {newest} or older; "
            f"use the semel that wrote it, or a newer one"
        )


def _schema() -> list[str]:
    """The numbered schema files, in order."""
    folder = resources.files("semel.store") / "schema"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [file.read_text("utf-8") for file in files]


def _set_up(database: apsw.Connection) -> None:
    for setting in (
        "journal_mode = wal",
        "synchronous = full",
        f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
        f"journal_size_limit = {LOG_BYTES_KEPT}",
        f"cache_size = -{CACHE_KIB}",
        "trusted_schema = off",
    ):
        database.execute(f"pragma {setting}").fetchall()
    _create_schema(database)
    database.execute(sql.BATCH).fetchall()


def _create_schema(database: apsw.Connection) -> None:
    schema = _schema()
    version = _number(database, "pragma user_version")
    if version == len(schema):
        return
    with database:
        database.execute(f"pragma application_id = {APPLICATION_ID}")
        for number, script in enumerate(schema, 1):
            if number > version:
                database.execute(script).fetchall()
                database.execute(f"pragma user_version = {number}")
        database.execute("insert or ignore into meta (id, journal_id) values (1, ?)", (secrets.token_hex(16),))


def schema_version(database: apsw.Connection) -> int:
    """The number of the newest schema file that the database has."""
    return _number(database, "pragma user_version")


def _number(database: apsw.Connection, question: str) -> int:
    answer: int = database.execute(question).fetchall()[0][0]  # type: ignore[assignment]
    return answer
