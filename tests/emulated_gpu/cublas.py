"""A stand-in for cuBLAS: the same C arguments, checked as the manual demands, and computed by NumPy.

It reads and writes memory by address, so it serves arrays of the emulated device and, in tests of the arguments alone,
arrays of NumPy. `install` puts it in the place of the library when the backend for CuPy is first used.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tensorlib.arrays.backend import on_first_use
from tensorlib.arrays.bf16 import rounded_to_bf16

LETTERS = {0: "f", 1: "d", 2: "e", 14: "H"}  # NumPy's, by cudaDataType; bf16 numbers lie in uint16
# The types of the operands, the result and the scalars that a compute type allows (manual, 2.8.12).
ALLOWED = {
    68: {"ff", "ee", "ef", "HH", "Hf"}, 70: {"dd"}, 75: {"ff"}, 77: {"ff"},
}  # fmt: skip


def rounded_to_tf32(x: np.ndarray) -> np.ndarray:
    """Return float32 numbers with the 10 bits of fraction that TF32 keeps, rounded to the nearest."""
    bits = np.ascontiguousarray(x).view(np.uint32).reshape(x.shape)
    rounded = ((bits + (0xFFF + ((bits >> 13) & 1))) & np.uint32(0xFFFFE000)).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(x), rounded, x)


def from_bf16(x: np.ndarray) -> np.ndarray:
    """Return bf16 numbers, held in uint16, as float32."""
    return (x.astype(np.uint32) << 16).view(np.float32)


def to_bf16(x: np.ndarray) -> np.ndarray:
    """Return float32 numbers as bf16, held in uint16."""
    return (rounded_to_bf16(x).view(np.uint32) >> 16).astype(np.uint16)


class Operand(NamedTuple):
    """Matrices in memory: each is `rows` by `columns`, its columns `leading` elements apart."""

    letter: str
    leading: int
    rows: int
    columns: int

    def at(self, address: int) -> np.ndarray:
        """Return the matrix at an address, as NumPy sees it."""
        item = np.dtype(self.letter).itemsize
        assert self.leading >= max(1, self.rows), f"leading dimension {self.leading} < {self.rows} rows"
        assert address and address % item == 0, f"address {address:#x} is not aligned to {item} bytes"
        span = (self.leading * (self.columns - 1) + self.rows) * item
        buffer = (ctypes.c_char * span).from_address(address)
        return np.lib.stride_tricks.as_strided(
            np.frombuffer(buffer, self.letter), (self.rows, self.columns), (item, self.leading * item)
        )


def value(x: Any) -> Any:
    """Return the number in an object of ctypes; an int, which stands for a C int, must have 32 bits."""
    if isinstance(x, int):
        assert -(2**31) <= x < 2**31, f"{x} is no C int"
        return x
    assert isinstance(x, ctypes.c_void_p | ctypes.c_longlong | ctypes.c_size_t)
    return x.value or 0


class _Handle:
    stream, workspace, size = 0, 0, 0


class Cublas:
    """The functions of cuBLAS. `submit` runs an action, or records it; `block_of` finds the array at an address."""

    def __init__(
        self,
        submit: Callable[[Callable[[], None]], None] = lambda action: action(),
        block_of: Callable[[int], tuple[int, int] | None] | None = None,
    ) -> None:
        self.submit, self.block_of = submit, block_of
        self.handles: dict[int, _Handle] = {}

    # ---- handles

    def create(self, handle: Any) -> int:
        handle._obj.value = 1000 + len(self.handles)
        self.handles[handle._obj.value] = _Handle()
        return 0

    def set_stream(self, handle: Any, stream: Any) -> int:
        own = self.handles[handle.value]
        own.stream, own.workspace, own.size = value(stream), 0, 0  # resets the workspace
        return 0

    def set_workspace(self, handle: Any, address: Any, size: Any) -> int:
        assert address.value % 256 == 0, "a workspace must be aligned to 256 bytes"
        own = self.handles[handle.value]
        own.workspace, own.size = address.value, size.value
        return 0

    # ---- products

    def gemm(
        self, handle, ta, tb, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc, compute, algorithm
    ):  # fmt: skip
        operands = self._operands(ta, tb, m, n, k, a_type, lda, b_type, ldb, c_type, ldc, compute, algorithm)
        return self._run(
            "gemm", handle, operands, (ta, tb), compute, alpha, beta, lambda: [(a.value, b.value, c.value)]
        )

    def gemm_strided(
        self, handle, ta, tb, m, n, k, alpha, a, a_type, lda, step_a, b, b_type, ldb, step_b, beta, c, c_type, ldc,
        step_c, count, compute, algorithm,
    ):  # fmt: skip
        operands = self._operands(ta, tb, m, n, k, a_type, lda, b_type, ldb, c_type, ldc, compute, algorithm)
        a, b, c, count = map(value, (a, b, c, count))
        assert count >= 1
        steps = [s.value * np.dtype(o.letter).itemsize for s, o in zip((step_a, step_b, step_c), operands, strict=True)]
        assert count == 1 or step_c.value, "the matrices of the result must not overlap"
        places = [tuple(x + i * s for x, s in zip((a, b, c), steps, strict=True)) for i in range(count)]
        return self._run("gemm_strided", handle, operands, (ta, tb), compute, alpha, beta, lambda: places)

    def gemm_batched(
        self, handle, ta, tb, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc, count, compute,
        algorithm,
    ):  # fmt: skip
        operands = self._operands(ta, tb, m, n, k, a_type, lda, b_type, ldb, c_type, ldc, compute, algorithm)
        a, b, c, count = map(value, (a, b, c, count))
        assert count >= 1
        if any(x % 16 for x in (a, b, c)):  # the lists of addresses; newer versions refuse them
            return 15

        on_tensor_cores = compute in (75, 77) or operands[0].letter in "eH"
        if on_tensor_cores:
            for own in operands:
                assert own.leading * np.dtype(own.letter).itemsize % 16 == 0, f"misaligned leading dimension: {own}"

        def places() -> list[tuple[int, ...]]:  # the addresses are on the device when the product runs
            arrays = [np.frombuffer((ctypes.c_char * (8 * count)).from_address(x), np.uint64) for x in (a, b, c)]
            assert len(set(arrays[2].tolist())) == count, "the matrices of the result must differ"
            if on_tensor_cores:  # a GPU would end the context
                assert not any((x % 16).any() for x in arrays), "misaligned address"
            return [tuple(int(x[i]) for x in arrays) for i in range(count)]

        return self._run("gemm_batched", handle, operands, (ta, tb), compute, alpha, beta, places)

    gemm_64, gemm_strided_64, gemm_batched_64 = gemm, gemm_strided, gemm_batched

    def _operands(self, ta, tb, m, n, k, a_type, lda, b_type, ldb, c_type, ldc, compute, algorithm):  # fmt: skip
        m, n, k, lda, ldb, ldc = map(value, (m, n, k, lda, ldb, ldc))
        assert ta in (0, 1) and tb in (0, 1) and algorithm == -1
        assert min(m, n, k) > 0
        assert a_type == b_type
        kinds = LETTERS[a_type], LETTERS[c_type]
        assert "".join(kinds) in ALLOWED[compute], f"compute type {compute} does not take {kinds}"
        a = Operand(kinds[0], lda, *((k, m) if ta else (m, k)))
        b = Operand(kinds[0], ldb, *((n, k) if tb else (k, n)))
        return a, b, Operand(kinds[1], ldc, m, n)

    def _run(self, name, handle, operands, transposed, compute, alpha, beta, places):  # fmt: skip
        own = self.handles[handle.value]
        stream, workspace, size = own.stream, own.workspace, own.size
        assert size >= 4 << 20, "the handle has no workspace"
        scalar = ctypes.c_double if compute == 70 else ctypes.c_float
        assert isinstance(alpha._obj, scalar) and isinstance(beta._obj, scalar)
        by_value = alpha._obj.value, beta._obj.value  # as a capture keeps them
        recorded = self.block_of is not None and self._on_stream(stream)
        if recorded and name != "gemm_batched":  # when a graph runs, other arrays may lie where these did
            self._check_places(operands, places())

        def action() -> None:
            if self.block_of is not None:
                block = self.block_of(workspace)
                assert block and workspace + size <= sum(block), "the workspace has been freed"
            found = places()
            if not recorded:
                self._check_places(operands, found)
            for addresses in found:
                self._multiply(operands, transposed, compute, *by_value, addresses)

        self.submit(action)
        return 0

    def _multiply(self, operands, transposed, compute, alpha, beta, addresses):  # fmt: skip
        a, b, c = (operand.at(address) for operand, address in zip(operands, addresses, strict=True))
        a, b = (x.T if t else x for x, t in zip((a, b), transposed, strict=True))
        a, b = (from_bf16(x) if x.dtype == np.uint16 else x.astype(np.float32) if x.dtype == np.float16 else x
                for x in (a, b))  # fmt: skip
        rounding = {75: rounded_to_bf16, 77: rounded_to_tf32}.get(compute)
        if rounding:
            a, b = rounding(a), rounding(b)
        with np.errstate(all="ignore"):
            found = a.dtype.type(alpha) * np.matmul(a, b)
            if beta:  # with beta = 0, c is not read
                found += a.dtype.type(beta) * (from_bf16(c) if c.dtype == np.uint16 else c.astype(found.dtype))
            c[...] = to_bf16(found) if c.dtype == np.uint16 else found

    def _check_places(self, operands: tuple[Operand, ...], places: list[tuple[int, ...]]) -> None:
        """Check that each matrix lies in one array of the emulated device."""
        if self.block_of is None:
            return
        for addresses in places:
            for operand, address in zip(operands, addresses, strict=True):
                span = (operand.leading * (operand.columns - 1) + operand.rows) * np.dtype(operand.letter).itemsize
                block = self.block_of(address)
                assert block and address + span <= sum(block), f"{operand} at {address:#x} is not in one array"

    @staticmethod
    def _on_stream(stream: int) -> bool:
        """Check that the handle runs on the current stream; return whether that stream captures."""
        from tests.emulated_gpu.device import capturing, get_current_stream

        assert get_current_stream().ptr == stream, "the handle runs on another stream than the current one"
        return capturing()


def install() -> Cublas:
    """Return a stand-in that `tensorlib.kernels.cuda.cublas` will use on the emulated device."""
    from tests.emulated_gpu.device import submit
    from tests.emulated_gpu.memory import block_of

    found = Cublas(submit, block_of)

    def replace() -> None:
        from tensorlib.kernels.cuda import cublas

        functions = cublas.Library(*(getattr(found, name) for name in cublas.Library._fields))
        cublas.library = lambda: functions  # type: ignore[assignment]

    on_first_use("cupy", replace)
    return found
