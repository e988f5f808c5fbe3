"""The facts. An entry is past tense, never changes, and there are nine kinds of them.

Field names are one or two letters on disk, and what is empty is left out; a field can be
added with a default, never removed or given another meaning. `offset_ms` is the time of the
entry less the time of the record that carries it.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from semel.kernel.report import DivergenceReport
from semel.kernel.values import ENCODING, ErrorData


class Kind(StrEnum):
    """What an operation is: AWS's types, and MESSAGE for actors."""

    EXECUTION = "EXECUTION"
    CONTEXT = "CONTEXT"
    STEP = "STEP"
    WAIT = "WAIT"
    CALLBACK = "CALLBACK"
    CHAINED_INVOKE = "CHAINED_INVOKE"
    MESSAGE = "MESSAGE"


class Status(StrEnum):
    """Where an operation stands: AWS's statuses, and ABSENT for one that has no entry."""

    ABSENT = "ABSENT"
    STARTED = "STARTED"
    PENDING = "PENDING"
    READY = "READY"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"
    STOPPED = "STOPPED"


SETTLED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT, Status.STOPPED})


# Settled by somebody else than the holder of their stream, who is told in an entry of its own.
ARRIVING = frozenset({Kind.CALLBACK, Kind.CHAINED_INVOKE})


class Effect(StrEnum):
    """What a step does to the world, and so what may be done after a crash in the gap."""

    REPEATABLE = "repeatable"
    KEYED = "keyed"
    AT_MOST_ONCE = "at_most_once"


EXECUTION_MS_MAX = 366 * 24 * 3_600_000  # what an execution may take at most, as AWS has it


class Control(StrEnum):
    """What a person or program may do to a stream from outside."""

    PAUSE = "pause"
    RESUME = "resume"
    PARK = "park"
    UNPIN = "unpin"


CLOCKED = frozenset({Control.PAUSE, Control.RESUME, Control.PARK})  # those that set the deadline anew


class Payload(
    Struct,
    frozen=True,
    omit_defaults=True,
    rename={"data": "d", "encoding": "e", "digest": "h", "key_id": "k", "size": "z"},
):
    """A value as bytes. `key_id` when encrypted.

    Those of a large one are in chunks of the same stream: then `digest` is the digests of its chunks,
    one after another, and `size` how many bytes there are.
    """

    data: bytes = b""
    encoding: str = ENCODING
    digest: bytes = b""
    key_id: str = ""
    size: int = 0


_MESSAGE_FIELDS = {
    "kind": "k",
    "method": "m",
    "sender": "s",
    "sender_operation": "so",
    "reply_to": "r",
    "chain": "c",
    "deadline_ms": "d",
    "priority": "p",
    "key": "i",
}


class MessageHeader(Struct, frozen=True, gc=False, omit_defaults=True, rename=_MESSAGE_FIELDS):
    """What an actor's message says about itself. `chain` is the open calls that led to it."""

    kind: str
    method: str
    sender: str = ""
    sender_operation: str = ""
    reply_to: str = ""
    chain: tuple[str, ...] = ()
    deadline_ms: int = 0
    priority: int = 0
    key: str = ""


_STARTED_FIELDS = {
    "operation": "o",
    "kind": "k",
    "parent": "p",
    "name": "n",
    "subtype": "s",
    "path": "l",
    "source": "f",
    "arguments": "a",
    "version": "v",
    "effect": "e",
    "semantics": "es",
    "effect_key": "ek",
    "due_ms": "u",
    "payload": "i",
    "message": "m",
    "fingerprint": "fp",
    "origin": "og",
    "trace": "tr",
    "offset_ms": "t",
    "heartbeat_ms": "hb",
    "child": "ch",
}


class Started(Struct, frozen=True, gc=False, omit_defaults=True, tag="S", tag_field="_", rename=_STARTED_FIELDS):
    """An operation began. `path` only where the id is its hash; `arguments` is a digest; `source` is file:line.

    `heartbeat_ms` is how long a callback may be silent, `child` the uid of the execution that an invoke made.
    """

    operation: str
    kind: Kind
    parent: str = ""
    name: str = ""
    subtype: str = ""
    path: str = ""
    source: str = ""
    arguments: bytes = b""
    version: str = ""
    effect: Effect = Effect.REPEATABLE
    semantics: str = ""
    effect_key: str = ""
    due_ms: int | None = None
    payload: Payload | None = None
    message: MessageHeader | None = None
    fingerprint: bytes = b""
    origin: str = ""
    trace: str = ""
    offset_ms: int = 0
    heartbeat_ms: int = 0
    child: str = ""


