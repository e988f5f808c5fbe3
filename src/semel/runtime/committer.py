"""Group commit: many streams' appends, one transaction, one fsync.

Everything that is queued when a commit begins goes into it. A call that is refused disturbs
no other; what a call returns is handed out after the commit, on the event loop, in order. In
a thread of its own by default, so that the loop never waits for a disk; inline on the loop
where a test needs each run to be the same.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from semel.errors import StoreError, StoreFullError, UnavailableError
from semel.store.base import Needs, Store, Transaction

T = TypeVar("T")
Call = Callable[[Transaction], T]
Done = Callable[[Any, BaseException | None], None]
NOTHING = Needs()
logger = logging.getLogger("semel.committer")


class Committer(Protocol):
    """The way to the store's one writer."""

    def enqueue(self, job: Job) -> None: ...
    def submit(self, call: Call[Any], done: Done, *, needs: Needs = NOTHING) -> None: ...
    async def run(self, call: Call[T], *, needs: Needs = NOTHING) -> T: ...
    async def close(self) -> None: ...


class Job:
    """One journal call on its way: `perform` runs in the transaction, `done` on the loop after the commit."""

    needs: Needs = NOTHING
    result: Any = None
    error: BaseException | None = None

    def perform(self, transaction: Transaction) -> Any:
        raise NotImplementedError

    def done(self, result: Any, error: BaseException | None) -> None:
        raise NotImplementedError


class _CallJob(Job):
    """A job of two functions."""

    def __init__(self, call: Call[Any], done: Done, needs: Needs) -> None:
        self.perform = call  # type: ignore[method-assign]
        self.done = done  # type: ignore[method-assign]
        self.needs = needs


class _Batches:
    """What both committers share: a batch of calls made one transaction."""

    def __init__(self, store: Store, on_failed: Callable[[StoreError], None]) -> None:
        self.store = store
        self.failed: StoreError | None = None
        self._on_failed = on_failed

    def process(self, batch: list[Job]) -> None:
        """Run the calls and commit. Afterwards each has a result or an error."""
        if self.failed is not None:
            _refuse(batch, self.failed)
            return
        try:
            transaction = self.store.begin([item.needs for item in batch])
            for item in batch:
                try:
                    item.result = transaction.attempt(item.perform)
                except BaseException as error:  # LeaseLost is one, and belongs to its caller
                    item.error = error
            if transaction.has_writes:
                self.store.commit(transaction)
        except StoreFullError as error:
            _refuse(batch, error)
        except StoreError as error:
            self.failed = error
            _refuse(batch, error)
            logger.critical("the journal failed, and this engine with it: %s", error)

    def report(self, batch: list[Job]) -> None:
        """Hand out what was committed, in order. On the event loop."""
        if self.failed is not None:
            self._on_failed(self.failed)
        for item in batch:
            try:
                item.done(item.result, item.error)
            except Exception:
                logger.exception("what follows a commit failed; the others of the batch are told")


def _refuse(batch: list[Job], error: StoreError) -> None:
    for item in batch:
        item.result = None
        item.error = error


class _Runner:
    """`submit` and `run` in terms of `enqueue`."""

    def enqueue(self, job: Job) -> None:
        raise NotImplementedError

    def submit(self, call: Call[Any], done: Done, *, needs: Needs = NOTHING) -> None:
        """Queue a call. `done(result, error)` is called on the loop after the commit."""
        self.enqueue(_CallJob(call, done, needs))

    async def run(self, call: Call[T], *, needs: Needs = NOTHING) -> T:
        """Commit one call and return what it returned, once that is durable. Raises what it raised."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.submit(call, done, needs=needs)
        return await future


class InlineCommitter(_Runner):
    """Commits on the event loop: everything queued in one round of it."""

    def __init__(
        self, store: Store, loop: asyncio.AbstractEventLoop, *, on_failed: Callable[[StoreError], None]
    ) -> None:
        self._batches = _Batches(store, on_failed)
        self._loop = loop
        self._queue: list[Job] = []
        self._is_closed = False

    def enqueue(self, job: Job) -> None:
        """Queue a job for the next round of the loop. Raises UnavailableError once closed."""
        if self._is_closed:
            raise _closed()
        self._queue.append(job)
        if len(self._queue) == 1:
            self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        batch, self._queue = self._queue, []
        self._batches.process(batch)
        self._batches.report(batch)

    async def close(self) -> None:
        """Commit what is queued, and take nothing more."""
        self._is_closed = True
        while self._queue:
            await asyncio.sleep(0)


class ThreadCommitter(_Runner):
    """Commits in a thread of its own."""

    def __init__(
        self, store: Store, loop: asyncio.AbstractEventLoop, *, on_failed: Callable[[StoreError], None]
    ) -> None:
        self._batches = _Batches(store, on_failed)
        self._loop = loop
        self._queue: deque[Job] = deque()
        self._is_closed = False
        self._wanted = threading.Event()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._run, name="semel-committer", daemon=True)
        self._thread.start()

    def enqueue(self, job: Job) -> None:
        """Queue a job, from the loop's thread. Raises UnavailableError once closed."""
        if self._is_closed:
            raise _closed()
        self._queue.append(job)
        if not self._wanted.is_set():
            self._wanted.set()

    def _run(self) -> None:
        queue = self._queue
        while True:
            self._wanted.wait()
            self._wanted.clear()
            while queue:
                batch = []
                while queue:
                    batch.append(queue.popleft())
                try:
                    self._batches.process(batch)
                except BaseException as error:  # the thread must answer, whatever broke
                    failure = UnavailableError(f"the committer failed with {error!r}; this engine must be closed")
                    self._batches.failed = failure
                    _refuse(batch, failure)
                    logger.critical("the committer failed, and this engine with it", exc_info=True)
                self._loop.call_soon_threadsafe(self._batches.report, batch)
            if self._is_closed and not queue:
                self._loop.call_soon_threadsafe(self._end)
                return

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def close(self) -> None:
        """Commit what is queued, end the thread, and take nothing more."""
        self._is_closed = True
        self._wanted.set()
        await self._ended
        self._thread.join()


def _closed() -> UnavailableError:
    error = UnavailableError("the engine is closed, expected an open one; open it again with `async with Engine(…)`")
    error.definite = True
    return error
