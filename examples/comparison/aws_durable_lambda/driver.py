"""The parent's side of the processes: start them, talk to them, kill exactly the one that is meant."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .provider_client import ProviderClient
from .shop import PROVIDER_SOCKET

ModelName = Literal["function", "actor"]
ProviderKeys = Literal["yes", "no"]

PACKAGE = __package__ or "examples.comparison.aws_durable_lambda"
ROOT = Path(__file__).resolve().parents[PACKAGE.count(".") + 1]
LINE_BYTES_MAX = 1024 * 1024
START_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 60.0


class EngineDiedError(Exception):
    """The engine process ended before it answered."""


class NoAnswerError(Exception):
    """The engine process lives, and what was asked of it did not happen in time."""


@dataclass(frozen=True)
class Answer:
    """What a request was answered, and how long the engine took for it."""

    status: int
    body: str
    ms: float
    state: dict[str, str] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Any]:
        """The body as JSON."""
        fields: dict[str, Any] = json.loads(self.body)
        return fields


@dataclass(frozen=True)
class Setting:
    """The files of one engine and its provider, and which form of the use case runs."""

    directory: Path
    model: ModelName
    provider_keys: ProviderKeys
    socket: Path

    @property
    def database(self) -> Path:
        return self.directory / f"{self.model}.db"

    @property
    def ledger(self) -> Path:
        return self.directory / "ledger.jsonl"

    @property
    def witness(self) -> Path:
        return self.directory / "begins.jsonl"

    def journal_bytes(self) -> int:
        """What the engine's files take on disk."""
        return sum(path.stat().st_size for path in self.directory.glob(self.database.name + "*") if path.is_file())


async def _start(module: str, *arguments: str, environment: dict[str, str] | None = None) -> asyncio.subprocess.Process:
    """Start a module of this package in a process group of its own, so that Ctrl-C reaches only us."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"{PACKAGE}.{module}",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **(environment or {})},
        process_group=0,
        limit=LINE_BYTES_MAX,
    )


async def _end(process: asyncio.subprocess.Process, *, grace_s: float) -> int:
    """Close standard input, which ends our processes in order; kill after the grace. Returns the exit status."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(grace_s):
            return await process.wait()
    except TimeoutError:
        return -9
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """A temporary directory whose name leaves room for a unix socket in it (108 bytes)."""
    roomy = len(tempfile.gettempdir()) < 60
    with tempfile.TemporaryDirectory(prefix="semel-", dir=None if roomy else "/tmp") as name:
        yield Path(name)


@contextlib.asynccontextmanager
async def provider_process(setting: Setting) -> AsyncIterator[ProviderClient]:
    """A payment provider that lives as long as the block."""
    dedup = "on" if setting.provider_keys == "yes" else "off"
    process = await _start(
        "provider", "--ledger", str(setting.ledger), "--socket", str(setting.socket), "--dedup", dedup
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await process.stdout.readline()
        if line != b"ready\n":
            raise EngineDiedError("the payment provider did not start; its message is above")
        yield ProviderClient(setting.socket)
    finally:
        await _end(process, grace_s=5.0)


class EngineProcess:
    """One life of the engine. Made by `engine_process`; over when the block ends or after `kill`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._held: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Wait until the engine is open. Raises EngineDiedError if it never is."""
        async with asyncio.timeout(START_TIMEOUT_S):
            while line := await self._stdout.readline():
                event = json.loads(line)
                if event["event"] == "ready":
                    self._reader = asyncio.create_task(self._read())
                    return
                self._held.put_nowait(event)  # recovery may reach an armed place before the engine says ready
        raise EngineDiedError("the engine process did not start; its message is above")

    async def _read(self) -> None:
        while line := await self._stdout.readline():
            if not line.endswith(b"\n"):
                break  # cut off by the kill: an answer that nobody heard
            event = json.loads(line)
            if event["event"] == "held":
                self._held.put_nowait(event)
                continue
            answer = self._answers.pop(event["id"])
            if not answer.done():
                answer.set_result(Answer(event["status"], event.get("body", ""), event["ms"], event.get("state", {})))
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(EngineDiedError("the engine process ended before it answered"))
        self._answers.clear()

    def send(self, do: str, **fields: Any) -> asyncio.Future[Answer]:
        """Write one command; the future has the answer, or EngineDiedError."""
        command_id = next(self._ids)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self._reader is None or self._reader.done():
            answer.set_exception(EngineDiedError("the engine process has ended"))
            return answer
        self._answers[command_id] = answer
        self._stdin.write(json.dumps({"do": do, "id": command_id, **fields}).encode() + b"\n")
        return answer

    async def _ask(self, do: str, **fields: Any) -> Answer:
        answer = self.send(do, **fields)
        await asyncio.wait([answer], timeout=ANSWER_TIMEOUT_S)
        if not answer.done():
            answer.cancel()
            raise NoAnswerError(f"{do} {fields.get('key', '')}: no answer from the engine in {ANSWER_TIMEOUT_S:.0f} s")
        return answer.result()

    async def pay(self, key: str, body: str) -> Answer:
        """One request, to its answer."""
        return await self._ask("pay", key=key, body=body)

    async def settled(self, key: str, merchant: str) -> Answer:
        """Wait until the request is over, without sending it again."""
        return await self._ask("settled", key=key, merchant=merchant)

    async def summary(self, merchant: str) -> dict[str, str]:
        """The merchant's durable state; empty where the model has none."""
        return (await self._ask("summary", merchant=merchant)).state

    def arm(self, place: str, order: str) -> None:
        """Hold the step body of this order at this place."""
        self._stdin.write(json.dumps({"do": "arm", "place": place, "order": order}).encode() + b"\n")

    async def held(self, place: str, order: str) -> None:
        """Return once a step body of this life stands there."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                while True:
                    event = await self._held.get()
                    if (event["place"], event["order"], event["pid"]) == (place, order, self._process.pid):
                        return
        except TimeoutError:
            raise NoAnswerError(f"{order}: its step did not reach {place} in {ANSWER_TIMEOUT_S:.0f} s") from None

    async def kill(self) -> None:
        """SIGKILL this process and no other, and see it dead. Raises EngineDiedError if it was dead before."""
        if self._process.returncode is not None:
            raise EngineDiedError(f"the engine process had already ended with {self._process.returncode}")
        os.kill(self._process.pid, signal.SIGKILL)
        if await self._process.wait() != -signal.SIGKILL:
            raise EngineDiedError(f"the engine process ended with {self._process.returncode}, not by the kill")
        await self._drain()

    async def close(self) -> None:
        """End this life in order, or by force if it does not end."""
        if self._process.returncode is None:
            await _end(self._process, grace_s=10.0)
        await self._drain()

    async def _drain(self) -> None:
        if self._reader is not None:
            await self._reader


@contextlib.asynccontextmanager
async def engine_process(setting: Setting, *holds: str, witness: Path | None = None) -> AsyncIterator[EngineProcess]:
    """One life of the engine on the setting's file, with `place:order` holds armed before it opens."""
    arguments = ["--database", str(setting.database), "--model", setting.model]
    arguments += ["--provider-keys", setting.provider_keys]
    arguments += [argument for hold in holds for argument in ("--hold", hold)]
    arguments += ["--witness", str(witness)] if witness else []
    process = await _start("engine_process", *arguments, environment={PROVIDER_SOCKET: str(setting.socket)})
    engine = EngineProcess(process)
    try:
        await engine.ready()
        yield engine
    finally:
        await engine.close()
