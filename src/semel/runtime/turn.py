"""One run of an actor's handler for one message."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from semel.actor import ActorSpec, GenServer, MethodSpec
from semel.context import Context
from semel.errors import ParkedError, ReplayError, StoreError
from semel.journal.chunks import outline
from semel.kernel.divergence import Asked
from semel.kernel.entry import Kind, Payload, Status
from semel.kernel.memo import Memo
from semel.kernel.operation import Operation
from semel.runtime.body import Body
from semel.runtime.holder import Holder
from semel.runtime.meter import Meter
from semel.runtime.present_code import PresentCode
from semel.runtime.services import Services
from semel.runtime.slot import Outcome
from semel.runtime.sync_body import SyncBody

SPELLED_MAX = 200  # characters of a value in a report


class Turn:
    """A message's handler on a body of its own. A replay records nothing, and must answer what it answered."""

    def __init__(
        self,
        services: Services,
        spec: ActorSpec,
        actor: GenServer[Any],
        message: Operation,
        *,
        memo: Memo,
        meter: Meter,
        holder: Holder,
        at_rest: Callable[[Turn], None],
        is_replay: bool,
    ) -> None:
        self.message = message
        self.is_replay = is_replay
        self._spec = spec
        self._actor = actor
        self._at_rest = at_rest
        stream = holder.stream
        memo.message, memo.stream = message.id, stream.uid
        method = spec.methods.get(message.name)
        if method is not None:
            memo.code = PresentCode(method.function, owner=spec.actor)
        self.body = Body(
            services,
            memo=memo,
            meter=meter,
            stream=stream.number,
            scope=message.id,
            lineage=message.id,
            origin=stream.origin or stream.uid,
            uid=stream.uid,
            record=self._refuse if is_replay else holder.record,
            at_rest=self._rest,
            time_out=holder.time_out,
        )
        self.body.name = self.name

    @property
    def name(self) -> str:
        return f"{self._spec.name}.{self.message.name}"

    @property
    def is_async(self) -> bool:
        """Whether the handler runs on the body's loop, and not in a thread."""
        method = self._spec.methods.get(self.message.name)
        return method is not None and method.is_async

    def start(self) -> None:
        self.body.start(self._main(), now_ms=self.message.started_ms)

    def _rest(self) -> None:
        self._at_rest(self)

    async def _main(self) -> Any:
        actor = self._actor
        if not hasattr(actor, "state"):
            made = actor.init()
            actor.state = await made if inspect.isawaitable(made) else made
        try:
            arguments = tuple(self.body.read(self.message.payload) or ())
            method = self._spec.method(self.message.name)
        except (ReplayError, StoreError) as error:  # this code does not know the handler, or cannot read an argument
            raise self.body.diverged(error) from None
        if method.is_async:
            return await method.function(actor, Context(self.body), *arguments)
        return await SyncBody(self.body).run(_bound(method, actor), arguments)

    def _refuse(self, update: Any) -> None:
        memo = self.body.memo
        start = getattr(update, "start", None)
        if start is None and update.id in memo.operations:
            start = memo.operations[update.id].start
        name, kind = ("", Kind.STEP) if start is None else (start.name, start.kind)
        source, subtype = ("", "") if start is None else (start.source, start.subtype)
        self.body.divergence = self.body.divergence or memo.unexpected(update.id, Asked(kind, name, source, subtype))

    def check_reply(self, outcome: Outcome) -> None:
        """Raise NonDeterminismError unless the turn answered what it answered the first time."""
        recorded = self.message
        result = outcome.result and outline(outcome.result)
        if (outcome.status, result) != (recorded.status, recorded.result):
            raise self.body.memo.other_reply(
                self._spell_reply(recorded.status, recorded.result), self._spell_reply(outcome.status, outcome.result)
            )

    def _spell_reply(self, status: Status, result: Payload | None) -> str:
        text = repr(self.body.read(result))
        return f"{status} {text if len(text) <= SPELLED_MAX else text[:SPELLED_MAX] + '…'}"

    def unfinished(self) -> ReplayError:
        """A turn that ended in its journal waits for something in this run."""
        return self.body.memo.unfinished()

    def stuck(self) -> ReplayError:
        """A turn that nothing can wake."""
        return ParkedError(
            f"message {self.message.id} to {self.name}: its handler waits for something that no operation will bring "
            f"(a future, event or queue that nothing sets); expected it to await operations or tasks that do"
        )


def _bound(method: MethodSpec, actor: GenServer[Any]) -> Callable[..., Any]:
    def handler(context: Any, *arguments: Any) -> Any:
        return method.function(actor, context, *arguments)

    return handler
