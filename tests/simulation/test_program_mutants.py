"""What makes a replay take the recorded path, taken away: the random programs say so."""

from typing import Any

import pytest

from semel.kernel.memo import Memo
from semel.runtime.frame import Frame
from tests.simulation.program_runs import explore_program

pytestmark = [pytest.mark.mutant, pytest.mark.timeout(600)]


def test_a_replay_that_delivers_in_the_order_of_issue_takes_other_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    memo_of = Memo.of

    def of_in_order_of_issue(records: Any, **options: Any) -> Memo:
        memo = memo_of(records, **options)
        issued = list(memo.operations)
        memo._completions.sort(key=lambda completion: issued.index(completion.operation.id))
        return memo

    monkeypatch.setattr(Memo, "of", of_in_order_of_issue)
    tallies = [explore_program(number, orders=2) for number in range(3)]
    assert all(any("Crash(" in found for found in tally.found) for tally in tallies)
    assert any("race" in found for tally in tallies for found in tally.found)


def test_hashes_that_count_the_whole_body_give_sets_another_order_on_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    count = iter(range(1 << 62))
    monkeypatch.setattr(Frame, "next_ordinal", lambda frame: next(count))
    assert any(explore_program(number, orders=1).found for number in range(30))
