"""Asking the owner of a file from another process: what arrives, and what cannot hurt it."""

import asyncio
import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

import semel
from semel import errors
from semel.errors import (
    IdempotencyConflictError,
    IllegalTransitionError,
    LimitExceededError,
    NotFoundError,
    StepError,
    UnavailableError,
    ValidationError,
)
from semel.runtime import owner_socket
from semel.runtime.owner import Ownership, socket_path
from semel.runtime.owner_socket import Answer, Fault, OwnerSocket, call, from_fault, to_fault

SERVE = """
import asyncio, os, sys
from semel.runtime.owner import Ownership
from semel.runtime.owner_socket import OwnerSocket

async def handler(method, arguments):
    if method == "die":
        os._exit(1)
    if method == "hang":
        await asyncio.sleep(60)
    return {"method": method, "arguments": arguments, "pid": os.getpid()}

async def main():
    ownership = Ownership.acquire(sys.argv[1])
    server = OwnerSocket(sys.argv[1], handler)
    if "deaf" not in sys.argv:
        await server.start()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()
    ownership.release()

asyncio.run(main())
"""


@contextlib.contextmanager
def owner(path, *options):
    environment = os.environ | {"PYTHONPATH": str(Path(semel.__path__[0]).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(path), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            assert select.select([process.stdout], [], [], 20)[0], "the owner did not start"
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


class Calls:
    """A handler that records what reaches it."""

    def __init__(self):
        self.seen = []
        self.cancelled = 0
        self.open = 0

    async def __call__(self, method, arguments):
        self.seen.append((method, arguments))
        self.open += 1
        try:
            match method:
                case "hang":
                    await asyncio.sleep(60)
                case "conflict":
                    raise IdempotencyConflictError("fn:order", "k-1")
                case "bug":
                    raise KeyError("surprise")
                case "lost":
                    raise errors.LeaseLost("epoch 1")
                case "unknown":
                    raise ValidationError("method 'unknown': expected 'run' or 'stop'")
                case "large":
                    return b"x" * (owner_socket.FRAME_BYTES_MAX + 1)
                case "strange":
                    return object()
            return arguments
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open -= 1


@pytest.fixture
def database(tmp_path):
    return tmp_path / "semel.db"


@pytest.fixture
def serving(database):
    """An owner in this process: its loop runs in a thread, and `calls` is its handler."""
    with serve(database) as calls:
        yield calls


@contextlib.contextmanager
def serve(database):
    calls = Calls()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def wait(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)

    ownership = Ownership.acquire(database)
    server = OwnerSocket(database, calls)
    try:
        wait(server.start())
        yield calls
    finally:
        wait(server.stop())
        ownership.release()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


def connect(database):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    with owner_socket.short_name(socket_path(database)) as short:
        connection.connect(short)
    return connection


def frame(method, arguments=None):
    body = msgspec.msgpack.encode({"method": method, "arguments": arguments or {}})
    return struct.pack(">I", len(body)) + body


def answer(connection) -> Answer:
    data = b""
    while part := connection.recv(65536):
        data += part
    (length,) = struct.unpack(">I", data[:4])
    assert len(data) == 4 + length
    return msgspec.msgpack.decode(data[4:], type=Answer)


def eventually(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def still_answers(database):
    assert call(database, "echo", {"a": 1}, timeout_ms=20_000).ok == {"a": 1}


def test_a_request_reaches_the_owner_in_another_process(database):
    arguments = {"bytes": b"\x00\xff", "text": "ä\n", "number": -(2**63), "nothing": None}
    with owner(database) as process:
        got = call(database, "echo", arguments, timeout_ms=20_000)
    assert got.ok == {"method": "echo", "arguments": arguments, "pid": process.pid}


def test_nobody_owns_the_file(database, tmp_path):
    assert call(database, "echo", {}, timeout_ms=1000) is None
    assert list(tmp_path.iterdir()) == []


def test_a_killed_owner_is_nobody(database):
    with owner(database) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    assert Path(socket_path(database)).is_socket()
    assert call(database, "echo", {}, timeout_ms=1000) is None
    with owner(database) as process:  # and the next one takes its place
        assert call(database, "echo", {}, timeout_ms=20_000).ok["pid"] == process.pid


def test_an_owner_that_closes_removes_its_socket(database):
    with owner(database) as process:
        process.stdin.close()
        process.wait(20)
    assert not Path(socket_path(database)).exists()


def test_an_owner_that_dies_during_the_call_leaves_the_outcome_unknown(database):
    with owner(database) as process, pytest.raises(UnavailableError, match="went away before it answered") as lost:
        call(database, "die", {}, timeout_ms=20_000)
    assert not lost.value.definite
    assert f"owner {process.pid}" in str(lost.value)


def test_a_call_that_takes_too_long_leaves_the_outcome_unknown(database):
    with owner(database), pytest.raises(UnavailableError, match="no answer to 'hang' within 200 ms") as late:
        call(database, "hang", {}, timeout_ms=200)
    assert not late.value.definite


def test_an_owner_that_does_not_listen_is_reported_definitely(database):
    with owner(database, "deaf") as process, pytest.raises(UnavailableError, match="cannot be reached") as deaf:
        call(database, "echo", {}, timeout_ms=200)
    assert deaf.value.definite
    assert f"process {process.pid} owns it" in str(deaf.value)


def test_an_owner_that_is_about_to_listen_is_waited_for(database):
    async def scenario():
        ownership, server = Ownership.acquire(database), OwnerSocket(database, Calls())
        asking = asyncio.create_task(asyncio.to_thread(call, database, "echo", {"a": 1}, timeout_ms=20_000))
        await asyncio.sleep(0.1)
        await server.start()
        got = await asking
        await server.stop()
        ownership.release()
        return got

    assert asyncio.run(scenario()) == Answer(ok={"a": 1})


@pytest.mark.parametrize("length", [60, 90, 120, 400])
def test_a_path_longer_than_a_socket_address_works(tmp_path, length):
    folder = tmp_path
    while len(str(folder)) < length:
        folder = folder / ("d" * min(80, max(1, length - len(str(folder)))))
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / ("n" * 120 + ".db")
    with owner(database) as process:
        assert call(database, "echo", {}, timeout_ms=20_000).ok["pid"] == process.pid
        left = sorted(path.name for path in folder.iterdir())
    assert left == [database.name + "-owner", database.name + "-socket"]


def test_the_socket_is_for_its_user_only(database, serving):
    assert Path(socket_path(database)).stat().st_mode & 0o777 == 0o600
    still_answers(database)


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="the system does not say who the peer is")
def test_a_peer_of_another_user_is_refused(database, serving, monkeypatch):
    monkeypatch.setattr(owner_socket, "peer_uid", lambda connection: os.geteuid() + 1)
    with pytest.raises(UnavailableError, match=f"user {os.geteuid() + 1}, expected user {os.geteuid()}") as refused:
        call(database, "echo", {}, timeout_ms=20_000)
    assert refused.value.definite
    assert serving.seen == []
    monkeypatch.undo()
    with connect(database) as connection:
        assert owner_socket.peer_uid(connection) == os.geteuid()


def test_an_error_arrives_as_the_error_it_was(database, serving):
    with pytest.raises(IdempotencyConflictError) as conflict:
        call(database, "conflict", {}, timeout_ms=20_000)
    assert str(conflict.value) == str(IdempotencyConflictError("fn:order", "k-1"))
    assert (conflict.value.operation, conflict.value.key) == ("fn:order", "k-1")
    with pytest.raises(ValidationError, match="expected 'run' or 'stop'"):
        call(database, "unknown", {}, timeout_ms=20_000)


@pytest.mark.parametrize("method", ["bug", "lost"])
def test_a_handler_that_breaks_does_not_break_the_owner(database, serving, method, caplog):
    with pytest.raises(UnavailableError, match="the owner failed with") as failed:
        call(database, method, {}, timeout_ms=20_000)
    assert not failed.value.definite
    assert "failed" in caplog.text
    still_answers(database)


@pytest.mark.parametrize("method", ["large", "strange"])
def test_an_answer_that_cannot_be_sent_says_that_the_request_was_done(database, serving, method):
    with pytest.raises(LimitExceededError, match="the request was done") as unsent:
        call(database, method, {}, timeout_ms=20_000)
    assert not unsent.value.definite
    still_answers(database)


def test_a_request_that_is_too_large_is_not_sent(database, serving):
    with pytest.raises(LimitExceededError, match="expected at most"):
        call(database, "echo", {"a": b"x" * owner_socket.FRAME_BYTES_MAX}, timeout_ms=20_000)
    assert serving.seen == []


def test_a_large_request_and_answer_pass_whole(database, serving):
    value = os.urandom(5_000_000)
    assert call(database, "echo", {"a": value}, timeout_ms=20_000).ok == {"a": value}


def test_a_value_that_is_no_argument_is_refused_before_it_is_sent(database, serving):
    with pytest.raises(ValidationError, match="expected bytes, str, int or None"):
        call(database, "echo", {"a": object()}, timeout_ms=20_000)
    with pytest.raises(ValidationError):
        call(database, "echo", {"a": "\ud800"}, timeout_ms=20_000)
    assert serving.seen == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"garbage",
        b"\x91" * 100_000,
        msgspec.msgpack.encode(7),
        msgspec.msgpack.encode({"arguments": {}}),
        msgspec.msgpack.encode({"method": "echo", "arguments": {"a": [1]}}),
        msgspec.msgpack.encode({"method": "echo", "arguments": {"a": 1}}) + b"\x00",
        b"\x82\xa6method\xa1\xff\xa9arguments\x80",
    ],
)
def test_garbage_is_refused_and_reaches_no_handler(database, serving, body):
    with connect(database) as connection:
        connection.sendall(struct.pack(">I", len(body)) + body)
        assert answer(connection).error.type == "ValidationError"
    assert serving.seen == []
    still_answers(database)


