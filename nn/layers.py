"""Layers, each defined by a formula.

Shape suffixes: D input width, E output width, F feed-forward width, V vocabulary size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import tensorlib as tl
from nn import init
from nn.checks import check_fraction, check_generator, check_number, check_size, refuse_several, with_width
from nn.module import Module
from nn.parameter import Parameter
from tensorlib.engine.recording import STATE
from tensorlib.ops.arguments import check_flag

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["Dropout", "Embedding", "FeedForward", "LayerNorm", "Linear", "LinearRelu"]


def run_as_one_op(*layers: Module) -> bool:
    """Return whether a sub-layer may compute these layers as one op.

    It calls them one by one if the ops of the formula are to be recorded, if a layer has hooks, or if it was replaced
    by another kind of module, has another ``forward`` or no bias.
    """
    if STATE.get().formulas:
        return False
    for layer in layers:
        own = type(layer).__module__ == __name__ and "forward" not in vars(layer)
        if not own or layer._hooks or layer._pre_hooks or vars(layer).get("bias", layer) is None:
            return False
    return True


class Linear(Module):
    """y = x W + b maps x (..., D) to y (..., E). The weight is (D, E), as in the papers; PyTorch stores its transpose.

    W is initialized by `init.xavier_uniform`, b with zeros.

    >>> linear = nn.Linear(3, 2)
    >>> linear.weight.shape, linear.bias.shape
    ((3, 2), (2,))
    >>> x = tl.ones((5, 3))
    >>> np.allclose(linear(x).numpy(), (x @ linear.weight + linear.bias).numpy())
    True

    Raises ValueError unless the last axis of x has size D, and TypeError for integer x.
    """

    def __init__(self, in_width: int, out_width: int, bias: bool = True, generator: tl.Generator | None = None) -> None:
        check_size("Linear", in_width=in_width, out_width=out_width)
        check_flag("Linear", "bias", bias, "; name your arguments")
        self.weight = Parameter(init.xavier_uniform((in_width, out_width), generator))
        self.bias = Parameter(np.zeros(out_width, np.float32)) if bias else None

    def forward(self, x: TensorLike) -> tl.Tensor:
        """Return x W + b."""
        return tl.linear(with_width(self, x, self.weight.shape[0], self.weight), self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the widths, and "no bias" if there is no bias."""
        in_width, out_width = self.weight.shape
        return f"{in_width} -> {out_width}{'' if self.bias is not None else ', no bias'}"


