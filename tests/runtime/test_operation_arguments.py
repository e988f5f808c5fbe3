"""Every argument of every operation that is out of range or of the wrong type is refused, and nothing is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from semel import Completion, Context, Poll, Retry, SyncContext, durable_function
from semel.errors import LimitExceededError, SerializationError, UnknownHandlerError, ValidationError
from tests.runtime.places import Place, run

LONG = "n" * 256
UNTOLD = object()


async def give(value: Any = None) -> Any:
    return value


def given(ctx: Any, item: Any = None) -> Any:
    return item


Ask = Callable[[Any], Any]
REFUSED: dict[str, tuple[Ask, str]] = {
    "step: no function": (lambda ctx: ctx.step(3), "step: found 3, expected a function"),
    "step: no retry": (lambda ctx: ctx.step(give, retry=3), "step retry: found 3, expected a Retry"),
    "step: a long name": (lambda ctx: ctx.step(give, name=LONG), "it has 256 characters"),
    "step: no effect": (lambda ctx: ctx.step(give, effect="twice"), "step effect: found 'twice'"),
    "step: no semantics": (lambda ctx: ctx.step(give, semantics="x"), "step semantics: found 'x'"),
    "wait: negative": (lambda ctx: ctx.wait(ms=-1), "wait: found -1 ms"),
    "wait: too long": (lambda ctx: ctx.wait(days=366, ms=1), "expected 0 to"),
    "wait: text": (lambda ctx: ctx.wait(ms="5"), "expected finite numbers"),
    "wait: not a number": (lambda ctx: ctx.wait(seconds=float("nan")), "expected finite numbers"),
    "wait: a name that is none": (lambda ctx: ctx.wait(ms=1, name=3), "wait: found int"),
    "child: no function": (lambda ctx: ctx.run_in_child_context(3), "child context: found 3"),
    "child: no name": (lambda ctx: ctx.run_in_child_context(given, name=""), "child context: it is empty"),
    "callback: negative": (lambda ctx: ctx.create_callback(timeout_ms=-1), "callback timeout_ms: found -1"),
    "callback: too long": (lambda ctx: ctx.create_callback(timeout_ms=366 * 86_400_000 + 1), "callback timeout_ms"),
    "callback: a fraction": (lambda ctx: ctx.create_callback(timeout_ms=1.5), "callback timeout_ms: found 1.5"),
    "callback: a truth": (lambda ctx: ctx.create_callback(timeout_ms=True), "callback timeout_ms: found True"),
    "callback: None": (lambda ctx: ctx.create_callback(timeout_ms=None), "callback timeout_ms: found None"),
    "callback: heartbeat": (lambda ctx: ctx.create_callback(heartbeat_ms=-1), "callback heartbeat_ms: found -1"),
    "callback: a long name": (lambda ctx: ctx.create_callback(name=LONG), "it has 256 characters"),
    "callback: an umlaut": (lambda ctx: ctx.create_callback(name="ü"), "outside printable ASCII"),
    "wait_for_callback: no function": (lambda ctx: ctx.wait_for_callback("id"), "wait_for_callback: found 'id'"),
    "wait_for_callback: retry": (lambda ctx: ctx.wait_for_callback(give, retry=3), "step retry: found 3"),
    "wait_for_callback: time": (lambda ctx: ctx.wait_for_callback(give, timeout_ms="1"), "callback timeout_ms"),
    "wait_for_callback: name": (lambda ctx: ctx.wait_for_callback(give, name="ü"), "outside printable ASCII"),
    "invoke: no function": (lambda ctx: ctx.invoke(3), "invoke function: found 3"),
    "invoke: an empty name": (lambda ctx: ctx.invoke(""), "invoke function: it is empty"),
    "invoke: a long name": (lambda ctx: ctx.invoke(LONG), "it has 256 characters"),
    "invoke: its own name": (lambda ctx: ctx.invoke("f", name="ü"), "outside printable ASCII"),
    "invoke: time": (lambda ctx: ctx.invoke("f", timeout_ms=0.5), "invoke timeout_ms: found 0.5"),
    "map: no function": (lambda ctx: ctx.map(3, [1]), "map: found 3, expected a function"),
    "map: no items": (lambda ctx: ctx.map(given, 3), "map: found 3, expected an iterable"),
    "map: a long name": (lambda ctx: ctx.map(given, [1], name=LONG), "it has 256 characters"),
    "map: no item name": (lambda ctx: ctx.map(given, [1], item_name="x"), "map item_name: found 'x'"),
    "map: item name None": (
        lambda ctx: ctx.map(given, [1], item_name=lambda *_: None),
        "map item name: found NoneType",
    ),
    "map: item name ü": (lambda ctx: ctx.map(given, [1], item_name=lambda *_: "ü"), "outside printable ASCII"),
    "map: no room": (lambda ctx: ctx.map(given, [1], max_concurrency=0), "max_concurrency: found 0"),
    "map: half a room": (lambda ctx: ctx.map(given, [1], max_concurrency=1.5), "max_concurrency: found 1.5"),
    "map: a truth": (lambda ctx: ctx.map(given, [1], max_concurrency=True), "max_concurrency: found True"),
    "map: completion": (lambda ctx: ctx.map(given, [1], completion="all"), "completion: found 'all'"),
    "map: nesting": (lambda ctx: ctx.map(given, [1], nesting="deep"), "nesting: found 'deep'"),
    "parallel: no branches": (lambda ctx: ctx.parallel(None), "parallel: found None, expected a sequence"),
    "parallel: a function": (lambda ctx: ctx.parallel(given), "expected a sequence of functions"),
    "parallel: text": (lambda ctx: ctx.parallel("ab"), "parallel 'parallel-branch-0': found 'a'"),
    "parallel: no function": (lambda ctx: ctx.parallel([given, 3]), "parallel 'parallel-branch-1': found 3"),
    "parallel: no name": (lambda ctx: ctx.parallel({1: given}), "parallel branch: found int"),
    "parallel: a long name": (lambda ctx: ctx.parallel({LONG: given}), "it has 256 characters"),
    "condition: no check": (lambda ctx: ctx.wait_for_condition(3, 1, poll=Poll()), "wait_for_condition: found 3"),
    "condition: no poll": (lambda ctx: ctx.wait_for_condition(give, 1, poll=3), "poll: found 3, expected a Poll"),
    "condition: name": (lambda ctx: ctx.wait_for_condition(give, 1, poll=Poll(), name="ü"), "printable ASCII"),
    "with_retry: no function": (lambda ctx: ctx.with_retry(3), "child context: found 3"),
    "with_retry: no retry": (lambda ctx: ctx.with_retry(given, retry=3), "with_retry retry: found 3"),
    "with_retry: None": (lambda ctx: ctx.with_retry(given, retry=None), "with_retry retry: found None"),
    "with_retry: a long name": (lambda ctx: ctx.with_retry(given, name=LONG), "it has 256 characters"),
    "patched: no name": (lambda ctx: ctx.patched(""), "patch: it is empty"),
}
KINDS = ("Execution", "Invocation")


async def recorded(engine: Any, which: str) -> list[str]:
    return [event.type for event in await engine.executions.history(which) if not event.type.startswith(KINDS)]


async def attempt(place: Place, function: Any, colour: str) -> tuple[str, list[str]]:
    """What an operation's refusal says, and what is in the history."""

    @durable_function(name="args.async")
    async def in_async(ctx: Context) -> str:
        try:
            await function(ctx)
        except ValidationError as error:
            return str(error)
        return "accepted"

    @durable_function(name="args.def")
    def in_def(ctx: SyncContext) -> str:
        try:
            function(ctx)
        except ValidationError as error:
            return str(error)
        return "accepted"

    chosen: Any = in_async if colour == "async" else in_def
    async with place.engine() as engine:
        execution = await engine.start(chosen, key="k")
        return await execution.result(), await recorded(engine, execution.id)


