"""Who waits for the outcome of what. Told after the commit, never before (R4)."""

from __future__ import annotations

import asyncio

from semel.errors import SemelError
from semel.kernel.entry import Settled


class Waiters:
    """Futures by stream and operation. On the loop's thread only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._futures: dict[int, dict[str, list[asyncio.Future[Settled]]]] = {}
        self._closed: SemelError | None = None

    def __len__(self) -> int:
        return len(self._futures)

    def streams(self) -> list[int]:
        """The streams that someone waits for."""
        return list(self._futures)

    def operations(self, stream: int) -> list[str]:
        """The operations of a stream that someone waits for."""
        return list(self._futures.get(stream, ()))

    def expect(self, stream: int, operation: str) -> asyncio.Future[Settled]:
        """A future of the outcome, from now on. To be awaited through `wait`, which lets it go."""
        future: asyncio.Future[Settled] = self._loop.create_future()
        if self._closed is not None:
            future.set_exception(self._closed)
            return future
        self._futures.setdefault(stream, {}).setdefault(operation, []).append(future)
        return future

    async def wait(self, stream: int, operation: str, future: asyncio.Future[Settled] | None = None) -> Settled:
        """Wait for an outcome. Raises what `park` was given, if the stream leaves service first."""
        if future is None:
            future = self.expect(stream, operation)
        try:
            return await future
        finally:
            self._drop(stream, operation, future)

    def forget(self, future: asyncio.Future[Settled] | None) -> None:
        """Let go of a future that nobody will await."""
        for stream, operations in list(self._futures.items()):
            for operation, futures in list(operations.items()):
                if future is not None and any(kept is future for kept in futures):
                    self._drop(stream, operation, future)
                    future.cancel()

    def _drop(self, stream: int, operation: str, future: asyncio.Future[Settled]) -> None:
        operations = self._futures.get(stream, {})
        futures = operations.get(operation, [])
        if future in futures:
            futures.remove(future)
        if not futures:
            operations.pop(operation, None)
        if not operations:
            self._futures.pop(stream, None)

    def settle(self, stream: int, settled: Settled) -> None:
        """Give everyone who waits for the operation its outcome."""
        operations = self._futures.get(stream)
        if operations is None:
            return
        for future in operations.pop(settled.operation, ()):
            if not future.done():
                future.set_result(settled)
        if not operations:
            del self._futures[stream]

    def park(self, stream: int, error: Exception) -> None:
        """The stream left service: no outcome until a person acts."""
        for futures in self._futures.get(stream, {}).values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)

    def fail_all(self, error: SemelError) -> None:
        """Tell everyone."""
        for stream in list(self._futures):
            self.park(stream, error)

    def close(self, error: SemelError) -> None:
        """Tell everyone, also who comes later: no outcome is told any more."""
        self._closed = error
        self.fail_all(error)
