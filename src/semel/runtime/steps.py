"""Running the body of a step: on the real loop, or in a thread, where everything is allowed."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import zlib
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from semel.calls import StepCall
from semel.errors import LimitExceededError, SerializationError
from semel.kernel import values
from semel.kernel.entry import Status
from semel.kernel.operation import Operation
from semel.kernel.values import ErrorData
from semel.runtime.slot import Outcome, Slot

if TYPE_CHECKING:
    from semel.runtime.body import Body

EAGER_START: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
_SUCCEEDED = Status.SUCCEEDED
IMMUTABLE = frozenset({type(None), bool, int, float, str, bytes})


def prepare(call: StepCall) -> tuple[bytes, tuple[Any, ...] | bytes]:
    """A digest that tells one call's arguments from another's, and what each attempt makes its own from.

    An attempt gets copies, as the journal would give them: a step that changed its caller's objects
    would make replay differ. What the codec cannot keep is handed over as it is, without a digest.
    """
    arguments = call.arguments
    if not arguments:
        return b"", arguments
    try:
        data = values.encode([*arguments])
    except SerializationError:
        return b"", tuple(_copy(argument) for argument in arguments)
    if IMMUTABLE.issuperset(map(type, arguments)):
        return digest(data), arguments
    return digest(data), data


def digest(data: bytes) -> bytes:
    """What tells the arguments of one request from those of another."""
    return zlib.crc32(data).to_bytes(4, "big")


def _own(slot: Slot) -> tuple[Any, ...]:
    """The arguments of one attempt, which it may change."""
    copies = slot.copies
    return tuple(values.decode(copies)) if isinstance(copies, bytes) else copies


def _copy(argument: Any) -> Any:
    try:
        return values.round_trip(argument)
    except SerializationError:
        return argument


def begin(body: Body, slot: Slot) -> None:
    """Start the step's body; its end comes back through `Body.step_ended`, on the loop."""
    call = slot.call
    assert call is not None
    assert slot.context is not None
    services, options = body.services, call.options
    context = slot.context.copy() if options.retry.attempts > 1 else slot.context
    keywords: dict[str, Any] = {}
    if options.effect_parameter is not None:
        keywords[options.effect_parameter] = slot.effect_key
    if options.is_async:
        slot.task = start(services.loop, _run(body, slot, call, keywords), context)
        return
    run = partial(context.run, _in_thread, partial(_call, slot, call.function, keywords))
    slot.task = future = services.loop.run_in_executor(services.step_threads, run)
    future.add_done_callback(partial(_ended, body, slot))


def start(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, None], context: contextvars.Context
) -> asyncio.Task[None]:
    """A task whose first slice has run when this returns: most steps then need no second.

    What asyncio has as `eager_start` from 3.12 on. Before that, the callback with which the task
    would have begun is taken from it and called here; a loop that cannot be asked so starts it later.
    """
    if EAGER_START:
        return asyncio.Task(coro, loop=loop, context=context, **EAGER_START)
    first: list[Callable[[], object]] = []
    before = vars(loop).get("call_soon") if hasattr(loop, "__dict__") else None
    try:
        loop.call_soon = lambda callback, *_, **__: first.append(callback)  # type: ignore[assignment, method-assign]
    except AttributeError:
        return asyncio.Task(coro, loop=loop, context=context)
    try:
        task = asyncio.Task(coro, loop=loop, context=context)
    finally:
        if before is None:
            del loop.call_soon
        else:
            loop.call_soon = before  # type: ignore[method-assign]
    context.run(first[0])
    return task


def has_ended(slot: Slot) -> bool:
    """Whether the body of a step that was begun is over, told to its run or not: what happened is known."""
    return slot.task is None or slot.task.done()


def cancel(body: Body, slot: Slot) -> None:
    """Tell a step's body that its awaiter was cancelled. Code in a thread cannot be told, and is waited for."""
    task = slot.task
    if not isinstance(task, asyncio.Task) or not task.cancel():
        return
    coroutine = task.get_coro()
    if inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
        # It will never run, and so cannot say that it ended.
        task.add_done_callback(lambda _: body.services.step_ended(body, slot, *_cancelled(slot)))


