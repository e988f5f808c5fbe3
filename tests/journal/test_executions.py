"""Starting, stopping and asking after executions."""

from __future__ import annotations

import msgspec
import pytest

from semel.errors import IdempotencyConflictError, JournalCorruptError, LeaseLost, NotFoundError
from semel.journal import executions, holding
from semel.journal.advance import Then, advance
from semel.journal.lifecycle import park
from semel.journal.outcomes import outcome_in
from semel.kernel.entry import InvocationEnded, Kind, Settled, Started, Status
from semel.kernel.operation import Action
from semel.store.base import KeyId, Lease
from tests.journal.places import RETENTION_MS, WORKER, Journal, a_start, do, payload


def test_a_new_key_starts_an_execution_that_is_due_now(journal: Journal) -> None:
    answer = journal.start()
    assert (answer.is_new, answer.outcome) == (True, None)
    stream = journal.stream(answer.stream.number)
    assert stream == answer.stream
    assert (stream.name, stream.key, stream.status, stream.wake_ms, stream.holder) == (
        "pay",
        "order-1",
        "RUNNING",
        1_000,
        None,
    )
    assert (stream.epoch, stream.invocation, stream.head, stream.tail, stream.time_ms) == (0, 0, 1, 1, 1_000)
    (started,) = journal.entries(stream.number)
    assert isinstance(started, Started)
    assert (started.operation, started.kind, started.name) == (stream.uid, Kind.EXECUTION, "order-1")
    assert (started.payload, started.version, started.origin) == (payload(["book"]), "pay@a1:1", stream.uid)
    key = journal.key("order-1")
    assert key is not None
    assert (key.stream, key.operation, key.expiry_ms) == (stream.number, stream.uid, None)


def test_a_worker_that_starts_an_execution_holds_it_at_once(journal: Journal) -> None:
    stream = journal.start(worker=WORKER).stream
    assert (stream.holder, stream.epoch, stream.invocation, stream.wake_ms) == (WORKER, 1, 1, None)
    assert journal.do(lambda transaction: holding.claim_one(transaction, stream.number, "worker-2")) is None
    assert [record.epoch for record in journal.records(stream.number)] == [1]


def test_J10_the_same_request_joins_what_runs_and_writes_nothing(journal: Journal) -> None:
    first = journal.start()
    before = journal.contents()
    second = journal.start(now_ms=5_000, uid="another")
    assert (second.is_new, second.outcome, second.stream) == (False, None, first.stream)
    assert second.append is None
    assert journal.contents() == before


def test_J10_the_same_request_gets_the_recorded_outcome_and_runs_nothing(journal: Journal) -> None:
    stream = journal.start(worker=WORKER).stream
    journal.finish(stream, {"paid": 7})
    before = journal.contents()
    answer = journal.start(now_ms=2_000 + RETENTION_MS - 1, uid="another")
    assert not answer.is_new
    assert answer.outcome == Settled(stream.uid, result=payload({"paid": 7}))
    assert journal.contents() == before


def test_J10_another_request_under_the_key_is_refused_and_changes_nothing(journal: Journal) -> None:
    stream = journal.start(worker=WORKER).stream
    for _ in ("running", "finished"):
        with pytest.raises(IdempotencyConflictError) as refusal:
            journal.start(order="pen", now_ms=3_000)
        assert (refusal.value.operation, refusal.value.key) == ("function 'pay'", "order-1")
        assert refusal.value.definite
        if journal.stream(stream.number).ended_ms is None:
            journal.finish(stream)


def test_J10_a_key_is_unique_within_its_function(journal: Journal) -> None:
    one, other = journal.start(), journal.start(function="ship", order="pen", uid="uid-2")
    assert one.is_new
    assert other.is_new
    assert one.stream.number != other.stream.number


def test_J10_an_expired_key_starts_a_new_execution_and_the_old_one_stays(journal: Journal) -> None:
    old = journal.start(worker=WORKER).stream
    journal.finish(old, "first", now_ms=2_000)
    new = journal.start(now_ms=2_000 + RETENTION_MS, order="pen", uid="uid-2")
    assert new.is_new
    assert new.stream.number != old.number
    key = journal.key("order-1")
    assert key is not None
    assert (key.stream, key.operation) == (new.stream.number, "uid-2")
    outcome = outcome_in(journal.store, journal.stream(old.number))
    assert outcome is not None
    assert outcome.result == payload("first")


def test_J10_a_key_of_an_execution_that_runs_never_expires(journal: Journal) -> None:
    stream = journal.start().stream
    assert not journal.start(now_ms=1_000 + 100 * RETENTION_MS, uid="uid-2").is_new
    assert journal.stream(stream.number).ended_ms is None


def test_J10_expiry_counts_from_completion(journal: Journal) -> None:
    stream = journal.start(worker=WORKER).stream
    journal.finish(stream, now_ms=RETENTION_MS * 5)
    assert not journal.start(now_ms=RETENTION_MS * 6 - 1, uid="uid-2").is_new
    assert journal.start(now_ms=RETENTION_MS * 6, uid="uid-3").is_new


