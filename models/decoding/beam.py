"""Beam search: at each step, only the few likeliest unfinished targets of a sentence are continued.

Shape suffixes: B sentences still open, N slots of the beam, R rows of the model's batch (open targets of all
sentences), V vocabulary, C candidates for the next token of a row, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

import tensorlib as tl
from models.decoding import token_by_token
from models.decoding.checks import next_logits, require_finite
from models.decoding.device_beam import beam_search_on_device
from models.decoding.history import History
from models.decoding.hypothesis import Hypothesis
from models.decoding.hypothesis import length_penalty as penalty
from models.decoding.on_device import fixed_decoder
from models.decoding.protocols import State, SteppingModel
from models.decoding.settings import DEFAULT_BEAM, DEFAULT_LENGTH_PENALTY
from models.text.tokens import BOS, EOS
from tensorlib.ops.next_position import largest_and_total

__all__ = ["beam_search"]


def beam_search(
    model: SteppingModel[State],
    sources: Sequence[Sequence[int]],
    beam: int = DEFAULT_BEAM,
    length_penalty: float = DEFAULT_LENGTH_PENALTY,
    n_best: int = 1,
    min_length: int = 0,
    max_length: int | Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Return the `n_best` targets found for each source (ids ending in </s>), largest score first.

    Each step extends every open target of a sentence by every token and keeps the `beam` likeliest results; a target
    that ends keeps its slot, so fewer stay open (Bahdanau et al. 2015). Targets still open at the maximum length are
    cut there and compete with the ended ones. Targets are ranked by log P(Y | X) / lp(|Y|), where lp is equation 14 of
    Wu et al. 2016 with alpha = `length_penalty`; of equal scores, the first found wins. A beam of 1 decodes as `greedy`
    does; a beam as wide as the number of possible targets finds the best of all targets.

    A sentence stops early only if no open target can still reach the n best. </s> cannot come before `min_length`
    tokens; `max_length` is as in `greedy`. All sources are decoded in one batch, so they should be of similar length.

    Targets are compared by their ids: two of the n best may be the same text in different subwords.

    Errors: ValueError unless 1 <= n_best <= beam, and for impossible lengths; FloatingPointError for logits that are
    NaN or infinite.

    >>> config = models.TransformerConfig(9, 9, layers=1, width=8, heads=2, feed_forward=16)
    >>> model = models.Transformer(config)
    >>> ((best, second),) = models.beam_search(model, [[5, 6, 3]], beam=4, n_best=2, max_length=8)
    >>> best.score >= second.score and best.tokens != second.tokens
    True
    >>> bool(np.isclose(best.log_prob, sum(best.log_probs)))
    True
    """
    if not 1 <= n_best <= beam:
        raise ValueError(f"beam_search: 1 <= n_best <= beam is required, got n_best {n_best} and beam {beam}")
    if not math.isfinite(length_penalty):
        raise ValueError(f"beam_search: a finite length_penalty is required, got {length_penalty}")
    limit_B = token_by_token.limits(model, sources, min_length, max_length)
    with model.evaluating(), tl.no_grad():
        if (decoder := fixed_decoder(model, sources, limit_B, beam)) is not None:
            targets = beam_search_on_device(decoder, sources, limit_B, length_penalty, n_best, min_length)
            return [sorted(found, key=lambda h: -h.score)[:n_best] for found in targets]
    beams = Beams(limit_B, beam, length_penalty, n_best, min_length)
    if beams.open_BN.any():
        with model.evaluating(), tl.no_grad(), tl.threads(), np.errstate(all="ignore"):  # what overflows raises below
            state = token_by_token.initial_state(model, sources)
            while beams.open_BN.any():
                ids_R, rows_R = beams.next_rows(token_by_token.drop_at(state))
                logits_RV, state = next_logits(model, ids_R, state.select(rows_R))
                beams.extend(*likeliest(logits_RV, beam, may_end=beams.length >= min_length))
    return [sorted(found, key=lambda h: -h.score)[:n_best] for found in beams.found]


