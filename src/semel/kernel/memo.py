"""What replaying code may ask of its journal; where a mismatch is noticed.

A memo answers for one open scope. Code asks for operations in any order; completions are
handed out in journal order, one at a time, because the order in which a body learned of
them is part of what it computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from semel.errors import NonDeterminismError
from semel.kernel.entry import ARRIVING, SETTLED, Delivered, Kind, Record, Settled, Status
from semel.kernel.operation import Operation, fold

PATCH: Final = "Patch"  # the subtype of the marker that a patch leaves


class Completion(Struct, frozen=True, gc=False):
    """An outcome that was delivered to the body, and the time it was delivered at."""

    operation: Operation
    at_ms: int


class Memo:
    """The recorded operations of one scope, and how much of them this run has asked for."""

    __slots__ = ("_arrivals", "_asked", "_completions", "_is_over", "_patches", "_position", "operations")

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
        self._patches = dict.fromkeys(patches, True)
        self._is_over = is_over
        self._completions = completions
        self._position = 0
        self._arrivals = {name: place for place, name in enumerate(arrivals)}
        self._asked: set[str] = set()

    @classmethod
    def of(cls, records: Iterable[Record], *, scope: str) -> Memo:
        """Fold the records of a stream into the memo of `scope` ("" for a function's body)."""
        everything: dict[str, Operation] = {}
        settled: list[tuple[str, int]] = []
        arrivals: list[str] = []
        for record in records:
            at_ms = record.time_ms + record.entry.offset_ms
            entry = record.entry
            fold(everything, [(entry, at_ms)])
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
            return None
        if recorded.kind is not kind or recorded.name != name or recorded.subtype != subtype:
            raise NonDeterminismError(operation_id, _spell(recorded), _spell_request(kind, name, source, subtype))
        self._asked.add(operation_id)
        return recorded

    def patched(self, name: str) -> bool | None:
        """Which path the run takes at a patch, the same ever after; None for the new one, to be recorded with `patch`.

        The old one if more is recorded than this run has come to: the first run went past here
        without the patch. What is recorded never becomes less, so every later replay finds the same.
        """
        if name not in self._patches and (
            self._is_over or not self.is_used_up or len(self._asked) < len(self.operations)
        ):
            self._patches[name] = False
        return self._patches.get(name)

    def patch(self, name: str) -> None:
        """This run takes the new path of a patch."""
        self._patches[name] = True

    def upcoming(self) -> Completion | None:
        """The next completion to deliver, or None when the recorded ones are used up.

        Raises NonDeterminismError if this run has not asked for it: by then the first run had.
        """
        if self._position >= len(self._completions):
            return None
        completion = self._completions[self._position]
        operation = completion.operation
        if operation.id not in self._asked:
            raise NonDeterminismError(operation.id, _spell(operation), "nothing at that place")
        return completion

    def advance(self) -> None:
        """The upcoming completion has been delivered."""
        self._position += 1

    @property
    def is_used_up(self) -> bool:
        """Whether every recorded completion has been delivered."""
        return self._position >= len(self._completions)

    def arrived(self, operation: Operation) -> None:
        """Somebody else changed a recorded operation while this run goes on."""
        if operation.id in self.operations:
            self.operations[operation.id] = operation
        if operation.status in SETTLED:
            self._arrivals.setdefault(operation.id, len(self._arrivals))

    def place_of_arrival(self, operation_id: str) -> int:
        """Where among the outcomes that others brought one has come; before all of them for any other operation."""
        return self._arrivals.get(operation_id, -1)

    def check_all_asked(self) -> None:
        """Raise NonDeterminismError for the first recorded operation that this run never asked for."""
        if len(self._asked) == len(self.operations):
            return
        missed = next(operation for operation in self.operations.values() if operation.id not in self._asked)
        raise NonDeterminismError(missed.id, _spell(missed), "nothing, and ended")


def is_patch(operation: Operation) -> bool:
    """Whether it is the marker of a patch. No code asks for it or waits for it."""
    return operation.start is not None and operation.start.subtype == PATCH


def _visible(everything: dict[str, Operation], operation: Operation, scope: str) -> bool:
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


def _spell(operation: Operation) -> str:
    return _spell_request(operation.kind, operation.name, operation.source, operation.subtype)


def _spell_request(kind: Kind, name: str, source: str, subtype: str = "") -> str:
    spelled = f"{kind} ({subtype})" if subtype else str(kind)
    named = f"{spelled} {name!r}" if name else spelled
    return f"{named} at {source}" if source else named
