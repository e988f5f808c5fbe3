"""A file of orders, processed while the engine's process is killed at random moments.

The parent keeps a window of requests open. What a kill leaves unanswered is sent again under the
same key, in the old order; what was answered is never sent again. What must come out is computed
from the file alone, without any code of the shop: the first line of an order id decides, later
equal lines are duplicates, later other lines are refused.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from .checks import Checks
from .driver import Answer, EngineDiedError, EngineProcess, Setting, engine_process, provider_process
from .ledger import read_books
from .measured import Measured

WINDOW = 64
KILL_DELAY_MAX_S = 0.03


@dataclass(frozen=True)
class Request:
    """One line of the file, and what it must be answered."""

    key: str
    body: str
    merchant: str
    status: int
    amount: Decimal  # what it adds to the ledger: zero for duplicates and refusals


def read_requests(path: Path) -> list[Request]:
    """Read the file and work out what each line must come to."""
    requests: list[Request] = []
    first: dict[str, Request] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").rstrip("\n").split("\n"), 1):
        request = _expected(line, number)
        known = first.setdefault(request.key, request)
        if known is not request:
            status = known.status if known.body == line else 422
            request = Request(request.key, line, request.merchant, status, Decimal(0))
        requests.append(request)
    return requests


def _expected(line: str, number: int) -> Request:
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or not isinstance(fields.get("order_id"), str):
        return Request(f"line-{number}", line, "", 400, Decimal(0))
    key, merchant = fields["order_id"], str(fields.get("merchant_id", ""))
    if not isinstance(fields.get("amount"), str) or not fields.get("shipping_address"):
        return Request(key, line, merchant, 400, Decimal(0))
    if "declined" in fields["payment_method"]:
        return Request(key, line, merchant, 402, Decimal(0))
    return Request(key, line, merchant, 200, Decimal(fields["amount"]))


@dataclass
class Progress:
    """What is done of a file; it outlives the engine's process."""

    requests: list[Request]
    todo: deque[int] = field(default_factory=deque)
    open: dict[int, asyncio.Future[Answer]] = field(default_factory=dict)
    answers: dict[int, Answer] = field(default_factory=dict)
    resent: int = 0

    def __post_init__(self) -> None:
        self.todo.extend(range(len(self.requests)))

    @property
    def done(self) -> bool:
        return len(self.answers) == len(self.requests)

    def send_more(self, engine: EngineProcess) -> None:
        """Fill the window. A line that contradicts an open one waits, so that the first line decides."""
        while self.todo and len(self.open) < WINDOW:
            request = self.requests[self.todo[0]]
            rivals = (self.requests[number] for number in self.open)
            if any(rival.key == request.key and rival.body != request.body for rival in rivals):
                return
            number = self.todo.popleft()
            self.open[number] = engine.send("pay", key=request.key, body=request.body)

    def collect(self) -> None:
        """Move what was answered out of the window, and what died back to the front of the queue."""
        again = []
        for number, future in list(self.open.items()):
            if not future.done():
                continue
            del self.open[number]
            if isinstance(future.exception(), EngineDiedError):
                again.append(number)
            else:
                self.answers[number] = future.result()
        self.resent += len(again)
        self.todo.extendleft(sorted(again, reverse=True))


async def process(setting: Setting, progress: Progress, *, kills: int, rng: random.Random) -> list[int]:
    """Process all requests through as many lives as it takes; returns what was open at each kill."""
    last_useful = max(1, len(progress.requests) - WINDOW)
    thresholds = sorted(rng.choices(range(last_useful), k=kills))
    open_at_kill: list[int] = []
    while not progress.done or thresholds:
        threshold = thresholds.pop(0) if thresholds else None
        async with engine_process(setting) as engine:
            while not progress.done:
                progress.send_more(engine)
                if threshold is not None and len(progress.answers) >= threshold:
                    await asyncio.sleep(rng.uniform(0, KILL_DELAY_MAX_S))
                    progress.collect()
                    open_at_kill.append(len(progress.open))
                    await engine.kill()
                    progress.collect()
                    break
                await asyncio.wait(progress.open.values(), return_when=asyncio.FIRST_COMPLETED)
                died = [future.exception() for future in progress.open.values() if future.done() and future.exception()]
                if died:
                    raise EngineDiedError("the engine process ended without being killed; its message is above")
                progress.collect()
    return open_at_kill


