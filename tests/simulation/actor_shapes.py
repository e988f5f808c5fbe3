"""Actors of every shape that a crash might hurt."""

import asyncio
from typing import Any

import semel
from semel import Context, DurabilityFacet, GenServer, Limits, Retry, SyncContext, call, cast, info
from semel.errors import ActorError
from semel.testing import Client, Message, Model, Shape, effect

KEY = semel.EFFECT_KEY
State = dict[str, Any]


async def bank(amount: int, effect_key: str = KEY) -> int:
    effect("bank", effect_key, amount)
    await asyncio.sleep(0.02)
    return amount


async def number(effect_key: str = KEY) -> int:
    return effect("number", effect_key)


async def use(n: int, effect_key: str = KEY) -> bool:
    effect("use number", effect_key, n)
    return n >= 0


@semel.step(effect="at_most_once")
async def once(amount: int, effect_key: str = KEY) -> int:
    effect("bank once", effect_key, amount)
    await asyncio.sleep(0.02)
    return amount


@semel.step(retry=Retry(attempts=2, first_delay_ms=300, jitter="none"))
async def down(effect_key: str = KEY) -> int:
    effect("down", effect_key)
    raise OSError("down")


class Account(GenServer[State]):
    """The handlers. Its subclasses say how durable their state is."""

    def init(self) -> State:
        return {"total": 0, "seen": []}

    def _add(self, name: str, amount: int) -> int:
        self.state["total"] += amount
        self.state["seen"].append(name)
        return int(self.state["total"])

    @call
    async def deposit(self, ctx: Context, amount: int) -> int:
        return self._add("deposit", amount)

    @call
    async def pay(self, ctx: Context, amount: int) -> int:
        await ctx.step(bank, amount)
        self._add("pay", amount)
        await ctx.step(bank, 1)
        return int(self.state["total"])

    @call
    def pay_plainly(self, ctx: SyncContext, amount: int) -> int:
        ctx.step(bank, amount)
        self._add("pay_plainly", amount)
        ctx.wait(ms=100)
        return self.state["total"] + ctx.step(bank, 1)

    @call
    async def later(self, ctx: Context, amount: int) -> int:
        await ctx.wait(seconds=1)
        await asyncio.gather(ctx.step(bank, amount), ctx.wait(ms=50))
        return self._add("later", amount)

    @call
    async def refuse(self, ctx: Context, amount: int) -> int:
        self._add("refuse", amount)
        await ctx.step(bank, amount)
        raise ValueError(f"no {amount}")

    @call
    async def try_down(self, ctx: Context) -> int:
        try:
            await ctx.step(down)
        except semel.errors.StepError:
            return self._add("down", 1)
        return 0

    @call
    async def drawn(self, ctx: Context) -> bool:
        """What a step returned must be durable before another step begins with it, and the state agrees."""
        found = await ctx.step(number)
        self._add("drawn", 1)
        return await ctx.step(use, found)

    @call
    async def swallow(self, ctx: Context) -> str:
        try:
            await ctx.step(bank, 2)
            await ctx.wait(seconds=1)
            await ctx.step(bank_slowly, 2)
        except BaseException:  # the shape: a closed seam has no outcome, whatever is returned
            return "gave up"
        self._add("swallow", 1)
        return "went through"

    @cast
    async def note(self, ctx: Context, text: str) -> None:
        self._add(f"note {text}", 0)

    @cast
    async def note_banked(self, ctx: Context, text: str) -> None:
        await ctx.step(bank, 3)
        self._add(f"note {text}", 0)

    @info
    async def anything(self, ctx: Context, message: object) -> None:
        self._add(f"info {message}", 0)


async def bank_slowly(amount: int, effect_key: str = KEY) -> int:
    effect("bank slowly", effect_key, amount)
    await asyncio.sleep(8)  # longer than an engine that closes waits for it
    return amount


class Durable(Account):
    actor_type = "sim.Durable"
    facets = [DurabilityFacet(checkpoint_interval=1)]


class EveryThird(Account):
    actor_type = "sim.EveryThird"
    facets = [DurabilityFacet(checkpoint_interval=3)]


class Forgetful(Account):
    actor_type = "sim.Forgetful"


def apply(state: State, method: str, arguments: tuple[Any, ...]) -> State:
    """What a turn that succeeded makes of the state."""
    match method, arguments:
        case "try_down", _:
            name, amount = "down", 1
        case (("drawn" | "swallow"), _):
            name, amount = method, 1
        case (("note" | "note_banked"), (text,)):
            name, amount = f"note {text}", 0
        case "anything", (message,):
            name, amount = f"info {message}", 0
        case _, (amount,):
            name = method
    state["total"] += amount
    state["seen"].append(name)
    return state


