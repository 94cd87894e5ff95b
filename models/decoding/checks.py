"""Checks of what a model and its caller give to decoding, while it runs.

Shape suffixes: R rows of the model's batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import tensorlib as tl
from models.decoding.protocols import State, SteppingModel
from tensorlib.messages import kind_of, shown

__all__ = [
    "NonFiniteLogits",
    "next_logits",
    "require_finite",
    "require_ids",
    "require_logits",
    "require_methods",
]


def require_methods(model: Any, names: Sequence[str]) -> None:
    """Raise TypeError if the model lacks methods that decoding calls."""
    missing = [name for name in names if not callable(getattr(model, name, None))]
    if missing:
        raise TypeError(
            f"decoding: a model needs the methods {', '.join(names)}, but {kind_of(model)} lacks {', '.join(missing)}; "
            "models.decoding.protocols says what they return"
        )


def require_ids(rows: Any, what: str = "sources") -> None:
    """Raise TypeError unless `rows` holds one sequence of integer ids for each sentence."""
    wanted = f"decoding: {what} must hold a list of ids for each sentence, got"
    for row in [rows] if isinstance(rows, str) else rows:
        if isinstance(row, str):
            raise TypeError(f"{wanted} {shown(row)}; encode text with tokenizer.encode_source(texts)")
        ids = np.asarray(row)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            flat = ids.ndim == 0 and ids.dtype.kind in "iu"
            given = f"{ids} among them; for one sentence write [ids]" if flat else f"{shown(row)} among them"
            raise TypeError(f"{wanted} {given}")


def next_logits(model: SteppingModel[State], ids_R: np.ndarray, state: State) -> tuple[tl.Tensor, State]:
    """Return the logits (R, V) for the next token of each row, and the new state, after checking both."""
    result: Any = model.decode_step(ids_R, state)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"decoding: decode_step must return a pair (logits, state), got {shown(result)}")
    require_logits("decode_step", result[0], (len(ids_R),))
    return result[0], result[1]


def require_logits(method: str, logits: Any, rows: tuple[int, ...]) -> None:
    """Raise TypeError or ValueError unless a method of a model has returned a Tensor of logits (*rows, V)."""
    shape = ", ".join([*map(str, rows), "vocabulary"])
    wanted = f"decoding: {method} must return logits as a Tensor of shape ({shape}), got"
    if not isinstance(logits, tl.Tensor):
        raise TypeError(f"{wanted} {shown(logits)}; wrap an array by tl.from_numpy(logits)")
    if logits.shape[:-1] != rows:
        last = "; take the last position, logits[:, -1]" if logits.ndim == len(rows) + 2 else ""
        raise ValueError(f"{wanted} {logits.shape}{last}")


class NonFiniteLogits(FloatingPointError):
    """Logits give no probabilities: one is NaN or inf, or all are -inf. `source` is the first such source."""

    def __init__(self, source: int) -> None:
        super().__init__(
            f"decoding: usable logits are required; those for source {source} are NaN or infinite; the model's weights "
            "are spoilt, or far too large: use weights from earlier in training"
        )
        self.source = source


def require_finite(finite_R: np.ndarray, source_R: np.ndarray) -> None:
    """Raise `NonFiniteLogits` unless the logits of all rows, which belong to these sources, give probabilities."""
    if not finite_R.all():
        raise NonFiniteLogits(int(source_R[~finite_R].min()))
