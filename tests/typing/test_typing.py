"""The source and the public API type-check, and the checkers find the mistakes marked in api.py."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.tidy.tree import ROOT


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if name not in {"MYPYPATH", "PYTHONPATH"}}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_the_source_and_the_public_api_are_clean_under_mypy_strict() -> None:
    pytest.importorskip("mypy")
    done = run("mypy")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_public_api_is_clean_under_pyright() -> None:
    pytest.importorskip("pyright")
    version = run("pyright", "--version")
    if version.returncode != 0:
        pytest.skip(f"pyright cannot run here (it needs node): {version.stderr.strip()[-200:]}")
    done = run("pyright", "tests/typing")
    assert done.returncode == 0, done.stdout + done.stderr
