"""Code at hand over what an execution has recorded: nothing is begun, nothing is recorded.

The body, its loop and its seam are those of a real run, over the memo that a worker would give
it. No step's body runs, no timer that is not recorded comes due, no append is made. What the
code does with the recorded outcomes, up to where it needs one that is not recorded, is judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from enum import StrEnum
from types import FrameType, TracebackType
from typing import Any, cast

from msgspec import Struct

from semel.calls import InvokeCall, place
from semel.context import Context
from semel.errors import Evicted, NonDeterminismError, OperationError, SemelError, SerializationError
from semel.function import FunctionSpec
from semel.kernel.entry import Kind, Record, Settled, Started
from semel.kernel.memo import Memo
from semel.kernel.operation import Operation
from semel.runtime.body import Body
from semel.runtime.invocation import ROOT
from semel.runtime.meter import Meter
from semel.runtime.outcome import succeeded
from semel.runtime.services import Limits, Services
from semel.runtime.slot import Slot
from semel.runtime.sync_body import SyncBody
from semel.store.base import Reader, Stream


class Verdict(StrEnum):
    """What a rehearsal says of an execution. PINNED: this code will never run it, and it is not rehearsed."""

    SAFE = "safe"
    DIVERGES = "diverges"
    UNKNOWN = "unknown"
    PINNED = "pinned"


class Finding(Struct, frozen=True):
    """A verdict and its reason.

    For a divergence, `operation` is the id of the first recorded operation that differs, `number` its place among
    the recorded ones from 1, `recorded` and `requested` both sides, and `source` the file:line at hand, or the
    recorded one where the code at hand has nothing there.
    """

    verdict: Verdict
    reason: str = ""
    operation: str = ""
    number: int = 0
    source: str = ""
    recorded: str = ""
    requested: str = ""


SAFE = Finding(Verdict.SAFE)


class _Blocked(KeyboardInterrupt):
    """User code took longer than it may. Like the key, it goes through a body's tasks to whoever pumps it."""


class _Clock:
    """The time of the last record."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms


class _Inbox:
    """What stands for the real loop: it takes what a body's thread sends, and does nothing else."""

    def __init__(self) -> None:
        self.sent: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any, context: object = None) -> Any:
        del context
        self.sent.put(lambda: callback(*args))


class _Threads:
    """A thread of its own for each body that needs one: one that is stuck is in nobody's way."""

    def submit(self, function: Callable[..., object], /, *arguments: Any) -> None:
        threading.Thread(target=function, args=arguments, name="semel-rehearsal", daemon=True).start()


class _Services(Services):
    """The services of one rehearsal: time stands still, nothing can be written."""

    def __init__(self, now_ms: int, limits: Limits, reader: Reader) -> None:
        self.inbox = _Inbox()
        super().__init__(
            loop=cast("asyncio.AbstractEventLoop", self.inbox),
            clock=_Clock(now_ms),
            committer=cast("Any", None),
            reader=reader,
            journal_id=reader.journal_id,  # the ids of callbacks are made of it
            limits=limits,
            entropy=random.Random(0),  # noqa: S311  # jitter of retries that never come
        )

    @property
    def body_threads(self) -> Any:
        return _Threads()

    def keep(self, survivors: list[Any], name: str) -> None:
        """What will not end is held, as an engine would, without a word: the code is not in service."""
        del name
        _survivors.extend(survivors)


_survivors: list[Any] = []


class _Body(Body):
    """A body that remembers what it was asked for, as far as anything is recorded."""

    def __init__(self, services: Services, memo: Memo, stream: Stream) -> None:
        super().__init__(
            services,
            memo=memo,
            meter=Meter(services.limits, f"execution {stream.key!r} of {stream.name}", is_bounded=False),
            stream=stream.number,
            scope="",
            lineage=ROOT,
            origin=stream.origin or stream.uid,
            uid=stream.uid,
            record=_nothing,
            at_rest=_nothing,
            time_out=_later,
        )
        self.recorded = memo.operations
        self.asked: dict[str, Slot] = {}

    def _look_up(self, slot: Slot) -> None:
        self.asked[slot.id] = slot
        super()._look_up(slot)


def _nothing(*_: object) -> None:
    pass


def _later(*_: object) -> bool:
    return False


