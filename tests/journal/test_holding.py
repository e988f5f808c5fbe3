"""Who may write: claims in order, leases that end, and what a new holder reads."""

from __future__ import annotations

import msgspec
import pytest

from semel.errors import JournalCorruptError, LeaseLost
from semel.journal import holding
from semel.journal.advance import EndTurn, Then, held_stream
from semel.kernel.entry import Kind
from semel.kernel.mailbox import Mailbox
from semel.kernel.operation import Action
from semel.store.base import Row, Stream
from tests.journal.places import WORKER, Journal, do, payload


def claim(
    journal: Journal, *, now_ms: int = 10_000, limit: int = 9, names: tuple[str, ...] = ("pay", "Till")
) -> list[int]:
    claimed = journal.do(
        lambda transaction: holding.claim(transaction, WORKER, now_ms=now_ms, limit=limit, names=names)
    )
    return [stream.number for stream in claimed]


def test_what_has_been_due_longest_is_claimed_first_up_to_the_limit(journal: Journal) -> None:
    late = journal.start("order-1", now_ms=3_000).stream.number
    early = journal.start("order-2", now_ms=1_000).stream.number
    actor = journal.send(now_ms=2_000).stream.number
    assert claim(journal, limit=2) == [early, actor]
    assert claim(journal, limit=2) == [late]
    assert claim(journal) == []


def test_what_is_not_due_or_not_ours_to_run_is_left(journal: Journal) -> None:
    journal.start(now_ms=3_000)
    assert claim(journal, now_ms=2_999) == []
    assert claim(journal, names=("ship",)) == []
    assert claim(journal, names=()) == []
    assert len(claim(journal, now_ms=3_000)) == 1


def test_J4_each_claim_is_a_new_epoch_and_the_former_holder_may_write_no_more(journal: Journal) -> None:
    number = journal.start().stream.number
    claim(journal)
    first = holding.lease_of(journal.stream(number))
    assert (first.epoch, journal.stream(number).invocation, journal.stream(number).wake_ms) == (1, 1, None)
    journal.do(lambda transaction: holding.take(transaction, journal.stream(number), "worker-2"))
    second = holding.lease_of(journal.stream(number))
    assert (second.epoch, second.worker, journal.stream(number).invocation) == (2, "worker-2", 2)
    for then in (Then.KEEP, Then.RELEASE):
        with pytest.raises(LeaseLost, match=r"epoch 1 of worker 'worker-1' was superseded by epoch 2 of 'worker-2'"):
            journal.advance(first, do("1", Kind.STEP, Action.SUCCEED, 2_000), then=then)
    journal.advance(second, do("1", Kind.STEP, Action.SUCCEED, 2_000))


def test_J4_the_same_worker_under_its_former_epoch_is_superseded_too(journal: Journal) -> None:
    number = journal.start(worker=WORKER).stream.number
    former = holding.lease_of(journal.stream(number))
    journal.do(lambda transaction: holding.take(transaction, journal.stream(number), WORKER))
    with pytest.raises(LeaseLost):
        journal.advance(former, then=Then.RELEASE)


def test_J4_a_holder_of_what_was_deleted_has_lost_it(journal: Journal) -> None:
    lease = holding.lease_of(journal.start(worker=WORKER).stream)
    gone = msgspec.structs.replace(lease, stream=99)
    with pytest.raises(LeaseLost, match="it was deleted"):
        journal.do(lambda transaction: held_stream(transaction, gone))


def test_R3_two_workers_that_claim_in_one_batch_get_different_streams(journal: Journal) -> None:
    for key in ("order-1", "order-2"):
        journal.start(key)
    first, second = journal.run(
        lambda transaction: holding.claim(transaction, WORKER, now_ms=9_000, limit=1, names=("pay",)),
        lambda transaction: holding.claim(transaction, "worker-2", now_ms=9_000, limit=1, names=("pay",)),
    )
    assert len(first) == 1
    assert [stream.number for stream in second] in ([], [first[0].number + 1])
    assert journal.stream(first[0].number).holder == WORKER


def test_one_stream_is_claimed_due_or_not_unless_it_is_held_or_out_of_service(journal: Journal) -> None:
    number = journal.start(now_ms=9_999).stream.number
    assert journal.claim(number).epoch == 1
    assert journal.do(lambda transaction: holding.claim_one(transaction, number, WORKER)) is None
    assert journal.do(lambda transaction: holding.claim_one(transaction, 99, WORKER)) is None
    journal.finish(journal.stream(number), now_ms=10_500)
    assert journal.do(lambda transaction: holding.claim_one(transaction, number, WORKER)) is None


def test_a_claim_ends_the_suspension_of_a_turn(journal: Journal) -> None:
    stream = journal.claim(journal.send().stream.number)
    wait = do("m1-1", Kind.WAIT, Action.START, 2_000, parent="m1", due_ms=5_000)
    journal.advance(holding.lease_of(stream), wait, then=Then.RELEASE, turn="m1")
    assert claim(journal, now_ms=4_999) == []
    assert claim(journal, now_ms=5_000) == [stream.number]
    assert journal.stream(stream.number).turn == ""


def test_a_freed_stream_is_due_at_once_and_its_epoch_moves_with_the_next_claim(journal: Journal) -> None:
    held = journal.start(worker=WORKER).stream
    journal.do(lambda transaction: holding.free(transaction, held, now_ms=4_000))
    freed = journal.stream(held.number)
    assert (freed.holder, freed.wake_ms, freed.epoch) == (None, 4_000, held.epoch)
    with pytest.raises(LeaseLost):
        journal.advance(holding.lease_of(held), then=Then.RELEASE)
    assert claim(journal) == [held.number]
    assert journal.stream(held.number).epoch == held.epoch + 1


