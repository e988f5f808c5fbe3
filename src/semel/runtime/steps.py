"""Running the body of a step: on the real loop, or in a thread, where everything is allowed."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

from semel.context import StepCall
from semel.errors import SerializationError
from semel.kernel import ids, values
from semel.kernel.entry import Payload, Status
from semel.kernel.values import ErrorData
from semel.runtime.slot import Outcome, Slot

if TYPE_CHECKING:
    from semel.runtime.body import Body

IMMUTABLE = frozenset({type(None), bool, int, float, str, bytes})


def digest(call: StepCall) -> bytes:
    """Eight bytes that tell one call's arguments from another's; empty if the codec cannot keep them."""
    if not call.arguments:
        return b""
    try:
        return hashlib.blake2b(values.encode(call.arguments), digest_size=8).digest()
    except SerializationError:
        return b""


def begin(body: Body, slot: Slot) -> None:
    """Start the step's body; its end comes back through `Body.step_ended`, on the loop."""
    call = slot.call
    assert call is not None
    loop = body.services.loop
    arguments, options = _copies(call), call.options
    keywords: dict[str, Any] = {}
    if options.effect_parameter is not None:
        keywords[options.effect_parameter] = ids.effect_key(body.services.journal_id, body.origin, slot.id)
    ended = partial(_ended, body, slot)
    assert slot.context is not None
    context = slot.context.copy() if options.retry.attempts > 1 else slot.context
    try:
        if options.is_async:
            slot.task = loop.create_task(call.function(*arguments, **keywords), context=context)
        else:
            run = partial(context.run, call.function, *arguments, **keywords)
            slot.task = loop.run_in_executor(body.services.step_threads, run)
    except Exception as error:  # wrong arguments are the step's failure
        loop.call_soon(body.step_ended, slot, None, values.describe_error(error), error)
        return
    slot.task.add_done_callback(ended)


def _copies(call: StepCall) -> tuple[Any, ...]:
    """Arguments as the journal would give them: a step that changed them would make replay differ."""
    if all(type(argument) in IMMUTABLE for argument in call.arguments):
        return call.arguments
    return tuple(_copy(argument) for argument in call.arguments)


def _copy(argument: Any) -> Any:
    try:
        return values.round_trip(argument)
    except SerializationError:
        return argument


def _ended(body: Body, slot: Slot, task: asyncio.Future[Any]) -> None:
    if task.cancelled():
        if slot.is_cancelled:
            body.step_ended(slot, Outcome(Status.CANCELLED), None, None)
        else:
            error = asyncio.CancelledError("the step's body cancelled itself")
            body.step_ended(slot, None, ErrorData("CancelledError", "the step's body cancelled itself"), error)
        return
    raised = task.exception()
    if raised is not None:
        body.step_ended(slot, None, values.describe_error(raised), raised)
        return
    result = task.result()
    try:
        payload = None if result is None else Payload(values.encode(result))
    except SerializationError as error:
        body.step_ended(slot, Outcome(Status.FAILED, error=values.describe_error(error)), None, None)
        return
    body.step_ended(slot, Outcome(Status.SUCCEEDED, payload), None, None)
