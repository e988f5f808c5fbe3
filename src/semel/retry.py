"""Retry: after how many attempts, and how much later, a step is tried again.

A delay is a durable timer: it survives the process, and nobody holds the stream meanwhile.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from semel.errors import ValidationError

DELAY_MAX_MS: Final = 10 * 366 * 86_400_000
FACTOR_MAX: Final = 1_000


class Retry(Struct, frozen=True, kw_only=True):
    """A back-off policy. The defaults are AWS's preset: 6 attempts, 5 s doubling to 60 s, full jitter.

    `attempts` counts the first try; `Retry(attempts=1)` never retries. `only` is a tuple of the
    error classes worth another try, subclasses included; empty means all. Raises
    ValidationError for values out of range.
    """

    attempts: int = 6
    first_delay_ms: int = 5_000
    factor: float = 2.0
    delay_max_ms: int = 60_000
    jitter: Literal["full", "none"] = "full"
    only: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        delay = f"a whole number from 0 to {DELAY_MAX_MS} (ten years)"
        checks = [
            ("attempts", self.attempts, "a whole number, 1 or more", _is_whole(self.attempts, at_least=1)),
            ("first_delay_ms", self.first_delay_ms, delay, _is_delay(self.first_delay_ms)),
            ("factor", self.factor, f"a number from 1 to {FACTOR_MAX}", _is_factor(self.factor)),
            ("delay_max_ms", self.delay_max_ms, delay, _is_delay(self.delay_max_ms)),
            ("jitter", self.jitter, "'full' or 'none'", self.jitter in ("full", "none")),
            ("only", self.only, "a tuple of exception classes", _is_errors(self.only)),
        ]
        for field, found, expected, is_right in checks:
            if not is_right:
                raise ValidationError(f"Retry.{field}: found {found!r}, expected {expected}")

    def delay_ms(self, attempt: int, error: BaseException, *, luck: float) -> int | None:
        """How long to wait after the failed `attempt` (from 1), or None to give up.

        `luck` is a random number in [0, 1), given by the caller so that this stays pure.
        """
        if attempt >= self.attempts or (self.only and not isinstance(error, self.only)):
            return None
        ceiling = min(float(self.delay_max_ms), self.first_delay_ms * self.factor ** min(attempt - 1, 64))
        return round(ceiling * luck) if self.jitter == "full" else round(ceiling)


def _is_whole(found: object, *, at_least: int) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and found >= at_least


def _is_delay(found: object) -> bool:
    return _is_whole(found, at_least=0) and found <= DELAY_MAX_MS  # type: ignore[operator]


def _is_factor(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool) and 1 <= found <= FACTOR_MAX


def _is_errors(found: object) -> bool:
    return isinstance(found, tuple) and all(isinstance(cls, type) and issubclass(cls, BaseException) for cls in found)


NEVER: Final = Retry(attempts=1)
DEFAULT: Final = Retry()
