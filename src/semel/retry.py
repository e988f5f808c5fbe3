"""Retry: after how many attempts, and how much later, a step is tried again.

A delay is a durable timer: it survives the process, and nobody holds the stream meanwhile.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from semel.errors import ValidationError


class Retry(Struct, frozen=True, kw_only=True):
    """A back-off policy. The defaults are AWS's preset: 6 attempts, 5 s doubling to 60 s, full jitter.

    `attempts` counts the first try; `Retry(attempts=1)` never retries. `only` names the error
    classes worth another try (by name, also of a base class); empty means all. Raises
    ValidationError for values out of range.
    """

    attempts: int = 6
    first_delay_ms: int = 5_000
    factor: float = 2.0
    delay_max_ms: int = 60_000
    jitter: Literal["full", "none"] = "full"
    only: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        wrong = [
            ("attempts", self.attempts, "1 or more", self.attempts >= 1),
            ("first_delay_ms", self.first_delay_ms, "0 or more", self.first_delay_ms >= 0),
            ("factor", self.factor, "1.0 or more", self.factor >= 1.0),
            ("delay_max_ms", self.delay_max_ms, "0 or more", self.delay_max_ms >= 0),
            ("jitter", self.jitter, "'full' or 'none'", self.jitter in ("full", "none")),
        ]
        for field, found, expected, is_right in wrong:
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


NEVER: Final = Retry(attempts=1)
DEFAULT: Final = Retry()
