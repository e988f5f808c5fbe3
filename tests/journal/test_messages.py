"""Sending messages: an arrival is stored whoever holds the actor, and one key is one message."""

from __future__ import annotations

import msgspec
import pytest

from semel.errors import IdempotencyConflictError, JournalCorruptError
from semel.executions import control_of
from semel.journal import holding, messages
from semel.journal.advance import EndTurn, Then, advance
from semel.journal.lifecycle import park, resume
from semel.kernel.entry import Kind, Settled, Started
from semel.kernel.mailbox import Mailbox
from semel.kernel.operation import Action
from semel.store.base import ACTOR, Address, KeyId, Stream
from tests.journal.places import RETENTION_MS, WORKER, Journal, a_message, do, payload

KEYS = "actor:Till/shop-1"


def suspended(journal: Journal) -> Stream:
    """An actor whose turn of m1 waits for an hour."""
    stream = journal.claim(journal.send().stream.number)
    wait = do("m1-1", Kind.WAIT, Action.START, 2_000, parent="m1", due_ms=3_602_000)
    return journal.advance(holding.lease_of(stream), wait, then=Then.RELEASE, turn="m1").stream


def test_the_first_message_makes_the_actor_and_wakes_it(journal: Journal) -> None:
    answer = journal.send()
    stream = journal.stream(answer.stream.number)
    assert answer.stream == stream
    assert (answer.message, answer.seq, answer.outcome, answer.is_claimed) == ("m1", 1, None, False)
    assert (stream.type, stream.name, stream.key, stream.uid) == (ACTOR, "Till", "shop-1", "uid-shop-1")
    assert (stream.wake_ms, stream.holder, stream.head, stream.epoch) == (1_000, None, 1, 0)
    assert journal.store.stream_by_address(Address("default", ACTOR, "Till", "shop-1")) == stream
    (started,) = journal.entries(stream.number)
    assert isinstance(started, Started)
    assert (started.operation, started.kind, started.name) == ("m1", Kind.MESSAGE, "pay")
    assert (started.payload, started.message) == (payload(["book"]), a_message().header)


def test_more_messages_go_to_the_same_actor_each_with_an_id_of_its_own(journal: Journal) -> None:
    first, second = journal.send(), journal.send(uid="uid-ignored", now_ms=1_500)
    other = journal.send(actor="shop-2")
    assert first.stream.number == second.stream.number != other.stream.number
    assert (first.message, second.message, other.message) == ("m1", "m2", "m1")
    assert len(Mailbox.of(journal.records(first.stream.number))) == 2


def test_two_first_messages_in_one_batch_make_one_actor(journal: Journal) -> None:
    first, second = journal.run(
        lambda transaction: messages.send(transaction, a_message()),
        lambda transaction: messages.send(transaction, a_message(order="pen")),
    )
    assert first.stream.number == second.stream.number
    assert (first.message, second.message) == ("m1", "m2")


def test_a_sender_whose_worker_has_room_claims_the_actor_with_the_message(journal: Journal) -> None:
    answer = journal.send(worker=WORKER)
    assert answer.is_claimed
    assert (answer.stream.holder, answer.stream.epoch, answer.stream.invocation) == (WORKER, 1, 1)
    assert answer.stream.wake_ms is None
    assert not journal.send(worker="worker-2").is_claimed


def test_J5_an_arrival_is_never_refused_because_of_a_lease(journal: Journal) -> None:
    held = journal.claim(journal.send().stream.number)
    answer = journal.send(now_ms=1_500, worker="worker-2")
    stream = answer.stream
    assert (stream.holder, stream.epoch, stream.wake_ms, answer.is_claimed) == (WORKER, held.epoch, None, False)
    assert stream.head == held.head + 1
    journal.handle(holding.lease_of(held), "m1")  # and it disturbs no holder


def test_J8_priority_goes_before_arrival(journal: Journal) -> None:
    for priority in (0, 5, -1, 5):
        number = journal.send(priority=priority).stream.number
    mailbox = Mailbox.of(journal.records(number))
    order = [message.id for message in iter(mailbox.take, None)]
    assert order == ["m2", "m4", "m1", "m3"]


def test_J8_a_message_to_an_actor_whose_turn_is_open_wakes_nobody(journal: Journal) -> None:
    waiting = suspended(journal)
    answer = journal.send(now_ms=2_500, worker="worker-2")
    assert (answer.stream.wake_ms, answer.stream.holder, answer.stream.turn) == (3_602_000, None, "m1")
    assert not answer.is_claimed
    assert answer.stream.head == waiting.head + 1


def test_a_message_to_a_parked_actor_is_kept_and_wakes_nobody_until_it_is_resumed(journal: Journal) -> None:
    stream = journal.claim(journal.send().stream.number)
    journal.do(lambda transaction: park(transaction, holding.lease_of(stream), reason="odd", now_ms=1_500))
    answer = journal.send(now_ms=1_600, worker="worker-2")
    assert (answer.stream.status, answer.stream.wake_ms, answer.stream.holder) == ("PARKED", None, None)
    assert journal.store.due(10**12, limit=9) == []
    resumed = journal.do(lambda transaction: resume(transaction, stream.number, reason="mended", now_ms=9_000))
    assert resumed.wake_ms == 9_000
    assert len(Mailbox.of(journal.records(stream.number))) == 2


