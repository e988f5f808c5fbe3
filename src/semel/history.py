"""The AWS rendering of a stream: a list of events, computed from the records and never stored.

`event_id` counts rendered events; it is not `seq`. A step that was never started on its own is
shown with a start before its end, as AWS shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from semel.errors import ValidationError
from semel.kernel import values
from semel.kernel.entry import (
    Controlled,
    Entry,
    InvocationEnded,
    Kind,
    Payload,
    Record,
    RetryScheduled,
    Settled,
    Started,
    Status,
    TurnEnded,
)
from semel.kernel.operation import Operation, fold

_NOUNS = {
    Kind.EXECUTION: "Execution",
    Kind.CONTEXT: "Context",
    Kind.STEP: "Step",
    Kind.WAIT: "Wait",
    Kind.CALLBACK: "Callback",
    Kind.CHAINED_INVOKE: "ChainedInvoke",
    Kind.MESSAGE: "Message",
}
_VERBS = {
    Status.SUCCEEDED: "Succeeded",
    Status.FAILED: "Failed",
    Status.TIMED_OUT: "TimedOut",
    Status.STOPPED: "Stopped",
}


class Event(Struct, frozen=True, omit_defaults=True):
    """One line of a history. `type` is AWS's event type, MessageStarted … for actors; `subtype` AWS's SubType."""

    event_id: int
    type: str
    time_ms: int
    id: str = ""
    name: str = ""
    parent_id: str = ""
    attempt: int = 0
    due_ms: int | None = None
    source: str = ""
    subtype: str = ""
    result: Any = None
    error_type: str = ""
    error_message: str = ""


Read = Callable[[Payload], Any]


def in_its_row(payload: Payload) -> Any:
    """The value of a payload whose bytes are in its row."""
    return values.decode(payload.data)


def render(
    records: Iterable[Record],
    *,
    after: int | None = None,
    limit: int | None = None,
    reverse: bool = False,
    read: Read = in_its_row,
) -> list[Event]:
    """The events of a stream in order, or the last one first. A page has up to `limit` that follow event `after`.

    `read` gives the value of a payload.
    Raises ValidationError for a limit or an event that cannot be.
    """
    for name, found in (("limit", limit), ("after", after)):
        if found is not None and (not isinstance(found, int) or isinstance(found, bool) or found < 1):
            raise ValidationError(f"history {name}: found {found!r}, expected a whole number, 1 or more, or None")
    found_events: list[tuple[str, int, dict[str, Any]]] = []
    operations: dict[str, Operation] = {}
    for record in records:
        entry = record.entry
        at_ms = record.time_ms + entry.offset_ms
        before = operations.get(getattr(entry, "operation", ""))
        fold(operations, [(entry, at_ms)])
        found_events.extend((type_name, at_ms, fields) for type_name, fields in _events(entry, before))
    ids = range(1, len(found_events) + 1)
    if reverse:
        ids = range(min(len(ids) + 1, after or len(ids) + 1) - 1, 0, -1)
    elif after is not None:
        ids = ids[after:]
    return [_event(event_id, *found_events[event_id - 1], read) for event_id in ids[:limit]]


def _event(event_id: int, type_name: str, at_ms: int, fields: dict[str, Any], read: Read) -> Event:
    """An event of the page. Only its values are decoded, not those of the whole history."""
    payload = fields.get("result")
    if payload is not None:
        fields = fields | {"result": read(payload)}
    return Event(event_id, type_name, at_ms, **fields)


def _events(entry: Entry, before: Operation | None) -> list[tuple[str, dict[str, Any]]]:
    match entry:
        case Started():
            if before is not None and before.status is not Status.READY:
                return []
            return [(f"{_NOUNS[entry.kind]}Started", _started(entry))]
        case Settled():
            return _ended(entry, before)
        case RetryScheduled() if before is not None:
            fields = _identity(before) | {"attempt": before.attempt + 1, "due_ms": entry.due_ms} | _error(entry.error)
            return [*_silent_start(before), ("StepFailed", fields)]
        case TurnEnded():
            return [("TurnEnded", {"id": entry.operation, "result": entry.state})]
        case InvocationEnded():
            return [("InvocationCompleted", {"attempt": entry.invocation} | _error(entry.error))]
        case Controlled():
            verb = {"pause": "Paused", "resume": "Resumed", "park": "Parked", "unpin": "Unpinned"}[entry.action.value]
            reason = {"error_message": entry.reason} if entry.reason else {}
            return [(f"Execution{verb}", reason | {"due_ms": entry.due_ms})]
        case _:
            return []


def _started(entry: Started) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": entry.operation,
        "name": entry.name,
        "parent_id": entry.parent,
        "source": entry.source,
        "subtype": entry.subtype,
        "due_ms": entry.due_ms,
    }
    if entry.payload is not None:
        fields["result"] = entry.payload
    return fields


def _ended(entry: Settled, before: Operation | None) -> list[tuple[str, dict[str, Any]]]:
    if before is None:
        return []
    noun = _NOUNS[before.kind]
    fields = _identity(before) | {"result": entry.result}
    if entry.status is Status.CANCELLED:
        verb = "Cancelled" if before.kind is Kind.WAIT else "Failed"
        fields |= {} if before.kind is Kind.WAIT else {"error_type": "Cancelled"}
    else:
        verb = _VERBS[entry.status]
        fields |= _error(entry.error)
    if before.kind is not Kind.STEP:
        return [(f"{noun}{verb}", fields)]
    if entry.status is Status.CANCELLED and before.status is not Status.STARTED:
        return [(f"{noun}{verb}", fields | {"attempt": before.attempt})]
    return [*_silent_start(before), (f"{noun}{verb}", fields | {"attempt": before.attempt + 1})]


def _silent_start(before: Operation) -> list[tuple[str, dict[str, Any]]]:
    """The start of a later attempt, which is not an entry of its own."""
    if before.status is Status.READY:
        return [("StepStarted", _identity(before))]
    return []


def _identity(operation: Operation) -> dict[str, Any]:
    return {
        "id": operation.id,
        "name": operation.name,
        "parent_id": operation.parent,
        "subtype": operation.subtype,
    }


def _error(error: values.ErrorData | None) -> dict[str, Any]:
    return {} if error is None else {"error_type": error.type, "error_message": error.message}
