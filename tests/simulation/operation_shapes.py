"""Durable functions with every kind of operation that somebody else settles, or that is made of others."""

import asyncio
from typing import Any

import semel
from semel import Completion, Context, Limits, Poll, Retry, SyncContext, durable_function, plain_function
from semel.errors import (
    CallbackError,
    CallbackSubmitterError,
    CallbackTimeoutError,
    InvokeError,
    InvokeTimeoutError,
    WaitForConditionError,
)
from semel.testing import Client, Shape, answer, effect
from tests.simulation.function_shapes import KEY, add, broken, inner, slow

QUICK = Retry(attempts=3, first_delay_ms=200, factor=2.0, jitter="full")
POLL = Poll(until=lambda state: state >= 3, first_delay_ms=500, factor=1.0)


async def ask(callback_id: str, value: Any = "yes", after_ms: int = 50, effect_key: str = KEY) -> None:
    effect("ask", effect_key, value)
    answer(callback_id, value, after_ms=after_ms)


async def refuse(callback_id: str, effect_key: str = KEY) -> None:
    effect("refuse", effect_key)
    answer(callback_id, ValueError("refused"), after_ms=50)


async def never(callback_id: str, effect_key: str = KEY) -> None:
    effect("never", effect_key)


@semel.step(retry=QUICK)
async def unable(callback_id: str, effect_key: str = KEY) -> None:
    effect("unable", effect_key)
    raise ConnectionError("nobody there")


@durable_function(name="sim.callback")
async def callback(ctx: Context, n: int) -> list[Any]:
    one = await ctx.create_callback(name="one")
    two = await ctx.create_callback(name="two", timeout_ms=86_400_000 * 30)
    await ctx.step(ask, one.id, n, 80)
    await ctx.step(ask, two.id, n + 1, 20)
    first = await two.result()
    return [first, await one.result(), await ctx.step(add, first, 1)]


@durable_function(name="sim.callback_race")
async def callback_race(ctx: Context) -> list[Any]:
    """What was told first decides what is done next; the order is part of the journal."""
    calls = [await ctx.create_callback(name=f"c{i}") for i in range(3)]
    for i, call in enumerate(calls):
        await ctx.step(ask, call.id, i, 40 + 10 * ((i * 2) % 3))
    told: list[Any] = []

    async def follow(i: int) -> None:
        value = await calls[i].result()
        told.append(value)
        await ctx.step(add, len(told), value)

    await asyncio.gather(*(follow(i) for i in range(3)), ctx.step(slow, 7, 55))
    return sorted(told)


@durable_function(name="sim.callback_ends")
async def callback_ends(ctx: Context) -> list[str]:
    told = []
    for submitter in (refuse, never, unable):
        try:
            await ctx.wait_for_callback(submitter, timeout_ms=3_000, retry=QUICK)
        except (CallbackTimeoutError, CallbackSubmitterError, CallbackError) as error:
            told.append(f"{type(error).__name__} {error.error_type}")
    told.append(await ctx.wait_for_callback(ask, "fine"))
    return told


@durable_function(name="sim.callback_cancelled")
async def callback_cancelled(ctx: Context) -> str:
    call = await ctx.create_callback(name="late")
    await ctx.step(ask, call.id, "late", 3_000)
    try:
        async with asyncio.timeout(1):
            return str(await call.result())
    except TimeoutError:
        await ctx.step(add, 1, 2)
    return "gave up"


@durable_function(name="sim.callback_shared")
async def callback_shared(ctx: Context) -> list[Any]:
    """Cancelled is a callback only with the last of those who wait for it."""
    found: list[Any] = []
    for name, cancelled in (("kept", 1), ("given up", 2)):
        call = await ctx.create_callback(name=name)
        await ctx.step(ask, call.id, name, 3_000)
        tasks = [asyncio.create_task(call.result()) for _ in range(2)]
        await ctx.wait(ms=100)
        for task in tasks[:cancelled]:
            task.cancel()
        await asyncio.wait(tasks)
        found.append([task.cancelled() for task in tasks])
        try:
            found.append(await call.result())
        except CallbackError as error:
            found.append(error.error_type)
    return found


