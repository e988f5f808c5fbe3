"""Pause, resume, delete and lists as commands, beside a running engine and without one."""

import asyncio
import json

import pytest

import semel
from tests.cli import shop
from tests.cli.commands import ORDER, SHOP, listed


def started(database, key="s-1"):
    """An execution that waits for an hour, left by an engine that is gone."""

    async def start():
        async with semel.Engine(f"sqlite:///{database}") as engine:
            return (await engine.start(shop.sleep, key=key)).id

    return asyncio.run(start())


def answered(semel_command, *arguments):
    answer = semel_command("executions", *arguments, "-o", "json")
    assert answer.exit_code == 0, answer.stderr
    return json.loads(answer.stdout)


@pytest.mark.parametrize("beside", [False, True])
def test_an_execution_is_paused_resumed_and_stopped(semel_command, database, request, *, beside):
    uid = started(database)
    if beside:
        request.getfixturevalue("owner")
    paused = answered(semel_command, "pause", "s-1", "--function", "shop-sleep", "--reason", "lunch")
    assert (paused["id"], paused["status"], paused["reason"]) == (uid, "PAUSED", "lunch")
    assert answered(semel_command, "pause", uid)["status"] == "PAUSED"
    assert [row["name"] for row in listed(semel_command, "--status", "paused", "--status", "failed")] == ["s-1"]
    assert answered(semel_command, "resume", uid)["status"] == "RUNNING"
    refused = semel_command("executions", "resume", uid)
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert "cannot be resumed, it is RUNNING" in refused.stderr
    assert semel_command("executions", "delete", uid).exit_code == 4
    assert answered(semel_command, "stop", uid)["status"] == "STOPPED"
    assert semel_command("executions", "pause", uid).exit_code == 4
    types = [event["type"] for event in answered(semel_command, "history", uid)]
    assert [name for name in types if name.startswith("Execution")] == [
        "ExecutionStarted",
        "ExecutionPaused",
        "ExecutionResumed",
        "ExecutionStopped",
    ]


@pytest.mark.parametrize("beside", [False, True])
def test_a_deleted_execution_is_gone_and_its_key_still_answers(semel_command, request, *, beside):
    first = semel_command("run", f"{SHOP}:order", ORDER, "--key", "k-1")
    if beside:
        request.getfixturevalue("owner")
    shown = answered(semel_command, "delete", "k-1", "--function", "shop-order")
    assert (shown["status"], shown["result"]["text"]) == ("SUCCEEDED", "paid 19.90")
    assert listed(semel_command) == []
    assert semel_command("executions", "get", shown["id"]).exit_code == 3
    assert semel_command("executions", "delete", shown["id"]).exit_code == 3
    again = semel_command("run", f"{SHOP}:order", ORDER, "--key", "k-1")
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert "charged" not in again.stderr
    assert semel_command("run", f"{SHOP}:order", ORDER.replace("19", "20"), "--key", "k-1").exit_code == 4
    freed = semel_command("executions", "forget-key", "k-1", "--function", "shop-order")
    assert (freed.exit_code, freed.stdout) == (0, "")
    assert semel_command("executions", "forget-key", "k-1", "--function", "shop-order").exit_code == 3
    assert semel_command("run", f"{SHOP}:order", ORDER.replace("19", "20"), "--key", "k-1").exit_code == 0


def test_a_run_that_is_out_of_time_ends_with_7(semel_command):
    answer = semel_command("run", f"{SHOP}:sleep", "--key", "k", "--timeout-ms", "50")
    assert (answer.exit_code, answer.stdout) == (7, "")
    assert "ExecutionTimedOut" in answer.stderr
    assert [row["status"] for row in listed(semel_command)] == ["TIMED_OUT"]
    assert semel_command("run", f"{SHOP}:sleep", "--timeout-ms", "0").exit_code == 2


def test_a_paused_execution_whose_timeout_runs_on_is_out_of_time(semel_command, database):
    async def start():
        async with semel.Engine(f"sqlite:///{database}") as engine:
            await engine.start(shop.sleep, key="k", timeout_ms=600_000)

    asyncio.run(start())
    held = answered(semel_command, "pause", "k", "--function", "shop-sleep")
    assert held["wake_ms"] is None
    answered(semel_command, "resume", "k", "--function", "shop-sleep")
    counted = answered(semel_command, "pause", "k", "--function", "shop-sleep", "--timeout-runs-on")
    assert counted["wake_ms"] is not None


def test_lists_have_filters_and_an_order(semel_command):
    for key in ("a-1", "a-2", "b-1"):
        semel_command("run", f"{SHOP}:greet", '{"name": "x"}', "--key", key)
    names = lambda *options: [row["name"] for row in listed(semel_command, *options)]  # noqa: E731
    assert names("--name-prefix", "a-") == ["a-2", "a-1"]
    assert names("--oldest-first") == ["a-1", "a-2", "b-1"]
    second = listed(semel_command, "--name-prefix", "a-2")[0]["started_ms"]
    assert names("--started-after", str(second)) == ["b-1", "a-2"]
    assert names("--started-before", str(second)) == ["a-1"]
    assert names("--started-after", "2020-01-01", "--started-before", "2020-01-02T00:00Z") == []
    page = json.loads(semel_command("executions", "list", "--oldest-first", "--limit", "2", "-o", "json").stdout)
    assert names("--oldest-first", "--after", page["next"]) == ["b-1"]
    for wrong in (["--after", page["next"]], ["--status", "gone"], ["--started-after", "yesterday"]):
        assert semel_command("executions", "list", *wrong).exit_code == 2


def test_a_history_has_pages(semel_command):
    semel_command("run", f"{SHOP}:order", ORDER, "--key", "k-1")
    which = ("history", "k-1", "--function", "shop-order")
    whole = [event["event_id"] for event in answered(semel_command, *which)]
    assert [event["event_id"] for event in answered(semel_command, *which, "--limit", "2")] == whole[:2]
    assert [event["event_id"] for event in answered(semel_command, *which, "--after", "2")] == whole[2:]
    assert [event["event_id"] for event in answered(semel_command, *which, "--reverse")] == whole[::-1]
    assert semel_command("executions", *which, "--limit", "0").exit_code == 2
