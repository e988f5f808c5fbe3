"""What every running body needs, made once by the engine: time, threads, the committer, limits."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from semel.errors import LimitExceededError, ValidationError
from semel.journal import chunks
from semel.journal.arrivals import Touched
from semel.kernel import values
from semel.kernel.entry import Payload
from semel.runtime.clock import Clock
from semel.runtime.committer import Committer
from semel.runtime.slot import STARTING
from semel.store import codec
from semel.store.base import Reader, Stream

if TYPE_CHECKING:
    from semel.runtime.body import Body

logger = logging.getLogger("semel")
# Nothing kept, nothing waited for: each of these means something at 0.
MAY_BE_ZERO = frozenset(
    {"residents_max", "passivate_ms", "drain_ms", "retention_ms", "poll_ms", "sweep_ms", "block_warn_ms"}
)


class Limits(Struct, frozen=True, kw_only=True):
    """Every queue, page and time that has a bound.

    Raises ValidationError unless each is a whole number, and 1 or more where nothing could run under 0.
    """

    payload_bytes_max: int = 6_000_000
    execution_bytes_max: int = 100_000_000
    execution_operations_max: int = 50_000
    residents_max: int = 1_000
    running_max: int = 10_000
    step_threads_max: int = 32
    body_threads_max: int = 32
    claims_max: int = 256
    poll_ms: int = 1_000
    lease_ms: int = 30_000
    passivate_ms: int = 60_000
    drain_ms: int = 5_000
    retention_ms: int = 14 * 24 * 3_600_000
    sweep_ms: int = 600_000
    sweep_batch_max: int = 128
    page_max: int = 1_000
    block_warn_ms: int = 1_000

    def __post_init__(self) -> None:
        for field in self.__struct_fields__:
            found = getattr(self, field)
            least = 0 if field in MAY_BE_ZERO else 1
            if not isinstance(found, int) or isinstance(found, bool) or found < least:
                raise ValidationError(f"Limits.{field}: found {found!r}, expected a whole number, {least} or more")


class Runner(Protocol):
    """What holds a stream in this process: an invocation or an activation."""

    @property
    def stream(self) -> Stream: ...

    def observe(self, append: codec.Append, seq: int) -> None:
        """An arrival was committed."""
        ...

    def notice(self) -> None:
        """Somebody wrote to the stream: it looks at what it is."""
        ...

    def lose(self) -> None:
        """Another holder has the stream, or it was stopped: nothing more is recorded."""
        ...


def _nobody(touched: Touched) -> None:
    """Before the engine has workers, there is nobody to tell."""


class Services:
    """One engine's clock, loop, committer, threads and book of what runs."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        committer: Committer,
        reader: Reader,
        journal_id: str,
        limits: Limits,
        entropy: random.Random,
    ) -> None:
        self.loop = loop
        self.clock = clock
        self.committer = committer
        self.reader = reader
        self.journal_id = journal_id
        self.limits = limits
        self.entropy = entropy
        self.is_draining = False
        self.touched: Callable[[Touched], None] = _nobody  # told of each stream that somebody else's append touched
        self.computing = 0
        self.pumping: Body | None = None  # whose code runs now
        self.runners: dict[int, Runner] = {}
        self.survivors: list[Any] = []
        self.unknown: set[str] = set()  # functions that were invoked, and that this process does not know
        self._ended_steps: list[tuple[Body, tuple[Any, ...]]] = []
        self.idle: OrderedDict[int, Body] = OrderedDict()
        self._step_threads: ThreadPoolExecutor | None = None
        self._body_threads: ThreadPoolExecutor | None = None
        self._watchers: dict[int, list[Callable[[], None]]] = {}

    @property
    def step_threads(self) -> ThreadPoolExecutor:
        """Threads for `def` steps, made when the first one runs."""
        if self._step_threads is None:
            self._step_threads = ThreadPoolExecutor(self.limits.step_threads_max, thread_name_prefix="semel-step")
        return self._step_threads

    @property
    def body_threads(self) -> ThreadPoolExecutor:
        """Threads for `def` bodies, apart from those of steps, so that one never waits for the other."""
        if self._body_threads is None:
            self._body_threads = ThreadPoolExecutor(self.limits.body_threads_max, thread_name_prefix="semel-body")
        return self._body_threads

    def step_ended(self, body: Body, *ended: Any) -> None:
        """An `async def` step ended in its task. Bodies are pumped from a plain callback, one for all of a round."""
        slot = ended[0]
        if slot.phase is STARTING:
            body.take_end(*ended)
            return
        if not self._ended_steps:
            self.loop.call_soon(self._hand_on_steps)
        self._ended_steps.append((body, ended))

    def _hand_on_steps(self) -> None:
        ended_steps, self._ended_steps = self._ended_steps, []
        for body, ended in ended_steps:
            try:
                body.step_ended(*ended)
            except Exception:
                logger.exception("what follows the end of a step failed; the other steps are handed on")

    def payload(self, subject: str, value: Any) -> Payload:
        """A value as bytes. Raises SerializationError, or LimitExceededError over `Limits.payload_bytes_max`."""
        data = values.encode(value)
        limit = self.limits.payload_bytes_max
        if len(data) > limit:
            raise LimitExceededError(
                f"{subject}: found {len(data)} bytes, expected at most {limit}; keep it elsewhere and send a reference"
            )
        return Payload(data)

    def value(self, stream: int, payload: Payload | None) -> Any:
        """The value of a payload in a stream. Raises JournalCorruptError, SerializationError or UnavailableError."""
        if payload is None:
            return None
        return values.decode(payload.data) if not payload.digest else chunks.value(self.reader, stream, payload)

    def close(self) -> None:
        """Let the threads go. One that is still in user code ends when that returns."""
        for threads in (self._step_threads, self._body_threads):
            if threads is not None:
                threads.shutdown(wait=False, cancel_futures=True)

    def keep(self, survivors: list[Any], name: str) -> None:
        """Hold on to tasks that would not end: collecting one would run its `finally` blocks (R1d)."""
        if survivors:
            self.survivors.extend(survivors)
            logger.warning(
                "%d task(s) of %r did not end when it left memory; they are kept, %d in all; "
                "expected code that does not swallow CancelledError",
                len(survivors),
                name,
                len(self.survivors),
            )
