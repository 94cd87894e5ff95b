"""For each op, which elements of its outputs can depend on which elements of its inputs.

A rule gets the sets of labels of an op's inputs and returns those of its outputs. It may add a label too many, and
never leaves one out that belongs there.

Masks count by what is fixed. A fixed 0 keeps what it multiplies out of a product or sum, and a fixed -inf keeps itself
out of a softmax and whatever is added to it out of the sum. Both are exact if the other elements are finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorlib.engine.function import Function
from tensorlib.ops import activations, arithmetic, cumulative, elementwise, exponential, extremes, reduce, trigonometric
from tensorlib.ops.add_norm import AddNorm, residual_sum
from tensorlib.ops.arguments import normalized_axes
from tensorlib.ops.attention import Attention, attention_weights
from tensorlib.ops.convolution import SumWindows, Windows
from tensorlib.ops.crossentropy import CrossEntropy
from tensorlib.ops.dropout import AddDropout, Dropout
from tensorlib.ops.feed_forward import FeedForward
from tensorlib.ops.indexing import Embedding, Getitem, ScatterAdd, SumRows, Where
from tensorlib.ops.linalg import Diagonal, Matmul, OnDiagonal
from tensorlib.ops.linear import Linear, LinearRelu
from tensorlib.ops.linear_cross_entropy import LinearCrossEntropy
from tensorlib.ops.multi_head_attention import CrossAttention, SelfAttention, attended
from tensorlib.ops.normalize import LayerNorm
from tensorlib.ops.rearrange import Pad
from tensorlib.ops.recurrent import Gru, Lstm, Rnn, steps
from tensorlib.ops.sampled_linear import SampledLinear
from tensorlib.ops.shape import Astype, BroadcastTo, Concatenate, Copy, Reshape, Split, Transpose
from tensorlib.ops.softmax import LogSoftmax, Softmax
from tensorlib.transforms.label_sets import Known, Labels, everything, over, union, without

__all__ = ["FORMULAS", "RULES", "Site", "anything"]


class Site(NamedTuple):
    """A recorded op and what is known of its inputs."""

    node: Function
    inputs: Sequence[Known]
    unknown: Labels
    """The set (words,) whose only label stands for whatever is neither a constant nor followed, such as a draw."""

    @property
    def attributes(self) -> dict[str, Any]:
        """The keyword arguments of the op."""
        return self.node.attributes or {}

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first output."""
        shape: tuple[int, ...] = self.node.output_types[0][0]
        return shape


Rule = Callable[[Site], list[Labels]]


def anything(site: Site) -> list[Labels]:
    """Return labels for an unknown op: every element of an output can depend on every element of every input."""
    found = np.bitwise_or.reduce([everything(x.labels) for x in site.inputs])
    return [union(shape, found) for shape, _ in site.node.output_types]


# ---- element by element ------------------------------------------------------------------------------------------


def elementwise_union(site: Site) -> list[Labels]:
    """Each element depends on the elements at its place; inputs broadcast."""
    return [union(site.shape, *[x.labels for x in site.inputs])]


def sum_of_two(site: Site) -> list[Labels]:
    """Return the union, except that a fixed infinity stays one, whatever finite number is added to it."""
    x, y = site.inputs
    return [without(union(site.shape, x.labels, y.labels), x.infinite | y.infinite)]


def product_of_two(site: Site) -> list[Labels]:
    """Return the union, except that a fixed 0 stays 0, whatever finite number it is multiplied by."""
    x, y = site.inputs
    return [without(union(site.shape, x.labels, y.labels), x.zero | y.zero)]


def quotient(site: Site) -> list[Labels]:
    """Return the union, except that a fixed 0 stays 0, whatever finite number except 0 it is divided by."""
    x, y = site.inputs
    return [without(union(site.shape, x.labels, y.labels), np.broadcast_to(x.zero, site.shape))]


