"""map and parallel: many branches, and when they are complete.

Branches begin in the order of their index and never more than `max_concurrency` at a time; after
each end the completion policy decides. Once it has, no further branch begins, the batch has its
result, and branches that are still open are abandoned: nothing they do is recorded any more.
Runs on the body loop, whose order of deliveries makes the decision the same on every replay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, Literal, TypeVar

from msgspec import Struct

from semel.calls import BatchCall, ChildCall, Nesting, Seam, check_callable
from semel.errors import BatchCompletionError, ChildContextError, ValidationError
from semel.function import step_name
from semel.kernel.ids import check_name
from semel.kernel.values import describe_error, encode, value

T = TypeVar("T")

Reason = Literal[
    "ALL_COMPLETED",
    "MIN_SUCCESSFUL_REACHED",
    "FAILURE_TOLERANCE_EXCEEDED",
    "CUSTOM_COMPLETION_SUCCEEDED",
    "CUSTOM_COMPLETION_FAILED",
]
ItemStatus = Literal["SUCCEEDED", "FAILED", "STARTED"]
FAILURES: Final = frozenset({"FAILURE_TOLERANCE_EXCEEDED", "CUSTOM_COMPLETION_FAILED"})


@value("semel.BatchItem")
class BatchItem(Struct, Generic[T], frozen=True):
    """What became of one branch. STARTED: it was still open when the batch was complete."""

    index: int
    name: str
    status: str
    result: T | None = None
    error_type: str = ""
    error_message: str = ""

    @property
    def error(self) -> ChildContextError | None:
        """The failure, or None."""
        if self.status != "FAILED":
            return None
        return ChildContextError(self.name, self.error_type, self.error_message)


@value("semel.BatchResult")
class BatchResult(Struct, Generic[T], frozen=True):
    """What became of the branches that were begun, in the order of their index, and why the batch ended."""

    items: list[BatchItem[T]]
    completion_reason: str
    total: int

    @property
    def succeeded(self) -> list[BatchItem[T]]:
        """The branches that returned."""
        return [item for item in self.items if item.status == "SUCCEEDED"]

    @property
    def failed(self) -> list[BatchItem[T]]:
        """The branches that raised."""
        return [item for item in self.items if item.status == "FAILED"]

    @property
    def open(self) -> list[BatchItem[T]]:
        """The branches that were begun, and had no end when the batch was complete."""
        return [item for item in self.items if item.status == "STARTED"]

    @property
    def results(self) -> list[T]:
        """What the branches returned that did, in the order of their index."""
        return [item.result for item in self.succeeded]  # type: ignore[misc]

    @property
    def errors(self) -> list[ChildContextError]:
        """The failures, in the order of their index."""
        return [item.error for item in self.failed if item.error is not None]

    @property
    def is_failed(self) -> bool:
        """Whether the policy counts this as a failure: any branch failed, or it said so."""
        return self.completion_reason in FAILURES or bool(self.failed)

    def raise_if_failed(self) -> BatchResult[T]:
        """Return the result itself, or raise BatchCompletionError, which names the first failure."""
        if not self.is_failed:
            return self
        counted = f"{len(self.failed)} of {len(self.items)} branches failed"
        if not self.failed:
            raise BatchCompletionError("", self.completion_reason, counted)
        first = self.failed[0]
        told = f"{counted} ({self.completion_reason}), the first of them {first.name!r}: {first.error_message}"
        raise BatchCompletionError("", first.error_type, told)


class Progress(Struct, frozen=True):
    """How far a batch is, for a decision of your own."""

    total: int
    begun: int
    succeeded: int
    failed: int

    @property
    def completed(self) -> int:
        return self.succeeded + self.failed


Decide = Callable[[Progress], Literal["continue", "succeed", "fail"]]


class Completion(Struct, frozen=True, kw_only=True):
    """When a batch is complete before every branch has ended. With nothing set, the first failure ends it.

    `min_successful` ends it as soon as so many succeeded; `tolerated_failure_count` and
    `tolerated_failure_percentage` (of all branches) say how many failures do not end it. `decide` is
    asked after each end, and must depend on its argument alone.
    """

    min_successful: int | None = None
    tolerated_failure_count: int | None = None
    tolerated_failure_percentage: float | None = None
    decide: Decide | None = None

    def __post_init__(self) -> None:
        _check("min_successful", self.min_successful, least=1)
        _check("tolerated_failure_count", self.tolerated_failure_count, least=0)
        share = self.tolerated_failure_percentage
        is_share = isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 100
        if share is not None and not is_share:
            raise ValidationError(
                f"Completion.tolerated_failure_percentage: found {share!r}, expected a number from 0 to 100"
            )
        if self.decide is not None and not callable(self.decide):
            raise ValidationError(f"Completion.decide: found {self.decide!r}, expected a function of a Progress")

    @classmethod
    def all_successful(cls) -> Completion:
        """The first failure ends the batch. The default."""
        return cls(tolerated_failure_count=0)

    @classmethod
    def all_completed(cls) -> Completion:
        """Every branch runs to its end, whatever becomes of the others."""
        return cls(tolerated_failure_percentage=100)

    @classmethod
    def first_successful(cls) -> Completion:
        """The first success ends the batch; failures do not."""
        return cls(min_successful=1)

    def verdict(self, progress: Progress) -> Reason | None:
        """Why the batch is complete, or None while it is not."""
        if self.decide is not None:
            decided = self.decide(progress)
            if decided not in ("continue", "succeed", "fail"):
                raise ValidationError(
                    f"Completion.decide: it returned {decided!r}, expected 'continue', 'succeed' or 'fail'"
                )
            if decided != "continue":
                return "CUSTOM_COMPLETION_SUCCEEDED" if decided == "succeed" else "CUSTOM_COMPLETION_FAILED"
        elif self.min_successful is not None and progress.succeeded >= self.min_successful:
            return "MIN_SUCCESSFUL_REACHED"
        elif self._is_too_much(progress):
            return "FAILURE_TOLERANCE_EXCEEDED"
        return "ALL_COMPLETED" if progress.completed == progress.total else None

    def _is_too_much(self, progress: Progress) -> bool:
        count, share = self.tolerated_failure_count, self.tolerated_failure_percentage
        if count is None and share is None:
            return progress.failed > 0 and self.min_successful is None
        if count is not None and progress.failed > count:
            return True
        return share is not None and progress.failed * 100 > share * progress.total


def _check(field: str, found: int | None, *, least: int) -> None:
    if found is not None and (not isinstance(found, int) or isinstance(found, bool) or found < least):
        raise ValidationError(f"Completion.{field}: found {found!r}, expected a whole number, {least} or more")


def map_call(
    function: Callable[..., Any],
    items: Iterable[Any],
    *,
    name: str | None,
    item_name: Callable[[Any, int], str] | None,
    max_concurrency: int | None,
    completion: Completion | None,
    nesting: Nesting,
    source: str,
) -> BatchCall:
    """A request for `function(ctx, item)` of each item. Raises ValidationError."""
    check_callable("map", function, "a function of the context and an item")
    if item_name is not None:
        check_callable("map item_name", item_name, "a function of an item and its index")
    arguments = tuple((item,) for item in _iterable("map", items, "an iterable of items"))
    names = tuple(
        f"map-item-{index}" if item_name is None else check_name("map item name", item_name(item, index))
        for index, (item,) in enumerate(arguments)
    )
    return BatchCall(
        (function,) * len(arguments),
        arguments,
        names,
        step_name(function) if name is None else check_name("map", name),
        "Map",
        "MapIteration",
        source,
        _check_completion(completion),
        check_concurrency(max_concurrency),
        check_nesting(nesting),
    )


def parallel_call(
    branches: Sequence[Callable[..., Any]] | Mapping[str, Callable[..., Any]],
    *,
    name: str | None,
    max_concurrency: int | None,
    completion: Completion | None,
    nesting: Nesting,
    source: str,
) -> BatchCall:
    """A request for `branch(ctx)` of each branch. Raises ValidationError."""
    if isinstance(branches, Mapping):
        names = tuple(check_name("parallel branch", branch) for branch in branches)
        functions = tuple(branches.values())
    else:
        functions = tuple(_iterable("parallel", branches, "a sequence of functions, or a mapping of them by name"))
        names = tuple(f"parallel-branch-{index}" for index in range(len(functions)))
    for branch, function in zip(names, functions, strict=True):
        check_callable(f"parallel {branch!r}", function, "a function of the context")
    return BatchCall(
        functions,
        ((),) * len(functions),
        names,
        "parallel" if name is None else check_name("parallel", name),
        "Parallel",
        "ParallelBranch",
        source,
        _check_completion(completion),
        check_concurrency(max_concurrency),
        check_nesting(nesting),
    )


def _iterable(subject: str, found: Any, expected: str) -> Iterable[Any]:
    if not isinstance(found, Iterable):
        raise ValidationError(f"{subject}: found {found!r:.80}, expected {expected}")
    return found


def _check_completion(found: Completion | None) -> Completion:
    if found is not None and not isinstance(found, Completion):
        raise ValidationError(
            f"completion: found {found!r:.80}, expected a Completion, such as Completion.all_completed()"
        )
    return Completion() if found is None else found


def check_concurrency(found: int | None) -> int | None:
    """Return the limit, or raise ValidationError."""
    if found is not None and (not isinstance(found, int) or isinstance(found, bool) or found < 1):
        raise ValidationError(f"max_concurrency: found {found!r}, expected a whole number, 1 or more, or None")
    return found


def check_nesting(nesting: str) -> bool:
    """Whether branches are no operations of their own. Raises ValidationError."""
    if nesting not in ("nested", "flat"):
        raise ValidationError(f"nesting: found {nesting!r}, expected 'nested' or 'flat'")
    return nesting == "flat"


async def run_batch(seam: Seam, context: Any, call: BatchCall) -> BatchResult[Any]:
    """Run the branches in a scope of their own. Raises ChildContextError if a decision of the user's raised."""
    batch = _Batch(seam, context, call)
    outer = ChildCall(batch.run, (), call.name, call.source, call.subtype)
    try:
        result: BatchResult[Any] = await seam.child(context, outer)
    finally:
        batch.abandon()
    return result


