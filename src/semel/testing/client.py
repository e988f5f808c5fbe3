"""Who sends requests, from outside the process that dies: it remembers them, and asks again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from semel.actor import GenServer
from semel.engine import Engine
from semel.errors import ActorError, ExecutionError, ExecutionStoppedError
from semel.testing.audit import Audit

Ask = Callable[[Engine], Awaitable[Any]]
OUTCOMES = (ActorError, ExecutionError, ExecutionStoppedError)


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
        return await self._ask(name, lambda engine: engine.run(function, *arguments, key=key))

    async def call(
        self, actor: type[GenServer[Any]], actor_key: str, method: Callable[..., Any], /, *arguments: Any, key: str
    ) -> Any:
        """`engine.actor(…).call`."""
        name = f"{actor.__qualname__}/{actor_key}.{method.__name__} {key!r}"
        return await self._ask(name, lambda engine: engine.actor(actor, actor_key).call(method, *arguments, key=key))

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
            value = await ask(self.engine)
        except OUTCOMES as error:
            self._audit.answer(name, spell_error(error))
            raise
        self._audit.answer(name, f"returned {value!r}")
        return value

    async def _tell(self, name: str, ask: Ask) -> None:
        if name not in self._notebook.acknowledged:
            await ask(self.engine)
            self._notebook.acknowledged.add(name)


def spell_error(error: BaseException) -> str:
    """An outcome that is an error, for comparing."""
    return f"raised {type(error).__name__}: {error}"