@durable_function(name="sim.kid")
async def kid(ctx: Context, n: int) -> int:
    await ctx.wait(ms=100 * n)
    return await ctx.step(add, n, 10)


@durable_function(name="sim.bad_kid")
async def bad_kid(ctx: Context, n: int) -> int:
    return await ctx.step(broken, f"kid {n}")


@durable_function(name="sim.slow_kid")
async def slow_kid(ctx: Context) -> int:
    await ctx.wait(seconds=20)
    return await ctx.step(add, 20, 0)


@plain_function(name="sim.plain_kid")
async def plain_kid(n: int) -> int:
    return n * 100


@durable_function(name="sim.invoke")
async def invoke(ctx: Context, n: int) -> list[Any]:
    found: list[Any] = list(await asyncio.gather(*(ctx.invoke(kid, i) for i in range(n)), ctx.step(slow, 5, 150)))
    found.append(await ctx.invoke("sim.plain_kid", 2))
    try:
        await ctx.invoke(bad_kid, 1, name="bad")
    except InvokeError as error:
        found.append(f"{error.name} {error.error_type}")
    return found


@durable_function(name="sim.invoke_times_out")
async def invoke_times_out(ctx: Context) -> str:
    try:
        await ctx.invoke(slow_kid, timeout_ms=5_000)
    except InvokeTimeoutError as error:
        await ctx.step(add, 1, 1)
        return error.error_type
    return "came"


async def branch(ctx: Context, n: int) -> int:
    await ctx.wait(ms=100 * (4 - n))
    if n == 2:
        return await ctx.step(broken, "two")
    return await ctx.step(add, n, 1)


@durable_function(name="sim.map")
async def mapped(ctx: Context, nesting: Any) -> list[Any]:
    whole = await ctx.map(branch, [0, 1, 2, 3], completion=Completion.all_completed(), nesting=nesting)
    narrow = await ctx.map(branch, [3, 1, 0], max_concurrency=2, nesting=nesting)
    failed = await ctx.map(branch, [2, 0, 1], nesting=nesting)
    return [
        whole.results,
        [item.status for item in whole.items],
        narrow.results,
        failed.completion_reason,
        [item.status for item in failed.items],
        await ctx.step(add, len(failed.open), 0),
    ]


@durable_function(name="sim.callback_abandoned")
async def callback_abandoned(ctx: Context) -> list[Any]:
    """The batch is complete before the callback is answered, and nobody else is awaited: the answer is refused."""

    async def quick(ctx: Context) -> int:
        return await ctx.step(slow, 1, 30)

    async def asks(ctx: Context) -> Any:
        call = await ctx.create_callback(name="too late")
        await ctx.step(ask, call.id, "late", 300)
        return await call.result()

    first = await ctx.parallel([quick, asks], completion=Completion.first_successful())
    await ctx.wait(ms=500)
    return [first.results, await ctx.step(add, 1, 1)]


@durable_function(name="sim.parallel")
async def parallel(ctx: Context) -> list[Any]:
    async def quick(ctx: Context) -> int:
        return await ctx.step(slow, 1, 30)

    async def late(ctx: Context) -> int:
        await ctx.step(slow, 2, 400)
        return await ctx.step(add, 2, 2)

    first = await ctx.parallel({"late": late, "quick": quick}, completion=Completion.first_successful())
    both = await ctx.parallel([late, quick], name="both")
    return [first.results, first.completion_reason, both.raise_if_failed().results]


async def count(state: int, effect_key: str = KEY) -> int:
    effect("count", effect_key)
    return state + 1


@durable_function(name="sim.condition")
async def condition(ctx: Context) -> list[Any]:
    found: list[Any] = [await ctx.wait_for_condition(count, 0, poll=POLL)]
    try:
        await ctx.wait_for_condition(count, 0, poll=Poll(until=lambda s: s > 9, attempts=2, first_delay_ms=100))
    except WaitForConditionError as error:
        found.append(error.error_type)
    return found


