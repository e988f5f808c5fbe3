"""World itself: it is the same each time, what it means to do happens, and it sees what is wrong."""

import asyncio
from collections import Counter

import pytest

import semel
from semel.testing import Arrival, Close, Crash, Jump, Takeover, VirtualLoop, effect, explore, run_once
from semel.testing.virtual_loop import DeadlockError, SpinningError
from tests.simulation.corpus import SHAPES

FIRED = {
    "crash before",
    "crash after",
    "close",
    "message",
    "outside message",
    "duplicate",
    "stop",
    "outside stop",
    "pause",
    "outside pause",
    "delete",
    "outside delete",
    "theft",
    "second engine",
    "jump",
}


def test_every_kind_of_fault_happens() -> None:
    fired: Counter[str] = Counter()
    refused = 0
    for name in ("wait", "beside, every third"):
        report = explore(SHAPES[name], kinds=("crash", "close", "arrival", "takeover", "jump"))
        fired.update(report.fired)
        refused += report.refused
        assert not report.found
    assert set(fired) == FIRED
    assert refused > 10


@pytest.mark.parametrize("name", ["retry", "sync", "beside, every third", "many, 2 workers"])
def test_the_same_plan_and_seed_write_the_same_bytes(name: str) -> None:
    plan = ((Takeover(3, "after", "second engine"), Crash(4, "after")), (Jump(1, 30_000), Close(2)))
    runs = [run_once(SHAPES[name], plan=plan, seed=seed) for seed in (7, 7, 8)]
    assert runs[0].digest == runs[1].digest != runs[2].digest
    assert runs[0].writes == runs[1].writes
    assert runs[0].lives == 3


def test_a_crash_before_a_write_leaves_nothing_of_it_and_one_after_leaves_it() -> None:
    writes = [run_once(SHAPES["sequential"], plan=((Crash(3, moment),),)).writes for moment in ("before", "after")]
    assert writes[0][0] == writes[1][0] == 3
    assert writes[0][1] == writes[1][1] + 1


def test_a_dead_process_does_nothing_more() -> None:
    cut = run_once(SHAPES["sequential"], plan=((Crash(4, "after"),),))
    assert cut.effects == run_once(SHAPES["sequential"]).effects
    assert cut.outcome == "returned 12"


def test_a_message_from_outside_takes_effect() -> None:
    run = run_once(SHAPES["calls, every turn"], plan=((Arrival(3, "after", "outside message"),),))
    assert run.fired
    assert not run.violations


@semel.durable_function(name="sim.unstable")
async def unstable(ctx: semel.Context) -> int:
    return await ctx.step(count_up)


async def count_up() -> int:
    return effect("count")


def test_an_outcome_that_depends_on_a_crash_is_found() -> None:
    async def scenario(client: object) -> int:
        return await client.run(unstable, key="k")  # type: ignore[attr-defined]

    report = explore(scenario, kinds=("crash",))
    assert report.found
    assert {violation.rule for found in report.found for violation in found.violations} == {"outcome"}
    assert "plan ((Crash(" in str(report.found[0])


@semel.durable_function(name="sim.diverges")
async def diverges(ctx: semel.Context) -> int:
    if ctx.is_replaying:
        await ctx.wait(ms=1, name="only on replay")
    await ctx.step(count_up)
    return await ctx.step(count_up) * 0


def test_a_body_that_branches_on_replay_is_found() -> None:
    async def scenario(client: object) -> int:
        return await client.run(diverges, key="k")  # type: ignore[attr-defined]

    report = explore(scenario, kinds=("crash",))
    assert any("parked" in violation.message for found in report.found for violation in found.violations)


def test_time_in_a_virtual_loop_costs_nothing() -> None:
    loop = VirtualLoop(start_s=5)

    async def sleep() -> float:
        await asyncio.sleep(1_000_000)
        return loop.time()

    assert loop.run_until_complete(sleep()) == 1_000_005
    loop.close()


def test_a_virtual_loop_says_that_nothing_will_ever_happen() -> None:
    loop = VirtualLoop()
    waiting = loop.create_future()
    with pytest.raises(DeadlockError):
        loop.run_until_complete(waiting)
    loop.close()


def test_a_virtual_loop_says_that_it_spins() -> None:
    loop = VirtualLoop(rounds_max=1_000)

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(SpinningError):
        loop.run_until_complete(spin())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop._rounds_left = 10
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_an_effect_outside_a_world_is_nothing() -> None:
    assert effect("charge") == -1
