"""Kernels: fast overrides of formulas in ops/.

A kernel is registered for an array type under ``functools.singledispatch``: the formula stays readable, and the kernel
runs instead. With ``TENSORLIB_KERNELS=0`` in the environment no kernel is registered: everything works, but
more slowly.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tensorlib.arrays.backend import on_first_use
from tensorlib.ops import (
    attention,
    crossentropy,
    dropout,
    indexing,
    linalg,
    linear,
    linear_cross_entropy,
    normalize,
    recurrent,
    sampled_linear,
    softmax,
    update,
)

__all__ = ["enabled", "overridable", "register_kernels"]


def overridable() -> dict[str, Callable[..., Any]]:
    """Return every formula that kernels may override, by name. A test compares each formula with its kernels."""
    modules = (
        attention, crossentropy, dropout, indexing, linalg, linear, linear_cross_entropy, normalize, recurrent,
        sampled_linear, softmax, update,
    )  # fmt: skip
    return {
        name: formula
        for module in modules
        for name, formula in vars(module).items()
        if hasattr(formula, "registry") and formula.__module__ == module.__name__
    }


def enabled() -> bool:
    """Return False if ``TENSORLIB_KERNELS=0`` in the environment disables the kernels."""
    return os.environ.get("TENSORLIB_KERNELS", "1") != "0"


def register_kernels() -> None:
    """Register the kernels for NumPy now, those for CuPy when its backend is first used; none if disabled."""
    if enabled():
        from tensorlib.kernels import numpy  # noqa: F401

        on_first_use("cupy", _register_cuda_kernels)


def _register_cuda_kernels() -> None:
    from tensorlib.kernels import cuda  # noqa: F401
