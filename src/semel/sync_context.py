"""What `def` user code is handed: the operations of a durable function, each of which blocks its thread.

See `semel.context` for the contracts; what an operation does is the seam's.
"""

from __future__ import annotations

import datetime as dt
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, TypeVarTuple, overload

from semel.batch import BatchResult, Completion, map_call, parallel_call
from semel.callback import SyncCallback
from semel.calls import (
    CallbackCall,
    ChildCall,
    Nesting,
    StepCall,
    SyncSeam,
    WaitCall,
    caller,
    child_name,
    duration_ms,
    optional_name,
)
from semel.context import callback_call, condition_call, invoke_call, submitter_name
from semel.function import EffectName, Semantics, step_options
from semel.kernel.ids import check_name
from semel.logs import ContextLogger
from semel.poll import Poll
from semel.retry import DEFAULT, Retry, check_retry

I = TypeVar("I")  # noqa: E741
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class SyncContext:
    """The same for plain `def` code: each call blocks its thread. See `Context` for the contracts."""

    __slots__ = ("_seam",)

    def __init__(self, seam: SyncSeam) -> None:
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
    ) -> T: ...
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
    ) -> T: ...
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
    ) -> T: ...
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
    ) -> T: ...
    def step(
        self,
        function: Callable[..., Any],
        /,
        *arguments: object,
        name: str | None = None,
        retry: Retry | None = None,
        effect: str | None = None,
        semantics: str | None = None,
    ) -> Any:
        """Run `function(*arguments)` once and record what it returned; on replay, return that."""
        options = step_options(function, name=name, retry=retry, effect=effect, semantics=semantics)
        return self._seam.step(StepCall(function, arguments, options, caller()))

    def wait(
        self,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        ms: int = 0,
        name: str = "",
    ) -> None:
        """Sleep durably. The thread ends here and the function is replayed to this point when it is time."""
        delay_ms = duration_ms(days=days, hours=hours, minutes=minutes, seconds=seconds, ms=ms)
        self._seam.wait(WaitCall(delay_ms, optional_name("wait", name), caller()))

    def run_in_child_context(
        self, function: Callable[[SyncContext, *Ts], T], /, *arguments: *Ts, name: str | None = None
    ) -> T:
        """Run `function(ctx, *arguments)` as a scope with one outcome."""
        result: T = self._seam.child(self, ChildCall(function, arguments, child_name(function, name), caller()))
        return result

    def create_callback(self, *, name: str = "", timeout_ms: int = 0, heartbeat_ms: int = 0) -> SyncCallback:
        """Make an operation that somebody outside settles through its id; wait for it with `result()`.

        `timeout_ms` counts from here, `heartbeat_ms` from the last sign of life; 0 is no limit. The id
        is on disk before a step that gets it begins. Raises ValidationError.
        """
        call = callback_call(name, timeout_ms, heartbeat_ms, caller())
        return self._callback(call)

    def _callback(self, call: CallbackCall) -> SyncCallback:
        identity, ticket = self._seam.callback(call)
        return SyncCallback(self._seam, identity, ticket)

    def wait_for_callback(
        self,
        submitter: Callable[[str, *Ts], Any],
        /,
        *arguments: *Ts,
        name: str | None = None,
        timeout_ms: int = 0,
        heartbeat_ms: int = 0,
        retry: Retry | None = None,
    ) -> Any:
        """Create a callback, give its id away in a step `submitter(id, *arguments)`, and wait for the result.

        Raises CallbackSubmitterError when the step failed for good, CallbackTimeoutError, and
        CallbackError when the callback was failed.
        """
        name = submitter_name(submitter, name)
        source = caller()
        call = callback_call(f"{name} create callback id"[:255], timeout_ms, heartbeat_ms, source)
        options = step_options(submitter, name=f"{name} submitter"[:255], retry=retry)

        def submit(ctx: SyncContext) -> Any:
            callback = ctx._callback(call)
            ctx._seam.step(StepCall(submitter, (callback.id, *arguments), options, source))
            return callback.result()

        return self._seam.child(self, ChildCall(submit, (), name, source, "WaitForCallback"))

    @overload
    def invoke(
        self,
        function: Callable[[SyncContext, *Ts], T],
        /,
        *arguments: *Ts,
        name: str | None = None,
        timeout_ms: int = 0,
    ) -> T: ...
    @overload
    def invoke(
        self, function: Callable[..., Any] | str, /, *arguments: object, name: str | None = None, timeout_ms: int = 0
    ) -> Any: ...
    def invoke(
        self, function: Callable[..., Any] | str, /, *arguments: object, name: str | None = None, timeout_ms: int = 0
    ) -> Any:
        """Run a durable or plain function as an execution of its own, and return its outcome.

        By object or by registered name; `@plain_function` registers one that takes no context. It is
        started with this operation, and goes on if this one is cancelled, times out or is stopped.
        Raises InvokeError when it failed, timed out or was stopped, and InvokeTimeoutError when it
        had no outcome after `timeout_ms` (0 is no limit).
        """
        return self._seam.invoke(invoke_call(function, arguments, name, timeout_ms, caller()))

    def map(
        self,
        function: Callable[[SyncContext, I], T],
        items: Iterable[I],
        *,
        name: str | None = None,
        item_name: Callable[[I, int], str] | None = None,
        max_concurrency: int | None = None,
        completion: Completion | None = None,
        nesting: Nesting = "nested",
    ) -> BatchResult[T]:
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
        return self._seam.batch(call)

    def parallel(
        self,
        branches: Sequence[Callable[[SyncContext], T]] | Mapping[str, Callable[[SyncContext], T]],
        *,
        name: str | None = None,
        max_concurrency: int | None = None,
        completion: Completion | None = None,
        nesting: Nesting = "nested",
    ) -> BatchResult[T]:
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
        return self._seam.batch(call)

    def wait_for_condition(
        self, check: Callable[[I], Awaitable[I]] | Callable[[I], I], initial: I, *, poll: Poll, name: str | None = None
    ) -> I:
        """Call `check(state)` as a step, again after a durable delay, until `poll` is content with its result.

        Each result is the next state, and recorded. Raises WaitForConditionError when the check raised,
        or `poll.attempts` were not enough.
        """
        state: I = self._seam.step(condition_call(check, initial, poll, name, caller()))
        return state

    def with_retry(
        self,
        function: Callable[[SyncContext, *Ts], T],
        /,
        *arguments: *Ts,
        retry: Retry = DEFAULT,
        name: str | None = None,
    ) -> T:
        """Run `function(ctx, *arguments)` in a child context, from its beginning again while `retry` says so.

        The delays are durable waits; every attempt's operations are its own. Raises ChildContextError.
        """
        name = child_name(function, name)
        check_retry("with_retry", retry)
        source = caller()

        def attempts(ctx: SyncContext) -> T:
            attempt = 1
            while True:
                try:
                    return function(ctx, *arguments)
                except Exception as error:  # whatever the block raises is the policy's to judge
                    delay_ms = retry.delay_ms(attempt, error, luck=ctx.random.random())
                    if delay_ms is None:
                        raise
                ctx._seam.wait(WaitCall(delay_ms, f"{name}-backoff-{attempt}"[:255], source))
                attempt += 1

        result: T = self._seam.child(self, ChildCall(attempts, (), name, source, "WithRetry"))
        return result

    def patched(self, name: str) -> bool:
        """Whether this run takes the new path of a change to its code. The answer never changes."""
        return self._seam.patched(check_name("patch", name), caller())

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
