"""The state machine agrees with its table, whatever is asked in whatever order."""

from __future__ import annotations

from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semel.errors import IllegalTransitionError
from semel.kernel.entry import (
    SETTLED,
    Control,
    Controlled,
    Effect,
    Entry,
    HeartbeatReceived,
    InvocationEnded,
    Kind,
    MessageHeader,
    Payload,
    RetryReady,
    RetryScheduled,
    Settled,
    Started,
    Status,
    TurnEnded,
)
from semel.kernel.operation import (
    TRANSITIONS,
    Action,
    Operation,
    Update,
    decide,
    due,
    due_action,
    evolve,
    fold,
    is_frozen,
    next_wake,
    record,
)
from semel.kernel.values import ErrorData

ERROR = ErrorData("ValueError", "no")
EVERY_CASE = list(product(Kind, Action, Status))
CLOSING = {
    Action.SUCCEED: Status.SUCCEEDED,
    Action.FAIL: Status.FAILED,
    Action.CANCEL: Status.CANCELLED,
    Action.TIME_OUT: Status.TIMED_OUT,
    Action.STOP: Status.STOPPED,
}


def standing(kind: Kind, status: Status, *, due_ms: int | None = None) -> Operation | None:
    if status is Status.ABSENT:
        return None
    return Operation("op", kind, status, Started("op", kind, name="n"), attempt=3, due_ms=due_ms, started_ms=1)


def run(operation: Operation | None, update: Update, *, time_ms: int = 100) -> Operation | None:
    for entry in decide(operation, update, time_ms):
        operation = evolve(operation, entry, time_ms + entry.offset_ms)
    return operation


@pytest.mark.parametrize("kind", Kind)
def test_decide_and_evolve_agree_with_the_table(kind: Kind) -> None:
    for _, action, status in (case for case in EVERY_CASE if case[0] is kind):
        operation, update = standing(kind, status), Update("op", kind, action, 100)
        target = TRANSITIONS.get((kind, action), {}).get(status)
        if target is None:
            continue
        after = run(operation, update)
        assert after is not None
        assert (after.id, after.kind, after.status) == ("op", kind, target)
        assert not (action in CLOSING and target is not CLOSING[action])


@pytest.mark.parametrize("kind", Kind)
def test_an_illegal_transition_raises_and_changes_nothing(kind: Kind) -> None:
    for _, action, status in (case for case in EVERY_CASE if case[0] is kind):
        if status in TRANSITIONS.get((kind, action), {}):
            continue
        operation = standing(kind, status)
        before = None if operation is None else msgspec.structs.replace(operation)
        with pytest.raises(IllegalTransitionError) as refusal:
            decide(operation, Update("op", kind, action, 100), 100)
        assert operation == before
        error = refusal.value
        assert (error.operation, error.kind, error.action, error.status) == ("op", kind, action, status)
        assert f"cannot {action} {kind}, it is {status}" in str(error)


def test_the_table_leads_nowhere_out_of_a_settled_status() -> None:
    assert [key for key, arrows in TRANSITIONS.items() if SETTLED & set(arrows)] == []


def test_every_status_but_absent_can_be_reached() -> None:
    for kind in Kind:
        arrows = [arrow for (of, _), arrows in TRANSITIONS.items() if of is kind for arrow in arrows.items()]
        reached = {Status.ABSENT} | {target for _, target in arrows}
        assert {source for source, _ in arrows} <= reached
        assert reached & SETTLED


def test_an_operation_of_another_kind_under_the_id_is_refused() -> None:
    for kind, other in product(Kind, Kind):
        if kind is not other and Status.STARTED in TRANSITIONS[other, Action.SUCCEED]:
            with pytest.raises(IllegalTransitionError, match=f"it is a {kind}"):
                decide(standing(kind, Status.STARTED), Update("op", other, Action.SUCCEED, 1), 1)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("offset_ms", [0, 7])
@pytest.mark.parametrize("start", [None, Started("op", Kind.STEP, parent="outer", name="n")])
def test_record_is_decide_and_then_evolve(kind: Kind, offset_ms: int, start: Started | None) -> None:
    for action, status in product(Action, Status):
        operation = standing(kind, status)
        update = Update(
            "op", kind, action, 100 + offset_ms, start, payload=Payload(b"out"), error=ERROR, requested=True
        )
        try:
            expected = list(decide(operation, update, 100))
        except IllegalTransitionError:
            entries: list[Entry] = []
            with pytest.raises(IllegalTransitionError):
                record(operation, update, 100, entries)
            assert entries == []
            continue
        recorded: list[Entry] = [RetryReady("before")]
        assert record(operation, update, 100, recorded) == run(operation, update)
        assert recorded[1:] == expected


