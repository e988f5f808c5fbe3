"""What user code is handed: step, wait, child context. And the seam it reaches the journal through.

A context checks arguments and says where it was called from; what an operation does is the
seam's. `Context` is for `async def` code, `SyncContext` has the same methods for `def` code.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine
from functools import lru_cache
from typing import Any, Literal, Protocol, TypeVar, TypeVarTuple, overload

from msgspec import Struct

from semel.errors import ValidationError
from semel.function import EffectName, Semantics, StepOptions, step_name, step_options
from semel.kernel.ids import check_name
from semel.retry import Retry

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

WAIT_MAX_MS = 366 * 24 * 3_600_000
OnCancel = Literal["wait", "abandon"]


class StepCall(Struct, frozen=True):
    """A request for a step."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: StepOptions
    source: str
    on_cancel: str = "wait"


class WaitCall(Struct, frozen=True):
    """A request to be woken after a time."""

    delay_ms: int
    name: str
    source: str


class ChildCall(Struct, frozen=True):
    """A request for a child context."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    name: str
    source: str


class Seam(Protocol):
    """The one way from user code to the journal. Closed when the run ends, is evicted or loses its lease."""

    def step(self, call: StepCall) -> Coroutine[Any, Any, Any]: ...
    def wait(self, call: WaitCall) -> Coroutine[Any, Any, None]: ...
    def child(self, context: Context, call: ChildCall) -> Coroutine[Any, Any, Any]: ...
    def patched(self, name: str, source: str) -> bool: ...
    def now_ms(self) -> int: ...
    def is_replaying(self) -> bool: ...
    @property
    def execution_id(self) -> str: ...


class SyncSeam(Protocol):
    """The same for `def` code, which runs in a thread and blocks."""

    def step(self, call: StepCall) -> Any: ...
    def wait(self, call: WaitCall) -> None: ...
    def child(self, context: SyncContext, call: ChildCall) -> Any: ...
    def patched(self, name: str, source: str) -> bool: ...
    def now_ms(self) -> int: ...
    def is_replaying(self) -> bool: ...
    @property
    def execution_id(self) -> str: ...


class Context:
    """A durable function's or turn's hand on the journal, for `async def` code."""

    __slots__ = ("_seam",)

    def __init__(self, seam: Seam) -> None:
        self._seam = seam

    @overload
    def step(
        self,
        function: Callable[[*Ts], Awaitable[T]],
        /,
        *arguments: *Ts,
        name: str | None = None,
        retry: Retry | None = None,
        effect: EffectName | None = None,
        semantics: Semantics | None = None,
        on_cancel: OnCancel = "wait",
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(
        self,
        function: Callable[[*Ts], T],
        /,
        *arguments: *Ts,
        name: str | None = None,
        retry: Retry | None = None,
        effect: EffectName | None = None,
        semantics: Semantics | None = None,
        on_cancel: OnCancel = "wait",
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(
        self,
        function: Callable[[*Ts, str], Awaitable[T]],
        /,
        *arguments: *Ts,
        name: str | None = None,
        retry: Retry | None = None,
        effect: EffectName | None = None,
        semantics: Semantics | None = None,
        on_cancel: OnCancel = "wait",
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(
        self,
        function: Callable[[*Ts, str], T],
        /,
        *arguments: *Ts,
        name: str | None = None,
        retry: Retry | None = None,
        effect: EffectName | None = None,
        semantics: Semantics | None = None,
        on_cancel: OnCancel = "wait",
    ) -> Coroutine[Any, Any, T]: ...
    def step(
        self,
        function: Callable[..., Any],
        /,
        *arguments: object,
        name: str | None = None,
        retry: Retry | None = None,
        effect: str | None = None,
        semantics: str | None = None,
        on_cancel: str = "wait",
    ) -> Coroutine[Any, Any, Any]:
        """Run `function(*arguments)` once and record what it returned; on replay, return that.

        The body runs on the real event loop (`def`: in a thread) and gets copies of arguments that
        the codec can keep. Durable when it returns: the result. Raises StepError when its retries
        are used up, StepInterruptedError for an at-most-once step that a crash cut short. When the
        awaiter is cancelled, a running body is told and its true outcome comes back
        (`on_cancel="abandon"`: CancelledError at once, a late result is dropped).
        """
        options = step_options(function, name=name, retry=retry, effect=effect, semantics=semantics)
        if on_cancel != "wait":
            check_on_cancel(on_cancel)
        frame = sys._getframe(1)  # noqa: SLF001  # `caller`, without a call: every step comes by here
        source = place(frame.f_code.co_filename, frame.f_lineno)
        return self._seam.step(StepCall(function, arguments, options, source, on_cancel))

    def wait(
        self,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        ms: int = 0,
        name: str = "",
    ) -> Coroutine[Any, Any, None]:
        """Sleep durably: nothing is held meanwhile, and the time goes on while the process is down.

        Raises ValidationError for a negative time or one over 366 days.
        """
        delay_ms = duration_ms(days=days, hours=hours, minutes=minutes, seconds=seconds, ms=ms)
        return self._seam.wait(WaitCall(delay_ms, wait_name(name), caller()))

    def run_in_child_context(
        self, function: Callable[[Context, *Ts], Awaitable[T]], /, *arguments: *Ts, name: str | None = None
    ) -> Coroutine[Any, Any, T]:
        """Run `function(ctx, *arguments)` as a scope with one outcome: once it has that, replay skips its inside.

        Raises ChildContextError if the function raises.
        """
        return self._seam.child(self, ChildCall(function, arguments, child_name(function, name), caller()))

    def patched(self, name: str) -> bool:
        """Whether this run takes the new path of a change to its code: `if ctx.patched("fee"): new() else: old()`.

        True for a run that comes here for the first time, and it is recorded. False for one that had
        gone past here without it. The answer is the same at every later call and replay of the
        execution, or of the actor's message. Takes no number of an operation.
        """
        return self._seam.patched(check_name("patch", name), caller())

    def now_ms(self) -> int:
        """The time of the last delivered record, in ms since 1970: the same on replay."""
        return self._seam.now_ms()

    @property
    def is_replaying(self) -> bool:
        """Whether the journal still answers. For logs only: do not branch on it."""
        return self._seam.is_replaying()

    @property
    def execution_id(self) -> str:
        """The stream's uid: random, never reused."""
        return self._seam.execution_id


