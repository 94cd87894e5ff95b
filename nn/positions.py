"""Position encodings, added to token embeddings.

Shape suffixes: B batch, T length, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import tensorlib as tl
from nn import init
from nn.checks import check_size, with_width
from nn.module import Module
from nn.parameter import Buffer, Parameter

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["LearnedPositions", "SinusoidalPositions", "sinusoids"]


def sinusoids(length: int, width: int, start: int = 0) -> np.ndarray:
    """Return `length` rows of the table PE, from row `start` on, as a float64 array (length, width).

    PE[t, 2i] = sin(t / 10000^(2i/D)), PE[t, 2i+1] = cos(t / 10000^(2i/D)), with wavelengths from 2 pi to 10000 · 2 pi.

    Vaswani et al. 2017, section 3.5. Raises ValueError for an odd width.

    >>> nn.positions.sinusoids(2, 4).round(2).tolist()
    [[0.0, 1.0, 0.0, 1.0], [0.84, 0.54, 0.01, 1.0]]
    """
    check_size("sinusoids", width=width)
    check_size("sinusoids", least=0, length=length, start=start)
    if width % 2:
        raise ValueError(f"sinusoids: the width must be even, because each sine is paired with a cosine; got {width}")
    angles = np.arange(start, start + length)[:, None] / 10000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, width)


class SinusoidalPositions(Module):
    """y_BTD = x_BTD + PE[start : start + T], where PE is `sinusoids`. It has no parameters and no maximum length.

    The first `prepared` rows are computed once; a call that needs a later row computes all of its rows. Raises
    ValueError for an odd width.

    >>> positions = nn.SinusoidalPositions(width=4)
    >>> y_BTD = positions(tl.zeros((1, 2, 4)), start=3)
    >>> np.allclose(y_BTD.numpy()[0], nn.positions.sinusoids(2, 4, start=3))
    True
    """

    def __init__(self, width: int, prepared: int = 512) -> None:
        check_size("SinusoidalPositions", prepared=prepared)
        self.table = Buffer(sinusoids(prepared, width).astype(np.float32), persistent=False)

    def forward(self, x_BTD: TensorLike, start: int = 0) -> tl.Tensor:
        """Return x plus the rows for positions start, start + 1, ..."""
        check_size("SinusoidalPositions", least=0, start=start)
        prepared, width = self.table.shape
        x_BTD = with_width(self, x_BTD, width, self.table, "B, T")
        length = x_BTD.shape[1]
        if start + length <= prepared:
            return x_BTD + self.table[start : start + length]
        rows_TD = sinusoids(length, width, start).astype(np.float32)  # rounded like the prepared rows
        return x_BTD + tl.Tensor(rows_TD, dtype=self.table.dtype, backend=self.table.backend)


class LearnedPositions(Module):
    """y_BTD = x_BTD + weight[start : start + T], with a learned row for each position below `longest`.

    See Vaswani et al. 2017, table 3, row E. The initial values are normal with variance 1/D. Raises ValueError for a
    sequence that ends beyond `longest`.

    >>> positions = nn.LearnedPositions(width=4, longest=10)
    >>> y_BTD = positions(tl.zeros((1, 2, 4)), start=3)
    >>> np.array_equal(y_BTD.numpy()[0], positions.weight.numpy()[3:5])
    True
    """

    def __init__(self, width: int, longest: int, generator: tl.Generator | None = None) -> None:
        check_size("LearnedPositions", width=width, longest=longest)
        self.weight = Parameter(init.normal((longest, width), width**-0.5, generator))

    def forward(self, x_BTD: TensorLike, start: int = 0) -> tl.Tensor:
        """Return x plus the rows for positions start, start + 1, ..."""
        check_size("LearnedPositions", least=0, start=start)  # a negative start would silently take other rows
        longest, width = self.weight.shape
        x_BTD = with_width(self, x_BTD, width, self.weight, "B, T")
        end = start + x_BTD.shape[1]
        if end > longest:
            raise ValueError(
                f"LearnedPositions: has {longest} positions, got a sequence that ends at {end}; "
                "raise longest (max_length in a config), or use sinusoidal positions"
            )
        return x_BTD + self.weight[start:end]
