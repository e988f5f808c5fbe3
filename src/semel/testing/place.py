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


class Place(Protocol):
    """Where a world's journal lies, whatever process looks at it."""

    name: str

    def open(self) -> Store: ...
    def close(self) -> None: ...


class MemoryPlace:
    """In memory."""

    name = "memory"

    def __init__(self, seed: int) -> None:
        self._data = MemoryData()
        self._data.journal_id = f"{seed:032x}"

    def open(self) -> Store:
        """Another handle on the same data."""
        return MemoryStore(self._data)

    def close(self) -> None:
        """Nothing to let go."""


class SqlitePlace:
    """In a SQLite file of its own, on a file system in memory where there is one."""

    name = "sqlite"

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="semel-world-", dir=TMPFS if os.access(TMPFS, os.W_OK) else None)

    def open(self) -> Store:
        """Another connection to the file, as the next process would make it."""
        return SqliteStore.open(Path(self._folder) / "world.db")

    def close(self) -> None:
        """Remove the file."""
        shutil.rmtree(self._folder, ignore_errors=True)