def selected(site: Site) -> list[Labels]:
    """Each element depends on the one that the condition selects."""
    x, y = site.inputs
    return [union(site.shape, np.where(np.asarray(site.attributes["condition"])[..., None], x.labels, y.labels))]


def dropped(site: Site) -> list[Labels]:
    """Which elements are dropped is unknown: the proof holds for every draw. A fixed 0 stays 0."""
    *x, s = site.inputs  # the mask belongs to the last input
    return [union(site.shape, *[z.labels for z in x], without(s.labels | site.unknown, s.zero))]


# ---- elements in other places ------------------------------------------------------------------------------------


def moved(site: Site) -> list[Labels]:
    """Elements are moved, repeated or left out: run the op on their numbers. Number 0 is a constant between them."""
    words, start, numbers, tables = site.unknown.size, 1, [], [np.zeros((1, site.unknown.size), np.uint64)]
    for x in site.inputs:
        size = x.fixed.size
        numbers.append(np.arange(start, start + size).reshape(x.fixed.shape))
        tables.append(x.labels.reshape(-1, words))
        start += size
    fills: dict[str, Any] = {name: 0 for name in ("value", "fill") if name in site.attributes}
    found: Any = type(site.node).run(*numbers, **{**site.attributes, **fills})
    table = np.concatenate(tables)
    return [table[places] for places in (found if isinstance(found, tuple) else (found,))]


def added_in_places(site: Site) -> list[Labels]:
    """Elements are added at places that may coincide."""
    (x,), attributes, size = site.inputs, site.attributes, math.prod(site.shape)
    places = np.arange(1, size + 1).reshape(site.shape)
    if isinstance(site.node, SumWindows):
        places = Windows.run(places, grid=attributes["grid"], fill=0)
    else:
        places = places[attributes["index" if isinstance(site.node, ScatterAdd) else "ids"]]
    found = np.zeros((size + 1, site.unknown.size), np.uint64)  # the first row collects what falls into padding
    np.bitwise_or.at(found, np.broadcast_to(places, x.fixed.shape).reshape(-1), x.labels.reshape(-1, found.shape[1]))
    return [found[1:].reshape(*site.shape, site.unknown.size)]


# ---- along axes --------------------------------------------------------------------------------------------------


def reduced(site: Site) -> list[Labels]:
    """Each element depends on all elements along the reduced axes."""
    x, attributes = site.inputs[0], site.attributes
    axes = normalized_axes(attributes.get("axes", attributes.get("axis")), x.fixed.ndim, site.node.name)
    return [over(x.labels, axes, attributes["keepdims"])]


def running(site: Site) -> list[Labels]:
    """Each element depends on those up to its place along the axis; in a recurrence also on their factors."""
    x, axis = site.inputs[0].labels, site.attributes["axis"]
    if len(site.inputs) == 2:
        factors = site.inputs[1].labels.copy()
        factors.swapaxes(0, axis)[:1] = 0  # the first factor multiplies nothing
        x = x | factors
    return [np.bitwise_or.accumulate(x, axis=axis)]


def normalized_exponentials(site: Site) -> list[Labels]:
    """Each element of a softmax depends on all that are not hidden; the hidden ones are 0.

    Hidden are those outside the mask, and those that are -inf whatever the labelled elements are. A single visible
    element counts as one that depends on itself, although it is 1: a kernel may compute exp(x) / exp(x), with rounding.
    """
    (x,), visible = site.inputs, site.attributes.get("visible")
    axes = normalized_axes(site.attributes["axis"], x.fixed.ndim, site.node.name)
    hidden = x.infinite & (np.asarray(x.value) < 0)
    if visible is not None:
        hidden = hidden | ~np.asarray(visible)
    total = over(without(x.labels, hidden), axes, keepdims=True)
    return [without(union(site.shape, total), hidden)]


def normalized_rows(site: Site) -> list[Labels]:
    """Each element of a row depends on the whole row, and on weight and bias at its place."""
    x, *parameters = site.inputs
    return [union(site.shape, over(x.labels, x.fixed.ndim - 1, keepdims=True), *[p.labels for p in parameters])]


