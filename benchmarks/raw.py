"""The disk alone: a tight loop of begin, multi-row insert, commit, on one thread, with nothing else to do.

The floor is measured against it, at the floor's own rows per commit and bytes per row, in the
same table with the same index, on the same file system.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from benchmarks.floor import connect

INSERT = "insert into journal(execution, mark, body) values "
PREPARED_COMMITS = 64
ROWS_PER_EXECUTION = 6  # a start with a key, four steps, a finish


class RawLoop:
    """The loop on one file, which grows from slice to slice as the floor's does."""

    def __init__(self, path: Path) -> None:
        self._database = connect(str(path))
        self._number = 0

    def close(self) -> None:
        self._database.close()

    def rows_per_second(self, *, rows_per_commit: int, row_bytes: int, seconds: float) -> float:
        """One slice of about this many seconds; making the rows is not counted."""
        insert = INSERT + ",".join(["(?,?,?)"] * rows_per_commit)
        body = os.urandom(row_bytes)
        rows, spent = 0, 0.0
        while spent < seconds:
            batches = [self._batch(rows_per_commit, body) for _ in range(PREPARED_COMMITS)]
            begun = time.perf_counter()
            for batch in batches:
                self._database.execute("begin immediate")
                self._database.execute(insert, batch)
                self._database.execute("commit")
                rows += rows_per_commit
                if time.perf_counter() - begun + spent > seconds:
                    break
            spent += time.perf_counter() - begun
        return rows / spent

    def _batch(self, rows: int, body: bytes) -> list[Any]:
        numbers = range(self._number, self._number + rows)
        self._number += rows
        return [value for number in numbers for value in (number, _mark(number), body)]


def row_bytes_of(path: Path) -> int:
    """The average body that the floor wrote."""
    database = connect(str(path))
    average: Any = database.execute("select avg(length(body)) from journal").get
    database.close()
    return int(average)


def fsync_ms(folder: Path) -> float:
    """The median time of writing and syncing 4 KiB to a growing file."""
    times = []
    with (folder / "fsync.probe").open("wb", buffering=0) as file:
        for _ in range(200):
            begun = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return sorted(times)[len(times) // 2] * 1000


def _mark(number: int) -> str | int | None:
    match number % ROWS_PER_EXECUTION:
        case 0:
            return f"order-{number:09}"
        case 5:
            return number
    return None
