"""What is said of a divergence: the first difference in its surroundings, the likely cause, what to do.

A report is data and is kept with the entry that parked the stream; its text is laid out for the
reader's width each time it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

WIDTH_MIN: Final = 60
_INDENT: Final = 4
_GAP: Final = " | "
_WORD: Final = re.compile(r"(?:`[^`]*`|[^\s`])+")


class Cause(StrEnum):
    """Why code and journal disagree, as far as can be told at the first difference."""

    REMOVED = "call removed"
    ADDED = "call added"
    REORDERED = "calls reordered"
    RENAMED = "call renamed"
    KIND_CHANGED = "kind changed"
    OTHER_BRANCH = "other branch taken"
    ARGUMENTS = "arguments differ"
    REPLY = "reply differs"


class Side(Struct, frozen=True, gc=False, omit_defaults=True, rename={"what": "w", "source": "f", "status": "s"}):
    """An operation as the journal recorded it, or as this run asked for it. `source` is file:line."""

    what: str
    source: str = ""
    status: str = ""


_ROW_FIELDS = {
    "operation": "o",
    "recorded": "r",
    "asked": "a",
    "is_first": "x",
    "has_other_arguments": "d",
    "skipped": "k",
}


class Row(Struct, frozen=True, gc=False, omit_defaults=True, rename=_ROW_FIELDS):
    """One operation on both sides. `skipped` counts the recorded ones left out before it."""

    operation: str
    recorded: Side | None = None
    asked: Side | None = None
    is_first: bool = False
    has_other_arguments: bool = False
    skipped: int = 0


_REPORT_FIELDS = {
    "operation": "o",
    "cause": "c",
    "explanation": "e",
    "rows": "r",
    "is_certain": "y",
    "message": "m",
    "instead": "i",
    "following": "n",
}


class DivergenceReport(Struct, frozen=True, gc=False, omit_defaults=True, rename=_REPORT_FIELDS):
    """The first difference between a journal and the code that replays it.

    `message` is the actor's message whose turn diverged, empty in a function; `instead` says what the
    run did where it asked for nothing; `following` counts the recorded operations after the last row.
    """

    operation: str
    cause: Cause
    explanation: str
    rows: tuple[Row, ...] = ()
    is_certain: bool = False
    message: str = ""
    instead: str = ""
    following: int = 0

    def advice(self, *, stream: str = "ID") -> tuple[str, ...]:
        """What may be done, the best first. `stream` is the id of the parked execution or actor."""
        resume = f"deploy, and `semel executions resume {stream}`: it goes on from where it is, nothing is lost"
        if self.cause is Cause.ARGUMENTS:
            return (f"{_MEND[self.cause]}; {resume}", "or drop strict=True: the recorded result is then used as it is")
        if self.message:
            return (f"{_MEND[self.cause]}; {resume}",)
        return (
            f"{_MEND[self.cause]}; {resume}",
            'or keep the recorded path for what runs already: put `if ctx.patched("NAME"):` before the new one',
            f"or `semel executions stop {stream}`, and start anew under another key",
        )

    def text(self, *, width: int = 80, stream: str = "ID") -> str:
        """The report for people, in lines of at most `width` characters (60 or more)."""
        width = max(width, WIDTH_MIN)
        lines = [*_table(self, width), ""] if self.rows else []
        said = "cause" if self.is_certain else "likely cause"
        lines.append(f"{said}: {self.cause}")
        lines += wrapped(f"{self.explanation[:1].upper()}{self.explanation[1:]}", width, first="  ", others="  ")
        lines += _arguments(self, width)
        lines += ["", "what to do:"]
        for advice in self.advice(stream=stream):
            lines += wrapped(advice, width, first="  - ", others="    ")
        return "\n".join(lines)


_MEND: Final = {
    Cause.REMOVED: "put the recorded call back",
    Cause.ADDED: "take the new call out",
    Cause.REORDERED: "put the calls back in the recorded order",
    Cause.RENAMED: "give the call its recorded name back",
    Cause.KIND_CHANGED: "put the recorded call back",
    Cause.OTHER_BRANCH: (
        "make the path depend on nothing but arguments, results of operations and ctx (not on clocks, random "
        "numbers, the environment, globals or queries), or put back the condition that decided"
    ),
    Cause.ARGUMENTS: "compute the arguments from nothing but the function's own, results of operations and ctx",
    Cause.REPLY: "put back the handler's code that gave the recorded reply",
}


def _arguments(report: DivergenceReport, width: int) -> list[str]:
    """The hint that a value differed before the path did."""
    if report.cause is Cause.ARGUMENTS:
        return []
    differing = [row.operation for row in report.rows if row.has_other_arguments]
    if not differing:
        return []
    said = (
        f"The arguments of {', '.join(differing)} (marked *) are not those that were recorded: "
        f"what differs was computed before that call"
    )
    return wrapped(said, width, first="  ", others="  ")


# Laying the rows out.


def _table(report: DivergenceReport, width: int) -> list[str]:
    """Journal and run side by side: one line a row where they fit, else two."""
    rows = report.rows
    lefts = [_cells(row.recorded) if row.recorded else ("(not recorded)", "", "") for row in rows]
    rights = [_right(report, row) for row in rows]
    ids = min(max(len(row.operation) for row in rows), 12)
    room = width - _INDENT - ids - 2 - len(_GAP)
    kinds, statuses, places = (max(len(cells[column]) for cells in lefts) for column in range(3))
    calls, sources = (max(len(cells[column]) for cells in rights) for column in range(2))
    wide = (kinds + 2 + statuses + 2 + places, calls + (2 + sources if sources else 0))
    is_wide = sum(wide) <= room
    narrow = (max(kinds + 2 + statuses, places, 8), max(calls, sources, 8))
    left, right = wide if is_wide else _shares(narrow, room)
    heading = f"{' ' * (_INDENT + ids + 2)}{'recorded':<{left}}{_GAP}this run"
    lines = [heading]
    for row, one, other in zip(rows, lefts, rights, strict=True):
        if row.skipped:
            lines.append(f"{' ' * _INDENT}… {_counted(row.skipped)}")
        signs = ("*" if row.has_other_arguments else " ") + (">" if row.is_first else " ")
        mark = f" {signs} {_fit(row.operation, ids):<{ids}}  "
        what, status, place = one
        if is_wide:
            recorded = f"{what:<{kinds}}  {status:<{statuses}}  {place}"
            lines.append(f"{mark}{recorded:<{left}}{_GAP}{other[0]:<{calls}}  {other[1]}".rstrip())
            continue
        named = _fit(what, left - len(status) - 2) if status else _fit(what, left)
        recorded = f"{named:<{left - len(status)}}{status}" if status else named
        lines.append(f"{mark}{recorded:<{left}}{_GAP}{_fit(other[0], right)}".rstrip())
        if place or other[1]:
            below = f"{_fit(place, left, cut_start=True):<{left}}{_GAP}{_fit(other[1], right, cut_start=True)}"
            lines.append(" " * len(mark) + below.rstrip())
    if report.following:
        lines.append(f"{' ' * _INDENT}… {_counted(report.following)}")
    return lines


def _counted(count: int) -> str:
    return f"{count} more recorded operation{'' if count == 1 else 's'}"


def _cells(side: Side) -> tuple[str, str, str]:
    return side.what, side.status, side.source


def _right(report: DivergenceReport, row: Row) -> tuple[str, str]:
    side = row.asked
    if side is not None:
        return side.what, side.source
    return (report.instead if row.is_first else "(not reached)"), ""


def _shares(wanted: Sequence[int], room: int) -> tuple[int, int]:
    """Divide the room between two columns: what one does not need, the other may have."""
    left, right = wanted
    if left + right <= room:
        return left, right
    half = room // 2
    if right <= half:
        return room - right, right
    return (left, room - left) if left <= half else (half, room - half)


def _fit(text: str, room: int, *, cut_start: bool = False) -> str:
    if len(text) <= room:
        return text
    if room < 2:
        return "…"
    return f"…{text[1 - room :]}" if cut_start else f"{text[: room - 1]}…"


def wrapped(text: str, width: int, *, first: str = "", others: str = "") -> list[str]:
    """Lines of at most `width` characters; a word or `code` that is longer has a line of its own."""
    lines: list[str] = []
    line = first
    for word in _WORD.findall(text):
        is_empty = line in (first, others)
        if not is_empty and len(line) + 1 + len(word) > width:
            lines.append(line)
            line, is_empty = others, True
        line = f"{line}{'' if is_empty else ' '}{word}"
    return [*lines, line]
