"""tensorlib: a training step of word vectors, whole: negatives, forward, backward, update of the rows in use."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np

import tensorlib as tl
from contestants import Contestant
from contestants.ours import LIBRARY
from models.architectures.embeddings import Batch, Embeddings, Loss
from models.text.random_bits import random_bits
from models.text.sampling import AliasTable, Subsampling

PAIRS_OF_A_WORD = 6  # consecutive pairs of the same word, as from a window of 5


def training(loss: Loss, words: int, width: int, negatives: int, batch: int) -> Contestant:
    """Words have the frequencies of Zipf's law, sub-sampled, as in a text."""
    tl.keep_memory()
    counts = (1e7 / np.arange(1, words + 1)).astype(np.int64)
    drawn = AliasTable(counts * Subsampling(counts, 1e-3).probability_N)
    model, steps = Embeddings(counts, width, loss=loss, negatives=negatives), count()
    batches = []
    for n in range(8):
        read = np.repeat(drawn.draw(random_bits(0, n), -(-batch // PAIRS_OF_A_WORD)), PAIRS_OF_A_WORD)[:batch]
        batches.append(Batch(read, drawn.draw(random_bits(1, n), batch)))

    def step() -> float:
        n = next(steps)
        with tl.threads():
            return model.step(batches[n % len(batches)], random_bits(2, n), 0.01) / batch

    return Contestant(LIBRARY, {"step": step}, dict[str, Any])
