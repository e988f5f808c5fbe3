"""Which executions wait for code that nobody here has: a function, or the version that one is pinned to."""

from __future__ import annotations

from collections.abc import Iterable

from semel.cli.output import say
from semel.errors import StoreError
from semel.kernel import values
from semel.store.base import Stream


def versions_of_owner(path: str, streams: Iterable[Stream]) -> list[str]:
    """Which of the functions of open executions the engine that owns the file has, and their versions.

    Without an engine: every function, for whichever comes may have it, and no version.
    """
    waiting = [stream for stream in streams if stream.ended_ms is None and stream.holder is None]
    names = sorted({stream.name for stream in waiting})
    try:
        answer = at_hand(path, names)
    except StoreError as error:
        say(f"which functions and versions the owner of the file has is unknown: {error}")
        return [*names, *(stream.version for stream in waiting)]
    return names if answer is None else answer


def at_hand(path: str, names: list[str]) -> list[str] | None:
    """Those of the functions that the engine that owns the file has, and their versions; None without an engine."""
    from semel.runtime.owner_socket import call

    if not names:
        return []
    answer = call(path, "versions", {"functions": values.encode(names)}, timeout_ms=10_000)
    return None if answer is None else list(values.decode(answer.ok))
