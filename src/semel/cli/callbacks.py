"""`semel callbacks`: settling, by its id, what an execution waits for."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from semel.cli.code import parse_json
from semel.cli.location import existing_path, store_option
from semel.cli.output import say
from semel.errors import ValidationError
from semel.kernel import values

callback_argument = click.argument("callback_id", metavar="ID")


@click.group()
def callbacks() -> None:
    """Settle callbacks by their ids, or say that the work on one goes on."""


@callbacks.command()
@callback_argument
@click.argument("document", metavar="[JSON]", required=False)
@store_option
def succeed(callback_id: str, document: str | None, store: str) -> None:
    """Give a callback its value: JSON, or null if it is left out; `-` reads it from standard input.

    The same value once more changes nothing; another is refused.
    """
    text: str | bytes | None = sys.stdin.buffer.read() if document == "-" else document
    value = None if text is None else parse_json(text)
    _settle(store, {"id": callback_id, "action": "succeed", "value": values.encode(value)}, "settled")


@callbacks.command()
@callback_argument
@click.argument("message")
@click.option("--type", "error_type", help="What the waiting code finds as error_type; CallbackFailed if left out.")
@store_option
def fail(callback_id: str, message: str, *, error_type: str | None, store: str) -> None:
    """Let a callback fail with a message. The same failure once more changes nothing."""
    request = {"id": callback_id, "action": "fail", "error": message, "error_type": error_type}
    _settle(store, request, "settled")


@callbacks.command()
@callback_argument
@store_option
def heartbeat(callback_id: str, store: str) -> None:
    """Say that the work goes on: the heartbeat time of a callback begins anew."""
    _settle(store, {"id": callback_id, "action": "heartbeat"}, "heard of")


def _settle(store: str, request: dict[str, Any], done: str) -> None:
    """Have it done by the owner of the file, or by an engine of our own."""
    from semel.runtime.owner_socket import call

    if not request["id"]:
        raise ValidationError("callback id: it is empty, expected what `Callback.id` gave, unchanged")
    if call(existing_path(store), "callback", request, timeout_ms=60_000) is None:
        asyncio.run(_settle_here(store, request))
    say(f"{done}; the execution goes on where its code is")


async def _settle_here(store: str, request: dict[str, Any]) -> None:
    from semel.engine import Engine
    from semel.served import serve

    async with Engine(store) as engine:
        await serve(engine, "callback", request)
