"""What replaying code is answered, in which order, and how a divergence is reported."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semel.errors import NonDeterminismError
from semel.kernel.entry import Entry, Kind, RetryReady, RetryScheduled, Settled, Started, Status
from semel.kernel.memo import Memo
from semel.kernel.operation import Operation
from tests.kernel.records import context, failed, message, payload, records, step, succeeded, wait


def delivered(memo: Memo) -> list[str]:
    names = []
    while (completion := memo.upcoming()) is not None:
        names.append(completion.operation.id)
        memo.advance()
    return names


def ask_all(memo: Memo) -> None:
    for operation in memo.operations.values():
        assert memo.ask(operation.id, operation.kind, operation.name, source="app.py:1") is operation


def test_an_empty_memo_answers_nothing_and_is_used_up() -> None:
    memo = Memo.of([], scope="")
    assert memo.ask("1", Kind.STEP, "charge", source="app.py:1") is None
    assert memo.upcoming() is None
    assert memo.is_used_up
    memo.check_all_asked()


def test_completions_come_in_the_order_of_the_journal_whatever_the_order_of_asking() -> None:
    memo = Memo.of(
        records(step("1"), step("2"), wait("3"), succeeded("3"), succeeded("1"), failed("2")),
        scope="",
    )
    for name, kind, called in [("3", Kind.WAIT, ""), ("2", Kind.STEP, "charge"), ("1", Kind.STEP, "charge")]:
        assert memo.ask(name, kind, called, source="app.py:1") is not None
    assert (memo.is_used_up, delivered(memo), memo.is_used_up) == (False, ["3", "1", "2"], True)
    memo.check_all_asked()


@given(st.permutations(["1", "2", "3", "4"]), st.permutations(["1", "2", "3", "4"]))
def test_any_order_of_asking_gets_the_recorded_order_of_completion(asked: list[str], settled: list[str]) -> None:
    starts: list[Entry] = [step(name) for name in "1234"]
    memo = Memo.of(records(*starts, *map(succeeded, settled)), scope="")
    for name in asked:
        memo.ask(name, Kind.STEP, "charge", source="app.py:1")
    assert delivered(memo) == settled


def test_outcomes_that_others_brought_have_a_place_in_the_order_they_came() -> None:
    calls = [Started(name, Kind.CALLBACK) for name in "123"]
    memo = Memo.of(records(*calls, succeeded("3"), succeeded("1")), scope="")
    assert sorted("123", key=memo.place_of_arrival) == ["2", "3", "1"]
    memo.arrived(Operation("2", Kind.CALLBACK, Status.SUCCEEDED))
    assert sorted("123", key=memo.place_of_arrival) == ["3", "1", "2"]
    assert memo.is_used_up  # nobody was told of them


def test_a_completion_carries_the_time_of_its_entry_and_the_outcome() -> None:
    early = Settled("1", result=payload(7), offset_ms=-500)
    memo = Memo.of(records(step("1"), early), scope="")
    ask_all(memo)
    completion = memo.upcoming()
    assert completion is not None
    assert completion.at_ms == 1_002 - 500
    assert (completion.operation.status, completion.operation.result) == (Status.SUCCEEDED, payload(7))


def test_upcoming_stays_until_it_is_advanced() -> None:
    memo = Memo.of(records(step("1"), succeeded("1")), scope="")
    ask_all(memo)
    assert memo.upcoming() is memo.upcoming()
    assert not memo.is_used_up


def test_what_is_open_is_answered_and_not_delivered() -> None:
    memo = Memo.of(records(step("1"), RetryScheduled("1", 9_000), RetryReady("1"), wait("2")), scope="")
    found = memo.ask("1", Kind.STEP, "charge", source="app.py:1")
    assert found is not None
    assert (found.status, found.attempt) == (Status.READY, 1)
    assert memo.upcoming() is None
    assert memo.is_used_up


def test_R2_an_outcome_that_its_own_awaiter_asked_for_is_not_delivered() -> None:
    memo = Memo.of(records(wait("1"), Settled("1", Status.CANCELLED, requested=True), wait("2")), scope="")
    assert memo.upcoming() is None
    assert memo.is_used_up
    found = memo.ask("1", Kind.WAIT, "", source="app.py:1")
    assert found is not None
    assert found.status is Status.CANCELLED


@pytest.mark.parametrize(
    ("kind", "name", "requested"),
    [
        (Kind.STEP, "refund", "STEP 'refund' at app.py:12"),
        (Kind.WAIT, "", "WAIT at app.py:12"),
        (Kind.CONTEXT, "charge", "CONTEXT 'charge' at app.py:12"),
    ],
)
def test_G10_another_operation_at_a_recorded_place_is_a_divergence_that_names_both(
    kind: Kind, name: str, requested: str
) -> None:
    memo = Memo.of(records(step("1-2", source="app.py:7"), succeeded("1-2")), scope="")
    with pytest.raises(NonDeterminismError) as report:
        memo.ask("1-2", kind, name, source="app.py:12")
    error = report.value
    assert (error.position, error.recorded, error.requested) == ("1-2", "STEP 'charge' at app.py:7", requested)
    for part in ("operation 1-2", "STEP 'charge' at app.py:7", requested, "restore it"):
        assert part in str(error)


def test_G10_a_completion_that_this_run_never_asked_for_is_a_divergence() -> None:
    memo = Memo.of(records(step("1"), step("2", source="app.py:9"), succeeded("2"), succeeded("1")), scope="")
    memo.ask("1", Kind.STEP, "charge", source="app.py:1")
    with pytest.raises(NonDeterminismError) as report:
        memo.upcoming()
    assert (report.value.position, report.value.recorded) == ("2", "STEP 'charge' at app.py:9")
    assert report.value.requested == "nothing at that place"


def test_G10_a_run_that_ends_without_asking_for_what_is_recorded_is_a_divergence() -> None:
    memo = Memo.of(records(step("1"), succeeded("1"), wait("2", source="app.py:4"), step("3")), scope="")
    memo.ask("1", Kind.STEP, "charge", source="app.py:1")
    with pytest.raises(NonDeterminismError) as report:
        memo.check_all_asked()
    assert (report.value.position, report.value.recorded) == ("2", "WAIT at app.py:4")
    assert report.value.requested == "nothing, and ended"


def test_a_refused_request_does_not_count_as_asked() -> None:
    memo = Memo.of(records(step("1"), succeeded("1")), scope="")
    with pytest.raises(NonDeterminismError):
        memo.ask("1", Kind.STEP, "refund", source="app.py:1")
    with pytest.raises(NonDeterminismError, match="nothing at that place"):
        memo.upcoming()


def test_asking_twice_is_asking_once() -> None:
    memo = Memo.of(records(step("1"), succeeded("1")), scope="")
    ask_all(memo)
    ask_all(memo)
    assert delivered(memo) == ["1"]
    memo.check_all_asked()


def test_executions_and_messages_are_scopes_and_never_answers() -> None:
    execution = Started("exec", Kind.EXECUTION, name="order-1")
    memo = Memo.of(records(execution, message("m2"), step("1"), Settled("exec", Status.STOPPED)), scope="")
    assert set(memo.operations) == {"1"}
    assert memo.is_used_up


def test_a_turn_is_answered_from_its_own_message_only() -> None:
    stream = records(
        message("m1"),
        message("m2"),
        step("m1-1", parent="m1"),
        succeeded("m1-1"),
        step("m2-1", parent="m2"),
        succeeded("m2-1"),
        step("other", parent="gone"),
    )
    for scope in ("m1", "m2"):
        memo = Memo.of(stream, scope=scope)
        assert set(memo.operations) == {f"{scope}-1"}
        ask_all(memo)
        assert delivered(memo) == [f"{scope}-1"]


@pytest.mark.parametrize("outcome", [succeeded("1"), failed("1")])
def test_a_context_with_an_outcome_answers_for_what_is_inside(outcome: Entry) -> None:
    inside: list[Entry] = [
        step("1-1", parent="1"),
        context("1-2", parent="1"),
        step("1-2-1", parent="1-2"),
        succeeded("1-2-1"),
    ]
    open_memo = Memo.of(records(context("1"), *inside, succeeded("1-1")), scope="")
    assert set(open_memo.operations) == {"1", "1-1", "1-2", "1-2-1"}
    ask_all(open_memo)
    assert delivered(open_memo) == ["1-2-1", "1-1"]
    memo = Memo.of(records(context("1"), *inside, succeeded("1-1"), outcome), scope="")
    assert set(memo.operations) == {"1"}
    ask_all(memo)
    assert delivered(memo) == ["1"]


def test_an_inner_context_with_an_outcome_answers_for_its_inside_alone() -> None:
    memo = Memo.of(
        records(
            context("1"),
            context("1-1", parent="1"),
            step("1-1-1", parent="1-1"),
            succeeded("1-1-1"),
            succeeded("1-1"),
            step("1-2", parent="1"),
        ),
        scope="",
    )
    assert set(memo.operations) == {"1", "1-1", "1-2"}


def test_a_cancelled_context_does_not_answer_for_its_inside() -> None:
    """Its inside ran on while the cancellation reached it: a replay runs it again, and asks."""
    memo = Memo.of(
        records(
            context("1"),
            step("1-1", parent="1"),
            succeeded("1-1"),
            Settled("1", Status.CANCELLED, requested=True),
            step("1-2", parent="1"),
            succeeded("1-2"),
        ),
        scope="",
    )
    assert set(memo.operations) == {"1", "1-1", "1-2"}
    ask_all(memo)
    assert delivered(memo) == ["1-1", "1-2"]


def marker(name: str, **fields: Any) -> Started:
    return step(f"1_p-{name}", name, subtype="Patch", **fields)


def test_a_patch_is_new_where_nothing_more_is_recorded_and_is_then_the_same() -> None:
    memo = Memo.of(records(step("1"), succeeded("1")), scope="")
    ask_all(memo)
    delivered(memo)
    assert memo.patched("fee") is None
    memo.patch("fee")
    assert (memo.patched("fee"), memo.patched("other")) == (True, None)


def test_a_patch_is_old_where_more_is_recorded_and_stays_so() -> None:
    undelivered = Memo.of(records(step("1"), succeeded("1")), scope="")
    ask_all(undelivered)
    assert undelivered.patched("fee") is False
    delivered(undelivered)
    assert (undelivered.patched("fee"), undelivered.patched("other")) == (False, None)
    unasked = Memo.of(records(wait("1")), scope="")
    assert unasked.patched("fee") is False
    ask_all(unasked)
    assert (unasked.patched("fee"), unasked.patched("other")) == (False, None)


def test_a_recorded_patch_is_taken_wherever_it_is_asked_for_and_needs_no_asking() -> None:
    memo = Memo.of(records(marker("fee"), succeeded("1_p-fee"), step("1"), succeeded("1")), scope="")
    assert (memo.patched("fee"), memo.patched("other")) == (True, False)
    assert set(memo.operations) == {"1"}
    ask_all(memo)
    assert delivered(memo) == ["1"]
    memo.check_all_asked()


def test_a_patch_belongs_to_its_scope() -> None:
    stream = records(
        message("m1"), message("m2"), marker("fee", parent="m1"), succeeded("1_p-fee"), succeeded("m1"), step("gone")
    )
    over, open_one = (Memo.of(stream, scope=scope) for scope in ("m1", "m2"))
    assert (over.patched("fee"), over.patched("other")) == (True, False)
    assert (open_one.patched("fee"), open_one.patched("other")) == (None, None)
