"""Kernels for NumPy arrays: the same formulas in place, most of them on blocks of rows that fit the cache."""

from tensorlib.kernels.numpy import (
    attention,
    crossentropy,
    dropout,
    embedding,
    linear,
    linear_cross_entropy,
    normalize,
    products,
    softmax,
    update,
)

__all__ = [
    "attention", "crossentropy", "dropout", "embedding", "linear", "linear_cross_entropy", "normalize", "products",
    "softmax", "update",
]  # fmt: skip
