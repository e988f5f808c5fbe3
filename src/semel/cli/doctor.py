"""`semel doctor`: whether this machine and this file can be trusted, each finding with what to do."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
from msgspec import Struct, structs

from semel.cli.location import path_of, reading, store_option
from semel.cli.output import output_option, say, show_rows
from semel.cli.pins import at_hand, versions_of_owner
from semel.cli.wakeups import Scan, scan
from semel.errors import SemelError, StoreError

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"

FSYNCS: Final = 50
BLOCK: Final = b"\0" * 4096
# No disk that survives a power cut answers faster: flash with a protected cache takes about this long.
FSYNC_MS_MIN: Final = 0.02
FSYNC_MS_SLOW: Final = 20.0
VOLATILE: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})
CLOCK_AHEAD_MS: Final = 1_000
SHOWN_MAX: Final = 5


class Finding(Struct, frozen=True):
    """One line of the report."""

    check: str
    verdict: str
    detail: str


@click.command()
@store_option
@output_option
@click.option(
    "--import", "modules", multiple=True, metavar="MODULE", help="Import it, and tell what it does not handle."
)
@click.pass_context
def doctor(ctx: click.Context, store: str, output: str, modules: tuple[str, ...]) -> None:
    """Check SQLite, disk, file, owner and wake-up times.

    Ends with 1 if a check fails. Nothing is changed; the fsync probe writes a temporary file beside
    the journal and removes it.
    """
    path = path_of(store)
    findings = [sqlite(), file_system(path), fsync(path), *_file(store, path, modules)]
    rows = [structs.asdict(finding) for finding in findings]
    show_rows(rows, columns=("check", "verdict", "detail"), output=output)
    failed = [finding.check for finding in findings if finding.verdict == FAIL]
    if failed:
        say(f"{len(failed)} checks failed: {', '.join(failed)}; each line above says what to do")
        ctx.exit(1)


def sqlite() -> Finding:
    """Whether this SQLite has the WAL-reset bug."""
    from semel.store.sqlite_file import sqlite_verdict, sqlite_version

    version = sqlite_version()
    verdict = sqlite_verdict(version)
    return (
        Finding("sqlite", FAIL, verdict) if verdict else Finding("sqlite", OK, f"{version}, without the WAL-reset bug")
    )


def file_system(path: str) -> Finding:
    """Whether the file system keeps SQLite's locks and, after a power cut, its data."""
    from semel.store import sqlite_file

    kind = sqlite_file.file_system(path)
    verdict = sqlite_file.file_system_verdict(path)
    if verdict:
        return Finding("file system", FAIL, verdict)
    if kind in VOLATILE:
        return Finding(
            "file system", WARN, f"{kind}: it is in memory and lost with the machine; move the file to a disk"
        )
    return Finding("file system", OK, kind or "unknown: this system does not say; a local disk is expected")


def fsync(path: str) -> Finding:
    """How long the disk takes to say that a write is safe."""
    folder = Path(path).absolute().parent
    try:
        median_ms = fsync_median_ms(folder)
    except OSError as error:
        return Finding("fsync", FAIL, f"{str(folder)!r}: no file can be written there ({error.strerror}); see to that")
    detail = f"median {median_ms:.3f} ms of {FSYNCS}"
    if median_ms < FSYNC_MS_MIN:
        return Finding(
            "fsync", WARN, f"{detail}: no disk is that fast, so it may ignore fsync; do not trust a power cut"
        )
    if median_ms > FSYNC_MS_SLOW:
        return Finding("fsync", WARN, f"{detail}: every durable step waits that long at least; use a faster disk")
    return Finding("fsync", OK, detail)


def fsync_median_ms(folder: Path) -> float:
    """The median time of FSYNCS writes of a block, each with its fsync."""
    times = []
    with tempfile.TemporaryFile(dir=folder, prefix=".semel-doctor-") as file:
        for _ in range(FSYNCS):
            started = time.perf_counter_ns()
            file.write(BLOCK)
            file.flush()
            os.fsync(file.fileno())
            times.append((time.perf_counter_ns() - started) / 1e6)
    return statistics.median(times)


