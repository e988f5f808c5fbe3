"""Starting executions and sending messages: a request becomes a journal call, its answer a wait."""

from __future__ import annotations

import asyncio
from typing import Any

from semel.actor_ref import Message
from semel.errors import JournalCorruptError, NotFoundError, SemelError
from semel.executions import deleted_outcome, is_there, parked_error, unless_deleted
from semel.function import FunctionSpec, check_timeout
from semel.journal import executions as journal
from semel.journal import messages
from semel.journal.chunks import whole_outcome
from semel.journal.outcomes import outcome_in, settled_in
from semel.kernel import ids, values
from semel.kernel.entry import MessageHeader, Settled
from semel.runtime.activation import Activation
from semel.runtime.committer import Job
from semel.runtime.services import Services
from semel.runtime.sweeper import retention_of
from semel.runtime.waiters import Waiters
from semel.runtime.worker import Worker
from semel.store import codec
from semel.store.base import ACTOR, PARKED, Address, Needs, Stream, Transaction


class _Start(Job):
    """A start on its way: whoever holds the new execution runs it, then the caller is told."""

    def __init__(
        self, request: journal.StartRequest, worker: Worker, answer: asyncio.Future[journal.StartAnswer]
    ) -> None:
        self.outcomes: Waiters | None = None  # where the outcome is waited for: it may come with the same commit
        self.outcome: asyncio.Future[Settled] | None = None
        self.request = request
        self.worker = worker
        self.answer = answer
        self.needs = Needs(keys=(request.key_id,))

    def perform(self, transaction: Transaction) -> journal.StartAnswer:
        return journal.start(transaction, self.request)

    def done(self, result: journal.StartAnswer, error: BaseException | None) -> None:
        if error is not None:
            if not self.answer.done():
                self.answer.set_exception(error)
            return
        is_open = result.outcome is None and result.stream.status != PARKED
        if self.outcomes is not None and is_open and not self.answer.done():
            self.outcome = self.outcomes.expect(result.stream.number, result.stream.uid)
        if result.is_new:
            if result.stream.holder == self.worker.id and result.append is not None:
                self.worker.adopt(result.stream, list(codec.records(result.append, seq=1)))
            else:
                self.worker.expect(result.stream.wake_ms)
        if not self.answer.done():
            self.answer.set_result(result)


class Starter:
    """Starts executions, or finds them under their key."""

    def __init__(self, services: Services, workers: list[Worker], waiters: Waiters, *, namespace: str) -> None:
        self._services = services
        self._workers = workers
        self._waiters = waiters
        self._namespace = namespace

    async def start(
        self, spec: FunctionSpec, arguments: tuple[Any, ...], key: str | None, timeout_ms: int | None
    ) -> tuple[Stream, Settled | None]:
        """Return the execution and its outcome, if it has one. On disk when this returns."""
        answer = await self._request(spec, arguments, key, timeout_ms).answer
        return answer.stream, answer.outcome and self._whole(answer.stream, answer.outcome)

    async def run(
        self, spec: FunctionSpec, arguments: tuple[Any, ...], key: str | None, timeout_ms: int | None
    ) -> tuple[Stream, Settled]:
        """`start`, and wait for the outcome. Raises ParkedError if the execution is out of service."""
        job = self._request(spec, arguments, key, timeout_ms)
        job.outcomes = self._waiters
        try:
            answer = await job.answer
        except asyncio.CancelledError:
            self._waiters.forget(job.outcome)
            raise
        if answer.outcome is not None:
            return answer.stream, self._whole(answer.stream, answer.outcome)
        return answer.stream, await self.wait(answer.stream, job.outcome)

    def _request(
        self, spec: FunctionSpec, arguments: tuple[Any, ...], key: str | None, timeout_ms: int | None
    ) -> _Start:
        """Put a start on its way."""
        services = self._services
        timeout_ms = spec.timeout_ms if timeout_ms is None else check_timeout(timeout_ms)
        now_ms = services.clock.now_ms()
        uid = new_uid(services, now_ms)
        worker = self._least_busy()
        request = journal.StartRequest(
            self._namespace,
            spec.name,
            uid if key is None else ids.check_key(key),
            uid,
            services.payload(f"arguments of {spec.name!r}", [*arguments]),
            values.fingerprint([*arguments]),
            spec.stream_version,
            now_ms,
            retention_of(spec.name, services.limits),
            worker.id if worker.has_room else None,
            due_ms=None if timeout_ms is None else now_ms + timeout_ms,
        )
        job = _Start(request, worker, services.loop.create_future())
        services.committer.enqueue(job)
        return job

    async def wait(self, stream: Stream, outcome: asyncio.Future[Settled] | None = None) -> Settled:
        """Wait for the outcome of an execution. Raises ParkedError if it is out of service."""
        if stream.status == PARKED:
            raise parked_error(self._services.reader, stream)
        return self._whole(stream, await self._waiters.wait(stream.number, stream.uid, outcome))

    async def outcome(self, stream: Stream) -> Settled:
        """`wait` for someone who comes later: the outcome may have come before, and nobody tells it twice."""
        reader = self._services.reader
        now = reader.stream(stream.number)
        if now is None or now.uid != stream.uid:
            return deleted_outcome(reader, stream)
        settled = unless_deleted(reader, now, lambda: outcome_in(reader, now))
        return self._whole(now, settled) if settled is not None else await self.wait(now)

    def _whole(self, stream: Stream, settled: Settled) -> Settled:
        """The outcome with its bytes, also if the execution was deleted since it was told."""
        reader = self._services.reader
        try:
            return whole_outcome(reader, stream.number, settled)
        except JournalCorruptError:
            if is_there(reader, stream):
                raise
            return deleted_outcome(reader, stream)

    def _least_busy(self) -> Worker:
        if len(self._workers) == 1:
            return self._workers[0]
        return min(self._workers, key=lambda worker: len(worker.running))


