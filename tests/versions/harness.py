"""Running one version of a function over what another has recorded, and checking it against that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec

import semel
from semel import Limits
from semel.errors import ExecutionError, ReplayError
from semel.function import REGISTRY
from semel.runtime.clock import VirtualClock
from semel.store.base import Stream, Transaction
from semel.store.memory import MemoryData, MemoryStore
from semel.testing.virtual_loop import VirtualLoop
from semel.testing.world import PATIENT, START_MS

NAME = "versions.function"
Function = Callable[..., Any]


class Prefix(msgspec.Struct):
    """What is durable after a number of appends."""

    number: int
    data: MemoryData

    def copy(self) -> MemoryData:
        return _copy(self.data)


class _Recorder(MemoryStore):
    """A store that keeps what a crash after each append would leave."""

    def __init__(self) -> None:
        super().__init__()
        self.prefixes: list[Prefix] = []

    def commit(self, transaction: Transaction) -> None:
        super().commit(transaction)
        if transaction.rows and main_of(self.data).ended_ms is None:
            self.prefixes.append(Prefix(len(self.prefixes) + 1, _copy(self.data)))


def main_of(data: MemoryData) -> Stream:
    """The execution that is looked at, beside those that it invokes."""
    return next(stream for stream in data.streams.values() if stream.name == NAME)


def _copy(data: MemoryData) -> MemoryData:
    """As a crash leaves it, and the next owner finds it: nobody holds anything, everything is due."""
    made = MemoryData()
    made.journal_id, made.last_number = data.journal_id, data.last_number
    made.numbers_by_uid, made.keys = dict(data.numbers_by_uid), dict(data.keys)
    made.rows = {number: list(rows) for number, rows in data.rows.items()}
    made.streams = {
        number: stream
        if stream.ended_ms is not None
        else msgspec.structs.replace(stream, holder=None, wake_ms=stream.time_ms)
        for number, stream in data.streams.items()
    }
    made.lock = threading.Lock()
    return made


def deploy(function: Function) -> Function:
    REGISTRY.functions.pop(NAME, None)
    deployed: Function = semel.durable_function(name=NAME)(function)
    return deployed


def run(
    store: MemoryStore,
    function: Function,
    *arguments: Any,
    start_ms: int = START_MS,
    limits: Limits = PATIENT,
) -> str:
    """How the execution ends: "returned …", "raised …", or "parked: …"."""
    loop = VirtualLoop()
    engines: list[semel.Engine] = []
    loop.computing = lambda: sum(engine.computing_count for engine in engines)
    clock = VirtualClock(loop, start_ms=start_ms)

    async def main() -> str:
        engine = semel.Engine(store, clock=clock, commit="inline", seed=1, limits=limits)
        engines.append(engine)
        async with engine:
            try:
                return f"returned {await engine.run(deploy(function), *arguments, key='k')!r}"
            except ExecutionError as error:
                return f"raised {error}"
            except ReplayError as error:
                return f"parked: {error}"

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def prefixes_of(function: Function, *arguments: Any) -> tuple[str, list[Prefix]]:
    """The outcome of the function from nothing, and what was durable at each moment on the way."""
    store = _Recorder()
    outcome = run(store, function, *arguments)
    return outcome, store.prefixes


def go_on(prefix: Prefix, function: Function, *arguments: Any) -> str:
    """The outcome of the function from a prefix, a little later."""
    data = prefix.copy()
    stream = max(data.streams.values(), key=lambda stream: stream.time_ms)
    return run(MemoryStore(data), function, *arguments, start_ms=stream.time_ms + 1)


def check(prefix: Prefix, function: Function) -> semel.Checked:
    """What the check says of the prefix."""
    deploy(function)
    return next(one for one in semel.check(MemoryStore(prefix.copy())) if one.function == NAME)
