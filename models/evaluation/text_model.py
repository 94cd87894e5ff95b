"""A language model with its tokenizer: it continues prompts and scores texts; and its loss on a long text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

import tensorlib as tl
from models.architectures.language import LanguageModel
from models.decoding.checks import NonFiniteLogits
from models.decoding.dispatch import decode
from models.decoding.hypothesis import Hypothesis
from models.decoding.settings import Search
from models.evaluation.checks import refuse_line, require_texts
from models.evaluation.metrics import TokenLoss
from models.system.errors import UserError
from models.text.batching import POSITIONS
from models.text.stream import decode_text, encode_text, scored_windows, window_batch
from models.text.subwords import Tokenizer

__all__ = ["SAMPLED", "TextLoss", "TextModel", "stream_loss"]

EMPTY = Hypothesis((), ended=True, log_probs=(), log_prob=0.0, score=0.0)
SAMPLED = Search(sample=True, temperature=0.8, max_length=200)


@dataclass(frozen=True)
class TextLoss(TokenLoss):
    """The loss on a text: per token, and over the text's bytes in UTF-8, which other subwords leave the same."""

    bytes: int

    @property
    def bits_per_byte(self) -> float:
        """The cross-entropy of the whole text in bits, divided by its number of bytes."""
        return self.loss * self.tokens / max(self.bytes, 1) / math.log(2)

    @property
    def byte_perplexity(self) -> float:
        """exp(nats / bytes): a uniform choice among this many bytes would be equally uncertain."""
        return 2.0 ** min(self.bits_per_byte, 1000.0)


def stream_loss(model: LanguageModel, ids: NDArray[np.integer], stop: Callable[[], None] = lambda: None) -> TokenLoss:
    """Return the loss of each id (N,) after <s> and the ids before it; call `stop` before each batch.

    Each id is predicted once. The windows that the model reads overlap by half, so from the second window on at least
    half of the context is read before each id that counts: see `scored_windows`.
    """
    total, tokens, longest = 0.0, 0, model.config.max_length
    spans = scored_windows(len(ids), longest)
    with model.evaluating(), tl.no_grad(), np.errstate(all="ignore"):  # what overflows shows in the loss
        while several := list(islice(spans, max(POSITIONS // longest, 1))):
            stop()
            batch = window_batch([ids[a:c] for a, _, c in several], [b - a for a, b, _ in several])
            loss = model.loss(batch.source_BS, batch.target_in_BT, batch.target_out_BT, reduction="sum")
            total, tokens = total + float(loss.item()), tokens + batch.tokens
    return TokenLoss(total / max(tokens, 1), tokens)


class TextModel:
    """Continues prompts by sampling, or as `search` specifies, and scores texts.

    `cut(line)` is called for each prompt that is longer than the context, with its number, counted from 0: the model
    reads only its end. `failed(line)` is called for each prompt for which the model's logits are not finite; its
    continuation is empty if `failed` returns. By default it raises `UserError`.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        search: Search = SAMPLED,
        cut: Callable[[int], object] = lambda line: None,
        failed: Callable[[int], object] = refuse_line,
    ) -> None:
        self.model, self.tokenizer, self.search, self.cut, self.failed = model, tokenizer, search, cut, failed

    def generate(self, prompts: Sequence[str], first: int = 0) -> list[str]:
        """Return each prompt with its continuation; `first` is the number of the first prompt.

        Spaces at the end of a prompt are left to the model, which writes them as the beginning of a word. What is drawn
        depends on the seed and the number of the prompt, not on the other prompts.
        """
        require_texts("generate", prompts)
        encoded = [self.encode(prompt.rstrip(" ")) for prompt in prompts]
        for i, ids in enumerate(encoded):
            if len(ids) >= self.model.config.max_length:
                self.cut(first + i)
        return [self.text(ids, h) for ids, h in zip(encoded, self.continuations(encoded, first), strict=True)]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, in which line ends are tokens."""
        return encode_text(self.tokenizer.target, text)

    def text(self, prompt: Sequence[int], continuation: Hypothesis) -> str:
        """Return the text of a prompt and its continuation."""
        return decode_text(self.tokenizer.target, [*prompt, *continuation.tokens])

    def continuations(
        self, prompts: Sequence[Sequence[int]], first: int = 0, stop: Callable[[], None] = lambda: None
    ) -> list[Hypothesis]:
        """Return the best continuation of each prompt, as ids; `stop` is called between batches."""
        search, found = self.search, dict[int, Hypothesis]()
        limit = max(search.max_length or SAMPLED.max_length, search.min_length)

        def decoded(rows: Sequence[int]) -> list[list[Hypothesis]]:
            draws = [(search.effective("seed"), first + i) for i in rows]
            try:
                return decode(self.model, [prompts[i] for i in rows], search, [limit] * len(rows), draws)
            except NonFiniteLogits:  # of at least one of them
                if len(rows) > 1:
                    return [hypotheses for i in rows for hypotheses in decoded([i])]
            self.failed(first + rows[0])
            return [[EMPTY]]

        for rows in self._of_one_length(prompts):
            stop()
            found |= {i: hypotheses[0] for i, hypotheses in zip(rows, decoded(rows), strict=True)}
        return [found[i] for i in range(len(prompts))]

    def _of_one_length(self, prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Yield the numbers of prompts of the same length, as many as may be in one batch."""
        rows = max(POSITIONS // self.model.config.max_length // self.search.rows, 1)
        by_length: dict[int, list[int]] = {}
        for i, ids in enumerate(prompts):
            by_length.setdefault(len(ids), []).append(i)
        for same in by_length.values():
            yield from (same[start : start + rows] for start in range(0, len(same), rows))

    def score(self, texts: Sequence[str]) -> list[float]:
        """Return log P(text) of each text, in nats: the sum over its tokens; no end of the text is predicted.

        Of a text longer than the context, each token is predicted from at least half a context of earlier ones.
        """
        require_texts("score", texts)
        found = []
        for i, text in enumerate(texts):
            result = stream_loss(self.model, np.array(self.encode(text), np.int64))
            if not math.isfinite(result.loss):
                refuse_line(i)
            found.append(-result.loss * result.tokens)
        return found

    def translate(self, texts: Sequence[str]) -> list[str]:
        """Raise `UserError`: this is not a translator."""
        raise UserError(
            "translate: a model that translates is required; this run is of a language model; use generate(prompts) or "
            "score(texts)"
        )
