"""What `semel.check` says of an execution, and that it touches nothing."""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import semel
from semel import Checked, Context, SyncContext
from semel.errors import StoreError, ValidationError
from semel.kernel.registry import REGISTRY as VALUES
from semel.runtime.rehearsal import Verdict
from semel.store.memory import MemoryStore
from tests.runtime.places import Place, forget, redefine, until_it
from tests.versions import many
from tests.versions.harness import NAME, Prefix, check, go_on, prefixes_of, run

RAN: list[int] = []


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    RAN.clear()
    with caplog.at_level(logging.CRITICAL, "semel"):
        yield
    forget(NAME)


async def give(value: int) -> int:
    RAN.append(value)
    return value


def plain(value: int) -> int:
    RAN.append(value)
    return value


async def recorded(ctx: Context) -> list[int]:
    first = await ctx.step(give, 1)
    await ctx.wait(ms=100, name="night")
    second = await ctx.step(give, 2)
    await ctx.wait(ms=100, name="second night")
    return [first, second]


def prefix_of(function: Callable[..., Any], number: int) -> Prefix:
    return prefixes_of(function)[1][number - 1]


def last_prefix(function: Callable[..., Any]) -> Prefix:
    return prefixes_of(function)[1][-1]


# What the prefixes of `recorded` end with.
BEGAN, NIGHT_BEGAN, NIGHT_ENDED, SECOND_BEGAN, SECOND_ENDED = 1, 2, 3, 4, 5


def test_no_step_runs_and_nothing_is_written() -> None:
    prefix = last_prefix(recorded)
    RAN.clear()
    data = prefix.copy()
    before = copy.deepcopy((data.streams, data.rows, data.keys))
    redefine(NAME, recorded)
    (found,) = semel.check(MemoryStore(data))
    assert (found.verdict, found.function, found.name, RAN) == ("safe", NAME, "k", [])
    assert (data.streams, data.rows, data.keys) == before


async def note_id(callback_id: str) -> None:
    RAN.append(len(callback_id))


async def gives_its_callback_away(ctx: Context) -> Any:
    call = await ctx.create_callback(name="answer", timeout_ms=100)
    await ctx.step(note_id, call.id)
    return await ctx.wait_for_callback(note_id, timeout_ms=100)


def test_the_id_of_a_callback_is_that_of_the_journal() -> None:
    assert {check(prefix, gives_its_callback_away).verdict for prefix in prefixes_of(gives_its_callback_away)[1]} == {
        "safe"
    }


async def renamed(ctx: Context) -> list[int]:
    first = await ctx.step(give, 1)
    await ctx.wait(ms=100, name="night")
    return [first, await ctx.step(plain, 2)]


async def shorter(ctx: Context) -> list[int]:
    return [await ctx.step(give, 1)]


def test_a_divergence_has_its_place_and_both_sides() -> None:
    prefix = last_prefix(recorded)
    found = check(prefix, renamed)
    line = renamed.__code__.co_firstlineno + 3
    assert (found.verdict, found.operation, found.number) == ("diverges", "1_3", 3)
    assert found.source == f"versions/test_check.py:{line}"
    assert found.recorded == f"STEP 'give' at versions/test_check.py:{recorded.__code__.co_firstlineno + 3}"
    assert found.requested == f"STEP 'plain' at versions/test_check.py:{line}"


def test_a_divergence_without_a_place_in_this_code_has_that_of_the_journal() -> None:
    found = check(prefix_of(recorded, NIGHT_BEGAN), shorter)
    assert (found.verdict, found.operation, found.number) == ("diverges", "1_2", 2)
    assert found.source == f"versions/test_check.py:{recorded.__code__.co_firstlineno + 2}"
    assert (found.recorded.partition(" at ")[0], found.requested) == ("WAIT 'night'", "nothing, and ended")


def test_a_function_that_is_not_registered_is_unknown() -> None:
    prefix = last_prefix(recorded)
    forget(NAME)
    (found,) = semel.check(MemoryStore(prefix.copy()))
    assert (found.verdict, "not registered" in found.reason) == ("unknown", True)


@semel.value("versions.order")
@dataclass
class Order:
    n: int


async def takes(ctx: Context, order: Any) -> int:
    await ctx.wait(ms=100)
    return int(order.n)


async def makes(ctx: Context) -> int:
    async def make() -> Order:
        return Order(1)

    order = await ctx.step(make)
    await ctx.wait(ms=100)
    return order.n


