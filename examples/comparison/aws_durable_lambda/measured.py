"""What the demo measured of one model: the content of its column in the table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass
class Measured:
    """Filled in while the demo runs; every number comes from a ledger, a begin mark, a clock or a file size."""

    kills: Counter[str] = field(default_factory=Counter)
    kills_once: Counter[str] = field(default_factory=Counter)
    orders_killed: int = 0
    orders_recovered: int = 0
    charges_max: int = 0
    begins_once_max: int = 0
    undecided_once: int = 0
    steps_begun: int = 0
    steps_repeated: int = 0
    finished_steps_repeated: int = 0
    concurrent: int = 0
    concurrent_charges: int = 0
    conflicts_refused: int = 0
    answers_kept: int = 0
    answers_asked: int = 0
    state_total: Decimal | None = None
    ledger_total: Decimal = Decimal(0)
    first_ms: float = 0.0
    repeated_ms: float = 0.0
    journal_bytes: int = 0
    journal_orders: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def kills_total(self) -> int:
        return self.kills.total() + self.kills_once.total()
