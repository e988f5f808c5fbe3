"""The engine: puts store, journal, registry and workers together. The only place that builds.

    async with semel.Engine("sqlite:///payments.db") as engine:
        receipt = await engine.run(process_order, order, key="order-123")

`semel.sync.Engine` is the same for code that blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, TypeVarTuple, overload

from semel.actor import GenServer, actor_spec
from semel.actor_ref import ActorRef
from semel.callbacks import Callbacks
from semel.context import Context
from semel.errors import StoreError, UnavailableError, ValidationError
from semel.executions import Execution, Executions, outcome_value
from semel.function import FunctionSpec, function_spec
from semel.journal import holding
from semel.journal.arrivals import Touched
from semel.journal.executions import header_of
from semel.kernel import ids
from semel.kernel.entry import Settled, Status
from semel.post import OutcomeWatch, Post, Starter
from semel.runtime import blocking
from semel.runtime.clock import Clock, SystemClock
from semel.runtime.committer import Committer, InlineCommitter, ThreadCommitter
from semel.runtime.invocation import Invocation
from semel.runtime.owner import Ownership
from semel.runtime.owner_socket import OwnerSocket
from semel.runtime.services import Limits, Services
from semel.runtime.sweeper import Sweeper, retention_of
from semel.runtime.waiters import Waiters
from semel.runtime.watchdog import Watchdog
from semel.runtime.worker import Worker
from semel.served import serve
from semel.store.base import ACTOR, Address, Store, Stream
from semel.store.memory import MemoryStore
from semel.store.sqlite import SqliteStore
from semel.sync_context import SyncContext

A = TypeVar("A", bound=GenServer[Any])
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
CommitPlace = Literal["thread", "inline"]
SQLITE = "sqlite:///"
MEMORY = "memory://"
logger = logging.getLogger("semel")


class Engine:
    """Durable functions and actors over one store: "sqlite:///relative.db", "sqlite:////absolute.db" or "memory://".

    Open it with `async with`. A file has one living engine: a second one raises
    UnavailableError that names the first one's process. `commit` says where commits run:
    in a thread of their own, or inline on the event loop. `dev` (or SEMEL_DEV=1 in the environment)
    logs blocking calls in bodies, by their file and line; a loop that does not turn for
    `Limits.block_warn_ms` is always warned about.
    """

    def __init__(
        self,
        store: str | Store = "sqlite:///semel.db",
        *,
        namespace: str = "default",
        limits: Limits | None = None,
        workers: int = 1,
        clock: Clock | None = None,
        commit: CommitPlace = "thread",
        seed: int | None = None,
        dev: bool | None = None,
    ) -> None:
        self.namespace = ids.check_name("namespace", namespace)
        self.limits = Limits() if limits is None else limits
        self._where = check_store(store) if isinstance(store, str) else store
        if workers < 1:
            raise ValidationError(f"Engine workers: found {workers}, expected 1 or more")
        self._worker_count = workers
        self._clock = SystemClock() if clock is None else clock
        self._commit: CommitPlace = commit
        self._entropy = random.Random(secrets.randbits(128) if seed is None else seed)  # noqa: S311  # names, not secrets
        self._ownership: Ownership | None = None
        self._socket: OwnerSocket | None = None
        self._is_dev = os.environ.get("SEMEL_DEV", "") not in ("", "0") if dev is None else dev
        self._stop_watching: Callable[[], None] | None = None
        self._watchdog: Watchdog | None = None
        self._closing: asyncio.Task[None] | None = None
        self._state = "new"

    # Opening and closing.

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Take ownership of the store and go on with what it holds. Raises UnavailableError, JournalCorruptError."""
        if self._state != "new":
            raise refused(f"engine: it is {self._state}, expected a new one; make another Engine")
        loop = asyncio.get_running_loop()
        store = self._open_store()
        try:
            self._build(store, loop)
        except BaseException:
            store.close()
            if self._ownership is not None:
                self._ownership.release()
            raise
        try:
            await self._take_over()
            if self._ownership is not None:
                self._socket = OwnerSocket(self._ownership.path, self._serve)
                await self._socket.start()
        except BaseException:
            await self._let_go()
            raise
        self._state = "open"
        for worker in self._workers:
            worker.open()
        self._watch.open()
        self._sweeper.open()
        self._guard(loop)

    def _guard(self, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that user code which blocks is noticed. Where time is virtual, a thread has no say."""
        if self._is_dev:
            self._stop_watching = blocking.watch(_warn_of_blocking)
        if self.limits.block_warn_ms and isinstance(self._clock, SystemClock):
            services = self._services
            self._watchdog = Watchdog(
                loop,
                warn_ms=self.limits.block_warn_ms,
                blocked_by=lambda: "" if (body := services.pumping) is None else body.name,
            )

    def _unguard(self) -> None:
        if self._stop_watching is not None:
            self._stop_watching()
        if self._watchdog is not None:
            self._watchdog.close()

    def _open_store(self) -> Store:
        if not isinstance(self._where, str):
            return self._where
        if self._where == MEMORY:
            return MemoryStore()
        path = self._where[len(SQLITE) :]
        self._ownership = Ownership.acquire(path)
        try:
            return SqliteStore.open(path)
        except BaseException:
            self._ownership.release()
            raise

    def _build(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        reader = store.reader()  # it may fail, and before this nothing was begun
        make = ThreadCommitter if self._commit == "thread" else InlineCommitter
        committer: Committer = make(store, loop, on_failed=self._failed)
        self._store = store
        self._services = Services(
            loop=loop,
            clock=self._clock,
            committer=committer,
            reader=reader,
            journal_id=store.journal_id,
            limits=self.limits,
            entropy=self._entropy,
        )
        self._waiters = Waiters(loop)
        token = f"{os.getpid():x}.{self._entropy.getrandbits(64):x}"
        self._workers = [
            Worker(self._services, f"{token}.{number}", on_settled=self._settled, on_parked=self._parked)
            for number in range(self._worker_count)
        ]
        self._watch = OutcomeWatch(self._services, self._waiters)
        self._sweeper = Sweeper(self._services)
        self._starter = Starter(self._services, self._workers, self._waiters, namespace=self.namespace)
        self._post = Post(self._services, self._workers, self._waiters)
        self._services.touched = self._touched
        committer.run_ahead(self._post.run_ahead)
        self.callbacks = Callbacks(
            committer.run,
            self._services.payload,
            journal_id=store.journal_id,
            now_ms=self._clock.now_ms,
            touched=self._touched,
        )
        self.executions = Executions(
            lambda: self._opened().reader,
            committer.run,
            namespace=self.namespace,
            now_ms=self._clock.now_ms,
            told=self._controlled,
            page_max=self.limits.page_max,
            retention_of=lambda name: retention_of(name, self.limits),
        )

    async def _take_over(self) -> None:
        """Holding the owner lock proves all former holders dead: their leases are void (R5)."""
        if self._ownership is None:
            return
        now_ms = self._clock.now_ms()
        await self._services.committer.run(
            lambda transaction: holding.void_leases_of_the_dead(
                transaction, judged_at_ms=holding.FOREVER_MS, now_ms=now_ms
            )
        )

    async def close(self) -> None:
        """Let step bodies end (up to `Limits.drain_ms`), record what they did, leave the rest to the next engine."""
        if self._closing is None:
            if self._state not in ("open", "failed"):
                return
            self._state = "closing"
            self._closing = asyncio.get_running_loop().create_task(self._close())
        # Whoever stops waiting for it does not stop it: half closed, it would keep the file from everybody.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._services.is_draining = True
        self._watch.close()
        self._sweeper.close()
        if self._socket is not None:
            await self._socket.stop()
        for worker in self._workers:
            # A journal that takes nothing more must not keep the rest from being let go.
            with contextlib.suppress(StoreError):
                await worker.close()
        self._waiters.close(refused("engine: it was closed before the outcome came; the execution goes on in the next"))
        await self._let_go()
        self._state = "closed"

    async def _let_go(self) -> None:
        """End the committer, and let go of threads, connections and the file."""
        self._unguard()
        await self._services.committer.close()
        self._services.close()
        if self._services.reader is not self._store:
            self._services.reader.close()
        self._store.close()
        if self._ownership is not None:
            self._ownership.release()

    def abandon(self) -> None:
        """Let go of everything without a word to the journal, as a killed process does. For simulations of that.

        Every seam closes first (R1). The store stays open: it is whose who gave it.
        """
        if self._state == "new":
            return
        self._state = "closed"
        self._unguard()
        self._watch.close()
        self._sweeper.close()
        for worker in self._workers:
            worker.abandon()
        self._services.close()

    def _opened(self) -> Services:
        if self._state != "open":
            raise refused(f"engine: it is {self._state}, expected an open one; use `async with Engine(…)`")
        return self._services

    # What the workers tell.

    def _settled(self, stream: Stream, settled: Settled) -> None:
        self._waiters.settle(stream.number, settled)
        if settled.status is Status.TIMED_OUT and settled.operation == stream.uid:
            self._tell_parent(stream)

    def _parked(self, stream: Stream, error: Exception) -> None:
        self._waiters.park(stream.number, error)

    def _touched(self, touched: Touched) -> None:
        """Somebody's append touched another stream: whoever runs that is told, or a worker looks for it."""
        stream = touched.stream
        run = self._services.runners.get(stream.number)
        if run is None:
            self._workers[0].expect(stream.wake_ms)
        elif run.stream.epoch < stream.epoch:
            run.lose()  # another engine has taken it, as the row of its stream shows
        elif touched.append is None:
            run.notice()
        else:
            run.observe(touched.append, touched.seq)

    def _tell_parent(self, child: Stream) -> None:
        """An execution ended by control, and with that the invoke that started it, if one did."""
        header = header_of(self._services.reader, child)
        parent = None if header is None else self._services.reader.stream_by_uid(header.sender)
        if parent is not None:
            self._touched(Touched(parent))

    def _controlled(self, stream: Stream, settled: Settled | None) -> None:
        """A stop, pause or resume was committed: whoever runs the stream has lost it, unless it still holds it."""
        if settled is not None:
            self._tell_parent(stream)
        runner = self._services.runners.get(stream.number)
        if runner is not None and runner.stream.epoch < stream.epoch:
            runner.lose()
        elif isinstance(runner, Invocation) and runner.stream.epoch == stream.epoch:
            runner.heed(stream)
        for worker in self._workers:
            worker.drop_resident(stream.number)
        if settled is not None:
            self._waiters.settle(stream.number, settled)
        else:
            self._workers[0].expect(stream.wake_ms)

    def _failed(self, error: StoreError) -> None:
        """The journal cannot be written: nothing is retried in place, every call raises from now on."""
        if self._state == "open":
            self._state = "failed"
            self._waiters.close(error)

    # Durable functions.

    @overload
    async def run(
        self,
        function: Callable[[Context, *Ts], Awaitable[T]],
        /,
        *arguments: *Ts,
        key: str | None = None,
        timeout_ms: int | None = None,
    ) -> T: ...
    @overload
    async def run(
        self,
        function: Callable[[SyncContext, *Ts], T],
        /,
        *arguments: *Ts,
        key: str | None = None,
        timeout_ms: int | None = None,
    ) -> T: ...
    async def run(
        self, function: Callable[..., Any], /, *arguments: object, key: str | None = None, timeout_ms: int | None = None
    ) -> Any:
        """Start or join the execution named `key` and return its outcome, which is durable by then.

        The same key and arguments: one execution, whatever happened since. One that is new and has no
        outcome after `timeout_ms` ends TIMED_OUT; None: the time that its function declares.
        Raises ExecutionError (it failed, was stopped or timed out), IdempotencyConflictError (the key
        was used with other arguments), ValidationError, ReplayError (it is parked), StoreError.
        """
        self._opened()
        stream, settled = await self._starter.run(function_spec(function), arguments, key, timeout_ms)
        return outcome_value(stream.key, settled)

    @overload
    async def start(
        self,
        function: Callable[[Context, *Ts], Awaitable[T]],
        /,
        *arguments: *Ts,
        key: str | None = None,
        timeout_ms: int | None = None,
    ) -> Execution[T]: ...
    @overload
    async def start(
        self,
        function: Callable[[SyncContext, *Ts], T],
        /,
        *arguments: *Ts,
        key: str | None = None,
        timeout_ms: int | None = None,
    ) -> Execution[T]: ...
    async def start(
        self, function: Callable[..., Any], /, *arguments: object, key: str | None = None, timeout_ms: int | None = None
    ) -> Execution[Any]:
        """Start or find the execution named `key`. It is on disk when this returns. Raises as `run` does."""
        self._opened()
        return await self.start_spec(function_spec(function), arguments, key=key, timeout_ms=timeout_ms)

    async def start_spec(
        self, spec: FunctionSpec, arguments: tuple[Any, ...], *, key: str | None, timeout_ms: int | None = None
    ) -> Execution[Any]:
        """`start` for a function found by name."""
        self._opened()
        stream, settled = await self._starter.start(spec, arguments, key, timeout_ms)

        async def wait() -> Settled:
            if settled is not None:
                return settled
            self._opened()
            return await self._starter.outcome(stream)

        return Execution(stream, wait)

    # Actors.

    def actor(self, actor: type[A], key: str) -> ActorRef[A]:
        """A reference to the actor of a type with a key. Raises ValidationError, UnknownHandlerError."""
        spec = actor_spec(actor)
        address = Address(self.namespace, ACTOR, spec.name, ids.check_name("actor key", key))
        self._opened()
        return ActorRef(self._post, address, spec)

    @property
    def running_count(self) -> int:
        """How many executions and actors this engine holds now."""
        return len(self._services.runners)

    @property
    def computing_count(self) -> int:
        """How many `def` bodies compute in their threads now, rather than wait for an operation."""
        return 0 if self._state == "new" else self._services.computing

    async def _serve(self, method: str, arguments: dict[str, Any]) -> Any:
        """Answer a request that came through the owner socket."""
        return await serve(self, method, arguments)


def check_store(url: str) -> str:
    """Return a store's URL, or raise ValidationError naming the forms there are."""
    if url == MEMORY or (url.startswith(SQLITE) and len(url) > len(SQLITE)):
        return url
    raise ValidationError(
        f"store {url!r}: expected 'sqlite:///relative.db', 'sqlite:////absolute/path.db' or 'memory://'"
    )


def refused(message: str) -> UnavailableError:
    """An UnavailableError that is definite: the refused request did nothing."""
    error = UnavailableError(message)
    error.definite = True
    return error


def _warn_of_blocking(found: blocking.Blocking) -> None:
    logger.warning("%s", found)