def test_a_frame_over_the_limit_is_refused_unread(database, serving):
    with connect(database) as connection:
        connection.sendall(b"\xff\xff\xff\xff" + b"x" * 10_000)
        assert answer(connection).error.type == "LimitExceededError"
    still_answers(database)


@pytest.mark.parametrize("part", [b"", b"\x00\x00", frame("echo")[:-1]])
def test_half_a_frame_reaches_no_handler(database, serving, part):
    with connect(database) as connection:
        connection.sendall(part)
    still_answers(database)
    assert [method for method, _ in serving.seen] == ["echo"]


def test_half_a_frame_does_not_keep_a_place_for_ever(database, serving, monkeypatch):
    monkeypatch.setattr(owner_socket, "TRANSFER_S_MAX", 0.1)
    with connect(database) as connection:
        connection.sendall(b"\x00")
        assert "half a frame" in answer(connection).error.message


def test_a_client_that_hangs_up_withdraws_its_request(database, serving):
    with connect(database) as connection:
        connection.sendall(frame("hang"))
        eventually(lambda: serving.open == 1)
    eventually(lambda: serving.open == 0)
    assert serving.cancelled == 1
    still_answers(database)


def test_a_client_that_does_not_read_its_answer_does_not_hold_up_others(database, serving, monkeypatch):
    monkeypatch.setattr(owner_socket, "TRANSFER_S_MAX", 0.5)
    with connect(database) as connection:
        connection.sendall(frame("echo", {"a": b"x" * 4_000_000}))
        eventually(lambda: serving.seen)
        still_answers(database)
        time.sleep(0.6)
    still_answers(database)