async def run_bulk(setting: Setting, path: Path, *, kills: int, seed: int, checks: Checks, measured: Measured) -> None:
    """Process the file on one model and check the ledger to the cent."""
    progress = Progress(read_requests(path))
    started = time.perf_counter()
    async with provider_process(setting):
        open_at_kill = await process(setting, progress, kills=kills, rng=random.Random(seed))
        seconds = time.perf_counter() - started
        merchants = sorted({request.merchant for request in progress.requests if request.status == 200})
        async with engine_process(setting) as engine:
            summaries = {merchant: await engine.summary(merchant) for merchant in merchants}
    measured.seconds["bulk"] = seconds
    print(
        f"        seed {seed}: {len(progress.requests)} requests in {seconds:.1f} s, {len(open_at_kill)} kills, "
        f"{sum(open_at_kill)} requests open at them, {progress.resent} sent again"
    )
    checks.equal(f"{kills} SIGKILLs at random moments", found=len(open_at_kill), expected=kills)
    check_answers(progress, checks)
    check_money(setting, progress.requests, checks)
    if any(summaries.values()):
        check_states(progress.requests, summaries, checks)


def check_answers(progress: Progress, checks: Checks) -> None:
    """Each request has the status that the file asks for, and equal requests have equal answers."""
    expected = {number: request.status for number, request in enumerate(progress.requests)}
    found = {number: answer.status for number, answer in progress.answers.items()}
    wrong = {
        number: (found.get(number), progress.answers[number].body if number in progress.answers else "")
        for number in expected
        if found.get(number) != expected[number]
    }
    counts = ", ".join(f"{count}× {status}" for status, count in sorted(Counter(found.values()).items()))
    checks.equal(f"each of {len(expected)} requests was answered as it must be: {counts}", found=wrong, expected={})
    bodies: dict[tuple[str, str], set[str]] = {}
    for number, request in enumerate(progress.requests):
        bodies.setdefault((request.key, request.body), set()).add(progress.answers[number].body)
    differing = sorted(key for (key, _), answers in bodies.items() if len(answers) > 1)
    duplicates = len(progress.requests) - len(bodies)
    checks.equal(f"{duplicates} duplicates got the bytes of their first answer", found=differing, expected=[])


def check_money(setting: Setting, requests: list[Request], checks: Checks) -> None:
    """The ledger has each completed order once, no other, and balances to the cent."""
    books = read_books(setting.ledger)
    expected = {request.key: [request.amount] for request in requests if request.amount}
    differing = sorted(
        order for order in {*expected, *books.charged} if expected.get(order) != books.charged.get(order)
    )
    checks.equal(f"{len(expected)} orders charged exactly once, no other", found=differing, expected=[])
    shipped = sorted(order for order in {*expected, *books.shipped} if books.shipped[order] != (order in expected))
    checks.equal("one parcel for each of them, no other", found=shipped, expected=[])
    total = sum((request.amount for request in requests), Decimal(0))
    checks.equal(f"the ledger balances to the cent: {total}", found=books.total(), expected=total)


def check_states(requests: list[Request], summaries: dict[str, dict[str, str]], checks: Checks) -> None:
    """Each merchant's total_amount is the sum of its completed orders."""
    expected: dict[str, tuple[Decimal, int]] = {}
    for request in requests:
        if request.amount:
            total, count = expected.get(request.merchant, (Decimal(0), 0))
            expected[request.merchant] = (total + request.amount, count + 1)
    found = {name: (Decimal(state["total_amount"]), int(state["completed"])) for name, state in summaries.items()}
    checks.equal(f"total_amount of {len(expected)} merchants equals their orders", found=found, expected=expected)
