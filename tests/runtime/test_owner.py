"""One engine a file: who may own a database, and how the right ends."""

import contextlib
import multiprocessing
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import semel
from semel.errors import UnavailableError
from semel.runtime.owner import Owner, Ownership, lock_path, owner_of, socket_path

SOURCE = str(Path(semel.__path__[0]).parent)
HOLD = """
import sys
from semel.runtime.owner import Ownership
ownership = Ownership.acquire(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""
TRY = """
import os, sys
from semel.errors import UnavailableError
from semel.runtime.owner import Ownership
if os.geteuid() == 0:  # root may write anywhere
    os.setuid(int(sys.argv[2]))
try:
    Ownership.acquire(sys.argv[1])
except UnavailableError as error:
    print(f"refused definite={error.definite} {error}")
else:
    print("owned")
"""


def python(script: str, *arguments: str):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": SOURCE},
    )


@contextlib.contextmanager
def holder(path):
    with python(HOLD, str(path)) as process:
        try:
            assert select.select([process.stdout], [], [], 20)[0], "the holder did not start"
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def try_elsewhere(path, *, user=0) -> str:
    with python(TRY, str(path), str(user)) as process:
        return process.communicate(timeout=20)[0]


@pytest.fixture
def database(tmp_path):
    return tmp_path / "semel.db"


def test_a_second_engine_in_another_process_is_refused_definitely_naming_the_owner(database):
    with holder(database) as process:
        with pytest.raises(UnavailableError, match=f"process {process.pid} owns it") as refused:
            Ownership.acquire(database)
        assert refused.value.definite
        assert str(database) in str(refused.value)
        assert owner_of(database) == Owner(process.pid, socket_path(database))


def test_a_second_engine_in_this_process_is_refused_and_the_first_stays_owner(database):
    first = Ownership.acquire(database)
    with pytest.raises(UnavailableError, match=f"already open in this process \\(pid {os.getpid()}\\)") as refused:
        Ownership.acquire(database)
    assert refused.value.definite
    assert owner_of(database) == Owner(os.getpid(), socket_path(database))
    # Neither the refusal nor the question opened the owner file: the lock still holds.
    assert "refused definite=True" in try_elsewhere(database)
    first.release()
    Ownership.acquire(database).release()


def test_the_lock_ends_with_sigkill(database):
    with holder(database) as process:
        process.send_signal(signal.SIGKILL)
        ownership = Ownership.acquire(database)
        assert ownership.held
        ownership.release()


def test_release_gives_the_file_up_and_is_idempotent(database):
    ownership = Ownership.acquire(database)
    ownership.release()
    ownership.release()
    assert not ownership.held
    assert owner_of(database) is None
    assert Path(lock_path(database)).read_text() == ""
    assert try_elsewhere(database) == "owned\n"


def test_releasing_an_old_ownership_leaves_the_new_owner_alone(database):
    old = Ownership.acquire(database)
    old.abandon()
    new = Ownership.acquire(database)
    old.release()
    old.abandon()
    assert new.held
    assert "refused" in try_elsewhere(database)
    new.release()


def test_abandon_leaves_the_files_of_a_killed_process(database):
    ownership = Ownership.acquire(database)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(ownership.socket_path)
    ownership.abandon()
    assert owner_of(database) is None
    assert Path(lock_path(database)).read_text() == f"pid {os.getpid()}\nsocket {socket_path(database)}\n"
    assert Path(socket_path(database)).exists()
    assert try_elsewhere(database) == "owned\n"


def test_a_stale_socket_is_removed_once_the_lock_is_held(database):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(socket_path(database))
    with holder(database):
        assert not Path(socket_path(database)).exists()
        with socket.socket(socket.AF_UNIX) as living:
            living.bind(socket_path(database))
        with pytest.raises(UnavailableError):
            Ownership.acquire(database)
        assert Path(socket_path(database)).exists()


def test_a_file_that_is_no_socket_is_not_removed(database):
    Path(socket_path(database)).write_text("mine")
    Ownership.acquire(database).abandon()
    assert Path(socket_path(database)).read_text() == "mine"


def test_other_names_of_the_file_have_the_same_owner(database, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.db").symlink_to("semel.db")
    (tmp_path / "folder").symlink_to(".")
    ownership = Ownership.acquire("semel.db")
    for name in ["./semel.db", "link.db", "folder/link.db", database]:
        with pytest.raises(UnavailableError, match="already open in this process"):
            Ownership.acquire(name)
        assert "refused" in try_elsewhere(name)
    ownership.release()


def test_a_database_that_was_moved_while_owned_keeps_its_owner(database, tmp_path):
    database.write_bytes(b"")
    ownership = Ownership.acquire(database)
    shutil.move(database, tmp_path / "moved.db")
    shutil.move(lock_path(database), lock_path(tmp_path / "moved.db"))
    with pytest.raises(UnavailableError, match="already open in this process"):
        Ownership.acquire(tmp_path / "moved.db")
    ownership.release()


def test_a_file_with_two_names_is_refused(database, tmp_path):
    database.write_bytes(b"")
    (tmp_path / "second.db").hardlink_to(database)
    with pytest.raises(UnavailableError, match="2 names"):
        Ownership.acquire(database)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_is_not_the_owner_and_cannot_drop_the_lock(database):
    ownership = Ownership.acquire(database)

    def child(pipe):
        held = ownership.held
        ownership.release()
        ownership.abandon()
        try:
            Ownership.acquire(database)
        except UnavailableError as error:
            pipe.send((held, str(error)))

    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=child, args=(sender,))
    process.start()
    assert receiver.poll(20)
    held, message = receiver.recv()
    process.join(20)
    assert not held
    assert f"process {os.getpid()} owns it" in message
    assert ownership.held
    assert "refused" in try_elsewhere(database)
    ownership.release()


def test_a_fork_that_outlives_the_owner_can_become_the_owner(database):
    script = """
    import os, sys, time
    from semel.errors import UnavailableError
    from semel.runtime.owner import Ownership
    ownership = Ownership.acquire(sys.argv[1])
    if os.fork():
        os._exit(0)
    for _ in range(100):
        try:
            mine = Ownership.acquire(sys.argv[1])
        except UnavailableError:
            time.sleep(0.02)
        else:
            ownership.release()
            del ownership
            print("held", flush=True)
            break
    sys.stdin.read()
    """
    with python(script, str(database)) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UnavailableError, match="owns it"):
            Ownership.acquire(database)
        process.stdin.close()
        process.stdout.read()


def test_a_directory_that_cannot_be_written_is_named(database, tmp_path):
    tmp_path.chmod(0o555)
    for folder in [tmp_path.parent, tmp_path.parent.parent]:
        folder.chmod(0o755)
    answer = try_elsewhere(database, user=65534)
    assert "refused definite=True" in answer
    assert f"expected to be able to write in {str(tmp_path)!r}" in answer


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(UnavailableError, match=r"expected a directory at .*gone'; create it") as refused:
        Ownership.acquire(tmp_path / "gone" / "semel.db")
    assert refused.value.definite


def test_a_directory_is_not_a_database(tmp_path):
    with pytest.raises(UnavailableError, match="not a regular file"):
        Ownership.acquire(tmp_path)
    assert not Path(lock_path(tmp_path)).exists()


def test_asking_for_the_owner_of_a_free_file_creates_nothing(database, tmp_path):
    assert owner_of(database) is None
    assert list(tmp_path.iterdir()) == []


def test_the_text_of_the_owner_file_decides_nothing(database):
    Path(lock_path(database)).write_text("pid 1\n\xff garbage\npid x\n")
    assert owner_of(database) is None
    Ownership.acquire(database).release()


def test_only_the_owner_may_lock_the_owner_file(database):
    ownership = Ownership.acquire(database)
    assert Path(lock_path(database)).stat().st_mode & 0o777 == 0o600
    ownership.release()
