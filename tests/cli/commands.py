"""Running commands, in this process and in another, on a store of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import semel

ROOT = Path(__file__).parents[2]
SHOP = "tests.cli.shop"
ORDER = '{"id": "a-1", "amount": "19.90"}'

OWNER = """
import asyncio, sys
import semel
from tests.cli import shop

async def main():
    async with semel.Engine(sys.argv[1]) as engine:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def environment(database):
    paths = os.pathsep.join([str(Path(semel.__file__).parents[1]), str(ROOT)])
    return os.environ | {"SEMEL_STORE": f"sqlite:///{database}", "PYTHONPATH": paths}


def process(database, *arguments):
    """Run a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "semel", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(database),
    )


def listed(semel_command, *arguments):
    """The executions that the list shows."""
    answer = semel_command("executions", "list", "-o", "json", *arguments)
    assert answer.exit_code == 0
    return json.loads(answer.stdout)["items"]


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
