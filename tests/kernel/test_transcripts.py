"""Transcripts: commands to the state machine, a dashed line, and what it answered."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from semel.errors import IllegalTransitionError
from semel.kernel.entry import Kind, Started
from semel.kernel.operation import Action, Operation, Update, decide, due, evolve, is_frozen, next_wake
from semel.kernel.values import ErrorData
from tests.kernel import golden

TRANSCRIPTS = sorted((golden.FOLDER / "transcripts").glob("*.txt"))
UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


def milliseconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)(ms|s|m|h)", text)
    assert found is not None, f"{text!r} is no duration such as 10s"
    return int(found[1]) * UNITS[found[2]]


def spell_time(time_ms: int) -> str:
    return f"{time_ms // 1000}s" if time_ms % 1000 == 0 else f"{time_ms}ms"


class Machine:
    """A scope's operations and a clock that stands still until it is told a time."""

    def __init__(self) -> None:
        self.operations: dict[str, Operation] = {}
        self.now_ms = 0

    def run(self, line: str) -> list[str]:
        command, *words = line.split()
        known: dict[str, Callable[..., list[str]]] = {
            "update": self.update,
            "time": self.time,
            "due": self.due,
            "show": self.show,
        }
        return known[command](*words)

    def update(self, name: str, kind: str, action: str, *options: str) -> list[str]:
        """update ID KIND ACTION [in=SCOPE] [name=NAME] [delay=10s] [error=TYPE] [requested]"""
        given = dict(option.partition("=")[::2] for option in options)
        start = Started(name, Kind(kind), parent=given.get("in", ""), name=given.get("name", ""))
        return self.apply(
            Update(
                name,
                Kind(kind),
                Action(action),
                self.now_ms,
                start,
                due_ms=self.now_ms + milliseconds(given["delay"]) if "delay" in given else None,
                error=ErrorData(given["error"], "") if "error" in given else None,
                requested="requested" in given,
            )
        )

    def apply(self, update: Update) -> list[str]:
        try:
            entries = decide(self.operations.get(update.id), update, self.now_ms)
        except IllegalTransitionError as error:
            return [f"refused: {str(error).partition(';')[0]}"]
        for entry in entries:
            after = evolve(self.operations.get(update.id), entry, self.now_ms)
            assert after is not None
            self.operations[update.id] = after
        kinds = " ".join(type(entry).__name__ for entry in entries)
        return [f"{self.spell(self.operations[update.id])} [{kinds}]"]

    def time(self, at: str) -> list[str]:
        """time 10s: the clock shows ten seconds after the start"""
        self.now_ms = milliseconds(at)
        return []

    def due(self) -> list[str]:
        """due: record what time alone asks for"""
        lines = [line for update in due(self.operations, self.now_ms) for line in self.apply(update)]
        return lines or ["nothing is due"]

    def show(self) -> list[str]:
        """show: every operation, and when time next asks for something"""
        wake_ms = next_wake(self.operations)
        wake = "none" if wake_ms is None else spell_time(wake_ms)
        return [*map(self.spell, self.operations.values()), f"next wake: {wake}"]

    def spell(self, operation: Operation) -> str:
        words = [operation.id, str(operation.kind), str(operation.status)]
        if operation.attempt:
            words.append(f"attempt={operation.attempt}")
        if operation.due_ms is not None:
            words.append(f"due={spell_time(operation.due_ms)}")
        if operation.error is not None:
            words.append(f"error={operation.error.type}")
        if operation.requested:
            words.append("requested")
        if is_frozen(self.operations, operation):
            words.append("frozen")
        return " ".join(words)


def replay(text: str) -> str:
    """The same transcript with what the machine answers now."""
    machine = Machine()
    blocks = []
    for block in text.strip().split("\n\n"):
        asked = block.partition("\n----")[0]
        answers = [
            answer for line in asked.splitlines() if line and not line.startswith("#") for answer in machine.run(line)
        ]
        blocks.append("\n".join([asked, "----", *answers]))
    return "\n\n".join(blocks) + "\n"


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_transcript_is_what_the_machine_answers(path: Path) -> None:
    golden.check(f"transcripts/{path.name}", replay(path.read_text(encoding="utf-8")))


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 6