def rehearse(
    spec: FunctionSpec,
    stream: Stream,
    records: list[Record],
    *,
    reader: Reader,
    limits: Limits | None = None,
    seconds_max: float = 10,
) -> Finding:
    """Run the function over the records of an execution that has no outcome yet, and judge.

    Code that does not come to rest in `seconds_max` is left: at once if it runs in the main thread
    or in one of its own, else never.
    """
    started = records[0].entry
    if not isinstance(started, Started) or started.kind is not Kind.EXECUTION:
        return Finding(Verdict.UNKNOWN, f"its first entry is {type(started).__name__}, expected a start")
    if any(isinstance(record.entry, Settled) and record.entry.operation == stream.uid for record in records):
        return SAFE  # it came to its end meanwhile
    last = records[-1]
    services = _Services(last.time_ms + last.entry.offset_ms, limits or Limits(), reader)
    try:
        arguments = tuple(services.value(stream.number, started.payload) or ())
    except SemelError as error:
        return Finding(Verdict.UNKNOWN, f"its arguments cannot be read: {error}")
    body = _Body(services, Memo.of(records, scope=""), stream)
    try:
        with _time_limit(seconds_max):
            body.start(_main(body, spec, arguments), now_ms=records[0].time_ms + started.offset_ms)
        while body.busy:
            services.inbox.sent.get(timeout=seconds_max)()
        finding = _judge(body)
    except queue.Empty:
        finding = Finding(Verdict.UNKNOWN, f"its thread asked for nothing for {seconds_max:g} s")
    except _Blocked as error:
        where = _innermost(error.__traceback__)
        finding = Finding(Verdict.UNKNOWN, f"it did not come to rest in {seconds_max:g} s", source=where)
    with contextlib.suppress(_Blocked), _time_limit(seconds_max):
        body.evict(Evicted, spec.name)
    return finding


def _main(body: Body, spec: FunctionSpec, arguments: tuple[Any, ...]) -> Coroutine[Any, Any, Any]:
    if not spec.is_async:
        return SyncBody(body).run(spec.function, arguments)
    return _call(body, spec, arguments)


async def _call(body: Body, spec: FunctionSpec, arguments: tuple[Any, ...]) -> Any:
    return await spec.function(Context(body), *arguments)


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise _Blocked in the main thread after so many seconds, again and again until it is out of the code."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise _Blocked

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _judge(body: _Body) -> Finding:
    divergence = body.divergence
    if isinstance(divergence, NonDeterminismError):
        return _diverges(body, divergence.position, divergence.recorded, divergence.requested)
    if isinstance(divergence, SerializationError):
        slot = next(reversed(body.asked.values()))
        return _diverges(body, slot.id, _spelled(body.recorded.get(slot.id)), f"a value it can read: {divergence}")
    if divergence is not None:
        return Finding(Verdict.UNKNOWN, str(divergence))
    missed = next((one for one in body.recorded.values() if one.id not in body.asked), None)
    if missed is not None:
        requested = "nothing, and ended" if body.is_done else "nothing at that place"
        return _diverges(body, missed.id, _spelled(missed), requested)
    for slot in body.asked.values():
        recorded = slot.recorded
        if recorded is not None and _asks_otherwise(slot, recorded):
            return Finding(
                Verdict.UNKNOWN,
                f"{_spelled(recorded)} was recorded with another function or other arguments than this code gives it; "
                f"its recorded outcome stands, if it has one: see whether that is right",
                slot.id,
                _number(body, slot.id),
                slot.source,
            )
    return _ended(body) if body.is_done else _at_rest(body)


def _asks_otherwise(slot: Slot, recorded: Operation) -> bool:
    """Whether the operation has the recorded place and name, and is not quite what was recorded."""
    if recorded.start is None:
        return False
    asked, message = slot.outside, recorded.message
    is_other = isinstance(asked, InvokeCall) and message is not None and asked.function != message.method
    return is_other or recorded.start.arguments != slot.arguments


def _diverges(body: _Body, operation: str, recorded: str, requested: str) -> Finding:
    slot, known = body.asked.get(operation), body.recorded.get(operation)
    source = slot.source if slot is not None and slot.source else "" if known is None else known.source
    reason = f"the journal recorded {recorded}, this code asks for {requested}"
    return Finding(Verdict.DIVERGES, reason, operation, _number(body, operation), source, recorded, requested)


def _number(body: _Body, operation: str) -> int:
    return next((number for number, name in enumerate(body.recorded, 1) if name == operation), 0)


def _spelled(operation: Operation | None) -> str:
    if operation is None:
        return "nothing"
    named = f"{operation.kind} {operation.name!r}" if operation.name else str(operation.kind)
    return f"{named} at {operation.source}" if operation.source else named


def _ended(body: _Body) -> Finding:
    """The code came to its end: fine, unless it failed in a way that no recorded outcome explains."""
    main = body.main
    assert main is not None
    if main.cancelled():
        return Finding(Verdict.UNKNOWN, "it lets CancelledError out, after the recorded outcomes")
    raised = main.exception()
    if raised is None:
        error = succeeded(body.services, main.result()).error
        return SAFE if error is None else Finding(Verdict.UNKNOWN, f"what it returns cannot be kept: {error.message}")
    if isinstance(raised, OperationError):
        return SAFE
    where = _innermost(raised.__traceback__)
    return Finding(
        Verdict.UNKNOWN, f"it raises {type(raised).__name__}: {raised}, after the recorded outcomes", "", 0, where
    )


def _at_rest(body: _Body) -> Finding:
    if body.has_open_operations:
        return SAFE
    return Finding(
        Verdict.UNKNOWN,
        "it waits for something that no operation will bring (a future, event or queue that nothing sets)",
    )


def _innermost(trace: TracebackType | None) -> str:
    """The file:line where an error was raised, in the user's code: the last line that is not of semel's."""
    found = ""
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in {"semel", "asyncio"}:
            found = place(trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return found
