"""The use case as a durable function: validate → pay → ship, answered as a Lambda handler does.

    200  paid and shipped            400  not an order, or no shipping address
    402  the card was declined       409  the outcome of a step is unknown: needs a decision

The execution's key is the order id: the same event under it gets the recorded answer, another event
is refused by the engine. The usage event of the original comparison, an order id and an amount
without an address, is answered 400, before anything is charged.
"""

from __future__ import annotations

from typing import Any

from semel import Context, durable_function
from semel.errors import StepError

from .shop import (
    KEYED,
    ONCE,
    InvalidOrderError,
    PaymentResult,
    Response,
    Steps,
    body_of,
    parse_order,
    respond,
    unknown_outcome,
    validate,
)


@durable_function
async def process_order(ctx: Context, event: dict[str, Any]) -> Response:
    """For a provider that deduplicates by key: an interrupted step is repeated under its key."""
    return respond(await _process(ctx, event, KEYED))


@durable_function
async def process_order_once(ctx: Context, event: dict[str, Any]) -> Response:
    """For a provider without keys: an interrupted step is reported, never repeated."""
    return respond(await _process(ctx, event, ONCE))


async def _process(ctx: Context, event: dict[str, Any], steps: Steps) -> PaymentResult:
    try:
        order = parse_order(body_of(event))
    except InvalidOrderError as error:
        return PaymentResult("rejected", message=str(error))
    if reason := await ctx.step(validate, order):
        return PaymentResult("rejected", order.order_id, reason)
    stage = "pay"
    try:
        payment = await ctx.step(steps.pay, order)
        if payment.declined:
            return PaymentResult("declined", order.order_id, payment.declined)
        stage = "ship"
        tracking_number = await ctx.step(steps.ship, order)
    except StepError as error:
        return unknown_outcome(order, stage, error)
    return PaymentResult(
        "completed", order.order_id, transaction_id=payment.transaction_id, tracking_number=tracking_number
    )
