"""How good a model is: the loss of true translations, and the scores of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import tensorlib as tl
from models.batching import Example, encode_pairs, make_batch
from models.decoding import greedy
from models.text import Pair, Tokenizer
from models.tokens import EOS, PAD
from models.transformer import Transformer

__all__ = ["Scores", "TokenLoss", "Translator", "exact_match", "pair_loss", "scores"]
__all__ += ["sentence_log_probs", "token_loss"]

POSITIONS = 4096  # sentences are put side by side up to about so many positions, padding included


@dataclass(frozen=True)
class TokenLoss:
    """The mean cross-entropy of a true target token, in nats, over so many tokens."""

    loss: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """Between how many equally likely subwords the model wavers, as it were."""
        return math.exp(min(self.loss, 700.0))


def token_loss(model: Transformer, examples: Sequence[Example], stop: Callable[[], None] = lambda: None) -> TokenLoss:
    """Return the teacher-forced loss, without label smoothing or dropout. `stop` is called between batches."""
    total, tokens = 0.0, 0
    with model.evaluating(), tl.no_grad():
        for group in _groups([len(s) + len(t) for s, t in examples]):
            stop()
            batch = make_batch([examples[i] for i in group])
            loss = model.loss(batch.source_BS, batch.target_in_BT, batch.target_out_BT, reduction="sum")
            total, tokens = total + float(loss.item()), tokens + batch.tokens
    return TokenLoss(total / max(tokens, 1), tokens)


def sentence_log_probs(model: Transformer, examples: Sequence[Example]) -> list[float]:
    """Return log p(target | source) of each example, the sum over its tokens and </s>, all of them forced."""
    found = [0.0] * len(examples)
    with model.evaluating(), tl.no_grad():
        for group in _groups([len(s) + len(t) for s, t in examples]):
            batch = make_batch([examples[i] for i in group])
            logits_BTV = model(batch.source_BS, batch.target_in_BT)
            losses_BT = tl.cross_entropy(logits_BTV, batch.target_out_BT, ignore_index=PAD, reduction="none")
            for i, loss in zip(group, losses_BT.sum(axis=1).numpy().tolist(), strict=True):
                found[i] = -loss
    return found


def pair_loss(model: Transformer, tokenizer: Tokenizer, pairs: Sequence[Pair]) -> tuple[TokenLoss, int]:
    """Return the loss of the pairs that are short enough for the model, and how many are not."""
    examples, dropped = encode_pairs(tokenizer, pairs, max_length=model.config.max_length)
    return token_loss(model, examples), dropped


class Translator:
    """Text to text, greedily. A line gives a line, whatever is in it; a blank one gives an empty one.

    `cut(line)` is called with the line, counted from 0, of a text that is longer than the model reads, and
    `advance(n)` whenever n more are done.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        cut: Callable[[int], None] = lambda line: None,
        advance: Callable[[int], Any] = lambda n: None,
    ) -> None:
        self.model, self.tokenizer, self.cut, self.advance = model, tokenizer, cut, advance

    def translate(self, texts: Sequence[str], first: int = 0, stop: Callable[[], None] = lambda: None) -> list[str]:
        """Return the translation of each text; `first` is the number of the first line, `stop` as in `token_loss`."""
        return [self.tokenizer.decode_target(target) for _, target in self.translate_ids(texts, first, stop)]

    def translate_ids(
        self, texts: Sequence[str], first: int = 0, stop: Callable[[], None] = lambda: None
    ) -> list[tuple[list[int], list[int]]]:
        """Return for each text the ids that the model read and those it wrote, </s> included.

        A target without </s> was broken off at the greatest length; that of a blank text is empty.
        """
        sources = self._encode(texts, first)
        targets: list[list[int]] = [[] for _ in texts]
        busy = [i for i, text in enumerate(texts) if text.strip()]
        for group in _groups([len(sources[i]) for i in busy]):
            stop()
            rows = [busy[i] for i in group]
            limits = [min(2 * len(sources[i]) + 20, self.model.config.max_length - 1) for i in rows]
            found = greedy(self.model, [sources[i] for i in rows], max_length=max(limits))
            for i, target, limit in zip(rows, found, limits, strict=True):
                targets[i] = [*target, EOS][:limit]  # whatever its neighbours' limit was
            self.advance(len(rows))
        return list(zip(sources, targets, strict=True))

    def _encode(self, texts: Sequence[str], first: int) -> list[list[int]]:
        longest = self.model.config.max_length
        # No subword has more than 16 characters. So what is cut off here unread would be cut off below too.
        sources = self.tokenizer.encode_source([text[: 16 * longest] for text in texts])
        for i, ids in enumerate(sources):
            if len(ids) > longest:
                self.cut(first + i)
                sources[i] = [*ids[: longest - 1], EOS]
        return sources


def _groups(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yield the indices of items of like size, longest first, as many as make about `POSITIONS`."""
    group: list[int] = []
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        if group and (len(group) + 1) * sizes[group[0]] > POSITIONS:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def exact_match(outputs: Sequence[str], references: Sequence[str]) -> float:
    """Return the part of the outputs that equal their reference, character for character."""
    return float(np.mean([o == r for o, r in zip(outputs, references, strict=True)])) if references else 0.0


@dataclass(frozen=True)
class Scores:
    """BLEU and chrF of a corpus, each with sacrebleu's signature: what was done, so that others can compare."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str


def scores(outputs: Sequence[str], references: Sequence[str], tokenize: str = "13a") -> Scores:
    """Score a corpus with sacrebleu; `tokenize` is how BLEU finds words: "none" where spaces already part them."""
    from sacrebleu.metrics import BLEU, CHRF

    bleu: Any = BLEU(tokenize=tokenize, force=True)  # force: it warns about tokenised text; we say "none" on purpose
    chrf: Any = CHRF()
    bleu_score = bleu.corpus_score(list(outputs), [list(references)])
    chrf_score = chrf.corpus_score(list(outputs), [list(references)])
    return Scores(bleu_score.score, str(bleu.get_signature()), chrf_score.score, str(chrf.get_signature()))
