"""One line for each thing that was checked, and the count that the demo ends with."""

from __future__ import annotations

from dataclasses import dataclass

WIDTH = 100


@dataclass
class Checks:
    """What was found is compared with what the contract says; nothing passes without a comparison."""

    passed: int = 0
    failed: int = 0

    def equal(self, text: str, *, found: object, expected: object) -> None:
        """Print one line; a failed one shows both values."""
        if found == expected:
            self.passed += 1
            print(f"ok      {text}"[:WIDTH], flush=True)
        else:
            self.failed += 1
            print(f"FAILED  {text}\n        found    {found!r}\n        expected {expected!r}", flush=True)

    def broken(self, text: str, error: BaseException) -> None:
        """A part that could not be carried to its end is one failed check."""
        self.failed += 1
        print(f"FAILED  {text}\n        {type(error).__name__}: {error}", flush=True)

    def last_line(self) -> str:
        return f"demo: {self.passed} checks passed, {self.failed} failed"


def heading(text: str) -> None:
    """Say what comes next."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)
