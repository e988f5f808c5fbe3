"""Retries: back-off as a durable timer, what ends it, and what each attempt is given."""

from __future__ import annotations

import contextvars
import time

import pytest

import semel
from semel import Context, Retry, durable_function
from semel.errors import ExecutionError, StepError
from semel.executions import read_all
from semel.kernel.entry import Started
from tests.runtime.places import Place, run, types_of, until

QUICK = Retry(attempts=3, first_delay_ms=10, jitter="none")


class Flaky:
    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.times: list[float] = []
        self.keys: list[str] = []

    async def body(self, effect_key: str = semel.EFFECT_KEY) -> int:
        self.times.append(time.time())
        self.keys.append(effect_key)
        if len(self.times) <= self.failures:
            raise ConnectionError(f"no {len(self.times)}")
        return len(self.times)


@pytest.mark.parametrize("residents_max", [0, 1000])
def test_a_failed_step_is_tried_again_after_its_back_off(place: Place, residents_max: int) -> None:
    flaky = Flaky(2)

    @durable_function
    async def persist(ctx: Context) -> int:
        return await ctx.step(flaky.body, retry=Retry(attempts=3, first_delay_ms=40, factor=2, jitter="none"))

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(persist) == 3
            (execution,) = (await engine.executions.list()).items
            history = await engine.executions.history(execution.id)
        first, second, third = flaky.times
        assert second - first >= 0.039
        assert third - second >= 0.079
        assert len(set(flaky.keys)) == 1
        assert types_of(history) == [
            "ExecutionStarted",
            "StepStarted",
            "StepFailed",
            "StepStarted",
            "StepFailed",
            "StepStarted",
            "StepSucceeded",
            "ExecutionSucceeded",
        ]

    run(scenario())


def test_a_back_off_goes_on_while_the_engine_is_down(place: Place) -> None:
    flaky = Flaky(1)

    @durable_function
    async def endure(ctx: Context) -> int:
        return await ctx.step(flaky.body, retry=Retry(attempts=2, first_delay_ms=150, jitter="none"))

    async def scenario() -> None:
        async with place.engine() as engine:
            await engine.start(endure, key="k")
            await until(lambda: flaky.times)
        async with place.engine() as engine:
            assert await engine.run(endure, key="k") == 2
        assert flaky.times[1] - flaky.times[0] >= 0.149
        assert len(set(flaky.keys)) == 1

    run(scenario())


def test_a_step_whose_retries_are_used_up_raises_what_it_raised_last(place: Place) -> None:
    flaky = Flaky(99)

    @durable_function
    async def give_up(ctx: Context) -> str:
        try:
            await ctx.step(flaky.body, name="flaky", retry=QUICK)
        except StepError as error:
            return f"{error.name} {error.error_type} {error.message}"
        return "done"

    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.run(give_up) == "flaky ConnectionError no 3"
        assert len(flaky.times) == 3

    run(scenario())


def test_only_the_named_errors_are_worth_another_try(place: Place) -> None:
    flaky = Flaky(99)

    @durable_function
    async def picky(ctx: Context) -> str:
        await ctx.step(flaky.body, retry=Retry(attempts=5, first_delay_ms=1, only=(TimeoutError,)))
        return "done"

    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(ExecutionError) as caught:
                await engine.run(picky)
        assert caught.value.error_type == "StepError"
        assert len(flaky.times) == 1

    run(scenario())


def test_each_attempt_begins_with_the_arguments_and_variables_that_were_given(place: Place) -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
    seen: list[tuple[list[int], str]] = []

    async def spoil(items: list[int]) -> None:
        seen.append((list(items), tenant.get()))
        items.append(99)
        tenant.set("spoiled")
        raise ConnectionError

    @durable_function
    async def spoiled(ctx: Context) -> None:
        await ctx.step(spoil, [1], retry=QUICK)

    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(ExecutionError):
                await engine.run(spoiled)
        assert seen == [([1], "nobody")] * 3

    run(scenario())


@semel.step(effect="keyed")
async def keyed(effect_key: str = semel.EFFECT_KEY) -> str:
    return effect_key


@semel.durable_function(name="retries-keyed")
async def asks_for_a_key(ctx: Context) -> str:
    return await ctx.step(keyed)


def test_G5_the_key_that_a_provider_saw_is_in_the_journal() -> None:
    async def scenario() -> None:
        async with semel.Engine("memory://") as engine:
            seen = await engine.run(asks_for_a_key, key="k")
            stream = (await engine.executions.list()).items[0]
            records = read_all(engine._store, engine._store.stream_by_uid(stream.id))
            starts = [record.entry for record in records if isinstance(record.entry, Started)]
            assert [start.effect_key for start in starts] == ["", seen]
            assert len(seen) == 32

    run(scenario())
