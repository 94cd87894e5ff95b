"""RNN, LSTM and GRU: one call for a step in time and a block of units computes their product and their gates.

The blocks of units, the products, and the order of steps are those of the kernels for NumPy, whose file says why.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.kernels.numba import overrides
from tensorlib.kernels.numba.blas import FOUND
from tensorlib.kernels.numba.gates import (
    gru_step,
    gru_step_gradient,
    hand_on,
    lstm_step,
    lstm_step_gradient,
    rnn_step,
    rnn_step_gradient,
)
from tensorlib.kernels.numba.rows import contiguous, serves
from tensorlib.kernels.numpy.recurrent import each_block, each_step, of_units, transposed, unit_blocks
from tensorlib.ops.recurrent import (
    gru_steps,
    gru_steps_gradient,
    lstm_steps,
    lstm_steps_gradient,
    rnn_steps,
    rnn_steps_gradient,
    steps,
)

_ALL = np.empty((0, 0), bool)  # every position is visible


def _seen(visible: np.ndarray | None) -> np.ndarray:
    return _ALL if visible is None else contiguous(visible)


@overrides(rnn_steps)
def _rnn_steps_kernel(
    before: Callable[..., Any], u: np.ndarray, weight_h: np.ndarray, h: np.ndarray, relu: bool, visible: Any,
    reverse: bool,
) -> Array:  # fmt: skip
    if not FOUND or not serves(u, weight_h, h) or not u.size:
        return before(u, weight_h, h, relu, visible, reverse)
    u, hs, first = contiguous(u), np.empty(u.shape, u.dtype), contiguous(h)[:, None]
    order, blocks, seen = steps(u.shape[1], reverse), unit_blocks(len(u), weight_h), _seen(visible)
    weights = [contiguous(weight_h[:, b]) for b in blocks]

    def work(t: int, last: int, number: int) -> None:
        state = (first, 0) if t == order[0] else (hs, last)
        rnn_step(*state, u, t, weights[number], blocks[number].start, seen, relu, hs)

    each_step(work, order, len(blocks))
    return hs


@overrides(rnn_steps_gradient)
def _rnn_steps_gradient_kernel(
    before: Callable[..., Any], dhs: np.ndarray, hs: np.ndarray, weight_h: np.ndarray, relu: bool, visible: Any,
    reverse: bool,
) -> tuple[Array, Array]:  # fmt: skip
    if not FOUND or not serves(dhs, hs, weight_h) or not dhs.size:
        return before(dhs, hs, weight_h, relu, visible, reverse)
    dhs, hs, dzs, dh = contiguous(dhs), contiguous(hs), np.empty(hs.shape, hs.dtype), np.zeros(hs[:, 0].shape, hs.dtype)
    order, (blocks, weights), seen = steps(hs.shape[1], not reverse), transposed(len(hs), weight_h), _seen(visible)
    weights = [contiguous(w) for w in weights]

    def receive(last: int, number: int) -> None:
        hand_on(dzs, last, weights[number], blocks[number].start, seen, False, dh)

    def work(t: int, last: int, number: int) -> None:
        block = blocks[number]
        if t != order[0]:
            receive(last, number)
        rnn_step_gradient(dhs, hs, t, block.start, block.stop - block.start, seen, relu, dh, dzs)

    each_step(work, order, len(blocks))
    each_block(partial(receive, order[-1]), len(blocks))
    return dzs, dh


@overrides(lstm_steps)
def _lstm_steps_kernel(
    before: Callable[..., Any], u: np.ndarray, weight_h: np.ndarray, h: np.ndarray, c: np.ndarray, visible: Any,
    reverse: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    if not FOUND or not serves(u, weight_h, h, c) or not u.size:
        return before(u, weight_h, h, c, visible, reverse)
    u, (sentences, length, _), units = contiguous(u), u.shape, len(weight_h)
    gates, (hs, cs) = np.empty(u.shape, u.dtype), np.empty((2, sentences, length, units), u.dtype)
    order, blocks, seen = steps(length, reverse), unit_blocks(sentences, weight_h), _seen(visible)
    weights = [contiguous(of_units(weight_h, b)) for b in blocks]
    first = contiguous(h)[:, None], contiguous(c)[:, None]

    def work(t: int, last: int, number: int) -> None:
        states = (*first, 0) if t == order[0] else (hs, cs, last)
        lstm_step(*states, u, t, weights[number], blocks[number].start, seen, hs, cs, gates)

    each_step(work, order, len(blocks))
    return hs, cs, gates


@overrides(lstm_steps_gradient)
def _lstm_steps_gradient_kernel(
    before: Callable[..., Any], dhs: np.ndarray, dcs: np.ndarray, cs: np.ndarray, cs_before: np.ndarray,
    gates: np.ndarray, weight_h: np.ndarray, visible: Any, reverse: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    if not FOUND or not serves(dhs, dcs, cs, cs_before, gates, weight_h) or not gates.size:
        return before(dhs, dcs, cs, cs_before, gates, weight_h, visible, reverse)
    sentences, length, units = dhs.shape
    arrays, dzs = [contiguous(x) for x in (dhs, dcs, cs, cs_before, gates)], np.empty(gates.shape, gates.dtype)
    dh, dc = np.zeros((2, sentences, units), dhs.dtype)
    order, (blocks, weights), seen = steps(length, not reverse), transposed(sentences, weight_h), _seen(visible)
    weights = [contiguous(w) for w in weights]

    def receive(last: int, number: int) -> None:
        hand_on(dzs, last, weights[number], blocks[number].start, seen, False, dh)

    def work(t: int, last: int, number: int) -> None:
        block = blocks[number]
        if t != order[0]:
            receive(last, number)
        lstm_step_gradient(*arrays, t, block.start, block.stop - block.start, seen, dh, dc, dzs)

    each_step(work, order, len(blocks))
    each_block(partial(receive, order[-1]), len(blocks))
    return dzs, dh, dc


@overrides(gru_steps)
def _gru_steps_kernel(
    before: Callable[..., Any], u: np.ndarray, weight_h: np.ndarray, bias_h: np.ndarray, h: np.ndarray, visible: Any,
    reverse: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    if not FOUND or not serves(u, weight_h, bias_h, h) or not u.size:
        return before(u, weight_h, bias_h, h, visible, reverse)
    u, bias, (sentences, length, _), units = contiguous(u), contiguous(bias_h), u.shape, len(weight_h)
    gates, (hs, ms) = np.empty(u.shape, u.dtype), np.empty((2, sentences, length, units), u.dtype)
    order, blocks, seen = steps(length, reverse), unit_blocks(sentences, weight_h), _seen(visible)
    weights, first = [contiguous(of_units(weight_h, b)) for b in blocks], contiguous(h)[:, None]

    def work(t: int, last: int, number: int) -> None:
        states = (first, 0) if t == order[0] else (hs, last)
        gru_step(*states, u, t, weights[number], bias, blocks[number].start, seen, hs, gates, ms)

    each_step(work, order, len(blocks))
    return hs, gates, ms


@overrides(gru_steps_gradient)
def _gru_steps_gradient_kernel(
    before: Callable[..., Any], dhs: np.ndarray, hs_before: np.ndarray, gates: np.ndarray, ms: np.ndarray,
    weight_h: np.ndarray, visible: Any, reverse: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    if not FOUND or not serves(dhs, hs_before, gates, ms, weight_h) or not gates.size:
        return before(dhs, hs_before, gates, ms, weight_h, visible, reverse)
    sentences, length, units = dhs.shape
    arrays, (dus, dqs) = [contiguous(x) for x in (dhs, hs_before, gates, ms)], np.empty((2, *gates.shape), gates.dtype)
    dh = np.zeros((sentences, units), dhs.dtype)
    order, (blocks, weights), seen = steps(length, not reverse), transposed(sentences, weight_h), _seen(visible)
    weights = [contiguous(w) for w in weights]

    def receive(last: int, number: int) -> None:
        hand_on(dqs, last, weights[number], blocks[number].start, seen, True, dh)

    def work(t: int, last: int, number: int) -> None:
        block = blocks[number]
        if t != order[0]:
            receive(last, number)
        gru_step_gradient(*arrays, t, block.start, block.stop - block.start, seen, dh, dus, dqs)

    each_step(work, order, len(blocks))
    each_block(partial(receive, order[-1]), len(blocks))
    return dus, dqs, dh
