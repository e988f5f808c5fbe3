"""One run of a durable function: claim in hand, until it settles, suspends or loses its lease.

The life in one glance: start (replay what is recorded), at rest decide: finish, append and
begin steps, or release. A released invocation stays as a resident and is resumed or evicted.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Coroutine
from enum import Enum
from functools import partial
from typing import Any

from semel.calls import StepCall, place
from semel.context import Context
from semel.errors import Evicted, LeaseLost, ParkedError, StepError, Suspend, UnavailableError
from semel.function import FunctionSpec, step_options
from semel.journal.advance import Advanced, Then
from semel.journal.lifecycle import TimedOut, time_out
from semel.kernel.entry import ARRIVING, Kind, Record, Settled, Started
from semel.kernel.memo import Memo, is_patch
from semel.kernel.operation import Update
from semel.kernel.size import entry_size
from semel.kernel.values import ErrorData
from semel.retry import NEVER
from semel.runtime.alarm import Alarm
from semel.runtime.body import Body
from semel.runtime.holder import Holder, is_expected, is_refused, is_retryable
from semel.runtime.meter import Meter
from semel.runtime.outcome import RecordedError, failed, succeeded
from semel.runtime.present_code import PresentCode
from semel.runtime.services import Services
from semel.runtime.slot import ACTIONS, Outcome, Slot
from semel.runtime.sync_body import SyncBody
from semel.store import codec
from semel.store.base import PARKED, PAUSED, Needs, Stream, Transaction

logger = logging.getLogger("semel.invocation")
ROOT = "1"
# What a seam stops a run with. Whatever else user code raises is the body's own failure.
SIGNALS = (Evicted, LeaseLost, Suspend)
_KEEP = Then.KEEP


class End(Enum):
    """Why a run holds its stream no more."""

    FINISHED = "finished"
    RELEASED = "released"
    PARKED = "parked"
    RETRY = "retry"
    LOST = "lost"


class Invocation:
    """Runs one execution. `on_end(invocation, reason)` is called once, when it holds the stream no more."""

    def __init__(
        self,
        services: Services,
        stream: Stream,
        spec: FunctionSpec,
        *,
        on_end: Callable[[Invocation, End], None],
        on_outcome: Callable[[Stream, Settled], None],
        on_timed_out: Callable[[Stream, Settled], None],
    ) -> None:
        self.services = services
        self.spec = spec
        self.holder = Holder(services, stream, on_durable=self._durable, on_lost=self._lost)
        self._on_end = on_end
        self._on_outcome = on_outcome
        self._on_timed_out = on_timed_out
        self._alarm = Alarm(services, self._wake)
        self._deadline: Alarm | None = None
        self._is_held_back = False  # its time was over when it was claimed, so that its body was not let go on
        self._covered: list[Slot] = []
        self._ending: End | None = None
        self._is_ended = False
        self.cause: Exception | None = None
        self.body: Body

    @property
    def stream(self) -> Stream:
        return self.holder.stream

    @property
    def can_stay(self) -> bool:
        """Whether a suspended run may stay in memory: a `def` body would keep its thread."""
        return self.spec.is_async and self.body.main is not None

    def start(self, records: list[Record]) -> None:
        """Run the function over what is recorded. `records` begin with the execution's start."""
        started = records[0].entry
        if not isinstance(started, Started) or started.kind is not Kind.EXECUTION:
            raise AssertionError(f"stream {self.stream.uid}: its first entry is {started!r}, expected a start")
        self.holder.seen = max(self.holder.seen, records[-1].seq if records else 0)
        self.holder.load(records)
        memo = Memo.of(records, scope="", folded=self.holder.operations) if len(records) > 1 else Memo({}, [])
        memo.stream, memo.is_strict = self.stream.uid, self.spec.is_strict
        memo.code = PresentCode(self.spec.function, is_unchanged=partial(_is_version, self.spec, started.version))
        self.body = Body(
            self.services,
            memo=memo,
            meter=self._meter(records),
            stream=self.stream.number,
            scope="",
            lineage=ROOT,
            origin=self.stream.origin or self.stream.uid,
            uid=self.stream.uid,
            record=self.holder.record,
            at_rest=self._at_rest,
            time_out=self.holder.time_out,
        )
        self.body.name = self.spec.name
        if not self._may_go_on():
            return
        arguments = tuple(self.body.read(started.payload) or ())
        self.body.start(self._main(arguments), now_ms=records[0].time_ms + started.offset_ms)

    def _meter(self, records: list[Record]) -> Meter:
        """Counts that go on from what is recorded."""
        meter = Meter(self.services.limits, f"execution {self.stream.key!r} of {self.stream.name}", is_bounded=True)
        folded = self.holder.operations.values()
        meter.begin(
            # Neither the execution itself nor a patch is one that it asked for.
            operations=sum(one.kind is not Kind.EXECUTION and not is_patch(one) for one in folded),
            size=sum(entry_size(record.entry) for record in records),
            value=entry_size(records[0].entry),
        )
        return meter

    def _main(self, arguments: tuple[Any, ...]) -> Coroutine[Any, Any, Any]:
        if self.spec.is_plain:
            return _plain(self.body, self.spec, arguments)
        if not self.spec.is_async:
            return SyncBody(self.body).run(self.spec.function, arguments)
        try:
            main: Coroutine[Any, Any, Any] = self.spec.function(Context(self.body), *arguments)
        except TypeError as error:  # arguments that the function does not take
            return _raising(error)
        return main

    def resume(self, stream: Stream) -> None:
        """Go on under a new claim: a resident does not replay."""
        self.holder.take(stream, seen=self.holder.seen)
        self._is_ended = False
        self._catch_up()
        if self._may_go_on():
            self._wake()

    def _may_go_on(self) -> bool:
        """Whether the body is to run: there is time left, and the execution is not paused."""
        due_ms = self.holder.operations[self.stream.uid].due_ms
        self._is_held_back = due_ms is not None and due_ms <= self.services.clock.now_ms()
        self._set_deadline(due_ms)
        if self._is_held_back:
            return False
        if self.stream.status == PAUSED:
            self._release()  # it was claimed for its deadline, and the clock was set back
            return False
        return True

    def notice(self) -> None:
        """Somebody wrote to the stream: look at what it is."""
        if self._ending is None and not self._is_ended:
            self._catch_up()
            self._wake()

    def observe(self, append: codec.Append, seq: int) -> None:
        """An arrival was committed. On the loop, in the order of commits."""
        if self._ending is not None or self._is_ended or seq <= self.holder.seen:
            return
        if seq == self.holder.seen + 1:
            self.holder.seen += len(append.entries)
            for record in codec.records(append, seq=seq):
                self._take_in(record)
        else:
            self._catch_up()
        self._wake()

    def _take_in(self, record: Record) -> None:
        operation = self.holder.take_in(record)
        if operation is not None and operation.kind in ARRIVING:
            self.body.arrived(operation)

    def _catch_up(self) -> None:
        """Take in what others appended since this run last looked."""
        if self.stream.head > self.holder.seen:
            for record in self.holder.unseen():
                self._take_in(record)

    def _wake(self) -> None:
        self.body.pump()

    # At rest: what next.

    def _at_rest(self) -> None:
        body, holder = self.body, self.holder
        if body.closed is not None or self._ending is not None:
            self._leave()
        elif holder.in_flight or body.busy:
            return
        elif body.divergence is not None:
            self._park(body.divergence)
        elif body.main is None or body.main.done():
            self._finish()
        elif body.beginning and (body.is_paused or self.services.is_draining) and not body.must_begin:
            self._drain()
        elif holder.outbox and (body.beginning or body.running):
            self._covered, body.beginning = body.beginning, []
            holder.flush()
        elif body.beginning:
            beginning, body.beginning = body.beginning, []
            self._set_alarm()
            self._begin(beginning)  # last: a step that ends at once brings the body to its next rest
        elif body.running:
            self._set_alarm()
        else:
            self._suspend()

    def _begin(self, slots: list[Slot]) -> None:
        """Begin the steps; if paused, only those whose start is recorded: they would count as interrupted."""
        if self.body.is_paused:
            self.body.beginning[:0] = [slot for slot in slots if not slot.starts_durably]
            slots = [slot for slot in slots if slot.starts_durably]
        self.body.begin(slots)

    def _set_alarm(self) -> None:
        if self.body.is_paused:
            self._alarm.stop()
        elif self.body.alarms or self._alarm.is_set:
            self._alarm.set(self.body.next_alarm())

    def _suspend(self) -> None:
        if not self.body.has_open_operations:
            error = ParkedError(
                f"execution {self.stream.key!r}: its body waits for something that no operation will bring "
                f"(a future, event or queue that nothing sets); expected it to await operations or tasks that do"
            )
            self._park(error)
            return
        self._release()

    def _release(self) -> None:
        self._alarm.stop()
        self.holder.flush(Then.RELEASE)

    def _drain(self) -> None:
        """No step begins any more: the engine closes, or it is paused. Another may go on once those that run end."""
        if not self.body.running:
            self._alarm.stop()
            self.holder.flush(Then.YIELD)
        elif self.holder.outbox:
            self.holder.flush()

    def _finish(self) -> None:
        """The body ended. Its outcome is recorded unless its seam closed: then it has none (R1e)."""
        self._alarm.stop()
        outcome = outcome_of(self.body)
        if outcome is None:
            self._end(End.LOST)
            return
        try:
            self.body.memo.check_all_asked()
        except Exception as error:  # the divergence of a body that ended too soon
            self._park(error)
            return
        outcome = self.body.meter.admit("the function", outcome)
        update = Update(
            self.stream.uid,
            Kind.EXECUTION,
            ACTIONS[outcome.status],
            self.body.now(),
            payload=outcome.result,
            error=outcome.error,
        )
        self.holder.record(update)
        self.holder.flush(Then.FINISH)

    def _park(self, error: Exception) -> None:
        self._alarm.stop()
        logger.error("execution %r of %s is parked: %s", self.stream.key, self.stream.name, error)
        self._ending = End.PARKED
        self.cause = error
        self.holder.park(error, then=lambda: self._end(End.PARKED))

    # What comes from outside: a pause and its end, and the end of the execution's time.

    def heed(self, stream: Stream) -> None:
        """The execution was paused, or resumed before this run let go of it."""
        if self._is_going_on:
            self._set_paused(stream)
            # Whoever asked for it is a task, and a body is pumped from a plain callback only.
            self.services.loop.call_soon(self._heed_now)

    def _heed_now(self) -> None:
        if self._is_going_on:
            self._wake()

    @property
    def _is_going_on(self) -> bool:
        """Whether this run holds its stream, and its body has begun and not ended."""
        return self._ending is None and not self._is_ended and not self._is_held_back and self.body.main is not None

    def _set_paused(self, stream: Stream) -> None:
        self.body.is_paused = stream.status == PAUSED

    def _set_deadline(self, due_ms: int | None) -> None:
        if due_ms is not None:
            if self._deadline is None:
                self._deadline = Alarm(self.services, self._out_of_time)
            self._deadline.set(due_ms)

    def _out_of_time(self) -> None:
        """The time of the execution is over, unless a pause has moved its deadline: the journal knows."""
        number, seen, now_ms = self.stream.number, self.holder.seen, self.services.clock.now_ms()
        due_ms = self.holder.operations[self.stream.uid].due_ms

        def call(transaction: Transaction) -> TimedOut:
            return time_out(transaction, number, now_ms=now_ms, seen=seen, due_ms=due_ms)

        with contextlib.suppress(UnavailableError):  # the engine is closed: the next one sees to it
            self.services.committer.submit(call, self._timed_out, needs=Needs((number,)))

    def _timed_out(self, answer: TimedOut, error: BaseException | None) -> None:
        if error is not None:
            if is_refused(error) and not self._is_ended:
                delay_ms = max(self.services.limits.poll_ms, 1)
                self._set_deadline(self.services.clock.now_ms() + delay_ms)
            return
        if answer.outcome is not None and answer.stream is not None:
            if not self._is_ended:
                self.lose()
            self._on_timed_out(answer.stream, answer.outcome)
        elif self._ending is not None or self._is_ended:
            return
        elif answer.stream is None or answer.stream.epoch != self.stream.epoch:
            self.lose()  # somebody else ended it, or took it, and has not told us
        elif self._is_held_back:
            self._release()  # it was paused meanwhile, or its deadline moved: whoever claims it next reads that
        else:
            self._set_deadline(answer.due_ms)

    # What the journal answers.

    def _durable(self, advanced: Advanced, then: Then) -> None:
        if then is _KEEP and self._ending is None and self.body.closed is None:
            # Only the steps that were queued when the append was made: what was recorded since
            # then, and asked for those queued later, is not durable yet (R4).
            covered, self._covered = self._covered, []
            self._set_paused(advanced.stream)
            has_news = self.stream.head > self.holder.seen or bool(self.body.late)
            if has_news:
                self._catch_up()
            self._begin(covered)
            if has_news:
                self._wake()
                return
            self._at_rest()
        elif then is Then.FINISH:
            settled = None if advanced.append is None else advanced.append.entries[-1]
            self._end(End.FINISHED)
            if isinstance(settled, Settled):
                self._on_outcome(advanced.stream, settled)
        elif then is not Then.KEEP:
            self.holder.drop_values()
            self._is_ended = True
            self.body.is_paused = False
            if self._deadline is not None:
                self._deadline.stop()
            self._on_end(self, End.RELEASED)
        else:
            self._leave()

    def _lost(self, error: BaseException) -> None:
        if is_refused(error) and self._ending is None and self.body.closed is None:
            self.holder.append_later()
            return
        if not is_expected(error):
            logger.error("execution %r of %s: its append failed", self.stream.key, self.stream.name, exc_info=error)
            if self._ending is None:
                self._park(ParkedError(f"its append failed with {error!r}"))
                return
        self._end(End.RETRY if is_retryable(error) else End.LOST)

    def lose(self) -> None:
        """Another holder has the stream, or it was stopped."""
        self._end(End.LOST)

    # The end: evict once no step body runs (R1a).

    def _end(self, reason: End) -> None:
        self._alarm.stop()
        self._ending = reason
        self.body.is_over = True
        self._leave()

    def _leave(self) -> None:
        body = self.body
        if self._ending is None or self._is_ended or body.running:
            return
        if self.holder.in_flight and self._ending is not End.FINISHED:
            return
        if self._ending is End.PARKED and self.stream.status != PARKED:
            return
        self._is_ended = True
        if self._deadline is not None:
            self._deadline.let_go()
        self.evict(LeaseLost if self._ending is End.LOST else Evicted)
        self._on_end(self, self._ending)
        self.holder.let_go()
        self._alarm.let_go()

    def evict(self, signal: type[BaseException] = Evicted) -> None:
        """Let the body go from memory by rule R1."""
        self._alarm.stop()
        if self._deadline is not None:
            self._deadline.stop()
        self.body.evict(signal, self.spec.name)


async def _plain(body: Body, spec: FunctionSpec, arguments: tuple[Any, ...]) -> Any:
    """The body of a plain function's execution: one step, whose failure is the execution's."""
    options = step_options(spec.function, name=spec.name, retry=NEVER)
    file, _, line = spec.source.rpartition(":")
    try:
        return await body.step(StepCall(spec.function, arguments, options, place(file, int(line))))
    except StepError as error:
        raise RecordedError(ErrorData(error.error_type, error.message)) from None


def _is_version(spec: FunctionSpec, version: str) -> bool:
    return spec.version == version


async def _raising(error: Exception) -> Any:
    raise error


def outcome_of(body: Body) -> Outcome | None:
    """What a body that ended came to, or None for a run that has no outcome (R1e)."""
    main = body.main
    if main is None or body.closed is not None:
        return None
    if main.cancelled():
        return failed(cancelled_error())
    raised = main.exception()
    if raised is None:
        return succeeded(body.services, main.result())
    return None if isinstance(raised, SIGNALS) else failed(raised)


def cancelled_error() -> Exception:
    """The failure of a body that let CancelledError out."""
    return RuntimeError("the body ended with CancelledError; expected it to handle the cancellation it asked for")
