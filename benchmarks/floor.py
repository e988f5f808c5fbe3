"""The floor: a durable engine with everything left out, as fast as pure Python gets.

It keeps what cannot be given up: a start is durable before the first step begins, a step's
result is durable before the next step begins, the outcome is durable before the caller hears,
a key that is on disk answers with its recorded outcome, and unfinished executions go on after
a crash. It leaves out failures (a body must not raise), retries, leases, histories,
fingerprints, schemas, timers and messages. What semel pays over it is the price of those.

Where the time went, and what was done about it: a batch is one INSERT statement in autocommit
mode, so the committing thread takes the GIL back once per batch; the loop is woken once per
batch; a waiting task is resumed straight from that wake-up, through an awaitable that keeps
the task's own callback, so that no future and no handle is made per row; a batch is at most
half of what runs, so that the loop and the disk are busy at the same time.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from queue import SimpleQueue
from types import coroutine
from typing import Any

import apsw
import msgspec

Body = Callable[["Execution", Any], Awaitable[Any]]
Step = Callable[[Any], Coroutine[Any, Any, Any]]
Handler = Callable[[Any, Any], Awaitable[tuple[Any, Any]]]
Row = tuple[int, str | int | None, bytes]

BATCH_MIN = 64  # rows up to which a batch is never split
ROW_WIDTH = 3

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder().decode

# mark: on a start, the key; on a finish, the execution; on a step, nothing. A text and an integer
# never compare equal, so one small index finds both a key's execution and its outcome.
SCHEMA = """
create table if not exists journal(id integer primary key, execution, mark, body blob);
create unique index if not exists journal_mark on journal(mark) where mark is not null;
create table if not exists actor(key text primary key, state blob) without rowid;
"""

# unfinished: each start that has no finish (texts sort after integers)
UNFINISHED = """
select id, execution, mark, body
  from journal as begun
 where mark >= ''
   and not exists (select 1 from journal as ended where ended.mark = begun.execution)
 order by id
"""

# steps: the recorded results after the oldest unfinished start
STEPS = "select execution, body from journal where id > ? and mark is null order by id"

# recorded: the outcomes of these keys
RECORDED = """
select begun.mark, ended.body
  from json_each(?) as wanted
  join journal as begun on begun.mark = wanted.value
  join journal as ended on ended.mark = begun.execution
