"""How a stream is shown: AWS's events, computed from the records."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from semel.history import Event, render
from semel.kernel.entry import (
    SETTLED,
    Control,
    Controlled,
    Entry,
    HeartbeatReceived,
    InvocationEnded,
    Kind,
    RetryReady,
    RetryScheduled,
    Settled,
    Started,
    Status,
)
from semel.kernel.operation import TRANSITIONS, Action, Operation, Update, decide, evolve
from semel.kernel.values import ErrorData
from tests.kernel import golden
from tests.kernel.records import context, failed, message, payload, records, step, succeeded, turn, wait

TIMEOUT = ErrorData("Timeout", "no answer")


def shown(event: Event) -> str:
    fields: dict[str, Any] = {
        name: value for name, value in msgspec.structs.asdict(event).items() if value not in ("", 0, None)
    }
    head = f"{fields.pop('event_id'):>3} {fields.pop('time_ms')} {fields.pop('type')}"
    return " ".join([head, *(f"{name}={value!r}" for name, value in fields.items())])


STORIES: dict[str, list[Entry]] = {
    "an execution with each kind of operation": [
        Started("exec", Kind.EXECUTION, name="order-123", payload=payload([7]), source="app.py:3"),
        step("1", source="app.py:4"),
        succeeded("1", "paid"),
        wait("2", 9_000),
        InvocationEnded(1),
        succeeded("2"),
        context("3"),
        step("3-1", "inner", parent="3"),
        failed("3-1"),
        failed("3", "ChildContextError", "inner failed"),
        Started("4", Kind.CALLBACK, name="approve"),
        HeartbeatReceived("4"),
        succeeded("4", {"by": "ann"}),
        Started("5", Kind.CHAINED_INVOKE, name="ship"),
        Settled("5", Status.TIMED_OUT, error=TIMEOUT),
        InvocationEnded(2),
        Settled("exec", result=payload("done")),
    ],
    "a step with two retries, its last attempt without a start of its own": [
        step("1"),
        RetryScheduled("1", 6_000, TIMEOUT),
        RetryReady("1"),
        Started("1", Kind.STEP, name="charge"),
        RetryScheduled("1", 9_000, TIMEOUT),
        RetryReady("1"),
        succeeded("1", "paid"),
    ],
    "a step that is retried without a start of its own": [
        step("1"),
        RetryScheduled("1", 6_000, TIMEOUT),
        RetryReady("1"),
        RetryScheduled("1", 7_000, TIMEOUT),
    ],
    "what is cancelled": [
        wait("1"),
        Settled("1", Status.CANCELLED, requested=True),
        step("2"),
        Settled("2", Status.CANCELLED),
        step("3"),
        RetryScheduled("3", 6_000, TIMEOUT),
        Settled("3", Status.CANCELLED, requested=True),
        step("4"),
        RetryScheduled("4", 6_000, TIMEOUT),
        RetryReady("4"),
        Settled("4", Status.CANCELLED, requested=True),
        context("5"),
        Settled("5", Status.CANCELLED),
    ],
    "an actor": [
        message("m1", payload=payload([5])),
        turn("m1", {"total": 5}),
        succeeded("m1", 5),
        message("m4"),
        turn("m4"),
        failed("m4"),
        turn("", {"total": 5}),
    ],
    "control, a crash and a stop": [
        Started("exec", Kind.EXECUTION, name="order-123"),
        Controlled(Control.PAUSE),
        Controlled(Control.RESUME, "go on"),
        InvocationEnded(1, ErrorData("MemoryError", "")),
        Controlled(Control.PARK, "the journal recorded STEP 'charge'"),
        InvocationEnded(2),
        Settled("exec", Status.STOPPED, error=ErrorData("ExecutionStopped", "by hand")),
    ],
    "entries about nothing that is known": [
        Settled("gone"),
        RetryScheduled("gone", 5),
        RetryReady("gone"),
        HeartbeatReceived("gone"),
        wait("1"),
        Started("1", Kind.WAIT),
    ],
}


def test_each_kind_of_entry_is_shown_as_it_was() -> None:
    text = ""
    for title, entries in STORIES.items():
        text += f"# {title}\n" + "".join(f"{shown(event)}\n" for event in render(records(*entries))) + "\n"
    golden.check("history.txt", text)


def test_event_ids_count_events_and_not_entries() -> None:
    events = render(records(step("1"), RetryScheduled("1", 6_000), RetryReady("1"), succeeded("1")))
    assert [event.event_id for event in events] == [1, 2, 3, 4]
    assert [event.type for event in events] == ["StepStarted", "StepFailed", "StepStarted", "StepSucceeded"]


def test_an_event_has_the_time_of_its_entry() -> None:
    (event,) = render(records(wait("1", offset_ms=-7)))
    assert event.time_ms == 1_001 - 7


def test_an_empty_stream_has_no_events() -> None:
    assert render([]) == []


def test_R2_a_cancelled_wait_has_a_word_of_its_own_and_anything_else_failed() -> None:
    for kind in Kind:
        if (kind, Action.CANCEL) not in TRANSITIONS:
            continue
        _, event = render(records(Started("1", kind), Settled("1", Status.CANCELLED)))
        if kind is Kind.WAIT:
            assert (event.type, event.error_type) == ("WaitCancelled", "")
        else:
            assert event.type.endswith("Failed")
            assert event.error_type == "Cancelled"


def legal_ends() -> list[tuple[Kind, Status]]:
    ends = {(kind, target) for (kind, _), arrows in TRANSITIONS.items() for target in arrows.values()}
    return sorted((kind, status) for kind, status in ends if status in SETTLED)


@pytest.mark.parametrize(("kind", "status"), legal_ends())
def test_every_end_that_the_table_allows_is_shown_after_its_start(kind: Kind, status: Status) -> None:
    start, end = render(records(Started("1", kind, name="n"), Settled("1", status)))
    assert start.type.endswith("Started")
    assert end.type.startswith(start.type.removesuffix("Started"))
    assert (end.id, end.name) == ("1", "n")


def test_attempts_are_shown_as_they_are_counted() -> None:
    operation: Operation | None = None
    entries: list[Entry] = []
    for action in (Action.START, Action.RETRY, Action.READY, Action.START, Action.RETRY, Action.READY, Action.FAIL):
        for entry in decide(operation, Update("1", Kind.STEP, action, 1), 1):
            operation = evolve(operation, entry, 1)
            entries.append(entry)
    assert operation is not None
    ends = [event.attempt for event in render(records(*entries)) if event.type == "StepFailed"]
    assert ends == [1, 2, 3]
    assert operation.attempt == 3
