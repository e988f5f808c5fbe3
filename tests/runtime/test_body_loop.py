"""A body's loop takes the same path on every replay, lets no world in, and lets bodies go by rule R1."""

import asyncio
import concurrent.futures
import contextvars
import inspect
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semel.runtime import body_loop
from semel.runtime.body_loop import BodyLoop, BodyTask
from semel.runtime.frame import current_frame
from tests.runtime.outside import Body, Outside, quiet, run


@pytest.fixture(autouse=True)
def _no_noise() -> Iterator[None]:
    with quiet():
        yield


def refused(body: Body) -> str:
    with pytest.raises(RuntimeError) as caught:
        run(body)
    return str(caught.value)


async def pair(outside: Outside, n: int) -> str:
    return await outside.op(f"a{n}") + await outside.op(f"b{n}")


async def many_races(outside: Outside) -> list[Any]:
    out: list[Any] = [await asyncio.gather(pair(outside, 1), pair(outside, 2), outside.op("x"))]
    done, pending = await asyncio.wait(
        [asyncio.ensure_future(pair(outside, n)) for n in (3, 4, 5)], return_when=asyncio.FIRST_COMPLETED
    )
    out.append([task.result() for task in done])
    for task in pending:
        task.cancel()
    gathers = [asyncio.gather(pair(outside, 10 + n), outside.op("y")) for n in range(3)]
    done, _ = await asyncio.wait([*gathers, *(asyncio.ensure_future(pair(outside, 20 + n)) for n in range(9))])
    out += [await outside.op(str(task.result())) for task in done]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pair(outside, n)) for n in (6, 7)]
    out.append([task.result() for task in tasks])
    out += [await first for first in asyncio.as_completed([asyncio.create_task(pair(outside, n)) for n in (8, 9)])]
    try:
        async with asyncio.timeout(5):
            out.append(await asyncio.shield(outside.op("in time?")))
    except TimeoutError:
        out.append("timeout")
    try:
        out.append(await asyncio.wait_for(pair(outside, 30), 1.5))
    except TimeoutError:
        out.append("timeout")
    out.append(await queue_and_locks(outside))
    return out


async def queue_and_locks(outside: Outside) -> list[Any]:
    queue: asyncio.Queue[str] = asyncio.Queue(maxsize=1)
    lock, semaphore, event, barrier = asyncio.Lock(), asyncio.Semaphore(2), asyncio.Event(), asyncio.Barrier(3)
    condition, log = asyncio.Condition(), []

    async def work(n: int) -> None:
        async with semaphore:
            await queue.put(await outside.op(f"q{n}"))
        async with lock:
            log.append(await outside.op(f"l{n}"))
        async with condition:
            condition.notify_all()
        await barrier.wait()
        await asyncio.sleep(n)
        event.set()

    workers = [asyncio.create_task(work(n)) for n in range(3)]
    got = [await queue.get() for _ in workers]
    async with condition:
        await condition.wait_for(lambda: log)
    await event.wait()
    await asyncio.gather(*workers)
    return [got, log]


def play(recorded: list[str], choose: Callable[[list[str]], str]) -> tuple[Any, list[str], list[str]]:
    outside, order = Outside(many_races), []
    while not outside.task.done():
        op_id = recorded[len(order)] if len(order) < len(recorded) else choose(outside.pending())
        if op_id not in outside.pending():
            return ("diverged", order, outside.requested)
        order.append(op_id)
        outside.complete(op_id)
    assert outside.reports == []
    return (outside.task.result(), order, outside.requested)


def divergences(seeds: range) -> tuple[int, int]:
    found = replays = 0
    for seed in seeds:
        source = random.Random(seed)
        live = play([], source.choice)
        for cut in range(0, len(live[1]) + 1, 5):
            shaken = [object() for _ in range(source.randrange(200))]  # other addresses than the first time
            rest = iter(live[1][cut:])
            replays += 1
            found += play(live[1][:cut], lambda _, rest=rest: next(rest, "")) != live
            del shaken
    return replays, found


def test_every_replay_of_every_prefix_takes_the_recorded_path() -> None:
    replays, found = divergences(range(40))
    assert replays > 500
    assert found == 0


@pytest.mark.mutant
@pytest.mark.parametrize("kind", [BodyTask, body_loop.BodyGathering])
def test_replays_diverge_when_sets_iterate_in_memory_order(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    source, addresses = random.Random(1), {}

    def address(self: Any) -> int:
        return addresses.setdefault(id(self), source.randrange(1 << 40))

    monkeypatch.setattr(kind, "__hash__", address)
    assert divergences(range(12))[1] > 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["task", "future", "gather"]), max_size=40), st.randoms(use_true_random=False))
