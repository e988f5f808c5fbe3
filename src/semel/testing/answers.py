"""Who settles callbacks, from outside the process that dies: asked once, it answers in every life."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from msgspec import Struct

from semel.engine import Engine
from semel.errors import CallbackClosedError, NotFoundError, StoreError
from semel.journal.arrivals import Arrival, arrive
from semel.kernel import ids, values
from semel.kernel.entry import Kind, Payload
from semel.kernel.operation import Action
from semel.store.base import Transaction

RESOLUTION_S = 1e-3  # nearer than this is now: a timer does not fire to the last digit


class Answer(Struct):
    """What somebody outside will say of a callback, from `due_s` of the loop's time on."""

    callback_id: str
    value: Any
    due_s: float


class Answers:
    """The answers that are owed. Giving one twice is safe: the first outcome stands."""

    def __init__(self) -> None:
        self._owed: dict[str, Answer] = {}
        self._news: asyncio.Event | None = None

    def owe(self, callback_id: str, value: object, due_s: float) -> None:
        """Take a request in, the first time it is made."""
        self._owed.setdefault(callback_id, Answer(callback_id, value, due_s))
        if self._news is not None:
            self._news.set()

    async def serve(self, engine: Engine) -> None:
        """Answer through this engine, each when it is due, until cancelled or the engine closes."""
        loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        while True:
            self._news.clear()
            due = min((answer.due_s for answer in self._owed.values()), default=None)
            if due is None or due > loop.time() + RESOLUTION_S:
                delay = None if due is None else due - loop.time()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), delay)
                continue
            try:
                await self.give(engine, before_s=loop.time() + RESOLUTION_S)
            except StoreError:
                return  # this engine is closed; the next life's goes on

    async def give(self, engine: Engine, *, before_s: float = float("inf")) -> None:
        """Answer what is due before a time: all, unless one is given. Those who answer do not wait for each other."""
        due = [answer for answer in self._owed.values() if answer.due_s <= before_s]
        told = await asyncio.gather(*(self._give(engine, answer) for answer in due), return_exceptions=True)
        for error in told:
            if error is not None:
                raise error

    async def _give(self, engine: Engine, answer: Answer) -> None:
        try:
            if isinstance(answer.value, BaseException):
                await engine.callbacks.fail(answer.callback_id, answer.value)
            else:
                await engine.callbacks.succeed(answer.callback_id, answer.value)
        except (CallbackClosedError, NotFoundError):
            pass
        self._owed.pop(answer.callback_id, None)

    def __repr__(self) -> str:
        return f"Answers({self._owed!r})"

    def calls(self, journal_id: str, now_ms: int) -> list[Any]:
        """The same as journal calls, for a handle of somebody else's."""
        return [self._call(journal_id, now_ms, answer) for answer in self._owed.values()]

    def _call(self, journal_id: str, now_ms: int, answer: Answer) -> Any:
        uid, operation = ids.read_callback_id(journal_id, answer.callback_id)
        failed = isinstance(answer.value, BaseException)
        payload = None if failed or answer.value is None else Payload(values.encode(answer.value))
        error = values.describe_error(answer.value) if failed else None
        action = Action.FAIL if failed else Action.SUCCEED
        arrival = Arrival(uid, operation, Kind.CALLBACK, action, now_ms, payload, error)

        def call(transaction: Transaction) -> None:
            try:
                arrive(transaction, arrival)
            except (CallbackClosedError, NotFoundError):
                return

        return call
