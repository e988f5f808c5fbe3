"""The operation state machine: which changes are legal, and what each one records.

Everything that decides a status lives in this file. `decide` turns an update into entries or
refuses it; `evolve` turns an entry into an operation and cannot refuse. Nothing here reads a
clock: every update carries its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec
from msgspec import Struct

from semel.errors import IllegalTransitionError
from semel.kernel.entry import (
    CLOCKED,
    SETTLED,
    Controlled,
    Effect,
    Entry,
    HeartbeatReceived,
    Kind,
    MessageHeader,
    Payload,
    RetryReady,
    RetryScheduled,
    Settled,
    Started,
    Status,
)
from semel.kernel.values import ErrorData


class Action(StrEnum):
    """What an update asks of an operation: AWS's actions, and those only the engine uses."""

    START = "START"
    SUCCEED = "SUCCEED"
    FAIL = "FAIL"
    RETRY = "RETRY"
    READY = "READY"
    CANCEL = "CANCEL"
    TIME_OUT = "TIME_OUT"
    STOP = "STOP"
    HEARTBEAT = "HEARTBEAT"


_BEGIN = {Status.ABSENT: Status.STARTED}


def _close(target: Status, *sources: Status) -> dict[Status, Status]:
    return dict.fromkeys(sources, target)


_STEP_OPEN = (Status.STARTED, Status.READY, Status.ABSENT)
_SCOPE_OPEN = (Status.STARTED, Status.ABSENT)

TRANSITIONS: dict[tuple[Kind, Action], dict[Status, Status]] = {
    (Kind.EXECUTION, Action.START): _BEGIN,
    (Kind.EXECUTION, Action.SUCCEED): _close(Status.SUCCEEDED, Status.STARTED),
    (Kind.EXECUTION, Action.FAIL): _close(Status.FAILED, Status.STARTED),
    (Kind.EXECUTION, Action.TIME_OUT): _close(Status.TIMED_OUT, Status.STARTED),
    (Kind.EXECUTION, Action.STOP): _close(Status.STOPPED, Status.STARTED),
    (Kind.CONTEXT, Action.START): _BEGIN,
    (Kind.CONTEXT, Action.SUCCEED): _close(Status.SUCCEEDED, *_SCOPE_OPEN),
    (Kind.CONTEXT, Action.FAIL): _close(Status.FAILED, *_SCOPE_OPEN),
    (Kind.CONTEXT, Action.CANCEL): _close(Status.CANCELLED, *_SCOPE_OPEN),
    (Kind.STEP, Action.START): {Status.ABSENT: Status.STARTED, Status.READY: Status.STARTED},
    (Kind.STEP, Action.SUCCEED): _close(Status.SUCCEEDED, *_STEP_OPEN),
    (Kind.STEP, Action.FAIL): _close(Status.FAILED, *_STEP_OPEN),
    (Kind.STEP, Action.RETRY): _close(Status.PENDING, *_STEP_OPEN),
    (Kind.STEP, Action.READY): {Status.PENDING: Status.READY},
    (Kind.STEP, Action.CANCEL): _close(Status.CANCELLED, *_STEP_OPEN, Status.PENDING),
    (Kind.WAIT, Action.START): _BEGIN,
    (Kind.WAIT, Action.SUCCEED): _close(Status.SUCCEEDED, Status.STARTED),
    (Kind.WAIT, Action.CANCEL): _close(Status.CANCELLED, *_SCOPE_OPEN),
    (Kind.CALLBACK, Action.START): _BEGIN,
    (Kind.CALLBACK, Action.SUCCEED): _close(Status.SUCCEEDED, Status.STARTED),
    (Kind.CALLBACK, Action.FAIL): _close(Status.FAILED, Status.STARTED),
    (Kind.CALLBACK, Action.TIME_OUT): _close(Status.TIMED_OUT, Status.STARTED),
    (Kind.CALLBACK, Action.CANCEL): _close(Status.CANCELLED, *_SCOPE_OPEN),
    (Kind.CALLBACK, Action.HEARTBEAT): {Status.STARTED: Status.STARTED},
    (Kind.CHAINED_INVOKE, Action.START): _BEGIN,
    (Kind.CHAINED_INVOKE, Action.SUCCEED): _close(Status.SUCCEEDED, Status.STARTED),
    (Kind.CHAINED_INVOKE, Action.FAIL): _close(Status.FAILED, Status.STARTED),
    (Kind.CHAINED_INVOKE, Action.TIME_OUT): _close(Status.TIMED_OUT, Status.STARTED),
    (Kind.CHAINED_INVOKE, Action.STOP): _close(Status.STOPPED, Status.STARTED),
    (Kind.CHAINED_INVOKE, Action.CANCEL): _close(Status.CANCELLED, *_SCOPE_OPEN),
    (Kind.MESSAGE, Action.START): _BEGIN,
    (Kind.MESSAGE, Action.SUCCEED): _close(Status.SUCCEEDED, Status.STARTED),
    (Kind.MESSAGE, Action.FAIL): _close(Status.FAILED, Status.STARTED),
    (Kind.MESSAGE, Action.CANCEL): _close(Status.CANCELLED, Status.STARTED),
    (Kind.MESSAGE, Action.TIME_OUT): _close(Status.TIMED_OUT, Status.STARTED),
}


