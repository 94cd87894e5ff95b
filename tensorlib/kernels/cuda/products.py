"""Matrix products of CuPy arrays by cuBLAS, in the precision of the running op; they may be captured."""

from __future__ import annotations

from typing import Any

__all__ = ["gemm", "rounded"]


def gemm(
    a: Any,
    b: Any,
    out: Any = None,
    alpha: float = 1.0,
    beta: float = 0.0,
    dtype: Any = None,
    precision: str | None = None,
) -> Any:
    """Return alpha a b + beta out for a (..., M, K) and b (..., K, N): (..., M, N); leading axes broadcast.

    a and b are CuPy arrays of at least two axes on the current device, of one dtype:

    - float32: computed in `precision` ("float32", "tf32", "bf16" or "fp16"), by default that of the running op
      (``STATE.get().precision``, see `tl.precision`);
    - float64: always exact;
    - float16, or uint16 holding bf16 numbers, as `rounded` returns: exact products, sums in float32.

    They may be any views. Only these are copied: negative strides, broadcasting within a matrix, no axis of the matrix
    with stride 1, overlapping rows. So pass ``weight.swapaxes(0, 1)``, columns of a wider matrix, or heads (B, H, T, K)
    that are views of (B, T, 3D). Batch axes that do not merge, as these heads, cost one more small kernel.

    out: where the result is written; it is returned. Any view that does not overlap itself or the operands; without
    one, a new contiguous array is returned, of dtype `dtype`. beta = 1 accumulates; with beta = 0 `out` is not read.
    dtype: of a new result, by default that of the operands, but float32 for bf16 and float16 operands. float32 operands
    give float32, float64 operands float64; operands of 16 bits give float32 or their own dtype.

    Nothing is fetched or awaited, so this may be called while a stream captures. Three calls give the same bits.
    Raises ValueError if shapes, dtypes or devices do not fit.
    """
    raise NotImplementedError


def rounded(x: Any, precision: str | None = None) -> Any:
    """Return x as an operand that `gemm` multiplies in `precision` (default: that of the running op) as it lies.

    For float32 in "bf16" that is uint16, in "fp16" float16, in the memory order of x; other arrays and precisions are
    returned as they are. `gemm` rounds float32 operands itself, one launch for both; round an operand here if several
    products read it, such as the gradient dz in dx = dz W^T and dW = x^T dz. Round both operands of a product, or none.
    """
    raise NotImplementedError
