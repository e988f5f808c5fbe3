"""wait_for_condition: one step that asks again after a durable delay, with the last answer as its state."""

from __future__ import annotations

from typing import Any

import pytest

from semel import Context, Engine, Poll, SyncContext, durable_function
from semel.errors import WaitForConditionError
from tests.runtime.places import Place, run, types_of, until_it

both_ways = pytest.mark.parametrize("residents_max", [0, 1000])


class Check:
    """Counts up from the state that it is given, in a task or in a thread."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def count(self, state: int) -> int:
        self.seen.append(state)
        return state + 1

    def count_in_a_thread(self, state: int) -> int:
        self.seen.append(state)
        return state + 1


def asking(check: Any, initial: Any, poll: Poll, **options: Any) -> Any:
    @durable_function(name="condition.ask")
    async def ask(ctx: Context) -> Any:
        try:
            return await ctx.wait_for_condition(check, initial, poll=poll, **options)
        except WaitForConditionError as error:
            return (error.name, error.error_type, error.message)

    return ask


def asking_in_a_thread(check: Any, initial: Any, poll: Poll, **options: Any) -> Any:
    @durable_function(name="condition.ask def")
    def ask(ctx: SyncContext) -> Any:
        try:
            return ctx.wait_for_condition(check, initial, poll=poll, **options)
        except WaitForConditionError as error:
            return (error.name, error.error_type, error.message)

    return ask


colours = pytest.mark.parametrize("make", [asking, asking_in_a_thread], ids=["async", "def"])


async def events_of(engine: Engine) -> list[Any]:
    (info,) = (await engine.executions.list()).items
    return await engine.executions.history(info.id)


@both_ways
@colours
@pytest.mark.parametrize("method", ["count", "count_in_a_thread"])
def test_each_answer_is_the_next_state_until_it_is_what_is_waited_for(
    place: Place, make: Any, method: str, residents_max: int
) -> None:
    check = Check()
    poll = Poll(until=lambda state: state >= 3, first_delay_ms=5, factor=1.0, jitter="none")

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(make(getattr(check, method), 0, poll, name="ready"), key="k") == 3
            events = await events_of(engine)
        assert check.seen == [0, 1, 2]
        assert types_of(events) == [
            "ExecutionStarted",
            "StepStarted",
            "StepFailed",
            "StepStarted",
            "StepFailed",
            "StepStarted",
            "StepSucceeded",
            "ExecutionSucceeded",
        ]
        steps = [event for event in events if event.type.startswith("Step")]
        assert {(event.name, event.subtype) for event in steps} == {("ready", "WaitForCondition")}
        delays = [event.due_ms - event.time_ms for event in steps if event.due_ms]
        assert delays == [5, 5]

    run(scenario())


@both_ways
@colours
def test_without_a_rule_a_true_answer_is_enough(place: Place, make: Any, residents_max: int) -> None:
    answers = iter([None, 0, [], "ready"])

    async def look(_state: Any) -> Any:
        return next(answers)

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            poll = Poll(first_delay_ms=0, jitter="none")
            assert await engine.run(make(look, None, poll), key="k") == "ready"

    run(scenario())


@both_ways
@colours
def test_after_enough_checks_it_fails(place: Place, make: Any, residents_max: int) -> None:
    check = Check()

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            poll = Poll(until=lambda _: False, attempts=3, delay_ms=lambda _state, _attempt: 1)
            assert await engine.run(make(check.count, 0, poll), key="k") == (
                "count",
                "WaitForConditionError",
                "the condition was not met after 3 checks",
            )
        assert check.seen == [0, 1, 2]

    run(scenario())


@both_ways
@colours
def test_a_delay_of_ones_own_is_given_the_state_and_the_number(place: Place, make: Any, residents_max: int) -> None:
    asked: list[tuple[int, int]] = []

    def delay_ms(state: int, attempt: int) -> int:
        asked.append((state, attempt))
        return 3 * attempt

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            poll = Poll(until=lambda state: state > 12, delay_ms=delay_ms)
            assert await engine.run(make(Check().count, 10, poll), key="k") == 13
            events = await events_of(engine)
        assert asked == [(11, 1), (12, 2)]
        assert [event.due_ms - event.time_ms for event in events if event.due_ms] == [3, 6]

    run(scenario())


@both_ways
@colours
@pytest.mark.parametrize("where", ["check", "until", "delay_ms"])
def test_whatever_raises_fails_it_at_once_with_that_error(
    place: Place, make: Any, where: str, residents_max: int
) -> None:
    calls: list[int] = []

    async def check(_state: int) -> int:
        calls.append(1)
        return fail() if where == "check" else 0

    def fail(*_: Any) -> Any:
        raise OSError("down")

    poll = Poll(
        until=fail if where == "until" else None, delay_ms=fail if where == "delay_ms" else None, first_delay_ms=1
    )

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(make(check, 0, poll, name="x"), key="k") == ("x", "OSError", "down")
        assert calls == [1]

    run(scenario())


@both_ways
@colours
def test_after_a_crash_it_goes_on_with_the_last_recorded_state(place: Place, make: Any, residents_max: int) -> None:
    check = Check()
    poll = Poll(until=lambda state: state >= 3, delay_ms=lambda state, _: 300 if state == 2 else 1)

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            execution = await engine.start(make(check.count, 0, poll), key="k")

            async def is_between() -> bool:
                events = await engine.executions.history(execution.id)
                return [event.type for event in events].count("StepFailed") == 2

            await until_it(is_between)
            crashed = place.crashed()
        async with crashed.engine(residents_max=residents_max) as engine:
            assert await engine.run(make(check.count, 0, poll), key="k") == 3
        assert check.seen == [0, 1, 2]

    run(scenario())


def test_an_answer_that_cannot_be_kept_fails_it(place: Place) -> None:
    async def odd(_state: Any) -> Any:
        return object()

    async def scenario() -> None:
        async with place.engine() as engine:
            name, error_type, message = await engine.run(asking(odd, 0, Poll()), key="k")
        assert (name, error_type) == ("odd", "SerializationError")
        assert "builtins.object" in message

    run(scenario())
