"""The equations of a `Derivation`: for each op its formula, and for each input that needs one its gradient."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from tensorlib.arrays.shapes import broadcasts_to
from tensorlib.graphs.formulas import Part, Rule, filled, rule_of, says
from tensorlib.graphs.steps import Step
from tensorlib.messages import shown

if TYPE_CHECKING:
    from tensorlib.graphs.derivation import Derivation

__all__ = ["Equation", "backward_equations", "forward_equations", "printable"]


class Equation(NamedTuple):
    """``left = right``, and the shape of the left side; `relation` is "=" or, for a further summand, "+=".

    `op` is the op that the equation is of, "" for the gradient that the pass starts with; `detail` says more of it.
    """

    left: list[Part]
    relation: str
    right: list[Part]
    shape: str
    op: str
    detail: str


def forward_equations(derivation: Derivation) -> list[Equation]:
    """Return the equation of each op, in the order in which the ops were recorded."""
    taken = _symbols(derivation)
    return [_forward(step, taken) for step in derivation.steps]


def backward_equations(derivation: Derivation) -> list[Equation]:
    """Return the equations of all gradients in the order in which the engine computes them.

    A value that is used several times gets several summands: the first with "=", the others with "+=".
    """
    taken, seen = _symbols(derivation), {derivation.output}
    start = "1" if derivation.seed is None else "given"
    shape = str(tuple(derivation.value.shape))
    found = [Equation([Part("gradient", derivation.output)], "=", [Part("", start)], shape, "", "")]
    for step in reversed(derivation.steps):
        several = sum(step.needs) > 1
        for position, (x, need) in enumerate(zip(step.inputs, step.needs, strict=True)):
            if need and isinstance(x, str):
                detail = f"input {position + 1}" if several else ""
                right = _gradient(step, position, taken)
                shape, relation = str(step.input_types[position][0]), "+=" if x in seen else "="
                found.append(Equation([Part("gradient", x)], relation, right, shape, step.name, detail))
                seen.add(x)
    return found


def _symbols(derivation: Derivation) -> frozenset[str]:
    return frozenset([*[g.symbol for g in derivation.given], *[y for step in derivation.steps for y in step.outputs]])


def _forward(step: Step, taken: frozenset[str]) -> Equation:
    rule, shape = rule_of(step.op), " ".join([str(shape) for shape, _ in step.output_types])
    options = step.options()
    left, equals, right = rule.value.partition(" = ")
    if equals and " " not in left and len(step.outputs) == 1 and says(rule, len(step.inputs)):
        names, suffix = _meanings(step, rule), f"_{step.number}"
        result = filled(left, rule, names, taken, suffix)
        formula = filled(_with_attributes(right, options), rule, names, taken, suffix)
        details = [f"{name}={value}" for name, value in options.items() if f"`{name}`" not in right and value != "None"]
    else:
        result = _joined([Part("value", y) for y in step.outputs])
        formula = _call(
            step.name, [*map(_operand, step.inputs), *[Part("", f"{name}={value}") for name, value in options.items()]]
        )
        details = []
    details += [f"in {step.path}"] if step.path else []
    return Equation(result, "=", formula, shape, step.name, printable(", ".join(details), 160))


def _with_attributes(formula: str, options: Mapping[str, str]) -> str:
    """Put the values of attributes in place of their names: "over `axis`" becomes "over axis 1" or "over all axes"."""
    for name, value in options.items():
        shown_value = "all axes" if (name, value) == ("axis", "None") else f"{name} {value}"
        formula = formula.replace(f"`{name}`", shown_value)
    return formula


def _gradient(step: Step, position: int, taken: frozenset[str]) -> list[Part]:
    """Return the gradient of one input: as the docstring writes it, or in its words, or as a call."""
    rule = rule_of(step.op)
    names, suffix = _meanings(step, rule), f"_{step.number}"
    parameter = rule.parameters[position] if position < len(rule.parameters) else ""
    several = position >= rule.variadic >= 0 and not says(rule, len(step.inputs))
    if len(step.outputs) == 1 and rule.gradients.get(parameter) and not several:
        formula = _without_idle_ends(rule.gradients[parameter], step, rule)
        parts = filled(formula, rule, names, taken, suffix)
    elif len(step.outputs) == 1 and rule.words and " = " not in rule.words and len(rule.words) <= _MOST_WORDS:
        words = re.sub(rf"^d{re.escape(parameter)} (is )?", "", rule.words)
        parts = [Part("", "["), *filled(words, rule, names, taken, suffix), Part("", "]")]
    else:
        parts = _call(f"{step.name}_gradient", [Part("gradient", y) for y in step.outputs])
    given, result = step.input_types[position][0], step.output_types[0][0]
    if getattr(step.op, "broadcasts", False) and given != result and broadcasts_to(given, result):
        parts = [*parts, Part("", f", summed to {given}")]
    return parts


_MOST_WORDS = 110  # a longer rule stands once, at the end


def _without_idle_ends(formula: str, step: Step, rule: Rule) -> str:
    """Leave out ``= -dx z`` if the gradient dx that it uses is not computed."""
    idle = [p for p, need in zip(rule.parameters, step.needs, strict=False) if not need]
    ends = formula.split(" = ")
    return " = ".join([end for end in ends if not any(re.search(rf"\bd{p}\b", end) for p in idle)] or ends)


def _meanings(step: Step, rule: Rule) -> Mapping[str, str]:
    inputs = [_operand(x).text for x in step.inputs]
    names = dict(zip(rule.parameters, inputs, strict=False))
    return names if not rule.result else {**names, rule.result: step.outputs[0]}


def _operand(x: str | float) -> Part:
    if isinstance(x, str):
        return Part("value", x)
    text = repr(x)
    return Part("number", text if len(text) <= 10 else f"{x:.6g}" if isinstance(x, float) else shown(x))


def _call(name: str, arguments: list[Part]) -> list[Part]:
    return [Part("", f"{name}("), *_joined(arguments), Part("", ")")]


def _joined(parts: list[Part]) -> list[Part]:
    return [part for i, one in enumerate(parts) for part in ([Part("", ", "), one] if i else [one])]


def printable(text: str, most: int) -> str:
    """Return text on one line, without characters that control a terminal, and cut if it is longer than `most`."""
    text = text if len(text) <= most else f"{text[: most - 3]}..."
    return "".join([c if c.isprintable() else ascii(c)[1:-1] for c in text])