def losses_of_rows(site: Site) -> list[Labels]:
    """Each loss depends on the logits of its row; that of a row that is not counted is 0."""
    (logits,) = site.inputs
    return [without(over(logits.labels, 1), ~np.asarray(site.attributes["counted"]))]


# ---- products ----------------------------------------------------------------------------------------------------


def matrix_product(site: Site) -> list[Labels]:
    """z_ij depends on x_ik and y_kj for all k at which neither is a fixed 0; with a bias, also on b_j."""
    x, y, *bias = site.inputs
    row = x.fixed.ndim == 1
    if row:
        x = Known(x.labels[None], np.asarray(x.value)[None], x.fixed[None])
    from_x = _contracted(x.labels, ~y.zero)
    from_y = _contracted(y.labels.swapaxes(-2, -3), ~x.zero.swapaxes(-1, -2)).swapaxes(-2, -3)
    parts = [part[0] if row else part for part in (from_x, from_y)]
    return [union(site.shape, *parts, *[b.labels for b in bias])]


def _contracted(labels: Labels, counts: np.ndarray) -> Labels:
    """Return the union over the k that count: (..., n, m, words) for labels (..., n, k, words), counts (..., k, m).

    m is 1 if all count.
    """
    if counts.all():
        return over(labels, labels.ndim - 2)[..., None, :]
    lead = np.broadcast_shapes(labels.shape[:-3], counts.shape[:-2])
    found = np.zeros((*lead, labels.shape[-3], counts.shape[-1], labels.shape[-1]), np.uint64)
    for k in range(counts.shape[-2]):
        found |= np.where(counts[..., k, None, :, None], labels[..., k, None, :], np.uint64(0))
    return found


def rectified_product(site: Site) -> list[Labels]:
    """As the product; which elements are then dropped is unknown."""
    labels = matrix_product(site)[0]
    return [labels | site.unknown if site.attributes["p"] else labels]


def sampled_product(site: Site) -> list[Labels]:
    """y_k depends on x and on row i_k of the table."""
    x, weight = site.inputs
    rows = over(weight.labels, 1)[site.attributes["ids"]]
    return [union(site.shape, over(x.labels, x.fixed.ndim - 1)[..., None, :], rows)]


# ---- recurrent layers --------------------------------------------------------------------------------------------


def recurrent(site: Site) -> list[Labels]:
    """Let a step depend on its input, the state before it and the weights; an invisible step keeps the state."""
    count, visible = len(site.node.output_types), site.attributes["visible"]
    x, *weights = [known.labels for known in site.inputs[:-count]]
    states = [known.labels for known in site.inputs[-count:]]
    constant = np.bitwise_or.reduce([everything(w) for w in weights])
    found: list[list[Labels]] = [[] for _ in states]
    reverse = site.attributes["reverse"]
    for t in steps(x.shape[1], reverse):
        read = over(x[:, t], 1, keepdims=True) | constant
        after = np.bitwise_or.reduce([read, *[over(state, 1, keepdims=True) for state in states]])
        for k, state in enumerate(states):
            new = np.broadcast_to(after, state.shape)
            states[k] = new if visible is None else np.where(np.asarray(visible)[:, t : t + 1, None], new, state)
            found[k].append(states[k])
    return [np.stack(labels[::-1] if reverse else labels, axis=1) for labels in found]


# ---- the tables --------------------------------------------------------------------------------------------------


def _ops(rule: Rule, *ops: type[Function]) -> dict[type[Function], Rule]:
    return dict.fromkeys(ops, rule)


