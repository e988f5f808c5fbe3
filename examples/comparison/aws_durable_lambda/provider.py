"""The payment provider: a process of its own, whose ledger is the witness of every run.

One request a connection, one JSON object a line each way. A charge or a shipment is one line of an
append-only file, on disk (fsync) before anything is answered. The provider keeps running while its
clients are killed; with `--dedup on` it answers a key it has seen with what it answered first.

Operations: `charge` and `ship` are the business; `mode` makes the next answers bad (500, dropped
reply, delay); `hold`, `await_held` and `release` keep a receipt back after the money moved, so that a
client can be killed in exactly that gap; `stats` counts what was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

Answer = dict[str, Any]
Kind = Literal["charge", "ship"]

LINE_BYTES_MAX = 64 * 1024
DECLINED_CARD_PREFIX = "tok_declined"


class Ledger:
    """Append-only JSONL; a line is on disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._count = 0

    def append(self, kind: Kind, request: Mapping[str, Any], *, attempt: int) -> str:
        """Write one effect and return its id."""
        self._count += 1
        effect_id = f"{'ch' if kind == 'charge' else 'sh'}_{self._count:06d}"
        line = {
            "time_ms": time.time_ns() // 1_000_000,
            "kind": kind,
            "id": effect_id,
            "key": request.get("key"),
            "order": request["order"],
            "amount": request.get("amount"),
            "attempt": attempt,
        }
        os.write(self._file, (json.dumps(line) + "\n").encode())
        os.fsync(self._file)
        return effect_id

    def close(self) -> None:
        os.close(self._file)


@dataclass
class Hold:
    """A receipt kept back: `held` once the effect is in the ledger, `released` when it may go out."""

    held: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Mode:
    """What goes wrong next. The counters count down; the delay stays until it is changed."""

    delay_ms: int = 0
    fail_next: int = 0
    drop_next: int = 0


class DropConnection(Exception):
    """Close the connection without an answer."""


class Provider:
    """The rules: what a request does to the ledger, and what it is answered."""

    def __init__(self, ledger: Ledger, dedup: Literal["on", "off"]) -> None:
        self._ledger = ledger
        self._dedup = dedup == "on"
        self._answers: dict[tuple[str, str], tuple[Answer, Answer]] = {}
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._asked: Counter[str] = Counter()
        self._holds: dict[tuple[str, str], Hold] = {}
        self._mode = Mode()

    async def answer(self, request: Answer) -> Answer:
        """Answer one request. Raises DropConnection when the reply is to be lost."""
        match request.get("op"):
            case "charge" | "ship" as kind:
                return await self._effect(kind, request)
            case "mode":
                changes = {name: int(request[name]) for name in vars(self._mode) if name in request}
                self._mode = Mode(**{**vars(self._mode), **changes})
                return {"status": 200}
            case "hold":
                if previous := self._holds.get(_place(request)):
                    previous.released.set()
                self._holds[_place(request)] = Hold()
                return {"status": 200}
            case "await_held":
                await self._holds[_place(request)].held.wait()
                return {"status": 200}
            case "release":
                if hold := self._holds.pop(_place(request), None):
                    hold.released.set()
                return {"status": 200}
            case "stats":
                return {"status": 200, **self._asked}
            case other:
                return {"status": 400, "reason": f"op {other!r} is not one of the provider's"}

    async def _effect(self, kind: Kind, request: Answer) -> Answer:
        self._asked[kind] += 1
        if self._mode.delay_ms:
            await asyncio.sleep(self._mode.delay_ms / 1000)
        if self._mode.fail_next:
            self._mode.fail_next -= 1
            self._asked["failed"] += 1
            return {"status": 500, "reason": "the provider is having a bad moment"}
        answer = self._act(kind, request)
        if self._mode.drop_next:
            self._mode.drop_next -= 1
            self._asked["dropped"] += 1
            raise DropConnection
        if answer["status"] == 200 and (hold := self._holds.get((kind, request["order"]))):
            hold.held.set()
            await hold.released.wait()
        return answer

    def _act(self, kind: Kind, request: Answer) -> Answer:
        """The effect itself. Nothing awaits in here, so two requests under a key cannot interleave."""
        if reason := _refusal(kind, request):
            return {"status": 400, "reason": reason}
        order = request["order"]
        self._attempts[kind, order] += 1
        asked = {name: request.get(name) for name in ("order", "amount", "card", "address")}
        key = request.get("key")
        if self._dedup and key is not None and (known := self._answers.get((kind, key))):
            first_asked, first_answer = known
            if first_asked != asked:
                return {"status": 409, "reason": f"key {key!r} was first used with another request"}
            self._asked["deduplicated"] += 1
            return first_answer
        if kind == "charge" and str(request.get("card", "")).startswith(DECLINED_CARD_PREFIX):
            answer: Answer = {"status": 402, "reason": "card declined"}
        else:
            effect_id = self._ledger.append(kind, request, attempt=self._attempts[kind, order])
            answer = {"status": 200, "id": effect_id}
        if self._dedup and key is not None:
            self._answers[kind, key] = (asked, answer)
        return answer


def _place(request: Answer) -> tuple[str, str]:
    return str(request.get("kind")), str(request.get("order"))


def _refusal(kind: Kind, request: Answer) -> str | None:
    if not isinstance(request.get("order"), str):
        return f"order {request.get('order')!r} is not a string"
    if kind == "ship":
        return None
    amount = request.get("amount")
    try:
        valid = isinstance(amount, str) and Decimal(amount).is_finite() and Decimal(amount) > 0
    except InvalidOperation:
        valid = False
    return None if valid else f"amount {amount!r} is not a positive decimal in a string"


async def serve(provider: Provider, socket_path: Path) -> asyncio.Server:
    """Listen on `socket_path`. A client that dies or sends nonsense ends its own connection only."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if not line.endswith(b"\n"):
                return  # the client died in the middle of its request: nothing was asked
            writer.write(json.dumps(await _answer_line(provider, line)).encode() + b"\n")
            await writer.drain()
        except (DropConnection, ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    return await asyncio.start_unix_server(connection, path=str(socket_path), limit=LINE_BYTES_MAX)


async def _answer_line(provider: Provider, line: bytes) -> Answer:
    try:
        request = json.loads(line)
    except ValueError:
        return {"status": 400, "reason": "the request is not JSON"}
    if not isinstance(request, dict):
        return {"status": 400, "reason": "the request is not a JSON object"}
    try:
        return await provider.answer(request)
    except (KeyError, TypeError, ValueError) as error:
        return {"status": 400, "reason": f"the request does not fit: {error!r}"}


async def run(ledger_path: Path, socket_path: Path, *, dedup: Literal["on", "off"]) -> None:
    """Serve until standard input closes, which happens at the latest when the parent dies."""
    ledger = Ledger(ledger_path)
    server = await serve(Provider(ledger, dedup), socket_path)
    print("ready", flush=True)
    stdin = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    await stdin.read()
    server.close()
    ledger.close()


def main(argv: list[str] | None = None) -> int:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(prog="provider", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--dedup", choices=("on", "off"), default="on")
    options = parser.parse_args(argv)
    asyncio.run(run(options.ledger, options.socket, dedup=options.dedup))
    return 0


if __name__ == "__main__":
    sys.exit(main())
