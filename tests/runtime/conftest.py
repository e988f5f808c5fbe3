"""One place per store, and nothing left behind by an engine."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.places import NAMES, Place


@pytest.fixture(params=NAMES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path)


@pytest.fixture
def sqlite(tmp_path: Path) -> Place:
    return Place("sqlite", tmp_path)


@pytest.fixture
def _no_threads_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("semel-c")]
    assert left == []
