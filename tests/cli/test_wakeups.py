"""J11 as `semel doctor` reads it from a file."""

import msgspec
import pytest

from semel.cli.wakeups import PAGE, every_stream, scan, sleeping_problem
from semel.journal.executions import StartRequest, start
from semel.journal.holding import claim_one
from semel.journal.messages import SendRequest, send
from semel.kernel.entry import Kind, MessageHeader, Payload, Record, Settled, Started
from semel.store.base import ACTOR, PARKED, Address, Stream
from semel.store.memory import MemoryStore


def begin(store, key="k", *, now_ms=1000):
    request = StartRequest("default", "order", key, f"uid-{key}", Payload(b"\xc0"), b"f", "v", now_ms, 1)
    return commit(store, lambda transaction: start(transaction, request).stream)


def commit(store, call):
    transaction = store.begin([])
    made = transaction.attempt(call)
    store.commit(transaction)
    return made


def put(store, stream, **changes):
    changed = msgspec.structs.replace(stream, **changes)
    commit(store, lambda transaction: (transaction.stream(stream.number), transaction.put(changed)))
    return changed


@pytest.fixture
def store():
    return MemoryStore()


def test_an_empty_journal_is_sound(store):
    found = scan(store)
    assert (found.streams, found.sleepers, found.damaged) == (0, [], [])


def test_a_stream_that_wakes_now_is_sound(store):
    begin(store)
    found = scan(store)
    assert found.counts == {("fn", "RUNNING"): 1}
    assert found.handlers == {("fn", "order"): 1}
    assert found.sleepers == []
    assert found.newest_ms == 1000


def test_a_running_stream_that_waits_for_nothing_is_found(store):
    stream = put(store, begin(store), wake_ms=None)
    assert scan(store).sleepers == [
        (stream.uid, "it has no time to wake and waits for nothing from outside, expected either")
    ]


def test_a_stream_with_a_holder_is_left_to_its_holder(store):
    stream = begin(store)
    commit(store, lambda transaction: claim_one(transaction, stream.number, "w"))
    found = scan(store)
    assert (found.held, found.sleepers) == (1, [])


def test_a_parked_stream_is_told(store):
    stream = put(store, begin(store), status=PARKED, wake_ms=None)
    assert scan(store).parked == [stream.uid]


def test_an_actor_with_a_message_must_wake_and_one_without_need_not(store):
    header = MessageHeader("cast", "note")
    request = SendRequest(Address("default", ACTOR, "Shop", "1"), "actor-1", header, Payload(b"\xc0"), b"f", "v", 1000)
    answer = commit(store, lambda transaction: send(transaction, request))
    assert scan(store).sleepers == []
    put(store, answer.stream, wake_ms=None)
    assert scan(store).sleepers == [("actor-1", "it has 1 open messages and no time to wake, expected one")]
    assert sleeping_problem(msgspec.structs.replace(answer.stream, wake_ms=None), []) == ""


def records(*entries):
    return [Record(seq, 1000, 1, 1, entry) for seq, entry in enumerate(entries, 1)]


def sleeper(wake_ms):
    return Stream(1, "uid", "default", "fn", "order", "k", wake_ms=wake_ms)


WAIT = Started("1-1", Kind.WAIT, due_ms=5000)


@pytest.mark.parametrize("wake_ms", [0, 4999, 5000])
def test_waking_at_or_before_the_earliest_due_operation_is_in_time(wake_ms):
    assert sleeping_problem(sleeper(wake_ms), records(WAIT)) == ""


def test_waking_after_the_earliest_due_operation_is_too_late():
    later = Started("1-2", Kind.WAIT, due_ms=9000)
    assert "it wakes at 5001, expected at 5000" in sleeping_problem(sleeper(5001), records(WAIT, later))
    assert "it has no time to wake, expected 5000" in sleeping_problem(sleeper(None), records(WAIT))


def test_an_operation_that_only_the_outside_settles_needs_no_time():
    assert sleeping_problem(sleeper(None), records(Started("1-1", Kind.CALLBACK))) == ""


def test_children_of_a_settled_scope_do_not_count():
    child = Started("1-1", Kind.CALLBACK, parent="1")
    frozen = records(Started("1", Kind.CONTEXT), child, Settled("1"))
    assert "waits for nothing" in sleeping_problem(sleeper(None), frozen)


def test_every_page_is_read(store):
    for number in range(PAGE + 3):
        begin(store, f"k{number}")
    assert len({stream.number for stream in every_stream(store)}) == PAGE + 3


class Moving:
    """A reader beside an engine that has just woken the stream."""

    def __init__(self, stale, store):
        self.stale, self.store = stale, store

    def __getattr__(self, name):
        return getattr(self.store, name)

    def list(self, which):
        return [self.stale]


def test_a_stream_that_changed_while_it_was_read_is_looked_at_again(store):
    stream = begin(store)
    stale = msgspec.structs.replace(stream, wake_ms=None)
    assert scan(Moving(stale, store)).sleepers == []
