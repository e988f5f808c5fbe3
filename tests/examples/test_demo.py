"""The demo from end to end, as a user runs it, with fewer kills."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from examples.comparison.aws_durable_lambda.bulk import read_requests
from examples.comparison.aws_durable_lambda.checks import WIDTH, Checks
from examples.data.make_orders import lines

ROOT = Path(__file__).resolve().parents[2]
ORDERS = ROOT / "examples" / "data" / "orders.jsonl"
COMMAND = [sys.executable, "-m", "examples.comparison.aws_durable_lambda.demo"]
LAST_LINE = re.compile(r"demo: (\d+) checks passed, (\d+) failed")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "PYTHONUTF8": "1"}


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A directory with room for a unix socket's name, which pytest's own may not have."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


def demo(*arguments: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=110,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def passed_and_failed(output: list[str]) -> tuple[int, int]:
    found = LAST_LINE.fullmatch(output[-1])
    assert found is not None, "\n".join(output)
    return int(found[1]), int(found[2])


def test_the_comparison_passes_and_ends_with_its_count() -> None:
    status, output = demo("--quick")
    passed, failed = passed_and_failed(output)
    assert (status, failed) == (0, 0), "\n".join(output)
    assert passed == sum(line.startswith("ok ") for line in output)
    assert max(map(len, output)) <= WIDTH
    totals = next(line.split() for line in output if line.startswith("total "))
    assert totals == ["total", "6", "6", "5", "5"]
    for row in ("Durability", "Idempotency", "State", "Replay", "Caching"):
        assert any(line.startswith(f"| {row}") for line in output)


def test_a_file_of_orders_balances_to_the_cent_under_random_kills(tmp_path: Path) -> None:
    some = tmp_path / "orders.jsonl"
    some.write_text("".join(f"{line}\n" for line in lines()[:250]), encoding="utf-8")
    status, output = demo("--orders", str(some), "--kills", "4", "--seed", "7")
    assert (status, passed_and_failed(output)[1]) == (0, 0), "\n".join(output)
    assert sum("balances to the cent" in line for line in output) == 2


def test_a_file_that_is_not_there_is_named_with_one_that_is() -> None:
    status, output = demo("--orders", "nowhere.jsonl")
    assert status == 2
    assert "'nowhere.jsonl': no such file; examples/data/orders.jsonl is one" in output[-1]


@pytest.mark.parametrize("wait_s", [0.0, 1.0])
def test_ctrl_c_ends_the_demo_and_its_processes(wait_s: float, short_tmp: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND],
        cwd=ROOT,
        env={**environment(), "TMPDIR": str(short_tmp)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        while not process.stdout.readline().startswith("durable function"):
            assert process.poll() is None
        time.sleep(wait_s)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert errors.strip() == "interrupted: the processes of the demo were ended"
    assert LAST_LINE.search(rest) is None
    assert list(short_tmp.iterdir()) == []


def test_the_orders_file_is_what_its_generator_makes() -> None:
    assert ORDERS.read_text(encoding="utf-8") == "".join(f"{line}\n" for line in lines())


def test_the_orders_file_has_what_a_shop_sees() -> None:
    requests = read_requests(ORDERS)
    assert len(requests) == 1_000
    share = {status: sum(request.status == status for request in requests) / 1_000 for status in (200, 400, 402, 422)}
    repeated = 1 - len({(request.key, request.body) for request in requests}) / 1_000
    assert share[200] > 0.8
    assert share[400] > 0.01
    assert 0.03 < share[402] < 0.08
    assert 0 < share[422] < 0.02
    assert 0.06 < repeated < 0.1
    assert not all(request.body.isascii() for request in requests)
    assert len({request.merchant for request in requests if request.status == 200}) == 10


def test_what_a_line_must_come_to_is_decided_by_the_first_line_of_its_order(tmp_path: Path) -> None:
    paid = '{"order_id": "a", "amount": "1.10", "payment_method": "tok_visa", "shipping_address": "x"}'
    file = tmp_path / "orders.jsonl"
    file.write_text("\n".join([paid, paid, paid.replace("1.10", "2.20"), '{"order_id": "b"}', "torn"]) + "\n")
    requests = read_requests(file)
    assert [request.status for request in requests] == [200, 200, 422, 400, 400]
    assert sum(request.amount for request in requests) == Decimal("1.10")


def test_a_check_that_does_not_hold_is_counted_and_shows_both_values(capsys: pytest.CaptureFixture[str]) -> None:
    checks = Checks()
    checks.equal("one is one", found=1, expected=1)
    checks.equal("one is two", found=1, expected=2)
    assert checks.last_line() == "demo: 1 checks passed, 1 failed"
    assert "FAILED  one is two" in capsys.readouterr().out
