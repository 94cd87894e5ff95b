"""Decoding by the method that the settings select."""

from __future__ import annotations

from collections.abc import Sequence

from models.decoding.beam import beam_search
from models.decoding.hypothesis import Hypothesis
from models.decoding.protocols import State, SteppingModel
from models.decoding.settings import Search
from models.decoding.token_by_token import Draw, sample

__all__ = ["decode"]


def decode(
    model: SteppingModel[State],
    sources: Sequence[Sequence[int]],
    search: Search,
    limits: Sequence[int],
    draws: Sequence[Draw],
) -> list[list[Hypothesis]]:
    """Return the targets of each source, best first; `limits` and `draws` have one entry for each source."""
    if not search.sample:
        return beam_search(model, sources, search.rows, search.length_penalty, search.n_best, search.min_length, limits)
    drawn = sample(
        model,
        sources,
        search.effective("temperature"),
        search.effective("top_k"),
        search.effective("top_p"),
        search.min_length,
        limits,
        draws,
        search.length_penalty,
    )
    return [[hypothesis] for hypothesis in drawn]
