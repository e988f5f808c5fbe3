"""An execution of 100 MB in a process of its own: how much memory it takes, live and replayed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.tree import ROOT

MEMORY_MAX = 300_000_000
SECONDS_MAX = 120

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says how much memory a process has had"),
    pytest.mark.timeout(2 * SECONDS_MAX + 30),
]


def highest_of(store: str, what: str, count: int, size: int) -> int:
    """The most memory that a process had which did this."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtime.large_execution", store, what, str(count), str(size)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize(
    ("count", "size"),
    [(100, 990_000), (20, 4_990_000), (1_700, 58_000)],
    ids=["100 of 1 MB", "20 of 5 MB", "1,700 just too small for chunks"],
)
def test_100_MB_are_run_and_replayed_in_less_than_300_MB(tmp_path: Path, count: int, size: int) -> None:
    store = f"sqlite:///{tmp_path / 'journal.db'}"
    assert count * size > 98_000_000
    live = highest_of(store, "live", count, size)
    replayed = highest_of(store, "replay", count, size)
    print(f"{count} of {size:,} bytes: {live:,} live, {replayed:,} replayed")
    assert max(live, replayed) < MEMORY_MAX
