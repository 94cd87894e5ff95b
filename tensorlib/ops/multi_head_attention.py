"""Attention with its projections, the first sub-layers of a Transformer, in one op.

Shape suffixes: B sentences, T queries, S keys, L either of them, D width, H heads, K = D / H head width.
"""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.arrays.random import Generator
from tensorlib.engine.function import STATE, Function, as_tensor, derivation
from tensorlib.messages import shown
from tensorlib.ops.arguments import at_least_float32, check_flag
from tensorlib.ops.attention import (
    Attention,
    AttentionPattern,
    attention_formula,
    attention_gradient,
    check_causal,
    checked_visible,
)
from tensorlib.ops.dropout import checked_probability, next_draw
from tensorlib.ops.linear import Linear, linear_formula, linear_gradient, linear_operands
from tensorlib.ops.shape import Split

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["multi_head_attention"]


class SelfAttention(Function):
    """y = (heads side by side) wo + bo, where head h is softmax(q_h k_h^T / sqrt(K)) v_h and [q k v] = x w + b.

    Its gradient is that of the ops that it is composed of, in reverse  =>  that of the linear layer with wo, of the
    attention of each head (see `Attention`), and of the linear layer with w, whose dz is [dq dk dv].

    Keeps x, w, b, wo and pattern; statistics: projections, outputs of heads, (by a kernel, for each query) largest
    score, sum of exponentials.
    Kernels: numpy/attention.py, numba/attention.py, numba/multi_head_attention.py, cuda/attention.py,
    cuda/multi_head_attention.py.
    """

    fresh = True

    def forward(
        self, x: Array, w: Array, b: Array, wo: Array, bo: Array, heads: int, pattern: AttentionPattern
    ) -> Array:
        self.heads, self.pattern = heads, pattern
        y, self.statistics = self_attention_formula(x, w, b, wo, bo, heads, pattern)
        self.save(x, w, b, wo)
        return y

    def backward(self, dy: Array) -> Any:
        x, w, b, wo = self.saved
        kept = self.statistics or attended(Linear.run(x, w, b), None, self.heads, self.pattern)
        return self_attention_gradient(dy, x, w, wo, kept, self.heads, self.pattern, self.needs)


class CrossAttention(Function):
    """As `SelfAttention`, but queries come from x, q = x wq + bq, and keys and values from memory, [k v] = m wkv + bkv.

    wq is the first D columns of w, wkv the others.

    Keeps x, memory, w, b, wo and pattern; statistics: queries, keys with values, outputs of heads, (by a kernel, for
    each query) largest score, sum of exponentials.
    Kernels: numpy/attention.py, numba/attention.py, numba/multi_head_attention.py, cuda/attention.py,
    cuda/multi_head_attention.py.
    """

    fresh = True

    def forward(
        self, x: Array, memory: Array, w: Array, b: Array, wo: Array, bo: Array, heads: int, pattern: AttentionPattern
    ) -> Array:
        self.heads, self.pattern = heads, pattern
        y, self.statistics = cross_attention_formula(x, memory, w, b, wo, bo, heads, pattern)
        self.save(x, memory, w, b, wo)
        return y

    def backward(self, dy: Array) -> Any:
        x, memory, w, b, wo = self.saved
        kept = self.statistics
        if kept is None:
            d = x.shape[-1]
            q, kv = Linear.run(x, w[:, :d], b[:d]), Linear.run(memory, w[:, d:], b[d:])
            kept = attended(q, kv, self.heads, self.pattern)
        return cross_attention_gradient(dy, x, memory, w, wo, kept, self.heads, self.pattern, self.needs)


# ---- the formulas ------------------------------------------------------------------------------------------------


@singledispatch
def self_attention_formula(
    x: Array, w: Array, b: Array, wo: Array, bo: Array, heads: int, pattern: AttentionPattern
) -> tuple[Array, Any]:
    """Return y, and what the gradient needs."""
    kept = attended(linear_formula(x, w, b), None, heads, pattern)
    return linear_formula(kept[2], wo, bo), kept


@singledispatch
def cross_attention_formula(
    x: Array, memory: Array, w: Array, b: Array, wo: Array, bo: Array, heads: int, pattern: AttentionPattern
) -> tuple[Array, Any]:
    """Return y, and what the gradient needs."""
    d = x.shape[-1]
    q, kv = linear_formula(x, w[:, :d], b[:d]), linear_formula(memory, w[:, d:], b[d:])
    kept = attended(q, kv, heads, pattern)
    return linear_formula(kept[2], wo, bo), kept


