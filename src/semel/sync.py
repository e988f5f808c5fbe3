"""The same engine for sync code: every method blocks until its answer is there.

    import semel.sync

    with semel.sync.Engine("sqlite:///payments.db") as engine:
        receipt = engine.run(process_order, order, key="order-123")

It is the async engine on an event loop of its own, in a thread of its own. So it works in a
plain script, in a web worker's threads, and beside a running event loop (from a thread; on
the loop itself use `semel.Engine`, or the loop would wait too). Any number of threads may
call at once. Ctrl-C reaches a call that waits: KeyboardInterrupt is raised there, what was
started goes on, and leaving the `with` block closes the engine as always.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import wraps
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, TypeVarTuple, overload

from semel import actor_ref, engine, executions
from semel.actor import GenServer
from semel.context import Context
from semel.errors import ValidationError
from semel.runtime.clock import Clock
from semel.runtime.services import Limits
from semel.store.base import Store
from semel.sync_context import SyncContext

A = TypeVar("A", bound=GenServer[Any])
P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class EngineThread:
    """An async engine on a loop of its own. `call` runs a coroutine there and waits for it."""

    def __init__(self, made: engine.Engine) -> None:
        self.engine = made
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._lock = threading.Lock()
        self._is_ending = False
        self._state = "new"

    def open(self) -> None:
        """Start the thread and open the engine on it. Raises what opening raises."""
        with self._lock:
            if self._state != "new":
                raise self._refusal("a new one; make another Engine")
            self._state = "opening"
        opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._live(opened)), name="semel-sync-engine", daemon=True
        )
        self._thread.start()
        try:
            opened.result()
        except BaseException:
            self._state = "open"  # an interrupt must not leave the thread behind
            self.close()
            raise
        self._state = "open"

    async def _live(self, opened: concurrent.futures.Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            try:
                await self.engine.open()
            except BaseException as error:
                opened.set_exception(error)
                return
            opened.set_result(None)
            if not self._is_ending:
                await self._stop.wait()
            await self.engine.close()
        except BaseException as error:
            self._ended.set_exception(error)
        finally:
            if not self._ended.done():
                self._ended.set_result(None)

    def close(self) -> None:
        """Close the engine and end the thread. Calls that wait raise UnavailableError. A second time does nothing."""
        with self._lock:
            is_mine, thread = self._state == "open", self._thread
            if is_mine:
                self._state = "closing"
                self._end()
        if thread is None or threading.current_thread() is thread:
            return
        thread.join()
        if is_mine:
            self._state = "closed"
            self._ended.result()

    def _end(self) -> None:
        """Let `_live` go on to the closing. Calls made before this are on the loop by now, ahead of it."""
        self._is_ending = True
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with suppress(RuntimeError):  # the loop is closed: opening failed
                loop.call_soon_threadsafe(stop.set)

    def call(self, work: Callable[[], Coroutine[Any, Any, T]], *, timeout_ms: int | None = None) -> T:
        """Run `work()` on the loop and wait. Raises what it raises, TimeoutError, or UnavailableError once closed."""
        if threading.current_thread() is self._thread:
            raise ValidationError(
                "sync engine: it was called on its own event loop, which would wait for itself; "
                "expected a call from another thread; make the step that calls it a plain `def`"
            )
        with self._lock:
            loop = self._loop
            if self._state != "open" or loop is None:
                raise self._refusal("an open one; use `with semel.sync.Engine(…)`")
            future = asyncio.run_coroutine_threadsafe(work(), loop)
        try:
            return future.result(None if timeout_ms is None else timeout_ms / 1000)
        except concurrent.futures.CancelledError:
            raise engine.refused("sync engine: it was closed before the answer came") from None
        except BaseException:
            future.cancel()  # after a timeout or Ctrl-C nobody waits for it; what it started goes on
            raise

    def blocking(self, method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
        """The same method for sync code."""

        @wraps(method)
        def blocked(*arguments: P.args, **options: P.kwargs) -> T:
            return self.call(lambda: method(*arguments, **options))

        return blocked

    def _refusal(self, expected: str) -> Exception:
        return engine.refused(f"sync engine: it is {self._state}, expected {expected}")


class Execution(Generic[T]):
    """A handle on a started execution. `id` is random and never reused, `name` is its key."""

    def __init__(self, execution: executions.Execution[T], thread: EngineThread) -> None:
        self.id = execution.id
        self.name = execution.name
        self.function = execution.function
        self._execution = execution
        self._thread = thread

    def result(self, *, timeout_ms: int | None = None) -> T:
        """Wait for the outcome. Raises as `semel.Execution.result` does, and TimeoutError: then it runs on."""
        return self._thread.call(self._execution.result, timeout_ms=timeout_ms)

    def __repr__(self) -> str:
        return repr(self._execution)


class ActorRef(Generic[A]):
    """One actor, by type and key. Each method is that of `semel.ActorRef`, and blocks."""

    def __init__(self, ref: actor_ref.ActorRef[A], thread: EngineThread) -> None:
        self.address = ref.address
        self._ref = ref
        self._thread = thread

    @overload
    def call(
        self, method: Callable[[A, Context, *Ts], Awaitable[T]], /, *arguments: *Ts, key: str | None = None
    ) -> T: ...
    @overload
    def call(self, method: Callable[[A, SyncContext, *Ts], T], /, *arguments: *Ts, key: str | None = None) -> T: ...
    def call(self, method: Callable[..., Any], /, *arguments: object, key: str | None = None) -> Any:
        """Send a message and wait for the reply. Raises as `semel.ActorRef.call` does."""
        return self._thread.call(lambda: self._ref.call(method, *arguments, key=key))

    @overload
    def cast(
        self, method: Callable[[A, Context, *Ts], Awaitable[Any]], /, *arguments: *Ts, key: str | None = None
    ) -> None: ...
    @overload
    def cast(
        self, method: Callable[[A, SyncContext, *Ts], Any], /, *arguments: *Ts, key: str | None = None
    ) -> None: ...
    def cast(self, method: Callable[..., Any], /, *arguments: object, key: str | None = None) -> None:
        """Send a message; it is on disk when this returns."""
        self._thread.call(lambda: self._ref.cast(method, *arguments, key=key))

    def info(self, message: object, *, key: str | None = None) -> None:
        """Send any other message to the handler marked @info; it is on disk when this returns."""
        self._thread.call(lambda: self._ref.info(message, key=key))

    def __repr__(self) -> str:
        return repr(self._ref)


class Executions:
    """The methods of `semel.Executions`, blocking, with the same arguments, answers and errors."""

    def __init__(self, thread: EngineThread) -> None:
        inner = thread.engine.executions
        self.list = thread.blocking(inner.list)
        self.get = thread.blocking(inner.get)
        self.history = thread.blocking(inner.history)
        self.stop = thread.blocking(inner.stop)
        self.pause = thread.blocking(inner.pause)
        self.resume = thread.blocking(inner.resume)
        self.unpin = thread.blocking(inner.unpin)
        self.delete = thread.blocking(inner.delete)
        self.forget_key = thread.blocking(inner.forget_key)


class Callbacks:
    """The methods of `semel.Callbacks`, blocking, with the same arguments and errors."""

    def __init__(self, thread: EngineThread) -> None:
        inner = thread.engine.callbacks
        self.succeed = thread.blocking(inner.succeed)
        self.fail = thread.blocking(inner.fail)
        self.heartbeat = thread.blocking(inner.heartbeat)


class Engine:
    """`semel.Engine` for sync code; open it with `with`, or with `open` and `close`. See this module's contract.

    The arguments are those of `semel.Engine`. A call that waits when the engine is closed raises
    UnavailableError; the execution goes on in the next engine.
    """

    def __init__(
        self,
        store: str | Store = "sqlite:///semel.db",
        *,
        namespace: str = "default",
        limits: Limits | None = None,
        workers: int = 1,
        clock: Clock | None = None,
        commit: engine.CommitPlace = "thread",
        seed: int | None = None,
        dev: bool | None = None,
    ) -> None:
        made = engine.Engine(
            store,
            namespace=namespace,
            limits=limits,
            workers=workers,
            clock=clock,
            commit=commit,
            seed=seed,
            dev=dev,
        )
        self.namespace = made.namespace
        self.limits = made.limits
        self._thread = EngineThread(made)
        self._executions: Executions | None = None
        self._callbacks: Callbacks | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Take ownership of the store and go on with whatever it holds. Raises as `semel.Engine.open` does."""
        self._thread.open()
        self._executions = Executions(self._thread)
        self._callbacks = Callbacks(self._thread)

    def close(self) -> None:
        """Let step bodies end, record what they did, and leave the rest to the next engine."""
        self._thread.close()

    @property
    def executions(self) -> Executions:
        """The executions of the store, and what may be done to them. Raises UnavailableError before `open`."""
        if self._executions is None:
            raise engine.refused("sync engine: it is new, expected an open one; use `with semel.sync.Engine(…)`")
        return self._executions

    @property
    def callbacks(self) -> Callbacks:
        """Settling callbacks from outside. Raises UnavailableError before `open`."""
        if self._callbacks is None:
            raise engine.refused("sync engine: it is new, expected an open one; use `with semel.sync.Engine(…)`")
        return self._callbacks

    @overload
    def run(
        self,
        function: Callable[[Context, *Ts], Awaitable[T]],
        /,
        *arguments: *Ts,
        key: str | None = None,
        timeout_ms: int | None = None,
    ) -> T: ...
    @overload
    def run(
        self,
        function: Callable[[SyncContext, *Ts], T],
        /,
        *arguments: *Ts,
        key: str | None = None,
        timeout_ms: int | None = None,
    ) -> T: ...
    def run(
        self, function: Callable[..., Any], /, *arguments: object, key: str | None = None, timeout_ms: int | None = None
    ) -> Any:
        """Start or join the execution named `key` and return its outcome. Raises as `semel.Engine.run` does."""
        return self._thread.call(lambda: self._thread.engine.run(function, *arguments, key=key, timeout_ms=timeout_ms))

    @overload
    def start(
        self,
        function: Callable[[Context, *Ts], Awaitable[T]],
        /,
        *arguments: *Ts,
        key: str | None = None,
        timeout_ms: int | None = None,
    ) -> Execution[T]: ...
    @overload
    def start(
        self,
        function: Callable[[SyncContext, *Ts], T],
        /,
        *arguments: *Ts,
        key: str | None = None,
        timeout_ms: int | None = None,
    ) -> Execution[T]: ...
    def start(
        self, function: Callable[..., Any], /, *arguments: object, key: str | None = None, timeout_ms: int | None = None
    ) -> Execution[Any]:
        """Start or find the execution named `key`. It is on disk when this returns. Raises as `run` does."""
        started = self._thread.call(
            lambda: self._thread.engine.start(function, *arguments, key=key, timeout_ms=timeout_ms)
        )
        return Execution(started, self._thread)

    def actor(self, actor: type[A], key: str) -> ActorRef[A]:
        """A reference to the actor of a type with a key. Raises ValidationError, UnknownHandlerError."""
        return ActorRef(self._thread.engine.actor(actor, key), self._thread)