@pytest.mark.parametrize("colour", ["async", "def"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_argument_is_refused_and_nothing_is_recorded(name: str, colour: str, tmp_path: Any) -> None:
    function, told = REFUSED[name]
    said, left = run(attempt(Place("memory", tmp_path), function, colour))
    assert told in said
    assert left == []


COMPLETIONS: list[dict[str, Any]] = [
    {"min_successful": 0},
    {"min_successful": 1.0},
    {"min_successful": True},
    {"tolerated_failure_count": -1},
    {"tolerated_failure_count": "1"},
    {"tolerated_failure_percentage": -0.1},
    {"tolerated_failure_percentage": 100.1},
    {"tolerated_failure_percentage": float("nan")},
    {"tolerated_failure_percentage": True},
    {"decide": "continue"},
]


@pytest.mark.parametrize("fields", COMPLETIONS, ids=repr)
def test_a_completion_policy_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(ValidationError, match=f"Completion.{name}: found"):
        Completion(**fields)


@pytest.mark.parametrize(
    "fields",
    [{"attempts": 0}, {"first_delay_ms": -1}, {"factor": 0.5}, {"jitter": "some"}, {"until": 3}, {"delay_ms": 3}],
    ids=repr,
)
def test_a_poll_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(ValidationError, match=f"Poll.{name}: found"):
        Poll(**fields)


@pytest.mark.parametrize("colour", ["async", "def"])
def test_arguments_of_an_invoke_that_cannot_be_kept_are_refused_and_nothing_is_recorded(
    colour: str, place: Place
) -> None:
    async def try_each(ask: Any, found: list[str]) -> None:
        for argument in (UNTOLD, b"x" * 3_000):
            try:
                await ask(argument)
            except (SerializationError, LimitExceededError) as error:
                found.append(type(error).__name__)

    @durable_function(name="args.invoke async")
    async def in_async(ctx: Context) -> list[str]:
        found: list[str] = []
        await try_each(lambda argument: ctx.invoke("nobody", argument), found)
        try:
            await ctx.invoke(give)
        except UnknownHandlerError as error:
            found.append(str(error))
        return found

    @durable_function(name="args.invoke def")
    def in_def(ctx: SyncContext) -> list[str]:
        found: list[str] = []
        for argument in (UNTOLD, b"x" * 3_000):
            try:
                ctx.invoke("nobody", argument)
            except (SerializationError, LimitExceededError) as error:
                found.append(type(error).__name__)
        try:
            ctx.invoke(give)
        except UnknownHandlerError as error:
            found.append(str(error))
        return found

    chosen: Any = in_async if colour == "async" else in_def

    async def scenario() -> None:
        async with place.engine(payload_bytes_max=2_000) as engine:
            execution = await engine.start(chosen, key="k")
            *types, unknown = await execution.result()
            assert types == ["SerializationError", "LimitExceededError"]
            assert "function 'give': it is not durable" in unknown
            assert await recorded(engine, execution.id) == []

    run(scenario())


NONSENSE = {"text": "5", "nan": float("nan"), "infinity": float("inf"), "a truth": True, "a list": [1]}


@pytest.mark.parametrize("decided", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("is_async", [True, False])
def test_a_policy_that_decides_on_nonsense_fails_the_step_and_says_so(
    place: Place, decided: Any, is_async: bool
) -> None:
    retry = Retry(attempts=3, decide=lambda _error, _attempt: decided)

    async def later() -> None:
        raise OSError("down")

    def at_once() -> None:
        raise OSError("down")

    @durable_function(name="args.nonsense")
    async def nonsense(ctx: Context) -> list[str]:
        found = []
        asks: list[Any] = [
            lambda: ctx.step(later if is_async else at_once, retry=retry),
            lambda: ctx.with_retry(lambda c: c.step(later, retry=Retry.none()), retry=retry, name="block"),
            lambda: ctx.wait_for_condition(give, 0, poll=Poll(delay_ms=lambda _state, _attempt: decided)),
        ]
        for ask in asks:
            try:
                await ask()
            except Exception as error:
                found.append(str(error))
        return found

    async def scenario() -> None:
        async with place.engine() as engine:
            step, block, condition = await engine.run(nonsense, key="k")
        assert "ValidationError: Retry.decide: it returned" in step
        assert step.endswith("the retry policy was asked about OSError: down")
        assert "ValidationError: Retry.decide: it returned" in block
        assert "ValidationError: Poll.delay_ms: it returned" in condition

    run(scenario())


def test_a_policy_that_raises_fails_the_step_with_its_own_error_and_that_of_the_step(place: Place) -> None:
    def judge(error: BaseException, _attempt: int) -> int:
        raise KeyError(f"no rule for {error}")

    async def broken() -> None:
        raise OSError("down")

    @durable_function(name="args.raising policy")
    async def raising(ctx: Context) -> str:
        try:
            await ctx.step(broken, retry=Retry(attempts=3, decide=judge))
        except Exception as error:
            return str(error)
        return "went through"

    async def scenario() -> None:
        async with place.engine() as engine:
            told = await engine.run(raising, key="k")
        assert told == (
            "step 'broken' failed with KeyError: 'no rule for down'; the retry policy was asked about OSError: down"
        )

    run(scenario())


def test_a_delay_that_is_a_fraction_is_rounded_and_one_before_now_is_none(place: Place) -> None:
    delays = iter([0.6, -5, None])

    async def broken() -> None:
        raise OSError("down")

    @durable_function(name="args.fraction")
    async def fraction(ctx: Context) -> str:
        try:
            await ctx.step(broken, retry=Retry(attempts=9, decide=lambda *_: next(delays)))
        except Exception as error:
            return str(error)
        return "went through"

    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.run(fraction, key="k") == "step 'broken' failed with OSError: down"
            (info,) = (await engine.executions.list()).items
            events = await engine.executions.history(info.id)
        scheduled = [event for event in events if event.type == "StepFailed" and event.due_ms]
        assert [event.due_ms - event.time_ms for event in scheduled if event.due_ms] == [1, 0]

    run(scenario())
