"""The seam of a running body: what its code asks for, and what becomes of that when it is cancelled.

Everything here runs on the body's own loop. An operation is named by lineage, looked up in the
memo, and waited for; when its outcome is delivered is decided by `Body`.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from semel.calls import CallbackCall, ChildCall, InvokeCall, StepCall, WaitCall
from semel.errors import (
    CallbackError,
    Evicted,
    LimitExceededError,
    NonDeterminismError,
    ReplayError,
    SerializationError,
    StoreError,
    ValidationError,
)
from semel.kernel import ids
from semel.kernel.divergence import TIMER
from semel.kernel.entry import ARRIVING, Kind, Payload, Started, Status
from semel.kernel.memo import Memo
from semel.kernel.operation import Action
from semel.runtime import patches, steps
from semel.runtime.body_loop import BodyLoop
from semel.runtime.frame import Frame, current_frame
from semel.runtime.meter import Meter
from semel.runtime.outcome import scope_failed, scope_succeeded
from semel.runtime.present_code import timer_source
from semel.runtime.services import Services
from semel.runtime.slot import ACTIONS, ASKED, DONE, QUEUED, RUNNING, WAITING, Outcome, Slot

logger = logging.getLogger("semel.body")
_STEP, _CONTEXT = Kind.STEP, Kind.CONTEXT
_GIVEN_UP = ("Cancelled", "it was cancelled with who waited for it; shield the wait, or create another")
_FROZEN = (
    "ScopeEnded",
    "its child context has ended, and with it the callback; wait for it inside, or create it outside",
)


class BodySeam:
    """A seam (`semel.context.Seam`) and the timers of a body loop, over one memo.

    `record` takes an update for the next append. `uid` is the stream's, `origin` that of the one it began as.
    """

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
    ) -> None:
        self.services = services
        self.memo = memo
        self.meter = meter
        self.stream = stream
        self.origin = origin
        self.stream_uid = uid
        self.divergence: ReplayError | StoreError | None = None
        self.closed: type[BaseException] | None = None
        self.beginning: list[Slot] = []
        self.loop = BodyLoop(self, on_error=self._report)
        self._record = record
        self._frame = Frame(lineage, scope)
        self._slots: dict[str, Slot] = {}
        self._fresh: list[Slot] = []
        self._interrupted: list[Slot] = []
        self._deliveries: list[tuple[Slot, Outcome]] = []  # nearly always one
        self._timers: dict[asyncio.TimerHandle, Slot] = {}
        self._scopes: dict[str, str] = {}
        self._closed_scopes: set[str] = set()
        self._inside: defaultdict[str, list[str]] = defaultdict(list)  # what was asked for in each open scope
        self._is_replaying = not memo.is_used_up
        self._is_retracing = bool(memo.operations)  # up to the first rest, an earlier run came this way
        self._randoms: dict[str, random.Random] = {}
        self._has_memo = bool(memo.operations) or memo.is_over

    def now(self) -> int:
        """The clock's time, never before what the body was told last."""
        return max(self.services.clock.now_ms(), self.loop.now_ms)

    # Operations, on the body's own loop.

    async def step(self, call: StepCall) -> Any:
        if self.closed is not None or self.divergence is not None:
            await self._gate()
        slot = self._ask(_STEP, call.options.name, call.source, call.subtype)
        slot.call = call
        slot.arguments, slot.copies = steps.prepare(call)
        recorded = slot.recorded
        if recorded is not None and recorded.start is not None:
            self._differ(slot, recorded.start)
        if call.options.needs_key:
            known = "" if recorded is None or recorded.start is None else recorded.start.effect_key
            slot.effect_key = known or ids.effect_key(self.services.journal_id, self.origin, slot.id)
        if recorded is None or recorded.status not in ACTIONS:
            slot.context = contextvars.copy_context()
            if recorded is not None:
                slot.attempt = recorded.attempt
                if call.poll is not None:
                    steps.recall_state(slot, recorded, self._read(recorded.result))
                self._fresh.append(slot)
            elif self._is_replaying or call.options.starts_durably:
                self._fresh.append(slot)
            else:
                slot.phase = QUEUED
                self.beginning.append(slot)
        # `_outcome` once more, for the path that nearly every step takes.
        slot.waiter = self.loop.create_waiter()
        try:
            await slot.waiter
        except asyncio.CancelledError as error:
            if self.closed is not None:
                raise self.closed("this run has left memory; nothing it does is recorded") from None
            if slot.outcome is not None or not self._tell(slot):
                raise
            return await self._outcome(slot, cancelled=error.args)
        return self._value(slot)

    async def wait(self, call: WaitCall) -> None:
        await self._gate()
        slot = self._ask(Kind.WAIT, call.name, call.source)
        slot.delay_ms = call.delay_ms
        if slot.recorded is None or slot.recorded.status is Status.STARTED:
            self._fresh.append(slot)
        await self._outcome(slot)

    async def child(self, context: Any, call: ChildCall) -> Any:
        await self._gate()
        if call.is_flat:
            return await self._flat_child(context, call)
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
            return await self.leave_child(slot, token, scope_failed(slot, error))
        return await self.leave_child(slot, token, scope_succeeded(self.services, result))

    async def _flat_child(self, context: Any, call: ChildCall) -> Any:
        """Code that names its operations as a scope would, and is none."""
        token = self.enter_flat()
        try:
            made = call.function(context, *call.arguments)
            return await made if asyncio.iscoroutine(made) or asyncio.isfuture(made) else made
        finally:
            current_frame.reset(token)

    def enter_flat(self) -> contextvars.Token[Frame]:
        """Name what follows as a scope would."""
        frame = current_frame.get(self.loop.frame)
        return current_frame.set(frame.inside(frame.next_operation(), frame.scope or ""))

    def enter_child(self, call: ChildCall) -> tuple[Slot, contextvars.Token[Frame] | None]:
        """Open a scope. No token if it has an outcome already, so that its inside is not run again."""
        slot = self._ask(_CONTEXT, call.name, call.source, call.subtype)
        self._scopes[slot.id] = slot.parent
        recorded = slot.recorded
        if recorded is not None and recorded.status in (Status.SUCCEEDED, Status.FAILED):
            if not recorded.replay_children:
                return slot, None
        elif recorded is None:
            self._record(slot.update(Action.START, self.now()))
        return slot, current_frame.set(current_frame.get().inside(slot.path, slot.id))

    async def leave_child(self, slot: Slot, token: contextvars.Token[Frame], outcome: Outcome) -> Any:
        """Close a scope with its outcome, which is delivered like any other."""
        current_frame.reset(token)
        await self._gate()
        if slot.recorded is not None and slot.recorded.replay_children:
            slot.full = outcome  # its place in the order is that of the recorded one
        else:
            self._deliveries.append((slot, outcome))
        return await self._outcome(slot)

    def cancel_child(self, slot: Slot, token: contextvars.Token[Frame]) -> None:
        """Close a scope whose inside was cancelled."""
        current_frame.reset(token)
        if self.closed is None and slot.phase is not DONE:
            self._cancel_at_once(slot)

    def patched(self, name: str, source: str) -> bool:
        return patches.patched(self, name, source, root=self._frame, record=self._record)

    async def callback(self, call: CallbackCall) -> tuple[str, Slot]:
        await self._gate()
        slot = self._ask(Kind.CALLBACK, call.name, call.source, "Callback")
        slot.outside = call
        self._fresh.append(slot)
        return ids.callback_id(self.services.journal_id, self.stream_uid, slot.id), slot

    async def callback_result(self, slot: Slot) -> Any:
        await self._gate()
        while slot.outcome is None:
            if slot.phase is DONE:
                raise CallbackError(slot.name, *_FROZEN if slot.is_frozen else _GIVEN_UP)
            waiter = self.loop.create_waiter()
            waiting = (waiter, current_frame.get(self.loop.frame).scope or "")
            slot.waiters += (waiting,)
            try:
                await waiter
            except asyncio.CancelledError:
                if self.closed is not None:
                    raise self.closed("this run has left memory; nothing it does is recorded") from None
                slot.waiters = tuple(other for other in slot.waiters if other is not waiting)
                if slot.outcome is None and not slot.waiters and slot.phase is not DONE:
                    self._cancel_at_once(slot)
                raise
        return self._value(slot)

    async def invoke(self, call: InvokeCall) -> Any:
        await self._gate()
        payload = self.services.payload(f"arguments of {call.function!r}", [*call.arguments])
        slot = self._ask(Kind.CHAINED_INVOKE, call.name, call.source, "ChainedInvoke")
        slot.outside, slot.payload = call, payload
        slot.arguments = steps.digest(payload.data)
        if slot.recorded is None:
            self._take(slot, payload)
        elif slot.recorded.start is not None:
            self._differ(slot, slot.recorded.start)
        self._fresh.append(slot)
        return await self._outcome(slot)

    def _take(self, slot: Slot, payload: Payload) -> None:
        try:
            self.meter.take(f"{slot.kind} {slot.name!r}", payload)
        except LimitExceededError:
            self._slots.pop(slot.id, None)
            raise

    def random(self) -> random.Random:
        frame = current_frame.get(self.loop.frame)
        found = self._randoms.get(frame.lineage)
        if found is None:
            seed = f"{self.origin}/{frame.lineage}"
            found = self._randoms[frame.lineage] = random.Random(seed)  # noqa: S311  # replayed, so no secret
        return found

    def now_ms(self) -> int:
        return self.loop.now_ms

    def is_replaying(self) -> bool:
        return self._is_replaying or self._is_retracing

    @property
    def execution_id(self) -> str:
        return self.origin

    def _ask(self, kind: Kind, name: str, source: str, subtype: str = "") -> Slot:
        """Name the operation by lineage and look it up. Raises Evicted if the run diverges here, LimitExceededError."""
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
            self._inside[frame.scope].append(slot.id)
        if subtype:
            slot.subtype = subtype
        if self._has_memo:
            self._look_up(slot)
        if slot.recorded is None:
            meter = self.meter
            meter.operations += 1
            if meter.operations >= meter.operations_mark:
                meter.ask(kind, name)
        self._slots[slot.id] = slot
        return slot

    def _look_up(self, slot: Slot) -> None:
        try:
            slot.recorded = self.memo.ask(slot.id, slot.kind, slot.name, source=slot.source, subtype=slot.subtype)
        except NonDeterminismError as error:
            raise self.diverged(error) from None
        slot.is_recorded = slot.recorded is not None

    def _differ(self, slot: Slot, start: Started) -> None:
        """See whether a call has other arguments than recorded: told with a divergence, and one itself under strict."""
        if start.arguments == slot.arguments:
            return
        try:
            self.memo.differ(slot.id)
        except NonDeterminismError as error:
            raise self.diverged(error) from None

    def diverged(self, error: ReplayError | StoreError) -> Evicted:
        """What stops the body here. The error itself could be taken by user code for one of its own."""
        self.divergence = self.divergence or error
        self.loop.close_seam(Evicted)
        return Evicted(str(error))

    async def _gate(self) -> None:
        """Stop here if the seam is closed. The loop raises the signal, and ends a body that swallows it for ever."""
        if self.closed is not None or self.divergence is not None:
            await self.loop.create_waiter()

    async def _outcome(self, slot: Slot, *, cancelled: tuple[Any, ...] | None = None) -> Any:
        """Wait for the delivery; what cancelling the awaiter does is R2's."""
        while slot.outcome is None:
            slot.waiter = self.loop.create_waiter()
            try:
                await slot.waiter
            except asyncio.CancelledError as error:
                if self.closed is not None:
                    raise self.closed("this run has left memory; nothing it does is recorded") from None
                if slot.outcome is not None or not self._tell(slot):
                    raise
                cancelled = error.args
        if cancelled is not None and slot.outcome.status is not Status.CANCELLED:
            self._cancel_at_next_wait(cancelled)
        return self._value(slot)

    def _cancel_at_next_wait(self, message: tuple[Any, ...]) -> None:
        """The awaiter gets the true outcome. If it then waits for something else, it is still cancelled.

        Unless whoever cancelled it takes that back, as a timeout does whose block has ended.
        """
        task = asyncio.current_task()
        requests = 0 if task is None else task.cancelling()

        def cancel_again() -> None:
            if task is not None and requests and not task.done() and task.cancelling() >= requests:
                task.cancel(*message)
                task.uncancel()  # it is the same request, and counts once

        self.loop.call_soon(cancel_again)

    def _value(self, slot: Slot) -> Any:
        return slot.value(self._read)

    def _read(self, payload: Payload | None) -> Any:
        try:
            return self.read(payload)
        except (SerializationError, StoreError) as error:  # a value that this code, or nobody, can read
            raise self.diverged(error) from None

    def read(self, payload: Payload | None) -> Any:
        """The value of a payload of this stream."""
        return self.services.value(self.stream, payload)

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
        if slot.kind not in ARRIVING and recorded is not None and recorded.status in ACTIONS:
            return True
        if slot.kind is Kind.CONTEXT:
            return True
        if slot.kind is Kind.STEP and self._may_have_begun(slot):
            return True
        self._cancel_at_once(slot)
        return False

    def _may_have_begun(self, slot: Slot) -> bool:
        """A step that runs, or that an earlier run may have begun. Such a one is told, or ends as interrupted."""
        if (
            slot.call is not None
            and slot.call.on_cancel == "abandon"
            and slot.phase is RUNNING
            and not steps.has_ended(slot)
        ):
            return False
        if slot.phase is RUNNING:
            slot.is_cancelled = True
            self.tell_step(slot)
            return True
        recorded = slot.recorded
        was_begun = recorded is None or recorded.status in (Status.STARTED, Status.READY)
        if self._is_replaying and slot.phase is ASKED and was_begun:
            slot.is_cancelled = True
            slot.phase = QUEUED
            self._interrupted.append(slot)
            return True
        return slot.is_cancelled and slot.phase is not WAITING

    def tell_step(self, slot: Slot) -> None:
        """Let a step's running body know that its awaiter was cancelled."""
        raise NotImplementedError

    def _cancel_at_once(self, slot: Slot) -> None:
        recorded = slot.recorded
        self._slots.pop(slot.id, None)
        slot.phase = DONE
        if slot.handle is not None:
            self._timers.pop(slot.handle, None)
        if slot.kind is _CONTEXT:
            self._freeze_inside(slot.id)
        if recorded is None or recorded.status not in ACTIONS:
            self._record(slot.update(Action.CANCEL, self.now(), requested=True))

    # The timers of the body's loop: durable waits.

    def schedule(self, handle: asyncio.TimerHandle, *, delay_ms: int) -> None:
        slot = self._ask(Kind.WAIT, TIMER, timer_source())
        slot.delay_ms = delay_ms
        slot.handle = handle
        self._timers[handle] = slot
        if slot.recorded is None or slot.recorded.status is Status.STARTED:
            self._fresh.append(slot)

    def cancel(self, handle: asyncio.TimerHandle) -> None:
        slot = self._timers.get(handle)
        if slot is not None and slot.phase is not DONE and self.closed is None and self.divergence is None:
            self._cancel_at_once(slot)

    def _freeze_inside(self, scope: str) -> None:
        """A scope has settled: what is open inside stays as it stands, and comes to no end any more (J7)."""
        self._closed_scopes.add(scope)
        for name in self._inside.pop(scope, ()):
            slot = self._slots.pop(name, None)
            if slot is not None:
                slot.phase = DONE
                slot.is_frozen = True
                for waiter, where in slot.waiters:  # those outside would wait for ever; those inside are over
                    if not waiter.done() and not self._is_closed(where):
                        waiter.set_result(None)
            if name in self._inside:
                self._freeze_inside(name)

    def _is_closed(self, scope: str) -> bool:
        while scope:
            if scope in self._closed_scopes:
                return True
            scope = self._scopes.get(scope, "")
        return False

    def _report(self, context: dict[str, Any]) -> None:
        if not self.is_replaying():
            logger.error("in a body: %s", context.get("message"), exc_info=context.get("exception"))
