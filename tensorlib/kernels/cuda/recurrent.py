"""RNN, LSTM and GRU: two launches a step, the product with the states before and one kernel for all gates.

A step reads the state before where it was written, (B, T, H) at the position before. Products of the steps stay in
float32 whatever the precision, as on a CPU.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import cupy

from tensorlib.arrays.cuda import THREADS
from tensorlib.kernels.cuda.launch import NOT_SERVED, contiguous, fits, kernel, on_current_device, overrides
from tensorlib.kernels.cuda.products import gemm
from tensorlib.ops.recurrent import (
    gru_steps,
    gru_steps_gradient,
    lstm_steps,
    lstm_steps_gradient,
    rnn_steps,
    rnn_steps_gradient,
    steps,
)

_product = partial(gemm, precision="float32")


def _serves(visible: Any, *arrays: Any) -> bool:
    return fits(*arrays) and all(a.size for a in arrays) and (visible is None or on_current_device(visible))


def _mask(visible: Any) -> Any:
    """Return a mask as the argument of a kernel."""
    return 0 if visible is None else contiguous(visible, cupy.bool_)


def _launch(launch: Any, sentences: int, units: int, arguments: tuple[Any, ...]) -> None:
    launch((-(-sentences * units // THREADS),), (THREADS,), arguments)


@overrides(rnn_steps)
def _rnn_steps(u: Any, weight_h: Any, h: Any, relu: bool, visible: Any, reverse: bool) -> Any:
    if not _serves(visible, u, weight_h, h):
        return NOT_SERVED
    (sentences, length, units), u, h, mask = u.shape, contiguous(u), contiguous(h), _mask(visible)
    hs, last, launch = cupy.empty(u.shape, u.dtype), -1, kernel("recurrent.cu", "rnn_step", u.dtype.char)
    for t in steps(length, reverse):
        q = _product(h if last < 0 else hs[:, last], weight_h)
        _launch(launch, sentences, units, (u, q, h, mask, sentences, length, units, t, last, bool(relu), hs))
        last = t
    return hs


@overrides(rnn_steps_gradient)
def _rnn_steps_gradient(dhs: Any, hs: Any, weight_h: Any, relu: bool, visible: Any, reverse: bool) -> Any:
    if not _serves(visible, dhs, hs, weight_h):
        return NOT_SERVED
    (sentences, length, units), mask = dhs.shape, _mask(visible)
    dhs, hs, dzs = contiguous(dhs), contiguous(hs), cupy.empty(dhs.shape, dhs.dtype)
    dh = cupy.zeros((sentences, units), dhs.dtype)
    launch = kernel("recurrent.cu", "rnn_step_gradient", dhs.dtype.char)
    for t in steps(length, not reverse):
        _launch(launch, sentences, units, (dhs, hs, mask, sentences, length, units, t, bool(relu), dh, dzs))
        _product(dzs[:, t], weight_h.T, out=dh, beta=_more(visible))
    return dzs, dh


def _more(visible: Any) -> float:
    """Return whether a kernel has left anything in dh: only hidden steps do, except in a GRU."""
    return 0.0 if visible is None else 1.0


@overrides(lstm_steps)
def _lstm_steps(u: Any, weight_h: Any, h: Any, c: Any, visible: Any, reverse: bool) -> Any:
    if not _serves(visible, u, weight_h, h, c):
        return NOT_SERVED
    (sentences, length, _), units, mask = u.shape, h.shape[1], _mask(visible)
    u, h, c = contiguous(u), contiguous(h), contiguous(c)
    hs, cs = (cupy.empty((sentences, length, units), u.dtype) for _ in range(2))
    gates, last = cupy.empty(u.shape, u.dtype), -1
    launch = kernel("recurrent.cu", "lstm_step", u.dtype.char)
    for t in steps(length, reverse):
        q = _product(h if last < 0 else hs[:, last], weight_h)
        _launch(launch, sentences, units, (u, q, h, c, mask, sentences, length, units, t, last, hs, cs, gates))
        last = t
    return hs, cs, gates


@overrides(lstm_steps_gradient)
def _lstm_steps_gradient(
    dhs: Any, dcs: Any, cs: Any, cs_before: Any, gates: Any, weight_h: Any, visible: Any, reverse: bool
) -> Any:
    if not _serves(visible, dhs, dcs, cs, cs_before, gates, weight_h):
        return NOT_SERVED
    (sentences, length, units), mask = dhs.shape, _mask(visible)
    arrays = [contiguous(a) for a in (dhs, dcs, cs, cs_before, gates)]
    dzs = cupy.empty(gates.shape, dhs.dtype)
    dh, dc = (cupy.zeros((sentences, units), dhs.dtype) for _ in range(2))
    launch = kernel("recurrent.cu", "lstm_step_gradient", dhs.dtype.char)
    for t in steps(length, not reverse):
        _launch(launch, sentences, units, (*arrays, mask, sentences, length, units, t, dh, dc, dzs))
        _product(dzs[:, t], weight_h.T, out=dh, beta=_more(visible))
    return dzs, dh, dc


@overrides(gru_steps)
def _gru_steps(u: Any, weight_h: Any, bias_h: Any, h: Any, visible: Any, reverse: bool) -> Any:
    if not _serves(visible, u, weight_h, bias_h, h):
        return NOT_SERVED
    (sentences, length, _), units, mask = u.shape, h.shape[1], _mask(visible)
    u, bias, h = contiguous(u), contiguous(bias_h), contiguous(h)
    hs, ms = (cupy.empty((sentences, length, units), u.dtype) for _ in range(2))
    gates, last = cupy.empty(u.shape, u.dtype), -1
    launch = kernel("recurrent.cu", "gru_step", u.dtype.char)
    for t in steps(length, reverse):
        q = _product(h if last < 0 else hs[:, last], weight_h)
        _launch(launch, sentences, units, (u, q, bias, h, mask, sentences, length, units, t, last, hs, gates, ms))
        last = t
    return hs, gates, ms


@overrides(gru_steps_gradient)
def _gru_steps_gradient(
    dhs: Any, hs_before: Any, gates: Any, ms: Any, weight_h: Any, visible: Any, reverse: bool
) -> Any:
    if not _serves(visible, dhs, hs_before, gates, ms, weight_h):
        return NOT_SERVED
    (sentences, length, units), mask = dhs.shape, _mask(visible)
    arrays = [contiguous(a) for a in (dhs, hs_before, gates, ms)]
    dus, dqs = (cupy.empty(gates.shape, dhs.dtype) for _ in range(2))
    dh = cupy.zeros((sentences, units), dhs.dtype)
    launch = kernel("recurrent.cu", "gru_step_gradient", dhs.dtype.char)
    for t in steps(length, not reverse):
        _launch(launch, sentences, units, (*arrays, mask, sentences, length, units, t, dh, dus, dqs))
        _product(dqs[:, t], weight_h.T, out=dh, beta=1.0)
    return dus, dqs, dh
