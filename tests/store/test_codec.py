"""Journal rows as bytes: they come back, damage is noticed, and old ones stay readable."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semel.errors import JournalCorruptError
from semel.kernel.entry import (
    ENTRY_KINDS,
    Control,
    Controlled,
    Effect,
    Entry,
    HeartbeatReceived,
    InvocationEnded,
    Kind,
    MessageHeader,
    Payload,
    Record,
    RetryReady,
    RetryScheduled,
    Settled,
    Started,
    Status,
    TurnEnded,
)
from semel.kernel.values import ErrorData
from semel.store import codec
from semel.store.codec import Append

HISTORIES = Path(__file__).parents[1] / "histories"

# Text that UTF-8 cannot spell is no text on disk; integers are those of msgpack.
st.register_type_strategy(str, st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
st.register_type_strategy(bytes, st.binary(max_size=8))
st.register_type_strategy(int, st.integers(-(2**63), 2**64 - 1))

ENTRIES = st.one_of([st.from_type(kind) for kind in ENTRY_KINDS])
PLACES = st.integers(0, 2**63 - 1)
APPENDS = st.builds(
    Append,
    time_ms=st.integers(0, 2**62),
    entries=st.lists(ENTRIES, min_size=1, max_size=4).map(tuple),
    epoch=PLACES,
    invocation=PLACES,
    client_token=st.text(max_size=4).filter(str.isascii),
    data_key=st.just(""),
    worker=st.just("w"),
)


@pytest.mark.parametrize("kind", ENTRY_KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_entry_comes_back(kind: type[Entry]) -> None:
    @given(st.from_type(kind), PLACES, PLACES)
    def comes_back(entry: Entry, stream: int, seq: int) -> None:
        append = Append(5, (entry,))
        assert codec.decode(codec.encode(append, stream=stream, seq=seq), stream=stream, seq=seq) == append

    comes_back()


@given(APPENDS, PLACES, PLACES)
def test_an_append_comes_back_whole(append: Append, stream: int, seq: int) -> None:
    row = codec.encode(append, stream=stream, seq=seq)
    assert codec.decode(row, stream=stream, seq=seq) == append


@given(APPENDS, st.integers(0, 9), st.integers(1, 9), st.integers(0, 9), st.integers(1, 9))
def test_a_row_in_another_place_is_corrupt(append: Append, stream: int, seq: int, stream_2: int, seq_2: int) -> None:
    if (stream, seq) == (stream_2, seq_2):
        return
    with pytest.raises(JournalCorruptError, match=f"stream {stream_2}, seq {seq_2}"):
        codec.decode(codec.encode(append, stream=stream, seq=seq), stream=stream_2, seq=seq_2)


@given(APPENDS, st.data())
def test_one_flipped_bit_is_noticed(append: Append, data: Any) -> None:
    row = bytearray(codec.encode(append, stream=1, seq=1))
    row[data.draw(st.integers(0, len(row) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(JournalCorruptError):
        codec.decode(bytes(row), stream=1, seq=1)


def test_every_flipped_bit_and_every_truncation_of_a_row_is_noticed() -> None:
    row = codec.encode(Append(1, (Started("1_1", Kind.STEP, name="charge"),)), stream=1, seq=1)
    for bit in range(len(row) * 8):
        damaged = bytearray(row)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(JournalCorruptError):
            codec.decode(bytes(damaged), stream=1, seq=1)
    for length in range(len(row)):
        with pytest.raises(JournalCorruptError):
            codec.decode(row[:length], stream=1, seq=1)
    with pytest.raises(JournalCorruptError):
        codec.decode(row + b"\x00", stream=1, seq=1)


def test_a_row_of_a_newer_version_says_so() -> None:
    row = bytearray(codec.encode(Append(1, (RetryReady("1"),)), stream=1, seq=1))
    row[0] = codec.VERSION + 1
    with pytest.raises(JournalCorruptError, match=r"version 2, expected 1 or older; use the semel that wrote it"):
        codec.decode(bytes(row), stream=1, seq=1)


def spelled(value: object) -> bytes:
    """A row of our version around a body of somebody else's."""
    body = msgspec.msgpack.encode(value)
    checksum = zlib.crc32(body, zlib.crc32((1).to_bytes(8, "big") + (1).to_bytes(8, "big")))
    return codec.VERSION.to_bytes(1, "big") + checksum.to_bytes(4, "big") + body


