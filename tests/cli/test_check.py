"""`semel check`: what it prints and what it ends with."""

import asyncio
import json
import subprocess
import sys

import pytest

import semel
from tests.cli import deployed
from tests.cli.commands import ROOT, environment

MODULE = "tests.cli.deployed"


@pytest.fixture
def orders(database):
    """A store with two executions that wait, and one that has ended."""

    async def fill():
        async with semel.Engine(f"sqlite:///{database}") as engine:
            for n in (1, 2):
                await engine.start(deployed.order, n, key=f"order-{n}")
            ended = await engine.start(deployed.order, 3, key="order-3")
            await engine.executions.stop(ended.id)
            while engine.running_count:
                await asyncio.sleep(0.01)

    asyncio.run(fill())
    return f"sqlite:///{database}"


def checked(database, version, *arguments):
    """The command in a process of its own, which imports that version of the code."""
    answer = subprocess.run(
        [sys.executable, "-m", "semel", "check", MODULE, "--against", f"sqlite:///{database}", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(database) | {"DEPLOYED": version},
        check=False,
        timeout=60,
    )
    return answer.returncode, answer.stdout, answer.stderr


@pytest.mark.usefixtures("orders")
def test_code_that_fits_ends_with_0(database):
    code, out, err = checked(database, "first")
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["safe", "deployed-order", f"order-{n}"] for n in (2, 1)
    ]
    assert "open executions: 2: 2 safe" in err
    assert "replaying order" in err, "what the code prints is not data"
    assert "reserved" not in err, "no step runs"


@pytest.mark.usefixtures("orders")
def test_code_that_diverges_ends_with_1_and_names_the_place(database):
    code, out, err = checked(database, "renamed", "-o", "json")
    found = json.loads(out)
    assert (code, found["counts"]) == (1, {"diverges": 2})
    first = found["items"][0]
    assert (first["verdict"], first["name"], first["operation"], first["number"]) == ("diverges", "order-2", "1_1", 1)
    assert first["source"].startswith("cli/deployed.py:")
    assert first["recorded"].startswith("STEP 'reserve' at cli/deployed.py:")
    assert first["requested"].startswith("STEP 'book' at cli/deployed.py:")
    assert "ctx.patched" in err


@pytest.mark.usefixtures("orders")
def test_code_that_is_not_there_ends_with_5(database):
    code, out, err = checked(database, "gone", "-o", "json")
    assert (code, json.loads(out)["counts"]) == (5, {"unknown": 2})
    assert "2 unknown" in err


@pytest.mark.usefixtures("orders")
def test_only_the_problems_are_shown_when_asked(database):
    code, out, _ = checked(database, "first", "--problems")
    assert (code, len(out.splitlines())) == (0, 1)
    code, out, _ = checked(database, "renamed", "--problems")
    assert (code, len(out.splitlines())) == (1, 3)


def test_what_is_not_there_is_said(semel_command, database):
    assert semel_command("check", MODULE, "--against", f"sqlite:///{database}").exit_code == 3
    assert semel_command("check").exit_code == 2


def test_a_module_that_is_not_there_is_said(semel_command, orders):
    assert semel_command("check", "tests.cli.nowhere", "--against", orders).exit_code == 3


@pytest.fixture
def pinned(database):
    """A store with a pinned execution that waits; its version."""

    async def fill():
        async with semel.Engine(f"sqlite:///{database}") as engine:
            execution = await engine.start(deployed.pinned, 1, key="k")
            while engine.running_count:
                await asyncio.sleep(0.01)
            return (await engine.executions.get(execution.id)).version

    return asyncio.run(fill())


def test_what_is_pinned_to_other_code_is_no_problem_of_this_code(semel_command, database, pinned, monkeypatch):
    monkeypatch.setattr(deployed.pinned.__semel_function__, "_version", "deployed-pinned@a2:other")
    answer = semel_command("check", MODULE, "--against", f"sqlite:///{database}", "-o", "json")
    assert (answer.exit_code, json.loads(answer.stdout)["counts"]) == (0, {"pinned": 1})


def test_a_pinned_execution_that_no_engine_can_run_is_shown_as_waiting_and_can_be_let_go(semel_command, pinned):
    listed = semel_command("executions", "list")
    assert f"RUNNING, waits for version {pinned}" in listed.stdout
    (item,) = json.loads(semel_command("executions", "list", "-o", "json").stdout)["items"]
    assert (item["status"], item["is_pinned"], item["waiting_for"], item["version"]) == (
        "RUNNING",
        True,
        pinned,
        pinned,
    )
    shown = semel_command("executions", "get", "k", "--function", "deployed-pinned")
    assert pinned in shown.stdout
    assert f"semel executions unpin {item['id']}" in shown.stderr
    doctor = semel_command("doctor", "-o", "json")
    (finding,) = [found for found in json.loads(doctor.stdout) if found["check"] == "versions"]
    assert (finding["verdict"], pinned in finding["detail"]) == ("warn", True)

    answer = semel_command("executions", "unpin", item["id"], "--reason", "gone", "-o", "json")
    after = json.loads(answer.stdout)
    assert (answer.exit_code, after["is_pinned"], after["waiting_for"], after["version"]) == (0, False, "", pinned)
    assert "waits for version" not in semel_command("executions", "list").stdout
    assert '"versions"' not in semel_command("doctor", "-o", "json").stdout


def test_the_engine_that_owns_the_file_says_which_versions_it_has(semel_command, database, pinned):
    async def look():
        async with semel.Engine(f"sqlite:///{database}"):
            listed = await asyncio.to_thread(semel_command, "executions", "list", "-o", "json")
            return json.loads(listed.stdout)["items"][0]

    item = asyncio.run(look())
    assert (item["is_pinned"], item["waiting_for"]) == (True, "")
