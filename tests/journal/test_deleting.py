"""Delete, forget-key and the retention sweep, one transaction each."""

from __future__ import annotations

import msgspec
import pytest

from semel.errors import ConflictError, IdempotencyConflictError, JournalCorruptError, NotFoundError, WrongStatusError
from semel.journal import executions, lifecycle
from semel.kernel.entry import Settled
from semel.store.base import Ended, Key, KeyId, Stream
from tests.journal.places import RETENTION_MS, WORKER, Journal, a_start, payload


def finished(journal: Journal, order: str = "order-1", result: object = "done", *, now_ms: int = 2_000) -> Stream:
    stream = journal.start(order, worker=WORKER).stream
    return journal.finish(stream, result, now_ms=now_ms).stream


def delete(journal: Journal, stream: Stream, *, now_ms: int = 3_000) -> Stream:
    return journal.do(
        lambda transaction: lifecycle.delete(transaction, stream.number, retention_ms=RETENTION_MS, now_ms=now_ms)
    )


def forget(journal: Journal, key: str) -> None:
    journal.do(lambda transaction: lifecycle.forget_key(transaction, KeyId("default", "fn:pay", key)))


def sweep(journal: Journal, *streams: Stream, now_ms: int) -> int:
    ended = [Ended(s.number, s.namespace, s.name, s.key, s.ended_ms or 0) for s in streams]
    return journal.do(
        lambda transaction: lifecycle.sweep(transaction, ended, retention_of=lambda _: RETENTION_MS, now_ms=now_ms)
    )


def is_gone(journal: Journal, stream: Stream) -> bool:
    store = journal.store
    return (store.stream(stream.number), store.stream_by_uid(stream.uid), store.rows(stream.number)) == (None, None, [])


def test_a_deleted_execution_leaves_no_row_of_its_own(journal: Journal) -> None:
    stream, other = finished(journal), finished(journal, "order-2")
    journal_rows = journal.store.rows(other.number)
    assert delete(journal, stream) == stream
    assert is_gone(journal, stream)
    assert journal.store.stream(other.number) == other
    assert journal.store.rows(other.number) == journal_rows


def test_J10_the_same_request_gets_the_outcome_of_a_deleted_execution_until_its_key_expires(journal: Journal) -> None:
    stream = finished(journal, result={"paid": 7})
    before = journal.start(now_ms=2_500, uid="another").outcome
    delete(journal, stream)
    after = journal.start(now_ms=2_000 + RETENTION_MS - 1, uid="another")
    assert (after.is_new, after.outcome) == (False, before)
    assert after.outcome == Settled(stream.uid, result=payload({"paid": 7}))
    assert (after.stream.uid, after.stream.status, after.stream.number) == (stream.uid, "SUCCEEDED", stream.number)
    with pytest.raises(IdempotencyConflictError):
        journal.start(order="pen", now_ms=2_500)
    new = journal.start(now_ms=2_000 + RETENTION_MS, order="pen", uid="uid-2")
    assert new.is_new
    key = journal.key("order-1")
    assert key is not None
    assert (key.operation, key.outcome, key.expiry_ms) == ("uid-2", None, None)


def test_J10_a_failure_and_a_stop_are_kept_as_they_were(journal: Journal) -> None:
    stopped = journal.stop(journal.start().stream.number, reason="enough", now_ms=2_000)
    before = journal.start(now_ms=2_500).outcome
    delete(journal, stopped)
    assert journal.start(now_ms=2_600).outcome == before
    assert before is not None
    assert before.error is not None
    assert before.error.message == "enough"


def test_what_has_not_ended_is_not_deleted(journal: Journal) -> None:
    running, paused = journal.start().stream, journal.start("order-2").stream
    journal.do(lambda transaction: lifecycle.pause(transaction, paused.number, reason="", now_ms=2_000))
    for stream, status in ((running, "RUNNING"), (paused, "PAUSED")):
        with pytest.raises(WrongStatusError, match=f"cannot be deleted, it is {status}, expected one that has ended"):
            delete(journal, stream)
    with pytest.raises(NotFoundError):
        delete(journal, msgspec.structs.replace(running, number=99))


def test_a_delete_after_the_retention_leaves_no_key(journal: Journal) -> None:
    stream = finished(journal)
    delete(journal, stream, now_ms=2_000 + RETENTION_MS)
    assert journal.key("order-1") is None


def test_a_delete_leaves_the_key_of_a_later_execution_alone(journal: Journal) -> None:
    old = finished(journal)
    new = journal.start(now_ms=2_000 + RETENTION_MS, uid="uid-2", order="pen").stream
    delete(journal, old, now_ms=RETENTION_MS)
    key = journal.key("order-1")
    assert key is not None
    assert (key.stream, key.outcome) == (new.number, None)
    assert journal.start(now_ms=3_000 + RETENTION_MS, order="pen").stream == new


def test_R3_an_end_and_a_delete_in_one_batch_leave_the_outcome_only(journal: Journal) -> None:
    stream = journal.start(worker=WORKER).stream
    _, deleted, again, twice = journal.run(
        lambda transaction: lifecycle.stop(transaction, stream.number, reason="enough", now_ms=2_000),
        lambda transaction: lifecycle.delete(transaction, stream.number, retention_ms=RETENTION_MS, now_ms=2_000),
        lambda transaction: executions.start(transaction, a_start(uid="another", now_ms=2_100)),
        lambda transaction: lifecycle.delete(transaction, stream.number, retention_ms=RETENTION_MS, now_ms=2_000),
    )
    assert deleted.status == "STOPPED"
    assert isinstance(twice, NotFoundError)
    assert again.outcome.error.message == "enough"
    assert is_gone(journal, stream)


