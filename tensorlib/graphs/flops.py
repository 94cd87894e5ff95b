"""The floating-point operations of an op's forward pass, counted from the shapes of its inputs and outputs.

A product of (n, k) and (k, m) takes 2nkm: a multiplication and an addition for each term. An elementwise op counts one
for each element of its output, whatever it computes: exp as much as add. A reduction counts one for each element of its
input. What only moves elements counts none. A softmax counts 5 for each element (largest, difference, exp, sum,
quotient), a layer norm 8 (mean, difference, square, sum, quotient, product, weight, bias). A fused op counts what the
ops of its formula would. An op of a user counts as elementwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

__all__ = ["flops_of"]

Shape = tuple[int, ...]
Count = Callable[[Sequence[Shape], Sequence[Shape]], int]

_MOVES = (
    "astype", "broadcast_to", "concatenate", "copy", "diagonal", "embedding", "getitem", "on_diagonal", "pad",
    "reshape", "scatter_add", "split", "transpose", "where", "windows",
)  # fmt: skip
_SOFTMAX, _NORM = 5, 8


def flops_of(op: str, inputs: Sequence[Shape], outputs: Sequence[Shape], heads: int = 1) -> int:
    """Return the number of floating-point operations of one op; see this file for what counts.

    `heads` is the number of heads in a multi-head attention, each of which has a softmax.

    >>> from tensorlib.graphs.flops import flops_of
    >>> flops_of("matmul", [(2, 3), (3, 4)], [(2, 4)]), flops_of("exp", [(2, 3)], [(2, 3)])
    (48, 6)
    """
    if op in _PROJECTIONS:
        return _PROJECTIONS[op](inputs, outputs) + _heads(inputs, heads)
    count = _COUNTS.get(op)
    return count(inputs, outputs) if count else _size(outputs)


def _size(shapes: Sequence[Shape]) -> int:
    return sum(map(math.prod, shapes))


def _nothing(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return 0


def _reduction(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return math.prod(inputs[0])


def _per_element(n: int) -> Count:
    return lambda inputs, outputs: n * math.prod(inputs[0])


def _product(x: Shape, weight: Shape) -> int:
    """Return the operations of x (..., k) times weight (k, m)."""
    return 2 * math.prod(x) * weight[-1]


def _matmul(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return 2 * math.prod(outputs[0]) * inputs[0][-1]


def _linear(extra: int) -> Count:
    def count(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
        return _product(inputs[0], inputs[1]) + (len(inputs) - 2 + extra) * math.prod(outputs[0])

    return count


def _feed_forward(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    x, w1, _, w2, _ = inputs
    hidden = (*x[:-1], w1[-1])
    return _product(x, w1) + 2 * math.prod(hidden) + _product(hidden, w2) + math.prod(outputs[0])


def _attention(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """Count two products, the scale and a softmax of (..., T, S), for q (..., T, K), k (..., S, K), v (..., S, V)."""
    q, k, v = inputs
    scores = math.prod(q[:-1]) * k[-2]
    return scores * (2 * q[-1] + 2 * v[-1] + 1 + _SOFTMAX)


def _self_projections(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    x, w, _, _, _ = inputs
    return _product(x, w) + math.prod(x[:-1]) * w[-1]


def _cross_projections(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    x, memory, w, _, _, _ = inputs
    width = w[-1] // 3  # the first third of w makes the queries of x, the rest keys and values of memory
    return (math.prod(x[:-1]) + 2 * math.prod(memory[:-1])) * width * (2 * x[-1] + 1)


def _heads(inputs: Sequence[Shape], heads: int) -> int:
    """Return the operations of all heads, for x (B, T, D) and memory (B, S, D) or x itself, and of the last layer."""
    x, memory, wo = inputs[0], inputs[-5], inputs[-2]
    rows, width = math.prod(x[:-1]), wo[0]
    return rows * memory[-2] * (4 * width + heads * (1 + _SOFTMAX)) + rows * wo[-1] * (2 * width + 1)


def _add_norm(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return (_NORM + 1) * math.prod(inputs[0])


def _linear_cross_entropy(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    rows, classes = math.prod(inputs[0][:-1]), inputs[1][-1]
    return _product(inputs[0], inputs[1]) + rows * classes * (len(inputs) - 2 + _SOFTMAX)


def _recurrent(gates: int, per_unit: int) -> Count:
    """Return the count of a layer with x (B, T, D), weight_x (D, gates H) and weight_h (H, gates H)."""

    def count(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
        x, weight_x, weight_h = inputs[:3]
        steps, units = math.prod(x[:-1]), weight_h[0]
        products = 2 * steps * (weight_x[0] + units) * gates * units
        return products + steps * units * (2 * gates + per_unit)

    return count


def _sampled_linear(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return 2 * math.prod(outputs[0]) * inputs[0][-1]


_COUNTS: Mapping[str, Count] = {
    **dict.fromkeys(_MOVES, _nothing),
    **dict.fromkeys(("sum", "prod", "sum_rows", "sum_windows", "cumsum", "cumprod", "max"), _reduction),
    "norm": _per_element(2),
    "logsumexp": _per_element(4),
    "logcumsumexp": _per_element(4),
    "recurrence": _per_element(2),
    "softmax": _per_element(_SOFTMAX),
    "log_softmax": _per_element(_SOFTMAX),
    "cross_entropy": _per_element(_SOFTMAX),
    "layer_norm": _per_element(_NORM),
    "add_norm": _add_norm,
    "matmul": _matmul,
    "linear": _linear(0),
    "linear_relu": _linear(1),
    "feed_forward": _feed_forward,
    "attention": _attention,
    "linear_cross_entropy": _linear_cross_entropy,
    "sampled_linear": _sampled_linear,
    "rnn": _recurrent(1, 1),
    "gru": _recurrent(3, 6),
    "lstm": _recurrent(4, 9),
}
_PROJECTIONS: Mapping[str, Count] = {"self_attention": _self_projections, "cross_attention": _cross_projections}
