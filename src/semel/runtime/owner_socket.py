"""How another process asks the owner of a SQLite file to do something: one call, one answer.

The owner listens on a unix socket beside the database. The kernel allows a path of about a hundred
bytes, so a longer one is bound, and reached, through a symlink of a short name in the temporary
directory, which lives as long as that one system call. The socket itself always lies beside the
database: who can see the file (a container that mounts it, too) can see its owner.

A connection carries one request and one answer, each a frame: four bytes of length, big-endian,
then that many bytes of msgpack. A client that hangs up withdraws its request: the handler is
cancelled, as any awaiting caller can be. Peers of another user are refused.

Errors travel as the name of a class of `semel.errors`, its message and its plain attributes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from semel import errors
from semel.errors import LimitExceededError, SemelError, UnavailableError, ValidationError
from semel.runtime.owner import Owner, owner_of, refusal, socket_path

FRAME_BYTES_MAX = 16 * 1024 * 1024
CONNECTIONS_MAX = 64
TRANSFER_S_MAX = 10.0
ACCEPT_PAUSE_S = 1.0
PATH_BYTES_MAX = 100
CONNECT_S_MAX = 2.0
RETRY_S = 0.02

Argument = bytes | str | int | None
Handler = Callable[[str, dict[str, Any]], Awaitable[Any]]
_log = logging.getLogger("semel.owner")
_LENGTH = struct.Struct(">I")
_CLASSES = {
    name: found for name, found in vars(errors).items() if isinstance(found, type) and issubclass(found, SemelError)
}


class Request(Struct, frozen=True):
    """What a client asks for."""

    method: str
    arguments: dict[str, Any] = {}

    def __post_init__(self) -> None:
        for name, value in self.arguments.items():
            if not isinstance(value, Argument):
                raise TypeError(f"argument {name!r} is of type {type(value).__name__}")


class Fault(Struct, frozen=True):
    """An error of semel as it travels: class name, message, and what else its instance keeps."""

    type: str
    message: str
    definite: bool
    fields: dict[str, bool | int | float | str | None] = {}


class Answer(Struct, frozen=True):
    """What the handler returned, or the error it raised."""

    ok: Any = None
    error: Fault | None = None


class OwnerSocket:
    """Listens beside a database and hands each request to `handler`, until `stop`.

    Only who holds the `Ownership` of the file may start one. `handler` raises what the caller is to
    see, ValidationError for a method it does not have, and must bear being cancelled. Its argument
    values are bytes, str, int or None; what it returns must be msgpack of at most FRAME_BYTES_MAX.
    """

    def __init__(self, path: str | os.PathLike[str], handler: Handler) -> None:
        self.path = socket_path(path)
        self._handler = handler
        self._listening: socket.socket | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises UnavailableError, definite, if no socket can be made beside the database."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.settimeout(0)
            _bind(listening, self.path)
            listening.listen(CONNECTIONS_MAX)
        except OSError as error:
            listening.close()
            raise refusal(
                f"owner socket {self.path!r}: it cannot be bound ({error}); expected a file system that "
                f"keeps unix sockets; without it commands cannot reach this engine"
            ) from error
        self._listening = listening
        self._watch()

    async def stop(self) -> None:
        """Stop listening and cancel the requests that still run. The file goes with the ownership."""
        listening, self._listening = self._listening, None
        if listening is None:
            return
        asyncio.get_running_loop().remove_reader(listening)
        listening.close()
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    # An asyncio.Server loses a connection that it accepted and did not attach yet when it closes.
    # Accepting in a plain callback leaves no such moment: a connection is a task of ours, or none.

    def _watch(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().add_reader(self._listening, self._accept, self._listening)

    def _accept(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            _log.warning("the owner socket accepts nobody for %g s: %s", ACCEPT_PAUSE_S, error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listening)
            loop.call_later(ACCEPT_PAUSE_S, self._watch)
            return
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        task.add_done_callback(lambda _: connection.close())

    async def _serve(self, connection: socket.socket) -> None:
        """One connection, to its end. Nothing that the client does comes out of here."""
        connection.settimeout(0)
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            answer = await self._answer(reader, writer)
            if answer is not None:
                writer.write(_frame(_encode(answer)))
            writer.close()
            async with asyncio.timeout(TRANSFER_S_MAX):
                await writer.wait_closed()
        except (OSError, TimeoutError) as error:
            _log.info("a client of the owner socket went away: %r", error)
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answer | None:
        """The answer to send, or None if nobody is there to read it."""
        try:
            if len(self._connections) > CONNECTIONS_MAX:
                raise refusal(
                    f"owner socket {self.path!r}: {CONNECTIONS_MAX} requests are open, and that is the limit; "
                    f"nothing was done, try again later"
                )
            _check_peer(peer_uid(writer.get_extra_info("socket")), self.path)
            request = await _read_request(reader)
            if request is None:
                return None
        except SemelError as error:
            return Answer(error=to_fault(error))
        call = asyncio.ensure_future(_run(self._handler, request))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({call, gone}, return_when=asyncio.FIRST_COMPLETED)
            return call.result() if call.done() else None
        finally:
            call.cancel()
            gone.cancel()
            await asyncio.gather(call, gone, return_exceptions=True)


def call(
    path: str | os.PathLike[str],
    method: str,
    arguments: Mapping[str, Argument],
    *,
    timeout_ms: int | None,
) -> Answer | None:
    """Ask the owner of the database at `path`; None if nobody owns it. Blocks; not for event loops.

    The value is in the answer's `ok`. Raises what the handler raised, by class; LimitExceededError if
    the request is too large to send; UnavailableError if the owner cannot be reached (definite) or
    does not answer within `timeout_ms`, or goes away (not definite: it may have done it).
    """
    try:
        body = msgspec.msgpack.encode(Request(method, dict(arguments)))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValidationError(
            f"request {method!r}: {error}; expected bytes, str, int or None; send one of them"
        ) from None
    if len(body) > FRAME_BYTES_MAX:
        raise LimitExceededError(
            f"request {method!r}: {len(body)} bytes, expected at most {FRAME_BYTES_MAX}; send less, or stop the "
            f"owner of {os.fspath(path)!r} and run the command without it"
        )
    deadline = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
    connected = _connect(path, deadline)
    if connected is None:
        return None
    connection, owner = connected
    with connection:
        try:
            frame = _exchange(connection, _frame(body), deadline)
        except TimeoutError:
            raise UnavailableError(
                f"owner {owner.pid}: no answer to {method!r} within {timeout_ms} ms; it may have done it, or may "
                f"still do it; ask for the outcome, or repeat the request under the same key"
            ) from None
        except OSError as error:
            raise UnavailableError(
                f"owner {owner.pid}: it went away before it answered {method!r} ({error}); it may have done it; "
                f"repeat the request under the same key"
            ) from error
    try:
        answer = msgspec.msgpack.decode(frame, type=Answer)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UnavailableError(
            f"owner {owner.pid}: its answer to {method!r} cannot be read ({error}); expected the same version of "
            f"semel in both processes; install it, and ask for the outcome"
        ) from error
    if answer.error is not None:
        raise from_fault(answer.error)
    return answer


def to_fault(error: SemelError) -> Fault:
    """An error in the form that travels. A class of one's own travels as the nearest one of semel."""
    name = next(found.__name__ for found in type(error).__mro__ if _CLASSES.get(found.__name__) is found)
    fields = {
        field: value
        for field, value in vars(error).items()
        if field != "definite" and isinstance(value, bool | int | float | str | None)
    }
    # A message may quote a string that no encoding knows: half a surrogate pair is spelled out.
    message = str(error).encode(errors="backslashreplace").decode()
    return Fault(name, message, error.definite, fields)


