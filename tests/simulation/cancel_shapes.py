"""Every operation, cancelled at every moment, by everything that cancels: the rows, columns and layers of the table."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from semel import EFFECT_KEY as KEY
from semel import Callback, Context, Limits, Poll, Retry, durable_function
from semel.errors import OperationError, SemelError
from semel.testing import Client, Shape, VirtualLoop, answer, effect

BACK_OFF = Retry(attempts=3, first_delay_ms=10_000, delay_max_ms=10_000, jitter="none")
ONCE = Retry(attempts=1)
LASTS_MS, CANCELLED_MS = 400, 200  # an operation that is cancelled in flight, and when
HOUR_MS = 3_600_000

CAUSES = ("timeout", "task group", "task.cancel", "stop")
MOMENTS = ("unasked", "asked", "queued", "in flight", "ended", "settled", "unseen", "in back-off")
ABOUT = {
    "unasked": "the task is cancelled before its first slice: it has asked for nothing",
    "asked": "in the slice that asked for it",
    "queued": "behind an append: what comes before it is not durable yet, so it has not begun",
    "in flight": "begun, and not over",
    "ended": "a step's body has ended, and the run that waits for it does not know yet",
    "settled": "its outcome waits for its turn to be delivered",
    "unseen": "its outcome is on disk, and the run that waits for it has not looked",
    "in back-off": "between two attempts",
}


class Moment(NamedTuple):
    """How an operation is to go so that it can be cancelled at a moment."""

    name: str
    in_flight_ms: int = LASTS_MS

    @property
    def lasts_ms(self) -> int:
        return {"in flight": self.in_flight_ms, "ended": 100}.get(self.name, 0)

    @property
    def is_broken(self) -> bool:
        return self.name == "in back-off"

    @property
    def answer_ms(self) -> int:
        """When somebody outside settles it: late, or together with what cancels."""
        return LASTS_MS if self.name == "in flight" else 100


# What the operations are made of.


async def work(ms: int, is_broken: bool = False, effect_key: str = KEY) -> str:
    effect("work", effect_key, ms)
    if is_broken:
        raise ConnectionError("down")
    if ms:
        await asyncio.sleep(ms / 1000)
    return "worked"


def plain_work(ms: int, is_broken: bool = False, effect_key: str = KEY) -> str:
    effect("work", effect_key, ms)
    if is_broken:
        raise ConnectionError("down")
    loop = asyncio.get_running_loop()
    if ms and isinstance(loop, VirtualLoop):
        loop.take(ms / 1000)
    return "worked"


async def tidies(ms: int, is_broken: bool = False, effect_key: str = KEY) -> str:
    try:
        return await work(ms, is_broken, effect_key)
    except asyncio.CancelledError:
        return "tidied"


async def breaks_down(ms: int, is_broken: bool = False, effect_key: str = KEY) -> str:
    try:
        return await work(ms, is_broken, effect_key)
    except asyncio.CancelledError:
        raise ValueError("no") from None


async def trigger_work(ms: int, effect_key: str = KEY) -> None:
    effect("trigger", effect_key, ms)
    if ms:
        await asyncio.sleep(ms / 1000)


def plain_trigger(ms: int, effect_key: str = KEY) -> None:
    effect("trigger", effect_key, ms)
    loop = asyncio.get_running_loop()
    if ms and isinstance(loop, VirtualLoop):
        loop.take(ms / 1000)


async def submit(callback_id: str, after_ms: int, is_broken: bool, effect_key: str = KEY) -> None:
    effect("work", effect_key, after_ms)
    if is_broken:
        raise ConnectionError("down")
    answer(callback_id, "answered", after_ms=after_ms)


@durable_function(name="table.kid")
async def kid(ctx: Context, ms: int) -> str:
    await ctx.wait(ms=ms)
    return "kid"


# Rows: `ask(ctx, moment)` makes the operation. It is called "target".

Ask = Callable[[Context, Moment], Awaitable[Any]]


def step_row(function: Callable[..., Any], **options: Any) -> Ask:
    def ask(ctx: Context, moment: Moment) -> Awaitable[Any]:
        return ctx.step(function, moment.lasts_ms, moment.is_broken, name="target", **({"retry": BACK_OFF} | options))

    return ask


def wait_row(ctx: Context, moment: Moment) -> Awaitable[Any]:
    return ctx.wait(ms=CANCELLED_MS if moment.name == "settled" else LASTS_MS, name="target")


def sleep_row(ctx: Context, moment: Moment) -> Awaitable[Any]:
    return asyncio.sleep((CANCELLED_MS if moment.name == "settled" else LASTS_MS) / 1000)


async def inside(ctx: Context, moment: Moment) -> str:
    return await ctx.step(work, moment.lasts_ms, moment.is_broken, retry=BACK_OFF)


async def once_inside(ctx: Context, moment: Moment) -> str:
    return await ctx.step(work, moment.lasts_ms, moment.is_broken, retry=ONCE)


async def waits_inside(ctx: Context, moment: Moment) -> str:
    await ctx.wait(ms=moment.lasts_ms)
    return "waited"


def child_row(ctx: Context, moment: Moment) -> Awaitable[Any]:
    return ctx.run_in_child_context(lambda ctx: inside(ctx, moment), name="target")


def retry_row(ctx: Context, moment: Moment) -> Awaitable[Any]:
    return ctx.with_retry(lambda ctx: once_inside(ctx, moment), retry=BACK_OFF, name="target")


async def callback_row(ctx: Context, moment: Moment) -> Any:
    call = await ctx.create_callback(name="target")
    if moment.name not in ("asked", "queued"):
        await ctx.step(submit, call.id, moment.answer_ms, False)
    return await call.result()


def wait_for_callback_row(ctx: Context, moment: Moment) -> Awaitable[Any]:
    return ctx.wait_for_callback(submit, moment.answer_ms, moment.is_broken, name="target", retry=BACK_OFF)


def invoke_row(ctx: Context, moment: Moment) -> Awaitable[Any]:
    return ctx.invoke(kid, moment.answer_ms, name="target")


def map_row(nesting: Any) -> Ask:
    async def ask(ctx: Context, moment: Moment) -> Any:
        branches = [inside, waits_inside] if moment.name == "in flight" else [inside]

        async def branch(ctx: Context, which: int) -> str:
            return await branches[which](ctx, moment)

        found = await ctx.map(branch, range(len(branches)), name="target", nesting=nesting)
        return found.results

    return ask


async def parallel_row(ctx: Context, moment: Moment) -> Any:
    found = await ctx.parallel([lambda ctx: inside(ctx, moment)], name="target")
    return found.results


def condition_row(ctx: Context, moment: Moment) -> Awaitable[Any]:
    async def check(state: int, effect_key: str = KEY) -> int:
        await work(moment.lasts_ms, False, effect_key)
        return state + 1

    enough = 2 if moment.is_broken else 1
    poll = Poll(until=lambda state: state >= enough, first_delay_ms=10_000, jitter="none")
    return ctx.wait_for_condition(check, 0, poll=poll, name="target")


def stubborn_condition_row(ctx: Context, moment: Moment) -> Awaitable[Any]:
    async def check(state: int, effect_key: str = KEY) -> int:
        await tidies(moment.lasts_ms, False, effect_key)
        return state + 1

    poll = Poll(until=lambda state: state >= 2, first_delay_ms=10_000, jitter="none")
    return ctx.wait_for_condition(check, 0, poll=poll, name="target")


async def stubborn_inside(ctx: Context, moment: Moment) -> str:
    return await ctx.step(breaks_down, moment.lasts_ms, moment.is_broken, retry=ONCE)


def stubborn_retry_row(ctx: Context, moment: Moment) -> Awaitable[Any]:
    return ctx.with_retry(lambda ctx: stubborn_inside(ctx, moment), retry=BACK_OFF, name="target")


class Row(NamedTuple):
    """One kind of operation: how it is asked for, and what the awaiter sees at each moment that exists.

    C: CancelledError, and the operation is CANCELLED. U: CancelledError, and its outcome stands, undelivered.
    Anything else is what it returns or raises. `never` says why a moment does not exist.
    """

    ask: Ask
    sees: dict[str, str]
    never: dict[str, str]
    depth: int = 0  # how many deliveries after the trigger the operation's outcome is next


C, U = "cancelled", "undelivered"
WORKED, TIDIED = "returned 'worked'", "returned 'tidied'"
NO_BODY = "it has no step body"
NO_ATTEMPTS = "it is attempted once"
HOLDERS = "only the run that waits for it settles it"
QUEUED = {"unasked": C, "asked": C, "queued": C}


def step_sees(in_flight: str = C, ended: str = WORKED, **others: str) -> dict[str, str]:
    return {**QUEUED, "in flight": in_flight, "ended": ended, "settled": WORKED, "in back-off": C}


STEP_NEVER = {"unseen": HOLDERS}
SCOPE_NEVER = {"unseen": HOLDERS, "ended": NO_BODY}
SCOPE = {**QUEUED, "in flight": C, "in back-off": C}
ONE_ATTEMPT = {**step_sees()}
ONE_ATTEMPT.pop("in back-off")

AS_ABOVE = dict.fromkeys(("ended", "settled", "in back-off"), "it is the same as without that")

ROWS: dict[str, Row] = {
    "step": Row(step_row(work), step_sees(), STEP_NEVER),
    "step, tidies up": Row(step_row(tidies), step_sees(TIDIED), STEP_NEVER),
    "step, breaks down": Row(step_row(breaks_down), step_sees("raised StepError ValueError"), STEP_NEVER),
    "step, def": Row(step_row(plain_work), step_sees(WORKED), STEP_NEVER),
    "step, at_most_once": Row(
        step_row(work, effect="at_most_once", retry=ONCE), ONE_ATTEMPT, {**STEP_NEVER, "in back-off": NO_ATTEMPTS}
    ),
    "step, per retry": Row(step_row(work, semantics="at_most_once_per_retry"), step_sees(), STEP_NEVER),
    "step, abandon": Row(step_row(work, on_cancel="abandon"), step_sees(), STEP_NEVER),
    "step, def, abandon": Row(step_row(plain_work, on_cancel="abandon"), step_sees(), STEP_NEVER),
    "wait": Row(wait_row, {**QUEUED, "in flight": C, "settled": C}, {**SCOPE_NEVER, "in back-off": NO_ATTEMPTS}),
    "asyncio.sleep": Row(
        sleep_row, {**QUEUED, "in flight": C, "settled": C}, {**SCOPE_NEVER, "in back-off": NO_ATTEMPTS}
    ),
    "child context": Row(child_row, {**SCOPE, "settled": WORKED}, SCOPE_NEVER),
    "callback": Row(
        callback_row,
        {**QUEUED, "in flight": C, "settled": U, "unseen": U},
        {"ended": NO_BODY, "in back-off": NO_ATTEMPTS},
    ),
    "wait_for_callback": Row(
        wait_for_callback_row, {**SCOPE, "settled": "returned 'answered'", "unseen": C}, {"ended": NO_BODY}
    ),
    "invoke": Row(
        invoke_row,
        {**QUEUED, "in flight": C, "settled": U, "unseen": U},
        {"ended": NO_BODY, "in back-off": NO_ATTEMPTS},
    ),
    "map": Row(map_row("nested"), {**SCOPE, "settled": "returned ['worked']"}, SCOPE_NEVER, 1),
    "map, flat": Row(map_row("flat"), {**SCOPE, "settled": "returned ['worked']"}, SCOPE_NEVER),
    "parallel": Row(parallel_row, {**SCOPE, "settled": "returned ['worked']"}, SCOPE_NEVER, 1),
    "wait_for_condition": Row(condition_row, {**SCOPE, "settled": "returned 1", "ended": "returned 1"}, STEP_NEVER),
    "wait_for_condition, told and not met": Row(
        stubborn_condition_row, {**QUEUED, "in flight": C}, {**STEP_NEVER, **AS_ABOVE}
    ),
    "with_retry, breaks down": Row(
        stubborn_retry_row, {**QUEUED, "in flight": "raised ChildContextError StepError"}, {**SCOPE_NEVER, **AS_ABOVE}
    ),
    "with_retry": Row(retry_row, {**SCOPE, "settled": WORKED}, SCOPE_NEVER),
}
TRIGGER_FIRST = {"step", "wait", "asyncio.sleep", "callback", "invoke", "wait_for_condition"}


# What cancels.


async def follow(told: list[str], operation: Awaitable[Any]) -> None:
    """Note what the awaiter sees."""
    try:
        value = await operation
    except asyncio.CancelledError:
        told.append(C)
        raise
    except OperationError as error:
        told.append(f"raised {type(error).__name__} {error.error_type}")
    else:
        told.append(f"returned {value!r}")


async def by_timeout(awaiter: Callable[[], Awaitable[None]], fired: asyncio.Event, after_ms: int | None) -> str:
    watcher = None
    try:
        async with asyncio.timeout(None if after_ms is None else after_ms / 1000) as limit:

            async def watch() -> None:
                await fired.wait()
                limit.reschedule(0)

            watcher = asyncio.create_task(watch())
            await awaiter()
    except TimeoutError:
        return "TimeoutError"
    finally:
        if watcher is not None:
            watcher.cancel()
    return "went on"


async def by_group(awaiter: Callable[[], Awaitable[None]], fired: asyncio.Event, after_ms: int | None) -> str:
    async def fail() -> None:
        await fired.wait()
        raise LookupError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(awaiter())  # type: ignore[arg-type]
            group.create_task(fail())
    except ExceptionGroup as error:
        return type(error.exceptions[0]).__name__
    return "went on"


async def by_cancel(awaiter: Callable[[], Awaitable[None]], fired: asyncio.Event, after_ms: int | None) -> str:
    task = asyncio.ensure_future(awaiter())
    await fired.wait()
    task.cancel()
    await asyncio.wait([task])
    return "was cancelled" if task.cancelled() else "went on"


BY = {"timeout": by_timeout, "task group": by_group, "task.cancel": by_cancel}


async def nothing(ctx: Context) -> None:
    return None


async def fire(ctx: Context, name: str, moment: Moment, depth: int, call: Callback | None) -> None:
    """Come to the moment at which the target is cancelled."""
    match moment.name:
        case "queued":
            await ctx.step(trigger_work, 100, name="trigger")
        case "in flight" | "in back-off":
            await ctx.wait(ms=CANCELLED_MS, name="trigger")
        case "ended" | "settled" if name.startswith("step, def"):
            await ctx.step(plain_trigger, moment.lasts_ms, name="trigger")
        case "settled" if name in ("wait", "asyncio.sleep"):
            await ctx.wait(ms=CANCELLED_MS, name="trigger")
        case "settled" | "unseen" if call is not None:
            if name == "wait_for_callback" and moment.name == "settled":
                await ctx.step(submit, call.id, moment.answer_ms, False)  # after the target's
            await call.result()
        case "settled" | "unseen" if name == "invoke":
            await ctx.invoke(kid, moment.answer_ms, name="trigger")
        case "ended" | "settled":
            await ctx.step(trigger_work, moment.lasts_ms, name="trigger")
    if moment.name == "settled":
        for _ in range(depth):
            await ctx.run_in_child_context(nothing)


async def cancelled_at(ctx: Context, name: str, moment: Moment, cause: str) -> list[str]:
    """Ask for the operation, cancel it at the moment, and say what its awaiter saw and what became of who cancelled."""
    row, told, fired = ROWS[name], list[str](), asyncio.Event()
    call: Callback | None = None
    after_ms = None
    if moment.name in ("settled", "unseen") and name in ("callback", "wait_for_callback"):
        call = await ctx.create_callback(name="trigger")
        if name == "callback" or moment.name == "unseen":
            await ctx.step(submit, call.id, moment.answer_ms, False)
    if moment.name == "unseen":
        beside = asyncio.create_task(ctx.step(trigger_work, 300, name="beside"))

    async def firing() -> None:
        await fire(ctx, name, moment, row.depth, call)
        fired.set()

    async def awaiter() -> None:
        await follow(told, row.ask(ctx, moment))

    if moment.name == "unasked":
        task = asyncio.create_task(awaiter())
        task.cancel()
        await asyncio.wait([task])
        return [C, "was cancelled"]
    tasks: list[asyncio.Task[Any]] = []
    if moment.name == "queued":
        before = asyncio.create_task(ctx.step(trigger_work, 100, name="before"))
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(firing()))
        await before
    elif cause == "timeout" and moment.name in ("in flight", "in back-off"):
        after_ms = CANCELLED_MS
    elif moment.name in ("ended", "settled", "unseen") and name.split(",", maxsplit=1)[0] in TRIGGER_FIRST:
        tasks.append(asyncio.create_task(firing()))
        await asyncio.sleep(0)
    what = asyncio.create_task(BY[cause](awaiter, fired, after_ms))
    for _ in range(4):
        await asyncio.sleep(0)
    if not tasks and after_ms is None:
        tasks.append(asyncio.create_task(firing()))
    told.append(await what)
    if tasks:
        await asyncio.wait(tasks)
    if moment.name == "unseen":
        await beside
    return told


def step_add() -> str:
    return "after"


@durable_function(name="table.cancelled")
async def cancelled(ctx: Context, name: str, moment: str, cause: str) -> list[str]:
    told = await cancelled_at(ctx, name, Moment(moment), cause)
    await ctx.wait(seconds=20)  # whatever comes late, comes
    await ctx.step(step_add)
    return told


@durable_function(name="table.stopped")
async def stopped(ctx: Context, name: str, moment: str) -> None:
    await ctx.wait(ms=100)
    told: list[str] = []
    await follow(told, ROWS[name].ask(ctx, Moment(moment)))
    await ctx.wait(hours=1)


STOPPED_MS = {"unasked": 50, "asked": 100, "in flight": 300, "ended": 200, "settled": 200, "in back-off": 300}


def cell_shape(name: str, moment: str, cause: str, *, is_evicted: bool = False) -> Shape:
    """One cell of the table."""
    limits = Limits(poll_ms=600_000, lease_ms=86_400_000, residents_max=0 if is_evicted else 1_000)
    title = f"{name} × {moment} × {cause}"
    if cause != "stop":

        async def scenario(client: Client) -> Any:
            return await client.run(cancelled, name, moment, cause, key="k")

        return Shape(name=title, scenario=scenario, limits=limits)

    async def stop(client: Client) -> None:
        await asyncio.sleep(STOPPED_MS[moment] / 1000)
        with contextlib.suppress(SemelError):  # an earlier life stopped it
            await client.engine.executions.stop("k", function="table.stopped")

    async def stopping(client: Client) -> Any:
        return (await asyncio.gather(client.run(stopped, name, moment, key="k"), stop(client)))[0]

    return Shape(name=title, scenario=stopping, limits=limits)
