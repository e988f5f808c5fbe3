"""Running the body of a step: on the real loop, or in a thread, where everything is allowed."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
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


def prepare(call: StepCall) -> tuple[bytes, tuple[Any, ...]]:
    """A digest that tell one call's arguments from another's, and the arguments as the step gets them.

    They are copies, as the journal would give them: a step that changed its caller's objects
    would make replay differ. What the codec cannot keep is handed over as it is, without a digest.
    """
    arguments = call.arguments
    if not arguments:
        return b"", arguments
    try:
        data = values.encode(arguments)
    except SerializationError:
        return b"", tuple(_copy(argument) for argument in arguments)
    digest = zlib.crc32(data).to_bytes(4, "big")
    if IMMUTABLE.issuperset(map(type, arguments)):
        return digest, arguments
    return digest, values.decode(data)


def _copy(argument: Any) -> Any:
    try:
        return values.round_trip(argument)
    except SerializationError:
        return argument


def begin(body: Body, slot: Slot) -> None:
    """Start the step's body; its end comes back through `Body.step_ended`, on the loop."""
    call, context = slot.call, slot.context
    assert call is not None
    assert context is not None
    services, options = body.services, call.options
    keywords: dict[str, Any] = {}
    if options.effect_parameter is not None:
        keywords[options.effect_parameter] = ids.effect_key(services.journal_id, body.origin, slot.id)
    if options.is_async:
        slot.task = asyncio.Task(_run(body, slot, call, keywords), loop=services.loop, context=context)
        return
    run = partial(context.run, call.function, *slot.copies, **keywords)
    slot.task = future = services.loop.run_in_executor(services.step_threads, run)
    future.add_done_callback(partial(_ended, body, slot))


async def _run(body: Body, slot: Slot, call: StepCall, keywords: dict[str, Any]) -> None:
    """The task of an `async def` step. Its end is reported to the services, which hand on all of a round together."""
    try:
        result = await call.function(*slot.copies, **keywords)
    except asyncio.CancelledError:
        body.services.step_ended(body, slot, *_cancelled(slot))
    except (SystemExit, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        body.services.step_ended(body, slot, None, values.describe_error(error), error)
    else:
        body.services.step_ended(body, slot, _returned(result), None, None)


def _ended(body: Body, slot: Slot, future: asyncio.Future[Any]) -> None:
    """A `def` step's thread is done with it."""
    if future.cancelled():
        body.step_ended(slot, *_cancelled(slot))
        return
    raised = future.exception()
    if raised is not None:
        body.step_ended(slot, None, values.describe_error(raised), raised)
        return
    body.step_ended(slot, _returned(future.result()), None, None)


def _returned(result: Any) -> Outcome:
    """The outcome of a step that returned. A result that the codec cannot keep fails it, and is not tried again."""
    if result is None:
        return Outcome(Status.SUCCEEDED)
    try:
        return Outcome(Status.SUCCEEDED, Payload(values.encode(result)))
    except SerializationError as error:
        return Outcome(Status.FAILED, error=values.describe_error(error))


def _cancelled(slot: Slot) -> tuple[Outcome | None, ErrorData | None, BaseException | None]:
    """What a cancelled body means: its awaiter's wish, or a failure of its own."""
    if slot.is_cancelled:
        return Outcome(Status.CANCELLED), None, None
    said = "the step's body cancelled itself"
    return None, ErrorData("CancelledError", said), asyncio.CancelledError(said)
