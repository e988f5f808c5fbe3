"""What an execution has invoked when it is stopped, times out or is deleted."""

from __future__ import annotations

import asyncio

import pytest

from semel import Context, Engine, durable_function
from semel.errors import ExecutionError, ExecutionStoppedError, ExecutionTimedOutError
from tests.runtime.places import Place, run, until_it


@durable_function(name="families-grandchild")
async def grandchild(ctx: Context) -> str:
    await ctx.wait(ms=300)
    return "grown up"


@durable_function(name="families-child")
async def child(ctx: Context) -> str:
    return await ctx.invoke(grandchild)


@durable_function(name="families-parent")
async def parent(ctx: Context) -> list[str]:
    return await asyncio.gather(ctx.invoke(child), ctx.invoke(grandchild))


@durable_function(name="families-impatient")
async def impatient(ctx: Context) -> str:
    return await ctx.invoke(child)


async def statuses(engine: Engine) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in (await engine.executions.list()).items:
        found.setdefault(item.function.removeprefix("families-"), []).append(item.status)
    return found


async def every_status(engine: Engine) -> set[str]:
    return {item.status for item in (await engine.executions.list()).items}


async def with_all_running(engine: Engine) -> str:
    execution = await engine.start(parent, key="k")

    async def are_running() -> bool:
        return sum(map(len, (await statuses(engine)).values())) == 4

    await until_it(are_running)
    return execution.id


def test_a_stop_lets_what_was_invoked_go_on(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            await engine.executions.stop(await with_all_running(engine))

            async def have_ended() -> bool:
                return "RUNNING" not in await every_status(engine)

            await until_it(have_ended)
            assert await statuses(engine) == {
                "parent": ["STOPPED"],
                "child": ["SUCCEEDED"],
                "grandchild": ["SUCCEEDED", "SUCCEEDED"],
            }

    run(scenario())


def test_a_stop_with_children_stops_all_that_run_at_once(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            info = await engine.executions.stop(await with_all_running(engine), reason="enough", children=True)
            assert (info.status, info.error_message) == ("STOPPED", "enough")
            assert await every_status(engine) == {"STOPPED"}
            with pytest.raises(ExecutionStoppedError):
                await engine.run(parent, key="k")
        async with place.engine() as engine:
            assert await every_status(engine) == {"STOPPED"}
            again = await engine.executions.stop("k", function="families-parent", children=True)
            assert again.status == "STOPPED"

    run(scenario())


def test_a_parent_hears_of_a_child_that_is_stopped_or_times_out(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            uid = await with_all_running(engine)
            running = (await engine.executions.list(function="families-child")).items
            await engine.executions.stop(running[0].id, reason="one")
            with pytest.raises(ExecutionError, match="one"):
                await engine.run(parent, key="k")
            assert (await engine.executions.get(uid)).status == "FAILED"
            with pytest.raises(ExecutionTimedOutError):
                await engine.run(impatient, key="i", timeout_ms=50)

    run(scenario())
