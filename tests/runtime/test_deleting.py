"""Executions that are deleted, swept or lose their key, on engines."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from semel import Context, DurabilityFacet, Engine, GenServer, Limits, call, durable_function
from semel.errors import (
    ExecutionError,
    IdempotencyConflictError,
    NotFoundError,
    ValidationError,
    WrongStatusError,
)
from semel.journal import lifecycle
from semel.store.base import KeyId
from tests.runtime.places import Place, run, until, until_it

ran: list[str] = []


@durable_function(name="deleting-add")
async def add(ctx: Context, a: int, b: int) -> int:
    ran.append("add")
    return a + b


@durable_function(name="deleting-fails")
async def fails(ctx: Context) -> int:
    raise ValueError("no")


@durable_function(name="deleting-long")
async def long(ctx: Context) -> None:
    await ctx.wait(hours=1)


@durable_function(name="deleting-short-lived", retention_ms=30)
async def short_lived(ctx: Context) -> int:
    ran.append("short-lived")
    return 1


@durable_function(name="deleting-large")
async def large(ctx: Context) -> str:
    await ctx.wait(ms=5)
    return "x" * 300_000


class Till(GenServer[int]):
    actor_type = "deleting-till"
    facets = [DurabilityFacet()]

    def init(self) -> int:
        return 0

    @call
    async def add(self, ctx: Context, amount: int) -> int:
        self.state += amount
        return self.state


async def names(engine: Engine) -> list[str]:
    return [item.name for item in (await engine.executions.list()).items]


def test_G6_a_deleted_execution_still_answers_its_key_and_is_not_run_again(place: Place) -> None:
    async def scenario() -> None:
        ran.clear()
        async with place.engine() as engine:
            execution = await engine.start(add, 1, 2, key="k")
            assert await execution.result() == 3
            with pytest.raises(ExecutionError, match="no"):
                await engine.run(fails, key="f")
            info = await engine.executions.delete("k", function="deleting-add")
            assert (info.id, info.status, info.result) == (execution.id, "SUCCEEDED", 3)
            await engine.executions.delete("f", function="deleting-fails")
            assert await names(engine) == []
            for act in (engine.executions.get, engine.executions.history, engine.executions.delete):
                with pytest.raises(NotFoundError):
                    await act(execution.id)
            assert await engine.run(add, 1, 2, key="k") == 3
        async with place.engine() as engine:
            assert await engine.run(add, 1, 2, key="k") == 3
            again = await engine.start(add, 1, 2, key="k")
            assert (again.id, await again.result()) == (execution.id, 3)
            with pytest.raises(ExecutionError, match="no"):
                await engine.run(fails, key="f")
            with pytest.raises(IdempotencyConflictError):
                await engine.run(add, 1, 3, key="k")
            await engine.executions.forget_key("k", function="deleting-add")
            assert await engine.run(add, 1, 3, key="k") == 4
        assert ran == ["add", "add"]

    run(scenario())


def test_the_name_of_a_deleted_execution_is_no_other_execution(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            await engine.run(add, 1, 2, key="k")
            await engine.executions.delete("k", function="deleting-add")
        async with place.engine() as engine:
            other = await engine.start(long, key="other")  # in a file it may get the number of the deleted one
            for act in (engine.executions.get, engine.executions.stop, engine.executions.pause):
                with pytest.raises(NotFoundError):
                    await act("k", function="deleting-add")
            assert (await engine.executions.get(other.id)).status == "RUNNING"

    run(scenario())


def test_what_runs_is_neither_deleted_nor_loses_its_key(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(long, key="k")
            with pytest.raises(WrongStatusError, match="expected one that has ended; stop it first"):
                await engine.executions.delete(execution.id)
            with pytest.raises(WrongStatusError, match="cannot lose its key"):
                await engine.executions.forget_key("k", function="deleting-long")
            with pytest.raises(NotFoundError):
                await engine.executions.forget_key("other", function="deleting-long")
            assert await names(engine) == ["k"]

    run(scenario())


def test_a_handle_on_a_deleted_execution_still_has_its_outcome_while_the_key_is_kept(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(add, 1, 2, key="k")
            await engine.run(add, 1, 2, key="k")
            await engine.executions.delete(execution.id)
            assert await execution.result() == 3
            await engine.executions.forget_key("k", function="deleting-add")
            with pytest.raises(NotFoundError, match="it was deleted, and its outcome is no longer kept"):
                await execution.result()

    run(scenario())


def test_who_waits_when_an_execution_is_stopped_and_deleted_is_told(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(long, key="k")
            waiting = [asyncio.create_task(engine.run(long, key="k")) for _ in range(3)]
            waiting.append(asyncio.create_task(execution.result()))
            await asyncio.sleep(0.02)
            await asyncio.gather(engine.executions.stop(execution.id, reason="enough"), _deleted(engine, execution.id))
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(answer).__name__ for answer in answers} == {"ExecutionStoppedError"}

    async def _deleted(engine: Engine, id: str) -> None:
        while True:
            try:
                await engine.executions.delete(id)
            except WrongStatusError:
                await asyncio.sleep(0)
            else:
                return

    run(scenario())


def test_a_large_result_reaches_who_waits_although_it_is_deleted_with_the_same_commit(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            for number in range(20):
                execution = await engine.start(large, key=f"k{number}")
                waiting = [asyncio.create_task(execution.result()) for _ in range(2)]
                waiting.append(asyncio.create_task(engine.run(large, key=f"k{number}")))
                while True:
                    await asyncio.sleep(0)
                    try:
                        await engine.executions.delete(execution.id)
                    except WrongStatusError:
                        continue
                    break
                assert [len(answer) for answer in await asyncio.gather(*waiting)] == [300_000] * 3

    run(scenario())


def test_a_large_result_is_told_also_once_another_engine_has_deleted_it(tmp_path: Any) -> None:
    place = Place("memory", tmp_path)

    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(large, key="k")
            waiting = asyncio.create_task(execution.result())
            await until(lambda: len(engine._waiters))
            settle = engine._waiters.settle

            def deleted_meanwhile(number: int, settled: Any) -> None:
                store = engine._store
                transaction = store.begin([])
                transaction.attempt(
                    lambda t: lifecycle.delete(t, number, retention_ms=10**9, now_ms=engine._clock.now_ms())
                )
                store.commit(transaction)
                settle(number, settled)

            engine._waiters.settle = deleted_meanwhile  # type: ignore[method-assign]
            assert len(await waiting) == 300_000

    run(scenario())


def test_who_waits_for_what_another_engine_has_deleted_is_told(tmp_path: Any) -> None:
    place = Place("memory", tmp_path)

    async def scenario() -> None:
        async with place.engine() as engine:
            execution = await engine.start(long, key="k")
            waiting = asyncio.create_task(execution.result())
            await asyncio.sleep(0.02)
            other = Engine(engine._store.reader(), limits=Limits(poll_ms=200))  # type: ignore[arg-type]
            async with other:
                await other.executions.stop(execution.id)
                await other.executions.delete(execution.id)
            with pytest.raises(NotFoundError, match="it was deleted"):
                await waiting

    run(scenario())


def test_what_ended_a_retention_ago_is_swept_with_its_key_and_runs_anew(place: Place) -> None:
    async def scenario() -> None:
        ran.clear()
        async with place.engine(retention_ms=60, sweep_ms=20) as engine:
            assert await engine.run(add, 1, 2, key="k") == 3
            waiting = await engine.start(long, key="long")
            assert await engine.actor(Till, "t").call(Till.add, 5, key="m") == 5

            async def is_swept() -> bool:
                return await names(engine) == ["long"]

            await until_it(is_swept)
            reader = engine._services.reader
            await until(lambda: reader.key(KeyId("default", "actor:deleting-till/t", "m")) is None)
            assert reader.key(KeyId("default", "fn:deleting-add", "k")) is None
            assert (await engine.executions.get(waiting.id)).status == "RUNNING"
            assert await engine.run(add, 2, 2, key="k") == 4
            assert await engine.actor(Till, "t").call(Till.add, 1, key="m") == 6

    run(scenario())


def test_a_function_may_say_how_long_its_executions_are_kept(place: Place) -> None:
    async def scenario() -> None:
        ran.clear()
        async with place.engine(sweep_ms=20) as engine:
            assert await engine.run(short_lived, key="k") == 1
            assert await engine.run(add, 1, 2, key="k") == 3

            async def is_swept() -> bool:
                return [item.function for item in (await engine.executions.list()).items] == ["deleting-add"]

            await until_it(is_swept)
            assert await engine.run(short_lived, key="k") == 1
            assert ran == ["short-lived", "add", "short-lived"]

    run(scenario())


def test_with_no_sweep_everything_stays(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine(sweep_ms=0, retention_ms=1) as engine:
            await engine.run(add, 1, 2, key="k")
            await asyncio.sleep(0.05)
            assert await names(engine) == ["k"]
            assert await engine._sweeper.sweep() == 1
            assert await names(engine) == []

    run(scenario())


def test_more_than_a_batch_and_a_page_are_swept(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine(sweep_ms=0, retention_ms=1, sweep_batch_max=7, page_max=1_000) as engine:
            await asyncio.gather(*(engine.run(add, 1, 2, key=str(number)) for number in range(30)))
            kept = await engine.start(long, key="long")
            await asyncio.sleep(0.01)
            assert await engine._sweeper.sweep() == 30
            assert [item.id for item in (await engine.executions.list()).items] == [kept.id]

    run(scenario())


@pytest.mark.parametrize("retention_ms", [-1, True, "1", 1.5])
def test_a_retention_that_is_none_is_refused(retention_ms: Any) -> None:
    with pytest.raises(ValidationError, match="retention_ms: found"):
        durable_function(name="deleting-refused", retention_ms=retention_ms)