async def _run(body: Body, slot: Slot, call: StepCall, keywords: dict[str, Any]) -> None:
    """The task of an `async def` step. Its end is reported to the services, which hand on all of a round together."""
    try:
        result = await call.function(*_own(slot), **keywords)
    except asyncio.CancelledError:
        body.services.step_ended(body, slot, *_cancelled(slot))
    except KeyboardInterrupt:
        raise
    except GeneratorExit as error:
        # Its own, or the interpreter closing what will never go on; the step is over either way.
        body.services.step_ended(body, slot, None, values.describe_error(error), error)
        raise
    except BaseException as error:  # SystemExit too: an engine never exits its host
        body.services.step_ended(body, slot, None, values.describe_error(error), error)
    else:
        body.services.step_ended(body, slot, _returned(body, slot, result), None, None)


class _Stopped:
    """A StopIteration on its way out of a thread: a future refuses to carry one."""

    __slots__ = ("error",)

    def __init__(self, error: StopIteration) -> None:
        self.error = error


def _call(slot: Slot, function: Callable[..., Any], keywords: dict[str, Any]) -> Any:
    """A `def` step. Arguments that cannot be read back fail it here, as they fail an `async def` one."""
    return function(*_own(slot), **keywords)


def _in_thread(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except StopIteration as error:
        return _Stopped(error)


def _ended(body: Body, slot: Slot, future: asyncio.Future[Any]) -> None:
    """A `def` step's thread is done with it."""
    if future.cancelled():
        body.step_ended(slot, *_cancelled(slot))
        return
    raised = future.exception()
    if raised is None and type(result := future.result()) is _Stopped:
        raised = result.error
    if raised is not None:
        body.step_ended(slot, None, values.describe_error(raised), raised)
        return
    body.step_ended(slot, _returned(body, slot, result), None, None)


def _returned(body: Body, slot: Slot, result: Any) -> Outcome:
    """The outcome of a step that returned. A result that cannot be kept fails it, and is not tried again."""
    if result is None:
        return Outcome(_SUCCEEDED)
    try:
        return Outcome(_SUCCEEDED, body.services.payload(f"result of step {slot.name!r}", result))
    except (SerializationError, LimitExceededError) as error:
        return Outcome(Status.FAILED, error=values.describe_error(error))


def judge(slot: Slot, outcome: Outcome, *, luck: float) -> Outcome | int:
    """What the result of a condition's check means: the operation's outcome, or the delay before the next check.

    The next check gets the result as its state.
    """
    call = slot.call
    assert call is not None
    assert call.poll is not None
    if outcome.status is not _SUCCEEDED:
        return outcome
    attempt = slot.attempt + 1
    try:
        state = None if outcome.result is None else values.decode(outcome.result.data)
        if call.poll.is_met(state):
            return outcome
        delay_ms = call.poll.next_delay_ms(state, attempt, luck=luck)
    except Exception as error:  # the policy's functions are the user's
        return Outcome(Status.FAILED, error=values.describe_error(error))
    if delay_ms is None:
        told = f"the condition was not met after {attempt} checks"
        return Outcome(Status.FAILED, error=ErrorData("WaitForConditionError", told))
    slot.copies = values.encode([state])
    return delay_ms


def recall_state(slot: Slot, recorded: Operation, state: Any) -> None:
    """Let the next check of a condition begin with the state that the last one recorded."""
    if recorded.attempt:
        slot.copies = values.encode([state])


def _cancelled(slot: Slot) -> tuple[Outcome | None, ErrorData | None, BaseException | None]:
    """What a cancelled body means: its awaiter's wish, or a failure of its own."""
    if slot.is_cancelled:
        return Outcome(Status.CANCELLED), None, None
    said = "the step's body cancelled itself"
    return None, ErrorData("CancelledError", said), asyncio.CancelledError(said)
