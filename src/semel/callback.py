"""A callback as user code holds it: an id to give away, and a result to wait for."""

from __future__ import annotations

from typing import Any

from semel.calls import Seam, SyncSeam


class Callback:
    """An operation that somebody outside settles, through its `id`: `engine.callbacks.succeed(id, value)`.

    The id is on disk before a step that gets it begins. It is given to those who may settle it, and to
    nobody else: whoever has it, can.
    """

    __slots__ = ("_seam", "_ticket", "id")

    def __init__(self, seam: Seam, identity: str, ticket: Any) -> None:
        self.id = identity
        self._seam = seam
        self._ticket = ticket

    async def result(self) -> Any:
        """Wait until it is settled, and return the value.

        Raises CallbackError when it was failed, CallbackTimeoutError when its time was up. Cancelling
        who waits cancels the callback; `asyncio.shield(callback.result())` waits without that.
        """
        return await self._seam.callback_result(self._ticket)

    def __repr__(self) -> str:
        return f"<Callback {self.id}>"


class SyncCallback:
    """The same for `def` code: `result` blocks its thread."""

    __slots__ = ("_seam", "_ticket", "id")

    def __init__(self, seam: SyncSeam, identity: str, ticket: Any) -> None:
        self.id = identity
        self._seam = seam
        self._ticket = ticket

    def result(self) -> Any:
        """Wait until it is settled, and return the value. Raises as `Callback.result` does."""
        return self._seam.callback_result(self._ticket)

    def __repr__(self) -> str:
        return f"<Callback {self.id}>"
