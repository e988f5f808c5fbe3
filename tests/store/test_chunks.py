"""Chunks in every store: kept under stream and digest, once, with the batch that brought them."""

from __future__ import annotations

import pytest

from semel.errors import SemelError, UnavailableError
from semel.store.base import Store, Transaction
from tests.store.backends import Backend, created, write

DIGEST = b"d" * 20


def test_a_chunk_comes_back_after_the_store_was_closed(backend: Backend) -> None:
    store = backend.open()
    stream = created(store).number
    data = bytes(range(256)) * 500
    write(store, lambda t: t.put_chunk(stream, DIGEST, data), lambda t: t.put_chunk(stream, b"e" * 20, b""))
    assert store.reader().chunk(stream, DIGEST) == data
    again = backend.reopen()
    assert again.chunk(stream, DIGEST) == data
    assert again.chunk(stream, b"e" * 20) == b""
    assert again.chunk(stream, b"f" * 20) is None
    assert again.chunk(stream + 1, DIGEST) is None


def test_each_stream_has_its_own(store: Store) -> None:
    one, two = created(store).number, created(store).number
    write(store, lambda t: t.put_chunk(one, DIGEST, b"one"), lambda t: t.put_chunk(two, DIGEST, b"two"))
    assert (store.chunk(one, DIGEST), store.chunk(two, DIGEST)) == (b"one", b"two")


def test_what_is_kept_under_a_digest_stays(store: Store) -> None:
    stream = created(store).number
    write(store, lambda t: t.put_chunk(stream, DIGEST, b"first"))
    write(store, lambda t: t.put_chunk(stream, DIGEST, b"second"))
    assert store.chunk(stream, DIGEST) == b"first"


def test_a_batch_sees_its_own_chunks_and_others_do_not_before_the_commit(store: Store) -> None:
    stream = created(store).number
    transaction = store.begin(())
    transaction.attempt(lambda t: t.put_chunk(stream, DIGEST, b"new"))
    assert transaction.chunk(stream, DIGEST) == b"new"
    assert store.chunk(stream, DIGEST) is None
    store.commit(transaction)
    assert store.begin(()).chunk(stream, DIGEST) == b"new"


def test_a_refused_call_leaves_no_chunk(store: Store) -> None:
    stream = created(store).number
    transaction = store.begin(())

    def call(t: Transaction) -> None:
        t.put_chunk(stream, DIGEST, b"never")
        raise SemelError("on purpose")

    with pytest.raises(SemelError):
        transaction.attempt(call)
    assert not transaction.has_writes
    store.commit(transaction)
    assert store.chunk(stream, DIGEST) is None


def test_a_closed_store_reads_no_chunk(backend: Backend) -> None:
    store = backend.open()
    store.close()
    with pytest.raises(UnavailableError, match="closed"):
        store.chunk(1, DIGEST)
