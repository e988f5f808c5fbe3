"""A version covers what the function reaches in its package, and nothing else."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from semel.code import code_hash

ORDERS = '''
from functools import partial
import os
import semel
from . import money
from .money import RATE, Basket, charge as take, logged
from .rules import *
import json, shop.rules
from outside import foreign

LIMIT = money.RATE * 3
TABLE = {"small": money.small, "large": lambda n: n + 2}
seen = {}
later = partial(money.later, 1)

@logged
@semel.durable_function(name="shop.pay")
async def pay(ctx, order):
    """Pay."""
    seen[order] = 1
    total = helper(order) + RATE + LIMIT + money.FEES["card"] + shop.rules.CAP + foreign(1)
    unused = [Basket for Basket in "ab"]
    charge = await ctx.step(take, total)
    await ctx.step(money.refund, total)
    await ctx.step(lambda: audit(total))
    marked(1)
    await ctx.invoke(other, total)
    def inside(n):
        return deep(n)
    return Basket.of(charge).total() + TABLE["small"](inside(1)) + later() + starred(2)

def helper(n):
    return helper(n - 1) if n else even(n)

def even(n):
    return odd(n)

def odd(n):
    return even(n)

def deep(n):
    return deeper(n)

def deeper(n):
    return n

def total(n):
    return "the name of a local, never called"

def untouched(n):
    return n

def audit(n):
    return n

@semel.step
def marked(n):
    return n

@semel.durable_function(name="shop.other")
async def other(ctx, n):
    return n
'''
MONEY = '''
import semel
RATE: int = 2
FEES = {"card": 1}
def charge(n):
    return n
def refund(n):
    return n
def small(n):
    return n
def later(a):
    return a
def logged(f):
    return f
class Base:
    def total(self):
        return self.n
class Basket(Base):
    """A basket."""
    @classmethod
    def of(cls, n):
        it = cls()
        it.n = n
        return it
'''
RULES = "CAP = 9\ndef starred(n):\n    return n\n"
FILES = {"shop/__init__.py": "", "shop/orders.py": ORDERS, "shop/money.py": MONEY, "shop/rules.py": RULES}
OUTSIDE = {"outside.py": "def foreign(n):\n    return n\n"}

COUNTS = {
    "a helper": ("orders", "if n else even(n)", "if n else even(n + 1)"),
    "a helper's helper, in a cycle": ("orders", "return even(n)", "return even(n + 1)"),
    "a helper of a nested function": ("orders", "def deeper(n):\n    return n", "def deeper(n):\n    return n + 1"),
    "a constant": ("money", "RATE: int = 2", "RATE: int = 3"),
    "a constant of constants": ("orders", "money.RATE * 3", "money.RATE * 4"),
    "a constant through its module": ("money", '{"card": 1}', '{"card": 2}'),
    "a constant through its package": ("rules", "CAP = 9", "CAP = 10"),
    "what a table names": ("money", "def small(n):\n    return n", "def small(n):\n    return n + 1"),
    "a lambda in a table": ("orders", "n + 2", "n + 3"),
    "what a partial wraps": ("money", "return a", "return a + 1"),
    "a class": ("money", "it.n = n", "it.n = n + 1"),
    "a base class": ("money", "return self.n", "return self.n + 1"),
    "what a star brought": ("rules", "return n", "return n + 1"),
    "a decorator of the program's own": ("money", "return f", "return (f)if f else f"),
    "what a step is given": ("orders", "ctx.step(take, total)", "ctx.step(take, total + 1)"),
    "which function a step is given": ("orders", "ctx.step(money.refund", "ctx.step(money.charge"),
}
COUNTS_NOT = {
    "a step's body": ("money", "def charge(n):\n    return n", "def charge(n):\n    return n + 1"),
    "a step's body by its module": ("money", "def refund(n):\n    return n", "def refund(n):\n    return n + 1"),
    "what a step's lambda calls": ("orders", "def audit(n):\n    return n", "def audit(n):\n    return n + 1"),
    "a function marked as a step": ("orders", "def marked(n):\n    return n", "def marked(n):\n    return n + 1"),
    "an invoked function": (
        "orders",
        "async def other(ctx, n):\n    return n",
        "async def other(ctx, n):\n    return 2",
    ),
    "a function nobody calls": ("orders", "def untouched(n):\n    return n", "def untouched(n):\n    return n + 1"),
    "a function with a local's name": ("orders", '"the name of a local', '"the same name as a local'),
    "a docstring of a class": ("money", '"""A basket."""', '"""Baskets."""'),
    "an annotation of a constant": ("money", "RATE: int", "RATE: float"),
    "the name it is registered under": ("orders", "shop.pay", "shop.pays"),
}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("semel.function.REGISTRY.functions", {})
    before = set(sys.modules)
    path = list(sys.path)
    yield
    sys.path[:] = path
    forget(set(sys.modules) - before)


def forget(names: set[str]) -> None:
    for name in names:
        del sys.modules[name]
    importlib.invalidate_caches()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def imported(folder: Path, files: dict[str, str], module: str) -> Any:
    """The module as a program in `folder` would import it."""
    write(folder, files)
    forget({name for name in sys.modules if name.partition(".")[0] in {"shop", "outside", "app", "helper"}})
    sys.path.insert(0, str(folder))
    return importlib.import_module(module)


def hash_of(folder: Path, *, changed: tuple[str, str, str] | None = None, outside: str = "") -> str:
    files = dict(FILES)
    if changed is not None:
        name, before, after = changed
        assert before in files[f"shop/{name}.py"]
        files[f"shop/{name}.py"] = files[f"shop/{name}.py"].replace(before, after, 1)
    write(folder / "elsewhere", {"outside.py": outside or OUTSIDE["outside.py"]})
    sys.path.insert(0, str(folder / "elsewhere"))
    return code_hash(imported(folder, files, "shop.orders").pay)


@pytest.mark.parametrize("what", COUNTS)
def test_a_version_changes_with(what: str, tmp_path: Path) -> None:
    assert hash_of(tmp_path / "a", changed=COUNTS[what]) != hash_of(tmp_path / "b")


@pytest.mark.parametrize("what", COUNTS_NOT)
def test_a_version_does_not_change_with(what: str, tmp_path: Path) -> None:
    assert hash_of(tmp_path / "a", changed=COUNTS_NOT[what]) == hash_of(tmp_path / "b")


def test_other_packages_do_not_count(tmp_path: Path) -> None:
    assert hash_of(tmp_path / "a", outside="def foreign(n):\n    return 7\n") == hash_of(tmp_path / "b")


def test_a_constant_counts_by_its_source_whatever_it_became(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", OUTSIDE)
    sys.path.insert(0, str(tmp_path / "elsewhere"))
    module = imported(tmp_path, FILES, "shop.orders")
    before = code_hash(module.pay)
    module.seen["x"] = 1
    module.money.FEES["card"] = 7
    assert code_hash(module.pay) == before


SCRIPT = """
import helper
from parts import deep
from outside import foreign
async def pay(ctx):
    return helper.rate() + deep() + foreign(1)
