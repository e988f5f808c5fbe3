"""The payment provider is the witness of the demo, so its own rules come first."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from examples.comparison.aws_durable_lambda.ledger import read_books
from examples.comparison.aws_durable_lambda.provider_client import (
    BlockingProviderClient,
    NoReplyError,
    ProviderClient,
    ProviderError,
)

ROOT = Path(__file__).resolve().parents[2]
TEN = Decimal("10.00")


@contextmanager
def running_provider(dedup: str = "on") -> Iterator[tuple[Path, Path]]:
    """Its socket and its ledger."""
    with tempfile.TemporaryDirectory(prefix="semel-", dir="/tmp") as name:
        at, ledger = Path(name) / "provider", Path(name) / "ledger.jsonl"
        module = "examples.comparison.aws_durable_lambda.provider"
        with subprocess.Popen(
            [sys.executable, "-m", module, "--ledger", ledger, "--socket", at, "--dedup", dedup],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == b"ready\n"
            yield at, ledger
            process.stdin.close()
            assert process.wait(10) == 0


def test_a_repeated_key_is_charged_once_and_gets_the_first_receipt() -> None:
    with running_provider() as (at, ledger):
        client = BlockingProviderClient(at)
        receipts = [client.charge("o", TEN, card="tok_visa", key="k") for _ in range(3)]
        assert receipts == [receipts[0]] * 3
        assert read_books(ledger).charged == {"o": [TEN]}


def test_without_deduplication_a_repeated_key_is_charged_again() -> None:
    with running_provider("off") as (at, ledger):
        client = BlockingProviderClient(at)
        assert len({client.charge("o", TEN, card="tok_visa", key="k").effect_id for _ in range(2)}) == 2
        assert read_books(ledger).charged_more_than_once() == ["o"]


def test_a_key_used_for_another_amount_is_refused_and_nothing_is_charged() -> None:
    with running_provider() as (at, ledger):
        client = BlockingProviderClient(at)
        client.charge("o", TEN, card="tok_visa", key="k")
        with pytest.raises(ProviderError, match="another request"):
            client.charge("o", TEN + 1, card="tok_visa", key="k")
        assert read_books(ledger).total() == TEN


def test_a_declined_card_is_an_answer_and_leaves_no_charge() -> None:
    with running_provider() as (at, ledger):
        receipt = BlockingProviderClient(at).charge("o", TEN, card="tok_declined_funds", key="k")
        assert (receipt.effect_id, receipt.declined) == (None, "card declined")
        assert read_books(ledger).charged == {}


def test_charge_and_shipment_under_one_key_are_two_effects() -> None:
    with running_provider() as (at, ledger):
        client = BlockingProviderClient(at)
        client.charge("o", TEN, card="tok_visa", key="k")
        client.ship("o", "Köln", key="k")
        books = read_books(ledger)
        assert (books.charges_of("o"), books.shipped["o"]) == (1, 1)


def test_a_failed_request_charges_nothing_and_the_next_one_works() -> None:
    with running_provider() as (at, ledger):
        client = BlockingProviderClient(at)
        client.ask({"op": "mode", "fail_next": 1})
        with pytest.raises(ProviderError, match="500"):
            client.charge("o", TEN, card="tok_visa", key="k")
        assert read_books(ledger).charged == {}
        client.charge("o", TEN, card="tok_visa", key="k")
        assert read_books(ledger).charges_of("o") == 1


def test_a_dropped_reply_has_charged_and_the_repetition_gets_its_receipt() -> None:
    with running_provider() as (at, ledger):
        client = BlockingProviderClient(at)
        client.ask({"op": "mode", "drop_next": 1})
        with pytest.raises(NoReplyError):
            client.charge("o", TEN, card="tok_visa", key="k")
        assert read_books(ledger).charges_of("o") == 1
        assert client.charge("o", TEN, card="tok_visa", key="k").effect_id == "ch_000001"
        assert read_books(ledger).charges_of("o") == 1


def test_a_held_receipt_is_in_the_ledger_before_it_is_delivered() -> None:
    async def scenario(at: Path, ledger: Path) -> None:
        client = ProviderClient(at)
        await client.hold("charge", "o")
        charge = asyncio.create_task(client.charge("o", TEN, card="tok_visa", key="k"))
        await client.held("charge", "o")
        assert read_books(ledger).charges_of("o") == 1
        await asyncio.sleep(0.05)
        assert not charge.done()
        await client.release("charge", "o")
        assert (await charge).effect_id == "ch_000001"

    with running_provider() as (at, ledger):
        asyncio.run(scenario(at, ledger))


def test_holding_again_waits_for_the_repeated_request_not_for_the_first() -> None:
    async def scenario(at: Path) -> None:
        client = ProviderClient(at)
        await client.hold("charge", "o")
        first = asyncio.create_task(client.charge("o", TEN, card="tok_visa", key="k"))
        await client.held("charge", "o")
        await client.hold("charge", "o")
        await first
        held = asyncio.create_task(client.held("charge", "o"))
        await asyncio.sleep(0.05)
        assert not held.done()
        second = asyncio.create_task(client.charge("o", TEN, card="tok_visa", key="k"))
        await held
        await client.release("charge", "o")
        assert (await second).effect_id == "ch_000001"

    with running_provider() as (at, _):
        asyncio.run(scenario(at))


def test_clients_that_die_or_talk_nonsense_do_not_disturb_the_next_one() -> None:
    with running_provider() as (at, ledger):
        for data in (b"", b'{"op": "charge", "order"', b"\xff\xfe\n", b"[]\n", b'{"op": "pay"}\n', b"x" * 200_000):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(at))
                try:
                    client.sendall(data)
                except BrokenPipeError:
                    assert len(data) > 65_536
        assert read_books(ledger).charged == {}
        assert BlockingProviderClient(at).charge("o", TEN, card="tok_visa", key="k").effect_id == "ch_000001"


@pytest.mark.parametrize("amount", ["-1", "0", "NaN", "ten", None, 1.5])
def test_an_amount_that_is_not_a_positive_decimal_is_refused(amount: object) -> None:
    with running_provider() as (at, ledger):
        answer = BlockingProviderClient(at).ask({"op": "charge", "order": "o", "amount": amount})
        assert answer["status"] == 400
        assert read_books(ledger).charged == {}


def test_a_ledger_line_says_when_what_and_which_attempt() -> None:
    with running_provider("off") as (at, ledger):
        client = BlockingProviderClient(at)
        for _ in range(2):
            client.charge("o", TEN, card="tok_visa", key=None)
        lines = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    assert [line["attempt"] for line in lines] == [1, 2]
    assert set(lines[0]) == {"time_ms", "kind", "id", "key", "order", "amount", "attempt"}
    assert lines[0]["amount"] == "10.00"