def three_holders(journal: Journal) -> list[Stream]:
    """Streams of a worker whose lease runs to 5,000, of one whose lease runs to 50,000, and of one unknown."""
    journal.do(lambda transaction: holding.register_worker(transaction, WORKER, now_ms=1_000, lease_ms=4_000))
    journal.do(lambda transaction: holding.register_worker(transaction, "worker-2", now_ms=1_000, lease_ms=49_000))
    return [
        journal.start(f"order-{place}", worker=worker).stream
        for place, worker in enumerate((WORKER, "worker-2", "worker-3"))
    ]


@pytest.mark.parametrize(("judged_at_ms", "freed"), [(4_999, [2]), (5_000, [0, 2]), (50_000, [0, 1, 2])])
def test_R5_what_the_dead_held_is_due_and_what_the_living_hold_is_left(
    journal: Journal, judged_at_ms: int, freed: list[int]
) -> None:
    streams = three_holders(journal)
    count = journal.do(
        lambda transaction: holding.void_leases_of_the_dead(transaction, judged_at_ms=judged_at_ms, now_ms=6_000)
    )
    assert count == len(freed)
    assert [place for place, held in enumerate(streams) if journal.stream(held.number).holder is None] == freed
    assert {journal.stream(streams[place].number).wake_ms for place in freed} == {6_000}
    assert len(claim(journal)) == len(freed)


def test_R5_a_new_owner_judges_at_the_end_of_time_and_spares_itself(journal: Journal) -> None:
    streams = three_holders(journal)
    count = journal.do(
        lambda transaction: holding.void_leases_of_the_dead(
            transaction, judged_at_ms=holding.FOREVER_MS, now_ms=6_000, alive=("worker-2",)
        )
    )
    assert count == 2
    assert [journal.stream(held.number).holder for held in streams] == [None, "worker-2", None]
    again = journal.do(
        lambda transaction: holding.void_leases_of_the_dead(
            transaction, judged_at_ms=holding.FOREVER_MS, now_ms=6_000, alive=("worker-2",)
        )
    )
    assert again == 0


def test_R5_what_changed_hands_in_the_same_batch_is_left_to_its_new_holder(journal: Journal) -> None:
    held = journal.start(worker="dead").stream
    _, count = journal.run(
        lambda transaction: holding.take(transaction, held, WORKER),
        lambda transaction: holding.void_leases_of_the_dead(
            transaction, judged_at_ms=holding.FOREVER_MS, now_ms=6_000, alive=(WORKER,)
        ),
    )
    assert count == 0
    assert journal.stream(held.number).holder == WORKER


def test_a_lease_that_is_renewed_runs_on(journal: Journal) -> None:
    stream = three_holders(journal)[0]
    journal.do(lambda transaction: holding.register_worker(transaction, WORKER, now_ms=4_900, lease_ms=4_000))
    journal.do(lambda transaction: holding.void_leases_of_the_dead(transaction, judged_at_ms=8_899, now_ms=8_899))
    assert journal.stream(stream.number).holder == WORKER


def test_a_new_holder_reads_every_record_in_order(journal: Journal) -> None:
    stream = journal.start(worker=WORKER).stream
    lease = holding.lease_of(stream)
    journal.advance(lease, do("1", Kind.STEP, Action.SUCCEED, 2_000), do("2", Kind.STEP, Action.START, 2_000))
    records = holding.read(journal.store, journal.stream(stream.number))
    assert [record.seq for record in records] == [1, 2, 3, 4]
    assert [type(record.entry).__name__ for record in records] == ["Started", "Started", "Settled", "Started"]
    assert records == journal.records(stream.number)


def test_J9_what_comes_before_the_base_is_not_needed_for_the_state(journal: Journal) -> None:
    stream = journal.send(worker=WORKER).stream
    lease = holding.lease_of(stream)
    for place in range(4):
        if place:
            journal.send(now_ms=2_000 + place)
        whole = Mailbox.of(journal.records(stream.number))
        head = whole.head()
        assert head is not None
        state = payload({"n": place}) if place % 2 else None
        journal.handle(lease, head.id, state=state, base=whole.base())
        journal.advance(lease, base=Mailbox.of(journal.records(stream.number)).base())
        read = holding.read(journal.store, journal.stream(stream.number))
        part, whole = Mailbox.of(read), Mailbox.of(journal.records(stream.number))
        assert (part.snapshot, part.turns(), len(part)) == (whole.snapshot, whole.turns(), len(whole))
    assert len(read) < len(journal.records(stream.number))


def test_a_forced_snapshot_moves_the_base_past_every_turn(journal: Journal) -> None:
    stream = journal.send(worker=WORKER).stream
    lease = holding.lease_of(stream)
    journal.handle(lease, "m1")
    journal.advance(lease, EndTurn("", 3_000, payload({"n": 1}), "Till@a1:1"))
    base = Mailbox.of(journal.records(stream.number)).base()
    released = journal.advance(lease, then=Then.RELEASE, base=base).stream
    assert released.base == base == 4
    assert (released.wake_ms, released.holder) == (None, None)
    assert [record.seq for record in holding.read(journal.store, released)] == [4]


def test_a_damaged_record_stops_the_read(journal: Journal) -> None:
    stream = journal.start().stream
    (row,) = journal.store.rows(stream.number)
    damaged = Row(row.stream, row.seq, row.count, row.body[:-1] + bytes([row.body[-1] ^ 1]))

    class Damaged:
        def rows(self, *_arguments: object, **_options: object) -> list[Row]:
            return [damaged]

    with pytest.raises(JournalCorruptError, match=rf"stream {stream.number}, seq 1"):
        holding.read(Damaged(), stream)  # type: ignore[arg-type]
