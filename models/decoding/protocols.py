"""What decoding requires of a model: these methods, and finite logits. `Transformer` has all of the methods.

Shape suffixes: B batch, S source length, T target length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self, TypeVar

import numpy as np

import tensorlib as tl
from tensorlib.messages import kind_of, shown

__all__ = ["EncodingModel", "NonFiniteLogits", "StepState", "SteppingModel", "TeacherForcedModel", "longest_target"]
__all__ += ["STEPPING", "TEACHER_FORCED"]
__all__ += ["next_logits", "require_finite", "require_ids", "require_logits", "require_methods"]

Memory = Any  # what `encode` returns; decoding only passes it on


class StepState(Protocol):
    """A model's state after the tokens decoded so far, for each row of a batch."""

    def select(self, rows: np.ndarray, /) -> Self:
        """Return the state of the given rows (indices or booleans), in the given order."""
        ...


State = TypeVar("State", bound=StepState)


class EncodingModel(Protocol):
    """A model that reads sources."""

    def evaluating(self) -> AbstractContextManager[Any]:
        """Return a context in which the model is in evaluation mode."""
        ...

    def visible(self, ids_BS: np.ndarray, /) -> tl.Tensor:
        """Return a mask (B, S): True for every id that is not padding."""
        ...

    def encode(self, source_ids_BS: np.ndarray, visible_BS: tl.Tensor, /) -> Memory:
        """Return the memory of these sources."""
        ...


class SteppingModel(EncodingModel, Protocol[State]):
    """A model that decodes one token at a time."""

    def start(self, memory: Memory, visible_BS: tl.Tensor, /) -> State:
        """Return the state before the first token."""
        ...

    def decode_step(self, ids_B: np.ndarray, state: State, /) -> tuple[tl.Tensor, State]:
        """Append a token to each row, ids (B,); return the logits (B, V) for the next token, and the new state."""
        ...


class TeacherForcedModel(EncodingModel, Protocol):
    """A model that decodes all positions of known targets at once."""

    def decode(self, target_ids_BT: np.ndarray, memory: Memory, visible_BS: tl.Tensor, /) -> tl.Tensor:
        """Return logits (B, T, V)."""
        ...


STEPPING = ("evaluating", "visible", "encode", "start", "decode_step")
TEACHER_FORCED = ("evaluating", "visible", "encode", "decode")


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


def longest_target(model: EncodingModel) -> int | None:
    """Return the model's attribute `longest_target`, the most tokens that it can decode; without it there is no limit.

    For a Transformer with learned positions it is the number of positions.
    """
    longest: int | None = getattr(model, "longest_target", None)
    return longest


class NonFiniteLogits(FloatingPointError):
    """Logits are NaN or infinite, so no token has a probability. `source` is the index of the first such source."""

    def __init__(self, source: int) -> None:
        super().__init__(
            f"decoding: finite logits are required; those for source {source} are NaN or infinite; the model's weights "
            "are spoilt, or far too large: use weights from earlier in training"
        )
        self.source = source


def require_finite(finite_R: np.ndarray, source_R: np.ndarray) -> None:
    """Raise `NonFiniteLogits` unless all rows, which belong to these sources, have finite logits."""
    if not finite_R.all():
        raise NonFiniteLogits(int(source_R[~finite_R].min()))
