"""How often a step is tried, and how much later."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semel.errors import ValidationError
from semel.retry import DEFAULT, DELAY_MAX_MS, FACTOR_MAX, NEVER, Retry

ERROR = ValueError("no")
DELAYS = st.integers(0, DELAY_MAX_MS)
POLICIES = st.builds(
    Retry,
    attempts=st.integers(1, 200),
    first_delay_ms=DELAYS,
    factor=st.floats(1, FACTOR_MAX) | st.integers(1, FACTOR_MAX),
    delay_max_ms=DELAYS,
    jitter=st.sampled_from(["full", "none"]),
)
LUCK = st.floats(0, 1, exclude_max=True)


@given(POLICIES, st.integers(1, 250), LUCK)
def test_a_delay_is_between_nothing_and_its_maximum(policy: Retry, attempt: int, luck: float) -> None:
    delay_ms = policy.delay_ms(attempt, ERROR, luck=luck)
    if attempt >= policy.attempts:
        assert delay_ms is None
    else:
        assert isinstance(delay_ms, int)
        assert 0 <= delay_ms <= policy.delay_max_ms


@given(POLICIES, st.integers(1, 199), LUCK)
def test_jitter_only_shortens_and_without_it_luck_does_not_count(policy: Retry, attempt: int, luck: float) -> None:
    fixed = Retry(
        attempts=200,
        first_delay_ms=policy.first_delay_ms,
        factor=policy.factor,
        delay_max_ms=policy.delay_max_ms,
        jitter="none",
    )
    longest = fixed.delay_ms(attempt, ERROR, luck=luck)
    assert longest is not None
    assert longest == fixed.delay_ms(attempt, ERROR, luck=0)
    delay_ms = policy.delay_ms(attempt, ERROR, luck=luck)
    assert delay_ms is None or delay_ms <= longest
    following = fixed.delay_ms(min(attempt + 1, 199), ERROR, luck=0)
    assert following is not None
    assert following >= longest


def test_the_default_is_the_preset_of_aws() -> None:
    delays = [DEFAULT.delay_ms(attempt, ERROR, luck=1 - 2**-53) for attempt in range(1, 8)]
    assert delays == [5_000, 10_000, 20_000, 40_000, 60_000, None, None]
    assert DEFAULT.delay_ms(1, ERROR, luck=0) == 0
    assert DEFAULT.delay_ms(2, ERROR, luck=0.5) == 5_000


def test_one_attempt_is_never_retried() -> None:
    assert NEVER.delay_ms(1, ERROR, luck=0.5) is None


def test_growth_without_end_stops_at_the_maximum() -> None:
    policy = Retry(attempts=10**9, first_delay_ms=1, factor=FACTOR_MAX, delay_max_ms=DELAY_MAX_MS, jitter="none")
    assert policy.delay_ms(10**8, ERROR, luck=0) == DELAY_MAX_MS


def test_only_the_named_errors_and_their_subclasses_are_worth_another_try() -> None:
    policy = Retry(only=(LookupError, OSError))
    assert policy.delay_ms(1, KeyError("k"), luck=0.5) is not None
    assert policy.delay_ms(1, ConnectionError(), luck=0.5) is not None
    assert policy.delay_ms(1, ERROR, luck=0.5) is None
    assert Retry().delay_ms(1, ERROR, luck=0.5) is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"attempts": 2.5},
        {"attempts": True},
        {"attempts": "3"},
        {"first_delay_ms": -1},
        {"first_delay_ms": 0.5},
        {"first_delay_ms": DELAY_MAX_MS + 1},
        {"delay_max_ms": -1},
        {"delay_max_ms": None},
        {"factor": 0.5},
        {"factor": float("nan")},
        {"factor": float("inf")},
        {"factor": "2"},
        {"factor": True},
        {"jitter": "some"},
        {"jitter": None},
        {"only": ValueError},
        {"only": ("ValueError",)},
        {"only": (int,)},
    ],
    ids=repr,
)
def test_a_value_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    ((field, value),) = wrong.items()
    with pytest.raises(ValidationError) as refusal:
        Retry(**wrong)
    assert str(refusal.value).startswith(f"Retry.{field}: found {value!r}, expected ")


def test_a_policy_is_a_value() -> None:
    assert Retry() == DEFAULT
    with pytest.raises(AttributeError):
        Retry().attempts = 3  # type: ignore[misc]
