"""What may be done to an execution from outside: pause, resume, unpin, stop, delete, and the end of its time.

All of it is control: it needs no lease (J5) and, except a pause, takes the stream from its holder
by the next epoch (R3). A pause lets the holder record what its running steps did. What the
status of the execution does not allow is refused, and nothing is written.

An execution that is deleted leaves its outcome in its key row until the key expires (J10). The
retention sweep removes both, once the retention is over that counts from the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from semel.errors import NotFoundError, WrongStatusError
from semel.journal import arrivals
from semel.journal.advance import held_stream
from semel.journal.deadline import deadline_of
from semel.journal.executions import header_of, keep_outcome, operation_of, tell_parent
from semel.journal.outcomes import outcome_in
from semel.kernel.entry import (
    ARRIVING,
    SETTLED,
    Control,
    Controlled,
    Entry,
    InvocationEnded,
    Kind,
    Settled,
    Status,
)
from semel.kernel.operation import Action, Operation, Update, decide
from semel.kernel.report import DivergenceReport
from semel.kernel.values import ErrorData
from semel.store import codec
from semel.store.base import PARKED, PAUSED, RUNNING, Ended, Key, KeyId, Lease, Stream, Transaction


def pause(transaction: Transaction, number: int, *, reason: str, now_ms: int, holds_clock: bool = True) -> Stream:
    """Let no step begin any more until `resume`. Waits, callbacks and retries that come due take effect after it.

    Whoever holds the stream keeps it until what runs has ended. `holds_clock`: the time until then
    does not count towards the execution's timeout. A paused one stays as it is. Raises
    WrongStatusError for one that has ended or is parked, NotFoundError.
    """
    stream = _found(transaction, number)
    if stream.status == PAUSED:
        return stream
    if stream.status != RUNNING:
        raise WrongStatusError(stream.key, "be paused", stream.status, "one that is running")
    time_ms = max(now_ms, stream.time_ms)
    due_ms = None if holds_clock else deadline_of(transaction, stream).due_ms
    entry = Controlled(Control.PAUSE, reason, due_ms=due_ms)
    wake_ms = due_ms if stream.holder is None else None
    return _write(transaction, stream, (entry,), time_ms, epoch=stream.epoch, status=PAUSED, wake_ms=wake_ms)


def resume(transaction: Transaction, number: int, *, reason: str, now_ms: int) -> Stream:
    """Put a paused or parked stream back in service; its deadline moves by the time that its clock was held.

    One whose holder has not let go since the pause stays with it, and its steps go on. Raises
    WrongStatusError for one that runs or has ended, NotFoundError.
    """
    stream = _found(transaction, number)
    if stream.status not in (PAUSED, PARKED):
        raise WrongStatusError(stream.key, "be resumed", stream.status, "one that is paused or parked")
    time_ms = max(now_ms, stream.time_ms)
    entry = Controlled(Control.RESUME, reason, due_ms=deadline_of(transaction, stream).after(time_ms))
    if stream.holder is not None:
        return _write(transaction, stream, (entry,), time_ms, epoch=stream.epoch, status=RUNNING)
    return _write(transaction, stream, (entry,), time_ms, epoch=stream.epoch + 1, status=RUNNING, wake_ms=time_ms)


def park(
    transaction: Transaction, lease: Lease, *, reason: str, now_ms: int, report: DivergenceReport | None = None
) -> Stream:
    """Take the stream out of service until a person acts. The holder loses it with the same append.

    The clock of its deadline is held meanwhile. Raises LeaseLost.
    """
    stream = held_stream(transaction, lease)
    time_ms = max(now_ms, stream.time_ms)
    entry = Controlled(Control.PARK, reason, report=report)
    return _write(transaction, stream, (entry,), time_ms, lease=lease, epoch=stream.epoch + 1, status=PARKED, **_UNHELD)


def unpin(transaction: Transaction, number: int, *, reason: str, now_ms: int) -> Stream:
    """Let any worker that has the function go on with a pinned execution; its replay is checked like any.

    One that is not pinned stays as it is. Raises WrongStatusError for one that has ended, NotFoundError.
    """
    stream = _found(transaction, number)
    if stream.ended_ms is not None:
        raise WrongStatusError(stream.key, "be unpinned", stream.status, "one that has not ended")
    if not stream.is_pinned:
        return stream
    time_ms = max(now_ms, stream.time_ms)
    entry = Controlled(Control.UNPIN, reason, due_ms=deadline_of(transaction, stream).due_ms)
    return _write(transaction, stream, (entry,), time_ms, epoch=stream.epoch, version=stream.code_version)


def stop(transaction: Transaction, number: int, *, reason: str, now_ms: int) -> Stream:
    """End an execution as STOPPED, whoever holds it. One that has an outcome keeps it. Raises NotFoundError."""
    stream = _found(transaction, number)
    if stream.ended_ms is not None:
        return stream
    return _end(transaction, stream, Action.STOP, ErrorData("ExecutionStopped", reason or "stopped"), now_ms=now_ms)


def stop_with_children(transaction: Transaction, number: int, *, reason: str, now_ms: int) -> list[Stream]:
    """`stop`, and with it whatever it has invoked and is still running, and what that has. Returns all, it first.

    An execution that has ended keeps its outcome, and what it had invoked goes on.
    """
    stopped = [_found(transaction, number)]
    if stopped[0].ended_ms is not None:
        return stopped
    for stream in stopped:
        for operation in arrivals.fold_of(transaction, stream).values():
            uid = "" if operation.start is None else operation.start.child  # one that was given up may still run
            child = arrivals.find(transaction, uid) if uid else None
            if child is not None and child.ended_ms is None:
                stopped.append(child)
    return [stop(transaction, stream.number, reason=reason, now_ms=now_ms) for stream in stopped]


class TimedOut(Struct, frozen=True, gc=False):
    """What came of a time-out: the outcome that it gave, or the deadline that the execution still has, if any."""

    stream: Stream | None
    outcome: Settled | None = None
    due_ms: int | None = None


def time_out(
    transaction: Transaction, number: int, *, now_ms: int, seen: int = 0, due_ms: int | None = None
) -> TimedOut:
    """End an execution as TIMED_OUT, whoever holds it, if its deadline has come: `due_ms` if that is as of `seen`.

    Nothing changes if it has not, or if the execution has ended or is gone.
    """
    stream = transaction.stream(number)
    if stream is None or stream.ended_ms is not None:
        return TimedOut(stream)
    if stream.head != seen:
        due_ms = deadline_of(transaction, stream).due_ms
    if due_ms is None or now_ms < due_ms:
        return TimedOut(stream, due_ms=due_ms)
    error = ErrorData("ExecutionTimedOut", "it had no outcome when its time was over")
    after = _end(transaction, stream, Action.TIME_OUT, error, now_ms=now_ms)
    return TimedOut(after, outcome_in(transaction, after))


def delete(transaction: Transaction, number: int, *, retention_ms: int, now_ms: int) -> Stream:
    """Remove an execution that has ended, and its history. Returns the row that it had.

    Its fingerprint and outcome move into its key row, where the same request finds them until the
    key expires. Raises WrongStatusError for one that has not ended, NotFoundError.
    """
    stream = _found(transaction, number)
    if stream.ended_ms is None:
        raise WrongStatusError(stream.key, "be deleted", stream.status, "one that has ended; stop it first")
    key = _key_of(transaction, stream)
    if key is not None:
        expiry_ms = stream.ended_ms + retention_ms
        settled = outcome_in(transaction, stream)
        if settled is None or expiry_ms <= now_ms:
            transaction.forget_key(key.id)
        else:
            kept = keep_outcome(transaction, settled, stream)
            transaction.put_key(
                Key(key.id, number, stream.uid, key.fingerprint, stream.tail, expiry_ms=expiry_ms, outcome=kept)
            )
    transaction.delete(stream)
    return stream


def forget_key(transaction: Transaction, key_id: KeyId) -> None:
    """Free the key of an execution that has ended: the next request under it is a new one.

    Raises WrongStatusError while the execution has no outcome, NotFoundError.
    """
    key = transaction.key(key_id)
    if key is None:
        raise NotFoundError(f"key {key_id.key!r} of {key_id.operation}: there is none, expected one that is kept")
    stream = None if key.outcome is not None else transaction.stream(key.stream)
    if stream is not None and stream.ended_ms is None:
        raise WrongStatusError(stream.key, "lose its key", stream.status, "one that has ended")
    transaction.forget_key(key_id)


def sweep(transaction: Transaction, ended: Iterable[Ended], *, retention_of: Callable[[str], int], now_ms: int) -> int:
    """Remove those of the executions whose retention is over, with their keys. Returns how many.

    `retention_of` says for how long what a function of a name did is kept.
    """
    count = 0
    for found in ended:
        stream = transaction.stream(found.stream)
        if stream is None or stream.ended_ms is None or now_ms < stream.ended_ms + retention_of(stream.name):
            continue
        key = _key_of(transaction, stream)
        if key is not None:
            transaction.forget_key(key.id)
        transaction.delete(stream)
        count += 1
    return count


def sweep_keys(transaction: Transaction, expired: Iterable[KeyId], *, now_ms: int) -> int:
    """Remove those of the keys that have expired. Returns how many."""
    count = 0
    for key_id in expired:
        key = transaction.key(key_id)
        if key is not None and key.expiry_ms is not None and key.expiry_ms <= now_ms:
            transaction.forget_key(key_id)
            count += 1
    return count


def key_of(execution: Stream | Ended) -> KeyId:
    """What the key row of an execution is found by."""
    return KeyId(execution.namespace, operation_of(execution.name), execution.key)


def _key_of(transaction: Transaction, stream: Stream) -> Key | None:
    """The key row of an execution, or None if it was forgotten or is another execution's by now."""
    key = transaction.key(key_of(stream))
    return key if key is not None and key.stream == stream.number and key.operation == stream.uid else None


