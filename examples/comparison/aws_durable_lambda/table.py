"""The original's table, with what was measured beside what the original claims."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from .driver import ModelName
from .measured import Measured

ROWS = ("Durability", "Idempotency", "State persistence", "Replay", "Caching")

# Quoted from the table of the original comparison, whose two halves do not run; see the README.
CLAIMS = {
    "Durability": ("Built-in (all executions logged)", "DurabilityFacet (optional)"),
    "Idempotency": ("Automatic via execution context", "Manual check + state tracking"),
    "State persistence": ("Automatic (all state persisted)", "Via DurabilityFacet"),
    "Replay": ("Automatic on restart", "Deterministic replay via journal"),
    "Caching": ("Built-in result caching", "Manual state tracking"),
}
COLUMNS = (
    ("", 11),
    ("durable function (semel), measured", 21),
    ("durable actor, PlexSpaces' model (semel), measured", 21),
    ("AWS Durable Lambda, quoted claim", 15),
    ("PlexSpaces, quoted claim", 16),
)


def cells(model: ModelName, m: Measured) -> dict[str, str]:
    """One model's column, each cell from what was measured."""
    state = f"{m.answers_kept} of {m.answers_asked} answers the same bytes after restart"
    if m.state_total is not None:
        state += (
            f"; total_amount {m.state_total} = ledger {m.ledger_total}"
            if m.state_total == m.ledger_total
            else (f"; total_amount {m.state_total}, but ledger {m.ledger_total}")
        )
    else:
        state += "; no state beside them"
    return {
        "Durability": f"{m.kills_total} SIGKILLs; {m.orders_recovered} of {m.orders_killed} killed orders finished "
        f"unasked with one charge; without provider keys {m.undecided_once} of {m.kills_once.total()} reported "
        f"as needs_decision",
        "Idempotency": f"at most {m.charges_max} charge an order; {m.concurrent} concurrent duplicates: "
        f"{m.concurrent_charges} charge; other amount: {m.conflicts_refused} of 1 refused",
        "State persistence": state,
        "Replay": f"{m.steps_repeated} of {m.steps_begun} step begins were repetitions; "
        f"{m.finished_steps_repeated} of a recorded step; at-most-once begun at most {m.begins_once_max}×",
        "Caching": f"first call {m.first_ms:.1f} ms, duplicate {m.repeated_ms:.2f} ms; journal "
        f"{m.journal_bytes / 1024:.0f} KiB for {m.journal_orders} orders",
    }


def print_table(measured: dict[ModelName, Measured]) -> None:
    """Print the five rows, at most 100 columns wide."""
    columns = {model: cells(model, m) for model, m in measured.items()}
    _rule()
    _row([title for title, _ in COLUMNS])
    _rule()
    for row in ROWS:
        _row([row, columns["function"][row], columns["actor"][row], *(f"“{claim}”" for claim in CLAIMS[row])])
        _rule()


def print_kills(measured: dict[ModelName, Measured]) -> None:
    """Print how many kills were counted, by boundary and model."""
    print(f"{'boundary':<16}{'function':>10}{'actor':>10}{'function, no keys':>20}{'actor, no keys':>18}")
    boundaries = dict.fromkeys(place for m in measured.values() for place in (*m.kills, *m.kills_once))
    function, actor = measured["function"], measured["actor"]
    counts = (function.kills, actor.kills, function.kills_once, actor.kills_once)
    for name, values in (
        *((place, [count[place] for count in counts]) for place in boundaries),
        ("total", [count.total() for count in counts]),
    ):
        print(f"{name:<16}{values[0]:>10}{values[1]:>10}{values[2]:>20}{values[3]:>18}")


def _rule() -> None:
    print("+" + "+".join("-" * (width + 2) for _, width in COLUMNS) + "+")


def _row(texts: Iterable[str]) -> None:
    wrapped = [textwrap.wrap(text, width) or [""] for text, (_, width) in zip(texts, COLUMNS, strict=True)]
    for number in range(max(map(len, wrapped))):
        parts = [
            f" {lines[number] if number < len(lines) else '':<{width}} "
            for lines, (_, width) in zip(wrapped, COLUMNS, strict=True)
        ]
        print("|" + "|".join(parts) + "|")
