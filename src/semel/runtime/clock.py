"""What time it is. Everything above the kernel asks a clock; the kernel is told."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """A source of wall time in ms since 1970. It may be set back or forward while one looks."""

    def now_ms(self) -> int: ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class VirtualClock:
    """A clock that follows its event loop's own time, plus what a test adds to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, start_ms: int = 1_700_000_000_000) -> None:
        self._loop = loop
        self._start_ms = start_ms

    def now_ms(self) -> int:
        return self._start_ms + round(self._loop.time() * 1000)

    def jump(self, by_ms: int) -> None:
        """Set the clock forward, or back, as an operator or NTP would."""
        self._start_ms += by_ms