def test_sets_of_tasks_and_futures_iterate_by_order_of_creation(kinds: list[str], source: random.Random) -> None:
    async def body(outside: Outside) -> list[int]:
        make = {
            "task": lambda: asyncio.create_task(asyncio.sleep(0)),
            "future": outside.loop.create_future,
            "gather": lambda: asyncio.gather(asyncio.sleep(0)),
        }
        made = [make[kind]() for kind in kinds]
        assert len(set(made)) == len(made)
        assert all(one == other if one is other else one != other for one in made for other in made)
        return [made.index(one) for one in set(made)]

    first = run(body)
    shaken = [bytearray(source.randrange(600)) for _ in range(50)]
    assert run(body) == first
    del shaken


def test_tasks_of_many_residents_do_not_collide_in_asyncio_s_registry() -> None:
    async def body(outside: Outside) -> None:
        await outside.op("x")

    residents = [Outside(body) for _ in range(300)]
    registry = vars(asyncio.tasks).get("_scheduled_tasks") or vars(asyncio.tasks)["_all_tasks"]
    registered = list(registry.data)
    assert len({hash(reference) for reference in registered}) > 290
    assert [resident.complete_all() for resident in residents] == [None] * 300


def test_editing_one_branch_leaves_the_ids_of_the_others() -> None:
    def body_with(extra: int) -> Body:
        async def edited(outside: Outside) -> None:
            for n in range(extra):
                await outside.op(f"new{n}")
                await asyncio.gather(outside.op("new"))
            await outside.op("first")

        async def body(outside: Outside) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(edited(outside))
                group.create_task(pair(outside, 2))
            await outside.op("last")

        return body

    before, after = Outside(body_with(0)), Outside(body_with(3))
    before.complete_all()
    after.complete_all()
    assert before.requested == ["1-1_1:first", "1-2_1:a2", "1-2_2:b2", "1_1:last"]
    assert [op for op in after.requested if "new" not in op and "first" not in op] == before.requested[1:]


def test_a_task_inherits_its_parents_current_frame() -> None:
    async def body(outside: Outside) -> list[Any]:
        async def child() -> tuple[str, str | None]:
            frame = current_frame.get()
            return frame.lineage, frame.scope

        inner = current_frame.get().inside("1_1", "1_1")
        token = current_frame.set(inner)
        inside = await asyncio.gather(child(), child())
        current_frame.reset(token)
        return [*inside, await asyncio.create_task(child()), inner.next_operation(), asyncio.current_task().get_name()]

    assert run(body) == [("1_1-1", "1_1"), ("1_1-2", "1_1"), ("1-1", None), "1_1_1", "1"]


def test_tasks_copy_the_context_of_their_parent_and_keep_changes_to_themselves() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")

    async def body(outside: Outside) -> list[str]:
        async def child(value: str) -> str:
            before = variable.get()
            variable.set(value)
            return before

        own = contextvars.copy_context()
        own.run(variable.set, "given")
        seen = [variable.get()]
        variable.set("body")
        seen += await asyncio.gather(child("x"), child("y"))
        seen.append(await asyncio.get_running_loop().create_task(child("z"), context=own))
        return [*seen, own[variable], variable.get()]

    variable.set("not to be seen")
    assert run(body) == ["outside", "body", "body", "given", "z", "body"]


def test_one_context_for_two_tasks_is_refused() -> None:
    async def body(outside: Outside) -> None:
        shared = contextvars.copy_context()
        tasks = [asyncio.create_task(outside.op("x"), context=shared)]
        second = outside.op("y")
        try:
            tasks.append(asyncio.create_task(second, context=shared))
        finally:
            second.close()

    outside = Outside(body)
    assert "one context to two tasks" in str(outside.task.exception())
    assert outside.loop.cancel_all() == []


def test_as_completed_over_bare_coroutines_is_refused_with_the_fix() -> None:
    async def body(outside: Outside) -> None:
        for first in asyncio.as_completed([outside.op("x"), outside.op("y")]):
            await first

    assert "pass tasks: [asyncio.create_task(" in refused(body)


WORKS = {
    "_timer_handle_cancelled",
    "call_at",
    "call_exception_handler",
    "call_later",
    "call_soon",
    "create_future",
    "create_task",
    "default_exception_handler",
    "get_debug",
    "get_exception_handler",
    "get_task_factory",
    "is_closed",
    "is_running",
    "shutdown_asyncgens",
    "time",
}


def test_every_method_of_an_event_loop_works_or_is_refused_by_name() -> None:
    def refuses(method: Any) -> bool:
        return method.__code__.co_qualname.startswith("_refusal.")

    names = [name for name, _ in inspect.getmembers(asyncio.AbstractEventLoop, callable) if not name.startswith("__")]
    assert [name for name in names if getattr(BodyLoop, name) is getattr(asyncio.AbstractEventLoop, name)] == []
    for name in [name for name in names if refuses(getattr(BodyLoop, name))]:

        async def body(outside: Outside, name: str = name) -> None:
            getattr(asyncio.get_running_loop(), name)(None, None)

        message = refused(body)
        assert f"loop.{name} was called in a body" in message
        assert "put the call in a step: await ctx.step(...)" in message
    assert {name for name in names if not refuses(getattr(BodyLoop, name))} == WORKS


