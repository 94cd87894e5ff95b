"""The source of ops and of everything that they use, so that a program can contain it; nothing is executed here.

`Sources` starts at a class and follows names: from the text of a definition to the names that it uses, to the module
that defines each, to its text there. Modules of Python itself and NumPy are imported; everything else is copied.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import symtable
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

__all__ = ["Definition", "Sources"]

Key = tuple[str, str]
"""A module and a name in it."""


@dataclass
class Definition:
    """A top-level statement that defines one name.

    Attributes:
        module, name, line: where it stands.
        text: its source, without doctests.
        needs: the definitions that it uses.
        needs_first: those that it uses when it is defined, such as a base class or a decorator.
    """

    module: str
    name: str
    line: int
    text: str
    needs: list[Key] = field(default_factory=list)
    needs_first: list[Key] = field(default_factory=list)


class Sources:
    """Definitions and imports, collected by `need`.

    `provided` are names of tensorlib that the program defines itself, in its own way, so they are not copied; `used` are
    all names that it defines itself.

    >>> from tensorlib.ops.trigonometric import Tanh
    >>> sources = Sources(provided={"Function"}, used=set())
    >>> sources.need_class(Tanh)
    'Tanh'
    >>> [definition.name for definition in sources.ordered()], sources.imports
    (['Tanh'], {})
    """

    def __init__(self, provided: set[str], used: set[str]) -> None:
        self.provided = provided
        self.imports: dict[str, str] = {}  # the name that it binds -> the statement
        self.definitions: dict[Key, Definition] = {}
        self.owners: dict[str, str] = dict.fromkeys(used, "the program")  # name in the program -> the module that it is from

    def need_class(self, cls: type) -> str:
        """Collect a class and all that it uses; return its name in the program.

        Raises ValueError if a part has no readable source, or is neither Python's nor NumPy's, or has the name of another.
        """
        if (cls.__module__, cls.__name__) in self.definitions:
            return cls.__name__
        if "<locals>" in cls.__qualname__ or cls.__name__ not in _statements(cls.__module__):
            self._define_local(cls)
        else:
            self._need(cls.__module__, cls.__name__, cls.__name__)
        return cls.__name__

    def need(self, module: str, name: str) -> None:
        """Collect what `name` means in `module`, and all that it uses."""
        self._need(module, name, name)

    def ordered(self) -> list[Definition]:
        """Return the definitions, file by file, each after those that it needs when it is defined."""
        modules = {module: i for i, module in enumerate(dict.fromkeys(module for module, _ in self.definitions))}
        found: dict[Key, Definition] = {}
        placed: set[tuple[Key, bool]] = set()

        def place(key: Key, complete: bool) -> None:
            definition = self.definitions.get(key)
            if definition is None or (key, complete) in placed:
                return
            placed.add((key, complete))
            complete = complete or not definition.text.startswith(("def ", "class ", "@"))  # a constant calls functions
            for other in definition.needs if complete else definition.needs_first:
                place(other, complete)
            found[key] = definition

        for key, _ in sorted(self.definitions.items(), key=lambda item: (modules[item[0][0]], item[1].line)):
            place(key, complete=False)
        return list(found.values())

    # ---- following names ---------------------------------------------------------------------------------------------

    def _need(self, module: str, name: str, user: str) -> Key | None:
        """Collect what `name` means in `module`; return its definition's key, None if it needs no definition."""
        if name in self.provided and module.partition(".")[0] == "tensorlib":
            return None
        if (module, name) in self.definitions:
            return module, name
        statement = _statements(module).get(name)
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return self._need_import(module, name, statement, user)
        if statement is None:
            if not hasattr(builtins, name):
                raise _unusable(user, f"{name}, which {module} does not define at its top level")
            self._own(name, "builtins", user)
            return None
        self._own(name, module, user)
        text = _text(_source(module), statement)
        self._define(Definition(module, name, statement.lineno, text), user)
        return module, name

    def _need_import(self, module: str, name: str, statement: ast.Import | ast.ImportFrom, user: str) -> Key | None:
        alias = next(a for a in statement.names if name == (a.asname or a.name.partition(".")[0]))
        origin = _origin(module, statement) if isinstance(statement, ast.ImportFrom) else alias.name
        if origin.partition(".")[0] in _IMPORTED:
            self._own(name, origin, user)
            shown = f" as {alias.asname}" if alias.asname else ""
            start = f"from {origin} import" if isinstance(statement, ast.ImportFrom) else "import"
            self.imports[name] = f"{start} {alias.name}{shown}"
            return None
        if isinstance(statement, ast.Import):
            if origin != "tensorlib":
                raise _unusable(user, f"the module {origin}")
            return module, name  # a stand-in with the attributes that are used: see `_define`
        key = self._need(origin, alias.name, user)
        if name != alias.name:
            self._own(name, module, user)
            self._define(Definition(module, name, statement.lineno, f"{name} = {alias.name}"), user)
            self.definitions[module, name].needs_first = self.definitions[module, name].needs = [key] if key else []
            return module, name
        return key

    def _define(self, definition: Definition, user: str) -> None:
        self.definitions[definition.module, definition.name] = definition
        tree = _without_annotations(definition.text)
        later, first = _names(tree)
        for name in sorted(later | first):
            if name == definition.name or (definition.text == f"{definition.name} = {name}"):
                continue
            key = self._need(definition.module, name, user)
            if key is not None and key not in self.definitions:
                self._define_facade(key, tree, user)
            elif key is not None and key[1] == name and key in self.definitions:
                self._merge_facade(key, tree, user)
            if key is not None:
                definition.needs.append(key)
                if name in first:
                    definition.needs_first.append(key)

    def _define_local(self, cls: type) -> None:
        """Collect a class that is defined inside a function, or where no file can be read, as in a notebook."""
        try:
            text = textwrap.dedent(inspect.getsource(cls))
        except (OSError, TypeError):
            raise _unusable(cls.__name__, "its own source, which cannot be read") from None
        self._own(cls.__name__, cls.__module__, cls.__name__)
        statement = ast.parse(text).body[0]
        self._define(Definition(cls.__module__, cls.__name__, 0, _text(text, statement)), cls.__name__)

    def _own(self, name: str, module: str, user: str) -> None:
        """Note which module a name of the program is from: no two may differ."""
        owner = self.owners.setdefault(name, module)
        if owner != module:
            raise _unusable(user, f"the name {name} of {module}, beside another of {owner}")

    # ---- ``import tensorlib as tl`` in the file of a user ------------------------------------------------------------

    def _define_facade(self, key: Key, tree: ast.Module, user: str) -> None:
        """Define a class called ``tl`` with those attributes of tensorlib that the op uses."""
        self._own(key[1], key[0], user)
        self.definitions[key] = Definition(*key, 0, f"class {key[1]}:\n    pass")
        self._merge_facade(key, tree, user)

    def _merge_facade(self, key: Key, tree: ast.Module, user: str) -> None:
        definition = self.definitions[key]
        if not isinstance(_statements(key[0]).get(key[1]), ast.Import):
            return
        for attribute in sorted(_attributes_of(key[1], tree)):
            given: Any = getattr(sys.modules["tensorlib"], attribute)
            home = self._need(given.__module__, given.__name__, user)
            value = given.__name__ if isinstance(given, type) else f"staticmethod({given.__name__})"
            line = f"    {attribute} = {value}"
            if line not in definition.text.splitlines():
                definition.text = definition.text.replace("\n    pass", "") + f"\n{line}"
                definition.needs_first += [home] if home else []
                definition.needs += [home] if home else []


