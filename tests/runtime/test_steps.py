"""Steps: what is recorded, what runs again and when, and what the body sees."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

import semel
from semel import Context, Retry, durable_function, step
from semel.errors import ExecutionError, StepError, StepInterruptedError
from tests.runtime.places import Place, run, until

QUICK = Retry(attempts=3, first_delay_ms=10, jitter="none")


@semel.value("test-steps-money")
@dataclass
class Money:
    amount: Decimal
    tags: tuple[str, ...]


async def echo(value: Any) -> Any:
    return value


VALUES: list[Any] = [
    None,
    True,
    2**70,
    1.5,
    "ü\u0000",
    b"\x00\xff",
    Decimal("1.10"),
    datetime(2030, 1, 1, tzinfo=UTC),
    (1, (2, "x")),
    {1: "a", (2, 3): {4}},
    [Money(Decimal("0.30"), ("a",))],
]


@pytest.mark.parametrize("residents_max", [0, 1000])
def test_a_body_sees_the_same_values_on_the_first_run_as_on_replay(place: Place, residents_max: int) -> None:
    seen: list[list[Any]] = []

    @durable_function
    async def collect(ctx: Context) -> list[Any]:
        values = [await ctx.step(echo, value) for value in VALUES]
        seen.append(values)
        await ctx.wait(ms=5)
        seen.append(values)
        return values

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(collect, key="k") == VALUES
        assert len(seen) == (3 if residents_max == 0 else 2)
        assert all(values == VALUES for values in seen)
        assert [[type(value) for value in values] for values in seen] == [[type(value) for value in VALUES]] * len(seen)

    run(scenario())


def test_what_a_step_returned_cannot_be_changed_through_a_reference(place: Place) -> None:
    kept: dict[str, list[int]] = {"list": [1]}

    async def give() -> list[int]:
        return kept["list"]

    async def spoil(items: list[int]) -> int:
        items.append(99)
        return len(items)

    @durable_function
    async def share(ctx: Context) -> tuple[Any, ...]:
        got = await ctx.step(give)
        kept["list"].append(2)
        count = await ctx.step(spoil, got)
        return got, count

    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.run(share) == ([1], 2)

    run(scenario())


def test_a_recorded_step_never_runs_again(place: Place) -> None:
    calls: list[str] = []

    async def note(name: str) -> str:
        calls.append(name)
        return name

    @durable_function
    async def notes(ctx: Context) -> list[str]:
        first = await ctx.step(note, "a")
        await ctx.wait(ms=5)
        second = await ctx.step(note, "b")
        await ctx.wait(ms=5)
        return [first, second, await ctx.step(note, "c")]

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            assert await engine.run(notes, key="k") == ["a", "b", "c"]
        async with place.engine() as engine:
            assert await engine.run(notes, key="k") == ["a", "b", "c"]
        assert calls == ["a", "b", "c"]

    run(scenario())


class Gap:
    """A step body that can be caught in the middle."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()

    async def body(self) -> int:
        self.begun += 1
        mine = self.begun
        if mine == 1:
            await self.may_end.wait()
        return mine


async def crash_in(place: Place, gap: Gap, function: Any) -> Place:
    """Run until the step body is under way, and give what a kill would leave."""
    engine = place.engine(drain_ms=2000)
    async with engine:
        await engine.start(function, key="k")
        await until(lambda: gap.begun)
        left = place.crashed()
        gap.may_end.set()
    return left


def test_a_step_caught_by_a_crash_runs_again_by_default(place: Place) -> None:
    async def scenario() -> None:
        gap = Gap()

        @durable_function
        async def once_more(ctx: Context) -> int:
            return await ctx.step(gap.body, name="gap")

        left = await crash_in(place, gap, once_more)
        async with left.engine() as engine:
            assert await engine.run(once_more, key="k") == 2

    run(scenario())


