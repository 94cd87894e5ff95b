"""The loss computed from hidden states, one block of rows at a time; the threads divide the vocabulary.

For each block one array holds the logits, then the softmax, then the gradient of the logits, from which contributions
to the gradients of hidden states, weight and bias are computed. The next block reuses the array.

Shape suffixes: N rows with a target that counts, D width, V vocabulary; lower-case letters are sizes of one block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.threads import BLAS, share
from tensorlib.kernels.numpy.blocks import even_blocks, for_blocks, row_blocks, same_float_dtype, sum_in_order
from tensorlib.ops.linear_cross_entropy import linear_cross_entropy_formula, linear_cross_entropy_gradient

BLOCK_BYTES = 1 << 24  # of logits, roughly: BLAS is fast on many rows, but a block should fit in the third-level cache
COLUMNS = 4096  # of the vocabulary for each two pieces of work, roughly
SHARED_LOGITS = 1 << 17  # sharing the work among threads is faster from this number of logits on


@linear_cross_entropy_formula.register(np.ndarray)
def _linear_cross_entropy_kernel(
    x: np.ndarray, weight: np.ndarray, *bias: np.ndarray, classes: Any, needs: Any
) -> tuple[Array, Any]:
    if not same_float_dtype(x, weight, *bias) or not classes[1].any() or 0 in weight.shape:
        return linear_cross_entropy_formula.dispatch(object)(x, weight, *bias, classes=classes, needs=needs)
    return loss_and_gradients(BlockedLoss, x, weight, bias, classes, needs)


def loss_and_gradients(
    kind: type[BlockedLoss], x: np.ndarray, weight: np.ndarray, bias: tuple[np.ndarray, ...], classes: Any, needs: Any
) -> tuple[Array, Any]:
    """Return the loss, and the gradients that are needed, as `kind` computes them."""
    targets, counted, smoothing = classes
    every = bool(counted.all())
    hidden_ND, targets_N = (x, targets) if every else (x[counted], targets[counted])  # padding is left out
    with BLAS:
        work = kind(hidden_ND, targets_N, weight, bias, smoothing, needs)
        loss = work.run()
    if every or work.dx is None:
        return loss, (work.dx, work.dweight, *work.dbias)
    dx = np.zeros(x.shape, x.dtype)
    dx[counted] = work.dx
    return loss, (dx, work.dweight, *work.dbias)


class BlockedLoss:
    """The loss over all rows and the gradients that are needed, accumulated block by block."""

    def __init__(
        self, x: np.ndarray, targets: np.ndarray, weight: np.ndarray, bias: Any, smoothing: float, needs: Any
    ) -> None:
        self.x_ND, self.targets_N, self.weight_DV, self.bias = x, targets, weight, bias
        self.smoothing, self.classes = smoothing, weight.shape[1]
        self.dx = np.empty(x.shape, x.dtype) if needs[0] else None
        self.dweight = np.empty_like(weight) if needs[1] else None  # with its layout: a tied weight is transposed
        self.dbias = [np.zeros(b.shape, b.dtype) if need else None for b, need in zip(bias, needs[2:], strict=True)]
        self.wanted = any(needs)
        self.columns = even_blocks(self.classes, 2 * max(round(self.classes / COLUMNS), 1))

    def run(self) -> np.ndarray:
        """Return the loss, and add to the gradients."""
        row_bytes = self.classes * self.x_ND.itemsize
        count = round(len(self.x_ND) * row_bytes / BLOCK_BYTES) or 1  # blocks of nearly equal height
        blocks = row_blocks(len(self.x_ND), row_bytes, -(-len(self.x_ND) // count) * row_bytes)
        scratch = np.empty((blocks[0].stop, self.classes), self.x_ND.dtype)
        return np.asarray(sum([self._block(n, scratch[: n.stop - n.start]) for n in blocks]), self.x_ND.dtype)

    def _for_columns(self, work: Callable[[slice], Any], rows: int) -> list[Any]:
        """Return the results of ``work(columns)`` for all pieces of the vocabulary, in their order, on these rows."""
        results: dict[int, Any] = {}

        def keep(v: slice) -> None:
            results[v.start] = work(v)

        if rows * self.classes >= SHARED_LOGITS:
            share(keep, self.columns)
        else:
            for v in self.columns:
                keep(v)
        return [results[v.start] for v in self.columns]

    def _block(self, n: slice, z_nV: np.ndarray) -> Any:
        """Return the loss of a block of rows, and add its contribution to the gradients."""
        x_nD, targets_n = self.x_ND[n], self.targets_N[n]
        ones = np.ones((self.columns[-1].stop - self.columns[-1].start, 1), z_nV.dtype)

        def logits(v: slice) -> np.ndarray:
            z = np.matmul(x_nD, self.weight_DV[:, v], out=z_nV[:, v])
            for b in self.bias:
                z += b[v]
            return z.max(axis=1, keepdims=True)

        top_n1 = np.maximum.reduce(self._for_columns(logits, len(x_nD)))
        top_n1[np.isneginf(top_n1)] = 0
        rows = np.arange(len(targets_n))
        expected_n = (1 - self.smoothing) * (z_nV[rows, targets_n] - top_n1[:, 0])

        def exponentials(v: slice) -> tuple[Any, Any]:
            z = z_nV[:, v]
            z -= top_n1
            one = ones[: v.stop - v.start]
            plain = z @ one if self.smoothing else None
            return plain, np.exp(z, out=z) @ one

        sums = self._for_columns(exponentials, len(x_nD))
        total_n1 = sum_in_order([s for _, s in sums])
        total_n1[total_n1 == 0] = 1  # all logits are -inf
        if self.smoothing:
            expected_n += self.smoothing / self.classes * sum_in_order([s for s, _ in sums])[:, 0]
        if self.wanted:
            self._gradients(n, z_nV, total_n1)
        return (np.log(total_n1[:, 0]) - expected_n).sum()

    def _gradients(self, n: slice, z_nV: np.ndarray, total_n1: np.ndarray) -> None:
        x_nD, targets_n = self.x_ND[n], self.targets_N[n]
        inverse_n1 = 1 / total_n1

        def gradient(v: slice) -> Any:
            dz = z_nV[:, v]
            dz *= inverse_n1
            if self.smoothing:
                dz -= dz.dtype.type(self.smoothing / self.classes)
            here = np.flatnonzero((targets_n >= v.start) & (targets_n < v.stop))
            dz[here, targets_n[here] - v.start] -= dz.dtype.type(1 - self.smoothing)
            if self.dweight is not None:
                if n.start:
                    self.dweight[:, v] += x_nD.T @ dz
                else:
                    np.matmul(x_nD.T, dz, out=self.dweight[:, v])
            for d in self.dbias:
                if d is not None:
                    d[v] += dz.sum(axis=0)
            return dz @ self.weight_DV[:, v].T if self.dx is not None else None

        parts = self._for_columns(gradient, len(x_nD))
        if self.dx is not None:
            self.dx[n] = sum_in_order(parts)


@linear_cross_entropy_gradient.register(np.ndarray)
@linear_cross_entropy_gradient.register(np.generic)  # dloss of a scaled loss is a NumPy scalar
def _linear_cross_entropy_gradient_kernel(  # type: ignore[misc]  # np.generic has no len(), as Array has
    dloss: np.ndarray | np.generic,
    x: np.ndarray,
    weight: np.ndarray,
    *bias: np.ndarray,
    classes: Any,
    kept: Any,
    needs: Any,
) -> tuple[Array | None, ...]:
    if kept is None or dloss.dtype != x.dtype:
        formula = linear_cross_entropy_gradient.dispatch(object)
        return formula(dloss, x, weight, *bias, classes=classes, kept=kept, needs=needs)
    return tuple(
        [None if d is None else _scaled(d, dloss) for d in kept]
    )  # copies, because another pass may need `kept`


def _scaled(d: np.ndarray, factor: Any) -> np.ndarray:
    result = np.empty_like(d)
    transposed = d.flags.f_contiguous and d.ndim == 2
    source, out = (d.T, result.T) if transposed else (d, result)  # C-contiguous
    for_blocks(lambda b: np.multiply(source[b], factor, out=out[b]), len(source), source[:1].nbytes)
    return result
