"""A random program as a durable function: what its parts do, and a record of what happened first.

The outcome is the record: every event in its order, and who won each race. A step is handed a
digest of the record so far, so that a replay which took another path begins a step with another
argument than the first run did.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from semel import Context, durable_function
from semel.errors import OperationError
from tests.simulation.program_operations import OPERATIONS, work
from tests.simulation.programs import Node, program, step_ms

RACE = "race"
# Whoever looks at runs from outside: called with each one as it begins.
on_begin: list[Callable[[Player], None]] = []


@durable_function(name="sim.program")
async def run_program(ctx: Context, number: int, order: int) -> list[str]:
    player = Player(ctx, number, order)
    for begin in on_begin:
        begin(player)
    try:
        await player.play(program(number))
    except Exception as error:  # the program's own end
        player.note(0, spell(error))
    return player.record


def spell(error: BaseException) -> str:
    """An error by its type, and by those inside."""
    if isinstance(error, BaseExceptionGroup):
        return f"{type(error).__name__}({', '.join(spell(inner) for inner in error.exceptions)})"
    if isinstance(error, OperationError):
        return f"{type(error).__name__}({error})"
    return type(error).__name__


class Player:
    """Runs a program, or the part of it in one context, and keeps the record. `digest` is that of the record so far."""

    def __init__(self, ctx: Context, number: int, order: int) -> None:
        self.ctx = ctx
        self.number = number
        self.order = order
        self.record: list[str] = []
        self.replayed = 0  # how many events the journal brought
        self.digest = 0
        self._background: list[asyncio.Task[int]] = []

    def note(self, node: int, what: object) -> None:
        """Something happened at a node. What happens while the body leaves memory is not of the program."""
        if self.ctx._seam.closed is not None:
            return
        event = f"{node} {what}"
        self.digest = zlib.crc32(event.encode(), self.digest)
        self.record.append(event)
        if self.ctx.is_replaying:
            self.replayed = len(self.record)

    def race(self, node: int, winner: object) -> None:
        """A race at a node was won."""
        self.note(node, f"{RACE} {winner}")

    def play(self, node: Node) -> Coroutine[Any, Any, int]:
        """Do what a node says. Returns its id, so that who is done can be told."""
        return PARTS[node.kind](self, node)

    def inside(self, ctx: Context) -> Player:
        """Who runs a part in a context of its own, and keeps a record that is its outcome: a replay may not run it."""
        return Player(ctx, self.number, self.order)

    def tasks(self, node: Node) -> list[asyncio.Task[int]]:
        return [asyncio.create_task(self.play(part)) for part in node.parts]

    # Several things at once.

    async def in_turn(self, node: Node) -> int:
        for part in node.parts:
            try:
                await self.play(part)
            except Exception as error:
                self.note(node.id, spell(error))
        return node.id

    async def gather(self, node: Node) -> int:
        if node.kind == "gather exceptions":
            found = await asyncio.gather(*(self.play(part) for part in node.parts), return_exceptions=True)
            self.note(node.id, [spell(one) if isinstance(one, BaseException) else one for one in found])
        else:
            self.note(node.id, await asyncio.gather(*(self.play(part) for part in node.parts)))
        return node.id

    async def task_group(self, node: Node) -> int:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.play(part)) for part in node.parts]
        except* Exception as errors:
            self.note(node.id, spell(errors))
        self.note(node.id, [task.cancelled() for task in tasks])
        return node.id

    async def create_task(self, node: Node) -> int:
        for task in reversed(self.tasks(node)):
            self.note(node.id, await task)
        return node.id

    async def as_completed(self, node: Node) -> int:
        order: list[object] = []
        for earliest in asyncio.as_completed(self.tasks(node)):
            try:
                order.append(await earliest)
            except Exception as error:
                order.append(spell(error))
            self.note(node.id, order[-1])
        self.race(node.id, order)
        return node.id

    async def wait_some(self, node: Node) -> int:
        when = {"first completed": asyncio.FIRST_COMPLETED, "first exception": asyncio.FIRST_EXCEPTION}
        tasks = self.tasks(node)
        done, pending = await asyncio.wait(tasks, return_when=when.get(node.kind, asyncio.ALL_COMPLETED))
        if node.kind != "all completed":
            self.race(node.id, sorted(tasks.index(task) for task in done))
        for task in done:
            self._look(node, task)
        if node.pick < 2:
            for task in pending:
                task.cancel()
        if node.pick < 4 and pending:
            for task in (await asyncio.wait(pending))[0]:
                self._look(node, task)
        return node.id

    def _look(self, node: Node, task: asyncio.Task[int]) -> None:
        if task.cancelled():
            self.note(node.id, "cancelled")
            return
        error = task.exception()
        self.note(node.id, task.result() if error is None else spell(error))

    async def helper(self, node: Node) -> int:
        async def several(parts: tuple[Node, ...]) -> int:
            first = await self.play(parts[0])
            return first + (await several(parts[1:]) if parts[1:] else 0)

        self.note(node.id, await several(node.parts))
        return node.id

    async def background(self, node: Node) -> int:
        self._background += self.tasks(node)
        await asyncio.sleep(0)
        return node.id

    async def callback(self, node: Node) -> int:
        tasks, order = self.tasks(node), []
        for task in tasks:
            task.add_done_callback(lambda task: order.append(tasks.index(task)))
        await asyncio.wait(tasks)
        self.race(node.id, order)
        for task in tasks:
            self._look(node, task)
        return node.id

    # Limits and cancellation.

    async def timeout(self, node: Node) -> int:
        try:
            async with asyncio.timeout(node.ms / 1000):
                await self.play(node.parts[0])
            self.race(node.id, "in time")
        except TimeoutError:
            self.race(node.id, "too late")
        return node.id

    async def wait_for(self, node: Node) -> int:
        try:
            await asyncio.wait_for(self.play(node.parts[0]), node.ms / 1000)
            self.race(node.id, "in time")
        except TimeoutError:
            self.race(node.id, "too late")
        return node.id

    async def shield(self, node: Node) -> int:
        (task,) = self.tasks(node)
        try:
            async with asyncio.timeout(node.ms / 1000):
                await asyncio.shield(task)
            self.race(node.id, "in time")
        except TimeoutError:
            self.race(node.id, "too late")
            self.note(node.id, await task)
        return node.id

    async def cancel(self, node: Node) -> int:
        one, other = node.parts
        task = asyncio.create_task(self.play(one))
        try:
            await self.play(other)
        except Exception as error:
            self.note(node.id, spell(error))
        self.race(node.id, "told" if task.cancel("enough") else "done")
        await asyncio.wait([task])
        self._look(node, task)
        return node.id

    async def catch_cancel(self, node: Node) -> int:
        one, other = node.parts
        try:
            await self.play(one)
        except asyncio.CancelledError:
            self.note(node.id, "caught")
            await self.play(other)
            if node.pick < 3:
                raise
            self.note(node.id, "went on")
        return node.id

    async def in_the_end(self, node: Node) -> int:
        one, other = node.parts
        try:
            await self.play(one)
        finally:
            self.note(node.id, "finally")
            await self.play(other)
        return node.id

    async def handled(self, node: Node) -> int:
        one, other = node.parts
        try:
            await self.play(one)
        except Exception as error:
            self.note(node.id, spell(error))
            await self.play(other)
        return node.id

    # What tasks meet at.

    async def queue(self, node: Node) -> int:
        queue: asyncio.Queue[object] = asyncio.Queue(maxsize=1 + node.pick % 3)

        async def produce(part: Node) -> None:
            try:
                item: object = await self.play(part)
            except Exception as error:
                item = spell(error)
            if queue.full():  # it may have outlived whoever would take it
                async with asyncio.timeout(2):
                    await queue.put(item)
            else:
                queue.put_nowait(item)

        async def consume(who: int) -> None:
            while (item := await queue.get()) is not None:
                self.race(node.id, f"{who} {item}")
                await self._after(node)

        try:
            async with asyncio.TaskGroup() as group:
                producers = [group.create_task(produce(part)) for part in node.parts]
                consumers = [group.create_task(consume(who)) for who in range(1 + node.pick % 2)]
                await asyncio.wait(producers)
                for _ in consumers:
                    await queue.put(None)
        except* (OperationError, TimeoutError) as errors:
            self.note(node.id, spell(errors))
        return node.id

    async def _after(self, node: Node) -> None:
        """A step that a meeting leads to."""
        ms = step_ms(self.number, self.order, node.id)
        await self.ctx.step(work, node.id, self.digest, ms, name=f"m{node.id}")

    async def _in_group(self, node: Node, of: Callable[[Node], Coroutine[Any, Any, None]]) -> int:
        try:
            async with asyncio.TaskGroup() as group:
                for part in node.parts:
                    group.create_task(of(part))
        except* (OperationError, asyncio.BrokenBarrierError) as errors:
            self.note(node.id, spell(errors))
        return node.id

    async def lock(self, node: Node) -> int:
        """A lock, or a semaphore of two places: who comes first is in first."""
        gate = asyncio.Lock() if node.kind == "lock" else asyncio.Semaphore(2)

        async def enter(part: Node) -> None:
            await self.play(part)
            async with gate:
                self.race(node.id, part.id)
                await self._after(node)

        return await self._in_group(node, enter)

    async def event(self, node: Node) -> int:
        event, first = asyncio.Event(), node.parts[0]

        async def one(part: Node) -> None:
            if part is first:
                try:
                    await self.play(part)
                finally:
                    event.set()
            else:
                await event.wait()
                self.race(node.id, part.id)
                await self.play(part)

        return await self._in_group(node, one)

    async def condition(self, node: Node) -> int:
        condition, last = asyncio.Condition(), node.parts[-1]
        arrived: list[int] = []

        async def one(part: Node) -> None:
            if part is not last:
                try:
                    await self.play(part)
                finally:
                    async with condition:
                        arrived.append(part.id)
                        condition.notify_all()
                return
            async with condition:
                await condition.wait_for(lambda: len(arrived) == len(node.parts) - 1)
                self.race(node.id, arrived)
                await self.play(part)

        return await self._in_group(node, one)

    async def barrier(self, node: Node) -> int:
        barrier = asyncio.Barrier(len(node.parts))

        async def one(part: Node) -> None:
            try:
                await self.play(part)
            except BaseException:
                await barrier.abort()
                raise
            self.race(node.id, f"{part.id} as {await barrier.wait()}")

        return await self._in_group(node, one)

    async def call_later(self, node: Node) -> int:
        """A timer of one's own, against a part."""
        event, (task,) = asyncio.Event(), self.tasks(node)
        timer = asyncio.get_running_loop().call_later(node.ms / 1000, event.set)
        rung = asyncio.create_task(event.wait())
        done, _ = await asyncio.wait([task, rung], return_when=asyncio.FIRST_COMPLETED)
        self.race(node.id, "part" if task in done else "timer")
        timer.cancel()
        rung.cancel()
        await asyncio.wait([task])
        self._look(node, task)
        return node.id

    # Async generators.

    async def _results(self, node: Node) -> AsyncIterator[object]:
        try:
            for part in node.parts:
                try:
                    yield await self.play(part)
                except OperationError as error:
                    yield spell(error)
        finally:
            self.note(node.id, "closing")
            await self._after(node)

    async def generator(self, node: Node) -> int:
        results = self._results(node)
        async for result in results:
            self.note(node.id, result)
            if node.kind == "generator left":
                break
        if node.kind == "generator left" and node.pick < 3:
            await results.aclose()
        return node.id


Part = Callable[[Player, Node], Coroutine[Any, Any, int]]
PARTS: dict[str, Part] = {
    **OPERATIONS,
    "in turn": Player.in_turn,
    "gather": Player.gather,
    "gather exceptions": Player.gather,
    "task group": Player.task_group,
    "create_task": Player.create_task,
    "as_completed": Player.as_completed,
    "first completed": Player.wait_some,
    "first exception": Player.wait_some,
    "all completed": Player.wait_some,
    "timeout": Player.timeout,
    "wait_for": Player.wait_for,
    "shield": Player.shield,
    "cancel": Player.cancel,
    "catch cancel": Player.catch_cancel,
    "finally": Player.in_the_end,
    "except": Player.handled,
    "queue": Player.queue,
    "lock": Player.lock,
    "semaphore": Player.lock,
    "event": Player.event,
    "condition": Player.condition,
    "barrier": Player.barrier,
    "async generator": Player.generator,
    "generator left": Player.generator,
    "helper": Player.helper,
    "background": Player.background,
    "callback": Player.callback,
    "call_later": Player.call_later,
}
