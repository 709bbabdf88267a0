"""The source of a function with what it uses of its file, as a module that stands alone.

By source and not by value: bytecode is tied to one version of Python, and the server may have another. Not the whole
file either: a recipe imports PyTorch, which a Triton image need not have. What is taken along is verbatim.
"""

import ast
import builtins
import functools
import importlib.metadata
import inspect
import symtable
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naiad.export.errors import InvalidRecipe

_OF_MODULES = {"__name__", "__file__", "__doc__", "__annotations__"}
_FUTURE = "from __future__ import annotations"  # so that names in annotations need not exist on the server


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A module with one function, and the packages it imports."""

    text: str
    function: str
    imports: tuple[str, ...]
    """Top-level names of other modules than Python's own."""
    requirements: tuple[str, ...]
    """As for pip, with the versions that are installed here; numpy in any, since the server's Triton decides."""


def take(function: Callable[..., Any], step: str) -> Source:
    """Return the source of a function and of all that it uses.

    Raises:
        InvalidRecipe: It is not defined at the top level of a file, or uses what cannot travel.
    """
    path = _file(function, step)
    text = path.read_text(encoding="utf-8")
    module = ast.parse(text)
    bound = _bindings(module)
    name = function.__name__
    if name not in bound or not isinstance(bound[name][0], ast.FunctionDef):
        raise InvalidRecipe(_unusable(step, function), path=path)
    needed = _needed(name, bound, text, step, path)
    parts = [_segment(text, statement) for statement in module.body if statement in needed]
    lines = [f'"""Step {step!r}, taken from {path.name}."""', _FUTURE, *parts]
    imports = _imports(needed, step, path)
    return Source(text="\n\n".join(lines) + "\n", function=name, imports=imports, requirements=_requirements(imports))


def _file(function: Callable[..., Any], step: str) -> Path:
    if not inspect.isfunction(function) or function.__closure__ or function.__name__ == "<lambda>":
        raise InvalidRecipe(_unusable(step, function))
    module = sys.modules.get(function.__module__)
    file = getattr(module, "__file__", None) or inspect.getsourcefile(function)
    if file is None or not Path(file).is_file():
        raise InvalidRecipe(_unusable(step, function))
    return Path(file)


def _unusable(step: str, function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", type(function).__name__)
    return (
        f"the function of step {step!r} is {name}, whose source cannot be taken along; expected a function defined "
        "with `def` at the top level of a file, without a closure: pass values as options"
    )


def _bindings(module: ast.Module) -> dict[str, list[ast.stmt]]:
    """Return the top-level statements that make or change each name, stars under `*`."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in module.body:
        for name in dict.fromkeys(_bound(statement)):
            found.setdefault(name, []).append(statement)
    return found


def _bound(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=names):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in names)
        case ast.ImportFrom(module=module, names=names):
            if module != "__future__":
                yield from (alias.asname or alias.name for alias in names)
        case ast.Expr(value=ast.Call(func=ast.Attribute() as call)):
            yield from _root(call)  # TABLE.append(…) changes what TABLE is; for a module it is left out again
        case ast.Assign(targets=targets):
            yield from (name for target in targets for name in _targets(target))
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            yield from _targets(target)
        case _:
            yield from (name for child in ast.iter_child_nodes(statement) for name in _inside(child))


def _inside(node: ast.AST) -> Iterator[str]:
    """Return what a part of an `if`, `try`, `with` or loop makes."""
    if isinstance(node, ast.stmt):
        yield from _bound(node)
    elif isinstance(node, ast.ExceptHandler):
        yield from (name for statement in node.body for name in _bound(statement))
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        yield from _targets(node.optional_vars)


def _targets(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Tuple | ast.List):
        yield from (name for element in target.elts for name in _targets(element))
    elif isinstance(target, ast.Starred):
        yield from _targets(target.value)
    else:
        yield from _root(target)


def _root(expression: ast.expr) -> Iterator[str]:
    while isinstance(expression, ast.Attribute | ast.Subscript):
        expression = expression.value
    if isinstance(expression, ast.Name):
        yield expression.id


def _needed(name: str, bound: dict[str, list[ast.stmt]], text: str, step: str, path: Path) -> set[ast.stmt]:
    needed: set[ast.stmt] = set()
    names, seen = [name], {name}
    while names:
        for statement in _makers(bound[names.pop()]):
            if statement not in needed:
                needed.add(statement)
                used = _used(_segment(text, statement))
                unknown = sorted(used - bound.keys() - set(dir(builtins)) - _OF_MODULES)
                if unknown and "*" not in bound:
                    message = f"step {step!r} uses {unknown[0]!r}, which nothing in the file defines"
                    raise InvalidRecipe(f"{path}:{statement.lineno}: {message}", path=path, line=statement.lineno)
                names += sorted((used & bound.keys()) - seen)
                seen |= used
    return needed | set(bound.get("*", ()))


def _makers(statements: list[ast.stmt]) -> list[ast.stmt]:
    """Return the statements that make a name; a call on a module (`np.seterr()`) is none."""
    if any(isinstance(statement, ast.Import | ast.ImportFrom) for statement in statements):
        return [statement for statement in statements if not isinstance(statement, ast.Expr)]
    return statements


def _used(segment: str) -> set[str]:
    """Return the global names that a statement reads; annotations are never evaluated."""

    def read(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
                yield symbol.get_name()
        for child in table.get_children():
            yield from read(child)

    return set(read(symtable.symtable(f"{_FUTURE}\n{segment}", "step", "exec")))


def _segment(text: str, statement: ast.stmt) -> str:
    decorators = getattr(statement, "decorator_list", [])
    if not decorators:
        return ast.get_source_segment(text, statement) or ast.unparse(statement)
    first = min(decorator.lineno for decorator in decorators)
    return "\n".join(text.splitlines()[first - 1 : statement.end_lineno])


def _imports(statements: set[ast.stmt], step: str, path: Path) -> tuple[str, ...]:
    providers = _providers()
    found = set()
    for name, line in _imported(statements):
        if name in sys.stdlib_module_names:
            continue
        if name not in providers:
            raise InvalidRecipe(
                f"{path}:{line}: step {step!r} imports {name}, which no installed package has, so that the server "
                "would not have it either; move what it needs into this file, or make a package of it",
                path=path,
                line=line,
            )
        found.add(name)
    return tuple(sorted(found))


def _imported(statements: set[ast.stmt]) -> Iterator[tuple[str, int]]:
    for node in (node for statement in statements for node in ast.walk(statement)):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "").partition(".")[0], node.lineno


def _requirements(imports: tuple[str, ...]) -> tuple[str, ...]:
    providers = _providers()
    names = {providers[name][0] for name in imports} - {"numpy"}
    versions = {name: importlib.metadata.version(name).partition("+")[0] for name in names}
    return ("numpy", *(f"{name}=={version}" for name, version in sorted(versions.items())))


@functools.cache
def _providers() -> Mapping[str, list[str]]:
    """Return the packages by the modules they have; it reads all that is installed."""
    return importlib.metadata.packages_distributions()
