"""Where a token stands, added to what it is.

Shape suffixes: B batch, T length, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from nn import init
from nn.checks import check_size, with_width
from nn.module import Module, Parameter

__all__ = ["LearnedPositions", "SinusoidalPositions", "sinusoids"]


def sinusoids(length: int, width: int, start: int = 0) -> np.ndarray:
    """Return rows start, start + 1, ... of PE, (length, width).

    PE[t, 2i] = sin(t / 10000^(2i/D)), PE[t, 2i+1] = cos of the same angle.

    Vaswani et al. 2017, section 3.5. Wavelengths run from 2 pi to 10000 · 2 pi.
    """
    check_size("sinusoids", width=width)
    check_size("sinusoids", least=0, length=length, start=start)
    if width % 2:
        raise ValueError(f"sinusoids: the width must be even, for each sine has its cosine; got {width}")
    angles = np.arange(start, start + length)[:, None] / 10000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, width)


class SinusoidalPositions(Module):
    """Adds fixed sinusoids; nothing to learn, and no longest length."""

    def __init__(self, width: int, prepared: int = 512) -> None:
        check_size("SinusoidalPositions", prepared=prepared)
        self.table = tl.Tensor(sinusoids(prepared, width).astype(np.float32))

    def forward(self, x_BTD: Any, start: int = 0) -> Any:
        """Return x plus the rows for positions start, start + 1, ..."""
        check_size("SinusoidalPositions", least=0, start=start)
        prepared, width = self.table.shape
        x_BTD = with_width(self, x_BTD, width, self.table, "B, T")
        length = x_BTD.shape[1]
        if start + length <= prepared:
            return x_BTD + self.table[start : start + length]
        rows = sinusoids(length, width, start).astype(np.float32)  # rounded as the prepared rows are
        return x_BTD + tl.Tensor(rows, dtype=self.table.dtype, backend=self.table.backend)


class LearnedPositions(Module):
    """Adds a learned vector for each position below `longest` (Vaswani et al. 2017, table 3, row E)."""

    def __init__(self, width: int, longest: int, generator: tl.Generator | None = None) -> None:
        check_size("LearnedPositions", width=width, longest=longest)
        self.weight = Parameter(init.normal((longest, width), width**-0.5, generator))

    def forward(self, x_BTD: Any, start: int = 0) -> Any:
        """Return x plus the rows for positions start, start + 1, ..."""
        check_size("LearnedPositions", least=0, start=start)  # -1 would take the last row, unseen
        x_BTD = with_width(self, x_BTD, self.weight.shape[1], self.weight, "B, T")
        end = start + x_BTD.shape[1]
        if end > self.weight.shape[0]:
            raise ValueError(
                f"LearnedPositions: has {self.weight.shape[0]} positions, got a sequence that ends at {end}; "
                "raise max_length, or use sinusoidal positions"
            )
        return x_BTD + self.weight[start:end]
