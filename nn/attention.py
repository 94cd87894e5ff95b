"""Multi-head attention and its masks.

Shape suffixes: B batch, T queries (target length), S keys (source length), D width, H heads, K head width.
Masks are called `visible`, and True means: may be attended to. They combine with ``&``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from nn import init
from nn.checks import check_fraction, check_size, with_width
from nn.layers import Linear
from nn.module import Module

__all__ = ["MultiHeadAttention", "causal_mask", "padding_mask"]


def causal_mask(length: int, backend: Any = "numpy") -> tl.Tensor:
    """Return visible (T, T): position t sees positions 0..t and nothing later."""
    check_size("causal_mask", least=0, length=length)
    return tl.Tensor(np.tri(length, dtype=bool), backend=backend)


def padding_mask(lengths: Any, longest: int | None = None, backend: Any = "numpy") -> tl.Tensor:
    """Return visible (B, 1, 1, S): in sentence b the first lengths[b] places may be seen, by all heads and queries.

    S is `longest` or the largest length. ``causal_mask(T) & padding_mask(lengths)`` is (B, 1, T, T).
    """
    lengths_B = lengths.numpy() if isinstance(lengths, tl.Tensor) else np.asarray(lengths)
    if lengths_B.ndim != 1 or (lengths_B.size and lengths_B.dtype.kind not in "iu"):
        raise ValueError(
            "padding_mask: lengths must be one integer for each sentence, got shape "
            f"{lengths_B.shape} and dtype {lengths_B.dtype}"
        )
    longest = int(lengths_B.max(initial=0)) if longest is None else longest
    check_size("padding_mask", least=0, longest=longest)
    if (outside := (lengths_B < 0) | (lengths_B > longest)).any():
        b = int(outside.argmax())
        raise ValueError(f"padding_mask: lengths must lie in [0, {longest}], got {lengths_B[b]} for sentence {b}")
    return tl.Tensor(np.arange(longest) < lengths_B[:, None, None, None], backend=backend)


class MultiHeadAttention(Module):
    """Attention by H heads of width K = D / H at once; heads concatenated and projected (Vaswani et al., 3.2.2).

    One weight (D, 3D) holds the projections for queries, keys and values side by side, so that self-attention needs a
    single product for all three.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, generator: tl.Generator | None = None) -> None:
        check_size("MultiHeadAttention", width=width)
        check_size("MultiHeadAttention", least=0, heads=heads)
        if heads < 1 or width % heads:
            raise ValueError(f"MultiHeadAttention: heads must divide the width, got width {width} and {heads} heads")
        check_fraction("MultiHeadAttention", dropout=dropout)
        self.heads, self.dropout = heads, dropout
        self.projection = Linear(width, 3 * width, generator=generator)
        # Drawn as three (D, D) matrices: their fan_out is D, not 3D.
        parts = [init.xavier_uniform((width, width), generator) for _ in range(3)]
        self.projection.weight.replace(np.concatenate(parts, axis=1))
        self.output = Linear(width, width, generator=generator)

    def forward(
        self,
        x_BTD: Any,
        memory_BSD: Any = None,
        visible: Any = None,
        return_weights: bool = False,
        causal: bool = False,
    ) -> Any:
        """Return what each of the T positions gathers: (B, T, D).

        Self-attention without `memory_BSD`, else cross-attention: queries from x, keys and values from memory.
        `visible` broadcasts to (B, H, T, S); with `causal`, position t sees none after t, which takes no mask and no
        memory. With `return_weights`: (output, weights (B, H, T, S)).
        """
        width, weight = self.output.weight.shape[0], self.output.weight
        x_BTD = with_width(self, x_BTD, width, weight, "B, T")
        if memory_BSD is None:
            q_BHTK, k_BHSK, v_BHSK = self.queries_keys_values(x_BTD)
        else:
            memory_BSD = with_width(self, memory_BSD, width, weight, "B, S", "memory")
            if len({x_BTD.shape[0], memory_BSD.shape[0]} - {1}) > 1:
                raise ValueError(
                    f"{self.label()}: x and memory must be of one batch, got {x_BTD.shape} and {memory_BSD.shape}"
                )
            q_BHTK = self.queries(x_BTD)
            k_BHSK, v_BHSK = self.keys_values(memory_BSD)
        return self.attend(q_BHTK, k_BHSK, v_BHSK, visible, return_weights, causal)

    def queries_keys_values(self, x_BTD: Any) -> tuple[Any, Any, Any]:
        """Project x to queries, keys and values of all heads, each (B, H, T, K), in one product."""
        q, k, v = tl.split(self.projection(x_BTD), 3, axis=-1)
        return self._split_heads(q), self._split_heads(k), self._split_heads(v)

    def queries(self, x_BTD: Any) -> Any:
        """Project x to queries (B, H, T, K)."""
        return self._split_heads(self._project(x_BTD, slice(0, x_BTD.shape[-1])))

    def keys_values(self, memory_BSD: Any) -> tuple[Any, Any]:
        """Project memory to keys and values, each (B, H, S, K), in one product."""
        k, v = tl.split(self._project(memory_BSD, slice(memory_BSD.shape[-1], None)), 2, axis=-1)
        return self._split_heads(k), self._split_heads(v)

    def attend(
        self, q_BHTK: Any, k_BHSK: Any, v_BHSK: Any, visible: Any, return_weights: bool = False, causal: bool = False
    ) -> Any:
        """Attend with projected queries, keys and values; concatenate the heads and project: (B, T, D)."""
        p = self.dropout if self.training else 0.0
        attended = tl.scaled_dot_product_attention(
            q_BHTK, k_BHSK, v_BHSK, visible, dropout=p, return_weights=return_weights, causal=causal
        )
        o_BHTK, weights_BHTS = attended if return_weights else (attended, None)
        batch, heads, length, head_width = o_BHTK.shape
        o_BTD = o_BHTK.transpose(0, 2, 1, 3).reshape(batch, length, heads * head_width)
        y_BTD = self.output(o_BTD)
        return (y_BTD, weights_BHTS) if return_weights else y_BTD

    def _project(self, x: Any, columns: slice) -> Any:
        weight, bias = self.projection.weight, self.projection.bias
        assert bias is not None
        return tl.linear(x, weight[:, columns], bias[columns])

    def _split_heads(self, x_BTD: Any) -> Any:
        batch, length, width = x_BTD.shape
        return x_BTD.reshape(batch, length, self.heads, width // self.heads).transpose(0, 2, 1, 3)

    def extra_repr(self) -> str:
        """Return the number of heads."""
        return f"{self.heads} heads"
