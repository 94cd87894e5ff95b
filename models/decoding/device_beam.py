"""Beam search whose steps stay on a device; see `on_device`. It finds what `beam.beam_search` finds.

The device keeps the beams, and for each step what was added to each slot. From these the host makes the hypotheses at
the end.

Shape suffixes: B sources, N slots of the beam, R = B N rows, V vocabulary, C candidates for the next token of a row,
X = N C, L positions there is room for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import tensorlib as tl
from models.decoding.history import History
from models.decoding.hypothesis import Hypothesis, length_penalty
from models.decoding.on_device import DeviceSearch, searching
from models.text.tokens import EOS
from tensorlib.ops.next_position import largest_and_total

__all__ = ["beam_search_on_device"]


class BeamSearch(DeviceSearch):
    """The beams of all sources; `n_best` and whether the length penalty favors length decide when a source is done."""

    def __init__(self, decoder: Any, n_best: int, favors_length: bool) -> None:
        super().__init__(decoder)
        xp, shape = self.xp, (decoder.sources, decoder.beam)
        self.favors_length = favors_length
        self.row_R: Any = xp.zeros(shape[0] * shape[1], "int64")  # the row whose target each row continues
        self.first_B1: Any = xp.arange(shape[0])[:, None] * shape[1]  # the first row of each source
        self.log_prob: Any = xp.zeros(shape, "float64")
        self.found: Any = xp.zeros((shape[0], 1), "int64")  # how many targets have ended
        self.best: Any = xp.zeros((shape[0], n_best), "float64")  # the best scores of those
        self.penalty: Any = xp.zeros(decoder.room + 2, "float64")  # by the length of a target
        history = decoder.room, *shape
        self.before: Any = xp.zeros(history, "int64")
        self.tokens: Any = xp.zeros(history, "int64")
        self.log_probs: Any = xp.zeros(history, "float64")
        self.closed: Any = xp.zeros(history, bool)

    def begin(self, source_BS: Any, limit_B1: Any, least_1: Any, *more: Any) -> None:
        """Read the sources; `more` holds the penalties of all lengths."""
        super().begin(source_BS, limit_B1, least_1)
        self.penalty[...] = more[0]
        self.row_R[...] = self.xp.arange(len(self.row_R))
        self.best.fill(-math.inf)
        for array in (self.log_prob, self.found):
            array.fill(0)

    def step(self) -> None:
        """Put the best continuations of each source into its free slots, and note those that have ended."""
        xp, decoder, written = self.xp, self.decoder, self.decoder.position.copy()
        (sources, beam), length = self.open.shape, written + 1
        decoder.reorder(self.row_R)
        ids_BX, log_probs_BX = self._candidates(decoder.next_logits(self.ids), written)
        best_BN, slot_BN, ids_BN, log_probs_BN = self._selected(ids_BX, log_probs_BX)
        chosen_BN = (xp.arange(beam) < beam - self.found) & (best_BN > -math.inf)
        closed_BN = chosen_BN & ((ids_BN == EOS) | (length >= self.limit))
        row_BN = self.first_B1 + slot_BN
        entries = ((self.before, row_BN), (self.tokens, ids_BN), (self.log_probs, log_probs_BN))
        for array, new in (*entries, (self.closed, closed_BN)):
            array[written] = new.reshape(1, sources, beam)
        own_BN = self.first_B1 + xp.arange(beam)
        self.row_R[...] = xp.where(chosen_BN, row_BN, own_BN).reshape(-1)
        self.ids[...] = ids_BN
        self.log_prob[...] = best_BN
        self.found[...] = self.found + closed_BN.sum(axis=1, keepdims=True)
        scores_BN = xp.where(closed_BN, best_BN / self.penalty[length], -math.inf)
        self.best[...] = self._top(xp.concatenate([self.best, scores_BN], axis=1), self.best.shape[1])[0]
        open_BN = chosen_BN & ~closed_BN
        self.open[...] = open_BN & self._may_win(open_BN, length)

    def _candidates(self, logits_RV: tl.Tensor, written: Any) -> tuple[Any, Any]:
        """Return the likeliest tokens of each source's rows, and their log-probabilities, in float64."""
        xp, (sources, beam) = self.xp, self.open.shape
        # One more than the beam, because </s> may be among them and may not come yet.
        count = min(beam + 1, logits_RV.shape[1])
        found: Any = largest_and_total(logits_RV.data, count)
        best_RC, ids_RC, total_R = found
        log_probs_RC = xp.minimum(best_RC.astype("float64") - total_R.astype("float64")[:, None], 0)
        log_probs_RC = xp.where((ids_RC == EOS) & (written < self.least), -math.inf, log_probs_RC)
        usable_R = xp.isfinite(log_probs_RC).any(axis=1)
        self.note_spoilt(usable_R.reshape(sources, beam))
        log_probs_RC = xp.where(usable_R[:, None], log_probs_RC, -math.inf)  # a NaN would come first
        return ids_RC.reshape(sources, -1), log_probs_RC.reshape(sources, -1)

    def _selected(self, ids_BX: Any, log_probs_BX: Any) -> tuple[Any, Any, Any, Any]:
        """Return the sums of the best continuations (B, N), the slots they continue, their tokens, log P of these."""
        xp, (sources, beam) = self.xp, self.open.shape
        begun_BN = xp.where(self.open, self.log_prob, -math.inf)
        candidates = ids_BX.shape[1] // beam
        total_BX = (begun_BN[:, :, None] + log_probs_BX.reshape(sources, beam, candidates)).reshape(sources, -1)
        best_BN, index_BN = self._top(total_BX, beam)
        ids_BN, log_probs_BN = (xp.take_along_axis(x, index_BN, axis=1) for x in (ids_BX, log_probs_BX))
        return best_BN, index_BN // candidates, ids_BN, log_probs_BN

    def _top(self, values_BX: Any, count: int) -> tuple[Any, Any]:
        """Return the largest values of each row, of equal ones the first, and their columns."""
        best, columns, _ = largest_and_total(values_BX, count)
        return best, columns

    def _may_win(self, open_BN: Any, length: Any) -> Any:
        """Return for each source (B, 1) whether an open target can still reach the n best, as in `beam.Beams`."""
        xp = self.xp
        best_B1 = xp.where(open_BN, self.log_prob, -math.inf).max(axis=1, keepdims=True)
        bound_B1 = self.limit if self.favors_length else xp.minimum(xp.maximum(length, self.least) + 1, self.limit)
        to_beat_B1 = self.best.min(axis=1, keepdims=True)  # -inf until so many have ended
        return (best_B1 > -math.inf) & (best_B1 / self.penalty[bound_B1] > to_beat_B1)

    def hypotheses(self, steps: int, count: int, alpha: float) -> list[list[Hypothesis]]:
        """Return the targets of the first `count` sources that have ended, in the order in which they were found."""
        arrays = (self.before, self.tokens, self.log_probs, self.closed)
        before, tokens, log_probs, closed = (self.backend.to_numpy(array)[:steps] for array in arrays)
        found: list[list[Hypothesis]] = [[] for _ in range(count)]
        history = History()
        for t in range(steps):
            nodes_BN = history.add(before[t], tokens[t], log_probs[t])
            sources = np.nonzero(closed[t])[0].tolist()
            for b, ids, own in zip(sources, *history.targets(nodes_BN[closed[t]]), strict=True):
                found[b].append(Hypothesis.from_ids(ids, own, alpha))
        return found


def beam_search_on_device(
    decoder: Any,
    sources: Sequence[Sequence[int]],
    limit_B: np.ndarray,
    alpha: float,
    n_best: int,
    min_length: int,
) -> list[list[Hypothesis]]:
    """Return the targets that have ended of each source, in the order in which they were found."""
    key = "beam", n_best, alpha >= 0
    penalties = np.array([length_penalty(length, alpha) for length in range(decoder.room + 2)])
    with searching(decoder):
        search = decoder.searches.get(key) or decoder.searches.setdefault(key, BeamSearch(decoder, *key[1:]))
        steps = search.run(sources, limit_B, min_length, penalties)
        found: list[list[Hypothesis]] = search.hypotheses(steps, len(sources), alpha)
    for i in np.flatnonzero(limit_B <= 0):
        found[i].append(Hypothesis.from_ids([], [], alpha))
    return found
