"""What one model is asked to do while nothing kills it: payments, duplicates, conflicts, a bad provider."""

from __future__ import annotations

import asyncio
import json
import statistics
from decimal import Decimal

from .checks import Checks
from .driver import Answer, EngineProcess, Setting, engine_process, provider_process
from .ledger import Books, read_begins, read_books
from .measured import Measured
from .provider_client import ProviderClient

MERCHANT = "merchant-7"
CONCURRENT = 50
ADDRESS = "Ada Lovelace, 12 St James's Square, London"


def body(order: str, amount: str, **fields: str) -> str:
    """A request as a client sends it."""
    order_fields = {"order_id": order, "amount": amount, "merchant_id": MERCHANT, "shipping_address": ADDRESS}
    return json.dumps({**order_fields, **fields})


class Scenario:
    """The scenario of one model; each method is one paragraph of it and prints its checks."""

    def __init__(self, setting: Setting, *, checks: Checks, measured: Measured) -> None:
        self._setting = setting
        self._checks = checks
        self._measured = measured
        self._answers: dict[str, tuple[str, Answer]] = {}

    def _books(self) -> Books:
        return read_books(self._setting.ledger)

    async def _pay(self, engine: EngineProcess, order: str, amount: str, **fields: str) -> Answer:
        request = body(order, amount, **fields)
        answer = await engine.pay(order, request)
        self._answers[order] = (request, answer)
        return answer

    async def run(self) -> None:
        """The scenario, then a restart, after which every answer must be as it was."""
        async with provider_process(self._setting) as provider:
            async with engine_process(self._setting, witness=self._setting.witness) as engine:
                await self.two_payments(engine)
                await self.duplicate_after_completion(engine)
                await self.concurrent_duplicates(engine, provider)
                await self.other_amount(engine)
                await self.declined_card(engine)
                await self.bad_requests(engine)
                await self.bad_provider(engine, provider)
                before = await engine.summary(MERCHANT)
            async with engine_process(self._setting, witness=self._setting.witness) as engine:
                await self.after_restart(engine, before)

    async def two_payments(self, engine: EngineProcess) -> None:
        first = await self._pay(engine, "order-1", "99.99")
        second = await self._pay(engine, "order-2", "149.50")
        books = self._books()
        self._checks.equal(
            "two payments: both 200, each charged once and shipped once",
            found=(first.status, second.status, books.charged, dict(books.shipped)),
            expected=(
                200,
                200,
                {"order-1": [Decimal("99.99")], "order-2": [Decimal("149.50")]},
                {"order-1": 1, "order-2": 1},
            ),
        )
        ids = {answer.fields["transaction_id"] for answer in (first, second)}
        self._checks.equal("each has a transaction id of its own", found=len(ids), expected=2)

    async def duplicate_after_completion(self, engine: EngineProcess) -> None:
        request, first = self._answers["order-1"]
        again = await engine.pay("order-1", request)
        self._checks.equal(
            "a duplicate after completion: the recorded answer with its transaction id, no charge",
            found=(again.status, again.body, self._books().charges_of("order-1")),
            expected=(first.status, first.body, 1),
        )

    async def concurrent_duplicates(self, engine: EngineProcess, provider: ProviderClient) -> None:
        await provider.mode(delay_ms=50)  # slow, so that all of them arrive while the first one runs
        request = body("order-3", "10.00")
        answers = await asyncio.gather(*(engine.pay("order-3", request) for _ in range(CONCURRENT)))
        await provider.mode(delay_ms=0)
        self._answers["order-3"] = (request, answers[0])
        charges = self._books().charges_of("order-3")
        begins = read_begins(self._setting.witness)["pay", "order-3"]
        self._checks.equal(
            f"{CONCURRENT} concurrent duplicates: one answer for all, charged once, pay begun once",
            found=({answer.body for answer in answers}, answers[0].status, charges, begins),
            expected=({answers[0].body}, 200, 1, 1),
        )
        self._measured.concurrent = CONCURRENT
        self._measured.concurrent_charges = charges

    async def other_amount(self, engine: EngineProcess) -> None:
        before = self._books()
        refused = await engine.pay("order-1", body("order-1", "999.99"))
        self._measured.conflicts_refused += refused.status == 422
        self._checks.equal(
            "the same key with another amount: IdempotencyConflictError, nothing charged",
            found=(refused.status, "'order-1'" in refused.fields["message"], self._books()),
            expected=(422, True, before),
        )
        request, first = self._answers["order-1"]
        again = await engine.pay("order-1", request)
        self._checks.equal("… and the first answer stands", found=again.body, expected=first.body)

    async def declined_card(self, engine: EngineProcess) -> None:
        declined = await self._pay(engine, "order-4", "20.00", payment_method="tok_declined_funds")
        books = self._books()
        self._checks.equal(
            "a declined card: 402, nothing charged, nothing shipped",
            found=(declined.status, books.charges_of("order-4"), books.shipped["order-4"]),
            expected=(402, 0, 0),
        )

    async def bad_requests(self, engine: EngineProcess) -> None:
        before = self._books()
        usage = json.dumps({"order_id": "order-123", "amount": 99.99})
        answer = await engine.pay("order-123", usage)
        self._checks.equal(
            "the original's usage event (no address): 400 that names shipping_address, nothing charged",
            found=(answer.status, answer.fields["message"].partition(":")[0], self._books()),
            expected=(400, "shipping_address", before),
        )
        malformed = {
            "bad-1": '{"order_id": ',
            "bad-2": "[]",
            "bad-3": body("bad-3", "1.005"),
            "bad-4": body("bad-4", "-1"),
        }
        statuses = {key: (await engine.pay(key, request)).status for key, request in malformed.items()}
        self._checks.equal(
            "not JSON, not an object, a fraction of a cent, a negative amount: 400, nothing charged",
            found=(statuses, self._books()),
            expected=(dict.fromkeys(malformed, 400), before),
        )

    async def bad_provider(self, engine: EngineProcess, provider: ProviderClient) -> None:
        await provider.mode(fail_next=2)
        failing = await self._pay(engine, "order-5", "30.00")
        begins = read_begins(self._setting.witness)["pay", "order-5"]
        self._checks.equal(
            "the provider answers 500 twice: the third attempt pays, charged once",
            found=(failing.status, begins, self._books().charges_of("order-5")),
            expected=(200, 3, 1),
        )
        await provider.mode(drop_next=1)
        dropped = await self._pay(engine, "order-6", "40.00")
        begins = read_begins(self._setting.witness)["pay", "order-6"]
        self._checks.equal(
            "the provider charges and drops its reply: repeated under the same key, charged once",
            found=(dropped.status, begins, self._books().charges_of("order-6")),
            expected=(200, 2, 1),
        )

    async def after_restart(self, engine: EngineProcess, before: dict[str, str]) -> None:
        again = {order: (await engine.pay(order, request)).body for order, (request, _) in self._answers.items()}
        self._checks.equal(
            f"after a restart {len(again)} duplicates get the same bytes",
            found=again,
            expected={order: answer.body for order, (_, answer) in self._answers.items()},
        )
        if before:
            summary = await engine.summary(MERCHANT)
            self._checks.equal("the actor's state is as it was before the restart", found=summary, expected=before)
            self._checks.equal(
                "its total_amount equals the provider's ledger",
                found=Decimal(summary["total_amount"]),
                expected=self._books().total(),
            )


