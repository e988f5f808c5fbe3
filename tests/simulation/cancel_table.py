"""A cell of the table as a test: the undisturbed run entry by entry, then one run for every crash."""

import ast
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from semel.kernel.entry import ARRIVING, Delivered, Kind, Settled, Started, Status
from semel.store import codec
from semel.testing import Close, Crash, Plan, Shape, Takeover
from semel.testing.explore import MOMENTS as MOMENTS_OF_A_CRASH
from semel.testing.explore import Opener, StoreName
from semel.testing.trail import Place, Trail
from semel.testing.world import World, silence
from tests.simulation.cancel_shapes import CANCELLED_MS, CAUSES, LASTS_MS, MOMENTS, ROWS, STOPPED_MS, C, U, cell_shape

ONLY_CODE = "a stop is no exception in the code: it has no moment between the asking and the rest"
NO_SLICE = "its code runs until the first rest, so that the operation has been asked for"
INTERRUPTED = "StepInterruptedError"
KINDS = {"wait": Kind.WAIT, "asyncio.sleep": Kind.WAIT, "callback": Kind.CALLBACK, "invoke": Kind.CHAINED_INVOKE}


class Cell(NamedTuple):
    row: str
    moment: str
    cause: str

    def __str__(self) -> str:
        return " × ".join(self)


def missing(row: str, moment: str, cause: str) -> str:
    """Why a cell does not exist; empty for one that does."""
    if moment in ROWS[row].never:
        return ROWS[row].never[moment]
    if cause == "stop" and moment not in STOPPED_MS:
        return ONLY_CODE
    if moment == "unasked" and cause not in ("task.cancel", "stop"):
        return NO_SLICE
    return ""


EVERY = [Cell(row, moment, cause) for row in ROWS for moment in MOMENTS for cause in CAUSES]
CELLS = [cell for cell in EVERY if not missing(*cell)]
MISSING = {cell: why for cell in EVERY if (why := missing(*cell))}


class Seen(NamedTuple):
    """What one run of a cell left."""

    outcome: str
    problems: list[str]
    writes: int
    trail: Trail | None

    @property
    def told(self) -> list[str]:
        found: list[str] = ast.literal_eval(self.outcome.removeprefix("returned "))
        return found


def entries_of(trail: Trail) -> list[tuple[Any, int]]:
    found: list[tuple[Any, int]] = []
    for row in trail.rows:
        append = codec.decode(row.body, stream=row.stream, seq=row.seq)
        found.extend((entry, append.time_ms + entry.offset_ms) for entry in append.entries)
    return found


def is_target(cell: Cell, entry: Started, at_ms: int) -> bool:
    if cell.row == "asyncio.sleep":
        lasts_ms = CANCELLED_MS if cell.moment == "settled" else LASTS_MS
        return entry.name == "timer" and entry.due_ms in (None, at_ms + lasts_ms) and not is_trigger(cell, entry, at_ms)
    return entry.name == "target" and not entry.parent


def is_trigger(cell: Cell, entry: Started, at_ms: int) -> bool:
    """Whether the operation's end is what cancels the target."""
    is_limit = cell.cause == "timeout" and cell.moment in ("in flight", "in back-off") and entry.name == "timer"
    return entry.name == "trigger" or (is_limit and entry.due_ms == at_ms + CANCELLED_MS)


def spell(entry: Any) -> str:
    if isinstance(entry, Settled):
        return f"{entry.status}{' requested' if entry.requested else ''}"
    return type(entry).__name__


def of_target(cell: Cell, trail: Trail) -> tuple[list[str], Place | None]:
    """The entries of the operation, and what they make."""
    found: list[str] = []
    name = ""
    for entry, at_ms in entries_of(trail):
        if isinstance(entry, Started) and not name and is_target(cell, entry, at_ms):
            name = entry.operation
        if name and getattr(entry, "operation", "") == name:
            found.append(spell(entry))
    return found, trail.places.get(name)


