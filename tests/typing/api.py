"""What a user's type checker says about the public API. Read by mypy and pyright, never run.

Each `ignore` is a mistake that the checkers must find: mypy reports an unused one, and
pyright too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypeVar, assert_type
from uuid import UUID

import semel
from semel import (
    ActorRef,
    BatchItem,
    BatchResult,
    Callback,
    Callbacks,
    Completion,
    Context,
    DurabilityFacet,
    Engine,
    Event,
    Execution,
    ExecutionInfo,
    GenServer,
    Limits,
    Page,
    Poll,
    Progress,
    Retry,
    SyncCallback,
    SyncContext,
    call,
    cast,
    durable_function,
    info,
    plain_function,
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


# Operations that others settle, or that are made of others.


async def send_id(callback_id: str, order: Order) -> None: ...


async def poll_status(state: int) -> int:
    return state + 1


def is_enough(state: int) -> bool:
    return state > 3


async def branch(ctx: Context, order: Order) -> Payment:
    return await ctx.step(charge, order)


def branch_sync(ctx: SyncContext, order: Order) -> Payment:
    return ctx.step(charge, order)


async def total(ctx: Context) -> int:
    return await ctx.step(poll_status, 1)


def total_sync(ctx: SyncContext) -> int:
    return ctx.step(poll_status, 1)


@plain_function(name="plain")
def count_items(order: Order, most: int) -> int:
    return min(len(order.id), most)


def decide(progress: Progress) -> Literal["continue", "succeed", "fail"]:
    return "continue" if progress.completed < progress.total else "succeed"


ALL = Completion(min_successful=2, tolerated_failure_count=1, tolerated_failure_percentage=12.5, decide=decide)


async def operations(ctx: Context, order: Order) -> None:
    callback = await ctx.create_callback(name="approve", timeout_ms=60_000, heartbeat_ms=1_000)
    assert_type(callback, Callback)
    assert_type(callback.id, str)
    assert_type(await callback.result(), Any)
    assert_type(await ctx.wait_for_callback(send_id, order, name="approve", timeout_ms=5, retry=Retry.none()), Any)
    assert_type(await ctx.invoke(process, order), Payment)
    assert_type(await ctx.invoke(process, order, name="again", timeout_ms=1_000), Payment)
    assert_type(await ctx.invoke("process", order), Any)
    assert_type(await ctx.map(branch, [order], max_concurrency=3, completion=ALL), BatchResult[Payment])
    batch = await ctx.map(branch, (order,), name="all", item_name=lambda one, i: f"{one.id} {i}", nesting="flat")
    assert_type(batch, BatchResult[Payment])
    assert_type(batch.items, list[BatchItem[Payment]])
    assert_type(batch.results, list[Payment])
    assert_type(batch.raise_if_failed(), BatchResult[Payment])
    assert_type(batch.items[0].result, Payment | None)
    assert_type(await ctx.parallel([total, total]), BatchResult[int])
    assert_type(await ctx.parallel({"a": total}, completion=Completion.first_successful()), BatchResult[int])
    assert_type(await ctx.wait_for_condition(poll_status, 0, poll=Poll(until=is_enough)), int)
    assert_type(await ctx.with_retry(branch, order, retry=Retry.critical(), name="pay"), Payment)
    assert_type(ctx.now(), datetime)
    assert_type(ctx.random.random(), float)
    assert_type(ctx.uuid4(), UUID)
    ctx.logger.info("done")


def operations_sync(ctx: SyncContext, order: Order) -> None:
    callback = ctx.create_callback(timeout_ms=60_000)
    assert_type(callback, SyncCallback)
    assert_type(callback.id, str)
    assert_type(callback.result(), Any)
    assert_type(ctx.wait_for_callback(send_id, order), Any)
    assert_type(ctx.invoke(process_sync, order, timeout_ms=5), Payment)
    assert_type(ctx.invoke("process", order), Any)
    assert_type(ctx.map(branch_sync, [order], nesting="flat"), BatchResult[Payment])
    assert_type(ctx.parallel([total_sync]), BatchResult[int])
    assert_type(ctx.parallel({"a": total_sync}).results, list[int])
    assert_type(ctx.wait_for_condition(poll_status, 0, poll=Poll()), int)
    assert_type(ctx.with_retry(branch_sync, order), Payment)
    assert_type(ctx.now(), datetime)
    assert_type(ctx.uuid4(), UUID)


async def mistakes_in_operations(ctx: Context, order: Order) -> None:
    await ctx.map(branch, [3])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ctx.with_retry(branch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ctx.wait_for_condition(poll_status, "x", poll=Poll())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ctx.parallel([branch])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ctx.wait_for_callback(send_id, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ctx.map(branch, [order], nesting="deep")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def settle(engine: Engine, blocking: semel.sync.Engine) -> None:
    assert_type(engine.callbacks, Callbacks)
    assert_type(await engine.callbacks.succeed("id", {"any": "value"}), None)
    assert_type(await engine.callbacks.fail("id", ValueError("no"), error_type="Refused"), None)
    assert_type(await engine.callbacks.heartbeat("id"), None)
    assert_type(blocking.callbacks, semel.sync.Callbacks)
    assert_type(blocking.callbacks.succeed("id", 3), None)
    assert_type(blocking.callbacks.fail("id", "no"), None)
    assert_type(blocking.callbacks.heartbeat("id"), None)
    await engine.callbacks.fail("id", 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
