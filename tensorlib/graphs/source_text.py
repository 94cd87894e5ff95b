"""The statements of a module's source: what they define, their text, and the global names that they use."""

from __future__ import annotations

import ast
import inspect
import re
import symtable
import sys
import textwrap
from collections.abc import Mapping
from functools import cache

__all__ = [
    "attributes_of",
    "names_in",
    "origin_of",
    "renamed",
    "source_of",
    "statements_of",
    "text_of",
    "without_annotations",
]


@cache
def source_of(module: str) -> str:
    """Return the source of a module; "" if it has none that can be read, as in a notebook."""
    try:
        return inspect.getsource(sys.modules[module])
    except (KeyError, OSError, TypeError):
        return ""


@cache
def statements_of(module: str) -> Mapping[str, ast.stmt]:
    """Return the top-level statement of a module that binds each name; without those for type checkers."""
    found: dict[str, ast.stmt] = {}
    waiting = ast.parse(source_of(module)).body[::-1]
    while waiting:
        match statement := waiting.pop():
            case ast.If() if "TYPE_CHECKING" not in ast.unparse(statement.test):
                waiting += [*statement.orelse, *statement.body][::-1]
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found.update({alias.asname or alias.name.partition(".")[0]: statement for alias in names})
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = statement
            case ast.Assign(targets=targets):
                named = [node for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
                found.update({node.id: statement for node in named})
            case ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = statement
    return found


def origin_of(module: str, statement: ast.ImportFrom) -> str:
    """Return the absolute name of the module that ``from ... import`` names."""
    if not statement.level:
        return statement.module or ""
    package = module.split(".")[: -statement.level]
    return ".".join([*package, statement.module] if statement.module else package)


def text_of(source: str, statement: ast.stmt) -> str:
    """Return the lines of a statement with its decorators and comments, but without the doctests in its docstring."""
    first = min([statement.lineno, *[d.lineno for d in getattr(statement, "decorator_list", [])]])
    text = textwrap.dedent("\n".join(source.splitlines()[first - 1 : statement.end_lineno]))
    return re.sub(r"\n+( *)>>> .*?(?=\n *\n|\n *\"\"\")", "", text, flags=re.DOTALL)


class _Stripper(ast.NodeTransformer):
    """Removes annotations, which no program evaluates after ``from __future__ import annotations``."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], node.value), node)


def without_annotations(text: str) -> ast.Module:
    """Return the tree of a source without its annotations, whose names no program needs."""
    tree = ast.parse(text)
    _Stripper().visit(tree)
    return ast.fix_missing_locations(tree)


@cache
def names_in(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the global names that a statement uses when what it defines runs, and those when it is defined."""
    tree = without_annotations(text)
    later: set[str] = set()
    first: set[str] = set()
    waiting = [(symtable.symtable(ast.unparse(tree), "<derived>", "exec"), False)]
    while waiting:
        table, inside = waiting.pop()
        outermost = table.get_type() == "module"
        inside = inside or table.get_type() == "function"
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (outermost or symbol.is_global()):
                (later if inside else first).add(symbol.get_name())
        waiting += [(child, inside) for child in table.get_children()]
    return frozenset(later), frozenset(first)


def renamed(text: str, new_names: Mapping[str, str]) -> str:
    """Return the source with other names for global things; the text stays as it is everywhere else.

    Raises NameError if such a name is also that of a parameter.
    """
    if not new_names:
        return text
    tree = ast.parse(text)
    lines = [line.encode() for line in text.splitlines()]  # because positions in a line count bytes
    places = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.arg in new_names:
            raise NameError(f"{node.arg} both for a parameter and for a global thing of another name")
        if isinstance(node, ast.Name) and node.id in new_names:
            places.append((node.lineno - 1, node.col_offset, node.id))
    for number, start, name in sorted(places, reverse=True):
        line = lines[number]
        lines[number] = line[:start] + new_names[name].encode() + line[start + len(name.encode()) :]
    text = b"\n".join(lines).decode()
    own = getattr(tree.body[0], "name", "")
    return (
        re.sub(rf"^(def|class) {own}\b", rf"\1 {new_names[own]}", text, count=1, flags=re.M)
        if own in new_names
        else text
    )


def attributes_of(name: str, text: str) -> set[str]:
    """Return the attributes that a statement takes from `name`, as ``tl.Function``."""
    nodes = [node for node in ast.walk(without_annotations(text)) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == name}
