"""The source of ops and of everything that they use, so that a program can contain it; nothing is executed here.

`Sources` starts at a class and follows names: from the text of a definition to the names that it uses, to the module
that defines each, to its text there. Modules of Python itself and NumPy are imported; everything else is copied.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import textwrap
from dataclasses import dataclass, field
from typing import Any

from tensorlib.graphs.source_text import (
    attributes_of,
    names_in,
    origin_of,
    renamed,
    source_of,
    statements_of,
    text_of,
)

__all__ = ["Definition", "Sources"]

Key = tuple[str, str]
"""A module and a name in it."""


@dataclass
class Definition:
    """A top-level statement that defines one name.

    Attributes:
        module: where it stands.
        name: its name in the program: its own, unless another thing has that.
        line: the number of its first line.
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

    `provided` are names of tensorlib that the program defines itself, in its own way, so they are not copied. `used`
    are all names that it defines itself.

    >>> from tensorlib.ops.trigonometric import Tanh
    >>> sources = Sources(provided={"Function", "namespace_of"}, used=set())
    >>> sources.need_class(Tanh)
    'Tanh'
    >>> [definition.name for definition in sources.ordered()], sources.imports
    (['Tanh'], {})
    """

    def __init__(self, provided: set[str], used: set[str]) -> None:
        self.provided = provided
        self.imports: dict[str, str] = {}  # the name that it binds -> the statement
        self.definitions: dict[Key, Definition] = {}
        self.facades: set[Key] = set()  # classes in place of a user's ``import tensorlib as tl``
        self.owners: dict[str, Key] = {name: ("the program", name) for name in used}  # of the program's names

    def need_class(self, cls: type) -> str:
        """Collect a class and all that it uses; return its name in the program.

        Raises ValueError if a part has no readable source, or is neither Python's nor NumPy's.
        """
        if "<locals>" not in cls.__qualname__ and cls.__name__ in statements_of(cls.__module__):
            return self._need(cls.__module__, cls.__name__, cls.__name__)[1]
        key = (cls.__module__, f"{cls.__qualname__} {id(cls)}")
        if key not in self.definitions:
            try:
                text = textwrap.dedent(inspect.getsource(cls))
            except (OSError, TypeError):
                raise _unusable(cls.__name__, "its own source, which cannot be read") from None
            name = self._own(key, cls.__name__)
            self._define(key, Definition(cls.__module__, name, 0, text_of(text, ast.parse(text).body[0])), cls.__name__)
        return self.definitions[key].name

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

    def _need(self, module: str, name: str, user: str) -> tuple[Key | None, str]:
        """Collect what `name` means in `module`: return its definition's key, if it needs one, and its new name."""
        if name in self.provided and module.partition(".")[0] == "tensorlib":
            return None, name
        key = module, name
        if key in self.definitions:
            return key, self.definitions[key].name
        statement = statements_of(module).get(name)
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return self._need_import(key, statement, user)
        if statement is None:
            return self._need_live(key, user)
        text = text_of(source_of(module), statement)
        self._define(key, Definition(module, self._own(key, name), statement.lineno, text), user)
        return key, self.definitions[key].name

    def _need_import(self, key: Key, statement: ast.Import | ast.ImportFrom, user: str) -> tuple[Key | None, str]:
        module, name = key
        alias = next(a for a in statement.names if name == (a.asname or a.name.partition(".")[0]))
        origin = origin_of(module, statement) if isinstance(statement, ast.ImportFrom) else alias.name
        if origin.partition(".")[0] in _IMPORTED:
            start = (
                f"from {origin} import {alias.name}"
                if isinstance(statement, ast.ImportFrom)
                else f"import {alias.name}"
            )
            own = self._own((start, name), name)
            self.imports[own] = start if own == alias.name.partition(".")[0] else f"{start} as {own}"
            return None, own
        if isinstance(statement, ast.Import):
            return self._need_facade(key, origin, user)
        return self._need(origin, alias.name, user)

    def _need_live(self, key: Key, user: str) -> tuple[Key | None, str]:
        """Collect a name by its present value: a built-in function, or what a notebook has defined."""
        module, name = key
        known = vars(sys.modules[module])
        if name not in known and hasattr(builtins, name):
            return None, self._own(("builtins", name), name)
        value = known.get(name, ...)
        if inspect.ismodule(value):
            start = f"import {value.__name__}"
            if value.__name__.partition(".")[0] not in _IMPORTED:
                return self._need_facade(key, value.__name__, user)
            own = self._own((start, name), name)
            self.imports[own] = start if own == value.__name__ else f"{start} as {own}"
            return None, own
        if isinstance(value, bool | int | float | str):
            text = f"{name} = {value!r}"
        elif inspect.isfunction(value) or inspect.isclass(value):
            if value.__module__ != module:
                return self._need(value.__module__, value.__name__, user)
            try:
                text = textwrap.dedent(inspect.getsource(value))
            except (OSError, TypeError):
                raise _unusable(user, f"{name}, whose source cannot be read") from None
        else:
            raise _unusable(user, f"{name}, which {module} does not define by a statement of its own")
        self._define(key, Definition(module, self._own(key, name), 0, text), user)
        return key, self.definitions[key].name

    def _need_facade(self, key: Key, origin: str, user: str) -> tuple[Key, str]:
        """Prepare a class in place of the module tensorlib; `_complete_facade` gives it attributes."""
        if origin != "tensorlib":
            raise _unusable(user, f"the module {origin}")
        self.definitions[key] = Definition(key[0], self._own(key, key[1]), 0, "")
        self.facades.add(key)
        return key, self.definitions[key].name

    def _define(self, key: Key, definition: Definition, user: str) -> None:
        self.definitions[key] = definition
        text = definition.text
        later, first = names_in(text)
        own = key[1].rpartition(".")[2].partition(" ")[0]
        new_names = {own: definition.name} if own != definition.name else {}
        for name in sorted((later | first) - {own}):
            other, new = self._need(key[0], name, user)
            if new != name:
                new_names[name] = new
            if other is not None:
                self._complete_facade(other, name, text, user)
                definition.needs.append(other)
                if name in first:
                    definition.needs_first.append(other)
        try:
            definition.text = renamed(definition.text, new_names)
        except NameError as error:
            raise _unusable(user, str(error)) from None

    def _complete_facade(self, key: Key, name: str, text: str, user: str) -> None:
        """Define a class called ``tl``, for a user's ``import tensorlib as tl``, with the attributes that are used."""
        if key not in self.facades:
            return
        definition = self.definitions[key]
        lines = definition.text.splitlines() or [f"class {definition.name}:"]
        for attribute in sorted(attributes_of(name, text)):
            given: Any = getattr(sys.modules["tensorlib"], attribute)
            home, new = self._need(given.__module__, given.__name__, user)
            line = f"    {attribute} = {new}" if isinstance(given, type) else f"    {attribute} = staticmethod({new})"
            if line not in lines:
                lines.append(line)
                definition.needs_first += [home] if home else []
                definition.needs += [home] if home else []
        definition.text = "\n".join(lines)

    def _own(self, key: Key, name: str) -> str:
        """Return the program's name for a thing: its own name, or another if that already means something else."""
        if self.owners.setdefault(name, key) == key:
            return name
        if key[0] == "builtins":
            self.imports["builtins"] = "import builtins"
            return f"builtins.{name}"
        new = f"{name}_of_{key[0].split()[-1].rpartition('.')[2].strip('_')}"
        while self.owners.setdefault(new, key) != key:
            new += "_"
        return new


_IMPORTED = {*sys.stdlib_module_names, "numpy"}


def _unusable(op: str, what: str) -> ValueError:
    return ValueError(
        f"derive: the script may contain only the op's own source, NumPy and Python's library, but {op} uses {what}; "
        "write the op so that it needs only these, or print the derivation without its script"
    )
