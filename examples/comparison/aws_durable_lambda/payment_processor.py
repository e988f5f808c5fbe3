"""The use case as a durable actor: one processor a merchant, one order at a time.

The state is the merchant's total. There is no list of processed keys in it: each call carries its
idempotency key, and the engine keeps key, request and reply. A reply, the state after it and the
key's outcome are committed together, before the caller hears.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from semel import Context, DurabilityFacet, GenServer, call
from semel.errors import StepError

from .shop import KEYED, ONCE, Order, PaymentResult, unknown_outcome, validate


@dataclass
class PaymentState:
    """What a merchant took, and how the orders ended."""

    total_amount: Decimal = Decimal("0.00")
    completed: int = 0
    refused: int = 0
    undecided: int = 0


class PaymentProcessor(GenServer[PaymentState]):
    """For a provider that deduplicates by key: an interrupted step is repeated under its key."""

    facets = [DurabilityFacet(checkpoint_interval=5)]
    steps = KEYED

    @call
    async def pay(self, ctx: Context, order: Order) -> PaymentResult:
        """Validate, pay and ship one order; count it."""
        result = await self._process(ctx, order)
        _count(self.state, order, result)
        return result

    @call
    async def summary(self, ctx: Context) -> PaymentState:
        """The state as it is after all calls before this one."""
        return self.state

    async def _process(self, ctx: Context, order: Order) -> PaymentResult:
        if reason := await ctx.step(validate, order):
            return PaymentResult("rejected", order.order_id, reason)
        stage = "pay"
        try:
            payment = await ctx.step(self.steps.pay, order)
            if payment.declined:
                return PaymentResult("declined", order.order_id, payment.declined)
            stage = "ship"
            tracking_number = await ctx.step(self.steps.ship, order)
        except StepError as error:
            return unknown_outcome(order, stage, error)
        return PaymentResult(
            "completed", order.order_id, transaction_id=payment.transaction_id, tracking_number=tracking_number
        )


class PaymentProcessorOnce(PaymentProcessor):
    """For a provider without keys: an interrupted step is reported, never repeated."""

    steps = ONCE


def _count(state: PaymentState, order: Order, result: PaymentResult) -> None:
    match result.status:
        case "completed":
            state.total_amount += order.amount
            state.completed += 1
        case "needs_decision":
            state.undecided += 1
        case _:
            state.refused += 1
