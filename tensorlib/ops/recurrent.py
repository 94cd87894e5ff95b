"""Recurrent layers: all steps of a sequence are one node of the graph.

x is (B, T, D), a state (B, H), and all states of a sequence (B, T, H); weight_x is (D, kH), weight_h (H, kH) and bias
(kH), with k = 1 for `rnn`, 3 for `gru` and 4 for `lstm`. The products u = x W_x + b of all steps are one product; each
step then needs one more, with W_h. A step where `visible` (B, T) is False leaves the state as it is, so a padded
sentence ends in the state that it would have alone. With `reverse`, the steps run from the last position to the first.

In the formulas u, h, c and the gates are those of one step; h' and c' are the states before it. For a gate, di is the
gradient of the argument of its sigmoid or tanh, not of i itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.engine.function import Function, as_tensor, derivation
from tensorlib.ops.activations import Relu
from tensorlib.ops.arguments import as_floating, check_flag
from tensorlib.ops.creation import zeros
from tensorlib.ops.exponential import Sigmoid
from tensorlib.ops.linalg import product, rows
from tensorlib.ops.linear import linear_formula, linear_gradient, linear_operands
from tensorlib.ops.shape import Concatenate
from tensorlib.ops.softmax import checked_mask
from tensorlib.ops.trigonometric import Tanh

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["gru", "lstm", "rnn"]


# ---- steps -------------------------------------------------------------------------------------------------------


def steps(length: int, reverse: bool) -> range:
    """Return the positions in the order of the steps."""
    return range(length - 1, -1, -1) if reverse else range(length)


def by_position(found: Sequence[Array], reverse: bool) -> Array:
    """Return the results of all steps, each (B, ...), as one array (B, T, ...) in the order of the positions."""
    return Concatenate.run(*[x[:, None] for x in (found[::-1] if reverse else found)], axis=1)


def before(states: Array, first: Array, reverse: bool) -> Array:
    """Return the state before each step, given all states and the first one."""
    first = first.reshape((len(first), 1, first.shape[1]))
    joined = [states[:, 1:], first] if reverse else [first, states[:, :-1]]
    return namespace_of(states).concatenate(joined, axis=1)


def chosen(visible: Array | None, t: int, new: Array, old: Array | float) -> Array:
    """Return `new` for the sentences that are visible at position t, and `old` for the others."""
    return new if visible is None else namespace_of(new).where(visible[:, t : t + 1], new, old)


def parts(x: Array, count: int) -> list[Array]:
    """Return equal parts of the last axis: the gates."""
    width = x.shape[-1] // count
    return [x[..., i * width : (i + 1) * width] for i in range(count)]


# ---- RNN ---------------------------------------------------------------------------------------------------------


class Rnn(Function):
    """h = f(x W_x + b + h' W_h), where f is tanh or relu (Elman 1990).

    With z the argument of f  =>  dz = dh f'(z), where f'(z) = 1 - h^2 for tanh, and 1 where h > 0, else 0, for relu.
    The step before receives dh' = dz W_h^T; over all steps, dW_h = sum h'^T dz, dW_x = sum x^T dz, db = sum dz; and
    dx = dz W_x^T.

    Keeps x, weight_x, weight_h, h_0, h and visible.
    Kernels: numpy/linalg.py, numpy/linear.py, numba/linear.py, numba/recurrent.py,
    cuda/linear.py, cuda/products.py, cuda/recurrent.py.
    """

    def forward(
        self, x: Array, weight_x: Any, weight_h: Any, bias: Any, h_0: Any, relu: bool, visible: Any, reverse: bool
    ) -> Array:
        self.relu, self.visible, self.reverse = relu, visible, reverse
        h = rnn_steps(linear_formula(x, weight_x, bias), weight_h, h_0, relu, visible, reverse)
        self.save(x, weight_x, weight_h, h_0, h)
        return h

    def backward(self, dh: Array) -> Any:
        x, weight_x, weight_h, h_0, h = self.saved
        dz, dh_0 = rnn_steps_gradient(dh, h, weight_h, self.relu, self.visible, self.reverse)
        dweight_h = weight_gradient(before(h, h_0, self.reverse), dz) if self.needs[2] else None
        dx, dweight_x, dbias = linear_gradient(dz, x, weight_x, (self.needs[0], self.needs[1], self.needs[3]))
        return dx, dweight_x, dweight_h, dbias, dh_0


@singledispatch
def rnn_steps(u: Array, weight_h: Array, h: Array, relu: bool, visible: Array | None, reverse: bool) -> Array:
    """Return all states, given u = x W_x + b and the first state."""
    activation, hs = Relu if relu else Tanh, []
    for t in steps(u.shape[1], reverse):
        h = chosen(visible, t, activation.run(u[:, t] + product(h, weight_h)), h)
        hs.append(h)
    return by_position(hs, reverse)


@singledispatch
def rnn_steps_gradient(
    dhs: Array, hs: Array, weight_h: Array, relu: bool, visible: Array | None, reverse: bool
) -> tuple[Array, Array]:
    """Return dz of all steps, and the gradient of the first state."""
    xp, dzs = namespace_of(dhs), []
    dh: Any = 0
    for t in steps(dhs.shape[1], not reverse):
        dh, h = dh + dhs[:, t], hs[:, t]
        dz = chosen(visible, t, xp.where(h > 0, dh, 0) if relu else dh * (1 - h * h), 0)
        dh = chosen(visible, t, product(dz, weight_h.swapaxes(0, 1)), dh)
        dzs.append(dz)
    return by_position(dzs, not reverse), dh


def weight_gradient(x: Array, dz: Array) -> Array:
    """Return dW = sum x^T dz for z = x W."""
    return product(rows(x).swapaxes(0, 1), rows(dz))


@derivation(Rnn)
def rnn(
    x: TensorLike,
    weight_x: TensorLike,
    weight_h: TensorLike,
    bias: TensorLike,
    h_0: TensorLike | None = None,
    activation: str = "tanh",
    visible: TensorLike | None = None,
    reverse: bool = False,
) -> Tensor:
    """Return the states (B, T, H) of a recurrent network that reads x (B, T, D), from the state h_0 (B, H) or zeros.

    weight_x is (D, H), weight_h (H, H), bias (H). `activation` is "tanh" or "relu". Where `visible` (B, T) is False,
    the state stays as it is. With `reverse` the steps run from the last position to the first.

    Raises ValueError if the shapes don't fit, for another activation, and if there are no steps.

    >>> tl.rnn([[[1.0], [0.0], [0.0]]], [[1.0]], [[0.5]], [0.0], activation="relu")
    Tensor([[[1.  ]
             [0.5 ]
             [0.25]]], shape=(1, 3, 1), dtype=float32)
    """
    if activation not in ("tanh", "relu"):
        raise ValueError(f"rnn: activation must be 'tanh' or 'relu', got {activation!r}")
    inputs, options = _operands("rnn", 1, x, weight_x, weight_h, bias, [h_0], visible, reverse)
    return _in_float32(Rnn, inputs, relu=activation == "relu", **options)


# ---- LSTM --------------------------------------------------------------------------------------------------------


class Lstm(Function):
    """(i, f, g, o) = (sigmoid, sigmoid, tanh, sigmoid)(x W_x + b + h' W_h),  c = f c' + i g,  h = o tanh(c).

    Hochreiter and Schmidhuber 1997, with the forget gate of Gers, Schmidhuber and Cummins 2000: the input gate i says
    how much of the new value g enters the cell c, the forget gate f how much of the cell stays, and the output gate o
    how much of it is shown.

    With s = tanh(c): dc grows by dh o (1 - s^2)
    =>  di = dc g i (1 - i), df = dc c' f (1 - f), dg = dc i (1 - g^2), do = dh s o (1 - o), together dz, as the
    derivative of a sigmoid y is y (1 - y), that of a tanh y is 1 - y^2. The step before receives dc' = dc f, in which
    no weight occurs: where f is near 1, gradients do not vanish; and dh' = dz W_h^T. Over all steps,
    dW_h = sum h'^T dz, dW_x = sum x^T dz, db = sum dz; and dx = dz W_x^T.

    Keeps x, weight_x, weight_h, bias, h_0, c_0, h, c and visible; statistics: the gates.
    Kernels: numpy/linalg.py, numpy/linear.py, numpy/recurrent.py, numba/linear.py, numba/recurrent.py,
    cuda/linear.py, cuda/products.py, cuda/recurrent.py.
    """

    def forward(
        self, x: Array, weight_x: Any, weight_h: Any, bias: Any, h_0: Any, c_0: Any, visible: Any, reverse: bool
    ) -> tuple[Array, Array]:
        self.visible, self.reverse = visible, reverse
        u = linear_formula(x, weight_x, bias)
        h, c, self.statistics = lstm_steps(u, weight_h, h_0, c_0, visible, reverse)
        self.save(x, weight_x, weight_h, bias, h_0, c_0, h, c)
        return h, c

    def backward(self, dh: Array, dc: Array) -> Any:
        x, weight_x, weight_h, bias, h_0, c_0, h, c = self.saved
        h_before, c_before = before(h, h_0, self.reverse), before(c, c_0, self.reverse)
        gates = self.statistics
        if gates is None:
            gates = lstm_gates(linear_formula(x, weight_x, bias) + product(h_before, weight_h))
        dz, dh_0, dc_0 = lstm_steps_gradient(dh, dc, c, c_before, gates, weight_h, self.visible, self.reverse)
        dweight_h = weight_gradient(h_before, dz) if self.needs[2] else None
        dx, dweight_x, dbias = linear_gradient(dz, x, weight_x, (self.needs[0], self.needs[1], self.needs[3]))
        return dx, dweight_x, dweight_h, dbias, dh_0, dc_0


def lstm_gates(z: Array) -> Array:
    """Return i, f, g and o side by side."""
    i, f, g, o = parts(z, 4)
    return namespace_of(z).concatenate([Sigmoid.run(i), Sigmoid.run(f), Tanh.run(g), Sigmoid.run(o)], axis=-1)


@singledispatch
def lstm_steps(
    u: Array, weight_h: Array, h: Array, c: Array, visible: Array | None, reverse: bool
) -> tuple[Array, Array, Array]:
    """Return all h, all c and all gates, given u = x W_x + b and the first h and c."""
    hs, cs, gates = [], [], []
    for t in steps(u.shape[1], reverse):
        gates.append(lstm_gates(u[:, t] + product(h, weight_h)))
        i, f, g, o = parts(gates[-1], 4)
        c = chosen(visible, t, f * c + i * g, c)
        h = chosen(visible, t, o * Tanh.run(c), h)
        hs.append(h)
        cs.append(c)
    return by_position(hs, reverse), by_position(cs, reverse), by_position(gates, reverse)


@singledispatch
def lstm_steps_gradient(
    dhs: Array,
    dcs: Array,
    cs: Array,
    cs_before: Array,
    gates: Array,
    weight_h: Array,
    visible: Array | None,
    reverse: bool,
) -> tuple[Array, Array, Array]:
    """Return dz of all steps, and the gradients of the first h and c."""
    xp, dzs = namespace_of(dhs), []
    dh: Any = 0
    dc: Any = 0
    for t in steps(dhs.shape[1], not reverse):
        i, f, g, o = parts(gates[:, t], 4)
        s = Tanh.run(cs[:, t])
        dh, dc = dh + dhs[:, t], dc + dcs[:, t]
        dnew = dc + dh * o * (1 - s * s)
        di, df = dnew * g * i * (1 - i), dnew * cs_before[:, t] * f * (1 - f)
        dg, do = dnew * i * (1 - g * g), dh * s * o * (1 - o)
        dz = chosen(visible, t, xp.concatenate([di, df, dg, do], axis=-1), 0)
        dh = chosen(visible, t, product(dz, weight_h.swapaxes(0, 1)), dh)
        dc = chosen(visible, t, dnew * f, dc)
        dzs.append(dz)
    return by_position(dzs, not reverse), dh, dc


@derivation(Lstm)
def lstm(
    x: TensorLike,
    weight_x: TensorLike,
    weight_h: TensorLike,
    bias: TensorLike,
    h_0: TensorLike | None = None,
    c_0: TensorLike | None = None,
    visible: TensorLike | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the states h and the cells c, each (B, T, H), of an LSTM that reads x (B, T, D).

    It starts from h_0 and c_0 (B, H), by default zeros. weight_x is (D, 4H), weight_h (H, 4H), bias (4H), each with the
    gates in PyTorch's order i, f, g, o. Where `visible` (B, T) is False, h and c stay as they are. With `reverse` the
    steps run from the last position to the first.

    Raises ValueError if the shapes don't fit, and if there are no steps.

    >>> h, c = tl.lstm(tl.ones((1, 3, 2)), tl.zeros((2, 4)), tl.zeros((1, 4)), tl.Tensor([9.0, 9.0, 9.0, 9.0]))
    >>> c.numpy().round(2).ravel()
    array([1., 2., 3.], dtype=float32)
    """
    inputs, options = _operands("lstm", 4, x, weight_x, weight_h, bias, [h_0, c_0], visible, reverse)
    return _in_float32(Lstm, inputs, **options)


# ---- GRU ---------------------------------------------------------------------------------------------------------


class Gru(Function):
    """(r, z) = sigmoid(u + h' W_h) for their parts of u = x W_x + b,  n = tanh(u_n + r m),  h = (1 - z) n + z h'.

    Here m = h' W_hn + b_h. Cho et al. 2014, in the variant of cuDNN and PyTorch, where the reset gate r acts after the
    product; the update gate z says how much of the state stays.

    =>  dn = dh (1 - z)(1 - n^2), dz = dh (h' - n) z (1 - z), dr = dn m r (1 - r), as for `lstm`; together du. What
    comes from h' W_h is dq = (dr, dz, dn r)  =>  dh' = dh z + dq W_h^T, dW_h = sum h'^T dq, db_h = sum dn r, and
    dW_x = sum x^T du, db = sum du, dx = du W_x^T.

    Keeps x, weight_x, weight_h, bias, bias_h, h_0, h and visible; statistics: the gates, m.
    Kernels: numpy/linalg.py, numpy/linear.py, numpy/recurrent.py, numba/linear.py, numba/recurrent.py,
    cuda/linear.py, cuda/products.py, cuda/recurrent.py.
    """

    def forward(
        self, x: Array, weight_x: Any, weight_h: Any, bias: Any, bias_h: Any, h_0: Any, visible: Any, reverse: bool
    ) -> Array:
        self.visible, self.reverse = visible, reverse
        u = linear_formula(x, weight_x, bias)
        h, *self.statistics = gru_steps(u, weight_h, bias_h, h_0, visible, reverse)
        self.save(x, weight_x, weight_h, bias, bias_h, h_0, h)
        return h

    def backward(self, dh: Array) -> Any:
        x, weight_x, weight_h, bias, bias_h, h_0, h = self.saved
        h_before = before(h, h_0, self.reverse)
        gates, m = self.statistics or gru_gates(linear_formula(x, weight_x, bias), product(h_before, weight_h), bias_h)
        du, dq, dh_0 = gru_steps_gradient(dh, h_before, gates, m, weight_h, self.visible, self.reverse)
        dweight_h = weight_gradient(h_before, dq) if self.needs[2] else None
        dbias_h = rows(parts(dq, 3)[2]).sum(axis=0) if self.needs[4] else None
        dx, dweight_x, dbias = linear_gradient(du, x, weight_x, (self.needs[0], self.needs[1], self.needs[3]))
        return dx, dweight_x, dweight_h, dbias, dbias_h, dh_0


def gru_gates(u: Array, q: Array, bias_h: Array) -> tuple[Array, Array]:
    """Return r, z and n side by side, and m, given u = x W_x + b and q = h' W_h."""
    (u_r, u_z, u_n), (q_r, q_z, q_n) = parts(u, 3), parts(q, 3)
    r, m = Sigmoid.run(u_r + q_r), q_n + bias_h
    gates = [r, Sigmoid.run(u_z + q_z), Tanh.run(u_n + r * m)]
    return namespace_of(u).concatenate(gates, axis=-1), m


@singledispatch
def gru_steps(
    u: Array, weight_h: Array, bias_h: Array, h: Array, visible: Array | None, reverse: bool
) -> tuple[Array, Array, Array]:
    """Return all states, all gates and all m, given u = x W_x + b and the first state."""
    hs, gates, ms = [], [], []
    for t in steps(u.shape[1], reverse):
        found, m = gru_gates(u[:, t], product(h, weight_h), bias_h)
        _, z, n = parts(found, 3)
        h = chosen(visible, t, (1 - z) * n + z * h, h)
        hs.append(h)
        gates.append(found)
        ms.append(m)
    return by_position(hs, reverse), by_position(gates, reverse), by_position(ms, reverse)


@singledispatch
def gru_steps_gradient(
    dhs: Array, hs_before: Array, gates: Array, ms: Array, weight_h: Array, visible: Array | None, reverse: bool
) -> tuple[Array, Array, Array]:
    """Return du and dq of all steps, and the gradient of the first state."""
    xp, dus, dqs = namespace_of(dhs), [], []
    dh: Any = 0
    for t in steps(dhs.shape[1], not reverse):
        r, z, n = parts(gates[:, t], 3)
        dh = dh + dhs[:, t]
        dn, dz = dh * (1 - z) * (1 - n * n), dh * (hs_before[:, t] - n) * z * (1 - z)
        dr = dn * ms[:, t] * r * (1 - r)
        du = chosen(visible, t, xp.concatenate([dr, dz, dn], axis=-1), 0)
        dq = chosen(visible, t, xp.concatenate([dr, dz, dn * r], axis=-1), 0)
        dh = chosen(visible, t, dh * z + product(dq, weight_h.swapaxes(0, 1)), dh)
        dus.append(du)
        dqs.append(dq)
    return by_position(dus, not reverse), by_position(dqs, not reverse), dh


@derivation(Gru)
def gru(
    x: TensorLike,
    weight_x: TensorLike,
    weight_h: TensorLike,
    bias: TensorLike,
    bias_h: TensorLike,
    h_0: TensorLike | None = None,
    visible: TensorLike | None = None,
    reverse: bool = False,
) -> Tensor:
    """Return the states (B, T, H) of a gated recurrent unit that reads x (B, T, D), from h_0 (B, H) or zeros.

    weight_x is (D, 3H), weight_h (H, 3H), bias (3H), each with the gates in PyTorch's order r, z, n; bias_h (H) belongs
    to n. Where `visible` (B, T) is False, the state stays as it is. With `reverse` the steps run from the last position
    to the first.

    Raises ValueError if the shapes don't fit, and if there are no steps.

    >>> h = tl.gru(tl.ones((1, 3, 2)), tl.zeros((2, 3)), tl.zeros((1, 3)), tl.Tensor([0.0, 0.0, 9.0]), tl.zeros(1))
    >>> h.numpy().round(3).ravel()
    array([0.5  , 0.75 , 0.875], dtype=float32)
    """
    inputs, options = _operands("gru", 3, x, weight_x, weight_h, bias, [h_0], visible, reverse)
    bias_h = as_tensor(bias_h, like=inputs[0])
    if bias_h.shape != inputs[-1].shape[1:]:
        raise ValueError(f"gru: bias_h must have shape {inputs[-1].shape[1:]}, got {bias_h.shape}")
    return _in_float32(Gru, (*inputs[:4], bias_h, inputs[4]), **options)


# ---- arguments ---------------------------------------------------------------------------------------------------


def _operands(
    name: str,
    gates: int,
    x: TensorLike,
    weight_x: TensorLike,
    weight_h: TensorLike,
    bias: TensorLike,
    first: Sequence[TensorLike | None],
    visible: TensorLike | None,
    reverse: bool,
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Return x, the weights, the bias and the first states as Tensors, and the options, after checking them."""
    check_flag(name, "reverse", reverse)
    x = as_floating(x)
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(f"{name}: x must be (sentences, steps, width) with at least one step, got shape {x.shape}")
    x, weight_x, bias = linear_operands(name, x, weight_x, as_tensor(bias, like=x))
    weight_h = as_tensor(weight_h, like=x)
    width = weight_h.shape[0] if weight_h.ndim else 0
    if weight_h.shape != (width, gates * width) or weight_x.shape[1] != gates * width:
        raise ValueError(
            f"{name}: weight_x must be (D, {gates} H) and weight_h (H, {gates} H), got {weight_x.shape} and "
            f"{weight_h.shape}"
        )
    state = len(x), width
    states = [zeros(state, x.dtype, x.backend) if s is None else as_tensor(s, like=x) for s in first]
    for one in states:
        if one.shape != state:
            raise ValueError(f"{name}: a first state must be (sentences, H), here {state}; got {one.shape}")
    mask = None if visible is None else checked_mask(visible, x.shape[:2], x)
    if mask is not None and mask.shape != x.shape[:2]:
        raise ValueError(f"{name}: visible must be (sentences, steps), here {x.shape[:2]}; got {mask.shape}")
    return (x, weight_x, weight_h, bias, *states), {"visible": mask, "reverse": reverse}


def _in_float32(op: type[Function], inputs: Sequence[Tensor], **options: Any) -> Any:
    """Apply an op; if all inputs are float16, which is too narrow for sums over steps, in float32."""
    if any(x.dtype != np.float16 for x in inputs):
        return op.apply(*inputs, **options)
    found: Any = op.apply(*[x.astype("float32") for x in inputs], **options)
    return tuple([y.astype("float16") for y in found]) if isinstance(found, tuple) else found.astype("float16")
