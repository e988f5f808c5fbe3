"""The architecture: imports point down, and each capability has one place."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy.tree import MODULES, SRC, module_name, name_of, parsed

# Every module, by the longest prefix that names it. A module without a layer fails.
LAYERS = {
    "semel.errors": 0,
    "semel.kernel": 1,
    "semel.store": 2,
    "semel.journal": 3,
    "semel.history": 3,
    "semel.code": 3,
    "semel.function": 3,
    "semel.calls": 3,
    "semel.callback": 3,
    "semel.context": 3,
    "semel.sync_context": 3,
    "semel.logs": 3,
    "semel.poll": 3,
    "semel.batch": 3,
    "semel.retry": 3,
    "semel.actor": 3,
    "semel.facet": 3,
    "semel.runtime": 4,
    "semel.actor_ref": 5,
    "semel.callbacks": 5,
    "semel.executions": 5,
    "semel.listing": 5,
    "semel.deploy": 5,
    "semel.post": 5,
    "semel.served": 5,
    "semel.engine": 5,
    "semel.sync": 6,
    "semel.server": 7,
    "semel.cli": 7,
    "semel.demo": 7,
    "semel.testing": 7,
    "semel.pytest_plugin": 7,
    "semel.__main__": 8,
    "semel": 8,
}

USER_SIDE = frozenset(
    {
        "semel.code",
        "semel.function",
        "semel.calls",
        "semel.callback",
        "semel.context",
        "semel.sync_context",
        "semel.logs",
        "semel.poll",
        "semel.batch",
        "semel.retry",
        "semel.actor",
        "semel.facet",
    }
)

# Same height or lower, and still not to be imported.
NEVER = {
    "semel.journal": USER_SIDE,
    **dict.fromkeys(USER_SIDE, frozenset({"semel.journal", "semel.store"})),
}

PURE_SYNC = frozenset({"semel.kernel", "semel.store", "semel.journal", "semel.history"})
OUTSIDE_WORLD = frozenset(
    [
        "asyncio",
        "concurrent",
        "ctypes",
        "fcntl",
        "io",
        "multiprocessing",
        "os",
        "pathlib",
        "queue",
        "random",
        "secrets",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "apsw",
        "click",
    ]
)
CLOCK_READS = frozenset({"now", "today", "utcnow"})
SQL_DRIVERS = frozenset({"apsw", "sqlite3", "psycopg"})


def part_of(module: str) -> str | None:
    """The entry of LAYERS that `module` belongs to, or None."""
    if module in LAYERS:
        return module
    parent = module.rpartition(".")[0]
    return None if parent in {"", "semel"} else part_of(parent)


def imports(tree: ast.Module, module: str, *, package: bool, known: frozenset[str]) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that `tree` imports, wherever the statement stands."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=name, names=names, level=level):
                base = module.split(".")[: len(module.split(".")) - level + package] if level else []
                source = ".".join([*base, *([name] if name else [])])
                for alias in names:
                    full = f"{source}.{alias.name}"
                    yield node.lineno, full if full in known else source


KNOWN = frozenset(module_name(path) for path in MODULES)


def imports_of(path: Path) -> list[tuple[int, str]]:
    is_package = path.name == "__init__.py"
    return list(imports(parsed(path), module_name(path), package=is_package, known=KNOWN))


def violations(module: str, imported: list[tuple[int, str]]) -> list[str]:
    own = part_of(module)
    if own is None:
        return [f"{module} has no layer: place it in LAYERS"]
    found = []
    for line, target in imported:
        if target.partition(".")[0] != "semel":
            continue
        other = part_of(target)
        if other is None:
            found.append(f"line {line} imports {target}, which has no layer")
        elif LAYERS[other] > LAYERS[own]:
            found.append(f"line {line} imports {target}: layer {LAYERS[other]} from layer {LAYERS[own]}")
        elif other in NEVER.get(own, ()):
            found.append(f"line {line} imports {target}: {own} and {other} never meet")
    return found


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for _, name in imports_of(path)}


every_module = pytest.mark.parametrize("path", MODULES, ids=name_of)


@every_module
def test_imports_point_down(path: Path) -> None:
    assert violations(module_name(path), imports_of(path)) == []


@every_module
def test_the_kernel_touches_nothing_outside_itself(path: Path) -> None:
    if part_of(module_name(path)) != "semel.kernel":
        return
    assert roots(path) & OUTSIDE_WORLD == set()
    reads = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCK_READS
    ]
    assert reads == [], "the kernel is handed the time; it never reads a clock"


@every_module
def test_kernel_store_and_journal_are_plain_sync_code(path: Path) -> None:
    if part_of(module_name(path)) not in PURE_SYNC:
        return
    assert "asyncio" not in roots(path)
    awaits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert [node.lineno for node in ast.walk(parsed(path)) if isinstance(node, awaits)] == []


@every_module
def test_only_the_store_speaks_sql(path: Path) -> None:
    if part_of(module_name(path)) == "semel.store":
        return
    assert roots(path) & SQL_DRIVERS == set()


def test_there_is_a_package_to_check() -> None:
    assert (SRC / "semel" / "__init__.py") in MODULES


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("semel.kernel.ids", "from semel.journal import Journal", "layer 3 from layer 1"),
        ("semel.kernel.ids", "import semel.engine", "layer 5 from layer 1"),
        ("semel.kernel.ids", "from semel import engine", "layer 5 from layer 1"),
        ("semel.kernel.ids", "from ..store import base", "layer 2 from layer 1"),
        ("semel.kernel.ids", "def f():\n    from ..engine import Engine", "layer 5 from layer 1"),
        ("semel.context", "if TYPE_CHECKING:\n    from semel.journal import Journal", "never meet"),
        ("semel.journal", "from semel.function import step", "never meet"),
        ("semel.journal.claim", "import semel.actor.server", "never meet"),
        ("semel.facet.durability", "from semel.store.base import Store", "never meet"),
        ("semel.engine", "from semel import Context", "layer 8 from layer 5"),
        ("semel.engine", "from semel.surprise import x", "no layer"),
        ("semel.surprise", "import json", "has no layer"),
    ],
)
def test_a_wrong_import_is_noticed(module: str, source: str, said: str) -> None:
    known = frozenset({"semel.engine", "semel.store.base"})
    found = violations(module, list(imports(ast.parse(source), module, package=False, known=known)))
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    ("module", "source", "is_package"),
    [
        ("semel.engine", "from semel.runtime.worker import Worker", False),
        ("semel.journal.claim", "from . import start", False),
        ("semel.journal", "from .start import start", True),
        ("semel.actor.server", "from semel.context import Context", False),
        ("semel.kernel.ids", "import base64, hashlib\nfrom semel.errors import ValidationError", False),
    ],
)
def test_a_right_import_is_left_alone(module: str, source: str, is_package: bool) -> None:
    known = frozenset({"semel.journal.start"})
    assert violations(module, list(imports(ast.parse(source), module, package=is_package, known=known))) == []
