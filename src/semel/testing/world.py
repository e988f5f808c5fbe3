"""One run of a scenario through crashes, arrivals and takeovers, in virtual time.

A process is an event loop with an engine on it. A crash stops the loop at once, between two
of its callbacks; nothing of that process runs again, and all of it is kept until the world
ends, because collecting a coroutine would run its `finally` blocks.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

from msgspec import Struct

from semel.actor import GenServer, actor_spec
from semel.actor.server import CAST
from semel.engine import Engine
from semel.journal import holding, messages
from semel.kernel import ids, values
from semel.kernel.entry import MessageHeader, Payload
from semel.runtime.clock import VirtualClock
from semel.runtime.services import Limits
from semel.store.base import ACTOR, Address, Store, Transaction
from semel.testing.answers import Answers
from semel.testing.audit import Audit, Violation
from semel.testing.client import OUTCOMES, Client, Notebook, spell_error
from semel.testing.controls import Controls
from semel.testing.faults import (
    Arrival,
    Close,
    Crash,
    Crashed,
    Fault,
    FaultStore,
    Jump,
    Plan,
    Takeover,
)
from semel.testing.place import Place
from semel.testing.silence import silence, unwind
from semel.testing.trail import Model
from semel.testing.virtual_loop import DeadlockError, SpinningError, VirtualLoop

T = TypeVar("T")

START_MS: Final = 1_700_000_000_000
POLLS_MAX: Final = 900  # in one life: far more than a lease, a back-off and a passivation take
# Waits of days are common in user code. With the limits of production each would be thousands of polls and renewals.
PATIENT: Final = Limits(poll_ms=600_000, lease_ms=86_400_000)
PAUSE_POLLS: Final = 0.3  # how long somebody who pauses an execution waits before the resume
LIVES_MAX: Final = 10
THIEF: Final = "thief"


class Message(Struct, frozen=True):
    """A cast that may arrive at any time. It is to be a message that no reply of the scenario depends on."""

    actor: type[GenServer[Any]]
    key: str
    method: str
    arguments: tuple[Any, ...] = ()


class Shape(Struct, frozen=True, kw_only=True):
    """A scenario to explore.

    `scenario(client)` is run in every life of the process until it returns; what it returns (or
    the outcome it raises) must be the same whatever happens, or one of `outcomes`, spelled as
    `Run.outcome` is. `models` say what the state of each actor type should be. A life of the process
    takes up to 900 times `limits.poll_ms`, which is about six days unless it is set.
    """

    name: str
    scenario: Callable[[Client], Awaitable[Any]]
    limits: Limits = PATIENT
    workers: int = 1
    models: Mapping[str, Model] = {}
    message: Message | None = None
    outcomes: frozenset[str] = frozenset()
    has_answers: bool = False
    linger_s: float = 0.0


class Run(Struct, frozen=True, kw_only=True):
    """What came of one run. `writes` counts those of each life, `digest` is over every stream's name and rows.

    `remains` says of each life but the last what it left: runs that left the same go on in the same way.
    """

    plan: Plan
    outcome: str
    violations: list[Violation]
    writes: list[int]
    fired: list[Fault]
    digest: str
    remains: list[str]
    effects: int
    refused: int
    lives: int


class _Process:
    """One life of the process that runs the engine."""

    def __init__(self, number: int, loop: VirtualLoop, clock: VirtualClock, store: FaultStore) -> None:
        self.number = number
        self.loop = loop
        self.clock = clock
        self.store = store
        self.engines: list[Engine] = []
        self.client: Client | None = None
        self.closing: asyncio.Future[None] = loop.create_future()
        self.guests: list[asyncio.Task[Any]] = []
        self.leases_expire = False


class World:
    """Runs one shape once, by a plan. Use `explore` for all the plans there are."""

    def __init__(self, shape: Shape, place: Place, *, plan: Plan = (), seed: int = 0) -> None:
        self.shape = shape
        self.plan = plan
        self._place = place
        self._entropy = random.Random(seed)  # noqa: S311  # names and jitter, not secrets
        self._outside: FaultStore | None = None
        self._start_ms = START_MS
        self._poll_s = shape.limits.poll_ms / 1000
        self._answers = Answers()
        self._now_s = 0.0
        self._graveyard: list[_Process] = []
        self._writes: list[int] = []
        self._remains: list[str] = []
        self._fired: list[Fault] = []
        self._refused = 0
        self._process: _Process | None = None
        self.audit = Audit(
            place.journal_id, now_ms=self.now_ms, retention_ms=shape.limits.retention_ms, models=shape.models
        )
        self._controls = Controls(self.audit, retention_ms=shape.limits.retention_ms, wait_s=self._poll_s * PAUSE_POLLS)
        self._notebook = Notebook.empty()

    def now_ms(self) -> int:
        """The wall clock, by which the journal is written."""
        process = self._process
        return self._start_ms if process is None else process.clock.now_ms()

    def effect(self, name: str, key: str, *values: Any) -> int:
        """A step's body did something in the living process. Returns a number that no other effect has."""
        process = self._process
        running = asyncio.get_running_loop()
        if process is None or running is not process.loop:
            return -1
        return self.audit.effect(name, key, life=process.number, at_s=running.time(), values=values)

    # Lives.

    def run(self) -> Run:
        """Run to the end, through every fault of the plan, and look at what is left."""
        outcome = "nothing"
        try:
            for number in range(LIVES_MAX):
                ended = self._live(number)
                if ended is not None:
                    outcome = ended
                    break
            else:
                self.audit.report("liveness", f"the scenario did not end in {LIVES_MAX} lives")
            self._check_end()
        finally:
            self._bury()
        return Run(
            plan=self.plan,
            outcome=outcome,
            violations=self.audit.violations,
            writes=self._writes,
            fired=self._fired,
            digest=self._digest(),
            remains=self._remains,
            effects=len(self.audit.effects),
            refused=self._refused,
            lives=len(self._writes),
        )

    def _live(self, number: int) -> str | None:
        """One life. None if it ended before the scenario did."""
        loop = VirtualLoop(start_s=self._now_s)
        loop.witness = self
        loop.computing = lambda: sum(engine.computing_count for engine in process.engines)
        loop.set_exception_handler(self._engine_broke)
        clock = VirtualClock(loop, start_ms=self._start_ms)
        faults = self.plan[number] if number < len(self.plan) else ()
        store = FaultStore(self._place.open(), self.audit, faults=faults, on_fault=self._happen)
        process = self._process = _Process(number, loop, clock, store)
        self._graveyard.append(process)
        try:
            return loop.run_until_complete(self._main(process))
        except Crashed:
            return None
        except (DeadlockError, SpinningError) as error:
            self.audit.report("liveness", f"{type(error).__name__}: {error}")
            return f"{type(error).__name__}"
        finally:
            store.die()
            self._writes.append(store.writes)
            self._refused += store.refused
            self._now_s = loop.time() + 0.001
            self._start_ms = clock.now_ms() - round(loop.time() * 1000)
            self._remains.append(self._describe_remains())

    async def _main(self, process: _Process) -> str | None:
        if process.number and not self._graveyard[-2].leases_expire:
            self._void_leases(process)
        engine = self._engine(process, process.store)
        await engine.open()
        client = process.client = Client(engine, self.audit, self._notebook)
        self._send_resumes(process)
        scenario = process.loop.create_task(self._scenario(client))
        courier = process.loop.create_task(self._answers.serve(engine))
        ends: set[asyncio.Future[Any]] = {scenario, process.closing}
        await asyncio.wait(ends, timeout=POLLS_MAX * self._poll_s, return_when=asyncio.FIRST_COMPLETED)
        if not process.closing.done() and not scenario.done():
            self.audit.report("liveness", f"no outcome in {POLLS_MAX * self._poll_s} s; open: {self.audit.open_work()}")
        is_quiet = scenario.done() and await self._rest(process)
        for task in (scenario, courier, *process.guests):
            task.cancel()
        found = await asyncio.gather(scenario, *process.guests, return_exceptions=True)
        for opened in process.engines:
            await opened.close()
        if process.closing.done() or (is_quiet and self.audit.open_work()):
            return None  # closed too early, or something arrived while it closed: the next life sees to it
        for error in found[1:]:
            if isinstance(error, Exception) and not isinstance(error, OUTCOMES):
                self.audit.report("client", f"a request raised {error!r}")
        return found[0] if isinstance(found[0], str) else f"raised {found[0]!r}"

    async def _scenario(self, client: Client) -> str:
        try:
            return f"returned {await self.shape.scenario(client)!r}"
        except OUTCOMES as error:
            return spell_error(error)

    async def _rest(self, process: _Process) -> bool:
        """Wait until every accepted request has its outcome, then a little, then again. Tells whether all have."""
        for linger_s in (self.shape.linger_s, 0):
            end_s = process.loop.time() + POLLS_MAX * self._poll_s
            while self.audit.open_work() or not all(task.done() for task in process.guests):
                if process.closing.done() or process.loop.time() > end_s:
                    return False
                await asyncio.sleep(self._poll_s / 10)
            if linger_s and not process.closing.done():
                await asyncio.wait({process.closing}, timeout=linger_s)
        return True

    def _engine_broke(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if self._process is not None and loop is self._process.loop:
            self.audit.report("engine", f"{context.get('message')}: {context.get('exception')!r}")

    def _engine(self, process: _Process, store: Store) -> Engine:
        engine = Engine(
            store,
            limits=self.shape.limits,
            workers=self.shape.workers,
            clock=process.clock,
            commit="inline",
            seed=self._entropy.getrandbits(64),
        )
        process.engines.append(engine)
        return engine

    def _void_leases(self, process: _Process) -> None:
        """What an engine does when it has the owner's lock: nobody else lives."""
        now_ms = process.clock.now_ms()
        _write(
            process.store,
            lambda transaction: holding.void_leases_of_the_dead(
                transaction, judged_at_ms=holding.FOREVER_MS, now_ms=now_ms
            ),
        )

    # Faults.

    def _happen(self, fault: Fault) -> None:
        process = self._process
        assert process is not None
        match fault:
            case Crash():
                self._fired.append(fault)
                process.leases_expire = fault.leases == "expire"
                raise Crashed
            case Close():
                self._fired.append(fault)
                if not process.closing.done():
                    process.closing.set_result(None)
            case Jump(by_ms=by_ms):
                self._fired.append(fault)
                process.clock.jump(by_ms)
            case Arrival():
                if self._arrive(process, fault):
                    self._fired.append(fault)
            case Takeover():
                if self._take_over(process, fault):
                    self._fired.append(fault)

    def _arrive(self, process: _Process, fault: Arrival) -> bool:
        client, message = process.client, self.shape.message
        match fault.kind:
            case "message" if message is not None and client is not None:
                spec = getattr(message.actor, message.method)
                key = f"arrival {fault.write} {fault.moment}"
                self._guest(process, client.cast(message.actor, message.key, spec, *message.arguments, key=key))
                return True
            case "outside message" if message is not None:
                self._send(message)
                return True
            case "duplicate" if client is not None:
                self._guest(process, client.again())
                return True
            case "answer" if client is not None:
                self._guest(process, self._answers.give(client.engine))
                return True
            case "outside answer":
                for call in self._answers.calls(process.store.journal_id, process.clock.now_ms()):
                    self._write_outside(call)
                return True
            case "stop" | "pause" | "delete" if client is not None:
                requests = self._controls.requests(fault.kind, client.engine, process.loop)
                for request in requests:
                    self._guest(process, request)
                return bool(requests)
            case "outside stop" | "outside pause" | "outside delete":
                calls = self._controls.calls(fault.kind, process.clock.now_ms())
                for call in calls:
                    self._write_outside(call)
                return bool(calls) and self._send_resumes(process)
            case _:
                return False

    def owe(self, callback_id: str, value: object, *, after_ms: int) -> None:
        """Somebody outside was given a callback's id."""
        process = self._process
        if process is not None and not process.store.is_dead:
            self._answers.owe(callback_id, value, process.loop.time() + after_ms / 1000)

    def _send_resumes(self, process: _Process) -> bool:
        """Have what is paused resumed after a while: whoever paused it is dead, or is somebody outside."""
        if process.client is not None:
            for request in self._controls.resumes(process.client.engine):
                self._guest(process, request)
        return True

    def _guest(self, process: _Process, request: Coroutine[Any, Any, Any]) -> None:
        process.guests.append(process.loop.create_task(request))

    def _send(self, message: Message) -> None:
        spec = actor_spec(message.actor)
        now_ms = self.now_ms()
        request = messages.SendRequest(
            Address("default", ACTOR, spec.name, message.key),
            ids.stream_uid(now_ms, self._entropy.randbytes(ids.UID_ENTROPY_BYTES)),
            MessageHeader(CAST, message.method),
            Payload(values.encode(message.arguments)),
            b"",
            spec.version,
            now_ms,
        )
        self._write_outside(lambda transaction: messages.send(transaction, request))

    def _write_outside(self, call: Callable[[Transaction], object]) -> None:
        """What somebody else writes, through a handle of their own."""
        if self._outside is None:
            self._outside = FaultStore(self._place.open(), self.audit, on_fault=self._happen)
        _write(self._outside, call)

    def _take_over(self, process: _Process, fault: Takeover) -> bool:
        """J4: from here on, whoever held a stream may write to it no more."""
        held = [stream.number for stream in self.audit.held()]
        if not held:
            return False
        now_ms = process.clock.now_ms()

        def take(transaction: Transaction) -> None:
            for number in held:
                stream = transaction.stream(number)
                assert stream is not None
                if fault.kind == "theft":
                    holding.take(transaction, stream, THIEF)
                else:
                    holding.free(transaction, stream, now_ms=now_ms)

        self._write_outside(take)
        if fault.kind == "second engine":
            store = FaultStore(self._place.open(), self.audit, on_fault=self._happen)
            self._guest(process, self._engine(process, store).open())
        return True

    # The end.

    def _check_end(self) -> None:
        open_work = self.audit.open_work()
        if open_work:
            self.audit.report("liveness", f"accepted and never settled: {', '.join(open_work)}")
        self.audit.check_effects()
        reader = self._place.open()
        self.audit.check_stored(reader)
        reader.close()

    def _describe_remains(self) -> str:
        """Everything that the next life depends on: the store, the clocks, and what the outside knows."""
        outside = (sorted(self._notebook.asked), sorted(self._notebook.acknowledged), self.audit.effects, self._answers)
        streams = [trail.stream for _, trail in sorted(self.audit.trails.items())]
        engines = sum(len(process.engines) for process in self._graveyard)  # each took a seed
        known = (self._now_s, self._start_ms, self.audit.workers, streams, outside, engines)
        return f"{self._digest()} {hashlib.blake2b(repr(known).encode(), digest_size=16).hexdigest()}"

    def _digest(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for number, trail in sorted(self.audit.trails.items()):
            digest.update(trail.stream.uid.encode())
            for row in trail.rows:
                digest.update(f"{number} {row.seq} ".encode() + row.body)
        return digest.hexdigest()

    def _bury(self) -> None:
        """Unwind what died, by R1: no seam is open, no write goes through, no effect is counted."""
        self._process = None
        with silence():
            for process in self._graveyard:
                process.loop.set_exception_handler(lambda _loop, _context: None)
                for engine in process.engines:
                    engine.abandon()
                process.loop.run_until_complete(unwind())
                process.loop.close()
                process.store.close()
        if self._outside is not None:
            self._outside.close()
        self._place.close()


def _write(store: FaultStore, call: Callable[[Transaction], T]) -> T:
    transaction = store.begin([])
    result: T = transaction.attempt(call)
    if transaction.has_writes:
        store.commit(transaction)
    return result


def answer(callback_id: str, value: object, *, after_ms: int = 0) -> None:
    """Say in a step's body that somebody outside got a callback's id, and will settle it `after_ms` later.

    An exception as the value fails the callback. In a World that is remembered over every life of the
    process; anywhere else nothing happens.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    witness = getattr(loop, "witness", None)
    if isinstance(witness, World):
        witness.owe(callback_id, value, after_ms=after_ms)


def effect(name: str, key: str = "", *values: Any) -> int:
    """Say in a step's body that it does something to the outside; `key` is its `semel.EFFECT_KEY`.

    In a World the effect is counted, if the process lives, and checked against the journal; the number
    returned is its own. Anywhere else nothing happens, and the number is -1.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return -1
    witness = getattr(loop, "witness", None)
    return witness.effect(name, key, *values) if isinstance(witness, World) else -1