def test_the_reason_of_a_parked_actor_is_known_also_after_more_messages(journal: Journal) -> None:
    stream = journal.claim(journal.send().stream.number)
    journal.do(lambda transaction: park(transaction, holding.lease_of(stream), reason="odd", now_ms=1_500))
    parked = journal.send(now_ms=1_600).stream
    assert control_of(journal.store, parked).reason == "odd"
    assert control_of(journal.store, journal.send(actor="shop-2").stream).reason == ""


def test_J10_the_same_request_joins_the_open_message(journal: Journal) -> None:
    first = journal.send(key="k")
    before = journal.contents()
    second = journal.send(key="k", now_ms=10**9, worker=WORKER)
    assert (second.message, second.outcome, second.append, second.is_claimed) == (first.message, None, None, False)
    assert journal.contents() == before


def test_J10_the_same_request_gets_the_recorded_reply(journal: Journal) -> None:
    stream = journal.send(key="k", worker=WORKER).stream
    journal.handle(holding.lease_of(stream), "m1", {"total": 7})
    before = journal.contents()
    answer = journal.send(key="k", now_ms=2_000 + RETENTION_MS - 1)
    assert answer.outcome == Settled("m1", result=payload({"total": 7}))
    assert (answer.message, answer.append) == ("m1", None)
    assert journal.contents() == before


def test_J10_the_reply_is_found_within_the_batch_that_wrote_it(journal: Journal) -> None:
    stream = journal.send(key="k", worker=WORKER).stream
    end = do("m1", Kind.MESSAGE, Action.SUCCEED, 2_000, payload=payload("ok"))
    request = journal.request(holding.lease_of(stream), [EndTurn("m1", 2_000), end], 2_000)
    _, answer = journal.run(
        lambda transaction: advance(transaction, request),
        lambda transaction: messages.send(transaction, a_message(key="k", now_ms=2_100)),
    )
    assert answer.outcome.result == payload("ok")


@pytest.mark.parametrize("other", [{"order": "pen"}, {"method": "refund"}])
def test_J10_another_request_under_the_key_is_refused_and_changes_nothing(
    journal: Journal, other: dict[str, str]
) -> None:
    stream = journal.send(key="k", worker=WORKER).stream
    for _ in ("open", "settled"):
        with pytest.raises(IdempotencyConflictError) as refusal:
            journal.send(key="k", **other)
        assert (refusal.value.operation, refusal.value.key) == (KEYS, "k")
        if Mailbox.of(journal.records(stream.number)).head() is not None:
            journal.handle(holding.lease_of(stream), "m1")


def test_J10_a_key_is_unique_within_its_actor(journal: Journal) -> None:
    one, other = journal.send(key="k"), journal.send(key="k", actor="shop-2", order="pen")
    assert one.stream.number != other.stream.number
    assert other.append is not None


def test_J10_an_expired_key_is_a_new_message(journal: Journal) -> None:
    stream = journal.send(key="k", worker=WORKER).stream
    journal.handle(holding.lease_of(stream), "m1", now_ms=2_000)
    answer = journal.send(key="k", order="pen", now_ms=2_000 + RETENTION_MS)
    assert answer.message == f"m{answer.seq}" != "m1"
    key = journal.key("k", KEYS)
    assert key is not None
    assert (key.operation, key.settled_seq, key.expiry_ms) == (answer.message, 0, None)


def test_J10_without_a_key_each_request_is_a_message(journal: Journal) -> None:
    assert journal.send().message != journal.send().message
    assert journal.key("", KEYS) is None


def test_J10_a_key_whose_stream_or_reply_is_gone_is_corruption_and_never_a_second_run(journal: Journal) -> None:
    stream = journal.send(key="k", worker=WORKER).stream
    journal.handle(holding.lease_of(stream), "m1")
    key = journal.key("k", KEYS)
    assert key is not None
    cases: list[tuple[dict[str, int], str]] = [
        ({"settled_seq": 1}, "the outcome of 'm1' is missing"),
        ({"settled_seq": 77}, "the outcome of 'm1' is missing"),
        ({"stream": 99}, "it names stream 99, which is gone"),
    ]
    for broken, problem in cases:
        journal.put_key(msgspec.structs.replace(key, **broken))
        with pytest.raises(JournalCorruptError, match=problem):
            journal.send(key="k")


def test_J1_a_message_is_never_earlier_than_the_one_before(journal: Journal) -> None:
    journal.send(now_ms=5_000)
    number = journal.send(now_ms=4_000).stream.number  # the clock stepped back
    assert [(record.seq, record.time_ms) for record in journal.records(number)] == [(1, 5_000), (2, 5_000)]
    assert journal.stream(number).time_ms == 5_000


def test_the_keys_of_an_actor_are_named_after_it() -> None:
    request = a_message(key="k")
    assert request.key_id == KeyId("default", KEYS, "k")
    assert messages.operation_of(request.address) == KEYS
