"""Where an operation is in the lineage of a body's tasks: who names the next operation and the next task."""

from __future__ import annotations

import zlib
from contextvars import ContextVar


class Frame:
    """A place in the lineage of operation ids: who names the next operation and the next task.

    It also numbers the tasks and futures that are made here, for their hashes. Such a number must not
    depend on what happened elsewhere: a replay does not run the inside of a child context that has
    settled, and what is made after it would have other numbers, and a set of it another order.
    """

    __slots__ = ("_last", "lineage", "operations", "scope", "tasks")

    def __init__(self, lineage: str, scope: str | None = None) -> None:
        self.lineage = lineage
        self.scope = scope
        self.tasks = 0
        self.operations = 0
        self._last = -1

    def __repr__(self) -> str:
        return f"Frame({self.lineage!r}, {self.scope!r})"

    def next_operation(self) -> str:
        self.operations += 1
        return f"{self.lineage}_{self.operations}"

    def next_ordinal(self) -> int:
        """A number for the next task, future or timer made here: in order here, and apart from those made elsewhere."""
        if self._last < 0:
            # The low bits are left to the order, so that most small sets iterate by it.
            self._last = zlib.crc32(self.lineage.encode()) << 16
        self._last += 1
        return self._last

    def child_task(self) -> Frame:
        """The frame of the next task started here, in the same scope."""
        self.tasks += 1
        return Frame(f"{self.lineage}-{self.tasks}", self.scope)

    def inside(self, operation: str, scope: str) -> Frame:
        """The frame of a child context: its operations are named under `operation`."""
        return Frame(operation, scope)


current_frame: ContextVar[Frame] = ContextVar("semel_frame")
