"""How code talks to the payment provider, in async and in blocking form.

A declined card is an answer. No answer is an error, and says what is known: `NoReplyError` may have
charged, `ProviderError` says what the provider said.
"""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

Kind = Literal["charge", "ship"]

REPLY_TIMEOUT_S = 60.0


class ProviderError(Exception):
    """The provider answered, and the answer is neither a receipt nor a declined card."""


class NoReplyError(Exception):
    """The connection ended before an answer: whether the effect happened is not known."""


@dataclass(frozen=True)
class Receipt:
    """What the provider answered: an id of the effect, or the reason why the card was declined."""

    effect_id: str | None = None
    declined: str | None = None


def charge_request(order: str, amount: Decimal, *, card: str, key: str | None) -> dict[str, Any]:
    """The wire form of a charge; the amount travels as a string."""
    return {"op": "charge", "order": order, "amount": f"{amount:.2f}", "card": card, "key": key}


def ship_request(order: str, address: str, *, key: str | None) -> dict[str, Any]:
    """The wire form of a shipment."""
    return {"op": "ship", "order": order, "address": address, "key": key}


def receipt(answer: dict[str, Any]) -> Receipt:
    """Read an answer. Raises ProviderError unless it is a receipt or a declined card."""
    match answer["status"]:
        case 200:
            return Receipt(effect_id=answer["id"])
        case 402:
            return Receipt(declined=answer["reason"])
        case status:
            raise ProviderError(f"the provider answered {status}: {answer.get('reason')}")


class ProviderClient:
    """The async client: one connection a request."""

    def __init__(self, socket_path: Path) -> None:
        self._path = str(socket_path)

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return the answer. Raises NoReplyError when none came."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._path)
        except OSError as error:
            raise ProviderError(f"the provider at {self._path!r} does not accept connections: {error}") from error
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            await writer.drain()
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                line = await reader.readline()
        except (ConnectionError, TimeoutError) as error:
            raise NoReplyError(f"the provider's reply was lost: {error!r}") from error
        finally:
            writer.close()
        return _decoded(line)

    async def charge(self, order: str, amount: Decimal, *, card: str, key: str | None) -> Receipt:
        """Charge the card, once per key where the provider deduplicates."""
        return receipt(await self.ask(charge_request(order, amount, card=card, key=key)))

    async def ship(self, order: str, address: str, *, key: str | None) -> Receipt:
        """Hand the parcel over, once per key where the provider deduplicates."""
        return receipt(await self.ask(ship_request(order, address, key=key)))

    async def mode(self, **changes: int) -> None:
        """Set `delay_ms`, `fail_next` or `drop_next`."""
        await self.ask({"op": "mode", **changes})

    async def hold(self, kind: Kind, order: str) -> None:
        """From now on, keep back the receipts for this order."""
        await self.ask({"op": "hold", "kind": kind, "order": order})

    async def held(self, kind: Kind, order: str) -> None:
        """Return once the effect is in the ledger and its receipt is kept back."""
        await self.ask({"op": "await_held", "kind": kind, "order": order})

    async def release(self, kind: Kind, order: str) -> None:
        """Let the receipts go."""
        await self.ask({"op": "release", "kind": kind, "order": order})

    async def stats(self) -> dict[str, int]:
        """How often the provider was asked for what, and what it did about it."""
        answer = await self.ask({"op": "stats"})
        return {name: count for name, count in answer.items() if name != "status"}


class BlockingProviderClient:
    """The same for code without an event loop."""

    def __init__(self, socket_path: Path) -> None:
        self._path = str(socket_path)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return the answer. Raises NoReplyError when none came."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(REPLY_TIMEOUT_S)
        try:
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise ProviderError(f"the provider at {self._path!r} does not accept connections: {error}") from error
        try:
            with connection, connection.makefile("rb") as answers:
                connection.sendall(json.dumps(request).encode() + b"\n")
                line = answers.readline()
        except OSError as error:
            raise NoReplyError(f"the provider's reply was lost: {error!r}") from error
        return _decoded(line)

    def charge(self, order: str, amount: Decimal, *, card: str, key: str | None) -> Receipt:
        """Charge the card, once per key where the provider deduplicates."""
        return receipt(self.ask(charge_request(order, amount, card=card, key=key)))

    def ship(self, order: str, address: str, *, key: str | None) -> Receipt:
        """Hand the parcel over, once per key where the provider deduplicates."""
        return receipt(self.ask(ship_request(order, address, key=key)))


def _decoded(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise NoReplyError("the provider closed the connection before its reply")
    answer: dict[str, Any] = json.loads(line)
    return answer
