"""What decoding returns: a target with the probability that the model gives it, and the score it is ranked by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.text.tokens import EOS

__all__ = ["Hypothesis", "default_limit", "hypothesis", "length_limits", "length_penalty"]


@dataclass(frozen=True)
class Hypothesis:
    """A target as a model sees it."""

    tokens: tuple[int, ...]
    """Ids, without </s>."""
    ended: bool
    """Whether </s> follows; otherwise the target was cut at the greatest length."""
    log_probs: tuple[float, ...]
    """log P(token | source, tokens before it) of each token, and of </s> if it ended."""
    log_prob: float
    """Their sum, log P(Y | X)."""
    score: float
    """log P(Y | X) / lp(|Y|), by which targets are ranked: see `length_penalty`."""

    @property
    def written(self) -> tuple[int, ...]:
        """All ids that the model wrote, </s> among them: of each there is a log-probability."""
        return (*self.tokens, EOS)[: len(self.log_probs)]


def hypothesis(ids: Sequence[int], log_probs: Sequence[float], alpha: float) -> Hypothesis:
    """Return the target of these ids, </s> included if it ended, with its score at length penalty `alpha`."""
    total = 0.0
    for value in log_probs:  # one after the other, as beam search adds them, so that the bits are the same
        total += value
    ended = len(ids) > 0 and ids[-1] == EOS
    score = total / length_penalty(len(ids), alpha)
    return Hypothesis(tuple(ids[:-1] if ended else ids), ended, tuple(log_probs), total, score)


def length_penalty(length: int, alpha: float) -> float:
    """Return lp(Y) = ((5 + |Y|) / 6)^alpha, by which log P(Y | X) is divided (Wu et al. 2016, equation 14).

    |Y| counts </s>. Every token lowers log P, so at alpha 0 short targets win; the larger alpha, the less a long one
    loses by its length.
    """
    return float(((5 + length) / 6) ** alpha)


def default_limit(source: Sequence[int], min_length: int = 0) -> int:
    """Return how many tokens a target may have where nothing else is said: more than a translation should need."""
    return max(2 * len(source) + 20, min_length + 1)


def length_limits(
    sources: Sequence[Sequence[int]], min_length: int = 0, max_length: int | Sequence[int] | None = None
) -> np.ndarray:
    """Return how many tokens the target of each source may have, </s> included where it comes in time.

    `max_length` is one for all or one each; by default twice the source's length plus 20, and room for `min_length`
    tokens and </s>. Errors: ValueError for lengths that cannot be.
    """
    if max_length is None:
        most_B = np.array([default_limit(source, min_length) for source in sources], np.int64)
    else:
        most_B = np.broadcast_to(np.asarray(max_length, np.int64), len(sources))
    if min_length < 0 or (most_B < min_length).any():
        raise ValueError(
            f"decoding: 0 <= min_length <= max_length is required, got {min_length} and {most_B.min(initial=2**31)}"
        )
    return most_B
