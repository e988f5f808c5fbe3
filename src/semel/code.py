"""What counts as the version of user code: one hash over a function and what it reaches in its package.

The hash is of normalised syntax trees, so that it is the same under every Python: docstrings,
comments, annotations and layout do not count, nor do semel's own decorators. From the function,
names are followed to functions, classes and module constants of the same package, and from
these on, each once. A constant counts by the text that defines it, never by its value now.

What runs elsewhere is not followed: the function that a step is given (`ctx.step(charge, …)`) or
that is marked with @step, a callback's submitter, a condition's check, the function of an invoke.
Nor is what only an object at run time would tell, such as the class behind `order.total()`.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import inspect
import symtable
import sys
import sysconfig
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from msgspec import Struct

HASH_VERSION: Final = "a2"
RUNS_ELSEWHERE: Final = frozenset({"step", "wait_for_callback", "wait_for_condition", "invoke"})
_CONSTANTS: Final = (type(None), bool, int, float, complex, str, bytes, tuple, type(...))
_DEFINITIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Where everybody's packages lie side by side: a neighbour there is no part of the program.
_SHARED_FOLDERS: Final = frozenset(
    str(Path(path).resolve()) for name, path in sysconfig.get_paths().items() if name.endswith(("lib", "stdlib"))
)


def code_hash(code: Callable[..., Any] | type) -> str:
    """Digest of the code of a function or class and of what it reaches, prefixed with the way it is made.

    Code without source is told apart by its bytecode, which another Python compiles otherwise.
    """
    text = "\n".join(_Reach(code).spell())
    return f"{HASH_VERSION}:{hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=10).hexdigest()}"


class _Unit(Struct, frozen=True):
    """A piece of code that counts: its syntax trees, or its compiled code; and what its names mean."""

    nodes: tuple[ast.stmt, ...]
    compiled: object
    names: Mapping[str, Any]
    module: str
    closure: tuple[str, ...] = ()


class _Reach:
    """The walk from one function through its package."""

    def __init__(self, root: Callable[..., Any] | type) -> None:
        self._root = _unwrapped(root)
        self._module = _module_of(self._root)
        self._package = _package(self._module)
        self._numbers: dict[object, int] = {}
        self._pending: deque[_Unit] = deque()

    def spell(self) -> Iterator[str]:
        """The text of each piece in the order it was found, with the numbers of those its names lead to."""
        self._number(self._root, lambda: _unit_of(self._root))
        while self._pending:
            unit = self._pending.popleft()
            if unit.nodes:
                yield from self._spell_source(unit)
            else:
                yield _spell_compiled(unit.compiled)
                yield self._spell_leads(unit, [(name,) for name in _names_in(unit.compiled)])

    def _spell_source(self, unit: _Unit) -> Iterator[str]:
        chains: list[tuple[str, ...]] = []
        for original in unit.nodes:
            node = copy.deepcopy(original)
            if isinstance(node, _DEFINITIONS):
                node.decorator_list = [one for one in node.decorator_list if not _is_ours(one, unit.names)]
            node = _Normal().visit(node)
            yield _spell(node)
            known = _outer_names(node, unit.closure)
            references = _References()
            references.visit(node)
            chains.extend(chain for chain in references.chains if chain[0] in known)
        yield self._spell_leads(unit, chains)

    def _spell_leads(self, unit: _Unit, chains: list[tuple[str, ...]]) -> str:
        leads = {chain: lead for chain in dict.fromkeys(chains) if (lead := self._follow(unit, chain)) is not None}
        return " ".join(f"{'.'.join(chain)}>{lead}" for chain, lead in leads.items())

    def _follow(self, unit: _Unit, chain: tuple[str, ...]) -> str | None:
        """What a name in the code leads to: the number of a piece that counts, a value, or nothing of this package."""
        name, *rest = chain
        module = unit.module
        if name not in unit.names:
            return None
        found = unit.names[name]
        if name in unit.closure and not _is_code(found) and not isinstance(found, ModuleType):
            return _spell_value(found)
        while isinstance(found, ModuleType) and rest:
            module, name = found.__name__, rest.pop(0)
            if name not in vars(found):
                return None
            found = vars(found)[name]
        if isinstance(found, ModuleType):
            return None
        code = _unwrapped(found)
        if not _is_code(code):
            return self._follow_constant(module, name, found)
        if hasattr(code, "__semel_step__") or not self._is_inside(_module_of(code)):
            return None
        return str(self._number(code, lambda: _unit_of(code)))

    def _follow_constant(self, module: str, name: str, value: object) -> str | None:
        """A module constant counts by the statements that bind it, in whichever module of the package they are."""
        if not self._is_inside(module):
            return None
        tree = _module_tree(module)
        if tree is None:
            return _spell_value(value)
        nodes = tuple(_bindings(tree, name))
        if nodes and isinstance(nodes[-1], ast.ImportFrom):
            return self._follow_import(module, name, nodes[-1], value)
        if not nodes:
            return _spell_value(value)
        names = vars(sys.modules[module])
        return str(self._number((module, name), lambda: _Unit(nodes, None, names, module)))

    def _follow_import(self, module: str, name: str, node: ast.ImportFrom, value: object) -> str | None:
        package = getattr(sys.modules[module], "__package__", None) or ""
        base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        source = ".".join([*base, *([node.module] if node.module else [])])
        original = next((alias.name for alias in node.names if (alias.asname or alias.name) == name), name)
        return None if source == module else self._follow_constant(source, original, value)

    def _number(self, key: object, make: Callable[[], _Unit]) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self._numbers)
            self._pending.append(make())
        return self._numbers[key]

    def _is_inside(self, module: str) -> bool:
        if module == self._module:
            return True
        found = _package(module) if module in sys.modules else None
        if found is None or found == self._package:
            return found is not None
        # A script has the packages beside it, as it has the modules.
        return self._package == ("folder", _folder(found[1])) and found[0] == "package"


def _unwrapped(code: Any) -> Any:
    try:
        return inspect.unwrap(code) if callable(code) else code
    except ValueError:  # a wrapper that leads to itself
        return code


def _is_code(found: object) -> bool:
    return isinstance(found, FunctionType | type)


def _module_of(code: Any) -> str:
    return str(getattr(code, "__module__", None) or "")


def _package(module: str) -> tuple[str, str]:
    """What a module belongs to: the package it is in, or the folder of a script or of a module alone."""
    found = sys.modules.get(module)
    spec = getattr(found, "__spec__", None)
    name = spec.name if module == "__main__" and spec is not None else module
    top = name.partition(".")[0]
    if "." in name or hasattr(found, "__path__"):
        return ("package", top)
    folder = _folder(module)
    return ("folder", folder) if folder and folder not in _SHARED_FOLDERS else ("module", name)


def _folder(module: str) -> str:
    """The folder in which a module, or a package as a whole, lies; empty if it is in none."""
    found = sys.modules.get(module)
    file = getattr(found, "__file__", None)
    if not isinstance(file, str):
        return ""
    folder = Path(file).resolve().parent
    return str(folder.parent if hasattr(found, "__path__") else folder)


def _unit_of(code: Any) -> _Unit:
    closure: dict[str, Any] = {}
    if isinstance(code, type):
        module = sys.modules.get(_module_of(code))
        methods = [part for part in vars(code).values() if isinstance(part, FunctionType)]
        names = vars(module) if module is not None else next((part.__globals__ for part in methods), {})
        for method in methods:
            closure |= _closure(method)
    else:
        names = getattr(code, "__globals__", {})
        closure = _closure(code)
    node = _source_of(code)
    return _Unit(() if node is None else (node,), code, {**names, **closure}, _module_of(code), tuple(closure))


def _closure(function: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    cells = getattr(function, "__closure__", None) or ()
    for name, cell in zip(getattr(function, "__code__", function).co_freevars, cells, strict=True) if cells else ():
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    return found


def _source_of(code: Any) -> ast.stmt | None:
    """The statement that defines the code, or None if its source is missing or has changed under us."""
    try:
        text = inspect.getsource(code)
        nested = text[:1].isspace()
        node = ast.parse("if 1:\n" + text if nested else text).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return None
    if nested and isinstance(node, ast.If):
        node = node.body[0]
    compiled = getattr(code, "__code__", None)
    name = code.__name__ if compiled is None else compiled.co_name
    if isinstance(node, _DEFINITIONS):
        return node if node.name == name else None
    return node if name == "<lambda>" else None


@lru_cache(maxsize=256)
def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except SyntaxError:
        return None


def _module_tree(module: str) -> ast.Module | None:
    try:
        return _parsed(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError, KeyError):
        return None


def _bindings(tree: ast.AST, name: str) -> Iterator[ast.stmt]:
    """The statements of a module's own scope that bind a name, in order."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if node.name == name:
                    yield node
            case ast.Assign() | ast.AugAssign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                bound = [part for target in targets for part in ast.walk(target)]
                if any(isinstance(part, ast.Name) and part.id == name for part in bound):
                    yield node
            case ast.ImportFrom(names=aliases):
                if any((alias.asname or alias.name) == name for alias in aliases):
                    yield node
            case ast.If() | ast.Try() | ast.With() | ast.For() | ast.ExceptHandler():
                yield from _bindings(node, name)
            case _:
                pass


