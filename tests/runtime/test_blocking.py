"""What blocks in a body is reported where it stands; a loop that does not turn is warned about, and goes on."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import semel
from semel import Context, Engine, Limits, SyncContext, durable_function
from semel.runtime import blocking
from semel.testing import Client, explore, run_once
from tests.runtime.places import run

HERE = __file__
QUICK = Limits(block_warn_ms=100, poll_ms=200)
Log = pytest.LogCaptureFixture


def line_of(text: str) -> int:
    """Where a line of this file that ends with `text` stands."""
    lines = Path(HERE).read_text("utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(text))


@pytest.fixture
def reported() -> Iterator[list[blocking.Blocking]]:
    found: list[blocking.Blocking] = []
    stop = blocking.watch(found.append)
    yield found
    stop()


def outcome(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    async def scenario() -> Any:
        async with Engine("memory://", **options) as engine:
            return await engine.run(function, *arguments)

    return run(scenario())


def read_a_file() -> None:
    Path(HERE).read_bytes()  # blocks: file


def resolve() -> None:
    socket.getaddrinfo("127.0.0.1", 1)  # blocks: address


def run_a_program() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)  # blocks: program


def fetch() -> None:
    with pytest.raises(OSError):
        urllib.request.urlopen("http://127.0.0.1:1/")  # blocks: fetch


def list_a_folder() -> None:
    os.listdir(".")  # noqa: PTH208  # blocks: folder


def block(seconds: float) -> None:
    time.sleep(seconds)


BLOCKS = {
    "open": (read_a_file, "# blocks: file"),
    "socket.getaddrinfo": (resolve, "# blocks: address"),
    "subprocess.Popen": (run_a_program, "# blocks: program"),
    "urllib.Request": (fetch, "# blocks: fetch"),
    "os.listdir": (list_a_folder, "# blocks: folder"),
}


@durable_function(name="blocking.async")
async def in_async(ctx: Context, event: str) -> str:
    for _ in range(2):
        BLOCKS[event][0]()
    await ctx.wait(ms=1)
    return "done"


@durable_function(name="blocking.def")
def in_def(ctx: SyncContext, event: str) -> str:
    BLOCKS[event][0]()
    ctx.wait(ms=1)
    return "done"


@pytest.mark.parametrize("function", [in_async, in_def])
@pytest.mark.parametrize("event", BLOCKS)
def test_a_call_that_blocks_in_a_body_is_reported_once_at_its_line(
    event: str, function: Callable[..., Any], reported: list[blocking.Blocking]
) -> None:
    assert outcome(function, event, limits=Limits(residents_max=0)) == "done"
    found = [one for one in reported if one.event == event]
    assert found == [blocking.Blocking(event, HERE, line_of(BLOCKS[event][1]))]
    assert f"test_blocking.py:{found[0].line}: a body led to {event!r}" in str(found[0])
    assert "put it in a step: await ctx.step(...)" in str(found[0])


@pytest.mark.skipif(sys.version_info < (3, 13), reason="time.sleep is audited from 3.13 on")
def test_sleeping_in_a_body_is_reported(reported: list[blocking.Blocking]) -> None:
    @durable_function
    async def sleeps(ctx: Context) -> None:
        block(0)

    outcome(sleeps)
    assert [one.event for one in reported] == ["time.sleep"]


def test_steps_imports_and_logs_are_nobody_s_business(reported: list[blocking.Blocking], tmp_path: Path) -> None:
    (tmp_path / "imported_by_a_body.py").write_text("VALUE = 7\n")

    async def reads() -> int:
        return read_in_thread()

    @durable_function
    async def innocent(ctx: Context) -> int:
        import imported_by_a_body

        handler = logging.FileHandler(tmp_path / "log", delay=True)
        logging.getLogger("a body").addHandler(handler)
        logging.getLogger("a body").error("opened now")
        logging.getLogger("a body").removeHandler(handler)
        handler.close()
        sizes = [await ctx.step(reads), await ctx.step(read_in_thread)]
        return imported_by_a_body.VALUE if min(sizes) > 0 else 0

    sys.path.insert(0, str(tmp_path))
    try:
        assert outcome(innocent) == 7
    finally:
        sys.path.remove(str(tmp_path))
    assert reported == []


def read_in_thread() -> int:
    return len(Path(HERE).read_bytes())


@pytest.mark.parametrize(("dev", "variable", "is_said"), [(True, "", True), (None, "1", True), (None, "0", False)])
def test_an_engine_in_development_logs_it(
    dev: bool | None, variable: str, is_said: bool, monkeypatch: pytest.MonkeyPatch, caplog: Log
) -> None:
    monkeypatch.setenv("SEMEL_DEV", variable)
    outcome(in_async, "os.listdir", dev=dev)
    said = [record.getMessage() for record in caplog.records if "os.listdir" in record.getMessage()]
    assert len(said) == is_said
    caplog.clear()
    outcome(in_async, "os.listdir", dev=False)
    assert caplog.records == []


async def blocks(client: Client) -> Any:
    return await client.run(in_async, "os.listdir", key="k")


def test_an_exploration_warns_of_it_at_its_line() -> None:
    with pytest.warns(RuntimeWarning, match=r"a body led to 'os.listdir'") as caught:
        report = explore(blocks, kinds=("crash",))
    assert not report.found
    assert [(warning.filename, warning.lineno) for warning in caught] == [(HERE, line_of("# blocks: folder"))]
    with pytest.warns(RuntimeWarning, match=r"os.listdir"):
        run_once(blocks)


# The watchdog.


def warnings_of(caplog: Log) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "semel.watchdog"]


def test_a_body_that_blocks_the_loop_is_warned_about_with_its_stack_and_goes_on(caplog: Log) -> None:
    @durable_function(name="blocking.sleeps")
    async def sleeps(ctx: Context) -> str:
        block(0.6)  # blocks: body
        await ctx.wait(ms=1)
        return "went on"

    assert outcome(sleeps, limits=QUICK) == "went on"
    (said,) = warnings_of(caplog)
    assert "it is blocked by the body of 'blocking.sleeps'" in said
    assert f'test_blocking.py", line {line_of("# blocks: body")}, in sleeps' in said
    assert "put what blocks in a step that is a plain `def`" in said


def test_a_step_that_blocks_the_loop_is_warned_about_each_time(caplog: Log) -> None:
    async def sleeps() -> None:
        block(0.3)

    @durable_function
    async def twice(ctx: Context) -> None:
        await ctx.step(sleeps)
        await ctx.wait(ms=200)
        await ctx.step(sleeps)

    outcome(twice, limits=QUICK)
    said = warnings_of(caplog)
    assert len(said) == 2
    assert all("blocked by code that runs on it" in one and "in sleeps" in one for one in said)


def test_what_waits_or_blocks_in_a_thread_is_not_warned_about(caplog: Log) -> None:
    @durable_function
    def plain(ctx: SyncContext) -> str:
        time.sleep(0.3)
        ctx.step(read_in_thread)
        return "done"

    @durable_function
    async def patient(ctx: Context) -> None:
        await ctx.wait(ms=300)
        await ctx.step(time.sleep, 0.3)

    outcome(plain, limits=QUICK)
    outcome(patient, limits=QUICK)
    assert warnings_of(caplog) == []


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "semel-watchdog"]


def test_the_watchdog_ends_with_its_engine_and_can_be_left_out(caplog: Log) -> None:
    async def scenario() -> list[int]:
        found = [len(threads())]
        async with Engine("memory://"):
            found.append(len(threads()))
        found.append(len(threads()))
        async with Engine("memory://", limits=Limits(block_warn_ms=0)):
            found.append(len(threads()))
            await asyncio.sleep(0)
            block(0.2)
        return found

    assert run(scenario()) == [0, 1, 0, 0]
    with semel.sync.Engine("memory://", dev=True):
        assert len(threads()) == 1
    assert threads() == []
    assert warnings_of(caplog) == []


def test_an_engine_that_is_closed_while_its_loop_is_blocked_ends_its_watchdog() -> None:
    async def scenario() -> None:
        engine = Engine("memory://", limits=QUICK)
        await engine.open()
        block(0.4)
        await engine.close()

    run(scenario())
    assert threads() == []


def test_where_time_is_virtual_nobody_watches() -> None:
    before = len(threads())
    seen: list[int] = []

    async def scenario(client: Client) -> None:
        seen.append(len(threads()))

    run_once(scenario)
    assert seen == [before]