class SyncContext:
    """The same for plain `def` code: each call blocks its thread. See `Context` for the contracts."""

    __slots__ = ("_seam",)

    def __init__(self, seam: SyncSeam) -> None:
        self._seam = seam

    @overload
    def step(
        self,
        function: Callable[[*Ts], Awaitable[T]],
        /,
        *arguments: *Ts,
        name: str | None = None,
        retry: Retry | None = None,
        effect: EffectName | None = None,
        semantics: Semantics | None = None,
    ) -> T: ...
    @overload
    def step(
        self,
        function: Callable[[*Ts], T],
        /,
        *arguments: *Ts,
        name: str | None = None,
        retry: Retry | None = None,
        effect: EffectName | None = None,
        semantics: Semantics | None = None,
    ) -> T: ...
    @overload
    def step(
        self,
        function: Callable[[*Ts, str], Awaitable[T]],
        /,
        *arguments: *Ts,
        name: str | None = None,
        retry: Retry | None = None,
        effect: EffectName | None = None,
        semantics: Semantics | None = None,
    ) -> T: ...
    @overload
    def step(
        self,
        function: Callable[[*Ts, str], T],
        /,
        *arguments: *Ts,
        name: str | None = None,
        retry: Retry | None = None,
        effect: EffectName | None = None,
        semantics: Semantics | None = None,
    ) -> T: ...
    def step(
        self,
        function: Callable[..., Any],
        /,
        *arguments: object,
        name: str | None = None,
        retry: Retry | None = None,
        effect: str | None = None,
        semantics: str | None = None,
    ) -> Any:
        """Run `function(*arguments)` once and record what it returned; on replay, return that."""
        options = step_options(function, name=name, retry=retry, effect=effect, semantics=semantics)
        return self._seam.step(StepCall(function, arguments, options, caller()))

    def wait(
        self,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        ms: int = 0,
        name: str = "",
    ) -> None:
        """Sleep durably. The thread ends here and the function is replayed to this point when it is time."""
        delay_ms = duration_ms(days=days, hours=hours, minutes=minutes, seconds=seconds, ms=ms)
        self._seam.wait(WaitCall(delay_ms, wait_name(name), caller()))

    def run_in_child_context(
        self, function: Callable[[SyncContext, *Ts], T], /, *arguments: *Ts, name: str | None = None
    ) -> T:
        """Run `function(ctx, *arguments)` as a scope with one outcome."""
        result: T = self._seam.child(self, ChildCall(function, arguments, child_name(function, name), caller()))
        return result

    def patched(self, name: str) -> bool:
        """Whether this run takes the new path of a change to its code. The answer never changes."""
        return self._seam.patched(check_name("patch", name), caller())

    def now_ms(self) -> int:
        """The time of the last delivered record, in ms since 1970: the same on replay."""
        return self._seam.now_ms()

    @property
    def is_replaying(self) -> bool:
        """Whether the journal still answers. For logs only: do not branch on it."""
        return self._seam.is_replaying()

    @property
    def execution_id(self) -> str:
        """The stream's uid: random, never reused."""
        return self._seam.execution_id


def duration_ms(*, days: float, hours: float, minutes: float, seconds: float, ms: int) -> int:
    """Add up a duration. Raises ValidationError unless it is between 0 and 366 days."""
    total = round(((days * 24 + hours) * 60 + minutes) * 60_000 + seconds * 1_000 + ms)
    if not 0 <= total <= WAIT_MAX_MS:
        raise ValidationError(f"wait: found {total} ms, expected 0 to {WAIT_MAX_MS} ms (366 days)")
    return total


def wait_name(name: str) -> str:
    """Return the name, which may be empty, or raise ValidationError."""
    return check_name("wait", name) if name else ""


def child_name(function: Callable[..., Any], name: str | None) -> str:
    """What a child context is called unless it is given a name."""
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
