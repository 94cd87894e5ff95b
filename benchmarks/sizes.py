"""The sizes that are measured, the same for every contestant, and the number of operations in a step of each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["DROPOUT", "SIZES", "SMOOTHING", "Size", "batch_of", "step_flops"]

DROPOUT = 0.1  # on embeddings, attention weights, hidden feed-forward values and every sub-layer's output
SMOOTHING = 0.1
FIRST_WORD = 4  # smaller ids are padding, unknown, begin and end


class Size(NamedTuple):
    """A model, with `layers` in its encoder and again in its decoder, and a batch of sentences of one length."""

    width: int
    heads: int
    feed_forward: int
    layers: int
    vocabulary: int
    batch: int
    length: int

    @property
    def tokens(self) -> int:
        """The number of target tokens in a batch."""
        return self.batch * self.length


SIZES = {
    "tiny": Size(64, 4, 256, 2, 1000, 32, 16),
    "small": Size(256, 4, 1024, 3, 8000, 64, 32),
    "base": Size(512, 8, 2048, 6, 10000, 32, 32),
}


def batch_of(size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return source ids, target ids to read and target ids to predict, each (batch, length), without padding."""
    rng = np.random.default_rng(0)
    source = rng.integers(FIRST_WORD, size.vocabulary, (size.batch, size.length))
    target = rng.integers(FIRST_WORD, size.vocabulary, (size.batch, size.length + 1))
    return source, target[:, :-1], target[:, 1:]


def step_flops(size: Size) -> int:
    """Return the floating-point operations of the matrix products in one training step.

    A product of (m, k) and (k, n) takes 2mkn. For each product, the backward pass computes two of the same size.
    Attention to masked positions counts, too.
    """
    tokens, width = size.tokens, size.width
    projections = 4 * 2 * tokens * width * width  # queries, keys, values, output
    attention = projections + 2 * 2 * tokens * size.length * width  # scores, and the weighted sum of values
    feed_forward = 2 * 2 * tokens * width * size.feed_forward
    encoder = size.layers * (attention + feed_forward)
    decoder = size.layers * (2 * attention + feed_forward)
    logits = 2 * tokens * width * size.vocabulary
    return 3 * (encoder + decoder + logits)
