"""A version changes with the code, and with nothing else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from semel.code import code_hash

BASE = """
    async def pay(ctx, order, *rest, retries=3, **more):
        total = order["total"]
        def double(x):
            return x * 2
        return await ctx.step(double, total)
"""

SAME = {
    "comments": BASE.replace("        def", "        # why\n        def").replace("return x", "return  x"),
    "layout": BASE.replace("order, *rest,", "order,\n            *rest,\n           "),
    "docstrings": BASE.replace("    total", '    """Pay."""\n        total').replace(
        "return x", '"""Twice."""\n            return x'
    ),
    "annotations": BASE.replace(
        "order, *rest, retries=3, **more", "order: dict, *rest: int, retries: int = 3, **more: str"
    )
    .replace("more: str):", "more: str) -> int:")
    .replace("double(x)", "double(x: float) -> float")
    .replace("total =", "total: int ="),
    "semel's decorators": BASE.replace("    async", "    @durable_function(name='other')\n    async"),
    "quotes": BASE.replace('"total"', "'total'"),
}
OTHER = {
    "its decorator": BASE.replace("    async", "    @identity\n    async"),
    "a constant": BASE.replace("x * 2", "x * 3"),
    "a default": BASE.replace("retries=3", "retries=4"),
    "a name": BASE.replace('["total"]', '["amount"]'),
    "an order": BASE.replace("x * 2", "2 * x"),
    "a step": BASE.replace("return await", "await ctx.wait(hours=1)\n        return await"),
    "an await": BASE.replace("return await", "return"),
    "a nested decorator": BASE.replace("        def", "        @identity\n        def"),
    "a string that is no docstring": BASE.replace("    total", '    x = """Pay."""\n        total'),
}


@pytest.fixture(autouse=True)
def _modules_of_this_test() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def load(folder: Path, source: str, name: str = "code") -> Any:
    """Import source from a file of its own, as user code would be."""
    path = folder / f"{name}.py"
    path.write_text(
        "from semel import durable_function\n\ndef identity(f):\n    return f\n\n" + textwrap.dedent(source),
        encoding="utf-8",
    )
    spec = importlib.util.spec_from_file_location(f"{folder.name}_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where inspect looks for the source of a class
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("what", SAME)
def test_a_version_does_not_change_with(what: str, tmp_path: Path) -> None:
    assert SAME[what] != BASE
    assert code_hash(load(tmp_path, SAME[what], "changed").pay) == code_hash(load(tmp_path, BASE).pay)


@pytest.mark.parametrize("what", OTHER)
def test_a_version_changes_with(what: str, tmp_path: Path) -> None:
    assert OTHER[what] != BASE
    assert code_hash(load(tmp_path, OTHER[what], "changed").pay) != code_hash(load(tmp_path, BASE).pay)


def test_a_version_is_the_same_under_every_python_and_in_every_release(tmp_path: Path) -> None:
    """Another value here parks or forces snapshots everywhere: then HASH_VERSION must change too."""
    assert code_hash(load(tmp_path, BASE).pay) == "a2:721f91e0b6be9b27ef20"


def test_indented_code_has_the_hash_of_the_same_code_elsewhere(tmp_path: Path) -> None:
    nested = "def outer():\n" + textwrap.indent(textwrap.dedent(BASE), "    ") + "    return pay\n"
    assert code_hash(load(tmp_path, nested, "nested").outer()) == code_hash(load(tmp_path, BASE).pay)


def test_a_class_changes_with_its_methods_and_not_with_its_docstrings(tmp_path: Path) -> None:
    base = "class Cart:\n    limit = 5\n    def pay(self, x):\n        return x\n"
    hashes = {
        name: code_hash(load(tmp_path, source, name).Cart)
        for name, source in {
            "base": base,
            "documented": base.replace("    limit", '    """A cart."""\n    limit'),
            "annotated": base.replace("limit =", "limit: int ="),
            "changed": base.replace("return x", "return x + 1"),
            "raised": base.replace("limit = 5", "limit = 6"),
        }.items()
    }
    assert hashes["base"] == hashes["documented"] == hashes["annotated"]
    assert len({hashes["base"], hashes["changed"], hashes["raised"]}) == 3


def test_a_field_without_a_value_counts_by_its_name(tmp_path: Path) -> None:
    one, same, other = (
        code_hash(load(tmp_path, f"def f():\n    {line}\n", name).f)
        for name, line in [("one", "x: int"), ("same", "x: str"), ("other", "y: int")]
    )
    assert one == same
    assert one != other


NO_SOURCE = """
from semel.code import code_hash
scope = {}
def make(text):
    exec(compile(text, "<made>", "exec"), scope)
    return code_hash(scope["f"])
one = make("def f(x):\\n    return (lambda: x in {'a', 'b', 'c', 'd', 'e'})() or 1")
assert one == make("def f(x):\\n    return (lambda: x in {'a', 'b', 'c', 'd', 'e'})() or 1")
assert one != make("def f(x):\\n    return (lambda: x in {'a', 'b', 'c', 'd', 'e'})() or 2")
assert one != make("def f(x):\\n    return (lambda: x in {'a', 'b', 'c', 'd', 'f'})() or 1")
cart = make("class f:\\n    def pay(self):\\n        return 1")
assert cart == make("class f:\\n    def pay(self):\\n        return 1")
assert cart != make("class f:\\n    def pay(self):\\n        return 2")
assert cart != make("class f:\\n    limit = 5\\n    def pay(self):\\n        return 1")
print(one, cart)
"""


def test_code_without_source_has_the_same_hash_in_every_process() -> None:
    src = Path(__file__).resolve().parents[2] / "src"
    found = {
        subprocess.run(
            [sys.executable, "-c", NO_SOURCE],
            env={"PYTHONPATH": str(src), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def made(text: str) -> str:
    scope: dict[str, Any] = {}
    exec(compile(text, "<made>", "exec"), scope)
    return code_hash(scope["f"])


def test_code_without_source_is_told_apart_by_what_it_does() -> None:
    sources = [
        "def f(x): return 1",
        "def f(x): return 2",
        "def f(y): return 1",
        "def f(x): return y",
        "def f(x): return x in {'a', 'b'}",
        "def f(x): return x in {'a', 'c'}",
        "def f(x): return lambda: 1",
        "def f(x): return lambda: 2",
        "class f:\n    def pay(self): return 1",
        "class f:\n    def pay(self): return 2",
        "class f:\n    limit = 5\n    def pay(self): return 1",
        "class f:\n    limit = {}\n    def pay(self): return 1",
    ]
    assert len({made(source) for source in sources}) == len(sources)
    assert [made(source) for source in sources] == [made(source) for source in sources]


def test_code_without_source_or_bytecode_is_told_by_its_name() -> None:
    assert code_hash(len) == code_hash(len)
    assert code_hash(len) != code_hash(print)


def test_a_lambda_is_told_apart_by_the_line_it_stands_in() -> None:
    one = lambda ctx: ctx + 1  # noqa: E731
    two = lambda ctx: ctx + 2  # noqa: E731
    assert code_hash(one) != code_hash(two)
    assert code_hash(one) == code_hash(one)