def was_cancelled(cell: Cell, trail: Trail) -> bool:
    """Whether the journal says that what cancels came before now."""
    triggers: dict[str, Started] = {}
    for entry, at_ms in entries_of(trail):
        if isinstance(entry, Started) and is_trigger(cell, entry, at_ms):
            triggers[entry.operation] = entry
        if not isinstance(entry, Settled | Delivered) or entry.operation not in triggers:
            continue
        if isinstance(entry, Delivered) or triggers[entry.operation].kind not in ARRIVING:
            return True
    return False


def run_cell(cell: Cell, place: Any, plan: Plan = (), shape: Shape | None = None) -> Seen:
    """One run, checked by what holds in every run."""
    world = World(shape or cell_shape(*cell), place, plan=plan)
    problems: list[str] = []
    world.audit.effect = watch(cell, world, problems)  # type: ignore[method-assign]
    run = world.run()
    problems += [str(violation) for violation in run.violations]
    trails = [trail for trail in world.audit.trails.values() if trail.stream.name.startswith("table.")]
    trail = next((trail for trail in trails if trail.stream.key == "k"), None)
    seen = Seen(run.outcome, problems, run.writes[0], trail)
    if trail is not None:
        problems += stop_problems(cell, seen, trail) if cell.cause == "stop" else cancel_problems(cell, seen, trail)
    return seen


def watch(cell: Cell, world: World, problems: list[str]) -> Callable[..., int]:
    """R2: what was cancelled is never begun again, also after a crash."""
    effect = world.audit.effect

    def watched(name: str, key: str, **fields: Any) -> int:
        # A callback may be answered, and delivered, before the code comes to wait for it: it cancels nothing then.
        is_by_callback = cell.row in ("callback", "wait_for_callback") and cell.moment in ("settled", "unseen")
        if name == "work" and cell.cause != "stop" and not is_by_callback:
            trails = [trail for trail in world.audit.trails.values() if trail.stream.name == "table.cancelled"]
            if cell.moment in ("unasked", "asked") or any(was_cancelled(cell, trail) for trail in trails):
                problems.append(f"R2: its step began in life {fields['life']}, after it was cancelled")
        return effect(name, key, **fields)

    return watched


def stop_problems(cell: Cell, seen: Seen, trail: Trail) -> list[str]:
    """J7: a stop is not told to the code, and what is open stays as it stands."""
    found, _ = of_target(cell, trail)
    problems = []
    if not seen.outcome.startswith("raised ExecutionStoppedError"):
        problems.append(f"it {seen.outcome}, expected a stop")
    if any("CANCELLED" in entry for entry in found):
        problems.append(f"the stop cancelled it: {found}")
    return problems


def cancel_problems(cell: Cell, seen: Seen, trail: Trail) -> list[str]:
    """R2: it settled once, with what its awaiter saw."""
    if not seen.outcome.startswith("returned "):
        return [f"it {seen.outcome}, expected what the awaiter saw"]
    saw = seen.told[0]
    found, place = of_target(cell, trail)
    if place is None:
        never_asked = cell.moment == "unasked" or len(seen.told) == 1  # a fault let the cancelling come first
        return [] if never_asked else ["the operation is not in the journal"]
    if any(other.name == "submit" and other.outcome == Status.CANCELLED for other in trail.places.values()):
        return []  # a fault let the cancelling come while its callback's id was being given away
    if place.state != "settled":
        return [f"it did not settle: {found}"]
    if saw == C:
        is_true = place.outcome == Status.CANCELLED or (place.kind in ARRIVING and not place.is_delivered)
    else:
        is_true = place.outcome == (Status.SUCCEEDED if saw.startswith("returned") else Status.FAILED)
        is_true = is_true and (place.kind not in ARRIVING or place.is_delivered)
    return [] if is_true else [f"its awaiter saw {saw!r}, and it is {found}"]


def expected_entries(cell: Cell) -> list[str]:
    """Every entry of the operation in the undisturbed run."""
    if cell.moment == "unasked":
        return []
    sees = ROWS[cell.row].sees[cell.moment]
    is_step = cell.row.startswith(("step", "wait_for_condition"))
    found = ["Started"]
    if is_step and cell.moment == "in back-off":
        found.append("RetryScheduled")
    if sees == C:
        # A body that was told and obeyed has an outcome like any other, and it is delivered.
        is_told = is_step and cell.moment == "in flight" and "abandon" not in cell.row
        return [*found, "CANCELLED" if is_told else "CANCELLED requested"]
    if sees == U:
        return [*found, "SUCCEEDED"]
    return [*found, "FAILED" if sees.startswith("raised") else "SUCCEEDED"]


