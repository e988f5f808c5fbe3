"""SIGKILL at every step boundary in turn, by a handshake, and what must be true afterwards.

A kill is counted when the body of the step had begun (its first line ran, or the provider had taken
the money), and the step's record was not durable: the body was standing still at that moment, held
at the gate or waiting for a receipt that the provider kept back, so it had not returned.

Against the provider with keys each order is killed twice at its boundary: in the first run of the
step, and again when the restarted engine runs it once more. Nobody sends the order again: the
restarted engine finds it in its journal. Only when it is over is the request repeated, and the
answer must be the recorded one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from .checks import Checks
from .driver import EngineProcess, Setting, engine_process, provider_process
from .ledger import read_begins, read_books
from .measured import Measured
from .provider_client import ProviderClient

MERCHANT = "merchant-kills"
RECEIPT_HELD = "pay-charged"  # the only boundary that the provider holds; the gate holds the others

BOUNDARIES = ("validate", "pay-before", RECEIPT_HELD, "pay-receipt", "ship-before", "ship-receipt")
BOUNDARIES_ONCE = ("pay-before", RECEIPT_HELD, "pay-receipt", "ship-before", "ship-receipt")
STEPS = ("validate", "pay", "ship")


@dataclass(frozen=True)
class KillPlan:
    """How much is killed."""

    orders_per_boundary: int = 2
    lives: int = 2  # kills of one order at its boundary: the first run, then each repetition


@dataclass(frozen=True)
class Victim:
    """An order, and where it is killed."""

    order: str
    boundary: str
    amount: Decimal

    @property
    def body(self) -> str:
        return json.dumps(
            {
                "order_id": self.order,
                "amount": str(self.amount),
                "merchant_id": MERCHANT,
                "shipping_address": "Ada Lovelace, 12 St James's Square, London",
            }
        )

    @property
    def step(self) -> str:
        return self.boundary.split("-", 1)[0]


def victims(boundaries: tuple[str, ...], plan: KillPlan) -> Iterator[Victim]:
    """The orders to be killed, boundary by boundary."""
    for place, boundary in enumerate(boundaries):
        for number in range(1, plan.orders_per_boundary + 1):
            amount = Decimal(1000 * (place + 1) + 37 * number) / 100
            yield Victim(f"{boundary}-{number}", boundary, amount)


async def strike(engine: EngineProcess, provider: ProviderClient, victim: Victim) -> None:
    """Wait until the handshake says that the victim stands at its boundary; kill; see it dead."""
    if victim.boundary == RECEIPT_HELD:
        await provider.held("charge", victim.order)
    else:
        await engine.held(victim.boundary, victim.order)
    await engine.kill()


async def run_kills(setting: Setting, plan: KillPlan, *, checks: Checks, measured: Measured) -> None:
    """All kills of one model against a provider with keys, then the answers once more after a restart."""
    answers: dict[str, str] = {}
    orders = list(victims(BOUNDARIES, plan))
    async with provider_process(setting) as provider:
        for victim in orders:
            for life in range(plan.lives):
                await _one_life(setting, provider, victim, send=life == 0)
                measured.kills[victim.boundary] += 1
            await provider.release("charge", victim.order)
            async with engine_process(setting, witness=setting.witness) as engine:
                await engine.settled(victim.order, MERCHANT)
                await _check_recovered(
                    engine, setting, victim, plan=plan, checks=checks, measured=measured, answers=answers
                )
        await _check_afterwards(setting, orders, checks=checks, measured=measured, answers=answers)


async def _one_life(setting: Setting, provider: ProviderClient, victim: Victim, *, send: bool) -> None:
    """Start an engine with the boundary armed, send the order or let recovery find it, and kill."""
    holds = []
    if victim.boundary == RECEIPT_HELD:
        await provider.hold("charge", victim.order)
    else:
        holds.append(f"{victim.boundary}:{victim.order}")
    async with engine_process(setting, *holds, witness=setting.witness) as engine:
        request = engine.send("pay", key=victim.order, body=victim.body) if send else None
        await strike(engine, provider, victim)
        if request is not None:
            await asyncio.wait([request])
            request.exception()  # nobody was answered: the process died first


async def _check_recovered(
    engine: EngineProcess,
    setting: Setting,
    victim: Victim,
    *,
    plan: KillPlan,
    checks: Checks,
    measured: Measured,
    answers: dict[str, str],
) -> None:
    before = read_books(setting.ledger)
    answer = await engine.pay(victim.order, victim.body)
    answers[victim.order] = answer.body
    books, begins = read_books(setting.ledger), read_begins(setting.witness)
    found = {
        "charges": books.charged.get(victim.order),
        "parcels": books.shipped[victim.order],
        "settled before the request was repeated": before.shipped[victim.order] == 1,
        "status": answer.status,
        "begins": {step: begins[step, victim.order] for step in STEPS},
    }
    expected = {
        "charges": [victim.amount],
        "parcels": 1,
        "settled before the request was repeated": True,
        "status": 200,
        "begins": {step: 1 + plan.lives * (step == victim.step) for step in STEPS},
    }
    text = f"{victim.order}: {plan.lives}× SIGKILL, recovered unasked, charged once, only {victim.step} ran again"
    checks.equal(text, found=found, expected=expected)
    measured.orders_recovered += found == expected


async def _check_afterwards(
    setting: Setting, orders: list[Victim], *, checks: Checks, measured: Measured, answers: dict[str, str]
) -> None:
    async with engine_process(setting, witness=setting.witness) as engine:
        again = {victim.order: (await engine.pay(victim.order, victim.body)).body for victim in orders}
        summary = await engine.summary(MERCHANT)
    books, begins = read_books(setting.ledger), read_begins(setting.witness)
    checks.equal(f"after one more restart {len(orders)} duplicates get the same bytes", found=again, expected=answers)
    expected_total = sum((victim.amount for victim in orders), Decimal())
    checks.equal(
        f"the ledger balances: {expected_total} in {len(orders)} charges", found=books.total(), expected=expected_total
    )
    if summary:
        checks.equal(
            f"the actor's total_amount after {measured.kills.total()} kills equals the ledger",
            found=(Decimal(summary["total_amount"]), int(summary["completed"])),
            expected=(books.total(), len(orders)),
        )
        measured.state_total = Decimal(summary["total_amount"])
    measured.ledger_total = books.total()
    measured.orders_killed = len(orders)
    measured.charges_max = max(books.charges_of(victim.order) for victim in orders)
    measured.answers_asked = len(orders)
    measured.answers_kept = sum(again[order] == answers[order] for order in again)
    measured.steps_begun = begins.total()
    measured.steps_repeated = sum(count - 1 for count in begins.values())
    struck = {(victim.step, victim.order) for victim in orders}
    measured.finished_steps_repeated = sum(count - 1 for place, count in begins.items() if place not in struck)


async def run_kills_once(setting: Setting, plan: KillPlan, *, checks: Checks, measured: Measured) -> None:
    """The same against a provider without keys: no step body begins twice, and the gap is reported."""
    orders = list(victims(BOUNDARIES_ONCE, plan))
    async with provider_process(setting) as provider:
        for victim in orders:
            await _one_life(setting, provider, victim, send=True)
            measured.kills_once[victim.boundary] += 1
            await provider.release("charge", victim.order)
            async with engine_process(setting, witness=setting.witness) as engine:
                await engine.settled(victim.order, MERCHANT)
                answer = await engine.pay(victim.order, victim.body)
            books, begins = read_books(setting.ledger), read_begins(setting.witness)
            found = (
                answer.status,
                answer.fields.get("order_id"),
                begins["pay", victim.order],
                begins["ship", victim.order],
                books.charges_of(victim.order),
                books.shipped[victim.order],
            )
            charged = victim.boundary != "pay-before"
            shipping = victim.step == "ship"
            expected = (409, victim.order, 1, int(shipping), int(charged), int(victim.boundary == "ship-receipt"))
            text = f"{victim.order}: 1× SIGKILL, {victim.step} begun once, reported as 409 needs_decision"
            checks.equal(text, found=found, expected=expected)
            measured.undecided_once += answer.status == 409
    begins = read_begins(setting.witness)
    measured.begins_once_max = max(count for (step, _), count in begins.items() if step != "validate")
    checks.equal("no at-most-once step body began twice", found=measured.begins_once_max, expected=1)
