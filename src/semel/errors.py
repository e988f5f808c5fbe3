"""Every exception semel raises, as one tree. Each says whose fault it is and what to do.

SemelError
├── RequestError              the caller can fix it; the refused request did nothing
│   ├── ValidationError
│   ├── IllegalTransitionError
│   ├── StaleTokenError
│   ├── NotFoundError
│   ├── AlreadyStartedError
│   ├── InProgressError
│   ├── WrongStatusError
│   ├── IdempotencyConflictError
│   ├── CallbackClosedError
│   └── LimitExceededError
├── OperationError            a durable outcome: identical on replay, catchable
│   ├── StepError
│   │   └── StepInterruptedError
│   ├── CallbackError
│   │   ├── CallbackTimeoutError
│   │   └── CallbackSubmitterError
│   ├── InvokeError
│   │   └── InvokeTimeoutError
│   ├── WaitForConditionError
│   ├── ChildContextError
│   ├── BatchCompletionError
│   ├── ActorError
│   └── ExecutionError
│       ├── ExecutionStoppedError
│       └── ExecutionTimedOutError
├── ReplayError               code and journal disagree; the stream is parked
│   ├── NonDeterminismError
│   ├── UnknownHandlerError
│   ├── SerializationError
│   └── ParkedError
└── StoreError                the journal could not be read or written
    ├── ConflictError         another writer was first; retried inside
    ├── StoreFullError        no space: definite, writes resume when there is space
    ├── UnavailableError      not definite, unless it says so
    └── JournalCorruptError   stop: the bytes are not what was written

Three control signals derive from BaseException, so that `except Exception` in user code
cannot swallow them: Suspend, Evicted, LeaseLost.
"""

from __future__ import annotations

from typing import Any


class SemelError(Exception):
    """The root. `definite` is True when the refused request certainly had no effect."""

    definite: bool = True


class RequestError(SemelError):
    """The caller can fix it, and the refused request did nothing."""


class ValidationError(RequestError):
    """An argument is not what the contract asks for."""


class IllegalTransitionError(RequestError):
    """An update asks an operation for a change that its status does not allow."""

    def __init__(self, operation: str, kind: str, action: str, status: str) -> None:
        super().__init__(
            f"operation {operation!r}: cannot {action} {kind}, it is {status}; "
            f"the table TRANSITIONS in docs/journal.md lists what is allowed"
        )
        self.operation = operation
        self.kind = kind
        self.action = action
        self.status = status


class StaleTokenError(RequestError):
    """A checkpoint token that is not the last one given in this invocation."""


class NotFoundError(RequestError):
    """There is no such execution, actor or key."""


class AlreadyStartedError(RequestError):
    """The name is taken by an execution that cannot be joined."""


class InProgressError(RequestError):
    """The same request is still running, and the caller asked not to wait."""


class WrongStatusError(RequestError):
    """The status of an execution does not allow what was asked of it. It is as it was."""

    def __init__(self, name: str, request: str, status: str, expected: str) -> None:
        super().__init__(
            f"execution {name!r}: it cannot {request}, it is {status}, expected {expected}; nothing was changed"
        )
        self.name = name
        self.request = request
        self.status = status


class IdempotencyConflictError(RequestError):
    """A key was used again with another request. Nothing ran, and the first outcome stands."""

    def __init__(self, operation: str, key: str) -> None:
        super().__init__(
            f"key {key!r} of {operation}: it was first used with another request; "
            f"expected the same arguments under the same key; send the new request under a new key"
        )
        self.operation = operation
        self.key = key


class CallbackClosedError(RequestError):
    """A callback that has another outcome already, or whose execution or scope has ended."""


class LimitExceededError(RequestError):
    """A payload, queue or page is larger than `Limits` allows."""


class OperationError(SemelError):
    """A recorded failure: the same on every replay. `error_type` names the original class."""

    subject = "operation"

    def __init__(self, name: str, error_type: str, message: str) -> None:
        named = f"{self.subject} {name!r}" if name else self.subject
        super().__init__(f"{named} failed with {error_type}: {message}")
        self.name = name
        self.error_type = error_type
        self.message = message

    def __reduce__(self) -> tuple[type[OperationError], tuple[str, str, str]]:
        return (type(self), (self.name, self.error_type, self.message))


