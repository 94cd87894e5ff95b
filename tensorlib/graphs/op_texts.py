"""An op as its source states it: formula and gradient rule from the docstring, and the code of both."""

from __future__ import annotations

import inspect
import os
import textwrap
import types
from collections.abc import Iterator
from typing import Any

from tensorlib.engine.function import Function
from tensorlib.engine.node import op_name

__all__ = ["op_text", "printable"]

_LONGEST = 20_000  # characters of code that are shown


def op_text(cls: type[Function]) -> dict[str, Any]:
    """Return name, formula, gradient rule, notes and code of an op, as JSON.

    The texts are those of the docstring, which states the formula first, then the gradient, often after "=>". They are
    empty for an op without a docstring. Code that was typed in has no file, and is left out.

    >>> from tensorlib.graphs.op_texts import op_text
    >>> from tensorlib.ops.arithmetic import Add
    >>> text = op_text(Add)
    >>> text["formula"], text["gradient"]
    ('z = x + y', 'dx = dz, dy = dz.')
    """
    text = inspect.cleandoc(cls.__doc__ or "")
    paragraphs = [part for part in text.split("\n\n") if not part.startswith(("Keeps ", "Kernels: "))]
    notes = [part for part in text.split("\n\n") if part.startswith(("Keeps ", "Kernels: "))]
    first, rest = (paragraphs or [""])[0], paragraphs[1:]
    formula, arrow, gradient = first.partition("=>")
    if not formula.strip():  # it starts with the arrow
        formula, gradient = first, ""
    parts = [gradient.strip(), *rest] if arrow else rest
    return {
        "name": op_name(cls),
        "class": cls.__name__,
        "formula": printable(formula.strip(), 4000, lines=True),
        "gradient": printable("\n\n".join([part for part in parts if part]), 4000, lines=True),
        "notes": printable("\n\n".join(notes), 4000, lines=True),
        "code": [code for title, function in _functions(cls) if (code := _code(title, function))["text"]],
    }


def printable(text: str, limit: int = 300, *, lines: bool = False) -> str:
    """Escape what is not printable (but not line ends if `lines`), and cut the middle out of a text over `limit`."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}…{text[-(limit // 2) :]}"
    return "".join(c if c.isprintable() or (lines and c == "\n") else c.encode("unicode_escape").decode() for c in text)


def _functions(cls: type[Function]) -> Iterator[tuple[str, Any]]:
    """Yield `forward` and `backward` of an op, and the functions of the same file that they call."""
    methods = [inspect.unwrap(method) for method in (cls.forward, cls.backward)]
    yield from zip(("forward", "backward"), methods, strict=True)
    seen: set[str] = set()
    for method in methods:
        for name in method.__code__.co_names if isinstance(method, types.FunctionType) else ():
            called = inspect.unwrap(method.__globals__.get(name) or len)
            if isinstance(called, types.FunctionType) and called.__module__ == cls.__module__ and name not in seen:
                seen.add(name)
                yield name, called


def _code(title: str, function: Any) -> dict[str, str]:
    """Return title, place and text of a function's code; no text if it was typed in, or is not Python's."""
    try:
        lines, number = inspect.getsourcelines(function)
    except (OSError, TypeError):
        return {"title": title, "place": "", "text": ""}
    module = str(function.__module__)
    ours = module.partition(".")[0] in ("tensorlib", "nn", "models")
    file = f"{module.replace('.', '/')}.py" if ours else os.path.basename(inspect.getfile(function))
    text = textwrap.dedent("".join(lines)).replace("\t", "    ").rstrip()
    return {"title": title, "place": printable(f"{file}:{number}"), "text": printable(text, _LONGEST, lines=True)}
