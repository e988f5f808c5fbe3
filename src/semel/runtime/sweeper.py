"""The retention sweep: what ended long enough ago is removed, a little at a time.

A pass goes through the streams by number and then through the keys, a page at a time, with a
cursor and no index of its own. Between two batches it rests for as long as the last
one took, so that it has a small share of the loop and the disk, however much there is to do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from semel.errors import SemelError
from semel.function import REGISTRY
from semel.journal import lifecycle
from semel.runtime.services import Limits, Services
from semel.store.base import Ended, KeyId, Needs

T = TypeVar("T")
logger = logging.getLogger("semel.sweeper")
FIRST_PASS_MS: Final = 10_000  # an engine that is open for a short time does its share, too
PAGE: Final = 1_024  # rows that are looked at in one go
REST_S: Final = 0.005
REST_SHARE: Final = 1  # times as long as the work took


def retention_of(name: str, limits: Limits) -> int:
    """For how long an ended execution of a function is kept."""
    spec = REGISTRY.functions.get(name)
    declared = None if spec is None else spec.retention_ms
    return limits.retention_ms if declared is None else declared


class Sweeper:
    """One engine's sweep. A pass begins `Limits.sweep_ms` after the one before has ended; with 0 there is none."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin the first pass soon."""
        if self._services.limits.sweep_ms:
            self._task = self._services.loop.create_task(self._run())

    def close(self) -> None:
        """Sweep no more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        sweep_ms = self._services.limits.sweep_ms
        await asyncio.sleep(min(sweep_ms, FIRST_PASS_MS) / 1000)
        while True:
            try:
                removed = await self.sweep()
                if removed:
                    logger.info("the retention sweep removed %d executions and keys", removed)
            except SemelError as error:  # what was not removed is found by the next pass
                logger.warning("the retention sweep ended early, and is tried again in %d ms: %s", sweep_ms, error)
            await asyncio.sleep(sweep_ms / 1000)

    async def sweep(self) -> int:
        """One pass. Returns how many executions and keys it removed."""
        return await self._sweep_executions() + await self._sweep_keys()

    async def _sweep_executions(self) -> int:
        services, limits, now = self._services, self._services.limits, self._services.clock.now_ms
        removed, after = 0, 0
        declared = [spec.retention_ms for spec in REGISTRY.functions.values() if spec.retention_ms is not None]
        shortest_ms = min(declared, default=limits.retention_ms)
        while True:
            begun_s = services.loop.time()
            until_ms = now() - min(shortest_ms, limits.retention_ms)
            scan = services.reader.scan_ended(after, until_ms=until_ms, limit=PAGE)
            over = [ended for ended in scan.found if ended.ended_ms + retention_of(ended.name, limits) <= now()]
            for batch in _batches(over, limits.sweep_batch_max):
                removed += await self._remove(batch)
                await self._rest(begun_s)
                begun_s = services.loop.time()
            if scan.last is None:
                return removed
            after = scan.last
            await self._rest(begun_s)

    async def _remove(self, batch: Sequence[Ended]) -> int:
        limits, now_ms = self._services.limits, self._services.clock.now_ms()
        return await self._services.committer.run(
            lambda transaction: lifecycle.sweep(
                transaction, batch, retention_of=lambda name: retention_of(name, limits), now_ms=now_ms
            ),
            needs=Needs(tuple(ended.stream for ended in batch), tuple(lifecycle.key_of(ended) for ended in batch)),
        )

    async def _sweep_keys(self) -> int:
        services, now = self._services, self._services.clock.now_ms
        removed, after = 0, None
        while True:
            begun_s = services.loop.time()
            scan = services.reader.scan_expired(after, now_ms=now(), limit=PAGE)
            for batch in _batches(scan.found, services.limits.sweep_batch_max):
                removed += await self._forget(batch)
                await self._rest(begun_s)
                begun_s = services.loop.time()
            if scan.last is None:
                return removed
            after = scan.last
            await self._rest(begun_s)

    async def _forget(self, batch: Sequence[KeyId]) -> int:
        now_ms = self._services.clock.now_ms()
        return await self._services.committer.run(
            lambda transaction: lifecycle.sweep_keys(transaction, batch, now_ms=now_ms), needs=Needs(keys=tuple(batch))
        )

    async def _rest(self, begun_s: float) -> None:
        worked_s = self._services.loop.time() - begun_s
        await asyncio.sleep(max(REST_S, worked_s * REST_SHARE))


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
