"""The process that runs the engine, and gets killed.

Commands come in on standard input, events go out on standard output, one JSON object a line:

    {"do": "pay", "id": 1, "key": "order-1", "body": "{…}"}   one request, answered by an event with its id
    {"do": "settled", "id": 2, "key": …, "merchant": …}       answered once that request is over; sends nothing
    {"do": "summary", "id": 3, "merchant": …}                 the actor's state; for functions, nothing
    {"do": "arm" | "go_on", "place": …, "order": …}           the gate, see gate.py

When standard input closes, the engine is closed in order and the process ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import semel
from semel.errors import IdempotencyConflictError, SemelError

from .function_handler import process_order, process_order_once
from .gate import gate
from .payment_processor import PaymentProcessor, PaymentProcessorOnce
from .shop import InvalidOrderError, PaymentResult, Response, parse_order, respond

Fields = dict[str, Any]
ProviderKeys = Literal["yes", "no"]

LINE_BYTES_MAX = 1024 * 1024
POLL_S = 0.005


class Model(Protocol):
    """What the two programming models have in common here."""

    async def pay(self, key: str, body: str) -> Response:
        """Send one request under its key and wait for the answer."""

    async def settled(self, key: str, merchant: str) -> None:
        """Return once the request is over, without sending it."""

    async def summary(self, merchant: str) -> Fields:
        """The durable state beside the answers."""


class FunctionModel:
    """Each order is an execution, named by its key."""

    def __init__(self, engine: semel.Engine, provider_keys: ProviderKeys) -> None:
        self._engine = engine
        self._function = process_order if provider_keys == "yes" else process_order_once

    async def pay(self, key: str, body: str) -> Response:
        return await self._engine.run(self._function, {"body": body}, key=key)

    async def settled(self, key: str, merchant: str) -> None:
        executions, function = self._engine.executions, self._function.__name__
        while (await executions.get(key, function=function)).status == "RUNNING":
            await asyncio.sleep(POLL_S)

    async def summary(self, merchant: str) -> Fields:
        return {}


class ActorModel:
    """Each merchant is an actor, and each order a call to it."""

    def __init__(self, engine: semel.Engine, provider_keys: ProviderKeys) -> None:
        self._engine = engine
        self._actor = PaymentProcessor if provider_keys == "yes" else PaymentProcessorOnce

    async def pay(self, key: str, body: str) -> Response:
        try:
            order = parse_order(body)
        except InvalidOrderError as error:
            return respond(PaymentResult("rejected", message=str(error)))
        return respond(
            await self._engine.actor(self._actor, order.merchant_id).call(PaymentProcessor.pay, order, key=key)
        )

    async def settled(self, key: str, merchant: str) -> None:
        await self.summary(merchant)  # an actor answers in order, so the call before this one is over

    async def summary(self, merchant: str) -> Fields:
        state = await self._engine.actor(self._actor, merchant).call(PaymentProcessor.summary)
        return {name: str(value) for name, value in vars(state).items()}


MODELS: Mapping[str, Callable[[semel.Engine, ProviderKeys], Model]] = {"function": FunctionModel, "actor": ActorModel}


def report(event: Fields) -> None:
    """Write one event; it is in the pipe when this returns, unless nobody listens any more."""
    data = (json.dumps(event) + "\n").encode()
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(1, data) :]


class Commands:
    """Carries out what the parent asks for, each request as a task of its own."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, command: Fields) -> None:
        """Start one command. Requests begin in the order in which they are accepted."""
        match command["do"]:
            case "arm":
                gate().arm(command["place"], command["order"])
            case "go_on":
                gate().go_on(command["place"], command["order"])
            case _:
                task = asyncio.create_task(self._answer(command))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _answer(self, command: Fields) -> None:
        started_ns = time.perf_counter_ns()
        answer: Fields
        try:
            answer = await self._carry_out(command)
        except IdempotencyConflictError as error:
            answer = {"status": 422, "body": json.dumps({"message": str(error)})}
        except SemelError as error:
            answer = {"status": 500, "body": json.dumps({"message": f"{type(error).__name__}: {error}"})}
        ms = (time.perf_counter_ns() - started_ns) / 1e6
        report({"event": "answer", "id": command["id"], "ms": ms, **answer})

    async def _carry_out(self, command: Fields) -> Fields:
        match command["do"]:
            case "pay":
                response = await self._model.pay(command["key"], command["body"])
                return {"status": response["statusCode"], "body": response["body"]}
            case "settled":
                await self._model.settled(command["key"], command["merchant"])
                return {"status": 200}
            case "summary":
                return {"status": 200, "state": await self._model.summary(command["merchant"])}
            case other:
                return {"status": 400, "body": f"unknown command {other!r}"}


async def run(options: argparse.Namespace) -> None:
    """Open the engine and serve commands until standard input closes."""
    gate().connect(report, witness=options.witness)
    for place_and_order in options.hold:
        gate().arm(*place_and_order.split(":", 1))
    stdin = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async with semel.Engine(f"sqlite:///{options.database.resolve()}") as engine:
        commands = Commands(MODELS[options.model](engine, options.provider_keys))
        report({"event": "ready", "pid": os.getpid()})
        while line := await stdin.readline():
            commands.accept(json.loads(line))
        gate().open()


def main(argv: list[str] | None = None) -> int:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(prog="engine_process", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--model", choices=sorted(MODELS), required=True)
    parser.add_argument("--provider-keys", choices=("yes", "no"), default="yes")
    parser.add_argument("--witness", type=Path, help="a file for the begin marks of step bodies")
    parser.add_argument("--hold", action="append", default=[], metavar="PLACE:ORDER", help="armed from the start")
    asyncio.run(run(parser.parse_args(argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
