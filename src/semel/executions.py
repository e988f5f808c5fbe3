"""Executions from outside: a handle on one, and the list of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from semel.errors import (
    ExecutionError,
    ExecutionStoppedError,
    ExecutionTimedOutError,
    JournalCorruptError,
    NotFoundError,
    ParkedError,
)
from semel.history import Event, render
from semel.journal import chunks, holding, lifecycle
from semel.journal import executions as journal
from semel.journal.outcomes import outcome_in
from semel.kernel import values
from semel.kernel.entry import Control, Controlled, Record, Settled, Status
from semel.kernel.mailbox import Mailbox
from semel.listing import ExecutionInfo, Page, Wanted, info_of, list_executions
from semel.store import codec
from semel.store.base import ACTOR, FUNCTION, PARKED, PAUSED, Filter, KeyId, Needs, Reader, Stream, Transaction

T = TypeVar("T")
Events = list[Event]
ANY: Final = ""  # streams of every type


class Execution(Generic[T]):
    """A handle on a started execution. `id` is random and never reused, `name` is its key."""

    def __init__(self, stream: Stream, wait: Callable[[], Awaitable[Settled]]) -> None:
        self.id = stream.uid
        self.name = stream.key
        self.function = stream.name
        self._wait = wait

    async def result(self) -> T:
        """Wait for the outcome. Raises ExecutionError (also for a stop or time-out), or ReplayError if parked."""
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
    if settled.status is Status.TIMED_OUT:
        raise ExecutionTimedOutError(name, error_type, message)
    raise ExecutionError(name, error_type, message)


def control_of(reader: Reader, stream: Stream) -> Controlled:
    """The entry that paused a stream or took it out of service; an empty one if there is none."""
    # Messages may have arrived since. What was parked had been read from its base.
    for row in reversed(reader.rows(stream.number, first=stream.base)):
        for entry in codec.decode(row.body, stream=row.stream, seq=row.seq).entries:
            if isinstance(entry, Controlled) and entry.action is not Control.UNPIN:
                return entry
    return Controlled(Control.PARK)


def parked_error(reader: Reader, stream: Stream) -> ParkedError:
    """The error of whoever waits for a parked stream."""
    parked = control_of(reader, stream)
    said = (
        f"{stream.name} {stream.key!r} is parked: {parked.reason}; nothing is lost: "
        f"mend the cause, then `semel executions resume {stream.uid}`"
    )
    if parked.report is not None:
        said = f"{said}\n\n{parked.report.text(stream=stream.uid)}"
    return ParkedError(said, parked.report)


def deleted_outcome(reader: Reader, stream: Stream) -> Settled:
    """The outcome of an execution that was deleted, while its key is kept. Raises NotFoundError."""
    key = reader.key(lifecycle.key_of(stream))
    if key is None or key.operation != stream.uid or key.outcome is None:
        raise NotFoundError(f"execution {stream.key!r}: it was deleted, and its outcome is no longer kept")
    return journal.kept_outcome(key)


def is_there(reader: Reader, stream: Stream) -> bool:
    """Whether a stream has not been deleted since it was read."""
    now = reader.stream(stream.number)
    return now is not None and now.uid == stream.uid


def unless_deleted(reader: Reader, stream: Stream, read: Callable[[], T]) -> T:
    """What `read` reads of a stream. Raises NotFoundError if that was deleted meanwhile, and what `read` raises."""
    try:
        return read()
    except JournalCorruptError:
        if is_there(reader, stream):
            raise
        raise NotFoundError(f"execution {stream.key!r}: it was deleted while it was looked at") from None


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
        retention_of: Callable[[str], int],
    ) -> None:
        self._reader = reader
        self._run = run
        self._namespace = namespace
        self._now_ms = now_ms
        self._told = told
        self._page_max = page_max
        self._retention_of = retention_of

    async def list(
        self,
        *,
        function: str | None = None,
        status: str | Sequence[str] | None = None,
        started_after_ms: int | None = None,
        started_before_ms: int | None = None,
        name_prefix: str = "",
        after: str | None = None,
        limit: int = 100,
        oldest_first: bool = False,
    ) -> Page:
        """A page of executions, newest first unless told otherwise; `after` is `next` of the page before.

        `status` is one or several; started at or after the one time, and before the other. Raises
        LimitExceededError for a page over `Limits.page_max`, ValidationError.
        """
        wanted = Wanted(
            namespace=self._namespace,
            page_max=self._page_max,
            function=function,
            status=status,
            started_after_ms=started_after_ms,
            started_before_ms=started_before_ms,
            name_prefix=name_prefix,
            after=after,
            limit=limit,
            oldest_first=oldest_first,
        )
        return list_executions(self._reader(), wanted)

    async def get(self, which: str, *, function: str | None = None) -> ExecutionInfo:
        """One execution by id, or by name within `function`. Raises NotFoundError."""
        reader = self._reader()
        return describe(reader, find(reader, which, namespace=self._namespace, function=function))

    async def history(
        self,
        which: str,
        *,
        function: str | None = None,
        after: int | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> Events:
        """The events of one execution, in AWS's terms; all of them, unless a page is asked for.

        A page has up to `limit` events that follow event `after`; with `reverse` the last one comes first,
        and `after` is followed by those before it. Raises NotFoundError, ValidationError.
        """
        reader = self._reader()
        stream = find(reader, which, namespace=self._namespace, function=function)
        return unless_deleted(
            reader,
            stream,
            lambda: render(
                read_all(reader, stream),
                after=after,
                limit=limit,
                reverse=reverse,
                read=lambda payload: chunks.value(reader, stream.number, payload),
            ),
        )

    async def stop(
        self, which: str, *, function: str | None = None, reason: str = "", children: bool = False
    ) -> ExecutionInfo:
        """End an execution as STOPPED, durable when this returns. One that has an outcome keeps it.

        A step body that runs goes on until it ends; its result is dropped. What it has invoked goes on,
        unless `children` are to be stopped with it, in the same transaction. Raises NotFoundError.
        """
        if not children:
            return await self._control(lifecycle.stop, which, function=function, reason=reason)
        found = find(self._reader(), which, namespace=self._namespace, function=function)
        now_ms = self._now_ms()

        def call(transaction: Transaction) -> list[tuple[Stream, Settled | None]]:
            stopped = lifecycle.stop_with_children(transaction, found.number, reason=reason, now_ms=now_ms)
            return [(stream, whole_outcome_in(transaction, stream)) for stream in stopped]

        stopped = await self._run(call, needs=Needs((found.number,)))
        for stream, settled in stopped:
            self._told(stream, settled)
        return _described(self._reader(), *stopped[0])

    async def pause(
        self, which: str, *, function: str | None = None, reason: str = "", timeout_paused: bool = True
    ) -> ExecutionInfo:
        """Let no step begin any more until `resume`; PAUSING until what runs has ended, then PAUSED.

        Waits, callbacks and retries that come due meanwhile take effect after the resume.
        `timeout_paused`: the time until then does not count towards the execution's timeout. A paused
        one stays as it is. Raises WrongStatusError for one that has ended or is parked, NotFoundError.
        """
        pause = partial(lifecycle.pause, holds_clock=timeout_paused)
        return await self._control(pause, which, function=function, reason=reason)

    async def resume(self, which: str, *, function: str | None = None, reason: str = "") -> ExecutionInfo:
        """Put a paused or parked execution, or a parked actor by its id, back in service.

        Raises WrongStatusError for one that runs or has ended, NotFoundError.
        """
        return await self._control(lifecycle.resume, which, function=function, reason=reason, type=ANY)

    async def unpin(self, which: str, *, function: str | None = None, reason: str = "") -> ExecutionInfo:
        """Let a pinned execution go on under whatever version of its function there is; its replay is checked.

        One that is not pinned stays as it is. Raises WrongStatusError for one that has ended, NotFoundError.
        """
        return await self._control(lifecycle.unpin, which, function=function, reason=reason)

    async def delete(self, which: str, *, function: str | None = None) -> ExecutionInfo:
        """Remove an execution that has ended, and its history. Returns what there was of it.

        Until its key expires, the same request still gets its outcome, and another is refused. Raises
        WrongStatusError for one that has not ended, NotFoundError.
        """
        reader = self._reader()
        found = find(reader, which, namespace=self._namespace, function=function)
        info = describe(reader, found)
        now_ms, retention_ms = self._now_ms(), self._retention_of(found.name)
        await self._run(
            lambda transaction: lifecycle.delete(transaction, found.number, retention_ms=retention_ms, now_ms=now_ms),
            needs=Needs((found.number,), (lifecycle.key_of(found),)),
        )
        return info

    async def forget_key(self, name: str, *, function: str) -> None:
        """Free the name of an execution that has ended or was deleted: the next request under it is a new one.

        Raises WrongStatusError while it has no outcome, NotFoundError.
        """
        key = KeyId(self._namespace, journal.operation_of(function), name)
        await self._run(lambda transaction: lifecycle.forget_key(transaction, key), needs=Needs(keys=(key,)))

    async def _control(
        self,
        control: Callable[..., Stream],
        which: str,
        *,
        function: str | None,
        reason: str,
        type: str = FUNCTION,
    ) -> ExecutionInfo:
        """Do it in a transaction of its own, and tell whoever runs or awaits the execution."""
        found = find(self._reader(), which, namespace=self._namespace, function=function, type=type)
        now_ms = self._now_ms()

        def call(transaction: Transaction) -> tuple[Stream, Settled | None]:
            stream = control(transaction, found.number, reason=reason, now_ms=now_ms)
            # Read here: by the time that this is committed, someone may have deleted it.
            return stream, whole_outcome_in(transaction, stream)

        stream, settled = await self._run(call, needs=Needs((found.number,)))
        self._told(stream, settled)
        return _described(self._reader(), stream, settled)


def whole_outcome_in(transaction: Transaction, stream: Stream) -> Settled | None:
    """The outcome of an execution with its bytes, or None while it has none."""
    settled = outcome_in(transaction, stream)
    return settled and chunks.whole_outcome(transaction, stream.number, settled)


def find(reader: Reader, which: str, *, namespace: str, function: str | None, type: str = FUNCTION) -> Stream:
    """The stream with an id, or a name within a function. An actor only if the type says so. Raises NotFoundError."""
    stream = reader.stream_by_uid(which)
    if stream is None and function is not None:
        key = reader.key(KeyId(namespace, journal.operation_of(function), which))
        stream = None if key is None else reader.stream(key.stream)
        if stream is not None and key is not None and stream.uid != key.operation:
            stream = None  # it was deleted, and its number is another's by now
    if stream is None or type not in (ANY, stream.type):
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
    return unless_deleted(reader, stream, lambda: _described(reader, stream, outcome_in(reader, stream)))


def _described(reader: Reader, stream: Stream, settled: Settled | None) -> ExecutionInfo:
    if stream.status in (PARKED, PAUSED):
        control = control_of(reader, stream)
        return info_of(stream, reason=control.reason, report=control.report)
    if settled is None:
        return info_of(stream)
    result = chunks.value(reader, stream.number, settled.result)
    if settled.error is None:
        return info_of(stream, result=result)
    return info_of(stream, error_type=settled.error.type, error_message=settled.error.message)


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
    state = chunks.value(reader, stream.number, mailbox.snapshot)
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
