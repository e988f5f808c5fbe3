"""The engine as a whole: opening, closing, owning a file, a full disk, a disk that fails."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

import semel
from semel import Context, Engine, Limits, Retry, durable_function
from semel.errors import StoreError, StoreFullError, UnavailableError, ValidationError
from semel.store.sqlite import SqliteStore
from tests.runtime.child_engine import at_most_once
from tests.runtime.places import Place, run, until, until_it
from tests.tidy.tree import ROOT

BEGUN: list[Any] = []


async def give(value: Any) -> Any:
    BEGUN.append(value)
    return value


@durable_function(name="engine-steps")
async def steps(ctx: Context, count: int) -> int:
    total = 0
    for value in range(count):
        total += await ctx.step(give, value)
        await ctx.wait(ms=2)
    return total


@durable_function(name="engine-grows")
async def grows(ctx: Context, size: int) -> int:
    text = await ctx.step(fill, size)
    return len(text)


async def fill(size: int) -> str:
    BEGUN.append(size)
    return "x" * size


@pytest.fixture(autouse=True)
def _fresh() -> None:
    BEGUN.clear()


@contextmanager
def child(path: Path, mode: str) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "tests.runtime.child_engine", str(path), mode]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# One engine a file.


def test_a_second_engine_on_a_file_is_refused_and_names_the_first(sqlite: Place) -> None:
    async def scenario() -> None:
        async with sqlite.engine() as engine:
            for _ in range(2):
                with pytest.raises(UnavailableError, match=rf"\b{os.getpid()}\b") as caught:
                    async with sqlite.engine():
                        pass
                assert caught.value.definite
            assert await engine.run(steps, 2, key="k") == 1
        async with sqlite.engine() as engine:
            assert await engine.run(steps, 2, key="k") == 1

    run(scenario())


def test_an_engine_of_another_process_is_named_and_its_death_frees_the_file(sqlite: Place) -> None:
    async def scenario() -> None:
        with child(sqlite.path, "open") as process:
            assert heard(process) == "open"
            with pytest.raises(UnavailableError, match=rf"\b{process.pid}\b"):
                await sqlite.engine().open()
            process.send_signal(signal.SIGKILL)
            process.wait()
        async with sqlite.engine() as engine:
            assert await engine.run(steps, 1) == 0

    run(scenario())


def test_a_killed_process_leaves_its_at_most_once_step_interrupted(sqlite: Place) -> None:
    async def scenario() -> None:
        with child(sqlite.path, "step") as process:
            assert [heard(process), heard(process)] == ["open", "begun"]
            process.send_signal(signal.SIGKILL)
            process.wait()
        async with sqlite.engine() as engine:
            assert await engine.run(at_most_once, key="k") == "interrupted"

    run(scenario())


@pytest.mark.parametrize(
    "url", ["", "sqlite", "sqlite://x.db", "sqlite:///", "postgres://h/db", "mem", "memory:///x", "SQLITE:///x.db"]
)
def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match=r"expected .sqlite:///relative\.db."):
        Engine(url)


def test_arguments_of_an_engine_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="workers"):
        Engine("memory://", workers=0)
    with pytest.raises(ValidationError, match="namespace"):
        Engine("memory://", namespace="")
    with pytest.raises(ValidationError, match=r"Limits.poll_ms"):
        Limits(poll_ms=-1)

    async def scenario() -> None:
        with pytest.raises(UnavailableError, match="expected a directory"):
            await Engine(f"sqlite:///{tmp_path}/none/x.db").open()

    run(scenario())
    assert list(tmp_path.iterdir()) == []


# Opening and closing.


def test_a_closed_or_new_engine_refuses_every_call_by_name(place: Place) -> None:
    async def scenario() -> None:
        engine = place.engine()
        with pytest.raises(UnavailableError, match="it is new") as caught:
            await engine.run(steps, 1)
        assert caught.value.definite
        async with engine:
            ref = engine.actor(Nobody, "n")
            await engine.run(steps, 1, key="k")
            with pytest.raises(UnavailableError, match="it is open"):
                await engine.open()
        await engine.close()
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: engine.run(steps, 1, key="k"),
            lambda: engine.start(steps, 1),
            lambda: engine.executions.list(),
            lambda: engine.executions.get("k", function="engine-steps"),
            lambda: engine.executions.history("k", function="engine-steps"),
            lambda: engine.executions.stop("k", function="engine-steps"),
            lambda: engine.executions.resume("k", function="engine-steps"),
            lambda: ref.call(Nobody.ask),
            lambda: engine.open(),
        ]
        for make in calls:
            with pytest.raises(UnavailableError, match="closed"):
                await make()
        with pytest.raises(UnavailableError, match="closed"):
            engine.actor(Nobody, "n")

    run(scenario())


class Nobody(semel.GenServer[dict[str, int]]):
    actor_type = "engine-nobody"

    @semel.call
    async def ask(self, ctx: Context) -> int:
        return 1


def test_closing_lets_step_bodies_end_and_the_next_engine_goes_on(place: Place) -> None:
    async def scenario() -> None:
        begun, ended = asyncio.Event(), []

        async def slow() -> str:
            begun.set()
            await asyncio.sleep(0.1)
            ended.append(1)
            return "slow"

        @durable_function
        async def closing(ctx: Context) -> list[str]:
            return [await ctx.step(slow), await ctx.step(str, 1)]

        async with place.engine() as engine:
            execution = await engine.start(closing, key="k")
            waiting = asyncio.create_task(execution.result())
            await asyncio.sleep(0)
            await begun.wait()
        assert ended == [1]
        with pytest.raises(UnavailableError, match="goes on in the next"):
            await waiting
        async with place.engine() as engine:
            assert await engine.run(closing, key="k") == ["slow", "1"]
        assert ended == [1]

    run(scenario())


def test_closing_does_not_wait_for_a_step_longer_than_the_drain(place: Place) -> None:
    async def scenario() -> None:
        may_end = threading.Event()

        def endless() -> str:
            may_end.wait(5)
            return "late"

        @durable_function
        async def drained(ctx: Context) -> str:
            return await ctx.step(endless)

        async with asyncio.timeout(3):
            async with place.engine(drain_ms=50) as engine:
                await engine.start(drained, key="k")
                await until(lambda: engine.running_count)
        may_end.set()
        async with place.engine() as engine:
            assert await engine.run(drained, key="k") == "late"

    run(scenario())


def test_a_crash_at_any_moment_loses_nothing_and_repeats_no_recorded_step(place: Place) -> None:
    async def scenario() -> None:
        copies: list[Place] = []
        async with place.engine() as engine:
            execution = await engine.start(steps, 6, key="k")
            while not copies or (await engine.executions.get(execution.id)).status == "RUNNING":
                copies.append(place.crashed())
                await asyncio.sleep(0.004)
            assert await execution.result() == 15
        for left in copies:
            async with left.engine() as engine:
                recorded = [
                    event.result
                    for event in await engine.executions.history(execution.id)
                    if event.type == "StepSucceeded"
                ]
                BEGUN.clear()
                assert await engine.run(steps, 6, key="k") == 15
                assert not set(BEGUN) & set(recorded)
                assert sorted({*recorded, *BEGUN}) == list(range(6))

    run(scenario())


def test_two_workers_share_the_work_and_none_of_it_is_done_twice(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine(workers=2, residents_max=2) as engine:
            totals = await asyncio.gather(*(engine.run(steps, 3, key=f"k{number}") for number in range(30)))
        assert totals == [3] * 30
        assert len(BEGUN) == 90

    run(scenario())


@pytest.mark.parametrize("limits", [{}, {"residents_max": 0}, {"running_max": 2}, {"claims_max": 1}], ids=str)
def test_nothing_that_is_due_waits_for_the_poll(place: Place, limits: dict[str, int]) -> None:
    async def scenario() -> None:
        async with place.engine(workers=1, namespace="default", **{"poll_ms": 60_000, **limits}) as engine:
            for number in range(3):
                totals = await asyncio.gather(*(engine.run(steps, 4, key=f"{number}-{key}") for key in range(15)))
                assert totals == [6] * 15

    run(scenario())


def test_an_engine_in_a_context_that_raises_closes(place: Place) -> None:
    async def scenario() -> None:
        async def broken() -> None:
            async with place.engine() as engine:
                await engine.start(steps, 5, key="k")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await broken()
        async with place.engine() as engine:
            assert await engine.run(steps, 5, key="k") == 10

    run(scenario())


# A full disk, and one that fails.


class Disk:
    """A store whose disk can be made full, or broken."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore.open(path)
        self.is_broken = False
        self._write = self.store.write
        self.store.write = self._try_to_write  # type: ignore[method-assign]

    def fill(self) -> None:
        database = self.store._database
        (pages,) = database.execute("pragma page_count").fetchall()[0]
        database.execute(f"pragma max_page_count = {pages}").fetchall()

    def make_space(self) -> None:
        self.store._database.execute("pragma max_page_count = 1000000").fetchall()

    def _try_to_write(self, spelled: Any) -> None:
        if self.is_broken:
            raise StoreError("disk I/O error: fsync failed")
        self._write(spelled)


