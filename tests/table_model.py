"""A model that is a table: each source and beginning of a target has its own logits, drawn from a seed.

It has only the methods that decoding requires, and a vocabulary so small that all possible targets can be listed.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np

import tensorlib as tl
from models.text.tokens import PAD


class TableModel:
    """Logits of `vocabulary` words; `peaked` is their standard deviation."""

    def __init__(self, vocabulary=6, seed=0, peaked=1.5):
        self.vocabulary, self.seed, self.peaked = vocabulary, seed, peaked
        self.steps = []  # number of rows of each step

    @contextmanager
    def evaluating(self):
        yield

    def visible(self, ids_BS):
        return ids_BS != PAD

    def encode(self, source_BS, visible_BS):
        return [tuple(row[seen].tolist()) for row, seen in zip(source_BS, visible_BS, strict=True)]

    def start(self, memory, visible_BS):
        return Rows([(source, ()) for source in memory])

    def decode_step(self, ids_B, state):
        rows = [(source, (*begun, int(token))) for (source, begun), token in zip(state.rows, ids_B, strict=True)]
        self.steps.append(len(rows))
        return tl.Tensor(np.stack([self.logits(source, begun[1:]) for source, begun in rows])), Rows(rows)

    @cache  # noqa: B019  # it lives as long as the test
    def logits(self, source, begun):
        """Return the logits (V,) of the token after these."""
        rng = np.random.default_rng([self.seed, len(source), *source, *begun])
        return self.peaked * rng.normal(size=self.vocabulary)

    def log_probs(self, source, begun):
        logits = self.logits(tuple(source), tuple(begun))
        return logits - np.log(np.exp(logits).sum())


@dataclass(frozen=True)
class Rows:
    rows: list

    def select(self, rows):
        rows = np.asarray(rows)
        return Rows([self.rows[i] for i in (np.flatnonzero(rows) if rows.dtype == bool else rows)])
