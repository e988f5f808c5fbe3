"""The handles of a body's loop: callbacks that are ready, and timers that a recorded fact will fire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context


class BodyHandle(asyncio.Handle):
    """A callback that is ready. Made without the base's questions about debug mode: it is the hot path."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[object, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class BodyTimer(asyncio.TimerHandle):
    """A timer; unlike the base, equal only to itself, so that it can be a key."""

    __slots__ = ("_ordinal",)
    _ordinal: int
    _scheduled: bool

    def __hash__(self) -> int:
        return self._ordinal

    def __eq__(self, other: object) -> bool:
        return self is other
