"""Values of several chunks, from the first run to every way in which they are read again."""

from __future__ import annotations

import asyncio
from typing import Any

import apsw
import pytest

from semel import Context, DurabilityFacet, GenServer, SyncContext, call, durable_function
from semel.errors import JournalCorruptError, ParkedError, ReplayError
from semel.journal import chunks
from tests.runtime.places import Place, redefine, run, until_it

SIZE = 3 * chunks.CHUNK_BYTES


def text(letter: str) -> str:
    return letter * SIZE


async def make(letter: str) -> str:
    return text(letter)


async def child(ctx: Context, letter: str) -> str:
    return await ctx.step(make, letter)


@durable_function(name="large-async")
async def in_async(ctx: Context, given: str, wait_ms: int) -> dict[str, str]:
    found = {"given": given, "step": await ctx.step(make, "s"), "child": await ctx.run_in_child_context(child, "c")}
    await ctx.wait(ms=wait_ms)
    return found


def plain_child(ctx: SyncContext, letter: str) -> str:
    return ctx.step(make, letter)


@durable_function(name="large-def")
def in_def(ctx: SyncContext, given: str, wait_ms: int) -> dict[str, str]:
    found = {"given": given, "step": ctx.step(make, "s"), "child": ctx.run_in_child_context(plain_child, "c")}
    ctx.wait(ms=wait_ms)
    return found


EXPECTED = {"given": text("g"), "step": text("s"), "child": text("c")}


@pytest.mark.parametrize("function", [in_async, in_def])
@pytest.mark.parametrize("residents_max", [0, 1000])
def test_large_values_are_the_same_live_and_replayed(place: Place, function: Any, residents_max: int) -> None:
    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(function, text("g"), 5, key="k") == EXPECTED
            assert await engine.run(function, text("g"), 5, key="k") == EXPECTED
        async with place.engine() as engine:
            assert await engine.run(function, text("g"), 5, key="k") == EXPECTED
            handle = await engine.start(function, text("g"), 5, key="k")
            assert await handle.result() == EXPECTED
            assert (await engine.executions.get(handle.id)).result == EXPECTED
            results = [event.result for event in await engine.executions.history(handle.id)]
            assert [text("g"), 5] in results
            assert text("c") in results

    run(scenario())


def test_an_execution_goes_on_over_large_values_in_the_next_process(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            handle = await engine.start(in_async, text("g"), 300, key="k")

            async def waits() -> bool:
                return any(event.type == "WaitStarted" for event in await engine.executions.history(handle.id))

            await until_it(waits)
        async with place.engine() as engine:
            assert await engine.run(in_async, text("g"), 300, key="k") == EXPECTED

    run(scenario())


class Pages(GenServer[list[str]]):
    """Keeps large things."""

    facets = [DurabilityFacet(checkpoint_interval=2)]

    def init(self) -> list[str]:
        return []

    @call
    async def add(self, ctx: Context, page: str) -> str:
        self.state = [*self.state[-1:], page]
        return page

    @call
    async def all(self, ctx: Context) -> list[str]:
        return self.state


@pytest.mark.parametrize("passivate_ms", [0, 60_000])
def test_an_actor_has_large_messages_replies_and_states(place: Place, passivate_ms: int) -> None:
    async def scenario() -> None:
        for life in range(3):
            async with place.engine(passivate_ms=passivate_ms) as engine:
                pages = engine.actor(Pages, "p")
                for letter in "abc":
                    key = f"{life}{letter}"
                    assert await pages.call(Pages.add, text(letter), key=key) == text(letter)
                    assert await pages.call(Pages.add, text(letter), key=key) == text(letter)
                assert await pages.call(Pages.all) == [text("b"), text("c")]
            # A crash here re-runs the turns after the snapshot, whose replies are compared.
            async with place.crashed().engine() as engine:
                assert await engine.actor(Pages, "p").call(Pages.all) == [text("b"), text("c")]

    run(scenario())


def test_an_other_large_reply_on_replay_is_a_divergence(place: Place) -> None:
    class Fickle(GenServer[int]):
        facets = [DurabilityFacet(checkpoint_interval=10)]
        letter = "a"

        def init(self) -> int:
            return 0

        @call
        async def say(self, ctx: Context) -> str:
            return text(Fickle.letter)

    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.actor(Fickle, "f").call(Fickle.say) == text("a")
            crashed = place.crashed()
        Fickle.letter = "b"
        async with crashed.engine() as engine:
            with pytest.raises(ReplayError, match=r"the reply SUCCEEDED 'aaa.*the reply SUCCEEDED 'bbb") as caught:
                await engine.actor(Fickle, "f").call(Fickle.say)
            assert len(str(caught.value)) < 5000  # it is recorded as the reason

    run(scenario())


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("delete from chunk where stream = 1", "it is missing"),
        ("update chunk set data = x'00'", "its digest is"),
    ],
)
def test_a_chunk_that_is_gone_or_damaged_parks_the_execution_and_harms_nobody_else(
    sqlite: Place, statement: str, said: str
) -> None:
    async def waiting(ctx: Context) -> str:
        found = await ctx.step(make, "s")
        await ctx.wait(ms=50)
        try:
            return found[:1] + (await ctx.step(make, "t"))[:1]
        except Exception:
            return "swallowed"

    async def scenario() -> None:
        function = redefine("large-waiting", waiting)
        async with sqlite.engine() as engine:
            handle = await engine.start(function, key="k")

            async def suspended() -> bool:
                return any(event.type == "WaitStarted" for event in await engine.executions.history(handle.id))

            await until_it(suspended)
        database = apsw.Connection(str(sqlite.path))
        database.execute(statement)
        database.close()
        async with sqlite.engine() as engine:
            with pytest.raises(JournalCorruptError, match=rf"chunk 1 of 4 .*{said}"):
                await engine.run(function, key="k")
            with pytest.raises(ParkedError, match=rf"JournalCorruptError: chunk 1 of 4 .*{said}"):
                await engine.run(function, key="k")
            assert await engine.run(in_async, "g", 1, key="other") == EXPECTED | {"given": "g"}

    run(scenario())


def test_what_is_no_longer_over_the_size_of_a_row_fits_any_batch(place: Place) -> None:
    """Fifteen values of 5 MB asked for at once are one append, of a few kilobytes."""

    async def wide(ctx: Context) -> int:
        made = await asyncio.gather(*(ctx.step(five_megabytes, number) for number in range(15)))
        return sum(map(len, made))

    async def scenario() -> None:
        function = redefine("large-wide", wide)
        async with place.engine() as engine:
            assert await engine.run(function) == 75_000_000

    run(scenario())


async def five_megabytes(number: int) -> str:
    return f"{number:05}" * 1_000_000