def _file(store: str, path: str, modules: tuple[str, ...]) -> Iterator[Finding]:
    if not Path(path).exists():
        yield Finding("journal", OK, f"there is no file {path!r} yet; the first engine or `semel run` makes it")
        return
    yield _owner(path)
    try:
        with reading(store) as reader:
            found = scan(reader)
    except StoreError as error:
        yield Finding("journal", FAIL, str(error))
        return
    yield from journal(found, now_ms=time.time_ns() // 1_000_000)
    yield from _pinned(found, path)
    yield from _without_code(found, path)
    if modules:
        yield from _handlers(found, modules)


def _owner(path: str) -> Finding:
    from semel.runtime.owner import owner_of

    try:
        owner = owner_of(path)
    except StoreError as error:
        return Finding("owner", WARN, str(error))
    if owner is None:
        return Finding("owner", OK, "nobody: a command that writes takes ownership while it runs")
    if not Path(owner.socket).is_socket():
        return Finding(
            "owner", WARN, f"process {owner.pid} does not listen on {owner.socket!r}; commands cannot write beside it"
        )
    return Finding("owner", OK, f"process {owner.pid}, listening on {owner.socket!r}")


def _pinned(found: Scan, path: str) -> Iterator[Finding]:
    """The versions that pinned executions wait for, because the owner of the file does not have them."""
    from semel.listing import waiting_for

    versions = versions_of_owner(path, found.pinned)
    waiting = Counter(version for stream in found.pinned if (version := waiting_for(stream, versions)))
    if waiting:
        counts = ", ".join(f"{count} for {version}" for version, count in sorted(waiting.items())[:SHOWN_MAX])
        yield Finding(
            "versions",
            WARN,
            f"{waiting.total()} pinned executions wait for a version that no engine on the file has: {counts}; "
            f"run one with that code, or `semel executions unpin ID` after `semel check`",
        )


def _without_code(found: Scan, path: str) -> Iterator[Finding]:
    """Functions of open executions that the owner of the file has not imported, such as one that was mistyped."""
    try:
        there = at_hand(path, sorted(found.unheld))
    except StoreError:
        return  # told by the check of the owner
    waiting = [] if there is None else [name for name in sorted(found.unheld) if name not in there]
    if waiting:
        counts = ", ".join(f"{found.unheld[name]} of {name!r}" for name in waiting[:SHOWN_MAX])
        yield Finding(
            "code",
            WARN,
            f"executions wait for functions that the engine on the file has not imported: {counts}; import the modules "
            f"that define them, or stop them: semel executions list",
        )


def journal(found: Scan, *, now_ms: int) -> Iterator[Finding]:
    """What a scan of the streams means."""
    counts = ", ".join(f"{count} {kind} {status}" for (kind, status), count in sorted(found.counts.items()))
    yield Finding("streams", OK, counts or "none")
    if found.damaged:
        yield Finding("records", FAIL, f"{_some(found.damaged)}; restore a backup")
    if found.sleepers:
        yield Finding("wake-up (J11)", FAIL, f"{_some(found.sleepers)}; report this as a fault of semel, with the file")
    else:
        yield Finding("wake-up (J11)", OK, "every suspended stream wakes in time or waits for something from outside")
    if found.parked:
        shown = ", ".join(found.parked[:SHOWN_MAX])
        yield Finding(
            "parked", WARN, f"{len(found.parked)} streams wait for a person: {shown}; see `semel executions history`"
        )
    if found.newest_ms > now_ms + CLOCK_AHEAD_MS:
        ahead_s = (found.newest_ms - now_ms) / 1000
        yield Finding(
            "clock",
            WARN,
            f"the journal is {ahead_s:.0f} s ahead of this machine's clock; timers wait for it; set the clock",
        )
    else:
        yield Finding("clock", OK, "not behind the journal")


def _some(found: list[tuple[str, str]]) -> str:
    shown = "; ".join(f"stream {uid}: {problem}" for uid, problem in found[:SHOWN_MAX])
    return shown if len(found) <= SHOWN_MAX else f"{shown}; and {len(found) - SHOWN_MAX} more"


def _handlers(found: Scan, modules: tuple[str, ...]) -> Iterator[Finding]:
    from semel.cli.code import import_user_module
    from semel.function import REGISTRY
    from semel.store.base import FUNCTION

    for module in modules:
        try:
            import_user_module(module)
        except SemelError as error:
            yield Finding("handlers", FAIL, str(error))
            return
    known: dict[str, Any] = {FUNCTION: REGISTRY.functions}
    missing = [
        f"{count} of {kind} {name!r}"
        for (kind, name), count in sorted(found.handlers.items())
        if name not in known.get(kind, REGISTRY.actors)
    ]
    if missing:
        yield Finding("handlers", FAIL, f"open streams without code: {', '.join(missing)}; import its module, too")
    else:
        yield Finding("handlers", OK, f"{', '.join(modules)} handle every open stream")
