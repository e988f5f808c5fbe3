"""semel.sync.Engine: the same engine, blocking, from any thread, beside a running loop, and under Ctrl-C."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

import semel
from semel import Context, DurabilityFacet, Facet, GenServer, Limits, SyncContext, call, cast, durable_function, info
from semel.errors import (
    ActorError,
    ExecutionError,
    ExecutionStoppedError,
    IdempotencyConflictError,
    NotFoundError,
    UnavailableError,
    ValidationError,
    WrongStatusError,
)
from tests.runtime.child_engine import waits
from tests.tidy.tree import ROOT

CALLS: list[int] = []


async def give(value: int) -> int:
    CALLS.append(value)
    return value


@durable_function(name="sync-add")
async def add(ctx: Context, left: int, right: int) -> int:
    await ctx.wait(ms=5)
    return await ctx.step(give, left + right)


@durable_function(name="sync-plain")
def plain(ctx: SyncContext, value: int) -> int:
    if value < 0:
        raise ValueError("negative")
    return ctx.step(give, value)


@durable_function(name="sync-long")
async def long(ctx: Context) -> str:
    await ctx.wait(hours=1)
    return "over"


class Till(GenServer[list[int]]):
    actor_type = "sync-till"
    facets: ClassVar[list[Facet]] = [DurabilityFacet()]

    @call
    async def pay(self, ctx: Context, amount: int) -> int:
        self.state.append(amount)
        if amount == 13:
            raise ValueError("bad luck")
        return sum(self.state)

    @cast
    async def note(self, ctx: Context, amount: int) -> None:
        self.state.append(amount)

    @info
    async def anything(self, ctx: Context, message: object) -> None:
        self.state.append(len(str(message)))


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    CALLS.clear()
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/x.db"


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/x.db"


def test_functions_run_start_and_join_by_key(url: str) -> None:
    with semel.sync.Engine(url) as engine:
        assert engine.run(add, 1, 2, key="k") == 3
        assert engine.run(plain, 4) == 4
        execution = engine.start(add, 1, 2, key="k")
        assert (execution.name, execution.function, execution.result()) == ("k", "sync-add", 3)
        assert repr(execution).startswith("<Execution sync-add 'k'")
        with pytest.raises(IdempotencyConflictError):
            engine.run(add, 2, 2, key="k")
        with pytest.raises(ExecutionError, match="negative"):
            engine.run(plain, -1)
    assert CALLS == [3, 4]


def test_actors_answer(url: str) -> None:
    with semel.sync.Engine(url) as engine:
        ref = engine.actor(Till, "t")
        assert ref.call(Till.pay, 1, key="k") == 1
        assert ref.call(Till.pay, 1, key="k") == 1
        ref.cast(Till.note, 10)
        ref.info("four")
        assert ref.call(Till.pay, 100) == 115
        with pytest.raises(ActorError, match="bad luck"):
            ref.call(Till.pay, 13)
        assert (ref.address.name, ref.address.key) == ("sync-till", "t")


def test_executions_are_listed_found_and_stopped(url: str) -> None:
    with semel.sync.Engine(url) as engine:
        execution = engine.start(long, key="k")
        with pytest.raises(TimeoutError):
            execution.result(timeout_ms=20)
        assert [item.name for item in engine.executions.list(function="sync-long").items] == ["k"]
        assert engine.executions.get("k", function="sync-long").status == "RUNNING"
        assert engine.executions.stop(execution.id, reason="enough").status == "STOPPED"
        with pytest.raises(ExecutionStoppedError, match="enough"):
            execution.result()
        assert engine.executions.history(execution.id)[-1].type == "ExecutionStopped"
        with pytest.raises(WrongStatusError, match="it is STOPPED"):
            engine.executions.resume(execution.id)
        with pytest.raises(NotFoundError):
            engine.executions.get("nothing")


def test_it_takes_what_the_async_engine_takes() -> None:
    assert str(inspect.signature(semel.sync.Engine)) == str(inspect.signature(semel.Engine)).replace(
        "CommitPlace", "engine.CommitPlace"
    )
    for name in ("list", "get", "history", "stop", "resume"):
        engine = semel.sync.Engine("memory://")
        with engine:
            method = getattr(engine.executions, name)
        assert inspect.signature(method).parameters.keys() == (
            inspect.signature(getattr(semel.Executions, name)).parameters.keys() - {"self"}
        )
        assert method.__doc__ == getattr(semel.Executions, name).__doc__


def test_what_it_wrote_is_there_in_the_next_engine(file_url: str) -> None:
    with semel.sync.Engine(file_url) as engine:
        assert engine.run(add, 20, 1, key="k") == 21
        assert engine.actor(Till, "t").call(Till.pay, 5) == 5
        with pytest.raises(UnavailableError, match=str(os.getpid())):
            semel.sync.Engine(file_url).open()
    CALLS.clear()
    with semel.sync.Engine(file_url) as engine:
        assert engine.run(add, 20, 1, key="k") == 21
        assert engine.actor(Till, "t").call(Till.pay, 5) == 10
    assert CALLS == []


def test_many_threads_call_at_once(url: str) -> None:
    def work(engine: semel.sync.Engine, number: int) -> tuple[int, int]:
        value = engine.run(add, number % 5, 0, key=f"k{number % 5}")
        return value, engine.actor(Till, "t").call(Till.pay, 1)

    with semel.sync.Engine(url) as engine, ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda number: work(engine, number), range(40)))
    assert [value for value, _ in found] == [number % 5 for number in range(40)]
    assert sorted(total for _, total in found) == list(range(1, 41))
    assert sorted(CALLS) == list(range(5))


def test_it_works_beside_a_running_loop(url: str) -> None:
    async def scenario() -> int:
        with semel.sync.Engine(url) as engine:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0.001)

            ticking = asyncio.create_task(tick())
            assert await asyncio.to_thread(engine.run, plain, 3) == 3
            ticking.cancel()
            assert engine.run(plain, 4) == 4
            return ticks

    assert asyncio.run(scenario()) > 0


def test_a_def_step_may_use_the_engine_and_the_loop_itself_may_not(url: str) -> None:
    engine = semel.sync.Engine(url)

    def inner(value: int) -> int:
        return engine.run(plain, value)

    async def on_the_loop(value: int) -> str:
        try:
            return str(engine.run(plain, value))
        except ValidationError as error:
            return str(error)

    @durable_function(name="sync-nested")
    async def nested(ctx: Context) -> list[Any]:
        return [await ctx.step(inner, 3), await ctx.step(on_the_loop, 3)]

    with engine:
        value, message = engine.run(nested)
    assert value == 3
    assert "make the step that calls it a plain `def`" in message


def test_a_closed_or_new_engine_refuses_every_call(url: str) -> None:
    engine = semel.sync.Engine(url)
    with pytest.raises(UnavailableError, match="it is new"):
        engine.run(plain, 1)
    with pytest.raises(UnavailableError, match="it is new"):
        _ = engine.executions
    with engine:
        execution = engine.start(plain, 1)
        ref = engine.actor(Till, "t")
        assert execution.result() == 1
    engine.close()
    for use in (
        lambda: engine.run(plain, 1),
        lambda: engine.start(plain, 1),
        lambda: ref.call(Till.pay, 1),
        lambda: engine.actor(Till, "t"),
        lambda: engine.executions.list(),
        lambda: execution.result(),
        lambda: engine.open(),
    ):
        with pytest.raises(UnavailableError, match="closed") as caught:
            use()
        assert caught.value.definite


def test_closing_wakes_who_waits_in_other_threads(url: str) -> None:
    engine = semel.sync.Engine(url)
    found: list[BaseException] = []
    waiting = threading.Event()

    def wait() -> None:
        execution = engine.start(long, key="k")
        waiting.set()
        try:
            execution.result()
        except BaseException as error:
            found.append(error)

    with engine:
        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(5)
    thread.join(5)
    assert [type(error) for error in found] == [UnavailableError]


def test_no_thread_is_left_behind(url: str, tmp_path: Path) -> None:
    with semel.sync.Engine(url) as engine:
        engine.run(plain, 1)
    with pytest.raises(UnavailableError):
        semel.sync.Engine(f"sqlite:///{tmp_path}/none/x.db").open()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("semel-")] == []


def test_limits_reach_the_engine() -> None:
    engine = semel.sync.Engine("memory://", namespace="shop", limits=Limits(page_max=1))
    with engine, pytest.raises(semel.errors.LimitExceededError):
        engine.executions.list(limit=2)
    assert (engine.namespace, engine.limits.page_max) == ("shop", 1)


# Ctrl-C.


def test_an_interrupt_reaches_a_call_that_waits_and_the_engine_stays_usable(file_url: str) -> None:
    with semel.sync.Engine(file_url) as engine:
        threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            engine.run(long, key="k")
        assert engine.executions.get("k", function="sync-long").status == "RUNNING"
        assert engine.run(plain, 2) == 2


def test_a_program_interrupted_while_it_waits_closes_its_engine(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "tests.runtime.child_engine", str(tmp_path / "x.db"), "sync"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "begun"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=15)
    assert rest.split("\n") == ["interrupted", "RUNNING", "closed True", ""]
    assert process.returncode == 0
    with semel.sync.Engine(f"sqlite:///{tmp_path}/x.db") as engine:
        assert engine.executions.get("k", function=waits.__semel_function__.name).status == "RUNNING"  # type: ignore[attr-defined]


@durable_function(name="sync-ask")
def ask(ctx: SyncContext, ids: str) -> Any:
    callback = ctx.create_callback(heartbeat_ms=60_000)
    ctx.step(Path(ids).write_text, callback.id, name="leave")
    return callback.result()


def test_callbacks_are_settled_by_blocking_calls(url: str, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="it is new"):
        _ = semel.sync.Engine(url).callbacks
    with semel.sync.Engine(url) as engine:
        for number, action in enumerate(("succeed", "fail")):
            left = tmp_path / f"id-{number}"
            execution = engine.start(ask, str(left), key=f"k{number}")
            while not left.exists() or not left.read_text():
                threading.Event().wait(0.005)
            engine.callbacks.heartbeat(left.read_text())
            if action == "succeed":
                engine.callbacks.succeed(left.read_text(), {"by": "ann"})
                assert execution.result() == {"by": "ann"}
            else:
                engine.callbacks.fail(left.read_text(), "no", error_type="Refused")
                with pytest.raises(ExecutionError, match="Refused: no"):
                    execution.result()
        with pytest.raises(ValidationError, match="callback id"):
            engine.callbacks.succeed("garbage")