_RETRY_FIELDS = {"operation": "o", "due_ms": "u", "error": "x", "payload": "r", "offset_ms": "t"}


class RetryScheduled(Struct, frozen=True, gc=False, omit_defaults=True, tag="R", tag_field="_", rename=_RETRY_FIELDS):
    """An attempt ended and another is due at `due_ms`."""

    operation: str
    due_ms: int
    error: ErrorData | None = None
    payload: Payload | None = None
    offset_ms: int = 0


_PLAIN_FIELDS = {"operation": "o", "offset_ms": "t"}


class RetryReady(Struct, frozen=True, gc=False, omit_defaults=True, tag="Y", tag_field="_", rename=_PLAIN_FIELDS):
    """The next attempt may begin."""

    operation: str
    offset_ms: int = 0


class HeartbeatReceived(
    Struct, frozen=True, gc=False, omit_defaults=True, tag="H", tag_field="_", rename=_PLAIN_FIELDS
):
    """The outside party is still at work."""

    operation: str
    offset_ms: int = 0


_SETTLED_FIELDS = {
    "operation": "o",
    "status": "s",
    "result": "r",
    "error": "x",
    "requested": "c",
    "replay_children": "rc",
    "offset_ms": "t",
}


class Settled(Struct, frozen=True, gc=False, omit_defaults=True, tag="E", tag_field="_", rename=_SETTLED_FIELDS):
    """An operation reached its outcome. `requested`: by its own awaiter, so that nothing is delivered (R2)."""

    operation: str
    status: Status = Status.SUCCEEDED
    result: Payload | None = None
    error: ErrorData | None = None
    requested: bool = False
    replay_children: bool = False
    offset_ms: int = 0


class Delivered(Struct, frozen=True, gc=False, omit_defaults=True, tag="D", tag_field="_", rename=_PLAIN_FIELDS):
    """The body was told of an outcome that somebody else recorded: here, among what it did before and after."""

    operation: str
    offset_ms: int = 0


_TURN_FIELDS = {"operation": "o", "state": "s", "version": "v", "offset_ms": "t"}


class TurnEnded(Struct, frozen=True, gc=False, omit_defaults=True, tag="T", tag_field="_", rename=_TURN_FIELDS):
    """An actor finished handling a message. One that carries `state` is a snapshot."""

    operation: str
    state: Payload | None = None
    version: str = ""
    offset_ms: int = 0


_INVOCATION_FIELDS = {"invocation": "n", "error": "x", "offset_ms": "t"}


class InvocationEnded(
    Struct, frozen=True, gc=False, omit_defaults=True, tag="V", tag_field="_", rename=_INVOCATION_FIELDS
):
    """One pass over a function's code ended, with `error` if it crashed."""

    invocation: int
    error: ErrorData | None = None
    offset_ms: int = 0


_CONTROL_FIELDS = {"action": "a", "reason": "r", "actor": "w", "offset_ms": "t", "due_ms": "u", "report": "d"}


class Controlled(Struct, frozen=True, gc=False, omit_defaults=True, tag="C", tag_field="_", rename=_CONTROL_FIELDS):
    """A person or program paused, resumed, parked or unpinned the stream, and why.

    `due_ms` is the execution's deadline from here on: none while its clock is held. `report` is that
    of a divergence.
    """

    action: Control
    reason: str = ""
    actor: str = ""
    offset_ms: int = 0
    due_ms: int | None = None
    report: DivergenceReport | None = None


Entry = (
    Started
    | RetryScheduled
    | RetryReady
    | HeartbeatReceived
    | Settled
    | Delivered
    | TurnEnded
    | InvocationEnded
    | Controlled
)
ENTRY_KINDS: tuple[type[Entry], ...] = (
    Started,
    RetryScheduled,
    RetryReady,
    HeartbeatReceived,
    Settled,
    Delivered,
    TurnEnded,
    InvocationEnded,
    Controlled,
)


class Record(Struct, frozen=True, gc=False):
    """An entry with its place and time: `seq` counts the entries of its stream from 1 (J1)."""

    seq: int
    time_ms: int
    epoch: int
    invocation: int
    entry: Entry
