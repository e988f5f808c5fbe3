"""R2, as a table: every operation × the moment it is cancelled at × what cancels it, each cell under every crash."""

from collections import Counter
from pathlib import Path

import pytest

from semel.kernel.entry import Status
from semel.kernel.operation import TRANSITIONS, Action
from semel.runtime.body import Body
from semel.runtime.seam import BodySeam
from semel.runtime.slot import RUNNING, Slot
from semel.testing.place import MemoryPlace
from semel.testing.world import silence
from tests.simulation.cancel_shapes import CAUSES, MOMENTS, ROWS
from tests.simulation.cancel_table import CELLS, EVERY, MISSING, Cell, departures, explore_cell, page_table, run_cell

PAGE = Path(__file__).parents[2] / "docs" / "cancellation.md"
RUNS: Counter[str] = Counter()
SQLITE_CELLS, SQLITE_SHARE = 40, 0.1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_R2_a_cancelled_operation_settles_once_with_what_happened(cell: Cell) -> None:
    runs, problems = explore_cell(cell)
    RUNS[cell.cause] += runs
    assert problems == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("which", range(4))
def test_R2_holds_on_sqlite_and_for_bodies_that_are_evicted(which: int) -> None:
    """A part of the table, another in each of the four."""
    step = len(CELLS) // SQLITE_CELLS
    for cell in CELLS[which::step][: SQLITE_CELLS // 4]:
        runs, problems = explore_cell(cell, store="sqlite", is_evicted=True, share=SQLITE_SHARE, seed=which)
        RUNS["on SQLite"] += runs
        assert problems == []


@pytest.mark.parametrize("row", ["callback", "wait_for_callback", "invoke"])
def test_R2_an_outcome_that_came_while_the_body_was_out_of_memory_has_its_place(row: str) -> None:
    for moment in ("settled", "unseen"):
        assert explore_cell(Cell(row, moment, "task.cancel"), is_evicted=True)[1] == []


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_R2_holds_for_every_cell_whose_body_is_evicted(cell: Cell) -> None:
    assert explore_cell(cell, is_evicted=True)[1] == []
    assert explore_cell(cell, store="sqlite", share=0.5)[1] == []


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_R2_holds_when_the_body_leaves_memory_or_another_engine_has_it(cell: Cell) -> None:
    assert explore_cell(cell, plans=departures)[1] == []


def test_every_operation_has_every_cell_or_a_reason_why_not() -> None:
    assert len(EVERY) == len(ROWS) * len(MOMENTS) * len(CAUSES)
    assert set(EVERY) == {*CELLS, *MISSING}
    for name, row in ROWS.items():
        assert {*row.sees, *row.never} == {*MOMENTS}, name
        assert not row.sees.keys() & row.never.keys(), name
    kinds = {kind for kind, action in TRANSITIONS if action is Action.CANCEL and kind not in ("EXECUTION", "MESSAGE")}
    assert kinds == {"STEP", "WAIT", "CALLBACK", "CHAINED_INVOKE", "CONTEXT"}


def test_the_table_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = Counter(MISSING.values())
    with capsys.disabled():
        print(
            f"\ncancellation: {len(ROWS)} operations × {len(MOMENTS)} moments × {len(CAUSES)} causes = {len(EVERY)}: "
            f"{len(CELLS)} cells, {len(MISSING)} that do not exist; {sum(RUNS.values()):,} runs"
        )
        for why, count in reasons.most_common():
            print(f"  {count:3} × {why}")
    assert sum(reasons.values()) + len(CELLS) == len(EVERY)


def test_the_page_has_the_table_that_is_tested() -> None:
    lines = PAGE.read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("|")] == page_table()


# Each rule taken away: the table says so.


def problems_of(*cells: tuple[str, str, str]) -> str:
    return "\n".join(problem for cell in cells for problem in explore_cell(Cell(*cell))[1])


@pytest.mark.mutant
def test_R2_a_cancelled_step_that_is_begun_again_after_a_crash_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def may_have_begun(seam: BodySeam, slot: Slot) -> bool:
        if slot.phase is RUNNING:
            slot.is_cancelled = True
            seam.tell_step(slot)
            return True
        return seam._is_replaying  # it waits on, and the step is begun when the memo is used up

    monkeypatch.setattr(BodySeam, "_may_have_begun", may_have_begun)
    assert "after it was cancelled" in problems_of(("step", "in flight", "timeout"))


@pytest.mark.mutant
def test_R2_an_outcome_that_is_made_up_for_a_told_step_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BodySeam, "_may_have_begun", lambda seam, slot: False)
    assert "expected" in problems_of(("step, tidies up", "in flight", "task group"))


@pytest.mark.mutant
def test_R2_a_cancel_that_replaces_an_outcome_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from semel.journal import advance, arrivals

    monkeypatch.setattr(advance, "_came_too_late", lambda *arguments: False)
    monkeypatch.setattr(arrivals, "is_open", lambda *arguments: True)
    assert problems_of(("callback", "unseen", "task.cancel"))


@pytest.mark.mutant
def test_J7_a_cancelled_scope_that_does_not_freeze_what_is_inside_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BodySeam, "_freeze_inside", lambda seam, scope: None)
    assert "J7" in problems_of(("wait_for_callback", "asked", "timeout"))


@pytest.mark.mutant
def test_a_step_that_is_tried_again_though_it_was_cancelled_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Body.step_failed

    def as_if_nobody_cancelled(body: Body, slot: Slot, *rest: object) -> None:
        slot.is_cancelled = False
        failed(body, slot, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Body, "step_failed", as_if_nobody_cancelled)
    assert "after it was cancelled" in problems_of(("step, breaks down", "in flight", "task.cancel"))


def test_the_same_cell_runs_the_same_each_time() -> None:
    with silence():
        seen = [run_cell(Cell("map", "in flight", "timeout"), MemoryPlace(0)) for _ in range(2)]
    assert seen[0].trail is not None and seen[1].trail is not None
    assert seen[0].trail.rows == seen[1].trail.rows
    assert seen[0].trail.stream.status == Status.SUCCEEDED
