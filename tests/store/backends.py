"""The stores under test, each as something that can be opened again on what it kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from semel.store.base import ACTOR, FUNCTION, Filter, Key, KeyId, Needs, Store, Stream, Transaction
from semel.store.memory import MemoryData, MemoryStore
from semel.store.sqlite import SqliteStore

NAMES = ("memory", "sqlite")


class Backend:
    """Journals that outlive the handles on them."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.path = folder / "journal.db"
        self._data = MemoryData()
        self._open: list[Any] = []

    def open(self) -> Store:
        store: Store = MemoryStore(self._data) if self.name == "memory" else SqliteStore.open(self.path)
        self._open.append(store)
        return store

    def reopen(self) -> Store:
        self.close()
        return self.open()

    def close(self) -> None:
        while self._open:
            self._open.pop().close()


def new_stream(store: Store, **fields: Any) -> Stream:
    number = store.next_stream()
    given = {"uid": f"uid-{number}", "namespace": "default", "type": FUNCTION, "name": "pay", "key": "", **fields}
    return Stream(number, **given)


def new_actor(store: Store, key: str, **fields: Any) -> Stream:
    return new_stream(store, type=ACTOR, name="Cart", key=key, **fields)


def write(store: Store, *calls: Callable[[Transaction], Any], needs: tuple[Needs, ...] = ()) -> list[Any]:
    """Commit one batch of calls, and give their answers."""
    transaction = store.begin(needs)
    answers = [transaction.attempt(call) for call in calls]
    store.commit(transaction)
    return answers


def created(store: Store, **fields: Any) -> Stream:
    stream = new_stream(store, **fields)
    write(store, lambda transaction: transaction.create(stream))
    return stream


def key_id(key: str, operation: str = "fn:pay") -> KeyId:
    return KeyId("default", operation, key)


def contents(store: Store) -> dict[str, Any]:
    """Everything that a store keeps, through its own methods."""
    streams = store.list(Filter(limit=1_000_000))
    return {
        "streams": [msgspec.structs.asdict(stream) for stream in streams],
        "rows": {stream.number: store.rows(stream.number) for stream in streams},
        "dead": store.dead_workers(10**15),
        "next wake": store.next_wake(),
    }


def a_key(store: Store, name: str, stream: Stream, **fields: Any) -> Key:
    given = {"operation": "op", "fingerprint": b"print", **fields}
    return Key(key_id(name), stream.number, **given)
