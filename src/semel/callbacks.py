"""Settling callbacks from outside: `engine.callbacks`, by the ids that `Callback.id` gives away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from semel.errors import ValidationError
from semel.journal.arrivals import Arrival, Touched, arrive
from semel.kernel import ids, values
from semel.kernel.entry import Kind, Payload
from semel.kernel.operation import Action
from semel.kernel.values import ErrorData
from semel.store.base import Transaction


class Callbacks:
    """What may be done to a callback by whoever has its id. Durable when the call returns."""

    def __init__(
        self,
        run: Callable[..., Awaitable[Any]],
        payload: Callable[[str, Any], Payload],
        *,
        journal_id: str,
        now_ms: Callable[[], int],
        touched: Callable[[Touched], None],
    ) -> None:
        self._run = run
        self._payload = payload
        self._journal_id = journal_id
        self._now_ms = now_ms
        self._touched = touched

    async def succeed(self, callback_id: str, value: object = None) -> None:
        """Give a callback its value. The same value once more changes nothing.

        Raises ValidationError (no id of this journal), NotFoundError (its execution is gone),
        CallbackClosedError (another outcome stands, its time was up, or nobody waits any more),
        LimitExceededError, SerializationError.
        """
        payload = None if value is None else self._payload("callback value", value)
        await self._arrive(callback_id, Action.SUCCEED, payload=payload)

    async def fail(self, callback_id: str, error: BaseException | str, *, error_type: str | None = None) -> None:
        """Let a callback fail: its waiter gets CallbackError with this type and message. Raises as `succeed` does."""
        await self._arrive(callback_id, Action.FAIL, error=error_data(error, error_type))

    async def heartbeat(self, callback_id: str) -> None:
        """Say that the work is still going on: the heartbeat time begins anew. Raises as `succeed` does."""
        await self._arrive(callback_id, Action.HEARTBEAT)

    async def _arrive(
        self, callback_id: str, action: Action, *, payload: Payload | None = None, error: ErrorData | None = None
    ) -> None:
        uid, operation = ids.read_callback_id(self._journal_id, callback_id)
        arrival = Arrival(uid, operation, Kind.CALLBACK, action, self._now_ms(), payload, error)

        def call(transaction: Transaction) -> Touched | None:
            return arrive(transaction, arrival)

        touched = await self._run(call)
        if touched is not None:
            self._touched(touched)


def error_data(error: BaseException | str, error_type: str | None) -> ErrorData:
    """A failure as data. Raises ValidationError for anything but an exception or a text."""
    if isinstance(error, BaseException):
        found = values.describe_error(error)
        return ErrorData(error_type or found.type, found.message)
    if isinstance(error, str):
        return ErrorData(error_type or "CallbackFailed", error)
    raise ValidationError(f"callback error: found {error!r}, expected an exception or a text")
