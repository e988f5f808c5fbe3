"""Who owns a SQLite file: one engine at a time, found out before the first read.

Ownership is a `lockf` lock on a file of its own, `<database>-owner`, beside the database. WAL does
not exclude a second writer and an exclusive WAL excludes readers, so the database's own locks
cannot say it. The lock ends with its process, however that ends, and a fork does not inherit it.
The file stays when the lock goes: removing it would let two processes lock two files of one name.
Its text (pid and socket) is for messages; only the lock decides.

Two properties of these locks shape the code. They do not exclude within one process: a registry
does. And closing *any* descriptor of the file drops the lock: nothing in a process that owns a
file opens its owner file again, and whoever opens one holds the registry's mutex meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading
import time
from pathlib import Path

from msgspec import Struct

from semel.errors import UnavailableError

# A process that was killed holds its lock until the kernel has taken it apart, and `owner_of`
# holds a shared one for a moment: both are gone before the last of these tries.
TRIES_MAX = 6
PAUSE_S = 0.02
TEXT_MAX = 8192


class Owner(Struct, frozen=True):
    """A process that owns a file. `pid` is None if the owner file does not say."""

    pid: int | None
    socket: str


def real_path(path: str | os.PathLike[str]) -> str:
    """The one name of a database: absolute, without symlinks."""
    return os.path.realpath(path)


def lock_path(path: str | os.PathLike[str]) -> str:
    """The file whose lock says who owns the database at `path`."""
    return real_path(path) + "-owner"


def socket_path(path: str | os.PathLike[str]) -> str:
    """Where the owner of the database at `path` listens."""
    return real_path(path) + "-socket"


def refusal(message: str) -> UnavailableError:
    """An UnavailableError that is definite: nothing was done."""
    error = UnavailableError(message)
    error.definite = True
    return error


class Ownership:
    """The right to write to one SQLite file, until `release` or the end of this process."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.lock_path = lock_path(path)
        self.socket_path = socket_path(path)
        self.descriptor = descriptor
        self.pid = os.getpid()

    @classmethod
    def acquire(cls, path: str | os.PathLike[str]) -> Ownership:
        """Take the database at `path`, which need not exist yet, and remove a stale socket.

        Raises UnavailableError, definite, if it has a living owner (in this process or another,
        named by pid), or if the owner file cannot be made or locked.
        """
        real = real_path(path)
        with _HERE.mutex:
            _refuse_names(real)
            if _HERE.find(real) is not None:
                raise refusal(
                    f"store {real!r}: already open in this process (pid {os.getpid()}), expected one engine a file; "
                    f"use that engine, or close it first"
                )
            ownership = cls(real, _open_locked(real))
            try:
                ownership._take_over()
            except OSError as error:
                os.close(ownership.descriptor)
                raise refusal(
                    f"store {real!r}: the stale socket {ownership.socket_path!r} cannot be removed "
                    f"({error.strerror}); remove it, and open again"
                ) from error
            _HERE.owned.append(ownership)
        return ownership

    @property
    def held(self) -> bool:
        """False after `release` or `abandon`, and in a fork of the owner."""
        return self.pid == os.getpid() and self in _HERE.owned

    def release(self) -> None:
        """Give the file up and remove the socket. Does nothing when not held."""
        with _HERE.mutex:
            if self.held:
                with contextlib.suppress(OSError):
                    Path(self.socket_path).unlink()
                with contextlib.suppress(OSError):
                    os.ftruncate(self.descriptor, 0)
                self._let_go()

    def abandon(self) -> None:
        """Lose the lock as a killed process does: socket and text stay as they are."""
        with _HERE.mutex:
            if self.held:
                self._let_go()

    def _let_go(self) -> None:
        _HERE.owned.remove(self)
        os.close(self.descriptor)

    def _take_over(self) -> None:
        if Path(self.socket_path).is_socket():
            Path(self.socket_path).unlink()
        # The text is a courtesy: a full disk must not keep an engine from reading.
        with contextlib.suppress(OSError):
            os.ftruncate(self.descriptor, 0)
            text = f"pid {self.pid}\nsocket {self.socket_path}\n"
            os.pwrite(self.descriptor, text.encode(errors="surrogateescape"), 0)