"""

STATE = "select state from actor where key = ?"


@cache
def insert_sql(rows: int) -> str:
    """Append this many rows; a start whose key is on disk is left out."""
    return f"insert into journal(execution, mark, body) values {','.join(['(?,?,?)'] * rows)} on conflict do nothing"


@cache
def upsert_sql(actors: int) -> str:
    """Store the states of this many actors."""
    return f"insert or replace into actor(key, state) values {','.join(['(?,?)'] * actors)}"


def connect(path: str) -> apsw.Connection:
    """Open the database durably: with WAL and FULL a commit is an fsync."""
    database = apsw.Connection(path, statementcachesize=2048)
    for pragma in ("journal_mode=wal", "synchronous=full", "wal_autocheckpoint=4000"):
        database.execute(f"pragma {pragma}").fetchall()
    database.execute(SCHEMA)
    return database


class Ticket:
    """Waits for one commit at a time; the committed batch resumes the waiting task directly.

    A task hands its wake-up to whatever it takes for a future. Here the batch calls it, in the
    task's own context; the task then asks `result` for the error, if any.
    """

    __slots__ = ("_asyncio_future_blocking", "_context", "_loop", "_wakeup", "error")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.error: BaseException | None = None

    def __await__(self) -> Generator[Ticket, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def add_done_callback(self, wakeup: Callable[[Ticket], object], *, context: Context) -> None:
        self._wakeup = wakeup
        self._context = context

    def cancel(self, msg: object = None) -> bool:
        """What is queued is not taken back: a cancelled task stops after the commit."""
        return False

    def result(self) -> None:
        if self.error is not None:
            raise self.error


class Execution(Ticket):
    """One run of a body, and what the body is handed.

    A step's result is written when the body asks for the next step, or together with the outcome:
    computation runs ahead of the disk, the start of a step does not.
    """

    __slots__ = ("_engine", "_unsaved", "found", "id", "joined", "key", "memo")

    def __init__(self, engine: Floor, id: int, key: str) -> None:
        self._loop = engine.loop
        self.error = None
        self.id = id
        self.key = key
        self.memo: list[Any] = []  # the next result is last
        self.found: bytes | None = None
        self.joined: asyncio.Future[Any] | None = None
        self._engine = engine
        self._unsaved: bytes | None = None

    @coroutine
    def step(self, function: Step, argument: Any) -> Generator[Any, Any, Any]:
        """Run one step, or answer from the journal. To be awaited."""
        if self.memo:
            return self.memo.pop()
        if self._unsaved is not None:
            self._engine.append(self, (self.id, None, self._unsaved))
            self._asyncio_future_blocking = True
            yield self
        result = yield from function(argument)
        self._unsaved = encode(result)
        return result

    def outcome(self, result: Any) -> Row:
        return self.id, self.id, encode((self._unsaved, result))


@dataclass(slots=True)
class Actor:
    """A state in memory, the callers that wait for a turn, and those that wait for its commit."""

    state: Any
    busy: bool = False
    turns: deque[asyncio.Future[None]] = field(default_factory=deque)
    tickets: list[Ticket] = field(default_factory=list)


@dataclass(slots=True)
class Counts:
    rows: int = 0
    commits: int = 0


class Floor:
    """The engine. Open it inside a running loop; close it when nothing runs."""

    def __init__(self, path: str, bodies: Sequence[Body] = ()) -> None:
        self.loop = asyncio.get_running_loop()
        self.counts = Counts()
        self._database = connect(path)
        self._reader = connect(path)
        highest = self._database.execute("select max(execution) from journal").get
        self._ids = count((highest or 0) + 1)
        self._live: dict[str, Execution] = {}
        self._actors: dict[str, Actor] = {}
        # The loop adds at the end and the committer takes from the front. A ticket is added before
        # its row, so whoever has counted the rows finds the tickets that belong to them.
        self._tickets: list[Execution] = []
        self._rows: list[str | int | bytes | None] = []
        self._dirty: dict[str, Actor] = {}
        self._wake: SimpleQueue[bool] = SimpleQueue()
        self._taken: SimpleQueue[bool] = SimpleQueue()
        self._idle = False
        self._closed = False
        self._committer = threading.Thread(target=self._commit_loop, name="floor-committer")
        self.recovered = self._recover({_name(body): body for body in bodies})
        self._committer.start()

    def close(self) -> None:
        self._closed = True
        self._wake.put(True)
        self._committer.join()
        self._reader.close()
        self._database.close()

    async def run(self, body: Body, argument: Any, *, key: str) -> Any:
        """Run the body once under this key: join a running one, repeat a recorded outcome."""
        live = self._live.get(key)
        if live is not None:
            if live.joined is None:
                live.joined = self.loop.create_future()
            return await asyncio.shield(live.joined)
        execution = Execution(self, next(self._ids), key)
        self._live[key] = execution
        self.append(execution, (execution.id, key, encode((_name(body), argument))))
        await execution
        if execution.found is None:
            result = await body(execution, argument)
            self.append(execution, execution.outcome(result))
            await execution
        else:
            result = decode(execution.found)[1]
        return self._settle(execution, result)

    async def call(self, key: str, handler: Handler, argument: Any) -> Any:
        """One turn of the actor; its state is durable before the reply is given."""
        actor = self._actors.get(key)
        if actor is None:
            stored = self._reader.execute(STATE, (key,)).get
            actor = self._actors[key] = Actor(None if stored is None else decode(stored))
        if actor.busy:
            turn = self.loop.create_future()
            actor.turns.append(turn)
            await turn
        actor.busy = True
        try:
            actor.state, reply = await handler(actor.state, argument)
        finally:
            if actor.turns:
                actor.turns.popleft().set_result(None)
            else:
                actor.busy = False
        ticket = Ticket(self.loop)
        actor.tickets.append(ticket)
        self._dirty[key] = actor
        if self._idle:
            self._idle = False
            self._wake.put(True)
        await ticket
        return reply

    def append(self, execution: Execution, row: Row) -> None:
        """Queue a row for the next commit; awaiting the execution waits for it."""
        self._tickets.append(execution)
        self._rows += row
        if self._idle:
            self._idle = False
            self._wake.put(True)

    async def _finish(self, execution: Execution, body: Body, argument: Any) -> Any:
        result = await body(execution, argument)
        self.append(execution, execution.outcome(result))
        await execution
        return self._settle(execution, result)

    def _settle(self, execution: Execution, result: Any) -> Any:
        del self._live[execution.key]
        if execution.joined is not None:
            execution.joined.set_result(result)
        return result

    def _recover(self, bodies: dict[str, Body]) -> list[asyncio.Task[Any]]:
        unfinished: list[Any] = self._database.execute(UNFINISHED).fetchall()
        if not unfinished:
            return []
        runs: dict[int, tuple[Execution, Body, Any]] = {}
        for _, id, key, body in unfinished:
            name, argument = decode(body)
            self._live[key] = Execution(self, id, key)
            runs[id] = self._live[key], bodies[name], argument
        steps: list[Any] = self._database.execute(STEPS, (unfinished[0][0],)).fetchall()
        for id, body in steps:
            if id in runs:
                runs[id][0].memo.insert(0, decode(body))
        return [self.loop.create_task(self._finish(*run)) for run in runs.values()]

    def _commit_loop(self) -> None:
        rows, dirty = self._rows, self._dirty
        is_awaited = False  # the loop waits in _resume
        while True:
            self._idle = True
            if not rows and not dirty:
                if is_awaited:
                    self._taken.put(True)
                    is_awaited = False
                if self._closed:
                    return
                self._wake.get()
            self._idle = False
            taken, batch, states = self._take()
            if not batch:
                continue
            if is_awaited:
                self._taken.put(True)
            try:
                self._write(taken, batch, states)
            except Exception as error:
                for ticket in batch:
                    ticket.error = error
            self.loop.call_soon_threadsafe(self._resume, batch)
            is_awaited = True

    def _take(self) -> tuple[list[Any], list[Any], list[Any]]:
        """The next batch: journal rows, the tickets that wait for it, actor states."""
        # At most half of what runs: the loop works on one half while the disk works on the other.
        most = max(BATCH_MIN, len(self._live) // 2)
        rows: list[Any] = self._rows[: most * ROW_WIDTH]
        del self._rows[: len(rows)]
        batch: list[Any] = self._tickets[: len(rows) // ROW_WIDTH]
        del self._tickets[: len(batch)]
        states: list[str | bytes] = []
        while self._dirty:
            key, actor = self._dirty.popitem()
            waiting = actor.tickets[:]
            del actor.tickets[: len(waiting)]
            batch += waiting
            states += (key, encode(actor.state))
        return rows, batch, states

    def _write(self, rows: list[Any], batch: list[Any], states: list[Any]) -> None:
        database, appended = self._database, len(rows) // ROW_WIDTH
        both = rows and states
        if both:
            database.execute("begin immediate")
        if rows:
            database.execute(insert_sql(appended), rows)
            if database.changes() != appended:
                self._find(rows, batch[:appended])
        if states:
            database.execute(upsert_sql(len(states) // 2), states)
        if both:
            database.execute("commit")
        self.counts.rows += appended + len(states) // 2
        self.counts.commits += 1

    def _find(self, rows: list[Any], batch: list[Execution]) -> None:
        """Tell the starts that were left out what is recorded under their keys."""
        starts = {mark: ticket for mark, ticket in zip(rows[1::ROW_WIDTH], batch, strict=True) if type(mark) is str}
        wanted = msgspec.json.encode(list(starts)).decode()
        for key, body in self._database.execute(RECORDED, (wanted,)):
            starts[key].found = body

    def _resume(self, batch: list[Ticket]) -> None:
        # The committer first takes its next batch to the disk: a loop that went on at once would
        # keep the GIL for a whole round, while the disk has nothing to do.
        self._taken.get()
        for ticket in batch:
            ticket._context.run(ticket._wakeup, ticket)


def _name(body: Body) -> str:
    return body.__qualname__
