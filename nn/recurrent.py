"""Recurrent layers, RNN, GRU and LSTM, and their cells for a single step.

Shape suffixes: B batch, T steps, D input width, H state width, L layers (times two if bidirectional).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

import tensorlib as tl
from nn import init
from nn.checks import check_fraction, check_size, with_width
from nn.containers import ModuleList
from nn.layers import Dropout
from nn.module import Module
from nn.parameter import Parameter
from tensorlib.messages import kind_of
from tensorlib.ops.arguments import check_flag

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "RecurrentCell", "RecurrentLayers", "detached"]

State = Any
"""A Tensor (B, H), or (L, B, H) for several layers; for an LSTM a pair of them, h and c."""


# ---- one step ----------------------------------------------------------------------------------------------------


class RecurrentCell(Module):
    """The weights of one layer in one direction. A subclass says which op runs its steps, and how many gates it has."""

    gates: ClassVar[int]

    def __init__(self, width: int, state_width: int, generator: tl.Generator | None = None) -> None:
        check_size(type(self).__name__, width=width, state_width=state_width)
        bound, gates = state_width**-0.5, self.gates * state_width
        self.weight_x = Parameter(init.uniform((width, gates), bound, generator))
        self.weight_h = Parameter(init.uniform((state_width, gates), bound, generator))
        self.bias = Parameter(np.zeros(gates, np.float32))

    def forward(self, x_BD: TensorLike, state: State = None) -> State:
        """Return the state after one step, from `state` or zeros."""
        x_BD = with_width(self, x_BD, self.weight_x.shape[0], self.weight_x, "sentences")
        _, state = self.sequence(x_BD.reshape(len(x_BD), 1, -1), state)
        return state

    def sequence(self, x_BTD: tl.Tensor, state: State = None, visible_BT: Any = None, reverse: bool = False) -> Any:
        """Return all states h (B, T, H) of a sequence, and the last state."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return the widths."""
        return f"{self.weight_x.shape[0]} -> {self.weight_h.shape[0]}"


class RNNCell(RecurrentCell):
    """h = tanh(x W_x + b + h' W_h), or relu in place of tanh, where h' is the state before (Elman 1990).

    x is (B, D), h and h' are (B, H), weight_x (D, H), weight_h (H, H), bias (H). Weights are initialized uniformly over
    [-1/sqrt(H), 1/sqrt(H)), the bias with zeros.

    >>> cell = nn.RNNCell(width=3, state_width=4)
    >>> h_BH = cell(tl.ones((2, 3)))
    >>> h_BH = cell(tl.ones((2, 3)), h_BH)
    >>> h_BH.shape
    (2, 4)
    """

    gates = 1

    def __init__(
        self,
        width: int,
        state_width: int,
        activation: Literal["tanh", "relu"] = "tanh",
        generator: tl.Generator | None = None,
    ) -> None:
        super().__init__(width, state_width, generator)
        if activation not in ("tanh", "relu"):
            raise ValueError(f"{type(self).__name__}: activation must be 'tanh' or 'relu', got {activation!r}")
        self.activation = activation

    def sequence(self, x_BTD: tl.Tensor, state: State = None, visible_BT: Any = None, reverse: bool = False) -> Any:
        """Return all states h (B, T, H) of a sequence, and the last one."""
        weights = self.weight_x, self.weight_h, self.bias
        h_BTH = tl.rnn(x_BTD, *weights, state, self.activation, visible_BT, reverse)
        return h_BTH, h_BTH[:, 0 if reverse else -1]


class GRUCell(RecurrentCell):
    """r, z = sigmoid(x W_x + b + h' W_h),  n = tanh(x W_xn + b_n + r (h' W_hn + b_h)),  h = (1 - z) n + z h'.

    The gated recurrent unit of Cho et al. 2014 as in PyTorch: the reset gate r says how much of the state enters the
    new value n, and the update gate z how much of the state stays. weight_x (D, 3H), weight_h (H, 3H) and bias (3H)
    hold the parts of r, z and n side by side; bias_h is (H). They are initialized as in `RNNCell`.

    >>> nn.GRUCell(width=3, state_width=4)(tl.ones((2, 3))).shape
    (2, 4)
    """

    gates = 3

    def __init__(self, width: int, state_width: int, generator: tl.Generator | None = None) -> None:
        super().__init__(width, state_width, generator)
        self.bias_h = Parameter(np.zeros(state_width, np.float32))

    def sequence(self, x_BTD: tl.Tensor, state: State = None, visible_BT: Any = None, reverse: bool = False) -> Any:
        """Return all states h (B, T, H) of a sequence, and the last one."""
        h_BTH = tl.gru(x_BTD, self.weight_x, self.weight_h, self.bias, self.bias_h, state, visible_BT, reverse)
        return h_BTH, h_BTH[:, 0 if reverse else -1]


