"""The commands as a person and a script meet them: what they print, what they end with, what they leave alone."""

import asyncio
import json
import os
import signal
import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest

import semel
from semel.runtime.owner import Ownership, lock_path
from tests.cli import shop
from tests.cli.commands import ORDER, SHOP, listed, process, until

# Running.


def test_run_prints_the_result_as_json_and_nothing_else_on_stdout(semel_command):
    answer = semel_command("run", f"{SHOP}:order", ORDER, "--key", "k-1")
    assert (answer.exit_code, json.loads(answer.stdout)) == (
        0,
        {"order": {"id": "a-1", "amount": "19.90"}, "text": "paid 19.90"},
    )


def test_the_same_command_again_has_the_same_outcome_and_runs_nothing(semel_command):
    first = semel_command("run", f"{SHOP}:order", ORDER, "--key", "k-1")
    again = semel_command("run", f"{SHOP}:order", ORDER, "--key", "k-1")
    assert "charged a-1" in first.stderr
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert "charged" not in again.stderr
    assert len(listed(semel_command)) == 1


def test_the_same_key_with_other_json_is_a_conflict(semel_command):
    semel_command("run", f"{SHOP}:order", ORDER, "--key", "k-1")
    answer = semel_command("run", f"{SHOP}:order", ORDER.replace("19.90", "20"), "--key", "k-1")
    assert (answer.exit_code, answer.stdout) == (4, "")
    assert "first used with another request" in answer.stderr


def test_an_execution_that_fails_ends_with_7_and_its_message_is_harmless(semel_command):
    answer = semel_command("run", f"{SHOP}:fail", "--key", "k-1")
    assert (answer.exit_code, answer.stdout) == (7, "")
    assert "ValueError" in answer.stderr
    assert "\x1b" not in answer.stderr


def test_json_may_come_from_standard_input(semel_command):
    answer = semel_command("run", f"{SHOP}:greet", "-", "--key", "k", input='["ü", "hi"]')
    assert json.loads(answer.stdout) == "hi ü"
    answer = semel_command("run", f"{SHOP}:greet", "-", "--key", "k-2", input=b"\xff\xfe\xfd")
    assert answer.exit_code == 2


def test_a_run_without_a_key_says_so(semel_command):
    answer = semel_command("run", f"{SHOP}:greet", '{"name": "x"}')
    assert (answer.exit_code, json.loads(answer.stdout)) == (0, "hello x")
    assert "cannot be joined" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ([f"{SHOP}:order", "{", "--key", "k"], 2, "JSON: "),
        ([f"{SHOP}:order", "", "--key", "k"], 2, "JSON: "),
        ([f"{SHOP}:order", '{"id": 1, "amount": "1"}', "--key", "k"], 2, "value at $.id: found 1, expected `str`"),
        ([f"{SHOP}:order", '{"id": "a"}', "--key", "k"], 2, "amount"),
        ([f"{SHOP}:order", "--key", "k"], 2, "found no 'order'"),
        ([f"{SHOP}:order", ORDER, "--key", ""], 2, "idempotency key: it is empty"),
        ([f"{SHOP}:order", ORDER, "--key", "k" * 256], 2, "it has 256 characters"),
        ([f"{SHOP}:order", ORDER, "--key", "ä"], 2, "outside printable ASCII"),
        ([f"{SHOP}:order", ORDER, "--key", "a\nb"], 2, "outside printable ASCII"),
        ([f"{SHOP}:order", ORDER, "--key", "k", "--store", "postgres://x"], 2, "expected a SQLite file"),
        ([f"{SHOP}:order", ORDER, "--key", "k", "--store", "memory://"], 2, "expected a SQLite file"),
        ([f"{SHOP}:nothing", ORDER, "--key", "k"], 3, "has no 'nothing', expected one of: shop-ask"),
        ([f"{SHOP}:charge", ORDER, "--key", "k"], 3, "it is not durable"),
        (["tests.cli.no_such:f", ORDER, "--key", "k"], 3, "was not found from"),
        (["no colon", ORDER, "--key", "k"], 2, "expected module:function"),
        ([], 2, "Missing argument"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_stored(semel_command, tmp_path, arguments, code, expected):
    answer = semel_command("run", *arguments)
    assert (answer.exit_code, answer.stdout) == (code, "")
    assert expected in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_256_bytes_are_too_many_and_255_are_not(semel_command):
    assert semel_command("run", f"{SHOP}:greet", '{"name": "x"}', "--key", "k" * 255).exit_code == 0


# Files that are not ours.


def not_a_database(path):
    path.write_bytes(b"a letter, not a database" * 100)


def another_program(path):
    with sqlite3.connect(path) as database:
        database.execute("create table invoice (id integer)")
    database.close()


def newer(path):
    asyncio.run(_made(path))
    with sqlite3.connect(path) as database:
        database.execute("pragma user_version = 99")
    database.close()


async def _made(path):
    async with semel.Engine(f"sqlite:///{path}"):
        pass


@pytest.mark.parametrize("make", [not_a_database, another_program, newer])
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", f"{SHOP}:order", ORDER, "--key", "k"),
        ("executions", "list"),
        ("actors", "list"),
        ("executions", "stop", "x"),
        ("doctor",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_was(semel_command, database, make, arguments):
    make(database)
    before = database.read_bytes()
    answer = semel_command(*arguments)
    assert answer.exit_code == 1
    assert "expected" in answer.output
    assert database.read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("executions", "list"),
        ("executions", "get", "x"),
        ("executions", "stop", "x"),
        ("actors", "list"),
        ("actors", "get", "x"),
    ],
    ids=" ".join,
)
def test_reading_a_file_that_is_not_there_is_not_found_and_makes_none(semel_command, tmp_path, arguments):
    answer = semel_command(*arguments)
    assert answer.exit_code == 3
    assert "there is no file" in answer.stderr
    assert list(tmp_path.iterdir()) == []


