"""Operations that somebody else settles: callbacks and invokes.

The holder records their start, and that the body was told of the outcome. The outcome itself is an
arrival: written by whoever brings it, or because its time is up, in a journal call of its own.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from semel.calls import CallbackCall, InvokeCall
from semel.function import REGISTRY
from semel.kernel import ids
from semel.kernel.entry import SETTLED
from semel.kernel.operation import Action, Operation
from semel.runtime.slot import QUEUED, WAITING, Outcome, Slot

if TYPE_CHECKING:
    from semel.runtime.body import Body

logger = logging.getLogger("semel")


def engage(body: Body, slot: Slot) -> None:
    """Record that the operation began, unless that is on disk, and wait for the arrival."""
    recorded = body.memo.operations.get(slot.id)
    if recorded is None:
        _begin(body, slot)
        body.arm(slot)
        return
    slot.recorded = recorded
    slot.phase = WAITING
    take_in(body, slot, recorded)


def _begin(body: Body, slot: Slot) -> None:
    asked, now_ms = slot.outside, body.now()
    assert isinstance(asked, CallbackCall | InvokeCall)
    due_ms = now_ms + asked.timeout_ms if asked.timeout_ms else None
    if isinstance(asked, InvokeCall):
        _tell_if_unknown(body, asked.function)
        entropy = body.services.entropy.randbytes(ids.UID_ENTROPY_BYTES)
        slot.child = ids.stream_uid(now_ms, entropy)
        known = REGISTRY.functions.get(asked.function)
        if known is not None and known.timeout_ms is not None:
            slot.child_due_ms = now_ms + known.timeout_ms
    body.record(slot.update(Action.START, now_ms, due_ms=due_ms))
    slot.payload = None  # it is on its way
    slot.due_ms = due_ms
    if isinstance(asked, CallbackCall) and asked.heartbeat_ms:
        silent_ms = now_ms + asked.heartbeat_ms
        slot.due_ms = silent_ms if due_ms is None else min(due_ms, silent_ms)


def _tell_if_unknown(body: Body, function: str) -> None:
    """Say once that an execution was started which nobody here can run: a mistyped name would wait without a word."""
    unknown = body.services.unknown
    if function not in REGISTRY.functions and function not in unknown:
        unknown.add(function)
        logger.warning(
            "invoke of %r: no worker of this engine has it; its execution waits for one that has. Import the module "
            "that defines it, or give the invoke a timeout_ms",
            function,
        )


def take_in(body: Body, slot: Slot, operation: Operation) -> None:
    """Look at what somebody else recorded of the operation. Before it is engaged, nothing is done with that."""
    if slot.recorded is not None:
        slot.recorded = operation
    if slot.phase is not WAITING:
        return
    if operation.status in SETTLED:
        slot.phase = QUEUED
        body.deliver_later(slot, Outcome(operation.status, operation.result, operation.error))
    else:
        slot.due_ms = operation.due_ms
        body.arm(slot)
