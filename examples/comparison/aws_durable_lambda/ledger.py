"""Reading what the witnesses wrote: the provider's ledger, and the step bodies' begin marks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Books:
    """One ledger, read once: charges and shipments by order, as often as they are in the file."""

    charged: dict[str, list[Decimal]]
    shipped: Counter[str]

    def charges_of(self, order: str) -> int:
        """How often this order was charged."""
        return len(self.charged.get(order, []))

    def total(self, orders: Iterable[str] | None = None) -> Decimal:
        """The money taken, for these orders or for all."""
        wanted = self.charged if orders is None else orders
        return sum((amount for order in wanted for amount in self.charged.get(order, [])), Decimal())

    def charged_more_than_once(self) -> list[str]:
        """Orders that paid twice: the failure everything here is about."""
        return sorted(order for order, amounts in self.charged.items() if len(amounts) > 1)

    def shipped_more_than_once(self) -> list[str]:
        """Orders for which two parcels left."""
        return sorted(order for order, count in self.shipped.items() if count > 1)


def read_books(path: Path) -> Books:
    """Read a ledger. A torn last line is an error: the provider is never killed."""
    books = Books({}, Counter())
    for line in _lines(path):
        if line["kind"] == "charge":
            books.charged.setdefault(line["order"], []).append(Decimal(line["amount"]))
        else:
            books.shipped[line["order"]] += 1
    return books


def read_begins(path: Path) -> Counter[tuple[str, str]]:
    """How often each step body began, by (step, order)."""
    return Counter((line["step"], line["order"]) for line in _lines(path))


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
