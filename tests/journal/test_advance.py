"""What a holder writes: updates, turns, the end and the release, in one append or not at all."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from semel.errors import IllegalTransitionError, LeaseLost
from semel.journal import executions, holding, messages
from semel.journal.advance import Advance, Advanced, EndTurn, Then, advance
from semel.journal.lifecycle import park, resume
from semel.journal.outcomes import outcome_in
from semel.kernel.entry import Control, Controlled, InvocationEnded, Kind, Settled, Started, Status, TurnEnded
from semel.kernel.operation import Action, Operation, Update
from semel.kernel.values import ErrorData
from semel.store.base import Lease, Transaction
from tests.journal.places import RETENTION_MS, WORKER, Journal, a_message, a_start, do, payload

STEP, WAIT, SUCCEED = Kind.STEP, Kind.WAIT, Action.SUCCEED


def started(journal: Journal, key: str = "order-1") -> Lease:
    return holding.lease_of(journal.start(key, uid=f"uid-{key}", worker=WORKER).stream)


def an_actor(journal: Journal, **fields: Any) -> Lease:
    return holding.lease_of(journal.send(worker=WORKER, **fields).stream)


def test_updates_become_one_row_and_the_holder_keeps_the_stream(journal: Journal) -> None:
    lease = started(journal)
    answer = journal.advance(
        lease, do("1", STEP, SUCCEED, 2_000, payload=payload(7)), do("2", STEP, Action.START, 2_001), now_ms=2_001
    )
    assert answer.stream == journal.stream(lease.stream)
    assert (answer.stream.holder, answer.stream.wake_ms, answer.stream.head, answer.stream.tail) == (WORKER, None, 4, 2)
    assert len(journal.store.rows(lease.stream)) == 2
    assert [(type(r.entry).__name__, r.seq, r.time_ms, r.epoch, r.invocation) for r in answer.records()] == [
        ("Started", 2, 2_001, 1, 1),
        ("Settled", 3, 2_001, 1, 1),
        ("Started", 4, 2_001, 1, 1),
    ]
    assert answer.records() == journal.records(lease.stream)[1:]
    assert {name: changed.status for name, changed in answer.changes.items()} == {
        "1": Status.SUCCEEDED,
        "2": Status.STARTED,
    }
    assert answer.changes["1"] == journal.operations(lease.stream)["1"]


def test_J1_seq_has_no_gaps_and_time_never_goes_back(journal: Journal) -> None:
    lease = started(journal)
    for place, now_ms in enumerate((5_000, 3_000, 4_000, 6_000)):
        journal.advance(lease, do(f"{place}", STEP, SUCCEED, now_ms), now_ms=now_ms)
    records = journal.records(lease.stream)
    assert [record.seq for record in records] == [*range(1, 10)]
    assert [record.time_ms for record in records[1::2]] == [5_000, 5_000, 5_000, 6_000]
    assert [record.time_ms + record.entry.offset_ms for record in records[1::2]] == [5_000, 3_000, 4_000, 6_000]


def test_an_illegal_update_refuses_the_whole_append(journal: Journal) -> None:
    lease = started(journal)
    journal.advance(lease, do("1", STEP, SUCCEED, 2_000))
    with pytest.raises(IllegalTransitionError):
        journal.advance(lease, do("2", STEP, SUCCEED, 2_000), do("1", STEP, Action.FAIL, 2_000))
    with pytest.raises(IllegalTransitionError):  # decided on what the same append wrote before it
        journal.advance(lease, do("2", STEP, SUCCEED, 2_000), do("2", STEP, SUCCEED, 2_000))


@pytest.mark.parametrize("then", [Then.KEEP, Then.RELEASE, Then.FINISH])
def test_J4_an_append_with_a_superseded_epoch_changes_nothing(journal: Journal, then: Then) -> None:
    lease = started(journal)
    journal.do(lambda transaction: holding.take(transaction, journal.stream(lease.stream), "worker-2"))
    update = do("uid-order-1", Kind.EXECUTION, SUCCEED, 2_000) if then is Then.FINISH else do("1", STEP, SUCCEED, 2_000)
    with pytest.raises(LeaseLost):
        journal.advance(lease, update, then=then)
    with pytest.raises(LeaseLost):
        journal.do(lambda transaction: park(transaction, lease, reason="late", now_ms=3_000))


def test_J11_a_release_sleeps_until_the_earliest_due_operation(journal: Journal) -> None:
    lease = started(journal)
    answer = journal.advance(
        lease,
        do("1", WAIT, Action.START, 2_000, due_ms=9_000),
        do("2", WAIT, Action.START, 2_000, due_ms=4_000),
        do("3", STEP, Action.RETRY, 2_000, due_ms=7_000, error=ErrorData("Timeout", "")),
        do("4", WAIT, Action.START, 2_000, due_ms=3_000),
        do("4", WAIT, Action.CANCEL, 2_000),
        then=Then.RELEASE,
    )
    assert (answer.stream.wake_ms, answer.stream.holder, answer.stream.status) == (4_000, None, "RUNNING")
    assert journal.entries(lease.stream)[-1] == InvocationEnded(1)


def test_J11_a_release_with_nothing_due_waits_for_arrivals_only(journal: Journal) -> None:
    lease = started(journal)
    answer = journal.advance(lease, do("1", Kind.CALLBACK, Action.START, 2_000), then=Then.RELEASE)
    assert (answer.stream.wake_ms, answer.stream.holder) == (None, None)


def test_J11_what_was_recorded_before_counts_and_what_is_frozen_does_not(journal: Journal) -> None:
    lease = started(journal)
    journal.advance(
        lease,
        do("1", Kind.CONTEXT, Action.START, 2_000),
        do("1-1", WAIT, Action.START, 2_000, parent="1", due_ms=3_000),
        do("2", WAIT, Action.START, 2_000, due_ms=8_000),
    )
    answer = journal.advance(lease, do("1", Kind.CONTEXT, SUCCEED, 2_500), then=Then.RELEASE)
    assert answer.stream.wake_ms == 8_000  # J7: the wait inside the settled context never comes due


def test_J6_a_release_with_an_unseen_arrival_wakes_now(journal: Journal) -> None:
    lease = an_actor(journal)
    seen = journal.stream(lease.stream).head
    journal.handle(lease, "m1")
    seen_after_turn = journal.stream(lease.stream).head
    journal.send(now_ms=2_500)
    with_arrival = journal.advance(lease, then=Then.RELEASE, seen=seen_after_turn, now_ms=2_600)
    assert (with_arrival.stream.wake_ms, with_arrival.stream.holder) == (2_600, None)
    assert with_arrival.stream.head > seen_after_turn > seen


def test_J6_a_release_with_everything_seen_sleeps(journal: Journal) -> None:
    lease = an_actor(journal)
    journal.handle(lease, "m1")
    answer = journal.advance(lease, then=Then.RELEASE)
    assert (answer.stream.wake_ms, answer.stream.holder, answer.append, answer.records()) == (None, None, None, [])


def test_J6_an_arrival_does_not_wake_later_than_a_timer_would(journal: Journal) -> None:
    lease = an_actor(journal)
    seen = journal.stream(lease.stream).head
    journal.send(now_ms=1_500)
    wait = do("m1-1", WAIT, Action.START, 2_000, parent="m1", due_ms=60_000)
    answer = journal.advance(lease, wait, then=Then.RELEASE, seen=seen, turn="m1")
    assert answer.stream.wake_ms is not None
    assert answer.stream.wake_ms <= 2_000


def test_a_suspended_turn_is_named_on_the_row_and_its_wait_wakes_it(journal: Journal) -> None:
    lease = an_actor(journal)
    wait = do("m1-1", WAIT, Action.START, 2_000, parent="m1", due_ms=60_000)
    answer = journal.advance(lease, wait, then=Then.RELEASE, turn="m1")
    assert (answer.stream.turn, answer.stream.wake_ms) == ("m1", 60_000)
    assert "InvocationEnded" not in journal.kinds(lease.stream)  # that is a function's


def test_a_finish_records_the_invocation_and_then_the_outcome_in_one_append(journal: Journal) -> None:
    lease = started(journal)
    answer = journal.finish(journal.stream(lease.stream), "done", now_ms=3_000)
    assert answer.append is not None
    assert answer.append.entries == (InvocationEnded(1), Settled("uid-order-1", result=payload("done")))
    stream = answer.stream
    assert (stream.status, stream.holder, stream.wake_ms, stream.ended_ms) == ("SUCCEEDED", None, None, 3_000)
    assert stream.tail == answer.seq
    assert outcome_in(journal.store, stream) == answer.append.entries[1]


def test_G2_after_the_outcome_nobody_writes(journal: Journal) -> None:
    lease = started(journal)
    journal.finish(journal.stream(lease.stream))
    with pytest.raises((LeaseLost, IllegalTransitionError)):
        journal.advance(lease, do("uid-order-1", Kind.EXECUTION, Action.FAIL, 3_000), then=Then.FINISH)
    with pytest.raises(LeaseLost):
        journal.advance(lease, do("1", STEP, SUCCEED, 3_000))
    assert journal.store.due(10**15, limit=9) == []


@pytest.mark.parametrize(
    ("action", "status"),
    [(Action.FAIL, "FAILED"), (Action.TIME_OUT, "TIMED_OUT"), (Action.STOP, "STOPPED")],
)
def test_every_outcome_of_an_execution_is_the_status_of_its_row(journal: Journal, action: Action, status: str) -> None:
    lease = started(journal)
    end = do("uid-order-1", Kind.EXECUTION, action, 2_000, error=ErrorData("ValueError", "no"))
    assert journal.advance(lease, end, then=Then.FINISH).stream.status == status


def test_J8_a_turn_ends_once_and_its_message_settles_once_in_order(journal: Journal) -> None:
    lease = an_actor(journal)
    journal.handle(lease, "m1", "ok", state=payload({"n": 1}))
    assert journal.entries(lease.stream)[1:] == [
        TurnEnded("m1", payload({"n": 1}), "Till@a1:1"),
        Settled("m1", result=payload("ok")),
    ]
    with pytest.raises(IllegalTransitionError):
        journal.handle(lease, "m1", "again")


def test_R4_turns_that_were_queued_together_share_one_append(journal: Journal) -> None:
    lease = an_actor(journal)
    journal.send(now_ms=1_100)
    updates: list[Update | EndTurn] = []
    for message in ("m1", "m2"):
        updates += [EndTurn(message, 2_000), do(message, Kind.MESSAGE, SUCCEED, 2_000)]
    answer = journal.advance(lease, *updates)
    assert len(journal.store.rows(lease.stream)) == 3
    assert [changed.status for changed in answer.changes.values()] == [Status.SUCCEEDED, Status.SUCCEEDED]


def test_J10_the_keys_of_settled_messages_point_at_their_outcomes(journal: Journal) -> None:
    lease = an_actor(journal, key="k")
    journal.send(now_ms=1_100)
    journal.send(key="order-1", now_ms=1_200)
    updates: list[Update | EndTurn] = []
    for message in ("m1", "m2", "m3"):
        updates += [EndTurn(message, 2_000), do(message, Kind.MESSAGE, SUCCEED, 2_000, payload=payload(message))]
    answer = journal.advance(lease, *updates, retention_ms=RETENTION_MS)
    for key, message in (("k", "m1"), ("order-1", "m3")):
        row = journal.key(key, "actor:Till/shop-1")
        assert row is not None
        assert (row.operation, row.settled_seq, row.expiry_ms) == (message, answer.seq, 2_000 + RETENTION_MS)


def test_J10_a_failed_message_is_an_outcome_under_its_key(journal: Journal) -> None:
    lease = an_actor(journal, key="k")
    error = ErrorData("ValueError", "no")
    journal.advance(lease, EndTurn("m1", 2_000), do("m1", Kind.MESSAGE, Action.FAIL, 2_000, error=error))
    answer = journal.send(key="k", now_ms=3_000)
    assert answer.outcome == Settled("m1", Status.FAILED, error=error)


def test_J10_a_key_that_has_gone_to_another_message_is_left_alone(journal: Journal) -> None:
    lease = an_actor(journal, key="k")
    key = journal.key("k", "actor:Till/shop-1")
    assert key is not None
    other = msgspec.structs.replace(key, operation="m9")
    journal.do(lambda transaction: transaction.put_key(other))
    journal.handle(lease, "m1")
    assert journal.key("k", "actor:Till/shop-1") == other
    journal.do(lambda transaction: transaction.forget_key(key.id))
    journal.send(now_ms=2_100)
    journal.handle(lease, "m4")
    assert journal.key("k", "actor:Till/shop-1") is None


def test_the_base_moves_with_the_append_and_stays_without_one_given(journal: Journal) -> None:
    lease = an_actor(journal)
    assert journal.handle(lease, "m1", base=2).stream.base == 2
    assert journal.advance(lease, base=3).stream.base == 3
    assert journal.advance(lease, then=Then.RELEASE).stream.base == 3


def test_J6_the_base_never_passes_a_message_that_its_holder_has_not_seen(journal: Journal) -> None:
    lease = an_actor(journal)
    seen = journal.stream(lease.stream).head
    unseen = journal.send(now_ms=1_500)
    answer = journal.handle(lease, "m1", state=payload({"n": 1}), seen=seen, base=seen + 2)
    assert answer.stream.base <= unseen.seq
    records = holding.read(journal.store, answer.stream)
    assert unseen.message in [getattr(record.entry, "operation", "") for record in records]


def test_J11_a_parked_stream_is_out_of_service_until_it_is_resumed(journal: Journal) -> None:
    lease = started(journal)
    journal.advance(lease, do("1", WAIT, Action.START, 2_000, due_ms=2_500))
    parked = journal.do(lambda transaction: park(transaction, lease, reason="odd", now_ms=3_000))
    assert (parked.status, parked.holder, parked.wake_ms, parked.epoch) == ("PARKED", None, None, lease.epoch + 1)
    assert journal.entries(lease.stream)[-1] == Controlled(Control.PARK, "odd")
    assert journal.store.due(10**12, limit=9) == []
    assert journal.do(lambda transaction: holding.claim_one(transaction, lease.stream, WORKER)) is None
    with pytest.raises(LeaseLost):
        journal.advance(lease, do("2", STEP, SUCCEED, 3_000))
    joined = journal.start(now_ms=3_500)
    assert (joined.is_new, joined.outcome, joined.stream.status) == (False, None, "PARKED")
    resumed = journal.do(lambda transaction: resume(transaction, lease.stream, reason="mended", now_ms=4_000))
    assert (resumed.status, resumed.wake_ms, resumed.epoch) == ("RUNNING", 4_000, parked.epoch + 1)
    assert journal.entries(lease.stream)[-1] == Controlled(Control.RESUME, "mended")
    assert journal.claim(lease.stream).epoch == resumed.epoch + 1


def call(request: Advance) -> Any:
    def run(transaction: Transaction) -> Advanced:
        return advance(transaction, request)

    return run


def test_R3_a_refused_call_disturbs_no_other_in_its_batch(journal: Journal) -> None:
    one, other = started(journal), started(journal, "order-2")
    actor = an_actor(journal, key="k")
    stale = msgspec.structs.replace(one, epoch=0)
    calls = [
        call(journal.request(one, [do("1", STEP, SUCCEED, 2_000)], 2_000)),
        call(journal.request(stale, [do("2", STEP, SUCCEED, 2_000)], 2_000)),
        call(journal.request(other, [do("1", STEP, SUCCEED, 2_000), do("1", STEP, SUCCEED, 2_000)], 2_000)),
        lambda transaction: executions.start(transaction, a_start(order="pen")),
        lambda transaction: messages.send(transaction, a_message(key="k", order="pen")),
        lambda transaction: messages.send(transaction, a_message(now_ms=2_000)),
        call(journal.request(other, [do("2", STEP, SUCCEED, 2_000)], 2_000)),
    ]
    answers = journal.run(*calls)
    assert [type(answer).__name__ for answer in answers] == [
        "Advanced",
        "LeaseLost",
        "IllegalTransitionError",
        "IdempotencyConflictError",
        "IdempotencyConflictError",
        "SendAnswer",
        "Advanced",
    ]
    assert list(journal.operations(one.stream)) == ["uid-order-1", "1"]
    assert list(journal.operations(other.stream)) == ["uid-order-2", "2"]
    assert list(journal.operations(actor.stream)) == ["m1", "m2"]
    for lease in (one, other, actor):
        seqs = [record.seq for record in journal.records(lease.stream)]
        assert seqs == [*range(1, len(seqs) + 1)]


def test_R3_appends_to_one_stream_in_one_batch_follow_each_other(journal: Journal) -> None:
    lease = an_actor(journal)
    first = journal.request(lease, [do("m1-1", STEP, Action.START, 2_000, parent="m1")], 2_000)
    _, sent, _ = journal.run(
        call(first),
        lambda transaction: messages.send(transaction, a_message(now_ms=2_000)),
        call(
            Advance(
                lease,
                seen=2,
                operations={"m1-1": Operation("m1-1", STEP, Status.STARTED, Started("m1-1", STEP))},
                updates=[do("m1-1", STEP, SUCCEED, 2_000)],
                now_ms=2_000,
                then=Then.RELEASE,
                turn="m1",
            )
        ),
    )
    assert sent.message == "m3"
    assert journal.kinds(lease.stream) == ["Started", "Started", "Started", "Settled"]
    assert journal.stream(lease.stream).wake_ms == 2_000  # J6: m3 was not seen


def test_a_yield_is_a_release_that_is_due_at_once(journal: Journal) -> None:
    lease = started(journal)
    answer = journal.advance(lease, do("1", WAIT, Action.START, 2_000, due_ms=9_000), then=Then.YIELD)
    assert (answer.stream.wake_ms, answer.stream.holder) == (2_000, None)
    assert journal.entries(lease.stream)[-1] == InvocationEnded(1)
