"""ruff and mypy find nothing. Both run as the reader would run them, from the root of the project."""

import subprocess
import sys

import pytest

from tests.tidy.tree import ROOT


def tool(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}", pytrace=False)


def test_ruff_check_finds_nothing() -> None:
    tool("ruff", "check", "--quiet", ".")


def test_ruff_format_would_change_nothing() -> None:
    tool("ruff", "format", "--check", "--quiet", ".")


@pytest.mark.timeout(300)
def test_mypy_strict_finds_nothing() -> None:
    tool("mypy", "--no-error-summary")
