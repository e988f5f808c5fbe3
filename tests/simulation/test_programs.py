"""Any mix of asyncio's constructs and of operations replays to the same operations and the same winner."""

from collections.abc import Callable

import pytest

from tests.simulation.program_body import PARTS
from tests.simulation.program_runs import ORDERS, Tally, difference, races
from tests.simulation.programs import CONSTRUCTS, LEAVES, program

Programs = Callable[[range], Tally]


def check(tally: Tally, programs: int) -> None:
    assert tally.found == [], "\n".join(tally.found[:3])
    assert tally.programs == programs
    assert tally.orders == programs * ORDERS
    assert tally.crashes == 2 * tally.writes > 20 * tally.orders
    assert tally.replays > tally.crashes


@pytest.mark.timeout(900)
def test_a_hundred_random_programs_in_five_orders_survive_every_crash(programs: Programs) -> None:
    tally = programs(range(100))
    check(tally, 100)
    assert {name: count for name in [*CONSTRUCTS, *LEAVES] if (count := tally.constructs[name]) < 20} == {}
    assert tally.decided >= 100


@pytest.mark.soak
@pytest.mark.timeout(7_200)
def test_two_thousand_random_programs_in_five_orders_survive_every_crash(programs: Programs) -> None:
    check(programs(range(2_000)), 2_000)


def test_a_program_is_the_same_each_time_and_has_only_known_parts() -> None:
    first = program(7)
    program.cache_clear()
    assert program(7) == first != program(8)
    ids = [node.id for node in first.walk()]
    assert len(set(ids)) == len(ids)
    assert set(PARTS) == {*CONSTRUCTS, *LEAVES, "in turn"}


def test_the_winners_of_a_race_are_read_from_a_record() -> None:
    record = ["3 step", "4 race [1, 2]", "4 race 7", "4 raced", "5 cancelled"]
    assert list(races(record)) == [("4.1", "[1, 2]"), ("4.2", "7")]
    assert difference(["a", "b"], ["a", "c"]) == "'c' at event 1, expected 'b'"
    assert difference(["a", "b"], ["a"]) == "1 events, expected 2"