RULES: Mapping[type[Function], Rule] = {
    **_ops(
        elementwise_union,
        activations.Relu, activations.Gelu, activations.GeluTanh,
        arithmetic.Negative, arithmetic.Reciprocal, arithmetic.Power, arithmetic.Remainder, arithmetic.Maximum,
        arithmetic.Minimum, arithmetic.Clip,
        elementwise.Sqrt, elementwise.Rsqrt, elementwise.Square, elementwise.Abs, elementwise.Kink, elementwise.Erf,
        exponential.Exp, exponential.Exp2, exponential.Expm1, exponential.Log, exponential.Log2, exponential.Log10,
        exponential.Log1p, exponential.Sigmoid, exponential.Logaddexp, exponential.Softplus,
        trigonometric.Sin, trigonometric.Cos, trigonometric.Tan, trigonometric.Arcsin, trigonometric.Arccos,
        trigonometric.Arctan, trigonometric.Arctan2, trigonometric.Sinh, trigonometric.Cosh, trigonometric.Tanh,
        Astype, Copy,
    ),
    **_ops(sum_of_two, arithmetic.Add, arithmetic.Subtract),
    **_ops(product_of_two, arithmetic.Multiply),
    **_ops(quotient, arithmetic.Divide),
    **_ops(selected, Where),
    **_ops(dropped, Dropout, AddDropout),
    **_ops(moved, Reshape, Transpose, Getitem, BroadcastTo, Concatenate, Split, Diagonal, OnDiagonal, Pad, Windows),
    **_ops(moved, Embedding),
    **_ops(added_in_places, ScatterAdd, SumRows, SumWindows),
    **_ops(reduced, reduce.Sum, reduce.Prod, reduce.Logsumexp, reduce.Norm, extremes.Max, extremes.Min),
    **_ops(running, cumulative.Cumsum, cumulative.Cumprod, cumulative.Logcumsumexp, cumulative.Recurrence),
    **_ops(normalized_exponentials, Softmax, LogSoftmax),
    **_ops(normalized_rows, LayerNorm),
    **_ops(losses_of_rows, CrossEntropy),
    **_ops(matrix_product, Matmul, Linear),
    **_ops(rectified_product, LinearRelu),
    **_ops(sampled_product, SampledLinear),
    **_ops(recurrent, Rnn, Lstm, Gru),
}  # fmt: skip
"""The rule of each op that is not composed of others."""


def _attention(q: Any, k: Any, v: Any, pattern: Any) -> Any:
    return Matmul.apply(pattern.drop(attention_weights(q, k, pattern.mask(q, k))), v)


def _self_attention(x: Any, w: Any, b: Any, wo: Any, bo: Any, heads: int, pattern: Any) -> Any:
    return Linear.apply(attended(Linear.apply(x, w, b), None, heads, pattern)[2], wo, bo)


def _cross_attention(x: Any, memory: Any, w: Any, b: Any, wo: Any, bo: Any, heads: int, pattern: Any) -> Any:
    d = x.shape[-1]
    q, kv = Linear.apply(x, w[:, :d], b[:d]), Linear.apply(memory, w[:, d:], b[d:])
    return Linear.apply(attended(q, kv, heads, pattern)[2], wo, bo)


def _feed_forward(x: Any, w1: Any, b1: Any, w2: Any, b2: Any, p: float, key: int, draw: int) -> Any:
    return Linear.apply(LinearRelu.apply(x, w1, b1, p=p, key=key, draw=draw), w2, b2)


def _add_norm(x: Any, s: Any, weight: Any, bias: Any, eps: float, drop: tuple[float, int, int]) -> Any:
    return LayerNorm.apply(residual_sum(x, s, drop), weight, bias, eps=eps)


def _linear_cross_entropy(x: Any, w: Any, *bias: Any, **classes: Any) -> Any:
    return CrossEntropy.apply(Linear.apply(x, w, *bias), **classes).sum()


FORMULAS: Mapping[type[Function], Callable[..., Any]] = {
    Attention: _attention,
    SelfAttention: _self_attention,
    CrossAttention: _cross_attention,
    FeedForward: _feed_forward,
    AddNorm: _add_norm,
    LinearCrossEntropy: _linear_cross_entropy,
}
"""For each op that is composed of others, its value as a composition of these."""