def test_fields_that_a_later_version_added_are_left_out() -> None:
    append = Append(1, (RetryReady("1"),))
    known = {"t": 1, "e": [{"_": "Y", "o": "1"}]}
    assert codec.decode(spelled(known), stream=1, seq=1) == append
    later = {"t": 1, "zz": [1], "e": [{"_": "Y", "o": "1", "zz": {"x": None}}]}
    assert codec.decode(spelled(later), stream=1, seq=1) == append


@pytest.mark.parametrize("body", [None, [], {"t": 1}, {"t": 1, "e": [{"_": "?", "o": "1"}]}, {"t": "1", "e": []}])
def test_a_body_that_is_no_append_is_corrupt(body: object) -> None:
    with pytest.raises(JournalCorruptError, match="expected an append"):
        codec.decode(spelled(body), stream=1, seq=1)


def test_records_count_their_entries_from_the_seq_of_the_row() -> None:
    append = Append(7, (RetryReady("1"), RetryReady("2", offset_ms=3)), epoch=4, invocation=5)
    assert list(codec.records(append, seq=8)) == [
        Record(8, 7, 4, 5, RetryReady("1")),
        Record(9, 7, 4, 5, RetryReady("2", offset_ms=3)),
    ]


def version_1() -> list[Append]:
    """Each kind of entry with every field set, and each with only what it must have."""
    payload = Payload(b"\x01\x02", "semel/1", b"digest", "data-key")
    error = ErrorData("ValueError", "no")
    header = MessageHeader("call", "pay", "uid-1", "1_2", "uid-1", ("uid-1", "uid-0"), 9, 2, "k-1")
    full: list[Entry] = [
        Started(
            *("1_1", Kind.STEP, "1", "charge", "Step", "1-1", "app.py:12", b"arguments", "v1", Effect.KEYED),
            *("at_most_once_per_retry", "effect", 5, payload, header, b"print", "uid-0", "trace", 1),
        ),
        RetryScheduled("1_1", 5, error, payload, 1),
        RetryReady("1_1", 1),
        HeartbeatReceived("1_1", 1),
        Settled("1_1", Status.FAILED, payload, error, requested=True, replay_children=True, offset_ms=1),
        TurnEnded("m-1", payload, "v1", 1),
        InvocationEnded(3, error, 1),
        Controlled(Control.PARK, "why", "ops", 1),
    ]
    least: list[Entry] = [
        Started("1", Kind.EXECUTION),
        RetryScheduled("1", 5),
        RetryReady("1"),
        HeartbeatReceived("1"),
        Settled("1"),
        TurnEnded("1"),
        InvocationEnded(1),
        Controlled(Control.PAUSE),
    ]
    single = [Append(1_700_000_000_000, (entry,), 1, 2, "token", "data-key", "worker") for entry in full]
    return [*single, *(Append(1, (entry,)) for entry in least), Append(2**41, (*full, *least))]


def test_rows_of_version_1_stay_readable() -> None:
    """The file is written once. If this fails, the format changed: keep reading the old one, and add a new file."""
    lines = [json.loads(line) for line in (HISTORIES / "v1.jsonl").read_text().splitlines()]
    appends = version_1()
    assert len(lines) == len(appends)
    for line, append in zip(lines, appends, strict=True):
        row = bytes.fromhex(line["row"])
        assert codec.decode(row, stream=line["stream"], seq=line["seq"]) == append
        assert codec.encode(append, stream=line["stream"], seq=line["seq"]) == row, "version 1 is still what is written"
