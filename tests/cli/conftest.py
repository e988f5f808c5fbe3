"""A store of its own for every command."""

import select
import subprocess
import sys

import pytest
from click.testing import CliRunner

from semel.cli import main
from tests.cli.commands import OWNER, ROOT, environment


@pytest.fixture
def database(tmp_path):
    return tmp_path / "shop.db"


@pytest.fixture
def semel_command(database, monkeypatch):
    """Run a command in this process on a store of its own."""
    monkeypatch.setenv("SEMEL_STORE", f"sqlite:///{database}")

    def command(*arguments, **options):
        return CliRunner().invoke(main, list(arguments), catch_exceptions=False, **options)

    return command


@pytest.fixture
def owner(database):
    """An engine on the store, in another process."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, f"sqlite:///{database}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(database),
    ) as running:
        try:
            assert select.select([running.stdout], [], [], 20)[0]
            assert running.stdout.readline() == "ready\n"
            yield running
        finally:
            running.kill()
