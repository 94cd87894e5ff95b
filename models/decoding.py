"""Turning a model's logits into sentences, over encode() and decode_step() alone, for every model that has them.

Shape suffixes: B sentences still open, S source length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import tensorlib as tl
from models.batching import pad
from models.tokens import BOS, EOS

__all__ = ["greedy"]

ENDED = 0.25  # the part of a batch that has ended when it is worth copying what is remembered of the others


def greedy(model: Any, sources: Sequence[Sequence[int]], max_length: int | None = None) -> list[list[int]]:
    """Return for each source (ids ending in </s>) the target built by always taking the likeliest next token.

    Stops a sentence at </s>, or at `max_length` tokens (default: twice the source's length plus 20). All sentences are
    decoded together, so give some of like length; those that have ended leave the batch when they are many enough. The
    model is used in evaluation mode and left in its own.
    """
    if not sources:
        return []
    limits = [2 * len(s) + 20 if max_length is None else max_length for s in sources]
    with model.evaluating(), tl.no_grad(), tl.threads():
        return _greedy(model, sources, np.array(limits))


def _greedy(model: Any, sources: Sequence[Sequence[int]], limits: np.ndarray) -> list[list[int]]:
    source_BS, _ = pad(sources)
    visible_BS = model.visible(source_BS)
    state = model.start(model.encode(source_BS, visible_BS), visible_BS)

    targets: list[list[int]] = [[] for _ in sources]
    sentence_B = np.arange(len(sources))  # which sentence each row of the batch is
    open_B = limits > 0  # which of them go on; the others' rows are computed, but not looked at
    ids_B = np.full(len(sources), BOS)
    while open_B.any():
        if np.mean(~open_B) >= ENDED:
            sentence_B, ids_B, state = sentence_B[open_B], ids_B[open_B], state.select(open_B)
            open_B = open_B[open_B]
        logits_BV, state = model.decode_step(ids_B, state)
        ids_B = logits_BV.argmax(axis=-1).numpy()
        open_B = open_B & (ids_B != EOS)
        for i, token in zip(sentence_B[open_B].tolist(), ids_B[open_B].tolist(), strict=True):
            targets[i].append(token)
        open_B &= state.length < limits[sentence_B]
    return targets
