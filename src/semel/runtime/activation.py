"""One actor in memory: its mailbox, its state, and one turn at a time.

Turns that are queued run one after another and share one append: a turn may start on the
uncommitted state of the one before, but no step body starts and no reply leaves before the
commit (R4). A handler that raises leaves the state as it was.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from semel.actor import ActorSpec, GenServer
from semel.errors import (
    Evicted,
    LeaseLost,
    LimitExceededError,
    ParkedError,
    ReplayError,
    SerializationError,
)
from semel.journal.advance import Advanced, EndTurn, Then
from semel.journal.chunks import whole
from semel.kernel import values
from semel.kernel.entry import ARRIVING, HeartbeatReceived, Kind, Payload, Record, Settled
from semel.kernel.mailbox import Mailbox
from semel.kernel.memo import Memo
from semel.kernel.operation import Operation, Update
from semel.runtime.alarm import Alarm
from semel.runtime.holder import Holder, is_expected, is_refused, is_retryable
from semel.runtime.invocation import End, outcome_of
from semel.runtime.meter import Meter
from semel.runtime.outcome import failed
from semel.runtime.services import Services
from semel.runtime.slot import ACTIONS, Outcome, Slot
from semel.runtime.turn import Turn
from semel.store import codec
from semel.store.base import PARKED, KeyId, Stream

logger = logging.getLogger("semel.activation")
OUTBOX_MAX = 1_000


class Activation:
    """Runs one actor. `on_end(activation, reason)` is called once, when it holds the stream no more."""

    def __init__(
        self,
        services: Services,
        stream: Stream,
        spec: ActorSpec,
        *,
        on_end: Callable[[Activation, End], None],
        on_reply: Callable[[Stream, Settled], None],
    ) -> None:
        self.services = services
        self.spec = spec
        self.holder = Holder(services, stream, on_durable=self._durable, on_lost=self._lost)
        self.idle_since_ms = services.clock.now_ms()
        self._on_end = on_end
        self._on_reply = on_reply
        self._alarm = Alarm(services, self._wake)
        self._meter = Meter(services.limits, f"actor {stream.name}/{stream.key}", is_bounded=False)
        self._mailbox = Mailbox()
        self._records: list[Record] = []
        self._replays: deque[Operation] = deque()
        self._actor: GenServer[Any] = spec.actor()
        self._state: bytes | None = None
        self._turns_since_snapshot = 0
        self._ahead = 0  # the last message that was taken in before it was on disk
        self._snapshot_place: int | None = None
        self._turn: Turn | None = None
        self._ending_turns: list[Turn] = []
        self._inside: dict[str, list[str]] = {}
        self._covered: list[Slot] = []
        self._is_advancing = False
        self._ending: End | None = None
        self._is_ended = False
        self.cause: Exception | None = None

    @property
    def stream(self) -> Stream:
        return self.holder.stream

    @property
    def is_idle(self) -> bool:
        """Whether nothing is open, to be written or being written."""
        return self._is_at_rest and self._mailbox.head() is None

    @property
    def _is_at_rest(self) -> bool:
        """Whether no turn is open, and nothing to be written or being written."""
        return self._turn is None and not self._ending_turns and not self.holder.in_flight and not self.holder.outbox

    @property
    def can_stay(self) -> bool:
        """Whether a suspended turn may stay in memory: that of a `def` handler would keep its thread."""
        return self._turn is not None and self._turn.is_async

    def start(self, records: list[Record]) -> None:
        """Load the snapshot, run the turns after it again, and go on with the open message."""
        self._records = records
        self._mailbox = Mailbox.of(records)
        if self.spec.durability is None:
            self._mailbox.forget_turns()
        self.holder.seen = max(self.holder.seen, records[-1].seq if records else 0)
        self.holder.load(records)
        if self.spec.durability is not None and self._mailbox.snapshot is not None:
            self._state = whole(self.services.reader, self.stream.number, self._mailbox.snapshot).data
            self._restore()
        if self.spec.durability is not None:
            self._replays.extend(self._mailbox.turns())
            self._turns_since_snapshot = len(self._replays)
        self._forget_settled(dict(self.holder.operations))
        self.advance()

    def observe(self, append: codec.Append, seq: int) -> None:
        """An arrival was committed. On the loop, in the order of commits."""
        if seq == self.holder.seen + 1:
            self._take_in_all(append, seq)
        elif seq > self.holder.seen:
            self._catch_up()
        if self._ahead and seq >= self._ahead:
            self._ahead = 0
            self._wake()  # a step that waited for its message to be on disk
        elif self._turn is not None and isinstance(append.entries[0], Settled | HeartbeatReceived):
            self._wake()
        else:
            self.advance()

    def notice(self) -> None:
        """Somebody wrote to the stream: look at what it is."""
        if self._ending is None and not self._is_ended:
            self._catch_up()
            self._wake()

    def take_ahead(self, append: codec.Append, seq: int) -> bool:
        """Take in an arrival that is about to be committed, if nothing else is open. `advance` then runs its turn."""
        is_free = self._turn is None and self._ending is None and not self._is_ended and not self.holder.in_flight
        if not is_free or seq != self.holder.seen + 1 or append.has_chunks:
            return False  # what is in chunks can be read once it is on disk
        self._take_in_all(append, seq)
        self._ahead = seq
        return True

    def doubt(self) -> None:
        """What was taken in ahead of its commit was not committed: start anew from what is on disk."""
        self._end(End.RETRY)

    def _take_in_all(self, append: codec.Append, seq: int) -> None:
        for record in codec.records(append, seq=seq):
            self._take_in(record)
        self.holder.seen += len(append.entries)

    def _take_in(self, record: Record) -> None:
        self._mailbox.observe(record)
        operation = self.holder.take_in(record)
        if operation is not None and operation.kind in ARRIVING and self._turn is not None:
            self._turn.body.arrived(operation)

    def _catch_up(self) -> None:
        """Take in what others appended since this run last looked."""
        for record in self.holder.unseen():
            self._take_in(record)

    def resume(self, stream: Stream) -> None:
        """Go on under a new claim with the turn that was suspended."""
        seen = self.holder.seen
        self.holder.take(stream, seen=seen)
        self._is_ended = False
        if stream.head > seen:
            self._catch_up()
        self._wake()

    def _wake(self) -> None:
        if self._turn is not None:
            self._turn.body.pump()
        else:
            self.advance()

    # One turn after another.

    def advance(self) -> None:
        """Run turns until one has to wait, the mailbox is empty, or enough is recorded for one append."""
        if self._is_advancing or self._ending is not None:
            return
        self._is_advancing = True
        try:
            while self._turn is None and self._ending is None and len(self.holder.outbox) < OUTBOX_MAX:
                if self._replays:
                    self._begin(self._replays.popleft(), is_replay=True)
                elif not self.services.is_draining and (head := self._mailbox.take()) is not None:
                    self._begin(head, is_replay=False)
                else:
                    break
        finally:
            self._is_advancing = False
        if self._turn is None and self._ending is None and self.holder.outbox and not self.holder.in_flight:
            self.holder.flush(base=self._mailbox.base())

    def _begin(self, message: Operation, *, is_replay: bool) -> None:
        memo = Memo.of(self._records, scope=message.id) if self._records else Memo({}, [])
        turn = Turn(
            self.services,
            self.spec,
            self._actor,
            message,
            memo=memo,
            meter=self._meter,
            holder=self.holder,
            at_rest=self._at_rest,
            is_replay=is_replay,
        )
        if not is_replay and not self._replays:
            self._records = []
        self._turn = turn
        turn.start()

    def _at_rest(self, turn: Turn) -> None:
        if turn is not self._turn:
            self._leave()
            return
        body, holder = turn.body, self.holder
        if self._ending is not None or body.closed is not None:
            self._leave()
        elif body.busy:
            return
        elif body.divergence is not None:
            self._park(body.divergence)
        elif body.is_done:
            self._end_turn(turn)
        elif turn.is_replay:
            self._park(turn.unfinished())
        elif holder.in_flight:
            return
        elif body.beginning and self.services.is_draining and not body.must_begin:
            self._drain(turn)
        elif holder.outbox and (body.beginning or body.running):
            self._covered, body.beginning = body.beginning, []
            holder.flush(base=self._mailbox.base())
        elif body.beginning and self._ahead:
            return  # not before the message is on disk (R4)
        elif body.beginning:
            beginning, body.beginning = body.beginning, []
            self._alarm.set(body.next_alarm())
            body.begin(beginning)  # last: a step that ends at once brings the body to its next rest
        elif body.running:
            self._alarm.set(body.next_alarm())
        elif not body.has_open_operations:
            self._park(turn.stuck())
        else:
            self._alarm.stop()
            holder.flush(Then.RELEASE, base=self._mailbox.base(), turn=turn.message.id)

    def _drain(self, turn: Turn) -> None:
        """The engine closes: no step begins any more. Once those that run have ended, another may go on at once."""
        if not turn.body.running:
            self._alarm.stop()
            self.holder.flush(Then.YIELD, base=self._mailbox.base(), turn=turn.message.id)
        elif self.holder.outbox:
            self.holder.flush(base=self._mailbox.base())

    def _end_turn(self, turn: Turn) -> None:
        self._alarm.stop()
        outcome = outcome_of(turn.body)
        if outcome is None:
            self._end(End.LOST)
            return
        try:
            turn.body.memo.check_all_asked()
            if turn.is_replay:
                turn.check_reply(outcome)
        except ReplayError as error:
            self._park(error)
            return
        outcome = self._keep_state(outcome)
        if not turn.body.loop.is_empty and self._state is not None:
            self._restore()  # what the handler left running keeps the old instance, and cannot touch this one
        if not turn.is_replay:
            self._record_end(turn, outcome)
        self._turn = None
        self._ending_turns.append(turn)
        turn.body.is_over = True
        self._clear_ended_turns()
        self.advance()

    def _clear_ended_turns(self) -> None:
        """Unwind what turns left behind, once none of their step bodies runs (R1a)."""
        ended = [turn for turn in self._ending_turns if not turn.body.running]
        for turn in ended:
            self._ending_turns.remove(turn)
            turn.body.evict(Evicted, turn.name)

    def _keep_state(self, outcome: Outcome) -> Outcome:
        """After a success, the state as bytes; after a failure, the state as it was."""
        if outcome.error is None:
            try:
                self._state = self.services.payload(f"state of actor {self.spec.name!r}", self._actor.state).data
                return outcome
            except (SerializationError, LimitExceededError) as error:
                if self.spec.durability is None:
                    self._state = None
                    return outcome
                outcome = failed(error)
        self._restore()
        return outcome

    def _restore(self) -> None:
        """Make the actor anew from the last good state: let it crash."""
        self._actor = self.spec.actor()
        if self._state is not None:
            self._actor.state = values.decode(self._state)

    def _record_end(self, turn: Turn, outcome: Outcome) -> None:
        message, at_ms = turn.message, turn.body.now()
        state = None
        if outcome.error is None and self.spec.durability is not None:
            self._turns_since_snapshot += 1
            if self._turns_since_snapshot >= self.spec.durability.checkpoint_interval:
                state = self._snapshot()
        self.holder.record(EndTurn(message.id, at_ms, state, self.spec.version))
        self.holder.record(
            Update(
                message.id, Kind.MESSAGE, ACTIONS[outcome.status], at_ms, payload=outcome.result, error=outcome.error
            )
        )
        if message.message is not None and message.message.key:
            stream = self.stream
            self.holder.keys.append(KeyId(stream.namespace, f"actor:{stream.name}/{stream.key}", message.message.key))

    def _snapshot(self) -> Payload:
        """The state for the turn being recorded; an earlier one in the same append is superseded by it."""
        outbox = self.holder.outbox
        place = self._snapshot_place
        if place is not None and place < len(outbox):
            earlier = outbox[place]
            if isinstance(earlier, EndTurn):
                outbox[place] = EndTurn(earlier.operation, earlier.at_ms, None, earlier.version)
        self._snapshot_place = len(outbox)
        self._turns_since_snapshot = 0
        assert self._state is not None
        return Payload(self._state)

    # What the journal answers.

    def _durable(self, advanced: Advanced, then: Then) -> None:
        self._snapshot_place = None
        replies = []
        for record in advanced.records():
            self._mailbox.observe(record)
            if isinstance(record.entry, Settled):
                operation = self.holder.operations.get(record.entry.operation)
                if operation is not None and operation.kind is Kind.MESSAGE:
                    replies.append(record.entry)
        if self.spec.durability is None:
            self._mailbox.forget_turns()
        self._forget_settled(advanced.changes)
        for reply in replies:
            self._on_reply(self.stream, reply)
        self.idle_since_ms = self.services.clock.now_ms()
        if then is not Then.KEEP:
            self._released()
        elif self._ending is not None:
            self._leave()
        else:
            if self.stream.head > self.holder.seen:
                self._catch_up()
            covered, self._covered = self._covered, []
            if self._turn is not None:
                self._turn.body.begin(covered)
            self._wake()

    def _released(self) -> None:
        self._is_ended = True
        if self._turn is None:
            self._terminate("closed" if self.services.is_draining else "passivated")
        self._on_end(self, End.RELEASED)

    def _forget_settled(self, changes: Mapping[str, Operation]) -> None:
        """Drop the operations of settled messages: a turn that ended is not asked about again."""
        for name, operation in changes.items():
            if operation.kind is not Kind.MESSAGE:
                self._inside.setdefault(self._message_of(operation), []).append(name)
        for name, operation in changes.items():
            if operation.kind is Kind.MESSAGE and operation.ended_ms is not None:
                for inner in (name, *self._inside.pop(name, ())):
                    self.holder.forget(inner)

    def _message_of(self, operation: Operation) -> str:
        """The message in whose turn an operation is."""
        parent = operation.parent
        while (scope := self.holder.operations.get(parent)) is not None and scope.kind is not Kind.MESSAGE:
            parent = scope.parent
        return parent

    def _lost(self, error: BaseException) -> None:
        if is_refused(error) and self._ending is None and not self._is_closed:
            self.holder.append_later()
            return
        if not is_expected(error):
            logger.error("actor %s/%s: its append failed", self.stream.name, self.stream.key, exc_info=error)
            if self._ending is None:
                self._park(ParkedError(f"its append failed with {error!r}"))
                return
        self._end(End.RETRY if is_retryable(error) else End.LOST)

    def lose(self) -> None:
        """Another holder has the stream."""
        self._end(End.LOST)

    # Leaving.

    def passivate(self) -> None:
        """Leave memory if nothing is open; a state that is ahead of its snapshot is recorded first."""
        if self._is_ended or self._ending is not None or not self._is_at_rest:
            return
        has_mail = self._mailbox.head() is not None
        if has_mail and not self.services.is_draining:
            return
        if self.spec.durability is not None and self._turns_since_snapshot and self._state is not None:
            self.holder.record(EndTurn("", self.services.clock.now_ms(), self._snapshot(), self.spec.version))
        self.holder.flush(Then.YIELD if has_mail else Then.RELEASE, base=self._mailbox.base())

    @property
    def _is_closed(self) -> bool:
        return self._turn is not None and self._turn.body.closed is not None

    def _park(self, error: Exception) -> None:
        self._alarm.stop()
        logger.error("actor %s/%s is parked: %s", self.stream.name, self.stream.key, error)
        self._ending = End.PARKED
        self.cause = error
        self.holder.park(error, then=self._leave)

    def _end(self, reason: End) -> None:
        self._alarm.stop()
        self._ending = reason
        if self._turn is not None:
            self._turn.body.is_over = True
        self._leave()

    def _leave(self) -> None:
        self._clear_ended_turns()
        if self._ending is None or self._is_ended:
            return
        if self._ending_turns or self.holder.in_flight or (self._turn is not None and self._turn.body.running):
            return
        if self._ending is End.PARKED and self.stream.status != PARKED:
            return
        self._is_ended = True
        self.evict(LeaseLost if self._ending is End.LOST else Evicted)
        self._on_end(self, self._ending)

    def evict(self, signal: type[BaseException] = Evicted) -> None:
        """Let the actor go from memory by rule R1."""
        self._alarm.stop()
        if self._turn is not None:
            self._turn.body.evict(signal, self._turn.name)

    def _terminate(self, reason: str) -> None:
        try:
            self._actor.terminate(reason)
        except Exception:
            logger.exception("actor %s/%s: terminate(%r) raised", self.stream.name, self.stream.key, reason)
