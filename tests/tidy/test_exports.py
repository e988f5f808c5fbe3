"""The public names: exactly `semel.__all__`, in order, each with its contract."""

import ast
import inspect
import types

import pytest

from tests.tidy.tree import ROOT, SRC, parsed, project_files

INIT = SRC / "semel" / "__init__.py"


def public_names(tree: ast.Module) -> list[str]:
    """The list that `__all__` is set to, as written."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return list(ast.literal_eval(value))
            case ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value):
                return list(ast.literal_eval(value))
    return []


NAMES = public_names(parsed(INIT)) if INIT.exists() else []


def ruff_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest: the order that ruff's RUF022 keeps."""
    group = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return group, name


def test_the_public_names_are_sorted() -> None:
    assert NAMES
    assert sorted(NAMES, key=ruff_order) == NAMES


def test_the_public_names_are_exactly_what_is_exported() -> None:
    import semel

    bound = {
        name
        for name, value in vars(semel).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, types.ModuleType)
    }
    modules = {name for name in NAMES if isinstance(getattr(semel, name, None), types.ModuleType)}
    assert set(NAMES) - modules == bound
    assert list(semel.__all__) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_documented(name: str) -> None:
    import semel

    value = getattr(semel, name)
    if isinstance(value, type):
        doc = vars(value).get("__doc__") or ""
        assert doc, f"{name} has no docstring of its own"
        assert not doc.startswith(f"{name}("), f"{name} has only the docstring that dataclass made"
    elif callable(value) or isinstance(value, types.ModuleType):
        assert inspect.getdoc(value), f"{name} has no docstring"
    else:
        pages = [path for path in project_files() if path.suffix == ".md" and path.is_relative_to(ROOT)]
        assert any(name in page.read_text(encoding="utf-8") for page in pages), f"no page explains {name}"


def test_the_package_marks_itself_as_typed() -> None:
    assert (SRC / "semel" / "py.typed").exists()
