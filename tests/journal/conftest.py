"""One suite for the journal on every store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journal.places import Journal
from tests.store.backends import NAMES, Backend


@pytest.fixture(params=NAMES)
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    backend = Backend(request.param, tmp_path)
    yield Journal(backend.open())
    backend.close()
