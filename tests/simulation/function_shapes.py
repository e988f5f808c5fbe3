"""Durable functions of every shape that a crash might hurt."""

import asyncio
import inspect
from itertools import product
from typing import Any

import semel
from semel import Context, Limits, Retry, SyncContext, durable_function
from semel.errors import ChildContextError, StepError, StepInterruptedError
from semel.testing import Client, Shape, effect

KEY = semel.EFFECT_KEY
QUICK = Retry(attempts=4, first_delay_ms=200, factor=2.0, jitter="full")


async def add(a: int, b: int, effect_key: str = KEY) -> int:
    effect("add", effect_key, a, b)
    return a + b


async def slow(a: int, ms: int, effect_key: str = KEY) -> int:
    effect("slow", effect_key, a, ms)
    await asyncio.sleep(ms / 1000)
    return a


async def ticket(effect_key: str = KEY) -> int:
    """Another number each time: what was computed from it must not change."""
    return effect("ticket", effect_key)


async def use(number: int, effect_key: str = KEY) -> bool:
    effect("use", effect_key, number)
    return number >= 0


def plain(a: int, effect_key: str = KEY) -> int:
    effect("plain", effect_key, a)
    return a * 2


@semel.step(retry=Retry(attempts=1))
async def broken(text: str, effect_key: str = KEY) -> int:
    effect("broken", effect_key, text)
    raise ValueError(text)


@durable_function(name="sim.sequential")
async def sequential(ctx: Context, n: int) -> int:
    for i in range(3):
        n = await ctx.step(add, n, i)
    return await ctx.step(plain, n)


@durable_function(name="sim.gather")
async def gather(ctx: Context, n: int) -> list[int]:
    return await asyncio.gather(*(ctx.step(slow, i, 30 * (n - i)) for i in range(n)))


@durable_function(name="sim.task_group")
async def task_group(ctx: Context, n: int) -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ctx.step(add, i, 1)) for i in range(n)]
    return [task.result() for task in tasks]


@durable_function(name="sim.task_group_fails")
async def task_group_fails(ctx: Context) -> str:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step(slow, 1, 100))
            group.create_task(ctx.wait(seconds=30))
            group.create_task(ctx.step(broken, "no"))
    except ExceptionGroup as group_error:
        return " ".join(type(error).__name__ for error in group_error.exceptions)
    return "unreachable"


async def inner(ctx: Context, n: int) -> int:
    first = await ctx.step(add, n, 1)
    second, third = await asyncio.gather(ctx.step(add, first, 2), ctx.step(slow, first, 20))
    return second + third


async def outer(ctx: Context, n: int) -> int:
    one, two = await asyncio.gather(ctx.run_in_child_context(inner, n), ctx.run_in_child_context(inner, n + 1))
    return one + two


@durable_function(name="sim.children")
async def children(ctx: Context, n: int) -> int:
    total = await ctx.run_in_child_context(outer, n)
    return await ctx.step(add, total, 0)


async def failing_child(ctx: Context) -> int:
    await ctx.step(add, 1, 1)
    return await ctx.step(broken, "inside")


@durable_function(name="sim.child_fails")
async def child_fails(ctx: Context) -> str:
    try:
        await ctx.run_in_child_context(failing_child)
    except ChildContextError as error:
        await ctx.step(add, 5, 5)
        return str(error)
    return "unreachable"


@durable_function(name="sim.retry")
async def retried(ctx: Context) -> str:
    numbers = []
    try:
        await ctx.step(always_broken, retry=QUICK)
    except StepError as error:
        numbers.append(str(error))
    numbers.append(str(await ctx.step(add, 1, 2)))
    return " ".join(numbers)


async def always_broken(effect_key: str = KEY) -> int:
    effect("always_broken", effect_key)
    raise OSError("down")


@durable_function(name="sim.retry_beside")
async def retry_beside(ctx: Context) -> list[Any]:
    return list(
        await asyncio.gather(
            ctx.step(always_broken, retry=QUICK), ctx.wait(ms=500), ctx.step(slow, 4, 700), return_exceptions=True
        )
    )[1:]


