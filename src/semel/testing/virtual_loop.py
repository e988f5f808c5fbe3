"""An event loop whose time is a number: waiting costs nothing, and each run is the same.

It has no I/O and no threads. When nothing is ready it moves its clock to the next timer; when
there is no timer either, nothing will ever happen again, which is an error of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVarTuple

Ts = TypeVarTuple("Ts")

ROUNDS_MAX: Final = 2_000_000  # of the loop: a run of a few requests takes hundreds


class DeadlockError(Exception):
    """Nothing is ready, and no timer will make it so."""


class SpinningError(Exception):
    """The loop goes round and round, and its run does not end."""


class _Selector:
    """What the loop sleeps on: it moves the loop's time instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.advance(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop without a world. Raises DeadlockError or SpinningError out of `run_until_complete`.

    `def` steps run on it as plain calls; `def` bodies and handlers, which block, cannot.
    """

    def __init__(self, *, start_s: float = 0.0, rounds_max: int = ROUNDS_MAX) -> None:
        super().__init__()
        self._time_s = start_s
        self._rounds_left = rounds_max
        self.witness: object = None
        self._selector = _Selector(self)
        self._clock_resolution = 1e-6  # a timer that is nearer than this is due

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._time_s

    def advance(self, timeout: float | None) -> None:
        """Let `timeout` seconds go by, as the loop's own sleep would."""
        self._rounds_left -= 1
        if self._rounds_left < 0:
            raise SpinningError(f"the loop went round {ROUNDS_MAX} times at {self._time_s:.3f} s of virtual time")
        if timeout is None:
            raise DeadlockError(f"nothing is ready and no timer is set at {self._time_s:.3f} s of virtual time")
        if timeout > 0:
            self._time_s += timeout

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
            try:
                future.set_result(func(*args))
            except Exception as error:  # whatever it raises belongs to whoever waits
                future.set_exception(error)

        self.call_soon(run)
        return future

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps, so nobody needs to be woken."""
