"""`precision`: how exact the operands of matrix products are. Everything else stays float32."""

from __future__ import annotations

from typing import Any

from tensorlib.engine.recording import Scope, recording
from tensorlib.kernels import chosen
from tensorlib.messages import shown

__all__ = ["precision"]

NAMES = ("float32", "tf32", "bf16", "fp16")


def precision(name: str) -> Scope:
    """Let the large matrix products inside compute with operands of less precision, which is faster.

    "bf16" rounds both float32 operands of a product to bf16, whose relative error is at most 2^-8 = 0.4 %; the products
    are added up in float32. Tensors, weights, statistics, softmax, losses, the attention weights and the optimizer stay
    float32, and so do float64 Tensors. The gradient of an op is computed in the precision in which the op ran. Products
    of few rows may stay exact. "float32", the default, changes nothing. Use it as a context manager or a decorator.

    bf16 requires a processor that multiplies bf16 numbers (AVX512_BF16), oneDNN and Numba; see docs/kernels.md.

    Raises ValueError for any other name; "tf32" and "fp16" name formats that a CPU does not multiply. Raises
    RuntimeError if this machine lacks what bf16 requires.

    >>> x = tl.ones((2, 3))
    >>> with tl.precision("float32"):
    ...     y = x @ x.T
    """
    if (problem := refusal(name)) is not None:
        raise problem
    return recording(precision=name)


def refusal(name: Any) -> Exception | None:
    """Return the error for a precision that is unknown, or that products don't have on this machine."""
    if name not in NAMES:
        return ValueError(f"precision: must be float32 or bf16, got {shown(name)}")
    if name in ("tf32", "fp16"):
        return ValueError(f"precision: {name} is not supported, because CPUs do not multiply it; use float32 or bf16")
    if name == "float32":
        return None
    if chosen() != "numba":
        return RuntimeError(
            'precision: bf16 requires kernels compiled by Numba; pip install -e ".[bf16]" and unset TENSORLIB_KERNELS'
        )
    from tensorlib.kernels.numba import bf16_ready

    missing = bf16_ready()
    return None if missing is None else RuntimeError(f"precision: bf16 {missing}")
