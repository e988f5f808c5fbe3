"""The deterministic event loop that a function body or an actor's turn runs on.

It runs only what the body scheduled, until nothing is ready; the outside then delivers one
completion and lets it run to rest again. Replay delivers the recorded completions in the
same order, so the same code takes the same path, races included. Three things make that so:
callbacks run in the order they were scheduled, tasks and futures hash by their place in the
lineage (a set of them otherwise iterates in memory order), and a timer is asked of `Timers`,
whose firing is a recorded fact. Whatever would let the world in (I/O, threads, signals) is
refused. The loop is pumped from a plain callback, never from inside a task.
"""

# ruff: noqa: SLF001  # a loop, its handles, futures and tasks are one mechanism, and asyncio's own

from __future__ import annotations

import asyncio
import asyncio.tasks
import inspect
import math
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from types import CoroutineType, FrameType
from typing import Any, NoReturn, Protocol, TypeVar, TypeVarTuple

from semel.runtime.body_handle import BodyHandle, BodyTimer
from semel.runtime.frame import Frame, current_frame

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Awaited = Coroutine[Any, Any, T] | Generator[Any, None, T]

CALLBACKS_MAX = 10_000_000  # between two rests: some seconds, and far more than a wide fan-out needs
REFUSALS_MAX = 10_000  # of a closed seam, before the body is taken to swallow them for ever
ASYNCGENS_MIN = 64  # how many async generators are noted before the finished ones are let go

# From 3.14 on the interpreter has one current task per thread, and refuses to enter a second.
TASKS_NEST = sys.version_info < (3, 14)
AS_COMPLETED = frozenset({"as_completed", "_AsCompletedIterator.__init__"})
TASKS_MODULE = vars(asyncio.tasks)
GATHERING: Any = TASKS_MODULE["_GatheringFuture"]
GATHERING_INIT = GATHERING.__init__.__code__


class Timers(Protocol):
    """How the loop asks for durable timers."""

    def schedule(self, handle: asyncio.TimerHandle, *, delay_ms: int) -> None:
        """Let `BodyLoop.fire(handle)` be called after `delay_ms`, which is at least 1.

        Called inside the body, in the context of the code that asked.
        """

    def cancel(self, handle: asyncio.TimerHandle) -> None:
        """`handle` was cancelled before it fired. Not called once the seam is closed."""


class BodyFuture(asyncio.Future[T]):
    """Hashes by who made it, and in which order; equal only to itself."""

    __slots__ = ("_ordinal",)
    _ordinal: int

    def __hash__(self) -> int:
        return self._ordinal


class BodyTask(asyncio.Task[T]):
    """Hashes by who made it, and in which order; equal only to itself. `context` is the one it runs in."""

    __slots__ = ("_ordinal", "context")

    def __init__(self, coro: Awaited[T], *, loop: BodyLoop, name: str, context: Context, ordinal: int) -> None:
        self.context = context
        # asyncio registers the task in one process-wide weak set, under the hash it has now. The
        # ordinals of thousands of resident bodies are the same small numbers and would collide.
        self._ordinal = id(self) >> 4
        super().__init__(coro, loop=loop, name=name, context=context)
        self._ordinal = ordinal
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._ordinal


# What gather() returns is built without asking the loop; `get_debug` gives it this class.
BodyGathering = type("BodyGathering", (GATHERING,), {"__hash__": lambda self: self._ordinal})


class _NoTimers:
    """The timers of a loop that runs no more."""

    def schedule(self, handle: asyncio.TimerHandle, *, delay_ms: int) -> None:
        """Nothing."""

    def cancel(self, handle: asyncio.TimerHandle) -> None:
        """Nothing."""


_NO_TIMERS = _NoTimers()


def _no_error(context: dict[str, Any]) -> None:
    """Nothing is reported of a loop that runs no more."""


def _refusal(name: str) -> Any:
    """A method that says what was called and where it belongs."""

    def refuse(_loop: BodyLoop, *_args: object, **_kwargs: object) -> NoReturn:
        raise RuntimeError(
            f"loop.{name} was called in a body, whose loop has no I/O, threads, signals or life of its own; "
            f"expected only operations of the context and asyncio's tasks, locks and timers; "
            f"put the call in a step: await ctx.step(...)"
        )

    refuse.__name__ = name
    return refuse


def _leave_to_the_loop(asyncgen: AsyncGenerator[Any, Any]) -> None:
    """The finalizer hook. Doing nothing keeps the interpreter from running its `finally` blocks."""


