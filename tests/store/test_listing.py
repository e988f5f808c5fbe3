"""Listing and due streams against a naive oracle: filters, order, pages."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semel.store.base import ACTOR, FUNCTION, PARKED, PAUSED, PAUSING, RUNNING, Filter, Stream
from tests.store.backends import NAMES, Backend, new_stream, write

FEW = {
    "type": st.sampled_from([FUNCTION, ACTOR]),
    "namespace": st.sampled_from(["default", "other", ""]),
    "name": st.sampled_from(["pay", "ship"]),
    "status": st.sampled_from([RUNNING, PARKED, PAUSED, "SUCCEEDED"]),
}
SHOWN = [RUNNING, PARKED, PAUSED, PAUSING, "SUCCEEDED"]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            **FEW,
            "created_ms": st.integers(0, 4),
            "wake_ms": st.none() | st.integers(0, 5),
            "holder": st.sampled_from([None, None, "w1", "w2"]),
        }
    ),
    max_size=12,
)
MAYBE = {
    **{name: st.none() | values for name, values in FEW.items() if name != "status"},
    "statuses": st.none() | st.lists(st.sampled_from([*SHOWN, "FAILED"]), max_size=3).map(tuple),
    "key_prefix": st.sampled_from(["", "1", "x"]),
    "created_after_ms": st.none() | st.integers(0, 4),
    "created_before_ms": st.none() | st.integers(0, 4),
    "oldest_first": st.booleans(),
}


def filled(folder: str, name: str, rows: list[dict[str, Any]]) -> tuple[Backend, list[Stream]]:
    backend = Backend(name, Path(folder))
    store = backend.open()
    streams = [new_stream(store, key=str(place), **row) for place, row in enumerate(rows)]
    write(store, *(lambda t, stream=stream: t.create(stream) for stream in streams))
    return backend, streams


def wanted(stream: Stream, fields: dict[str, Any]) -> bool:
    """What a person would say of a stream and a filter."""
    statuses, after_ms, before_ms = (fields[name] for name in ("statuses", "created_after_ms", "created_before_ms"))
    shown = PAUSING if stream.status == PAUSED and stream.holder else stream.status
    return (
        all(fields[name] in (None, getattr(stream, name)) for name in ("type", "namespace", "name"))
        and (statuses is None or shown in statuses)
        and stream.key.startswith(fields["key_prefix"])
        and (after_ms is None or stream.created_ms >= after_ms)
        and (before_ms is None or stream.created_ms < before_ms)
    )


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60)
@given(rows=ROWS, fields=st.fixed_dictionaries(MAYBE), limit=st.integers(1, 4))
def test_pages_of_a_list_are_the_matching_streams_in_either_order(
    name: str, rows: list[dict[str, Any]], fields: dict[str, Any], limit: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        backend, streams = filled(folder, name, rows)
        store = backend.open()
        expected = [stream for stream in streams if wanted(stream, fields)]
        if not fields["oldest_first"]:
            expected.reverse()
        assert store.list(Filter(**fields)) == expected
        place = "after" if fields["oldest_first"] else "before"
        found: list[Stream] = []
        while page := store.list(Filter(**fields, limit=limit, **{place: found[-1].number if found else None})):
            assert len(page) <= limit
            found += page
        assert found == expected
        backend.close()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40)
@given(
    rows=ROWS,
    now_ms=st.integers(-1, 6),
    limit=st.integers(0, 5),
    names=st.none() | st.lists(st.sampled_from(["pay", "ship", "x"]), max_size=2),
)
def test_due_streams_are_those_that_a_person_would_pick(
    name: str, rows: list[dict[str, Any]], now_ms: int, limit: int, names: list[str] | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        backend, streams = filled(folder, name, rows)
        store = backend.open()
        waiting = [stream for stream in streams if stream.holder is None and stream.wake_ms is not None]
        waiting = [stream for stream in waiting if names is None or stream.name in names]
        due = [stream for stream in waiting if stream.wake_ms <= now_ms]
        due.sort(key=lambda stream: stream.wake_ms)
        assert store.due(now_ms, limit=limit, names=names) == due[:limit]
        assert store.next_wake(names=names) == min((stream.wake_ms for stream in waiting), default=None)
        assert store.dead_workers(0) == sorted({stream.holder for stream in streams if stream.holder})
        for worker in ("w1", "w2"):
            assert store.held_by(worker) == [stream for stream in streams if stream.holder == worker]
        backend.close()
