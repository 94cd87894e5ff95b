"""Kernels for NumPy arrays: they compute the formulas in place, mostly on blocks of rows that fit in the cache."""

from tensorlib.kernels.numpy import (
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

__all__ = [
    "attention", "crossentropy", "dropout", "indexing", "linalg", "linear", "linear_cross_entropy", "normalize",
    "recurrent", "sampled_linear", "softmax", "update",
]  # fmt: skip
