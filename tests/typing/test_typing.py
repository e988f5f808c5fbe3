"""api.py is clean under pyright, which finds the mistakes marked in it. mypy reads it in tests/tidy/test_lint.py."""

import subprocess
import sys

import pytest

from tests.tidy.tree import ROOT


def pyright(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pyright", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_public_api_is_clean_under_pyright() -> None:
    pytest.importorskip("pyright")
    version = pyright("--version")
    if version.returncode != 0:
        pytest.skip(f"pyright cannot run here (it needs node): {version.stderr.strip()[-200:]}")
    done = pyright("tests/typing")
    assert done.returncode == 0, done.stdout + done.stderr
