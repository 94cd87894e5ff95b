"""Rows of the op table: recurrent layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, Sample, sample

__all__ = ["ROWS"]

Step = Callable[..., Sequence[np.ndarray]]  # from u = x W_x + b of a step, q = h' W_h and the states before it


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _unrolled(step: Step, x: np.ndarray, w_x: np.ndarray, w_h: np.ndarray, bias: Any, firsts: Any, options: Any) -> Any:
    """Return all states of a sequence, step by step."""
    states = [np.zeros((len(x), len(w_h)), x.dtype) if first is None else first for first in firsts]
    visible, found = options.get("visible"), {}
    for t in range(x.shape[1])[:: -1 if options.get("reverse") else 1]:
        new = step(x[:, t] @ w_x + bias, states[0] @ w_h, *states)
        seen = True if visible is None else visible[:, t : t + 1]
        states = [np.where(seen, a, b) for a, b in zip(new, states, strict=True)]
        found[t] = states
    return [np.stack(parts, axis=1) for parts in zip(*[found[t] for t in sorted(found)], strict=True)]


def _rnn(
    x: np.ndarray, w_x: Any, w_h: Any, bias: Any, h: Any = None, activation: str = "tanh", **options: Any
) -> np.ndarray:
    f = np.tanh if activation == "tanh" else lambda z: np.maximum(z, 0)
    return _unrolled(lambda u, q, h: [f(u + q)], x, w_x, w_h, bias, [h], options)[0]


def _lstm(x: np.ndarray, w_x: Any, w_h: Any, bias: Any, h: Any = None, c: Any = None, **options: Any) -> Any:
    def step(u: np.ndarray, q: np.ndarray, h: np.ndarray, c: np.ndarray) -> Sequence[np.ndarray]:
        i, f, g, o = np.split(u + q, 4, -1)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        return _sigmoid(o) * np.tanh(c), c

    return _unrolled(step, x, w_x, w_h, bias, [h, c], options)


def _gru(x: np.ndarray, w_x: Any, w_h: Any, bias: Any, bias_h: Any, h: Any = None, **options: Any) -> np.ndarray:
    def step(u: np.ndarray, q: np.ndarray, h: np.ndarray) -> Sequence[np.ndarray]:
        (u_r, u_z, u_n), (q_r, q_z, q_n) = np.split(u, 3, -1), np.split(q, 3, -1)
        z, n = _sigmoid(u_z + q_z), np.tanh(u_n + _sigmoid(u_r + q_r) * (q_n + bias_h))
        return [(1 - z) * n + z * h]

    return _unrolled(step, x, w_x, w_h, bias, [h], options)[0]


PADDED = np.array([[True, True, False], [True, True, True]])


def _samples(gates: int, states: int, *more: tuple[int, ...], **options: Any) -> list[Sample]:
    def weights(width: int, units: int) -> list[Any]:
        return [(width, gates * units), (units, gates * units), (gates * units,), *[(units,) for _ in more]]

    firsts = [(2, 3)] * states
    return [
        sample((2, 3, 2), *weights(2, 3), **options),
        sample((2, 3, 2), *weights(2, 3), *firsts, visible=PADDED, **options),
        sample((2, 3, 1), *weights(1, 3), *firsts, visible=PADDED, reverse=True, **options),
        sample((2, 1, 2), *weights(2, 3), *firsts, reverse=True, **options),
        sample((1, 2, 2), *weights(2, 1), **options),
        sample((0, 2, 2), *weights(2, 1), **options),
    ]


ROWS: list[Row] = [
    Row("rnn", tl.rnn, _rnn, [*_samples(1, 1), *_samples(1, 1, activation="relu")]),
    Row("lstm", tl.lstm, _lstm, _samples(4, 2)),
    Row("gru", tl.gru, _gru, _samples(3, 1, (1,))),
]
