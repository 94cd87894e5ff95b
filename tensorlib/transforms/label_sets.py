"""Sets of labels: bits in 64-bit words, one set for each element of a value, in an array (*shape, words).

An element without any label is *fixed*: it has the value that was recorded, whatever the labelled elements are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Known", "Labels", "everything", "over", "single_labels", "union", "without"]

Labels = np.ndarray[Any, np.dtype[np.uint64]]
"""Sets of labels, (*shape, words): bit i of a set says whether label i is in it."""


class Known(NamedTuple):
    """What is known of a value: its labels, the recorded value, and where it is fixed because it has no label."""

    labels: Labels
    value: Any
    fixed: np.ndarray

    @classmethod
    def of(cls, labels: Labels, value: Any) -> Known:
        """Return what is known of a value with these labels."""
        return cls(labels, value, np.asarray(~labels.any(axis=-1)))

    @property
    def zero(self) -> np.ndarray:
        """Where the value is 0, whatever the labelled elements are."""
        return self.fixed & (np.asarray(self.value) == 0)

    @property
    def infinite(self) -> np.ndarray:
        """Where the value is inf or -inf, whatever the labelled elements are."""
        return self.fixed & np.isinf(self.value)


def single_labels(words: int) -> Labels:
    """Return for each label the set that holds it alone, (64 words, words)."""
    return np.packbits(np.eye(64 * words, dtype=bool), axis=1, bitorder="little").view(np.uint64)


def union(shape: Sequence[int], *parts: Labels) -> Labels:
    """Return the union of sets that broadcast to `shape`, as a new array."""
    found = np.zeros((*shape, parts[0].shape[-1]), np.uint64)
    for part in parts:
        found |= part
    return found


def over(labels: Labels, axes: int | tuple[int, ...], keepdims: bool = False) -> Labels:
    """Return the union over axes of the values."""
    found: Any = np.bitwise_or.reduce(labels, axis=axes)
    return np.expand_dims(found, axes) if keepdims else found


def everything(labels: Labels) -> Labels:
    """Return the union of the sets of all elements, (words,)."""
    return over(labels.reshape(-1, labels.shape[-1]), 0)


def without(labels: Labels, where: np.ndarray) -> Labels:
    """Return the sets, empty where the condition holds."""
    return np.where(where[..., None], np.uint64(0), labels)
