"""What every store does, by its contract."""

from __future__ import annotations

import msgspec
import pytest

from semel.errors import ConflictError, LeaseLost, UnavailableError
from semel.store.base import ACTOR, PARKED, Address, Filter, Key, Lease, Needs, Row, Store, Stream, Transaction, Worker
from tests.store.backends import Backend, a_key, contents, created, key_id, new_actor, new_stream, write

replace = msgspec.structs.replace


def held(store: Store, stream: Stream, worker: str = "w1") -> tuple[Stream, Lease]:
    taken = replace(stream, epoch=stream.epoch + 1, holder=worker, wake_ms=None)
    write(store, lambda transaction: transaction.put(taken))
    return taken, Lease(stream.number, taken.epoch, worker)


def due(store: Store, wake_ms: int | None, **fields: object) -> Stream:
    return created(store, wake_ms=wake_ms, **fields)


class TestStreams:
    def test_every_column_comes_back_as_it_was_written(self, backend: Backend) -> None:
        store = backend.open()
        stream = Stream(
            *(store.next_stream(), "uid-x", "ns", "fn", "näme", 'ke"y', 3, "w", 9, 8, 7, 6, "turn", 5),
            *(None, "SUCCEEDED", 4, "v1", "origin", 2, 1),
        )
        later = replace(stream, holder=None, wake_ms=2**60, ended_ms=None, turn="")
        other = new_stream(store)
        write(store, lambda t: t.create(stream), lambda t: t.create(other))
        assert store.stream(stream.number) == stream
        write(store, lambda t: t.put(later))
        assert store.stream(stream.number) == later
        assert store.stream(other.number) == other
        assert backend.reopen().stream(stream.number) == later

    def test_a_stream_is_found_by_uid_and_an_actor_by_address(self, store: Store) -> None:
        execution = created(store, key="k")
        actor = new_actor(store, "k")
        write(store, lambda t: t.create(actor))
        assert store.stream_by_uid(execution.uid) == execution
        assert store.stream_by_uid("nobody") is None
        assert store.stream(10**9) is None
        assert store.stream_by_address(actor.address) == actor
        assert store.stream_by_address(execution.address) is None
        assert store.stream_by_address(Address("other", ACTOR, "Cart", "k")) is None

    def test_two_executions_may_share_an_address_and_two_actors_may_not(self, store: Store) -> None:
        created(store, key="k")
        created(store, key="k")
        write(store, lambda t: t.create(new_actor(store, "k")))
        with pytest.raises(ConflictError):
            write(store, lambda t: t.create(new_actor(store, "k")))
        assert len(store.list(Filter())) == 3

    def test_two_streams_of_one_uid_are_a_conflict_that_changes_nothing(self, store: Store) -> None:
        first = created(store)
        before = contents(store)
        with pytest.raises(ConflictError) as caught:
            write(store, lambda t: t.create(new_stream(store)), lambda t: t.create(new_stream(store, uid=first.uid)))
        assert caught.value.definite
        assert contents(store) == before
        created(store)

    def test_stream_numbers_grow_also_after_a_restart(self, backend: Backend) -> None:
        store = backend.open()
        numbers = [created(store).number for _ in range(3)]
        assert numbers == sorted(set(numbers))
        assert backend.reopen().next_stream() > numbers[-1]

    def test_the_journal_id_is_made_once(self, backend: Backend) -> None:
        first = backend.open().journal_id
        assert len(first) >= 16
        assert backend.reopen().journal_id == first