def _found(transaction: Transaction, number: int) -> Stream:
    stream = transaction.stream(number)
    if stream is None:
        raise NotFoundError(f"stream {number}: it is gone, expected one that is kept; list what there is")
    return stream


def _end(transaction: Transaction, stream: Stream, action: Action, error: ErrorData, *, now_ms: int) -> Stream:
    """Give an execution an outcome from outside. Operations in progress stay as they stand (J7)."""
    time_ms = max(now_ms, stream.time_ms)
    update = Update(stream.uid, Kind.EXECUTION, action, time_ms, error=error)
    running = Operation(stream.uid, Kind.EXECUTION, Status.STARTED)
    settled = decide(running, update, time_ms)
    status = getattr(settled[-1], "status", Status.ABSENT).value
    entries = (InvocationEnded(stream.invocation), *settled)
    fields: dict[str, Any] = {"epoch": stream.epoch + 1, "status": status, "ended_ms": time_ms, **_UNHELD}
    after = _write(transaction, stream, entries, time_ms, **fields)
    for operation in arrivals.fold_of(transaction, stream).values():
        if operation.kind in ARRIVING and operation.status not in SETTLED:
            arrivals.close(transaction, stream, operation.id)
    outcome = outcome_in(transaction, after)
    if outcome is not None:
        tell_parent(transaction, after, outcome, header_of(transaction, after))
    return after


_UNHELD = {"holder": None, "wake_ms": None}


def _write(
    transaction: Transaction,
    stream: Stream,
    entries: tuple[Entry, ...],
    time_ms: int,
    *,
    epoch: int,
    lease: Lease | None = None,
    **changes: Any,
) -> Stream:
    append = codec.Append(time_ms, entries, epoch, stream.invocation)
    body = codec.encode(append, stream=stream.number, seq=stream.head + 1)
    return transaction.append(lease, stream, count=len(entries), body=body, time_ms=time_ms, epoch=epoch, **changes)