async def lost_reply_without_keys(setting: Setting, *, checks: Checks) -> None:
    """Where nobody deduplicates, a lost reply is not tried again: it is reported."""
    async with provider_process(setting) as provider, engine_process(setting) as engine:
        await provider.mode(drop_next=1)
        request = body("order-lost", "50.00")
        answer = await engine.pay("order-lost", request)
        again = await engine.pay("order-lost", request)
        checks.equal(
            "without keys a lost reply is 409 needs_decision, also when asked again; charged once",
            found=(answer.status, again.body == answer.body, read_books(setting.ledger).charges_of("order-lost")),
            expected=(409, True, 1),
        )


async def measure_times(setting: Setting, *, calls: int, measured: Measured) -> None:
    """Medians of first calls and of their duplicates, without begin marks; and what the journal weighs."""
    async with provider_process(setting), engine_process(setting) as engine:
        requests = {f"timed-{number}": body(f"timed-{number}", "1.00") for number in range(calls)}
        for key, request in requests.items():
            await engine.pay(f"warm-{key}", request.replace(key, f"warm-{key}"))
        first = [(await engine.pay(key, request)).ms for key, request in requests.items()]
        repeated = [(await engine.pay(key, request)).ms for key, request in requests.items()]
    measured.first_ms = statistics.median(first)
    measured.repeated_ms = statistics.median(repeated)
    measured.journal_bytes = setting.journal_bytes()
    measured.journal_orders = 2 * calls