class TestRows:
    def test_rows_come_in_order_from_the_one_that_contains_seq_first(self, store: Store) -> None:
        stream = created(store)
        other = created(store)

        def fill(transaction: Transaction) -> None:
            now = stream
            for count in (2, 1, 3):
                now = transaction.append(None, now, count=count, body=b"%d" % count)
            transaction.append(None, other, count=1, body=b"other")

        write(store, fill)
        one, two, three = (
            Row(stream.number, 1, 2, b"2"),
            Row(stream.number, 3, 1, b"1"),
            Row(stream.number, 4, 3, b"3"),
        )
        assert store.rows(stream.number) == [one, two, three]
        for first, expected in ((1, [one, two, three]), (2, [one, two, three]), (3, [two, three]), (5, [three])):
            assert store.rows(stream.number, first=first) == expected
            assert store.rows(stream.number, first=first, limit=1) == expected[:1]
        assert store.rows(stream.number, first=7) == []
        assert store.rows(stream.number, limit=0) == []
        assert store.rows(10**9) == []
        assert store.row_at(stream.number, 3) == two
        assert store.row_at(stream.number, 2) is None
        assert store.row_at(10**9, 1) is None

    def test_an_append_moves_head_and_tail_and_makes_the_changes(self, store: Store) -> None:
        stream = created(store)
        (after,) = write(store, lambda t: t.append(None, stream, count=3, body=b"x", wake_ms=7, time_ms=6))
        assert (after.head, after.tail, after.wake_ms, after.time_ms) == (3, 1, 7, 6)
        (after,) = write(store, lambda t: t.append(None, after, count=2, body=b"y"))
        assert (after.head, after.tail, after.wake_ms) == (5, 4, 7)
        assert store.stream(stream.number) == after

    def test_an_append_to_a_row_that_is_not_the_present_one_is_a_conflict(self, store: Store) -> None:
        stream = created(store)
        write(store, lambda t: t.append(None, stream, count=1, body=b"x"))
        transaction = store.begin(())
        with pytest.raises(ConflictError, match="expected 1"):
            transaction.attempt(lambda t: t.append(None, stream, count=1, body=b"y"))
        with pytest.raises(ConflictError, match="create it first"):
            transaction.attempt(lambda t: t.append(None, new_stream(store), count=1, body=b"y"))
        with pytest.raises(ConflictError, match="create it first"):
            transaction.attempt(lambda t: t.put(new_stream(store)))
        assert not transaction.has_writes

    @pytest.mark.parametrize("size", [0, 1, 100, 300_000])
    def test_a_body_of_any_size_comes_back(self, store: Store, size: int) -> None:
        stream = created(store)
        body = bytes(range(256)) * (size // 256 + 1)
        write(store, lambda t: t.append(None, stream, count=1, body=body[:size]))
        assert store.rows(stream.number)[0].body == body[:size]


class TestLeases:
    def test_the_holder_writes_and_a_superseded_one_changes_nothing(self, store: Store) -> None:
        stream, lease = held(store, created(store))
        (stream,) = write(store, lambda t: t.append(lease, stream, count=1, body=b"x"))
        stream, _ = held(store, stream, "w2")
        before = contents(store)
        for call in (
            lambda t: t.append(lease, stream, count=1, body=b"late"),
            lambda t: t.put(stream, lease=lease),
            lambda t: t.append(Lease(stream.number, stream.epoch, "w1"), stream, count=1, body=b"late"),
        ):
            with pytest.raises(LeaseLost, match="superseded"):
                write(store, call)
        assert contents(store) == before

    def test_a_worker_that_claims_again_may_not_write_under_its_former_epoch(self, store: Store) -> None:
        stream, former = held(store, created(store))
        stream, lease = held(store, stream)
        with pytest.raises(LeaseLost, match="superseded"):
            write(store, lambda t: t.append(former, stream, count=1, body=b"late"))
        write(store, lambda t: t.append(lease, stream, count=1, body=b"x"))
        assert [row.body for row in store.rows(stream.number)] == [b"x"]

    def test_an_arrival_is_never_refused_for_a_lease(self, store: Store) -> None:
        stream, _ = held(store, created(store))
        write(store, lambda t: t.append(None, stream, count=1, body=b"x"))
        assert len(store.rows(stream.number)) == 1

    def test_the_epoch_is_checked_against_the_batch_so_far(self, store: Store) -> None:
        stream, lease = held(store, created(store))
        transaction = store.begin([Needs(streams=(stream.number,))])
        taken = replace(stream, epoch=stream.epoch + 1, holder="w2")
        transaction.attempt(lambda t: t.put(taken))
        with pytest.raises(LeaseLost):
            transaction.attempt(lambda t: t.append(lease, taken, count=1, body=b"late"))
        store.commit(transaction)
        assert store.stream(stream.number) == taken

    def test_streams_are_found_by_holder(self, store: Store) -> None:
        mine = [held(store, created(store))[0] for _ in range(3)]
        theirs, _ = held(store, created(store), "w2")
        created(store)
        assert store.held_by("w1") == mine
        assert store.held_by("w2") == [theirs]
        assert store.held_by("w3") == []

    def test_a_worker_is_dead_when_its_lease_ended_or_it_has_none(self, store: Store) -> None:
        for worker in ("w3", "w1", "w2"):
            held(store, created(store), worker)
            held(store, created(store), worker)
        assert store.dead_workers(0) == ["w1", "w2", "w3"]
        write(store, lambda t: t.put_worker(Worker("w1", 100)), lambda t: t.put_worker(Worker("w2", 200)))
        assert store.dead_workers(99) == ["w3"]
        assert store.dead_workers(100) == ["w1", "w3"]
        write(store, lambda t: t.put_worker(Worker("w1", 300)), lambda t: t.forget_worker("w2"))
        assert store.dead_workers(100) == ["w2", "w3"]
        assert store.dead_workers(300) == ["w1", "w2", "w3"]


class TestDue:
    def test_streams_are_due_longest_first_up_to_the_limit(self, store: Store) -> None:
        late, early, same = due(store, 30), due(store, 10), due(store, 10)
        future, asleep = due(store, 31), due(store, None)
        held(store, due(store, 5))
        assert store.due(30, limit=10) == [early, same, late]
        assert store.due(30, limit=2) == [early, same]
        assert store.due(9, limit=10) == []
        assert store.due(31, limit=10)[-1] == future
        assert asleep not in store.due(10**15, limit=10)

    def test_only_names_that_the_caller_can_run_are_due(self, store: Store) -> None:
        due(store, 1, name="busy")
        ship = due(store, 2, name="ship")
        odd = due(store, 3, name='od"d')
        assert store.due(9, limit=10, names=("ship", 'od"d', "unknown")) == [ship, odd]
        assert store.due(9, limit=1, names=("ship", 'od"d')) == [ship]
        assert store.due(9, limit=10, names=()) == []
        assert store.next_wake(names=('od"d', "ship")) == 2
        assert store.next_wake(names=("unknown",)) is None

    def test_a_pinned_stream_is_due_for_its_version_only(self, store: Store) -> None:
        pinned = due(store, 1, name="pay", version="pay@a2:1!")
        other = due(store, 2, name="pay", version="pay@a2:2!")
        free = due(store, 3, name="pay", version="pay@a2:1")
        assert store.due(9, limit=10) == [pinned, other, free]
        assert store.due(9, limit=10, names=("pay",)) == [free]
        assert store.due(9, limit=10, names=("pay",), versions=("pay@a2:1!",)) == [pinned, free]
        assert store.due(9, limit=10, names=("ship",), versions=("pay@a2:1!",)) == []
        assert store.next_wake() == 1
        assert store.next_wake(names=("pay",)) == 3
        assert store.next_wake(names=("pay",), versions=("pay@a2:2!", "ship@a2:1!")) == 2

    def test_the_functions_with_pinned_executions_are_known(self, store: Store) -> None:
        assert store.pinned() == []
        due(store, 1, name="free", version="free@a2:1")
        ends = due(store, None, name="ship", version="ship@a2:1!")
        let_go = due(store, 1, name="pay", version="pay@a2:1!")
        due(store, 1, name="pay", version="pay@a2:2!")
        assert store.pinned() == ["pay", "ship"]
        write(store, lambda t: t.put(replace(ends, status="SUCCEEDED", ended_ms=5)))
        write(store, lambda t: t.put(replace(let_go, version="pay@a2:1")))
        assert store.pinned() == ["pay"]

    def test_the_next_wake_is_the_earliest_of_those_nobody_holds(self, store: Store) -> None:
        assert store.next_wake() is None
        due(store, None)
        assert store.next_wake() is None
        stream = due(store, 20)
        due(store, 30)
        assert store.next_wake() == 20
        held(store, stream)
        assert store.next_wake() == 30

    def test_a_change_of_wake_and_holder_is_seen(self, store: Store) -> None:
        stream = due(store, 5)
        taken, lease = held(store, stream)
        assert store.due(9, limit=10) == []
        write(store, lambda t: t.put(replace(taken, holder=None, wake_ms=8), lease=lease))
        assert [found.number for found in store.due(9, limit=10)] == [stream.number]
        write(store, lambda t: t.put(replace(taken, holder=None, wake_ms=None, status=PARKED)))
        assert store.due(9, limit=10) == []


class TestKeys:
    def test_a_key_is_put_replaced_and_forgotten(self, backend: Backend) -> None:
        store = backend.open()
        stream = created(store)
        key = a_key(store, "k", stream, settled_seq=0)
        assert store.key(key.id) is None
        write(store, lambda t: t.put_key(key))
        assert store.key(key.id) == key
        settled = Key(key.id, stream.number, "op-2", b"\x00\xff", 7, 99)
        write(store, lambda t: t.put_key(settled))
        assert backend.reopen().key(key.id) == settled
        store = backend.open()
        write(store, lambda t: t.forget_key(key.id), lambda t: t.forget_key(key_id("never there")))
        assert store.key(key.id) is None
        write(store, lambda t: t.put_key(key))
        assert store.key(key.id) == key

    def test_a_key_is_unique_within_namespace_and_operation(self, store: Store) -> None:
        stream = created(store)
        keys = [
            Key(id, stream.number, f"op-{place}", b"")
            for place, id in enumerate(
                (key_id("k"), key_id("K"), key_id("k", "fn:ship"), replace(key_id("k"), namespace="other"))
            )
        ]
        write(store, *(lambda t, key=key: t.put_key(key) for key in keys))
        assert [store.key(key.id) for key in keys] == keys

    @pytest.mark.parametrize("odd", ["", "0", " ", "'", '"', "%", "é", "a\x00b", "🔑", "x" * 10_000])
    def test_odd_keys_are_themselves(self, store: Store, odd: str) -> None:
        stream = created(store)
        actor = new_actor(store, odd)
        key = a_key(store, odd, stream)
        write(store, lambda t: t.put_key(key), lambda t: t.create(actor))
        transaction = store.begin([Needs(keys=(key.id,), addresses=(actor.address,), streams=(actor.number,))])
        assert transaction.key(key.id) == store.key(key.id) == key
        assert transaction.stream_by_address(actor.address) == store.stream_by_address(actor.address) == actor
        assert store.key(key_id(odd + "x")) is None
        assert store.key(key_id("x" + odd)) is None

    def test_what_a_batch_asks_for_is_what_is_stored(self, store: Store) -> None:
        open_, settled, called = created(store), created(store), new_actor(store, "a")
        ids = [key_id("open"), key_id("settled"), key_id("called", "actor:Cart/a"), key_id("waiting", "actor:Cart/a")]
        ids.append(key_id("large", "actor:Cart/a"))

        def fill(t: Transaction) -> None:
            t.append(None, open_, count=1, body=b"begun")
            now = t.append(None, settled, count=1, body=b"begun")
            t.append(None, now, count=2, body=b"outcome", status="SUCCEEDED")
            t.create(called)
            now = t.append(None, called, count=1, body=b"message")
            now = t.append(None, now, count=1, body=b"reply")
            t.append(None, now, count=1, body=b"more" * 100_000)
            for id, stream, seq in zip(ids, (open_, settled, called, called, called), (0, 0, 2, 0, 3), strict=True):
                t.put_key(Key(id, stream.number, "op", b"\x00\xffprint", seq))

        write(store, fill)
        transaction = store.begin(
            [Needs(keys=tuple(ids)), Needs(keys=(key_id("new"),)), Needs(addresses=(called.address,))]
        )
        assert [transaction.key(id) for id in ids] == [store.key(id) for id in ids]
        assert transaction.key(key_id("new")) is None
        for stream in (open_, settled, called):
            assert transaction.stream(stream.number) == store.stream(stream.number)
        assert transaction.stream_by_address(called.address) == store.stream(called.number)
        assert transaction.row_at(settled.number, 2) == Row(settled.number, 2, 2, b"outcome")
        assert transaction.row_at(called.number, 2) == Row(called.number, 2, 1, b"reply")
        assert transaction.row_at(called.number, 3) == Row(called.number, 3, 1, b"more" * 100_000)
        assert transaction.row_at(called.number, 9) is None

    @pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 600])
    def test_a_batch_of_any_size_is_written_and_found(self, backend: Backend, size: int) -> None:
        store = backend.open()
        streams = [new_actor(store, f"a{place}", wake_ms=place) for place in range(size)]

        def one(t: Transaction, stream: Stream) -> None:
            t.create(stream)
            t.append(None, stream, count=1, body=stream.uid.encode())
            t.put_key(a_key(store, stream.uid, stream))

        write(store, *(lambda t, stream=stream: one(t, stream) for stream in streams))
        store = backend.reopen()
        needs = [
            Needs(streams=(stream.number,), keys=(key_id(stream.uid),), addresses=(stream.address,))
            for stream in streams
        ]
        transaction = store.begin(needs)
        for stream in streams:
            now = transaction.stream_by_address(stream.address)
            assert now == replace(stream, head=1, tail=1) == transaction.stream(stream.number)
            assert transaction.key(key_id(stream.uid)) == a_key(store, stream.uid, stream)
            transaction.append(None, now, count=1, body=b"2", wake_ms=None, holder="w")
            transaction.forget_key(key_id(stream.uid))
        store.commit(transaction)
        store = backend.reopen()
        assert store.held_by("w") == [replace(stream, head=2, tail=2, wake_ms=None, holder="w") for stream in streams]
        assert all(store.rows(s.number)[0].body == s.uid.encode() for s in streams)
        assert all(store.key(key_id(s.uid)) is None for s in streams)


