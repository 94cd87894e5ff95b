"""A kernel's case: a call at a size that fills the card, and the work that it has to do.

Memory-bound kernels are counted in bytes: each array read once and each result written once, which is the least that
any kernel can move. Kernels of products are counted in floating-point operations, 2mkn for a product of (m, k) and
(k, n); attention without what a backward pass computes again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import tensorlib as tl
from tensorlib.kernels import overridable

__all__ = ["DROP", "SMOOTHING", "TINY", "Arrays", "Build", "Case", "Scale", "run"]

DROP = (0.1, 5, 7)  # probability, key, draw
SMOOTHING = 0.1


class Scale(NamedTuple):
    """The sizes of the arrays."""

    rows: int = 65_536
    width: int = 1024
    words: int = 32_000
    hidden: int = 4096
    tokens: int = 8192  # rows of products
    recurrent: tuple[int, int, int] = (512, 32, 1024)  # sentences, positions, units
    long: tuple[int, int, int, int] = (16, 16, 1024, 64)  # sentences, heads, positions, width of a head
    short: tuple[int, int, int, int] = (64, 16, 64, 64)


TINY = Scale(64, 16, 30, 24, 8, (2, 3, 4), (2, 2, 8, 4), (2, 2, 4, 4))


class Case(NamedTuple):
    """A call, and its work: operations if `flops` is given, or else the bytes of its arguments and results.

    `written` are the bytes of the arguments that the call also writes.
    """

    call: Callable[[], Any]
    arguments: tuple[Any, ...] = ()
    flops: int = 0
    written: int = 0


class Arrays:
    """Makes arrays on a backend."""

    def __init__(self, backend: str, scale: Scale) -> None:
        self.backend, self.scale = tl.get_backend(backend), scale
        self.xp = self.backend.xp
        self.rng = np.random.default_rng(0)
        self.block = self.rng.standard_normal(2**20, dtype="float32")

    def normal(self, *shape: int) -> Any:
        """Return random numbers; a large array repeats a block of them, because the host is slow to draw them."""
        count = math.prod(shape)
        if count <= self.block.size:
            return self.array(self.block[:count].reshape(shape))
        return self.xp.tile(self.array(self.block), -(-count // self.block.size))[:count].reshape(shape)

    def ids(self, count: int, *shape: int) -> Any:
        """Return random integers below `count`."""
        return self.array(self.rng.integers(0, count, shape))

    def array(self, values: Any) -> Any:
        """Return an array on the backend."""
        return self.backend.asarray(values)

    def rows(self, count: int) -> list[Any]:
        """Return so many arrays (rows, width)."""
        return [self.normal(self.scale.rows, self.scale.width) for _ in range(count)]


def run(name: str, *arguments: Any, flops: int = 0, written: int = 0, **options: Any) -> Case:
    """Return the case that calls a formula by its name, by which a kernel runs."""
    formula = overridable()[name]
    return Case(partial(formula, *arguments, **options), (*arguments, *options.values()), flops, written)


Build = Callable[[Arrays], Case]
