"""How good a model is: the loss of true translations, and the scores of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import tensorlib as tl
from models.architectures.transformer import Transformer
from models.decoding.forced import force_decode
from models.decoding.hypothesis import Hypothesis
from models.decoding.settings import Search
from models.system.errors import UserError
from models.text.batching import Example, encode_pairs, make_batch
from models.text.lines import Pair
from models.text.subwords import Tokenizer
from models.text.tokens import EOS

__all__ = ["Scores", "TokenLoss", "Translator", "exact_match", "pair_loss", "scores"]
__all__ += ["sentence_log_probs", "token_loss"]

POSITIONS = 4096  # sentences are put side by side up to about so many positions, padding included
GREEDY = Search(beam=1)
NOTHING = Hypothesis((), ended=True, log_probs=(), log_prob=0.0, score=0.0)


@dataclass(frozen=True)
class TokenLoss:
    """The mean cross-entropy of a true target token, in nats, over so many tokens."""

    loss: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(loss): among so many equally likely subwords the model would be as unsure."""
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
    """Return log P(target | source) of each example, the sum over its tokens and </s>, all of them forced."""
    found = [0.0] * len(examples)
    for group in _groups([len(s) + len(t) for s, t in examples]):
        sources, targets = zip(*[examples[i] for i in group], strict=True)
        for i, forced in zip(group, force_decode(model, sources, targets), strict=True):
            found[i] = forced.log_prob
    return found


def pair_loss(model: Transformer, tokenizer: Tokenizer, pairs: Sequence[Pair]) -> tuple[TokenLoss, int]:
    """Return the loss of the pairs that are short enough for the model, and how many are not."""
    examples, dropped = encode_pairs(tokenizer, pairs, max_length=model.config.max_length)
    return token_loss(model, examples), dropped


class Translator:
    """Text to text, greedily or as `search` says. A line gives a line, whatever is in it; a blank one an empty one.

    `cut(line)` is called with the line, counted from 0, of a text that is longer than the model reads, and
    `advance(n)` whenever n more are done.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        cut: Callable[[int], None] = lambda line: None,
        advance: Callable[[int], Any] = lambda n: None,
        search: Search = GREEDY,
    ) -> None:
        self.model, self.tokenizer, self.cut, self.advance, self.search = model, tokenizer, cut, advance, search
        self.longest = model.config.max_length  # of a target, </s> included: what is written last is not read
        if search.min_length > self.longest:
            raise UserError(
                f"--min-length must be at most {self.longest}, which this model's targets are; got {search.min_length}"
            )

    def translate(self, texts: Sequence[str], first: int = 0, stop: Callable[[], None] = lambda: None) -> list[str]:
        """Return the translation of each text; `first` is the number of the first line, `stop` as in `token_loss`."""
        return [self.text(found[0]) for found in self.hypotheses(texts, self.encode(texts, first), first, stop)]

    def text(self, hypothesis: Hypothesis) -> str:
        """Return what a hypothesis says."""
        return self.tokenizer.decode_target(hypothesis.tokens)

    def hypotheses(
        self,
        texts: Sequence[str],
        sources: Sequence[Sequence[int]],
        first: int = 0,
        stop: Callable[[], None] = lambda: None,
    ) -> list[list[Hypothesis]]:
        """Return for each text its `search.n_best` translations, the best first. Of a blank one all are empty.

        `sources` is what `encode` returned for the texts.
        """
        search = self.search
        found = [[NOTHING] * search.n_best for _ in texts]
        busy = [i for i, text in enumerate(texts) if text.strip()]
        for group in _groups([len(sources[i]) for i in busy], POSITIONS // search.rows):
            stop()
            rows = [busy[i] for i in group]
            limits = [search.limit(sources[i], self.longest) for i in rows]
            draws = [(search.seed or 0, first + i) for i in rows]  # by its line: its neighbours change nothing
            for i, best in zip(rows, search.run(self.model, [sources[i] for i in rows], limits, draws), strict=True):
                found[i] = best
            self.advance(len(rows))
        return found

    def encode(self, texts: Sequence[str], first: int = 0) -> list[list[int]]:
        """Return what the model reads of each text: its ids, cut where the model ends."""
        longest = self.model.config.max_length
        # No subword has more than 16 characters. So what is cut off here unread would be cut off below too.
        sources = self.tokenizer.encode_source([text[: 16 * longest] for text in texts])
        for i, ids in enumerate(sources):
            if len(ids) > longest:
                self.cut(first + i)
                sources[i] = [*ids[: longest - 1], EOS]
        return sources


def _groups(sizes: Sequence[int], positions: int = POSITIONS) -> Iterator[list[int]]:
    """Yield the indices of items of like size, longest first, as many as make about so many positions."""
    group: list[int] = []
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        if group and (len(group) + 1) * sizes[group[0]] > positions:
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
