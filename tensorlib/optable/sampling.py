"""Rows of the op table: random Tensors. The references apply the same formulas to the random words of NumPy's Philox.

The first argument of a sample is an array that gives the backend and, if needed, the shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, sample

__all__ = ["ROWS"]

SEED = 5


def _words(count: int) -> np.ndarray:
    return np.random.Philox(key=SEED, counter=0).random_raw(count)


def _open(shape: tuple[int, ...]) -> np.ndarray:
    return ((_words(int(np.prod(shape))) + 0.5) / 2.0**64).reshape(shape)


def _uniform(x: np.ndarray, low: float = 0, high: float = 1) -> np.ndarray:
    return low + (high - low) * np.random.Generator(np.random.Philox(key=SEED, counter=0)).random(x.shape)


def _normal(x: np.ndarray, mean: float = 0, std: float = 1) -> np.ndarray:
    u = _open((x.size + 1,))
    z = [
        np.sqrt(-2 * np.log(u[i - i % 2])) * (np.cos, np.sin)[i % 2](2 * np.pi * u[i - i % 2 + 1])
        for i in range(x.size)
    ]
    return mean + std * np.array(z, np.float64).reshape(x.shape)


def _gumbel(x: np.ndarray) -> np.ndarray:
    return np.asarray(-np.log(-np.log1p(-_open(x.shape))))


def _bernoulli(x: np.ndarray, p: Any) -> np.ndarray:
    return np.asarray(_uniform(x) < p, np.float64)


def _categorical(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.argmax(x + _gumbel(x), axis=axis)


def _permutation(x: Any) -> np.ndarray:
    order = np.argsort(_words(len(x)), kind="stable")
    return x[order]


def _drawn(function: Any) -> Any:
    """Return `function` of an array that gives shape and backend: in float64, always the generator's first draw."""

    def draw(x: Any, *arguments: Any, **options: Any) -> Any:
        stream = tl.Generator(SEED)
        return function(*arguments, x.shape, dtype="float64", generator=stream, backend=x.backend, **options)

    return draw


SHAPES = [sample(np.zeros(shape)) for shape in ((), (3,), (2, 3), (0, 2), (1, 1), (2, 2, 2))]

ROWS: list[Row] = [
    Row(
        "uniform", _drawn(tl.uniform), _uniform, [*SHAPES, sample(np.zeros(4), low=-2.0, high=3.0)],
        differentiable=False,
    ),
    Row("normal", _drawn(tl.normal), _normal, [*SHAPES, sample(np.zeros(3), mean=2.0, std=0.5)], differentiable=False),
    Row("gumbel", _drawn(tl.gumbel), _gumbel, SHAPES, differentiable=False),
    Row(
        "bernoulli", _drawn(tl.bernoulli), _bernoulli,
        [*[sample(np.zeros((3, 4)), p) for p in (0.5, 0.0, 1, np.array([0.1, 0.4, 0.6, 0.9]))],
         sample(np.zeros((0, 2)), 0.5)],
        differentiable=False,
    ),
    Row(
        "categorical", lambda x, **k: tl.categorical(x, generator=tl.Generator(SEED), **k), _categorical,
        [sample((4,)), sample((2, 3)), sample((2, 3), axis=0), sample((2, 3, 2), axis=-2), sample((0, 3)),
         sample((3, 1))],
         differentiable=False,
    ),
    Row(
        "permutation", lambda x: tl.permutation(x, tl.Generator(SEED)), _permutation,
        [sample((4,)), sample((5, 2)), sample((1, 3)), sample((0, 2)), sample((3, 1, 2)), sample((2, 0))],
    ),
]  # fmt: skip