@pytest.mark.parametrize(
    ("attempt", "named"),
    [
        (lambda: asyncio.open_connection("127.0.0.1", 9), "create_connection"),
        (lambda: asyncio.start_server(print, "127.0.0.1", 0), "create_server"),
        (lambda: asyncio.create_subprocess_exec("true"), "subprocess_exec"),
        (lambda: asyncio.create_subprocess_shell("true"), "subprocess_shell"),
        (lambda: asyncio.to_thread(print), "run_in_executor"),
    ],
)
def test_asyncio_s_ways_to_the_world_are_refused(attempt: Callable[[], Any], named: str) -> None:
    async def body(outside: Outside) -> None:
        await attempt()

    assert f"loop.{named} was called in a body" in refused(body)


def test_a_thread_cannot_reach_into_a_body() -> None:
    async def body(outside: Outside) -> None:
        future: concurrent.futures.Future[int] = concurrent.futures.Future()
        asyncio.wrap_future(future)
        asyncio.get_running_loop().call_soon_threadsafe(future.set_result, 1)

    assert "call_soon_threadsafe" in refused(body)


def test_an_eager_task_and_a_nested_run_are_refused() -> None:
    async def eager(outside: Outside) -> None:
        coro = outside.op("x")
        try:
            asyncio.get_running_loop().create_task(coro, eager_start=True)
        finally:
            coro.close()

    async def nested(outside: Outside) -> None:
        coro = outside.op("x")
        try:
            asyncio.run(coro)
        finally:
            coro.close()

    assert "eager_start" in refused(eager)
    assert "running event loop" in refused(nested)


def test_pumping_from_inside_is_refused() -> None:
    async def body(outside: Outside) -> None:
        outside.loop.run_to_rest()

    assert "pumped from inside itself" in refused(body)


def test_a_body_that_never_rests_is_stopped() -> None:
    async def body(outside: Outside) -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="did not come to rest"):
        Outside(body)


def test_a_timer_is_asked_for_once_fired_once_and_cancelled_when_not_needed() -> None:
    async def body(outside: Outside) -> float:
        before = outside.loop.time()
        await asyncio.sleep(1.25)
        async with asyncio.timeout(60):
            await outside.op("x")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(outside.op("never"), 0.0301)
        await asyncio.wait([asyncio.create_task(outside.op("y"))], timeout=0.1)
        return outside.loop.time() - before

    outside = Outside(body)
    outside.complete("1_1:timer")
    outside.complete("1_3:x")
    outside.complete(next(op for op in outside.pending() if op.endswith(":timer")))
    outside.complete(next(op for op in outside.pending() if op.endswith(":y")))
    assert outside.task.result() == pytest.approx(1.281, abs=1e-6)
    assert outside.delays == [1250, 60_000, 31, 100]
    assert len(outside.cancelled) == 2
    assert outside.timers == {}


def test_nothing_is_asked_for_a_delay_that_is_over_or_has_no_end() -> None:
    async def body(outside: Outside) -> list[str]:
        loop, log = asyncio.get_running_loop(), []
        await asyncio.sleep(0)
        loop.call_later(0, log.append, "now")
        loop.call_at(loop.time() - 5, log.append, "past")
        loop.call_later(-1, log.append, "cancelled").cancel()
        loop.call_later(float("inf"), log.append, "never").cancel()
        with pytest.raises(ValueError, match="NaN"):
            loop.call_later(float("nan"), log.append, "nan")
        await asyncio.sleep(0)
        return log

    outside = Outside(body)
    assert outside.task.result() == ["now", "past"]
    assert outside.delays == []


def test_a_delay_is_whole_milliseconds_never_less_than_asked_and_free_of_float_noise() -> None:
    async def body(outside: Outside) -> None:
        loop = asyncio.get_running_loop()
        for delay in (0.1, 1.001, 2.007, 0.003, 0.0001, 0.0011):
            loop.call_later(delay, print)
            loop.call_at(loop.time() + delay, print)

    for start_ms in range(1_700_000_000_000, 1_700_000_000_500, 7):
        outside = Outside(body, start_ms=start_ms)
        assert outside.delays == [100, 100, 1001, 1001, 2007, 2007, 3, 3, 1, 1, 2, 2]


def test_a_fired_timer_ignores_what_comes_later_and_a_cancelled_one_never_fires() -> None:
    log: list[str] = []

    async def body(outside: Outside) -> list[asyncio.TimerHandle]:
        loop = asyncio.get_running_loop()
        return [loop.call_later(1, log.append, "same"), loop.call_later(1, log.append, "same")]

    outside = Outside(body)
    first, second = outside.task.result()
    assert first != second
    assert len({first, second}) == 2
    outside.loop.fire(first)
    outside.loop.fire(first)
    second.cancel()
    outside.loop.fire(second)
    outside.loop.run_to_rest()
    first.cancel()
    assert log == ["same"]
    assert outside.cancelled == ["1_2:timer"]