@durable_function(name="sim.wait")
async def waits(ctx: Context) -> int:
    n = await ctx.step(add, 1, 1)
    await ctx.wait(seconds=3)
    n = await ctx.step(add, n, 1)
    await asyncio.gather(ctx.wait(seconds=2), ctx.wait(seconds=1), ctx.wait(ms=0))
    return await ctx.step(add, n, 1)


@semel.step(effect="at_most_once")
async def once(n: int, effect_key: str = KEY) -> int:
    effect("once", effect_key, n)
    await asyncio.sleep(0.01)
    return n


@durable_function(name="sim.at_most_once")
async def at_most_once(ctx: Context) -> list[Any]:
    found: list[Any] = []
    for n in range(2):
        try:
            found.append(await ctx.step(once, n))
        except StepInterruptedError:
            found.append("interrupted")
        await ctx.step(add, n, 1)
    return found


@durable_function(name="sim.at_most_once_beside")
async def at_most_once_beside(ctx: Context) -> list[Any]:
    found = await asyncio.gather(
        ctx.step(once, 1), ctx.step(slow, 2, 30), ctx.wait(ms=20), ctx.step(once, 4), return_exceptions=True
    )
    return ["interrupted" if isinstance(item, StepInterruptedError) else item for item in found]


@semel.step(retry=Retry(attempts=6, first_delay_ms=100), semantics="at_most_once_per_retry")
async def per_retry(n: int, effect_key: str = KEY) -> int:
    count = effect("per_retry", effect_key, n)
    if count == 0:
        raise OSError("the first one fails")
    return n


@durable_function(name="sim.per_retry")
async def at_most_once_per_retry(ctx: Context) -> int:
    n = await ctx.step(per_retry, 1)
    return n + await ctx.step(add, 1, 1)


@semel.step(effect="keyed")
async def charge(amount: int, effect_key: str = KEY) -> str:
    effect("charge", effect_key, amount)
    return "charged"


@durable_function(name="sim.keyed")
async def keyed(ctx: Context) -> list[str]:
    return [await ctx.step(charge, 100), await ctx.step(charge, 100)]


@durable_function(name="sim.tickets")
async def tickets(ctx: Context) -> bool:
    """What a step returned must be durable before another step begins with it."""
    first, second = await asyncio.gather(ctx.step(ticket), ctx.step(ticket))
    used = await asyncio.gather(ctx.step(use, first), ctx.step(use, second))
    third = await ctx.step(ticket)
    await ctx.wait(ms=50)
    return all([*used, await ctx.step(use, third)])


@durable_function(name="sim.timeout")
async def times_out(ctx: Context) -> list[Any]:
    found: list[Any] = []
    for limit in (0.05, 5):
        try:
            async with asyncio.timeout(limit):
                found.append(await ctx.step(slow, 7, 400, retry=Retry(attempts=1)))
        except TimeoutError:
            found.append("timeout")
        except StepInterruptedError:
            found.append("interrupted")
    return found


@durable_function(name="sim.timeout_over_wait")
async def times_out_over_wait(ctx: Context) -> list[Any]:
    found: list[Any] = []
    for limit in (1, 10):
        try:
            async with asyncio.timeout(limit):
                await ctx.wait(seconds=5)
                found.append("waited")
        except TimeoutError:
            found.append("timeout")
    found.append(await ctx.step(add, 1, 1))
    return found


@durable_function(name="sim.first_completed")
async def first_completed(ctx: Context) -> list[Any]:
    tasks = [
        asyncio.ensure_future(ctx.step(slow, 1, 50)),
        asyncio.ensure_future(ctx.wait(seconds=20)),
        asyncio.ensure_future(ctx.step(slow, 3, 2_000)),
    ]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)
    await ctx.step(add, 2, 2)
    return [len(done), [task.cancelled() for task in tasks]]