class _Send(Job):
    """A message on its way."""

    ahead: Activation | None = None  # the actor that has taken it in before it was on disk
    replies: Waiters | None = None  # where a reply is waited for: it may come with the same commit
    reply: asyncio.Future[Settled] | None = None

    def __init__(
        self, post: Post, request: messages.SendRequest, worker: Worker, answer: asyncio.Future[messages.SendAnswer]
    ) -> None:
        self.post = post
        self.request = request
        self.worker = worker
        self.answer = answer
        keys = (request.key_id,) if request.header.key else ()
        self.needs = Needs(keys=keys, addresses=(request.address,))

    def perform(self, transaction: Transaction) -> messages.SendAnswer:
        return messages.send(transaction, self.request)

    def done(self, result: messages.SendAnswer, error: BaseException | None) -> None:
        if error is not None:
            if self.ahead is not None:
                self.ahead.doubt()
            if not self.answer.done():
                self.answer.set_exception(error)
            return
        is_open = result.outcome is None and result.stream.status != PARKED
        if self.replies is not None and is_open and not self.answer.done():
            self.reply = self.replies.expect(result.stream.number, result.message)
        self.post.sent(result, self.worker)
        if not self.answer.done():
            self.answer.set_result(result)


class Post:
    """Sends messages (`semel.actor_ref.Post`)."""

    def __init__(self, services: Services, workers: list[Worker], waiters: Waiters) -> None:
        self._services = services
        self._workers = workers
        self._waiters = waiters

    async def ask(self, message: Message) -> Settled:
        """Send, and wait for the reply, which is durable by then."""
        job = self._request(message)
        job.replies = self._waiters
        try:
            answer = await job.answer
        except asyncio.CancelledError:
            self._waiters.forget(job.reply)
            raise
        if answer.outcome is not None:
            return whole_outcome(self._services.reader, answer.stream.number, answer.outcome)
        if answer.stream.status == PARKED:
            raise parked_error(self._services.reader, answer.stream)
        reply = await self._waiters.wait(answer.stream.number, answer.message, job.reply)
        return whole_outcome(self._services.reader, answer.stream.number, reply)

    async def tell(self, message: Message) -> None:
        """Send; on disk when this returns."""
        await self._request(message).answer

    def _request(self, message: Message) -> _Send:
        """Put a message on its way."""
        address, spec, arguments = message.address, message.spec, message.arguments
        header = MessageHeader(message.kind, message.method, key=checked(message.key))
        services = self._services
        now_ms = services.clock.now_ms()
        worker = self._worker_of(address)
        request = messages.SendRequest(
            address,
            new_uid(services, now_ms),
            header,
            services.payload(f"arguments of {spec.name}.{header.method}", [*arguments]),
            values.fingerprint([header.kind, header.method, [*arguments]]) if header.key else b"",
            spec.version,
            now_ms,
            worker.id if worker.has_room else None,
        )
        job = _Send(self, request, worker, services.loop.create_future())
        services.committer.enqueue(job)
        return job

    def run_ahead(self, batch: list[Job]) -> None:
        """The messages of a batch are in the mailboxes, and not yet on disk: idle actors run their turns now.

        The turns are recorded in the same commit. If it fails, so do the sends, and the actors are
        made anew from what is on disk (R4).
        """
        ahead: dict[int, Activation] = {}
        for job in batch:
            if not isinstance(job, _Send) or job.error is not None or job.result.append is None:
                continue
            stream = job.result.stream
            run = self._services.runners.get(stream.number)
            if not isinstance(run, Activation) or run.stream.epoch != stream.epoch:
                continue  # not in memory, or another engine's by now
            if run.take_ahead(job.result.append, job.result.seq):
                job.ahead = ahead[stream.number] = run
        for activation in ahead.values():
            activation.advance()

    def sent(self, answer: messages.SendAnswer, worker: Worker) -> None:
        """The message is on disk: whoever has the actor in memory takes it in."""
        if answer.append is None:
            return
        stream = answer.stream
        run = self._services.runners.get(stream.number)
        if run is not None and run.stream.epoch != stream.epoch:
            run.lose()  # another engine has taken the actor, as the row of its stream shows
        if answer.is_claimed:
            worker.adopt(stream)
            return
        holder = next((other for other in self._workers if other.id == stream.holder), None)
        if holder is not None:
            holder.observe(stream.number, answer.append, answer.seq)
        else:
            worker.expect(stream.wake_ms)

    def _worker_of(self, address: Address) -> Worker:
        """Always the same worker for an actor, so that it is found where it was."""
        if len(self._workers) == 1:
            return self._workers[0]
        return self._workers[sum(address.key.encode()) % len(self._workers)]


