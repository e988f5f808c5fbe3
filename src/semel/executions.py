"""Executions from outside: a handle on one, and the list of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from msgspec import Struct

from semel.errors import (
    ExecutionError,
    ExecutionStoppedError,
    LimitExceededError,
    NotFoundError,
    ParkedError,
    ValidationError,
)
from semel.history import Event, render
from semel.journal import executions as journal
from semel.journal import holding
from semel.journal.advance import unpark
from semel.kernel import values
from semel.kernel.entry import Controlled, Record, Settled, Status
from semel.kernel.mailbox import Mailbox
from semel.store import codec
from semel.store.base import ACTOR, FUNCTION, PARKED, Filter, KeyId, Reader, Stream

T = TypeVar("T")
Events = list[Event]


class ExecutionInfo(Struct, frozen=True):
    """What is known of an execution. `status` is RUNNING, PARKED, SUCCEEDED, FAILED, STOPPED or TIMED_OUT."""

    id: str
    function: str
    name: str
    status: str
    started_ms: int
    ended_ms: int | None = None
    wake_ms: int | None = None
    holder: str | None = None
    version: str = ""
    reason: str = ""
    result: Any = None
    error_type: str = ""
    error_message: str = ""


class Page(Struct, frozen=True):
    """One page of a list, newest first. `next` is what to pass as `after` for the next one, or None."""

    items: list[ExecutionInfo]
    next: int | None = None


class Execution(Generic[T]):
    """A handle on a started execution. `id` is random and never reused, `name` is its key."""

    def __init__(self, stream: Stream, wait: Callable[[], Awaitable[Settled]]) -> None:
        self.id = stream.uid
        self.name = stream.key
        self.function = stream.name
        self._wait = wait

    async def result(self) -> T:
        """Wait for the outcome. Raises ExecutionError, ExecutionStoppedError, or ReplayError if it is parked."""
        result: T = outcome_value(self.name, await self._wait())
        return result

    def __repr__(self) -> str:
        return f"<Execution {self.function} {self.name!r} {self.id}>"


def outcome_value(name: str, settled: Settled) -> Any:
    """What a caller gets of a recorded outcome: the value, or the failure raised."""
    if settled.status is Status.SUCCEEDED:
        return None if settled.result is None else values.decode(settled.result.data)
    error = settled.error
    error_type, message = ("Error", "") if error is None else (error.type, error.message)
    if settled.status is Status.STOPPED:
        raise ExecutionStoppedError(name, error_type, message)
    raise ExecutionError(name, error_type, message)


def parked_reason(reader: Reader, stream: Stream) -> str:
    """Why a stream is out of service."""
    # Messages may have arrived since. What was parked had been read from its base.
    for row in reversed(reader.rows(stream.number, first=stream.base)):
        for entry in codec.decode(row.body, stream=row.stream, seq=row.seq).entries:
            if isinstance(entry, Controlled):
                return entry.reason
    return ""


def parked_error(reader: Reader, stream: Stream) -> ParkedError:
    """The error of whoever waits for a parked stream."""
    return ParkedError(
        f"{stream.name} {stream.key!r} is parked: {parked_reason(reader, stream)}; nothing is lost: "
        f"mend the cause, then `semel executions resume {stream.uid}`"
    )


class Executions:
    """The executions of a store, as `engine.executions`, and what may be done to them."""

    def __init__(
        self,
        reader: Callable[[], Reader],
        run: Callable[..., Awaitable[Any]],
        *,
        namespace: str,
        now_ms: Callable[[], int],
        told: Callable[[Stream, Settled | None], None],
        page_max: int,
    ) -> None:
        self._reader = reader
        self._run = run
        self._namespace = namespace
        self._now_ms = now_ms
        self._told = told
        self._page_max = page_max

    async def list(
        self, *, function: str | None = None, status: str | None = None, after: int | None = None, limit: int = 100
    ) -> Page:
        """A page of executions, newest first. Raises LimitExceededError for a page over `Limits.page_max`."""
        return list_executions(
            self._reader(),
            Filter(FUNCTION, self._namespace, function, status, after, check_page(limit, self._page_max)),
        )

    async def get(self, which: str, *, function: str | None = None) -> ExecutionInfo:
        """One execution by id, or by name within `function`. Raises NotFoundError."""
        reader = self._reader()
        return describe(reader, find(reader, which, namespace=self._namespace, function=function))

    async def history(self, which: str, *, function: str | None = None) -> Events:
        """The events of one execution, in AWS's terms. Raises NotFoundError."""
        reader = self._reader()
        stream = find(reader, which, namespace=self._namespace, function=function)
        return render(read_all(reader, stream))

    async def stop(self, which: str, *, function: str | None = None, reason: str = "") -> ExecutionInfo:
        """End an execution as STOPPED, durable when this returns. One that has an outcome keeps it.

        A step body that runs goes on until it ends; its result is dropped. Raises NotFoundError.
        """
        found = find(self._reader(), which, namespace=self._namespace, function=function)
        now_ms = self._now_ms()
        stream = await self._run(
            lambda transaction: journal.stop(transaction, found.number, reason=reason, now_ms=now_ms)
        )
        settled = journal.outcome_in(self._reader(), stream)
        self._told(stream, settled)
        return describe(self._reader(), stream)

    async def resume(self, which: str, *, function: str | None = None, reason: str = "") -> ExecutionInfo:
        """Put a parked execution back in service: it is replayed. Others stay as they are. Raises NotFoundError."""
        found = find(self._reader(), which, namespace=self._namespace, function=function)
        now_ms = self._now_ms()
        stream = await self._run(lambda transaction: unpark(transaction, found.number, reason=reason, now_ms=now_ms))
        self._told(stream, None)
        return describe(self._reader(), stream)


