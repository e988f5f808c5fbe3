"""Large values: out of the rows, found again whole, and never wrong without a word."""

from __future__ import annotations

import pytest

from semel.errors import JournalCorruptError
from semel.journal import chunks, lifecycle
from semel.journal.chunks import CHUNK_BYTES
from semel.journal.holding import lease_of, read
from semel.kernel.entry import Kind, Payload, Settled, Started
from semel.kernel.operation import Action
from semel.kernel.size import size_of
from tests.journal.places import WORKER, Journal, do, payload


class Faulty:
    """A store whose chunks are not what they were."""

    def __init__(self, journal: Journal, changed: dict[bytes, bytes | None]) -> None:
        self._journal = journal
        self._changed = changed

    def chunk(self, stream: int, digest: bytes) -> bytes | None:
        if digest in self._changed:
            return self._changed[digest]
        return self._journal.store.chunk(stream, digest)


def text(size: int, letter: str = "x") -> Payload:
    """A payload of exactly `size` bytes."""
    return Payload(letter.encode() * size)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_value_is_in_chunks_from_one_byte_over_the_size_of_a_chunk(journal: Journal, more: int) -> None:
    kept = journal.do(lambda t: chunks.keep(t, 1, text(CHUNK_BYTES + more)))
    assert bool(kept.digest) == (more > 0)
    assert len(kept.data) == (0 if more > 0 else CHUNK_BYTES + more)
    assert kept.size == (CHUNK_BYTES + 1 if more > 0 else 0)
    assert size_of(kept) == CHUNK_BYTES + more
    assert chunks.whole(journal.store, 1, kept) == text(CHUNK_BYTES + more)


@pytest.mark.parametrize("size", [CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 1, 1_000_000])
def test_a_value_of_several_chunks_comes_back_whole(journal: Journal, size: int) -> None:
    value = [number % 251 for number in range(size)]
    kept = journal.do(lambda t: chunks.keep(t, 7, payload(value)))
    assert chunks.value(journal.store, 7, kept) == value
    assert len(chunks.digests_of(kept)) == -(-kept.size // CHUNK_BYTES)
    assert chunks.outline(payload(value)) == kept
    assert chunks.outline(kept) == kept


def test_equal_chunks_of_one_stream_are_one(journal: Journal) -> None:
    stored: list[bytes] = []

    def call(transaction: object) -> None:
        chunks.keep(transaction, 1, text(10 * CHUNK_BYTES))  # type: ignore[arg-type]
        stored.extend(digest for _, digest in transaction.chunks)  # type: ignore[attr-defined]

    journal.do(call)
    assert len(stored) == 1


def test_rows_and_folded_operations_carry_digests_and_no_data(journal: Journal) -> None:
    large = 3 * CHUNK_BYTES
    started = journal.start(order="o" * large, worker=WORKER)
    lease = lease_of(started.stream)
    step = do("1_1", Kind.STEP, Action.SUCCEED, 2_000, name="s", payload=payload("r" * large))
    advanced = journal.advance(lease, step)
    journal.finish(started.stream, "e" * large)
    number = started.stream.number
    assert all(len(row.body) < 1_000 for row in journal.store.rows(number))
    result = advanced.changes["1_1"].result
    assert result is not None
    assert (result.data, result.size > large) == (b"", True)
    given: list[object] = []
    for record in read(journal.store, journal.stream(number)):
        match record.entry:
            case Started(payload=found) | Settled(result=found):
                given.append(chunks.value(journal.store, number, found))
            case _:
                pass
    assert given == [["o" * large], None, "r" * large, "e" * large]


def test_a_message_and_a_state_are_kept_in_chunks(journal: Journal) -> None:
    large = 3 * CHUNK_BYTES
    sent = journal.send(order="o" * large)
    lease = lease_of(journal.claim(sent.stream.number))
    journal.handle(lease, sent.message, "r" * large, state=payload("s" * large))
    assert all(len(row.body) < 1_000 for row in journal.store.rows(sent.stream.number))
    again = journal.records(sent.stream.number)
    state = next(record.entry.state for record in again if hasattr(record.entry, "state"))
    assert chunks.value(journal.store, sent.stream.number, state) == "s" * large


@pytest.mark.parametrize(
    ("found", "said"),
    [(None, "it is missing"), (b"other", "its digest is"), (b"", "its digest is")],
)
def test_a_missing_or_damaged_chunk_is_corrupt_and_its_place_is_named(
    journal: Journal, found: bytes | None, said: str
) -> None:
    kept = journal.do(lambda t: chunks.keep(t, 9, Payload(b"a" * CHUNK_BYTES + b"b" * CHUNK_BYTES + b"c")))
    second = chunks.digests_of(kept)[1]
    with pytest.raises(JournalCorruptError, match=rf"chunk 2 of 3 .*stream 9.*{said}.*{second.hex()}"):
        chunks.whole(Faulty(journal, {second: found}), 9, kept)
    assert chunks.whole(Faulty(journal, {}), 9, kept).size == 0


def test_chunks_of_the_wrong_number_are_corrupt(journal: Journal) -> None:
    kept = journal.do(lambda t: chunks.keep(t, 9, text(2 * CHUNK_BYTES)))
    short = Payload(digest=kept.digest[:20], size=kept.size)
    with pytest.raises(JournalCorruptError, match=f"hold {CHUNK_BYTES} bytes, expected {2 * CHUNK_BYTES}"):
        chunks.whole(journal.store, 9, short)


def test_a_deleted_execution_takes_its_chunks_along_and_leaves_its_outcome_whole(journal: Journal) -> None:
    started = journal.start(worker=WORKER)
    number = started.stream.number
    end = journal.finish(started.stream, "e" * 200_000).append
    assert end is not None
    digests = [digest for found in end.payloads() for digest in chunks.digests_of(found)]
    assert len(digests) == 4
    journal.do(lambda t: lifecycle.delete(t, number, retention_ms=10**9, now_ms=3_000))
    assert [journal.store.chunk(number, digest) for digest in digests] == [None] * 4
    again = journal.start(now_ms=4_000)
    assert again.outcome is not None
    assert chunks.value(journal.store, number, again.outcome.result) == "e" * 200_000
