"""Outcomes that somebody else writes: of callbacks, and of executions that were invoked."""

from typing import Any

import pytest

from semel.errors import CallbackClosedError, NotFoundError
from semel.journal import arrivals, executions, holding, lifecycle
from semel.journal.advance import Advanced, Then, advance
from semel.journal.arrivals import Arrival, Touched, arrive
from semel.kernel.entry import Kind, MessageHeader, Settled, Started, Status
from semel.kernel.operation import Action, Deliver, Update
from semel.kernel.values import ErrorData
from semel.store.base import FUNCTION, Filter, Lease, Stream
from tests.journal.places import WORKER, Journal, do, payload

CALLBACK, INVOKE, CONTEXT = Kind.CALLBACK, Kind.CHAINED_INVOKE, Kind.CONTEXT
START, SUCCEED, CANCEL, HEARTBEAT = Action.START, Action.SUCCEED, Action.CANCEL, Action.HEARTBEAT
UID = "uid-order-1"


def started(journal: Journal) -> Lease:
    return holding.lease_of(journal.start("order-1", uid=UID, worker=WORKER).stream)


def waiting(journal: Journal, *, due_ms: int | None = None, heartbeat_ms: int = 0, parent: str = "") -> Lease:
    """An execution that waits for the callback "1"."""
    lease = started(journal)
    start = Started("1", CALLBACK, parent, heartbeat_ms=heartbeat_ms)
    before = [do(parent, CONTEXT, START, 2_000)] if parent else []
    journal.advance(lease, *before, Update("1", CALLBACK, START, 2_000, start, due_ms))
    return lease


def told(journal: Journal, action: Action = SUCCEED, *, now_ms: int = 3_000, **fields: Any) -> Touched | None:
    arrival = Arrival(fields.pop("uid", UID), fields.pop("operation", "1"), CALLBACK, action, now_ms, **fields)
    return journal.do(lambda transaction: arrive(transaction, arrival))


def is_open(journal: Journal, stream: Stream, operation: str = "1") -> bool:
    return journal.store.key(arrivals.place_of(stream, operation)) is not None


def test_J5_an_outcome_is_recorded_whoever_holds_the_stream(journal: Journal) -> None:
    lease = waiting(journal)
    assert is_open(journal, journal.stream(lease.stream))
    touched = told(journal, payload=payload("yes"))
    stream = journal.stream(lease.stream)
    assert touched is not None
    assert touched.stream == stream
    assert (stream.holder, stream.epoch, stream.wake_ms) == (WORKER, lease.epoch, None)
    assert journal.entries(lease.stream)[-1] == Settled("1", Status.SUCCEEDED, payload("yes"))
    assert not is_open(journal, stream)


def test_J5_a_holders_append_is_not_refused_for_what_it_has_not_seen(journal: Journal) -> None:
    lease = waiting(journal)
    told(journal, payload=payload(1))
    answer = journal.advance(lease, do("2", Kind.STEP, SUCCEED, 4_000), seen=2, now_ms=4_000)
    assert answer.stream.head == 5


def test_J6_an_outcome_wakes_a_stream_that_nobody_holds(journal: Journal) -> None:
    lease = waiting(journal, due_ms=90_000)
    journal.advance(lease, then=Then.RELEASE)
    assert journal.stream(lease.stream).wake_ms == 90_000
    told(journal)
    assert journal.stream(lease.stream).wake_ms == 3_000


def test_J6_a_release_over_an_outcome_that_was_not_seen_wakes_at_once(journal: Journal) -> None:
    lease = waiting(journal)
    seen = journal.stream(lease.stream).head
    told(journal)
    answer = journal.advance(lease, then=Then.RELEASE, seen=seen, now_ms=5_000)
    assert answer.stream.wake_ms == 5_000


def test_J3_the_first_outcome_stands_and_the_same_once_more_is_none(journal: Journal) -> None:
    lease = waiting(journal)
    told(journal, payload=payload("yes"))
    assert told(journal, payload=payload("yes"), now_ms=9_000) is None
    for action, fields in [
        (SUCCEED, {"payload": payload("no")}),
        (Action.FAIL, {"error": ErrorData("E", "m")}),
        (HEARTBEAT, {}),
    ]:
        with pytest.raises(CallbackClosedError, match="the first outcome stands"):
            told(journal, action, **fields)
    assert journal.kinds(lease.stream).count("Settled") == 1