def test_who_still_holds_a_row_of_a_deleted_stream_writes_nothing(journal: Journal) -> None:
    stream = finished(journal)
    delete(journal, stream)
    with pytest.raises(ConflictError, match="found no stream"):
        journal.do(lambda transaction: transaction.append(None, stream, count=1, body=b"late"))
    assert is_gone(journal, stream)


def test_an_outcome_that_its_key_has_lost_is_corruption(journal: Journal) -> None:
    stream = finished(journal)
    delete(journal, stream)
    key = journal.key("order-1")
    assert key is not None
    journal.put_key(msgspec.structs.replace(key, operation="other"))
    with pytest.raises(JournalCorruptError, match="the outcome of 'other' is missing"):
        journal.start(now_ms=2_500)
    journal.put_key(msgspec.structs.replace(key, outcome=b"torn"))
    with pytest.raises(JournalCorruptError, match="found 4 bytes"):
        journal.start(now_ms=2_500)


# Keys.


@pytest.mark.parametrize("deleted", [True, False])
def test_a_forgotten_key_is_free_for_another_request(journal: Journal, *, deleted: bool) -> None:
    stream = finished(journal)
    if deleted:
        delete(journal, stream)
    forget(journal, "order-1")
    assert journal.key("order-1") is None
    assert journal.start(order="pen", uid="uid-2", now_ms=2_500).is_new


def test_the_key_of_what_runs_is_not_forgotten(journal: Journal) -> None:
    stream = journal.start().stream
    with pytest.raises(WrongStatusError, match="cannot lose its key, it is RUNNING"):
        forget(journal, "order-1")
    with pytest.raises(NotFoundError, match="key 'order-9' of fn:pay: there is none"):
        forget(journal, "order-9")
    assert journal.start().stream == stream


# The sweep.


def test_the_sweep_removes_what_ended_a_retention_ago_with_its_key(journal: Journal) -> None:
    old, young = finished(journal, now_ms=2_000), finished(journal, "order-2", now_ms=3_000)
    running = journal.start("order-3").stream
    assert sweep(journal, old, young, running, now_ms=2_000 + RETENTION_MS) == 1
    assert is_gone(journal, old)
    assert journal.key("order-1") is None
    assert journal.store.stream(young.number) == young
    assert journal.key("order-2") is not None
    assert journal.store.stream(running.number) == running
    assert sweep(journal, old, now_ms=2_000 + RETENTION_MS) == 0
    assert journal.start(order="pen", uid="uid-2", now_ms=2_000 + RETENTION_MS).is_new


def test_the_sweep_leaves_the_key_of_a_later_execution_alone(journal: Journal) -> None:
    old = finished(journal)
    new = journal.start(now_ms=2_000 + RETENTION_MS, uid="uid-2").stream
    assert sweep(journal, old, now_ms=2_000 + RETENTION_MS) == 1
    key = journal.key("order-1")
    assert key is not None
    assert key.stream == new.number


def test_the_sweep_removes_expired_keys_and_no_others(journal: Journal) -> None:
    stream = finished(journal)
    delete(journal, stream)
    journal.start("order-2")
    ids = [KeyId("default", "fn:pay", name) for name in ("order-1", "order-2", "order-3")]
    for now_ms, count in ((1_999 + RETENTION_MS, 0), (2_000 + RETENTION_MS, 1), (3_000 + RETENTION_MS, 0)):
        assert journal.do(lambda transaction, at=now_ms: lifecycle.sweep_keys(transaction, ids, now_ms=at)) == count
    assert journal.key("order-1") is None
    assert journal.key("order-2") is not None


def test_a_scan_finds_what_has_ended_page_by_page(journal: Journal) -> None:
    done = [finished(journal, f"order-{number}", now_ms=2_000 + number) for number in range(4)]
    journal.start("running")
    journal.send()
    expected = [Ended(s.number, "default", "pay", s.key, s.ended_ms or 0) for s in done[:3]]
    found, after = [], 0
    while True:
        scan = journal.store.scan_ended(after, until_ms=2_002, limit=2)
        found += scan.found
        if scan.last is None:
            break
        assert scan.last > after
        after = scan.last
    assert found == expected


def test_a_scan_finds_expired_keys_page_by_page(journal: Journal) -> None:
    names = ["a", "b", "c", "d", "e"]
    for place, name in enumerate(names):
        journal.put_key(Key(KeyId("default", "fn:pay", name), 1, "op", b"print", expiry_ms=place or None))
    found, after = [], None
    while True:
        scan = journal.store.scan_expired(after, now_ms=3, limit=2)
        found += [key.key for key in scan.found]
        if scan.last is None:
            break
        after = scan.last
    assert found == ["b", "c", "d"]


def test_a_stopped_execution_is_kept_as_long_as_any(journal: Journal) -> None:
    lease_stream = journal.start(worker=WORKER).stream
    stopped = journal.stop(lease_stream.number, now_ms=5_000)
    assert sweep(journal, stopped, now_ms=4_999 + RETENTION_MS) == 0
    assert sweep(journal, stopped, now_ms=5_000 + RETENTION_MS) == 1
