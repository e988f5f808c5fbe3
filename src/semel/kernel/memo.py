"""What replaying code may ask of its journal; where a mismatch is noticed.

A memo answers for one open scope. Code asks for operations in any order; completions are
handed out in journal order, one at a time, because the order in which a body learned of
them is part of what it computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from semel.errors import NonDeterminismError
from semel.kernel.divergence import ENDED, NOTHING, Asked, Code, History, Mismatch, diagnose, spell, spelled
from semel.kernel.entry import ARRIVING, SETTLED, Delivered, Kind, Record, Settled, Status
from semel.kernel.operation import Operation, fold
from semel.kernel.report import Cause

PATCH: Final = "Patch"  # the subtype of the marker that a patch leaves


class Completion(Struct, frozen=True, gc=False):
    """An outcome that was delivered to the body, and the time it was delivered at."""

    operation: Operation
    at_ms: int


class Memo:
    """The recorded operations of one scope, and how much of them this run has asked for.

    `code` is the code at hand and `stream` the id of the stream, for reports. `is_strict`: other
    arguments are a divergence. `message` is the message of a turn; `is_over`: the scope has ended,
    and all that it asked for is recorded.
    """

    __slots__ = (
        "_arrivals",
        "_asked",
        "_completions",
        "_differing",
        "_new",
        "_patches",
        "_position",
        "code",
        "is_over",
        "is_strict",
        "message",
        "operations",
        "stream",
    )

    def __init__(
        self,
        operations: dict[str, Operation],
        completions: list[Completion],
        *,
        patches: Iterable[str] = (),
        is_over: bool = False,
        arrivals: Iterable[str] = (),
    ) -> None:
        self.operations = operations
        self.is_over = is_over
        self.code: Code | None = None
        self.is_strict = False
        self.message = ""
        self.stream = "ID"
        self._patches = dict.fromkeys(patches, True)
        self._completions = completions
        self._position = 0
        self._arrivals = {name: place for place, name in enumerate(arrivals)}
        self._asked: dict[str, str] = {}  # in order, with the source of each
        self._new: dict[str, Asked] = {}  # asked for, and not recorded
        self._differing: list[str] = []

    @classmethod
    def of(cls, records: Iterable[Record], *, scope: str, folded: Mapping[str, Operation] | None = None) -> Memo:
        """The memo of `scope` ("" for a function's body) from the records of a stream, and what they fold to."""
        everything = folded if folded is not None else fold_of(records)
        settled: list[tuple[str, int]] = []
        arrivals: list[str] = []
        for record in records:
            at_ms = record.time_ms + record.entry.offset_ms
            entry = record.entry
            if isinstance(entry, Delivered):
                settled.append((entry.operation, at_ms))
            elif isinstance(entry, Settled) and not entry.requested:
                operation = everything.get(entry.operation)
                if operation is None or operation.kind not in ARRIVING:
                    settled.append((entry.operation, at_ms))
                else:
                    arrivals.append(entry.operation)
        operations = {
            operation.id: operation
            for operation in everything.values()
            if operation.kind not in (Kind.EXECUTION, Kind.MESSAGE)
            and not is_patch(operation)
            and _visible(everything, operation, scope)
        }
        completions = [Completion(operations[name], at_ms) for name, at_ms in settled if name in operations]
        patches = [one.name for one in everything.values() if is_patch(one) and one.parent == scope]
        own = everything.get(scope)
        is_over = own is not None and own.status in SETTLED
        return cls(operations, completions, patches=patches, is_over=is_over, arrivals=arrivals)

    def ask(self, operation_id: str, kind: Kind, name: str, *, source: str, subtype: str = "") -> Operation | None:
        """Return what is recorded under the id, or None. Raises NonDeterminismError if it is something else."""
        recorded = self.operations.get(operation_id)
        if recorded is None:
            self._new[operation_id] = Asked(kind, name, source, subtype)
            return None
        if recorded.kind is not kind or recorded.name != name or recorded.subtype != subtype:
            raise self._mismatch(recorded, Asked(kind, name, source, subtype))
        self._asked[operation_id] = source
        return recorded

    def patched(self, name: str) -> bool | None:
        """Which path the run takes at a patch, the same ever after; None for the new one, to be recorded with `patch`.

        The old one if more is recorded than this run has come to: the first run went past here
        without the patch. What is recorded never becomes less, so every later replay finds the same.
        """
        if name not in self._patches and (
            self.is_over or not self.is_used_up or len(self._asked) < len(self.operations)
        ):
            self._patches[name] = False
        return self._patches.get(name)

    def patch(self, name: str) -> None:
        """This run takes the new path of a patch."""
        self._patches[name] = True

    def differ(self, operation_id: str) -> None:
        """An operation is asked for with other arguments than recorded. Raises NonDeterminismError if strict."""
        self._differing.append(operation_id)
        if self.is_strict:
            recorded = self.operations[operation_id]
            said = spell(recorded.kind, recorded.name)
            raise self.divergence(
                Mismatch(
                    operation_id,
                    recorded,
                    Asked(recorded.kind, recorded.name, self._asked.get(operation_id, ""), recorded.subtype),
                    cause=Cause.ARGUMENTS,
                    explanation=f"{said} is asked for with other arguments than those that were recorded, under strict",
                ),
                requested="it with other arguments",
            )

    def upcoming(self, *, has_ended: bool = False) -> Completion | None:
        """The next completion to deliver, or None when the recorded ones are used up.

        Raises NonDeterminismError if this run has not asked for it, or has ended: by then the first run had asked.
        """
        if self._position >= len(self._completions):
            return None
        completion = self._completions[self._position]
        operation = completion.operation
        if has_ended or operation.id not in self._asked:
            raise self._mismatch(self._first_missed(operation), None, instead=ENDED if has_ended else NOTHING)
        return completion

    def _first_missed(self, operation: Operation) -> Operation:
        """The outermost scope around an operation that this run has not asked for either."""
        while (scope := self.operations.get(operation.parent)) is not None and scope.id not in self._asked:
            operation = scope
        return operation

    def advance(self) -> None:
        """The upcoming completion has been delivered."""
        self._position += 1

    @property
    def is_used_up(self) -> bool:
        """Whether every recorded completion has been delivered."""
        return self._position >= len(self._completions)

    def let_go(self) -> None:
        """The recorded completions are delivered: what they carried is not needed any more."""
        for completion in self._completions:
            operation = self.operations[completion.operation.id]
            if operation.status in SETTLED:
                self.operations[operation.id] = operation.without_values()
        self._completions = []
        self._position = 0

    def arrived(self, operation: Operation) -> None:
        """Somebody else changed a recorded operation while this run goes on."""
        if operation.id in self.operations:
            self.operations[operation.id] = operation
        if operation.status in SETTLED:
            self._arrivals.setdefault(operation.id, len(self._arrivals))

    def place_of_arrival(self, operation_id: str) -> int:
        """Where among the outcomes that others brought one has come; before all of them for any other operation."""
        return self._arrivals.get(operation_id, -1)

    def check_all_asked(self, *, has_ended: bool = True) -> None:
        """Raise NonDeterminismError for the first recorded operation that this run never asked for.

        That holds when the run has ended, and as soon as the recorded completions are delivered and
        the body is at rest: whatever is recorded was asked for by then.
        """
        if len(self._asked) == len(self.operations):
            return
        missed = next(operation for operation in self.operations.values() if operation.id not in self._asked)
        raise self._mismatch(missed, None, instead=ENDED if has_ended else NOTHING)

    # Reports.

    def not_cancelled(self, operation: Operation) -> NonDeterminismError:
        """The first run cancelled the operation, and this one waits for it."""
        named = spell(operation.kind, operation.name)
        said = (
            f"the first run cancelled {named} (a timeout, a task that was cancelled, a group that failed), "
            f"and this run waits for its outcome"
        )
        mismatch = Mismatch(operation.id, operation, instead="its outcome", cause=Cause.OTHER_BRANCH, explanation=said)
        return self.divergence(mismatch, recorded=f"{named} cancelled")

    def not_ended(self, operation: Operation) -> NonDeterminismError:
        """A scope that ended, and whose inside is run again, waits for something else in this run."""
        named = spell(operation.kind, operation.name)
        said = f"{named} ended when it was recorded, and in this run its inside waits for something else"
        instead = "it, and has not come to its end"
        mismatch = Mismatch(operation.id, operation, instead=instead, cause=Cause.OTHER_BRANCH, explanation=said)
        return self.divergence(mismatch, recorded=f"{named} ended")

    def unexpected(self, operation_id: str, asked: Asked) -> NonDeterminismError:
        """A turn that ended asks for something that it had not asked for."""
        return self.divergence(
            Mismatch(operation_id, None, asked), recorded="nothing at that place of a turn that ended"
        )

    def unfinished(self) -> NonDeterminismError:
        """A turn that ended waits for something in this run."""
        waits = next(iter(self._new.items()), None)
        if waits is not None:
            return self.divergence(Mismatch(waits[0], None, waits[1]), recorded="a turn that ended")
        said = "the turn ended, and in this run its handler waits for something that no recorded operation brings"
        return self.divergence(
            Mismatch(self.message, None, instead="something else", cause=Cause.OTHER_BRANCH, explanation=said),
            recorded="a turn that ended",
        )

    def other_reply(self, recorded: str, found: str) -> NonDeterminismError:
        """A turn answered otherwise than it did."""
        said = f"the turn replied {recorded} when it was recorded, and this code replies {found} to the same message"
        return self.divergence(
            Mismatch(self.message, None, instead=found, cause=Cause.REPLY, explanation=said),
            recorded=f"the reply {recorded}",
            requested=f"the reply {found}",
        )

    def _mismatch(self, recorded: Operation, asked: Asked | None, *, instead: str = "") -> NonDeterminismError:
        return self.divergence(Mismatch(recorded.id, recorded, asked, instead))

    def divergence(self, mismatch: Mismatch, *, recorded: str = "", requested: str = "") -> NonDeterminismError:
        """The error of a mismatch, with its report."""
        operation, asked = mismatch.recorded, mismatch.asked
        if not recorded and operation is not None:
            recorded = spelled(operation)
        if not requested:
            requested = mismatch.instead if asked is None else spelled(asked)
        history = History(self.operations, self._asked, self._new, tuple(self._differing), self.message)
        report = diagnose(history, mismatch, self.code)
        return NonDeterminismError(mismatch.operation, recorded, requested, report, stream=self.stream)


def fold_of(records: Iterable[Record]) -> dict[str, Operation]:
    """The operations of a stream."""
    operations: dict[str, Operation] = {}
    fold(operations, [(record.entry, record.time_ms + record.entry.offset_ms) for record in records])
    return operations


def is_patch(operation: Operation) -> bool:
    """Whether it is the marker of a patch. No code asks for it or waits for it."""
    return operation.start is not None and operation.start.subtype == PATCH


def _visible(everything: Mapping[str, Operation], operation: Operation, scope: str) -> bool:
    """Whether a replay of the scope asks for the operation: not inside a context that answers for itself."""
    parent = operation.parent
    while parent != scope:
        outer = everything.get(parent)
        if outer is None:
            return False
        if outer.status in SETTLED and outer.status is not Status.CANCELLED and not outer.replay_children:
            return False
        parent = outer.parent
    return True
