"""The use case, once for both models: what an order is, the three steps, and the HTTP-like answer.

    validate   in the shop            refused  → 400
    pay        at the provider        declined → 402
    ship       at the provider                 → 200

The steps come in two forms. Against a provider that deduplicates by key they are `effect="keyed"`:
repeated after a crash, under the same key. Against one that does not, they are
`effect="at_most_once"`: never begun again, so a crash in the gap ends in 409, "needs a decision",
and a person looks at the ledger. The same 409 answers a payment or parcel whose outcome is unknown
after all retries.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, NoReturn

import semel
from semel import Retry, step

from .gate import gate
from .provider_client import ProviderClient

Response = dict[str, Any]

PROVIDER_SOCKET = "PAYMENT_PROVIDER_SOCKET"
CENT = Decimal("0.01")
AMOUNT_MAX = Decimal(100_000)
SOON = Retry(attempts=6, first_delay_ms=20, factor=2, delay_max_ms=500, jitter="full")
NEVER = Retry(attempts=1)


class InvalidOrderError(Exception):
    """The request body is not an order. Nothing was started for it."""


@dataclass(frozen=True)
class Order:
    """A request as it was read. Whether it makes sense is the validate step's decision."""

    order_id: str
    amount: Decimal
    payment_method: str = "tok_visa"
    shipping_address: str = ""
    merchant_id: str = "merchant-1"
    customer: str = ""


@dataclass(frozen=True)
class PaymentResult:
    """What became of an order."""

    status: Literal["completed", "rejected", "declined", "needs_decision"]
    order_id: str = ""
    message: str = ""
    transaction_id: str = ""
    tracking_number: str = ""


@functools.cache
def provider() -> ProviderClient:
    """The provider that the environment names."""
    return ProviderClient(Path(os.environ[PROVIDER_SOCKET]))


def parse_order(body: object) -> Order:
    """Read an order from a JSON text. Raises InvalidOrderError that names the field.

    Amounts are decimals from the first character on: a JSON number is never a float here.
    """
    if not isinstance(body, str):
        raise InvalidOrderError(f"body: found {type(body).__name__}, expected a JSON text")
    try:
        fields = json.loads(body, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidOrderError(f"body: not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidOrderError(f"body: found {type(fields).__name__}, expected a JSON object")
    order_id = _text(fields, "order_id")
    if not order_id:
        raise InvalidOrderError("order_id: missing; expected the order's name")
    return Order(
        order_id=order_id,
        amount=_amount(fields.get("amount")),
        payment_method=_text(fields, "payment_method") or Order.payment_method,
        shipping_address=_text(fields, "shipping_address"),
        merchant_id=_text(fields, "merchant_id") or Order.merchant_id,
        customer=_text(fields, "customer"),
    )


def body_of(event: Mapping[str, Any]) -> object:
    """The body of an API Gateway event, decoded if the gateway encoded it."""
    body = event.get("body")
    if event.get("isBase64Encoded") and isinstance(body, str):
        try:
            return base64.b64decode(body, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidOrderError(f"body: not base64 of UTF-8 text: {error}") from error
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidOrderError(f"{name}: found {value!r}, expected a string")
    return value


def _amount(value: object) -> Decimal:
    if value is None:
        raise InvalidOrderError('amount: missing; expected a decimal such as "99.99"')
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise InvalidOrderError(f'amount: found {value!r}, expected a decimal such as "99.99"')
    try:
        amount = Decimal(value)
        if amount.is_finite() and 0 < amount <= AMOUNT_MAX and amount == amount.quantize(CENT):
            return amount.quantize(CENT)
    except InvalidOperation:
        pass
    raise InvalidOrderError(f"amount: found {str(value)!r}, expected more than 0, at most {AMOUNT_MAX}, in whole cents")


@step(retry=NEVER)
async def validate(order: Order) -> str:
    """The reason to refuse the order, or the empty string."""
    await gate().begin("validate", order.order_id)
    if not order.shipping_address.strip():
        return "shipping_address: missing; a parcel needs one, and nothing was charged"
    return ""


@dataclass(frozen=True)
class Payment:
    """The provider's receipt, or why it declined."""

    transaction_id: str = ""
    declined: str = ""


@step(retry=SOON, effect="keyed")
async def charge(order: Order, effect_key: str = semel.EFFECT_KEY) -> Payment:
    """Pay at a provider that deduplicates: repeating it under the same key is safe."""
    return await _charge(order, effect_key)


@step(retry=NEVER, effect="at_most_once")
async def charge_once(order: Order) -> Payment:
    """Pay at a provider that does not: begun once, and after a crash in the gap never again."""
    return await _charge(order, None)


@step(retry=SOON, effect="keyed")
async def ship(order: Order, effect_key: str = semel.EFFECT_KEY) -> str:
    """Send the parcel; returns the tracking number."""
    return await _ship(order, effect_key)


@step(retry=NEVER, effect="at_most_once")
async def ship_once(order: Order) -> str:
    """The same where nobody deduplicates."""
    return await _ship(order, None)


async def _charge(order: Order, key: str | None) -> Payment:
    await gate().begin("pay", order.order_id)
    receipt = await provider().charge(order.order_id, order.amount, card=order.payment_method, key=key)
    await gate().reach("pay-receipt", order.order_id)
    return Payment(receipt.effect_id or "", receipt.declined or "")


async def _ship(order: Order, key: str | None) -> str:
    await gate().begin("ship", order.order_id)
    receipt = await provider().ship(order.order_id, order.shipping_address, key=key)
    await gate().reach("ship-receipt", order.order_id)
    return receipt.effect_id or ""


@dataclass(frozen=True)
class Steps:
    """Which form of the two steps at the provider an order goes through."""

    pay: Callable[[Order], Awaitable[Payment]]
    ship: Callable[[Order], Awaitable[str]]


KEYED = Steps(charge, ship)
ONCE = Steps(charge_once, ship_once)

STATUS_CODES: Mapping[str, int] = {"completed": 200, "rejected": 400, "declined": 402, "needs_decision": 409}


def respond(result: PaymentResult) -> Response:
    """The answer of a Lambda handler behind an API Gateway."""
    fields = {name: value for name, value in vars(result).items() if value}
    return {"statusCode": STATUS_CODES[result.status], "body": json.dumps(fields)}


def unknown_outcome(order: Order, stage: str, error: Exception) -> PaymentResult:
    """The step ended without an answer, so nobody here can know what the provider did."""
    message = f"{stage}: the outcome is not known ({error}); look the order up at the provider"
    return PaymentResult("needs_decision", order.order_id, message)
