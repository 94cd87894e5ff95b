"""The settings that all models made of Transformer layers share, and their position encodings.

Shape suffixes: B batch, T length, D model width.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

import nn
import tensorlib as tl

__all__ = ["LayersConfig", "PositionKind", "Positions", "make_positions", "next_vectors", "with_positions"]

PositionKind = Literal["sinusoidal", "learned", "rotary", "none"]


class LayersConfig:
    """What the configs of all models made of these layers have in common."""

    layers: int
    width: int
    heads: int
    feed_forward: int
    dropout: float
    norm: Literal["post", "pre"]
    positions: PositionKind
    max_length: int

    def problems(self, *vocabularies: str) -> list[str]:
        """Return what is impossible about these fields and those that hold the sizes of vocabularies."""
        sizes = [*vocabularies, "layers", "width", "heads", "feed_forward", "max_length"]
        problems = [f"{n} must be at least 1, got {getattr(self, n)}" for n in sizes if getattr(self, n) < 1]
        if self.heads > 0 and self.width % self.heads:
            problems.append(f"heads must divide width, got {self.heads} and {self.width}")
        if self.positions == "sinusoidal" and self.width % 2:
            problems.append(f"width must be even for sinusoidal positions, got {self.width}")
        if self.positions == "rotary" and self.heads > 0 and self.width // self.heads % 2:
            problems.append(f"width / heads must be even for rotary positions, got {self.width} / {self.heads}")
        for name in ("dropout", "attention_dropout", "feed_forward_dropout", "embedding_dropout"):
            p = getattr(self, name)
            if not (p is None and name != "dropout") and not 0 <= p < 1:
                problems.append(f"{name} must lie in [0, 1), got {p}")
        for name, known in (("norm", ("post", "pre")), ("positions", get_args(PositionKind))):
            if getattr(self, name) not in known:
                names = f"{', '.join(map(repr, known[:-1]))} or {known[-1]!r}"
                problems.append(f"{name} must be {names}, got {getattr(self, name)!r}")
        return problems

    def dropout_on(self, part: Literal["attention", "feed_forward", "embedding"]) -> float:
        """Return the dropout of a part of the model that may have a separate setting."""
        separate: float | None = getattr(self, f"{part}_dropout")
        return self.dropout if separate is None else separate


Positions = nn.LearnedPositions | nn.SinusoidalPositions
PREPARED_POSITIONS = 4096  # more rows are computed when needed, so a model's memory does not grow with max_length


def make_positions(config: LayersConfig, generator: tl.Generator | None) -> Positions | None:
    """Return the encodings to add to embeddings; None for rotary positions, which are in the layers, and for none."""
    if config.positions == "learned":
        return nn.LearnedPositions(config.width, config.max_length, generator)
    if config.positions == "sinusoidal":
        return nn.SinusoidalPositions(config.width, min(config.max_length, PREPARED_POSITIONS))
    return None


def with_positions(x_BTD: tl.Tensor, positions: Positions | None, start: int = 0) -> tl.Tensor:
    """Return sqrt(D) embeddings + positions; the factor (section 3.4) keeps positions from dominating."""
    x_BTD = x_BTD * math.sqrt(x_BTD.shape[-1])
    return x_BTD if positions is None else positions(x_BTD, start)


def next_vectors(embedding: nn.Embedding, positions: Positions | None, ids_B: np.ndarray, start: int) -> np.ndarray:
    """Return `with_positions` of one id of each row, all at position `start`, as an array (B, D), in few calls."""
    x_BD: np.ndarray = embedding(ids_B[:, None]).data[:, 0] * math.sqrt(embedding.weight.shape[1])
    if positions is not None:
        x_BD += positions.rows(start, 1).data
    return x_BD
