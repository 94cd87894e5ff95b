"""A linear layer at sampled outputs: the scores of a few candidates of each row, without those of all others."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

from tensorlib.arrays.backend import Array
from tensorlib.engine.function import Function, as_tensor, derivation
from tensorlib.ops.arguments import at_least_float32
from tensorlib.ops.indexing import SumRows, row_ids

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["sampled_linear"]


class SampledLinear(Function):
    """y_k = <x, w_{i_k}> for the candidates i_1, ..., i_K of each row x, for x (..., D), w (V, D) and ids (..., K).

    dy_k/dx = w_{i_k}, dy_k/dw_v = x if i_k = v  =>  dx = sum_k dy_k w_{i_k}, dw_v = sum of dy_k x over all k, and over
    all rows, where i_k = v.

    Keeps x, weight and ids.
    Kernels: numpy/sampled_linear.py.
    """

    fresh = True

    def forward(self, x: Array, weight: Array, ids: Array) -> Array:
        self.ids = ids
        self.save(x, weight)
        return sampled_linear_formula(x, weight, ids)

    def backward(self, dy: Array) -> Any:
        return sampled_linear_gradient(dy, *self.saved, ids=self.ids, needs=self.needs)


@singledispatch
def sampled_linear_formula(x: Array, weight: Array, ids: Array) -> Array:
    return (x[..., None, :] * weight[ids]).sum(axis=-1)


@singledispatch
def sampled_linear_gradient(
    dy: Array, x: Array, weight: Array, *, ids: Array, needs: tuple[bool, ...]
) -> tuple[Array | None, ...]:
    """Return dx and dweight."""
    dx = (dy[..., None] * weight[ids]).sum(axis=-2) if needs[0] else None
    dweight = SumRows.run(dy[..., None] * x[..., None, :], ids=ids, rows=weight.shape[0]) if needs[1] else None
    return dx, dweight


@derivation(SampledLinear)
@at_least_float32
def sampled_linear(x: TensorLike, weight: TensorLike, ids: TensorLike) -> Tensor:
    """Return the scores of K candidates for each row, (..., K): inner products with rows of a table.

    x (..., D) are rows, such as hidden states; `weight` (V, D) is a table with a row for each candidate, such as an
    embedding; `ids` (..., K) are integers in [0, V). Neither the scores of all V candidates nor the K selected rows of
    the table are kept. Negative sampling and ranking losses compare such scores. float16 is computed in float32.

    Ids on the host are checked; ids already on a GPU are not fetched for a check. Raises IndexError for an id outside
    [0, V).

    >>> tl.sampled_linear([[1.0, 2.0]], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [[2, 0]])
    Tensor([[3. 1.]], shape=(1, 2), dtype=float32)
    """
    x, weight = as_tensor(x), as_tensor(weight)
    if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"sampled_linear: x (..., D) and a table (V, D) are required; got shapes {x.shape} and {weight.shape}"
        )
    rows = row_ids("sampled_linear", weight, ids)
    if rows.shape[:-1] != x.shape[:-1] or not rows.ndim:
        raise ValueError(
            f"sampled_linear: ids of shape {(*x.shape[:-1], 'K')}, K for each row of x, are required; got shape "
            f"{rows.shape}".replace("'", "")
        )
    return SampledLinear.apply(x, weight, ids=rows)
