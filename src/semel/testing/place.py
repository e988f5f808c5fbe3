"""Where the journal of a world lies, whatever process looks at it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final, Protocol

from semel.store.base import Store
from semel.store.memory import MemoryData, MemoryStore
from semel.store.sqlite import SqliteStore

TMPFS: Final = "/dev/shm"  # noqa: S108  # a world dies in process, so that nothing has to reach a disk

FILE: Final = "world.db"


class Place(Protocol):
    """Where a world's journal lies, whatever process looks at it."""

    journal_id: str

    def open(self) -> Store: ...
    def close(self) -> None: ...


class MemoryPlace:
    """In memory."""

    def __init__(self, seed: int) -> None:
        self._data = MemoryData()
        self.journal_id = self._data.journal_id = f"{seed:032x}"

    def open(self) -> Store:
        """Another handle on the same data."""
        return MemoryStore(self._data)

    def close(self) -> None:
        """Nothing to let go."""


class SqliteTemplate:
    """An empty journal in SQLite's bytes, so that each world need not make its own."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory(prefix="semel-world-", dir=_folder()) as folder:
            path = Path(folder) / FILE
            store = SqliteStore.open(path)
            self.journal_id = store.journal_id
            store.close()
            self.content = path.read_bytes()


class SqlitePlace:
    """In a SQLite file of its own, on a file system in memory where there is one."""

    def __init__(self, template: SqliteTemplate) -> None:
        self.journal_id = template.journal_id
        self._folder = tempfile.mkdtemp(prefix="semel-world-", dir=_folder())
        self._path = str(Path(self._folder) / FILE)
        Path(self._path).write_bytes(template.content)

    def open(self) -> Store:
        """Another connection to the file, as the next process would make it."""
        return SqliteStore.open(self._path)

    def close(self) -> None:
        """Remove the file."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _folder() -> str | None:
    return TMPFS if os.access(TMPFS, os.W_OK) else None
