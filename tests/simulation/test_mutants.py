"""Each rule that World watches over, taken away: World says so."""

from collections.abc import Callable
from typing import Any

import pytest

from semel.journal import advance, lifecycle
from semel.journal.deadline import Deadline
from semel.kernel import memo, values
from semel.runtime import invocation, steps, sweeper
from semel.runtime.body import Body
from semel.runtime.invocation import Invocation
from semel.store import base
from semel.store.memory import MemoryStore
from semel.testing import Violation, explore
from semel.testing.explore import Kind
from tests.simulation.corpus import SHAPES

pytestmark = pytest.mark.mutant

SOME = (
    "sequential",
    "wait",
    "swallows",
    "aliases",
    "calls, every turn",
    "steps in turns, every third",
    "beside, no facet",
)


def violations(*kinds: Kind, shapes: tuple[str, ...] = SOME) -> list[Violation]:
    found: list[Violation] = []
    for name in shapes:
        for one in explore(SHAPES[name], kinds=kinds).found:
            found.extend(one.violations)
    return found


def rules_broken(*kinds: Kind, shapes: tuple[str, ...] = SOME) -> set[str]:
    return {violation.rule for violation in violations(*kinds, shapes=shapes)}


def test_nothing_is_found_while_every_rule_stands() -> None:
    assert rules_broken("crash", "close", "arrival", "takeover") == set()


def test_J4_without_the_epoch_check_two_holders_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "check_epoch", lambda stored, lease: None)
    assert "J4" in rules_broken("takeover")


def test_G1_a_row_whose_chunks_were_not_stored_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    put = base.Transaction.put_chunk

    def put_most(transaction: Any, stream: int, digest: bytes, data: bytes) -> None:
        if digest[0] % 2:
            put(transaction, stream, digest, data)

    monkeypatch.setattr(base.Transaction, "put_chunk", put_most)
    assert "G1" in rules_broken("crash", shapes=("large values", "large values of an actor"))


def test_J6_without_waking_for_what_was_not_seen_a_message_sleeps_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    leave = advance._leave

    def leave_having_seen_everything(request: Any, *arguments: Any) -> None:
        request.seen = 2**62
        leave(request, *arguments)

    monkeypatch.setattr(advance, "_leave", leave_having_seen_everything)
    assert {"J6", "liveness"} <= rules_broken("arrival")


def test_without_the_round_trip_a_replay_sees_other_values(monkeypatch: pytest.MonkeyPatch) -> None:
    originals: dict[int, tuple[bytes, Any]] = {}
    encode: Callable[[Any], bytes] = values.encode

    def encode_and_remember(value: Any) -> bytes:
        data = encode(value)
        originals[id(data)] = (data, value)
        return data

    def read_the_original(body: Body, payload: Any) -> Any:
        kept, value = originals.get(id(payload and payload.data), (b"", None))
        return value if payload and kept is payload.data else body.read(payload)

    monkeypatch.setattr(steps.values, "encode", encode_and_remember)
    monkeypatch.setattr(Body, "_read", read_the_original)
    assert "outcome" in rules_broken("crash", shapes=("aliases", "aliases, evicted"))


def test_R1e_without_it_a_body_that_was_let_go_has_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    evict = Body.evict

    def evict_and_look_at_what_it_returned(body: Body, signal: type[BaseException], name: str) -> None:
        evict(body, signal, name)
        body.closed = None
        body._at_rest()

    monkeypatch.setattr(Body, "evict", evict_and_look_at_what_it_returned)
    monkeypatch.setattr(Invocation, "_leave", lambda invocation: None)
    found = violations("close", shapes=("swallows",))
    assert any(violation.rule == "outcome" and "gave up" in violation.message for violation in found)


def test_a_patch_that_is_not_recorded_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "is_patch", lambda operation: operation.start.subtype == "nothing")
    assert "outcome" in rules_broken("crash", "pair", shapes=("patched", "sync patched"))


def test_a_patch_decided_by_deliveries_alone_is_taken_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    def patched(self: memo.Memo, name: str) -> bool | None:
        if name not in self._patches and not self.is_used_up:
            self._patches[name] = False
        return self._patches.get(name)

    monkeypatch.setattr(memo.Memo, "patched", patched)
    assert "outcome" in rules_broken("crash", shapes=("patched before a wait", "sync patched"))


def test_a_pause_that_its_invocation_does_not_heed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Invocation, "_set_paused", lambda invocation, stream: None)
    assert "pause" in rules_broken("arrival", shapes=("paused beside",))


def test_J10_a_delete_that_keeps_no_outcome_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_key_of", lambda transaction, stream: None)
    assert "J10" in rules_broken("arrival", shapes=("sequential",))


def test_J10_a_sweep_before_the_retention_is_over_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = MemoryStore.scan_ended
    monkeypatch.setattr(
        MemoryStore,
        "scan_ended",
        lambda store, after, *, until_ms, limit: scan(store, after, until_ms=2**60, limit=limit),
    )
    monkeypatch.setattr(sweeper, "retention_of", lambda name, limits: 0)
    assert "J10" in rules_broken("crash", shapes=("swept",))


def test_G8_a_time_out_before_its_time_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    time_out = invocation.time_out
    monkeypatch.setattr(invocation, "time_out", lambda *given, **known: time_out(*given, **(known | {"due_ms": 0})))
    set_deadline = Invocation._set_deadline
    monkeypatch.setattr(
        Invocation, "_set_deadline", lambda run, due_ms: set_deadline(run, None if due_ms is None else due_ms - 500)
    )
    assert "G8" in rules_broken("crash", shapes=("timed out in a step",))


def test_G8_a_resume_that_gives_no_time_back_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Deadline, "after", lambda deadline, now_ms: deadline.held_due_ms)
    assert "G8" in rules_broken("crash", shapes=("paused with its clock held",))
