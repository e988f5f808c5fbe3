"""What the parts of a random program do that are operations, and the steps that they run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import semel
from semel import Completion, Context, Poll, Retry, durable_function
from semel.errors import ChildContextError
from semel.testing import answer, effect
from tests.simulation.programs import Node, step_ms

KEY = semel.EFFECT_KEY
ONCE = Retry(attempts=1)
TWICE = Retry(attempts=2, first_delay_ms=90, factor=1.0, jitter="none")
POLL = Poll(until=lambda state: state >= 2, first_delay_ms=110, factor=1.0)
COMPLETIONS = (Completion.all_completed(), Completion.all_successful(), Completion.first_successful())
CALLBACK_MS = 900  # nearly always answered in time

# A player: see program_body, which imports this module.
Player = Any


@semel.step
async def work(node: int, seen: int, ms: int, effect_key: str = KEY) -> int:
    effect("work", effect_key, node, seen)
    if ms:
        await asyncio.sleep(ms / 1000)
    return node


@semel.step
def work_in_thread(node: int, seen: int, effect_key: str = KEY) -> int:
    effect("work", effect_key, node, seen)
    return node


@semel.step
async def work_in_vain(node: int, seen: int, ms: int, effect_key: str = KEY) -> int:
    effect("work", effect_key, node, seen)
    await asyncio.sleep(ms / 1000)
    raise ValueError(node)


@semel.step(retry=ONCE)
async def ask(callback_id: str, node: int, seen: int, ms: int, effect_key: str = KEY) -> None:
    effect("ask", effect_key, node, seen)
    answer(callback_id, node, after_ms=ms)


@semel.step
async def count(state: int, effect_key: str = KEY) -> int:
    effect("count", effect_key)
    return state + 1


@durable_function(name="sim.program_invoked")
async def invoked(ctx: Context, node: int, seen: int, ms: int) -> int:
    await ctx.wait(ms=ms)
    return await ctx.step(work, node, seen, ms)


async def step(player: Player, node: Node) -> int:
    ms = step_ms(player.number, player.order, node.id)
    ctx, name, seen = player.ctx, f"s{node.id}", player.digest
    match node.kind:
        case "step":
            await ctx.step(work, node.id, seen, ms, name=name)
        case "sync step":
            await ctx.step(work_in_thread, node.id, seen, name=name)
        case "instant step":
            await ctx.step(work, node.id, seen, 0, name=name)
        case "failing step":
            await ctx.step(work_in_vain, node.id, seen, ms, name=name, retry=ONCE)
        case "retried step":
            await ctx.step(work_in_vain, node.id, seen, ms, name=name, retry=TWICE)
        case "once step":
            await ctx.step(work, node.id, seen, ms, name=name, effect="at_most_once")
        case "abandoned step":
            await ctx.step(work, node.id, seen, ms, name=name, on_cancel="abandon")
        case "keyed step":
            await ctx.step(work, node.id, seen, ms, name=name, effect="keyed")
    player.note(node.id, "step")
    return node.id


async def sleep(player: Player, node: Node) -> int:
    match node.kind:
        case "wait":
            await player.ctx.wait(ms=node.ms)
        case "sleep":
            await asyncio.sleep(node.ms / 1000)
        case "yield":
            await asyncio.sleep(0)
    player.note(node.id, node.kind)
    return node.id


async def others(player: Player, node: Node) -> int:
    """Operations that somebody else settles, or that ask again."""
    ms = step_ms(player.number, player.order, node.id)
    ctx, name, seen = player.ctx, f"o{node.id}", player.digest
    found: Any = None
    match node.kind:
        case "create_callback":
            call = await ctx.create_callback(name=name, timeout_ms=CALLBACK_MS)
            await ctx.step(ask, call.id, node.id, seen, ms, name=f"{name} ask")
            found = await call.result()
        case "wait_for_callback":
            found = await ctx.wait_for_callback(ask, node.id, seen, ms, name=name, timeout_ms=CALLBACK_MS)
        case "invoke":
            found = await ctx.invoke(invoked, node.id, seen, ms, name=name)
        case "wait_for_condition":
            found = await ctx.wait_for_condition(count, 0, poll=POLL, name=name)
    player.note(node.id, f"{node.kind} {found}")
    return node.id


# What is inside a context keeps a record of its own, which is its outcome: a replay does not run it again.


async def child(player: Player, node: Node) -> int:
    async def inside(ctx: Context) -> list[str]:
        inner = player.inside(ctx)
        await asyncio.gather(*(inner.play(part) for part in node.parts))
        return inner.record

    return await _in_context(player, node, player.ctx.run_in_child_context(inside, name=f"c{node.id}"))


async def with_retry(player: Player, node: Node) -> int:
    async def inside(ctx: Context) -> list[str]:
        inner = player.inside(ctx)
        for part in node.parts:
            await inner.play(part)
        return inner.record

    return await _in_context(player, node, player.ctx.with_retry(inside, retry=TWICE, name=f"r{node.id}"))


async def _in_context(player: Player, node: Node, operation: Coroutine[Any, Any, list[str]]) -> int:
    try:
        for event in await operation:
            player.note(node.id, f"inside {event}")
    except ChildContextError as error:
        player.note(node.id, f"{type(error).__name__}({error})")
    return node.id


async def batch(player: Player, node: Node) -> int:
    async def inside(ctx: Context, part: int) -> list[str]:
        inner = player.inside(ctx)
        await inner.play(node.parts[part])
        return inner.record

    ctx, name, completion = player.ctx, f"b{node.id}", COMPLETIONS[node.pick % 3]
    if node.kind == "parallel":
        branches = {f"p{part}": _bound(inside, part) for part in range(len(node.parts))}
        result = await ctx.parallel(branches, name=name, completion=completion)
    else:
        result = await ctx.map(
            inside,
            range(len(node.parts)),
            name=name,
            completion=completion,
            max_concurrency=2 if node.pick % 2 else None,
            nesting="flat" if node.kind == "flat map" else "nested",
        )
    player.race(node.id, [item.status for item in result.items])
    for item in result.succeeded:
        for event in item.result:
            player.note(node.id, f"inside {event}")
    return node.id


def _bound(inside: Callable[[Context, int], Coroutine[Any, Any, Any]], part: int) -> Callable[[Context], Any]:
    def branch(ctx: Context) -> Coroutine[Any, Any, Any]:
        return inside(ctx, part)

    return branch


OPERATIONS: dict[str, Callable[[Player, Node], Coroutine[Any, Any, int]]] = {
    **dict.fromkeys(["step", "sync step", "instant step", "failing step", "retried step", "once step"], step),
    **dict.fromkeys(["abandoned step", "keyed step"], step),
    **dict.fromkeys(["wait", "sleep", "yield"], sleep),
    **dict.fromkeys(["create_callback", "wait_for_callback", "invoke", "wait_for_condition"], others),
    "child context": child,
    "with_retry": with_retry,
    **dict.fromkeys(["map", "flat map", "parallel"], batch),
}
