"""DurabilityFacet: what survives at which interval, turns run again after a crash, passivation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from semel import Context, DurabilityFacet, Facet, GenServer, call, cast
from semel.errors import ParkedError, ReplayError, ValidationError
from semel.executions import find, read_all
from semel.function import REGISTRY
from semel.kernel.entry import Settled, TurnEnded
from semel.store.base import ACTOR, Filter
from tests.runtime.places import Place, run, until

STEPS: list[int] = []
TURNS: list[int] = []
LEFT: list[str] = []


async def note(by: int) -> int:
    STEPS.append(by)
    return by


class Tally(GenServer[list[int]]):
    """The handlers of every class below."""

    actor_type = "durable-tally"
    bonus: ClassVar[int] = 0
    gate: ClassVar[asyncio.Event]

    @call
    async def add(self, ctx: Context, by: int) -> int:
        TURNS.append(by)
        self.state.append(await ctx.step(note, by) + type(self).bonus)
        if by == 13:
            raise ValueError("bad luck")
        return sum(self.state)

    @call
    async def add_after_a_wait(self, ctx: Context, by: int) -> int:
        self.state.append(by)
        await ctx.wait(ms=30)
        return sum(self.state)

    @cast
    async def add_later(self, ctx: Context, by: int) -> None:
        self.state.append(by)

    @call
    async def hold(self, ctx: Context) -> None:
        await ctx.step(Tally.wait_at_gate)

    @staticmethod
    async def wait_at_gate() -> None:
        await Tally.gate.wait()

    def terminate(self, reason: str) -> None:
        LEFT.append(reason)


class Every(Tally):
    actor_type = "durable-every"
    facets: ClassVar[list[Facet]] = [DurabilityFacet()]


class Third(Tally):
    actor_type = "durable-third"
    facets: ClassVar[list[Facet]] = [DurabilityFacet(checkpoint_interval=3)]


class Forgetful(Tally):
    actor_type = "durable-forgetful"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    STEPS.clear()
    TURNS.clear()
    LEFT.clear()
    Tally.bonus = 0
    yield
    for actor in (Tally, Every, Third, Forgetful):
        actor.bonus = 0


async def add_all(place: Place, actor: type[Tally], numbers: list[int], **limits: int) -> list[int]:
    async with place.engine(workers=1, namespace="default", **limits) as engine:
        ref = engine.actor(actor, "t")
        return [await ref.call(actor.add, number) for number in numbers]


@pytest.mark.parametrize("actor", [Every, Third])
def test_state_is_there_after_reopening_whatever_the_interval(place: Place, actor: type[Tally]) -> None:
    async def scenario() -> None:
        assert await add_all(place, actor, [1, 2, 3, 4]) == [1, 3, 6, 10]
        assert await add_all(place, actor, [5]) == [15]
        assert STEPS == [1, 2, 3, 4, 5]
        assert TURNS == [1, 2, 3, 4, 5]

    run(scenario())


def test_without_the_facet_the_state_is_gone_and_replies_are_kept(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            ref = engine.actor(Forgetful, "t")
            assert await ref.call(Forgetful.add, 1, key="k1") == 1
            assert await ref.call(Forgetful.add, 2, key="k2") == 3
        async with place.engine() as engine:
            ref = engine.actor(Forgetful, "t")
            assert await ref.call(Forgetful.add, 2, key="k2") == 3
            assert await ref.call(Forgetful.add, 5) == 5
        assert TURNS == [1, 2, 5]

    run(scenario())


@pytest.mark.parametrize("interval", [0, -1, 1.5, "2", None])
def test_an_interval_that_is_not_a_number_of_turns_is_refused(interval: Any) -> None:
    with pytest.raises(ValidationError, match="expected a whole number of turns"):
        DurabilityFacet(checkpoint_interval=interval)


async def crash_after(place: Place, actor: type[Tally], numbers: list[int]) -> Place:
    """What a kill leaves after so many turns that were answered."""
    async with place.engine() as engine:
        ref = engine.actor(actor, "t")
        for number in numbers:
            await ref.call(actor.add, number, key=f"k{number}")
        return place.crashed()


def test_with_interval_1_a_settled_turn_is_never_run_again(place: Place) -> None:
    async def scenario() -> None:
        left = await crash_after(place, Every, [1, 2, 3])
        TURNS.clear()
        assert await add_all(left, Every, [4]) == [10]
        assert TURNS == [4]

    run(scenario())


def test_after_a_crash_turns_since_the_snapshot_run_again_and_their_steps_do_not(place: Place) -> None:
    async def scenario() -> None:
        left = await crash_after(place, Third, [1, 2, 3, 4, 5])
        TURNS.clear()
        STEPS.clear()
        async with left.engine() as engine:
            ref = engine.actor(Third, "t")
            assert await ref.call(Third.add, 6) == 21
            assert await ref.call(Third.add, 5, key="k5") == 15
        assert TURNS == [4, 5, 6]
        assert STEPS == [6]

    run(scenario())


def test_a_failed_turn_is_not_run_again(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            ref = engine.actor(Third, "t")
            assert await ref.call(Third.add, 1) == 1
            with pytest.raises(Exception, match="bad luck"):
                await ref.call(Third.add, 13)
            assert await ref.call(Third.add, 2) == 3
            left = place.crashed()
        TURNS.clear()
        assert await add_all(left, Third, [4]) == [7]
        assert TURNS == [1, 2, 4]

    run(scenario())


def test_a_turn_that_answers_otherwise_when_run_again_parks_the_actor(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        left = await crash_after(place, Third, [1, 2])
        Third.bonus = 100
        async with left.engine() as engine:
            ref = engine.actor(Third, "t")
            with pytest.raises(ReplayError) as caught:
                await ref.call(Third.add, 3, key="k3")
            assert "the reply SUCCEEDED 1" in str(caught.value)
            assert "the reply SUCCEEDED 101" in str(caught.value)
            with pytest.raises(ParkedError):
                await ref.call(Third.add, 4)
            assert await ref.call(Third.add, 1, key="k1") == 1
        assert STEPS == [1, 2]

    with caplog.at_level(logging.CRITICAL, "semel"):
        run(scenario())


def test_state_reply_and_key_are_durable_together(place: Place) -> None:
    """Whatever a kill leaves holds all three or none, at any moment."""

    async def scenario() -> None:
        copies: list[Place] = []
        async with place.engine() as engine:
            ref = engine.actor(Every, "t")
            for number in range(1, 4):
                await ref.call(Every.add, number, key=f"k{number}")
                copies.append(place.crashed())
        for count, left in enumerate(copies, 1):
            async with left.engine() as engine:
                ref = engine.actor(Every, "t")
                expected = [sum(range(1, number + 1)) for number in range(1, count + 1)]
                TURNS.clear()
                assert [
                    await ref.call(Every.add, number, key=f"k{number}") for number in range(1, count + 1)
                ] == expected
                assert TURNS == []

    run(scenario())


def test_state_reply_and_outcome_are_one_row(sqlite: Place) -> None:
    async def scenario() -> None:
        async with sqlite.engine() as engine:
            ref = engine.actor(Every, "t")
            await ref.call(Every.add, 1, key="k")
            reader = engine._services.reader
            stream = find(reader, await only_actor(engine), namespace="default", function=None, type=ACTOR)
            records = read_all(reader, stream)
            turn, ended = next((r.seq, r.entry) for r in records if isinstance(r.entry, TurnEnded))
            reply = next(
                r.seq for r in records if isinstance(r.entry, Settled) and r.entry.operation == ended.operation
            )
            rows = reader.rows(stream.number)
            assert any(row.seq <= turn and reply < row.seq + row.count for row in rows)
            assert ended.state is not None

    run(scenario())


async def only_actor(engine: Any) -> str:
    (stream,) = engine._services.reader.list(Filter(ACTOR))
    return str(stream.uid)


# Passivation.


def test_an_idle_actor_leaves_memory_terminates_and_loses_nothing(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine(passivate_ms=20, poll_ms=10) as engine:
            ref = engine.actor(Third, "t")
            assert await ref.call(Third.add, 1) == 1
            await until(lambda: engine.running_count == 0)
            assert LEFT == ["passivated"]
            assert await ref.call(Third.add, 2) == 3
            await until(lambda: engine.running_count == 0)
            await ref.cast(Third.add_later, 4)
            assert await ref.call(Third.add, 8) == 15
        assert TURNS == [1, 2, 8]
        assert LEFT[0] == "passivated"
        assert await add_all(place, Third, [16]) == [31]

    run(scenario())


def test_an_actor_whose_turn_waits_is_not_terminated(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine(passivate_ms=1, poll_ms=5, residents_max=0) as engine:
            ref = engine.actor(Every, "t")
            first = asyncio.create_task(ref.call(Every.add_after_a_wait, 1))
            second = asyncio.create_task(ref.call(Every.add_after_a_wait, 2))
            assert [await first, await second] == [1, 3]

    run(scenario())


def test_closing_terminates_actors_in_memory(place: Place) -> None:
    async def scenario() -> None:
        await add_all(place, Every, [1])
        assert LEFT == ["closed"]

    run(scenario())


def test_terminate_that_raises_disturbs_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    class Rude(Tally):
        actor_type = "durable-rude"
        facets: ClassVar[list[Facet]] = [DurabilityFacet()]

        def terminate(self, reason: str) -> None:
            raise OSError("no")

    async def scenario() -> None:
        assert await add_all(place, Rude, [1]) == [1]
        assert await add_all(place, Rude, [2]) == [3]

    with caplog.at_level(logging.ERROR, "semel"):
        run(scenario())
    assert "terminate('closed') raised" in caplog.text
    REGISTRY.actors.pop("durable-rude")


def test_many_more_actors_than_residents(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine(residents_max=3, poll_ms=10) as engine:
            for number in range(3):
                totals = await asyncio.gather(
                    *(engine.actor(Every, f"a{which}").call(Every.add, 1) for which in range(20))
                )
                assert totals == [number + 1] * 20
            await until(lambda: engine.running_count <= 3)

    run(scenario())


def test_messages_sent_while_a_turn_waits_wait_behind_it(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            Tally.gate = asyncio.Event()
            ref = engine.actor(Every, "t")
            held = asyncio.create_task(ref.call(Every.hold))
            await until(lambda: engine.running_count)
            for number in range(3):
                await ref.cast(Every.add_later, number)
            adding = asyncio.create_task(ref.call(Every.add, 10))
            await asyncio.sleep(0.01)
            assert not adding.done()
            Tally.gate.set()
            await held
            assert await adding == 13

    run(scenario())


def test_an_actor_that_is_not_registered_here_keeps_its_messages(place: Place) -> None:
    class Moved(Tally):
        actor_type = "durable-moved"
        facets: ClassVar[list[Facet]] = [DurabilityFacet()]

    async def scenario() -> None:
        async with place.engine() as engine:
            ref = engine.actor(Moved, "t")
            waiting = asyncio.create_task(ref.call(Moved.add_after_a_wait, 1, key="k"))
            await until(lambda: engine.running_count)
            await asyncio.sleep(0.01)
            waiting.cancel()
        REGISTRY.actors.pop("durable-moved")
        async with place.engine() as engine:
            await asyncio.sleep(0.08)
            assert engine.running_count == 0
        REGISTRY.add_actor("durable-moved", Moved)
        async with place.engine() as engine:
            assert await engine.actor(Moved, "t").call(Moved.add_after_a_wait, 1, key="k") == 1

    run(scenario())
    REGISTRY.actors.pop("durable-moved")