@given(st.sampled_from(Kind), st.lists(st.sampled_from(Action), max_size=12), st.data())
def test_J3_a_settled_operation_never_changes(kind: Kind, actions: list[Action], data: st.DataObject) -> None:
    operation: Operation | None = None
    recorded: list[Entry] = []
    for place, action in enumerate(actions):
        update = Update("op", kind, action, 100 + place, due_ms=data.draw(st.none() | st.integers(0, 9)))
        before = operation
        try:
            entries = decide(operation, update, 100 + place)
        except IllegalTransitionError:
            assert operation == before
            continue
        assert before is None or before.status not in SETTLED
        for entry in entries:
            operation = evolve(operation, entry, 100 + place)
        recorded.extend(entries)
    settled = [place for place, entry in enumerate(recorded) if isinstance(entry, Settled)]
    assert settled in ([], [len(recorded) - 1])
    assert not recorded or isinstance(recorded[0], Started)


@pytest.mark.parametrize(
    ("kind", "action"),
    [key for key, arrows in TRANSITIONS.items() if key[1] is not Action.START and Status.ABSENT in arrows],
)
def test_J2_a_close_without_a_start_records_both_in_order(kind: Kind, action: Action) -> None:
    start = Started("op", kind, parent="outer", name="n", source="app.py:7", payload=Payload(b"in"), due_ms=50)
    update = Update("op", kind, action, 107, start, payload=Payload(b"out"), error=ERROR, requested=True)
    first, second = decide(None, update, 100)
    assert first == msgspec.structs.replace(start, offset_ms=7)
    after = run(None, update)
    assert after is not None
    assert (after.name, after.parent, after.source, after.payload) == ("n", "outer", "app.py:7", Payload(b"in"))
    assert (after.result, after.error, after.started_ms) == (Payload(b"out"), ERROR, 107)
    if isinstance(second, Settled):
        assert (second.requested, after.requested, after.ended_ms, after.due_ms) == (True, True, 107, None)
    else:
        assert isinstance(second, RetryScheduled)
        assert (after.status, after.due_ms) == (Status.PENDING, 107)


def test_J2_a_close_that_says_nothing_of_its_start_still_records_one() -> None:
    first, second = decide(None, Update("op", Kind.STEP, Action.SUCCEED, 5), 5)
    assert (first, second) == (Started("op", Kind.STEP), Settled("op"))


def test_a_start_records_when_it_is_due_and_an_operation_keeps_what_its_start_said() -> None:
    start = Started(
        "op",
        Kind.MESSAGE,
        name="pay",
        payload=Payload(b"in"),
        version="v",
        effect=Effect.KEYED,
        message=MessageHeader("call", "pay"),
    )
    after = run(None, Update("op", Kind.MESSAGE, Action.START, 3, start, due_ms=900), time_ms=3)
    assert after is not None
    assert (after.due_ms, after.started_ms, after.ended_ms, after.attempt) == (900, 3, None, 0)
    assert (after.name, after.version, after.effect) == ("pay", "v", Effect.KEYED)
    assert (after.payload, after.message) == (start.payload, start.message)


def test_an_operation_without_its_start_is_empty_where_the_start_would_speak() -> None:
    bare = Operation("op", Kind.STEP, Status.STARTED)
    assert (bare.name, bare.parent, bare.source, bare.version) == ("", "", "", "")
    assert (bare.payload, bare.message, bare.effect) == (None, None, Effect.REPEATABLE)


@given(st.lists(st.sampled_from([Action.START, Action.RETRY, Action.READY, *CLOSING]), max_size=20))
def test_attempts_are_counted_by_the_ends_of_attempts(actions: list[Action]) -> None:
    operation: Operation | None = None
    ended = 0
    for action in actions:
        before = Status.ABSENT if operation is None else operation.status
        try:
            operation = run(operation, Update("op", Kind.STEP, action, 100, due_ms=200))
        except IllegalTransitionError:
            continue
        never_began = action is Action.CANCEL and before in (Status.PENDING, Status.READY)
        if action is Action.RETRY or (action in CLOSING and not never_began):
            ended += 1
    assert operation is None or operation.attempt == ended


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.STEP])
def test_only_steps_have_attempts(kind: Kind) -> None:
    started = run(None, Update("op", kind, Action.START, 1))
    closed = run(started, Update("op", kind, Action.SUCCEED, 2))
    assert closed is not None
    assert closed.attempt == 0


@given(st.integers(-(10**6), 10**6), st.integers(0, 10**12))
def test_the_time_of_an_entry_is_the_time_of_its_update(offset_ms: int, time_ms: int) -> None:
    at_ms = time_ms + offset_ms
    operation: Operation | None = None
    for action in (Action.START, Action.RETRY, Action.READY, Action.START, Action.FAIL):
        entries = decide(operation, Update("op", Kind.STEP, action, at_ms), time_ms)
        assert [time_ms + entry.offset_ms for entry in entries] == [at_ms]
        operation = evolve(operation, entries[0], at_ms)
    assert operation is not None
    assert (operation.started_ms, operation.ended_ms) == (at_ms, at_ms)
    entries = decide(None, Update("op", Kind.STEP, Action.FAIL, at_ms), time_ms)
    assert [time_ms + entry.offset_ms for entry in entries] == [at_ms, at_ms]


