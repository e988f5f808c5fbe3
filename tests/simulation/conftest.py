"""Explorations run ahead in two processes, and are counted at the end of the tests."""

import gc
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import pytest

from semel.testing import Report
from tests.simulation.corpus import explore_shape
from tests.simulation.program_runs import Tally, explore_programs

PROCESSES = 2
CHUNK = 5  # programs at a time
TALLY = pytest.StashKey[list[Report]]()
PROGRAMS = pytest.StashKey[list[Tally]]()


def silence() -> None:
    """A dead engine says so, thousands of times."""
    logging.getLogger("semel").setLevel(logging.CRITICAL + 1)


def settle_in() -> None:
    """In a process that only explores: worlds are garbage by the thousand, and not worth looking for one by one."""
    silence()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("semel")
    level = logger.level
    silence()
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def explored(request: pytest.FixtureRequest) -> Iterator[Callable[[str, str], Report]]:
    """The exploration of a shape on a store. All that the selected tests will ask for are begun at once."""
    wanted = [
        (item.callspec.params["name"], item.callspec.params["store"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and "explored" in item.fixturenames and hasattr(item, "callspec")
    ]
    tally = request.config.stash.setdefault(TALLY, [])
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=settle_in) as pool:
        futures: dict[tuple[str, str], Future[Report]] = {
            pair: pool.submit(explore_shape, *pair) for pair in dict.fromkeys(wanted)
        }

        def ask(name: str, store: str) -> Report:
            report = futures[name, store].result()
            tally.append(report)
            return report

        yield ask
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def programs(request: pytest.FixtureRequest) -> Callable[[range], Tally]:
    """What came of the random programs of these numbers, in as many processes as there are."""

    def ask(numbers: range) -> Tally:
        total = Tally(found=[])
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=silence) as pool:
            chunks = [numbers[first : first + CHUNK] for first in range(0, len(numbers), CHUNK)]
            for tally in pool.map(explore_programs, chunks):
                total.add(tally)
        request.config.stash.setdefault(PROGRAMS, []).append(total)
        return total

    return ask


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for tally in config.stash.get(PROGRAMS, []):
        terminalreporter.write_line(f"random programs: {tally}")
    reports = config.stash.get(TALLY, [])
    if not reports:
        return
    runs: Counter[str] = Counter()
    fired: Counter[str] = Counter()
    for report in reports:
        runs.update({f"{kind} runs in {report.store}": count for kind, count in report.runs.items()})
        fired.update(report.fired)
    shapes = len({report.shape for report in reports})
    found = sum(len(report.found) for report in reports)
    terminalreporter.write_line(
        f"world: {shapes} shapes, {sum(runs.values()):,} runs, {found} violations: {spell(runs)}"
    )
    same = sum(report.same for report in reports)
    terminalreporter.write_line(f"world: {same:,} more pairs in memory, each the same as one that was run")
    refused = sum(report.refused for report in reports)
    terminalreporter.write_line(f"world: {spell(fired)}; {refused:,} writes of superseded holders refused")


def spell(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
