"""What the decorators know of user code, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from semel.errors import UnknownHandlerError, ValidationError
from semel.function import (
    EFFECT_KEY,
    FunctionSpec,
    Registry,
    durable_function,
    function_spec,
    step,
    step_options,
)
from semel.kernel.entry import Effect
from semel.retry import DEFAULT, NEVER, Retry

untyped_step: Any = step  # for options that mypy would refuse before we can


def charge(order: str) -> str:
    return order


async def charge_keyed(order: str, *, effect_key: str = EFFECT_KEY) -> str:
    return f"{order} {effect_key}"


def test_an_undecorated_function_is_a_step_with_the_defaults() -> None:
    options = step_options(charge)
    assert (options.name, options.retry, options.effect, options.semantics) == (
        "charge",
        DEFAULT,
        Effect.REPEATABLE,
        "at_least_once",
    )
    assert (options.effect_parameter, options.is_async, options.starts_durably) == (None, False, False)
    assert step_options(charge) is options


def test_a_decorated_function_stays_an_ordinary_callable() -> None:
    @step
    def plain(order: str) -> str:
        return order

    @step(name="other", effect="keyed", retry=Retry(attempts=2))
    def named(order: str) -> str:
        return order

    @durable_function
    def durable(ctx: object, order: str) -> str:
        return order

    assert (plain("a"), named("b"), durable(None, "c")) == ("a", "b", "c")
    assert (step_options(plain).name, step_options(named).name) == ("plain", "other")
    assert (step_options(named).effect, step_options(named).retry.attempts) == (Effect.KEYED, 2)


def test_the_effect_key_goes_where_its_default_stands() -> None:
    options = step_options(charge_keyed)
    assert (options.effect_parameter, options.is_async) == ("effect_key", True)
    assert repr(EFFECT_KEY) == "semel.EFFECT_KEY"


def test_what_the_call_says_goes_before_what_the_decorator_says() -> None:
    declared = step(name="declared", retry=Retry(attempts=2), effect="keyed")(charge_keyed)
    assert step_options(declared).name == "declared"
    options = step_options(declared, name="called", retry=Retry(attempts=3), semantics="at_most_once_per_retry")
    assert (options.name, options.retry.attempts, options.effect) == ("called", 3, Effect.KEYED)
    assert options.starts_durably
    assert step_options(declared, name="called").retry.attempts == 2
    del charge_keyed.__semel_step__  # type: ignore[attr-defined]


def test_G4_an_at_most_once_step_starts_durably_and_has_no_retry() -> None:
    @step(effect="at_most_once")
    def once() -> None: ...

    options = step_options(once)
    assert (options.retry, options.starts_durably) == (NEVER, True)
    assert step_options(charge, effect="at_most_once", retry=Retry(attempts=1)).effect is Effect.AT_MOST_ONCE


def test_G4_the_default_retry_follows_the_effect_kind_of_the_call() -> None:
    @step
    def plain() -> None: ...

    @step(effect="at_most_once")
    def once() -> None: ...

    assert step_options(plain, effect="at_most_once").retry == NEVER
    assert step_options(once, effect="repeatable").retry == DEFAULT
    assert step_options(step_decorated_with_two, effect="keyed").retry.attempts == 2


@step(retry=Retry(attempts=2))
def step_decorated_with_two() -> None: ...


def test_G4_at_most_once_with_retries_is_refused() -> None:
    for refused in (
        lambda: step(effect="at_most_once", retry=Retry(attempts=2))(charge),
        lambda: step_options(charge, effect="at_most_once", retry=Retry()),
        lambda: step_options(step_decorated_with_two, effect="at_most_once"),
    ):
        with pytest.raises(ValidationError, match=r"effect='at_most_once' with \d attempts, expected no retry"):
            refused()


@pytest.mark.parametrize("effect", ["probe", "transactional", "exactly_once", "KEYED"])
def test_an_effect_that_is_not_offered_is_refused_and_not_weakened(effect: str) -> None:
    for refused in (lambda: untyped_step(effect=effect)(charge), lambda: step_options(charge, effect=effect)):
        with pytest.raises(ValidationError) as refusal:
            refused()
        assert f"found {effect!r}" in str(refusal.value)
        assert "'repeatable', 'keyed', 'at_most_once'" in str(refusal.value)
        assert "refused rather than treated as something weaker" in str(refusal.value)


@pytest.mark.parametrize("option", ["window", "timeout", "idempotency_key"])
def test_an_option_that_is_not_offered_is_refused_by_name(option: str) -> None:
    with pytest.raises(ValidationError, match=f"step option '{option}': it is not one of name, retry, effect"):
        untyped_step(effect="keyed", **{option: 5})


def test_semantics_that_are_not_offered_are_refused() -> None:
    with pytest.raises(ValidationError, match="found 'exactly_once', expected 'at_least_once' or"):
        step_options(charge, semantics="exactly_once")


@pytest.mark.parametrize("thing", ["charge", 7, partial(charge, "a"), print, object()], ids=repr)
def test_what_is_no_function_is_refused_with_the_right_form(thing: Any) -> None:
    for decorator, name in ((untyped_step, "step"), (durable_function, "durable_function")):
        with pytest.raises(ValidationError, match=f"@{name}: found .* expected a function"):
            decorator(thing)


def test_anything_callable_can_be_a_step_without_a_decorator() -> None:
    class Caller:
        def __call__(self) -> None: ...

    assert step_options(Caller()).name == "Caller"
    assert step_options(partial(charge, "a")).name == "partial"
    assert step_options(print).effect_parameter is None
    assert step_options(dict.fromkeys).name == "fromkeys"
    assert step_options(type).effect_parameter is None


def test_a_durable_function_is_found_by_object_and_by_name() -> None:
    @durable_function(name="tests.pay")
    async def pay(ctx: object) -> None: ...

    spec = function_spec(pay)
    assert (spec.name, spec.is_async, spec) == ("tests.pay", True, function_spec("tests.pay"))
    assert spec.version == spec.version
    assert spec.version.startswith("tests.pay@a2:")
    assert spec.source.startswith(__file__)

    @durable_function
    def unnamed(ctx: object) -> None: ...

    assert function_spec(unnamed).name == "test_a_durable_function_is_found_by_object_and_by_name.unnamed"


def test_what_is_not_registered_is_unknown_and_the_error_lists_what_is() -> None:
    with pytest.raises(UnknownHandlerError, match="'charge': it is not durable"):
        function_spec(charge)
    registry = Registry()
    with pytest.raises(UnknownHandlerError, match=r"durable function 'pay': .* one of: nothing"):
        registry.function("pay")
    registry.add_function(FunctionSpec("ship", charge))
    registry.add_actor("Cart", dict)
    with pytest.raises(UnknownHandlerError, match="one of: ship; import"):
        registry.function("pay")
    with pytest.raises(UnknownHandlerError, match=r"actor type 'Till': .* one of: Cart"):
        registry.actor("Till")
    assert (registry.function("ship").function, registry.actor("Cart")) == (charge, dict)


@pytest.mark.parametrize("name", ["", "a\nb", "ä", "n" * 256])
def test_a_name_that_cannot_be_a_key_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="durable function"):
        FunctionSpec("x", charge) and durable_function(name=name or "\0")(charge)


def one(ctx: object) -> int:
    return 1


def two(ctx: object) -> int:
    return 2


def test_two_functions_under_one_name_are_refused_with_both_places() -> None:
    registry = Registry()
    registry.add_function(FunctionSpec("pay", one))
    with pytest.raises(ValidationError) as refusal:
        registry.add_function(FunctionSpec("pay", two))
    assert str(refusal.value).count(__file__) == 2
    assert registry.function("pay").function is one


def test_a_function_that_is_defined_again_in_its_place_replaces_itself() -> None:
    def make() -> Callable[..., int]:
        def pay(ctx: object) -> int:
            return 3

        return pay

    registry, first, second = Registry(), make(), make()
    registry.add_function(FunctionSpec("pay", first))
    registry.add_function(FunctionSpec("pay", second))
    assert registry.function("pay").function is second


def test_two_actors_under_one_name_are_refused() -> None:
    registry = Registry()
    registry.add_actor("Cart", dict)
    registry.add_actor("Cart", dict)
    with pytest.raises(ValidationError, match="actor type 'Cart': builtins and builtins both have that name"):
        registry.add_actor("Cart", list)
