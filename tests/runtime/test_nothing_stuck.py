"""What was accepted ends, or says why not: no execution is held with nothing to run it, no body runs for nothing."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

import semel
from semel import Context, DurabilityFacet, Engine, GenServer, Limits, Retry, call, durable_function
from semel.errors import ExecutionError, StepError, UnavailableError, ValidationError
from semel.store.base import ACTOR, Filter
from semel.store.sqlite import SqliteStore
from tests.runtime.places import Place, run, until

CHARGED: list[int] = []


class OwnBaseError(BaseException):
    """As test frameworks and other async libraries have them."""


@durable_function(name="stuck-raises")
async def raises(ctx: Context, kind: str) -> None:
    await ctx.wait(ms=1)
    raise GeneratorExit("mine") if kind == "GeneratorExit" else OwnBaseError("mine")


@pytest.mark.parametrize("kind", ["OwnBaseError", "GeneratorExit"])
def test_a_body_that_raises_something_else_than_an_exception_has_failed(place: Place, kind: str) -> None:
    async def scenario() -> None:
        async with place.engine(drain_ms=100) as engine:
            with pytest.raises(ExecutionError, match="mine") as caught:
                await engine.run(raises, kind, key="k")
            assert caught.value.error_type == kind

    run(scenario())


@semel.value("stuck-positive")
class Positive(msgspec.Struct):
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError(f"found {self.number}, expected a positive number")


def take(positive: Positive) -> int:
    return positive.number


async def take_async(positive: Positive) -> int:
    return positive.number


@durable_function(name="stuck-unreadable")
async def gives_what_cannot_be_read_back(ctx: Context, step: str) -> str:
    await ctx.wait(ms=1)
    changed = Positive(1)
    changed.number = -1
    try:
        await ctx.step(take if step == "def" else take_async, changed, retry=Retry(attempts=1))
    except StepError as error:
        return error.error_type
    return "nothing raised"


@pytest.mark.parametrize("step", ["def", "async def"])
def test_arguments_that_cannot_be_read_back_fail_the_step(place: Place, step: str) -> None:
    async def scenario() -> None:
        async with place.engine(drain_ms=100) as engine:
            assert await engine.run(gives_what_cannot_be_read_back, step) == "SerializationError"

    run(scenario())


async def charge(size: int) -> str:
    CHARGED.append(size)
    return "x" * size


@durable_function(name="stuck-charges")
async def charges(ctx: Context, size: int) -> int:
    return len(await ctx.step(charge, size))


class Charger(GenServer[list[int]]):
    actor_type = "stuck-charger"
    facets = [DurabilityFacet()]

    @call
    async def charge(self, ctx: Context, size: int) -> int:
        self.state.append(len(await ctx.step(charge, size)))
        return self.state[-1]


@pytest.mark.parametrize("kind", ["function", "actor"])
def test_a_step_that_has_ended_is_not_run_again_because_the_disk_is_full(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        CHARGED.clear()
        store = SqliteStore.open(tmp_path / "x.db")
        async with Engine(store, limits=Limits(poll_ms=10)) as engine:
            database = store._database
            (pages,) = database.execute("pragma page_count").fetchall()[0]
            database.execute(f"pragma max_page_count = {pages}").fetchall()
            called = engine.actor(Charger, "c").call(Charger.charge, 100_000, key="k")
            ran = engine.run(charges, 100_000, key="k")
            waiting = asyncio.create_task(ran if kind == "function" else called)
            (called if kind == "function" else ran).close()
            await until(lambda: CHARGED)
            await asyncio.sleep(0.2)
            assert not waiting.done()
            database.execute("pragma max_page_count = 1000000").fetchall()
            assert await waiting == 100_000
            assert len(CHARGED) == 1

    run(scenario())


class Third(GenServer[list[int]]):
    actor_type = "stuck-third"
    facets = [DurabilityFacet(checkpoint_interval=3)]

    @call
    async def add(self, ctx: Context, by: int) -> int:
        self.state.append(by)
        return sum(self.state)


def test_turns_are_counted_from_the_snapshot_also_over_a_crash(place: Place) -> None:
    async def scenario() -> None:
        left = place
        for number in range(6):
            async with left.engine() as engine:
                await engine.actor(Third, "t").call(Third.add, number)
                (activation,) = (run for worker in engine._workers for run in worker.running.values())
                mailbox: Any = activation._mailbox  # type: ignore[union-attr]
                assert len(mailbox.turns()) < 3
                left = left.crashed()

    run(scenario())


GATE: list[asyncio.Event] = []


async def pass_the_gate() -> int:
    await GATE[-1].wait()
    return 1


@durable_function(name="stuck-gated")
async def gated(ctx: Context) -> int:
    return await ctx.step(pass_the_gate)


@durable_function(name="stuck-short")
async def short(ctx: Context, value: int) -> int:
    return value


class Gated(GenServer[list[int]]):
    actor_type = "stuck-gated"
    facets = [DurabilityFacet()]

    @call
    async def gated(self, ctx: Context) -> int:
        return await ctx.step(pass_the_gate)


@pytest.mark.parametrize("kind", ["function", "actor"])
def test_a_duplicate_that_joins_in_the_commit_of_the_outcome_hears_it(sqlite: Place, kind: str) -> None:
    async def scenario() -> None:
        GATE.append(asyncio.Event())
        async with sqlite.engine(poll_ms=60_000, drain_ms=100) as engine:

            def ask() -> asyncio.Task[int]:
                ref = engine.actor(Gated, "g")
                return asyncio.create_task(
                    engine.run(gated, key="k") if kind == "function" else ref.call(Gated.gated, key="k")
                )

            first = ask()
            await asyncio.sleep(0.05)
            others = [asyncio.create_task(engine.start(short, number)) for number in range(3)]
            for _ in range(3):
                await asyncio.sleep(0)  # these are with the disk now; what comes next goes into one commit
            second = ask()
            await asyncio.sleep(0)
            GATE[-1].set()
            async with asyncio.timeout(2):
                assert list(await asyncio.gather(first, second)) == [1, 1]
            await asyncio.gather(*others)

    run(scenario())


def test_an_outcome_is_heard_where_commits_run_inline(tmp_path: Path) -> None:
    async def scenario() -> None:
        limits = Limits(poll_ms=60_000, drain_ms=100)
        async with Engine(f"sqlite:///{tmp_path}/x.db", limits=limits, commit="inline") as engine, asyncio.timeout(2):
            assert await engine.run(short, 1) == 1
            assert await engine.actor(Third, "t").call(Third.add, 1) == 1

    run(scenario())


async def ask_all_the_time(ref: Any, asked: list[asyncio.Task[int]]) -> None:
    while len(asked) < 2_000:
        asked.append(asyncio.create_task(ref.call(Third.add, 1)))
        await asyncio.sleep(0)


def test_who_asks_while_the_engine_closes_hears_of_it(sqlite: Place) -> None:
    async def scenario() -> None:
        for _ in range(3):
            engine = sqlite.engine(drain_ms=20)
            await engine.open()
            asked: list[asyncio.Task[int]] = []
            asking = asyncio.create_task(ask_all_the_time(engine.actor(Third, "t"), asked))
            await asyncio.sleep(0.005)
            await engine.close()
            asking.cancel()
            _, waiting = await asyncio.wait(asked, timeout=0.5)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            assert len(waiting) == 0

    run(scenario())


ON_DISK: list[bool] = []


class Effective(GenServer[list[str]]):
    actor_type = "stuck-effective"
    facets = [DurabilityFacet()]
    engine: ClassVar[Engine]

    @call
    async def act(self, ctx: Context, tag: str) -> int:
        await ctx.step(Effective.effect, tag)
        self.state.append(tag)
        return len(self.state)

    @staticmethod
    async def effect(tag: str) -> None:
        reader = Effective.engine._services.reader
        (stream,) = reader.list(Filter(ACTOR))
        ON_DISK.append(any(tag.encode() in row.body for row in reader.rows(stream.number)))


def test_a_step_of_a_turn_begins_when_its_message_is_on_disk(place: Place) -> None:
    """R4, also where an idle actor runs its turn ahead of the commit that the message is in."""

    async def scenario() -> None:
        ON_DISK.clear()
        async with place.engine() as engine:
            Effective.engine = engine
            ref = engine.actor(Effective, "t")
            for number in range(1, 5):
                assert await ref.call(Effective.act, f"tag-{number}") == number
            many = [ref.call(Effective.act, f"many-{number}") for number in range(5)]
            assert await asyncio.gather(*many) == [5, 6, 7, 8, 9]
        assert ON_DISK == [True] * 9

    run(scenario())


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_an_engine_that_cannot_open_leaves_no_thread_and_no_file_open(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "x.db-socket").mkdir()
        threads, files = threading.active_count(), open_files()
        for _ in range(3):
            with pytest.raises(UnavailableError, match="socket"):
                await Engine(f"sqlite:///{tmp_path}/x.db").open()
        assert threading.active_count() == threads
        assert open_files() == files

    run(scenario())


@pytest.mark.parametrize(
    "limit", ["payload_bytes_max", "running_max", "step_threads_max", "body_threads_max", "lease_ms"]
)
@pytest.mark.parametrize("value", [0, -1, True, 1.5])
def test_a_limit_that_nothing_can_run_under_is_refused(limit: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=limit):
        Limits(**{limit: value})


@semel.durable_function(name="stuck-exits")
async def exits(ctx: Context, where: str) -> int:
    if where == "body":
        sys.exit(3)
    return await ctx.step(leaves, where, retry=Retry(attempts=1))


async def leaves(where: str) -> int:
    if where == "step":
        sys.exit(3)
    raise GeneratorExit


@pytest.mark.parametrize("where", ["body", "step", "generator"])
def test_an_exit_in_user_code_is_its_failure_and_never_the_host_s(where: str) -> None:
    async def scenario() -> None:
        async with Engine("memory://") as engine:
            with pytest.raises(ExecutionError) as caught:
                await engine.run(exits, where, key="k")
            expected = {"body": "SystemExit", "step": "StepError", "generator": "StepError"}
            assert caught.value.error_type == expected[where]

    run(scenario())


def test_closing_goes_on_when_whoever_waits_for_it_stops_waiting(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = f"sqlite:///{tmp_path}/x.db"
        engine = Engine(path, limits=Limits(drain_ms=300))
        await engine.open()
        held = asyncio.Event()
        started = await engine.start(waits_for_ever, key="k")
        assert started.name == "k"
        await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.close(), 0.05)
        await engine.close()
        held.set()
        async with Engine(path):
            pass

    run(scenario())


@semel.durable_function(name="stuck-waits")
async def waits_for_ever(ctx: Context) -> None:
    await ctx.step(never)


async def never() -> None:
    await asyncio.Event().wait()
