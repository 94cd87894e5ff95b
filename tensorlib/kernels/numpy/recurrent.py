"""LSTM and GRU: if the product of a step is large, the hidden units are cut into two blocks, which meet once in a step.

Two whatever the number of threads, so that the bits do not depend on it; a third thread would have nothing to do. A
thread computes the gates of its units right after the product that they need. So a step in time costs its product and
little more. A sigmoid is computed as (1 + tanh(x / 2)) / 2, for which NumPy has vector instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.threads import BLAS, share
from tensorlib.kernels.numpy.blocks import even_blocks, same_float_dtype
from tensorlib.ops.recurrent import gru_steps, gru_steps_gradient, lstm_steps, lstm_steps_gradient, steps

SHARED_STEP = 1 << 21  # multiplications in the product of a step; a smaller one is not cut


@lstm_steps.register(np.ndarray)
def _lstm_steps_kernel(
    u: np.ndarray, weight_h: np.ndarray, h: np.ndarray, c: np.ndarray, visible: Any, reverse: bool
) -> tuple[Array, Array, Array]:
    if not same_float_dtype(u, weight_h, h, c):
        return lstm_steps.dispatch(object)(u, weight_h, h, c, visible, reverse)
    (sentences, length, _), units = u.shape, len(weight_h)
    gates = np.empty_like(u, order="C")
    hs, cs = np.empty((2, sentences, length, units), u.dtype)
    order, blocks = steps(length, reverse), unit_blocks(sentences, weight_h)
    weights = [of_units(weight_h, b) for b in blocks]

    def work(t: int, last: int, number: int) -> None:
        block = blocks[number]
        h_before, c_before = (hs[:, last], cs[:, last, block]) if t != order[0] else (h, c[:, block])
        z = _by_gate(h_before @ weights[number], block.stop - block.start)
        z += _by_gate(u[:, t], units)[:, :, block]
        i, f, g, o = (z[:, k] for k in range(4))
        for gate in (z[:, :2], o):
            _sigmoid(gate)
        np.tanh(g, out=g)
        _by_gate(gates[:, t], units)[:, :, block] = z
        h_new, c_new = hs[:, t, block], cs[:, t, block]
        np.multiply(f, c_before, out=c_new)
        i *= g
        c_new += i
        np.tanh(c_new, out=h_new)
        h_new *= o
        _keep_hidden(visible, t, (c_new, c_before), (h_new, h_before[:, block]))

    each_step(work, order, len(blocks))
    return hs, cs, gates


@lstm_steps_gradient.register(np.ndarray)
def _lstm_steps_gradient_kernel(
    dhs: np.ndarray,
    dcs: np.ndarray,
    cs: np.ndarray,
    cs_before: np.ndarray,
    gates: np.ndarray,
    weight_h: np.ndarray,
    visible: Any,
    reverse: bool,
) -> tuple[Array, Array, Array]:
    if not same_float_dtype(dhs, dcs, cs, cs_before, gates, weight_h):
        return lstm_steps_gradient.dispatch(object)(dhs, dcs, cs, cs_before, gates, weight_h, visible, reverse)
    sentences, length, units = dhs.shape
    dzs = np.empty_like(gates, order="C")
    dh_0, dc_0 = np.zeros((2, sentences, units), dhs.dtype)  # while the loop runs, those of the step before
    order, (blocks, weights) = steps(length, not reverse), transposed(sentences, weight_h)

    def receive(last: int, number: int) -> None:
        """Compute what step `last` hands to the state before it, dz W_h^T; a hidden step hands on what it got."""
        dh, handed = dh_0[:, blocks[number]], dzs[:, last] @ weights[number]
        _keep_hidden(visible, last, (handed, dh))
        dh[...] = handed

    def work(t: int, last: int, number: int) -> None:
        dh, dc = dh_0[:, block := blocks[number]], dc_0[:, block]
        if t != order[0]:
            receive(last, number)
        dh += dhs[:, t, block]
        dc += dcs[:, t, block]
        dz = _by_gate(dzs[:, t], units)[:, :, block]
        gates_t = _by_gate(gates[:, t], units)[:, :, block]
        handed = _lstm_step_gradient(dh, dc, gates_t, cs[:, t, block], cs_before[:, t, block], dz)
        if visible is not None:
            dz[~visible[:, t]] = 0
            _keep_hidden(visible, t, (handed, dc))
        dc[...] = handed

    each_step(work, order, len(blocks))
    each_block(partial(receive, order[-1]), len(blocks))
    return dzs, dh_0, dc_0


def _lstm_step_gradient(
    dh: np.ndarray, dc: np.ndarray, gates: np.ndarray, c: np.ndarray, c_before: np.ndarray, dz: np.ndarray
) -> np.ndarray:
    """Write the gradient of the gates' arguments to dz, and return that of the cell before."""
    (i, f, g, o), s = (gates[:, k] for k in range(4)), np.tanh(c)
    dz[:, 3] = dh * s * o * (1 - o)
    new = dh * o
    s *= s
    new -= new * s  # dh o (1 - s^2)
    new += dc
    dz[:, 0] = new * g * i * (1 - i)
    dz[:, 1] = new * c_before * f * (1 - f)
    dz[:, 2] = new * i * (1 - g * g)
    new *= f
    return new


