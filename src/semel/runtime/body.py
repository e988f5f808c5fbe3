"""One body: its loop, its operations, and the order in which it learns of their outcomes.

Between two rests exactly one outcome is delivered: in journal order while the memo lasts,
then as outcomes come. What the body asks for is recorded with the delivery that made it ask.
Nothing new is begun while the memo lasts: by then it may have been begun before.
"""

from __future__ import annotations

import contextvars
import heapq
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from semel.errors import ParkedError, ReplayError
from semel.kernel import values
from semel.kernel.entry import ARRIVING, Effect, Kind, Status
from semel.kernel.memo import Completion, Memo
from semel.kernel.operation import Action, Deliver, Operation
from semel.kernel.size import error_size, outcome_size
from semel.runtime import arrivals, steps
from semel.runtime.body_loop import BodyTask
from semel.runtime.meter import Meter
from semel.runtime.seam import BodySeam
from semel.runtime.services import Services
from semel.runtime.slot import ASKED, DONE, QUEUED, RUNNING, STARTING, WAITING, Outcome, Slot, interrupted

logger = logging.getLogger("semel.body")
_CONTEXT = Kind.CONTEXT


class Body(BodySeam):
    """A body and the delivery of its outcomes.

    `record` takes an update for the next append; `at_rest` is called when the body can go no
    further by itself; `time_out` with the id of a callback or invoke whose time is up, and says whether
    that can be recorded already; `name` is that of its function, for warnings. Runs on the real loop's
    thread only.
    """

    name = ""

    def __init__(
        self,
        services: Services,
        *,
        memo: Memo,
        meter: Meter,
        stream: int,
        scope: str,
        lineage: str,
        origin: str,
        uid: str,
        record: Callable[[Any], None],
        at_rest: Callable[[], None],
        time_out: Callable[[str], bool],
    ) -> None:
        super().__init__(
            services,
            memo=memo,
            meter=meter,
            stream=stream,
            scope=scope,
            lineage=lineage,
            origin=origin,
            uid=uid,
            record=record,
        )
        self.main: BodyTask[Any] | None = None
        self.is_over = False
        self.is_paused = False  # nothing comes due and nothing new is engaged
        self.running = 0
        self.busy = 0
        self.alarms: list[tuple[int, int, Slot]] = []
        self.late: list[Slot] = []  # out of time before their start was on disk
        self._at_rest = at_rest
        self._time_out = time_out
        self._is_pumping = False
        self._alarm_count = 0

    # The life of a body.

    def start(self, main: Coroutine[Any, Any, Any], *, now_ms: int) -> None:
        """Begin the body in a context of its own, at the time of its scope's start, and run it to rest."""
        self.loop.now_ms = now_ms
        self.main = self.loop.spawn(main, context=contextvars.Context(), frame=self._frame)
        self.pump()

    @property
    def is_done(self) -> bool:
        return self.main is not None and self.main.done()

    @property
    def has_open_operations(self) -> bool:
        """Whether anything can still wake the body."""
        return bool(self._slots)

    @property
    def must_begin(self) -> bool:
        """Whether the start of a queued step is recorded: not begun, it would count as interrupted."""
        return any(slot.call is not None and slot.call.options.starts_durably for slot in self.beginning)

    def pump(self) -> None:
        """Deliver what there is, one outcome at a time, until the body can go no further."""
        if self._is_pumping or self.closed is not None:
            return
        if not self.is_over:
            self._is_pumping = True
            services = self.services
            outer, services.pumping = services.pumping, self
            try:
                self._pump()
            except ReplayError as error:
                self.divergence = self.divergence or error
            except Exception as error:
                logger.exception("a body was stopped")
                self.divergence = self.divergence or ParkedError(f"the body was stopped by {error!r}")
            finally:
                self._is_pumping = False
                services.pumping = outer
        self._at_rest()

    def _pump(self) -> None:
        loop, main, deliveries = self.loop, self.main, self._deliveries
        while True:
            if loop.ready:
                try:
                    loop.run_to_rest()
                except SystemExit:
                    continue  # it is the outcome of the task that raised it: an engine never exits its host
            if self.divergence is not None or self.busy or self.closed is not None:
                return
            if self._has_memo and self._replay_one():
                continue
            self._is_retracing = False
            if main is None or main.done():
                return
            if deliveries:
                self._deliver(*deliveries.pop(0))
            elif self.is_paused:
                return
            elif self._fresh:
                self._engage()
            elif not (self.alarms or self.late) or not self.ripen():
                return

    def _replay_one(self) -> bool:
        """Deliver the next recorded outcome, or find that the memo is used up."""
        completion = self.memo.upcoming(has_ended=self.is_done)
        if completion is not None:
            self.memo.advance()
            self._deliver_recorded(completion)
            return True
        self._is_replaying = False
        self.memo.let_go()
        for slot in self._slots.values():
            if slot.recorded is not None and slot.recorded.status is Status.CANCELLED and slot.kind is not Kind.CONTEXT:
                raise self.memo.not_cancelled(slot.recorded)
        # Before anything new begins: what was recorded by now, the first run had asked for by now.
        self.memo.check_all_asked(has_ended=self.is_done)
        self._has_memo = False
        for slot in self._interrupted:
            self._deliveries.append((slot, Outcome(Status.FAILED, error=interrupted(slot))))
        self._interrupted.clear()
        return False

    def _deliver_recorded(self, completion: Completion) -> None:
        operation = completion.operation
        self.loop.now_ms = max(self.loop.now_ms, completion.at_ms)
        slot = self._slots.get(operation.id)
        if slot is None:
            return
        outcome = Outcome(operation.status, operation.result, operation.error)
        if operation.replay_children:
            if slot.full is None:
                raise self.memo.not_ended(operation)
            outcome = slot.full
        self._settle(slot, outcome)

    def _deliver(self, slot: Slot, outcome: Outcome) -> None:
        if slot.phase is DONE:
            return
        loop = self.loop
        at_ms = self.services.clock.now_ms()
        loop.now_ms = max(loop.now_ms, at_ms)
        if slot.kind in ARRIVING:
            self.meter.add(outcome_size(outcome.result, outcome.error))  # recorded already, by who brought it
            self._record(Deliver(slot.id, loop.now_ms))
        else:
            result, meter = outcome.result, self.meter
            size = 0 if result is None or outcome.replay_children else len(result.data)
            if size < meter.value_mark and meter.bytes + size < meter.bytes_mark and outcome.error is None:
                meter.bytes += size
            elif size or outcome.error is not None:
                outcome = meter.admit(f"{slot.kind} {slot.name!r}", outcome)
            self._record(slot.closing(outcome, loop.now_ms))
        self._settle(slot, outcome)

    def _settle(self, slot: Slot, outcome: Outcome) -> None:
        self._slots.pop(slot.id, None)
        slot.phase = DONE
        slot.outcome = outcome
        if slot.kind is _CONTEXT:
            self._freeze_inside(slot.id)
        waiter = slot.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        for told, _ in slot.waiters:
            if not told.done():
                told.set_result(None)
        if slot.handle is not None:
            self._timers.pop(slot.handle, None)
            self.loop.fire(slot.handle)

    # Engaging what the body asked for, once the memo is used up.

    def _engage(self) -> None:
        fresh, self._fresh = self._fresh, []
        known = len(self._deliveries)
        for slot in fresh:
            if slot.phase is not ASKED:
                continue
            if slot.kind is Kind.WAIT:
                self._engage_wait(slot)
            elif slot.kind in ARRIVING:
                arrivals.engage(self, slot)
            else:
                self._engage_step(slot)
        if len(self._deliveries) > known + 1:
            # Asked for in one order, answered in another while nobody looked: who answered first is told first.
            self._deliveries[known:] = sorted(
                self._deliveries[known:], key=lambda pair: self.memo.place_of_arrival(pair[0].id)
            )

    def _engage_wait(self, slot: Slot) -> None:
        now_ms = self.now()
        recorded = slot.recorded
        if recorded is None:
            slot.due_ms = now_ms + slot.delay_ms
            self._record(slot.update(Action.START, now_ms, due_ms=slot.due_ms))
        else:
            slot.due_ms = recorded.due_ms
        self.arm(slot)

    def arrived(self, operation: Operation) -> None:
        """Somebody else changed an operation of this body, and that is durable. `pump` goes on with it."""
        self.memo.arrived(operation)
        slot = self._slots.get(operation.id)
        if slot is not None:
            arrivals.take_in(self, slot, operation)

    def record(self, update: Any) -> None:
        """Put an update into the next append."""
        self._record(update)

    def deliver_later(self, slot: Slot, outcome: Outcome) -> None:
        """Let the body learn of an outcome when its turn comes."""
        self._deliveries.append((slot, outcome))

    def _engage_step(self, slot: Slot) -> None:
        recorded = slot.recorded
        status = Status.ABSENT if recorded is None else recorded.status
        if status is Status.PENDING and recorded is not None:
            slot.due_ms = recorded.due_ms
            self.arm(slot)
        elif status is Status.STARTED and slot.call is not None and slot.call.options.starts_durably:
            self.step_failed(slot, interrupted(slot), None)
        else:
            self._queue(slot)

    def _queue(self, slot: Slot) -> None:
        """Let the step begin once everything before it is durable (R4)."""
        slot.phase = QUEUED
        if slot.due_ms is not None:
            slot.due_ms = None
        if slot.call is not None and slot.call.options.starts_durably:
            self._record(slot.update(Action.START, self.now()))
        self.beginning.append(slot)

    def arm(self, slot: Slot) -> None:
        """Wait for the slot's time, or for ever if it has none."""
        slot.phase = WAITING
        if slot.due_ms is None:
            return
        self._alarm_count += 1
        heapq.heappush(self.alarms, (slot.due_ms, self._alarm_count, slot))

    def next_alarm(self) -> int | None:
        """When the earliest wait or retry is due, or None."""
        while self.alarms and (self.alarms[0][2].phase is not WAITING or self.alarms[0][2].due_ms != self.alarms[0][0]):
            heapq.heappop(self.alarms)
        return self.alarms[0][0] if self.alarms else None

    def ripen(self) -> bool:
        """Take what has come due: waits are delivered, steps in back-off begin. Tells whether anything was."""
        found = False
        self.late = [slot for slot in self.late if slot.phase is WAITING and not self._time_out(slot.id)]
        now_ms = self.services.clock.now_ms()
        while (due_ms := self.next_alarm()) is not None and due_ms <= now_ms:
            slot = heapq.heappop(self.alarms)[2]
            found = True
            if slot.kind is Kind.WAIT:
                slot.phase = QUEUED
                self._deliveries.append((slot, Outcome(Status.SUCCEEDED)))
            elif slot.kind in ARRIVING:
                slot.due_ms = None
                if not self._time_out(slot.id):
                    self.late.append(slot)
            else:
                self._record(slot.update(Action.READY, self.now()))
                self._queue(slot)
        return found

    def begin(self, slots: list[Slot]) -> None:
        """Run the bodies of steps whose past is durable."""
        ended = 0
        for slot in slots:
            if slot.phase is QUEUED:
                slot.phase = STARTING
                self.running += 1
                running = self.running
                self._begin_step(slot)
                ended += running - self.running
                if slot.phase is STARTING:
                    slot.phase = RUNNING
        if ended:
            self.pump()

    def _begin_step(self, slot: Slot) -> None:
        try:
            steps.begin(self, slot)
        except Exception as error:
            logger.exception("step %r (%s) could not begin", slot.name, slot.id)
            self.running -= 1
            slot.phase = DONE
            self.divergence = self.divergence or ParkedError(f"step {slot.name!r} could not begin: {error!r}")

    def tell_step(self, slot: Slot) -> None:
        steps.cancel(self, slot)

    # What comes back from step bodies.

    def step_ended(self, slot: Slot, outcome: Outcome | None, error: values.ErrorData | None, raised: Any) -> None:
        """A step's body ended: with an outcome, or with an error that its policy may retry."""
        self.take_end(slot, outcome, error, raised)
        self.pump()

    def take_end(self, slot: Slot, outcome: Outcome | None, error: values.ErrorData | None, raised: Any) -> None:
        """The first half of `step_ended`, for a step that ended within its first slice: `begin` delivers it."""
        self.running -= 1
        slot.task = None
        if self.closed is not None:
            self._at_rest()
        elif slot.phase is DONE:
            logger.warning("step %r (%s) ended after it was abandoned; its result is dropped", slot.name, slot.id)
        elif outcome is not None and slot.call is not None and slot.call.poll is not None:
            self._polled(slot, outcome)
        elif outcome is not None:
            self._deliveries.append((slot, outcome))
        elif error is not None:
            self.step_failed(slot, error, raised)

    def _polled(self, slot: Slot, outcome: Outcome) -> None:
        """A check of a condition returned: its result is the outcome, or the state of the next check."""
        verdict = steps.judge(slot, outcome, luck=self.services.entropy.random())
        if slot.is_cancelled and not isinstance(verdict, Outcome):
            verdict = Outcome(Status.CANCELLED)  # there is no next check
        size = 0 if outcome.result is None else len(outcome.result.data)
        if not isinstance(verdict, Outcome) and not self.meter.has_room(size):
            verdict = outcome  # refused when it is delivered
        if isinstance(verdict, Outcome):
            self._deliveries.append((slot, verdict))
            return
        self.meter.add(size)
        now_ms = self.now()
        slot.attempt += 1
        slot.due_ms = now_ms + verdict
        self._record(slot.update(Action.RETRY, now_ms, due_ms=slot.due_ms, payload=outcome.result))
        self.arm(slot)

    def step_failed(self, slot: Slot, error: values.ErrorData, raised: BaseException | None) -> None:
        """Schedule another attempt as a durable timer, or settle the step as failed."""
        assert slot.call is not None
        options = slot.call.options
        delay_ms = None
        if not slot.is_cancelled and options.effect is not Effect.AT_MOST_ONCE:
            cause = raised if raised is not None else InterruptedError()
            try:
                delay_ms = options.retry.delay_ms(slot.attempt + 1, cause, luck=self.services.entropy.random())
            except Exception as failed:  # the policy's function is the user's
                found = values.describe_error(failed)
                told = f"{found.message}; the retry policy was asked about {error.type}: {error.message}"
                error = values.ErrorData(found.type, told)
        size = error_size(error)
        if delay_ms is None or not self.meter.has_room(size):
            self._deliveries.append((slot, Outcome(Status.FAILED, error=error)))
            return
        self.meter.add(size)
        now_ms = self.now()
        slot.attempt += 1
        slot.due_ms = now_ms + delay_ms
        self._record(slot.update(Action.RETRY, now_ms, due_ms=slot.due_ms, error=error))
        self.arm(slot)

    # Leaving memory (R1).

    def evict(self, signal: type[BaseException], name: str) -> None:
        """Close the seam, unwind every task, keep what will not end. The run has no outcome."""
        if self.closed is not None:
            return
        self.closed = signal
        self.loop.close_seam(signal)
        self._unwind(name)
        self._slots.clear()
        self._fresh.clear()
        self._deliveries.clear()
        self.beginning.clear()
        self.alarms.clear()
        self.late.clear()
        if not self.running:
            self.loop.let_go()
            self._at_rest = _nothing
            self.main = None

    def _unwind(self, name: str) -> None:
        while not self.loop.is_empty:
            try:
                self.services.keep(self.loop.cancel_all(), name)
            except SystemExit:
                continue  # a task raised it while it ended
            return


def _nothing() -> None:
    """What a body that has left memory does at rest. It holds on to nobody, so that nothing holds on to it."""
