"""Claim, run, finish: one worker's loop, and what it keeps in memory between claims.

A worker has a lease of its own, one row that is renewed; the streams it holds are its own
while that runs. What suspends stays as a resident up to a limit, without a lease: claim
first, and use it only if nobody else held the stream since (R5).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from semel.actor import actor_spec
from semel.errors import LeaseLost, ParkedError, StoreError
from semel.function import REGISTRY
from semel.journal import holding
from semel.journal.lifecycle import park
from semel.kernel.entry import Record, Settled
from semel.runtime.activation import Activation
from semel.runtime.alarm import Alarm
from semel.runtime.holder import reason_of
from semel.runtime.invocation import End, Invocation
from semel.runtime.services import Services
from semel.store import codec
from semel.store.base import FUNCTION, Needs, Stream, Transaction

logger = logging.getLogger("semel.worker")
Run = Invocation | Activation


class Claimed(Struct, frozen=True):
    """What a look at the store brought: streams that are ours now, and when to look again."""

    streams: list[Stream]
    next_wake_ms: int | None


class Worker:
    """Runs streams of one engine. `on_settled(stream, outcome)` is called after each commit of an outcome."""

    def __init__(
        self,
        services: Services,
        identity: str,
        *,
        on_settled: Callable[[Stream, Settled], None],
        on_parked: Callable[[Stream, Exception], None],
    ) -> None:
        self.services = services
        self.id = identity
        self.running: dict[int, Run] = {}
        self._residents: OrderedDict[int, Run] = OrderedDict()
        self._losing: list[Run] = []  # have lost their stream, and have still to end
        self._on_settled = on_settled
        self._on_parked = on_parked
        self._alarm = Alarm(services, self.look)
        self._wake_ms: int | None = None
        self._is_looking = False
        self._is_short = False
        self._look_again = False
        self._is_closed = False
        self._lease_timer: asyncio.TimerHandle | None = None

    @property
    def has_room(self) -> bool:
        return len(self.running) < self.services.limits.running_max and not self.services.is_draining

    def open(self) -> None:
        """Take a lease and start looking for work."""
        self._renew()
        self.look()

    # Leases.

    def _renew(self) -> None:
        limits = self.services.limits
        now_ms = self.services.clock.now_ms()

        def call(transaction: Transaction) -> int:
            holding.register_worker(transaction, self.id, now_ms=now_ms, lease_ms=limits.lease_ms)
            return holding.void_leases_of_the_dead(transaction, judged_at_ms=now_ms, now_ms=now_ms, alive=(self.id,))

        def done(freed: int | None, error: BaseException | None) -> None:
            if error is None and freed:
                logger.warning("worker %s: %d stream(s) of dead workers are due again", self.id, freed)
                self.look()

        if not self._is_closed:
            self.services.committer.submit(call, done)
            self._lease_timer = self.services.loop.call_later(limits.lease_ms / 3000, self._renew)

    # Looking for what is due.

    def look(self) -> None:
        """Claim what is due, then sleep until something is."""
        if self._is_closed:
            return
        if self._is_looking:
            self._look_again = True
            return
        self._is_looking = True
        self._is_short = False
        self._wake_ms = None  # what is expected from here on is another's business than this look's
        self._alarm.stop()
        limits = self.services.limits
        room = min(max(limits.claims_max, 1), limits.running_max - len(self.running)) if self.has_room else 0
        now_ms = self.services.clock.now_ms()
        names = tuple(REGISTRY.functions) + tuple(REGISTRY.actors)

        def call(transaction: Transaction) -> Claimed:
            store = transaction.store
            versions = versions_at_hand(store.pinned())
            streams = (
                holding.claim(transaction, self.id, now_ms=now_ms, limit=room, names=names, versions=versions)
                if room
                else []
            )
            return Claimed(streams, store.next_wake(names=names, versions=versions, after_ms=now_ms))

        def done(claimed: Claimed | None, error: BaseException | None) -> None:
            self._is_looking = False
            if claimed is not None:
                for stream in claimed.streams:
                    self.adopt(stream)
                self._sleep(claimed, was_full=len(claimed.streams) == room)
            else:
                if not isinstance(error, StoreError):
                    logger.error("worker %s: claiming failed", self.id, exc_info=error)
                self.expect(self.services.clock.now_ms() + max(limits.poll_ms, 1))
            self._passivate_idle()

        self.services.committer.submit(call, done)

    def _sleep(self, claimed: Claimed, *, was_full: bool) -> None:
        if self._look_again or (was_full and self.has_room):
            self._look_again = False
            self.look()
            return
        self._is_short = was_full
        self.expect(claimed.next_wake_ms)
        self.expect(self.services.clock.now_ms() + max(self.services.limits.poll_ms, 1))

    def _set_alarm(self, wake_ms: int) -> None:
        self._wake_ms = wake_ms
        self._alarm.set(wake_ms)

    def expect(self, wake_ms: int | None) -> None:
        """A stream was released or made due: look no later than `wake_ms`."""
        if wake_ms is None or self._is_closed:
            return
        if wake_ms <= self.services.clock.now_ms():
            self.look()
        elif self._wake_ms is None or wake_ms < self._wake_ms:
            self._set_alarm(wake_ms)

    # Running what was claimed.

    def adopt(self, stream: Stream, records: list[Record] | None = None) -> None:
        """Run a stream that this worker holds now. `records` spares reading those of a new one."""
        if self._is_closed:
            return  # it came with the last commits; closing makes it due for the next engine
        superseded = self.running.get(stream.number)
        if superseded is not None:
            # Another worker took the stream and let it go meanwhile: this run has lost it, and has not heard.
            self._losing.append(superseded)
            superseded.lose()
        resident = self._residents.pop(stream.number, None)
        if resident is not None:
            if self._is_current(resident, stream):
                self._hold(stream.number, resident)
                resident.resume(stream)
                return
            resident.evict()
        try:
            run = self._make(stream)
            if records is None:
                records = holding.read(self.services.reader, stream)
            self._hold(stream.number, run)
            run.start(records)
        except Exception as error:  # a snapshot or argument that cannot be read, a constructor that raises
            self._give_up(stream, error)

    def _give_up(self, stream: Stream, error: Exception) -> None:
        """Park a stream that cannot even be begun, so that whoever waits for it hears why."""
        logger.error("stream %s (%s/%s) cannot be run", stream.uid, stream.name, stream.key, exc_info=error)
        run = self.running.pop(stream.number, None)
        self.services.runners.pop(stream.number, None)
        if run is not None:
            run.evict()
        lease, now_ms = holding.lease_of(stream), self.services.clock.now_ms()

        def done(parked: Stream | None, refused: BaseException | None) -> None:
            if parked is not None:
                self._on_parked(parked, error)
            elif not isinstance(refused, LeaseLost | StoreError):
                logger.error("stream %s: parking it failed", stream.uid, exc_info=refused)

        self.services.committer.submit(
            lambda transaction: park(transaction, lease, reason=reason_of(error), now_ms=now_ms),
            done,
            needs=Needs((stream.number,)),
        )

    def _is_current(self, resident: Run, stream: Stream) -> bool:
        """Whether nobody else held the stream since. Then only arrivals were added, which it takes in."""
        return stream.epoch == resident.stream.epoch + 1

    def _make(self, stream: Stream) -> Run:
        if stream.type == FUNCTION:
            spec = REGISTRY.function(stream.name)
            return Invocation(
                self.services,
                stream,
                spec,
                on_end=self._ended,
                on_outcome=self._on_settled,
                on_timed_out=self._timed_out,
            )
        return Activation(self.services, stream, actor_spec(stream.name), on_end=self._ended, on_reply=self._replied)

    def _timed_out(self, stream: Stream, settled: Settled) -> None:
        self.drop_resident(stream.number)
        self._on_settled(stream, settled)

    def _replied(self, stream: Stream, settled: Settled) -> None:
        self._on_settled(stream, settled)
        if self._is_short:
            self.services.loop.call_soon(self._passivate_idle)

    def _hold(self, number: int, run: Run) -> None:
        self.running[number] = run
        self.services.runners[number] = run

    def _ended(self, run: Run, reason: End) -> None:
        number = run.stream.number
        if self.running.get(number) is run:
            del self.running[number]
        if run in self._losing:
            self._losing.remove(run)
        if self.services.runners.get(number) is run:
            del self.services.runners[number]
        if self._is_short:
            self.look()  # there was more to claim than there was room for
        match reason:
            case End.RELEASED:
                self._released(run)
            case End.RETRY:
                self._retry_later(number)
            case End.PARKED:
                self._on_parked(run.stream, run.cause or ParkedError(f"stream {run.stream.uid} is parked"))
            case _:
                pass

    def drop_resident(self, number: int) -> None:
        """Let a suspended body go: what it knows is out of date."""
        resident = self._residents.pop(number, None)
        if resident is not None:
            resident.evict()

    def _released(self, run: Run) -> None:
        stream = run.stream
        if run.can_stay and self.services.limits.residents_max and not self._is_closed:
            self._residents[stream.number] = run
            while len(self._residents) > self.services.limits.residents_max:
                _, oldest = self._residents.popitem(last=False)
                oldest.evict()
        else:
            run.evict()
        self.expect(stream.wake_ms)

    def _retry_later(self, number: int) -> None:
        """The append was refused, and the stream is still ours: replay it, after a moment."""
        self.services.loop.call_later(self.services.limits.poll_ms / 1000, self._retry, number)

    def _retry(self, number: int) -> None:
        try:
            stream = None if self._is_closed else self.services.reader.stream(number)
        except StoreError:
            logger.exception("worker %s: stream %d could not be read; it is tried again", self.id, number)
            self._retry_later(number)
            return
        if stream is not None and stream.holder == self.id and number not in self.running:
            self.adopt(stream)

    def observe(self, number: int, append: codec.Append, seq: int) -> bool:
        """Tell who runs the stream of an arrival. False if it is not in memory here."""
        run = self.running.get(number)
        if run is None:
            return False
        run.observe(append, seq)
        return True

    def _passivate_idle(self) -> None:
        """Let actors go that had nothing to do for a while."""
        now_ms = self.services.clock.now_ms()
        # Where there is no room for what is due, whoever has nothing to do makes some.
        before_ms = now_ms if self._is_short else now_ms - self.services.limits.passivate_ms
        idle = [run for run in self.running.values() if isinstance(run, Activation) and run.is_idle]
        excess = len(idle) - self.services.limits.residents_max
        idle.sort(key=lambda run: run.idle_since_ms)
        for place, run in enumerate(idle):
            if place < excess or run.idle_since_ms <= before_ms:
                run.passivate()

    # Closing.

    async def close(self) -> None:
        """Give up what is at rest, wait for step bodies up to `drain_ms`, then let everything go (R1)."""
        self._stop()
        loop = self.services.loop
        deadline = loop.time() + self.services.limits.drain_ms / 1000
        for run in list(self.running.values()):
            if isinstance(run, Activation):
                run.passivate()
        while self.running and loop.time() < deadline:
            await asyncio.sleep(0.005)
            for run in list(self.running.values()):
                if isinstance(run, Activation):
                    run.passivate()
        self.abandon()

        def call(transaction: Transaction) -> None:
            now_ms = self.services.clock.now_ms()
            for held in transaction.store.held_by(self.id):
                stream = transaction.stream(held.number)
                if stream is not None and stream.holder == self.id:
                    holding.free(transaction, stream, now_ms=now_ms)
            transaction.forget_worker(self.id)

        await self.services.committer.run(call, needs=Needs())

    def abandon(self) -> None:
        """Let everything go from memory (R1), and tell nobody: what is held stays so until the lease ends."""
        self._stop()
        for run in [*self.running.values(), *self._losing, *self._residents.values()]:
            run.evict()
        self._losing.clear()
        self._residents.clear()

    def _stop(self) -> None:
        self._is_closed = True
        self._alarm.stop()
        if self._lease_timer is not None:
            self._lease_timer.cancel()


def versions_at_hand(names: list[str]) -> list[str]:
    """Which of the functions named this process has, and their versions, as pinned executions have them."""
    known = [name for name in names if name in REGISTRY.functions]
    return [*known, *(REGISTRY.functions[name].pinned_version for name in known)]
