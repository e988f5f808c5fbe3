"""Retry: after how many attempts, and how much later, a step is tried again.

A delay is a durable timer: it survives the process, and nobody holds the stream meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol

from msgspec import Struct

from semel.errors import ValidationError

DELAY_MAX_MS: Final = 10 * 366 * 86_400_000
FACTOR_MAX: Final = 1_000
Jitter = Literal["full", "half", "none"]


class BackOff(Protocol):
    """What a growing delay is computed from."""

    @property
    def attempts(self) -> int: ...
    @property
    def first_delay_ms(self) -> int: ...
    @property
    def factor(self) -> float: ...
    @property
    def delay_max_ms(self) -> int: ...
    @property
    def jitter(self) -> str: ...


class Retry(Struct, frozen=True, kw_only=True):
    """A back-off policy. The defaults are AWS's preset: 6 attempts, 5 s doubling to 60 s, full jitter.

    `attempts` counts the first try; `Retry(attempts=1)` never retries. `increment_ms` is added per
    attempt, after the factor. `only` is a tuple of the error classes worth another try, subclasses
    included; empty means all. `decide(error, attempt)`, if given, returns the delay in ms or None to
    give up, and decides alone within `attempts`. Raises ValidationError for values out of range.
    """

    attempts: int = 6
    first_delay_ms: int = 5_000
    factor: float = 2.0
    increment_ms: int = 0
    delay_max_ms: int = 60_000
    jitter: Jitter = "full"
    only: tuple[type[Exception], ...] = ()
    decide: Callable[[BaseException, int], int | None] | None = None

    def __post_init__(self) -> None:
        check_back_off("Retry", self)
        checks = [
            ("increment_ms", self.increment_ms, _DELAY, _is_delay(self.increment_ms)),
            ("only", self.only, "a tuple of exception classes", _is_errors(self.only)),
            ("decide", self.decide, "a function of an error and an attempt", _is_function(self.decide)),
        ]
        _refuse_wrong("Retry", checks)

    def delay_ms(self, attempt: int, error: BaseException, *, luck: float) -> int | None:
        """How long to wait after the failed `attempt` (from 1), or None to give up.

        `luck` is a random number in [0, 1), given by the caller so that this stays pure. Raises
        ValidationError if `decide` returned no number, and whatever it raises.
        """
        if attempt >= self.attempts or (self.only and not isinstance(error, self.only)):
            return None
        if self.decide is not None:
            decided = self.decide(error, attempt)
            return None if decided is None else decided_ms("Retry.decide", decided)
        return back_off_ms(self, attempt, luck=luck, increment_ms=self.increment_ms)

    # AWS's presets.

    @classmethod
    def none(cls) -> Retry:
        """One attempt."""
        return cls(attempts=1)

    @classmethod
    def transient(cls) -> Retry:
        """Three attempts, for what passes by itself: 5 s doubling, half jitter."""
        return cls(attempts=3, delay_max_ms=300_000, jitter="half")

    @classmethod
    def resource_availability(cls) -> Retry:
        """Five attempts up to five minutes apart, for what must first become free."""
        return cls(attempts=5, delay_max_ms=300_000)

    @classmethod
    def critical(cls) -> Retry:
        """Ten attempts from 1 s on, growing by 1.5 to 60 s, no jitter."""
        return cls(attempts=10, first_delay_ms=1_000, factor=1.5, jitter="none")

    @classmethod
    def linear(cls) -> Retry:
        """Six attempts, each a second later than the one before, no jitter."""
        return cls(first_delay_ms=1_000, factor=1.0, increment_ms=1_000, delay_max_ms=300_000, jitter="none")

    @classmethod
    def fixed(cls, interval_ms: int = 5_000) -> Retry:
        """Five attempts, `interval_ms` apart, no jitter."""
        return cls(attempts=5, first_delay_ms=interval_ms, factor=1.0, delay_max_ms=interval_ms, jitter="none")


def decided_ms(subject: str, decided: object) -> int:
    """A delay that user code decided on, within what a timer takes. Raises ValidationError for no number."""
    if not isinstance(decided, int | float) or isinstance(decided, bool) or not math.isfinite(decided):
        raise ValidationError(f"{subject}: it returned {decided!r:.80}, expected a number of ms")
    return min(max(0, round(decided)), DELAY_MAX_MS)


def check_retry(subject: str, retry: object) -> None:
    """Raise ValidationError for anything but a policy."""
    if not isinstance(retry, Retry):
        raise ValidationError(f"{subject} retry: found {retry!r:.80}, expected a Retry, such as Retry(attempts=3)")


def back_off_ms(policy: BackOff, attempt: int, *, luck: float, increment_ms: int = 0) -> int:
    """The delay after `attempt` (from 1): growing to its maximum, and by `luck` some of it."""
    grown = policy.first_delay_ms * policy.factor ** min(attempt - 1, 64) + increment_ms * (attempt - 1)
    ceiling = min(float(policy.delay_max_ms), grown)
    match policy.jitter:
        case "full":
            return round(ceiling * luck)
        case "half":
            return round(ceiling / 2 + ceiling / 2 * luck)
        case _:
            return round(ceiling)


_DELAY: Final = f"a whole number from 0 to {DELAY_MAX_MS} (ten years)"


def check_back_off(subject: str, policy: BackOff) -> None:
    """Raise ValidationError for a value that is out of range."""
    delay_ms, most_ms = policy.first_delay_ms, policy.delay_max_ms
    checks = [
        ("attempts", policy.attempts, "a whole number, 1 or more", _is_whole(policy.attempts, at_least=1)),
        ("first_delay_ms", delay_ms, _DELAY, _is_delay(delay_ms)),
        ("factor", policy.factor, f"a number from 1 to {FACTOR_MAX}", _is_factor(policy.factor)),
        ("delay_max_ms", most_ms, _DELAY, _is_delay(most_ms)),
        ("jitter", policy.jitter, "'full', 'half' or 'none'", policy.jitter in ("full", "half", "none")),
    ]
    _refuse_wrong(subject, checks)


def _refuse_wrong(subject: str, checks: list[tuple[str, Any, str, bool]]) -> None:
    for field, found, expected, is_right in checks:
        if not is_right:
            raise ValidationError(f"{subject}.{field}: found {found!r}, expected {expected}")


def _is_whole(found: object, *, at_least: int) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and found >= at_least


def _is_delay(found: object) -> bool:
    return _is_whole(found, at_least=0) and found <= DELAY_MAX_MS  # type: ignore[operator]


def _is_factor(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool) and 1 <= found <= FACTOR_MAX


def _is_errors(found: object) -> bool:
    return isinstance(found, tuple) and all(isinstance(cls, type) and issubclass(cls, BaseException) for cls in found)


def _is_function(found: object) -> bool:
    return found is None or callable(found)


NEVER: Final = Retry(attempts=1)
DEFAULT: Final = Retry()
