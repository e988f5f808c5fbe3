"""Short ways to write the records of a stream."""

from __future__ import annotations

from typing import Any

from semel.kernel import values
from semel.kernel.entry import (
    Entry,
    Kind,
    MessageHeader,
    Payload,
    Record,
    Settled,
    Started,
    Status,
    TurnEnded,
)
from semel.kernel.values import ErrorData


def records(*entries: Entry, first: int = 1) -> list[Record]:
    """Entries as the records of a stream: one a millisecond, from 1,001 on."""
    return [Record(seq, 1_000 + seq, 1, 1, entry) for seq, entry in enumerate(entries, first)]


def payload(value: object) -> Payload:
    return Payload(values.encode(value))


def step(operation: str, name: str = "charge", **fields: Any) -> Started:
    return Started(operation, Kind.STEP, name=name, **fields)


def context(operation: str, name: str = "child", **fields: Any) -> Started:
    return Started(operation, Kind.CONTEXT, name=name, **fields)


def wait(operation: str, due_ms: int = 5_000, **fields: Any) -> Started:
    return Started(operation, Kind.WAIT, due_ms=due_ms, **fields)


def message(operation: str, *, priority: int = 0, method: str = "pay", **fields: Any) -> Started:
    header = MessageHeader("call", method, priority=priority)
    return Started(operation, Kind.MESSAGE, name=method, message=header, **fields)


def succeeded(operation: str, value: object = None) -> Settled:
    return Settled(operation, result=None if value is None else payload(value))


def failed(operation: str, error: str = "ValueError", message: str = "no") -> Settled:
    return Settled(operation, Status.FAILED, error=ErrorData(error, message))


def turn(operation: str, state: object = None) -> TurnEnded:
    return TurnEnded(operation, None if state is None else payload(state))
