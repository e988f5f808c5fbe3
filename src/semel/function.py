"""@durable_function and @step: what is known of user code, and the registry it is found in.

A decorated function stays an ordinary callable: the decorators only attach what the engine
needs to know, and register the name under which the journal refers to the code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar, overload

from msgspec import Struct

from semel.code import code_hash
from semel.errors import UnknownHandlerError, ValidationError
from semel.kernel.entry import EXECUTION_MS_MAX, Effect
from semel.kernel.ids import PINNED, check_name
from semel.kernel.values import register_annotations
from semel.retry import DEFAULT, NEVER, Retry, check_retry

F = TypeVar("F", bound=Callable[..., Any])

AT_LEAST_ONCE: Final = "at_least_once"
PER_RETRY: Final = "at_most_once_per_retry"
Semantics = Literal["at_least_once", "at_most_once_per_retry"]
EffectName = Literal["repeatable", "keyed", "at_most_once"]


class _EffectKey(str):
    """The default of a parameter that the engine fills with the step's stable effect key."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "semel.EFFECT_KEY"


EFFECT_KEY: Final[str] = _EffectKey("effect-key-of-a-call-outside-an-engine")


class StepOptions(Struct, frozen=True):
    """How a step behaves. `effect_parameter` is the one whose default is EFFECT_KEY, if any."""

    name: str
    retry: Retry
    effect: Effect
    semantics: str
    effect_parameter: str | None
    is_async: bool
    starts_durably: bool = False  # the start must be on disk before the body runs
    is_plain: bool = True  # repeatable, at least once: nothing to record of its kind
    needs_key: bool = False  # its effect has a name, for the provider or for the record
    given_retry: Retry | None = None  # None where `retry` is the default of the effect kind