def from_fault(fault: Fault) -> SemelError:
    """The error again. The class comes from a list, and nothing but plain attributes is set on it."""
    found = _CLASSES.get(fault.type)
    if found is None:
        found, message = SemelError, f"{fault.type}: {fault.message}"
    else:
        message = fault.message
    error = found.__new__(found, message)
    for field, value in fault.fields.items():
        if field.isidentifier() and not field.startswith("_") and not hasattr(Exception, field):
            setattr(error, field, value)
    if error.definite != fault.definite:
        error.definite = fault.definite
    return error


def peer_uid(connection: Any) -> int | None:
    """The user at the other end, where the system says."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return int(uid)


@contextlib.contextmanager
def short_name(path: str, *, room: int = 0) -> Iterator[str]:
    """A name of `path` that leaves `room` bytes of what a socket address holds."""
    if len(os.fsencode(path)) + room <= PATH_BYTES_MAX:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="semel-") as folder:
        link = Path(folder) / "s"
        link.symlink_to(path)
        yield str(link)


def _bind(listening: socket.socket, path: str) -> None:
    """Bind under a short name of its own, and move it into place when only its user can reach it.

    Between bind and listen nobody can connect, so the socket is never open to others.
    """
    folder, name = str(Path(path).parent), f".semel-{os.getpid()}"
    with short_name(folder, room=len(name) + 1) as short:
        bound = Path(short) / name
        bound.unlink(missing_ok=True)
        listening.bind(str(bound))
        bound.chmod(0o600)
    (Path(folder) / name).rename(path)


def _check_peer(uid: int | None, path: str) -> None:
    if uid is not None and uid != os.geteuid():
        raise refusal(
            f"owner socket {path!r}: the caller is user {uid}, expected user {os.geteuid()}, who runs the engine; "
            f"run the command as that user"
        )


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    """The request of this connection; None if the client left before it was whole."""
    try:
        async with asyncio.timeout(TRANSFER_S_MAX):
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            if length > FRAME_BYTES_MAX:
                raise LimitExceededError(
                    f"request: a frame of {length} bytes, expected at most {FRAME_BYTES_MAX}; send less"
                )
            body = await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        return None
    except TimeoutError:
        raise ValidationError(
            f"request: half a frame after {TRANSFER_S_MAX:g} s, expected a whole one; send it again"
        ) from None
    try:
        return msgspec.msgpack.decode(body, type=Request)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ValidationError(
            f"request: it cannot be read ({error}), expected msgpack of a method and its arguments; "
            f"use the same version of semel in both processes"
        ) from None


async def _run(handler: Handler, request: Request) -> Answer:
    """Call the handler. Whatever it raises becomes an answer; only cancellation passes."""
    try:
        return Answer(ok=await handler(request.method, request.arguments))
    except asyncio.CancelledError:
        raise
    except SemelError as error:
        return Answer(error=to_fault(error))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        _log.exception("request %r of another process failed", request.method)
        return Answer(
            error=to_fault(
                UnavailableError(
                    f"request {request.method!r}: the owner failed with {type(error).__name__}: {error}; it may have "
                    f"done a part; its log has the rest"
                )
            )
        )


def _encode(answer: Answer) -> bytes:
    try:
        body = msgspec.msgpack.encode(answer)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        _log.exception("an answer of the owner cannot be sent")
        body, what = b"", f"cannot be sent ({error})"
    else:
        if len(body) <= FRAME_BYTES_MAX:
            return body
        what = f"has {len(body)} bytes, more than the {FRAME_BYTES_MAX} that can be sent"
    error_sent = LimitExceededError(
        f"answer: it {what}; the request was done; read the outcome with `semel executions get`"
    )
    error_sent.definite = False
    return msgspec.msgpack.encode(Answer(error=to_fault(error_sent)))


def _frame(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


def _connect(path: str | os.PathLike[str], deadline: float | None) -> tuple[socket.socket, Owner] | None:
    """A connection to the living owner, who may be about to listen; None if there is none."""
    give_up = time.monotonic() + CONNECT_S_MAX
    if deadline is not None:
        give_up = min(give_up, deadline)
    while True:
        # The lock decides, not the socket: a fork of a dead owner keeps its socket open.
        owner = owner_of(path)
        if owner is None:
            return None
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_name(owner.socket) as short:
                connection.settimeout(max(give_up - time.monotonic(), RETRY_S))
                connection.connect(short)
        except OSError as error:
            connection.close()
            if isinstance(error, PermissionError) or time.monotonic() >= give_up:
                raise refusal(
                    f"store {os.fspath(path)!r}: process {owner.pid} owns it and cannot be reached on "
                    f"{owner.socket!r} ({error}); run the command as its user, or stop that process and try again"
                ) from error
            time.sleep(RETRY_S)
        except BaseException:
            connection.close()
            raise
        else:
            return connection, owner


def _exchange(connection: socket.socket, request: bytes, deadline: float | None) -> bytes:
    _set_timeout(connection, deadline)
    # An owner that refuses at once may hang up before it has read a long request: its answer counts.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(request)
    (length,) = _LENGTH.unpack(_receive(connection, _LENGTH.size, deadline))
    if length > FRAME_BYTES_MAX:
        raise OSError(f"an answer of {length} bytes, more than the limit of {FRAME_BYTES_MAX}")
    return _receive(connection, length, deadline)


def _receive(connection: socket.socket, size: int, deadline: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        _set_timeout(connection, deadline)
        part = connection.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise ConnectionError("the connection ended")
        parts += part
    return bytes(parts)


def _set_timeout(connection: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        connection.settimeout(None)
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)
