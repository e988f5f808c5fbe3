"""Every shape, at every moment: World finds nothing."""

from collections.abc import Callable

import pytest

from semel.testing import Report, explore
from tests.simulation.corpus import LARGE, SHAPES, explore_shape, found_seeds

Explored = Callable[[str, str], Report]


def complain(report: Report) -> str:
    return "\n".join([str(report), *(str(found) for found in report.found[:3])])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_survives_every_moment(name: str, store: str, explored: Explored) -> None:
    report = explored(name, store)
    assert report.runs["crash"] == 2 * report.writes > 0
    assert not report.found, complain(report)


@pytest.mark.parametrize(("name", "seed"), found_seeds())
def test_a_seed_that_found_something_finds_nothing_more(name: str, seed: int) -> None:
    report = explore(SHAPES[name], kinds=("random",), seed=seed)
    assert not report.found, complain(report)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_survives_every_pair_of_crashes_on_sqlite(name: str) -> None:
    report = explore(SHAPES[name], store="sqlite", kinds=("crash", "pair"))
    assert not report.found, complain(report)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("name", [shape.name for shape in LARGE])
def test_a_large_shape_survives_every_plan_in_memory(name: str) -> None:
    report = explore(SHAPES[name])
    assert not report.found, complain(report)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_survives_what_many_seeds_bring(name: str) -> None:
    for seed in range(1, 101):
        report = explore(SHAPES[name], kinds=("random",), seed=seed)
        assert not report.found, complain(report)


def test_the_explorations_of_the_tests_have_every_kind_of_run() -> None:
    report = explore_shape("calls, every turn", "memory")
    assert {"record", "crash", "pair", "expiry", "close", "arrival", "takeover", "jump", "random"} == set(report.runs)
