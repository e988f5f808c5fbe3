"""An event loop whose time is a number: waiting costs nothing, and each run is the same.

It has no I/O, and one thread runs at a time: the loop waits for a `def` body that computes.
When nothing is ready it moves its clock to the next timer; when there is no timer either,
nothing will ever happen again, which is an error of its own.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, Final, TypeVarTuple

Ts = TypeVarTuple("Ts")

ROUNDS_MAX: Final = 2_000_000  # of the loop: a run of a few requests takes hundreds
COMPUTE_MAX_S: Final = 60.0  # of real time, for a thread to come to its next operation


class DeadlockError(Exception):
    """Nothing is ready, and no timer will make it so."""


class SpinningError(Exception):
    """The loop goes round and round, and its run does not end."""


class _Selector:
    """What the loop sleeps on: it moves the loop's time instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.go_on(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop without a world. Raises DeadlockError or SpinningError out of `run_until_complete`.

    `def` steps run on it as plain calls, each of which takes no time unless it says so with `take`.
    `computing` tells how many threads it has to wait for, each of which will say so with `call_soon_threadsafe`.
    """

    def __init__(self, *, start_s: float = 0.0, rounds_max: int = ROUNDS_MAX) -> None:
        super().__init__()
        self._time_s = start_s
        self._rounds_left = rounds_max
        self.witness: object = None
        self.computing: Callable[[], int] = lambda: 0
        self._taken_s = 0.0
        self._heard = 0  # what threads said, and what has not been run
        self._said: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._selector = _Selector(self)
        self._clock_resolution = 1e-6  # a timer that is nearer than this is due

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._time_s

    def take(self, seconds: float) -> None:
        """Let the `def` step that calls this end so much later."""
        self._taken_s += seconds

    def go_on(self, timeout: float | None) -> None:
        """Hear out the threads that compute; if nothing is ready then, let `timeout` seconds go by."""
        waiting = self.computing() - self._heard
        if waiting or not self._said.empty():
            self._hear(waiting)
        elif timeout != 0:
            self._advance(timeout)
        self._rounds_left -= 1
        if self._rounds_left < 0:
            raise SpinningError(f"the loop went round {ROUNDS_MAX} times at {self._time_s:.3f} s of virtual time")

    def _hear(self, waiting: int) -> None:
        """In a round of its own, so that what a thread says has the same place in each run."""
        try:
            for _ in range(max(waiting, self._said.qsize())):
                self.call_soon(self._listen, self._said.get(timeout=COMPUTE_MAX_S))
                self._heard += 1
        except queue.Empty:
            raise SpinningError(f"a `def` body computed for {COMPUTE_MAX_S} s of real time") from None

    def _listen(self, said: Callable[[], object]) -> None:
        self._heard -= 1
        said()

    def _advance(self, timeout: float | None) -> None:
        if timeout is None:
            raise DeadlockError(f"nothing is ready and no timer is set at {self._time_s:.3f} s of virtual time")
        self._time_s += timeout

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Queue a callback from another thread. The handle that is returned cannot be cancelled."""
        if self.is_closed():
            raise RuntimeError("the loop is closed")
        self._said.put(partial(callback, *args))
        return asyncio.Handle(callback, args, self, context)

    def run_in_executor(
        self,
        executor: Any,  # noqa: ARG002  # there are no threads
        func: Callable[[*Ts], Any],
        *args: *Ts,
    ) -> asyncio.Future[Any]:
        """Call `func` in a later round of the loop, on its thread."""
        future = self.create_future()

        def run() -> None:
            if future.done():
                return
            self._taken_s = 0.0
            try:
                end = partial(future.set_result, func(*args))
            except Exception as error:  # whatever it raises belongs to whoever waits
                end = partial(future.set_exception, error)
            if self._taken_s:
                self.call_later(self._taken_s, end)
            else:
                end()

        self.call_soon(run)
        return future

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps, so nobody needs to be woken."""