def test_a_key_whose_stream_is_gone_is_corruption_and_never_a_second_run(journal: Journal) -> None:
    stream = journal.start().stream
    key = journal.key("order-1")
    assert key is not None
    journal.do(lambda transaction: transaction.put_key(msgspec.structs.replace(key, stream=stream.number + 99)))
    with pytest.raises(JournalCorruptError, match=r"key 'order-1': it names stream .* which is gone"):
        journal.start()


def test_G2_a_stop_ends_an_execution_whoever_holds_it(journal: Journal) -> None:
    stream = journal.start(worker=WORKER).stream
    lease = holding.lease_of(stream)
    stopped = journal.stop(stream.number, reason="by ann", now_ms=3_000)
    assert (stopped.status, stopped.holder, stopped.wake_ms, stopped.ended_ms) == ("STOPPED", None, None, 3_000)
    assert stopped.epoch == lease.epoch + 1
    *_, ended, settled = journal.entries(stream.number)
    assert ended == InvocationEnded(1)
    assert isinstance(settled, Settled)
    assert (settled.status, settled.error and settled.error.message) == (Status.STOPPED, "by ann")
    assert len(journal.store.rows(stream.number)) == 2  # both in one append
    with pytest.raises(LeaseLost):
        journal.advance(lease, do("1", Kind.STEP, Action.SUCCEED, 3_500))
    assert journal.store.due(10**12, limit=9) == []
    answer = journal.start(now_ms=4_000, uid="uid-2")
    assert answer.outcome == settled


def test_G2_a_stop_of_what_has_an_outcome_leaves_it(journal: Journal) -> None:
    stream = journal.start(worker=WORKER).stream
    journal.finish(stream, "done")
    before = journal.contents()
    stopped = journal.stop(stream.number, reason="late", now_ms=3_000)
    assert stopped == journal.stream(stream.number)
    assert journal.contents() == before


def test_a_stop_reaches_what_nobody_holds_and_what_is_parked(journal: Journal) -> None:
    waiting, parked = journal.start().stream, journal.start("order-2", worker=WORKER).stream
    journal.do(lambda transaction: park(transaction, holding.lease_of(parked), reason="odd", now_ms=1_500))
    for stream in (waiting, parked):
        stopped = journal.stop(stream.number, now_ms=500)
        assert stopped.status == "STOPPED"
        assert not executions.is_running(stopped)
        assert stopped.ended_ms == stopped.time_ms >= 1_000  # J1: not before the last record
        outcome = outcome_in(journal.store, stopped)
        assert outcome is not None
        assert outcome.error is not None
        assert outcome.error.message == "stopped"


def test_a_stop_of_what_is_gone_is_refused(journal: Journal) -> None:
    with pytest.raises(NotFoundError, match="stream 99: it is gone"):
        journal.stop(99, now_ms=1)


def test_an_execution_without_an_outcome_has_none(journal: Journal) -> None:
    stream = journal.start().stream
    assert outcome_in(journal.store, stream) is None
    assert executions.is_running(stream)


def test_an_outcome_that_is_missing_is_corruption(journal: Journal) -> None:
    stream = journal.start().stream
    for broken in ({"tail": 1}, {"tail": 5}):
        ended = msgspec.structs.replace(stream, ended_ms=5, **broken)
        with pytest.raises(JournalCorruptError, match=r"the outcome of .* is missing from its journal"):
            outcome_in(journal.store, ended)


def test_an_outcome_is_read_within_the_batch_that_wrote_it(journal: Journal) -> None:
    stream = journal.start(worker=WORKER).stream
    request = journal.request(
        holding.lease_of(stream),
        [do(stream.uid, Kind.EXECUTION, Action.SUCCEED, 2_000, payload=payload("now"))],
        2_000,
        then=Then.FINISH,
    )
    _, answer = journal.run(
        lambda transaction: advance(transaction, request),
        lambda transaction: executions.start(transaction, a_start(now_ms=2_500)),
    )
    assert answer.outcome.result == payload("now")


def test_R3_of_two_starts_under_one_key_in_one_batch_one_is_new(journal: Journal) -> None:
    first, second, third = journal.run(
        lambda transaction: executions.start(transaction, a_start(uid="uid-1")),
        lambda transaction: executions.start(transaction, a_start(uid="uid-2", order="pen")),
        lambda transaction: executions.start(transaction, a_start(uid="uid-3")),
    )
    assert first.is_new
    assert isinstance(second, IdempotencyConflictError)
    assert (third.is_new, third.stream) == (False, first.stream)
    assert journal.kinds(first.stream.number) == ["Started"]
    assert journal.store.stream_by_uid("uid-2") is None


def test_a_lease_is_of_a_held_stream_only(journal: Journal) -> None:
    stream = journal.start().stream
    with pytest.raises(AssertionError, match="has no holder"):
        holding.lease_of(stream)
    claimed = journal.claim(stream.number)
    assert holding.lease_of(claimed) == Lease(stream.number, 1, WORKER)


def test_the_key_of_a_function_is_named_after_it() -> None:
    assert a_start().key_id == KeyId("default", "fn:pay", "order-1")
