"""Measures of quality: the loss on reference translations, and the scores of generated translations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

import tensorlib as tl
from models.architectures.transformer import Transformer
from models.decoding.forced import force_decode
from models.text.batching import Example, group_by_length, make_batch

__all__ = ["Scores", "TokenLoss", "exact_match", "scores", "sentence_log_probs", "token_loss", "worst_loss"]


@dataclass(frozen=True)
class TokenLoss:
    """The mean cross-entropy of the reference's tokens, in nats, and the number of these tokens."""

    loss: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(loss): a uniform choice among this many subwords would be equally uncertain."""
        return math.inf if self.loss > 709 else math.exp(self.loss)  # exp(710) is more than a float holds


def token_loss(model: Transformer, examples: Sequence[Example], stop: Callable[[], None] = lambda: None) -> TokenLoss:
    """Return the teacher-forced loss, without label smoothing or dropout; call `stop` before each batch."""
    total, tokens = 0.0, 0
    with model.evaluating(), tl.no_grad():
        for group in group_by_length([len(s) + len(t) for s, t in examples]):
            stop()
            batch = make_batch([examples[i] for i in group])
            loss = model.loss(batch.source_BS, batch.target_in_BT, batch.target_out_BT, reduction="sum")
            total, tokens = total + float(loss.item()), tokens + batch.tokens
    return TokenLoss(total / max(tokens, 1), tokens)


def worst_loss(vocabulary: int) -> float:
    """Return the loss above which a model has diverged: the square of a uniform guess's perplexity.

    A uniform guess among all subwords has the loss log(vocabulary). A model with random weights has about that too, so
    a loss of twice as much says that training did harm.
    """
    return 2 * math.log(max(vocabulary, 2))


def sentence_log_probs(model: Transformer, examples: Sequence[Example]) -> list[float]:
    """Return log P(target | source) of each example: the sum over the target's tokens and </s>."""
    found = [0.0] * len(examples)
    for group in group_by_length([len(s) + len(t) for s, t in examples]):
        sources, targets = zip(*[examples[i] for i in group], strict=True)
        for i, forced in zip(group, force_decode(model, sources, targets), strict=True):
            found[i] = forced.log_prob
    return found


def exact_match(outputs: Sequence[str], references: Sequence[str]) -> float:
    """Return the fraction of outputs that equal their references, character for character."""
    return float(np.mean([o == r for o, r in zip(outputs, references, strict=True)])) if references else 0.0


@dataclass(frozen=True)
class Scores:
    """BLEU and chrF of a corpus, each with sacrebleu's signature, which makes the scores comparable."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str


def scores(outputs: Sequence[str], references: Sequence[str], tokenize: str = "13a") -> Scores:
    """Score a corpus with sacrebleu. `tokenize` tells BLEU how to find words; use "none" if spaces separate them."""
    from sacrebleu.metrics import BLEU, CHRF

    bleu = BLEU(tokenize=tokenize, force=True)  # force: no warning about tokenized text; "none" is deliberate
    chrf = CHRF()
    bleu_score = bleu.corpus_score(list(outputs), [list(references)])
    chrf_score = chrf.corpus_score(list(outputs), [list(references)])
    return Scores(bleu_score.score, str(bleu.get_signature()), chrf_score.score, str(chrf.get_signature()))
