"""Actors: one message at a time, typed state, keys, and what a failing handler leaves."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from semel import Context, DurabilityFacet, Facet, GenServer, SyncContext, call, cast, info
from semel.errors import (
    ActorError,
    IdempotencyConflictError,
    LimitExceededError,
    NotFoundError,
    SerializationError,
    UnknownHandlerError,
    ValidationError,
)
from tests.runtime.places import Place, run, until


@dataclass
class Account:
    balance: Decimal = Decimal(0)
    notes: list[str] = field(default_factory=list)


async def give(value: Any) -> Any:
    return value


class Bank(GenServer[Account]):
    actor_type = "actors-bank"
    facets: ClassVar[list[Facet]] = [DurabilityFacet()]
    handled: ClassVar[list[str]] = []
    open_turns: ClassVar[int] = 0
    gate: ClassVar[asyncio.Event]

    @call
    async def pay(self, ctx: Context, amount: Decimal) -> Decimal:
        Bank.handled.append(f"pay {amount}")
        self.state.balance += amount
        return self.state.balance

    @call
    def pay_in_a_thread(self, ctx: SyncContext, amount: Decimal) -> Decimal:
        Bank.handled.append(threading.current_thread().name.rsplit("_", 1)[0])
        self.state.balance += ctx.step(give, amount)
        ctx.wait(ms=5)
        return self.state.balance

    @call
    async def break_half_way(self, ctx: Context) -> None:
        self.state.balance += 1_000_000
        self.state.notes.append("spoiled")
        await ctx.step(give, 1)
        self.state.notes.append("spoiled again")
        raise ValueError("declined")

    @call
    async def spoil(self, ctx: Context) -> None:
        self.state.notes.append("before")
        self.state.notes.append(object())  # type: ignore[arg-type]

    @call
    async def leak(self, ctx: Context) -> object:
        self.state.balance += 1
        return object()

    @call
    async def slow(self, ctx: Context, label: str) -> list[str]:
        Bank.open_turns += 1
        assert Bank.open_turns == 1
        self.state.notes.append(f"{label} begins")
        await ctx.step(give, label)
        await ctx.wait(ms=5)
        await asyncio.gather(ctx.step(give, 1), ctx.step(give, 2))
        self.state.notes.append(f"{label} ends")
        Bank.open_turns -= 1
        return list(self.state.notes)

    @call
    async def held(self, ctx: Context) -> str:
        await ctx.step(Bank.wait_at_gate)
        return "held"

    @staticmethod
    async def wait_at_gate() -> None:
        await Bank.gate.wait()

    @cast
    async def note(self, ctx: Context, text: str) -> None:
        self.state.notes.append(text)

    @info
    async def anything(self, ctx: Context, message: object) -> None:
        self.state.notes.append(repr(message))

    @call
    async def read(self, ctx: Context) -> Account:
        return self.state


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Bank.handled.clear()
    Bank.open_turns = 0


def test_state_is_typed_kept_and_answered_by_value(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            ref = engine.actor(Bank, "a")
            assert await ref.call(Bank.pay, Decimal("1.10")) == Decimal("1.10")
            assert await ref.call(Bank.pay, Decimal("2.20")) == Decimal("3.30")
            got = await ref.call(Bank.read)
            got.notes.append("mine")
            assert await ref.call(Bank.read) == Account(Decimal("3.30"))
            assert await engine.actor(Bank, "b").call(Bank.read) == Account()
        async with place.engine() as engine:
            assert await engine.actor(Bank, "a").call(Bank.read) == Account(Decimal("3.30"))

    run(scenario())


def test_messages_are_handled_one_at_a_time_in_order(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            ref = engine.actor(Bank, "a")
            answers = await asyncio.gather(*(ref.call(Bank.slow, f"m{number}") for number in range(4)))
            expected = [f"m{number} {what}" for number in range(4) for what in ("begins", "ends")]
            assert answers[-1] == expected
            assert [len(answer) for answer in answers] == [2, 4, 6, 8]

    run(scenario())


def test_call_cast_and_info_reach_their_handlers_in_order(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            ref = engine.actor(Bank, "a")
            await ref.cast(Bank.note, "one")
            await ref.info({"two": 2})
            await ref.cast(Bank.note, "three")
            assert (await ref.call(Bank.read)).notes == ["one", "{'two': 2}", "three"]

    run(scenario())


def test_a_cast_returns_before_it_is_handled_and_survives_the_engine(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            Bank.gate = asyncio.Event()
            ref = engine.actor(Bank, "a")
            held = asyncio.create_task(ref.call(Bank.held))
            await until(lambda: engine.running_count)
            await ref.cast(Bank.note, "kept")
            left = place.crashed()
            Bank.gate.set()
            assert await held == "held"
        async with left.engine() as engine:
            ref = engine.actor(Bank, "a")
            assert (await ref.call(Bank.read)).notes == ["kept"]

    run(scenario())


def test_a_handler_that_raises_leaves_the_state_as_it_was(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            ref = engine.actor(Bank, "a")
            await ref.call(Bank.pay, Decimal(5))
            await ref.cast(Bank.note, "kept")
            errors = []
            for _ in range(2):
                with pytest.raises(ActorError) as caught:
                    await ref.call(Bank.break_half_way, key="broken")
                errors.append((caught.value.error_type, caught.value.message))
            assert errors == [("ValueError", "declined")] * 2
            assert await ref.call(Bank.read) == Account(Decimal(5), ["kept"])
            assert await ref.call(Bank.pay, Decimal(1)) == Decimal(6)
        async with place.engine() as engine:
            assert await engine.actor(Bank, "a").call(Bank.read) == Account(Decimal(6), ["kept"])

    run(scenario())


@pytest.mark.parametrize("method", [Bank.spoil, Bank.leak], ids=["state", "reply"])
def test_a_state_or_reply_that_cannot_be_kept_fails_the_message_only(place: Place, method: Any) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            ref = engine.actor(Bank, "a")
            await ref.call(Bank.pay, Decimal(5))
            with pytest.raises(ActorError, match="object") as caught:
                await ref.call(method)
            assert caught.value.error_type == "SerializationError"
            assert await ref.call(Bank.read) == Account(Decimal(5))

    run(scenario())


def test_a_state_over_the_payload_limit_fails_the_message(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine(payload_bytes_max=1000) as engine:
            ref = engine.actor(Bank, "a")
            await ref.cast(Bank.note, "x" * 600)
            await ref.cast(Bank.note, "y" * 600)
            assert (await ref.call(Bank.read)).notes == ["x" * 600]
            with pytest.raises(LimitExceededError):
                await ref.cast(Bank.note, "z" * 1000)

    run(scenario())


def test_def_handlers_run_in_threads_one_at_a_time(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            ref = engine.actor(Bank, "a")
            answers = await asyncio.gather(*(ref.call(Bank.pay_in_a_thread, Decimal(1)) for _ in range(4)))
            assert sorted(answers) == [1, 2, 3, 4]
        async with place.engine() as engine:
            assert (await engine.actor(Bank, "a").call(Bank.read)).balance == 4
        assert set(Bank.handled) == {"semel-body"}

    run(scenario())


# Keys.


def test_a_key_has_one_request_and_one_reply(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine(workers=2) as engine:
            ref = engine.actor(Bank, "a")
            answers = await asyncio.gather(*(ref.call(Bank.pay, Decimal(1), key="k") for _ in range(50)))
            assert answers == [Decimal(1)] * 50
            assert await ref.call(Bank.pay, Decimal(1), key="k") == Decimal(1)
            assert await ref.call(Bank.pay, Decimal(1)) == Decimal(2)
        async with place.engine() as engine:
            ref = engine.actor(Bank, "a")
            assert await ref.call(Bank.pay, Decimal(1), key="k") == Decimal(1)
            for arguments in ((Decimal(2),), (Decimal("1.0"),)):
                with pytest.raises(IdempotencyConflictError, match="actor:actors-bank/a"):
                    await ref.call(Bank.pay, *arguments, key="k")
            with pytest.raises(IdempotencyConflictError):
                await ref.call(Bank.read, key="k")
            with pytest.raises(IdempotencyConflictError):
                await ref.cast(Bank.note, "x", key="k")
            assert await ref.call(Bank.read) == Account(Decimal(2))
            assert await engine.actor(Bank, "b").call(Bank.pay, Decimal(9), key="k") == Decimal(9)
        assert Bank.handled == ["pay 1", "pay 1", "pay 9"]

    run(scenario())


def test_a_duplicate_of_an_open_message_waits_for_the_same_reply(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            Bank.gate = asyncio.Event()
            ref = engine.actor(Bank, "a")
            first = asyncio.create_task(ref.call(Bank.held, key="k"))
            await until(lambda: engine.running_count)
            second = asyncio.create_task(ref.call(Bank.held, key="k"))
            await asyncio.sleep(0.02)
            assert not second.done()
            Bank.gate.set()
            assert [await first, await second] == ["held", "held"]
        async with place.engine() as engine:
            assert await engine.actor(Bank, "a").call(Bank.held, key="k") == "held"

    run(scenario())


def test_casts_and_infos_take_effect_once_under_a_key(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            ref = engine.actor(Bank, "a")
            for _ in range(3):
                await ref.cast(Bank.note, "once", key="c")
                await ref.info("told", key="i")
            assert (await ref.call(Bank.read)).notes == ["once", "'told'"]

    run(scenario())


@pytest.mark.parametrize("key", ["", "x" * 256, "café"])
def test_a_key_that_will_not_do_is_refused_and_nothing_is_sent(place: Place, key: str) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            ref = engine.actor(Bank, "a")
            with pytest.raises(ValidationError, match="printable ASCII"):
                await ref.call(Bank.pay, Decimal(1), key=key)
            with pytest.raises(ValidationError, match="printable ASCII"):
                engine.actor(Bank, key)
            with pytest.raises(SerializationError):
                await ref.cast(Bank.note, object())  # type: ignore[arg-type]
            assert await ref.call(Bank.read) == Account()

    run(scenario())


# What is not a message.


class Silent(GenServer[Account]):
    actor_type = "actors-silent"

    @call
    async def ask(self, ctx: Context) -> int:
        return 1

    async def unmarked(self, ctx: Context) -> int:
        return 1


def test_what_is_not_a_handler_of_that_kind_is_refused(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            bank, silent = engine.actor(Bank, "a"), engine.actor(Silent, "s")
            with pytest.raises(ValidationError, match=r"'pay' is marked @call, expected @cast; send it with .call()"):
                await bank.cast(Bank.pay, Decimal(1))
            with pytest.raises(ValidationError, match="'note' is marked @cast"):
                await bank.call(Bank.note, "x")
            with pytest.raises(UnknownHandlerError, match="mark the method"):
                await silent.call(Silent.unmarked)
            with pytest.raises(UnknownHandlerError, match="no handler marked @info"):
                await silent.info("x")
            with pytest.raises(UnknownHandlerError):
                engine.actor(Account, "x")  # type: ignore[type-var]
            with pytest.raises(NotFoundError):
                await engine.executions.get("a")
            assert (await engine.executions.list()).items == []

    run(scenario())


def test_wrong_arguments_fail_the_message_and_not_the_actor(place: Place) -> None:
    async def scenario() -> None:
        async with place.engine() as engine:
            ref = engine.actor(Bank, "a")
            with pytest.raises(ActorError) as caught:
                await ref.call(Bank.pay)  # type: ignore[arg-type, call-arg]
            assert caught.value.error_type == "TypeError"
            assert await ref.call(Bank.pay, Decimal(1)) == 1

    run(scenario())


# The first state.


class Plain(GenServer[dict[str, int]]):
    actor_type = "actors-plain"
    facets: ClassVar[list[Facet]] = [DurabilityFacet()]

    @call
    async def bump(self, ctx: Context) -> int:
        self.state["n"] = self.state.get("n", 0) + 1
        return self.state["n"]


class Custom(GenServer[int]):
    actor_type = "actors-custom"
    facets: ClassVar[list[Facet]] = [DurabilityFacet()]
    made: ClassVar[list[int]] = []

    async def init(self) -> int:
        Custom.made.append(1)
        return 40

    @call
    async def bump(self, ctx: Context) -> int:
        self.state += 1
        return self.state


class Stateless(GenServer[Any]):
    actor_type = "actors-broken"

    def init(self) -> Any:
        raise OSError("no state today")

    @call
    async def bump(self, ctx: Context) -> int:
        return 1


@dataclass
class Needy:
    amount: int


class NoInit(GenServer[Needy]):
    actor_type = "actors-needy"

    @call
    async def bump(self, ctx: Context) -> int:
        return 1


def test_the_first_state_is_that_of_init_or_the_bare_type(place: Place) -> None:
    Custom.made.clear()

    async def scenario() -> None:
        async with place.engine() as engine:
            assert [await engine.actor(Plain, "a").call(Plain.bump) for _ in range(2)] == [1, 2]
            assert [await engine.actor(Custom, "a").call(Custom.bump) for _ in range(2)] == [41, 42]
            with pytest.raises(ActorError, match="no state today"):
                await engine.actor(Stateless, "a").call(Stateless.bump)
            with pytest.raises(ActorError, match=r"Needy\(\) cannot make its first state"):
                await engine.actor(NoInit, "a").call(NoInit.bump)
        async with place.engine() as engine:
            assert await engine.actor(Plain, "a").call(Plain.bump) == 3
            assert await engine.actor(Custom, "a").call(Custom.bump) == 43
        assert Custom.made == [1]

    run(scenario())