def test_what_was_never_made_is_not_found(journal: Journal) -> None:
    waiting(journal)
    with pytest.raises(NotFoundError, match="has no such operation"):
        told(journal, operation="2")
    with pytest.raises(NotFoundError, match="there is no execution or actor 'uid-other'"):
        told(journal, uid="uid-other")
    with pytest.raises(NotFoundError, match="has no such operation"):  # there is one of that id, of another kind
        told(journal, operation=UID)


@pytest.mark.parametrize("end", ["context", "execution", "stop"])
def test_J7_an_outcome_for_a_scope_that_settled_is_refused(journal: Journal, end: str) -> None:
    lease = waiting(journal, parent="c")
    match end:
        case "context":
            journal.advance(lease, do("c", CONTEXT, SUCCEED, 2_500), awaited=("1",))
        case "execution":
            journal.advance(lease, do(UID, Kind.EXECUTION, SUCCEED, 2_500), awaited=("1",), then=Then.FINISH)
        case _:
            journal.stop(lease.stream, now_ms=2_500)
    assert not is_open(journal, journal.stream(lease.stream))
    with pytest.raises(CallbackClosedError, match="has ended, expected it to run"):
        told(journal)


def test_J7_a_scope_that_settles_leaves_what_is_open_beside_it(journal: Journal) -> None:
    lease = waiting(journal)
    journal.advance(
        lease, do("c", CONTEXT, START, 2_100), do("c", CONTEXT, SUCCEED, 2_500), awaited=("1",), now_ms=2_500
    )
    assert told(journal) is not None


def test_R2_a_cancellation_that_comes_after_the_outcome_writes_nothing(journal: Journal) -> None:
    lease = waiting(journal)
    seen = journal.stream(lease.stream).head
    operations = journal.operations(lease.stream)
    told(journal)
    cancel = do("1", CALLBACK, CANCEL, 4_000, requested=True)
    answer = journal.advance(lease, cancel, do("2", Kind.STEP, SUCCEED, 4_000), seen=seen, now_ms=4_000)
    assert list(answer.changes) == ["2"]
    assert operations["1"].status is Status.STARTED
    assert journal.operations(lease.stream)["1"].status is Status.SUCCEEDED


def test_R2_a_cancellation_beside_another_arrival_is_recorded(journal: Journal) -> None:
    lease = waiting(journal)
    journal.advance(lease, Update("2", CALLBACK, START, 2_000, Started("2", CALLBACK)))
    seen = journal.stream(lease.stream).head
    told(journal, operation="2")
    journal.advance(lease, do("1", CALLBACK, CANCEL, 4_000, requested=True), seen=seen, now_ms=4_000)
    assert journal.operations(lease.stream)["1"].status is Status.CANCELLED
    assert not is_open(journal, journal.stream(lease.stream))
    with pytest.raises(CallbackClosedError):
        told(journal)


def test_G8_a_time_out_comes_no_sooner_than_its_time_and_once(journal: Journal) -> None:
    lease = waiting(journal, due_ms=5_000)

    def time_out(now_ms: int) -> Touched | None:
        return journal.do(lambda transaction: arrivals.time_out(transaction, UID, "1", now_ms=now_ms))

    assert time_out(4_999) is None
    assert time_out(5_000) is not None
    assert time_out(6_000) is None
    settled = journal.operations(lease.stream)["1"]
    assert (settled.status, settled.error) == (Status.TIMED_OUT, ErrorData("Callback.Timeout", "Callback timed out"))


def test_G8_a_sign_of_life_gives_more_time_within_the_limit(journal: Journal) -> None:
    lease = waiting(journal, due_ms=9_000, heartbeat_ms=3_000)

    def time_out(now_ms: int) -> Touched | None:
        return journal.do(lambda transaction: arrivals.time_out(transaction, UID, "1", now_ms=now_ms))

    told(journal, HEARTBEAT, now_ms=4_900)
    assert time_out(5_000) is None
    assert time_out(7_900) is not None
    error = journal.operations(lease.stream)["1"].error
    assert error == ErrorData("Callback.Heartbeat", "Callback timed out on heartbeat")


def test_what_the_body_was_told_is_a_record_in_its_place(journal: Journal) -> None:
    lease = waiting(journal)
    told(journal)
    journal.advance(lease, do("2", Kind.STEP, SUCCEED, 4_000), Deliver("1", 4_000), now_ms=4_000)  # type: ignore[arg-type]
    assert journal.kinds(lease.stream)[-3:] == ["Started", "Settled", "Delivered"]


