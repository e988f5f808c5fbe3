"""Who sends requests, from outside the process that dies: it remembers them, and asks again."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from semel.actor import GenServer
from semel.engine import Engine
from semel.errors import ActorError, ExecutionError, ExecutionStoppedError, NotFoundError, WrongStatusError
from semel.function import function_spec
from semel.journal.executions import operation_of
from semel.store.base import KeyId
from semel.testing.audit import Audit

Send = Callable[[Engine], Awaitable[Any]]
OUTCOMES = (ActorError, ExecutionError, ExecutionStoppedError)


class Ask(Struct, frozen=True):
    """A request that may be sent again, and the key of the execution that it starts or finds."""

    send: Send
    key: KeyId | None = None


class Notebook(Struct):
    """What a client knows of its requests, over all lives of the process."""

    asked: dict[str, Ask]
    acknowledged: set[str]

    @classmethod
    def empty(cls) -> Notebook:
        return cls({}, set())


class Client:
    """A caller of one life of the engine. Requests with a key are safe to send again after a crash."""

    def __init__(self, engine: Engine, audit: Audit, notebook: Notebook) -> None:
        self.engine = engine
        self._audit = audit
        self._notebook = notebook

    async def run(self, function: Callable[..., Any], /, *arguments: Any, key: str) -> Any:
        """`engine.run`."""
        name = f"{function.__qualname__} {key!r}"
        id = KeyId(self.engine.namespace, operation_of(function_spec(function).name), key)
        return await self._ask(name, Ask(lambda engine: engine.run(function, *arguments, key=key), id))

    async def start(self, function: Callable[..., Any], /, *arguments: Any, key: str) -> None:
        """`engine.start`, unless a former life acknowledged it."""
        name = f"start {function.__qualname__} {key!r}"
        await self._tell(name, lambda engine: engine.start(function, *arguments, key=key))

    async def pause(self, function: Callable[..., Any], key: str, **options: Any) -> None:
        """`engine.executions.pause`, unless a former life acknowledged it, or it can no longer be."""
        await self._control("pause", function, key, **options)

    async def resume(self, function: Callable[..., Any], key: str) -> None:
        """`engine.executions.resume`, as `pause`."""
        await self._control("resume", function, key)

    async def stop(self, function: Callable[..., Any], key: str, **options: Any) -> None:
        """`engine.executions.stop`, as `pause`."""
        await self._control("stop", function, key, **options)

    async def delete(self, function: Callable[..., Any], key: str) -> None:
        """`engine.executions.delete`, as `pause`."""
        await self._control("delete", function, key)

    async def forget_key(self, function: Callable[..., Any], key: str) -> None:
        """`engine.executions.forget_key`, as `pause`."""
        name = function_spec(function).name
        self._audit.forgotten.add(KeyId(self.engine.namespace, operation_of(name), key))
        await self._control("forget_key", function, key)

    async def _control(self, verb: str, function: Callable[..., Any], key: str, **options: Any) -> None:
        name = function_spec(function).name

        async def ask(engine: Engine) -> None:
            with contextlib.suppress(WrongStatusError, NotFoundError):  # a former life did it, and was not told
                await getattr(engine.executions, verb)(key, function=name, **options)

        await self._tell(f"{verb} {name} {key!r}", ask)

    async def call(
        self, actor: type[GenServer[Any]], actor_key: str, method: Callable[..., Any], /, *arguments: Any, key: str
    ) -> Any:
        """`engine.actor(…).call`."""
        name = f"{actor.__qualname__}/{actor_key}.{method.__name__} {key!r}"
        ask = Ask(lambda engine: engine.actor(actor, actor_key).call(method, *arguments, key=key))
        return await self._ask(name, ask)

    async def cast(
        self,
        actor: type[GenServer[Any]],
        actor_key: str,
        method: Callable[..., Any],
        /,
        *arguments: Any,
        key: str | None = None,
    ) -> None:
        """`engine.actor(…).cast`, unless a former life acknowledged it."""
        name = f"{actor.__qualname__}/{actor_key}.{method.__name__} {key!r} {arguments!r}"
        await self._tell(name, lambda engine: engine.actor(actor, actor_key).cast(method, *arguments, key=key))

    async def info(
        self, actor: type[GenServer[Any]], actor_key: str, message: object, *, key: str | None = None
    ) -> None:
        """`engine.actor(…).info`, unless a former life acknowledged it."""
        name = f"{actor.__qualname__}/{actor_key} info {key!r} {message!r}"
        await self._tell(name, lambda engine: engine.actor(actor, actor_key).info(message, key=key))

    async def again(self) -> None:
        """Send every request so far that has a key and an answer again, one after another."""
        for name, ask in list(self._notebook.asked.items()):
            try:
                await self._ask(name, ask)
            except OUTCOMES:
                continue

    async def _ask(self, name: str, ask: Ask) -> Any:
        self._notebook.asked.setdefault(name, ask)
        try:
            value = await ask.send(self.engine)
        except OUTCOMES as error:
            self._audit.answer(name, spell_error(error), key=ask.key)
            raise
        self._audit.answer(name, f"returned {value!r}", key=ask.key)
        return value

    async def _tell(self, name: str, send: Send) -> None:
        if name not in self._notebook.acknowledged:
            await send(self.engine)
            self._notebook.acknowledged.add(name)


def spell_error(error: BaseException) -> str:
    """An outcome that is an error, for comparing."""
    return f"raised {type(error).__name__}: {error}"
