"""GenServer: what a user writes an actor as, and what the engine knows of it.

The generic part (mailbox, one turn at a time, keys, recovery) is the engine's; a subclass
gives the callbacks: `init`, handlers marked @call, @cast or @info, and `terminate`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Generic, TypeVar

from semel.code import code_hash
from semel.errors import UnknownHandlerError, ValidationError
from semel.facet import DurabilityFacet, Facet
from semel.function import REGISTRY, public_name
from semel.kernel.ids import check_name
from semel.kernel.values import register_annotations

S = TypeVar("S")
F = TypeVar("F", bound=Callable[..., Any])

CALL = "call"
CAST = "cast"
INFO = "info"


class MethodSpec:
    """A handler as its class knows it."""

    def __init__(self, kind: str, name: str, function: Callable[..., Any]) -> None:
        self.kind = kind
        self.name = name
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)


def call(method: F) -> F:
    """Mark a handler whose caller waits for the reply: `async def pay(self, ctx, request) -> Reply`."""
    return _mark(CALL, method)


def cast(method: F) -> F:
    """Mark a handler whose sender waits for nothing but that the message is on disk."""
    return _mark(CAST, method)


def info(method: F) -> F:
    """Mark the handler of any other message: `async def anything(self, ctx, message)`. One a class."""
    return _mark(INFO, method)


def _mark(kind: str, method: F) -> F:
    method.__semel_method__ = MethodSpec(kind, method.__name__, method)  # type: ignore[attr-defined]
    return method


class GenServer(Generic[S]):
    """An actor with typed state. `facets` lists what is declared of its turns.

    `self.state` is the state; a handler that raises leaves it as it was. `actor_type` is the
    name that the journal uses, the class's qualified name unless it is set.
    """

    facets: ClassVar[list[Facet]] = []
    actor_type: ClassVar[str] = ""
    __semel_actor__: ClassVar[ActorSpec]
    state: S

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if inspect.isabstract(cls):
            return
        spec = ActorSpec(cls)
        cls.__semel_actor__ = spec
        REGISTRY.add_actor(spec.name, cls)

    def init(self) -> S | Awaitable[S]:
        """Make the state of a new actor: deterministic, without effects. By default, the State type called bare."""
        state_type = type(self).__semel_actor__.state_type
        if state_type is None:
            raise ValidationError(
                f"actor {type(self).__qualname__}: found no type for its state, expected GenServer[State] "
                f"or a method init() that makes it"
            )
        try:
            made: S = state_type()
        except TypeError as error:
            raise ValidationError(
                f"actor {type(self).__qualname__}: {state_type.__qualname__}() cannot make its first state ({error}), "
                f"expected one that needs no arguments; give the actor a method init()"
            ) from error
        return made

    def terminate(self, reason: str) -> None:
        """The actor leaves memory (`reason`: "passivated" or "closed"). It is not over: effects belong in steps."""


class ActorSpec:
    """An actor class as the registry knows it."""

    def __init__(self, actor: type[GenServer[Any]]) -> None:
        declared = actor.__dict__.get("actor_type") or public_name(actor)
        self.name = check_name("actor type", declared)
        self.actor = actor
        self.methods = _methods(actor)
        self.state_type = _state_type(actor)
        self.durability = next((facet for facet in actor.facets if isinstance(facet, DurabilityFacet)), None)
        self._version: str | None = None
        for facet in actor.facets:
            if not isinstance(facet, Facet):
                raise ValidationError(
                    f"actor {self.name!r}: facets has {facet!r}, expected facets such as DurabilityFacet()"
                )
        for method in self.methods.values():
            register_annotations(method.function)
        if self.state_type is not None:
            register_annotations(self.state_type)

    @property
    def version(self) -> str:
        if self._version is None:
            self._version = f"{self.name}@{code_hash(self.actor)}"
        return self._version

    @property
    def info_method(self) -> MethodSpec | None:
        return next((method for method in self.methods.values() if method.kind == INFO), None)

    def method(self, name: str) -> MethodSpec:
        """Look a handler up. Raises UnknownHandlerError."""
        try:
            return self.methods[name]
        except KeyError:
            known = ", ".join(sorted(self.methods)) or "none"
            raise UnknownHandlerError(
                f"actor {self.name!r}: it has no handler {name!r}, expected one of: {known}; "
                f"mark the method with @call, @cast or @info"
            ) from None


def _methods(actor: type) -> dict[str, MethodSpec]:
    methods: dict[str, MethodSpec] = {}
    for name in dir(actor):
        marked = getattr(inspect.getattr_static(actor, name), "__semel_method__", None)
        if isinstance(marked, MethodSpec):
            methods[name] = marked
    infos = [name for name, method in methods.items() if method.kind == INFO]
    if len(infos) > 1:
        raise ValidationError(f"actor {actor.__qualname__}: {infos} are all marked @info, expected one at most")
    return methods


def _state_type(actor: type) -> Any:
    """The `State` of the `GenServer[State]` that a class derives from, or None."""
    for base in actor.__mro__:
        for generic in getattr(base, "__orig_bases__", ()):
            origin = typing.get_origin(generic)
            if isinstance(origin, type) and issubclass(origin, GenServer):
                argument = typing.get_args(generic)[0]
                return None if isinstance(argument, TypeVar) else argument
    return None


def actor_spec(actor: type[GenServer[Any]] | str) -> ActorSpec:
    """What is known of an actor type, by class or registered name. Raises UnknownHandlerError."""
    found = REGISTRY.actor(actor) if isinstance(actor, str) else actor
    spec = getattr(found, "__semel_actor__", None)
    if not isinstance(spec, ActorSpec):
        raise UnknownHandlerError(f"actor {found!r}: expected a subclass of semel.GenServer")
    return spec


def method_spec(method: Callable[..., Any] | str, spec: ActorSpec, kind: str) -> MethodSpec:
    """The handler that a message is for. Raises UnknownHandlerError, or ValidationError for another kind."""
    name = method if isinstance(method, str) else getattr(method, "__name__", "")
    found = spec.method(name)
    if found.kind != kind:
        raise ValidationError(
            f"actor {spec.name!r}: {name!r} is marked @{found.kind}, expected @{kind}; send it with .{found.kind}()"
        )
    return found
