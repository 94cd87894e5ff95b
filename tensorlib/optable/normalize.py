"""Rows of the op table: normalization."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, sample

__all__ = ["ROWS"]


def _layer_norm(x: np.ndarray, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> np.ndarray:
    weight, bias = 1.0 if weight is None else weight, 0.0 if bias is None else bias
    if not x.size:
        return x + weight + bias
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def _rms_norm(x: np.ndarray, weight: Any = 1.0, eps: float = 1e-6) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * weight


def _batch_norm(
    x: np.ndarray, weight: Any = None, bias: Any = None, mean: Any = None, var: Any = None, eps: float = 1e-5,
    return_statistics: bool = False,
) -> Any:  # fmt: skip
    channels_last = np.moveaxis(x, 1, -1)
    rows = channels_last.reshape(-1, x.shape[1])
    mean, var = (rows.mean(0), rows.var(0)) if mean is None else (mean, var)
    y = (channels_last - mean) / np.sqrt(var + eps)
    y = np.moveaxis(y * (1 if weight is None else weight) + (0 if bias is None else bias), -1, 1)
    return (y, mean, var) if return_statistics else y


def _normalize(x: np.ndarray, ord: float = 2, axis: Any = -1, eps: float = 1e-12) -> np.ndarray:
    largest = np.abs(x).max(axis=axis, keepdims=True, initial=0)
    norm = largest if ord == np.inf else (np.abs(x) ** ord).sum(axis=axis, keepdims=True) ** (1 / ord)
    return x / np.maximum(norm, eps)


def _cosine_similarity(x: np.ndarray, y: np.ndarray, axis: int = -1, eps: float = 1e-8) -> np.ndarray:
    x, y = np.broadcast_arrays(x, y)
    lengths = [np.maximum(np.sqrt((z * z).sum(axis)), eps) for z in (x, y)]
    return (x * y).sum(axis) / (lengths[0] * lengths[1])


GIVEN = np.array([0.5, 2.0])

ROWS: list[Row] = [
    Row(
        "layer_norm", tl.layer_norm, _layer_norm,
        [sample((2, 4), (4,), (4,)), sample((2, 3, 4), (4,), (4,)), sample((4,), (4,), (4,)),
         sample((0, 4), (4,), (4,)),
         sample((2, 1), (1,), (1,)), sample((1, 1, 5), (5,), (5,), eps=0.1), sample((2, 3)), sample((2, 3), (3,)),
         sample((2, 0), (0,)),
         sample((2, 3), None, (3,))],
    ),
    Row(
        "rms_norm", tl.rms_norm, _rms_norm,
        [sample((2, 4), (4,)), sample((2, 3, 4), (4,)), sample((4,), (4,)), sample((0, 4), (4,)),
         sample((2, 1), (1,), eps=0.1), sample((2, 3)),
         sample((1, 1, 5), (5,), 0.1)],
    ),
    Row(
        "batch_norm", tl.batch_norm, _batch_norm,
        [sample((3, 2), (2,), (2,)), sample((2, 2, 3), (2,), (2,), return_statistics=True),
         sample((2, 2, 1, 2), (2,)), sample((3, 2)),
         sample((2, 1, 2), (1,), (1,), eps=0.1), sample((2, 2, 2), None, None, GIVEN, GIVEN),
         sample((0, 2), (2,), (2,), GIVEN, GIVEN), sample((3, 2), None, (2,)), sample((2, 2), None, None, (2,), GIVEN)],
    ),
    Row(
        "normalize", tl.normalize, _normalize,
        [sample((2, 3)), sample((4,)), sample((2, 3), axis=0), sample((2, 3, 2), axis=-2), sample((2, 1)),
         sample((0, 3)), sample((2, 3), ord=1),
         sample((2, 3), 3.5), sample((2, 3), np.inf, axis=0), sample((2, 3), axis=(0, 1)), sample((2, 3), eps=5.0)],
    ),
    Row(
        "cosine_similarity", tl.cosine_similarity, _cosine_similarity,
        [sample((2, 3), (2, 3)), sample((3,), (3,)), sample((2, 3), (3,)), sample((2, 1, 3), (2, 3), axis=2),
         sample((0, 3), (0, 3)),
         sample((3, 2), (3, 2), axis=0), sample((2, 1), (2, 1), eps=5.0),
         sample((2, 3), np.full((2, 3), 0.7))],
    ),
]  # fmt: skip
