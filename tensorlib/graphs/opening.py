"""Fused ops opened: a recorded graph recorded again, with the ops of its formula in the place of each op.

An op's ``forward`` is a formula that also runs on Tensors, as under ``create_graph``. Run on Tensors it records the ops
that it consists of; so every picture of a formula is made from the formula itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorlib.engine.function import Function
from tensorlib.engine.node import op_name
from tensorlib.engine.recording import Watch, recording
from tensorlib.engine.value import Value
from tensorlib.graphs.replay import Slot, inputs_of
from tensorlib.tensor import Tensor

__all__ = ["opened"]

# Functions of one number: their forward evaluates them without overflow, or by polynomials, which explains nothing.
ELEMENTARY = ("Erf", "Logaddexp", "Logcumsumexp", "Sigmoid", "Softplus")


def opened(
    nodes: Sequence[Function], operation: str, inputs: Sequence[Any] = ()
) -> tuple[list[Function], dict[Slot, Tensor]]:
    """Return the nodes of the opened graph, oldest first, and the Tensor that each output of `nodes` has become.

    `nodes` must be sorted oldest first and hold all nodes below them, except those of the Tensors `inputs`. The path of
    an op of a formula ends in the name of the op that it is a part of, such as "encoder.norm.layer_norm()". Ops that
    are a single step stay as they are, and so do elementary functions and the ops of users.

    >>> from tensorlib.graphs.opening import opened
    >>> y = tl.softmax(tl.Tensor([1.0, 2.0], requires_grad=True))
    >>> [node.name for node in opened([y.node], "graph")[0]]
    ['max', 'where', 'subtract', 'exp', 'sum', 'where', 'divide']
    """
    recorded: list[Function] = []
    tensors = {(id(x.node), x.output_index): x for x in inputs if isinstance(x, Tensor) and x.node is not None}
    for node in nodes:
        arguments = _tensors(node, tensors, operation)
        noted = _Noted()
        with recording(record=True, formulas=False, tape=None, precision=node.precision, watch=noted):
            outputs = _formula(node, arguments, noted, operation)
            if outputs is None:
                noted.nodes.clear()
                with recording(path=node.path):
                    result = type(node).apply(*arguments, **(node.attributes or {}))
                outputs = result if isinstance(result, tuple) else (result,)
        for made in noted.nodes:
            made.source = node.source
        recorded += noted.nodes
        tensors |= {(id(node), k): y for k, y in enumerate(outputs) if isinstance(y, Tensor)}
    return recorded, tensors


class _Noted(Watch):
    """The nodes recorded, in order."""

    def __init__(self) -> None:
        self.nodes: list[Function] = []

    def forward(self, node: Function, inputs: Sequence[Any], outputs: Sequence[Tensor]) -> None:
        """Note the node, if it was recorded."""
        if node.edges is not None:
            self.nodes.append(node)


def _tensors(node: Function, tensors: dict[Slot, Tensor], operation: str) -> list[Any]:
    """Return the arguments of the op: Tensors of the opened graph and leaves; arrays and numbers where it got these."""
    plain = inputs_of(node, _Arrays(tensors), operation)
    found: list[Any] = []
    for edge, x in zip(node.edges or (), plain, strict=True):
        if edge is None:
            found.append(x)
        else:
            found.append(edge[0] if isinstance(edge[0], Value) else tensors[id(edge[0]), edge[1]])
    return found


class _Arrays(dict[Slot, Any]):
    """The arrays of Tensors."""

    def __init__(self, tensors: dict[Slot, Tensor]) -> None:
        super().__init__()
        self._tensors = tensors

    def __missing__(self, slot: Slot) -> Any:
        return self._tensors[slot].array


def _formula(node: Function, inputs: Sequence[Any], noted: _Noted, operation: str) -> tuple[Any, ...] | None:
    """Run the op's `forward` on Tensors, and open what it records; return None for an op of a single step."""
    cls = type(node)
    if cls.guarded or cls.__name__ in ELEMENTARY:
        return None
    op = cls()
    op.needs = (False,) * len(inputs)
    name = f"{op_name(cls)}()"
    path = node.path if node.path.rpartition(".")[2] == name else ".".join([*([node.path] if node.path else []), name])
    try:
        with recording(path=path):
            result = op.forward(*inputs, **(node.attributes or {}))
    except (AttributeError, TypeError, ValueError):  # it fills an array: no composition of ops
        return None
    outputs = result if isinstance(result, tuple) else (result,)
    if len(noted.nodes) < 2 or not all(isinstance(y, Tensor) for y in outputs[: len(node.output_types)]):
        return None
    inner, tensors = opened(noted.nodes, operation, inputs)
    noted.nodes = inner
    return tuple([tensors.get((id(y.node), y.output_index), y) for y in outputs[: len(node.output_types)]])