class OutcomeWatch:
    """Looks in the store for outcomes that another engine may have committed. The floor under notification."""

    def __init__(self, services: Services, waiters: Waiters) -> None:
        self._services = services
        self._waiters = waiters
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Look every `Limits.poll_ms`."""
        delay = max(self._services.limits.poll_ms, 1) / 1000
        self._timer = self._services.loop.call_later(delay, self._look)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        try:
            for number in self._waiters.streams():
                if number not in self._services.runners:
                    self._look_at(number)
        except SemelError as error:
            self._waiters.fail_all(error)
        finally:
            self.open()

    def _look_at(self, number: int) -> None:
        reader = self._services.reader
        stream = reader.stream(number)
        if stream is None:
            self._waiters.park(
                number, NotFoundError(f"stream {number}: it was deleted, and nobody was told its outcome")
            )
            return
        if stream.type == ACTOR:
            self._look_for_replies(stream)
        elif (settled := outcome_in(reader, stream)) is not None:
            self._waiters.settle(number, settled)
        if stream.status == PARKED:
            self._waiters.park(number, parked_error(reader, stream))

    def _look_for_replies(self, stream: Stream) -> None:
        wanted = self._waiters.operations(stream.number)
        first = min(int(name[1:]) for name in wanted)
        for row in self._services.reader.rows(stream.number, first=first):
            append = codec.decode(row.body, stream=row.stream, seq=row.seq)
            for name in wanted:
                settled = settled_in(append, name)
                if settled is not None:
                    self._waiters.settle(stream.number, settled)


def checked(key: str | None) -> str:
    """An idempotency key, or "" for none. Raises ValidationError."""
    return "" if key is None else ids.check_key(key)


def new_uid(services: Services, now_ms: int) -> str:
    """A name that no stream has had."""
    return ids.stream_uid(now_ms, services.entropy.randbytes(ids.UID_ENTROPY_BYTES))