def _is_ours(decorator: ast.expr, names: Mapping[str, Any]) -> bool:
    """Whether a decorator is semel's own: what it says is said elsewhere too, or has no part in replay."""
    chain = _chain(decorator.func if isinstance(decorator, ast.Call) else decorator)
    if chain is None or chain[0] not in names:
        return False
    found = names[chain[0]]
    for name in chain[1:]:
        found = getattr(found, name, None)
    return _module_of(found).partition(".")[0] == "semel"


def _chain(node: ast.expr) -> tuple[str, ...] | None:
    """`a.b.c` as its names, or None for anything else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
        return None
    return (node.id, *reversed(names))


class _References(ast.NodeVisitor):
    """The names that code reads, each with the attributes asked of it, in order."""

    def __init__(self) -> None:
        self.chains: list[tuple[str, ...]] = []

    def visit_Call(self, node: ast.Call) -> None:
        runs_elsewhere = isinstance(node.func, ast.Attribute) and node.func.attr in RUNS_ELSEWHERE
        self.visit(node.func)
        for place, argument in enumerate(node.args):
            if not (runs_elsewhere and place == 0 and isinstance(argument, ast.Name | ast.Attribute | ast.Lambda)):
                self.visit(argument)
        for keyword in node.keywords:
            self.visit(keyword)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.chains.append((node.id,))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain = _chain(node)
        if chain is None:
            self.generic_visit(node)
        else:
            self.chains.append(chain)


def _outer_names(node: ast.AST, closure: tuple[str, ...]) -> frozenset[str]:
    """The names that a piece of code takes from around it, and so not its own variables."""
    text = ast.unparse(node)
    if closure:  # what it closes over is to be found, or `nonlocal` would be no Python
        text = f"def around({', '.join(closure)}):\n" + "\n".join(" " + line for line in text.splitlines())
    try:
        table = symtable.symtable(text, "<code>", "exec")
    except SyntaxError:
        return frozenset(part.id for part in ast.walk(node) if isinstance(part, ast.Name))
    tables, found = [table], set(closure)
    while tables:
        table = tables.pop()
        is_module = table.get_type() == "module"
        found |= {one.get_name() for one in table.get_symbols() if is_module or one.is_global()}
        tables.extend(table.get_children())
    return frozenset(found)


def _names_in(code: object) -> Iterator[str]:
    """The names in compiled code, and in the code within it."""
    if isinstance(code, type):
        for part in vars(code).values():
            yield from _names_in(part)
        return
    compiled = code if isinstance(code, CodeType) else getattr(code, "__code__", None)
    if isinstance(compiled, CodeType):
        yield from compiled.co_names
        for constant in compiled.co_consts:
            if isinstance(constant, CodeType):
                yield from _names_in(constant)


def _spell(node: object) -> str:
    """A syntax tree as text, without what is empty: newer Pythons add fields."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
        return f"{type(node).__name__}({', '.join(f'{name}={_spell(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{', '.join(_spell(item) for item in node)}]"
    return repr(node)