# Executions that were invoked.


def invoking(journal: Journal, **fields: Any) -> tuple[Lease, Stream, Advanced]:
    lease = started(journal)
    start = Started(
        "1",
        INVOKE,
        payload=payload(["book"]),
        message=MessageHeader("invoke", "ship"),
        version="ship@a1:1",
        child="kid",
    )
    answer = journal.advance(lease, Update("1", INVOKE, START, 2_000, start, **fields))
    child = journal.store.stream_by_uid("kid")
    assert child is not None
    return lease, child, answer


def test_an_invoke_and_the_execution_that_it_starts_are_one_append(journal: Journal) -> None:
    _, child, answer = invoking(journal)
    assert [touched.stream for touched in answer.others] == [child]
    assert (child.name, child.key, child.wake_ms, child.holder) == ("ship", f"{UID}:1", 2_000, None)
    first = journal.entries(child.number)[0]
    assert isinstance(first, Started)
    assert first.message == MessageHeader("invoke", "ship", sender=UID, sender_operation="1")
    key = journal.key(f"{UID}:1", "fn:ship")
    assert key is not None
    assert key.stream == child.number


@pytest.mark.parametrize("how", ["finish", "stop", "time out"])
def test_the_end_of_an_invoked_execution_settles_the_invoke_in_the_same_append(journal: Journal, how: str) -> None:
    lease, child, _ = invoking(journal)
    journal.advance(lease, then=Then.RELEASE)
    if how == "finish":
        claimed = journal.claim(child.number)
        done = journal.finish(claimed, "sent", now_ms=3_000)
        assert [touched.stream.number for touched in done.others] == [lease.stream]
    elif how == "stop":
        journal.stop(child.number, now_ms=3_000)
    else:
        due = lambda t: lifecycle.time_out(t, child.number, now_ms=3_000, seen=1, due_ms=3_000)  # noqa: E731
        journal.do(due)
    expected = {"finish": Status.SUCCEEDED, "stop": Status.STOPPED, "time out": Status.TIMED_OUT}
    assert journal.operations(lease.stream)["1"].status is expected[how]
    assert journal.stream(lease.stream).wake_ms == 3_000
    assert not is_open(journal, journal.stream(lease.stream))


@pytest.mark.parametrize("how", ["cancelled", "ended", "deleted"])
def test_an_invoked_execution_goes_on_when_nobody_waits_for_it(journal: Journal, how: str) -> None:
    lease, child, _ = invoking(journal)
    if how == "cancelled":
        journal.advance(lease, do("1", INVOKE, CANCEL, 2_500, requested=True))
    else:
        journal.stop(lease.stream, now_ms=2_500)
    if how == "deleted":
        journal.do(lambda t: lifecycle.delete(t, lease.stream, retention_ms=0, now_ms=2_600))
    head = 0 if how == "deleted" else journal.stream(lease.stream).head
    done = journal.finish(journal.claim(child.number), "sent", now_ms=3_000)
    assert done.others == ()
    assert done.stream.status == "SUCCEEDED"
    assert head == 0 or journal.stream(lease.stream).head == head


def test_a_cancelled_invoke_that_never_began_starts_nothing(journal: Journal) -> None:
    lease = started(journal)
    start = Started("1", INVOKE, payload=payload([]), message=MessageHeader("invoke", "ship"), child="kid")
    journal.advance(lease, Update("1", INVOKE, CANCEL, 2_000, start, requested=True))
    assert journal.store.stream_by_uid("kid") is None
    assert len(journal.store.list(Filter(FUNCTION))) == 1


def test_an_outcome_in_the_batch_that_began_the_operation_finds_it(journal: Journal) -> None:
    lease = started(journal)
    update = Update("1", CALLBACK, START, 2_000, Started("1", CALLBACK))
    request = journal.request(lease, [update], 2_000)
    arrival = Arrival(UID, "1", CALLBACK, SUCCEED, 2_000)
    journal.run(lambda t: advance(t, request), lambda t: arrive(t, arrival))
    assert journal.operations(lease.stream)["1"].status is Status.SUCCEEDED


def test_who_asked_for_an_execution_is_told_by_its_first_record(journal: Journal) -> None:
    lease, child, _ = invoking(journal)
    header = executions.header_of(journal.store, child)
    assert header is not None
    assert header.sender == UID
    assert executions.header_of(journal.store, journal.stream(lease.stream)) is None