def test_an_at_most_once_step_caught_by_a_crash_is_reported_and_never_begun_again(place: Place) -> None:
    async def scenario() -> None:
        gap = Gap()

        @durable_function
        async def at_most_once(ctx: Context) -> str:
            try:
                await ctx.step(gap.body, effect="at_most_once", name="gap")
            except StepInterruptedError as error:
                return f"{error.error_type}: {error.message}"
            return "done"

        left = await crash_in(place, gap, at_most_once)
        async with left.engine(residents_max=0) as engine:
            answer = await engine.run(at_most_once, key="k")
        assert answer.startswith("StepInterruptedError: step 'gap' was begun")
        assert gap.begun == 1

    run(scenario())


def test_an_at_most_once_per_retry_step_caught_by_a_crash_uses_up_one_attempt(place: Place) -> None:
    async def scenario() -> None:
        gap = Gap()

        @durable_function
        async def per_retry(ctx: Context) -> int:
            return await ctx.step(gap.body, semantics="at_most_once_per_retry", retry=QUICK, name="gap")

        left = await crash_in(place, gap, per_retry)
        async with left.engine() as engine:
            assert await engine.run(per_retry, key="k") == 2
            (execution,) = (await engine.executions.list()).items
            history = await engine.executions.history(execution.id)
        failed = [event for event in history if event.type == "StepFailed"]
        assert [event.error_type for event in failed] == ["StepInterruptedError"]
        assert gap.begun == 2

    run(scenario())


def test_an_at_most_once_per_retry_step_without_retries_is_interrupted(place: Place) -> None:
    async def scenario() -> None:
        gap = Gap()

        @durable_function
        async def per_retry_once(ctx: Context) -> str:
            try:
                await ctx.step(gap.body, semantics="at_most_once_per_retry", retry=Retry(attempts=1))
            except StepInterruptedError:
                return "interrupted"
            return "done"

        left = await crash_in(place, gap, per_retry_once)
        async with left.engine() as engine:
            assert await engine.run(per_retry_once, key="k") == "interrupted"
        assert gap.begun == 1

    run(scenario())


# What a step's body may be and do.


def test_the_effect_key_is_one_per_operation_and_the_same_in_every_engine(place: Place) -> None:
    keys: list[str] = []

    @step(effect="keyed", retry=QUICK)
    def charge(order: int, effect_key: str = semel.EFFECT_KEY) -> str:
        keys.append(effect_key)
        if len(keys) == 1:
            raise ConnectionError
        return effect_key

    @durable_function
    async def charges(ctx: Context) -> list[str]:
        first = await ctx.step(charge, 1)
        await ctx.wait(ms=5)
        return [first, await ctx.step(charge, 1)]

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            first, second = await engine.run(charges, key="a")
            third, _ = await engine.run(charges, key="b")
        assert keys == [first, first, second, third, _]
        assert len({first, second, third, _}) == 4
        assert charge(1, "mine") == "mine"

    run(scenario())


def test_a_keyed_step_caught_by_a_crash_has_the_same_key_in_the_next_engine(place: Place) -> None:
    async def scenario() -> None:
        keys: list[str] = []
        may_end = asyncio.Event()

        async def charge(effect_key: str = semel.EFFECT_KEY) -> str:
            keys.append(effect_key)
            if len(keys) == 1:
                await may_end.wait()
            return effect_key

        @durable_function
        async def keyed(ctx: Context) -> str:
            return await ctx.step(charge, effect="keyed")

        async with place.engine() as engine:
            await engine.start(keyed, key="k")
            await until(lambda: keys)
            left = place.crashed()
            may_end.set()
        async with left.engine() as engine:
            assert await engine.run(keyed, key="k") == keys[0]
        assert keys == [keys[0]] * 2

    run(scenario())


def test_a_def_step_runs_in_a_thread_of_its_own(place: Place) -> None:
    def where() -> str:
        return threading.current_thread().name

    async def on_the_loop() -> bool:
        return threading.current_thread() is threading.main_thread()

    @durable_function
    async def places(ctx: Context) -> tuple[str, bool]:
        return await ctx.step(where), await ctx.step(on_the_loop)

    async def scenario() -> None:
        async with place.engine() as engine:
            name, is_main = await engine.run(places)
        assert name.startswith("semel-step")
        assert is_main

    run(scenario())