def undisturbed_problems(cell: Cell, seen: Seen) -> list[str]:
    """Exactly what the table says."""
    assert seen.trail is not None
    found, place = of_target(cell, seen.trail)
    if cell.cause == "stop":
        if cell.moment == "unasked":
            return [] if place is None else [f"it was asked for: {found}"]
        is_open = cell.moment in ("in flight", "in back-off")
        if is_open and place is not None and place.state == "settled":
            return [f"it was to be open when the execution was stopped: {found}"]
        return []
    problems = []
    sees = ROWS[cell.row].sees[cell.moment]
    if seen.told[0] != (C if sees == U else sees):
        problems.append(f"its awaiter saw {seen.told[0]!r}, expected {sees!r}")
    wanted = expected_entries(cell)
    if found != wanted:
        problems.append(f"its entries are {found}, expected {wanted}")
    if place is not None and place.kind is Kind.CONTEXT:
        inside = [other for other in seen.trail.places.values() if other.parent == place.id]
        for other in inside:
            is_awaited = other.kind is not Kind.CALLBACK or cell.moment not in ("queued", "in back-off")
            if other.state != "settled" and is_awaited:  # what nobody waits for freezes as it stands (J7)
                problems.append(f"{other.kind} {other.name!r} inside is {other.state}")
    return problems


def explore_cell(
    cell: Cell,
    *,
    store: StoreName = "memory",
    is_evicted: bool = False,
    plans: Callable[[int], Iterator[Plan]] | None = None,
    share: float = 1.0,
    seed: int = 0,
) -> tuple[int, list[str]]:
    """The undisturbed run, then one for every crash. Returns how many runs there were, and what they broke.

    `share` is the part of the plans that is run, chosen by `seed`.
    """
    plans = crashes if plans is None else plans
    luck = random.Random(f"{cell} {seed}")
    opener, shape = Opener(store), cell_shape(*cell, is_evicted=is_evicted)
    with silence():
        alone = run_cell(cell, opener.open(0), shape=shape)
        problems = [f"{cell}: {problem}" for problem in alone.problems]
        if alone.trail is not None and not problems:
            problems += [f"{cell}: {problem}" for problem in undisturbed_problems(cell, alone)]
        runs = 1
        for plan in plans(alone.writes):
            if share >= 1 or luck.random() < share:
                seen = run_cell(cell, opener.open(0), plan, shape)
                runs += 1
                problems += [f"{cell}, {plan}: {problem}" for problem in seen.problems]
    return runs, problems


def crashes(writes: int) -> Iterator[Plan]:
    """Every single crash."""
    for write in range(1, writes + 1):
        yield from (((Crash(write, moment),),) for moment in MOMENTS_OF_A_CRASH)


def departures(writes: int) -> Iterator[Plan]:
    """The engine is closed, or another takes the execution over, at every moment."""
    for write in range(1, writes + 1):
        yield ((Close(write),),)
        yield from (((Takeover(write, moment, "second engine"),),) for moment in MOMENTS_OF_A_CRASH)
        yield ((Takeover(write, "after", "theft"),),)


COLUMNS = {
    "asked or queued": "queued",
    "in flight": "in flight",
    "in back-off": "in back-off",
    "outcome there": "settled",
}


def page_table() -> list[str]:
    """The table as docs/cancellation.md has it."""
    lines = [f"| operation | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    for name, row in ROWS.items():
        cells = [_spell_cell(row.sees.get(moment)) for moment in COLUMNS.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _spell_cell(sees: str | None) -> str:
    if sees is None:
        return "–"
    if sees == C:
        return "cancelled"
    if sees == U:
        return "outcome stands, not delivered"
    how, _, what = sees.partition(" ")
    return f"{how} `{what}`"
