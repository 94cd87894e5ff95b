"""The weights of recurrent layers under PyTorch's names, in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from nn.module import Module
from nn.recurrent import RecurrentCell, RecurrentLayers

__all__ = ["from_pytorch", "to_pytorch"]

_PYTORCH_NAME = re.compile(r"(weight|bias)_(ih|hh)(?:_l(\d+)(_reverse)?)?")


def from_pytorch(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return what `load_state_dict` takes here, from the state_dict of PyTorch's RNN, GRU or LSTM, or of a cell.

    PyTorch's matrices are transposed, and it has two biases where one is enough: their sum is ours, except that the
    part of a GRU's second bias that belongs to n is `bias_h`. Raises ValueError for other names, if a
    matrix is missing, and if a bias does not fit its matrix.

    state: NumPy arrays, as from ``{name: x.numpy() for name, x in module.state_dict().items()}``.

    >>> biases = {"bias_ih": np.ones(4), "bias_hh": np.ones(4)}
    >>> state = nn.from_pytorch({"weight_ih": np.ones((4, 3)), "weight_hh": np.ones((4, 4)), **biases})
    >>> state["weight_x"].shape, state["bias"]
    ((3, 4), array([2., 2., 2., 2.]))
    """
    cells: dict[tuple[int, int] | None, dict[str, np.ndarray]] = {}
    for name, array in state.items():
        match = _PYTORCH_NAME.fullmatch(name)
        if not match:
            raise ValueError(f"from_pytorch: expected names as weight_ih_l0, got {name!r}")
        kind, end, layer, backward = match.groups()
        place = None if layer is None else (int(layer), int(backward is not None))
        cells.setdefault(place, {})[f"{kind}_{end}"] = np.asarray(array)
    if None in cells:
        if len(cells) > 1:
            raise ValueError(f"from_pytorch: needs names of a cell or names with layers, got both: {', '.join(state)}")
        return _our_weights(cells[None], "", state)
    places = [place for place in cells if place]
    layers, directions = (1 + max((place[i] for place in places), default=0) for i in (0, 1))
    found: dict[str, np.ndarray] = {}
    for i in range(layers * directions):
        layer, backward = divmod(i, directions)
        own = _our_weights(cells.get((layer, backward), {}), f"_l{layer}{'_reverse' * backward}", state)
        found |= {f"cells.{i}.{name}": array for name, array in own.items()}
    return found


def _our_weights(theirs: Mapping[str, np.ndarray], end: str, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the weights of the cell whose names have this end in `state`."""
    for name in ("weight_ih", "weight_hh"):
        if name not in theirs or theirs[name].ndim != 2:
            raise ValueError(f"from_pytorch: needs a matrix {name + end}, got {', '.join(state) or 'nothing'}")
    wide, units = theirs["weight_hh"].shape
    none = np.zeros(wide, theirs["weight_hh"].dtype)
    bias, bias_h = (theirs.get(name, none) for name in ("bias_ih", "bias_hh"))
    for name, array in (("bias_ih", bias), ("bias_hh", bias_h)):
        if array.shape != (wide,):
            raise ValueError(f"from_pytorch: {name + end} must have shape ({wide},), as its matrix, got {array.shape}")
    found = {"weight_x": theirs["weight_ih"].T, "weight_h": theirs["weight_hh"].T, "bias": bias + bias_h}
    if wide == 3 * units:
        found["bias"] = np.concatenate([(bias + bias_h)[: 2 * units], bias[2 * units :]])
        found["bias_h"] = bias_h[2 * units :]
    return found


def to_pytorch(module: Module) -> dict[str, np.ndarray]:
    """Return the weights of an RNN, GRU, LSTM or cell under PyTorch's names: the inverse of `from_pytorch`.

    PyTorch's second bias, which is not needed, is zero.

    >>> sorted(nn.to_pytorch(nn.LSTM(3, 4)))
    ['bias_hh_l0', 'bias_ih_l0', 'weight_hh_l0', 'weight_ih_l0']
    """
    if isinstance(module, RecurrentCell):
        return _their_weights(module, "")
    if not isinstance(module, RecurrentLayers):
        raise TypeError(f"to_pytorch: needs an RNN, GRU, LSTM or a cell, got {type(module).__name__}")
    found: dict[str, np.ndarray] = {}
    for i, cell in enumerate(module.cells):
        layer, backward = divmod(i, module.directions)
        found |= _their_weights(cell, f"_l{layer}{'_reverse' * backward}")
    return found


def _their_weights(cell: RecurrentCell, end: str) -> dict[str, np.ndarray]:
    arrays = {name: np.array(array) for name, array in cell.state_dict().items()}
    bias_hh = np.zeros_like(arrays["bias"])
    if "bias_h" in arrays:
        bias_hh[-len(arrays["bias_h"]) :] = arrays["bias_h"]
    return {
        f"weight_ih{end}": arrays["weight_x"].T, f"weight_hh{end}": arrays["weight_h"].T,
        f"bias_ih{end}": arrays["bias"], f"bias_hh{end}": bias_hh,
    }  # fmt: skip
