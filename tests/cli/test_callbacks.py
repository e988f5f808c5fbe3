"""`semel callbacks`, with an engine on the file and without one."""

import asyncio
import json

import pytest

import semel
from tests.cli import shop
from tests.cli.commands import SHOP, listed, process, until


@pytest.fixture
def asked(database, tmp_path, monkeypatch):
    """The id of a callback that an execution waits for, with nobody on the file."""
    monkeypatch.setenv("SHOP_CALLBACK", str(tmp_path / "callback"))

    async def start():
        async with semel.Engine(f"sqlite:///{database}") as engine:
            await engine.start(shop.ask, key="k")
            while engine.running_count:
                await asyncio.sleep(0.01)

    asyncio.run(start())
    return (tmp_path / "callback").read_text()


def outcome(semel_command):
    answer = semel_command("run", f"{SHOP}:ask", "--key", "k")
    return answer.exit_code, answer.stdout.strip(), answer.stderr


def test_a_value_is_given_without_an_engine_and_the_first_one_stands(semel_command, asked):
    answer = semel_command("callbacks", "succeed", asked, '{"by": ["ann", 3]}')
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert "settled" in answer.stderr
    assert semel_command("callbacks", "succeed", asked, '{"by": ["ann", 3]}').exit_code == 0
    for arguments in (("succeed", asked, "4"), ("fail", asked, "no"), ("heartbeat", asked)):
        refused = semel_command("callbacks", *arguments)
        assert (refused.exit_code, refused.stdout) == (4, "")
        assert "SUCCEEDED already" in refused.stderr
    code, said, _ = outcome(semel_command)
    assert (code, json.loads(said)) == (0, {"by": ["ann", 3]})


def test_a_value_may_be_null_or_come_from_standard_input(semel_command, asked):
    assert semel_command("callbacks", "succeed", asked, "-", input="{").exit_code == 2
    assert semel_command("callbacks", "succeed", asked).exit_code == 0
    assert outcome(semel_command)[:2] == (0, "null")


def test_a_failure_is_given_with_its_type(semel_command, asked):
    assert semel_command("callbacks", "heartbeat", asked).exit_code == 0
    assert semel_command("callbacks", "fail", asked, "card expired", "--type", "Declined").exit_code == 0
    code, _, said = outcome(semel_command)
    assert code == 7
    assert "card expired" in said
    shown = semel_command("executions", "history", "k", "--function", "shop-ask").stdout
    assert "Declined: card expired" in shown


@pytest.mark.parametrize("which", ["", "x", "QUJD", "A" * 120])
def test_an_id_of_no_callback_is_refused(semel_command, asked, which):
    for arguments in (("succeed", which, "1"), ("fail", which, "no"), ("heartbeat", which)):
        answer = semel_command("callbacks", *arguments)
        assert (answer.exit_code, answer.stdout) == (2, "")
        assert "callback id" in answer.stderr


def test_one_whose_execution_was_stopped_is_a_conflict_and_no_file_is_not_found(semel_command, asked, tmp_path):
    (item,) = listed(semel_command)
    assert semel_command("executions", "stop", item["id"]).exit_code == 0
    refused = semel_command("callbacks", "succeed", asked, "1")
    assert refused.exit_code == 4
    assert "has ended" in refused.stderr
    nowhere = semel_command("callbacks", "succeed", asked, "1", "--store", f"sqlite:///{tmp_path}/none.db")
    assert nowhere.exit_code == 3


def test_the_engine_on_the_file_records_it_and_its_execution_goes_on(semel_command, database, tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_CALLBACK", str(tmp_path / "callback"))
    with process(database, "run", f"{SHOP}:ask", "--key", "k") as running:
        until(lambda: (tmp_path / "callback").exists() and (tmp_path / "callback").read_text())
        which = (tmp_path / "callback").read_text()
        assert semel_command("callbacks", "heartbeat", which).exit_code == 0
        assert semel_command("callbacks", "succeed", which, '"yes"').exit_code == 0
        said, _ = running.communicate(timeout=30)
    assert json.loads(said) == "yes"
    refused = semel_command("callbacks", "fail", which, "no")
    assert refused.exit_code == 4
    rows = json.loads(semel_command("executions", "history", "k", "--function", "shop-ask", "-o", "json").stdout)
    shown = [(row["type"], row["name"], row["subtype"]) for row in rows if row["type"].endswith("Started")]
    assert shown[1:3] == [
        ("ContextStarted", "approve", "WaitForCallback"),
        ("CallbackStarted", "approve create callback id", "Callback"),
    ]
