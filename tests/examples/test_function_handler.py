"""The durable function as an ordinary callable: what it answers to which event."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.comparison.aws_durable_lambda import shop
from examples.comparison.aws_durable_lambda.function_handler import process_order, process_order_once
from examples.comparison.aws_durable_lambda.payment_processor import PaymentProcessor
from examples.comparison.aws_durable_lambda.provider_client import Receipt
from examples.comparison.aws_durable_lambda.shop import InvalidOrderError, Order, parse_order
from semel.errors import StepError

ORDER = {"order_id": "o-1", "amount": "99.99", "shipping_address": "Zoë, Große Straße 5, Köln"}


class Direct:
    """A context that calls the step at once, and fails the steps it is told to fail."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.called: list[str] = []

    async def step(self, function: Callable[..., Any], *args: Any) -> Any:
        name = function.__name__
        self.called.append(name)
        if name in self.failing:
            raise StepError(name, "NoReplyError", "the reply was lost")
        return await function(*args)


class Bank:
    """A provider that only remembers."""

    def __init__(self) -> None:
        self.charged: list[Decimal] = []

    async def charge(self, order: str, amount: Decimal, *, card: str, key: str | None) -> Receipt:
        if card.startswith("tok_declined"):
            return Receipt(declined="card declined")
        self.charged.append(amount)
        return Receipt(effect_id=f"ch-{order}")

    async def ship(self, order: str, address: str, *, key: str | None) -> Receipt:
        return Receipt(effect_id=f"sh-{order}")


@pytest.fixture
def bank(monkeypatch: pytest.MonkeyPatch) -> Bank:
    bank = Bank()
    monkeypatch.setattr(shop, "provider", lambda: bank)
    return bank


def answer(event: dict[str, Any], *, context: Direct | None = None, function: Any = process_order) -> tuple[int, Any]:
    response = asyncio.run(function(context or Direct(), event))
    return response["statusCode"], json.loads(response["body"])


def event_of(**changes: Any) -> dict[str, Any]:
    return {"body": json.dumps({name: value for name, value in {**ORDER, **changes}.items() if value is not None})}


def test_an_order_is_paid_and_shipped(bank: Bank) -> None:
    status, body = answer(event_of())
    assert status == 200
    assert body == {
        "status": "completed",
        "order_id": "o-1",
        "transaction_id": "ch-o-1",
        "tracking_number": "sh-o-1",
    }
    assert bank.charged == [Decimal("99.99")]


def test_a_number_in_json_is_a_decimal_and_never_a_float(bank: Bank) -> None:
    assert answer({"body": '{"order_id": "o", "amount": 99.99, "shipping_address": "x"}'})[0] == 200
    assert str(bank.charged[0]) == "99.99"


def test_the_usage_event_of_the_original_is_refused_before_anything_is_charged(bank: Bank) -> None:
    context = Direct()
    status, body = answer({"body": json.dumps({"order_id": "order-123", "amount": 99.99})}, context=context)
    assert (status, body["message"].partition(":")[0]) == (400, "shipping_address")
    assert context.called == ["validate"]
    assert bank.charged == []


def test_a_declined_card_is_402_and_nothing_is_shipped(bank: Bank) -> None:
    context = Direct()
    assert answer(event_of(payment_method="tok_declined_funds"), context=context)[0] == 402
    assert context.called == ["validate", "charge"]
    assert bank.charged == []


@pytest.mark.parametrize("failing", ["charge", "ship"])
def test_an_unknown_outcome_is_409_with_the_order(bank: Bank, failing: str) -> None:
    status, body = answer(event_of(), context=Direct(failing))
    assert (status, body["status"], body["order_id"]) == (409, "needs_decision", "o-1")


@pytest.mark.parametrize("failing", ["charge_once", "ship_once"])
def test_an_interrupted_at_most_once_step_is_409_with_the_order(bank: Bank, failing: str) -> None:
    status, body = answer(event_of(), context=Direct(failing), function=process_order_once)
    assert (status, body["order_id"]) == (409, "o-1")


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (None, "body"),
        (17, "body"),
        ("", "body"),
        ("{", "body"),
        ("[]", "body"),
        ("[" * 100_000, "body"),
        ('{"amount": "1.00"}', "order_id"),
        ('{"order_id": 7, "amount": "1.00"}', "order_id"),
        ('{"order_id": "o"}', "amount"),
        ('{"order_id": "o", "amount": true}', "amount"),
        ('{"order_id": "o", "amount": NaN}', "body"),
        ('{"order_id": "o", "amount": "NaN"}', "amount"),
        ('{"order_id": "o", "amount": "1e999999999"}', "amount"),
        ('{"order_id": "o", "amount": "1.005"}', "amount"),
        ('{"order_id": "o", "amount": -1}', "amount"),
        ('{"order_id": "o", "amount": "0"}', "amount"),
        ('{"order_id": "o", "amount": "1.00", "shipping_address": {}}', "shipping_address"),
    ],
)
def test_what_is_not_an_order_is_400_that_names_the_field(bank: Bank, body: object, names: str) -> None:
    context = Direct()
    status, answered = answer({"body": body}, context=context)
    assert (status, answered["message"].partition(":")[0]) == (400, names)
    assert context.called == []


def test_a_body_that_the_gateway_encoded_is_decoded(bank: Bank) -> None:
    encoded = base64.b64encode(event_of()["body"].encode()).decode()
    assert answer({"body": encoded, "isBase64Encoded": True})[0] == 200
    assert answer({"body": "%", "isBase64Encoded": True})[0] == 400


@given(st.text() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_parsing_any_text_gives_an_order_or_an_invalid_order_error(body: str) -> None:
    result: Order | InvalidOrderError
    try:
        result = parse_order(body)
    except InvalidOrderError as error:
        result = error
    assert isinstance(result, Order) or ":" in str(result)


@given(st.decimals(min_value="0.01", max_value=100_000, places=2))
def test_every_amount_in_cents_survives_as_string_and_as_number(amount: Decimal) -> None:
    for written in (f'"{amount}"', f"{amount}"):
        assert parse_order(f'{{"order_id": "o", "amount": {written}}}').amount == amount


def test_the_actor_counts_what_it_took(bank: Bank) -> None:
    async def scenario() -> Any:
        processor: Any = PaymentProcessor()
        processor.state = processor.init()
        await processor.pay(Direct(), parse_order(event_of()["body"]))
        await processor.pay(Direct(), parse_order(event_of(payment_method="tok_declined")["body"]))
        await processor.pay(Direct("ship"), parse_order(event_of()["body"]))
        return processor.state

    state = asyncio.run(scenario())
    assert (state.total_amount, state.completed, state.refused, state.undecided) == (Decimal("99.99"), 1, 1, 1)
