"""Pairs of programs: one that is recorded, one that replays the record, and what is reported."""

from __future__ import annotations

import asyncio
import logging
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import semel
from semel import Engine, Limits
from semel.errors import NonDeterminismError, ParkedError
from semel.executions import control_of
from semel.function import REGISTRY
from semel.journal import holding
from semel.kernel.entry import Controlled
from semel.kernel.report import DivergenceReport
from semel.store.base import ACTOR, Filter
from semel.store.memory import MemoryData, MemoryStore

FOLDER = Path(__file__).parent / "golden"
HINT = "run with REWRITE=1 to write it anew, and keep the diff only if you can explain it"
START_MS = 1_700_000_000_000
DAY_MS = 24 * 3_600_000
FILE = "shop/order.py"
NAME = "shop.order"


class Hands:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.at_ms = START_MS

    def now_ms(self) -> int:
        return self.at_ms


class Bench:
    """One journal, and the programs that are run on it, each in an engine of its own."""

    def __init__(self) -> None:
        self.data = MemoryData()
        self.clock = Hands()
        self.effects: list[str] = []
        self.run_number = 0
        self.error: NonDeterminismError | ParkedError | None = None

    def engine(self) -> Engine:
        """An engine a day after the one before: what waited for the night is due."""
        store = MemoryStore(self.data)
        transaction = store.begin([])
        holding.void_leases_of_the_dead(transaction, judged_at_ms=holding.FOREVER_MS, now_ms=0)
        store.commit(transaction)
        if self.run_number:
            self.clock.at_ms += DAY_MS
        self.run_number += 1
        return Engine(
            store, limits=Limits(poll_ms=20), clock=self.clock, commit="inline"
        )  # abandoned, it leaves no thread

    def load(self, code: str, *, is_changed: bool) -> dict[str, Any]:
        """Deploy the program: its names, with steps and what a program may find in its surroundings."""
        names: dict[str, Any] = {
            "__name__": "shop.order",
            "asyncio": asyncio,
            "semel": semel,
            "Context": semel.Context,
            "GenServer": semel.GenServer,
            "DurabilityFacet": semel.DurabilityFacet,
            "call": semel.call,
            "step": semel.step,
            "settings": SimpleNamespace(is_changed=is_changed),
        }
        for name in ("reserve", "charge", "pack", "ship", "notify", "check"):
            names[name] = self._step(name)
        REGISTRY.functions.pop(NAME, None)
        REGISTRY.actors.pop("shop.till", None)
        exec(compile(code, FILE, "exec", dont_inherit=True), names)  # the pairs are ours
        return names

    def _step(self, name: str) -> Callable[..., Any]:
        async def step(*arguments: Any) -> str:
            self.effects.append(name)
            return f"{name} {' '.join(map(str, arguments))}".strip()

        step.__name__ = step.__qualname__ = name
        step.__module__ = "shop.steps"
        return step

    # Functions.

    async def record(self, code: str) -> str:
        """Run the first program until it waits for the night; return the execution's id."""
        durable = self._function(code, is_changed=False)
        async with self.engine() as engine:
            execution = await engine.start(durable, key="order-1")
            while not await is_suspended(engine, execution.id):
                await asyncio.sleep(0.002)
        return execution.id

    async def replay(self, code: str, execution: str, *, is_changed: bool = True) -> semel.ExecutionInfo:
        """Run the second program over what is recorded, until it is parked or ends."""
        self._function(code, is_changed=is_changed)
        async with self.engine() as engine:
            if not is_changed:
                await engine.executions.resume(execution)
            while (info := await engine.executions.get(execution)).status == "RUNNING":
                await asyncio.sleep(0.002)
        return info

    def _function(self, code: str, *, is_changed: bool) -> Callable[..., Any]:
        names = self.load(code, is_changed=is_changed)
        return semel.durable_function(name=NAME, strict=bool(names.get("STRICT")))(names["order"])

    # Actors.

    async def record_turn(self, code: str) -> str:
        """Send one message, which is answered or waits for the night; die. Return the actor's id."""
        actor = self.load(code, is_changed=False)["Till"]
        engine = self.engine()
        await engine.open()
        calling = asyncio.ensure_future(engine.actor(actor, "till-1").call("pay", 7))
        while not (calling.done() or await is_turn_suspended(engine)):
            await asyncio.sleep(0.002)
        calling.cancel()
        engine.abandon()
        return listed_actors(engine)[0].uid

    async def replay_turn(self, code: str, actor_id: str, *, is_changed: bool = True) -> Controlled:
        """Send the next message to the changed actor; return what parked it, if anything."""
        actor = self.load(code, is_changed=is_changed)["Till"]
        async with self.engine() as engine:
            if not is_changed:
                await engine.executions.resume(actor_id)
            try:
                assert await engine.actor(actor, "till-1").call("pay", 8, key="next") == 8
            except (NonDeterminismError, ParkedError) as error:
                self.error = error
            return control_of(engine._services.reader, listed_actors(engine)[0])


def listed_actors(engine: Engine) -> list[Any]:
    return engine._services.reader.list(Filter(ACTOR, "default", None, None, None, 10))


async def is_turn_suspended(engine: Engine) -> bool:
    found = listed_actors(engine)
    return bool(found) and found[0].turn != "" and found[0].holder is None


async def is_suspended(engine: Engine, which: str) -> bool:
    """Whether an execution waits for the night, let go by its worker."""
    info = await engine.executions.get(which)
    return info.holder is None and info.wake_ms is not None and info.wake_ms > engine._clock.now_ms()


def run(scenario: Any) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(8):
            return await scenario

    logging.getLogger("semel").setLevel(logging.CRITICAL)
    try:
        return asyncio.run(bounded())
    finally:
        logging.getLogger("semel").setLevel(logging.NOTSET)


# Transcripts: two programs, a dashed line, and the report.


def programs(text: str) -> tuple[str, str, str]:
    """The remark, the recorded program and the replaying one. One that says `the same` is the first again."""
    asked = text.partition("\n----\n")[0]
    remark, _, rest = asked.partition("== recorded\n")
    before, _, after = rest.partition("\n== replayed by\n")
    after = before if after.strip() == "the same" else after
    return remark, textwrap.dedent(before), textwrap.dedent(after)


def check(path: Path, report: DivergenceReport, *, width: int = 80) -> None:
    """Compare the report with the transcript, or write it."""
    text = path.read_text(encoding="utf-8")
    asked = text.partition("\n----\n")[0].rstrip("\n")
    found = f"{asked}\n----\n{report.text(width=width)}\n"
    if os.environ.get("REWRITE"):
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8"), f"{path.name} is not what is reported; {HINT}"