@durable_function(name="sim.with_retry")
async def with_retry(ctx: Context) -> Any:
    async def block(ctx: Context) -> int:
        first = await ctx.step(add, 1, 1)
        if await ctx.step(attempt_number) < 3:
            return await ctx.step(broken, "block")
        return first

    attempts = [0]

    async def attempt_number() -> int:
        return attempts[0]

    async def counted(ctx: Context) -> int:
        attempts[0] += 1
        return await block(ctx)

    return await ctx.with_retry(counted, retry=QUICK, name="block")


@durable_function(name="sim.large_child")
async def large_child(ctx: Context) -> list[int]:
    async def large(ctx: Context) -> list[str]:
        parts = await asyncio.gather(*(ctx.step(slow, i, 10 * (3 - i)) for i in range(3)))
        return [str(part) * 100_000 for part in parts]

    whole = await ctx.run_in_child_context(large)
    total = await ctx.step(add, len(whole[0]), 0)
    await ctx.wait(ms=500)
    return [total, len(await ctx.run_in_child_context(large)), await ctx.run_in_child_context(inner, 1)]


@durable_function(name="sim.replay_safe")
async def replay_safe(ctx: Context) -> bool:
    async def inside(ctx: Context) -> str:
        await ctx.step(add, ctx.random.randint(0, 9), 0)
        return str(ctx.uuid4())

    before = str(ctx.uuid4())
    names = await asyncio.gather(*(ctx.run_in_child_context(inside) for _ in range(2)))
    names.append(str(ctx.uuid4()))
    now = await ctx.step(add, round(ctx.now().timestamp() * 1000), 0)
    await ctx.wait(ms=10)
    return len({before, *names}) == 4 and now <= ctx.now_ms()


def sync_branch(ctx: SyncContext, n: int) -> int:
    ctx.wait(ms=50 * n)
    return ctx.step(add, n, 1)


@durable_function(name="sim.def_operations")
def def_operations(ctx: SyncContext) -> list[Any]:
    found: list[Any] = [ctx.wait_for_callback(ask, "def"), ctx.invoke(kid, 1)]
    found.append(ctx.map(sync_branch, [2, 0, 1]).results)
    call = ctx.create_callback(timeout_ms=1_000)
    try:
        call.result()
    except CallbackTimeoutError as error:
        found.append(error.error_type)
    found.append(ctx.wait_for_condition(count, 0, poll=POLL))
    return found


@durable_function(name="sim.def_parallel")
def def_parallel(ctx: SyncContext) -> list[Any]:
    def quick(ctx: SyncContext) -> int:
        return ctx.step(slow, 1, 30)

    def late(ctx: SyncContext) -> int:
        ctx.step(slow, 2, 200)
        return ctx.step(add, 2, 2)

    def nested(ctx: SyncContext) -> list[int]:
        return ctx.parallel([quick, late]).results

    first = ctx.parallel([late, quick], completion=Completion.first_successful())
    numbers = len({str(ctx.uuid4()), str(ctx.uuid4())})
    return [
        first.results,
        ctx.map(sync_branch, [1, 0], nesting="flat").results,
        numbers,
        *ctx.parallel([nested]).results,
    ]


@durable_function(name="sim.abandoned")
async def abandoned(ctx: Context) -> list[Any]:
    """Branches of every kind are open when the first one decides; nothing they wait for takes an outcome any more."""

    async def quick(ctx: Context) -> int:
        return await ctx.step(slow, 1, 100)

    async def steps(ctx: Context) -> int:
        return await ctx.step(slow, 2, 150)

    async def waits(ctx: Context) -> None:
        await ctx.wait(seconds=5)

    async def asks(ctx: Context) -> Any:
        return await ctx.wait_for_callback(ask, "late", 300)

    async def invokes(ctx: Context) -> Any:
        return await ctx.invoke(kid, 3)

    async def children(ctx: Context) -> Any:
        return await ctx.run_in_child_context(steps)

    first = Completion.first_successful()
    found = await ctx.parallel([waits, asks, invokes, children, quick, steps], completion=first)
    await ctx.wait(seconds=6)
    return [found.results[:1], await ctx.step(add, 1, 1)]


