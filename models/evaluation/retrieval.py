"""How well an encoder finds the translation of a sentence among many.

Shape suffixes: N queries, M candidates, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.architectures.sentence_encoder import SentenceEncoder, Side

__all__ = ["Retrieval", "ranks_of", "retrieval"]

BLOCK = 1 << 22  # scores held at once


@dataclass(frozen=True)
class Retrieval:
    """What was found for N queries."""

    accuracy_1: float  # fraction of the queries whose own translation ranks first
    accuracy_10: float  # among the first ten
    reciprocal_rank: float  # mean of 1 / rank
    candidates: int


def retrieval(
    encoder: SentenceEncoder,
    sources: Sequence[str],
    targets: Sequence[str],
    distractors: Sequence[str] = (),
    side: Side = "source",
) -> Retrieval:
    """Rank, for each source, all targets and distractors by their cosine with it; targets[i] translates sources[i].

    side: the language of the sources. A candidate with the same text as the right one is neither right nor wrong: it
    does not count.

    >>> tokenizer = models.Tokenizer.train([("a b", "b a"), ("c a", "a c")], vocabulary_size=270)
    >>> encoder = models.SentenceEncoder(models.SentenceEncoderConfig(layers=0, width=32), tokenizer)
    >>> retrieval(encoder, ["a b", "c a"], ["b a", "a c"], ["c c"])  # the same subwords, so the same bag
    Retrieval(accuracy_1=1.0, accuracy_10=1.0, reciprocal_rank=1.0, candidates=3)

    Errors: ValueError if there is not one target for each source, or there are none.
    """
    if len(sources) != len(targets) or not sources:
        raise ValueError(
            f"retrieval: one target for each source is required, and at least one; got {len(sources)} sources and "
            f"{len(targets)} targets"
        )
    other: Side = "target" if side == "source" else "source"
    candidates = [*targets, *distractors]
    numbers = {text: i for i, text in enumerate(candidates)}
    same_M = np.array([numbers[text] for text in candidates])
    ranks_N = ranks_of(encoder.embed(sources, side), encoder.embed(candidates, other), same_M)
    return Retrieval(
        accuracy_1=float((ranks_N == 1).mean()),
        accuracy_10=float((ranks_N <= 10).mean()),
        reciprocal_rank=float((1 / ranks_N).mean()),
        candidates=len(candidates),
    )


def ranks_of(
    queries_ND: NDArray[np.floating], candidates_MD: NDArray[np.floating], same_M: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Return the rank of candidate i for query i, counted from 1, by the dot product; M may be larger than N.

    same_M: a number for each candidate; those with the same number as the right one are left out. Of equal scores the
    right one is the last, so an encoder that maps everything to one vector finds nothing. Scores that differ by no more
    than rounding count as equal: a product of matrices rounds equal rows differently.

    >>> ranks_of(np.eye(2), np.array([[1.0, 0.0], [1.0, 0.5], [0.0, 0.9]]), np.arange(3))
    array([1, 2])

    Errors: ValueError for a score that is not finite.
    """
    ranks_N = np.empty(len(queries_ND), np.int64)
    rows = max(1, BLOCK // max(len(candidates_MD), 1))
    rounding = 4 * np.finfo(candidates_MD.dtype).eps * np.sqrt(candidates_MD.shape[1])  # of a product of unit vectors
    for first in range(0, len(queries_ND), rows):
        block = slice(first, first + rows)
        own = np.arange(len(queries_ND))[block]
        scores_NM = queries_ND[block] @ candidates_MD.T
        if not np.isfinite(scores_NM).all():
            raise ValueError("retrieval: finite vectors are required; some are NaN or infinite")
        lengths_N = np.linalg.norm(queries_ND[block], axis=1) * np.linalg.norm(candidates_MD[own], axis=1)
        right_N = scores_NM[np.arange(len(own)), own] - rounding * lengths_N
        ahead_NM = (scores_NM >= right_N[:, None]) & (same_M != same_M[own, None])
        ranks_N[block] = 1 + ahead_NM.sum(axis=1)
    return ranks_N
