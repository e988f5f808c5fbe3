"""Where the project's files are, read once for the tests of this folder."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
MODULES = sorted((SRC / "semel").rglob("*.py"))

TEXT_SUFFIXES = {"", ".py", ".md", ".sql", ".toml", ".txt", ".json", ".jsonl", ".html", ".css", ".js", ".yml", ".yaml"}
GENERATED = {"build", "dist", "__pycache__"}


def module_name(path: Path, *, src: Path = SRC) -> str:
    """The dotted name that `path` is imported by: `semel.kernel.ids`, and `semel.kernel` for a package."""
    parts = path.relative_to(src).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def project_files(*, root: Path = ROOT) -> list[Path]:
    """Every text file that belongs to the project: nothing generated, no environment, no cache."""
    found: list[Path] = []
    folders = [root]
    while folders:
        for path in sorted(folders.pop().iterdir()):
            hidden = path.name.startswith(".") and path.name not in {".ci", ".gitignore"}
            if hidden or path.name in GENERATED or path.name.endswith(".egg-info") or path.is_symlink():
                continue
            if path.is_dir():
                folders.append(path)
            elif path.is_file() and path.suffix in TEXT_SUFFIXES:
                found.append(path)
    return found
