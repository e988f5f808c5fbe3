"""Lists of executions: what they may be filtered by, their order, and their pages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from msgspec import Struct

from semel.errors import LimitExceededError, ValidationError
from semel.kernel.entry import Status
from semel.kernel.report import DivergenceReport
from semel.runtime.worker import versions_at_hand
from semel.store.base import FUNCTION, PARKED, PAUSED, PAUSING, RUNNING, Filter, Reader, Stream

STATUSES: Final = (
    RUNNING,
    PAUSING,
    PAUSED,
    PARKED,
    *(status.value for status in (Status.SUCCEEDED, Status.FAILED, Status.STOPPED, Status.TIMED_OUT)),
)
_NEWEST_FIRST: Final = "n"
_OLDEST_FIRST: Final = "o"


class ExecutionInfo(Struct, frozen=True):
    """What is known of an execution.

    `status` is RUNNING, PAUSING, PAUSED, PARKED, SUCCEEDED, FAILED, STOPPED or TIMED_OUT. `reason` is why
    it is paused or parked, in a sentence; `report` is the whole where code and journal disagree.
    `version` is that of the code it began with; if `is_pinned`, no other may run it. `waiting_for` is
    what no worker has that it needs: that version, or its function.
    """

    id: str
    function: str
    name: str
    status: str
    started_ms: int
    ended_ms: int | None = None
    wake_ms: int | None = None
    holder: str | None = None
    version: str = ""
    reason: str = ""
    report: DivergenceReport | None = None
    result: Any = None
    error_type: str = ""
    error_message: str = ""
    is_pinned: bool = False
    waiting_for: str = ""


class Page(Struct, frozen=True):
    """One page of a list, in the order that was asked for. `next` is what to pass as `after` for the next one."""

    items: list[ExecutionInfo]
    next: str | None = None


class Wanted(Struct, frozen=True, kw_only=True):
    """Which executions to list, as `Executions.list` takes it. Raises ValidationError and LimitExceededError."""

    namespace: str
    page_max: int
    function: str | None = None
    status: str | Sequence[str] | None = None
    started_after_ms: int | None = None
    started_before_ms: int | None = None
    name_prefix: str = ""
    after: str | None = None
    limit: int = 100
    oldest_first: bool = False

    def filter(self) -> Filter:
        """The same for a store."""
        place = None if self.after is None else _place_of(self.after, oldest_first=self.oldest_first)
        for name in ("started_after_ms", "started_before_ms"):
            found = getattr(self, name)
            if found is not None and (not isinstance(found, int) or isinstance(found, bool)):
                raise ValidationError(f"{name}: found {found!r}, expected whole milliseconds since 1970, or None")
        return Filter(
            FUNCTION,
            self.namespace,
            self.function,
            check_statuses(self.status),
            None if self.oldest_first else place,
            check_page(self.limit, self.page_max),
            after=place if self.oldest_first else None,
            oldest_first=self.oldest_first,
            key_prefix=self.name_prefix,
            created_after_ms=self.started_after_ms,
            created_before_ms=self.started_before_ms,
        )


def list_executions(reader: Reader, wanted: Wanted) -> Page:
    """A page of executions without their results."""
    streams, following = list_streams(reader, wanted)
    return Page([info_of(stream) for stream in streams], following)


def list_streams(reader: Reader, wanted: Wanted) -> tuple[list[Stream], str | None]:
    """A page of executions as their rows, and what the next one is asked for with."""
    which = wanted.filter()
    streams = reader.list(which)
    if len(streams) < which.limit:
        return streams, None
    order = _OLDEST_FIRST if wanted.oldest_first else _NEWEST_FIRST
    return streams, f"{order}{streams[-1].number:x}"


def _place_of(marker: str, *, oldest_first: bool) -> int:
    """The stream that a page ended with. Raises ValidationError for a marker that is not of such a page."""
    order = _OLDEST_FIRST if oldest_first else _NEWEST_FIRST
    try:
        if marker[:1] != order:
            raise ValueError(marker)
        return int(marker[1:], 16)
    except (TypeError, ValueError):
        kind = "oldest first" if oldest_first else "newest first"
        raise ValidationError(
            f"list marker {marker!r}: expected `next` of a page that was asked for {kind}; begin without one"
        ) from None


def check_statuses(status: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The statuses to list, or None for all. Raises ValidationError, naming those there are."""
    if status is None:
        return None
    wanted = (status,) if isinstance(status, str) else tuple(status)
    for one in wanted:
        if one not in STATUSES:
            raise ValidationError(f"status: found {one!r}, expected some of {', '.join(STATUSES)}")
    return wanted


def check_page(limit: int, page_max: int) -> int:
    """Return the limit, or raise LimitExceededError or ValidationError."""
    if limit < 1:
        raise ValidationError(f"page limit: found {limit}, expected 1 to {page_max}")
    if limit > page_max:
        raise LimitExceededError(f"page limit: found {limit}, expected 1 to {page_max}; ask for several pages")
    return limit


def waiting_for(stream: Stream, at_hand: Collection[str]) -> str:
    """What an execution waits for: the version that it is pinned to, or its function, if that is not `at_hand`."""
    if stream.status != RUNNING or stream.holder is not None:
        return ""
    if stream.is_pinned:
        return stream.code_version if stream.version not in at_hand else ""
    return stream.name if stream.name not in at_hand else ""


def info_of(stream: Stream, versions: Collection[str] | None = None, **more: Any) -> ExecutionInfo:
    """An execution as its row has it, and `more` of it. `versions` are those at hand: None for this process's."""
    if versions is None:
        versions = versions_at_hand([stream.name])
    return ExecutionInfo(
        stream.uid,
        stream.name,
        stream.key,
        stream.shown_status,
        stream.created_ms,
        stream.ended_ms,
        stream.wake_ms,
        stream.holder,
        stream.code_version,
        is_pinned=stream.is_pinned,
        waiting_for=waiting_for(stream, versions),
        **more,
    )
