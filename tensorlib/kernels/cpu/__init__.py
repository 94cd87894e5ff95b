"""Kernels for NumPy arrays: the same formulas in place, most of them on blocks of rows that fit the cache."""

from tensorlib.kernels.cpu import crossentropy, normalize, softmax, update

__all__ = ["crossentropy", "normalize", "softmax", "update"]