class TestBatches:
    def test_a_call_that_raises_leaves_nothing_and_the_others_commit(self, store: Store) -> None:
        first, second = created(store), created(store)
        key, actor = a_key(store, "k", first), new_actor(store, "a")
        write(store, lambda t: t.put_key(key), lambda t: t.put_worker(Worker("w", 1)))

        def raises(t: Transaction) -> None:
            now = t.append(None, t.stream(first.number), count=1, body=b"no", holder="no")
            t.append(None, now, count=1, body=b"no")
            t.create(actor)
            t.put(replace(actor, status="NO"))
            t.forget_key(key.id)
            t.put_key(a_key(store, "other", first))
            t.forget_worker("w")
            raise KeyboardInterrupt

        transaction = store.begin(())
        transaction.attempt(lambda t: t.append(None, first, count=1, body=b"before"))
        with pytest.raises(KeyboardInterrupt):
            transaction.attempt(raises)
        transaction.attempt(lambda t: t.append(None, second, count=1, body=b"after"))
        assert transaction.stream_by_address(actor.address) is None
        store.commit(transaction)
        assert [row.body for row in store.rows(first.number)] == [b"before"]
        assert [row.body for row in store.rows(second.number)] == [b"after"]
        assert store.stream(first.number) == replace(first, head=1, tail=1)
        assert store.stream_by_address(actor.address) is None
        assert store.key(key.id) == key
        assert store.key(key_id("other")) is None
        assert store.held_by("no") == []

    def test_a_call_reads_what_the_calls_before_it_wrote(self, store: Store) -> None:
        actor, stream = new_actor(store, "a"), created(store)
        key = a_key(store, "k", stream)
        transaction = store.begin([Needs(keys=(key.id,), addresses=(actor.address,), streams=(stream.number,))])
        transaction.create(actor)
        after = transaction.append(None, stream, count=1, body=b"x")
        second = transaction.append(None, after, count=1, body=b"y")
        transaction.put_key(key)
        assert transaction.stream(actor.number) == transaction.stream_by_address(actor.address) == actor
        assert transaction.stream(stream.number) == second
        assert transaction.row_at(stream.number, 1) == Row(stream.number, 1, 1, b"x")
        assert transaction.row_at(stream.number, 2) == Row(stream.number, 2, 1, b"y")
        assert transaction.key(key.id) == key
        transaction.forget_key(key.id)
        assert transaction.key(key.id) is None
        with pytest.raises(ConflictError, match="read again"):
            transaction.create(new_actor(store, "a"))
        assert store.stream(actor.number) is None, "a store shows what is committed"
        assert store.row_at(stream.number, 1) is None
        store.commit(transaction)
        assert store.stream(stream.number) == second
        assert store.stream(actor.number) == actor

    def test_a_batch_that_is_not_committed_leaves_nothing(self, backend: Backend) -> None:
        store = backend.open()
        stream = created(store)
        before = contents(store)
        transaction = store.begin(())
        transaction.append(None, stream, count=1, body=b"x")
        transaction.create(new_stream(store))
        assert contents(store) == before
        assert contents(backend.reopen()) == before

    def test_an_empty_batch_is_nothing(self, store: Store) -> None:
        transaction = store.begin([Needs()])
        assert not transaction.has_writes
        store.commit(transaction)

    def test_what_is_committed_is_there_after_a_restart(self, backend: Backend) -> None:
        store = backend.open()
        for place in range(5):
            stream = created(store, wake_ms=place)
            write(
                store,
                lambda t, stream=stream: t.append(None, stream, count=1, body=b"x"),
                lambda t, stream=stream: t.put_key(a_key(store, stream.uid, stream)),
                lambda t, place=place: t.put_worker(Worker(f"w{place}", place)),
            )
            held(store, store.stream(stream.number), f"w{place}")
        before = contents(store)
        again = backend.reopen()
        assert contents(again) == before
        assert again.dead_workers(2) == ["w0", "w1", "w2"]


