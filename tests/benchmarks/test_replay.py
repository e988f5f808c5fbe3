"""The replay benchmark measures what it says."""

import pytest

from benchmarks import replay


def test_it_prints_a_line_for_each_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main(["--steps", "5", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["5", "10"]
    assert lines[-2].split()[3] == "1.00"
