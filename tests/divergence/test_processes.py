"""A divergence from deployment to cure, in the processes of a real program: two versions of a module on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import semel

RECORDED = """\
import semel


async def reserve(): return print("reserve", flush=True)
async def charge(): return print("charge", flush=True)
async def ship(): return print("ship", flush=True)


@semel.durable_function(name="order")
async def order(ctx):
    await ctx.step(reserve)
    await ctx.step(charge)
    await ctx.wait(seconds=1.5, name="night")
    await ctx.step(ship)
    return "shipped"
"""
CHANGED = RECORDED.replace("    await ctx.step(charge)\n", "")
STARTER = """
import asyncio, sys
import semel
from orders import order

async def main():
    async with semel.Engine(sys.argv[1]) as engine:
        execution = await engine.start(order, key="order-1")
        while (await engine.executions.get(execution.id)).wake_ms is None:
            await asyncio.sleep(0.01)
        while (await engine.executions.get(execution.id)).holder is not None:
            await asyncio.sleep(0.01)
        print(execution.id)

asyncio.run(main())
"""


class Machine:
    """A folder with the module that is deployed, and the journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = f"sqlite:///{folder / 'orders.db'}"

    def deploy(self, code: str) -> None:
        (self.folder / "orders.py").write_text(code, encoding="utf-8")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(Path(semel.__file__).parents[1]), str(self.folder)])
        environment = os.environ | {"PYTHONPATH": paths, "SEMEL_STORE": self.store, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, *command],
            env=environment | {"COLUMNS": "100"},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def semel(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "semel", *command)


def test_a_changed_module_parks_what_runs_and_the_restored_one_goes_on(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.deploy(RECORDED)
    started = machine.run("-c", STARTER, machine.store)
    *effects, execution = started.stdout.split()
    assert effects == ["reserve", "charge"], started.stderr

    machine.deploy(CHANGED)
    joined = machine.semel("run", "orders:order", "--key", "order-1")
    assert (joined.returncode, joined.stdout) == (1, "")
    assert "likely cause: call removed" in joined.stderr.splitlines()
    assert "\\n" not in joined.stderr

    shown = machine.semel("executions", "get", execution)
    lines = shown.stdout.splitlines()
    assert max(map(len, lines[lines.index("") :])) <= 100
    first = next(place for place, line in enumerate(lines) if line.startswith("  > 1_2  STEP charge "))
    assert "/orders.py:12" in lines[first] + lines[first + 1]
    assert f"`semel executions resume {execution}`" in shown.stdout

    found = json.loads(machine.semel("executions", "get", execution, "-o", "json").stdout)
    assert found["status"] == "PARKED"
    assert "\n" not in found["reason"]
    assert found["report"]["cause"] == "call removed"
    marked = next(row for row in found["report"]["rows"] if row["is_first"])
    sides = (marked["recorded"]["what"], marked["asked"]["what"])
    assert (marked["operation"], *sides) == ("1_2", "STEP charge", "WAIT night")
    assert len(found["report"]["advice"]) == 3

    machine.deploy(RECORDED)
    assert machine.semel("executions", "resume", execution).returncode == 0
    ended = machine.semel("run", "orders:order", "--key", "order-1")
    assert (ended.returncode, ended.stdout.split()) == (0, ["ship", '"shipped"']), ended.stderr