def attended(q: Array, kv: Array | None, heads: int, pattern: AttentionPattern) -> tuple[Any, ...]:
    """Return the projections, the heads' outputs (B, T, D), and the statistics of attention.

    q holds queries (B, T, D) and kv keys and values (B, S, 2D), or q holds all three and kv is None.
    """
    q_BHTK, k_BHSK, v_BHSK = heads_of(q, kv, heads)
    if hasattr(q, "requires_grad"):  # under create_graph
        y_BHTK, statistics = Attention.run(q_BHTK, k_BHSK, v_BHSK, pattern=pattern), None
    else:
        y_BHTK, statistics = attention_formula(q_BHTK, k_BHSK, v_BHSK, pattern)
    return q, kv, merged(y_BHTK), statistics


def heads_of(q: Array, kv: Array | None, heads: int) -> list[Array]:
    """Return queries, keys and values as (B, H, L, K)."""
    parts = (*Split.run(q, sizes=[q.shape[-1] // 3] * 3, axis=2),) if kv is None else (
        q, *Split.run(kv, sizes=[kv.shape[-1] // 2] * 2, axis=2)
    )  # fmt: skip
    return [split_heads(x, heads) for x in parts]


def split_heads(x_BLD: Array, heads: int) -> Array:
    """Return (B, L, D) as (B, H, L, K)."""
    batch, length, width = x_BLD.shape
    return x_BLD.reshape((batch, length, heads, width // heads)).swapaxes(1, 2)


def merged(x_BHLK: Array) -> Array:
    """Return the heads side by side, (B, L, D)."""
    batch, heads, length, width = x_BHLK.shape
    return x_BHLK.swapaxes(1, 2).reshape(batch, length, heads * width)


@singledispatch
def self_attention_gradient(
    dy: Array, x: Array, w: Array, wo: Array, kept: Any, heads: int, pattern: AttentionPattern, needs: tuple[bool, ...]
) -> tuple[Array | None, ...]:
    """Return dx, dw, db, dwo and dbo; each is None if it is not needed."""
    dparts, dwo, dbo = _gradient_of_heads(dy, wo, kept, heads, pattern, (any(needs[:3]), *needs[3:]))
    if dparts is None:
        return None, None, None, dwo, dbo
    xp = namespace_of(dy)
    dx, dw, db = linear_gradient(xp.concatenate(dparts, axis=-1), x, w, needs[:3])
    return dx, dw, db, dwo, dbo


@singledispatch
def cross_attention_gradient(
    dy: Array,
    x: Array,
    memory: Array,
    w: Array,
    wo: Array,
    kept: Any,
    heads: int,
    pattern: AttentionPattern,
    needs: tuple[bool, ...],
) -> tuple[Array | None, ...]:
    """Return dx, dmemory, dw, db, dwo and dbo; each is None if it is not needed."""
    dparts, dwo, dbo = _gradient_of_heads(dy, wo, kept, heads, pattern, (any(needs[:4]), *needs[4:]))
    if dparts is None:
        return None, None, None, None, dwo, dbo
    d, xp = x.shape[-1], namespace_of(dy)
    dx, dwq, dbq = linear_gradient(dparts[0], x, w[:, :d], (needs[0], *needs[2:4]))
    dmemory, dwkv, dbkv = linear_gradient(xp.concatenate(dparts[1:], axis=-1), memory, w[:, d:], needs[1:4])
    dw = xp.concatenate([dwq, dwkv], axis=1) if needs[2] else None
    return dx, dmemory, dw, xp.concatenate([dbq, dbkv]) if needs[3] else None, dwo, dbo


def _gradient_of_heads(
    dy: Array, wo: Array, kept: Any, heads: int, pattern: AttentionPattern, needs: tuple[bool, ...]
) -> tuple[Any, Array | None, Array | None]:
    """Return [dq, dk, dv], each (B, L, D), dwo and dbo."""
    q, kv, y_BTD, statistics = kept
    dheads_BTD, dwo, dbo = linear_gradient(dy, y_BTD, wo, needs)
    if dheads_BTD is None:
        return None, dwo, dbo
    dy_BHTK, (q_BHTK, k_BHSK, v_BHSK) = split_heads(dheads_BTD, heads), heads_of(q, kv, heads)
    gradients: Any = attention_gradient(dy_BHTK, q_BHTK, k_BHSK, v_BHSK, pattern, statistics, (True, True, True))
    return [merged(d) for d in gradients], dwo, dbo


# ---- the public function -----------------------------------------------------------------------------------------


@derivation(SelfAttention, CrossAttention)
@at_least_float32
def multi_head_attention(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike,
    output_weight: TensorLike,
    output_bias: TensorLike,
    memory: TensorLike | None = None,
    visible: TensorLike | None = None,
    *,
    heads: int,
    causal: bool = False,
    dropout: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """Return attention by several heads with its projections, (B, T, D) for x (B, T, D): Vaswani et al. 2017, 3.2.2.

    `weight` (D, 3D) and `bias` (3D,) project to queries, keys and values side by side; `output_weight` (D, D) and
    `output_bias` (D,) project the heads' outputs. Keys and values come from x or, if it is given, from `memory`
    (B, S, D). `visible`, `causal`, `dropout` and `generator` are as in `tl.scaled_dot_product_attention`, whose
    scores are (B, H, T, S).

    It is one op; within `tl.record_formulas` and `tl.debug` it records the ops that it is composed of.

    Raises ValueError if shapes do not fit, and TypeError if `visible` is not boolean.

    >>> x, rng = tl.ones((2, 3, 4)), np.random.default_rng(0)
    >>> w, wo = rng.normal(size=(4, 12)), rng.normal(size=(4, 4))
    >>> tl.multi_head_attention(x, w, np.zeros(12), wo, np.zeros(4), heads=2, causal=True).shape
    (2, 3, 4)
    """
    name = "multi_head_attention"
    check_flag(name, "causal", causal)
    p = checked_probability(name, "dropout", dropout)
    inputs, weights = _operands(name, x, weight, bias, output_weight, output_bias, memory)
    (batch, queries, width), keys = inputs[0].shape, inputs[-1].shape[1]
    if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1 or width % heads:
        raise ValueError(f"{name}: heads must be an integer that divides the width {width}, got {shown(heads)}")
    if causal:
        check_causal(name, queries, keys)
    mask = None if visible is None else checked_visible(visible, (batch, heads, queries, keys), inputs[0])
    pattern = AttentionPattern(mask, causal, p, *next_draw(name, p, generator))
    if STATE.get().formulas:
        return _composed(inputs, weights, heads, pattern)
    op = SelfAttention if memory is None else CrossAttention
    return op.apply(*inputs, *weights, heads=heads, pattern=pattern)


def _operands(
    name: str, x: Any, weight: Any, bias: Any, output_weight: Any, output_bias: Any, memory: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """Return x and, if it is given, the memory; and weights and biases, after checking that all shapes fit."""
    x = as_tensor(x)
    x, weight, bias = linear_operands(name, x, weight, as_tensor(bias, like=x))
    _, output_weight, output_bias = linear_operands(name, x, output_weight, as_tensor(output_bias, like=x))
    width = x.shape[-1]
    if x.ndim != 3 or weight.shape[1] != 3 * width or output_weight.shape[1] != width:
        raise ValueError(
            f"{name}: x must be (B, T, D), weight (D, 3D) and output_weight (D, D), got {x.shape}, {weight.shape} and "
            f"{output_weight.shape}"
        )
    inputs = [x] if memory is None else [x, as_tensor(memory, like=x)]
    if inputs[-1].ndim != 3 or inputs[-1].shape[::2] != x.shape[::2]:
        raise ValueError(f"{name}: memory must be (B, S, D) with B and D of x {x.shape}, got {inputs[-1].shape}")
    return inputs, [weight, bias, output_weight, output_bias]


def _composed(inputs: list[Tensor], weights: Any, heads: int, pattern: AttentionPattern) -> Tensor:
    """Return y as a composition of ops that are recorded one by one."""
    (x, *memory), (w, b, wo, bo), d = inputs, weights, inputs[0].shape[-1]
    if memory:
        q, kv = Linear.apply(x, w[:, :d], b[:d]), Linear.apply(*memory, w[:, d:], b[d:])
    else:
        q, kv = Linear.apply(x, w, b), None
    y_BHTK = Attention.apply(*heads_of(q, kv, heads), pattern=pattern)
    return Linear.apply(merged(y_BHTK), wo, bo)