class Update(Struct, frozen=True, gc=False):
    """A request to change an operation at `at_ms`.

    `start` is what its start records; needed by a START, and by a close that may be the first
    thing recorded. `payload` is the result of any other action.
    """

    id: str
    kind: Kind
    action: Action
    at_ms: int
    start: Started | None = None
    due_ms: int | None = None
    payload: Payload | None = None
    error: ErrorData | None = None
    requested: bool = False
    replay_children: bool = False


class Deliver(Struct, frozen=True, gc=False):
    """A request to record that the body was told of an outcome at `at_ms`."""

    id: str
    at_ms: int


class Operation(Struct, frozen=True, gc=False):
    """The fold of the entries that share an id. What its start said is kept as that entry."""

    id: str
    kind: Kind
    status: Status
    start: Started | None = None
    attempt: int = 0
    due_ms: int | None = None
    result: Payload | None = None
    error: ErrorData | None = None
    requested: bool = False
    started_ms: int = 0
    ended_ms: int | None = None
    replay_children: bool = False

    @property
    def name(self) -> str:
        return "" if self.start is None else self.start.name

    @property
    def subtype(self) -> str:
        return "" if self.start is None else self.start.subtype

    @property
    def parent(self) -> str:
        return "" if self.start is None else self.start.parent

    @property
    def source(self) -> str:
        return "" if self.start is None else self.start.source

    @property
    def payload(self) -> Payload | None:
        return None if self.start is None else self.start.payload

    @property
    def message(self) -> MessageHeader | None:
        return None if self.start is None else self.start.message

    @property
    def effect(self) -> Effect:
        return Effect.REPEATABLE if self.start is None else self.start.effect

    @property
    def version(self) -> str:
        return "" if self.start is None else self.start.version

    def without_values(self) -> Operation:
        """The same with neither its result nor what it began with."""
        start = self.start
        if start is not None and start.payload is not None:
            start = msgspec.structs.replace(start, payload=None)
        elif self.result is None:
            return self
        return msgspec.structs.replace(self, result=None, start=start)


def decide(operation: Operation | None, update: Update, time_ms: int) -> tuple[Entry, ...]:
    """Return what the update records in a record of `time_ms`, or raise IllegalTransitionError.

    A close of an operation that has no start records both, in order (J2).
    """
    status = Status.ABSENT if operation is None else operation.status
    kind = update.kind
    try:
        target = TRANSITIONS[kind, update.action][status]
    except KeyError:
        raise IllegalTransitionError(update.id, kind, update.action, status) from None
    if operation is not None and operation.kind is not kind:
        raise IllegalTransitionError(update.id, kind, update.action, f"a {operation.kind}")
    offset_ms = update.at_ms - time_ms
    if update.action is Action.START:
        return (_started(update, offset_ms),)
    change = _change(update, target, offset_ms)
    return (change,) if operation is not None else (_started(update, offset_ms), change)


