r"""A `Derivation` in LaTeX: two ``align*`` environments, for which amsmath suffices.

Formulas of docstrings are plain text, such as "x^T dz" or "dy where x > 0, else 0". `math` turns them into LaTeX: names
of the graph, numbers, operators, exponents and subscripts into mathematics, words into \text{words}. What it does not
know it escapes, so every result compiles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tensorlib.graphs.equations import Equation, backward_equations, forward_equations
from tensorlib.graphs.formulas import Part

if TYPE_CHECKING:
    from tensorlib.graphs.derivation import Derivation

__all__ = ["math", "words"]


def latex_of(derivation: Derivation, document: bool) -> str:
    """Return both passes, each as an ``align*`` environment; with `document` as a file that LaTeX accepts."""
    forward = _align(forward_equations(derivation))
    backward = _align(backward_equations(derivation))
    result = _symbol(derivation.output)
    given = [
        f"${_symbol(g.symbol)}$: {words(str(tuple(g.held.values.shape)))}"
        + (f", {words(g.name)}" if g.name not in ("", g.symbol) else "")
        for g in derivation.given
    ]
    body = "\n".join(
        [
            rf"% The derivation of {derivation.output}; dx is the gradient of {derivation.output} with respect to x.",
            forward,
            "",
            backward,
        ]
    )
    if not document:
        return body
    start = [r"\documentclass{article}", r"\usepackage[landscape,margin=1cm]{geometry}", r"\usepackage{amsmath}"]
    begin = [r"\allowdisplaybreaks", r"\begin{document}", rf"The derivation of ${result}$. Given:", ""]
    return "\n".join([*start, *begin, *[f"{line}\n" for line in given], body, r"\end{document}", ""])


def _align(equations: Sequence[Equation]) -> str:
    lines = []
    for e in equations:
        relation = "=" if e.relation == "=" else r"\mathrel{+}="
        note = rf" &&\quad \text{{{words(e.op)}}}" if e.op else ""
        lines.append(rf"{math(e.left)} &{relation} {math(e.right)} &&\quad {_escaped(e.shape)}{note}")
    joined = " \\\\\n".join(lines)
    return f"\\begin{{align*}}\n{joined}\n\\end{{align*}}"


# ---- formulas --------------------------------------------------------------------------------------------------------

_FIRST = 0xE000  # private characters stand for names and numbers while the text around them is read
_FUNCTIONS = {"exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "max", "min"}
_SIGNS = {
    "<=": r"\le ", ">=": r"\ge ", "!=": r"\ne ", "=>": r"\Rightarrow ", "+=": r"\mathrel{+}=", "...": r"\dots ",
    "·": r"\cdot ",
}  # fmt: skip
_TOKEN = re.compile(
    r"(?P<inner><(?=[^\s=])[^<>]*(?<=\S)>)|(?P<sign><=|>=|!=|=>|\+=|\.\.\.|·)|(?P<up>[\^_])|(?P<call>[A-Za-z]{2,}(?:_[A-Za-z0-9]+)+(?=\())|(?P<word>[A-Za-z]{2,})|(?P<any>.)",
    re.DOTALL,
)


def math(parts: Sequence[Part]) -> str:
    r"""Return a formula in LaTeX's mathematics.

    >>> math([Part("gradient", "z2"), Part("", " "), Part("value", "W"), Part("", "^T where "), Part("value", "x")])
    '{\\mathrm{d}z_{2}}\\,{W}^{\\top} \\text{ where } {x}'
    """
    named = [part for part in parts if part.kind]
    text, count = "", 0
    for part in parts:
        if part.kind:
            text += chr(_FIRST + count)
            count += 1
        else:
            text += "".join([c if not _FIRST <= ord(c) < _FIRST + len(named) else "?" for c in part.text])
    return re.sub(r"\} \\text\{ *", "} \\\\text{ ", _read(text, [_named(part) for part in named]))


def _read(text: str, names: Sequence[str]) -> str:
    found: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match is not None  # the last alternative matches any character
        position = match.end()
        kind, token = match.lastgroup, match[0]
        if kind == "up":
            argument, position = _argument(text, position)
            inner = r"\top" if argument == "T" else _read(argument, names)
            found.append(("{}" if found and found[-1].startswith(token) else "") + f"{token}{{{inner}}}")  # a_i_j
        elif kind == "call":
            found.append(rf"\operatorname{{{_escaped(token)}}}")
        elif kind == "inner":
            found.append(rf"\langle {_read(token[1:-1], names)}\rangle ")
        elif kind == "sign":
            found.append(_SIGNS[token])
        elif kind == "word":
            found.append(_word(token, text[position : position + 1]))
        elif token == " ":
            thin = found and _ends_factor(found[-1]) and _starts_factor(text[position:])
            found.append(r"\," if thin else " ")
        else:
            number = ord(token) - _FIRST
            found.append(names[number] if 0 <= number < len(names) else _escaped(token))
    return _merged(found)


def _argument(text: str, position: int) -> tuple[str, int]:
    """Return the exponent or subscript that starts here, without its parentheses, and where it ends."""
    closing = {"(": ")", "{": "}", "|": "|"}
    sign = "-" if text[position : position + 1] == "-" else ""
    start = position + len(sign)
    opening = text[start : start + 1]
    if opening not in closing or not opening:
        match = re.compile(r"[A-Za-z0-9\ue000-\uf8ff]+|\.\.|.?", re.DOTALL).match(text, start)
        assert match is not None
        return sign + match[0], match.end()
    depth = 0
    for end in range(start, len(text)):
        depth += (text[end] == opening) - (text[end] == closing[opening] and (opening != "|" or end > start))
        if (opening == "|" and end > start and text[end] == "|") or (opening != "|" and depth == 0):
            inside = text[start + 1 : end]
            return sign + (f"|{inside}|" if opening == "|" else inside), end + 1
    return sign + opening, start + 1


def _ends_factor(token: str) -> bool:
    """Return whether a token is a name, an exponent or a closing parenthesis, but not a word or a function."""
    return token[-1].isalnum() or (token[-1] in "})]" and not token.startswith("\\"))


def _starts_factor(rest: str) -> bool:
    """Return whether text goes on with a name or a parenthesis, so that a space before it stands for a product."""
    return re.match(r"[\ue000-\uf8ff(]|[A-Za-z](?![A-Za-z])", rest) is not None


def _word(word: str, following: str) -> str:
    if word in _FUNCTIONS:
        return rf"\{word} "
    if word == "sum" and following == "_":
        return r"\sum"
    if word[0] == "d" and len(word) == 2:  # the gradient of a value that the rule itself introduces, as dz
        return rf"{{\mathrm{{d}}{word[1]}}}"
    if following == "(":
        return rf"\operatorname{{{word}}}"
    if word == "pi":
        return r"\pi "
    return rf"\text{{{word}}}"


def _merged(tokens: list[str]) -> str:
    r"""Join tokens; a space beside \text goes into it, because mathematics shows no spaces."""
    joined = "".join(tokens)
    joined = re.sub(r" ?(\\text\{[^{}]*)\} ", r" \1 } ", joined)
    joined = re.sub(r" \\text\{(?=[^ ])", r" \\text{ ", joined)
    while (merged := re.sub(r"(\\text\{[^{}]*)\} *\\text\{ *([^{}]*\})", r"\1 \2", joined)) != joined:
        joined = merged
    joined = re.sub(r"(^|[(\[]) *\\text\{ ", r"\1\\text{", joined.strip())
    return re.sub(r" {2,}", " ", joined)


def _named(part: Part) -> str:
    symbol = part.text if part.kind == "number" else _symbol(part.text)
    return rf"{{\mathrm{{d}}{symbol}}}" if part.kind == "gradient" else f"{{{symbol}}}"


def _symbol(name: str) -> str:
    r"""Return an identifier in mathematics: z_{12}, x, \mathit{weight}_{2}."""
    stem, number = re.fullmatch(r"(.*?)_?(\d*(?:_\d+)*)", name).groups()  # type: ignore[union-attr]  # matches all
    stem = stem if len(stem) == 1 else rf"\mathit{{{_escaped(stem)}}}" if stem else ""
    subscript = number.strip("_").replace("_", ",")
    return f"{stem}_{{{subscript}}}" if subscript else stem


def _escaped(text: str) -> str:
    r"""Return text in which no character has a meaning to TeX; characters beyond ASCII by their number."""
    return "".join([_ESCAPES.get(c, c if " " <= c <= "~" else rf"\text{{u{ord(c):04x}}}") for c in text])


_ESCAPES = {
    "\\": r"\backslash ", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\hat{}", "~": r"\sim ", "`": "", "'": "'",
}  # fmt: skip
_IN_WORDS = {
    "\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}", "`": "'", '"': "''", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "-": "{-}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&",
    "#": r"\#", "%": r"\%", "_": r"\_",
}  # fmt: skip


def words(text: str, most: int = 60) -> str:
    r"""Return text for LaTeX outside of mathematics, cut if it is long; characters beyond ASCII by their number.

    >>> words(r"50% of \input{x}")
    '50\\% of \\textbackslash{}input\\{x\\}'
    """
    text = text if len(text) <= most else f"{text[: most - 3]}..."
    return "".join([_IN_WORDS.get(c, c if " " <= c <= "~" else f"<u{ord(c):04x}>".translate(_ANGLES)) for c in text])


_ANGLES = str.maketrans({"<": "[", ">": "]"})
