"""Poll: how wait_for_condition asks again. After each check, it is enough or there is a delay.

A delay is a durable timer: it survives the process, and nobody holds the stream meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from semel.errors import ValidationError
from semel.retry import back_off_ms, check_back_off, decided_ms


class Poll(Struct, frozen=True, kw_only=True):
    """When to stop asking, and how long to wait in between.

    `until(state)` says whether the state is what is waited for; without it, a true state is. The
    defaults are AWS's: 60 attempts, 5 s growing by 1.5 to 5 minutes, full jitter. `delay_ms(state,
    attempt)`, if given, decides the delay alone. Raises ValidationError for values out of range.
    """

    until: Callable[[Any], bool] | None = None
    attempts: int = 60
    first_delay_ms: int = 5_000
    factor: float = 1.5
    delay_max_ms: int = 300_000
    jitter: Literal["full", "half", "none"] = "full"
    delay_ms: Callable[[Any, int], int] | None = None

    def __post_init__(self) -> None:
        check_back_off("Poll", self)
        for field in ("until", "delay_ms"):
            found = getattr(self, field)
            if found is not None and not callable(found):
                raise ValidationError(f"Poll.{field}: found {found!r}, expected a function of the state")

    def is_met(self, state: Any) -> bool:
        """Whether the state is what is waited for."""
        return bool(state if self.until is None else self.until(state))

    def next_delay_ms(self, state: Any, attempt: int, *, luck: float) -> int | None:
        """How long to wait after check number `attempt` (from 1), or None when there were enough.

        `luck` is a random number in [0, 1), given by the caller.
        """
        if attempt >= self.attempts:
            return None
        if self.delay_ms is not None:
            return decided_ms("Poll.delay_ms", self.delay_ms(state, attempt))
        return back_off_ms(self, attempt, luck=luck)
