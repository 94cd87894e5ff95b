"""Greedy decoding and sampling: each step extends every target by its likeliest token, or by a token that is drawn.

Both work with every model that satisfies `protocols.SteppingModel`. `beam.py` keeps several targets of a sentence open.

Shape suffixes: B sentences in the batch, S source length, T steps, V vocabulary, C candidates for the next token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tensorlib as tl
from models.decoding.checks import next_logits, require_finite, require_ids, require_methods
from models.decoding.hypothesis import Hypothesis, length_limits
from models.decoding.on_device import fixed_decoder, greedy_on_device
from models.decoding.protocols import STEPPING, State, SteppingModel, longest_target
from models.text.batching import pad
from models.text.random_bits import unit_interval
from models.text.tokens import BOS, EOS

__all__ = ["Draw", "greedy", "initial_state", "limits", "numbers_of", "sample"]

ENDED = 0.25  # once this fraction of a batch has ended, copying the state of the others pays off
NUCLEUS = 256  # number of candidates examined first; their probabilities nearly always sum to at least top_p

Draw = tuple[int, int]  # (key, draw), as returned by tl.Generator.next_draw
# (logits_BV, sentence_B, length) -> (ids_B, a number for each row, which is finite only if the row's logits are usable)
Choose = Callable[[tl.Tensor, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def greedy(
    model: SteppingModel[State],
    sources: Sequence[Sequence[int]],
    max_length: int | Sequence[int] | None = None,
    min_length: int = 0,
) -> list[list[int]]:
    """Return a target (ids without </s>) for each source (ids ending in </s>): always the likeliest next token.

    A target ends at </s>, which cannot come before `min_length` tokens, or at `max_length` tokens (one limit for all or
    one for each; default: twice the source's length plus 20, but no more than the model has learned positions). All
    sources are decoded in one batch, so they should be of similar length; ended sentences are dropped once they are a
    quarter of the batch. The model is used in evaluation mode, and its mode is restored afterwards.

    Errors: ValueError for impossible lengths; FloatingPointError for logits that are NaN or infinite.

    >>> config = models.TransformerConfig(9, 9, layers=1, width=8, heads=2, feed_forward=16, dropout=0.0)
    >>> model = models.Transformer(config)
    >>> sources = [[5, 6, 3], [7, 3]]
    >>> targets = models.greedy(model, sources, max_length=3, min_length=3)
    >>> logits_BTV = model(sources[:1], [[2, *targets[0][:2]]]).numpy()
    >>> logits_V = np.where(np.arange(9) == 3, -np.inf, logits_BTV[0, -1])  # </s>, id 3, may not come yet
    >>> int(logits_V.argmax()) == targets[0][2]
    True
    """

    def choose(logits_BV: tl.Tensor, sentence_B: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        best_B = logits_BV.argmax(axis=-1)  # of a NaN, if there is one
        largest_B = tl.take_along_axis(logits_BV, best_B[:, None], 1)[:, 0].numpy()
        if length >= min_length:
            return best_B.numpy(), largest_B
        best_B2 = tl.topk(logits_BV, 2)[1].numpy()
        return np.where(best_B2[:, 0] == EOS, best_B2[:, 1], best_B2[:, 0]), largest_B

    limit_B = limits(model, sources, min_length, max_length)
    with model.evaluating(), tl.no_grad():
        if (decoder := fixed_decoder(model, sources, limit_B, beam=1)) is not None:
            return greedy_on_device(decoder, sources, limit_B, min_length)
    targets = decode_loop(model, sources, limit_B, choose)
    return [ids[:-1] if ids and ids[-1] == EOS else ids for ids in targets]


def sample(
    model: SteppingModel[State],
    sources: Sequence[Sequence[int]],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_length: int = 0,
    max_length: int | Sequence[int] | None = None,
    draws: Sequence[Draw] | None = None,
    length_penalty: float = 0.0,
) -> list[Hypothesis]:
    """Return a target for each source, drawn token by token from softmax(logits / temperature).

    top_k: draw only from the k likeliest tokens (Fan et al. 2018); 0 means all tokens.
    top_p: of these, draw only from the fewest that together have at least this probability (Holtzman et al. 2020).
    draws: for each sentence, the draw that gives its random numbers, one per step, so that its target does not depend
        on the rest of the batch. The default is the next draws of the default generator.

    Lengths are as in `greedy`. The probabilities in the result are the model's, before temperature and truncation, so
    they are comparable with those of other decoding methods. Errors: ValueError for impossible settings, and those of
    `greedy`.
    """
    if not (0 < temperature < math.inf and top_k >= 0 and 0 < top_p <= 1):
        raise ValueError(
            "sample: a finite temperature > 0, top_k >= 0 and 0 < top_p <= 1 are required; "
            f"got {temperature}, {top_k} and {top_p}"
        )
    limit_B = limits(model, sources, min_length, max_length)
    draws = [tl.default_generator().next_draw() for _ in sources] if draws is None else draws
    uniform_BT = [numbers_of(draw, limit) for draw, limit in zip(draws, limit_B.tolist(), strict=True)]
    log_probs: list[list[float]] = [[] for _ in sources]

    def choose(logits_BV: tl.Tensor, sentence_B: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        ids_BC, probs_BC = candidates(logits_BV, temperature, top_k, top_p, may_end=length >= min_length)
        uniform_B = np.array([uniform_BT[i][length] if length < limit_B[i] else 0.0 for i in sentence_B])
        ids_B = _drawn(ids_BC, probs_BC, uniform_B)
        column_B1 = tl.Tensor(ids_B[:, None], backend=logits_BV.backend)
        log_probs_B = tl.take_along_axis(logits_BV, column_B1, 1)[:, 0] - tl.logsumexp(logits_BV, axis=-1)
        own_B = np.minimum(log_probs_B.numpy(), 0)  # rounding must not make a probability more than 1
        for i, log_prob in zip(sentence_B.tolist(), own_B.tolist(), strict=True):
            log_probs[i].append(log_prob)
        return ids_B, own_B

    targets = decode_loop(model, sources, limit_B, choose)
    # Ended sentences may stay in the batch for a while; the log-probabilities computed after the end are dropped.
    return [
        Hypothesis.from_ids(ids, own[: len(ids)], length_penalty) for ids, own in zip(targets, log_probs, strict=True)
    ]


def candidates(
    logits_BV: tl.Tensor, temperature: float, top_k: int, top_p: float, may_end: bool = True
) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the tokens that may be drawn (None for all) and their probabilities, each (B, C), on the host.

    Tokens of probability 0 are never drawn. If equally likely tokens do not all fit, the first are kept.
    """
    if not may_end:
        is_end_V = tl.Tensor(np.arange(logits_BV.shape[-1]) == EOS, backend=logits_BV.backend)
        logits_BV = tl.where(is_end_V, -math.inf, logits_BV)
    # Shift first, because a very small temperature would turn unshifted logits into infinities, whose softmax is NaN.
    scaled_BV = (logits_BV - logits_BV.max(axis=-1, keepdims=True)).astype("float64") / temperature
    size = scaled_BV.shape[-1]
    if top_p == 1 and not 0 < top_k < size:
        return None, tl.softmax(scaled_BV).numpy()
    count = min(top_k or NUCLEUS, size)
    best_BC, ids_BC = (x.numpy() for x in tl.topk(scaled_BV, count))
    total_B1 = np.exp(best_BC).sum(-1, keepdims=True) if top_k else tl.exp(scaled_BV).sum(-1, keepdims=True).numpy()
    if not top_k and (np.exp(best_BC).sum(-1, keepdims=True) < top_p * total_B1).any():
        best_BC, ids_BC = (x.numpy() for x in tl.topk(scaled_BV, size))  # these were too few for top_p
    probs_BC = np.exp(best_BC) / total_B1
    before_BC = np.cumsum(probs_BC, axis=-1) - probs_BC  # sum over the likelier tokens
    probs_BC = np.where(before_BC < top_p, probs_BC, 0)
    return ids_BC, probs_BC / probs_BC.sum(axis=-1, keepdims=True)


def _drawn(ids_BC: np.ndarray | None, probs_BC: np.ndarray, uniform_B: np.ndarray) -> np.ndarray:
    """Return one token for each row: the inverse of its cumulative distribution at a number in [0, 1)."""
    up_to_BC = np.cumsum(probs_BC, axis=-1)
    # Find the first column whose cumulative sum exceeds the number. Its probability is not 0, because otherwise the
    # previous sum would exceed the number too. Rounding leaves the last sum slightly off 1, so the number is scaled by
    # the last sum, which then always exceeds it.
    column_B = (up_to_BC > uniform_B[:, None] * up_to_BC[:, -1:]).argmax(axis=-1)
    return column_B if ids_BC is None else np.take_along_axis(ids_BC, column_B[:, None], axis=-1)[:, 0]


def numbers_of(draw: Draw, count: int) -> np.ndarray:
    """Return a draw's first `count` numbers, uniform in [0, 1); a larger `count` only appends more."""
    bits = tl.get_backend("numpy").random_bits(*draw, count, "uint64")
    return unit_interval(bits)


def limits(
    model: SteppingModel[State],
    sources: Sequence[Sequence[int]],
    min_length: int,
    max_length: int | Sequence[int] | None,
) -> np.ndarray:
    """Return the maximum length of each source's target, after checking the model and the sources."""
    require_methods(model, STEPPING)
    require_ids(sources)
    return length_limits(sources, min_length, max_length, longest_target(model))


def decode_loop(
    model: SteppingModel[State], sources: Sequence[Sequence[int]], limit_B: np.ndarray, choose: Choose
) -> list[list[int]]:
    """Return the targets, </s> included; `choose(logits_BV, sentence_B, length)` selects every next token.

    Errors: FloatingPointError for logits that are not usable.
    """
    targets: list[list[int]] = [[] for _ in sources]
    sentence_B = np.arange(len(sources))  # the sentence of each row of the batch
    open_B = limit_B > 0  # the rows that have not ended; other rows are computed, but ignored
    ids_B = np.full(len(sources), BOS)
    if not open_B.any():
        return targets
    with model.evaluating(), tl.no_grad(), tl.threads(), np.errstate(all="ignore"):  # what overflows raises below
        state, length = initial_state(model, sources), 0
        while open_B.any():
            if not open_B.all() and np.mean(~open_B) >= drop_at(state):
                sentence_B, ids_B, state = sentence_B[open_B], ids_B[open_B], state.select(open_B)
                open_B = open_B[open_B]
            logits_BV, state = next_logits(model, ids_B, state)
            ids_B, certain_B = choose(logits_BV, sentence_B, length)
            require_finite(np.isfinite(certain_B[open_B]), sentence_B[open_B])
            length += 1
            for i, token in zip(sentence_B[open_B].tolist(), ids_B[open_B].tolist(), strict=True):
                targets[i].append(token)
            open_B = open_B & (ids_B != EOS) & (length < limit_B[sentence_B])
    return targets


def drop_at(state: Any) -> float:
    """Return the fraction of a batch that must have ended before dropping it pays off; see `StepState`."""
    return 0.0 if getattr(state, "selects_by_index", False) else ENDED


def initial_state(model: SteppingModel[State], sources: Sequence[Sequence[int]]) -> State:
    """Return the model's state before the first token of each source's target."""
    source_BS, _ = pad(sources)
    visible_BS = model.visible(source_BS)
    return model.start(model.encode(source_BS, visible_BS), visible_BS)
