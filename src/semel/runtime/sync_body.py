"""`def` bodies: user code in a thread, its operations on the body loop like anyone's.

A coroutine on the body loop stands for the thread: it asks for what the thread asks for and
hands the answer back, so ids, order, replay and cancellation are those of async code. While
the thread computes, the body is busy and nothing is delivered. At a suspension every
operation raises Suspend, again at each further call, and the run has no outcome (R1e).
The branches of a `map` or `parallel` have threads and such coroutines of their own.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from semel.batch import run_batch
from semel.calls import BatchCall, CallbackCall, ChildCall, InvokeCall, StepCall, WaitCall
from semel.errors import Suspend, ValidationError
from semel.runtime.blocking import DefBody
from semel.runtime.frame import Frame
from semel.runtime.slot import Slot
from semel.sync_context import SyncContext

if TYPE_CHECKING:
    from semel.runtime.body import Body

SUSPENDED = "this run stops here and is replayed when its operation is settled; do not catch Suspend"


class _Leave(Struct, frozen=True):
    """The thread came to the end of a child context."""

    result: Any = None
    error: Exception | None = None


class _End(Struct, frozen=True):
    """The thread came to the end of the body."""

    result: Any = None
    error: BaseException | None = None


class _Patch(Struct, frozen=True):
    """The thread asks which path of a patch to take."""

    name: str
    source: str


class _Enter(Struct, frozen=True):
    """The thread may go into the child context it asked for."""


class _Result(Struct, frozen=True):
    """The thread waits for a callback that it made."""

    ticket: Slot


class _Random(Struct, frozen=True):
    """The thread wants the random numbers of its place."""


Operation = StepCall | WaitCall | ChildCall | CallbackCall | InvokeCall | BatchCall
Request = Operation | _Result | _Random | _Patch | _Leave | _End
Scope = tuple[Slot, contextvars.Token[Frame]]


class SyncBody:
    """The thread's side (`semel.calls.SyncSeam`) and the loop's side of one `def` body or branch."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._request: asyncio.Future[Request] | None = None
        self._scopes: list[Scope] = []
        self._is_suspended = False
        self._thread = 0
        self._is_computing = False
        self._has_ended = False

    # On the body loop.

    async def run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Run `function(ctx, *arguments)` in a thread until it ends; return or raise what it does."""
        context = contextvars.copy_context()
        self._expect()
        self._body.services.body_threads.submit(context.run, self._main, function, arguments)
        return await self._serve()

    async def run_branch(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """`run` in a thread of the branch's own: whoever waits for branches must not keep them from a thread."""
        context = contextvars.copy_context()
        self._expect()
        thread = threading.Thread(
            target=context.run, args=(self._main, function, arguments), name="semel-branch", daemon=True
        )
        thread.start()
        return await self._serve()

    async def _serve(self) -> Any:
        try:
            while not isinstance(request := await self._next(), _End):
                try:
                    answer = await self._perform(request)
                except Exception as error:  # the thread's code gets what the operation raised
                    self._answer(None, error)
                else:
                    self._answer(answer, None)
        except BaseException:
            self._suspend()
            raise
        if request.error is not None:
            raise request.error
        return request.result

    async def _perform(self, request: Request) -> Any:
        body = self._body
        match request:
            case StepCall():
                return await body.step(request)
            case WaitCall():
                return await body.wait(request)
            case InvokeCall():
                return await body.invoke(request)
            case CallbackCall():
                return await body.callback(request)
            case _Result():
                return await body.callback_result(request.ticket)
            case BatchCall():
                return await run_batch(body, None, self._in_threads(request))
            case _Random():
                return body.random()
            case ChildCall():
                return await self._enter(request)
            case _Patch():
                return body.patched(request.name, request.source)
            case _Leave():
                return await self._leave(request)
            case _:
                raise AssertionError(f"a sync body asked for {request!r}")

    async def _enter(self, request: ChildCall) -> Any:
        body = self._body
        slot, token = body.enter_child(request)
        if token is None:
            return await body._outcome(slot)  # noqa: SLF001  # the two halves of `Body.child`
        self._scopes.append((slot, token))
        return _Enter()

    async def _leave(self, request: _Leave) -> Any:
        from semel.runtime.outcome import scope_failed, scope_succeeded

        body = self._body
        slot, token = self._scopes.pop()
        if request.error is None:
            outcome = scope_succeeded(body.services, request.result)
        else:
            outcome = scope_failed(slot, request.error)
        return await body.leave_child(slot, token, outcome)

    def _in_threads(self, call: BatchCall) -> BatchCall:
        """The batch with branches that run in threads."""
        body = self._body

        def branch(function: Callable[..., Any]) -> Callable[..., Any]:
            async def run(_context: Any, *arguments: Any) -> Any:
                return await SyncBody(body).run_branch(function, arguments)

            return run

        return msgspec.structs.replace(call, functions=tuple(branch(function) for function in call.functions))

    async def _next(self) -> Request:
        if self._request is None:
            self._request = self._body.loop.create_waiter()
        try:
            return await self._request
        finally:
            self._request = None

    def _expect(self) -> None:
        """The thread computes; until it asks for something, nothing may be delivered."""
        self._request = self._body.loop.create_waiter()
        self._body.busy += 1
        self._body.services.computing += 1
        self._is_computing = True

    def _answer(self, value: Any, error: BaseException | None) -> None:
        self._expect()
        self._answers.put((value, error))

    def _suspend(self) -> None:
        """Nobody answers the thread any more. Until it has unwound, it computes."""
        self._is_suspended = True
        if self._has_ended:
            return
        if not self._is_computing:
            self._body.busy += 1
            self._body.services.computing += 1
            self._is_computing = True
        self._answers.put((None, Suspend(SUSPENDED)))

    def _arrived(self, request: Request) -> None:
        """On the real loop: the thread asks."""
        if self._is_suspended and not isinstance(request, _End):
            return  # it asked before it could know, and goes on with the Suspend that waits for it
        self._has_ended = isinstance(request, _End)
        self._body.busy -= 1
        if self._is_computing:
            self._body.services.computing -= 1
            self._is_computing = False
        if self._request is not None and not self._request.done() and self._body.closed is None:
            self._request.set_result(request)
        self._body.pump()

    # In the thread.

    def _main(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._thread = threading.get_ident()
        try:
            with DefBody():
                ended = _End(function(SyncContext(self), *arguments))
        except BaseException as error:  # Suspend included: the loop knows what it means
            ended = _End(error=error)
        self._send(ended)

    def _send(self, request: Request) -> None:
        try:
            self._body.services.loop.call_soon_threadsafe(self._arrived, request)
        except RuntimeError:
            self._is_suspended = True  # the loop is gone, and with it whoever would have answered

    def _call(self, request: Request) -> Any:
        if threading.get_ident() != self._thread:
            raise ValidationError(
                "operation: it was asked for outside the body, expected a call from the durable function or handler "
                "itself; a step's body and other threads have no operations (a branch of map or parallel has its own "
                "context, the first argument)"
            )
        if self._is_suspended:
            raise Suspend(SUSPENDED)
        self._send(request)
        if self._is_suspended:
            raise Suspend(SUSPENDED)
        value, error = self._answers.get()
        if error is not None:
            raise error
        return value

    def step(self, call: StepCall) -> Any:
        return self._call(call)

    def wait(self, call: WaitCall) -> None:
        self._call(call)

    def callback(self, call: CallbackCall) -> tuple[str, Any]:
        made: tuple[str, Any] = self._call(call)
        return made

    def callback_result(self, ticket: Any) -> Any:
        return self._call(_Result(ticket))

    def invoke(self, call: InvokeCall) -> Any:
        return self._call(call)

    def batch(self, call: BatchCall) -> Any:
        return self._call(call)

    def child(self, context: SyncContext, call: ChildCall) -> Any:
        answer = self._call(call)
        if not isinstance(answer, _Enter):
            return answer
        try:
            result = call.function(context, *call.arguments)
        except Exception as error:  # whatever user code raises is the scope's outcome
            return self._call(_Leave(error=error))
        return self._call(_Leave(result))

    def patched(self, name: str, source: str) -> bool:
        return bool(self._call(_Patch(name, source)))

    def random(self) -> random.Random:
        numbers: random.Random = self._call(_Random())
        return numbers

    def now_ms(self) -> int:
        return self._body.now_ms()

    def is_replaying(self) -> bool:
        return self._body.is_replaying()

    @property
    def execution_id(self) -> str:
        return self._body.execution_id
