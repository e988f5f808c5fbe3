"""Pause, resume, and the end of an execution's time, one transaction each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from semel.errors import LeaseLost, NotFoundError, WrongStatusError
from semel.journal import holding, lifecycle
from semel.journal.advance import Then
from semel.journal.lifecycle import TimedOut
from semel.kernel.entry import EXECUTION_MS_MAX, Control, Controlled, InvocationEnded, Kind, Settled, Status
from semel.kernel.operation import Action
from semel.store.base import Lease, Stream
from tests.journal.places import RETENTION_MS, WORKER, Journal, do

STEP, WAIT, START, SUCCEED = Kind.STEP, Kind.WAIT, Action.START, Action.SUCCEED


def control(journal: Journal, call: Callable[..., Stream], stream: Stream, *, now_ms: int, **options: Any) -> Stream:
    return journal.do(lambda transaction: call(transaction, stream.number, reason="ann", now_ms=now_ms, **options))


def pause(journal: Journal, stream: Stream, *, now_ms: int = 2_000, **options: Any) -> Stream:
    return control(journal, lifecycle.pause, stream, now_ms=now_ms, **options)


def resume(journal: Journal, stream: Stream, *, now_ms: int = 5_000) -> Stream:
    return control(journal, lifecycle.resume, stream, now_ms=now_ms)


def time_out(journal: Journal, stream: Stream, *, now_ms: int, **known: Any) -> TimedOut:
    return journal.do(lambda transaction: lifecycle.time_out(transaction, stream.number, now_ms=now_ms, **known))


def test_R3_a_pause_leaves_the_epoch_and_the_holder_records_what_it_did(journal: Journal) -> None:
    held = journal.start(worker=WORKER).stream
    lease = holding.lease_of(held)
    paused = pause(journal, held)
    assert (paused.status, paused.holder, paused.epoch, paused.wake_ms) == ("PAUSED", WORKER, held.epoch, None)
    assert journal.entries(held.number)[-1] == Controlled(Control.PAUSE, "ann")
    journal.advance(lease, do("1", STEP, SUCCEED, 3_000), now_ms=3_000, then=Then.RELEASE)
    left = journal.stream(held.number)
    assert (left.status, left.holder, left.wake_ms) == ("PAUSED", None, None)
    assert journal.operations(held.number)["1"].status is Status.SUCCEEDED


def test_J11_a_wait_that_comes_due_while_paused_wakes_nobody_before_the_resume(journal: Journal) -> None:
    stream = journal.start(worker=WORKER).stream
    lease = holding.lease_of(stream)
    journal.advance(lease, do("1", WAIT, START, 2_000, due_ms=2_500), then=Then.RELEASE)
    paused = pause(journal, stream, now_ms=2_100)
    assert (paused.wake_ms, paused.epoch) == (None, stream.epoch)
    assert journal.store.due(10**12, limit=9) == []
    assert journal.do(lambda transaction: holding.claim_one(transaction, stream.number, WORKER)) is None
    resumed = resume(journal, stream, now_ms=9_000)
    assert (resumed.status, resumed.wake_ms, resumed.epoch) == ("RUNNING", 9_000, paused.epoch + 1)


def test_a_pause_sent_twice_is_one_pause(journal: Journal) -> None:
    stream = journal.start().stream
    paused = pause(journal, stream)
    before = journal.contents()
    assert pause(journal, stream, now_ms=3_000, holds_clock=False) == paused
    assert journal.contents() == before


def test_a_resume_before_the_holder_lets_go_leaves_the_stream_to_it(journal: Journal) -> None:
    held = journal.start(worker=WORKER).stream
    lease = holding.lease_of(held)
    pause(journal, held)
    resumed = resume(journal, held)
    assert (resumed.status, resumed.holder, resumed.epoch) == ("RUNNING", WORKER, held.epoch)
    seen = held.head
    journal.advance(lease, do("1", STEP, SUCCEED, 6_000), now_ms=6_000, seen=seen)
    # What it has not looked at wakes the stream when it lets go (J6).
    left = journal.advance(
        lease, do("2", WAIT, START, 6_100, due_ms=90_000), now_ms=6_100, seen=seen, then=Then.RELEASE
    )
    assert left.stream.wake_ms == 6_100


@pytest.mark.parametrize("held", [True, False])
def test_a_paused_execution_whose_holder_dies_stays_paused(journal: Journal, *, held: bool) -> None:
    stream = journal.start(worker=WORKER).stream if held else journal.start().stream
    pause(journal, stream)
    void = partial(holding.void_leases_of_the_dead, judged_at_ms=holding.FOREVER_MS, now_ms=3_000)
    assert journal.do(lambda transaction: void(transaction)) == held
    left = journal.stream(stream.number)
    assert (left.status, left.holder, left.wake_ms) == ("PAUSED", None, None)


def ended(journal: Journal) -> Stream:
    stream = journal.start("ended", worker=WORKER).stream
    return journal.finish(stream).stream


def parked(journal: Journal) -> Stream:
    stream = journal.start("parked", worker=WORKER).stream
    lease = holding.lease_of(stream)
    return journal.do(lambda transaction: lifecycle.park(transaction, lease, reason="odd", now_ms=2_000))


def test_what_the_status_does_not_allow_is_refused_and_nothing_is_written(journal: Journal) -> None:
    running, done = journal.start("running").stream, ended(journal)
    for act, stream, said in (
        (pause, done, "cannot be paused, it is SUCCEEDED, expected one that is running"),
        (pause, parked(journal), "cannot be paused, it is PARKED, expected one that is running"),
        (resume, running, "cannot be resumed, it is RUNNING, expected one that is paused or parked"),
        (resume, done, "cannot be resumed, it is SUCCEEDED"),
    ):
        before = journal.contents()
        with pytest.raises(WrongStatusError, match=said) as refusal:
            act(journal, stream)
        assert refusal.value.definite
        assert journal.contents() == before


@pytest.mark.parametrize("call", [lifecycle.pause, lifecycle.resume, lifecycle.stop])
def test_what_is_gone_is_not_found(journal: Journal, call: Any) -> None:
    with pytest.raises(NotFoundError, match="stream 99: it is gone"):
        journal.do(lambda transaction: call(transaction, 99, reason="", now_ms=1))


def test_a_paused_execution_can_be_stopped(journal: Journal) -> None:
    held, suspended = journal.start(worker=WORKER).stream, journal.start("order-2").stream
    for stream in (held, suspended):
        pause(journal, stream)
        stopped = journal.stop(stream.number, now_ms=3_000)
        assert (stopped.status, stopped.holder, stopped.wake_ms) == ("STOPPED", None, None)
    with pytest.raises(LeaseLost):
        journal.advance(holding.lease_of(held), do("1", STEP, SUCCEED, 3_500))


# Deadlines.


def test_G8_an_execution_times_out_at_its_deadline_and_not_before(journal: Journal) -> None:
    held = journal.start(worker=WORKER, due_ms=10_000).stream
    lease = holding.lease_of(held)
    journal.advance(lease, do("1", STEP, START, 2_000))
    assert time_out(journal, held, now_ms=9_999) == TimedOut(journal.stream(held.number), due_ms=10_000)
    answer = time_out(journal, held, now_ms=10_000)
    stream = answer.stream
    assert stream is not None
    assert (stream.status, stream.holder, stream.wake_ms, answer.due_ms) == ("TIMED_OUT", None, None, None)
    assert (stream.epoch, stream.ended_ms) == (held.epoch + 1, 10_000)
    *_, invocation, settled = journal.entries(held.number)
    assert invocation == InvocationEnded(1)
    assert isinstance(settled, Settled)
    assert settled == answer.outcome
    assert (settled.status, settled.error and settled.error.type) == (Status.TIMED_OUT, "ExecutionTimedOut")
    assert journal.operations(held.number)["1"].status is Status.STARTED  # it stays as it stood (J7)
    with pytest.raises(LeaseLost):
        journal.advance(lease, do("1", STEP, SUCCEED, 10_500))
    assert journal.start(now_ms=11_000).outcome == settled


def test_G2_a_time_out_of_what_has_an_outcome_changes_nothing(journal: Journal) -> None:
    stream = journal.start(worker=WORKER, due_ms=3_000).stream
    finished = journal.finish(stream).stream
    before = journal.contents()
    assert time_out(journal, stream, now_ms=10**9) == TimedOut(finished)
    assert time_out(journal, finished, now_ms=10**9, seen=finished.head, due_ms=1) == TimedOut(finished)
    assert journal.contents() == before
    gone = journal.do(lambda transaction: lifecycle.time_out(transaction, 99, now_ms=1))
    assert gone == TimedOut(None)


def test_an_execution_without_a_timeout_never_times_out(journal: Journal) -> None:
    stream = journal.start().stream
    assert time_out(journal, stream, now_ms=10**15) == TimedOut(stream)


def test_J11_a_suspended_stream_wakes_for_its_deadline(journal: Journal) -> None:
    lease = holding.lease_of(journal.start(worker=WORKER, due_ms=10_000).stream)
    left = journal.advance(lease, do("1", WAIT, START, 2_000, due_ms=90_000), then=Then.RELEASE)
    assert left.stream.wake_ms == 10_000
    assert [stream.number for stream in journal.store.due(10_000, limit=9)] == [lease.stream]


def test_a_pause_holds_the_deadline_and_the_resume_gives_its_time_back(journal: Journal) -> None:
    stream = journal.start(due_ms=10_000).stream
    assert pause(journal, stream, now_ms=4_000).wake_ms is None
    assert time_out(journal, stream, now_ms=50_000).outcome is None
    resume(journal, stream, now_ms=50_000)
    assert journal.entries(stream.number)[-1] == Controlled(Control.RESUME, "ann", due_ms=56_000)
    assert journal.operations(stream.number)[stream.uid].due_ms == 56_000
    pause(journal, stream, now_ms=51_000)
    resume(journal, stream, now_ms=52_000)
    assert journal.operations(stream.number)[stream.uid].due_ms == 57_000
    assert time_out(journal, stream, now_ms=56_999).due_ms == 57_000
    assert time_out(journal, stream, now_ms=57_000).outcome is not None


def test_a_pause_that_does_not_hold_the_deadline_wakes_for_it(journal: Journal) -> None:
    stream = journal.start(due_ms=10_000).stream
    paused = pause(journal, stream, now_ms=4_000, holds_clock=False)
    assert (paused.status, paused.wake_ms) == ("PAUSED", 10_000)
    (claimed,) = journal.do(
        lambda transaction: holding.claim(transaction, WORKER, now_ms=10_000, limit=9, names=["pay"])
    )
    assert (claimed.status, claimed.holder) == ("PAUSED", WORKER)
    assert time_out(journal, claimed, now_ms=10_000).outcome is not None


def test_a_pause_that_does_not_hold_the_deadline_leaves_it_at_the_resume(journal: Journal) -> None:
    held = journal.start(worker=WORKER, due_ms=10_000).stream
    pause(journal, held, now_ms=4_000, holds_clock=False)
    left = journal.advance(holding.lease_of(held), now_ms=4_500, then=Then.RELEASE)
    assert left.stream.wake_ms == 10_000
    resume(journal, held, now_ms=6_000)
    assert journal.operations(held.number)[held.uid].due_ms == 10_000


def test_a_deadline_is_never_moved_past_366_days_after_the_start(journal: Journal) -> None:
    due_ms = 1_000 + EXECUTION_MS_MAX - 500
    stream = journal.start(due_ms=due_ms).stream
    pause(journal, stream, now_ms=2_000)
    resume(journal, stream, now_ms=2_400)
    assert journal.operations(stream.number)[stream.uid].due_ms == due_ms + 400
    pause(journal, stream, now_ms=3_000)
    resume(journal, stream, now_ms=9_000)
    assert journal.operations(stream.number)[stream.uid].due_ms == 1_000 + EXECUTION_MS_MAX


def test_a_parked_execution_loses_none_of_its_time(journal: Journal) -> None:
    stream = journal.start(worker=WORKER, due_ms=10_000).stream
    lease = holding.lease_of(stream)
    journal.do(lambda transaction: lifecycle.park(transaction, lease, reason="odd", now_ms=2_000))
    assert time_out(journal, stream, now_ms=10**9) == TimedOut(journal.stream(stream.number))
    resume(journal, stream, now_ms=100_000)
    assert journal.operations(stream.number)[stream.uid].due_ms == 108_000


def test_a_pause_and_its_resume_in_one_batch_give_nothing_back(journal: Journal) -> None:
    stream = journal.start(due_ms=10_000).stream
    _, resumed = journal.run(
        lambda transaction: lifecycle.pause(transaction, stream.number, reason="", now_ms=2_000),
        lambda transaction: lifecycle.resume(transaction, stream.number, reason="", now_ms=2_000),
    )
    assert resumed.status == "RUNNING"
    assert journal.operations(stream.number)[stream.uid].due_ms == 10_000


def test_an_unpin_between_a_pause_and_its_resume_moves_no_deadline(journal: Journal) -> None:
    stream = journal.start(due_ms=10_000, version="pay@a1:1!").stream
    pause(journal, stream, now_ms=4_000)
    control(journal, lifecycle.unpin, stream, now_ms=5_000)
    assert journal.operations(stream.number)[stream.uid].due_ms is None
    resume(journal, stream, now_ms=9_000)
    assert journal.operations(stream.number)[stream.uid].due_ms == 15_000


def test_J4_who_has_lost_the_stream_cannot_park_it(journal: Journal) -> None:
    stream = journal.start(worker=WORKER).stream
    with pytest.raises(LeaseLost):
        journal.do(
            lambda transaction: lifecycle.park(
                transaction, Lease(stream.number, 99, WORKER), reason="", now_ms=RETENTION_MS
            )
        )


def unpin(journal: Journal, stream: Stream, *, now_ms: int = 5_000) -> Stream:
    return control(journal, lifecycle.unpin, stream, now_ms=now_ms)


def test_an_execution_is_unpinned_once_and_keeps_its_holder_and_epoch(journal: Journal) -> None:
    held = journal.start(worker=WORKER, version="pay@a2:1!").stream
    assert (held.is_pinned, held.code_version) == (True, "pay@a2:1")
    assert journal.operations(held.number)[held.uid].version == "pay@a2:1"
    free = unpin(journal, held)
    assert (free.version, free.holder, free.epoch, free.wake_ms) == ("pay@a2:1", WORKER, held.epoch, None)
    assert journal.entries(held.number)[-1] == Controlled(Control.UNPIN, "ann")
    assert unpin(journal, free) == free
    journal.advance(holding.lease_of(held), do("1", STEP, SUCCEED, 6_000), now_ms=6_000, then=Then.RELEASE)
    assert journal.stream(held.number).version == "pay@a2:1"


@pytest.mark.parametrize("status", ["RUNNING", "PAUSED"])
def test_G8_unpinning_changes_no_deadline(journal: Journal, status: str) -> None:
    stream = journal.start(version="pay@a2:1!", due_ms=9_000).stream
    if status == "PAUSED":
        pause(journal, stream, now_ms=3_000)
    free = unpin(journal, stream, now_ms=4_000)
    assert (free.status, free.is_pinned) == (status, False)
    if status == "PAUSED":
        resume(journal, stream, now_ms=5_000)
    due_ms = 11_000 if status == "PAUSED" else 9_000
    assert time_out(journal, stream, now_ms=due_ms - 1).due_ms == due_ms
    assert journal.operations(stream.number)[stream.uid].due_ms == due_ms


def test_one_that_has_ended_or_is_gone_cannot_be_unpinned(journal: Journal) -> None:
    stream = journal.start(version="pay@a2:1!").stream
    control(journal, lifecycle.stop, stream, now_ms=2_000)
    with pytest.raises(WrongStatusError, match="be unpinned"):
        unpin(journal, stream)
    with pytest.raises(NotFoundError):
        journal.do(lambda transaction: lifecycle.unpin(transaction, 99, reason="", now_ms=1))
