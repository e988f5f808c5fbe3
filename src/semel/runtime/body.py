"""One body: its loop, its operations, and the order in which it learns of their outcomes.

Between two rests exactly one outcome is delivered: in journal order while the memo lasts,
then as outcomes come. What the body asks for is recorded with the delivery that made it ask.
Nothing new is begun while the memo lasts: by then it may have been begun before.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from semel.context import ChildCall, Context, StepCall, WaitCall
from semel.errors import (
    Evicted,
    LimitExceededError,
    NonDeterminismError,
    ParkedError,
    ReplayError,
    SerializationError,
    ValidationError,
)
from semel.kernel import ids, values
from semel.kernel.entry import Effect, Kind, Status
from semel.kernel.memo import Completion, Memo
from semel.kernel.operation import Action, Update
from semel.runtime import steps
from semel.runtime.body_loop import BodyLoop, BodyTask
from semel.runtime.frame import Frame, current_frame
from semel.runtime.services import Services
from semel.runtime.slot import ACTIONS, ASKED, DONE, QUEUED, RUNNING, STARTING, WAITING, Outcome, Slot, interrupted

logger = logging.getLogger("semel.body")
TIMER = "timer"
_STEP, _CONTEXT = Kind.STEP, Kind.CONTEXT


class Body:
    """A seam (`semel.context.Seam`) and the timers of a body loop, over one memo.

    `record` takes an update for the next append; `at_rest` is called when the body can go no
    further by itself. Runs on the real loop's thread only.
    """

    def __init__(
        self,
        services: Services,
        *,
        memo: Memo,
        scope: str,
        lineage: str,
        origin: str,
        record: Callable[[Update], None],
        at_rest: Callable[[], None],
    ) -> None:
        self.services = services
        self.memo = memo
        self.origin = origin
        self.divergence: ReplayError | None = None
        self.main: BodyTask[Any] | None = None
        self.is_over = False
        self.running = 0
        self.busy = 0
        self.closed: type[BaseException] | None = None
        self.beginning: list[Slot] = []
        self.alarms: list[tuple[int, int, Slot]] = []
        self.loop = BodyLoop(self, on_error=self._report)
        self._record = record
        self._at_rest = at_rest
        self._frame = Frame(lineage, scope)
        self._scope = scope
        self._slots: dict[str, Slot] = {}
        self._fresh: list[Slot] = []
        self._interrupted: list[Slot] = []
        self._deliveries: list[tuple[Slot, Outcome]] = []  # nearly always one
        self._timers: dict[asyncio.TimerHandle, Slot] = {}
        self._scopes: dict[str, str] = {}
        self._closed_scopes: set[str] = set()
        self._is_replaying = not memo.is_used_up
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
            try:
                self._pump()
            except ReplayError as error:
                self.divergence = self.divergence or error
            except Exception as error:
                logger.exception("a body was stopped")
                self.divergence = self.divergence or ParkedError(f"the body was stopped by {error!r}")
            finally:
                self._is_pumping = False
        self._at_rest()

    def _pump(self) -> None:
        loop, main, deliveries = self.loop, self.main, self._deliveries
        while True:
            if loop.ready:
                loop.run_to_rest()
            if self.divergence is not None or self.busy or self.closed is not None:
                return
            if self._is_replaying and self._replay_one():
                continue
            if main is None or main.done():
                return
            if deliveries:
                self._deliver(*deliveries.pop(0))
            elif self._fresh:
                self._engage()
            elif not self.alarms or not self.ripen():
                return

    def _replay_one(self) -> bool:
        """Deliver the next recorded outcome, or find that the memo is used up."""
        completion = self.memo.upcoming()
        if completion is not None:
            if self.is_done:
                operation = completion.operation
                raise NonDeterminismError(operation.id, f"{operation.kind} {operation.name!r}", "nothing, and ended")
            self.memo.advance()
            self._deliver_recorded(completion)
            return True
        self._is_replaying = False
        for slot in self._slots.values():
            if slot.recorded is not None and slot.recorded.status is Status.CANCELLED and slot.kind is not Kind.CONTEXT:
                raise NonDeterminismError(slot.id, f"{slot.kind} {slot.name!r} cancelled", "its outcome")
        for slot in self._interrupted:
            self._deliveries.append((slot, Outcome(Status.FAILED, error=interrupted(slot))))
        self._interrupted.clear()
        return False

    def _deliver_recorded(self, completion: Completion) -> None:
        operation = completion.operation
        self.loop.now_ms = max(self.loop.now_ms, completion.at_ms)
        slot = self._slots.get(operation.id)
        if slot is not None:
            self._settle(slot, Outcome(operation.status, operation.result, operation.error))

    def _deliver(self, slot: Slot, outcome: Outcome) -> None:
        if slot.phase is DONE:
            return
        loop = self.loop
        at_ms = self.services.clock.now_ms()
        loop.now_ms = max(loop.now_ms, at_ms)
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
        if slot.handle is not None:
            self._timers.pop(slot.handle, None)
            self.loop.fire(slot.handle)

    def _freeze_inside(self, scope: str) -> None:
        """A scope has settled: what is open inside stays as it stands, and comes to no end any more (J7)."""
        self._closed_scopes.add(scope)
        for slot in [slot for slot in self._slots.values() if self._is_closed(slot.parent)]:
            del self._slots[slot.id]
            slot.phase = DONE

    def _is_closed(self, scope: str) -> bool:
        while scope:
            if scope in self._closed_scopes:
                return True
            scope = self._scopes.get(scope, "")
        return False

    def now(self) -> int:
        """The clock's time, never before what the body was told last."""
        return max(self.services.clock.now_ms(), self.loop.now_ms)

    # Engaging what the body asked for, once the memo is used up.

    def _engage(self) -> None:
        fresh, self._fresh = self._fresh, []
        for slot in fresh:
            if slot.phase is not ASKED:
                continue
            if slot.kind is Kind.WAIT:
                self._engage_wait(slot)
            else:
                self._engage_step(slot)

    def _engage_wait(self, slot: Slot) -> None:
        now_ms = self.now()
        recorded = slot.recorded
        if recorded is None:
            slot.due_ms = now_ms + slot.delay_ms
            self._record(slot.update(Action.START, now_ms, due_ms=slot.due_ms))
        else:
            slot.due_ms = recorded.due_ms
        self._arm(slot)

    def _engage_step(self, slot: Slot) -> None:
        recorded = slot.recorded
        status = Status.ABSENT if recorded is None else recorded.status
        if status is Status.PENDING and recorded is not None:
            slot.due_ms = recorded.due_ms
            self._arm(slot)
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

    def _arm(self, slot: Slot) -> None:
        slot.phase = WAITING
        self._alarm_count += 1
        heapq.heappush(self.alarms, (slot.due_ms or 0, self._alarm_count, slot))

    def next_alarm(self) -> int | None:
        """When the earliest wait or retry is due, or None."""
        while self.alarms and self.alarms[0][2].phase is not WAITING:
            heapq.heappop(self.alarms)
        return self.alarms[0][0] if self.alarms else None

    def ripen(self) -> bool:
        """Take what has come due: waits are delivered, steps in back-off begin. Tells whether anything was."""
        found = False
        now_ms = self.services.clock.now_ms()
        while (due_ms := self.next_alarm()) is not None and due_ms <= now_ms:
            slot = heapq.heappop(self.alarms)[2]
            found = True
            if slot.kind is Kind.WAIT:
                slot.phase = QUEUED
                self._deliveries.append((slot, Outcome(Status.SUCCEEDED)))
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
                steps.begin(self, slot)
                ended += running - self.running
                if slot.phase is STARTING:
                    slot.phase = RUNNING
        if ended:
            self.pump()

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
        elif outcome is not None:
            self._deliveries.append((slot, outcome))
        elif error is not None:
            self.step_failed(slot, error, raised)

    def step_failed(self, slot: Slot, error: values.ErrorData, raised: BaseException | None) -> None:
        """Schedule another attempt as a durable timer, or settle the step as failed."""
        assert slot.call is not None
        options = slot.call.options
        delay_ms = None
        if not slot.is_cancelled and options.effect is not Effect.AT_MOST_ONCE:
            cause = raised if raised is not None else InterruptedError()
            delay_ms = options.retry.delay_ms(slot.attempt + 1, cause, luck=self.services.entropy.random())
        if delay_ms is None:
            self._deliveries.append((slot, Outcome(Status.FAILED, error=error)))
            return
        now_ms = self.now()
        slot.attempt += 1
        slot.due_ms = now_ms + delay_ms
        self._record(slot.update(Action.RETRY, now_ms, due_ms=slot.due_ms, error=error))
        self._arm(slot)

    # The seam: what the body asks for, on its own loop.

    async def step(self, call: StepCall) -> Any:
        if self.closed is not None or self.divergence is not None:
            await self._gate()
        slot = self._ask(_STEP, call.options.name, call.source)
        slot.call = call
        slot.arguments, slot.copies = steps.prepare(call)
        recorded = slot.recorded
        if recorded is None or recorded.status not in ACTIONS:
            slot.context = contextvars.copy_context()
            if recorded is not None:
                slot.attempt = recorded.attempt
                self._fresh.append(slot)
            elif self._is_replaying or call.options.starts_durably:
                self._fresh.append(slot)
            else:
                slot.phase = QUEUED
                self.beginning.append(slot)
        # `_outcome` once more, for the path that nearly every step takes.
        slot.waiter = self.loop.create_future()
        try:
            await slot.waiter
        except asyncio.CancelledError:
            if self.closed is not None:
                raise self.closed("this run has left memory; nothing it does is recorded") from None
            if slot.outcome is not None or not self._tell(slot):
                raise
            return await self._outcome(slot)
        return self._value(slot)

    async def wait(self, call: WaitCall) -> None:
        await self._gate()
        slot = self._ask(Kind.WAIT, call.name, call.source)
        slot.delay_ms = call.delay_ms
        if slot.recorded is None or slot.recorded.status is Status.STARTED:
            self._fresh.append(slot)
        await self._outcome(slot)

    async def child(self, context: Context, call: ChildCall) -> Any:
        await self._gate()
        slot, token = self.enter_child(call)
        if token is None:
            return await self._outcome(slot)
        try:
            made = call.function(context, *call.arguments)
            result = await made if asyncio.iscoroutine(made) or asyncio.isfuture(made) else made
        except asyncio.CancelledError:
            self.cancel_child(slot, token)
            raise
        except Exception as error:  # whatever user code raises is the scope's outcome
            return await self.leave_child(slot, token, failed(error))
        return await self.leave_child(slot, token, succeeded(self.services, result))

    def enter_child(self, call: ChildCall) -> tuple[Slot, contextvars.Token[Frame] | None]:
        """Open a scope. No token if it has an outcome already, so that its inside is not run again."""
        slot = self._ask(_CONTEXT, call.name, call.source)
        self._scopes[slot.id] = slot.parent
        if slot.recorded is not None and slot.recorded.status in (Status.SUCCEEDED, Status.FAILED):
            return slot, None
        if slot.recorded is None:
            self._record(slot.update(Action.START, self.now()))
        return slot, current_frame.set(current_frame.get().inside(slot.path, slot.id))

    async def leave_child(self, slot: Slot, token: contextvars.Token[Frame], outcome: Outcome) -> Any:
        """Close a scope with its outcome, which is delivered like any other."""
        current_frame.reset(token)
        await self._gate()
        self._deliveries.append((slot, outcome))
        return await self._outcome(slot)

    def cancel_child(self, slot: Slot, token: contextvars.Token[Frame]) -> None:
        """Close a scope whose inside was cancelled."""
        current_frame.reset(token)
        if self.closed is None:
            self._cancel_at_once(slot)

    def now_ms(self) -> int:
        return self.loop.now_ms

    def is_replaying(self) -> bool:
        return self._is_replaying

    @property
    def execution_id(self) -> str:
        return self.origin

    def _ask(self, kind: Kind, name: str, source: str) -> Slot:
        """Name the operation by lineage and look it up. Raises Evicted if the run diverges here."""
        running = asyncio._get_running_loop()  # noqa: SLF001  # the documented get_running_loop raises a plain error
        if running is not self.loop:
            raise ValidationError(
                f"{kind} {name!r}: it was asked for outside the body, expected a call from the durable function or "
                f"handler itself; a step's body and other threads have no operations"
            )
        frame = current_frame.get(self.loop.frame)
        if self._closed_scopes and self._is_closed(frame.scope or ""):
            raise ValidationError(
                f"{kind} {name!r}: its child context {frame.scope!r} has ended, expected an open one; "
                f"await every task that a child context starts before it returns"
            )
        path = frame.next_operation()
        slot = Slot(
            path if len(path) <= ids.OPERATION_ID_LENGTH_MAX else ids.operation_id(path), kind, name, path, source
        )
        if frame.scope:
            slot.parent = frame.scope
        if self.memo.operations:
            self._look_up(slot)
        self._slots[slot.id] = slot
        return slot

    def _look_up(self, slot: Slot) -> None:
        try:
            slot.recorded = self.memo.ask(slot.id, slot.kind, slot.name, source=slot.source)
        except NonDeterminismError as error:
            raise self.diverged(error) from None
        slot.is_recorded = slot.recorded is not None

    def diverged(self, error: ReplayError) -> Evicted:
        """What stops the body here. The error itself could be taken by user code for one of its own."""
        self.divergence = self.divergence or error
        self.loop.close_seam(Evicted)
        return Evicted(str(error))

    async def _gate(self) -> None:
        """Stop here if the seam is closed. The loop raises the signal, and ends a body that swallows it for ever."""
        if self.closed is not None or self.divergence is not None:
            await self.loop.create_future()

    async def _outcome(self, slot: Slot) -> Any:
        """Wait for the delivery; what cancelling the awaiter does is R2's."""
        while slot.outcome is None:
            slot.waiter = self.loop.create_future()
            try:
                await slot.waiter
            except asyncio.CancelledError:
                if self.closed is not None:
                    raise self.closed("this run has left memory; nothing it does is recorded") from None
                if slot.outcome is not None or not self._tell(slot):
                    raise
        return self._value(slot)

    def _value(self, slot: Slot) -> Any:
        try:
            return slot.value()
        except SerializationError as error:  # a result that this code cannot read
            raise self.diverged(error) from None

    # Cancellation (R2).

    def _tell(self, slot: Slot) -> bool:
        """The awaiter was cancelled. Tells whether it has to wait for the true outcome."""
        recorded = slot.recorded
        if slot.phase is DONE:
            return False
        if recorded is not None and recorded.status is Status.CANCELLED and recorded.requested:
            self._slots.pop(slot.id, None)
            slot.phase = DONE
            return False
        if recorded is not None and recorded.status in ACTIONS:
            return True
        if slot.kind is Kind.CONTEXT:
            return True
        if slot.kind is Kind.STEP and self._may_have_begun(slot):
            return True
        self._cancel_at_once(slot)
        return False

    def _may_have_begun(self, slot: Slot) -> bool:
        """A step that runs, or that an earlier run may have begun. Such a one is told, or ends as interrupted."""
        if slot.call is not None and slot.call.on_cancel == "abandon" and slot.phase is RUNNING:
            return False
        if slot.phase is RUNNING:
            slot.is_cancelled = True
            steps.cancel(self, slot)
            return True
        recorded = slot.recorded
        was_begun = recorded is None or recorded.status in (Status.STARTED, Status.READY)
        if self._is_replaying and slot.phase is ASKED and was_begun:
            slot.is_cancelled = True
            slot.phase = QUEUED
            self._interrupted.append(slot)
            return True
        return slot.is_cancelled and slot.phase is not WAITING

    def _cancel_at_once(self, slot: Slot) -> None:
        recorded = slot.recorded
        self._slots.pop(slot.id, None)
        slot.phase = DONE
        if slot.handle is not None:
            self._timers.pop(slot.handle, None)
        if recorded is None or recorded.status not in ACTIONS:
            self._record(slot.update(Action.CANCEL, self.now(), requested=True))

    # The timers of the body's loop: durable waits.

    def schedule(self, handle: asyncio.TimerHandle, *, delay_ms: int) -> None:
        slot = self._ask(Kind.WAIT, TIMER, "")
        slot.delay_ms = delay_ms
        slot.handle = handle
        self._timers[handle] = slot
        if slot.recorded is None or slot.recorded.status is Status.STARTED:
            self._fresh.append(slot)

    def cancel(self, handle: asyncio.TimerHandle) -> None:
        slot = self._timers.get(handle)
        if slot is not None and self.closed is None and self.divergence is None:
            self._cancel_at_once(slot)

    # Leaving memory (R1).

    def evict(self, signal: type[BaseException], name: str) -> None:
        """Close the seam, unwind every task, keep what will not end. The run has no outcome."""
        if self.closed is not None:
            return
        self.closed = signal
        self.loop.close_seam(signal)
        self.services.keep(self.loop.cancel_all(), name)
        self._slots.clear()
        self._fresh.clear()
        self._deliveries.clear()
        self.beginning.clear()
        self.alarms.clear()
        if not self.running:
            self.loop.let_go()
            self._at_rest = _nothing
            self.main = None

    def _report(self, context: dict[str, Any]) -> None:
        if not self._is_replaying:
            logger.error("in a body: %s", context.get("message"), exc_info=context.get("exception"))


def _nothing() -> None:
    """What a body that has left memory does at rest. It holds on to nobody, so that nothing holds on to it."""


def succeeded(services: Services, result: Any) -> Outcome:
    """The outcome of code that returned. A value that cannot be kept makes it a failure."""
    try:
        return Outcome(Status.SUCCEEDED, None if result is None else services.payload("return value", result))
    except (SerializationError, LimitExceededError) as error:
        return failed(error)


def failed(error: BaseException) -> Outcome:
    """The outcome of code that raised."""
    return Outcome(Status.FAILED, error=values.describe_error(error))