def _close_unstarted(frame: FrameType | None, *awaitables: object) -> None:
    """Close coroutines that asyncio was handed and will not run, as nobody else can await them."""
    found: list[object] = list(awaitables)
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("asyncio."):
        for value in list(frame.f_locals.values()):
            found.extend(value if isinstance(value, list | tuple | set | frozenset) else (value,))
        frame = frame.f_back
    for awaitable in found:
        if isinstance(awaitable, CoroutineType) and inspect.getcoroutinestate(awaitable) == inspect.CORO_CREATED:
            awaitable.close()


class BodyLoop(asyncio.AbstractEventLoop):
    """Runs what one body scheduled; the outside sets `now_ms`, completes futures, and pumps.

    `on_error` is given what asyncio reports (a callback that raised, an exception that nobody
    retrieved), until the seam is closed. Tasks and async generators are held until they are done.
    """

    def __init__(
        self, timers: Timers, *, on_error: Callable[[dict[str, Any]], None], callbacks_max: int = CALLBACKS_MAX
    ) -> None:
        self.now_ms = 0
        self.frame = Frame("0")
        self._timers = timers
        self._on_error = on_error
        self._callbacks_max = callbacks_max
        self.ready: deque[Any] = deque()  # what `run_to_rest` will run
        self._live: dict[BodyTask[Any], None] = {}
        self._asyncgens: list[AsyncGenerator[Any, Any]] = []
        self._asyncgens_max = ASYNCGENS_MIN
        self._running = False
        self._signal: type[BaseException] | None = None
        self._refusals = 0

    def spawn(self, coro: Awaited[T], *, context: Context, frame: Frame) -> BodyTask[T]:
        """Start a body's main task in `context`, which becomes its own. It runs when pumped."""
        return self._start(coro, context=context, frame=frame)

    def run_to_rest(self) -> None:
        """Run until nothing is ready.

        KeyboardInterrupt and SystemExit come out of it, the rest stays queued. Raises
        RuntimeError when pumped from inside itself, from a task where the interpreter cannot
        nest them, and when the body goes on for `callbacks_max` callbacks without waiting.
        """
        if not self._pump(self._callbacks_max):
            raise RuntimeError(
                f"a body ran {self._callbacks_max} callbacks and did not come to rest; expected it to wait for an "
                f"operation, a lock or a timer; replace a loop around asyncio.sleep(0) by an asyncio.Event"
            )

    def fire(self, handle: asyncio.TimerHandle) -> None:
        """A durable timer came due: queue it, unless it was cancelled or has fired."""
        if isinstance(handle, BodyTimer) and handle._scheduled:
            handle._scheduled = False
            self.ready.append(handle)

    def close_seam(self, signal: type[BaseException]) -> None:
        """From now on what the body begins raises `signal()`, and nothing is reported or asked for.

        That is create_future, call_later, call_at and create_task; call_soon works on, for tasks
        to unwind. A body that swallows the signal `REFUSALS_MAX` times would spin for ever: after
        that it gets futures and timers that nothing completes, and waits. (R1b)
        """
        self._signal = signal

    def cancel_all(self, *, rounds: int = 1000) -> list[BodyTask[Any]]:
        """Cancel every live task, run to rest, close async generators; repeat; return what still lives.

        A round ends without rest when its tasks go on without waiting. The returned tasks are
        to be kept: collecting one would run its `finally` blocks. (R1c, R1d)
        """
        tried: set[AsyncGenerator[Any, Any]] = set()
        for _ in range(rounds):
            live = self._still_live()
            for task in live:
                task.cancel()
            if not live:
                self._release_asyncgens()
                closing = [asyncgen for asyncgen in self._asyncgens if asyncgen not in tried]
                if not closing:
                    break
                tried.update(closing)
                for asyncgen in reversed(closing):  # the innermost was begun last
                    self._start(self._close_asyncgen(asyncgen), context=Context(), frame=self.frame.child_task())
            self._pump(1000 + 100 * len(self._live))
        return self._still_live()

    @property
    def is_empty(self) -> bool:
        """Whether there is no task and no async generator to unwind."""
        return not self._live and not self._asyncgens and not self.ready

    def let_go(self) -> None:
        """Hold on to nobody outside: what runs no more is then freed at once, without the collector."""
        self._timers = _NO_TIMERS
        self._on_error = _no_error

    def _still_live(self) -> list[BodyTask[Any]]:
        return [task for task in self._live if not task.done()]

    def _pump(self, callbacks_max: int) -> bool:
        """Run what is ready, at most so many callbacks; tell whether the loop is at rest."""
        if self._running:
            raise RuntimeError("a body's loop was pumped from inside itself; pump it from a callback of the outer loop")
        outer = asyncio._get_running_loop()
        if not TASKS_NEST and outer is not None and asyncio.current_task(outer) is not None:
            raise RuntimeError(
                "a body's loop was pumped from inside a task, and this interpreter does not nest tasks; "
                "pump it from a plain callback: loop.call_soon(body_loop.run_to_rest)"
            )
        hooks = sys.get_asyncgen_hooks()
        ready = self.ready
        self._running = True
        asyncio._set_running_loop(self)
        sys.set_asyncgen_hooks(self._note_asyncgen, _leave_to_the_loop)
        try:
            for _ in range(callbacks_max):
                if not ready:
                    return True
                handle = ready.popleft()
                if handle._cancelled:
                    continue
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self.call_exception_handler(
                        {"message": f"a callback of a body raised: {handle!r}", "exception": error, "handle": handle}
                    )
            return not ready
        finally:
            handle = None  # a reported error's traceback keeps this frame, and would keep what ran last
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(outer)
            self._running = False

    def time(self) -> float:
        """The time of the last delivered record, in seconds."""
        return self.now_ms / 1000

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = BodyHandle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._timer(delay * 1000, callback, args, context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._timer(when * 1000 - self.now_ms, callback, args, context)

    def create_future(self) -> asyncio.Future[Any]:
        if self._signal is not None:
            self._turn_away(sys._getframe(1))
        future: BodyFuture[Any] = BodyFuture(loop=self)
        future._ordinal = current_frame.get(self.frame).next_ordinal()
        return future

    def create_waiter(self) -> asyncio.Future[Any]:
        """`create_future` for an operation's own use: user code never has it, and so it has no place in the order."""
        if self._signal is not None:
            self._turn_away(sys._getframe(1))
        future: BodyFuture[Any] = BodyFuture(loop=self)
        future._ordinal = 0
        return future

    def create_task(
        self,
        coro: Awaited[T],
        *,
        name: object = None,
        context: Context | None = None,
        eager_start: bool | None = None,
    ) -> asyncio.Task[T]:
        """Start a task with a frame of its own, in a copy of the current context unless one is given.

        An eager start is refused: it would run the task before those that were made ready earlier.
        """
        caller = sys._getframe(1)
        if self._signal is not None:
            self._turn_away(caller, coro)
        self._refuse_as_completed(caller, coro)
        if eager_start:
            raise RuntimeError("a body started a task with eager_start=True; its tasks start in turn; leave it out")
        if context is None:
            context = copy_context()
        elif any(task.context is context for task in self._live):
            raise RuntimeError(
                "a body gave one context to two tasks, and their operations could not be told apart; "
                "give each its own: context=contextvars.copy_context()"
            )
        parent = current_frame.get(self.frame)
        return self._start(coro, name=name, context=context, frame=parent.child_task(), ordinal=parent.next_ordinal())

    async def shutdown_asyncgens(self) -> None:
        """Close every async generator of this body that is not exhausted, the innermost first."""
        self._release_asyncgens()
        for asyncgen in reversed(list(self._asyncgens)):
            await self._close_asyncgen(asyncgen)
        self._release_asyncgens()

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return False

    def get_debug(self) -> bool:
        """False. asyncio asks this of every future it builds, gather()'s too, which is adopted here."""
        caller = sys._getframe(1)
        if caller.f_code is GATHERING_INIT:
            gathering = caller.f_locals["self"]
            gathering.__class__ = BodyGathering
            gathering._ordinal = current_frame.get(self.frame).next_ordinal()
        return False

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> None:
        return None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._signal is None:
            self._on_error(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    add_reader: Any = _refusal("add_reader")
    add_signal_handler: Any = _refusal("add_signal_handler")
    add_writer: Any = _refusal("add_writer")
    call_soon_threadsafe: Any = _refusal("call_soon_threadsafe")
    close: Any = _refusal("close")
    connect_accepted_socket: Any = _refusal("connect_accepted_socket")
    connect_read_pipe: Any = _refusal("connect_read_pipe")
    connect_write_pipe: Any = _refusal("connect_write_pipe")
    create_connection: Any = _refusal("create_connection")
    create_datagram_endpoint: Any = _refusal("create_datagram_endpoint")
    create_server: Any = _refusal("create_server")
    create_unix_connection: Any = _refusal("create_unix_connection")
    create_unix_server: Any = _refusal("create_unix_server")
    getaddrinfo: Any = _refusal("getaddrinfo")
    getnameinfo: Any = _refusal("getnameinfo")
    remove_reader: Any = _refusal("remove_reader")
    remove_signal_handler: Any = _refusal("remove_signal_handler")
    remove_writer: Any = _refusal("remove_writer")
    run_forever: Any = _refusal("run_forever")
    run_in_executor: Any = _refusal("run_in_executor")
    run_until_complete: Any = _refusal("run_until_complete")
    sendfile: Any = _refusal("sendfile")
    set_debug: Any = _refusal("set_debug")
    set_default_executor: Any = _refusal("set_default_executor")
    set_exception_handler: Any = _refusal("set_exception_handler")
    set_task_factory: Any = _refusal("set_task_factory")
    shutdown_default_executor: Any = _refusal("shutdown_default_executor")
    sock_accept: Any = _refusal("sock_accept")
    sock_connect: Any = _refusal("sock_connect")
    sock_recv: Any = _refusal("sock_recv")
    sock_recv_into: Any = _refusal("sock_recv_into")
    sock_recvfrom: Any = _refusal("sock_recvfrom")
    sock_recvfrom_into: Any = _refusal("sock_recvfrom_into")
    sock_sendall: Any = _refusal("sock_sendall")
    sock_sendfile: Any = _refusal("sock_sendfile")
    sock_sendto: Any = _refusal("sock_sendto")
    start_tls: Any = _refusal("start_tls")
    stop: Any = _refusal("stop")
    subprocess_exec: Any = _refusal("subprocess_exec")
    subprocess_shell: Any = _refusal("subprocess_shell")

    def _start(
        self, coro: Awaited[T], *, context: Context, frame: Frame, name: object = None, ordinal: int = 0
    ) -> BodyTask[T]:
        context.run(current_frame.set, frame)
        # A name of asyncio's own would count the tasks of the whole process.
        named = frame.lineage if name is None else str(name)
        task = BodyTask(coro, loop=self, name=named, context=context, ordinal=ordinal)
        self._live[task] = None
        task.add_done_callback(self._live.pop, context=context)
        return task

    def _timer(
        self, delay_ms: float, callback: Callable[..., object], args: tuple[object, ...], context: Context | None
    ) -> BodyTimer:
        if self._signal is not None:
            self._turn_away(sys._getframe(2))
        if math.isnan(delay_ms):
            raise ValueError("a timer's delay is NaN; expected a number of seconds")
        timer = BodyTimer((self.now_ms + delay_ms) / 1000, callback, args, self, context)
        timer._ordinal = current_frame.get(self.frame).next_ordinal()
        if delay_ms <= 0:
            self.ready.append(timer)
        elif self._signal is None and delay_ms != math.inf:
            # An instant in seconds is a float that is off by up to a quarter of a microsecond.
            delay = max(1, math.ceil(round(delay_ms, 3)))
            self._timers.schedule(timer, delay_ms=delay)
            timer._scheduled = True
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if isinstance(handle, BodyTimer) and handle._scheduled:
            handle._scheduled = False
            if self._signal is None:
                self._timers.cancel(handle)

    def _turn_away(self, caller: FrameType, *awaitables: object) -> None:
        """Raise the closed seam's signal, unless it has been swallowed too often."""
        self._refusals += 1
        if self._refusals <= REFUSALS_MAX and self._signal is not None:
            _close_unstarted(caller, *awaitables)
            raise self._signal

    def _refuse_as_completed(self, caller: FrameType | None, coro: object) -> None:
        frame = caller
        while frame is not None and frame.f_globals is TASKS_MODULE:
            if frame.f_code.co_qualname in AS_COMPLETED:
                _close_unstarted(caller, coro)
                raise RuntimeError(
                    "asyncio.as_completed was given bare coroutines, which it starts in the order of their memory "
                    "addresses; expected tasks; pass tasks: [asyncio.create_task(...) for ...]"
                )
            frame = frame.f_back

    def _note_asyncgen(self, asyncgen: AsyncGenerator[Any, Any]) -> None:
        self._asyncgens.append(asyncgen)
        if len(self._asyncgens) > self._asyncgens_max:
            self._release_asyncgens()
            self._asyncgens_max = max(ASYNCGENS_MIN, 2 * len(self._asyncgens))

    def _release_asyncgens(self) -> None:
        self._asyncgens = [asyncgen for asyncgen in self._asyncgens if getattr(asyncgen, "ag_frame", None) is not None]

    async def _close_asyncgen(self, asyncgen: AsyncGenerator[Any, Any]) -> None:
        try:
            await asyncgen.aclose()
        except Exception as error:
            message = f"closing {asyncgen!r} of a body raised"
            self.call_exception_handler({"message": message, "exception": error, "asyncgen": asyncgen})