def test_arguments_that_cannot_be_read_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = prefixes_of(takes, Order(1))[1][-1]
    assert check(prefix, takes).verdict == "safe"
    monkeypatch.delitem(VALUES._by_name, "versions.order")
    found = check(prefix, takes)
    assert (found.verdict, "its arguments cannot be read" in found.reason) == ("unknown", True)


def test_a_result_that_cannot_be_read_diverges_as_it_would_park(monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = last_prefix(makes)
    monkeypatch.delitem(VALUES._by_name, "versions.order")
    found = check(prefix, makes)
    assert (found.verdict, found.operation, "a value it can read" in found.requested) == ("diverges", "1_1", True)
    assert go_on(prefix, makes).startswith("parked: ")


async def raises(ctx: Context) -> list[int]:
    first = await ctx.step(give, 1)
    await ctx.wait(ms=100, name="night")
    raise KeyError(first)


async def fails_as_recorded(ctx: Context) -> int:
    async def refuse() -> int:
        raise ValueError("no")

    return await ctx.step(refuse, retry=semel.Retry(attempts=1))


async def returns_the_unkeepable(ctx: Context) -> Any:
    first = await ctx.step(give, 1)
    await ctx.wait(ms=100, name="night")
    return [first, threading.Lock()]


async def cancels_itself(ctx: Context) -> Any:
    await ctx.step(give, 1)
    await ctx.wait(ms=100, name="night")
    raise asyncio.CancelledError


async def waits_for_nothing(ctx: Context) -> Any:
    await ctx.step(give, 1)
    await ctx.wait(ms=100, name="night")
    await asyncio.Event().wait()


async def never_rests(ctx: Context) -> Any:
    while True:
        await asyncio.sleep(0)


async def computes_for_ever(ctx: Context) -> Any:
    await ctx.step(give, 1)
    while True:
        pass


async def other_arguments(ctx: Context) -> Any:
    first = await ctx.step(give, 10)
    await ctx.wait(ms=100, name="night")
    return [first, await ctx.step(give, 2)]


UNKNOWN = [
    (raises, "it raises KeyError: 1, after the recorded outcomes"),
    (returns_the_unkeepable, "what it returns cannot be kept"),
    (cancels_itself, "CancelledError"),
    (waits_for_nothing, "it waits for something that no operation will bring"),
    (never_rests, "did not come to rest"),
    (other_arguments, "was recorded with another function or other arguments"),
]


@pytest.mark.parametrize(("after", "said"), UNKNOWN, ids=lambda value: getattr(value, "__name__", ""))
def test_what_replay_cannot_tell_is_unknown(after: Callable[..., Any], said: str) -> None:
    found = check(prefix_of(recorded, BEGAN if after is never_rests else NIGHT_ENDED), after)
    assert found.verdict == "unknown"
    assert said in found.reason
    if after in (raises, other_arguments):
        assert found.source.startswith("versions/test_check.py:")


def test_a_recorded_failure_that_the_code_lets_out_is_safe() -> None:
    assert check(last_prefix(fails_as_recorded), fails_as_recorded).verdict == "safe"


def test_code_that_computes_for_ever_is_left_and_has_its_line() -> None:
    prefix = last_prefix(recorded)
    redefine(NAME, computes_for_ever)
    started = time.monotonic()
    (found,) = semel.check(MemoryStore(prefix.copy()), seconds_max=0.2)
    assert (found.verdict, found.reason) == ("unknown", "it did not come to rest in 0.2 s")
    line = computes_for_ever.__code__.co_firstlineno
    assert found.source in {f"versions/test_check.py:{line + 2}", f"versions/test_check.py:{line + 3}"}
    assert time.monotonic() - started < 5


def sync_recorded(ctx: SyncContext) -> int:
    first = ctx.step(plain, 1)
    ctx.wait(ms=100, name="night")
    return first


def sync_stuck(ctx: SyncContext) -> int:
    ctx.step(plain, 1)
    STUCK.wait(5)
    return 1


STUCK = threading.Event()


def test_a_def_function_is_rehearsed_in_a_thread_and_left_when_it_blocks() -> None:
    prefix = prefix_of(sync_recorded, NIGHT_BEGAN)
    RAN.clear()
    assert (check(prefix, sync_recorded).verdict, RAN) == ("safe", [])
    STUCK.clear()
    redefine(NAME, sync_stuck)
    try:
        (found,) = semel.check(MemoryStore(prefix.copy()), seconds_max=0.2)
    finally:
        STUCK.set()
    assert (found.verdict, found.reason) == ("unknown", "its thread asked for nothing for 0.2 s")


async def same_names(ctx: Context) -> list[int]:
    first = await ctx.step(lambda: 1)
    await ctx.wait(ms=100)
    return [first, await ctx.step(lambda: 2)]


async def same_names_swapped(ctx: Context) -> list[int]:
    second = await ctx.step(lambda: 2)
    await ctx.wait(ms=100)
    return [await ctx.step(lambda: 1), second]


def test_what_no_replay_can_see() -> None:
    """Two steps of one name that take nothing are the same to the journal. docs/versions.md says so."""
    prefix = last_prefix(same_names)
    assert check(prefix, same_names_swapped).verdict == "safe"
    assert run(MemoryStore(), same_names) == run(MemoryStore(), same_names_swapped) == "returned [1, 2]"
    assert go_on(prefix, same_names_swapped) == "returned [1, 1]"


# Which executions are looked at.


def test_every_open_execution_is_checked_and_no_other(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semel.deploy.PAGE", 3)

    async def ends(ctx: Context) -> int:
        return await ctx.step(give, 1)

    async def waits(ctx: Context) -> int:
        await ctx.wait(hours=1)
        return 1

    async def parks(ctx: Context) -> int:
        await asyncio.Event().wait()
        return 1

    async def scenario() -> None:
        async with place.engine(namespace="other") as engine:
            await engine.start(redefine(NAME, waits), key="elsewhere")
        async with place.engine() as engine:
            for n in range(7):
                await engine.start(redefine(NAME, waits), key=f"open-{n}")
            await engine.run(redefine("versions.ends", ends), key="ended")
            parked = await engine.start(redefine("versions.parks", parks), key="parked")

            async def is_parked() -> bool:
                return (await engine.executions.get(parked.id)).status == "PARKED"

            await until_it(is_parked)
            paused = await engine.start(redefine(NAME, waits), key="paused")
            await engine.executions.pause(paused.id)
            found = {one.name: one.verdict for one in looked_at(place)}
            assert found == {f"open-{n}": "safe" for n in range(7)} | {"parked": "unknown", "paused": "safe"}
            assert await engine.run(redefine("versions.ends", ends), key="more") == 1, "it goes on beside the check"
            assert [one.name for one in looked_at(place, namespace="other")] == ["elsewhere"]

    asyncio.run(scenario())
    for name in ("versions.ends", "versions.parks"):
        forget(name)


def looked_at(place: Place, *, namespace: str = "default") -> list[Checked]:
    store: Any = f"sqlite:///{place.path}" if place.name == "sqlite" else MemoryStore(place._data)
    return semel.check(store, namespace=namespace)


def test_one_that_ends_while_it_is_looked_at_is_safe() -> None:
    store = MemoryStore()
    run(store, recorded)
    (stream,) = store.data.streams.values()

    class Late(MemoryStore):
        def list(self, which: Any) -> Any:
            return [stream] if which.before is None and "RUNNING" in which.statuses else []

    assert [one.verdict for one in semel.check(Late(store.data))] == ["safe"]
    del store.data.rows[stream.number]
    assert [one.verdict for one in semel.check(Late(store.data))] == ["safe"]


@pytest.mark.parametrize("store", ["", "memory://", "sqlite:///", "other.db"])
def test_a_store_that_is_no_file_is_refused(store: str) -> None:
    with pytest.raises(ValidationError, match="sqlite:///relative"):
        semel.check(store)


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("not a journal, and long enough to be looked at as a header of one" * 20)
    with pytest.raises(StoreError):
        semel.check(f"sqlite:///{tmp_path / 'x.db'}")


@pytest.mark.parametrize("count", [pytest.param(500), pytest.param(10_000, marks=[pytest.mark.soak])])
@pytest.mark.timeout(300)
def test_10_000_open_executions_take_less_than_a_minute(count: int, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'many.db'}"
    asyncio.run(many.fill(store, count, (many.order, many.order, many.other, many.sync_order)))
    started, computed = time.monotonic(), time.process_time()
    found = semel.check(store)
    took_s, computed_s = time.monotonic() - started, time.process_time() - computed
    print(f"\n{count} open executions checked in {took_s:.1f} s, {computed_s:.1f} s of one core")
    assert {one.verdict for one in found} == {Verdict.SAFE}
    assert len(found) == count
    assert computed_s < 60 * count / 10_000  # whatever else the machine does meanwhile
