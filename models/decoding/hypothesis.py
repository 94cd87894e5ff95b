"""The result of decoding: a target, its probability under the model, and the score that ranks it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.text.tokens import EOS

__all__ = ["Hypothesis", "default_limit", "length_limits", "length_penalty"]


@dataclass(frozen=True)
class Hypothesis:
    """A decoded target, as token ids."""

    tokens: tuple[int, ...]
    """Ids, without </s>."""
    ended: bool
    """Whether </s> follows; otherwise the target was cut at the maximum length."""
    log_probs: tuple[float, ...]
    """log P(token | source, previous tokens) of each token, and of </s> if it follows."""
    log_prob: float
    """The sum of `log_probs`: log P(Y | X)."""
    score: float
    """log P(Y | X) / lp(|Y|), by which targets are ranked: see `length_penalty`."""

    @classmethod
    def from_ids(cls, ids: Sequence[int], log_probs: Sequence[float], alpha: float) -> Hypothesis:
        """Return the target of `ids`, whose last may be </s>, with its score at length penalty `alpha`."""
        total = 0.0
        for value in log_probs:  # one at a time, as beam search adds them, so that the bits are the same
            total += value
        ended = len(ids) > 0 and ids[-1] == EOS
        score = total / length_penalty(len(ids), alpha)
        return cls(tuple(ids[:-1] if ended else ids), ended, tuple(log_probs), total, score)

    @property
    def written(self) -> tuple[int, ...]:
        """All ids that the model wrote, </s> included: each has a log-probability."""
        return (*self.tokens, EOS)[: len(self.log_probs)]


def length_penalty(length: int, alpha: float) -> float:
    """Return lp(Y) = ((5 + |Y|) / 6)^alpha, the divisor of log P(Y | X) (Wu et al. 2016, equation 14).

    |Y| counts </s>. Every token lowers log P, so short targets win at alpha 0; a larger alpha lessens this advantage.
    """
    return float(((5 + length) / 6) ** alpha)


def default_limit(source: Sequence[int], min_length: int = 0) -> int:
    """Return the default maximum length of a target: more tokens than a translation should need."""
    return max(2 * len(source) + 20, min_length + 1)


def length_limits(
    sources: Sequence[Sequence[int]],
    min_length: int = 0,
    max_length: int | Sequence[int] | None = None,
    longest: int | None = None,
) -> np.ndarray:
    """Return the maximum length of each source's target, in tokens; </s> counts.

    `max_length` is one limit for all sources or one for each; by default it is twice the source's length plus 20, at
    least `min_length` + 1, and at most `longest`, the most tokens that the model can decode. Errors: ValueError for
    impossible lengths.
    """
    if max_length is None:
        defaults = np.array([default_limit(source, min_length) for source in sources], np.int64)
        limit_B = defaults if longest is None else np.minimum(defaults, longest)
    else:
        limit_B = np.broadcast_to(np.asarray(max_length, np.int64), len(sources))
    if longest is not None and limit_B.max(initial=0) > longest:
        raise ValueError(
            f"decoding: max_length must be at most {longest}, the number of the model's positions; got {limit_B.max()}"
        )
    if min_length < 0 or (limit_B < min_length).any():
        raise ValueError(
            "decoding: 0 <= min_length <= max_length is required, got "
            f"min_length {min_length} and max_length {limit_B.min(initial=2**31)}"
        )
    return limit_B
