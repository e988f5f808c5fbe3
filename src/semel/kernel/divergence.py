"""The first difference between a journal and the code that replays it, and its likely cause.

Known at that moment: all that is recorded, what this run has asked for so far, and the one request
that does not fit (or that there is none). What the code would ask for next is not known, and nothing
is run to find out. So a cause is a judgement, and only a change of kind, of arguments or of a reply
is called certain. In a *branch*, that is within one task or child context, operations are counted,
and what precedes the difference is the same on both sides. With r for what is recorded at the place and q for
what this run asks for there, the first rule that fits decides:

1. q has r's name and another kind: *kind changed*. So has asyncio's timer where ctx.wait was.
2. The code that runs is that of the start, and has r on the line it was recorded from: *other branch taken*.
3. q is recorded later in the same branch. r is still mentioned in the code, after q: *calls
   reordered*; before q, or r was asked for already (a loop): *other branch taken*; nowhere: *call
   removed*. Not known: *removed* if q is the very next one, else *reordered*.
4. q is recorded in another branch that this run has not come to. r is still mentioned: *calls
   reordered* (tasks are begun in another order); nowhere: *call removed* (with its task).
5. q is not recorded. r is still mentioned in the code, after q and not on the line it was recorded from: *call
   added*; still mentioned otherwise: *other branch taken*. r is mentioned nowhere: *call renamed* if
   the kinds are the same, else *kind changed*. Not known: *renamed* if the kinds are the same, else *added*.
6. The run asks for nothing at the place. r is a branch of a map or parallel, or is still mentioned:
   *other branch taken*; else: *call removed*.

What the code mentions is asked of `Code`, which reads compiled code. A name that is put together
at run time is mentioned nowhere, and then rules 3 to 6 may take a skipped call for a removed one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from msgspec import Struct

from semel.kernel.entry import Kind, Status
from semel.kernel.operation import Operation
from semel.kernel.report import Cause, DivergenceReport, Row, Side

CONTEXT_ROWS: Final = 3
TIMER: Final = "timer"
NOTHING: Final = "nothing at that place"
ENDED: Final = "nothing, and ended"
WORDS: Final = {(Kind.WAIT, TIMER): ("sleep", "timeout", "timeout_at", "wait_for"), (Kind.WAIT, ""): ("wait",)}
BRANCHES: Final = frozenset({"MapIteration", "ParallelBranch"})
_TEXT_MAX: Final = 160
_NAME_MAX: Final = 48  # in a sentence


class Asked(Struct, frozen=True, gc=False):
    """A request of this run. `source` is file:line."""

    kind: Kind
    name: str
    source: str = ""
    subtype: str = ""


class Code(Protocol):
    """The code at hand, as far as its text tells."""

    def is_unchanged(self) -> bool:
        """Whether it is known to be the code that the scope began with."""

    def places(self, name: str) -> tuple[str, ...]:
        """Where it mentions the name, as file:line."""

    def follows(self, name: str, source: str) -> bool | None:
        """Whether a mention of the name can come after the call at `source`, without going round a loop.

        None if that cannot be told, as the two are in different functions.
        """


class Mismatch(Struct, frozen=True, gc=False):
    """What did not fit, at one place of the journal. `instead` is what the run did where `asked` is None."""

    operation: str
    recorded: Operation | None = None
    asked: Asked | None = None
    instead: str = ""
    cause: Cause | None = None  # where it is no question
    explanation: str = ""


class History(Struct, frozen=True, gc=False):
    """Both sides up to the mismatch: recorded operations in the order of the journal, and who asked for what.

    `asked` is the source of each recorded operation that this run has asked for, `new` what it asked
    for that is not recorded, `differing` the operations asked for with other arguments.
    """

    recorded: Mapping[str, Operation]
    asked: Mapping[str, str]
    new: Mapping[str, Asked]
    differing: tuple[str, ...] = ()
    message: str = ""


def diagnose(history: History, mismatch: Mismatch, code: Code | None = None) -> DivergenceReport:
    """Judge the cause, and put both sides beside each other around the first difference."""
    if mismatch.cause is not None:
        cause, explanation, is_certain = mismatch.cause, mismatch.explanation, True
    elif mismatch.recorded is None:
        cause, explanation, is_certain = Cause.ADDED, _unrecorded(mismatch), False
    else:
        cause, explanation, is_certain = _Judgement(history, mismatch.recorded, mismatch.asked, code).pronounce(
            mismatch.instead
        )
    rows, following = _rows(history, mismatch)
    return DivergenceReport(
        mismatch.operation,
        cause,
        _cut(explanation, 4 * _TEXT_MAX),
        rows,
        is_certain,
        history.message,
        mismatch.instead,
        following,
    )


Verdict = tuple[Cause, str, bool]


class _Judgement:
    """One reading of the rules."""

    def __init__(self, history: History, recorded: Operation, asked: Asked | None, code: Code | None) -> None:
        self.history = history
        self.recorded = recorded
        self.asked = asked
        self.code = code
        # What would be read in the code of a call like r. A timer and a wait without a name have none of their own.
        self.words = WORDS.get((recorded.kind, recorded.name), (recorded.name,))
        self.places = () if code is None else tuple(place for word in self.words for place in code.places(word))
        self.is_mentioned = None if code is None or not any(self.words) else bool(self.places)
        self.was = _short(_label(recorded), recorded.name)
        self.named = _quoted(recorded)

    def pronounce(self, instead: str) -> Verdict:
        asked = self.asked
        if asked is None:
            return self._nothing(instead)
        is_timer = (self.recorded.name == TIMER, asked.name == TIMER)
        if not _is_same_kind(self.recorded, asked) and self.recorded.name == asked.name:
            said = f"{self.named} was a {_label(self.recorded)} and is now a {_label(asked)}" + _at(asked.source)
            return Cause.KIND_CHANGED, said, True
        if self.recorded.kind is Kind.WAIT and asked.kind is Kind.WAIT and is_timer[0] is not is_timer[1]:
            timers = ("a timer of asyncio (sleep or timeout)", "a ctx.wait")
            before, after = timers if is_timer[0] else reversed(timers)
            return Cause.KIND_CHANGED, f"{before} was recorded, and this run asks for {after}" + _at(asked.source), True
        if self._is_same_code():
            return self._other_branch()
        if (found := self._distance(asked)) is not None:
            return self._skipped(asked, found)
        if self._is_elsewhere(asked):
            return self._moved(asked)
        return self._unknown(asked)

    def _distance(self, asked: Asked) -> list[Operation] | None:
        """The recorded operations of the branch from here to the one that is asked for, or None."""
        branch, place = _position(self.recorded)
        later = [
            operation
            for operation in self.history.recorded.values()
            if _position(operation)[0] == branch and _position(operation)[1] > place
        ]
        passed = [self.recorded]
        for operation in sorted(later, key=lambda operation: _position(operation)[1]):
            if _is_same(operation, asked):
                return passed
            passed.append(operation)
        return None

    def _skipped(self, asked: Asked, passed: list[Operation]) -> Verdict:
        """Rule 3."""
        what = f"{self.was} and {len(passed) - 1} more" if len(passed) > 1 else self.was
        asks = _short(_label(asked), asked.name)
        follows = self._follows(asked)
        if self.is_mentioned and (self._went_by() or follows is False):
            return self._other_branch()
        if self.is_mentioned or (self.is_mentioned is None and len(passed) > 1):
            said = f"this run asks for {asks} before {what}, the journal has it after" + self._still()
            return Cause.REORDERED, said, False
        gone = "the call of {} was removed: this run goes straight to {}, which the journal has next"
        if len(passed) > 1:
            gone = "the calls of {} were removed: this run goes straight to {}, which the journal has after them"
        return Cause.REMOVED, gone.format(what, asks) + self._nowhere(), False

    def _is_elsewhere(self, asked: Asked) -> bool:
        branch = _position(self.recorded)[0]
        return any(
            _is_same(operation, asked) and _position(operation)[0] != branch and name not in self.history.asked
            for name, operation in self.history.recorded.items()
        )

    def _moved(self, asked: Asked) -> Verdict:
        """Rule 4."""
        asks = _short(_label(asked), asked.name)
        if self.is_mentioned is False:
            said = (
                f"the task or child context that asked for {self.was} was removed: in its place this run has the "
                f"one of {asks}{self._nowhere()}"
            )
            return Cause.REMOVED, said, False
        said = f"tasks or child contexts are begun in another order: {asks} comes where {self.was} was" + self._still()
        return Cause.REORDERED, said, False

    def _unknown(self, asked: Asked) -> Verdict:
        """Rule 5."""
        asks = _short(_label(asked), asked.name)
        if self.is_mentioned:
            if self._follows(asked) is False or self.recorded.source in self.places:
                return self._other_branch()
            said = f"{asks} was added before {self.was}: the journal does not have it" + self._still()
            return Cause.ADDED, said, False
        if _is_same_kind(self.recorded, asked):
            new = f"{_cut(asked.name, _NAME_MAX)!r}" if asked.name else "without a name"
            if self.code is not None and asked.name and not self.code.places(asked.name):
                said = (
                    f"the name of the call came out otherwise: {self.was} was recorded, this run has {new}; what it is "
                    f"computed from is not recorded"
                )
                return Cause.RENAMED, said, False
            return Cause.RENAMED, f"{self.was} is now called {new}: it has its place and kind{self._nowhere()}", False
        if self.is_mentioned is False:
            return Cause.KIND_CHANGED, f"{self.was} was replaced by {asks}{self._nowhere()}", False
        return Cause.ADDED, f"{asks} was added before {self.was}: the journal does not have it", False

    def _nothing(self, instead: str) -> Verdict:
        """Rule 6."""
        if self.recorded.subtype in BRANCHES:
            return self._fewer_branches()
        if self.is_mentioned:
            return self._other_branch()
        branch = _position(self.recorded)[0]
        is_begun = any(
            _position(operation)[0] == branch
            for name, operation in self.history.recorded.items()
            if name in self.history.asked
        )
        what = f"the call of {self.was}" if is_begun else f"the task or child context that asked for {self.was}"
        does = "ended without it" if instead == ENDED else "waits for something else"
        said = f"{what} was removed: where it was recorded, this run {does}{self._nowhere()}"
        return Cause.REMOVED, said, False

    def _fewer_branches(self) -> Verdict:
        batch = self.history.recorded.get(self.recorded.parent)
        named = "the batch" if batch is None else _short(_label(batch), batch.name)
        said = f"{named} has fewer items or branches than when it was recorded: {self.was} is not among them"
        return Cause.OTHER_BRANCH, said, False

    def _other_branch(self) -> Verdict:
        if self._went_by():
            path = f"a loop around {self.was} came out otherwise, or a condition inside it"
        else:
            path = f"this run did not come to {self.was}"
        said = path + self._still()
        if self._is_same_code():
            said += "; the function's own code is that of the start, so something that is not recorded decided"
        return Cause.OTHER_BRANCH, said, False

    def _is_same_code(self) -> bool:
        """Whether the code of the start runs, and has r on the line that it was recorded from."""
        return self.code is not None and self.recorded.source in self.places and self.code.is_unchanged()

    def _still(self) -> str:
        if not self.places:
            return ""
        shown = ", ".join(self.places[:2])
        return f"; the code has {self.named} at {shown}"

    def _nowhere(self) -> str:
        return f", and the code at hand does not have {self.named}" if self.is_mentioned is False else ""

    def _follows(self, asked: Asked) -> bool | None:
        if self.code is None:
            return None
        answers = [self.code.follows(word, asked.source) for word in self.words]
        return next((answer for answer in answers if answer is not None), None) if True not in answers else True

    def _went_by(self) -> bool:
        """Whether this run has asked for one like it: there is a loop, or several such calls."""
        return any(
            operation.kind is self.recorded.kind and operation.name == self.recorded.name
            for name in self.history.asked
            if (operation := self.history.recorded.get(name)) is not None
        )


def _unrecorded(mismatch: Mismatch) -> str:
    if mismatch.asked is None:
        return mismatch.explanation
    return (
        f"{spell(_label(mismatch.asked), mismatch.asked.name)} was added: what is recorded came to its end without it"
    )


def _position(operation: Operation) -> tuple[str, int]:
    """The branch that an operation is in, and its place there. Ids of foreign SDKs have neither."""
    path = operation.id if operation.start is None else operation.start.path or operation.id
    branch, _, place = path.rpartition("_")
    return (branch, int(place)) if branch and place.isdecimal() else ("", 0)


def _is_same_kind(operation: Operation, asked: Asked) -> bool:
    return operation.kind is asked.kind and operation.subtype == asked.subtype


def _label(what: Operation | Asked) -> str:
    """What people call it: a child context or step by its subtype, if it has one."""
    return what.subtype if what.subtype and what.kind in (Kind.CONTEXT, Kind.STEP) else str(what.kind)


def _is_same(operation: Operation, asked: Asked) -> bool:
    return _is_same_kind(operation, asked) and operation.name == asked.name


def spelled(what: Operation | Asked) -> str:
    """An operation in a sentence, with its source."""
    return spell(f"{what.kind} ({what.subtype})" if what.subtype else what.kind, what.name, what.source)


def spell(kind: str, name: str, source: str = "") -> str:
    """An operation in a sentence."""
    named = f"{kind} {_cut(name)!r}" if name else str(kind)
    return named + _at(source)


def _quoted(operation: Operation) -> str:
    if operation.name == TIMER and operation.kind is Kind.WAIT:
        return "a timer of asyncio"
    return repr(_cut(operation.name, _NAME_MAX)) if operation.name else f"a {_label(operation)} without a name"


def _short(kind: str, name: str) -> str:
    return spell(kind, _cut(name, _NAME_MAX))


def _at(source: str) -> str:
    return f" at {source}" if source else ""


def _cut(text: str, length: int = _TEXT_MAX) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


# Both sides beside each other.


def _rows(history: History, mismatch: Mismatch) -> tuple[tuple[Row, ...], int]:
    """The rows around the first difference, and how many recorded operations follow them."""
    names = list(history.recorded)
    centre = names.index(mismatch.operation) if mismatch.operation in history.recorded else len(names)
    shown = set(range(max(0, centre - CONTEXT_ROWS), min(len(names), centre + CONTEXT_ROWS + 1)))
    if mismatch.recorded is not None:
        shown |= _neighbours(history.recorded.values(), mismatch.recorded)
    if history.differing:
        shown.add(names.index(history.differing[0]))
    if 1 in shown:
        shown.add(0)
    shown |= {place + 1 for place in shown if place + 2 in shown}  # a gap of one is not worth a line that says so
    extra = _new_rows(history, mismatch)
    rows: list[Row] = []
    last = -1
    for place in sorted(shown):
        name = names[place]
        if place > centre and extra:
            rows, extra = rows + extra, []
        rows.append(_row(history, mismatch, name, skipped=place - last - 1))
        last = place
    return tuple(rows + extra), len(names) - last - 1


def _neighbours(recorded: Iterable[Operation], operation: Operation) -> set[int]:
    """Where the operations just before and after it in its own branch stand in the journal."""
    branch, own = _position(operation)
    siblings = [(_position(other)[1], place) for place, other in enumerate(recorded) if _position(other)[0] == branch]
    before = max((sibling for sibling in siblings if sibling[0] < own), default=None)
    after = min((sibling for sibling in siblings if sibling[0] > own), default=None)
    return {sibling[1] for sibling in (before, after) if sibling is not None}


def _row(history: History, mismatch: Mismatch, name: str, *, skipped: int) -> Row:
    operation = history.recorded[name]
    source = history.asked.get(name)
    asked = None if source is None else _side(operation, source)
    is_first = name == mismatch.operation
    if is_first and mismatch.asked is not None:
        asked = _side(mismatch.asked, mismatch.asked.source)
    if is_first and mismatch.instead:
        asked = None
    recorded = _side(operation, operation.source, operation.status)
    return Row(name, recorded, asked, is_first, name in history.differing, skipped)


def _new_rows(history: History, mismatch: Mismatch) -> list[Row]:
    """What this run asked for that is not recorded: the first difference itself, or what it waits for."""
    rows = [
        Row(name, None, _side(asked, asked.source), is_first=name == mismatch.operation)
        for name, asked in history.new.items()
    ]
    if mismatch.recorded is None and mismatch.asked is not None and mismatch.operation not in history.new:
        asked = mismatch.asked
        rows.append(Row(mismatch.operation, None, _side(asked, asked.source), is_first=True))
    rows.sort(key=lambda row: not row.is_first)
    return rows[:CONTEXT_ROWS]


def _side(what: Operation | Asked, source: str, status: Status | str = "") -> Side:
    return Side(f"{_label(what)} {_cut(what.name)}".rstrip(), _cut(source), str(status))