_IMPORTED = {*sys.stdlib_module_names, "numpy"}


def _unusable(op: str, what: str) -> ValueError:
    return ValueError(
        f"derive: the script may contain only the op's own source, NumPy and Python's library, but {op} uses {what}; "
        "write the op so that it needs only these, or print the derivation without its script"
    )


# ---- statements, their texts and names -----------------------------------------------------------------------------


@cache
def _source(module: str) -> str:
    try:
        return inspect.getsource(sys.modules[module])
    except (KeyError, OSError, TypeError):
        return ""


@cache
def _statements(module: str) -> Mapping[str, ast.stmt]:
    """Return the top-level statement of a module that binds each name; without those for type checkers."""
    found: dict[str, ast.stmt] = {}
    for statement in ast.parse(_source(module)).body:
        match statement:
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


def _origin(module: str, statement: ast.ImportFrom) -> str:
    """Return the absolute name of the module that ``from ... import`` names."""
    if not statement.level:
        return statement.module or ""
    package = module.split(".")[: -statement.level]
    return ".".join([*package, statement.module] if statement.module else package)


def _text(source: str, statement: ast.stmt) -> str:
    """Return the lines of a statement with its decorators and comments, but without the doctests in its docstring."""
    first = min([statement.lineno, *[d.lineno for d in getattr(statement, "decorator_list", [])]])
    lines = source.splitlines()[first - 1 : statement.end_lineno]
    text = "\n".join(lines)
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


def _without_annotations(text: str) -> ast.Module:
    tree = ast.parse(text)
    _Stripper().visit(tree)
    return ast.fix_missing_locations(tree)


def _names(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Return the global names that a statement uses when what it defines runs, and those when it is defined."""
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
    return later, first


def _attributes_of(name: str, tree: ast.Module) -> set[str]:
    """Return the attributes that a statement takes from `name`, as ``tl.Function``."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == name}
