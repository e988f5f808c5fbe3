"""The rules that judge a cause, where only the journal and one request are known, and the pages they are put on."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semel.errors import NonDeterminismError
from semel.kernel.divergence import Asked, History, Mismatch, diagnose
from semel.kernel.entry import Control, Controlled, Entry, Kind, Settled, Started, Status
from semel.kernel.memo import Memo
from semel.kernel.report import WIDTH_MIN, Cause, DivergenceReport
from tests.kernel.records import context, message, records, step, succeeded, wait

R, C, S = (
    step(f"1_{place}", name, source=f"app.py:{place}") for place, name in enumerate(("reserve", "charge", "ship"), 1)
)
LONG = "n" * 255


class Text:
    """Code of which is known what it mentions, on which line."""

    def __init__(self, *, unchanged: bool = False, **lines: int) -> None:
        self.lines = lines
        self.unchanged = unchanged

    def is_unchanged(self) -> bool:
        return self.unchanged

    def places(self, name: str) -> tuple[str, ...]:
        return (f"app.py:{self.lines[name]}",) if name in self.lines else ()

    def follows(self, name: str, source: str) -> bool | None:
        return self.lines[name] > int(source.rpartition(":")[2]) if name in self.lines and source else None


def memo_of(*entries: Entry, code: Text | None = None, scope: str = "") -> Memo:
    memo = Memo.of(records(*entries), scope=scope)
    memo.code = code
    return memo


def report_of(memo: Memo, *, asked: int = 0, request: tuple[str, Kind, str, str] | None = None) -> DivergenceReport:
    """Ask for the first so many recorded operations, then for something else or nothing more."""
    for operation in list(memo.operations.values())[:asked]:
        memo.ask(operation.id, operation.kind, operation.name, source=operation.source)

    def go_on() -> None:
        if request is None:
            memo.check_all_asked()
        else:
            operation, kind, name, source = request
            memo.ask(operation, kind, name, source=source)

    with pytest.raises(NonDeterminismError) as raised:
        go_on()
    assert isinstance(raised.value.report, DivergenceReport)
    return raised.value.report


@pytest.mark.parametrize(
    ("name", "kind", "code", "cause"),
    [
        ("charge", Kind.WAIT, None, Cause.KIND_CHANGED),
        ("ship", Kind.STEP, None, Cause.REMOVED),
        ("ship", Kind.STEP, Text(ship=2), Cause.REMOVED),
        ("ship", Kind.STEP, Text(ship=2, charge=3), Cause.REORDERED),
        ("ship", Kind.STEP, Text(ship=3, charge=1), Cause.OTHER_BRANCH),
        ("ship", Kind.STEP, Text(ship=3, charge=2, unchanged=True), Cause.OTHER_BRANCH),
        ("check", Kind.STEP, None, Cause.RENAMED),
        ("check", Kind.STEP, Text(check=2), Cause.RENAMED),
        ("check", Kind.STEP, Text(check=2, charge=3), Cause.ADDED),
        ("check", Kind.STEP, Text(check=1, charge=2), Cause.OTHER_BRANCH),
        ("check", Kind.STEP, Text(check=4, charge=3), Cause.OTHER_BRANCH),
        ("check", Kind.WAIT, None, Cause.ADDED),
        ("check", Kind.WAIT, Text(check=2), Cause.KIND_CHANGED),
        ("check", Kind.WAIT, Text(check=2, charge=3), Cause.ADDED),
    ],
)
def test_G10_the_cause_of_another_request_follows_from_record_and_code(
    name: str, kind: Kind, code: Text | None, cause: Cause
) -> None:
    source = f"app.py:{code.lines[name]}" if code is not None and name in code.lines else "app.py:2"
    report = report_of(memo_of(R, C, S, code=code), asked=1, request=("1_2", kind, name, source))
    assert (report.cause, report.operation) == (cause, "1_2")
    assert report.is_certain is (name == "charge")


@pytest.mark.parametrize(
    ("code", "cause"),
    [(None, Cause.REMOVED), (Text(reserve=1), Cause.REMOVED), (Text(charge=2), Cause.OTHER_BRANCH)],
)
def test_G10_the_cause_of_no_request_follows_from_the_code(code: Text | None, cause: Cause) -> None:
    report = report_of(memo_of(R, C, S, code=code), asked=1)
    assert (report.cause, report.operation, report.instead) == (cause, "1_2", "nothing, and ended")


def test_a_request_that_is_recorded_far_below_is_a_new_order_if_nothing_else_is_known() -> None:
    report = report_of(memo_of(R, C, S), request=("1_1", Kind.STEP, "ship", "app.py:1"))
    assert report.cause is Cause.REORDERED


def test_what_other_branches_did_is_not_what_comes_next_in_this_one() -> None:
    first, second = step("1-1_1", "reserve"), step("1-2_1", "charge")
    report = report_of(memo_of(first, second), request=("1-1_1", Kind.STEP, "charge", "app.py:1"))
    assert report.cause is Cause.REORDERED
    gone = report_of(memo_of(first, second, code=Text(charge=1)), request=("1-1_1", Kind.STEP, "charge", "app.py:1"))
    assert (gone.cause, "task or child context" in gone.explanation) == (Cause.REMOVED, True)


def test_a_branch_that_was_not_begun_is_told_from_one_that_ended_early() -> None:
    never = report_of(memo_of(R, step("1-1_1", "charge")), asked=1)
    early = report_of(memo_of(R, C), asked=1)
    assert ("the task or child context" in never.explanation, "the call of" in early.explanation) == (True, True)


def test_an_operation_whose_id_is_a_hash_has_its_place_by_its_path() -> None:
    path = "1" + "-1" * 40
    hashed = [step(f"h{number}", name, path=f"{path}_{number}") for number, name in ((1, "reserve"), (2, "charge"))]
    assert report_of(memo_of(*hashed), request=("h1", Kind.STEP, "charge", "")).cause is Cause.REMOVED


def test_ids_without_a_lineage_are_compared_all_the_same() -> None:
    memo = memo_of(step("a", "reserve"), step("b", "charge"))
    assert report_of(memo, request=("a", Kind.STEP, "check", "")).cause is Cause.RENAMED


def test_both_sides_are_beside_each_other_with_the_first_difference_marked() -> None:
    memo = memo_of(R, succeeded("1_1"), C, S)
    rows = report_of(memo, asked=1, request=("1_2", Kind.STEP, "check", "app.py:9")).rows
    assert [(row.operation, row.is_first) for row in rows] == [("1_1", False), ("1_2", True), ("1_3", False)]
    recorded, asked = rows[1].recorded, rows[1].asked
    assert recorded is not None
    assert asked is not None
    assert (recorded.what, recorded.source, recorded.status) == ("STEP charge", "app.py:2", "STARTED")
    assert (asked.what, asked.source) == ("STEP check", "app.py:9")
    assert rows[2].asked is None


def test_what_the_run_asked_for_beyond_the_record_is_shown() -> None:
    memo = memo_of(R, step("1-1_1", "remind"))
    memo.ask("1_1", Kind.STEP, "reserve", source="app.py:1")
    memo.ask("1_2", Kind.STEP, "check", source="app.py:2")
    rows = report_of(memo).rows
    assert [(row.operation, row.recorded is None) for row in rows] == [("1_1", False), ("1-1_1", False), ("1_2", True)]


@pytest.mark.parametrize("strict", [False, True])
def test_other_arguments_are_told_with_a_divergence_and_are_one_only_under_strict(strict: bool) -> None:
    memo = memo_of(R, C)
    memo.is_strict = strict
    memo.ask("1_1", Kind.STEP, "reserve", source="app.py:1")
    if strict:
        with pytest.raises(NonDeterminismError, match="other arguments") as raised:
            memo.differ("1_1")
        assert (raised.value.report.cause, raised.value.report.is_certain) == (Cause.ARGUMENTS, True)
        return
    memo.differ("1_1")
    report = report_of(memo, request=("1_2", Kind.STEP, "check", ""))
    assert [row.has_other_arguments for row in report.rows] == [True, False]
    assert "arguments of 1_1" in report.text()


def test_what_a_turn_that_ended_asks_for_beyond_its_record_is_shown_below_it() -> None:
    turn = memo_of(message("m1"), step("m1_1", parent="m1"), scope="m1")
    turn.ask("m1_1", Kind.STEP, "charge", source="")
    report = turn.unexpected("m1_2", Asked(Kind.STEP, "notify", "app.py:3")).report
    assert [(row.operation, row.is_first) for row in report.rows] == [("m1_1", False), ("m1_2", True)]


def test_a_scope_of_another_kind_is_another_operation() -> None:
    memo = memo_of(context("1_1", "orders", subtype="Map"))
    with pytest.raises(NonDeterminismError) as raised:
        memo.ask("1_1", Kind.CONTEXT, "orders", source="app.py:1", subtype="Parallel")
    report = raised.value.report
    assert (report.cause, report.is_certain) == (Cause.KIND_CHANGED, True)
    assert "Map orders" in report.text()


def test_a_scope_that_was_recorded_as_ended_and_does_not_end_is_another_branch() -> None:
    memo = memo_of(context("1_1", "orders"), succeeded("1_1"))
    error = memo.not_ended(memo.operations["1_1"])
    assert (error.report.cause, error.recorded) == (Cause.OTHER_BRANCH, "CONTEXT 'orders' ended")


def test_a_report_is_bounded_however_long_the_history_and_its_names() -> None:
    entries: list[Entry] = [step(f"1_{place}", f"{LONG[:-6]}{place}", source=LONG) for place in range(1, 10_001)]
    memo = memo_of(*entries)
    report = report_of(memo, asked=5_000, request=("1_5001", Kind.STEP, LONG, LONG))
    assert len(report.rows) <= 10
    assert (report.rows[0].skipped, report.following) == (4_997, 4_996)
    parked = Controlled(Control.PARK, "x", report=report)
    assert len(msgspec.msgpack.encode(parked)) < 8_000
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(parked), type=Controlled) == parked


def test_the_summary_is_a_sentence_and_the_message_has_the_report() -> None:
    memo = memo_of(R, C)
    with pytest.raises(NonDeterminismError) as raised:
        memo.ask("1_1", Kind.STEP, "check", source="app.py:1")
    error = raised.value
    assert "\n" not in error.summary
    assert str(error) == f"{error.summary}\n\n{error.report.text()}"


names = st.text("abcdefg -", min_size=1, max_size=60).map(str.strip).filter(bool)


@given(
    recorded=st.lists(names, min_size=1, max_size=12),
    asked=st.integers(0, 11),
    request=st.tuples(st.sampled_from([Kind.STEP, Kind.WAIT, Kind.CONTEXT]), names),
    width=st.integers(40, 200),
    code=st.sampled_from([None, Text(), Text(unchanged=True)]),
)
def test_every_report_fits_its_page(
    recorded: list[str], asked: int, request: tuple[Kind, str], width: int, code: Text | None
) -> None:
    entries = [step(f"1_{place}", found, source=f"folder/app.py:{place}") for place, found in enumerate(recorded, 1)]
    memo = memo_of(*entries, code=code)
    place = min(asked, len(recorded) - 1)
    operation = memo.operations[f"1_{place + 1}"]
    mismatch = Mismatch(operation.id, operation, Asked(*request, "folder/app.py:99"))
    sources = {found.id: found.source for found in list(memo.operations.values())[:place]}
    report = diagnose(History(memo.operations, sources, {}), mismatch, code)
    text = report.text(width=width, stream="0" * 32)
    assert max(map(len, text.splitlines())) <= max(width, WIDTH_MIN, 66)  # `semel executions resume` and an id
    assert sum(row.is_first for row in report.rows) == 1
    assert text.count("\n  > ") + text.startswith("  > ") == 1


def test_a_turn_without_operations_says_where_it_diverged() -> None:
    memo = memo_of(message("m1"), scope="m1")
    memo.message = "m1"
    report = memo.other_reply("SUCCEEDED 7", "SUCCEEDED 8").report
    assert (report.cause, report.rows, report.message) == (Cause.REPLY, (), "m1")
    assert "SUCCEEDED 7" in report.text()


def test_a_recorded_cancellation_that_did_not_come_again_is_another_branch() -> None:
    memo = memo_of(wait("1_1"), Settled("1_1", Status.CANCELLED, requested=True), context("1_2"))
    error = memo.not_cancelled(memo.operations["1_1"])
    assert (error.report.cause, error.recorded) == (Cause.OTHER_BRANCH, "WAIT cancelled")


def test_a_timer_and_a_wait_are_not_the_same_and_have_words_of_their_own() -> None:
    timer = Started("1_1", Kind.WAIT, name="timer")
    became = report_of(memo_of(timer), request=("1_1", Kind.WAIT, "", "app.py:1"))
    back = report_of(memo_of(Started("1_1", Kind.WAIT)), request=("1_1", Kind.WAIT, "timer", "app.py:1"))
    assert became.cause is back.cause is Cause.KIND_CHANGED
    added = report_of(memo_of(timer, code=Text(sleep=9)), request=("1_1", Kind.STEP, "x", "app.py:1"))
    gone = report_of(memo_of(timer, code=Text(wait=9)), request=("1_1", Kind.STEP, "x", "app.py:1"))
    assert (added.cause, gone.cause) == (Cause.ADDED, Cause.KIND_CHANGED)
