"""The loss from hidden states: the threads divide the vocabulary, and meet twice for each block of rows.

First each piece of the vocabulary gets its logits, and their exponentials relative to its own largest logit of each
row; then, when the sums over all pieces are known, it turns them into the gradient of the logits and its contributions
to those of hidden states, weight and bias.

Shape suffixes: N rows with a target that counts, D width, V vocabulary; lower-case letters: of a block or piece.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.bf16 import factors, operand
from tensorlib.kernels.numba.blas import FOUND, for_blas, gemm
from tensorlib.kernels.numba.compiling import AnyLayout, compiled, summing
from tensorlib.kernels.numba.linear import add_bias, sum_of_rows
from tensorlib.kernels.numba.rows import contiguous, serves
from tensorlib.kernels.numba.softmax import exponentials, largest
from tensorlib.kernels.numpy.blocks import sum_in_order
from tensorlib.kernels.numpy.linear_cross_entropy import BlockedLoss, loss_and_gradients
from tensorlib.ops.linear_cross_entropy import linear_cross_entropy_formula


@summing
def _exponentials(z_nv: Any, tops_n: Any, sums_n: Any, plain_n: Any) -> None:
    """Replace the logits by exp(logit - top), and write top and the sums of these and of logit - top for each row."""
    for i in range(z_nv.shape[0]):
        top = largest(z_nv, i)
        plain = z_nv.dtype.type(0)
        for j in range(z_nv.shape[1]):
            plain += z_nv[i, j] - top
        tops_n[i], plain_n[i] = top, plain
        sums_n[i] = exponentials(z_nv, i, top)


@AnyLayout
def logits(
    x_nD: Any, weight_Dv: Any, bias_v: Any, targets_n: Any, first: int, z: Any, tops_n: Any, sums_n: Any, plain_n: Any,
    chosen_n: Any,
) -> None:  # fmt: skip
    """Compute the exponentials of a piece of the vocabulary that begins with class `first`, and the targets' logits."""
    z_nv = z[: x_nD.shape[0] * weight_Dv.shape[1]].reshape((x_nD.shape[0], weight_Dv.shape[1]))
    gemm(x_nD, weight_Dv, z_nv, z.dtype.type(1), z.dtype.type(0))
    if bias_v.size:
        add_bias(bias_v, z_nv)
    for i in range(z_nv.shape[0]):
        v = targets_n[i] - first
        if 0 <= v < z_nv.shape[1]:
            chosen_n[i] = z_nv[i, v]
    _exponentials(z_nv, tops_n, sums_n, plain_n)


@compiled
def _to_gradient(z_nv: Any, factors_n: Any, smoothing: Any) -> None:
    """Replace exp(logit - top) by softmax - smoothing / V; `factors` holds the reciprocals of the sums."""
    for i in range(z_nv.shape[0]):
        factor = factors_n[i]
        for j in range(z_nv.shape[1]):
            z_nv[i, j] = z_nv[i, j] * factor - smoothing


@AnyLayout
def gradients(
    x_nD: Any, weight_Dv: Any, targets_n: Any, first: int, z: Any, factors_n: Any, smoothing: Any, of_target: Any,
    added: bool, dx: Any, dweight_Dv: Any, dbias_v: Any,
) -> None:  # fmt: skip
    """Turn the exponentials of a piece into its contributions to the gradients; those without elements are not needed.

    dweight and dbias grow if `added`; dx (n, D) is written, flat.
    """
    n, classes = x_nD.shape[0], weight_Dv.shape[1]
    one, zero = z.dtype.type(1), z.dtype.type(0)
    dz_nv = z[: n * classes].reshape((n, classes))
    _to_gradient(dz_nv, factors_n, smoothing)
    for i in range(n):
        v = targets_n[i] - first
        if 0 <= v < classes:
            dz_nv[i, v] -= of_target
    dz_factor = operand(dz_nv, weight_Dv)
    if dweight_Dv.size:
        if dweight_Dv.strides[1] == dweight_Dv.itemsize:
            gemm(x_nD.T, dz_factor, dweight_Dv, one, one if added else zero)
        else:  # of a tied weight, which is transposed
            gemm(dz_factor.T, x_nD, dweight_Dv.T, one, one if added else zero)
    if dbias_v.size:
        total = np.empty(classes, z.dtype)
        sum_of_rows(dz_nv, total)
        dbias_v += total
    if dx.size:
        gemm(dz_factor, weight_Dv.T, dx[: n * x_nD.shape[1]].reshape((n, x_nD.shape[1])), one, zero)


