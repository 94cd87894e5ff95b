"""Kernels: fast overrides of formulas in ops/.

A kernel is registered for an array type under ``functools.singledispatch``: the formula stays readable, and the kernel
runs instead. TENSORLIB_KERNELS in the environment chooses: ``0`` registers no kernel, and everything works, but more
slowly; ``numpy`` registers those written in NumPy (and those for CuPy); ``numba``, the default where Numba is
installed, also those that Numba compiles.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tensorlib.arrays.backend import on_first_use
from tensorlib.ops import (
    activations,
    add_norm,
    attention,
    crossentropy,
    dropout,
    elementwise,
    feed_forward,
    indexing,
    linalg,
    linear,
    linear_cross_entropy,
    loss_scale,
    multi_head_attention,
    next_position,
    normalize,
    recurrent,
    sampled_linear,
    softmax,
    update,
    update_in_place,
)

__all__ = ["chosen", "compile_ahead", "enabled", "overridable", "register_kernels"]


def overridable() -> dict[str, Callable[..., Any]]:
    """Return every formula that kernels may override, by name. A test compares each formula with its kernels."""
    modules = (
        activations, add_norm, attention, crossentropy, dropout, elementwise, feed_forward, indexing, linalg, linear,
        linear_cross_entropy, loss_scale, multi_head_attention, next_position, normalize, recurrent, sampled_linear,
        softmax, update, update_in_place,
    )  # fmt: skip
    return {
        name: formula
        for module in modules
        for name, formula in vars(module).items()
        if hasattr(formula, "registry") and formula.__module__ == module.__name__
    }


def chosen() -> str:
    """Return which kernels run on a CPU: "0" (none), "numpy" or "numba".

    Raises RuntimeError if TENSORLIB_KERNELS is none of these, and if it asks for Numba, which is not installed.
    """
    from tensorlib.kernels import numba

    given = os.environ.get("TENSORLIB_KERNELS", "") or "1"
    if given == "1":
        return "numba" if numba.available() else "numpy"
    if given not in ("0", "numpy", "numba"):
        raise RuntimeError(f"TENSORLIB_KERNELS: must be 0, numpy or numba, got {given!r}; unset it for the fastest")
    if given == "numba" and not numba.available():
        raise RuntimeError(
            "TENSORLIB_KERNELS: numba is required, but not installed; pip install numba, or unset TENSORLIB_KERNELS"
        )
    return given


def enabled() -> bool:
    """Return False if ``TENSORLIB_KERNELS=0`` in the environment disables the kernels."""
    return chosen() != "0"


def register_kernels() -> None:
    """Register the kernels for a CPU now, those for CuPy when its backend is first used; none if disabled."""
    kind = chosen()
    if kind == "0":
        return
    from tensorlib.kernels import numba, numpy  # noqa: F401

    if kind == "numba":
        numba.register(overridable())
    on_first_use("cupy", _register_cuda_kernels)


def compile_ahead(precision: str = "float32") -> None:
    """Compile the kernels of a Transformer's training step and of decoding in another thread, if they run here.

    precision: that of the training step, for which `precision` has been called.

    Kernels compile when they are first called; machine code from earlier processes is only read. A program calls this
    before work that needs no kernels, such as preparing text.
    """
    if chosen() == "numba":
        from tensorlib.kernels.numba import ahead

        ahead.compile_ahead(precision)


def _register_cuda_kernels() -> None:
    from tensorlib.kernels import cuda  # noqa: F401