def record(operation: Operation | None, update: Update, time_ms: int, entries: list[Entry]) -> Operation:
    """`decide`, then `evolve`, in one: add what the update records to `entries`, and return the operation after it."""
    start = update.start
    if operation is None and start is not None and update.kind is _STEP and update.at_ms == time_ms:
        target = _FIRST_CLOSE.get(update.action)
        if target is not None:
            entries.append(start)
            entries.append(Settled(update.id, target, update.payload, update.error, update.requested))
            return Operation(
                update.id,
                _STEP,
                target,
                start,
                1,
                None,
                update.payload,
                update.error,
                update.requested,
                time_ms,
                time_ms,
            )
    for entry in decide(operation, update, time_ms):
        entries.append(entry)
        operation = evolve(operation, entry, update.at_ms)
    assert operation is not None  # what had no entry was given its start
    return operation


_STEP = Kind.STEP
_FIRST_CLOSE = {Action.SUCCEED: Status.SUCCEEDED, Action.FAIL: Status.FAILED}


def _started(update: Update, offset_ms: int) -> Started:
    start = update.start
    if start is None:
        start = Started(update.id, update.kind)
    if start.due_ms == update.due_ms or update.action is not Action.START:
        return msgspec.structs.replace(start, offset_ms=offset_ms) if offset_ms else start
    return msgspec.structs.replace(start, due_ms=update.due_ms, offset_ms=offset_ms)


def _change(update: Update, target: Status, offset_ms: int) -> Entry:
    action = update.action
    if action is Action.RETRY:
        due_ms = update.at_ms if update.due_ms is None else update.due_ms
        return RetryScheduled(update.id, due_ms, update.error, update.payload, offset_ms)
    if action is Action.READY:
        return RetryReady(update.id, offset_ms)
    if action is Action.HEARTBEAT:
        return HeartbeatReceived(update.id, offset_ms)
    return Settled(
        update.id,
        target,
        update.payload,
        update.error,
        requested=update.requested,
        replay_children=update.replay_children,
        offset_ms=offset_ms,
    )


def evolve(operation: Operation | None, entry: Entry, at_ms: int) -> Operation | None:
    """Return the operation after an entry of its own, recorded at `at_ms`. Cannot refuse."""
    if isinstance(entry, Started):
        if operation is not None:
            return msgspec.structs.replace(operation, status=Status.STARTED, due_ms=None)
        return begun(entry, at_ms)
    if operation is None:
        return None
    match entry:
        case Settled():
            return Operation(
                operation.id,
                operation.kind,
                entry.status,
                operation.start,
                operation.attempt + _has_attempt(operation, entry.status),
                None,
                entry.result,
                entry.error,
                entry.requested,
                operation.started_ms,
                at_ms,
                entry.replay_children,
            )
        case HeartbeatReceived():
            return msgspec.structs.replace(operation, due_ms=_deadline(operation.start, at_ms))
        case RetryScheduled():
            return msgspec.structs.replace(
                operation,
                status=Status.PENDING,
                attempt=operation.attempt + 1,
                due_ms=entry.due_ms,
                error=entry.error,
                result=entry.payload,
            )
        case RetryReady():
            return msgspec.structs.replace(operation, status=Status.READY, due_ms=None)
        case _:
            return operation


def begun(entry: Started, at_ms: int) -> Operation:
    """The operation that a start makes."""
    due_ms = _deadline(entry, at_ms) if entry.heartbeat_ms else entry.due_ms
    return Operation(entry.operation, entry.kind, Status.STARTED, entry, due_ms=due_ms, started_ms=at_ms)


def _deadline(start: Started | None, at_ms: int) -> int | None:
    """When a callback that gave a sign of life at `at_ms` is out of time."""
    if start is None or not start.heartbeat_ms:
        return None if start is None else start.due_ms
    silent_ms = at_ms + start.heartbeat_ms
    return silent_ms if start.due_ms is None else min(silent_ms, start.due_ms)


