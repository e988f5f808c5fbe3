"""One suite for every store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from semel.store.base import Store
from tests.store.backends import NAMES, Backend


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    made = Backend(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture
def store(backend: Backend) -> Store:
    return backend.open()
