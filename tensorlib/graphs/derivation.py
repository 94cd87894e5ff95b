"""`tl.derive`: the equations of a recorded computation and of its gradients, node by node, as text, LaTeX or a program.

A `Derivation` is plain data: names, shapes, numbers and copies of the arrays that were given. So it stays valid after
the backward pass has released the graph and an optimizer has changed the parameters.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorlib.arrays.backend import backend_of
from tensorlib.arrays.sharing import value_of
from tensorlib.engine.function import Function
from tensorlib.engine.value import Value
from tensorlib.graphs.building import names_of, recorded_nodes
from tensorlib.graphs.derivation_latex import latex_of
from tensorlib.graphs.derivation_text import text_of
from tensorlib.graphs.replay import replayed, require_same
from tensorlib.graphs.script import script_of
from tensorlib.graphs.steps import Given, Held, Step
from tensorlib.messages import plural
from tensorlib.tensor import Tensor

__all__ = ["Derivation", "derive"]


@dataclass(repr=False, eq=False)
class Derivation:
    """The equations of a computation and of its gradients; `print` shows them as text.

    Attributes:
        given: the leaves and constants that the ops use, each with its values.
        steps: the ops in the order in which they were recorded. The backward pass runs them from the last to the first.
        output: the symbol of the result.
        value: the result.
        seed: the gradient that the backward pass starts with; None: ones.

    >>> x = tl.Tensor([1.0, 2.0], requires_grad=True)
    >>> print(tl.derive(tl.sum(x * x), names={"x": x}))
    The derivation of z2: 2 ops, 1 input
    <BLANKLINE>
    given
      x  (2,)  float32, requires a gradient
    <BLANKLINE>
    forward
      z1 = x x                      (2,)  multiply
      z2 = sum of z1 over all axes  ()    sum, keepdims=False
    <BLANKLINE>
    backward
      dz2  = 1                                            ()
      dz1  = [every element of z1 gets the whole of dz2]  (2,)  sum
      dx   = dz1 x                                        (2,)  multiply, input 1
      dx  += dz1 x                                        (2,)  multiply, input 2
    <BLANKLINE>
    rules, from the docstrings of the ops
      multiply: z = x y => dx = dz y, dy = dz x.
      sum: y = sum of x over `axis` => every element of x gets the whole of dy.
    """

    given: list[Given] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    output: str = ""
    value: Any = None
    seed: Held | None = None

    def __str__(self) -> str:
        return text_of(self)

    def __repr__(self) -> str:
        return f"Derivation({self.headline()}; print it, or call .latex() or .script())"

    def headline(self) -> str:
        """Return the numbers of ops, inputs and constants, such as "3 ops, 2 inputs"."""
        inputs = sum(given.needs_gradient for given in self.given)
        constants = len(self.given) - inputs
        parts = [plural(len(self.steps), "op"), plural(inputs, "input")]
        return ", ".join(parts + [plural(constants, "constant")] * bool(constants))

    def latex(self, document: bool = False) -> str:
        r"""Return the equations in LaTeX: for each pass an ``align*`` of the package amsmath.

        With `document` it is a whole file for ``pdflatex``.

        >>> x = tl.Tensor(2.0, requires_grad=True)
        >>> print(tl.derive(tl.tanh(x), names={"x": x}).latex().splitlines()[2])
        {z_{1}} &= \tanh ({x}) &&\quad () &&\quad \text{tanh}
        """
        return latex_of(self, document)

    def script(self) -> str:
        """Return a Python program that computes the value and all gradients with NumPy alone, with the engine's bits.

        It contains the values that were given, the source of each op and of all that it uses, and one line per op for
        each pass. Its function ``run()`` returns (values, gradients), two dicts of arrays; run as a program it prints
        their shapes and checksums. The bits are those of an engine that runs the formulas themselves, with BLAS on one
        thread and the same NumPy (``TENSORLIB_KERNELS=0 TENSORLIB_THREADS=1``); kernels round differently.

        Raises ValueError if a gradient is changed by a hook, which no source can be given for, or if an op of a user
        needs anything but its own source, NumPy and Python's library.

        >>> x = tl.Tensor(2.0, requires_grad=True)
        >>> program = tl.derive(x * 3, names={"x": x}).script()
        >>> "import tensorlib" in program, "n1, z1 = computed(Multiply, (True, False), x, 3)" in program
        (False, True)
        """
        return script_of(self)

    def _repr_latex_(self) -> str | None:
        """Show the equations in a notebook, if there are not too many to read."""
        return self.latex() if len(self.steps) <= 200 else None


def derive(y: Tensor, names: Mapping[str, Any] | None = None, *, gradient: Any = None) -> Derivation:
    """Return the derivation of `y`: the equation of each op that computed it, and of each gradient.

    Call it before ``y.backward()``, which releases the graph, or pass ``retain_graph=True`` to it. `names` names
    Tensors: ``names={"x": x, "h": h}``, or simply ``names=locals()``. Other results are called z1, z2, ..., other
    inputs x1, x2, ..., constants c1, c2, ...; dz1 is the gradient of y with respect to z1. Each equation is the one
    that the docstring of the op's class states. `gradient` is the weight of each element of y, as in ``y.backward``;
    by default it is 1, also if y has several elements.

    Raises TypeError if y is not a Tensor, ValueError if it has no history or `gradient` does not have its shape,
    RuntimeError for a graph that was released.

    >>> x = tl.Tensor([[1.0, 2.0]], requires_grad=True)
    >>> w = tl.Tensor([[1.0], [0.5]], requires_grad=True)
    >>> derivation = tl.derive(tl.tanh(x @ w), names={"x": x, "w": w})
    >>> derivation
    Derivation(2 ops, 2 inputs; print it, or call .latex() or .script())
    >>> "dx  = dz1 w^T" in str(derivation)
    True
    """
    if not isinstance(y, Tensor):
        raise TypeError(f"derive: needs a Tensor, got {type(y).__name__}; call derive on the loss")
    if not y.requires_grad:
        raise ValueError(
            f"derive: nothing was recorded for the Tensor of shape {y.shape}: none of its inputs requires a "
            "gradient, or it was computed inside no_grad() or after detach()"
        )
    seed = None
    if gradient is not None:
        weights = np.asarray(gradient.numpy() if isinstance(gradient, Tensor) else gradient, y.dtype)
        if weights.shape != y.shape:
            raise ValueError(f"derive: the gradient must have the output's shape {y.shape}, got {weights.shape}")
        seed = Held.of(weights)
    return _Builder(names_of(names, "derive")).build(y, seed)


class _Builder:
    """Builds a Derivation. Identifies Tensors and arrays by id(), which is safe: the outputs keep all of them alive."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.derivation = Derivation()
        self.symbols: set[str] = set()
        self.symbol_of: dict[Any, str] = {}  # id of a leaf or of a constant's array, or (node, output) -> symbol
        self.counts = {"x": 0, "c": 0}
        self.named: dict[Any, str] = {}
        for name, x in names.items():
            if isinstance(x, Tensor):
                key = id(x) if x.node is None else (x.node, x.output_index)
                self.named.setdefault(key, str(name))
                self.named.setdefault(id(x.array), str(name))

    def build(self, y: Tensor, seed: Held | None) -> Derivation:
        found = self.derivation
        nodes = recorded_nodes([y], "derive")[::-1]
        for node, _, results in replayed(nodes, "derive"):
            for k, array in enumerate(results):
                require_same([y], (id(node), k), array, "derive")
        if y.node is None:
            self.leaf(y)
        for number, node in enumerate(nodes, start=1):
            found.steps.append(self.step(number, node))
        found.output = self.symbol_of[id(y) if y.node is None else (y.node, y.output_index)]
        found.value, found.seed = backend_of(y.array).to_numpy(y.array).copy(), seed
        return found

    def step(self, number: int, node: Function) -> Step:
        edges = node.edges or ()
        inputs = tuple([self.input(node, position) for position in range(len(edges))])
        several = len(node.output_types) > 1
        outputs = []
        for k in range(len(node.output_types)):
            own = f"z{number}_{k + 1}" if several else f"z{number}"
            outputs.append(self.new_symbol((node, k), self.named.get((node, k), ""), own))
        return Step(
            number=number,
            op=type(node),
            inputs=inputs,
            input_types=tuple([_type_of(given, edge) for given, edge in zip(node.input_types, edges, strict=True)]),
            needs=tuple([edge is not None for edge in edges]),
            outputs=tuple(outputs),
            output_types=tuple([(tuple(shape), np.dtype(dtype)) for shape, dtype in node.output_types]),
            attributes=dict(node.attributes or {}),
            path=node.path,
            precision=node.precision,
            hooked=bool(node.gradient_hooks),
            copied=_copied(node),
        )

    def input(self, node: Function, position: int) -> str | float:
        edge, (given, dtype) = (node.edges or ())[position], node.input_types[position]
        if edge is None:
            value = value_of(given, node.serial, f"derive: {node.name}")
            return value if dtype is None else self.constant(value)
        below, output = edge
        return self.leaf(below) if isinstance(below, Value) else self.symbol_of[below, output]

    def leaf(self, x: Value) -> str:
        if id(x) not in self.symbol_of:
            name = x.name or self.named.get(id(x), "")
            self.give(id(x), name, "x", x.array, needs_gradient=True, hooked=bool(getattr(x, "hooks", None)))
        return self.symbol_of[id(x)]

    def constant(self, array: Any) -> str:
        if id(array) not in self.symbol_of:
            self.give(id(array), self.named.get(id(array), ""), "c", array, needs_gradient=False, hooked=False)
        return self.symbol_of[id(array)]

    def give(self, key: int, name: str, letter: str, array: Any, needs_gradient: bool, hooked: bool) -> None:
        self.counts[letter] += 1
        symbol = self.new_symbol(key, name, f"{letter}{self.counts[letter]}")
        self.derivation.given.append(Given(symbol, name, needs_gradient, hooked, Held.of(array)))

    def new_symbol(self, key: Any, name: str, otherwise: str) -> str:
        """Return and note a symbol: the name if it can be one, or its last part if it is a path, or `otherwise`."""
        last = name.rpartition(".")[2]
        symbol = stem = last if _SYMBOL.fullmatch(last) and not keyword.iskeyword(last) else otherwise
        number = 1
        while (
            symbol in self.symbols or f"d{symbol}" in self.symbols or (symbol[:1] == "d" and symbol[1:] in self.symbols)
        ):
            number += 1
            symbol = f"{stem}_{number}"
        self.symbols.add(symbol)
        self.symbol_of[key] = symbol
        return symbol


_SYMBOL = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,19}", re.ASCII)


def _type_of(given: Sequence[Any], edge: Any) -> tuple[tuple[int, ...], Any]:
    """Return the shape and dtype of an input; the dtype of a Python number is None."""
    shape, dtype = given
    shape = getattr(shape, "shape", ()) if edge is None else shape
    return tuple(shape), None if dtype is None else np.dtype(dtype)


def _copied(node: Function) -> tuple[int, ...]:
    """Return the positions in ``saved`` of copies, made of arrays of the caller, that are laid out differently."""
    found = []
    for position, (role, array) in enumerate(node.saved_by_role()):
        if role >= 0 and (node.edges or ())[role] is None:
            given = value_of(node.input_types[role][0], node.serial, f"derive: {node.name}")
            if given is not array and getattr(given, "strides", None) != getattr(array, "strides", None):
                found.append(position)
    return tuple(found)
