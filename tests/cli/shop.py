"""Durable code for the tests of the commands."""

import os
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from semel import DurabilityFacet, GenServer, Retry, call, durable_function, step


@dataclass
class ShopOrder:
    id: str
    amount: Decimal


@dataclass
class ShopReceipt:
    order: ShopOrder
    text: str


@dataclass
class TillState:
    total: Decimal = Decimal(0)


@step(retry=Retry(attempts=1))
async def charge(order: ShopOrder) -> str:
    print("charged", order.id, file=sys.stderr)
    return f"paid {order.amount}"


@durable_function(name="shop-order")
async def order(ctx, order: ShopOrder) -> ShopReceipt:
    return ShopReceipt(order, await ctx.step(charge, order))


@durable_function(name="shop-greet")
async def greet(ctx, name: str, greeting: str = "hello") -> str:
    return f"{greeting} {name}"


@durable_function(name="shop-fail")
async def fail(ctx) -> None:
    raise ValueError("\x1b[31mno\x1b[0m")


@durable_function(name="shop-sleep")
async def sleep(ctx) -> None:
    await ctx.wait(hours=1)


@durable_function(name="shop-delegate")
async def delegate(ctx) -> None:
    await ctx.invoke("shop-mistyped")


@durable_function(name="shop-ask")
async def ask(ctx) -> str:
    return await ctx.wait_for_callback(leave, name="approve", heartbeat_ms=60_000)


def leave(callback_id: str) -> None:
    Path(os.environ["SHOP_CALLBACK"]).write_text(callback_id)


class Till(GenServer[TillState]):
    actor_type = "shop-till"
    facets = [DurabilityFacet(checkpoint_interval=1)]

    @call
    async def add(self, ctx, amount: Decimal) -> Decimal:
        self.state.total += amount
        return self.state.total
