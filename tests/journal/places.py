"""A journal on a store, with the calls of an engine in their shortest form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from semel.journal import executions, holding, lifecycle, messages
from semel.journal.advance import Advance, Advanced, EndTurn, Then, advance
from semel.kernel import values
from semel.kernel.entry import Entry, Kind, MessageHeader, Payload, Record, Started
from semel.kernel.operation import Action, Operation, Update, fold
from semel.store import codec
from semel.store.base import ACTOR, Address, Key, KeyId, Lease, Store, Stream, Transaction
from tests.store.backends import contents

T = TypeVar("T")

WORKER = "worker-1"
RETENTION_MS = 86_400_000


def payload(value: object) -> Payload:
    return Payload(values.encode(value))


def a_start(key: str = "order-1", *, function: str = "pay", now_ms: int = 1_000, **fields: Any) -> Any:
    """A request to start an execution whose arguments are `order`."""
    order = fields.pop("order", "book")
    return executions.StartRequest(
        "default",
        function,
        key,
        fields.pop("uid", f"uid-{key}-{now_ms}"),
        payload([order]),
        values.fingerprint([order]),
        fields.pop("version", f"{function}@a1:1"),
        now_ms,
        fields.pop("retention_ms", RETENTION_MS),
        **fields,
    )


def a_message(method: str = "pay", *, key: str = "", actor: str = "shop-1", now_ms: int = 1_000, **fields: Any) -> Any:
    """A message to an actor whose argument is `order`."""
    order = fields.pop("order", "book")
    return messages.SendRequest(
        Address("default", ACTOR, "Till", actor),
        fields.pop("uid", f"uid-{actor}"),
        MessageHeader("call", method, priority=fields.pop("priority", 0), key=key),
        payload([order]),
        values.fingerprint([method, order]),
        "Till@a1:1",
        now_ms,
        **fields,
    )


def do(operation: str, kind: Kind, action: Action, at_ms: int, **fields: Any) -> Update:
    """An update as a body makes it, with what its start would say."""
    start = Started(operation, kind, name=fields.pop("name", ""), parent=fields.pop("parent", ""))
    return Update(operation, kind, action, at_ms, start, **fields)


class Journal:
    """A store, and what each call of the journal does to it, one to a commit."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def run(self, *calls: Callable[[Transaction], Any]) -> list[Any]:
        """Commit one batch. An answer is what the call returned, or the error it raised."""
        transaction = self.store.begin(())
        answers: list[Any] = []
        for call in calls:
            try:
                answers.append(transaction.attempt(call))
            except BaseException as error:
                answers.append(error)
        self.store.commit(transaction)
        return answers

    def do(self, call: Callable[[Transaction], T]) -> T:
        """Commit one call, or raise what it raised: then nothing changed."""
        before = self.contents()
        (answer,) = self.run(call)
        if isinstance(answer, BaseException):
            assert self.contents() == before
            raise answer
        result: T = answer
        return result

    def start(self, *arguments: Any, **fields: Any) -> executions.StartAnswer:
        return self.do(lambda transaction: executions.start(transaction, a_start(*arguments, **fields)))

    def send(self, *arguments: Any, **fields: Any) -> messages.SendAnswer:
        return self.do(lambda transaction: messages.send(transaction, a_message(*arguments, **fields)))

    def put_key(self, key: Key) -> None:
        self.do(lambda transaction: transaction.put_key(key))

    def claim(self, number: int, worker: str = WORKER) -> Stream:
        claimed = self.do(lambda transaction: holding.claim_one(transaction, number, worker))
        assert claimed is not None
        return claimed

    def stream(self, number: int) -> Stream:
        found = self.store.stream(number)
        assert found is not None
        return found

    def records(self, number: int) -> list[Record]:
        """Every record of a stream, whatever its base."""
        found: list[Record] = []
        for row in self.store.rows(number):
            found.extend(codec.records(codec.decode(row.body, stream=row.stream, seq=row.seq), seq=row.seq))
        return found

    def entries(self, number: int) -> list[Entry]:
        return [record.entry for record in self.records(number)]

    def kinds(self, number: int) -> list[str]:
        return [type(entry).__name__ for entry in self.entries(number)]

    def operations(self, number: int) -> dict[str, Operation]:
        operations: dict[str, Operation] = {}
        fold(operations, [(record.entry, record.time_ms + record.entry.offset_ms) for record in self.records(number)])
        return operations

    def request(self, lease: Lease, updates: list[Update | EndTurn], now_ms: int, **fields: Any) -> Advance:
        """What a holder that has read everything would write."""
        stream = self.stream(lease.stream)
        given = {"seen": stream.head, "retention_ms": RETENTION_MS, **fields}
        return Advance(lease, operations=self.operations(lease.stream), updates=updates, now_ms=now_ms, **given)

    def advance(self, lease: Lease, *updates: Update | EndTurn, now_ms: int = 2_000, **fields: Any) -> Advanced:
        request = self.request(lease, [*updates], now_ms, **fields)
        return self.do(lambda transaction: advance(transaction, request))

    def finish(self, started: Stream, result: object = "done", *, now_ms: int = 2_000) -> Advanced:
        """End an execution that its holder runs."""
        lease = holding.lease_of(self.stream(started.number))
        end = do(started.uid, Kind.EXECUTION, Action.SUCCEED, now_ms, payload=payload(result))
        return self.advance(lease, end, now_ms=now_ms, then=Then.FINISH)

    def handle(
        self, lease: Lease, message: str, reply: object = "ok", *, now_ms: int = 2_000, **fields: Any
    ) -> Advanced:
        """End a message's turn with a reply."""
        turn = EndTurn(message, now_ms, fields.pop("state", None), "Till@a1:1")
        settle = do(message, Kind.MESSAGE, Action.SUCCEED, now_ms, payload=payload(reply))
        return self.advance(lease, turn, settle, now_ms=now_ms, **fields)

    def stop(self, number: int, *, now_ms: int, reason: str = "") -> Stream:
        return self.do(lambda transaction: lifecycle.stop(transaction, number, reason=reason, now_ms=now_ms))

    def key(self, key: str, operation: str = "fn:pay") -> Key | None:
        return self.store.key(KeyId("default", operation, key))

    def contents(self) -> dict[str, Any]:
        found = contents(self.store)
        operations = ("fn:pay", "fn:ship", "actor:Till/shop-1", "actor:Till/shop-2")
        found["keys"] = [self.key(key, of) for of in operations for key in ("k", "order-1", "order-2")]
        return found
