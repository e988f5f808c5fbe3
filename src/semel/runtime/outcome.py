"""How code that ran becomes an outcome: of a scope, a body, a turn."""

from __future__ import annotations

from typing import Any

from semel.errors import CallbackError, LimitExceededError, SerializationError, StepError
from semel.kernel import values
from semel.kernel.entry import Status
from semel.kernel.values import ErrorData
from semel.runtime.services import Services
from semel.runtime.slot import WAIT_FOR_CALLBACK, Outcome, Slot

CONTEXT_RESULT_MAX = 262_144  # bytes; above, a replay runs the inside again (AWS's number)


def scope_succeeded(services: Services, result: Any) -> Outcome:
    """The outcome of a scope that returned. What is too large to record is made anew from its inside."""
    outcome = succeeded(services, result)
    if outcome.result is not None and len(outcome.result.data) > CONTEXT_RESULT_MAX:
        return Outcome(outcome.status, outcome.result, replay_children=True)
    return outcome


def scope_failed(slot: Slot, error: Exception) -> Outcome:
    """The outcome of a scope that raised. What became of a callback is told as if no scope stood around it."""
    if slot.subtype == WAIT_FOR_CALLBACK:
        if isinstance(error, CallbackError):
            return Outcome(Status.FAILED, error=ErrorData(error.error_type, error.message))
        if isinstance(error, StepError):
            return Outcome(Status.FAILED, error=ErrorData("CallbackSubmitterError", str(error)))
    return failed(error)


def succeeded(services: Services, result: Any) -> Outcome:
    """The outcome of code that returned. A value that cannot be kept makes it a failure."""
    try:
        return Outcome(Status.SUCCEEDED, None if result is None else services.payload("return value", result))
    except (SerializationError, LimitExceededError) as error:
        return failed(error)


class RecordedError(Exception):
    """Stands for a failure that is data already."""

    def __init__(self, data: ErrorData) -> None:
        super().__init__(data.message)
        self.data = data


def failed(error: BaseException) -> Outcome:
    """The outcome of code that raised."""
    if isinstance(error, RecordedError):
        return Outcome(Status.FAILED, error=error.data)
    return Outcome(Status.FAILED, error=values.describe_error(error))
