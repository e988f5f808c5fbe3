"""Where an operation is in the lineage of a body's tasks: who names the next operation and the next task."""

from __future__ import annotations

from contextvars import ContextVar


class Frame:
    """A place in the lineage of operation ids: who names the next operation and the next task."""

    __slots__ = ("lineage", "operations", "scope", "tasks")

    def __init__(self, lineage: str, scope: str | None = None) -> None:
        self.lineage = lineage
        self.scope = scope
        self.tasks = 0
        self.operations = 0

    def __repr__(self) -> str:
        return f"Frame({self.lineage!r}, {self.scope!r})"

    def next_operation(self) -> str:
        self.operations += 1
        return f"{self.lineage}_{self.operations}"

    def child_task(self) -> Frame:
        """The frame of the next task started here, in the same scope."""
        self.tasks += 1
        return Frame(f"{self.lineage}-{self.tasks}", self.scope)

    def inside(self, operation: str, scope: str) -> Frame:
        """The frame of a child context: its operations are named under `operation`."""
        return Frame(operation, scope)


current_frame: ContextVar[Frame] = ContextVar("semel_frame")
