"""What a user's type checker says about the public API. Read by mypy and pyright, never run.

Each `ignore` is a mistake that the checkers must find: mypy reports an unused one, and
pyright too.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar, assert_type

import semel
from semel import (
    ActorRef,
    Context,
    DurabilityFacet,
    Engine,
    Event,
    Execution,
    ExecutionInfo,
    GenServer,
    Limits,
    Page,
    Retry,
    SyncContext,
    call,
    cast,
    durable_function,
    info,
    step,
    value,
)

T = TypeVar("T")


@dataclass
class Order:
    id: str
    amount: Decimal


@value("payment")
@dataclass
class Payment:
    order: str


@dataclass
class Till:
    total: int = 0


# Steps: async and sync, plain and decorated, with and without the engine's key.


async def validate(order: Order) -> bool:
    return bool(order.id)


def discount(order: Order, percent: int) -> Decimal:
    return order.amount * percent


def forget() -> None: ...


@step
async def charge(order: Order, effect_key: str = semel.EFFECT_KEY) -> Payment:
    return Payment(order.id + effect_key)


@step(name="ship", retry=Retry(attempts=2, jitter="none"), effect="keyed", semantics="at_least_once")
def ship(order: Order, effect_key: str = semel.EFFECT_KEY) -> bytes:
    return (order.id + effect_key).encode()


async def first(items: list[T]) -> T:
    return items[0]


# Durable functions.


async def child(ctx: Context, order: Order, count: int) -> list[int]:
    await ctx.step(validate, order)
    return [count]


@durable_function
async def process(ctx: Context, order: Order) -> Payment:
    assert_type(await ctx.step(validate, order), bool)
    assert_type(await ctx.step(discount, order, 10), Decimal)
    assert_type(await ctx.step(forget), None)
    assert_type(await ctx.step(charge, order), Payment)
    assert_type(await ctx.step(charge, order, "a key of my own"), Payment)
    assert_type(await ctx.step(ship, order, name="again", retry=Retry(attempts=1)), bytes)
    assert_type(await ctx.step(validate, order, effect="at_most_once", on_cancel="abandon"), bool)
    assert_type(await ctx.step(validate, order, semantics="at_most_once_per_retry"), bool)
    assert_type(await ctx.step(lambda: 3), int)
    assert_type(await ctx.step(first, [1, 2]), int)
    assert_type(await ctx.wait(hours=24, name="a day"), None)
    assert_type(await ctx.run_in_child_context(child, order, 3), list[int])
    assert_type(await ctx.run_in_child_context(child, order, 3, name="part"), list[int])
    assert_type(ctx.now_ms(), int)
    assert_type(ctx.is_replaying, bool)
    assert_type(ctx.execution_id, str)
    return await ctx.step(charge, order)


@durable_function(name="process-sync")
def process_sync(ctx: SyncContext, order: Order) -> Payment:
    def part(ctx: SyncContext, order: Order) -> int:
        return len(ctx.step(ship, order))

    assert_type(ctx.step(validate, order), bool)
    assert_type(ctx.step(discount, order, 10), Decimal)
    assert_type(ctx.step(ship, order), bytes)
    assert_type(ctx.wait(seconds=1.5), None)
    assert_type(ctx.run_in_child_context(part, order), int)
    return ctx.step(charge, order)


@durable_function
async def nothing(ctx: Context) -> None:
    await ctx.wait(ms=1)


async def mistakes_in_a_function(ctx: Context, order: Order) -> None:
    await ctx.step(validate)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.step(validate, "order")  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.step(validate, order, effect="exactly_once")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.step(validate, order, retry=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.wait(24)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await ctx.run_in_child_context(child, order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ctx.run_in_child_context(validate, order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Actors.


class Shop(GenServer[Till]):
    facets = [DurabilityFacet(checkpoint_interval=5)]

    def init(self) -> Till:
        return Till()

    @call
    async def pay(self, ctx: Context, order: Order, times: int) -> Payment:
        self.state.total += times
        assert_type(self.state, Till)
        return await ctx.step(charge, order)

    @call
    def total(self, ctx: SyncContext) -> int:
        return self.state.total

    @cast
    async def note(self, ctx: Context, text: str) -> None: ...

    @info
    async def anything(self, ctx: Context, message: object) -> None: ...

    def terminate(self, reason: str) -> None: ...


class Other(GenServer[Till]):
    @call
    async def pay(self, ctx: Context) -> int:
        return 1


# The engine.


async def use(order: Order) -> None:
    engine = Engine("memory://", namespace="shop", limits=Limits(residents_max=0), workers=2)
    async with engine as opened:
        assert_type(opened, Engine)
        assert_type(await engine.run(process, order, key="k"), Payment)
        assert_type(await engine.run(process_sync, order), Payment)
        assert_type(await engine.run(nothing), None)
        execution = await engine.start(process, order, key="k")
        assert_type(execution, Execution[Payment])
        assert_type(await execution.result(), Payment)
        assert_type(await (await engine.start(process_sync, order)).result(), Payment)
        assert_type(execution.name, str)
        assert_type(await engine.executions.list(function="process", limit=5), Page)
        assert_type(await engine.executions.get("k", function="process"), ExecutionInfo)
        assert_type(await engine.executions.history(execution.id), list[Event])
        assert_type(await engine.executions.stop(execution.id, reason="enough"), ExecutionInfo)
        assert_type(await engine.executions.resume(execution.id), ExecutionInfo)
        assert_type(await engine.executions.pause(execution.id, timeout_paused=False), ExecutionInfo)
        assert_type(await engine.executions.delete(execution.id), ExecutionInfo)
        assert_type(await engine.executions.forget_key("k", function="process"), None)
        assert_type((await engine.executions.list(status=["FAILED"], oldest_first=True)).next, str | None)
        ref = engine.actor(Shop, "s-1")
        assert_type(ref, ActorRef[Shop])
        assert_type(await ref.call(Shop.pay, order, 3, key="k"), Payment)
        assert_type(await ref.call(Shop.total), int)
        assert_type(await ref.cast(Shop.note, "x", key="k"), None)
        assert_type(await ref.info({"any": "value"}), None)


async def mistakes_outside(engine: Engine, ref: ActorRef[Shop], order: Order) -> None:
    await engine.run(process)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await engine.run(process, 3)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await engine.run(process, order, key=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await engine.start(process_sync, 3)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ref.call(Shop.pay, order, "3")  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ref.call(Shop.pay, order)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ref.call(Other.pay)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ref.cast(Shop.note, 3)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    engine.actor(Till, "t")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


# The same engine for sync code.


def use_sync(order: Order) -> None:
    with semel.sync.Engine("memory://", namespace="shop") as engine:
        assert_type(engine, semel.sync.Engine)
        assert_type(engine.run(process, order, key="k"), Payment)
        assert_type(engine.run(process_sync, order), Payment)
        execution = engine.start(process, order, key="k")
        assert_type(execution, semel.sync.Execution[Payment])
        assert_type(execution.result(timeout_ms=100), Payment)
        assert_type(engine.executions.list(function="process", limit=5), Page)
        assert_type(engine.executions.get("k", function="process"), ExecutionInfo)
        assert_type(engine.executions.history(execution.id), list[Event])
        assert_type(engine.executions.stop(execution.id, reason="enough"), ExecutionInfo)
        assert_type(engine.executions.resume(execution.id), ExecutionInfo)
        ref = engine.actor(Shop, "s-1")
        assert_type(ref, semel.sync.ActorRef[Shop])
        assert_type(ref.call(Shop.pay, order, 3, key="k"), Payment)
        assert_type(ref.call(Shop.total), int)
        assert_type(ref.cast(Shop.note, "x"), None)
        assert_type(ref.info(3), None)
        engine.run(process, 3)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
        engine.executions.get(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        ref.call(Shop.pay, order, "3")  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue, reportArgumentType]


# A decorated function stays an ordinary callable.


async def plain(order: Order) -> None:
    assert_type(await charge(order), Payment)
    assert_type(ship(order), bytes)
    assert_type(Payment("x").order, str)
