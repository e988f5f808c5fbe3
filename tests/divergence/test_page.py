"""The example of docs/divergence.md is what is reported. `REWRITE=1` writes it anew from its transcript."""

from __future__ import annotations

import os
import re
from pathlib import Path

from semel.kernel.report import Cause
from tests.divergence import pairs

PAGE = Path(__file__).parents[2] / "docs" / "divergence.md"
EXAMPLE = pairs.FOLDER / "functions" / "removed.txt"


def test_the_example_of_the_page_is_a_transcript() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    _, before, after = pairs.programs(text)
    page = PAGE.read_text(encoding="utf-8")
    wanted = page
    for name, block in (("recorded", before), ("replayed by", after), ("report", text.partition("\n----\n")[2])):
        pattern = re.compile(rf"(<!-- {name} -->\n```\w+\n).*?(```\n)", re.DOTALL)
        assert len(pattern.findall(wanted)) == 1
        wanted = pattern.sub(lambda found, block=block: f"{found[1]}{block.rstrip()}\n{found[2]}", wanted)
    if os.environ.get("REWRITE"):
        PAGE.write_text(wanted, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == wanted, pairs.HINT


def test_the_page_has_every_cause() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [str(cause) for cause in Cause if f"\n| {cause} |" not in page] == []