class FunctionSpec:
    """A function as the registry knows it. `version` is its name's code, hashed once. A plain one takes no context."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        timeout_ms: int | None = None,
        retention_ms: int | None = None,
        is_plain: bool = False,
        is_pinned: bool = False,
        is_strict: bool = False,
    ) -> None:
        self.name = name
        self.function = function
        self.timeout_ms = timeout_ms
        self.retention_ms = retention_ms
        self.is_plain = is_plain
        self.is_pinned = is_pinned
        self.is_strict = is_strict
        self.is_async = inspect.iscoroutinefunction(function)
        code = inspect.unwrap(function).__code__
        self.source = f"{code.co_filename}:{code.co_firstlineno}"
        self._version: str | None = None

    @property
    def version(self) -> str:
        if self._version is None:
            self._version = f"{self.name}@{code_hash(self.function)}"
        return self._version

    @property
    def pinned_version(self) -> str:
        """The version as the row of a pinned execution has it."""
        return self.version + PINNED

    @property
    def stream_version(self) -> str:
        """The version as the row of an execution that begins now has it."""
        return self.pinned_version if self.is_pinned else self.version


class Registry:
    """Functions and actor types by the name that the journal uses."""

    def __init__(self) -> None:
        self.functions: dict[str, FunctionSpec] = {}
        self.actors: dict[str, type] = {}

    def add_function(self, spec: FunctionSpec) -> None:
        """Register, or raise ValidationError if another function has the name."""
        known = self.functions.get(spec.name)
        if known is not None and known.source != spec.source and not _is_same_place(known.function, spec.function):
            raise ValidationError(
                f"durable function {spec.name!r}: {known.source} and {spec.source} both have that name; "
                f'expected one function a name; give one of them @durable_function(name="…")'
            )
        self.functions[spec.name] = spec

    def add_actor(self, name: str, actor: type) -> None:
        """Register, or raise ValidationError if another class has the name."""
        known = self.actors.get(name)
        if known is not None and not _is_same_place(known, actor):
            raise ValidationError(
                f"actor type {name!r}: {known.__module__} and {actor.__module__} both have that name; "
                f"expected one class a name; give one of them another actor_type"
            )
        self.actors[name] = actor

    def function(self, name: str) -> FunctionSpec:
        """Look a function up. Raises UnknownHandlerError, naming what is registered."""
        try:
            return self.functions[name]
        except KeyError:
            raise UnknownHandlerError(_unknown("durable function", name, self.functions)) from None

    def actor(self, name: str) -> type:
        """Look an actor type up. Raises UnknownHandlerError, naming what is registered."""
        try:
            return self.actors[name]
        except KeyError:
            raise UnknownHandlerError(_unknown("actor type", name, self.actors)) from None


def _is_same_place(known: Any, new: Any) -> bool:
    return (known.__module__, known.__qualname__) == (new.__module__, new.__qualname__)


def _unknown(subject: str, name: str, registered: dict[str, Any]) -> str:
    names = ", ".join(sorted(registered)[:10]) or "nothing"
    return f"{subject} {name!r}: it is not registered, expected one of: {names}; import the module that defines it"


REGISTRY: Final = Registry()  # decorators run at import, before any engine: the one registry they can reach


def public_name(thing: Callable[..., Any] | type) -> str:
    """The name code is registered under unless it is given one: its qualified name, locals left out."""
    return thing.__qualname__.replace("<locals>.", "")


@overload
def durable_function(function: F, /) -> F: ...
@overload
def durable_function(
    *,
    name: str | None = None,
    timeout_ms: int | None = None,
    retention_ms: int | None = None,
    pin: bool = False,
    strict: bool = False,
) -> Callable[[F], F]: ...
def durable_function(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    timeout_ms: int | None = None,
    retention_ms: int | None = None,
    pin: bool = False,
    strict: bool = False,
) -> Any:
    """Make `function(ctx, *arguments)` durable, under its qualified name or `name`.

    `async def` runs on the body loop, `def` in a thread. An execution that has no outcome after
    `timeout_ms` ends TIMED_OUT; a start may set another time. One that has ended is kept for
    `retention_ms`, or as `Limits` says. `pin`: an execution runs under the version of the code that it
    began with and no other, and waits while no worker has that. `strict`: a step that a replay asks for
    with other arguments than recorded is a divergence; else that is only told beside one. Raises
    ValidationError if the name is taken by other code. The function itself is returned unchanged.
    """
    check_timeout(timeout_ms)
    if retention_ms is not None and (not isinstance(retention_ms, int) or retention_ms is True or retention_ms < 0):
        raise ValidationError(f"retention_ms: found {retention_ms!r}, expected a whole number, 0 or more, or None")

    def register(target: F) -> F:
        return _register(
            "durable_function",
            target,
            name,
            timeout_ms=timeout_ms,
            retention_ms=retention_ms,
            is_pinned=pin,
            is_strict=strict,
        )

    return register if function is None else register(function)


def check_timeout(timeout_ms: int | None) -> int | None:
    """Return the time that an execution has, or None for as long as it takes. Raises ValidationError."""
    is_whole = isinstance(timeout_ms, int) and not isinstance(timeout_ms, bool)
    if timeout_ms is None or (is_whole and 1 <= timeout_ms <= EXECUTION_MS_MAX):
        return timeout_ms
    raise ValidationError(
        f"timeout_ms: found {timeout_ms!r}, expected a whole number from 1 to {EXECUTION_MS_MAX} (366 days), or None"
    )


@overload
def plain_function(function: F, /) -> F: ...
@overload
def plain_function(*, name: str | None = None) -> Callable[[F], F]: ...
def plain_function(function: Any = None, /, *, name: str | None = None) -> Any:
    """Register `function(*arguments)`, which has no operations of its own, so that `ctx.invoke` can run it.

    Each invoke is one execution with one step, at least once and not retried. Raises ValidationError
    as `durable_function` does. The function itself is returned unchanged.
    """

    def register(target: F) -> F:
        return _register("plain_function", target, name, is_plain=True)

    return register if function is None else register(function)


def _register(decorator: str, target: F, name: str | None, **options: Any) -> F:
    _check_function(decorator, target)
    spec = FunctionSpec(check_name("durable function", name or public_name(target)), target, **options)
    REGISTRY.add_function(spec)
    register_annotations(target)
    target.__semel_function__ = spec  # type: ignore[attr-defined]
    return target


def invoked(function: Callable[..., Any] | str) -> tuple[str, str]:
    """The name of a function that is to be invoked, and the version that its execution's row is to have.

    A name that this process does not know may be another worker's: the execution waits for it. Raises
    ValidationError for no name, UnknownHandlerError for a function that is not registered.
    """
    if isinstance(function, str):
        known = REGISTRY.functions.get(check_name("invoke function", function))
        return function, "" if known is None else known.stream_version
    if not callable(function):
        raise ValidationError(f"invoke function: found {function!r:.80}, expected a durable function or its name")
    spec = function_spec(function)
    return spec.name, spec.stream_version


def _check_function(decorator: str, target: object) -> None:
    if not inspect.isfunction(inspect.unwrap(target) if callable(target) else target):
        raise ValidationError(
            f"@{decorator}: found {target!r}, expected a function; "
            f"write @{decorator} above a def, and options by name: @{decorator}(name=…)"
        )


def function_spec(function: Callable[..., Any] | str) -> FunctionSpec:
    """What is known of a durable function, by object or registered name. Raises UnknownHandlerError."""
    if isinstance(function, str):
        return REGISTRY.function(function)
    spec = getattr(function, "__semel_function__", None)
    if not isinstance(spec, FunctionSpec):
        raise UnknownHandlerError(
            f"function {getattr(function, '__qualname__', function)!r}: it is not durable, "
            f"expected one decorated with @durable_function (or @plain_function, to be invoked)"
        )
    return spec


@overload
def step(function: F, /) -> F: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    effect: EffectName = "repeatable",
    semantics: Semantics = "at_least_once",
) -> Callable[[F], F]: ...
def step(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    effect: str = "repeatable",
    semantics: str = "at_least_once",
    **refused: Any,
) -> Any:
    """Say how a function behaves as a step: its retry policy, effect kind and semantics.

    `effect`: "repeatable" (may run again after a crash), "keyed" (its provider deduplicates by
    `effect_key`), "at_most_once" (its start is durable first, and it is never begun again).
    `semantics`: "at_least_once", or AWS's "at_most_once_per_retry". Without `retry`, a step has
    AWS's default policy, an at-most-once one none. Raises ValidationError for anything else.
    """
    if refused:
        check_effect(effect, semantics, **refused)

    def attach(target: F) -> F:
        _check_function("step", target)
        options = step_options(target, name=name, retry=retry, effect=effect, semantics=semantics)
        register_annotations(target)
        target.__semel_step__ = options  # type: ignore[attr-defined]
        return target

    return attach if function is None else attach(function)


def step_options(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    retry: Retry | None = None,
    effect: str | None = None,
    semantics: str | None = None,
) -> StepOptions:
    """The options of a step call: those given here, else those of its decorator, else the defaults."""
    declared = getattr(function, "__semel_step__", None)
    if isinstance(declared, StepOptions):
        if name is None and retry is None and effect is None and semantics is None:
            return declared
        name = declared.name if name is None else name
        retry = declared.given_retry if retry is None else retry
        effect = declared.effect if effect is None else effect
        semantics = declared.semantics if semantics is None else semantics
    elif name is None and retry is None and effect is None and semantics is None:
        return _plain_options(function)
    _check_step(function)
    kind = check_effect(effect or "repeatable", semantics or AT_LEAST_ONCE)
    if retry is not None:
        check_retry("step", retry)
    given_retry = retry
    if retry is None:
        retry = NEVER if kind is Effect.AT_MOST_ONCE else DEFAULT
    elif kind is Effect.AT_MOST_ONCE and retry.attempts != 1:
        raise ValidationError(
            f"step {step_name(function)!r}: found effect='at_most_once' with {retry.attempts} attempts, "
            f"expected no retry; leave retry out, or use semantics='at_most_once_per_retry'"
        )
    known = declared if isinstance(declared, StepOptions) else _plain_options(function)
    effect_parameter = known.effect_parameter
    return StepOptions(
        step_name(function) if name is None else check_name("step", name),
        retry,
        kind,
        semantics or AT_LEAST_ONCE,
        effect_parameter,
        is_async=inspect.iscoroutinefunction(function),
        starts_durably=kind is Effect.AT_MOST_ONCE or semantics == PER_RETRY,
        is_plain=kind is Effect.REPEATABLE and semantics != PER_RETRY,
        needs_key=kind is Effect.KEYED or effect_parameter is not None,
        given_retry=given_retry,
    )


def _plain_options(function: Callable[..., Any]) -> StepOptions:
    """The options of a function without a decorator, kept on it: asking for its signature is slow."""
    known = getattr(function, "__semel_plain_step__", None)
    if isinstance(known, StepOptions):
        return known
    _check_step(function)
    effect_parameter = _effect_parameter(function)
    options = StepOptions(
        step_name(function),
        DEFAULT,
        Effect.REPEATABLE,
        AT_LEAST_ONCE,
        effect_parameter,
        is_async=inspect.iscoroutinefunction(function),
        needs_key=effect_parameter is not None,
    )
    if inspect.isfunction(function):
        function.__semel_plain_step__ = options  # type: ignore[attr-defined]
    return options


def _check_step(function: object) -> None:
    if not callable(function):
        raise ValidationError(f"step: found {function!r:.80}, expected a function, and its arguments after it")


def check_effect(effect: str, semantics: str, **refused: Any) -> Effect:
    """Return the effect kind, or raise ValidationError for what this version does not offer."""
    for option in refused:
        raise ValidationError(
            f"step option {option!r}: it is not one of name, retry, effect, semantics; "
            f"use effect='keyed' where the provider deduplicates, else effect='at_most_once'"
        )
    if semantics not in (AT_LEAST_ONCE, PER_RETRY):
        raise ValidationError(f"step semantics: found {semantics!r}, expected {AT_LEAST_ONCE!r} or {PER_RETRY!r}")
    try:
        return Effect(effect)
    except ValueError:
        offered = ", ".join(repr(kind.value) for kind in Effect)
        raise ValidationError(
            f"step effect: found {effect!r}, expected one of {offered}; "
            f"'probe' and 'transactional' are refused rather than treated as something weaker"
        ) from None


def step_name(function: Callable[..., Any]) -> str:
    """What a step is called unless it is given a name."""
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__


def _effect_parameter(function: Callable[..., Any]) -> str | None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return next((parameter.name for parameter in parameters if parameter.default is EFFECT_KEY), None)