class _Batch:
    """The branches of one map or parallel while they run."""

    def __init__(self, seam: Seam, context: Any, call: BatchCall) -> None:
        self._seam = seam
        self._context = context
        self._call = call
        self._items: list[BatchItem[Any]] = []
        self._tasks: dict[asyncio.Task[Any], int] = {}
        self._ended: asyncio.Queue[int] = asyncio.Queue()

    async def run(self, _context: Any) -> BatchResult[Any]:
        """Begin branches as there is room, and decide after each end."""
        total = len(self._call.functions)
        room = total if self._call.concurrency_max is None else self._call.concurrency_max
        counts = {"SUCCEEDED": 0, "FAILED": 0}
        while (reason := self._verdict(counts)) is None:
            open_count = len(self._items) - counts["SUCCEEDED"] - counts["FAILED"]
            for index in range(len(self._items), min(total, len(self._items) + room - open_count)):
                self._begin(index)
            ended = await self._next_end()
            counts[self._items[ended].status] += 1
        return BatchResult(self._items.copy(), reason, total)

    async def _next_end(self) -> int:
        """The index of the branch that ended next. Cancelled, the branches are told first, and come to their ends."""
        try:
            return await self._ended.get()
        except asyncio.CancelledError:
            self.abandon()
            if self._tasks:
                await asyncio.wait(list(self._tasks))
            raise

    def _verdict(self, counts: dict[str, int]) -> Reason | None:
        total = len(self._call.functions)
        if total == 0:
            return "ALL_COMPLETED"
        begun, succeeded, failed = len(self._items), counts["SUCCEEDED"], counts["FAILED"]
        if succeeded + failed == 0:
            return None
        return self._call.completion.verdict(Progress(total, begun, succeeded, failed))

    def _begin(self, index: int) -> None:
        self._items.append(BatchItem(index, self._call.names[index], "STARTED"))
        task = asyncio.get_running_loop().create_task(self._branch(index))
        self._tasks[task] = index
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)

    async def _branch(self, index: int) -> None:
        call = self._call
        name = call.names[index]
        child = ChildCall(
            call.functions[index], call.arguments[index], name, call.source, call.branch_subtype, call.is_flat
        )
        try:
            result = await self._seam.child(self._context, child)
            if call.is_flat:
                encode(result)  # what cannot be kept fails this branch, and not the batch with all of them
        except ChildContextError as error:
            item = BatchItem[Any](index, name, "FAILED", None, error.error_type, error.message)
        except asyncio.CancelledError:
            item = BatchItem(index, name, "FAILED", None, "CancelledError", "the branch was cancelled")
            self._end(item)
            raise
        except Exception as error:  # of a flat branch, which no scope stands around
            told = describe_error(error)
            item = BatchItem(index, name, "FAILED", None, told.type, told.message)
        else:
            item = BatchItem(index, name, "SUCCEEDED", result)
        self._end(item)

    def _end(self, item: BatchItem[Any]) -> None:
        self._items[item.index] = item
        self._ended.put_nowait(item.index)

    def abandon(self) -> None:
        """The batch is complete: what is still open unwinds, and records nothing."""
        for task in list(self._tasks):
            task.cancel()
