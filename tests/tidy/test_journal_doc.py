"""docs/journal.md says what the code says, and docs/guarantees.md names tests that there are."""

from __future__ import annotations

import ast
import importlib.util
import re
import types

import pytest

from tests.tidy.tree import ROOT

TEST = re.compile(r"`(tests/[\w./-]+\.py)(?:::(\w+))?`")
GUARANTEES = ROOT / "docs" / "guarantees.md"


@pytest.fixture(scope="module")
def script() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("journal_doc", ROOT / "scripts" / "journal_doc.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_journal_is_what_its_script_writes(script: types.ModuleType) -> None:
    committed = (ROOT / "docs" / "journal.md").read_text(encoding="utf-8")
    assert committed == script.page(), "run `python scripts/journal_doc.py`, and read the diff"


def test_every_invariant_and_rule_has_a_test_named_after_it(script: types.ModuleType) -> None:
    cited = script.citations()
    assert set(script.INVARIANTS) | set(script.RULES) <= set(cited)
    assert list(script.INVARIANTS) == [f"J{number}" for number in range(1, 12)]
    assert list(script.RULES) == [f"R{number}" for number in range(1, 6)]


def test_a_rule_is_read_off_the_name_of_a_test(script: types.ModuleType) -> None:
    for name, rules in {
        "test_J6_a_release": ["J6"],
        "test_J8_J9_a_mailbox": ["J8", "J9"],
        "test_J7_and_J11_what": ["J7", "J11"],
        "test_R1e_without_it": ["R1"],
        "test_a_J6": [],
        "test_JSON_1": [],
    }.items():
        cited = script.CITED.match(name)
        assert re.findall(r"[JRG]\d+", cited[1] if cited else "") == rules


def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


NAMED = sorted(set(TEST.findall(GUARANTEES.read_text(encoding="utf-8")))) if GUARANTEES.exists() else []


@pytest.mark.parametrize(("path", "name"), NAMED, ids="::".join)
def test_every_test_that_the_guarantees_name_exists(path: str, name: str) -> None:
    assert (ROOT / path).is_file()
    assert not name or name in functions(path)


def test_every_guarantee_has_a_promise_a_limit_and_a_test() -> None:
    sections = re.split(r"^## ", GUARANTEES.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    numbered = [section for section in sections if re.match(r"G\d+ ", section)]
    assert [section.split(" ", 1)[0] for section in numbered] == [f"G{number}" for number in range(1, 11)]
    for section in numbered:
        assert "**Limit.**" in section
        assert TEST.search(section)