def test_a_step_sees_the_context_variables_of_the_code_that_asked_for_it(place: Place) -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")

    async def read() -> str:
        found = tenant.get()
        tenant.set("changed in a step")
        return found

    def read_in_thread() -> str:
        return tenant.get()

    @durable_function
    async def tenants(ctx: Context) -> list[str]:
        before = await ctx.step(read)
        tenant.set("acme")
        return [before, await ctx.step(read), await ctx.step(read_in_thread), tenant.get()]

    async def scenario() -> None:
        tenant.set("the caller's")
        async with place.engine() as engine:
            assert await engine.run(tenants) == ["nobody", "acme", "acme", "acme"]

    run(scenario())


def test_wrong_arguments_are_the_steps_failure(place: Place) -> None:
    @durable_function
    async def wrong(ctx: Context) -> list[str]:
        found = []
        for function in (echo, len):
            try:
                await ctx.step(function, 1, 2, retry=Retry(attempts=1))  # type: ignore[arg-type, call-arg]
            except StepError as error:
                found.append(error.error_type)
        return found

    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.run(wrong) == ["TypeError", "TypeError"]

    run(scenario())


class OddError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class SurrogateError(Exception):
    def __str__(self) -> str:
        return "\ud800 broken"


class Unkept:
    """Nothing the codec knows."""


async def raise_it(kind: str) -> Any:
    match kind:
        case "odd":
            raise OddError
        case "surrogate":
            raise SurrogateError
        case "cancelled":
            raise asyncio.CancelledError("mine")
        case "unkept":
            return Unkept()
        case "group":
            raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])
        case "stop":
            raise StopIteration(3)
    return kind


def raise_in_a_thread(kind: str) -> Any:
    match kind:
        case "exit":
            raise SystemExit(3)
        case "stop":
            raise StopIteration(3)
        case "cancelled":
            raise asyncio.CancelledError("mine")
    return kind


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (raise_it, "odd", "OddError"),
        (raise_it, "surrogate", "SurrogateError"),
        (raise_it, "cancelled", "CancelledError"),
        (raise_it, "unkept", "SerializationError"),
        (raise_it, "group", "ExceptionGroup"),
        (raise_it, "stop", "RuntimeError"),
        (raise_in_a_thread, "exit", "SystemExit"),
        (raise_in_a_thread, "stop", "StopIteration"),
        (raise_in_a_thread, "cancelled", "CancelledError"),
    ],
)
def test_whatever_a_step_raises_is_its_outcome(place: Place, body: Any, kind: str, expected: str) -> None:
    @durable_function
    async def odd(ctx: Context, kind: str) -> str:
        try:
            await ctx.step(body, kind, retry=Retry(attempts=1))
        except StepError as error:
            return error.error_type
        return "done"

    async def scenario() -> None:
        async with place.engine() as engine:
            assert await engine.run(odd, kind) == expected

    run(scenario())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"effect": "probe"}, "'probe' and 'transactional' are refused"),
        ({"effect": "transactional"}, "'probe' and 'transactional' are refused"),
        ({"effect": "at_most_once", "retry": Retry(attempts=2)}, "expected no retry"),
        ({"semantics": "exactly_once"}, "expected 'at_least_once'"),
        ({"on_cancel": "ignore"}, "expected 'wait' or 'abandon'"),
    ],
)
def test_a_step_option_that_cannot_be_kept_is_refused_where_it_is_asked_for(
    place: Place, options: dict[str, Any], complaint: str
) -> None:
    @durable_function
    async def ask(ctx: Context) -> Any:
        return await ctx.step(echo, 1, **options)

    async def scenario() -> None:
        async with place.engine() as engine:
            with pytest.raises(ExecutionError, match=complaint) as caught:
                await engine.run(ask)
        assert caught.value.error_type == "ValidationError"

    run(scenario())
