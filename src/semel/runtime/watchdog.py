"""A loop that user code blocks: a warning with its stack, and nothing else. It is never killed."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

logger = logging.getLogger("semel.watchdog")
FRAMES_MAX = 20
BEATS = 2  # in the time after which a loop that does not answer is warned about
GRACE = 0.1  # of that time: a process that was stopped, or a machine that slept, answers at once


class Watchdog:
    """Asks a loop from a thread of its own whether it still turns, and warns once for each time it does not.

    `blocked_by` names the body that is being run, "" for none. Made and ended on the loop's own thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, warn_ms: int, blocked_by: Callable[[], str]) -> None:
        self._loop = loop
        self._warn_s = warn_ms / 1000
        self._blocked_by = blocked_by
        self._loop_thread = threading.get_ident()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="semel-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join(1)

    def _watch(self) -> None:
        while not self._stopped.wait(self._warn_s / BEATS):
            answered = threading.Event()
            asked_s = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(answered.set)
            except RuntimeError:
                return  # the loop is closed, and with it all that could be blocked
            if answered.wait(self._warn_s) or answered.wait(self._warn_s * GRACE):
                continue
            if self._stopped.is_set():
                return
            self._warn(asked_s)
            while not answered.wait(self._warn_s / BEATS):
                if self._stopped.is_set() or self._loop.is_closed():
                    return

    def _warn(self, asked_s: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001  # the documented way to another's stack
        stack = "" if frame is None else "".join(traceback.format_stack(frame)[-FRAMES_MAX:])
        name = self._blocked_by()
        where = f"the body of {name!r}" if name else "code that runs on it"
        logger.warning(
            "the event loop has not turned for %.1f s: it is blocked by %s, and nothing else of this engine goes on; "
            "expected code that awaits; put what blocks in a step that is a plain `def`, which runs in a thread; "
            "the stack, innermost last:\n%s",
            time.monotonic() - asked_s,
            where,
            stack,
        )