MODEL = Model(lambda: {"total": 0, "seen": []}, apply)
MODELS = {"sim.Durable": MODEL, "sim.EveryThird": MODEL}


def calls(actor: type[Account]) -> Any:
    async def scenario(client: Client) -> Any:
        return [await client.call(actor, "a", Account.deposit, n, key=f"k{n}") for n in (1, 2, 3, 4)]

    return scenario


def calls_at_once(actor: type[Account]) -> Any:
    async def scenario(client: Client) -> Any:
        found = await asyncio.gather(
            *(client.call(actor, "a", Account.deposit, n % 4, key=f"k{n % 4}") for n in range(8))
        )
        assert found[:4] == found[4:]
        last = await client.call(actor, "a", Account.deposit, 0, key="last")
        return last if actor is not Forgetful else "whatever"

    return scenario


def casts(actor: type[Account]) -> Any:
    async def scenario(client: Client) -> Any:
        for text in ("x", "y"):
            await client.cast(actor, "a", Account.note, text, key=text)
        await client.cast(actor, "a", Account.note_banked, "z")
        await client.info(actor, "a", {"any": "value"}, key="info")
        await client.info(actor, "b", 7)
        return await client.call(actor, "a", Account.deposit, 5, key="k")

    return scenario


def turns(*methods: str) -> Any:
    """Calls that take steps, one after another, and one of them again."""

    def of(actor: type[Account]) -> Any:
        async def scenario(client: Client) -> Any:
            found: list[Any] = []
            for place, method in enumerate((*methods, methods[0])):
                handler = getattr(Account, method)
                arguments = () if method in ("try_down", "drawn", "swallow") else (place % len(methods) + 1,)
                try:
                    found.append(await client.call(actor, "a", handler, *arguments, key=f"k{place % len(methods)}"))
                except ActorError as error:
                    found.append(str(error))
            return found

        return scenario

    return of


def beside(actor: type[Account]) -> Any:
    """A turn that waits, with messages behind it, and another actor beside it."""

    async def scenario(client: Client) -> Any:
        found = await asyncio.gather(
            client.call(actor, "a", Account.later, 5, key="later"),
            client.call(actor, "b", Account.pay, 6, key="pay"),
        )
        await client.cast(actor, "a", Account.note, "behind", key="behind")
        return found

    return scenario


def without_state(scenario: Any) -> Any:
    """Replies of an actor without durable state depend on when it was last in memory."""

    def of(actor: type[Account]) -> Any:
        inner = scenario(actor)

        async def ask(client: Client) -> Any:
            await inner(client)
            return "whatever"

        return ask if actor is Forgetful else inner

    return of


@semel.durable_function(name="sim.beside_actor")
async def beside_actor(ctx: Context) -> int:
    await ctx.wait(ms=100)
    return await ctx.step(bank, 1)


async def both_models(client: Client) -> Any:
    return await asyncio.gather(
        client.run(beside_actor, key="f"),
        client.call(Durable, "a", Account.pay, 1, key="k"),
        client.call(EveryThird, "a", Account.deposit, 2, key="k"),
    )


SCENARIOS = {
    "calls": without_state(calls),
    "calls at once": calls_at_once,
    "casts": without_state(casts),
    "steps in turns": without_state(turns("pay", "deposit")),
    "plain turns": without_state(turns("pay_plainly", "deposit")),
    "a turn that waits": without_state(turns("later", "deposit")),
    "a handler that raises": without_state(turns("refuse", "deposit")),
    "a turn that retries": without_state(turns("try_down", "deposit")),
    "numbers": without_state(turns("drawn", "deposit")),
    "swallowing": without_state(turns("swallow", "deposit")),
    "beside": without_state(beside),
}
ACTORS = {"every turn": Durable, "every third": EveryThird, "no facet": Forgetful}
IN_MEMORY = Limits(passivate_ms=3_000)
LEAVING = Limits(passivate_ms=3_000, residents_max=0)


def actor_shapes() -> list[Shape]:
    shapes = []
    for name, scenario in SCENARIOS.items():
        for durability, actor in ACTORS.items():
            message = Message(actor, "a", "note", ("arrival",))
            for variant, limits in (("", IN_MEMORY), (", evicted", LEAVING)):
                shapes.append(
                    Shape(
                        name=f"{name}, {durability}{variant}",
                        scenario=scenario(actor),
                        limits=limits,
                        models=MODELS,
                        message=message,
                        linger_s=5,
                    )
                )
    shapes.extend(
        Shape(
            name=f"both models, {workers} workers",
            scenario=both_models,
            limits=IN_MEMORY,
            workers=workers,
            models=MODELS,
            message=Message(Durable, "a", "note", ("arrival",)),
            linger_s=5,
        )
        for workers in (1, 2)
    )
    return shapes
