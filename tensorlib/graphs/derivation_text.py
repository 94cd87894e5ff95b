"""A `Derivation` as plain text, in columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tensorlib.graphs.equations import Equation, backward_equations, forward_equations, printable
from tensorlib.graphs.formulas import plain, rule_of

if TYPE_CHECKING:
    from tensorlib.graphs.derivation import Derivation

__all__: list[str] = []


def text_of(derivation: Derivation) -> str:
    """Return the equations as lines of text, and below them the rule of each op from its docstring."""
    given = []
    for one in derivation.given:
        name = f", {printable(one.name, 80)}" if one.name and one.name != one.symbol else ""
        role = "requires a gradient" if one.needs_gradient else "constant"
        hook = ", changed by a hook" if one.hooked else ""
        given.append((one.symbol, str(tuple(one.held.values.shape)), f"{one.held.values.dtype}, {role}{hook}{name}"))
    parts = [
        f"The derivation of {derivation.output}: {derivation.headline()}",
        "\n".join(["given", *_columns(given)]),
        "\n".join(["forward", *_lines(forward_equations(derivation))]),
        "\n".join(["backward", *_lines(backward_equations(derivation))]),
        "\n".join(["rules, from the docstrings of the ops", *_rules(derivation)]),
    ]
    return "\n\n".join(parts)


def _lines(equations: Sequence[Equation]) -> list[str]:
    left = max([len(plain(e.left)) for e in equations], default=0)
    width = max([len(e.relation) for e in equations], default=0)
    rows = []
    for e in equations:
        relation = f"{e.relation:>{width}}"
        rows.append(
            (f"{plain(e.left):{left}} {relation} {plain(e.right)}", e.shape, ", ".join(filter(None, [e.op, e.detail])))
        )
    return _columns(rows)


def _columns(rows: Sequence[tuple[str, ...]], widest: int = 72) -> list[str]:
    """Return lines whose columns are aligned; a cell wider than `widest` pushes the rest of its own line only."""
    widths = [
        max([len(cell) for cell in column if len(cell) <= widest], default=0) for column in zip(*rows, strict=True)
    ]
    return ["  " + "  ".join([f"{c:{w}}" for c, w in zip(row, widths, strict=True)]).rstrip() for row in rows]


def _rules(derivation: Derivation) -> list[str]:
    """Return what the docstring of each op derives, paragraph by paragraph."""
    lines = []
    for op, name in dict.fromkeys([(step.op, step.name) for step in derivation.steps]):
        paragraphs = (rule_of(op).text or "its docstring derives nothing").split("\n")
        for i, paragraph in enumerate(paragraphs):
            start = f"  {name}: " if i == 0 else "      "
            lines += textwrap.wrap(printable(paragraph, 2000), 112, initial_indent=start, subsequent_indent="      ")
    return lines
