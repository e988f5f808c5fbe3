"""Group commit: many streams' appends, one transaction, one fsync.

Everything that is queued when a commit begins goes into it. A call that is refused disturbs
no other; what a call returns is handed out after the commit, on the event loop, in order. The
disk is written in a thread by default, so that the loop never waits for it; inline on the
loop where a test needs each run to be the same.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from semel.errors import StoreError, UnavailableError
from semel.store.base import Needs, Store, Transaction

T = TypeVar("T")
Call = Callable[[Transaction], T]
Done = Callable[[Any, BaseException | None], None]
NOTHING = Needs()
READS_MAX = 256  # keys and addresses that are read on the loop: a few milliseconds at most
logger = logging.getLogger("semel.committer")


class Committer(Protocol):
    """The way to the store's one writer."""

    def enqueue(self, job: Job) -> None: ...
    def run_ahead(self, ahead: Callable[[list[Job]], None]) -> None: ...
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
        self.perform = call  # type: ignore[assignment, method-assign]
        self.done = done  # type: ignore[assignment, method-assign]
        self.needs = needs


class _Batches:
    """What both committers share: a batch of calls made one transaction."""

    def __init__(self, store: Store, on_failed: Callable[[StoreError], None]) -> None:
        self.store = store
        self.failed: StoreError | None = None
        self.ahead: Callable[[list[Job]], None] | None = None
        self._on_failed = on_failed

    def perform(self, batch: list[Job], transaction: Transaction, queue: list[Job]) -> None:
        """Run the calls. Afterwards each has a result or an error.

        What they made possible may be computed before the commit (R4), and what that asks for goes
        into the same one: `ahead` puts it at the end of the queue, from where it joins the batch.
        """
        _perform(batch, transaction)
        if self.ahead is None:
            return
        waiting = len(queue)
        try:
            self.ahead(batch)
        except Exception:
            logger.exception("running ahead of a commit failed; the commit goes on")
        more = queue[waiting:]
        if more:
            del queue[waiting:]
            _perform(more, transaction)
            batch += more

    def refuse(self, batch: list[Job], error: BaseException) -> None:
        """Nothing of the batch was committed. Unless that is definite, nothing will be any more."""
        raised = error
        if not isinstance(error, StoreError):
            logger.critical("the committer failed, and this engine with it", exc_info=error)
            raised = UnavailableError(f"the committer failed with {error!r}; this engine must be closed")
        if isinstance(raised, StoreError) and not raised.definite:
            self.failed = raised
            logger.critical("the journal failed, and this engine with it: %s", raised)
        for job in batch:
            job.result = None
            job.error = raised

    def report(self, batch: list[Job]) -> None:
        """Hand out what was committed, in order. On the event loop."""
        if self.failed is not None:
            self._on_failed(self.failed)
        for job in batch:
            try:
                job.done(job.result, job.error)
            except Exception:
                logger.exception("what follows a commit failed; the others of the batch are told")


def _perform(batch: list[Job], transaction: Transaction) -> None:
    for job in batch:
        try:
            job.result = transaction.attempt(job.perform)
        except BaseException as error:  # LeaseLost is one, and belongs to its caller
            job.error = error


class _Runner:
    """`submit` and `run` in terms of `enqueue`."""

    _batches: _Batches

    def run_ahead(self, ahead: Callable[[list[Job]], None]) -> None:
        """Call `ahead(batch)` on the loop when the calls of a batch have run, before it is committed."""
        self._batches.ahead = ahead

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
        if not batch:
            return  # it went with the batch before
        batches = self._batches
        if batches.failed is not None:
            batches.refuse(batch, batches.failed)
        else:
            try:
                transaction = batches.store.begin([job.needs for job in batch])
                batches.perform(batch, transaction, self._queue)
                if transaction.has_writes:
                    batches.store.commit(transaction)
            except StoreError as error:
                batches.refuse(batch, error)
        batches.report(batch)

    async def close(self) -> None:
        """Commit what is queued, and take nothing more."""
        self._is_closed = True
        while self._queue:  # noqa: ASYNC110
            await asyncio.sleep(0)  # the queue empties itself within a round


class ThreadCommitter(_Runner):
    """Writes in a thread of its own: only the disk's part is there.

    The calls run on the loop, where what they read and make is warm; the thread gets finished
    statements. It needs the interpreter for a moment only, and while it waits for the disk the
    loop runs what the batch before made possible. One batch at a time is with the thread, and
    no call is run before the batch before it is durable.
    """

    def __init__(
        self, store: Store, loop: asyncio.AbstractEventLoop, *, on_failed: Callable[[StoreError], None]
    ) -> None:
        self._batches = _Batches(store, on_failed)
        self._loop = loop
        self._queue: list[Job] = []
        self._finished: deque[list[Job]] = deque()  # in the order of their commits
        self._is_closed = False
        self._is_busy = False
        self._idle: asyncio.Event = asyncio.Event()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="semel-committer", daemon=True)
        self._thread.start()

    def enqueue(self, job: Job) -> None:
        """Queue a job, from the loop's thread. Raises UnavailableError once closed."""
        if self._is_closed:
            raise _closed()
        self._queue.append(job)
        if not self._is_busy:
            self._is_busy = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Take what is queued: read what it needs, here if that is little, else in the thread."""
        batch, self._queue = self._queue, []
        if self._batches.failed is not None:
            self._batches.refuse(batch, self._batches.failed)
            self._finish(batch)
            return
        needs = [job.needs for job in batch]
        if sum(len(need.keys) + len(need.addresses) for need in needs) <= READS_MAX:
            self._perform(batch, self._read(batch, needs))
        else:
            self._work.put(lambda: self._back(self._perform, batch, self._read(batch, needs)))

    def _read(self, batch: list[Job], needs: list[Needs]) -> Transaction | None:
        try:
            return self._batches.store.begin(needs)
        except Exception as error:
            self._batches.refuse(batch, error)
            return None

    def _perform(self, batch: list[Job], transaction: Transaction | None) -> None:
        """Run the calls, and hand what they wrote to the thread."""
        if transaction is None:
            self._finish(batch)
            return
        try:
            self._batches.perform(batch, transaction, self._queue)
            spelled = self._batches.store.spell(transaction) if transaction.has_writes else None
        except Exception as error:
            self._batches.refuse(batch, error)
            spelled = None
        if spelled is None:
            self._finish(batch)
        else:
            self._work.put(lambda: self._write(batch, spelled))

    def _finish(self, batch: list[Job]) -> None:
        """The batch is durable, or refused. The next one goes first, so that the disk is not kept waiting."""
        self._finished.append(batch)
        if self._queue:
            self._begin()
        else:
            self._is_busy = False
        while self._finished:
            self._batches.report(self._finished.popleft())
        if not self._is_busy:
            self._idle.set()

    # In the thread.

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _write(self, batch: list[Job], spelled: Any) -> None:
        try:
            self._batches.store.write(spelled)
        except BaseException as error:  # the loop must be answered, whatever broke
            self._batches.refuse(batch, error)
        self._back(self._finish, batch)

    def _back(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            logger.debug("the event loop was closed before a commit was reported")

    async def close(self) -> None:
        """Commit what is queued, end the thread, and take nothing more."""
        self._is_closed = True
        while self._is_busy:
            self._idle.clear()
            await self._idle.wait()
        self._work.put(None)
        self._thread.join()


def _closed() -> UnavailableError:
    error = UnavailableError("the engine is closed, expected an open one; open it again with `async with Engine(…)`")
    error.definite = True
    return error