def likeliest(logits_RV: tl.Tensor, count: int, may_end: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return the `count` likeliest tokens of each row and their log-probabilities, each (R, C), on the host.

    Only these and one sum per row leave the device. If </s> may not come, its log-probability is -inf, and one more
    token is returned.
    """
    found = largest_and_total(logits_RV.data, min(count + (not may_end), logits_RV.shape[-1]))
    best_RC, ids_RC, total_R = (logits_RV.backend.to_numpy(array) for array in found)
    # Rounding must not let a token raise log P.
    log_probs_RC = np.minimum(best_RC - total_R.astype(np.float64)[:, None], 0)
    return ids_RC, log_probs_RC if may_end else np.where(ids_RC == EOS, -math.inf, log_probs_RC)


class Beams:
    """The beams of all sentences: arrays with a row for each sentence and a column (slot) for each target.

    A slot that has closed keeps its row of the model's batch for a while if moving all other rows together would cost
    more than computing a row that is not needed: see `next_rows`.
    """

    def __init__(self, limit_B: np.ndarray, beam: int, alpha: float, n_best: int, min_length: int) -> None:
        sentences = len(limit_B)
        self.alpha, self.n_best, self.min_length = alpha, n_best, min_length
        self.found: list[list[Hypothesis]] = [[] for _ in range(sentences)]  # for each sentence, in order of discovery
        for i in np.flatnonzero(limit_B <= 0):
            self.found[i].append(Hypothesis.from_ids([], [], alpha))
        self.history = History()
        self.sentence_B, self.limit_B = np.arange(sentences), limit_B
        self.open_BN = np.zeros((sentences, beam), bool)
        self.open_BN[:, 0] = limit_B > 0
        self.row_BN = np.full((sentences, beam), -1)  # the row of the model's state that a slot continues; -1: none
        self.row_BN[:, 0] = np.arange(sentences)
        self.node_BN = np.zeros((sentences, beam), np.int64)  # the last token of a slot's target, in the history
        self.log_prob_BN = np.zeros((sentences, beam))  # the sum over all tokens

    @property
    def length(self) -> int:
        """Number of tokens in every open target."""
        return len(self.history)

    def next_rows(self, drop_at: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the last token of each row of the next step, and the row of the state that it continues.

        Rows of closed slots are dropped once they are the fraction `drop_at` of all rows.
        """
        kept_BN = self.row_BN >= 0
        if not self.open_BN[kept_BN].all() and np.mean(self.open_BN[kept_BN]) <= 1 - drop_at:
            self._keep_sentences(np.any(self.open_BN, axis=1))
            kept_BN = self.open_BN
        rows_R = self.row_BN[kept_BN]
        ids_R = self.history.tokens[-1][self.node_BN[kept_BN]] if self.length else np.full(len(rows_R), BOS)
        self.row_BN = np.where(kept_BN, np.cumsum(kept_BN).reshape(kept_BN.shape) - 1, -1)
        return ids_R, rows_R

    def _keep_sentences(self, open_B: np.ndarray) -> None:
        for name, array in vars(self).items():
            if isinstance(array, np.ndarray):
                setattr(self, name, array[open_B])

    def extend(self, ids_RC: np.ndarray, log_probs_RC: np.ndarray) -> None:
        """Put the best continuations of each sentence into its free slots, and record those that have ended."""
        (sentences, beam), candidates = self.open_BN.shape, ids_RC.shape[1]
        finite_R = np.isfinite(log_probs_RC).any(axis=1)
        if not finite_R.all():
            finite_BN = finite_R[self.row_BN]
            require_finite(finite_BN[self.open_BN], np.repeat(self.sentence_B, beam)[self.open_BN.ravel()])
        begun_BN = np.where(self.open_BN, self.log_prob_BN, -math.inf)
        total_BX = (begun_BN[:, :, None] + log_probs_RC[self.row_BN]).reshape(sentences, -1)  # X: N times C
        best_BN = np.argsort(-total_BX, axis=1, kind="stable")[:, :beam]
        parent_BN, candidate_BN = np.divmod(best_BN, candidates)
        b_B1 = np.arange(sentences)[:, None]
        self.log_prob_BN = total_BX[b_B1, best_BN]
        free_B = beam - np.array([len(self.found[i]) for i in self.sentence_B])
        chosen_BN = (np.arange(beam) < free_B[:, None]) & (self.log_prob_BN > -math.inf)

        row_BN = self.row_BN[b_B1, parent_BN]
        ids_BN = ids_RC[row_BN, candidate_BN]
        self.node_BN = self.history.add(self.node_BN[b_B1, parent_BN], ids_BN, log_probs_RC[row_BN, candidate_BN])
        self.row_BN = np.where(chosen_BN, row_BN, self.row_BN)

        closed_BN = chosen_BN & ((ids_BN == EOS) | (self.length >= self.limit_B[:, None]))
        self._record(closed_BN)
        self.open_BN = chosen_BN & ~closed_BN
        self.open_BN &= self._may_win_B()[:, None]

    def _record(self, closed_BN: np.ndarray) -> None:
        sentences = np.broadcast_to(self.sentence_B[:, None], closed_BN.shape)[closed_BN].tolist()
        for i, ids, log_probs in zip(sentences, *self.history.targets(self.node_BN[closed_BN]), strict=True):
            self.found[i].append(Hypothesis.from_ids(ids, log_probs, self.alpha))

    def _may_win_B(self) -> np.ndarray:
        """Return for each sentence whether one of its open targets can still reach the n best.

        Further tokens can only lower log P. So no open target's score can exceed the largest log P so far divided by
        the most favorable lp. This is lp at the maximum length or, if alpha < 0 penalizes length, at the next length at
        which a target may end.
        """
        best_B = np.where(self.open_BN, self.log_prob_BN, -math.inf).max(axis=1)
        may_win_B: np.ndarray = best_B > -math.inf
        for b in np.flatnonzero(may_win_B):
            found, limit = self.found[self.sentence_B[b]], int(self.limit_B[b])
            if len(found) >= self.n_best:
                to_beat = sorted((h.score for h in found), reverse=True)[self.n_best - 1]
                length = limit if self.alpha >= 0 else min(max(self.length, self.min_length) + 1, limit)
                may_win_B[b] = best_B[b] / penalty(length, self.alpha) > to_beat
        return may_win_B
