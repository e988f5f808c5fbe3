"""No file over 500 lines, no function over 70."""

import ast
from pathlib import Path

import pytest

from tests.tidy.tree import MODULES, name_of, parsed, project_files

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

PYTHON_FILES = [path for path in project_files() if path.suffix == ".py"]


def long_functions(tree: ast.Module) -> list[str]:
    sizes = [
        (node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return [f"line {line}: {name} has {size} lines" for name, line, size in sizes if size > FUNCTION_LINES_MAX]


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name_of)
def test_a_file_has_at_most_500_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES_MAX


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_function_has_at_most_70_lines(path: Path) -> None:
    assert long_functions(parsed(path)) == []


def test_a_function_of_71_lines_is_noticed() -> None:
    allowed = "async def f():\n" + "    x = 1\n" * 69
    assert long_functions(ast.parse(allowed)) == []
    assert long_functions(ast.parse(allowed + "    x = 1\n")) == ["line 1: f has 71 lines"]
