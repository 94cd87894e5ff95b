"""The layers that everything else is made of.

Shape suffixes: D width in, E width out, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from nn import init
from nn.checks import check_flag, check_fraction, check_generator, check_number, check_size, with_width
from nn.module import Module, Parameter

__all__ = ["Dropout", "Embedding", "FeedForward", "LayerNorm", "Linear", "LinearRelu"]


class Linear(Module):
    """y = x W + b for x (..., D): y (..., E). The weight is (D, E), as in the papers; PyTorch's is its transpose."""

    def __init__(self, in_width: int, out_width: int, bias: bool = True, generator: tl.Generator | None = None) -> None:
        check_size("Linear", in_width=in_width, out_width=out_width)
        check_flag("Linear", bias=bias)
        self.weight = Parameter(init.xavier_uniform((in_width, out_width), generator))
        self.bias = Parameter(np.zeros(out_width, np.float32)) if bias else None

    def forward(self, x: Any) -> Any:
        """Return x W + b."""
        return tl.linear(with_width(self, x, self.weight.shape[0], self.weight), self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return widths and whether there is a bias."""
        rows, columns = self.weight.shape
        return f"{rows} -> {columns}{'' if self.bias is not None else ', no bias'}"


class LinearRelu(Linear):
    """y = dropout(max(x W + b, 0)): a dense layer, its ReLU, and in training dropout, in one op."""

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

    def forward(self, x: Any) -> Any:
        """Return dropout(relu(x W + b)); without the dropout in evaluation."""
        x = with_width(self, x, self.weight.shape[0], self.weight)
        return tl.linear_relu(x, self.weight, self.bias, self.dropout if self.training else 0.0)

    def extra_repr(self) -> str:
        """Return widths, and the probability of dropout."""
        return f"{super().extra_repr()}, dropout={self.dropout}"


class Embedding(Module):
    """A table of V rows of width D: ids (...) become vectors (..., D). Rows start normal with variance 1/D."""

    def __init__(self, vocabulary: int, width: int, generator: tl.Generator | None = None) -> None:
        check_size("Embedding", vocabulary=vocabulary, width=width)
        self.weight = Parameter(init.normal((vocabulary, width), width**-0.5, generator))

    def forward(self, ids: Any) -> Any:
        """Return the rows numbered by `ids`, integers in [0, V)."""
        return tl.embedding(self.weight, ids)

    def extra_repr(self) -> str:
        """Return the number of rows and their width."""
        return f"{self.weight.shape[0]} x {self.weight.shape[1]}"


class LayerNorm(Module):
    """Normalise the last axis to mean 0 and variance 1, then scale and shift (Ba et al. 2016)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        check_size("LayerNorm", width=width)
        check_number("LayerNorm", above=True, eps=eps)
        self.weight = Parameter(np.ones(width, np.float32))
        self.bias = Parameter(np.zeros(width, np.float32))
        self.eps = eps

    def forward(self, x: Any) -> Any:
        """Return (x - mean) / sqrt(var + eps) · weight + bias."""
        x = with_width(self, x, self.weight.shape[0], self.weight)
        return tl.layer_norm(x, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the width."""
        return f"{self.weight.shape[0]}"


class Dropout(Module):
    """In training, zero each element with probability `p` and scale the others by 1/(1-p); else do nothing."""

    def __init__(self, p: float, generator: tl.Generator | None = None) -> None:
        check_fraction("Dropout", p=p)
        check_generator("Dropout", generator)
        self.p, self.generator = p, generator

    def forward(self, x: Any) -> Any:
        """Return x with a fresh mask, or x itself in evaluation."""
        return tl.dropout(x, self.p, self.generator) if self.training else x

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"p={self.p}"


class FeedForward(Module):
    """FFN(x) = relu(x W1 + b1) W2 + b2 at each position (Vaswani et al. 2017, equation 2), dropout on the hidden."""

    def __init__(
        self, width: int, hidden_width: int, dropout: float = 0.0, generator: tl.Generator | None = None
    ) -> None:
        check_size("FeedForward", width=width, hidden_width=hidden_width)
        check_fraction("FeedForward", dropout=dropout)
        self.hidden = LinearRelu(width, hidden_width, dropout, generator=generator)
        self.output = Linear(hidden_width, width, generator=generator)

    def forward(self, x: Any) -> Any:
        """Return the output for x (..., D): (..., D)."""
        return self.output(self.hidden(x))