class LSTMCell(RecurrentCell):
    """i, f, o = sigmoid(x W_x + b + h' W_h),  g = tanh(x W_xg + b_g + h' W_hg),  c = f c' + i g,  h = o tanh(c).

    Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber and Cummins 2000. The input gate i says how much of
    the new value g enters the cell c, the forget gate f how much of the cell stays, the output gate o how much of it is
    shown as h. weight_x (D, 4H), weight_h (H, 4H) and bias (4H) hold the parts of i, f, g and o side by side. They are
    initialized as in `RNNCell`, but the bias of the forget gate with 1, so that a new model forgets less
    (Jozefowicz, Zaremba and Sutskever 2015, section 2.2).

    >>> cell = nn.LSTMCell(width=3, state_width=4)
    >>> h_BH, c_BH = cell(tl.ones((2, 3)))
    >>> h_BH, c_BH = cell(tl.ones((2, 3)), (h_BH, c_BH))
    >>> h_BH.shape, c_BH.shape
    ((2, 4), (2, 4))
    """

    gates = 4

    def __init__(self, width: int, state_width: int, generator: tl.Generator | None = None) -> None:
        super().__init__(width, state_width, generator)
        self.bias.replace(np.repeat([0, 1, 0, 0], state_width).astype(np.float32), copy=False)

    def sequence(self, x_BTD: tl.Tensor, state: State = None, visible_BT: Any = None, reverse: bool = False) -> Any:
        """Return all states h (B, T, H) of a sequence, and the last h and c."""
        if state is not None and not (isinstance(state, tuple | list) and len(state) == 2):
            raise TypeError(f"{self.label()}: state must be a pair (h, c) of Tensors (B, H), got {kind_of(state)}")
        h_BH, c_BH = (None, None) if state is None else state
        h_BTH, c_BTH = tl.lstm(x_BTD, self.weight_x, self.weight_h, self.bias, h_BH, c_BH, visible_BT, reverse)
        last = 0 if reverse else -1
        return h_BTH, (h_BTH[:, last], c_BTH[:, last])


# ---- sequences ---------------------------------------------------------------------------------------------------


