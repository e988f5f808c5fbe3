"""What is outside of a body in these tests: the runtime's part, played by hand."""

import asyncio
import contextvars
import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from semel.runtime.body_loop import BodyLoop, BodyTask
from semel.runtime.frame import Frame, current_frame

Body = Callable[["Outside"], Any]


class Outside:
    """Plays the runtime for one body: operations and timers complete when it says so, one at a time."""

    def __init__(self, body: Body, *, start_ms: int = 1_700_000_000_000) -> None:
        self.reports: list[dict[str, Any]] = []
        self.delays: list[int] = []
        self.cancelled: list[str] = []
        self.requested: list[str] = []
        self.waiting: dict[str, asyncio.Future[str]] = {}
        self.timers: dict[asyncio.TimerHandle, tuple[str, int]] = {}
        self.loop = BodyLoop(self, on_error=self.reports.append, callbacks_max=100_000)
        self.loop.now_ms = start_ms
        self.task: BodyTask[Any] = self.loop.spawn(body(self), context=contextvars.Context(), frame=Frame("1"))
        self.loop.run_to_rest()

    def request(self, name: str) -> str:
        op_id = f"{current_frame.get(self.loop.frame).next_operation()}:{name}"
        self.requested.append(op_id)
        return op_id

    async def op(self, name: str) -> str:
        future = self.loop.create_future()
        self.waiting[self.request(name)] = future
        return await future

    def schedule(self, handle: asyncio.TimerHandle, *, delay_ms: int) -> None:
        self.delays.append(delay_ms)
        self.timers[handle] = (self.request("timer"), self.loop.now_ms + delay_ms)

    def cancel(self, handle: asyncio.TimerHandle) -> None:
        self.cancelled.append(self.timers.pop(handle)[0])

    def pending(self) -> list[str]:
        return [op for op, future in self.waiting.items() if not future.done()] + [op for op, _ in self.timers.values()]

    def complete(self, op_id: str) -> None:
        if op_id in self.waiting:
            self.waiting.pop(op_id).set_result(op_id)
        else:
            handle = next(handle for handle, (name, _) in self.timers.items() if name == op_id)
            self.loop.now_ms = max(self.loop.now_ms, self.timers.pop(handle)[1])
            self.loop.fire(handle)
        self.loop.run_to_rest()

    def complete_all(self) -> Any:
        while not self.task.done():
            self.complete(self.pending()[0])
        return self.task.result()


def run(body: Body) -> Any:
    return Outside(body).complete_all()


@contextmanager
def quiet() -> Iterator[None]:
    """No test may leave a coroutine unawaited or a complaint for the collector to make."""
    noise: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, noise.append
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    sys.unraisablehook = hook
    assert (noise, [str(warning.message) for warning in caught]) == ([], [])