@durable_function(name="sim.finally_operation")
async def finally_operation(ctx: Context) -> int:
    try:
        await ctx.step(add, 1, 1)
        await ctx.wait(seconds=1)
        return await ctx.step(add, 2, 2)
    finally:
        await ctx.step(add, 3, 3)
        await ctx.wait(ms=10)


@durable_function(name="sim.swallows")
async def swallows(ctx: Context) -> str:
    try:
        await ctx.step(slow, 1, 20)
        await ctx.wait(seconds=1)
        await ctx.step(slow, 1, 8_000)  # longer than an engine that closes waits for it
        await ctx.wait(seconds=1)
    except BaseException:  # the shape: a closed seam has no outcome, whatever is returned
        return "gave up"
    return "went through"


@durable_function(name="sim.returns_early")
async def returns_early(ctx: Context) -> int:
    asyncio.ensure_future(ctx.step(slow, 1, 1_000))  # noqa: RUF006
    asyncio.ensure_future(ctx.wait(seconds=10))  # noqa: RUF006
    return await ctx.step(add, 1, 1)


async def several(ctx: Context, n: int) -> int:
    n = await ctx.step(add, n, 1)
    await ctx.wait(ms=10 * n)
    return await ctx.step(add, n, 1)


@durable_function(name="sim.helpers")
async def helpers(ctx: Context) -> list[int]:
    return list(await asyncio.gather(*(several(ctx, n) for n in range(3))))


@durable_function(name="sim.asyncio_parts")
async def asyncio_parts(ctx: Context) -> list[int]:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
    begun = asyncio.Event()
    lock = asyncio.Lock()

    async def produce() -> None:
        begun.set()
        for n in range(3):
            async with lock:
                await queue.put(await ctx.step(add, n, 10))
            await asyncio.sleep(0.02)
        await queue.put(-1)

    async def consume() -> list[int]:
        found: list[int] = []
        await begun.wait()
        while (n := await queue.get()) >= 0:
            async with lock:
                found.append(await ctx.step(add, n, 100))
        return found

    async with asyncio.TaskGroup() as group:
        consumer = group.create_task(consume())
        group.create_task(produce())
    return consumer.result()


async def pair(effect_key: str = KEY) -> list[list[int]]:
    effect("pair", effect_key)
    same: list[int] = []
    return [same, same]


@durable_function(name="sim.aliases")
async def aliases(ctx: Context) -> list[list[int]]:
    """A value is what it is after a round trip: two lists, though the step returned one twice."""
    both = await ctx.step(pair)
    both[0].append(1)
    await ctx.step(add, 1, 1)
    both[0].append(2)
    await ctx.wait(ms=10)
    return both


@durable_function(name="sim.fails")
async def fails(ctx: Context) -> int:
    await ctx.step(add, 1, 1)
    await ctx.wait(ms=100)
    await ctx.step(broken, "for good")
    return 0


@durable_function(name="sim.nothing")
async def nothing(ctx: Context) -> str:
    return "done"


def sync_inner(ctx: SyncContext, n: int) -> int:
    n = ctx.step(plain, n)
    ctx.wait(ms=10)
    return ctx.step(add, n, 1)


@durable_function(name="sim.sync")
def sync_steps(ctx: SyncContext, n: int) -> int:
    n = ctx.step(plain, n)
    n = ctx.step(add, n, 1)
    ctx.wait(seconds=1)
    try:
        return ctx.run_in_child_context(sync_inner, n)
    finally:
        ctx.step(plain, 9)


@durable_function(name="sim.sync_swallows")
def sync_swallows(ctx: SyncContext) -> str:
    try:
        ctx.step(plain, 1)
        ctx.wait(seconds=1)
        ctx.step(plain, 2)
    except BaseException:  # the shape: a run that was suspended has no outcome, whatever is returned
        return "gave up"
    return "went through"


@durable_function(name="sim.sync_retries")
def sync_retries(ctx: SyncContext) -> str:
    try:
        ctx.step(always_broken, retry=QUICK)
    except StepError as error:
        return str(error)
    return "unreachable"


