"""An actor's messages in order, and its state after the last turn, against a naive reading of the records."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from semel.kernel.entry import (
    Control,
    Controlled,
    Entry,
    InvocationEnded,
    Kind,
    Payload,
    Record,
    Settled,
    Started,
    Status,
)
from semel.kernel.mailbox import Mailbox
from tests.kernel.records import failed, message, payload, records, step, succeeded, turn


def names(mailbox: Mailbox) -> list[str]:
    """The order in which messages would have their turns."""
    order = []
    while (taken := mailbox.take()) is not None:
        order.append(taken.id)
    return order


def handled(name: str, state: object = None) -> list[Entry]:
    return [turn(name, state), succeeded(name, "reply")]


def test_an_empty_mailbox_has_nothing() -> None:
    mailbox = Mailbox.of([])
    assert mailbox.head() is None
    assert mailbox.take() is None
    assert (len(mailbox), mailbox.snapshot, mailbox.turns(), mailbox.base()) == (0, None, [], 1)


def test_J8_order_is_priority_then_arrival() -> None:
    stream = records(message("m1"), message("m2", priority=5), message("m3", priority=-1), message("m4", priority=5))
    assert names(Mailbox.of(stream)) == ["m2", "m4", "m1", "m3"]


def test_J8_a_message_without_a_header_arrives_with_priority_0() -> None:
    bare = Started("m2", Kind.MESSAGE, name="pay")
    assert names(Mailbox.of(records(message("m1", priority=-1), bare, message("m3")))) == ["m2", "m3", "m1"]


def test_J8_a_message_whose_turn_has_recorded_something_comes_before_any_other() -> None:
    """Its holder died in the middle; another turn on the same state would overlap with it."""
    stream = records(message("m1"), step("m1-1", parent="m1"), message("m3", priority=9))
    assert names(Mailbox.of(stream)) == ["m1", "m3"]
    assert names(Mailbox.of([*stream, *records(step("m1-2", parent="m1"), first=4)])) == ["m1", "m3"]


def test_J8_a_message_that_was_taken_is_never_the_head_again() -> None:
    mailbox = Mailbox.of(records(message("m1"), message("m2")))
    taken = mailbox.take()
    assert taken is not None
    assert taken.id == "m1"
    for record in records(step("m1-1", parent="m1"), step("m1-2", parent="m1"), first=3):
        mailbox.observe(record)
    assert len(mailbox) == 2
    assert names(mailbox) == ["m2"]
    assert mailbox.head() is None


def test_J8_a_message_that_settled_without_a_turn_leaves_the_order() -> None:
    withdrawn = Settled("m1", Status.CANCELLED)
    mailbox = Mailbox.of(records(message("m1"), message("m2"), withdrawn))
    head = mailbox.head()
    assert head is not None
    assert (head.id, len(mailbox), mailbox.turns()) == ("m2", 1, [])


def test_the_head_is_the_message_as_it_arrived() -> None:
    mailbox = Mailbox.of(records(message("m1", payload=payload([7]), offset_ms=4)))
    head = mailbox.head()
    assert head is not None
    assert (head.kind, head.status, head.name, head.started_ms) == (Kind.MESSAGE, Status.STARTED, "pay", 1_005)
    assert head.payload == payload([7])


def test_a_snapshot_is_a_turn_that_carries_state() -> None:
    mailbox = Mailbox.of(records(message("m1"), message("m2"), *handled("m1"), *handled("m2", {"n": 2})))
    assert mailbox.snapshot == payload({"n": 2})
    assert mailbox.turns() == []
    assert len(mailbox) == 0


def test_turns_after_the_snapshot_are_kept_in_order_with_their_replies() -> None:
    stream = records(message("m1"), message("m2"), *handled("m2", {"n": 1}), *handled("m1"), message("m7"))
    mailbox = Mailbox.of(stream)
    assert [(kept.id, kept.status, kept.result) for kept in mailbox.turns()] == [
        ("m1", Status.SUCCEEDED, payload("reply"))
    ]
    assert mailbox.snapshot == payload({"n": 1})


def test_a_turn_that_failed_left_the_state_as_it_was_and_is_not_run_again() -> None:
    stream = records(message("m1"), *handled("m1"), message("m4"), turn("m4"), failed("m4"), message("m7"))
    mailbox = Mailbox.of(stream)
    assert [kept.id for kept in mailbox.turns()] == ["m1"]
    assert names(mailbox) == ["m7"]


def test_a_snapshot_of_no_turn_of_its_own_is_a_snapshot() -> None:
    """Forced before a drain or a new version: its operation is empty."""
    mailbox = Mailbox.of(records(message("m1"), *handled("m1"), turn("", {"n": 1}), message("m5")))
    assert mailbox.snapshot == payload({"n": 1})
    assert mailbox.turns() == []
    assert mailbox.base() == 4


def test_an_end_without_state_of_an_unknown_message_is_nothing() -> None:
    mailbox = Mailbox.of(records(turn("gone"), succeeded("gone"), message("m3")))
    assert (mailbox.turns(), mailbox.snapshot, names(mailbox)) == ([], None, ["m3"])


def test_entries_that_are_no_mail_are_passed_over() -> None:
    entries: list[Entry] = [Controlled(Control.PARK), InvocationEnded(1), step("1"), succeeded("1")]
    mailbox = Mailbox.of(records(message("m1"), *entries))
    assert (len(mailbox), names(mailbox)) == (1, ["m1"])


def test_base_is_the_first_record_that_recovery_needs() -> None:
    stream: list[Entry] = [message("m1"), message("m2")]
    assert Mailbox.of(records(*stream)).base() == 1
    stream += handled("m1", {"n": 1})
    assert Mailbox.of(records(*stream)).base() == 2  # m2 is open
    stream += handled("m2")
    assert Mailbox.of(records(*stream)).base() == 2  # the turn of m2 came after the snapshot
    stream += [message("m7"), *handled("m7", {"n": 2})]
    assert Mailbox.of(records(*stream)).base() == 8  # the snapshot


PRIORITIES = st.integers(-2, 2)
ACTIONS = st.one_of(
    st.tuples(st.just("arrive"), PRIORITIES),
    st.tuples(st.just("withdraw"), st.integers(0, 5)),
    st.tuples(st.just("force"), st.integers(0, 99)),
    *[st.tuples(st.just(kind), st.integers(0, 99)) for kind in ("turn", "snapshot", "fail", "begin")],
)


@dataclass
class Story:
    """What happened to an actor, told as records, with the turns in the order that a naive reading gives."""

    stream: list[Record] = field(default_factory=list)
    open: dict[str, tuple[int, int]] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    after_snapshot: list[tuple[str, int]] = field(default_factory=list)
    snapshot: Payload | None = None
    snapshot_seq: int = 0

    def write(self, entry: Entry) -> int:
        self.stream += records(entry, first=len(self.stream) + 1)
        return len(self.stream)

    def order(self) -> list[str]:
        return sorted(self.open, key=lambda name: (name not in self.begun, -self.open[name][0], self.open[name][1]))

    def tell(self, action: str, number: int) -> None:
        order = self.order()
        if action == "arrive":
            name = f"m{len(self.stream) + 1}"
            self.open[name] = (number, self.write(message(name, priority=number)))
        elif action == "force":
            self.save("", number)
        elif action == "withdraw" and number < len(order) and order[number] not in self.begun:
            self.write(Settled(order[number], Status.CANCELLED))
            del self.open[order[number]]
        elif action == "begin" and order:
            self.begun.add(order[0])
            self.write(step(f"{order[0]}-{len(self.stream)}", parent=order[0]))
        elif action in ("turn", "snapshot", "fail") and order:
            self.end_turn(order[0], action, number)

    def end_turn(self, name: str, action: str, number: int) -> None:
        if action == "snapshot":
            self.save(name, number)
        else:
            self.write(turn(name))
        self.write(failed(name) if action == "fail" else succeeded(name))
        _, seq = self.open.pop(name)
        if action == "turn":
            self.after_snapshot.append((name, seq))

    def save(self, name: str, state: int) -> None:
        self.snapshot = payload(state)
        self.snapshot_seq = self.write(turn(name, state))
        self.after_snapshot.clear()


@given(st.lists(ACTIONS, max_size=40))
def test_J8_J9_a_mailbox_is_what_a_naive_reading_of_the_records_gives(actions: list[tuple[str, int]]) -> None:
    story = Story()
    live = Mailbox()
    for action, number in actions:
        before = len(story.stream)
        story.tell(action, number)
        for record in story.stream[before:]:
            live.observe(record)
    needed = [seq for _, seq in [*story.open.values(), *story.after_snapshot]]
    base = min([*needed, *([story.snapshot_seq] if story.snapshot_seq else [])], default=len(story.stream) + 1)
    for mailbox in (live, Mailbox.of(story.stream), Mailbox.of(story.stream[base - 1 :])):
        assert mailbox.snapshot == story.snapshot
        assert [kept.id for kept in mailbox.turns()] == [name for name, _ in story.after_snapshot]
        assert len(mailbox) == len(story.open)
        assert mailbox.base() == base or base > len(story.stream)  # from no records there is nothing to tell
        assert names(mailbox) == story.order()
