"""What `async def` user code is handed: the operations of a durable function.

A context checks arguments and says where it was called from; what an operation does is the
seam's. `semel.sync_context` has the same methods for `def` code.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random
import sys
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar, TypeVarTuple, overload

from semel.batch import BatchResult, Completion, map_call, parallel_call, run_batch
from semel.callback import Callback
from semel.calls import (
    CallbackCall,
    ChildCall,
    InvokeCall,
    Nesting,
    OnCancel,
    Seam,
    StepCall,
    WaitCall,
    caller,
    check_callable,
    check_on_cancel,
    child_name,
    duration_ms,
    limit_ms,
    optional_name,
    place,
)
from semel.errors import ValidationError
from semel.function import EffectName, Semantics, invoked, step_name, step_options
from semel.kernel.ids import check_name
from semel.logs import ContextLogger
from semel.poll import Poll
from semel.retry import DEFAULT, NEVER, Retry, check_retry

I = TypeVar("I")  # noqa: E741
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Context:
    """A durable function's or turn's hand on the journal, for `async def` code."""

    __slots__ = ("_seam",)

    def __init__(self, seam: Seam) -> None:
        self._seam = seam

    @overload
    def step(
        self,
        function: Callable[[*Ts], Awaitable[T]],
        /,
        *arguments: *Ts,
        name: str | None = None,
        retry: Retry | None = None,
        effect: EffectName | None = None,
        semantics: Semantics | None = None,
        on_cancel: OnCancel = "wait",
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(
        self,
        function: Callable[[*Ts], T],
        /,
        *arguments: *Ts,
        name: str | None = None,
        retry: Retry | None = None,
        effect: EffectName | None = None,
        semantics: Semantics | None = None,
        on_cancel: OnCancel = "wait",
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(
        self,
        function: Callable[[*Ts, str], Awaitable[T]],
        /,
        *arguments: *Ts,
        name: str | None = None,
        retry: Retry | None = None,
        effect: EffectName | None = None,
        semantics: Semantics | None = None,
        on_cancel: OnCancel = "wait",
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(
        self,
        function: Callable[[*Ts, str], T],
        /,
        *arguments: *Ts,
        name: str | None = None,
        retry: Retry | None = None,
        effect: EffectName | None = None,
        semantics: Semantics | None = None,
        on_cancel: OnCancel = "wait",
    ) -> Coroutine[Any, Any, T]: ...
    def step(
        self,
        function: Callable[..., Any],
        /,
        *arguments: object,
        name: str | None = None,
        retry: Retry | None = None,
        effect: str | None = None,
        semantics: str | None = None,
        on_cancel: str = "wait",
    ) -> Coroutine[Any, Any, Any]:
        """Run `function(*arguments)` once and record what it returned; on replay, return that.

        The body runs on the real event loop (`def`: in a thread) and gets copies of arguments that
        the codec can keep. Durable when it returns: the result. Raises StepError when its retries
        are used up, StepInterruptedError for an at-most-once step that a crash cut short. When the
        awaiter is cancelled, a running body is told and its true outcome comes back
        (`on_cancel="abandon"`: CancelledError at once, a late result is dropped).
        """
        options = step_options(function, name=name, retry=retry, effect=effect, semantics=semantics)
        if on_cancel != "wait":
            check_on_cancel(on_cancel)
        frame = sys._getframe(1)  # noqa: SLF001  # `caller`, without a call: every step comes by here
        source = place(frame.f_code.co_filename, frame.f_lineno)
        return self._seam.step(StepCall(function, arguments, options, source, on_cancel))

    def wait(
        self,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        ms: int = 0,
        name: str = "",
    ) -> Coroutine[Any, Any, None]:
        """Sleep durably: nothing is held meanwhile, and the time goes on while the process is down.

        Raises ValidationError for a negative time or one over 366 days.
        """
        delay_ms = duration_ms(days=days, hours=hours, minutes=minutes, seconds=seconds, ms=ms)
        return self._seam.wait(WaitCall(delay_ms, optional_name("wait", name), caller()))

    def run_in_child_context(
        self, function: Callable[[Context, *Ts], Awaitable[T]], /, *arguments: *Ts, name: str | None = None
    ) -> Coroutine[Any, Any, T]:
        """Run `function(ctx, *arguments)` as a scope with one outcome: once it has that, replay skips its inside.

        Raises ChildContextError if the function raises.
        """
        return self._seam.child(self, ChildCall(function, arguments, child_name(function, name), caller()))

    def patched(self, name: str) -> bool:
        """Whether this run takes the new path of a change to its code: `if ctx.patched("fee"): new() else: old()`.

        True for a run that comes here for the first time, and it is recorded. False for one that had
        gone past here without it. The answer is the same at every later call and replay of the
        execution, or of the actor's message. Takes no number of an operation.
        """
        return self._seam.patched(check_name("patch", name), caller())

    def create_callback(
        self, *, name: str = "", timeout_ms: int = 0, heartbeat_ms: int = 0
    ) -> Coroutine[Any, Any, Callback]:
        """Make an operation that somebody outside settles through its id; wait for it with `result()`.

        `timeout_ms` counts from here, `heartbeat_ms` from the last sign of life; 0 is no limit. The id
        is on disk before a step that gets it begins. Raises ValidationError.
        """
        call = callback_call(name, timeout_ms, heartbeat_ms, caller())
        return self._callback(call)

    async def _callback(self, call: CallbackCall) -> Callback:
        identity, ticket = await self._seam.callback(call)
        return Callback(self._seam, identity, ticket)

    def wait_for_callback(
        self,
        submitter: Callable[[str, *Ts], Any],
        /,
        *arguments: *Ts,
        name: str | None = None,
        timeout_ms: int = 0,
        heartbeat_ms: int = 0,
        retry: Retry | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Create a callback, give its id away in a step `submitter(id, *arguments)`, and wait for the result.

        Raises CallbackSubmitterError when the step failed for good, CallbackTimeoutError, and
        CallbackError when the callback was failed.
        """
        name = submitter_name(submitter, name)
        source = caller()
        call = callback_call(f"{name} create callback id"[:255], timeout_ms, heartbeat_ms, source)
        options = step_options(submitter, name=f"{name} submitter"[:255], retry=retry)

        async def submit(ctx: Context) -> Any:
            callback = await ctx._callback(call)
            await ctx._seam.step(StepCall(submitter, (callback.id, *arguments), options, source))
            return await callback.result()

        return self._seam.child(self, ChildCall(submit, (), name, source, "WaitForCallback"))

    @overload
    def invoke(
        self,
        function: Callable[[Context, *Ts], Awaitable[T]],
        /,
        *arguments: *Ts,
        name: str | None = None,
        timeout_ms: int = 0,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def invoke(
        self, function: Callable[..., Any] | str, /, *arguments: object, name: str | None = None, timeout_ms: int = 0
    ) -> Coroutine[Any, Any, Any]: ...
    def invoke(
        self, function: Callable[..., Any] | str, /, *arguments: object, name: str | None = None, timeout_ms: int = 0
    ) -> Coroutine[Any, Any, Any]:
        """Run a durable or plain function as an execution of its own, and return its outcome.

        By object or by registered name; `@plain_function` registers one that takes no context. It is
        started with this operation, and goes on if this one is cancelled, times out or is stopped.
        Raises InvokeError when it failed, timed out or was stopped, and InvokeTimeoutError when it
        had no outcome after `timeout_ms` (0 is no limit).
        """
        return self._seam.invoke(invoke_call(function, arguments, name, timeout_ms, caller()))

    def map(
        self,
        function: Callable[[Context, I], Awaitable[T]],
        items: Iterable[I],
        *,
        name: str | None = None,
        item_name: Callable[[I, int], str] | None = None,
        max_concurrency: int | None = None,
        completion: Completion | None = None,
        nesting: Nesting = "nested",
    ) -> Coroutine[Any, Any, BatchResult[T]]:
        """Run `function(ctx, item)` for each item, side by side, until `completion` is met.

        Does not raise for a branch that failed: ask the result, or call its `raise_if_failed()`. With
        nesting "nested" each branch is a child context, "flat" saves that operation.
        """
        call = map_call(
            function,
            items,
            name=name,
            item_name=item_name,
            max_concurrency=max_concurrency,
            completion=completion,
            nesting=nesting,
            source=caller(),
        )
        return run_batch(self._seam, self, call)

    def parallel(
        self,
        branches: Sequence[Callable[[Context], Awaitable[T]]] | Mapping[str, Callable[[Context], Awaitable[T]]],
        *,
        name: str | None = None,
        max_concurrency: int | None = None,
        completion: Completion | None = None,
        nesting: Nesting = "nested",
    ) -> Coroutine[Any, Any, BatchResult[T]]:
        """Run `branch(ctx)` of each branch, side by side, until `completion` is met. A mapping names them.

        Otherwise as `map`.
        """
        call = parallel_call(
            branches,
            name=name,
            max_concurrency=max_concurrency,
            completion=completion,
            nesting=nesting,
            source=caller(),
        )
        return run_batch(self._seam, self, call)

    def wait_for_condition(
        self, check: Callable[[I], Awaitable[I]] | Callable[[I], I], initial: I, *, poll: Poll, name: str | None = None
    ) -> Coroutine[Any, Any, I]:
        """Call `check(state)` as a step, again after a durable delay, until `poll` is content with its result.

        Each result is the next state, and recorded. Raises WaitForConditionError when the check raised,
        or `poll.attempts` were not enough.
        """
        return self._seam.step(condition_call(check, initial, poll, name, caller()))

    def with_retry(
        self,
        function: Callable[[Context, *Ts], Awaitable[T]],
        /,
        *arguments: *Ts,
        retry: Retry = DEFAULT,
        name: str | None = None,
    ) -> Coroutine[Any, Any, T]:
        """Run `function(ctx, *arguments)` in a child context, from its beginning again while `retry` says so.

        The delays are durable waits; every attempt's operations are its own. Raises ChildContextError.
        """
        name = child_name(function, name)
        check_retry("with_retry", retry)
        source = caller()

        async def attempts(ctx: Context) -> T:
            attempt = 1
            task = asyncio.current_task()
            assert task is not None
            cancelled_before = task.cancelling()
            while True:
                try:
                    return await function(ctx, *arguments)
                except Exception as error:  # whatever the block raises is the policy's to judge
                    if task.cancelling() > cancelled_before:
                        raise  # it was cancelled, and that is how it ended: it is not begun again
                    delay_ms = retry.delay_ms(attempt, error, luck=ctx.random.random())
                    if delay_ms is None:
                        raise
                await ctx._seam.wait(WaitCall(delay_ms, f"{name}-backoff-{attempt}"[:255], source))
                attempt += 1

        return self._seam.child(self, ChildCall(attempts, (), name, source, "WithRetry"))

    def now_ms(self) -> int:
        """The time of the last delivered record, in ms since 1970: the same on replay."""
        return self._seam.now_ms()

    @property
    def is_replaying(self) -> bool:
        """Whether the journal still answers. For logs only: do not branch on it."""
        return self._seam.is_replaying()

    @property
    def execution_id(self) -> str:
        """The stream's uid: random, never reused."""
        return self._seam.execution_id

    def now(self) -> dt.datetime:
        """`now_ms` as an aware datetime in UTC: the same on replay."""
        return dt.datetime.fromtimestamp(self._seam.now_ms() / 1000, dt.UTC)

    @property
    def random(self) -> random.Random:
        """Random numbers that are the same on replay: each task and child context has its own. Not for secrets."""
        return self._seam.random()

    def uuid4(self) -> uuid.UUID:
        """A new UUID that is the same on replay. Not for secrets: who knows the execution's id can compute it."""
        return uuid.UUID(int=self._seam.random().getrandbits(128), version=4)

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """The logger "semel.function", silent while replaying; its records carry `execution_id`."""
        return ContextLogger(self._seam)


def callback_call(name: str, timeout_ms: int, heartbeat_ms: int, source: str) -> CallbackCall:
    """A request for a callback. Raises ValidationError."""
    return CallbackCall(
        optional_name("callback", name),
        source,
        limit_ms("callback timeout_ms", timeout_ms),
        limit_ms("callback heartbeat_ms", heartbeat_ms),
    )


def submitter_name(submitter: Callable[..., Any], name: str | None) -> str:
    """What wait_for_callback is called unless it is given a name. Raises ValidationError for no function."""
    check_callable("wait_for_callback", submitter, "a function of the callback's id")
    return child_name(submitter, name)


def invoke_call(
    function: Callable[..., Any] | str, arguments: tuple[object, ...], name: str | None, timeout_ms: int, source: str
) -> InvokeCall:
    """A request for an execution of another function. Raises ValidationError, UnknownHandlerError."""
    target, version = invoked(function)
    return InvokeCall(
        target,
        arguments,
        target if name is None else check_name("invoke", name),
        source,
        version,
        limit_ms("invoke timeout_ms", timeout_ms),
    )


def condition_call(check: Callable[..., Any], initial: object, poll: Poll, name: str | None, source: str) -> StepCall:
    """A request for the check of a condition. Raises ValidationError."""
    check_callable("wait_for_condition", check, "a function of the state")
    if not isinstance(poll, Poll):
        raise ValidationError(f"wait_for_condition poll: found {poll!r}, expected a Poll")
    options = step_options(check, name=step_name(check) if name is None else name, retry=NEVER)
    return StepCall(check, (initial,), options, source, poll=poll, subtype="WaitForCondition")