def time_out_error(operation: Operation) -> ErrorData:
    """What is recorded of a callback or invoke whose time is up, in AWS's words."""
    if operation.kind is Kind.CHAINED_INVOKE:
        due_ms = operation.due_ms or operation.started_ms
        seconds = (due_ms - operation.started_ms) / 1000
        return ErrorData("ChainedInvoke.Timeout", f"CHAINED_INVOKE timed out after {seconds:g} seconds.")
    start = operation.start
    if start is None or start.due_ms is None or (operation.due_ms is not None and operation.due_ms < start.due_ms):
        return ErrorData("Callback.Heartbeat", "Callback timed out on heartbeat")
    return ErrorData("Callback.Timeout", "Callback timed out")


def _has_attempt(operation: Operation, outcome: Status) -> bool:
    """Whether an attempt ended with the outcome: a step cancelled between two attempts had none."""
    return operation.kind is Kind.STEP and (operation.status is Status.STARTED or outcome is not Status.CANCELLED)


def is_frozen(operations: Mapping[str, Operation], operation: Operation) -> bool:
    """Tell whether a scope that contains the operation has settled (J7)."""
    parent = operation.parent
    while parent:
        scope = operations.get(parent)
        if scope is None:
            return False
        if scope.status in SETTLED:
            return True
        parent = scope.parent
    return False


_DUE: dict[tuple[Kind, Status], Action] = {
    (Kind.WAIT, Status.STARTED): Action.SUCCEED,
    (Kind.STEP, Status.PENDING): Action.READY,
    (Kind.CALLBACK, Status.STARTED): Action.TIME_OUT,
    (Kind.CHAINED_INVOKE, Status.STARTED): Action.TIME_OUT,
    (Kind.EXECUTION, Status.STARTED): Action.TIME_OUT,
    (Kind.MESSAGE, Status.STARTED): Action.TIME_OUT,
}


def due_action(operation: Operation) -> Action | None:
    """What its own time does to an open operation, or None if it has no time set."""
    return None if operation.due_ms is None else _DUE.get((operation.kind, operation.status))


def due(operations: Mapping[str, Operation], now_ms: int) -> list[Update]:
    """The updates that time alone asks for, earliest first."""
    ripe = [
        (operation.due_ms, operation, action)
        for operation in operations.values()
        if operation.due_ms is not None
        and operation.due_ms <= now_ms
        and (action := due_action(operation)) is not None
        and not is_frozen(operations, operation)
    ]
    ripe.sort(key=lambda item: item[0])
    return [Update(operation.id, operation.kind, action, now_ms) for _, operation, action in ripe]


def next_wake(operations: Mapping[str, Operation], *, timed: Mapping[str, Operation] | None = None) -> int | None:
    """When time next asks for something, or None (J11). `timed` are those that have a time set, if that is known."""
    return min(
        (
            operation.due_ms
            for operation in (operations if timed is None else timed).values()
            if operation.due_ms is not None
            and due_action(operation) is not None
            and not is_frozen(operations, operation)
        ),
        default=None,
    )


def fold(operations: dict[str, Operation], entries: Iterable[tuple[Entry, int]]) -> None:
    """Bring `operations` up to date with entries and the times they were recorded at."""
    for entry, at_ms in entries:
        operation_id = getattr(entry, "operation", None)
        if operation_id is None:
            if isinstance(entry, Controlled) and entry.action in CLOCKED:
                _set_deadline(operations, entry.due_ms)
            continue
        after = evolve(operations.get(operation_id), entry, at_ms)
        if after is not None:
            operations[operation_id] = after


def _set_deadline(operations: dict[str, Operation], due_ms: int | None) -> None:
    """A pause, park or resume says until when the execution has time. An actor has none."""
    for name, operation in operations.items():
        if operation.kind is Kind.EXECUTION:
            if operation.status not in SETTLED:
                operations[name] = msgspec.structs.replace(operation, due_ms=due_ms)
            return
