"""Kernels for NumPy arrays: the formulas computed in place, most of them on blocks of rows that fit the cache."""

from tensorlib.kernels.numpy import (
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

__all__ = [
    "attention", "crossentropy", "dropout", "indexing", "linalg", "linear", "linear_cross_entropy", "normalize",
    "softmax", "update",
]  # fmt: skip