class LinearRelu(Linear):
    """y = dropout(max(x W + b, 0)) maps x (..., D) to y (..., E), by one op. Dropout acts only in training mode.

    >>> layer = nn.LinearRelu(3, 2)
    >>> keys = layer.load_state_dict({"weight": [[1, -1], [1, -1], [1, -1]], "bias": [0, 0]})
    >>> layer(tl.ones(3)).numpy()
    array([3., 0.], dtype=float32)

    Raises the errors of `Linear`, and ValueError unless the dropout probability is in [0, 1).
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        dropout: float = 0.0,
        bias: bool = True,
        generator: tl.Generator | None = None,
    ) -> None:
        super().__init__(in_width, out_width, bias, generator)
        check_fraction("LinearRelu", dropout=dropout)
        self.dropout = dropout

    def forward(self, x: TensorLike) -> tl.Tensor:
        """Return dropout(relu(x W + b)), or relu(x W + b) in evaluation mode."""
        x = with_width(self, x, self.weight.shape[0], self.weight)
        return tl.linear_relu(x, self.weight, self.bias, self.dropout if self.training else 0.0)

    def extra_repr(self) -> str:
        """Return the widths and the dropout probability."""
        return f"{super().extra_repr()}, dropout={self.dropout}"


class Embedding(Module):
    """y = weight[ids] maps ids (...) to rows (..., D) of a table (V, D), whose initial values have variance 1/D.

    >>> embedding = nn.Embedding(vocabulary=100, width=8)
    >>> embedding([[1, 2, 3], [4, 5, 6]]).shape
    (2, 3, 8)

    Raises IndexError for an id outside [0, V), and TypeError for ids that are not integers.
    """

    def __init__(self, vocabulary: int, width: int, generator: tl.Generator | None = None) -> None:
        check_size("Embedding", vocabulary=vocabulary, width=width)
        self.weight = Parameter(init.normal((vocabulary, width), width**-0.5, generator))

    def forward(self, ids: TensorLike) -> tl.Tensor:
        """Return the rows numbered by `ids`, integers in [0, V)."""
        refuse_several(self, ids, "ids")
        return tl.embedding(self.weight, ids)

    def extra_repr(self) -> str:
        """Return the size of the table."""
        return f"{self.weight.shape[0]} x {self.weight.shape[1]}"


class LayerNorm(Module):
    """y = (x - mean) / sqrt(variance + eps) · weight + bias, over the last axis of x (..., D) (Ba et al. 2016).

    `weight` (D,) starts at one, `bias` (D,) at zero.

    >>> norm = nn.LayerNorm(4)
    >>> norm(tl.Tensor([1.0, 2.0, 3.0, 4.0])).numpy().round(2)
    array([-1.34, -0.45,  0.45,  1.34], dtype=float32)

    Raises ValueError unless the last axis of x has size D, and TypeError for integer x.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        check_size("LayerNorm", width=width)
        check_number("LayerNorm", above=True, eps=eps)
        self.weight = Parameter(np.ones(width, np.float32))
        self.bias = Parameter(np.zeros(width, np.float32))
        self.eps = eps

    def forward(self, x: TensorLike) -> tl.Tensor:
        """Return (x - mean) / sqrt(variance + eps) · weight + bias."""
        x = with_width(self, x, self.weight.shape[0], self.weight)
        return tl.layer_norm(x, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the width."""
        return f"{self.weight.shape[0]}"


class Dropout(Module):
    """In training, zero each element with probability p and scale the others by 1/(1-p); otherwise return x itself.

    Srivastava et al. 2014; the scaling keeps the mean. Masks are drawn from `generator`, by default the one that
    `tl.seed` sets.

    >>> dropout = nn.Dropout(0.5)
    >>> y = dropout(tl.ones(1000)).numpy()
    >>> np.unique(y).tolist()
    [0.0, 2.0]
    >>> dropout.eval()(tl.ones(3)).numpy()
    array([1., 1., 1.], dtype=float32)

    Raises ValueError unless p is in [0, 1).
    """

    def __init__(self, p: float, generator: tl.Generator | None = None) -> None:
        check_fraction("Dropout", p=p)
        check_generator("Dropout", generator)
        self.p, self.generator = p, generator

    def forward(self, x: tl.Tensor) -> tl.Tensor:
        """Return x with a new mask applied, or x itself in evaluation mode."""
        return tl.dropout(x, self.p, self.generator) if self.training else x

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"p={self.p}"


class FeedForward(Module):
    """FFN(x) = dropout(relu(x W1 + b1)) W2 + b2 at each position, from (..., D) through (..., F) to (..., D).

    This is equation 2 of Vaswani et al. 2017, with dropout added on the hidden values.

    >>> feed_forward = nn.FeedForward(width=8, hidden_width=32)
    >>> feed_forward(tl.zeros((2, 5, 8))).shape
    (2, 5, 8)

    Raises ValueError unless the last axis of x has size D, and TypeError for integer x.
    """

    def __init__(
        self, width: int, hidden_width: int, dropout: float = 0.0, generator: tl.Generator | None = None
    ) -> None:
        check_size("FeedForward", width=width, hidden_width=hidden_width)
        check_fraction("FeedForward", dropout=dropout)
        self.hidden = LinearRelu(width, hidden_width, dropout, generator=generator)
        self.output = Linear(hidden_width, width, generator=generator)

    def forward(self, x: TensorLike) -> tl.Tensor:
        """Return the output (..., D) for x (..., D)."""
        if not run_as_one_op(self.hidden, self.output):
            return self.output(self.hidden(x))
        hidden, output = self.hidden, self.output
        assert hidden.bias is not None and output.bias is not None
        x = with_width(self, x, hidden.weight.shape[0], hidden.weight)
        p = hidden.dropout if hidden.training else 0.0
        return tl.feed_forward(x, hidden.weight, hidden.bias, output.weight, output.bias, p)
