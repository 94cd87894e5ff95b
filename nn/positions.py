"""Position encodings: added to token embeddings, or turning the queries and keys of attention.

Shape suffixes: B batch, H heads, T length, D width, K head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import tensorlib as tl
from nn import init
from nn.checks import check_number, check_size, with_width
from nn.module import Module
from nn.parameter import Buffer, Parameter
from tensorlib.engine.value import wrap

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["LearnedPositions", "RotaryPositions", "SinusoidalPositions", "sinusoids"]


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
        x_BTD = with_width(self, x_BTD, self.table.shape[1], self.table, "B, T")
        return x_BTD + self.rows(start, x_BTD.shape[1])

    def rows(self, start: int, length: int) -> tl.Tensor:
        """Return the rows (T, D) for positions start, start + 1, ..."""
        check_size("SinusoidalPositions", least=0, start=start)
        prepared, width = self.table.shape
        if start + length <= prepared:
            return self.table[start : start + length]
        rows_TD = sinusoids(length, width, start).astype(np.float32)  # rounded like the prepared rows
        return wrap(self.table.backend.constant(rows_TD.astype(self.table.dtype)))


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
        x_BTD = with_width(self, x_BTD, self.weight.shape[1], self.weight, "B, T")
        return x_BTD + self.rows(start, x_BTD.shape[1])

    def rows(self, start: int, length: int) -> tl.Tensor:
        """Return the rows (T, D) for positions start, start + 1, ..."""
        check_size("LearnedPositions", least=0, start=start)  # a negative start would silently take other rows
        longest, end = self.weight.shape[0], start + length
        if end > longest:
            raise ValueError(
                f"LearnedPositions: has {longest} positions, got a sequence that ends at {end}; "
                "raise longest (max_length in a config), or use sinusoidal positions"
            )
        return self.weight[start:end]


class RotaryPositions(Module):
    """Turn queries and keys by angles that grow with their positions (Su et al. 2021, "RoFormer", equation 15).

    The row x of position t is K / 2 pairs; pair i is turned by the angle t f_i, with f_i = base^(-2i / K):

        y_i = x_i cos(t f_i) - x_j sin(t f_i)
        y_j = x_j cos(t f_i) + x_i sin(t f_i)        with j = i + K / 2

    Turning both vectors by one angle keeps their product, so q_t . k_s depends on t - s alone, not on t and s.
    As in GPT-NeoX and LLaMA, a pair is two numbers K / 2 apart; the paper pairs neighbours, 2i and 2i + 1, which only
    names the numbers of a head in another order. There are no parameters and no maximum length.

    >>> rotary = nn.RotaryPositions(head_width=4)
    >>> q_BHTK, k_BHTK = tl.normal((1, 2, 3, 4)), tl.normal((1, 2, 3, 4))
    >>> scores_BHTT = rotary(q_BHTK) @ rotary(k_BHTK).swapaxes(-1, -2)
    >>> later_BHTT = rotary(q_BHTK, start=7) @ rotary(k_BHTK, start=7).swapaxes(-1, -2)
    >>> np.allclose(scores_BHTT.numpy(), later_BHTT.numpy(), atol=1e-5)
    True

    Raises ValueError for an odd head width.
    """

    def __init__(self, head_width: int, base: float = 10_000.0) -> None:
        check_size("RotaryPositions", head_width=head_width)
        check_number("RotaryPositions", above=True, base=base)
        if head_width % 2:
            raise ValueError(f"RotaryPositions: the head width must be even, to be turned in pairs; got {head_width}")
        self.head_width, self.base = head_width, base
        self._rows: tuple[tl.Tensor, tl.Tensor] | None = None  # computed when needed, in the dtype of x

    def forward(self, x_BHTK: tl.Tensor, start: int | tl.Tensor = 0) -> tl.Tensor:
        """Return x (..., T, K) turned by the angles of positions start, start + 1, ...

        With T = 1, `start` may be a Tensor (1,): a position on the device, for which `prepare` has made room.
        """
        if isinstance(start, tl.Tensor):
            cos_1K, sin_1K = (rows[start] for rows in self._cos_sin(1, x_BHTK))
            return x_BHTK * cos_1K + tl.roll(x_BHTK, self.head_width // 2, axis=-1) * sin_1K
        check_size("RotaryPositions", least=0, start=start)
        x_BHTK = with_width(self, x_BHTK, self.head_width, x_BHTK, "...")
        end, half = start + x_BHTK.shape[-2], self.head_width // 2
        cos_TK, sin_TK = (rows[start:end] for rows in self._cos_sin(end, x_BHTK))
        return x_BHTK * cos_TK + tl.roll(x_BHTK, half, axis=-1) * sin_TK  # rolled: x_i and x_j change places

    def prepare(self, length: int, like: tl.Tensor) -> None:
        """Compute the angles of `length` positions, on the backend and in the dtype of `like`."""
        self._cos_sin(length, like)

    def _cos_sin(self, length: int, like: tl.Tensor) -> tuple[tl.Tensor, tl.Tensor]:
        """Return at least `length` rows of cos(t f_i), and of sin(t f_i) with its sign, in the dtype of `like`.

        They are kept, but not as buffers, which `astype` would convert from float32 to float64 with their rounding.
        """
        kept = self._rows
        fit = kept is not None and kept[0].dtype == like.dtype and kept[0].backend is like.backend
        if kept is not None and fit and kept[0].shape[0] >= length:
            return kept
        if kept is not None and fit:
            length = max(length, 2 * kept[0].shape[0])  # decoding needs one more row in each step
        angles = np.arange(length)[:, None] * self.base ** (-np.arange(0, self.head_width, 2) / self.head_width)
        cos, sin = np.tile(np.cos(angles), 2), np.concatenate([-np.sin(angles), np.sin(angles)], axis=1)
        rows = [wrap(like.backend.constant(table.astype(like.dtype))) for table in (cos, sin)]
        self._rows = (rows[0], rows[1])
        return self._rows

    def extra_repr(self) -> str:
        """Return the head width, and a base other than the paper's."""
        return f"{self.head_width}" + ("" if self.base == 10_000 else f", base={self.base:g}")
