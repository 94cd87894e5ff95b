"""The formula and the gradient of an op, taken from the docstring of its class, with the names of a graph in them.

A class docstring states ``z = x y  =>  dx = dz y, dy = dz x.`` Here x and y are parameters of ``forward``, z is the
result, and dx is the gradient with respect to x. `Rule` holds these parts; `filled` puts other names in their place.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

__all__ = ["Part", "Rule", "filled", "plain", "rule_of", "says"]


class Rule(NamedTuple):
    """What the docstring of an op's class says.

    Attributes:
        parameters: the names of ``forward``'s parameters.
        variadic: the position of the one that takes any number of inputs; -1 if there is none.
        result: the name of the result in the formula, as "z"; "" if there is no formula of one result.
        value: the formula, as "z = x y"; "" if there is none.
        gradients: the right-hand side for each parameter that has one, as {"x": "dz y"}.
        words: what follows the arrow, for gradients that are said in words; "" if there is nothing.
        text: the whole derivation, as paragraphs without line breaks.

    >>> from tensorlib.ops.arithmetic import Multiply
    >>> rule = rule_of(Multiply)
    >>> rule.value, rule.gradients
    ('z = x y', {'x': 'dz y', 'y': 'dz x'})
    """

    parameters: tuple[str, ...]
    variadic: int
    result: str
    value: str
    gradients: Mapping[str, str]
    words: str
    text: str


@cache
def rule_of(op: type) -> Rule:
    """Return the rule that the docstring of an op's class states; parts that it does not state are empty."""
    forward = getattr(op, "forward", None)
    signature = list(inspect.signature(forward).parameters.values())[1:] if forward is not None else []
    parameters = tuple([p.name for p in signature])
    variadic = next((i for i, p in enumerate(signature) if p.kind is p.VAR_POSITIONAL), -1)
    paragraphs = [" ".join(part.split()) for part in inspect.cleandoc(vars(op).get("__doc__") or "").split("\n\n")]
    kept = next((i for i, part in enumerate(paragraphs) if part.startswith(("Keeps", "Kernels"))), len(paragraphs))
    paragraphs = paragraphs[:kept]
    text = _without_sources(" ".join(paragraphs))
    value = _value(text)
    match = re.match(r"([A-Za-z]+)(?=[_\[ ])", value)
    if match is None or match[1] in parameters or match[1] == "As":
        return Rule(parameters, variadic, "", "", {}, "", "\n".join(paragraphs))
    gradients = {p: found for p in parameters if (found := _gradient(text, _written(p, parameters, text)))}
    words = re.split(r"\.(?:\s|$)", text.split("=>", 1)[1], maxsplit=1)[0].strip() if "=>" in text else ""
    return Rule(parameters, variadic, match[1], value, gradients, words, "\n".join(paragraphs))


def _without_sources(text: str) -> str:
    """Remove references to papers, as "(Ba et al. 2016, section 3)"."""
    return re.sub(r"\s*\([^()]*\b(19|20)\d\d\b[^()]*\)", "", text)


def _value(text: str) -> str:
    """Return the formula at the start of a docstring: up to the arrow, the end of the sentence, or remarks."""
    start = text.split("=>", 1)[0]
    return (
        re.split(r"\.(?:\s|$)|;\s|:\s|,\s+which|\s+for (?:\w+ ){0,4}\w+ \(", start, maxsplit=1)[0].strip().rstrip(",")
    )


@cache
def _written(parameter: str, parameters: tuple[str, ...], text: str) -> str:
    """Return the name that a formula uses for a parameter: W for weight and b for bias, if it does not spell it out."""
    short = {"weight": "W", "bias": "b", "weight_x": "W_x", "weight_h": "W_h", "bias_h": "b_h", "logits": "x"}
    name = short.get(parameter, parameter)
    return name if name not in parameters and re.search(rf"(?<![A-Za-z])d?{name}(?![A-Za-z])", text) else parameter


_STATEMENT = r"(?<![\w/])d{name}(?:_[a-z]+|\[\w+\])? = "
_END = re.compile(
    r",\s+(?:and\s+)?d\w+(?:\[\w+\])? (?:=|\+=)|,\s+(?:because|which|as|together|in)\b|;|\.(?:\s|$)|\s+=>|:\s"
)


def _gradient(text: str, name: str) -> str:
    """Return the right-hand side of the last ``dname = ...`` in the text, "" if there is none."""
    found = list(re.finditer(_STATEMENT.format(name=re.escape(name)), text))
    if not found:
        return ""
    rest = text[found[-1].end() :]
    end = _END.search(rest)
    return rest[: end.start() if end else None].strip().rstrip(",")


def says(rule: Rule, inputs: int) -> bool:
    """Return whether the formula names every input, of which there are so many: a bias may be left out."""
    if rule.variadic < 0:
        return inputs <= len(rule.parameters)
    written = _written(rule.parameters[rule.variadic], rule.parameters, rule.text)
    return inputs == rule.variadic + 1 and re.search(rf"(?<![A-Za-z]){written}(?![A-Za-z])", rule.value) is not None


# ---- other names ---------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """A piece of a formula: its `kind` is "value" or "gradient" of something, a "number", or "" for other text."""

    kind: str
    text: str


def filled(formula: str, rule: Rule, names: Mapping[str, str], taken: frozenset[str], suffix: str) -> list[Part]:
    """Return a formula of `rule` with `names` in place of its parameters and of its result.

    A name that the formula itself introduces, as w in ``w = softmax(s)``, gets `suffix` if the graph has another
    meaning for it, which `taken` lists.

    >>> from tensorlib.ops.arithmetic import Power
    >>> rule = rule_of(Power)
    >>> parts = filled(rule.gradients["x"], rule, {"x": "a", "y": "3", "z": "z1"}, frozenset(), "_1")
    >>> plain(parts)
    'dz1 · 3 a^(3-1)'
    """
    meanings = {_written(p, rule.parameters, rule.text): names[p] for p in rule.parameters if p in names}
    meanings[rule.result] = names[rule.result]
    if rule.parameters and "x" not in meanings and rule.parameters[0] == "logits":
        meanings["x"] = names["logits"]
    spelled = sorted(meanings, key=len, reverse=True)
    token = re.compile(
        rf"(?<![A-Za-z`'])(d?)({'|'.join(map(re.escape, spelled))})(?![A-Za-z])|(?<![A-Za-z`'])[A-Za-z]\b"
    )
    parts: list[Part] = []
    position = 0
    for match in token.finditer(formula):
        before = formula[position : match.start()]
        if before:
            parts.append(Part("", before))
        if match[2] is None:
            parts.append(Part("", match[0] + suffix if match[0] in taken and match[0] not in "TeK" else match[0]))
        else:
            _append(parts, match[1], meanings[match[2]])
        position = match.end()
    return [*parts, Part("", formula[position:])] if formula[position:] else parts


def _append(parts: list[Part], d: str, name: str) -> None:
    """Append a name, or a number: in parentheses if it is negative, and after a dot if it is a factor."""
    if name[:1].isalpha() or name[:1] == "_":
        parts.append(Part("gradient" if d else "value", name))
        return
    if parts and parts[-1] == ("", " ") and len(parts) > 1 and parts[-2].kind:
        parts[-1] = Part("", " · ")
    parts.append(Part("number", f"({name})" if name.startswith("-") else name))


def plain(parts: list[Part]) -> str:
    """Return a formula as plain text."""
    return "".join([f"d{part.text}" if part.kind == "gradient" else part.text for part in parts])
