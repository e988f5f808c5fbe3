"""What a context asks of its seam: one request for each kind of operation, and the seams' protocols.

A call is checked before it is made, and says where in the user's code it comes from.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from msgspec import Struct

from semel.errors import ValidationError
from semel.function import StepOptions, step_name
from semel.kernel.ids import check_name

if TYPE_CHECKING:
    from semel.batch import BatchResult, Completion
    from semel.poll import Poll

WAIT_MAX_MS: Final = 366 * 24 * 3_600_000
OnCancel = Literal["wait", "abandon"]
Nesting = Literal["nested", "flat"]


class StepCall(Struct, frozen=True):
    """A request for a step. `poll` where its body is the check of a condition."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: StepOptions
    source: str
    on_cancel: str = "wait"
    poll: Poll | None = None
    subtype: str = ""


class WaitCall(Struct, frozen=True):
    """A request to be woken after a time."""

    delay_ms: int
    name: str
    source: str


class ChildCall(Struct, frozen=True):
    """A request for a child context. A `flat` one names its operations, and is none itself."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    name: str
    source: str
    subtype: str = ""
    is_flat: bool = False


class CallbackCall(Struct, frozen=True):
    """A request for an operation that is settled from outside. No time is a limit where it is 0."""

    name: str
    source: str
    timeout_ms: int = 0
    heartbeat_ms: int = 0


class InvokeCall(Struct, frozen=True):
    """A request to run another function as an execution of its own, and to wait for its outcome."""

    function: str
    arguments: tuple[Any, ...]
    name: str
    source: str
    version: str = ""
    timeout_ms: int = 0


class BatchCall(Struct, frozen=True):
    """A request to run branches side by side: `functions[i](ctx, *arguments[i])` under `names[i]`."""

    functions: tuple[Callable[..., Any], ...]
    arguments: tuple[tuple[Any, ...], ...]
    names: tuple[str, ...]
    name: str
    subtype: str
    branch_subtype: str
    source: str
    completion: Completion
    concurrency_max: int | None = None
    is_flat: bool = False


class Seam(Protocol):
    """The one way from user code to the journal. Closed when the run ends, is evicted or loses its lease."""

    def step(self, call: StepCall) -> Coroutine[Any, Any, Any]: ...
    def wait(self, call: WaitCall) -> Coroutine[Any, Any, None]: ...
    def child(self, context: Any, call: ChildCall) -> Coroutine[Any, Any, Any]: ...
    def callback(self, call: CallbackCall) -> Coroutine[Any, Any, tuple[str, Any]]:
        """The callback's id, and what `callback_result` takes."""
        ...

    def callback_result(self, ticket: Any) -> Coroutine[Any, Any, Any]: ...
    def invoke(self, call: InvokeCall) -> Coroutine[Any, Any, Any]: ...
    def patched(self, name: str, source: str) -> bool: ...
    def now_ms(self) -> int: ...
    def is_replaying(self) -> bool: ...
    def random(self) -> random.Random:
        """The numbers of the place in the code that asks: the same on replay."""
        ...

    @property
    def execution_id(self) -> str: ...


class SyncSeam(Protocol):
    """The same for `def` code, which runs in a thread and blocks."""

    def step(self, call: StepCall) -> Any: ...
    def wait(self, call: WaitCall) -> None: ...
    def child(self, context: Any, call: ChildCall) -> Any: ...
    def callback(self, call: CallbackCall) -> tuple[str, Any]: ...
    def callback_result(self, ticket: Any) -> Any: ...
    def invoke(self, call: InvokeCall) -> Any: ...
    def batch(self, call: BatchCall) -> BatchResult[Any]: ...
    def patched(self, name: str, source: str) -> bool: ...
    def now_ms(self) -> int: ...
    def is_replaying(self) -> bool: ...
    def random(self) -> random.Random: ...
    @property
    def execution_id(self) -> str: ...


def duration_ms(
    *,
    days: float = 0,
    hours: float = 0,
    minutes: float = 0,
    seconds: float = 0,
    ms: int = 0,
    subject: str = "wait",
) -> int:
    """Add up a duration. Raises ValidationError unless it is between 0 and 366 days."""
    try:
        total = round(((days * 24 + hours) * 60 + minutes) * 60_000 + seconds * 1_000 + ms)
    except (TypeError, ValueError, OverflowError):
        raise ValidationError(
            f"{subject}: found {(days, hours, minutes, seconds, ms)!r}, expected finite numbers"
        ) from None
    if not 0 <= total <= WAIT_MAX_MS:
        raise ValidationError(f"{subject}: found {total} ms, expected 0 to {WAIT_MAX_MS} ms (366 days)")
    return total


def limit_ms(subject: str, found: int) -> int:
    """Return a time limit, 0 for none, or raise ValidationError unless it is a whole number up to 366 days."""
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= WAIT_MAX_MS:
        raise ValidationError(
            f"{subject}: found {found!r}, expected a whole number of ms from 0 (no limit) to {WAIT_MAX_MS} (366 days)"
        )
    return found


def check_callable(subject: str, function: object, expected: str) -> None:
    """Raise ValidationError for what cannot be called."""
    if not callable(function):
        raise ValidationError(f"{subject}: found {function!r:.80}, expected {expected}")


def optional_name(subject: str, name: str) -> str:
    """Return the name, which may be empty, or raise ValidationError."""
    return check_name(subject, name) if name else ""


def child_name(function: Callable[..., Any], name: str | None) -> str:
    """What a child context is called unless it is given a name. Raises ValidationError for no function."""
    check_callable("child context", function, "a function of the context")
    return step_name(function) if name is None else check_name("child context", name)


def check_on_cancel(on_cancel: str) -> str:
    """Return the choice, or raise ValidationError."""
    if on_cancel not in ("wait", "abandon"):
        raise ValidationError(f"step on_cancel: found {on_cancel!r}, expected 'wait' or 'abandon'")
    return on_cancel


def caller() -> str:
    """The file:line of the code that called a context's method, for reports of divergence."""
    frame = sys._getframe(2)  # noqa: SLF001  # inspect.currentframe walks the same way, at a cost
    return place(frame.f_code.co_filename, frame.f_lineno)


@lru_cache(maxsize=4096)
def place(filename: str, line: int) -> str:
    """A line by the last two parts of its file's path: enough to find it, the same on every machine."""
    cut = filename.rfind("/", 0, max(filename.rfind("/"), 0))
    return f"{filename[cut + 1 :]}:{line}"