@gru_steps.register(np.ndarray)
def _gru_steps_kernel(
    u: np.ndarray, weight_h: np.ndarray, bias_h: np.ndarray, h: np.ndarray, visible: Any, reverse: bool
) -> tuple[Array, Array, Array]:
    if not same_float_dtype(u, weight_h, bias_h, h):
        return gru_steps.dispatch(object)(u, weight_h, bias_h, h, visible, reverse)
    (sentences, length, _), units = u.shape, len(weight_h)
    gates = np.empty_like(u, order="C")
    hs, ms = np.empty((2, sentences, length, units), u.dtype)
    order, blocks = steps(length, reverse), unit_blocks(sentences, weight_h)
    weights = [of_units(weight_h, b) for b in blocks]

    def work(t: int, last: int, number: int) -> None:
        block = blocks[number]
        h_before = hs[:, last] if t != order[0] else h
        q = _by_gate(h_before @ weights[number], block.stop - block.start)
        u_t = _by_gate(u[:, t], units)[:, :, block]
        m, n, h_new = ms[:, t, block], q[:, 2], hs[:, t, block]
        np.add(n, bias_h[block], out=m)
        q[:, :2] += u_t[:, :2]
        _sigmoid(q[:, :2])
        np.multiply(q[:, 0], m, out=n)
        n += u_t[:, 2]
        np.tanh(n, out=n)
        _by_gate(gates[:, t], units)[:, :, block] = q
        np.subtract(h_before[:, block], n, out=h_new)
        h_new *= q[:, 1]
        h_new += n  # (1 - z) n + z h'
        _keep_hidden(visible, t, (h_new, h_before[:, block]))

    each_step(work, order, len(blocks))
    return hs, gates, ms


@gru_steps_gradient.register(np.ndarray)
def _gru_steps_gradient_kernel(
    dhs: np.ndarray,
    hs_before: np.ndarray,
    gates: np.ndarray,
    ms: np.ndarray,
    weight_h: np.ndarray,
    visible: Any,
    reverse: bool,
) -> tuple[Array, Array, Array]:
    if not same_float_dtype(dhs, hs_before, gates, ms, weight_h):
        return gru_steps_gradient.dispatch(object)(dhs, hs_before, gates, ms, weight_h, visible, reverse)
    sentences, length, units = dhs.shape
    dus, dqs = np.empty((2, *gates.shape), gates.dtype)
    dh_0 = np.zeros((sentences, units), dhs.dtype)  # while the loop runs, that of the step before without its product
    order, (blocks, weights) = steps(length, not reverse), transposed(sentences, weight_h)

    def receive(last: int, number: int) -> None:
        """Add what step `last` hands to the state before it through its product; a hidden step has dq = 0."""
        dh_0[:, blocks[number]] += dqs[:, last] @ weights[number]

    def work(t: int, last: int, number: int) -> None:
        block = blocks[number]
        dh = dh_0[:, block]
        if t != order[0]:
            receive(last, number)
        dh += dhs[:, t, block]
        du, dq = (_by_gate(d[:, t], units)[:, :, block] for d in (dus, dqs))
        gates_t = _by_gate(gates[:, t], units)[:, :, block]
        kept = _gru_step_gradient(dh, gates_t, ms[:, t, block], hs_before[:, t, block], du, dq)
        if visible is not None:
            du[~visible[:, t]] = 0
            dq[~visible[:, t], 2] = 0
            _keep_hidden(visible, t, (kept, dh))
        dq[:, :2] = du[:, :2]
        dh[...] = kept

    each_step(work, order, len(blocks))
    each_block(partial(receive, order[-1]), len(blocks))
    return dus, dqs, dh_0