class _CompiledLoss(BlockedLoss):
    """The loss over all rows, with compiled pieces of the vocabulary."""

    def __init__(self, x: np.ndarray, targets: np.ndarray, weight: np.ndarray, *others: Any) -> None:
        super().__init__(x, targets, weight, *others)
        self.x_factor, self.weight_factor = factors(x, weight, make=for_blas)

    def _block(self, n: slice, z_nV: np.ndarray) -> Any:
        x_nD, targets_n, dtype = self.x_factor[n], self.targets_N[n], z_nV.dtype
        rows, z = len(targets_n), z_nV.reshape(-1)
        tops_Pn, sums_Pn, plain_Pn = np.empty((3, len(self.columns), rows), dtype)  # P: pieces of the vocabulary
        chosen_n, none = np.empty(rows, dtype), np.empty(0, dtype)

        def first_pass(v: slice) -> None:
            i, bias = self.columns.index(v), self.bias[0][v] if self.bias else none
            mine = z[v.start * rows : v.stop * rows]
            logits(x_nD, self.weight_factor[:, v], bias, targets_n, v.start, mine, tops_Pn[i], sums_Pn[i], plain_Pn[i],
                   chosen_n)  # fmt: skip

        self._for_columns(first_pass, rows)
        tops_Pn[sums_Pn == 0] = -np.inf  # where all logits are -inf, the top was taken for 0
        top_n = tops_Pn.max(axis=0)
        top_n[np.isneginf(top_n)] = 0
        lowered_Pn = np.exp(tops_Pn - top_n)
        total_n = sum_in_order(list(sums_Pn * lowered_Pn))
        total_n[total_n == 0] = 1
        expected_n = (1 - self.smoothing) * (chosen_n - top_n)
        if self.smoothing:
            widths_P1 = np.array([[v.stop - v.start] for v in self.columns], dtype)
            plain_n = sum_in_order(list(plain_Pn + widths_P1 * (tops_Pn - top_n)))
            expected_n += self.smoothing / self.classes * plain_n
        if self.wanted:
            self._second_pass(n, z, lowered_Pn / total_n)
        return (np.log(total_n) - expected_n).sum()

    def _second_pass(self, n: slice, z: np.ndarray, factors_Pn: np.ndarray) -> None:
        """Add the contributions of a block of rows to the gradients; exp(logit - top) · factor is the softmax."""
        x_nD, targets_n, dtype = self.x_factor[n], self.targets_N[n], factors_Pn.dtype
        rows, none = len(targets_n), np.empty((0, 0), dtype)
        dx_parts = np.empty((len(self.columns), x_nD.size if self.dx is not None else 0), dtype)
        smoothing, of_target = dtype.type(self.smoothing / self.classes), dtype.type(1 - self.smoothing)

        def piece(v: slice) -> None:
            i, mine = self.columns.index(v), z[v.start * rows : v.stop * rows]
            dweight = none if self.dweight is None else self.dweight[:, v]
            dbias = none[0:0].reshape(0) if not self.dbias or self.dbias[0] is None else self.dbias[0][v]
            gradients(x_nD, self.weight_factor[:, v], targets_n, v.start, mine, factors_Pn[i], smoothing, of_target,
                      n.start > 0, dx_parts[i], dweight, dbias)  # fmt: skip

        self._for_columns(piece, rows)
        if self.dx is not None:
            self.dx[n] = sum_in_order(list(dx_parts)).reshape(x_nD.shape)


@overrides(linear_cross_entropy_formula)
def _linear_cross_entropy_kernel(
    before: Callable[..., Any], x: np.ndarray, weight: np.ndarray, *bias: np.ndarray, classes: Any, needs: Any
) -> tuple[Array, Any]:
    targets, counted, smoothing = classes
    if not FOUND or not serves(x, weight, *bias) or not x.size or not weight.size or not counted.any():
        return before(x, weight, *bias, classes=classes, needs=needs)
    classes = contiguous(targets.astype(np.int64, copy=False)), counted, smoothing
    return loss_and_gradients(
        _CompiledLoss, contiguous(x), for_blas(weight), tuple([contiguous(b) for b in bias]), classes, needs
    )
