"""Engines under test: on a store that can be opened again, or copied as a crash would leave it."""

from __future__ import annotations

import asyncio
import copy
import shutil
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import semel
from semel import Engine, Limits
from semel.function import REGISTRY
from semel.journal import holding
from semel.store.memory import MemoryData, MemoryStore

NAMES = ("memory", "sqlite")
T = TypeVar("T")
SECONDS_MAX = 8


class Place:
    """Where a journal is. Each `engine` on it goes on with what the one before it left."""

    def __init__(self, name: str, folder: Path, *, data: MemoryData | None = None) -> None:
        self.name = name
        self.folder = folder
        self.path = folder / "journal.db"
        self._data = MemoryData() if data is None else data
        self._copies = 0

    def engine(self, *, workers: int = 1, namespace: str = "default", **limits: int) -> Engine:
        # A short poll, so that no test waits long for what it should not have to wait for.
        made = Limits(**{"poll_ms": 200, **limits})
        store: Any = f"sqlite:///{self.path}" if self.name == "sqlite" else self._memory()
        return Engine(store, limits=made, workers=workers, namespace=namespace)

    def engine_beside(self, **limits: int) -> Engine:
        """A second engine on data in memory, beside one that lives: only a file has an owner."""
        return Engine(MemoryStore(self._data), limits=Limits(**{"poll_ms": 200, **limits}))

    def _memory(self) -> MemoryStore:
        """A handle on the data. As a file's new owner would, it takes all former holders for dead."""
        store = MemoryStore(self._data)
        transaction = store.begin([])
        holding.void_leases_of_the_dead(transaction, judged_at_ms=holding.FOREVER_MS, now_ms=0)
        store.commit(transaction)
        return store

    def crashed(self) -> Place:
        """A copy of what is durable now: what a process that is killed at this instant leaves behind."""
        self._copies += 1
        folder = self.folder / f"crashed-{self._copies}"
        folder.mkdir()
        if self.name == "sqlite":
            for suffix in ("", "-wal"):
                source = self.path.with_name(self.path.name + suffix)
                if source.exists():
                    shutil.copy(source, folder / source.name)
            return Place(self.name, folder)
        with self._data.lock:
            lock = threading.Lock()
            data = copy.deepcopy(self._data, {id(self._data.lock): lock})
        return Place(self.name, folder, data=data)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run one scenario on an event loop, for a bounded time."""

    async def bounded() -> T:
        async with asyncio.timeout(SECONDS_MAX):
            return await scenario

    return asyncio.run(bounded())


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something that another task, thread or process brings about."""
    while not condition():
        await asyncio.sleep(0.005)


async def until_it(condition: Callable[[], Awaitable[Any]]) -> None:
    """`until` for a question that has to be awaited."""
    while not await condition():
        await asyncio.sleep(0.005)


def redefine(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Deploy other code under the name of a durable function."""
    REGISTRY.functions.pop(name, None)
    return semel.durable_function(name=name)(function)


def forget(name: str) -> None:
    """Deploy without a durable function or actor type."""
    REGISTRY.functions.pop(name, None)
    REGISTRY.actors.pop(name, None)


def types_of(events: list[semel.Event]) -> list[str]:
    """The event types of a history, runs left out: how often a function ran depends on time."""
    return [event.type for event in events if event.type != "InvocationCompleted"]
