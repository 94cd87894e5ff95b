"""The loss from hidden states, one block of rows at a time: its logits become their gradient in place.

At most `ROWS` rows of logits exist at once, fewer for very large vocabularies, whatever the size of the batch. As on a
CPU, gradients are computed with the loss, for dloss = 1: computing the logits again would cost another product. Rows
that do not count stay in the products, with dz = 0, because leaving them out would need their number on the host.

A block of 1,024 rows keeps the products efficient: x^T dz is added to dW, whose bytes cost as much as 70 rows of the
product in float32, and 600 in bf16.
"""

from __future__ import annotations

from typing import Any

import cupy

from tensorlib.kernels.cuda.columns import chunks_of, sum_parts
from tensorlib.kernels.cuda.launch import NOT_SERVED, WARP, contiguous, fits, kernel, on_current_device, overrides
from tensorlib.kernels.cuda.products import gemm, rounded
from tensorlib.ops.linear_cross_entropy import linear_cross_entropy_formula, linear_cross_entropy_gradient

ROWS = 1024  # of a block, at most
BLOCK_BYTES = 1 << 28  # of a block's logits, at most, if it has more than TILE rows
TILE = 128  # blocks but the last have a multiple of this number of rows, as the tiles of a product
THREADS = 256  # of a row


def row_blocks(rows: int, row_bytes: int) -> list[slice]:
    """Return blocks of nearly equal height that cover the rows."""
    most = min(ROWS, max(TILE, BLOCK_BYTES // row_bytes // TILE * TILE))
    count = -(-rows // most)
    height = -(-rows // (count * TILE)) * TILE
    return [slice(start, min(start + height, rows)) for start in range(0, rows, height)]


class _Loss:
    """The loss over all rows, and the gradients that are needed, accumulated block by block."""

    def __init__(self, x: Any, weight: Any, bias: Any, classes: Any, needs: tuple[bool, ...]) -> None:
        targets, counted, self.smoothing = classes
        self.x, self.bias = contiguous(x), None if bias is None else contiguous(bias)
        self.targets, self.counted = contiguous(targets, cupy.int64), contiguous(counted)
        self.x_operand, self.weight = rounded(self.x), rounded(weight)
        (rows, width), self.classes, dtype = x.shape, weight.shape[1], x.dtype
        self.losses, self.tops, self.log_totals = (cupy.empty(rows, dtype) for _ in range(3))
        self.transposed = weight.flags.f_contiguous and not weight.flags.c_contiguous  # of a tied embedding
        shape = (self.classes, width) if self.transposed else (width, self.classes)
        self.dx = cupy.empty((rows, width), dtype) if needs[0] else None
        self.dweight = cupy.empty(shape, dtype) if needs[1] else None
        self.dbias = cupy.empty(self.classes, dtype) if any(needs[2:]) else None
        self.wanted = any(needs)

    def run(self) -> tuple[Any, tuple[Any, ...]]:
        """Return the loss, and the gradients of x, weight and, if there is one, bias."""
        rows, dtype = len(self.x), self.x.dtype
        blocks = row_blocks(rows, self.classes * dtype.itemsize)
        room = cupy.empty((blocks[0].stop, self.classes), dtype)
        for n in blocks:
            self._block(n, room[: n.stop - n.start])
        total = cupy.empty((), dtype)
        kernel("linear_cross_entropy.cu", "loss_total", dtype.char)((1,), (1024,), (self.losses, rows, total))
        dweight = self.dweight.T if self.dweight is not None and self.transposed else self.dweight
        return total, (self.dx, dweight, *([] if self.bias is None else [self.dbias]))

    def _block(self, n: slice, z: Any) -> None:
        """Compute the losses of a block of rows, and add its contributions to the gradients."""
        kind, (rows, width) = z.dtype.char, z.shape
        bias = 0 if self.bias is None else self.bias
        of_row = (self.tops[n], self.log_totals[n])
        choice = (self.targets[n], self.counted[n], float(self.smoothing))
        gemm(self.x_operand[n], self.weight, out=z)
        threads = min(THREADS, -(-width // WARP) * WARP)
        kernel("linear_cross_entropy.cu", "row_losses", kind)(
            (rows,), (threads,), (z, bias, width, *choice, self.losses[n], *of_row)
        )
        if not self.wanted:
            return
        grid, chunk = chunks_of(rows, width)
        parts = None if self.dbias is None else cupy.empty((grid[1], width), z.dtype)
        arguments = (z, bias, *of_row, *choice, rows, width, chunk, 0 if parts is None else parts)
        kernel("linear_cross_entropy.cu", "logit_gradient", kind)(grid, (WARP, 8), arguments)
        if parts is not None:
            sum_parts(parts, self.dbias, more=n.start > 0)
        self._products(n, rounded(z))

    def _products(self, n: slice, dz: Any) -> None:
        """Compute dx = dz W^T, and add x^T dz to dW, or its transpose to that of dW."""
        if self.dx is not None:
            gemm(dz, self.weight.T, out=self.dx[n])
        if self.dweight is not None:
            x, more = self.x_operand[n], float(n.start > 0)
            if self.transposed:
                gemm(dz.T, x, out=self.dweight, beta=more)
            else:
                gemm(x.T, dz, out=self.dweight, beta=more)


@overrides(linear_cross_entropy_formula)
def _linear_cross_entropy(x: Any, weight: Any, *bias: Any, classes: Any, needs: tuple[bool, ...]) -> Any:
    if not fits(x, weight, *bias) or not weight.size or not on_current_device(*classes[:2]):
        return NOT_SERVED
    return _Loss(x, weight, bias[0] if bias else None, classes, needs).run()


@overrides(linear_cross_entropy_gradient)
def _linear_cross_entropy_gradient(
    dloss: Any, x: Any, weight: Any, *bias: Any, classes: Any, kept: Any, needs: tuple[bool, ...]
) -> Any:
    if kept is None or dloss.dtype != x.dtype:
        return NOT_SERVED
    return tuple([None if d is None else d * dloss for d in kept])  # copies: another pass may need `kept`
