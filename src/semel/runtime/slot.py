"""One operation as a running body sees it: asked for, engaged, settled, delivered."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from enum import Enum
from typing import Any

from msgspec import Struct

from semel.calls import CallbackCall, InvokeCall, StepCall
from semel.errors import (
    CallbackError,
    CallbackSubmitterError,
    CallbackTimeoutError,
    ChildContextError,
    InvokeError,
    InvokeTimeoutError,
    OperationError,
    StepError,
    StepInterruptedError,
    WaitForConditionError,
)
from semel.kernel.entry import Kind, MessageHeader, Payload, Started, Status
from semel.kernel.operation import Action, Operation, Update
from semel.kernel.values import ErrorData

INTERRUPTED = "StepInterruptedError"
ACTIONS = {
    Status.SUCCEEDED: Action.SUCCEED,
    Status.FAILED: Action.FAIL,
    Status.CANCELLED: Action.CANCEL,
    Status.TIMED_OUT: Action.TIME_OUT,
    Status.STOPPED: Action.STOP,
}
WAIT_FOR_CALLBACK = "WaitForCallback"
WAIT_FOR_CONDITION = "WaitForCondition"


class Phase(Enum):
    """Where a slot is between being asked for and being delivered."""

    ASKED = "asked"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"


# An enum's class finds a member through a hook of its metaclass, which costs as much as a call.
ASKED, QUEUED, STARTING, RUNNING, WAITING, DONE = Phase


class Outcome(Struct, frozen=True, gc=False):
    """How an operation ended. `replay_children`: the result is made anew by running the inside again."""

    status: Status
    result: Payload | None = None
    error: ErrorData | None = None
    replay_children: bool = False


class Slot:
    """One operation of a body, from the request to the delivery of its outcome.

    The class's own values are what most slots never change.
    """

    parent = ""
    subtype = ""
    phase = ASKED
    recorded: Operation | None = None
    is_recorded = False
    is_cancelled = False
    attempt = 0
    due_ms: int | None = None
    delay_ms = 0
    outcome: Outcome | None = None
    waiter: asyncio.Future[None] | None = None
    handle: asyncio.TimerHandle | None = None
    call: StepCall | None = None
    outside: CallbackCall | InvokeCall | None = None  # how it is settled by somebody else
    payload: Payload | None = None
    child = ""
    child_due_ms = 0  # the deadline of the execution that an invoke starts; 0 is none
    waiters: tuple[tuple[asyncio.Future[None], str], ...] = ()  # of a callback: who waits for it, and in which scope
    is_frozen = False  # a scope around it ended first
    full: Outcome | None = None  # of a scope whose result was too large to record
    context: contextvars.Context | None = None
    task: asyncio.Future[Any] | None = None
    arguments = b""
    effect_key = ""
    copies: tuple[Any, ...] | bytes = ()

    def __init__(self, identity: str, kind: Kind, name: str, path: str, source: str) -> None:
        self.id = identity
        self.kind = kind
        self.name = name
        self.path = path
        self.source = source

    @property
    def starts_durably(self) -> bool:
        """Whether its start is on disk before its body runs."""
        return self.call is not None and self.call.options.starts_durably

    def update(
        self,
        action: Action,
        at_ms: int,
        *,
        due_ms: int | None = None,
        payload: Payload | None = None,
        error: ErrorData | None = None,
        requested: bool = False,
    ) -> Update:
        """An update of this operation. The first one carries what a start records."""
        start = None
        if not self.is_recorded:
            self.is_recorded = True
            start = self._start()
        return Update(self.id, self.kind, action, at_ms, start, due_ms, payload, error, requested)

    def closing(self, outcome: Outcome, at_ms: int) -> Update:
        """The update that records the outcome."""
        start = None
        if not self.is_recorded:
            self.is_recorded = True
            start = self._start()
        action, large = ACTIONS[outcome.status], outcome.replay_children
        result = None if large else outcome.result
        return Update(
            self.id,
            self.kind,
            action,
            at_ms,
            start,
            None,
            result,
            outcome.error,
            requested=False,
            replay_children=large,
        )

    def _start(self) -> Started:
        path = "" if self.path is self.id else self.path
        call = self.call
        if call is None:
            return self._start_plain(path)
        options = call.options
        if not path and options.is_plain and not self.subtype:
            return Started(self.id, self.kind, self.parent, self.name, source=self.source, arguments=self.arguments)
        return Started(
            self.id,
            self.kind,
            parent=self.parent,
            name=self.name,
            subtype=self.subtype,
            path=path,
            source=self.source,
            arguments=self.arguments,
            effect=options.effect,
            effect_key=self.effect_key,
            semantics=options.semantics if options.starts_durably else "",
        )

    def _start_plain(self, path: str) -> Started:
        """The start of anything but a step."""
        asked = self.outside
        if isinstance(asked, InvokeCall):
            return Started(
                self.id,
                self.kind,
                self.parent,
                self.name,
                self.subtype,
                path=path,
                source=self.source,
                arguments=self.arguments,
                version=asked.version,
                payload=self.payload,
                message=MessageHeader("invoke", asked.function, deadline_ms=self.child_due_ms),
                child=self.child,
            )
        return Started(
            self.id,
            self.kind,
            self.parent,
            self.name,
            self.subtype,
            path=path,
            source=self.source,
            heartbeat_ms=asked.heartbeat_ms if asked is not None else 0,
        )

    def value(self, read: Callable[[Payload | None], Any]) -> Any:
        """What the awaiter gets: the value after a round trip, or the recorded failure raised."""
        outcome = self.outcome
        if outcome is None:
            raise AssertionError(f"operation {self.id}: it was read before its outcome was delivered")
        if outcome.status is Status.SUCCEEDED:
            return read(outcome.result)
        if outcome.status is Status.CANCELLED:
            raise asyncio.CancelledError
        raise failure(self, outcome)


def failure(slot: Slot, outcome: Outcome) -> OperationError:
    """The exception that stands for a recorded failure: the same on every replay."""
    found = outcome.error if outcome.error is not None else ErrorData("Error", "")
    return _failure_class(slot, outcome.status, found.type)(slot.name, found.type, found.message)


def _failure_class(slot: Slot, status: Status, error_type: str) -> type[OperationError]:
    match slot.kind:
        case Kind.CONTEXT if slot.subtype == WAIT_FOR_CALLBACK:
            return _ABOUT_CALLBACKS.get(error_type, CallbackError)
        case Kind.CONTEXT:
            return ChildContextError
        case Kind.CALLBACK:
            return CallbackTimeoutError if status is Status.TIMED_OUT else CallbackError
        case Kind.CHAINED_INVOKE:
            return InvokeTimeoutError if error_type == INVOKE_TIMEOUT else InvokeError
        case _ if error_type == INTERRUPTED:
            return StepInterruptedError
        case _ if slot.subtype == WAIT_FOR_CONDITION:
            return WaitForConditionError
        case _:
            return StepError


INVOKE_TIMEOUT = "ChainedInvoke.Timeout"
_ABOUT_CALLBACKS: dict[str, type[CallbackError]] = {
    "Callback.Timeout": CallbackTimeoutError,
    "Callback.Heartbeat": CallbackTimeoutError,
    "CallbackSubmitterError": CallbackSubmitterError,
}


def interrupted(slot: Slot) -> ErrorData:
    """What is known of a step that was begun and not ended: nothing."""
    return ErrorData(
        INTERRUPTED,
        f"step {slot.name!r} was begun and a crash or cancellation came before its end was recorded; "
        f"whether its effect took place is unknown; ask the other side before doing it again",
    )
