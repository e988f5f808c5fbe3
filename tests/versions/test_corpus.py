"""What the check says of each change, from every prefix, beside what really comes of it."""

from __future__ import annotations

import ast
import logging
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from msgspec import Struct

from semel.function import REGISTRY
from tests.versions import pairs_beside, pairs_others, pairs_patched
from tests.versions.harness import NAME, check, go_on, prefixes_of
from tests.versions.pairs import PAIRS


class Case(Struct):
    """One prefix of a pair: how the code after really ends from there, and the verdict."""

    change: str
    prefix: int
    is_safe: bool
    outcome: str
    verdict: str
    reason: str


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.CRITICAL, "semel"):
        yield
    REGISTRY.functions.pop(NAME, None)


def agrees(outcome: str, before: str, after: str) -> bool:
    """Whether an outcome is one that a run may have which began with the old code and ended with the new.

    It is that of either code from nothing; a fault that the new one has from nothing too, such as one
    that parks it, is no matter of versions. Or it is a list of which each item is that of either code:
    what had settled keeps its outcome. Anything else contradicts both.
    """
    if outcome in {before, after}:
        return True
    if not all(one.startswith("returned [") for one in (outcome, before, after)):
        return False
    items, old, new = (ast.literal_eval(one.removeprefix("returned ")) for one in (outcome, before, after))
    return len(items) == len(old) == len(new) and all(item in both for item, *both in zip(items, old, new, strict=True))


def test_an_outcome_that_is_of_neither_code_contradicts() -> None:
    assert agrees("returned 1", "returned 1", "returned 2")
    assert agrees("returned [1, 4]", "returned [1, 2]", "returned [3, 4]")
    assert not agrees("returned [2, 2]", "returned [1, 2]", "returned [1, 2]")
    assert not agrees("returned [1]", "returned [1, 2]", "returned [1, 3]")
    assert not agrees("returned 3", "returned 1", "returned 2")
    assert not agrees("parked: NonDeterminismError", "returned 1", "returned 2")


@cache
def cases(change: str) -> list[Case]:
    before, after = PAIRS[change]
    from_before, prefixes = prefixes_of(before)
    from_after, _ = prefixes_of(after)
    found = []
    for prefix in prefixes:
        # The old code comes to its own end from each prefix, or the corpus would prove nothing.
        assert go_on(prefix, before) == from_before, (change, prefix.number)
        assert check(prefix, before).verdict == "safe", (change, prefix.number, check(prefix, before))
        outcome = go_on(prefix, after)
        checked = check(prefix, after)
        is_safe = agrees(outcome, from_before, from_after)
        found.append(Case(change, prefix.number, is_safe, outcome, checked.verdict, checked.reason))
    return found


@pytest.mark.parametrize("change", PAIRS)
def test_what_is_called_safe_is_safe(change: str) -> None:
    assert [case for case in cases(change) if case.verdict == "safe" and not case.is_safe] == []


def test_the_corpus_is_large_and_has_both_kinds(record_property: Any) -> None:
    everything = [case for change in PAIRS for case in cases(change)]
    counts = Counter(("safe" if case.is_safe else "unsafe", case.verdict) for case in everything)
    safe = sum(case.is_safe for case in everything)
    called_unsafe = counts["safe", "diverges"]
    print(f"\n{len(PAIRS)} pairs, {len(everything)} prefixes, {safe} safe, {len(everything) - safe} unsafe")
    for (label, verdict), count in sorted(counts.items()):
        print(f"  really {label}, called {verdict}: {count}")
    for case in everything:
        if (case.verdict == "safe") != case.is_safe:
            print(f"  {case.change}, prefix {case.prefix}: {case.verdict} ({case.reason}), and it {case.outcome}")
    assert pairs_beside.pair is pairs_patched.pair is pairs_others.pair
    assert len(PAIRS) >= 40
    assert min(safe, len(everything) - safe) >= 40
    assert counts["unsafe", "safe"] == 0
    assert called_unsafe <= safe * 0.1
