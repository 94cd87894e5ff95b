"""The probability that a model gives to a target somebody else has written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import tensorlib as tl
from models.decoding.hypothesis import Hypothesis, hypothesis
from models.text.batching import pad
from models.text.tokens import BOS, EOS

__all__ = ["force_decode"]


def force_decode(
    model: Any,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    length_penalty: float = 0.0,
    ended: Sequence[bool] | None = None,
) -> list[Hypothesis]:
    """Return each target (ids without </s>) with log P of each of its tokens and of </s>, in one teacher-forced pass.

    ended: whether </s> is to follow each target; by default it does. A target cut at a limit has none.

    What beam search or `sample` returned gets the probabilities that it has there, but for rounding. All logits of the
    batch are held at once, so give some of like length.
    """
    if not sources:
        return []
    ends = [True] * len(sources) if ended is None else ended
    said = [[*target, EOS] if end else list(target) for target, end in zip(targets, ends, strict=True)]
    said_BT, _ = pad([ids or [EOS] for ids in said])  # of nothing at all a token is computed, and cut off below
    read_BT = np.concatenate([np.full((len(said), 1), BOS), said_BT[:, :-1]], axis=1)
    source_BS, _ = pad(sources)
    with model.evaluating(), tl.no_grad(), tl.threads():
        visible_BS = model.visible(source_BS)
        logits_BTV = model.decode(read_BT, model.encode(source_BS, visible_BS), visible_BS)
        said_BT1 = tl.Tensor(said_BT[:, :, None], backend=logits_BTV.backend)
        chosen_BT = tl.take_along_axis(logits_BTV, said_BT1, -1)[:, :, 0].numpy().astype(np.float64)
        total_BT = tl.logsumexp(logits_BTV, axis=-1).numpy()
    rows = np.minimum(chosen_BT - total_BT, 0).tolist()
    return [hypothesis(ids, row[: len(ids)], length_penalty) for ids, row in zip(said, rows, strict=True)]