# Looking.


def test_executions_are_listed_newest_first_and_by_page(semel_command):
    for key in ("k-1", "k-2", "k-3"):
        semel_command("run", f"{SHOP}:greet", '{"name": "x"}', "--key", key)
    semel_command("run", f"{SHOP}:fail", "--key", "k-4")
    assert [row["name"] for row in listed(semel_command)] == ["k-4", "k-3", "k-2", "k-1"]
    assert [row["name"] for row in listed(semel_command, "--status", "failed")] == ["k-4"]
    assert [row["name"] for row in listed(semel_command, "--function", "shop-greet", "--limit", "2")] == ["k-3", "k-2"]
    page = json.loads(semel_command("executions", "list", "-o", "json", "--limit", "3").stdout)
    assert [row["name"] for row in listed(semel_command, "--after", str(page["next"]))] == ["k-1"]
    table = semel_command("executions", "list", "--limit", "1")
    assert table.stdout.splitlines()[0].split() == ["ID", "FUNCTION", "NAME", "STATUS", "STARTED", "ENDED", "WAKE"]
    assert "--after" in table.stderr


def test_an_execution_is_shown_by_id_or_by_name_within_its_function(semel_command):
    semel_command("run", f"{SHOP}:order", ORDER, "--key", "k-1")
    by_name = json.loads(semel_command("executions", "get", "k-1", "--function", "shop-order", "-o", "json").stdout)
    assert by_name["result"] == {"order": {"id": "a-1", "amount": "19.90"}, "text": "paid 19.90"}
    assert by_name["status"] == "SUCCEEDED"
    by_id = json.loads(semel_command("executions", "get", by_name["id"], "-o", "json").stdout)
    assert by_id == by_name
    assert "SUCCEEDED" in semel_command("executions", "get", by_name["id"]).stdout
    assert semel_command("executions", "get", "k-1").exit_code == 3


def test_a_failed_execution_is_shown_with_its_error(semel_command):
    semel_command("run", f"{SHOP}:fail", "--key", "k-1")
    shown = json.loads(semel_command("executions", "get", "k-1", "--function", "shop-fail", "-o", "json").stdout)
    assert (shown["status"], shown["error_type"], shown["error_message"]) == (
        "FAILED",
        "ValueError",
        "\x1b[31mno\x1b[0m",
    )
    assert "\x1b" not in semel_command("executions", "get", "k-1", "--function", "shop-fail").stdout


def test_a_process_without_the_classes_shows_results_and_history(semel_command, database):
    semel_command("run", f"{SHOP}:order", ORDER, "--key", "k-1")
    with process(database, "executions", "get", "k-1", "--function", "shop-order", "-o", "json") as shown:
        result = json.loads(shown.communicate(timeout=30)[0])["result"]
    assert result == {"order": {"id": "a-1", "amount": "19.90"}, "text": "paid 19.90"}
    with process(database, "executions", "history", "k-1", "--function", "shop-order", "-o", "json") as shown:
        events = json.loads(shown.communicate(timeout=30)[0])
    assert [event["type"] for event in events] == [
        "ExecutionStarted",
        "StepStarted",
        "StepSucceeded",
        "InvocationCompleted",
        "ExecutionSucceeded",
    ]
    assert events[2]["result"] == "paid 19.90"
    assert events[4]["result"] == result


def test_history_is_a_table_for_people(semel_command):
    semel_command("run", f"{SHOP}:fail", "--key", "k-1")
    answer = semel_command("executions", "history", "k-1", "--function", "shop-fail")
    assert "ExecutionFailed" in answer.stdout
    assert "ValueError: \\x1b[31mno" in answer.stdout


