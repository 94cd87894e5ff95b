"""Rows of the op table: Tensors filled from numbers. A sample's array gives the backend and, if needed, the shape."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, sample

__all__ = ["ROWS"]


def _from_shape(name: str) -> Row:
    """Return the row of a function that takes a shape."""
    ours, numpys = getattr(tl, name), getattr(np, name)
    return Row(
        name,
        lambda x, *a, dtype="float32": ours(x.shape, *a, dtype=dtype, backend=x.backend),
        lambda x, *a, dtype="float32": numpys(x.shape, *a, dtype=dtype),
        [sample(np.ones(shape), *([2] * (name == "full")), **options) for shape, options in (
            ((), {}), ((3,), {}), ((2, 1), {"dtype": "int64"}), ((0, 2), {"dtype": "float64"}),
            ((2, 3), {"dtype": "bool"}),
        )],
        differentiable=False,
    )  # fmt: skip


def _like(name: str) -> Row:
    """Return the row of a function that takes shape, dtype and backend from a Tensor."""
    extra = [2] * (name == "full_like")
    samples = [sample(shape, *extra) for shape in ((), (2, 3), (0, 2))]
    samples += [
        sample((2, 1), *extra, dtype="int64"),
        sample(np.array([1, 2]), *extra),
        sample(np.array([True]), *extra),
    ]
    return Row(name, getattr(tl, name), getattr(np, name), samples, differentiable=False)


def _from_numbers(name: str, samples: list[Any]) -> Row:
    """Return the row of a function of numbers; its dtype is float64 unless the sample gives one."""
    ours, numpys = getattr(tl, name), getattr(np, name)
    return Row(
        name, lambda x, *a, **k: ours(*a, **{"dtype": "float64", **k}, backend=x.backend),
        lambda x, *a, **k: numpys(*a, **{"dtype": "float64", **k}),
        [sample(np.zeros(0), *given, **named) for given, named in samples], differentiable=False,
    )  # fmt: skip


ROWS: list[Row] = [
    _from_shape("full"), _from_shape("zeros"), _from_shape("ones"), _like("full_like"), _like("zeros_like"),
    _like("ones_like"),
    _from_numbers("arange", [
        ([5], {}), ([5], {"dtype": None}), ([2, 9, 3], {"dtype": None}), ([9, 2, -3], {"dtype": "int32"}),
        ([0.0, 1.0, 0.25], {}),
        ([1, 0, 0.5], {}), ([-1.5], {}), ([0], {"dtype": "uint8"}), ([1.0, -1.0, -0.3], {}),
    ]),
    _from_numbers("linspace", [
        ([0, 1], {}), ([0, 1, 5], {"dtype": "float32"}), ([2, -2, 4], {"endpoint": False}), ([0, 1, 0], {}),
        ([3, 4, 1], {}),
        ([0, 8, 5], {"dtype": "int64"}),
    ]),
    _from_numbers("eye", [([3], {}), ([2, 4], {"dtype": "float32"}), ([0], {}), ([3, 3, -1], {"dtype": "int64"}),
    ([3], {"k": 1})]),
]  # fmt: skip