def test_more_requests_than_the_limit_are_refused_definitely(database, serving, monkeypatch):
    monkeypatch.setattr(owner_socket, "CONNECTIONS_MAX", 3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(database)).sendall(frame("hang"))
        eventually(lambda: serving.open == 3)
        with pytest.raises(UnavailableError, match="3 requests are open") as refused:
            call(database, "echo", {}, timeout_ms=20_000)
        assert refused.value.definite
    eventually(lambda: serving.open == 0)
    still_answers(database)


def test_stopping_ends_open_requests_and_loses_no_time(database):
    with contextlib.ExitStack() as stack:
        with serve(database) as calls:
            waiting = stack.enter_context(connect(database))
            waiting.sendall(frame("hang"))
            eventually(lambda: calls.open == 1)
            started = time.monotonic()
        assert calls.cancelled == 1
        assert time.monotonic() - started < 5
        assert waiting.recv(1) == b""
    assert not Path(socket_path(database)).exists()


def test_an_old_socket_that_stops_leaves_the_new_owners_socket(database):
    async def scenario():
        old_owner, old = Ownership.acquire(database), OwnerSocket(database, Calls())
        await old.start()
        old_owner.abandon()
        new_owner, new = Ownership.acquire(database), OwnerSocket(database, Calls())
        await new.start()
        await old.stop()
        old_owner.release()
        got = await asyncio.to_thread(call, database, "echo", {"a": 1}, timeout_ms=20_000)
        await new.stop()
        new_owner.release()
        return got

    assert asyncio.run(scenario()) == Answer(ok={"a": 1})


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("execution 'x': none"),
        StepError("charge", "CardDeclined", "no"),
        errors.ExecutionStoppedError("order", "Stopped", "by a person"),
        IllegalTransitionError("1-2", "STEP", "SUCCEED", "PENDING"),
        errors.NonDeterminismError("1", "STEP a", "STEP b"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_the_journey(error):
    there = msgspec.msgpack.decode(msgspec.msgpack.encode(to_fault(error)), type=Fault)
    back = from_fault(there)
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


def test_every_error_has_a_name_that_is_known_at_the_other_end():
    for found in vars(errors).values():
        if isinstance(found, type) and issubclass(found, errors.SemelError):
            assert from_fault(Fault(found.__name__, "m", definite=found.definite)).__class__ is found


def test_an_error_that_is_definite_for_once_stays_so():
    error = UnavailableError("owned")
    error.definite = True
    assert from_fault(to_fault(error)).definite
    assert not from_fault(to_fault(UnavailableError("?"))).definite


def test_an_error_class_of_a_users_own_travels_as_the_nearest_of_ours():
    class MissingOrderError(NotFoundError):
        pass

    assert type(from_fault(to_fault(MissingOrderError("gone")))) is NotFoundError


@pytest.mark.parametrize("name", ["os.system", "SystemExit", "LeaseLost", "annotations", "SemelErrors", ""])
def test_a_name_that_is_no_error_of_ours_becomes_the_root(name):
    error = from_fault(Fault(name, "m", definite=False, fields={"__class__": "x", "args": "y", "ok": 1}))
    assert type(error) is errors.SemelError
    assert str(error) == f"{name}: m"
    assert error.ok == 1
    assert not error.definite
