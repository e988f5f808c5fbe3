"""Each cause, as two real programs and the report of replaying the first one's journal with the second. (G10)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.divergence import pairs
from tests.divergence.pairs import Bench, programs, run

TRANSCRIPTS = sorted((pairs.FOLDER / "functions").glob("*.txt"))
WIDTHS = {"wide": 120}


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_divergence_is_reported_parked_and_mended(path: Path) -> None:
    """The report is that of the transcript, no effect took place, and the restored program goes on to the end."""
    _, before, after = programs(path.read_text(encoding="utf-8"))

    async def scenario() -> None:
        bench = Bench()
        execution = await bench.record(before)
        effects = list(bench.effects)
        info = await bench.replay(after, execution)
        assert info.status == "PARKED"
        assert bench.effects == effects
        assert info.report is not None
        pairs.check(path, info.report, width=next((WIDTHS[word] for word in WIDTHS if word in path.stem), 80))
        mended = await bench.replay(before, execution, is_changed=False)
        assert (mended.status, mended.result) == ("SUCCEEDED", "done")

    run(scenario())


@pytest.mark.parametrize("path", sorted((pairs.FOLDER / "actors").glob("*.txt")), ids=lambda path: path.stem)
def test_a_divergence_of_a_turn_parks_the_actor_and_is_mended(path: Path) -> None:
    """Also a turn that ended and is run again, after a crash, to reach the state."""
    _, before, after = programs(path.read_text(encoding="utf-8"))

    async def scenario() -> None:
        bench = Bench()
        actor = await bench.record_turn(before)
        effects = list(bench.effects)
        parked = await bench.replay_turn(after, actor)
        assert bench.effects == effects
        assert parked.report is not None
        assert bench.error is not None
        assert bench.error.report == parked.report
        pairs.check(path, parked.report)
        assert "executions stop" not in parked.report.text()
        mended = await bench.replay_turn(before, actor, is_changed=False)
        assert mended.action == "resume"

    run(scenario())


def test_every_cause_has_its_transcripts() -> None:
    from semel.kernel.report import Cause

    causes = {line.partition(": ")[2] for path in _all() for line in _said(path)}
    assert causes >= {str(cause) for cause in Cause}
    assert len(TRANSCRIPTS) >= 30


def _all() -> list[Path]:
    return sorted(pairs.FOLDER.rglob("*.txt"))


def _said(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith(("cause: ", "likely cause: "))]


def test_no_line_of_a_report_is_wider_than_asked() -> None:
    for path in TRANSCRIPTS:
        width = next((WIDTHS[word] for word in WIDTHS if word in path.stem), 80)
        report: Any = path.read_text(encoding="utf-8").partition("\n----\n")[2]
        assert max(map(len, report.splitlines())) <= width