if __name__ == "__main__":
    from semel.code import code_hash
    print(code_hash(pay))
"""
BESIDE = {
    "app.py": SCRIPT,
    "helper.py": "def rate():\n    return 1\n",
    "parts/__init__.py": "def deep():\n    return 1\n",
}


def hash_of_script(folder: Path, files: dict[str, str], outside: str = OUTSIDE["outside.py"]) -> str:
    write(folder, files)
    write(folder / "lib", {"outside.py": outside})
    src = Path(__file__).resolve().parents[2] / "src"
    code = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(folder / 'lib')!r}, {str(src)!r}];"
    as_module = f"{code} import app; from semel.code import code_hash; print(code_hash(app.pay))"
    env = {"PYTHONPATH": f"{src}:{folder / 'lib'}"}
    by_import, by_name = (
        subprocess.run([sys.executable, *how], env=env, capture_output=True, text=True, check=True, timeout=60).stdout
        for how in (["-c", as_module], [str(folder / "app.py")])
    )
    assert by_import == by_name, "a script has the version of the same code as a module"
    return by_name


def test_a_script_counts_with_the_modules_and_packages_beside_it(tmp_path: Path) -> None:
    base = hash_of_script(tmp_path / "base", BESIDE)
    helper = hash_of_script(tmp_path / "helper", BESIDE | {"helper.py": "def rate():\n    return 2\n"})
    deep = hash_of_script(tmp_path / "deep", BESIDE | {"parts/__init__.py": "def deep():\n    return 2\n"})
    library = hash_of_script(tmp_path / "library", BESIDE, outside="def foreign(n):\n    return 2\n")
    assert base not in {helper, deep}
    assert base == library


CLOSURES = """
def make(rate, rule):
    count = 0
    async def pay(ctx, n):
        nonlocal count
        count += 1
        return rule(n * rate)
    return pay
def double(n):
    return n * 2
def triple(n):
    return n * 3
"""


def test_what_a_function_closes_over_counts(tmp_path: Path) -> None:
    module = imported(tmp_path, {"app.py": CLOSURES}, "app")
    base, same = module.make(2, module.double), module.make(2, module.double)
    assert code_hash(base) == code_hash(same)
    assert (
        len({code_hash(base), code_hash(module.make(3, module.double)), code_hash(module.make(2, module.triple))}) == 3
    )


def test_source_that_changed_under_a_running_program_is_not_taken_for_its_code(tmp_path: Path) -> None:
    text = "def pay(ctx):\n    return 1\n\n\ndef other(ctx):\n    return 2\n"
    module = imported(tmp_path, {"app.py": text}, "app")
    (tmp_path / "app.py").write_text("\n\n\n" + text, encoding="utf-8")
    other = imported(tmp_path / "b", {"app.py": text.replace("return 1", "return 3")}, "app")
    assert code_hash(module.pay) != code_hash(module.other)
    assert code_hash(module.pay) != code_hash(other.pay)


def test_a_version_takes_milliseconds(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", OUTSIDE)
    sys.path.insert(0, str(tmp_path / "elsewhere"))
    pay = imported(tmp_path, FILES, "shop.orders").pay
    code_hash(pay)
    started = time.perf_counter()
    code_hash(pay)
    assert time.perf_counter() - started < 0.5


def test_the_reach_has_one_hash_under_every_python(tmp_path: Path) -> None:
    """Beside the one in test_code_hash: here names are followed, too."""
    assert hash_of(tmp_path) == "a2:cb6602e9488e17b6999d"
