"""The comparison, as one command: both models, killed at every step boundary, measured.

    python -m examples.comparison.aws_durable_lambda.demo [--orders FILE] [--quick] [--seed N]

The last line is `demo: N checks passed, M failed`; the exit status is 1 if any failed, 130 after
Ctrl-C. Only processes that the demo started are ever signalled.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Awaitable
from pathlib import Path

from .bulk import run_bulk
from .checks import Checks, heading
from .driver import ModelName, ProviderKeys, Setting, short_directory
from .kills import KillPlan, run_kills, run_kills_once
from .measured import Measured
from .scenario import Scenario, lost_reply_without_keys, measure_times
from .table import print_kills, print_table

MODELS: tuple[ModelName, ...] = ("function", "actor")
TITLES: dict[ModelName, str] = {
    "function": "durable function (semel)",
    "actor": "durable actor, PlexSpaces' model (semel)",
}
BULK_KILLS = 20


class Demo:
    """One run: its directory, its checks, and what it measured of each model."""

    def __init__(self, directory: Path, plan: KillPlan, *, timed_calls: int) -> None:
        self.checks = Checks()
        self.measured: dict[ModelName, Measured] = {model: Measured() for model in MODELS}
        self._directory = directory
        self._plan = plan
        self._timed_calls = timed_calls

    def _setting(self, model: ModelName, part: str, provider_keys: ProviderKeys = "yes") -> Setting:
        directory = self._directory / f"{model}-{part}"
        directory.mkdir()
        return Setting(directory, model, provider_keys, socket=self._directory / f"{model[0]}-{part}")

    async def _part(self, text: str, part: Awaitable[None]) -> None:
        """A part that breaks off is a failed check, and the next part still runs."""
        try:
            await part
        except Exception as error:
            self.checks.broken(text, error)

    async def compare(self) -> None:
        """The scenario, the kills and the times, model by model; then the table."""
        for model in MODELS:
            await self._compare_model(model)
        heading("SIGKILLs that landed in a begun step, before its record")
        print_kills(self.measured)
        heading("The original's table")
        print_table(self.measured)

    async def _compare_model(self, model: ModelName) -> None:
        checks, measured = self.checks, self.measured[model]
        heading(f"{TITLES[model]}: the scenario")
        scenario = Scenario(self._setting(model, "scenario"), checks=checks, measured=measured)
        await self._part("the scenario", scenario.run())
        await self._part("the lost reply", lost_reply_without_keys(self._setting(model, "lost", "no"), checks=checks))
        heading(f"{TITLES[model]}: killed at every step boundary, provider with keys")
        kills = run_kills(self._setting(model, "kills"), self._plan, checks=checks, measured=measured)
        await self._part("the kills", kills)
        heading(f"{TITLES[model]}: killed at every step boundary, provider without keys")
        setting = self._setting(model, "once", "no")
        await self._part("the kills", run_kills_once(setting, self._plan, checks=checks, measured=measured))
        setting = self._setting(model, "times")
        await self._part("the times", measure_times(setting, calls=self._timed_calls, measured=measured))

    async def process_orders(self, path: Path, *, kills: int, seed: int) -> None:
        """The file of orders on each model, under random kills."""
        for number, model in enumerate(MODELS):
            heading(f"{TITLES[model]}: {path.name}")
            bulk = run_bulk(
                self._setting(model, "bulk"),
                path,
                kills=kills,
                seed=seed + number,
                checks=self.checks,
                measured=self.measured[model],
            )
            await self._part(path.name, bulk)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="semel demo", description="The comparison, measured on this machine.")
    parser.add_argument("--orders", type=Path, help="process this file of orders under random kills instead")
    parser.add_argument("--kills", type=int, default=BULK_KILLS, help="random kills a model, with --orders")
    parser.add_argument("--seed", type=int, help="of the random kills; printed, so that a run can be repeated")
    parser.add_argument("--quick", action="store_true", help="one order a boundary, killed once")
    options = parser.parse_args(argv)
    if options.orders is not None and not options.orders.is_file():
        parser.error(f"--orders {str(options.orders)!r}: no such file; examples/data/orders.jsonl is one")
    return options


async def run(options: argparse.Namespace) -> Checks:
    """Run what the options ask for."""
    plan = KillPlan(orders_per_boundary=1, lives=1) if options.quick else KillPlan()
    with short_directory() as directory:
        demo = Demo(directory, plan, timed_calls=20 if options.quick else 100)
        if options.orders is None:
            await demo.compare()
        else:
            seed = random.randrange(1_000_000) if options.seed is None else options.seed
            await demo.process_orders(options.orders, kills=options.kills, seed=seed)
    return demo.checks


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    options = parse_arguments(argv)
    started = time.perf_counter()
    try:
        checks = asyncio.run(run(options))
    except KeyboardInterrupt:
        print("\ninterrupted: the processes of the demo were ended", file=sys.stderr)
        return 130
    print(f"\n{time.perf_counter() - started:.1f} s")
    print(checks.last_line(), flush=True)
    return 1 if checks.failed or not checks.passed else 0


if __name__ == "__main__":
    sys.exit(main())
