"""Which pinned executions wait for a version that nobody here has."""

from __future__ import annotations

from collections.abc import Iterable

from semel.cli.output import say
from semel.errors import StoreError
from semel.kernel import values
from semel.store.base import Stream


def versions_of_owner(path: str, streams: Iterable[Stream]) -> list[str]:
    """Which versions of the functions of pinned streams the engine that owns the file has. None without an engine."""
    from semel.runtime.owner_socket import call

    names = sorted({stream.name for stream in streams if stream.is_pinned and stream.ended_ms is None})
    if not names:
        return []
    try:
        answer = call(path, "versions", {"functions": values.encode(names)}, timeout_ms=10_000)
    except StoreError as error:
        say(f"which versions the owner of the file has is unknown: {error}")
        return [stream.version for stream in streams]
    return [] if answer is None else list(values.decode(answer.ok))
