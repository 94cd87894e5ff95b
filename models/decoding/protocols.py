"""What decoding requires of a model: these methods, and logits that give probabilities. `Transformer` has all methods.

A logit of -inf says that a token is impossible. NaN, inf, or -inf for all tokens is an error: see `checks`.

Shape suffixes: B batch, S source length, T target length, V vocabulary.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol, Self, TypeVar

import numpy as np

import tensorlib as tl

__all__ = [
    "STEPPING",
    "TEACHER_FORCED",
    "EncodingModel",
    "StepState",
    "SteppingModel",
    "TeacherForcedModel",
    "longest_target",
]

Memory = Any  # what `encode` returns; decoding only passes it on


class StepState(Protocol):
    """A model's state after the tokens decoded so far, for each row of a batch.

    A state may have an attribute `selects_by_index`. If it is true, `select` copies no keys and values, so every row
    that has ended is dropped at once.
    """

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


def longest_target(model: EncodingModel) -> int | None:
    """Return the model's attribute `longest_target`, the most tokens that it can decode; without it there is no limit.

    For a Transformer with learned positions it is the number of positions.
    """
    longest: int | None = getattr(model, "longest_target", None)
    return longest
