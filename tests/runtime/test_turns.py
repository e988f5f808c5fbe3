"""Turns that take steps and waits: retries, eviction, crashes, and the messages behind them."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

import semel
from semel import Context, DurabilityFacet, Facet, GenServer, Retry, call
from tests.runtime.places import Place, run, until, until_it


async def give(value: Any) -> Any:
    return value


class Worker(GenServer[dict[str, int]]):
    actor_type = "actors-worker"
    facets: ClassVar[list[Facet]] = [DurabilityFacet()]
    calls: ClassVar[list[str]] = []
    failures: ClassVar[int] = 0

    @call
    async def work(self, ctx: Context, name: str) -> dict[str, int]:
        await ctx.step(Worker.flaky, name, retry=Retry(attempts=3, first_delay_ms=20, jitter="none"))
        await ctx.wait(ms=20)
        await ctx.run_in_child_context(Worker.child, name)
        self.state[name] = self.state.get(name, 0) + 1
        return self.state

    @staticmethod
    async def flaky(name: str, effect_key: str = semel.EFFECT_KEY) -> None:
        Worker.calls.append(f"{name} {effect_key}")
        if Worker.failures:
            Worker.failures -= 1
            raise ConnectionError

    @staticmethod
    async def child(ctx: Context, name: str) -> None:
        await ctx.wait(ms=1)
        await ctx.step(give, name)

    @call
    async def stuck(self, ctx: Context) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("residents_max", [0, 1000])
def test_steps_retries_waits_and_child_contexts_work_in_a_turn(place: Place, residents_max: int) -> None:
    Worker.calls.clear()
    Worker.failures = 2

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            ref = engine.actor(Worker, "w")
            first, second = await asyncio.gather(ref.call(Worker.work, "a"), ref.call(Worker.work, "b"))
            assert (first, second) == ({"a": 1}, {"a": 1, "b": 1})
        assert [entry[0] for entry in Worker.calls] == ["a", "a", "a", "b"]
        assert len(set(Worker.calls)) == 2

    run(scenario())


def test_a_turn_that_waits_goes_on_in_the_next_engine_and_others_wait_behind_it(place: Place) -> None:
    Worker.calls.clear()
    Worker.failures = 0

    async def scenario() -> None:
        async with place.engine() as engine:
            ref = engine.actor(Worker, "w")
            first = asyncio.create_task(ref.call(Worker.work, "a", key="1"))
            await until(lambda: Worker.calls)
            second = asyncio.create_task(ref.call(Worker.work, "b", key="2"))
            await asyncio.sleep(0.005)
            left = place.crashed()
            await asyncio.gather(first, second)
        Worker.calls.clear()
        async with left.engine() as engine:
            ref = engine.actor(Worker, "w")
            second_reply = await ref.call(Worker.work, "b", key="2")
            assert second_reply == {"a": 1, "b": 1}
            assert await ref.call(Worker.work, "a", key="1") == {"a": 1}

    run(scenario())


def test_a_turn_that_nothing_can_wake_parks_the_actor(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            ref = engine.actor(Worker, "w")
            with pytest.raises(semel.errors.ParkedError, match="waits for something that no operation will bring"):
                await ref.call(Worker.stuck)

            async def is_refused() -> bool:
                with pytest.raises(semel.errors.ParkedError, match="parked"):
                    await ref.call(Worker.work, "a")
                return True

            await until_it(is_refused)

    run(scenario())


@pytest.mark.parametrize("limits", [{}, {"residents_max": 0}, {"running_max": 2}], ids=str)
def test_no_turn_and_no_message_waits_for_the_poll(place: Place, limits: dict[str, int]) -> None:
    Worker.calls.clear()
    Worker.failures = 3

    async def scenario() -> None:
        async with place.engine(workers=1, namespace="default", **{"poll_ms": 60_000, **limits}) as engine:
            replies = await asyncio.gather(
                *(engine.actor(Worker, f"w{which}").call(Worker.work, name) for name in "ab" for which in range(4))
            )
        assert replies == [{"a": 1}] * 4 + [{"a": 1, "b": 1}] * 4

    run(scenario())


class Sleeper(semel.GenServer[int]):
    actor_type = "turns-sleeper"

    def init(self) -> int:
        return 0

    @semel.call
    def nap(self, ctx: semel.SyncContext, ms: int) -> int:
        ctx.wait(ms=ms)
        return ms


def test_a_waiting_turn_of_a_def_handler_keeps_no_thread() -> None:
    async def scenario() -> None:
        async with semel.Engine("memory://", limits=semel.Limits(body_threads_max=1)) as engine:
            long = asyncio.create_task(engine.actor(Sleeper, "long").call(Sleeper.nap, 1_500))
            await asyncio.sleep(0.1)
            assert await engine.actor(Sleeper, "short").call(Sleeper.nap, 0) == 0
            assert not long.done()
            assert await long == 1_500

    run(scenario())