@durable_function(name="sim.def_abandoned")
def def_abandoned(ctx: SyncContext) -> list[Any]:
    def quick(ctx: SyncContext) -> int:
        return ctx.step(slow, 1, 100)

    def steps(ctx: SyncContext) -> int:
        return ctx.step(slow, 2, 150)

    def waits(ctx: SyncContext) -> None:
        ctx.wait(seconds=5)

    def asks(ctx: SyncContext) -> Any:
        return ctx.wait_for_callback(ask, "late", 300)

    def invokes(ctx: SyncContext) -> Any:
        return ctx.invoke(kid, 3)

    def children(ctx: SyncContext) -> Any:
        return ctx.run_in_child_context(steps)

    first = Completion.first_successful()
    found = ctx.parallel([waits, asks, invokes, children, quick, steps], completion=first)
    ctx.wait(seconds=6)
    return [found.results[:1], ctx.step(add, 1, 1)]


# The process was down, or the clock was set, while an answer was on its way.
TOO_LATE = [
    "CallbackTimeoutError Callback.Timeout",
    "CallbackTimeoutError Callback.Timeout",
    "CallbackSubmitterError CallbackSubmitterError",
    "fine",
]

# The answer came before the cancelling: it was given early, or the process was down.
SHARED = frozenset(
    f"returned {[*kept, *given_up]!r}"
    for kept in ([[True, False], "kept"], [[False, False], "kept"])
    for given_up in ([[True, True], "Cancelled"], [[False, False], "given up"])
)

# Another branch was first, because the process was down or its answer was early.
ABANDONED = frozenset(f"returned {[[value], 2]!r}" for value in (1, 2, None, "late", 13))


# A crash gives the answer time to come before the other branch ends.
LATE_ANSWER = frozenset({"returned [['late'], 2]"})


def _run(name: str, function: Any, *arguments: Any, **fields: Any) -> Shape:
    async def scenario(client: Client) -> Any:
        return await client.run(function, *arguments, key="k")

    return Shape(name=name, scenario=scenario, **fields)


def operation_shapes() -> list[Shape]:
    """All of them; those whose bodies keep a thread are run a second time without residents by nature."""
    evicting = Limits(residents_max=0, poll_ms=600_000)
    return [
        _run("callback", callback, 3, has_answers=True),
        _run("callback race", callback_race, has_answers=True),
        _run("callback race, evicted", callback_race, has_answers=True, limits=evicting),
        _run("callback ends", callback_ends, has_answers=True, outcomes=frozenset({f"returned {TOO_LATE!r}"})),
        _run("callback abandoned", callback_abandoned, has_answers=True, outcomes=LATE_ANSWER),
        _run("callback cancelled", callback_cancelled, has_answers=True, outcomes=frozenset({"returned 'late'"})),
        *(
            _run(f"callback shared{title}", callback_shared, has_answers=True, limits=limits, outcomes=SHARED)
            for title, limits in (("", Limits(poll_ms=600_000)), (", evicted", evicting))
        ),
        _run("invoke", invoke, 3),
        _run("invoke, evicted", invoke, 3, limits=evicting),
        _run("invoke times out", invoke_times_out, outcomes=frozenset({"returned 'came'"})),
        _run("map", mapped, "nested"),
        _run("map, flat", mapped, "flat"),
        _run("map, evicted", mapped, "nested", limits=evicting),
        _run("parallel", parallel),
        _run("condition", condition),
        _run("with retry", with_retry),
        _run("large child", large_child),
        _run("replay safe", replay_safe),
        _run("def operations", def_operations, has_answers=True),
        _run("def parallel", def_parallel),
        *(
            _run(name, function, has_answers=True, outcomes=ABANDONED)
            for name, function in (("abandoned", abandoned), ("def abandoned", def_abandoned))
        ),
    ]
