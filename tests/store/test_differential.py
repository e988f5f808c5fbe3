"""The same random operations on every store: the same answers, and the same contents after them."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from semel.errors import SemelError
from semel.store.base import ACTOR, FUNCTION, PARKED, RUNNING, Address, Filter, Key, Lease, Needs, Stream, Worker
from tests.store.backends import NAMES, Backend, contents, key_id

SMALL = st.integers(0, 5)
NUMBERS = st.integers(1, 3) | SMALL
WORKERS = st.sampled_from(["w0", "w1"])
TIMES = st.none() | st.integers(0, 9)
KEYS = st.sampled_from([key_id("a"), key_id("b"), key_id("a", "actor:Cart/0")])
ACTORS = st.sampled_from([Address("default", ACTOR, "Cart", str(place)) for place in range(3)])
DIGESTS = st.sampled_from([b"a" * 20, b"b" * 20])
STATUSES = st.sampled_from([RUNNING, PARKED, "SUCCEEDED"])


class Stores(RuleBasedStateMachine):
    """Two stores, and a batch open on each. `succeeded` counts over all runs, so that nothing passes untried."""

    succeeded: Counter[str] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.backends = [Backend(name, Path(self.folder.name)) for name in NAMES]
        self.stores = [backend.open() for backend in self.backends]
        self.last_number = 0
        self.begin(())

    def teardown(self) -> None:
        for backend in self.backends:
            backend.close()
        self.folder.cleanup()

    def begin(self, needs: tuple[Needs, ...]) -> None:
        self.transactions = [store.begin(needs) for store in self.stores]

    def same(self, name: str, calls: list[Any]) -> Any:
        answers = []
        for call in calls:
            try:
                answers.append(call())
            except BaseException as error:
                if not (isinstance(error, SemelError) or type(error).__name__ == "LeaseLost"):
                    raise
                answers.append((type(error), str(error)))
        assert answers[0] == answers[1], f"{name}: {NAMES[0]} says {answers[0]!r}, {NAMES[1]} says {answers[1]!r}"
        if not (isinstance(answers[0], tuple) and answers[0] and isinstance(answers[0][0], type)):
            self.succeeded[name] += 1
        return answers[0]

    def attempt(self, name: str, call: Any) -> Any:
        return self.same(name, [lambda t=t: t.attempt(call) for t in self.transactions])

    @initialize()
    def two_streams_of_which_one_is_held(self) -> None:
        self.create(actor=None, wake_ms=1)
        self.create(actor=Address("default", ACTOR, "Cart", "0"), wake_ms=None)
        self.put(number=1, worker="w0", release=None)
        self.commit(numbers=[], keys=[], addresses=[])

    @rule(actor=st.none() | ACTORS, wake_ms=TIMES)
    def create(self, actor: Address | None, wake_ms: int | None) -> None:
        # Numbers of streams that were never committed may be given out again after a restart.
        number = max(store.next_stream() for store in self.stores)
        assert all(store.stream(number) is None for store in self.stores)
        number = self.last_number = max(number, self.last_number + 1)
        address = actor or Address("default", FUNCTION, "pay", str(number))
        given = msgspec.structs.astuple(address)
        stream = Stream(number, f"uid-{number}", *given, wake_ms=wake_ms)
        self.attempt("create", lambda t: t.create(stream))

    @rule(
        number=NUMBERS, count=st.integers(1, 3), body=st.binary(max_size=9), wake_ms=TIMES, status=STATUSES, late=SMALL
    )
    def append(self, number: int, *, count: int, body: bytes, wake_ms: int | None, status: str, late: int) -> None:
        def call(t: Any) -> Any:
            stream = t.stream(number)
            if stream is None:
                return (LookupError, "no stream")
            if late == 0:
                stream = msgspec.structs.replace(stream, head=stream.head - 1)
            return t.append(None, stream, count=count, body=body, wake_ms=wake_ms, status=status, ended_ms=wake_ms)

        self.attempt("append", call)

    @rule(number=NUMBERS, worker=WORKERS, wrong=st.sampled_from(["nothing", "nothing", "worker", "epoch"]))
    def append_with_a_lease(self, number: int, worker: str, wrong: str) -> None:
        def call(t: Any) -> Any:
            stream = t.stream(number) or t.stream(1)
            if stream is None:
                return (LookupError, "no stream")
            if stream.holder is None:
                stream = msgspec.structs.replace(stream, holder=worker, epoch=stream.epoch + 1)
                t.put(stream)
            lease = Lease(
                stream.number,
                stream.epoch - (wrong == "epoch"),
                "nobody" if wrong == "worker" else stream.holder,
            )
            return t.append(lease, stream, count=1, body=b"held")

        self.attempt("append_with_a_lease", call)

    @rule(number=NUMBERS, worker=WORKERS, release=TIMES)
    def put(self, number: int, worker: str, release: int | None) -> None:
        def call(t: Any) -> Any:
            stream = t.stream(number)
            if stream is None:
                return (LookupError, "no stream")
            if stream.holder is None:
                changed = msgspec.structs.replace(stream, holder=worker, epoch=stream.epoch + 1, wake_ms=None)
                return t.put(changed)
            changed = msgspec.structs.replace(stream, holder=None, wake_ms=release)
            return t.put(changed, lease=Lease(number, stream.epoch, stream.holder))

        self.attempt("put", call)

    @rule(number=NUMBERS)
    def delete(self, number: int) -> None:
        def call(t: Any) -> Any:
            stream = t.stream(number)
            if stream is None or stream.type == ACTOR:
                return (LookupError, "no execution")
            return t.delete(stream)

        self.attempt("delete", call)

    @rule(id=KEYS, stream=st.integers(1, 4), settled=SMALL, expiry_ms=TIMES, data=st.binary(min_size=1, max_size=4))
    def put_key(self, id: Any, stream: int, settled: int, expiry_ms: int | None, data: bytes) -> None:
        outcome = data if settled else None
        self.attempt("put_key", lambda t: t.put_key(Key(id, stream, "op", data, settled, expiry_ms, outcome)))

    @rule(number=NUMBERS, digest=DIGESTS, data=st.binary(max_size=9))
    def put_chunk(self, number: int, digest: bytes, data: bytes) -> None:
        self.attempt("put_chunk", lambda t: t.put_chunk(number, digest, data))

    @rule(number=NUMBERS, digest=DIGESTS)
    def read_chunk(self, number: int, digest: bytes) -> None:
        self.attempt("chunk in a batch", lambda t: [t.chunk(number, digest)])
        self.same("chunk", [lambda s=s: [s.chunk(number, digest)] for s in self.stores])

    @rule(id=KEYS)
    def forget_key(self, id: Any) -> None:
        self.attempt("forget_key", lambda t: t.forget_key(id))

    @rule(worker=WORKERS, until=SMALL)
    def put_worker(self, worker: str, until: int) -> None:
        self.attempt("put_worker", lambda t: t.put_worker(Worker(worker, until)))

    @rule(worker=WORKERS)
    def forget_worker(self, worker: str) -> None:
        self.attempt("forget_worker", lambda t: t.forget_worker(worker))

    @rule(number=NUMBERS, id=KEYS)
    def a_call_that_raises(self, number: int, id: Any) -> None:
        def call(t: Any) -> None:
            stream = t.stream(number)
            if stream is not None:
                t.append(None, stream, count=1, body=b"never")
            t.put_worker(Worker("never", 9))
            t.put_chunk(number, b"a" * 20, b"never")
            t.put_key(Key(id, 1, "never", b""))
            raise SemelError("on purpose")

        self.attempt("a_call_that_raises", call)
        self.succeeded["a_call_that_raises"] += 1

    @rule(number=NUMBERS, seq=SMALL, id=KEYS, address=ACTORS)
    def read(self, number: int, seq: int, id: Any, address: Address) -> None:
        self.attempt("read in a batch", lambda t: [t.stream(number), t.row_at(number, seq), t.key(id)])
        self.attempt("actor in a batch", lambda t: [t.stream_by_address(address), t.has_writes])
        self.same("stream_by_uid", [lambda s=s: [s.stream_by_uid(f"uid-{number}")] for s in self.stores])
        self.same("stream_by_address", [lambda s=s: [s.stream_by_address(address)] for s in self.stores])
        self.same("row_at", [lambda s=s: [s.row_at(number, seq)] for s in self.stores])
        self.same("key", [lambda s=s: [s.key(id)] for s in self.stores])

    @rule(now_ms=SMALL, limit=SMALL, first=SMALL, status=STATUSES, names=st.sampled_from([None, (), ("pay",)]))
    def search(self, now_ms: int, limit: int, first: int, status: str, names: tuple[str, ...] | None) -> None:
        self.same("due", [lambda s=s: [s.due(now_ms, limit=limit, names=names)] for s in self.stores])
        self.same("next_wake", [lambda s=s: [s.next_wake(names=names)] for s in self.stores])
        self.same("dead_workers", [lambda s=s: [s.dead_workers(now_ms)] for s in self.stores])
        self.same("list", [lambda s=s: [s.list(Filter(statuses=(status,), limit=limit))] for s in self.stores])
        self.same("scan_ended", [lambda s=s: [s.scan_ended(now_ms, until_ms=9, limit=limit + 1)] for s in self.stores])
        after = None if first == 0 else key_id("a", "actor:Cart/0")
        self.same(
            "scan_expired",
            [lambda s=s: [s.scan_expired(after, now_ms=now_ms, limit=limit + 1)] for s in self.stores],
        )
        self.same("rows", [lambda s=s: [s.rows(now_ms, first=first, limit=limit)] for s in self.stores])

    @rule(
        numbers=st.lists(NUMBERS, max_size=3), keys=st.lists(KEYS, max_size=3), addresses=st.lists(ACTORS, max_size=2)
    )
    def commit(self, numbers: list[int], keys: list[Any], addresses: list[Address]) -> None:
        pairs = zip(self.stores, self.transactions, strict=True)
        self.same("commit", [lambda s=s, t=t: s.commit(t) for s, t in pairs])
        self.begin((Needs(tuple(numbers), tuple(keys)), Needs(addresses=tuple(addresses))))

    @rule()
    def restart(self) -> None:
        self.stores = [backend.reopen() for backend in self.backends]
        self.begin(())
        self.succeeded["restart"] += 1

    @invariant()
    def the_contents_are_the_same(self) -> None:
        left, right = (contents(store) for store in self.stores)
        assert left == right


def test_memory_and_sqlite_cannot_be_told_apart() -> None:
    Stores.succeeded.clear()
    run_state_machine_as_test(Stores, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))
    rules = {"create", "append", "append_with_a_lease", "put", "put_key", "forget_key", "put_worker", "forget_worker"}
    rules |= {"a_call_that_raises", "commit", "restart", "due", "dead_workers", "list", "rows", "next_wake"}
    rules |= {"delete", "scan_ended", "scan_expired"}
    rules |= {"read in a batch", "actor in a batch", "stream_by_uid", "stream_by_address", "row_at", "key"}
    rules |= {"put_chunk", "chunk in a batch", "chunk"}
    untried = {name for name in rules if Stores.succeeded[name] == 0}
    assert untried == set(), "each operation succeeded at least once"
