"""Fast overrides of formulas that stand in ops/.

A kernel is registered for an array type under ``functools.singledispatch``: the formula stays what is read, the kernel
is what runs. With ``TENSORLIB_KERNELS=0`` in the environment none is registered, and everything works, only slower.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tensorlib.ops import (
    attention,
    crossentropy,
    dropout,
    indexing,
    linalg,
    linear,
    linear_cross_entropy,
    normalize,
    softmax,
    update,
)

__all__ = ["enabled", "overridable", "register_kernels"]


def overridable() -> dict[str, Callable[..., Any]]:
    """Return every formula that kernels may override, by name. A test walks them and compares each kernel with it."""
    modules = (
        attention, crossentropy, dropout, indexing, linalg, linear, linear_cross_entropy, normalize, softmax, update
    )  # fmt: skip
    return {
        name: formula
        for module in modules
        for name, formula in vars(module).items()
        if hasattr(formula, "registry") and formula.__module__ == module.__name__
    }


def enabled() -> bool:
    """Say whether kernels are wanted: the environment may forbid them."""
    return os.environ.get("TENSORLIB_KERNELS", "1") != "0"


def register_kernels() -> None:
    """Register the kernels for NumPy, unless the environment forbids it. Those for CuPy come with its backend."""
    if enabled():
        from tensorlib.kernels import numpy  # noqa: F401
