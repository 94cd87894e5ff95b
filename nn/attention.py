"""Multi-head attention and its masks.

Shape suffixes: B batch, T queries (target length), S keys (source length), L either of T and S, D width, H heads,
K head width. Masks are called `visible`; True means that a position may be attended to. Masks combine with ``&``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeGuard, overload

import numpy as np
from numpy.typing import ArrayLike

import tensorlib as tl
from nn import init
from nn.checks import check_fraction, check_size, with_width
from nn.layers import Linear, run_as_one_op
from nn.module import Module
from nn.positions import RotaryPositions
from tensorlib.engine.value import wrap
from tensorlib.messages import shown

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["MultiHeadAttention", "causal_mask", "padding_mask"]


def causal_mask(length: int, backend: str | tl.Backend = "numpy") -> tl.Tensor:
    """Return a boolean mask (T, T) in which position t sees positions 0 to t.

    For n queries after a cache, the last of S positions, the mask (n, S) is ``causal_mask(S)[-n:]``.

    >>> nn.causal_mask(3).numpy().astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [1, 1, 1]])
    """
    check_size("causal_mask", least=0, length=length)
    return wrap(tl.get_backend(backend).constant(np.tri(length, dtype=bool)))


def padding_mask(
    lengths: tl.Tensor | ArrayLike, longest: int | None = None, backend: str | tl.Backend = "numpy"
) -> tl.Tensor:
    """Return a boolean mask (B, 1, 1, S): all heads and queries of sentence b see its first lengths[b] positions.

    S is `longest`, by default the largest length. ``causal_mask(T) & padding_mask(lengths)`` has shape (B, 1, T, T).

    >>> nn.padding_mask([3, 1])[:, 0, 0].numpy().astype(int)
    array([[1, 1, 1],
           [1, 0, 0]])

    Raises ValueError unless `lengths` is one integer in [0, S] for each sentence. With `longest`, lengths that are a
    Tensor on this `backend`, a GPU, are not fetched for a check of their values.
    """
    if longest is not None and _is_on_gpu(lengths, backend) and lengths.ndim == 1 and lengths.dtype.kind in "iu":
        check_size("padding_mask", least=0, longest=longest)
        return tl.arange(longest, backend=backend) < lengths[:, None, None, None]
    lengths_B = lengths.numpy() if isinstance(lengths, tl.Tensor) else np.asarray(lengths)
    if lengths_B.ndim != 1 or (lengths_B.size and lengths_B.dtype.kind not in "iu"):
        ids = lengths_B.ndim == 2 and lengths_B.dtype.kind in "iu"
        remedy = "; for ids, pass visible=(ids != padding)[:, None, None] to attention" if ids else ""
        raise ValueError(
            "padding_mask: lengths must be one integer for each sentence, got shape "
            f"{lengths_B.shape} and dtype {lengths_B.dtype}{remedy}"
        )
    longest = int(lengths_B.max(initial=0)) if longest is None else longest
    check_size("padding_mask", least=0, longest=longest)
    if (outside := (lengths_B < 0) | (lengths_B > longest)).any():
        b = int(outside.argmax())
        raise ValueError(f"padding_mask: lengths must lie in [0, {longest}], got {lengths_B[b]} for sentence {b}")
    return tl.Tensor(np.arange(longest) < lengths_B[:, None, None, None], backend=backend)


def _is_on_gpu(x: Any, backend: str | tl.Backend) -> TypeGuard[tl.Tensor]:
    """Return whether x is a Tensor on this backend, and that is not NumPy."""
    return isinstance(x, tl.Tensor) and x.backend is tl.get_backend(backend) and x.backend.xp is not np


class MultiHeadAttention(Module):
    """Attention by H heads of width K = D / H in parallel (Vaswani et al. 2017, section 3.2).

    Every head computes softmax(q k^T / sqrt(K)) v; the heads are then concatenated and projected:

    >>> attention, x_BTD = nn.MultiHeadAttention(width=8, heads=2), tl.normal((1, 3, 8))
    >>> q_BHTK, k_BHSK, v_BHSK = attention.queries_keys_values(x_BTD)
    >>> weights_BHTS = tl.softmax(q_BHTK @ k_BHSK.swapaxes(-1, -2) / np.sqrt(4), axis=-1)
    >>> heads_BHTK = weights_BHTS @ v_BHSK
    >>> y_BTD = attention.output(heads_BHTK.transpose(0, 2, 1, 3).reshape(1, 3, 8))
    >>> np.allclose(y_BTD.numpy(), attention(x_BTD).numpy(), atol=1e-6)
    True

    `tl.scaled_dot_product_attention` computes `heads_BHTK`, also with masks and with dropout on the weights, and does
    not keep all T x S weights. One matrix (D, 3D) holds the projections to queries, keys and values side by side, so
    self-attention needs only one product to project x.

    `rotary`, an `nn.RotaryPositions` of the head width, turns queries and keys of self-attention by their positions.
    Cross-attention never uses it, because positions in x and in the memory are not those of one sequence.

    Raises ValueError unless the number of heads divides the width. A call raises ValueError for inputs of a different
    width, and if `x` and `memory` have different batch sizes, neither of them 1.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        generator: tl.Generator | None = None,
        rotary: RotaryPositions | None = None,
    ) -> None:
        check_size("MultiHeadAttention", width=width)
        check_size("MultiHeadAttention", least=0, heads=heads)
        if heads < 1 or width % heads:
            raise ValueError(f"MultiHeadAttention: heads must divide the width, got width {width} and {heads} heads")
        check_fraction("MultiHeadAttention", dropout=dropout)
        _check_rotary(rotary, width // heads)
        self.heads, self.dropout, self.rotary = heads, dropout, rotary
        self.projection = Linear(width, 3 * width, generator=generator)
        # Three separate matrices (D, D) are drawn, because the fan_out of each is D, not 3D.
        parts = [init.xavier_uniform((width, width), generator) for _ in range(3)]
        self.projection.weight.replace(np.concatenate(parts, axis=1), copy=False)
        self.output = Linear(width, width, generator=generator)

    if TYPE_CHECKING:  # what a call returns depends on `return_weights`

        @overload  # type: ignore[override]  # calls with a `return_weights` known only at run time have no type
        def __call__(
            self, x_BTD: TensorLike, memory_BSD: TensorLike | None = ..., visible: TensorLike | None = ...,
            return_weights: Literal[False] = ..., causal: bool = ...,
        ) -> tl.Tensor: ...  # fmt: skip
        @overload
        def __call__(
            self, x_BTD: TensorLike, memory_BSD: TensorLike | None = ..., visible: TensorLike | None = ...,
            *, return_weights: Literal[True], causal: bool = ...,
        ) -> tuple[tl.Tensor, tl.Tensor]: ...  # fmt: skip
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...  # noqa: D102

    def forward(
        self,
        x_BTD: TensorLike,
        memory_BSD: TensorLike | None = None,
        visible: TensorLike | None = None,
        return_weights: bool = False,
        causal: bool = False,
    ) -> Any:
        """Return the output (B, T, D); with `return_weights`, return (output, weights), with weights (B, H, T, S).

        Without `memory_BSD` this is self-attention. With `memory_BSD` it is cross-attention: the queries come from x,
        the keys and values from the memory. With `causal`, position t sees no later position; no mask of size T x S is
        then stored; it needs T = S.

        `visible` is True where a query may attend to a key: (B, 1, 1, S) from `padding_mask`, (T, S) from
        `causal_mask`, or (B or 1, H or 1, T or 1, S). A mask (B, S) or (B, T, S) is refused; write
        ``visible[:, None, None]`` or ``visible[:, None]``. If B = T, a mask (B, S) whose lengths never fall from row to
        row cannot be told from a causal or prefix mask (T, S), and is taken for one. PyTorch's `key_padding_mask` is
        ``~visible``.
        """
        width, weight = self.output.weight.shape[0], self.output.weight
        if getattr(visible, "ndim", 0) == 3 and getattr(getattr(visible, "dtype", None), "kind", "b") == "f":
            raise TypeError(
                f"{self.label()}: visible must be a boolean mask, got {shown(visible)}; call attention(x, memory) or "
                "attention(x): keys and values are both computed from the second argument"
            )
        x_BTD = with_width(self, x_BTD, width, weight, "B, T")
        if memory_BSD is not None:
            memory_BSD = with_width(self, memory_BSD, width, weight, "B, S", "memory")
            if len({x_BTD.shape[0], memory_BSD.shape[0]} - {1}) > 1:
                raise ValueError(
                    f"{self.label()}: x and memory must have the same batch size, got {x_BTD.shape} "
                    f"and {memory_BSD.shape}"
                )
        turned = self.rotary is not None and memory_BSD is None
        one_batch = memory_BSD is None or memory_BSD.shape[0] == x_BTD.shape[0]
        plain = type(self) is MultiHeadAttention  # a subclass may override the methods below
        if plain and not (return_weights or turned) and one_batch and run_as_one_op(self.projection, self.output):
            projection, output, p = self.projection, self.output, self.dropout if self.training else 0.0
            assert projection.bias is not None and output.bias is not None
            return tl.multi_head_attention(
                x_BTD, projection.weight, projection.bias, output.weight, output.bias, memory_BSD, visible,
                heads=self.heads, causal=causal, dropout=p,
            )  # fmt: skip
        if memory_BSD is None:
            q_BHTK, k_BHSK, v_BHSK = self.queries_keys_values(x_BTD)
        else:
            q_BHTK = self.queries(x_BTD)
            k_BHSK, v_BHSK = self.keys_values(memory_BSD)
        return self.attend(q_BHTK, k_BHSK, v_BHSK, visible, return_weights, causal)

    def queries_keys_values(
        self, x_BTD: tl.Tensor, start: int | tl.Tensor = 0
    ) -> tuple[tl.Tensor, tl.Tensor, tl.Tensor]:
        """Project x to the queries, keys and values of all heads, each (B, H, T, K), in one product.

        start: the position of x[:, 0], by which `rotary` turns queries and keys; above 0 if a cache holds earlier ones.
        """
        q_BHTK, k_BHTK, v_BHTK = map(self._split_heads, tl.split(self.projection(x_BTD), 3, axis=-1))
        if self.rotary is not None:
            q_BHTK, k_BHTK = self.rotary(q_BHTK, start), self.rotary(k_BHTK, start)
        return q_BHTK, k_BHTK, v_BHTK

    def queries(self, x_BTD: tl.Tensor) -> tl.Tensor:
        """Project x to queries (B, H, T, K)."""
        return self._split_heads(self._project(x_BTD, slice(0, x_BTD.shape[-1])))

    def keys_values(self, memory_BSD: tl.Tensor) -> tuple[tl.Tensor, tl.Tensor]:
        """Project memory to keys and values, each (B, H, S, K), in one product."""
        k_BSD, v_BSD = tl.split(self._project(memory_BSD, slice(memory_BSD.shape[-1], None)), 2, axis=-1)
        return self._split_heads(k_BSD), self._split_heads(v_BSD)

    def attend(
        self,
        q_BHTK: tl.Tensor,
        k_BHSK: tl.Tensor,
        v_BHSK: tl.Tensor,
        visible: TensorLike | None,
        return_weights: bool = False,
        causal: bool = False,
    ) -> Any:
        """Attend with projected queries, keys and values, concatenate the heads and project them; see `forward`."""
        p = self.dropout if self.training else 0.0
        attended = tl.scaled_dot_product_attention(
            q_BHTK, k_BHSK, v_BHSK, visible, dropout=p, return_weights=return_weights, causal=causal
        )
        heads_BHTK, weights_BHTS = attended if return_weights else (attended, None)
        batch, heads, length, head_width = heads_BHTK.shape
        heads_BTD = heads_BHTK.transpose(0, 2, 1, 3).reshape(batch, length, heads * head_width)
        y_BTD = self.output(heads_BTD)
        return (y_BTD, weights_BHTS) if return_weights else y_BTD

    def _project(self, x_BLD: tl.Tensor, columns: slice) -> tl.Tensor:
        weight, bias = self.projection.weight, self.projection.bias
        assert bias is not None
        return tl.linear(x_BLD, weight[:, columns], bias[columns])

    def _split_heads(self, x_BLD: tl.Tensor) -> tl.Tensor:
        batch, length, width = x_BLD.shape
        return x_BLD.reshape(batch, length, self.heads, width // self.heads).transpose(0, 2, 1, 3)

    def extra_repr(self) -> str:
        """Return the number of heads."""
        return f"{self.heads} heads"


def _check_rotary(rotary: Any, head_width: int) -> None:
    if rotary is None:
        return
    if not isinstance(rotary, RotaryPositions):
        raise TypeError(
            f"MultiHeadAttention: rotary must be nn.RotaryPositions({head_width}) or None, got {shown(rotary)}"
        )
    if rotary.head_width != head_width:
        raise ValueError(
            f"MultiHeadAttention: rotary must be for the head width {head_width}, got {rotary.head_width}; pass "
            f"nn.RotaryPositions({head_width})"
        )