def test_a_full_disk_refuses_writes_keeps_reads_and_ends_when_there_is_space(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = Disk(tmp_path / "x.db")
        async with Engine(disk.store, limits=Limits(poll_ms=50)) as engine:
            assert await engine.run(grows, 10, key="before") == 10
            disk.fill()

            async def start_many() -> None:
                for number in range(100):
                    await engine.start(steps, 0, key=f"refused-{number}" + "x" * 200)

            with pytest.raises(StoreFullError, match="space") as caught:
                await start_many()
            assert caught.value.definite
            assert await engine.run(grows, 10, key="before") == 10
            assert (await engine.executions.get("before", function="engine-grows")).result == 10
            disk.make_space()
            assert await engine.run(grows, 20, key="after") == 20
            accepted = [info.name for info in (await engine.executions.list(limit=500)).items]
        async with Engine(f"sqlite:///{tmp_path}/x.db") as engine:
            assert [info.name for info in (await engine.executions.list(limit=500)).items] == accepted

    run(scenario())


def test_an_execution_that_meets_a_full_disk_goes_on_when_there_is_space(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = Disk(tmp_path / "x.db")
        async with Engine(disk.store, limits=Limits(poll_ms=50)) as engine:
            disk.fill()
            waiting = asyncio.create_task(engine.run(grows, 100_000, key="k"))
            await until(lambda: BEGUN)
            await asyncio.sleep(0.15)
            assert not waiting.done()
            assert (await engine.executions.get("k", function="engine-grows")).status == "RUNNING"
            disk.make_space()
            assert await waiting == 100_000
            history = await engine.executions.history("k", function="engine-grows")
        assert [event.type for event in history if event.type.startswith("Step")] == ["StepStarted", "StepSucceeded"]

    run(scenario())


def test_an_actor_that_meets_a_full_disk_goes_on_when_there_is_space(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = Disk(tmp_path / "x.db")
        async with Engine(disk.store, limits=Limits(poll_ms=50)) as engine:
            ref = engine.actor(Hoarder, "h")
            assert await ref.call(Hoarder.hoard, 10, key="k0") == 10
            disk.fill()
            # Message and turn are one commit: neither took place, and the caller knows.
            with pytest.raises(StoreFullError) as caught:
                await ref.call(Hoarder.hoard, 100_000, key="k1")
            assert caught.value.definite
            disk.make_space()
            assert await ref.call(Hoarder.hoard, 100_000, key="k1") == 100_010
            assert await ref.call(Hoarder.hoard, 100_000, key="k1") == 100_010
            assert await ref.call(Hoarder.hoard, 1) == 100_011

    run(scenario())


class Hoarder(semel.GenServer[list[str]]):
    actor_type = "engine-hoarder"
    facets = [semel.DurabilityFacet()]

    @semel.call
    async def hoard(self, ctx: Context, size: int) -> int:
        self.state.append("x" * size)
        return sum(len(text) for text in self.state)


def test_a_disk_that_fails_fails_the_engine_and_every_call_raises(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = Disk(tmp_path / "x.db")
        engine = Engine(disk.store, limits=Limits(poll_ms=50))
        async with engine:
            assert await engine.run(grows, 10, key="before") == 10
            ref = engine.actor(Hoarder, "h")
            sleeping = await engine.start(sleeps, key="s")
            waiting = asyncio.create_task(sleeping.result())
            await asyncio.sleep(0.02)
            disk.is_broken = True
            with pytest.raises(StoreError, match="fsync failed"):
                await engine.run(grows, 10, key="failing")
            with pytest.raises(StoreError, match="fsync failed"):
                await waiting
            disk.is_broken = False
            for make in (
                lambda: engine.run(grows, 10, key="later"),
                lambda: engine.start(grows, 10, key="later"),
                lambda: ref.call(Hoarder.hoard, 1),
                lambda: engine.executions.list(),
            ):
                with pytest.raises(StoreError):
                    await make()
        async with Engine(f"sqlite:///{tmp_path}/x.db") as engine:
            names = {info.name for info in (await engine.executions.list()).items}
            assert names == {"before", "s"}

    run(scenario())


@durable_function(name="engine-sleeps")
async def sleeps(ctx: Context) -> None:
    await ctx.wait(hours=1)


def test_an_interrupt_of_the_program_closes_the_engine(tmp_path: Path) -> None:
    """Ctrl-C cancels the main task: the engine closes on the way out, and the file can be opened again."""

    async def scenario() -> None:
        async with Engine(f"sqlite:///{tmp_path}/x.db") as engine:
            await engine.start(steps, 3, key="k")
            threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            await engine.run(sleeps, key="s")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(scenario())

    async def after() -> None:
        async with Engine(f"sqlite:///{tmp_path}/x.db") as engine:
            assert await engine.run(steps, 3, key="k") == 3
            assert (await engine.executions.get("s", function="engine-sleeps")).status == "RUNNING"

    run(after())


def test_a_clean_close_leaves_no_threads_of_ours(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            await engine.run(grows, 5)

        async def none_left() -> bool:
            return not [thread for thread in threading.enumerate() if thread.name.startswith("semel-committer")]

        await until_it(none_left)

    run(scenario())


def test_a_damaged_file_is_refused_as_corrupt(sqlite: Place) -> None:
    async def scenario() -> None:
        async with sqlite.engine() as engine:
            await engine.run(steps, 2, key="k")
        database = apsw.Connection(str(sqlite.path))
        tables = [
            name for (name,) in database.execute("select name from sqlite_schema where type = 'table'").fetchall()
        ]
        table = next(name for name in tables if name in ("journal", "row", "record"))
        database.execute(f"update {table} set body = zeroblob(length(body))").fetchall()
        database.close()
        async with sqlite.engine() as engine:
            with pytest.raises(semel.errors.JournalCorruptError):
                await engine.run(steps, 2, key="k")

    run(scenario())


def test_a_retry_policy_is_checked() -> None:
    with pytest.raises(ValidationError, match=r"Retry.attempts: found 0"):
        Retry(attempts=0)
