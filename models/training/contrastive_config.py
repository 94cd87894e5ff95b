"""The settings of training a sentence encoder: its negatives, its loss, its learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import nn
from models.system.errors import UserError

__all__ = ["ContrastiveConfig"]


@dataclass(frozen=True)
class ContrastiveConfig:
    """The settings of a training. The kinds of negatives may be combined.

    >>> ContrastiveConfig(in_batch=0, uniform=0, hard=0).check()
    Traceback (most recent call last):
    models.system.errors.UserError: ContrastiveConfig: negatives are required; in_batch, uniform and hard are 0
    """

    steps: Annotated[int, "Number of steps."] = 2000
    batch: Annotated[int, "Pairs in a batch."] = 128
    in_batch: Annotated[int | None, "Negatives of each pair from its batch: the other pairs; all of them if None."] = (
        None
    )
    uniform: Annotated[int, "Negatives drawn uniformly from the text for each batch; all its pairs share them."] = 0
    hard: Annotated[int, "Negatives of each pair that the encoder confuses with it most."] = 0
    candidates: Annotated[int, "Texts drawn for each pair, of which the hardest are its hard negatives."] = 512
    mine_every: Annotated[int, "Steps between encodings of the whole text, which show what negatives are hard."] = 200
    loss: Annotated[Literal["info-nce", "triplet", "margin"], "The loss, from nn.contrastive."] = "info-nce"
    temperature: Annotated[float, "Temperature of info-nce."] = 0.05
    margin: Annotated[float, "Margin of triplet (of squared distances) and of margin (of distances)."] = 0.5
    learning_rate: Annotated[float, "Adam's learning rate, the peak of a cosine."] = 1e-3
    embedding_rate: Annotated[
        float, "Learning rate of the embeddings, as a multiple of `learning_rate`: most subwords get few gradients."
    ] = 10.0
    warmup: Annotated[int, "Steps in which the learning rate rises from 0 to its peak."] = 100
    clip: Annotated[float, "Largest norm of the gradient."] = 1.0
    validate_every: Annotated[int, "Steps between validations; 0: only at the end."] = 0
    save_every: Annotated[int, "Steps between checkpoints; 0: only at the end."] = 0
    seed: Annotated[int, "Seed of batches and negatives."] = 0

    def check(self) -> None:
        """Raise `UserError` naming the first setting that is impossible."""
        least = {"steps": 1, "batch": 1, "uniform": 0, "hard": 0, "candidates": max(self.hard, 1), "mine_every": 1}
        least |= {"in_batch": 0, "warmup": 0, "validate_every": 0, "save_every": 0, "seed": 0}
        for name, number in least.items():
            value = getattr(self, name)
            if value is not None and value < number:
                raise UserError(f"ContrastiveConfig: {name} must be at least {number}, got {value}")
        for name in ("temperature", "margin", "learning_rate", "embedding_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"ContrastiveConfig: {name} must be positive and finite, got {getattr(self, name)}")
        if self.loss not in ("info-nce", "triplet", "margin"):
            raise UserError(f"ContrastiveConfig: loss must be info-nce, triplet or margin, got {self.loss!r}")
        if self.in_batch == 0 and not self.uniform and not self.hard:
            raise UserError("ContrastiveConfig: negatives are required; in_batch, uniform and hard are 0")
        if self.batch == 1 and not self.uniform and not self.hard:
            raise UserError("ContrastiveConfig: negatives are required; a batch of 1 has none; use a larger batch")

    def make_loss(self) -> nn.contrastive.ContrastiveLoss:
        """Return the loss."""
        if self.loss == "info-nce":
            return nn.InfoNCELoss(self.temperature)
        return nn.TripletLoss(self.margin) if self.loss == "triplet" else nn.MarginLoss(self.margin)