class TestHandles:
    def test_a_reader_sees_what_is_committed_and_only_that(self, store: Store) -> None:
        reader = store.reader()
        stream = created(store)
        transaction = store.begin(())
        transaction.append(None, stream, count=1, body=b"x")
        assert reader.stream(stream.number) == stream
        assert reader.rows(stream.number) == []
        store.commit(transaction)
        assert reader.rows(stream.number) == store.rows(stream.number) != []
        reader.close()
        with pytest.raises(UnavailableError):
            reader.stream(stream.number)
        assert store.stream(stream.number) is not None

    def test_a_closed_store_answers_nothing(self, store: Store) -> None:
        transaction = store.begin(())
        transaction.create(new_stream(store))
        store.close()
        store.close()
        calls = [
            lambda: store.stream(1),
            lambda: store.stream_by_uid("u"),
            lambda: store.stream_by_address(Address("n", ACTOR, "t", "k")),
            lambda: store.key(key_id("k")),
            lambda: store.rows(1),
            lambda: store.row_at(1, 1),
            lambda: store.due(1, limit=1),
            lambda: store.next_wake(),
            lambda: store.held_by("w"),
            lambda: store.dead_workers(1),
            lambda: store.list(Filter()),
            lambda: store.scan_ended(0, until_ms=1, limit=1),
            lambda: store.scan_expired(None, now_ms=1, limit=1),
            lambda: store.begin([Needs(keys=(key_id("k"),))]),
            lambda: store.commit(transaction),
            lambda: store.next_stream(),
            lambda: store.reader(),
        ]
        for call in calls:
            with pytest.raises(UnavailableError) as caught:
                call()
            assert caught.value.definite, "nothing was done"
