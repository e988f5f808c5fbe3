"""map and parallel: what is begun, when it is complete, and what the result says of each branch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest

from semel import BatchResult, Completion, Context, Engine, Progress, Retry, SyncContext, durable_function
from semel.errors import BatchCompletionError, ChildContextError, ExecutionError
from tests.runtime.places import Place, run

both_ways = pytest.mark.parametrize("residents_max", [0, 1000])
nestings = pytest.mark.parametrize("nesting", ["nested", "flat"])
ONCE = Retry(attempts=1)
Nesting = Literal["nested", "flat"]


async def give(value: Any) -> Any:
    return value


async def fail(value: Any) -> Any:
    raise ValueError(f"no {value}")


async def branch(ctx: Context, item: int) -> int:
    """Ends after `item` ticks; a negative one fails."""
    await ctx.wait(ms=2 * abs(item))
    return await ctx.step(fail if item < 0 else give, item, retry=ONCE)


def def_branch(ctx: SyncContext, item: int) -> int:
    ctx.wait(ms=2 * abs(item))
    value: int = ctx.step(fail if item < 0 else give, item, retry=ONCE)
    return value


Map = Callable[..., Any]


def mapping(items: Any, **options: Any) -> Any:
    @durable_function(name="batch.map")
    async def mapped(ctx: Context) -> BatchResult[int]:
        return await ctx.map(branch, items, **options)

    return mapped


def mapping_in_threads(items: Any, **options: Any) -> Any:
    @durable_function(name="batch.map def")
    def mapped(ctx: SyncContext) -> BatchResult[int]:
        return ctx.map(def_branch, items, **options)

    return mapped


colours = pytest.mark.parametrize("make", [mapping, mapping_in_threads], ids=["async", "def"])


async def events_of(engine: Engine) -> list[Any]:
    (info,) = (await engine.executions.list()).items
    return await engine.executions.history(info.id)


def statuses(result: BatchResult[Any]) -> list[str]:
    return [item.status for item in result.items]


@both_ways
@colours
@nestings
def test_results_come_in_the_order_of_the_items(place: Place, make: Map, nesting: Nesting, residents_max: int) -> None:
    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            result = await engine.run(make([5, 1, 3], nesting=nesting, name="numbers"), key="k")
            assert result.results == [5, 1, 3]
            assert [(item.index, item.name, item.error) for item in result.items] == [
                (0, "map-item-0", None),
                (1, "map-item-1", None),
                (2, "map-item-2", None),
            ]
            assert (result.completion_reason, result.total, result.is_failed) == ("ALL_COMPLETED", 3, False)
            assert result.raise_if_failed() is result
            events = await events_of(engine)
        contexts = [event for event in events if event.type == "ContextStarted"]
        assert [event.name for event in contexts] == ["numbers", *(item.name for item in result.items)][
            : 4 if nesting == "nested" else 1
        ]
        assert [event.subtype for event in contexts] == ["Map", *["MapIteration"] * (len(contexts) - 1)]

    run(scenario())


Case = tuple[list[int], Completion | None, str, list[str]]
S, F, O = "SUCCEEDED", "FAILED", "STARTED"  # noqa: E741
CASES: dict[str, Case] = {
    "nothing": ([], None, "ALL_COMPLETED", []),
    "nothing, whatever is asked": ([], Completion(min_successful=3), "ALL_COMPLETED", []),
    "by itself, the first failure ends it": ([-1, 900, 900], None, "FAILURE_TOLERANCE_EXCEEDED", [F, O, O]),
    "all successful": ([-1, 900, 900], Completion.all_successful(), "FAILURE_TOLERANCE_EXCEEDED", [F, O, O]),
    "all completed": ([-1, 4, -2], Completion.all_completed(), "ALL_COMPLETED", [F, S, F]),
    "the first success": ([-1, 50, 900], Completion.first_successful(), "MIN_SUCCESSFUL_REACHED", [F, S, O]),
    "no success to be first": ([-1, -2], Completion.first_successful(), "ALL_COMPLETED", [F, F]),
    "two successes": ([1, 50, 900], Completion(min_successful=2), "MIN_SUCCESSFUL_REACHED", [S, S, O]),
    "as many as there are": ([1, 2], Completion(min_successful=2), "MIN_SUCCESSFUL_REACHED", [S, S]),
    "more than there are": ([1, 2], Completion(min_successful=3), "ALL_COMPLETED", [S, S]),
    "failures beside a minimum": ([-1, -2, 60], Completion(min_successful=1), "MIN_SUCCESSFUL_REACHED", [F, F, S]),
    "none tolerated beside a minimum": (
        [-1, 900],
        Completion(min_successful=2, tolerated_failure_count=0),
        "FAILURE_TOLERANCE_EXCEEDED",
        [F, O],
    ),
    "as many failures as tolerated": ([-1, 5, 9], Completion(tolerated_failure_count=1), "ALL_COMPLETED", [F, S, S]),
    "one failure more": (
        [-1, -50, 900],
        Completion(tolerated_failure_count=1),
        "FAILURE_TOLERANCE_EXCEEDED",
        [F, F, O],
    ),
    "half of four": ([-1, -5, 9, 12], Completion(tolerated_failure_percentage=50), "ALL_COMPLETED", [F, F, S, S]),
    "a hair under half of four": (
        [-1, -50, 900, 900],
        Completion(tolerated_failure_percentage=49.99),
        "FAILURE_TOLERANCE_EXCEEDED",
        [F, F, O, O],
    ),
    "a third of three, rounded down": (
        [-1, 900, 900],
        Completion(tolerated_failure_percentage=33.3),
        "FAILURE_TOLERANCE_EXCEEDED",
        [F, O, O],
    ),
    "a third of three, rounded up": (
        [-1, 5, 5],
        Completion(tolerated_failure_percentage=33.4),
        "ALL_COMPLETED",
        [F, S, S],
    ),
    "no percentage": ([-1, 900], Completion(tolerated_failure_percentage=0), "FAILURE_TOLERANCE_EXCEEDED", [F, O]),
    "all of them": ([-1, -2], Completion(tolerated_failure_percentage=100), "ALL_COMPLETED", [F, F]),
    "count and percentage: the stricter": (
        [-1, 900, 900],
        Completion(tolerated_failure_count=0, tolerated_failure_percentage=90),
        "FAILURE_TOLERANCE_EXCEEDED",
        [F, O, O],
    ),
    "a decision that it is enough": (
        [1, 900, 900],
        Completion(decide=lambda progress: "succeed" if progress.succeeded else "continue"),
        "CUSTOM_COMPLETION_SUCCEEDED",
        [S, O, O],
    ),
    "a decision that it failed": (
        [1, 900],
        Completion(decide=lambda progress: "fail"),
        "CUSTOM_COMPLETION_FAILED",
        [S, O],
    ),
    "a decision that goes on to the end": (
        [-1, 4],
        Completion(decide=lambda progress: "continue"),
        "ALL_COMPLETED",
        [F, S],
    ),
}


@pytest.mark.parametrize("residents_max", [0])
@pytest.mark.parametrize("name", CASES)
@colours
def test_a_batch_is_complete_as_its_policy_says(tmp_path: Any, make: Map, name: str, residents_max: int) -> None:
    items, completion, reason, expected = CASES[name]

    async def scenario() -> None:
        async with Place("memory", tmp_path).engine(residents_max=residents_max) as engine:
            result = await engine.run(make(items, completion=completion), key="k")
        assert (result.completion_reason, statuses(result)) == (reason, expected)
        assert result.total == len(items)
        assert [item.index for item in result.succeeded] == [i for i, status in enumerate(expected) if status == S]
        assert [item.index for item in result.failed] == [i for i, status in enumerate(expected) if status == F]
        assert [item.index for item in result.open] == [i for i, status in enumerate(expected) if status == O]
        assert result.is_failed is (F in expected or reason == "CUSTOM_COMPLETION_FAILED")

    run(scenario())


def test_a_decision_sees_how_far_it_is_after_each_end(place: Place) -> None:
    seen: list[Progress] = []

    def decide(progress: Progress) -> Literal["continue"]:
        seen.append(progress)
        return "continue"

    async def scenario() -> None:
        async with place.engine() as engine:
            await engine.run(mapping([1, -60, 160], max_concurrency=2, completion=Completion(decide=decide)), key="k")
        assert seen == [Progress(3, 2, 1, 0), Progress(3, 3, 1, 1), Progress(3, 3, 2, 1)]
        assert [progress.completed for progress in seen] == [1, 2, 3]

    run(scenario())


@colours
@both_ways
def test_a_decision_that_raises_or_is_none_fails_the_batch_and_says_so(
    place: Place, make: Map, residents_max: int
) -> None:
    def broken(_progress: Progress) -> Any:
        raise KeyError("rule")

    def nonsense(_progress: Progress) -> Any:
        return True

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            for number, (decide, told) in enumerate(
                [(broken, "KeyError: 'rule'"), (nonsense, "ValidationError: Completion.decide: it returned True")]
            ):
                with pytest.raises(ExecutionError) as caught:
                    await engine.run(make([1, 2], completion=Completion(decide=decide)), key=f"k{number}")
                assert caught.value.error_type == "ChildContextError"
                assert told in caught.value.message

    run(scenario())


@both_ways
def test_items_have_the_names_that_they_are_given(place: Place, residents_max: int) -> None:
    @durable_function(name="batch.named")
    async def named(ctx: Context) -> list[str]:
        result = await ctx.map(branch, [4, -1], item_name=lambda item, i: f"{i}: {item}", name="orders")
        assert result.failed[0].error is not None
        return [*(item.name for item in result.items), str(result.failed[0].error)]

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            assert await engine.run(named, key="k") == [
                "0: 4",
                "1: -1",
                "child context '1: -1' failed with StepError: step 'fail' failed with ValueError: no -1",
            ]

    run(scenario())


@both_ways
@nestings
@pytest.mark.parametrize("colour", ["async", "def"])
def test_parallel_runs_functions_that_a_mapping_may_name(
    place: Place, nesting: Nesting, colour: str, residents_max: int
) -> None:
    @durable_function(name="batch.parallel")
    async def parallel(ctx: Context) -> list[Any]:
        listed = await ctx.parallel([lambda c: branch(c, 3), lambda c: branch(c, 1)], nesting=nesting)
        named = await ctx.parallel({"a": lambda c: branch(c, -1), "b": lambda c: branch(c, 900)}, nesting=nesting)
        nothing = await ctx.parallel([], nesting=nesting)
        return [listed, named, nothing]

    @durable_function(name="batch.parallel def")
    def parallel_def(ctx: SyncContext) -> list[Any]:
        listed = ctx.parallel([lambda c: def_branch(c, 3), lambda c: def_branch(c, 1)], nesting=nesting)
        named = ctx.parallel({"a": lambda c: def_branch(c, -1), "b": lambda c: def_branch(c, 900)}, nesting=nesting)
        nothing = ctx.parallel({}, nesting=nesting)
        return [listed, named, nothing]

    chosen: Any = parallel if colour == "async" else parallel_def

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            listed, named, nothing = await engine.run(chosen, key="k")
        assert [(item.name, item.result) for item in listed.items] == [
            ("parallel-branch-0", 3),
            ("parallel-branch-1", 1),
        ]
        assert [(item.name, item.status) for item in named.items] == [("a", "FAILED"), ("b", "STARTED")]
        assert named.failed[0].error_type == ("StepError")
        assert (nothing.items, nothing.completion_reason, nothing.total) == ([], "ALL_COMPLETED", 0)

    run(scenario())


@both_ways
@colours
def test_it_raises_only_when_asked_and_names_the_first_failure(place: Place, make: Map, residents_max: int) -> None:
    @durable_function(name="batch.raising")
    async def raising(ctx: Context) -> None:
        (await ctx.map(branch, [9, -1, -2], completion=Completion.all_completed())).raise_if_failed()

    async def scenario() -> None:
        async with place.engine(residents_max=residents_max) as engine:
            result = await engine.run(make([9, -1, -2], completion=Completion.all_completed()), key="k")
            with pytest.raises(BatchCompletionError) as caught:
                result.raise_if_failed()
            assert str(caught.value) == (
                "batch failed with StepError: 2 of 3 branches failed (ALL_COMPLETED), the first of them "
                "'map-item-1': step 'fail' failed with ValueError: no -1"
            )
            assert [type(error) for error in result.errors] == [ChildContextError, ChildContextError]
            with pytest.raises(ExecutionError) as outer:
                await engine.run(raising, key="k")
            assert outer.value.error_type == "BatchCompletionError"

    run(scenario())


def test_the_items_may_come_from_a_generator(place: Place) -> None:
    @durable_function(name="batch.generator")
    async def generated(ctx: Context) -> list[int]:
        return (await ctx.map(branch, (i for i in range(3)))).results

    async def scenario() -> None:
        async with place.engine(residents_max=0) as engine:
            assert await engine.run(generated, key="k") == [0, 1, 2]

    run(scenario())


def test_a_batch_that_a_decision_failed_says_so_when_asked(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            result = await engine.run(mapping([1, 2], completion=Completion(decide=lambda _: "fail")), key="k")
        with pytest.raises(BatchCompletionError, match="batch failed with CUSTOM_COMPLETION_FAILED: 0 of 2 branches"):
            result.raise_if_failed()

    run(scenario())
