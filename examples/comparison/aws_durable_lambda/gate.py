"""Where a step body can be held so that the killer strikes exactly there.

A step body reports each place it reaches. If that place is armed for its order, the report is
followed by a wait: the killer reads "held", sends SIGKILL while the body stands still, and so knows
that the kill landed after the body's first line (or the provider's receipt) and before the step's
record. Unarmed, a report costs one attribute look-up; the begin mark is written where a witness
file was asked for.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

Place = Literal["validate", "pay-before", "pay-receipt", "ship-before", "ship-receipt"]

Report = Callable[[dict[str, Any]], None]


def _nobody(report: dict[str, Any]) -> None:
    """Outside the comparison there is no killer to report to."""


class Gate:
    """The places of one process. Step bodies pass through it; the command reader arms it."""

    def __init__(self) -> None:
        self._armed: dict[tuple[str, str], asyncio.Event] = {}
        self._report: Report = _nobody
        self._witness: int | None = None

    def connect(self, report: Report, *, witness: Path | None) -> None:
        """Say who is told, and where begin marks go."""
        self._report = report
        if witness is not None:
            self._witness = os.open(witness, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def arm(self, place: str, order: str) -> None:
        """Hold this order's step bodies at this place until `go_on`."""
        self._armed[place, order] = asyncio.Event()

    def go_on(self, place: str, order: str) -> None:
        """Let them pass."""
        if released := self._armed.pop((place, order), None):
            released.set()

    def open(self) -> None:
        """Hold nothing any more: the killer is gone."""
        for place, order in list(self._armed):
            self.go_on(place, order)

    async def begin(self, step: str, order: str) -> None:
        """The first line of a step body: the begin mark is on disk when this returns or holds."""
        if self._witness is not None:
            os.write(self._witness, (json.dumps({"step": step, "order": order, "pid": os.getpid()}) + "\n").encode())
            os.fsync(self._witness)
        await self.reach("validate" if step == "validate" else f"{step}-before", order)

    async def reach(self, place: str, order: str) -> None:
        """Say that the body is here, and stay here while the place is armed."""
        if released := self._armed.get((place, order)):
            self._report({"event": "held", "place": place, "order": order, "pid": os.getpid()})
            await released.wait()


@functools.cache
def gate() -> Gate:
    """The gate of this process."""
    return Gate()