@pytest.mark.parametrize(
    ("due_ms", "heartbeat_ms", "first_ms", "then_ms"), [(9, 0, 9, 9), (None, 4, 5, 9), (100, 4, 5, 9), (7, 4, 5, 7)]
)
def test_a_heartbeat_is_recorded_and_only_moves_the_time(
    due_ms: int | None, heartbeat_ms: int, first_ms: int, then_ms: int
) -> None:
    start = Started("op", Kind.CALLBACK, due_ms=due_ms, heartbeat_ms=heartbeat_ms)
    callback = evolve(None, start, 1)
    assert callback is not None
    assert callback.due_ms == first_ms
    assert decide(callback, Update("op", Kind.CALLBACK, Action.HEARTBEAT, 5), 5) == (HeartbeatReceived("op"),)
    assert evolve(callback, HeartbeatReceived("op"), 5) == msgspec.structs.replace(callback, due_ms=then_ms)


IDS = st.sampled_from("abc")
ENTRIES: st.SearchStrategy[Entry] = st.one_of(
    st.builds(Started, IDS, st.sampled_from(Kind), due_ms=st.none() | st.integers(0, 99)),
    st.builds(RetryScheduled, IDS, st.integers(0, 99)),
    st.builds(RetryReady, IDS),
    st.builds(HeartbeatReceived, IDS),
    st.builds(Settled, IDS, st.sampled_from(sorted(SETTLED))),
    st.builds(TurnEnded, IDS),
    st.builds(InvocationEnded, st.integers(0, 9)),
    st.builds(Controlled, st.sampled_from(Control)),
)


@given(st.lists(ENTRIES, max_size=30))
def test_evolve_cannot_refuse(entries: list[Entry]) -> None:
    operations: dict[str, Operation] = {}
    fold(operations, [(entry, place) for place, entry in enumerate(entries)])
    assert set(operations) == {entry.operation for entry in entries if isinstance(entry, Started)}
    due(operations, 100)
    next_wake(operations)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Operation]:
    """Operations of any kind and status, each in a scope that stands before it, or in none, or in one that is gone."""
    operations: dict[str, Operation] = {}
    for place in range(draw(st.integers(0, 12))):
        name = f"op-{place}"
        parent = draw(st.sampled_from(["", "gone", *operations]))
        kind = draw(st.sampled_from(Kind))
        status = draw(st.sampled_from([status for status in Status if status is not Status.ABSENT]))
        start = Started(name, kind, parent=parent)
        operations[name] = Operation(name, kind, status, start, due_ms=draw(st.none() | st.integers(0, 20)))
    return operations


def has_settled_ancestor(operations: dict[str, Operation], name: str) -> bool:
    parent = operations[name].parent
    if parent not in operations:
        return False
    return operations[parent].status in SETTLED or has_settled_ancestor(operations, parent)


def comes_due(operations: dict[str, Operation], operation: Operation) -> bool:
    open_status = Status.PENDING if operation.kind is Kind.STEP else Status.STARTED
    return (
        operation.due_ms is not None
        and operation.kind is not Kind.CONTEXT
        and operation.status is open_status
        and not has_settled_ancestor(operations, operation.id)
    )


@given(trees(), st.integers(0, 20))
def test_J7_and_J11_what_is_due_and_when_is_what_a_person_would_say(
    operations: dict[str, Operation], now_ms: int
) -> None:
    times = {name: op.due_ms for name, op in operations.items() if comes_due(operations, op) and op.due_ms is not None}
    assert next_wake(operations) == min(times.values(), default=None)
    updates = due(operations, now_ms)
    assert {update.id for update in updates} == {name for name, due_ms in times.items() if due_ms <= now_ms}
    assert [times[update.id] for update in updates] == sorted(times[update.id] for update in updates)
    for update in updates:
        assert update.at_ms == now_ms
        decide(operations[update.id], update, now_ms)  # what time asks for is legal


@given(trees())
def test_J7_what_is_inside_a_settled_scope_is_frozen(operations: dict[str, Operation]) -> None:
    for name, operation in operations.items():
        assert is_frozen(operations, operation) == has_settled_ancestor(operations, name)


@given(trees())
def test_J11_after_what_is_due_was_recorded_nothing_of_it_is_due_again(operations: dict[str, Operation]) -> None:
    for update in due(operations, 20):
        after = run(operations[update.id], update, time_ms=20)
        assert after is not None
        operations[update.id] = after
    assert due(operations, 20) == []
    assert next_wake(operations) is None


def test_what_its_own_time_does_to_an_operation() -> None:
    found = {
        (kind, status): due_action(operation)
        for kind, status in product(Kind, Status)
        if (operation := standing(kind, status, due_ms=1)) is not None and due_action(operation) is not None
    }
    assert found == {
        (Kind.WAIT, Status.STARTED): Action.SUCCEED,
        (Kind.STEP, Status.PENDING): Action.READY,
        **{
            (kind, Status.STARTED): Action.TIME_OUT
            for kind in (Kind.CALLBACK, Kind.CHAINED_INVOKE, Kind.EXECUTION, Kind.MESSAGE)
        },
    }
    assert due_action(Operation("op", Kind.WAIT, Status.STARTED)) is None
