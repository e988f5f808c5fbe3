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
PREPARED_COMMITS = 256
ROWS_PER_EXECUTION = 6  # a start with a key, four steps, a finish


def raw_rows_per_second(path: Path, *, rows_per_commit: int, row_bytes: int, seconds: float) -> float:
    """Rows per second of the loop, over about this many seconds."""
    database = connect(str(path))
    insert = INSERT + ",".join(["(?,?,?)"] * rows_per_commit)
    body = os.urandom(row_bytes)
    number = rows = 0
    spent = 0.0
    while spent < seconds:
        batches: list[list[Any]] = []
        for _ in range(PREPARED_COMMITS):
            numbers = range(number, number + rows_per_commit)
            batches.append([value for n in numbers for value in (n, _mark(n), body)])
            number += rows_per_commit
        begun = time.perf_counter()
        for batch in batches:
            database.execute("begin immediate")
            database.execute(insert, batch)
            database.execute("commit")
            rows += rows_per_commit
            if time.perf_counter() - begun + spent > seconds:
                break
        spent += time.perf_counter() - begun
    database.close()
    return rows / spent


def row_bytes_of(path: Path) -> int:
    """The average body that the floor wrote."""
    database = connect(str(path))
    average: Any = database.execute("select avg(length(body)) from journal").get
    database.close()
    return round(average)


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
