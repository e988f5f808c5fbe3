"""The code at hand, for reports: where it mentions a name, what may come after a call, who set a timer.

Read from compiled code, when a report is made and not before; nothing is run. The body's
function, the functions inside it, and those of its package that it names are looked at.
"""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any, Final

from semel.calls import place
from semel.function import FunctionSpec, StepOptions
from semel.runtime.body_loop import BodyLoop

FUNCTIONS_MAX: Final = 200
_PUMP: Final = BodyLoop._pump.__code__  # noqa: SLF001  # the frame under which a body runs
_JUMPS: Final = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)
_ENDS: Final = ("RETURN_", "RAISE_", "RERAISE", "JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_ABSOLUTE")


def timer_source() -> str:
    """The file:line of the user's code that sets a timer through asyncio, or "" if there is none."""
    frame = sys._getframe(2)  # noqa: SLF001  # inspect.currentframe walks the same way, at a cost
    while frame.f_code is not _PUMP:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(("asyncio.", "semel.runtime.")):
            return place(frame.f_code.co_filename, frame.f_lineno)
        if frame.f_back is None:
            return ""
        frame = frame.f_back
    return ""


class PresentCode:
    """The code of a durable function or handler (`semel.kernel.divergence.Code`). `owner` is the handler's class."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        owner: type | None = None,
        is_unchanged: Callable[[], bool] | None = None,
    ) -> None:
        self._function = function
        self._owner = owner
        self._is_unchanged = is_unchanged
        self._read: list[_Text] | None = None

    def is_unchanged(self) -> bool:
        return self._is_unchanged is not None and self._is_unchanged()

    def places(self, name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(text.places[at] for text in self._texts() for at in text.mentions.get(name, ())))

    def follows(self, name: str, source: str) -> bool | None:
        for text in self._texts():
            at = text.call_at(source)
            if at is not None and name in text.mentions:
                after = text.reachable_from(at)
                return any(mention in after for mention in text.mentions[name])
        return None

    def _texts(self) -> list[_Text]:
        if self._read is None:
            self._read = list(_texts(inspect.unwrap(self._function), self._owner))
        return self._read


def _texts(function: Any, owner: type | None) -> Iterator[_Text]:
    """The function's own code, and that of what it names in its package, each once."""
    waiting, seen = [function], {id(function)}
    package = str(getattr(function, "__module__", "")).partition(".")[0]
    while waiting and len(seen) <= FUNCTIONS_MAX:
        current = waiting.pop(0)
        if not isinstance(current, FunctionType):
            continue
        known = _known(current, owner)
        for code in _codes(current.__code__):
            text = _Text(code, known)
            yield text
            for name in text.mentions:
                found = inspect.unwrap(known[name]) if callable(known.get(name)) else None
                is_ours = str(getattr(found, "__module__", "")).partition(".")[0] == package
                if isinstance(found, FunctionType) and is_ours and id(found) not in seen and not _given_name(found):
                    seen.add(id(found))
                    waiting.append(found)


def _known(function: FunctionType, owner: type | None) -> dict[str, Any]:
    """What names in the function's code stand for, where that is fixed: globals, closure, methods of the class."""
    known = dict(function.__globals__)
    if owner is not None:
        known |= {name: part for cls in reversed(owner.__mro__[:-1]) for name, part in vars(cls).items()}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            known[name] = cell.cell_contents
        except ValueError:  # it has no value yet
            continue
    return known


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _given_name(thing: object) -> str:
    """The name given to a step or durable function by its decorator, or ""."""
    known = getattr(thing, "__semel_step__", None) or getattr(thing, "__semel_function__", None)
    return known.name if isinstance(known, StepOptions | FunctionSpec) else ""


class _Text:
    """One code object: which instruction mentions which name, within the call at which place."""

    def __init__(self, code: CodeType, known: dict[str, Any]) -> None:
        self.mentions: dict[str, list[int]] = {}
        self.places: dict[int, str] = {}
        self._instructions = list(dis.get_instructions(code))
        self._file = code.co_filename
        self._calls = [
            (at, _span(instruction))
            for at, instruction in enumerate(self._instructions)
            if instruction.opname.startswith("CALL") and "INTRINSIC" not in instruction.opname
        ]
        for at, instruction in enumerate(self._instructions):
            if instruction.opname.startswith("LOAD_"):
                for name in _names(instruction.argval):
                    self._mention(name, at)
                    alias = _given_name(known.get(name))
                    if alias and alias != name:
                        self._mention(alias, at)

    def _mention(self, name: str, at: int) -> None:
        self.mentions.setdefault(name, []).append(at)
        self.places[at] = place(self._file, self._line(at))

    def _line(self, at: int) -> int:
        """The line of the innermost call that a mention is an argument of: what a frame says there."""
        start, end = own = _span(self._instructions[at])
        around = [span for call, span in self._calls if call > at and span[0] <= start and end <= span[1]]
        return max(around, default=own)[0][0]

    def call_at(self, source: str) -> int | None:
        """The first call on a line, as a position in this code, or None."""
        return next((at for at, span in self._calls if place(self._file, span[0][0]) == source), None)

    def reachable_from(self, at: int) -> set[int]:
        """What may run after an instruction, without going round a loop and without an exception."""
        targets = self._targets()
        reached: set[int] = set()
        waiting = [at + 1]
        while waiting:
            here = waiting.pop()
            if here in reached or here >= len(self._instructions):
                continue
            reached.add(here)
            target = targets.get(here)
            if target is not None:
                waiting.extend([target] if target > here else self._exits(targets, target))
            if not self._instructions[here].opname.startswith(_ENDS):
                waiting.append(here + 1)
        return reached

    def _targets(self) -> dict[int, int]:
        """Where each jump leads, as positions in this code."""
        offsets = {instruction.offset: at for at, instruction in enumerate(self._instructions)}
        return {
            at: offsets[instruction.argval]
            for at, instruction in enumerate(self._instructions)
            if instruction.opcode in _JUMPS and instruction.argval in offsets
        }

    @staticmethod
    def _exits(targets: dict[int, int], start: int) -> list[int]:
        """Where one comes out of the loop that begins at `start`."""
        end = max(at for at, target in targets.items() if target == start)
        return [target for at, target in targets.items() if start <= at <= end < target]


Span = tuple[tuple[int, int], tuple[int, int]]


def _span(instruction: dis.Instruction) -> Span:
    found = instruction.positions
    if found is None:
        return (0, 0), (0, 0)
    start = (found.lineno or 0, found.col_offset or 0)
    return start, (found.end_lineno or start[0], found.end_col_offset or start[1])


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(name for name in value if isinstance(name, str)) if isinstance(value, tuple) else ()
