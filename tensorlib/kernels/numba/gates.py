"""A step of RNN, LSTM and GRU for a block of units: the product that they need, and the gates of each sentence.

Loops write one array each: the compiler must be sure that what they write is not what they read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlib.kernels.numba.blas import gemm
from tensorlib.kernels.numba.compiling import compiled
from tensorlib.kernels.numba.elementary import sigmoid, tanh

__all__ = [
    "gru_step", "gru_step_gradient", "hand_on", "lstm_step", "lstm_step_gradient", "rnn_step",
    "rnn_step_gradient",
]  # fmt: skip


@compiled
def _add(x: Any, y: Any) -> None:
    for j in range(x.size):
        x[j] += y[j]


@compiled
def _copy(x: Any, y: Any) -> None:
    for j in range(x.size):
        y[j] = x[j]


@compiled
def _sigmoid(x: Any) -> None:
    for j in range(x.size):
        x[j] = sigmoid(x[j])


@compiled
def _tanh(x: Any) -> None:
    for j in range(x.size):
        x[j] = tanh(x[j])


@compiled
def _relu(x: Any) -> None:
    zero = x.dtype.type(0)
    for j in range(x.size):
        x[j] = zero if x[j] < zero else x[j]  # a NaN stays


@compiled
def rnn_step(
    before: Any, last: int, u: Any, t: int, weight: Any, first: int, visible: Any, relu: bool, hs: Any
) -> None:  # fmt: skip
    """Write h at position t for the units from `first` on, whose columns of W_h are `weight`.

    `before` holds the state before the step at position `last`. Where `visible` (B, T or 0) is False, the state stays.
    """
    end = first + weight.shape[1]
    z = np.empty((hs.shape[0], weight.shape[1]), hs.dtype)
    gemm(before[:, last], weight, z, hs.dtype.type(1), hs.dtype.type(0))
    for n in range(hs.shape[0]):
        if visible.size and not visible[n, t]:
            _copy(before[n, last, first:end], hs[n, t, first:end])
            continue
        _add(z[n], u[n, t, first:end])
        if relu:
            _relu(z[n])
        else:
            _tanh(z[n])
        _copy(z[n], hs[n, t, first:end])


@compiled
def _relu_gradient(dh: Any, h: Any, dz: Any) -> None:
    zero = dz.dtype.type(0)
    for j in range(dz.size):
        dz[j] = dh[j] if h[j] > zero else zero


@compiled
def _tanh_gradient(dh: Any, h: Any, dz: Any) -> None:
    one = dz.dtype.type(1)
    for j in range(dz.size):
        dz[j] = dh[j] * (one - h[j] * h[j])


@compiled
def rnn_step_gradient(
    dhs: Any, hs: Any, t: int, first: int, count: int, visible: Any, relu: bool, dh: Any, dzs: Any
) -> None:  # fmt: skip
    """Write dz at position t for `count` units; dh (B, H) holds what later steps hand to the state of this one."""
    end = first + count
    for n in range(dh.shape[0]):
        dh_n, dz, h = dh[n, first:end], dzs[n, t, first:end], hs[n, t, first:end]
        _add(dh_n, dhs[n, t, first:end])
        if visible.size and not visible[n, t]:
            dz[:] = 0
        elif relu:
            _relu_gradient(dh_n, h, dz)
        else:
            _tanh_gradient(dh_n, h, dz)


@compiled
def _cell(i: Any, f: Any, g: Any, before: Any, c: Any) -> None:
    for j in range(c.size):
        c[j] = f[j] * before[j] + i[j] * g[j]


@compiled
def _output(o: Any, c: Any, h: Any) -> None:
    for j in range(h.size):
        h[j] = o[j] * tanh(c[j])


@compiled
def lstm_step(
    before_h: Any, before_c: Any, last: int, u: Any, t: int, weight: Any, first: int, visible: Any, hs: Any, cs: Any,
    gates: Any,
) -> None:  # fmt: skip
    """Write h, c and the gates at position t for the units from `first` on, whose columns of W_h are `weight`.

    before_h and before_c hold the states before the step at position `last`. Where `visible` (B, T or 0) is False, the
    states stay as they are.
    """
    count, units = weight.shape[1] // 4, hs.shape[2]
    end = first + count
    z = np.empty((hs.shape[0], 4 * count), hs.dtype)
    gemm(before_h[:, last], weight, z, hs.dtype.type(1), hs.dtype.type(0))
    for n in range(hs.shape[0]):
        for k in range(4):
            part, at = z[n, k * count : (k + 1) * count], k * units + first
            _add(part, u[n, t, at : at + count])
            if k == 2:
                _tanh(part)
            else:
                _sigmoid(part)
            _copy(part, gates[n, t, at : at + count])
        h, c, c_before = hs[n, t, first:end], cs[n, t, first:end], before_c[n, last, first:end]
        if visible.size and not visible[n, t]:
            _copy(c_before, c)
            _copy(before_h[n, last, first:end], h)
        else:
            _cell(z[n, :count], z[n, count : 2 * count], z[n, 2 * count : 3 * count], c_before, c)
            _output(z[n, 3 * count :], c, h)


@compiled
def _to_output_gate(dh: Any, o: Any, s: Any, dz: Any) -> None:
    one = dz.dtype.type(1)
    for j in range(dz.size):
        dz[j] = dh[j] * s[j] * o[j] * (one - o[j])


@compiled
def _to_cell(dh: Any, o: Any, s: Any, dc: Any) -> None:
    one = dc.dtype.type(1)
    for j in range(dc.size):
        dc[j] += dh[j] * o[j] * (one - s[j] * s[j])


@compiled
def _to_gate(dnew: Any, factor: Any, gate: Any, dz: Any) -> None:
    one = dz.dtype.type(1)
    for j in range(dz.size):
        dz[j] = dnew[j] * factor[j] * gate[j] * (one - gate[j])


@compiled
def _to_candidate(dnew: Any, i: Any, g: Any, dz: Any) -> None:
    one = dz.dtype.type(1)
    for j in range(dz.size):
        dz[j] = dnew[j] * i[j] * (one - g[j] * g[j])


@compiled
def _multiply(x: Any, y: Any) -> None:
    for j in range(x.size):
        x[j] *= y[j]


@compiled
def lstm_step_gradient(
    dhs: Any, dcs: Any, cs: Any, cs_before: Any, gates: Any, t: int, first: int, count: int, visible: Any, dh: Any,
    dc: Any, dzs: Any,
) -> None:  # fmt: skip
    """Write dz at position t for `count` units; dh and dc (B, H) hold what later steps hand to the states of this one.

    Afterwards dc is what this step hands on, and dh what a hidden step does, which passes on what it gets.
    """
    units, end = dh.shape[1], first + count
    s = np.empty(count, dh.dtype)
    for n in range(dh.shape[0]):
        dh_n, dc_n = dh[n, first:end], dc[n, first:end]
        _add(dh_n, dhs[n, t, first:end])
        _add(dc_n, dcs[n, t, first:end])
        dz, gate = dzs[n, t], gates[n, t]
        if visible.size and not visible[n, t]:
            for k in range(4):
                dz[k * units + first : k * units + end] = 0
            continue
        i, f = gate[first:end], gate[units + first : units + end]
        g, o = gate[2 * units + first : 2 * units + end], gate[3 * units + first : 3 * units + end]
        _copy(cs[n, t, first:end], s)
        _tanh(s)
        _to_output_gate(dh_n, o, s, dz[3 * units + first : 3 * units + end])
        _to_cell(dh_n, o, s, dc_n)
        _to_gate(dc_n, g, i, dz[first:end])
        _to_gate(dc_n, cs_before[n, t, first:end], f, dz[units + first : units + end])
        _to_candidate(dc_n, i, g, dz[2 * units + first : 2 * units + end])
        _multiply(dc_n, f)


@compiled
def hand_on(dzs: Any, last: int, weight: Any, first: int, visible: Any, keeps: bool, dh: Any) -> None:
    """Replace dh by dz W_h^T of step `last` for some units; where that step is hidden, dh stays. `keeps`: add to dh."""
    passed = np.empty((dh.shape[0], weight.shape[1]), dh.dtype)
    gemm(dzs[:, last], weight, passed, dh.dtype.type(1), dh.dtype.type(0))
    for n in range(dh.shape[0]):
        mine = dh[n, first : first + weight.shape[1]]
        if keeps:
            _add(mine, passed[n])
        elif not visible.size or visible[n, last]:
            _copy(passed[n], mine)


@compiled
def _reset_times(r: Any, m: Any, u: Any, n: Any) -> None:
    for j in range(n.size):
        n[j] = tanh(r[j] * m[j] + u[j])


@compiled
def _mixed(z: Any, n: Any, before: Any, h: Any) -> None:
    for j in range(h.size):
        h[j] = (before[j] - n[j]) * z[j] + n[j]


@compiled
def gru_step(
    before: Any,
    last: int,
    u: Any,
    t: int,
    weight: Any,
    bias: Any,
    first: int,
    visible: Any,
    hs: Any,
    gates: Any,
    ms: Any,
) -> None:
    """Write h, the gates and m = q_n + bias at position t for the units from `first` on, with q = h W_h."""
    count, units = weight.shape[1] // 3, hs.shape[2]
    end = first + count
    q = np.empty((hs.shape[0], 3 * count), hs.dtype)
    gemm(before[:, last], weight, q, hs.dtype.type(1), hs.dtype.type(0))
    for n in range(hs.shape[0]):
        m, h, gate = ms[n, t, first:end], hs[n, t, first:end], gates[n, t]
        for k in range(2):
            part, at = q[n, k * count : (k + 1) * count], k * units + first
            _add(part, u[n, t, at : at + count])
            _sigmoid(part)
            _copy(part, gate[at : at + count])
        r, z, new = q[n, :count], q[n, count : 2 * count], q[n, 2 * count :]
        _copy(new, m)
        _add(m, bias[first:end])
        _reset_times(r, m, u[n, t, 2 * units + first : 2 * units + end], new)
        _copy(new, gate[2 * units + first : 2 * units + end])
        if visible.size and not visible[n, t]:
            _copy(before[n, last, first:end], h)
        else:
            _mixed(z, new, before[n, last, first:end], h)


@compiled
def _to_update_gate(dh: Any, z: Any, n: Any, before: Any, dz: Any) -> None:
    one = dz.dtype.type(1)
    for j in range(dz.size):
        dz[j] = dh[j] * (one - z[j]) * (before[j] - n[j]) * z[j]


@compiled
def _to_new(dh: Any, z: Any, n: Any, dn: Any) -> None:
    one = dn.dtype.type(1)
    for j in range(dn.size):
        dn[j] = dh[j] * (one - z[j]) * (one - n[j] * n[j])


@compiled
def _to_reset(dn: Any, r: Any, m: Any, dr: Any) -> None:
    one = dr.dtype.type(1)
    for j in range(dr.size):
        dr[j] = dn[j] * m[j] * r[j] * (one - r[j])


@compiled
def _product(x: Any, y: Any, z: Any) -> None:
    for j in range(z.size):
        z[j] = x[j] * y[j]


@compiled
def gru_step_gradient(
    dhs: Any,
    hs_before: Any,
    gates: Any,
    ms: Any,
    t: int,
    first: int,
    count: int,
    visible: Any,
    dh: Any,
    dus: Any,
    dqs: Any,
) -> None:
    """Write du and dq at position t for `count` units; dh (B, H) holds what later steps hand to the state of this one.

    Afterwards dh is what this step hands on without its product.
    """
    units, end = dh.shape[1], first + count
    for n in range(dh.shape[0]):
        dh_n = dh[n, first:end]
        _add(dh_n, dhs[n, t, first:end])
        du, dq, gate = dus[n, t], dqs[n, t], gates[n, t]
        if visible.size and not visible[n, t]:
            for k in range(3):
                du[k * units + first : k * units + end] = 0
                dq[k * units + first : k * units + end] = 0
            continue
        r, z = gate[first:end], gate[units + first : units + end]
        new = gate[2 * units + first : 2 * units + end]
        dr, dz = du[first:end], du[units + first : units + end]
        dn = du[2 * units + first : 2 * units + end]
        _to_update_gate(dh_n, z, new, hs_before[n, t, first:end], dz)
        _to_new(dh_n, z, new, dn)
        _to_reset(dn, r, ms[n, t, first:end], dr)
        _product(dn, r, dq[2 * units + first : 2 * units + end])
        _copy(dr, dq[first:end])
        _copy(dz, dq[units + first : units + end])
        _multiply(dh_n, z)