class RecurrentLayers(Module):
    """Layers of cells over whole sequences."""

    cell: ClassVar[type[RecurrentCell]]

    def __init__(
        self,
        width: int,
        state_width: int,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        generator: tl.Generator | None = None,
        **options: Any,
    ) -> None:
        check_size(type(self).__name__, width=width, state_width=state_width, layers=layers)
        check_flag(type(self).__name__, "bidirectional", bidirectional)
        check_fraction(type(self).__name__, dropout=dropout)
        self.directions = 2 if bidirectional else 1
        widths = [width, *[self.directions * state_width] * (layers - 1)]
        self.cells = ModuleList(
            self.cell(w, state_width, generator=generator, **options) for w in widths for _ in range(self.directions)
        )
        self.dropout = Dropout(dropout)

    def forward(
        self, x_BTD: TensorLike, state: State = None, visible_BT: TensorLike | None = None
    ) -> tuple[tl.Tensor, State]:
        """Return the states h of the last layer for all steps, and the last states of all layers.

        x_BTD: the input; with at least one step.
        state: the first states, as returned by an earlier call; zeros by default.
        visible_BT: True where there is a token. The result is 0 elsewhere, and each sentence gets what it would alone.

        Returns h (B, T, H), or (B, T, 2H) if bidirectional, and the last states (L, B, H); for an LSTM a pair of them.
        """
        x_BTD = with_width(self, x_BTD, self.cells[0].weight_x.shape[0], self.cells[0].weight_x, "sentences, steps")
        firsts, lasts = self._by_cell(state), []
        for i in range(0, len(self.cells), self.directions):
            if i:
                x_BTD = self.dropout(x_BTD)
            found = [
                self.cells[i + k].sequence(x_BTD, firsts[i + k], visible_BT, reverse=k == 1)
                for k in range(self.directions)
            ]
            x_BTD = found[0][0] if self.directions == 1 else tl.concatenate([h for h, _ in found], axis=-1)
            lasts += [last for _, last in found]
        if visible_BT is not None:
            x_BTD = tl.where(tl.expand_dims(visible_BT, -1), x_BTD, 0.0)
        return x_BTD, _stacked(lasts)

    def _by_cell(self, state: State) -> list[State]:
        """Return the first state of each cell."""
        if state is None:
            return [None] * len(self.cells)
        pair = isinstance(state, tuple | list)
        arrays = list(state) if pair else [state]
        wanted = 2 if self.cell is LSTMCell else 1
        if len(arrays) != wanted or pair != (wanted == 2):
            shape = "a pair (h, c) of Tensors" if wanted == 2 else "a Tensor"
            raise TypeError(f"{self.label()}: state must be {shape} of shape (L, B, H), got {kind_of(state)}")
        for one in arrays:
            if np.ndim(one) != 3 or len(one) != len(self.cells):
                raise ValueError(
                    f"{self.label()}: state must have shape (L, B, H) with L = {len(self.cells)}, got {np.shape(one)}"
                )
        return [tuple(one[i] for one in arrays) if wanted == 2 else state[i] for i in range(len(self.cells))]

    def extra_repr(self) -> str:
        """Return the number of directions if it is two."""
        return "bidirectional" if self.directions == 2 else ""


def _stacked(states: list[State]) -> State:
    if isinstance(states[0], tuple):
        return tuple(tl.stack(list(parts)) for parts in zip(*states, strict=True))
    return tl.stack(states)


class RNN(RecurrentLayers):
    """Layers of `RNNCell` over a sequence: h_t = tanh(x_t W_x + b + h_(t-1) W_h), or relu.

    Each layer reads the states of the layer below, with dropout between them. If `bidirectional`, a second cell of each
    layer reads from the end to the beginning, and the states of both are side by side. The recurrence of a layer is one
    node of the graph.

    >>> rnn = nn.RNN(width=3, state_width=4, layers=2, bidirectional=True)
    >>> h_BTH, last_LBH = rnn(tl.ones((5, 7, 3)))
    >>> h_BTH.shape, last_LBH.shape
    ((5, 7, 8), (4, 5, 4))

    Raises ValueError if x is not (B, T, D), and for a state of another shape.
    """

    cell = RNNCell

    def __init__(
        self,
        width: int,
        state_width: int,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        activation: Literal["tanh", "relu"] = "tanh",
        generator: tl.Generator | None = None,
    ) -> None:
        super().__init__(width, state_width, layers, bidirectional, dropout, generator, activation=activation)


class GRU(RecurrentLayers):
    """Layers of `GRUCell` over a sequence, which `RNN` describes.

    >>> h_BTH, last_LBH = nn.GRU(width=3, state_width=4)(tl.ones((5, 7, 3)))
    >>> bool((h_BTH[:, -1] == last_LBH[0]).all())
    True
    """

    cell = GRUCell


class LSTM(RecurrentLayers):
    """Layers of `LSTMCell` over a sequence, which `RNN` describes. The state is a pair, h and c.

    Where a sequence is too long for one backward pass, pass the state on without its history, and only the steps of the
    last part are differentiated (truncated backpropagation through time, Williams and Peng 1990):

    >>> lstm, state, x_BTD = nn.LSTM(width=3, state_width=4), None, tl.ones((5, 20, 3))
    >>> for part_BTD in tl.split(x_BTD, 4, axis=1):
    ...     h_BTH, state = lstm(part_BTD, state)
    ...     h_BTH.sum().backward()
    ...     state = nn.detached(state)
    """

    cell = LSTMCell


def detached(state: State) -> State:
    """Return a state, a Tensor or a pair of them, without its history.

    >>> nn.detached(nn.GRUCell(3, 4)(tl.ones((2, 3)))).requires_grad
    False
    """
    return tuple(one.detach() for one in state) if isinstance(state, tuple | list) else state.detach()