def _gru_step_gradient(
    dh: np.ndarray, gates: np.ndarray, m: np.ndarray, h_before: np.ndarray, du: np.ndarray, dq: np.ndarray
) -> np.ndarray:
    """Write du, and the part of dq that differs from it; return what reaches the state before without a product."""
    r, z, n = (gates[:, k] for k in range(3))
    kept = dh * z
    passed = dh - kept  # dh (1 - z)
    dn = passed * (1 - n * n)
    passed *= h_before - n
    np.multiply(passed, z, out=du[:, 1])
    np.multiply(dn, r, out=dq[:, 2])
    np.multiply(dq[:, 2], m * (1 - r), out=du[:, 0])
    du[:, 2] = dn
    return kept


# ---- blocks and steps --------------------------------------------------------------------------------------------


def unit_blocks(sentences: int, weight_h: np.ndarray) -> list[slice]:
    """Return the blocks of hidden units: two if the product of a step is large enough, otherwise one."""
    return even_blocks(len(weight_h), 2 if sentences * weight_h.size >= SHARED_STEP else 1)


def transposed(sentences: int, weight_h: np.ndarray) -> tuple[list[slice], list[np.ndarray]]:
    """Return the blocks, and the part of W_h^T for each: copies, for products read them faster than views."""
    blocks = unit_blocks(sentences, weight_h)
    return blocks, [np.ascontiguousarray(weight_h[block].T) for block in blocks]


def each_step(work: Callable[[int, int, int], Any], order: range, blocks: int) -> None:
    """Call ``work(t, the step before, block)`` for each block; no block starts a step before all ended the last one."""
    with BLAS:
        for t in order:
            each_block(partial(work, t, t - order.step), blocks)


def each_block(work: Callable[[int], Any], blocks: int) -> None:
    """Call ``work(block)`` for each block."""
    with BLAS:  # also for a single block, so that its bits do not depend on the number of threads
        if blocks == 1:
            work(0)
        else:
            share(work, range(blocks))


def _by_gate(x: np.ndarray, units: int) -> np.ndarray:
    """Return a view (..., gates, H) of gates that lie side by side."""
    return x.reshape((*x.shape[:-1], x.shape[-1] // units, units))


def of_units(weight_h: np.ndarray, block: slice) -> np.ndarray:
    """Return the columns of W_h that belong to a block of units, for all gates side by side."""
    units = len(weight_h)
    return (
        weight_h
        if block == slice(0, units)
        else _by_gate(weight_h, units)[:, :, block].reshape(
            units, weight_h.shape[1] * (block.stop - block.start) // units
        )
    )


def _sigmoid(z: np.ndarray) -> None:
    """Replace z by its sigmoid."""
    z *= 0.5
    np.tanh(z, out=z)
    z *= 0.5
    z += 0.5


def _keep_hidden(visible: np.ndarray | None, t: int, *pairs: tuple[np.ndarray, np.ndarray]) -> None:
    """For each (new, old), put `old` in place of `new` in the sentences that are hidden at position t."""
    if visible is not None:
        for new, old in pairs:
            np.copyto(new, old, where=~visible[:, t : t + 1])