def test_actors_are_listed_and_shown_with_their_state(semel_command, database):
    async def use():
        async with semel.Engine(f"sqlite:///{database}") as engine:
            await engine.actor(shop.Till, "till-1").call(shop.Till.add, Decimal("2.50"), key="k-1")
            await engine.actor(shop.Till, "till-2").call(shop.Till.add, Decimal(1))

    asyncio.run(use())
    rows = json.loads(semel_command("actors", "list", "-o", "json", "--type", "shop-till").stdout)["items"]
    assert [(row["type"], row["key"]) for row in rows] == [("shop-till", "till-2"), ("shop-till", "till-1")]
    shown = json.loads(semel_command("actors", "get", "shop-till", "till-1", "-o", "json").stdout)
    assert (shown["state"], shown["open_messages"]) == ({"total": "2.50"}, 0)
    assert json.loads(semel_command("actors", "get", shown["id"], "-o", "json").stdout) == shown
    assert semel_command("actors", "get", "shop-till", "till-3").exit_code == 3
    assert semel_command("executions", "get", shown["id"]).exit_code == 3


# Beside a running engine, and without one.


def test_commands_work_beside_a_running_engine(owner, semel_command):
    answer = semel_command("run", f"{SHOP}:order", ORDER, "--key", "k-1")
    assert (answer.exit_code, json.loads(answer.stdout)["text"]) == (0, "paid 19.90")
    assert "charged" not in answer.stderr  # the owner did it
    assert [row["name"] for row in listed(semel_command)] == ["k-1"]
    assert semel_command("run", f"{SHOP}:order", ORDER.replace("19", "20"), "--key", "k-1").exit_code == 4
    assert semel_command("run", f"{SHOP}:fail", "--key", "k-1").exit_code == 7
    doctor = {row["check"]: row for row in json.loads(semel_command("doctor", "-o", "json").stdout)}
    assert f"process {owner.pid}, listening" in doctor["owner"]["detail"]
    assert owner.poll() is None


def test_an_execution_is_stopped_beside_a_running_engine(owner, semel_command, database):
    with process(database, "run", f"{SHOP}:sleep", "--key", "k-1") as waiting:
        until(lambda: listed(semel_command) != [])
        answer = semel_command(
            "executions", "stop", "k-1", "--function", "shop-sleep", "--reason", "enough", "-o", "json"
        )
        stopped = json.loads(answer.stdout)
        assert (answer.exit_code, stopped["status"], stopped["error_message"]) == (0, "STOPPED", "enough")
        _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 7
    assert "enough" in said


def test_an_execution_is_stopped_without_an_engine(semel_command, database):
    async def leave():
        async with semel.Engine(f"sqlite:///{database}") as engine:
            await engine.start(shop.sleep, key="k-1")

    asyncio.run(leave())
    answer = semel_command("executions", "stop", "k-1", "--function", "shop-sleep")
    assert (answer.exit_code, "STOPPED" in answer.stdout) == (0, True)
    again = semel_command("executions", "stop", "k-1", "--function", "shop-sleep")
    assert again.exit_code == 0
    finished = semel_command("run", f"{SHOP}:sleep", "--key", "k-1")
    assert finished.exit_code == 7


def test_stopping_what_has_an_outcome_leaves_it(semel_command):
    semel_command("run", f"{SHOP}:greet", '{"name": "x"}', "--key", "k-1")
    answer = semel_command("executions", "stop", "k-1", "--function", "shop-greet", "-o", "json")
    assert json.loads(answer.stdout)["result"] == "hello x"
    assert "its outcome stands" in answer.stderr
    assert semel_command("executions", "stop", "nothing").exit_code == 3


def test_an_owner_that_cannot_be_asked_is_unavailable(semel_command, database, monkeypatch):
    semel_command("run", f"{SHOP}:greet", '{"name": "x"}', "--key", "k-1")
    monkeypatch.setattr("semel.runtime.owner_socket.CONNECT_S_MAX", 0.1)
    ownership = Ownership.acquire(database)
    answer = semel_command("run", f"{SHOP}:greet", '{"name": "x"}', "--key", "k-2")
    assert answer.exit_code == 6
    assert f"process {os.getpid()} owns it" in answer.stderr
    assert [row["name"] for row in listed(semel_command)] == ["k-1"]
    ownership.release()


def test_the_command_owns_the_file_only_while_it_runs(semel_command, database):
    semel_command("run", f"{SHOP}:greet", '{"name": "x"}', "--key", "k-1")
    assert Path(lock_path(database)).read_text() == ""
    Ownership.acquire(database).release()


# Being interrupted.


@pytest.mark.parametrize("where", ["here", "beside"])
def test_ctrl_c_ends_with_130_and_what_was_recorded_stays(semel_command, database, where, request):
    if where == "beside":
        request.getfixturevalue("owner")
    with process(database, "run", f"{SHOP}:sleep", "--key", "k-1") as running:
        until(
            lambda: database.exists() and semel_command("executions", "list").exit_code == 0 and listed(semel_command)
        )
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    assert [(row["name"], row["status"]) for row in listed(semel_command)] == [("k-1", "RUNNING")]
