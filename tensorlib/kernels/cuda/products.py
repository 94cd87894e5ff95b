"""Matrix products of CuPy arrays by cuBLAS, in the precision of the running op; they may be captured."""

from __future__ import annotations

import math
from ctypes import byref, c_double, c_float, c_longlong, c_void_p
from functools import lru_cache
from typing import Any, NamedTuple

import cupy
import numpy as np

from tensorlib.arrays.blas import GemmPlan, View, contiguous_strides, plan_gemm
from tensorlib.arrays.cuda import THREADS
from tensorlib.engine.recording import STATE
from tensorlib.kernels.cuda import cublas
from tensorlib.kernels.cuda.cublas import COMPUTE, TYPES, check, current_handle
from tensorlib.kernels.cuda.launch import NOT_SERVED, kernel, on_current_device, overrides
from tensorlib.kernels.cuda.rounding import rounded, rounded_pair
from tensorlib.ops.linalg import product

__all__ = ["gemm", "rounded"]

RESULTS = {"f": "f", "d": "d", "e": "fe", "H": "fH"}  # by the letter of the operands' dtype, that of the result
INTEGER = 2**31 - 1  # larger sizes need the functions whose names end in _64
ALIGNED = 16  # bytes: what the tensor cores' instructions read at once


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

    a and b are CuPy arrays of at least two axes on the current device:

    - float32: computed in `precision` ("float32", "tf32", "bf16" or "fp16"), by default that of the running op
      (``STATE.get().precision``, see `tl.precision`);
    - float64: always exact;
    - float16, or uint16 holding bf16 numbers, as `rounded` returns: exact products, sums in float32. If only one
      operand is, the other may be float32 and is rounded.

    They may be any views. Only these are copied: negative strides, broadcasting within a matrix, no axis of the matrix
    with stride 1, overlapping rows. So pass ``weight.swapaxes(0, 1)``, columns of a wider matrix, or heads (B, H, T, K)
    that are views of (B, T, 3D). Batch axes that do not merge, as these heads, cost one more small kernel; except in
    float32 and float64 they are copied too if a matrix of either operand or of the result does not begin at a multiple
    of 16 bytes, or its rows are not so far apart.

    out: where the result is written; it is returned. Any view that does not overlap itself or the operands; without
    one, a new contiguous array is returned, of dtype `dtype`. beta = 1 accumulates; with beta = 0 `out` is not read.
    dtype: of a new result, by default that of the operands, but float32 for bf16 and float16 operands. float32 operands
    give float32, float64 operands float64; operands of 16 bits give float32 or their own dtype.

    Nothing is fetched or awaited, so this may be called while a stream captures. Three calls give the same bits.
    Raises ValueError if shapes, dtypes or devices do not fit.
    """
    if precision is None:
        precision = STATE.get().precision
    if out is None:
        call = _prepared(a.shape, a.strides, a.dtype, b.shape, b.strides, b.dtype, precision, dtype)
    else:
        call = _prepared(
            a.shape, a.strides, a.dtype, b.shape, b.strides, b.dtype, precision, dtype, out.shape, out.strides,
            out.dtype,
        )  # fmt: skip
    name, shape, kind, swapped, batched, double, head, of_first, of_second, of_out, *_ = call
    device, handle = current_handle()
    memory_a, memory_b = a.data, b.data
    if memory_a.device_id != device or memory_b.device_id != device:
        raise ValueError(f"gemm: both operands must be on the current GPU, {device}; x.to('cupy') copies them there")
    if name is None:
        return _by_steps(call, a, b, out, alpha, beta, precision)
    result = cupy.empty(shape, kind) if out is None else out
    first, second = (memory_b.ptr, memory_a.ptr) if swapped else (memory_a.ptr, memory_b.ptr)
    target = result.data.ptr
    if batched:
        if call.unaligned is not None and (first | second | target) % ALIGNED:
            return _by_steps(call.unaligned, a, b, out, alpha, beta, precision)
        lists = _addresses(call.plan, first, second, target, a.itemsize, result.itemsize)
        first, second, target = (lists.data.ptr + i * lists.strides[0] for i in range(3))
    status = getattr(cublas.library(), name)(
        handle, *head, _scalar(alpha, double), c_void_p(first), *of_first, c_void_p(second), *of_second,
        _scalar(beta, double), c_void_p(target), *of_out,
    )  # fmt: skip
    if status:
        check(status, f"gemm: {a.shape} {b.shape} {a.dtype}")
    return result


@overrides(product)
def _product(x: Any, y: Any) -> Any:
    if not isinstance(y, cupy.ndarray) or min(x.ndim, y.ndim) < 2 or not on_current_device(x, y):
        return NOT_SERVED
    if x.dtype != y.dtype:
        dtype = np.result_type(x.dtype, y.dtype)
        x, y = x.astype(dtype, copy=False), y.astype(dtype, copy=False)
    if x.dtype.char not in "fde":
        return NOT_SERVED
    return gemm(x, y, dtype=x.dtype)


# ---- how a product is computed -----------------------------------------------------------------------------------


class _Call(NamedTuple):
    """A call of cuBLAS without its addresses and scalars."""

    function: str | None  # its name in `Library`; None if the product takes several steps
    shape: tuple[int, ...]
    kind: np.dtype  # that of the result
    swapped: bool = False
    batched: int = 0  # the number of matrices, if their addresses are passed
    double: bool = False  # whether alpha and beta are float64
    head: tuple[Any, ...] = ()
    first: tuple[Any, ...] = ()
    second: tuple[Any, ...] = ()
    out: tuple[Any, ...] = ()
    plan: Any = None
    unaligned: _Call | None = None  # what is called instead if an array does not begin at a multiple of 16 bytes


@lru_cache(maxsize=8192)
def _prepared(
    a_shape: Any, a_strides: Any, a_dtype: np.dtype, b_shape: Any, b_strides: Any, b_dtype: np.dtype, precision: str,
    dtype: Any, out_shape: Any = None, out_strides: Any = None, out_dtype: np.dtype | None = None,
) -> _Call:  # fmt: skip
    """Return how a product of arrays of these shapes and strides, in bytes, is computed."""
    kind = _result_dtype(a_dtype, b_dtype, None if dtype is None else np.dtype(dtype), out_dtype)

    def view(shape: Any, strides: Any, dtype: np.dtype) -> View:
        return View(shape, tuple(s // dtype.itemsize for s in strides))

    out = None if out_shape is None else view(out_shape, out_strides, kind)
    plan = plan_gemm(view(a_shape, a_strides, a_dtype), view(b_shape, b_strides, b_dtype), out)
    several = any(plan.copied) or plan.expanded or 0 in (*plan.shape, a_shape[-1]) or a_dtype != b_dtype
    if several or (a_dtype.char == "f" and _is_rounded(precision, plan.sizes)):
        return _Call(None, plan.shape, kind, plan=plan)
    call = _described(plan, a_dtype.char, kind, precision)
    if not call.batched or a_dtype.char == "d" or (a_dtype.char == "f" and precision == "float32"):
        return call
    copied = _in_one_batch(plan, kind, out)
    return call._replace(unaligned=copied) if _is_aligned(plan, a_dtype.itemsize, kind.itemsize) else copied


def _result_dtype(a: np.dtype, b: np.dtype, dtype: np.dtype | None, out: np.dtype | None) -> np.dtype:
    operands = {a.char, b.char}
    narrow = operands - {"f"} if len(operands) > 1 else operands  # float32 is rounded to the other one's 16 bits
    if len(narrow) > 1 or not narrow <= RESULTS.keys() or (len(operands) > 1 and "d" in narrow):
        raise ValueError(f"gemm: both operands must be float32, float64, float16 or bf16 in uint16, got {a} and {b}")
    allowed = [np.dtype(kind) for kind in RESULTS[narrow.pop()]]
    kind = out or dtype or allowed[0]
    if kind not in allowed or (dtype or kind) != kind:
        wanted = " or ".join(str(one) for one in allowed)
        raise ValueError(f"gemm: the result of {a} and {b} must be {wanted}, got {out or dtype}")
    return kind


def _is_rounded(precision: str, sizes: tuple[int, int, int]) -> bool:
    """Return whether float32 operands are rounded in memory before the product.

    fp16: always, so that a number beyond 65504 becomes infinite, which loss scaling waits for. bf16: cuBLAS may round
    what it has read (FAST_16BF), but its fast instructions read 16 bits. Rounding moves 6 (m + n) k bytes to make
    2 m n k operations faster. An estimate for an H100: at 2.5 TB/s it pays from m n / (m + n) of about 1,100.
    """
    m, n, _ = sizes
    return precision == "fp16" or (precision == "bf16" and m * n >= 1536 * (m + n))


def _is_aligned(plan: GemmPlan, item: int, out_item: int) -> bool:
    """Return whether all steps from matrix to matrix, and from row to row, are multiples of 16 bytes.

    cuBLAS chooses the instructions for tensor cores from what it sees on the host. Where the addresses lie on the
    device it takes them for aligned (manual of cublasGemmBatchedEx), and an error there ends the process's use of CUDA.
    """
    items = (item, item, out_item)
    distances = ((*steps, leading) for steps, leading in zip(plan.steps, plan.leading, strict=True))
    return not any(n * size % ALIGNED for own, size in zip(distances, items, strict=True) for n in own)


def _in_one_batch(plan: GemmPlan, kind: np.dtype, out: View | None) -> _Call:
    """Return how operands and result are copied so that one step is left, which cuBLAS sees on the host."""
    copied = out is not None and out.strides != contiguous_strides(plan.shape)
    return _Call(None, plan.shape, kind, plan=GemmPlan(plan.shape, (False, False, copied), expanded=True))


def _described(plan: GemmPlan, operand: str, result: np.dtype, precision: str) -> _Call:
    """Return the call of cuBLAS for a plan."""
    compute = COMPUTE["float64" if operand == "d" else precision if operand == "f" else "float32"]
    count = math.prod(plan.counts)
    wide = max(*plan.sizes, *plan.leading, count) > INTEGER
    size: Any = c_longlong if wide else int
    types = TYPES[operand], TYPES[operand], TYPES[result.char]
    matrices: list[tuple[Any, ...]] = [(kind, size(ld)) for kind, ld in zip(types, plan.leading, strict=True)]
    name, end = "gemm", [compute, -1]
    if len(plan.counts) == 1:
        name, end = "gemm_strided", [size(count), *end]
        matrices = [(*own, c_longlong(step[0])) for own, step in zip(matrices, plan.steps, strict=True)]
    elif plan.counts:
        name, end = "gemm_batched", [size(count), *end]
    head = (*(int(t) for t in plan.transposed), *(size(n) for n in plan.sizes))
    return _Call(
        name + "_64" if wide else name, plan.shape, result, plan.swapped, count if len(plan.counts) > 1 else 0,
        operand == "d", head, matrices[0], matrices[1], (*matrices[2], *end), plan,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _scalar(value: float, double: bool) -> Any:
    """Return the address of a number on the host, of the type in which cuBLAS adds up."""
    return byref((c_double if double else c_float)(value))


def _addresses(plan: GemmPlan, first: int, second: int, out: int, item: int, out_item: int) -> Any:
    """Return the addresses of the matrices in the batches of first, second and out, computed on the device.

    Each of the three lists begins at a multiple of 16 bytes, which newer cuBLAS requires.
    """
    missing = (1,) * (3 - len(plan.counts))
    sizes = (*missing, *plan.counts)
    count = math.prod(sizes)
    bases = [cupy.uint64(address) for address in (first, second, out)]
    bytes_ = [
        step * size
        for steps, size in zip(plan.steps, (item, item, out_item), strict=True)
        for step in (*(0 for _ in missing), *steps)
    ]
    apart = count + count % 2
    addresses = cupy.empty((3, apart), cupy.uint64)
    blocks = -(-count // THREADS)
    kernel("products.cu", "matrix_addresses")(
        (blocks,), (THREADS,), (*bases, count, apart, sizes[1], sizes[2], *bytes_, addresses)
    )
    return addresses


# ---- products that take several steps ----------------------------------------------------------------------------


def _by_steps(call: _Call, a: Any, b: Any, out: Any, alpha: float, beta: float, precision: str) -> Any:
    """Compute a product of which an array is empty, is rounded, or is none that BLAS can read."""
    plan = call.plan
    if 0 in (*plan.shape, a.shape[-1]):
        return _of_nothing(plan, call.kind, out, beta)
    if a.dtype != b.dtype or not (any(plan.copied) or plan.expanded):
        kinds = (a.dtype.char, b.dtype.char)
        a, b = rounded_pair(a, b, "bf16" if "H" in kinds else "fp16" if "e" in kinds else precision)
        return gemm(a, b, out, alpha, beta, call.kind)
    copied_a, copied_b, copied_out = plan.copied
    if plan.expanded:
        copied_a = copied_b = True
        a, b = (cupy.broadcast_to(x, (*plan.shape[:-2], *x.shape[-2:])) for x in (a, b))
    a, b = (cupy.ascontiguousarray(x) if copied else x for x, copied in ((a, copied_a), (b, copied_b)))
    if out is None or not copied_out:
        return gemm(a, b, out, alpha, beta, call.kind, precision)
    written = out.copy() if beta else None
    out[...] = gemm(a, b, written, alpha, beta, call.kind, precision)
    return out


def _of_nothing(plan: GemmPlan, kind: np.dtype, out: Any, beta: float) -> Any:
    """Return beta out, the product over no elements."""
    if out is None:
        return cupy.zeros(plan.shape, kind)
    if beta == 0:
        out[...] = 0
    elif beta != 1:
        out *= out.dtype.type(beta)
    return out
