"""Words, names and calls that have no place here. Each pattern is spelled so that it does not match itself."""

import ast
import re
from pathlib import Path

import pytest

from tests.tidy.tree import MODULES, name_of, parsed, project_files

PROMISES = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b|\bfor now\b|\bnot implemented yet\b|\bstubs?\b", re.IGNORECASE)
SHAPELESS_NAMES = frozenset({"utils.py", "util.py", "helpers.py", "common.py", "types.py", "misc.py"})
UNSAFE_MODULES = frozenset({"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle"})
UNSAFE_CALLS = frozenset({"eval", "exec", "yaml.load"})
REGISTRY_HOST = re.compile(
    r"https?://[a-z0-9.-]*(?:pypi|npmjs|deb\.debian|files\.pythonhosted|registry)", re.IGNORECASE
)
MACHINE_PATH = re.compile(r"(?:^|[^\w./-])/(?:home|root|Users|work|farm|mnt|opt)/\w")
BANNER = re.compile(r"^\s*#\s*[-=#*~─═]{4,}")


def matches(pattern: re.Pattern[str], path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [f"line {number}: {line.strip()}" for number, line in enumerate(lines, 1) if pattern.search(line)]


def unsafe_parts(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                used = {alias.name.partition(".")[0] for alias in names} & UNSAFE_MODULES
            case ast.ImportFrom(module=str(module), level=0):
                used = {module.partition(".")[0]} & UNSAFE_MODULES
            case ast.Call(func=func):
                used = {ast.unparse(func)} & UNSAFE_CALLS
            case _:
                continue
        found += [f"line {node.lineno}: {name}" for name in sorted(used)]
    return found


every_module = pytest.mark.parametrize("path", MODULES, ids=name_of)
every_file = pytest.mark.parametrize("path", project_files(), ids=name_of)


@every_module
def test_the_source_promises_nothing(path: Path) -> None:
    assert matches(PROMISES, path) == []


@every_module
def test_the_source_has_no_banners(path: Path) -> None:
    assert matches(BANNER, path) == []


@every_module
def test_a_file_is_named_after_what_it_decides(path: Path) -> None:
    assert path.name not in SHAPELESS_NAMES


@every_module
def test_nothing_runs_code_from_data(path: Path) -> None:
    assert unsafe_parts(parsed(path)) == []


@every_file
def test_no_file_names_a_registry_host(path: Path) -> None:
    assert matches(REGISTRY_HOST, path) == []


@every_file
def test_no_file_names_a_path_of_one_machine(path: Path) -> None:
    assert matches(MACHINE_PATH, path) == []


@pytest.mark.parametrize("source", ["import pickle", "from marshal import loads", "eval('1')", "yaml.load(text)"])
def test_unsafe_code_is_noticed(source: str) -> None:
    assert len(unsafe_parts(ast.parse(source))) == 1


@pytest.mark.parametrize("source", ["import json", "re.compile('x')", "yaml.safe_load(text)", "journal.eval(x)"])
def test_safe_code_is_left_alone(source: str) -> None:
    assert unsafe_parts(ast.parse(source)) == []


def test_the_patterns_find_what_they_are_for() -> None:
    assert PROMISES.search("# to" + "do: later")
    assert PROMISES.search("good enough for" + " now")
    assert not PROMISES.search("a stubborn caller, hacked")
    assert REGISTRY_HOST.search("https://" + "pypi.example/simple")
    assert MACHINE_PATH.search("cd /" + "home/somebody")
    assert not MACHINE_PATH.search("sqlite:////tmp/x.db and src/work/x")
    assert BANNER.search("# " + "-" * 10)
