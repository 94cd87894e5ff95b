"""Whether an error says that memory does not suffice."""

from __future__ import annotations

__all__ = ["is_out_of_memory"]

_NAMES = (
    "cudaErrorMemoryAllocation",  # of CUDA, as when a graph is made
    "CUDA_ERROR_OUT_OF_MEMORY",  # of its driver, as when a kernel is loaded or launched
    "ALLOC_FAILED",  # of cuBLAS: CUBLAS_STATUS_ALLOC_FAILED from CuPy, "returned ALLOC_FAILED" from our own calls
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory did not suffice, on the host or on a GPU.

    CuPy's pool raises a MemoryError; CUDA and its libraries raise errors of their own, which their names tell apart.
    """
    return isinstance(error, MemoryError) or any(name in str(error) for name in _NAMES)
