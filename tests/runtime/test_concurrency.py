"""Bodies with several things going on: gather, TaskGroup, wait, timeout, child contexts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from semel import Context, Retry, durable_function
from semel.errors import ChildContextError, ExecutionError, StepError
from tests.runtime.places import Place, run, types_of

ONCE = Retry(attempts=1)
both_ways = pytest.mark.parametrize("residents_max", [0, 1000])


async def slow(value: int, ms: int) -> int:
    await asyncio.sleep(ms / 1000)
    return value


async def fail(message: str) -> int:
    raise ValueError(message)


async def two_steps(ctx: Context, value: int, ms: int) -> int:
    first = await ctx.step(slow, value, ms)
    await ctx.wait(ms=ms)
    return first + await ctx.step(slow, 1, 1)


@both_ways
def test_gather_over_helpers_of_several_steps_replays(place: Place, residents_max: int) -> None:
    calls: list[int] = []

    async def note(value: int) -> int:
        calls.append(value)
        await asyncio.sleep((5 - value) / 500)
        return value * value

    async def helper(ctx: Context, value: int) -> int:
        first = await ctx.step(note, value)
        await ctx.wait(ms=3 + value)
        return first + await ctx.step(note, value)

    @durable_function
    async def gathered(ctx: Context) -> list[int]:
        return list(await asyncio.gather(*(helper(ctx, value) for value in range(5))))

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(gathered, key="k") == [0, 2, 8, 18, 32]
        assert sorted(calls) == sorted([*range(5), *range(5)])

    run(scenario())


@both_ways
def test_a_task_group_replays_and_fails_as_one(place: Place, residents_max: int) -> None:
    @durable_function
    async def grouped(ctx: Context) -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(two_steps(ctx, value, 5)) for value in (1, 2)]
        found = [str(task.result()) for task in tasks]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.step(fail, "one", retry=ONCE))
                group.create_task(ctx.wait(hours=3))
        except* StepError as errors:
            found += [str(error) for error in errors.exceptions]
        await ctx.wait(ms=5)
        return found

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(grouped) == ["2", "3", "step 'fail' failed with ValueError: one"]

    run(scenario())


@both_ways
def test_who_came_first_is_the_same_on_replay(place: Place, residents_max: int) -> None:
    answers: list[list[int]] = []

    @durable_function
    async def raced(ctx: Context) -> list[int]:
        tasks = [asyncio.create_task(ctx.step(slow, value, ms)) for value, ms in ((1, 40), (2, 5), (3, 20))]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        order = [task.result() for task in done]
        await ctx.wait(ms=60)
        for finished in asyncio.as_completed([*pending]):
            order.append(await finished)  # noqa: PERF401  # one at a time is the point
        answers.append(list(order))
        await ctx.wait(ms=5)
        answers.append(list(order))
        return order

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            order = await engine.run(raced)
        assert order[0] == 2
        assert sorted(order) == [1, 2, 3]
        assert all(answer == order for answer in answers)

    run(scenario())


def test_a_set_of_tasks_iterates_alike_when_a_child_context_is_not_run_again(place: Place) -> None:
    async def inner(ctx: Context, count: int) -> list[int]:
        return list(await asyncio.gather(*(ctx.step(slow, value, 0) for value in range(count))))

    @durable_function
    async def sets(ctx: Context) -> list[str]:
        orders = []
        for count in range(1, 6):
            await ctx.run_in_child_context(inner, count)
            done, _ = await asyncio.wait([asyncio.create_task(ctx.step(slow, value, 0)) for value in range(3)])
            orders.append(" ".join(str(task.result()) for task in done))
            await ctx.wait(ms=1, name=f"after {orders[-1]}")
        return orders

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            assert [sorted(order.split()) for order in await engine.run(sets)] == [["0", "1", "2"]] * 5

    run(scenario())


@both_ways
def test_a_timeout_over_a_wait_and_sleep_are_durable_timers(place: Place, residents_max: int) -> None:
    @durable_function
    async def timed(ctx: Context) -> list[str]:
        found = []
        try:
            async with asyncio.timeout(0.03):
                await ctx.wait(hours=5)
        except TimeoutError:
            found.append("timeout")
        try:
            await asyncio.wait_for(ctx.step(slow, 1, 1), 5)
            found.append("in time")
        except TimeoutError:
            found.append("late")
        await asyncio.sleep(0.01)
        return found

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(timed, key="k") == ["timeout", "in time"]
            history = await engine.executions.history("k", function=timed_name)
        types = types_of(history)
        assert types.count("WaitCancelled") == 2
        assert types[-1] == "ExecutionSucceeded"

    timed_name = "test_a_timeout_over_a_wait_and_sleep_are_durable_timers.timed"
    run(scenario())


def test_time_in_a_body_is_that_of_the_last_record(place: Place) -> None:
    seen: list[tuple[int, int]] = []

    @durable_function
    async def clock(ctx: Context) -> int:
        start = ctx.now_ms()
        assert abs(asyncio.get_running_loop().time() * 1000 - start) < 1
        await ctx.wait(ms=20)
        seen.append((start, ctx.now_ms()))
        await ctx.wait(ms=5)
        return ctx.now_ms() - start

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            assert await engine.run(clock) >= 25
        assert len(set(seen)) == 1
        assert seen[0][1] - seen[0][0] >= 20

    run(scenario())


# Child contexts.


@both_ways
def test_child_contexts_nest_fail_and_run_side_by_side(place: Place, residents_max: int) -> None:
    inside: list[str] = []

    async def leaf(ctx: Context, value: int) -> int:
        inside.append(f"leaf {value}")
        return await ctx.step(slow, value, 2)

    async def branch(ctx: Context, value: int) -> int:
        first = await ctx.run_in_child_context(leaf, value)
        await ctx.wait(ms=3)
        return first + await ctx.run_in_child_context(leaf, value + 1, name="second")

    async def broken(ctx: Context) -> int:
        await ctx.step(slow, 1, 1)
        raise KeyError("no such branch")

    @durable_function
    async def tree(ctx: Context) -> list[Any]:
        found: list[Any] = list(
            await asyncio.gather(*(ctx.run_in_child_context(branch, value) for value in (10, 20, 30)))
        )
        try:
            await ctx.run_in_child_context(broken)
        except ChildContextError as error:
            found.append(f"{error.name} {error.error_type} {error.message}")
        await ctx.wait(ms=5)
        return found

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(tree) == [21, 41, 61, "broken KeyError 'no such branch'"]
            inside.clear()
        async with place.engine() as engine:
            (execution,) = (await engine.executions.list()).items
            history = await engine.executions.history(execution.id)
        contexts = [event for event in history if event.type == "ContextStarted"]
        assert len(contexts) == 10
        assert {event.parent_id for event in contexts if event.name in ("leaf", "second")} == {
            event.id for event in contexts if event.name == "branch"
        }

    run(scenario())


def test_a_settled_child_context_is_not_run_again(place: Place) -> None:
    runs: list[str] = []

    async def child(ctx: Context) -> str:
        runs.append("child")
        return await ctx.step(str, 3)

    @durable_function
    async def parent(ctx: Context) -> str:
        got = await ctx.run_in_child_context(child)
        await ctx.wait(ms=2)
        await ctx.wait(ms=2)
        return got

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            assert await engine.run(parent) == "3"
        assert runs == ["child"]

    run(scenario())


def test_the_value_of_a_child_context_makes_a_round_trip(place: Place) -> None:
    kept = [1]

    async def child(ctx: Context) -> list[int]:
        return kept

    async def unkept(ctx: Context) -> object:
        return object()

    @durable_function
    async def parent(ctx: Context) -> list[Any]:
        got = await ctx.run_in_child_context(child)
        kept.append(2)
        try:
            await ctx.run_in_child_context(unkept)
        except ChildContextError as error:
            return [got, error.error_type]
        return [got]

    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.run(parent) == [[1], "SerializationError"]

    run(scenario())


# What a body may not do.


async def in_a_thread() -> Any:
    return await asyncio.to_thread(len, "x")


async def on_the_network() -> Any:
    return await asyncio.open_connection("127.0.0.1", 1)


@pytest.mark.parametrize("world", [in_a_thread, on_the_network])
def test_a_body_is_told_to_put_the_world_in_a_step(place: Place, world: Any) -> None:
    @durable_function
    async def worldly(ctx: Context) -> Any:
        return await world()

    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(ExecutionError, match=r"put the call in a step: await ctx.step"):
                await engine.run(worldly)

    run(scenario())


def test_a_step_asked_for_inside_a_steps_body_is_refused(place: Place) -> None:
    @durable_function
    async def nested(ctx: Context) -> list[str]:
        async def body() -> int:
            return await ctx.step(slow, 1, 1)

        def in_thread() -> None:
            asyncio.run(two_steps(ctx, 1, 1))

        found = []
        for function in (body, in_thread):
            try:
                await ctx.step(function, retry=ONCE)
            except StepError as error:
                found.append(f"{error.error_type}: {error.message}")
        return found

    async def scenario() -> None:
        async with place.engine() as engine:
            messages = await engine.run(nested)
        assert len(messages) == 2
        for message in messages:
            assert message.startswith("ValidationError: STEP 'slow': it was asked for outside the body")

    run(scenario())


def test_many_tasks_of_many_executions_finish(place: Place) -> None:
    @durable_function
    async def wide(ctx: Context, base: int) -> int:
        return sum(await asyncio.gather(*(ctx.step(slow, base + value, 1) for value in range(20))))

    async def scenario() -> None:
        async with place.engine(workers=2) as engine:
            sums = await asyncio.gather(*(engine.run(wide, base, key=f"w-{base}") for base in range(20)))
        assert sums == [20 * base + 190 for base in range(20)]

    run(scenario())
