"""Expected texts as files. `REWRITE=1 pytest tests/kernel` writes them anew: read the diff before you keep it."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"
HINT = "run with REWRITE=1 to write it anew, and keep the diff only if you can explain it"


def check(name: str, found: str) -> None:
    """Compare with the file of that name, or write it."""
    path = FOLDER / name
    if os.environ.get("REWRITE"):
        path.write_text(found, encoding="utf-8")
    expected = path.read_text(encoding="utf-8") if path.exists() else ""
    assert found == expected, f"{path.name} is not what the code gives; {HINT}"
