"""Turns that ask for what others settle, or what is made of other operations."""

from __future__ import annotations

import asyncio
from typing import Any

from semel import Completion, Context, DurabilityFacet, GenServer, Limits, Poll, Retry, SyncContext, call, cast
from semel.errors import CallbackError, InvokeError
from semel.testing import Client, Message, Model, Shape
from tests.simulation.function_shapes import add, slow
from tests.simulation.operation_shapes import ask, bad_kid, count, kid, never

State = dict[str, Any]
QUICK = Retry(attempts=3, first_delay_ms=100, jitter="none")


async def branch(ctx: Context, n: int) -> int:
    await ctx.wait(ms=60 * (3 - n))
    return await ctx.step(add, n, 1)


def def_branch(ctx: SyncContext, n: int) -> int:
    ctx.wait(ms=60 * (3 - n))
    return ctx.step(add, n, 1)


class Desk(GenServer[State]):
    """Its handlers keep what they were told in the state."""

    def init(self) -> State:
        return {"seen": []}

    def _see(self, found: Any) -> Any:
        self.state["seen"].append(found)
        return found

    @call
    async def approve(self, ctx: Context, n: int) -> Any:
        callback = await ctx.create_callback(name="approve")
        await ctx.step(ask, callback.id, n, 40)
        value = await callback.result()
        return self._see(value + await ctx.step(add, value, 1))

    @call
    async def approve_late(self, ctx: Context, n: int) -> Any:
        try:
            return self._see(await ctx.wait_for_callback(never, timeout_ms=2_000, retry=QUICK))
        except CallbackError as error:
            return self._see(f"{error.error_type} {await ctx.step(add, n, 1)}")

    @call
    async def delegate(self, ctx: Context, n: int) -> Any:
        found: list[Any] = list(await asyncio.gather(ctx.invoke(kid, n), ctx.invoke("sim.plain_kid", n)))
        try:
            await ctx.invoke(bad_kid, n, name="bad")
        except InvokeError as error:
            found.append(error.error_type)
        return self._see(found)

    @call
    async def spread(self, ctx: Context, n: int) -> Any:
        whole = await ctx.map(branch, range(n), max_concurrency=2)
        first = await ctx.parallel(
            [lambda c: c.step(slow, 1, 10), lambda c: c.step(slow, 2, 900)], completion=Completion.first_successful()
        )
        return self._see([whole.results, first.results, await ctx.step(add, n, n)])

    @call
    def spread_plainly(self, ctx: SyncContext, n: int) -> Any:
        callback = ctx.create_callback()
        ctx.step(ask, callback.id, n, 30)
        return self._see([ctx.map(def_branch, range(n)).results, callback.result(), ctx.invoke(kid, 1)])

    @call
    async def poll(self, ctx: Context, n: int) -> Any:
        reached = await ctx.wait_for_condition(count, 0, poll=Poll(until=lambda s: s >= n, first_delay_ms=300))

        async def block(ctx: Context) -> int:
            if ctx.random.random() < 0:
                raise AssertionError
            return await ctx.step(add, reached, 1)

        return self._see(await ctx.with_retry(block, retry=QUICK))

    @cast
    async def note(self, ctx: Context, text: str) -> None:
        self._see(text)


class DurableDesk(Desk):
    actor_type = "sim.DurableDesk"
    facets = [DurabilityFacet(checkpoint_interval=1)]


class DeskEveryThird(Desk):
    actor_type = "sim.DeskEveryThird"
    facets = [DurabilityFacet(checkpoint_interval=3)]


SEEN: dict[str, Any] = {
    "approve": lambda n: 2 * n + 1,
    "approve_late": lambda n: f"Callback.Timeout {n + 1}",
    "delegate": lambda n: [n + 10, n * 100, "StepError"],
    "spread": lambda n: [[i + 1 for i in range(n)], [1], 2 * n],
    "spread_plainly": lambda n: [[i + 1 for i in range(n)], n, 11],
    "poll": lambda n: n + 1,
    "note": lambda text: text,
}


def apply(state: State, method: str, arguments: tuple[Any, ...]) -> State:
    """What a turn that succeeded makes of the state."""
    state["seen"].append(SEEN[method](*arguments))
    return state


MODEL = Model(lambda: {"seen": []}, apply)
MODELS = {"sim.DurableDesk": MODEL, "sim.DeskEveryThird": MODEL}


def turns(actor: type[Desk], *methods: str) -> Any:
    """A call of each method, and the first of them again."""

    async def scenario(client: Client) -> Any:
        handlers: list[Any] = [getattr(Desk, method) for method in methods]
        found = [await client.call(actor, "a", handler, 2, key=f"k{i}") for i, handler in enumerate(handlers)]
        assert await client.call(actor, "a", handlers[0], 2, key="k0") == found[0]
        return found

    return scenario


SCENARIOS: dict[str, tuple[tuple[str, ...], bool]] = {
    "callback in a turn": (("approve",), True),
    "a callback that times out in a turn": (("approve_late", "approve"), True),
    "invoke in a turn": (("delegate",), False),
    "map in a turn": (("spread",), False),
    "operations of a def turn": (("spread_plainly",), True),
    "a condition in a turn": (("poll",), False),
}


def actor_operation_shapes() -> list[Shape]:
    """Each in memory and evicted, with a snapshot every turn; and once with one every third."""
    stay, leave = Limits(passivate_ms=3_000), Limits(passivate_ms=3_000, residents_max=0)
    kinds: list[tuple[str, type[Desk], Limits]] = [
        ("", DurableDesk, stay),
        (", evicted", DurableDesk, leave),
        (", every third", DeskEveryThird, leave),
    ]
    return [
        Shape(
            name=f"{name}{variant}",
            scenario=turns(actor, *methods),
            limits=limits,
            models=MODELS,
            message=Message(actor, "a", "note", ("arrival",)),
            has_answers=has_answers,
            linger_s=5,
        )
        for name, (methods, has_answers) in SCENARIOS.items()
        for variant, actor, limits in kinds
    ]
