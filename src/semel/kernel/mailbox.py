"""An actor's messages in order, and its state after the last turn.

Order is priority, then arrival (J8); a message whose turn has recorded something comes before
any other, because turns do not overlap, also after a crash. A message leaves when it settles.
Turns after the last snapshot are kept, because recovery runs them again; those that failed
left the state as it was, and are not.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from msgspec import Struct

from semel.kernel.entry import Kind, Payload, Record, Settled, Started, Status, TurnEnded
from semel.kernel.operation import Operation, begun, evolve

_FIRST = -(1 << 64)  # before any priority: a priority is an integer of msgpack


class Letter(Struct):
    """A message with its place: the `seq` of its start. `is_begun` once an operation of its turn is recorded."""

    operation: Operation
    seq: int
    is_begun: bool = False
    is_taken: bool = False


class Mailbox:
    """The fold of an actor's stream: open messages, turns since the snapshot, and the snapshot."""

    __slots__ = ("_open", "_order", "_seq", "_snapshot_seq", "_turns", "snapshot")

    def __init__(self) -> None:
        self._open: dict[str, Letter] = {}
        self._order: list[tuple[int, int, str]] = []
        self._turns: list[Letter] = []
        self.snapshot: Payload | None = None
        self._snapshot_seq = 0
        self._seq = 0

    @classmethod
    def of(cls, records: Iterable[Record]) -> Mailbox:
        mailbox = cls()
        for record in records:
            mailbox.observe(record)
        return mailbox

    def observe(self, record: Record) -> None:
        """Take in one record, in order of `seq`."""
        entry = record.entry
        self._seq = record.seq
        match entry:
            case Started(kind=Kind.MESSAGE):
                operation = begun(entry, record.time_ms + entry.offset_ms)
                self._open[entry.operation] = Letter(operation, record.seq)
                priority = 0 if entry.message is None else entry.message.priority
                heapq.heappush(self._order, (-priority, record.seq, entry.operation))
            case Started():
                self._begin(entry.parent)
            case TurnEnded():
                self._end_turn(entry, record.seq)
            case Settled():
                self._settle(entry, record.time_ms + entry.offset_ms)
            case _:
                pass

    def _begin(self, message: str) -> None:
        letter = self._open.get(message)
        if letter is not None and not letter.is_begun:
            letter.is_begun = True
            if not letter.is_taken:
                heapq.heappush(self._order, (_FIRST, letter.seq, message))

    def _end_turn(self, entry: TurnEnded, seq: int) -> None:
        if entry.state is not None:
            self.snapshot = entry.state
            self._snapshot_seq = seq
            self._turns.clear()
            return
        letter = self._open.get(entry.operation)
        if letter is not None:
            self._turns.append(letter)

    def _settle(self, entry: Settled, at_ms: int) -> None:
        letter = self._open.pop(entry.operation, None)
        if letter is None:
            return
        letter.operation = evolve(letter.operation, entry, at_ms) or letter.operation
        if entry.status is not Status.SUCCEEDED:
            self._turns = [kept for kept in self._turns if kept is not letter]

    def head(self) -> Operation | None:
        """The message whose turn is next, or None."""
        while self._order:
            letter = self._open.get(self._order[0][2])
            if letter is not None and not letter.is_taken:
                return letter.operation
            heapq.heappop(self._order)
        return None

    def take(self) -> Operation | None:
        """The message whose turn is next; from now on it is no longer the head. It stays open until it settles."""
        head = self.head()
        if head is not None:
            self._open[head.id].is_taken = True
            heapq.heappop(self._order)
        return head

    def forget_turns(self) -> None:
        """Keep no ended turn for recovery: an actor whose state is not durable never runs one again."""
        self._turns.clear()

    def turns(self) -> list[Operation]:
        """The messages whose turns came after the snapshot and did not fail, in order."""
        return [letter.operation for letter in self._turns]

    def __len__(self) -> int:
        return len(self._open)

    def base(self) -> int:
        """The first `seq` that recovery still needs: of the snapshot, a turn after it, or an open message."""
        needed = [letter.seq for letter in self._turns]
        needed.extend(letter.seq for letter in self._open.values())
        if self._snapshot_seq:
            needed.append(self._snapshot_seq)
        return min(needed, default=self._seq + 1)
