"""The two engines under one protocol: the same steps, the same values, the same keys."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import semel
from benchmarks import floor

Order = dict[str, Any]
HOLD = "SEMEL_BENCH_HOLD"  # set: the third step of a held payment says so, and never ends


async def validate(order: Order) -> Order:
    return {"order_id": order["order_id"], "valid": True, "checks": "address, stock, limit and sanctions: no objection"}


async def charge(order: Order) -> Order:
    return {
        "payment_id": f"pay-{order['order_id']}-c41d88e0",
        "amount": order["amount"],
        "status": "captured",
        "receipt": "https://provider.example/receipts/8f14e45fceea167a5a36dedd4bea2543?signature=45c48cce2e2d7fbd",
    }


async def ship(order: Order) -> Order:
    if os.environ.get(HOLD):
        os.write(1, b".")
        await asyncio.get_running_loop().create_future()
    return {
        "tracking": f"trk-{order['order_id']}-0040",
        "carrier": "Example Post, standard, signature on delivery",
        "label": "https://carrier.example/labels/1679091c5a880faf6fb5e6087eb1b2dc.pdf",
    }


async def notify(order: Order) -> Order:
    return {
        "message_id": f"msg-{order['order_id']}-19ab@mail.example",
        "to": order["customer"],
        "subject": f"Your order {order['order_id']} is on its way to you",
    }


async def book(order: Order) -> Order:
    return {"entry": f"book-{order['order_id']}", "account": "8400 revenue 19 %", "gross": order["amount"]}


async def tick(number: int) -> int:
    return number + 1


def order_of(number: int) -> Order:
    return {
        "order_id": f"order-{number:09}",
        "amount": "129.95",
        "customer": "Zoë Müller <zoe.mueller@mail.example>",
        "address": "Lange Straße 12, 10117 Berlin",
    }


class Subject(Protocol):
    """An engine on one file. `pay` is W1, `climb` is W2, `add` is W4."""

    @property
    def name(self) -> str: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def pay(self, number: int) -> Coroutine[Any, Any, Order]: ...

    async def climb(self, steps: int) -> int: ...

    async def add(self, actor: str, amount: int) -> int: ...


async def floor_payment(execution: floor.Execution, order: Order) -> Order:
    await execution.step(validate, order)
    payment = await execution.step(charge, order)
    shipment = await execution.step(ship, order)
    await execution.step(notify, order)
    await execution.step(book, order)
    return {"status": 200, "payment_id": payment["payment_id"], "tracking": shipment["tracking"]}


async def floor_climb(execution: floor.Execution, steps: int) -> int:
    height = 0
    for _ in range(steps):
        height = await execution.step(tick, height)
    return height


async def floor_add(total: int | None, amount: int) -> tuple[int, int]:
    total = (total or 0) + amount
    return total, total


class FloorSubject:
    name = "floor"

    def __init__(self, path: Path) -> None:
        self.path = path

    async def __aenter__(self) -> Self:
        self.engine = floor.Floor(str(self.path), [floor_payment, floor_climb])
        return self

    async def __aexit__(self, *_: object) -> None:
        self.engine.close()

    def pay(self, number: int) -> Coroutine[Any, Any, Order]:
        return self.engine.run(floor_payment, order_of(number), key=f"order-{number:09}")

    async def climb(self, steps: int) -> int:
        height: int = await self.engine.run(floor_climb, steps, key="climb")
        return height

    async def add(self, actor: str, amount: int) -> int:
        total: int = await self.engine.call(actor, floor_add, amount)
        return total


@semel.durable_function
async def payment(ctx: semel.Context, order: Order) -> Order:
    await ctx.step(validate, order)
    payment = await ctx.step(charge, order)
    shipment = await ctx.step(ship, order)
    await ctx.step(notify, order)
    await ctx.step(book, order)
    return {"status": 200, "payment_id": payment["payment_id"], "tracking": shipment["tracking"]}


@semel.durable_function
async def climb(ctx: semel.Context, steps: int) -> int:
    height = 0
    for _ in range(steps):
        height = await ctx.step(tick, height)
    return height


@semel.durable_function
async def sleeper(ctx: semel.Context, order: Order) -> str:
    await ctx.wait(hours=1)
    return "woken"


@dataclass
class Total:
    value: int = 0


class Counter(semel.GenServer[Total]):
    facets = [semel.DurabilityFacet()]

    @semel.call
    async def add(self, ctx: semel.Context, amount: int) -> int:
        self.state.value += amount
        return self.state.value


class SemelSubject:
    name = "semel"

    def __init__(self, path: Path) -> None:
        self.engine = semel.Engine(f"sqlite:///{path}")

    async def __aenter__(self) -> Self:
        await self.engine.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.engine.__aexit__(kind, error, trace)

    def pay(self, number: int) -> Coroutine[Any, Any, Order]:
        return self.engine.run(payment, order_of(number), key=f"order-{number:09}")

    async def climb(self, steps: int) -> int:
        return await self.engine.run(climb, steps, key="climb")

    async def add(self, actor: str, amount: int) -> int:
        return await self.engine.actor(Counter, actor).call(Counter.add, amount)

    async def sleep(self, number: int) -> object:
        return await self.engine.start(sleeper, order_of(number), key=f"nap-{number:07}")


SUBJECTS: dict[str, type[FloorSubject | SemelSubject]] = {"floor": FloorSubject, "semel": SemelSubject}