def check_page(limit: int, page_max: int) -> int:
    """Return the limit, or raise LimitExceededError or ValidationError."""
    if limit < 1:
        raise ValidationError(f"page limit: found {limit}, expected 1 to {page_max}")
    if limit > page_max:
        raise LimitExceededError(f"page limit: found {limit}, expected 1 to {page_max}; ask for several pages")
    return limit


def list_executions(reader: Reader, which: Filter) -> Page:
    """A page of executions without their results."""
    streams = reader.list(which)
    following = streams[-1].number if len(streams) == which.limit else None
    return Page([_info(stream) for stream in streams], following)


def find(reader: Reader, which: str, *, namespace: str, function: str | None, type: str = FUNCTION) -> Stream:
    """The stream with an id, or a name within a function. Raises NotFoundError."""
    stream = reader.stream_by_uid(which)
    if stream is None and function is not None:
        key = reader.key(KeyId(namespace, journal.operation_of(function), which))
        stream = None if key is None else reader.stream(key.stream)
    if stream is None or stream.type != type:
        hint = "" if function is not None else "; give the function too to look it up by name"
        raise NotFoundError(f"execution {which!r}: there is none in namespace {namespace!r}{hint}")
    return stream


def read_all(reader: Reader, stream: Stream) -> list[Record]:
    """Every record of a stream, from the first."""
    records: list[Record] = []
    for row in reader.rows(stream.number):
        records.extend(codec.records(codec.decode(row.body, stream=row.stream, seq=row.seq), seq=row.seq))
    return records


def describe(reader: Reader, stream: Stream) -> ExecutionInfo:
    """An execution with its outcome, or the reason why it is parked."""
    if stream.status == PARKED:
        return _info(stream, reason=parked_reason(reader, stream))
    settled = journal.outcome_in(reader, stream)
    if settled is None:
        return _info(stream)
    result = None if settled.result is None else values.decode(settled.result.data)
    if settled.error is None:
        return _info(stream, result=result)
    return _info(stream, error_type=settled.error.type, error_message=settled.error.message)


def _info(stream: Stream, **more: Any) -> ExecutionInfo:
    return ExecutionInfo(
        stream.uid,
        stream.name,
        stream.key,
        stream.status,
        stream.created_ms,
        stream.ended_ms,
        stream.wake_ms,
        stream.holder,
        stream.version,
        **more,
    )


class ActorInfo(Struct, frozen=True):
    """What is known of an actor. `open_messages` counts those that have no reply yet."""

    id: str
    type: str
    key: str
    status: str
    created_ms: int
    wake_ms: int | None = None
    holder: str | None = None
    turn: str = ""
    open_messages: int | None = None
    state: Any = None


def list_actors(reader: Reader, *, namespace: str, type: str | None, after: int | None, limit: int) -> list[ActorInfo]:
    """A page of actors, newest first."""
    return [_actor(stream) for stream in reader.list(Filter(ACTOR, namespace, type, None, after, limit))]


def describe_actor(reader: Reader, stream: Stream) -> ActorInfo:
    """An actor with its last recorded state and the number of its open messages."""
    mailbox = Mailbox.of(holding.read(reader, stream))
    state = None if mailbox.snapshot is None else values.decode(mailbox.snapshot.data)
    return _actor(stream, open_messages=len(mailbox), state=state)


def _actor(stream: Stream, **more: Any) -> ActorInfo:
    return ActorInfo(
        stream.uid,
        stream.name,
        stream.key,
        stream.status,
        stream.created_ms,
        stream.wake_ms,
        stream.holder,
        stream.turn,
        **more,
    )
