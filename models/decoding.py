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


def greedy(model: Any, sources: Sequence[Sequence[int]], max_length: int | None = None) -> list[list[int]]:
    """Return for each source (ids ending in </s>) the target built by always taking the likeliest next token.

    Stops a sentence at </s>, or at `max_length` tokens (default: twice the source's length plus 20). All sentences are
    decoded together; one that has ended leaves the batch. The model is used in evaluation mode and left in its own.
    """
    if not sources:
        return []
    limits = [2 * len(s) + 20 if max_length is None else max_length for s in sources]
    with model.evaluating(), tl.no_grad():
        return _greedy(model, sources, np.array(limits))


def _greedy(model: Any, sources: Sequence[Sequence[int]], limits: np.ndarray) -> list[list[int]]:
    source_BS, _ = pad(sources)
    visible_BS = model.visible(source_BS)
    state = model.start(model.encode(source_BS, visible_BS), visible_BS)

    targets: list[list[int]] = [[] for _ in sources]
    open_B = np.flatnonzero(limits > 0)  # which sentence each row of the batch is
    state = state.select(open_B) if len(open_B) < len(sources) else state
    ids_B = np.full(len(open_B), BOS)
    while len(open_B):
        logits_BV, state = model.decode_step(ids_B, state)
        ids_B = logits_BV.argmax(axis=-1).numpy()
        for i, token in zip(open_B, ids_B, strict=True):
            if token != EOS:
                targets[i].append(int(token))
        going_B = (ids_B != EOS) & (np.array([len(targets[i]) for i in open_B]) < limits[open_B])
        if not going_B.all():
            open_B, ids_B, state = open_B[going_B], ids_B[going_B], state.select(going_B)
    return targets