class StepError(OperationError):
    """A step failed and will not be tried again."""

    subject = "step"


class StepInterruptedError(StepError):
    """A step that may run at most once was found begun and not ended: its effect is unknown."""


class CallbackError(OperationError):
    """A callback was failed from outside. `error_type` and `message` are what was given there."""

    subject = "callback"


class CallbackTimeoutError(CallbackError):
    """A callback was not settled in its time. `error_type` is "Callback.Timeout" or "Callback.Heartbeat"."""


class CallbackSubmitterError(CallbackError):
    """The step that gives a callback's id away failed for good."""


class InvokeError(OperationError):
    """An invoked execution failed, was stopped or timed out. `error_type` is its own."""

    subject = "invoke"


class InvokeTimeoutError(InvokeError):
    """An invoked execution had no outcome in the time given. It may still be running."""


class WaitForConditionError(OperationError):
    """The check of a condition raised, or there were not enough attempts."""

    subject = "condition"


class BatchCompletionError(OperationError):
    """A map or parallel counts as failed, and was asked to say so. `error_type` is that of the first failure."""

    subject = "batch"


class ChildContextError(OperationError):
    """The function of a child context raised."""

    subject = "child context"


class ActorError(OperationError):
    """A handler raised; the actor's state is as it was before the message."""

    subject = "message"


class ExecutionError(OperationError):
    """The execution ended FAILED; this is its recorded outcome."""

    subject = "execution"


class ExecutionStoppedError(ExecutionError):
    """The execution was stopped by a person or program."""


class ExecutionTimedOutError(ExecutionError):
    """The execution had no outcome when its time was over: `timeout_ms` from its start, pauses left out."""


class ReplayError(SemelError):
    """Code and journal disagree. The stream is parked until a person acts; nothing is lost."""


class NonDeterminismError(ReplayError):
    """Replay asked for an operation that the journal does not have at that place.

    `summary` is the first sentence; `report` has both sides around the first difference, the likely
    cause and what to do (`semel.kernel.report.DivergenceReport`), and is the rest of the message.
    """

    def __init__(self, position: str, recorded: str, requested: str, report: Any = None, *, stream: str = "ID") -> None:
        self.summary = (
            f"operation {position}: the journal recorded {recorded}, this run asks for {requested}; "
            f"expected the recorded one; restore it and resume"
        )
        super().__init__(self.summary if report is None else f"{self.summary}\n\n{report.text(stream=stream)}")
        self.position = position
        self.recorded = recorded
        self.requested = requested
        self.report = report


class UnknownHandlerError(ReplayError):
    """No function, actor or method is registered under a name that the journal uses."""


class SerializationError(ReplayError):
    """A value that the codec cannot keep, or bytes that it cannot read."""


class ParkedError(ReplayError):
    """The stream is out of service until a person acts; the message carries the reason.

    `report` is the one of the divergence that parked it, or None.
    """

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class StoreError(SemelError):
    """The journal could not be read or written. Unless it says otherwise, what came of it is unknown."""

    definite = False


class ConflictError(StoreError):
    """Another writer was first. Nothing changed; the engine reads again and retries."""

    definite = True


class StoreFullError(StoreError):
    """There is no space left. Nothing changed; reads work, and writes resume when there is space."""

    definite = True


class UnavailableError(StoreError):
    """The store does not answer, or its owner is another process."""


class JournalCorruptError(StoreError):
    """Stored bytes fail their checksum, or are not ours, or are newer than this code."""

    definite = True


class Suspend(BaseException):
    """The run stops here until the journal moves on. Do not catch it: the run has no outcome.

    Raised inside a sync body when an operation cannot be answered yet, and again at each
    further call. Code after it must not run; whatever the body returns is not recorded.
    """


class Evicted(BaseException):
    """This body was let go from memory. Do not catch it: the run has no outcome.

    The execution is not over: it is replayed from its journal when it is next needed.
    """


class LeaseLost(BaseException):
    """Another holder took the stream. Do not catch it: nothing this run does is recorded."""
