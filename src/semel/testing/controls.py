"""Stops, pauses and deletes of every execution that there is to stop, pause or delete, by an engine or past it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from semel.engine import Engine
from semel.errors import NotFoundError, WrongStatusError
from semel.journal import lifecycle
from semel.store.base import RUNNING, Stream, Transaction
from semel.testing.audit import Audit

Request = Coroutine[Any, Any, Any]
REASON = "a test"


class Controls:
    """What somebody does to executions from outside. A pause is followed by a resume, `wait_s` later."""

    def __init__(self, audit: Audit, *, retention_ms: int, wait_s: float) -> None:
        self._audit = audit
        self._retention_ms = retention_ms
        self._wait_s = wait_s

    def requests(self, kind: str, engine: Engine, loop: asyncio.AbstractEventLoop) -> list[Request]:
        """A stop, pause or delete of each, through an engine."""
        executions = engine.executions
        match kind:
            case "stop":
                return [executions.stop(stream.uid, reason=REASON) for stream in self._audit.functions()]
            case "pause":
                return [self._pause(engine, stream, loop) for stream in self._audit.functions()]
            case _:
                return [unless_refused(executions.delete(stream.uid)) for stream in self._audit.ended()]

    def calls(self, kind: str, now_ms: int) -> list[Callable[[Transaction], object]]:
        """The same as journal calls of somebody else."""
        match kind:
            case "outside delete":
                delete = partial(lifecycle.delete, retention_ms=self._retention_ms, now_ms=now_ms)
                return [partial(delete, number=stream.number) for stream in self._audit.ended()]
            case "outside stop":
                streams, control = self._audit.functions(), lifecycle.stop
            case _:
                streams = [stream for stream in self._audit.functions() if stream.status == RUNNING]
                control = lifecycle.pause
        return [partial(control, number=stream.number, reason=REASON, now_ms=now_ms) for stream in streams]

    def resumes(self, engine: Engine) -> list[Request]:
        """A resume of each execution that is paused now, after a while."""
        return [self._resume(engine, stream) for stream in self._audit.asleep()]

    async def _pause(self, engine: Engine, stream: Stream, loop: asyncio.AbstractEventLoop) -> None:
        if await unless_refused(engine.executions.pause(stream.uid, reason=REASON)):
            self._audit.paused[stream.uid] = loop.time()
            await self._resume(engine, stream)

    async def _resume(self, engine: Engine, stream: Stream) -> None:
        await asyncio.sleep(self._wait_s)
        self._audit.paused.pop(stream.uid, None)
        await unless_refused(engine.executions.resume(stream.uid, reason=REASON))


async def unless_refused(request: Request) -> bool:
    """Whether a request was granted: its execution may have ended, or be gone, by the time that it is looked at."""
    try:
        await request
    except (WrongStatusError, NotFoundError):
        return False
    return True