@durable_function(name="sim.sync_once")
def sync_once(ctx: SyncContext) -> list[Any]:
    try:
        found: list[Any] = [ctx.step(once, 1)]
    except StepInterruptedError:
        found = ["interrupted"]
    return [*found, ctx.step(plain, 2)]


FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "sequential": (sequential, (3,)),
    "gather": (gather, (3,)),
    "task group": (task_group, (3,)),
    "task group fails": (task_group_fails, ()),
    "children": (children, (1,)),
    "child fails": (child_fails, ()),
    "retry": (retried, ()),
    "retry beside": (retry_beside, ()),
    "wait": (waits, ()),
    "at most once": (at_most_once, ()),
    "at most once beside": (at_most_once_beside, ()),
    "at most once per retry": (at_most_once_per_retry, ()),
    "keyed": (keyed, ()),
    "tickets": (tickets, ()),
    "timeout": (times_out, ()),
    "timeout over wait": (times_out_over_wait, ()),
    "first completed": (first_completed, ()),
    "finally": (finally_operation, ()),
    "swallows": (swallows, ()),
    "returns early": (returns_early, ()),
    "helpers": (helpers, ()),
    "asyncio parts": (asyncio_parts, ()),
    "aliases": (aliases, ()),
    "fails": (fails, ()),
    "nothing": (nothing, ()),
    "sync": (sync_steps, (3,)),
    "sync swallows": (sync_swallows, ()),
    "sync retries": (sync_retries, ()),
    "sync once": (sync_once, ()),
}


def interruptions(*options: list[Any]) -> frozenset[str]:
    return frozenset(f"returned {option!r}" for option in options)


# What a crash may make of them; R2: a step that was cancelled while it ran, and whose end no one saw, is interrupted.
OUTCOMES = {
    "at most once": interruptions([0, "interrupted"], ["interrupted", 1], ["interrupted", "interrupted"]),
    "at most once beside": interruptions(
        ["interrupted", 2, None, 4], [1, 2, None, "interrupted"], ["interrupted", 2, None, "interrupted"]
    ),
    "sync once": interruptions(["interrupted", 4]),
    "task group fails": frozenset({"returned 'StepError StepInterruptedError'"}),
    "first completed": interruptions(*([1, list(cancelled)] for cancelled in product((False, True), repeat=3))),
    # While the process was down the limit passed, or the step was begun again in time.
    "timeout": interruptions(["timeout", "timeout"], [7, 7], ["interrupted", 7], ["interrupted", "timeout"]),
}


# These never suspend, so that nothing of them can be evicted.
STAYING = frozenset(
    {
        "sequential",
        "gather",
        "task group",
        "task group fails",
        "children",
        "child fails",
        "at most once",
        "at most once beside",
        "keyed",
        "timeout",
        "first completed",
        "nothing",
    }
)


def one_run(name: str) -> Any:
    function, arguments = FUNCTIONS[name]

    async def scenario(client: Client) -> Any:
        return await client.run(function, *arguments, key="k")

    return scenario


async def many(client: Client) -> Any:
    """Several executions at once, which share commits."""
    return await asyncio.gather(
        client.run(sequential, 1, key="a"),
        client.run(gather, 2, key="b"),
        client.run(waits, key="c"),
        client.run(sequential, 1, key="a"),
    )


def function_shapes() -> list[Shape]:
    shapes = []
    for name, (function, _) in FUNCTIONS.items():
        outcomes = OUTCOMES.get(name, frozenset())
        variants = {name: Limits()}
        if inspect.iscoroutinefunction(function) and name not in STAYING:  # a plain function is never resident
            variants[f"{name}, evicted"] = Limits(residents_max=0)
        shapes.extend(
            Shape(name=variant, scenario=one_run(name), limits=limits, outcomes=outcomes)
            for variant, limits in variants.items()
        )
    shapes.extend(
        Shape(name=f"many, {workers} workers", scenario=many, workers=workers, limits=Limits()) for workers in (1, 2)
    )
    return shapes
