"""One timer of a running body. The wall clock decides; the loop's timer only looks again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from semel.runtime.services import Services


class Alarm:
    """Calls back at or after a wall-clock time, looking at least every `poll_ms` in case the clock was set."""

    __slots__ = ("_call", "_due_ms", "_handle", "_services")

    def __init__(self, services: Services, call: Callable[[], None]) -> None:
        self._services = services
        self._call = call
        self._due_ms: int | None = None
        self._handle: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        return self._due_ms is not None

    def set(self, due_ms: int | None) -> None:
        """Ring at `due_ms` instead of whenever it was set for."""
        if due_ms == self._due_ms and self._handle is not None:
            return
        self.stop()
        if due_ms is not None:
            self._due_ms = due_ms
            self._look()

    def stop(self) -> None:
        """Do not ring."""
        self._due_ms = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def let_go(self) -> None:
        """Ring no more, and hold on to nobody."""
        self.stop()
        self._call = _nobody

    def _look(self) -> None:
        self._handle = None
        if self._due_ms is None:
            return
        left_ms = self._due_ms - self._services.clock.now_ms()
        if left_ms > 0:
            delay_ms = min(left_ms, self._services.limits.poll_ms or left_ms)
            self._handle = self._services.loop.call_later(delay_ms / 1000, self._look)
            return
        self._due_ms = None
        self._call()


def _nobody() -> None:
    """Who is called by an alarm that was let go."""