def _spell_value(value: object) -> str:
    """A value that has no source: itself if it cannot change, else what it is."""
    if isinstance(value, tuple | frozenset):
        parts = [_spell_value(part) for part in value]
        return f"({', '.join(sorted(parts) if isinstance(value, frozenset) else parts)})"
    return repr(value) if isinstance(value, _CONSTANTS) else type(value).__qualname__


def _spell_compiled(code: object) -> str:
    """Bytecode as text, the same in every process."""
    if isinstance(code, CodeType):
        constants = ", ".join(_spell_compiled(constant) for constant in code.co_consts)
        return f"{code.co_code.hex()} {code.co_names!r} {code.co_varnames!r} ({constants})"
    if isinstance(code, frozenset):
        return f"{{{', '.join(sorted(map(repr, code)))}}}"
    if isinstance(code, type):
        parts = [(name, part) for name, part in vars(code).items() if not name.startswith("__") or callable(part)]
        return " ".join(f"{name}={_spell_compiled(part)}" for name, part in parts)
    if not isinstance(code, _CONSTANTS) and not callable(code):
        return type(code).__name__
    compiled = getattr(_unwrapped(code), "__code__", None)
    return repr(code) if compiled is None else _spell_compiled(compiled)


class _Normal(ast.NodeTransformer):
    """Drops what does not change behaviour."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = _without_docstring(node.body)
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            node.annotation = ast.Constant(None)
            return self.generic_visit(node)
        return self.generic_visit(ast.Assign([node.target], node.value, lineno=0))

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        node.body = _without_docstring(node.body)
        return self.generic_visit(node)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return body[1:] or [ast.Pass()]
    return body
