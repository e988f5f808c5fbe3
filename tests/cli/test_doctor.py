"""What `semel doctor` finds, and that it finds it."""

import asyncio
import json
import sqlite3
from importlib import import_module

import pytest

import semel
from tests.cli import shop
from tests.cli.commands import SHOP, listed, process, until

doctor = import_module("semel.cli.doctor")


def test_doctor_ends_with_0_on_a_sound_journal(semel_command):
    semel_command("run", f"{SHOP}:greet", '{"name": "x"}', "--key", "k-1")
    answer = semel_command("doctor", "-o", "json", "--import", SHOP)
    rows = {row["check"]: row["verdict"] for row in json.loads(answer.stdout)}
    assert answer.exit_code == 0
    assert {"sqlite", "file system", "fsync", "owner", "streams", "wake-up (J11)", "clock", "handlers"} <= set(rows)
    assert "fail" not in rows.values()


def test_doctor_finds_a_stream_that_nothing_wakes_and_ends_with_1(semel_command, database):
    async def leave():
        async with semel.Engine(f"sqlite:///{database}") as engine:
            await engine.start(shop.sleep, key="k-1")
            await asyncio.sleep(0.2)

    asyncio.run(leave())
    assert semel_command("doctor").exit_code == 0
    with sqlite3.connect(database) as damage:
        damage.execute("update stream set wake_ms = null")
    damage.close()
    answer = semel_command("doctor")
    assert answer.exit_code == 1
    assert "it has no time to wake" in answer.stdout
    assert "wake-up (J11)" in answer.stderr


def test_doctor_finds_records_that_changed_on_disk(semel_command, database):
    async def leave():
        async with semel.Engine(f"sqlite:///{database}") as engine:
            await engine.start(shop.sleep, key="k-1")

    asyncio.run(leave())
    with sqlite3.connect(database) as damage:
        damage.execute("update record set body = zeroblob(40)")
    damage.close()
    answer = semel_command("doctor")
    assert answer.exit_code == 1
    assert "restore a backup" in answer.stdout


def test_doctor_tells_open_streams_whose_code_is_not_imported(semel_command, database):
    async def leave():
        async with semel.Engine(f"sqlite:///{database}") as engine:
            await engine.start(shop.sleep, key="k-1")

    asyncio.run(leave())
    with process(database, "doctor", "--import", "json") as running:
        said, _ = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "1 of fn 'shop-sleep'" in said


def test_doctor_says_what_it_can_without_a_file(semel_command, tmp_path):
    answer = semel_command("doctor")
    assert answer.exit_code == 0
    assert "there is no file" in answer.stdout
    assert list(tmp_path.iterdir()) == []
    assert semel_command("doctor", "--store", f"sqlite:///{tmp_path}/none/x.db").exit_code == 1


@pytest.mark.parametrize(("median_ms", "verdict"), [(0.004, "warn"), (0.3, "ok"), (80.0, "warn")])
def test_a_disk_that_is_too_fast_or_too_slow_is_told(tmp_path, monkeypatch, median_ms, verdict):
    monkeypatch.setattr(doctor, "fsync_median_ms", lambda folder: median_ms)
    assert doctor.fsync(str(tmp_path / "x.db")).verdict == verdict


@pytest.mark.parametrize(("kind", "verdict"), [("ext4", "ok"), ("", "ok"), ("tmpfs", "warn"), ("nfs4", "fail")])
def test_a_file_system_that_loses_data_is_told(tmp_path, monkeypatch, kind, verdict):
    monkeypatch.setattr("semel.store.sqlite_file.file_system", lambda path, **options: kind)
    assert doctor.file_system(str(tmp_path / "x.db")).verdict == verdict


def test_an_old_sqlite_is_told(monkeypatch):
    monkeypatch.setattr("semel.store.sqlite_file.sqlite_version", lambda: "3.40.1")
    assert doctor.sqlite().verdict == "fail"


def test_executions_that_the_owner_has_no_code_for_are_shown_as_waiting(semel_command, database, owner):
    store = f"sqlite:///{database}"
    assert semel_command("doctor", "-o", "json", "--store", store).exit_code == 0
    started = process(database, "run", f"{SHOP}:delegate", "--key", "k-1")
    try:
        until(lambda: [item for item in listed(semel_command) if item["function"] == "shop-mistyped"])
        (item,) = [item for item in listed(semel_command) if item["function"] == "shop-mistyped"]
        assert (item["status"], item["waiting_for"]) == ("RUNNING", "shop-mistyped")
        assert "RUNNING, waits for code of shop-mistyped" in semel_command("executions", "list").stdout
        assert "has not imported" in semel_command("executions", "get", item["id"]).stderr
        (finding,) = [
            found for found in json.loads(semel_command("doctor", "-o", "json").stdout) if found["check"] == "code"
        ]
        assert finding["verdict"] == "warn"
        assert "1 of 'shop-mistyped'" in finding["detail"]
    finally:
        started.kill()
        started.communicate()