def owner_of(path: str | os.PathLike[str]) -> Owner | None:
    """The living owner of the database at `path`, or None. Changes nothing.

    Raises UnavailableError, definite, if the owner file cannot be read.
    """
    real = real_path(path)
    with _HERE.mutex:
        if _HERE.find(real) is not None:
            return Owner(os.getpid(), socket_path(real))
        try:
            descriptor = os.open(lock_path(real), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _no_owner_file(real, error) from error
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return Owner(_read_pid(descriptor), socket_path(real))
        except OSError as error:
            raise _no_owner_file(real, error) from error
        finally:
            os.close(descriptor)
    return None


class _Registry:
    """What this process owns. Locks belong to a process, and so does this: there is one."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.owned: list[Ownership] = []

    def find(self, real: str) -> Ownership | None:
        """The ownership of the same database or owner file, whatever its name."""
        database, lock = _identity(real), _identity(lock_path(real))
        for ownership in self.owned:
            held = os.fstat(ownership.descriptor)
            if (
                ownership.path == real
                or lock == (held.st_dev, held.st_ino)
                or (database is not None and database == _identity(ownership.path))
            ):
                return ownership
        return None

    def leave_to_parent(self) -> None:
        """In a fork: forget everything. A descriptor closed later would drop a lock taken later."""
        for ownership in self.owned:
            with contextlib.suppress(OSError):
                os.close(ownership.descriptor)
        self.owned.clear()
        self.mutex.release()


_HERE = _Registry()
os.register_at_fork(
    before=_HERE.mutex.acquire, after_in_parent=_HERE.mutex.release, after_in_child=_HERE.leave_to_parent
)


def _identity(path: str) -> tuple[int, int] | None:
    """Which file a path leads to, or None if it leads nowhere."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _refuse_names(real: str) -> None:
    try:
        found = Path(real).stat()
    except OSError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise refusal(f"store {real!r}: it is not a regular file; expected a SQLite file, or a name that is free")
    if found.st_nlink > 1:
        raise refusal(
            f"store {real!r}: the file has {found.st_nlink} names (hard links), expected one, because SQLite keeps "
            f"its log beside each name; remove the other names"
        )


def _open_locked(real: str) -> int:
    """A descriptor of the owner file with its lock held."""
    pid = None
    for attempt in range(TRIES_MAX):
        if attempt:
            time.sleep(PAUSE_S)
        try:
            descriptor = os.open(lock_path(real), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _no_owner_file(real, error) from error
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = _read_pid(descriptor)
            os.close(descriptor)
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise _no_owner_file(real, error) from error
            continue
        found = os.fstat(descriptor)
        if _identity(lock_path(real)) == (found.st_dev, found.st_ino):
            return descriptor
        os.close(descriptor)  # the name was given to another file between open and lock
    named = "another process" if pid is None else f"process {pid}"
    raise refusal(
        f"store {real!r}: {named} owns it (lock on {lock_path(real)!r}), expected one engine a file; "
        f"stop that process, or send requests through it: `semel run` and `semel executions` do"
    )


def _read_pid(descriptor: int) -> int | None:
    for line in os.pread(descriptor, TEXT_MAX, 0).decode(errors="replace").splitlines():
        word, _, number = line.partition(" ")
        if word == "pid" and number.isascii() and number.isdigit():
            return int(number)
    return None


def _no_owner_file(real: str, error: OSError) -> UnavailableError:
    folder = str(Path(real).parent)
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            advice = f"expected a directory at {folder!r}; create it"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            advice = f"expected to be able to write in {folder!r}; change its permissions or choose another place"
        case errno.ENOSPC | errno.EDQUOT:
            advice = f"expected space for it in {folder!r}; free some"
        case _:
            advice = "expected a file system with POSIX locks; choose another place"
    return refusal(f"store {real!r}: no owner file {lock_path(real)!r} ({error.strerror}); {advice}")
