"""Executions from outside: a handle on one, and the list of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from semel.errors import (
    ExecutionError,
    ExecutionStoppedError,
    ExecutionTimedOutError,
    LimitExceededError,
    NotFoundError,
    ParkedError,
    ValidationError,
)
from semel.history import Event, render
from semel.journal import executions as journal
from semel.journal import holding, lifecycle
from semel.journal.outcomes import outcome_in
from semel.kernel import values
from semel.kernel.entry import Control, Controlled, Record, Settled, Status
from semel.kernel.mailbox import Mailbox
from semel.kernel.report import DivergenceReport
from semel.runtime.worker import versions_at_hand
from semel.store import codec
from semel.store.base import (
    ACTOR,
    FUNCTION,
    PARKED,
    PAUSED,
    PAUSING,
    RUNNING,
    Filter,
    KeyId,
    Needs,
    Reader,
    Stream,
    Transaction,
)

T = TypeVar("T")
Events = list[Event]
ANY: Final = ""  # streams of every type


class ExecutionInfo(Struct, frozen=True):
    """What is known of an execution.

    `status` is RUNNING, PAUSING, PAUSED, PARKED, SUCCEEDED, FAILED, STOPPED or TIMED_OUT. `reason` is why
    it is paused or parked, in a sentence; `report` is the whole where code and journal disagree.
    `version` is that of the code it began with; if `is_pinned`, no other may run it, and `waiting_for`
    is that version while no worker has it.
    """

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
    report: DivergenceReport | None = None
    result: Any = None
    error_type: str = ""
    error_message: str = ""
    is_pinned: bool = False
    waiting_for: str = ""


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


def shown_status(stream: Stream) -> str:
    """The status as people see it: a paused execution is PAUSING while somebody holds it."""
    return PAUSING if stream.status == PAUSED and stream.holder is not None else stream.status


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
        return await self._control(lifecycle.stop, which, function=function, reason=reason)

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
            return stream, outcome_in(transaction, stream)

        stream, settled = await self._run(call, needs=Needs((found.number,)))
        self._told(stream, settled)
        return _described(self._reader(), stream, settled)


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
    """The stream with an id, or a name within a function. An actor only if the type says so. Raises NotFoundError."""
    stream = reader.stream_by_uid(which)
    if stream is None and function is not None:
        key = reader.key(KeyId(namespace, journal.operation_of(function), which))
        stream = None if key is None else reader.stream(key.stream)
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
    return _described(reader, stream, outcome_in(reader, stream))


def _described(reader: Reader, stream: Stream, settled: Settled | None) -> ExecutionInfo:
    if stream.status in (PARKED, PAUSED):
        control = control_of(reader, stream)
        return _info(stream, reason=control.reason, report=control.report)
    if settled is None:
        return _info(stream)
    result = None if settled.result is None else values.decode(settled.result.data)
    if settled.error is None:
        return _info(stream, result=result)
    return _info(stream, error_type=settled.error.type, error_message=settled.error.message)


def waiting_for(stream: Stream, versions: Collection[str]) -> str:
    """The version that a pinned execution waits for: the one it began with, if it is not among those there are."""
    is_waiting = stream.is_pinned and stream.status == RUNNING and stream.holder is None
    return stream.code_version if is_waiting and stream.version not in versions else ""


def _info(stream: Stream, **more: Any) -> ExecutionInfo:
    return ExecutionInfo(
        stream.uid,
        stream.name,
        stream.key,
        shown_status(stream),
        stream.created_ms,
        stream.ended_ms,
        stream.wake_ms,
        stream.holder,
        stream.code_version,
        is_pinned=stream.is_pinned,
        waiting_for=waiting_for(stream, versions_at_hand([stream.name])) if stream.is_pinned else "",
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
