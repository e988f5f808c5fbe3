"""A reference to an actor: send it messages, wait for its replies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar, TypeVarTuple, overload

from msgspec import Struct

from semel.actor import ActorSpec, GenServer, method_spec
from semel.actor.server import CALL, CAST, INFO
from semel.context import Context
from semel.errors import ActorError, UnknownHandlerError
from semel.kernel import values
from semel.kernel.entry import Settled, Status
from semel.store.base import Address
from semel.sync_context import SyncContext

A = TypeVar("A", bound=GenServer[Any])
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Message(Struct, frozen=True):
    """What is sent to an actor: to the handler `method` of a kind, under an idempotency key or None."""

    address: Address
    spec: ActorSpec
    kind: str
    method: str
    arguments: tuple[Any, ...]
    key: str | None


class Post(Protocol):
    """How a reference reaches the journal. Each returns once the message is on disk."""

    async def ask(self, message: Message) -> Settled: ...
    async def tell(self, message: Message) -> None: ...


class ActorRef(Generic[A]):
    """One actor, by type and key. It exists when it gets its first message."""

    def __init__(self, post: Post, address: Address, spec: ActorSpec) -> None:
        self.address = address
        self._post = post
        self._spec = spec

    @overload
    async def call(
        self, method: Callable[[A, Context, *Ts], Awaitable[T]], /, *arguments: *Ts, key: str | None = None
    ) -> T: ...
    @overload
    async def call(
        self, method: Callable[[A, SyncContext, *Ts], T], /, *arguments: *Ts, key: str | None = None
    ) -> T: ...
    async def call(self, method: Callable[..., Any], /, *arguments: object, key: str | None = None) -> Any:
        """Send a message and wait for the reply; message, state, reply and key are durable before it comes.

        The same key and arguments again get the recorded reply, and nothing runs. Raises
        ActorError if the handler raised (the state is as it was), IdempotencyConflictError if
        the key was used with other arguments, ValidationError for a key or method that will not do.
        """
        spec = method_spec(method, self._spec, CALL)
        settled = await self._post.ask(Message(self.address, self._spec, CALL, spec.name, arguments, key))
        return reply_value(self._spec.name, spec.name, settled)

    @overload
    async def cast(
        self, method: Callable[[A, Context, *Ts], Awaitable[Any]], /, *arguments: *Ts, key: str | None = None
    ) -> None: ...
    @overload
    async def cast(
        self, method: Callable[[A, SyncContext, *Ts], Any], /, *arguments: *Ts, key: str | None = None
    ) -> None: ...
    async def cast(self, method: Callable[..., Any], /, *arguments: object, key: str | None = None) -> None:
        """Send a message; it is on disk when this returns, and takes effect once."""
        spec = method_spec(method, self._spec, CAST)
        await self._post.tell(Message(self.address, self._spec, CAST, spec.name, arguments, key))

    async def info(self, message: object, *, key: str | None = None) -> None:
        """Send any other message to the handler marked @info; it is on disk when this returns."""
        spec = self._spec.info_method
        if spec is None:
            raise UnknownHandlerError(
                f"actor {self._spec.name!r}: it has no handler marked @info, expected one; add it or use cast"
            )
        await self._post.tell(Message(self.address, self._spec, INFO, spec.name, (message,), key))

    def __repr__(self) -> str:
        return f"<ActorRef {self.address.name}/{self.address.key}>"


def reply_value(actor: str, method: str, settled: Settled) -> Any:
    """What a caller gets of a recorded reply: the value, or ActorError raised."""
    if settled.status is Status.SUCCEEDED:
        return None if settled.result is None else values.decode(settled.result.data)
    error = settled.error
    error_type, message = (settled.status.value, "") if error is None else (error.type, error.message)
    raise ActorError(f"{actor}.{method}", error_type, message)
