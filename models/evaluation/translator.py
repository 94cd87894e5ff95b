"""Translation of text by a model with its tokenizer, and the log-probabilities of given translations."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from models.architectures.encoder_decoder import EncoderDecoder
from models.architectures.language import LanguageModel
from models.decoding.checks import NonFiniteLogits
from models.decoding.dispatch import decode
from models.decoding.hypothesis import Hypothesis
from models.decoding.settings import Search
from models.evaluation.checks import refuse_line, require_texts
from models.evaluation.metrics import sentence_log_probs
from models.evaluation.text_model import TextModel
from models.runs.loading import load_run
from models.system.errors import UserError
from models.text.batching import POSITIONS, group_by_length
from models.text.subwords import Tokenizer
from models.text.tokens import EOS
from tensorlib.messages import plural

__all__ = ["Translator", "load"]

GREEDY = Search(beam=1)
EMPTY = Hypothesis((), ended=True, log_probs=(), log_prob=0.0, score=0.0)
# The widest beam for a sentence whose hypotheses are too few different texts: so many times --beam, and rows at most.
WIDER, MOST_ROWS = 16, 512


class Translator:
    """Translates text, greedily or as `search` specifies. A text gives one line; a blank text gives an empty line.

    `cut(line)` is called for each text that is longer than the model can read, with the number of its line, counted
    from 0. `advance(n)` is called whenever n more texts are done. `failed(line)` is called for each text for which the
    model's logits are not finite; its translation is empty if `failed` returns. By default it raises `UserError`.
    """

    def __init__(
        self,
        model: EncoderDecoder,
        tokenizer: Tokenizer,
        cut: Callable[[int], object] = lambda line: None,
        advance: Callable[[int], object] = lambda n: None,
        search: Search = GREEDY,
        failed: Callable[[int], object] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.cut, self.advance, self.search = model, tokenizer, cut, advance, search
        self.failed = failed or refuse_line
        self.longest = model.config.max_length  # longest target, </s> included: the decoder does not read it
        if search.min_length > self.longest:
            raise UserError(
                f"--min-length must be at most {self.longest}, this model's maximum; got {search.min_length}"
            )

    def translate(self, texts: Sequence[str], first: int = 0, stop: Callable[[], None] = lambda: None) -> list[str]:
        """Return the translation of each text; `first` is the number of the first text's line.

        `stop` is called between batches; it may raise.
        """
        require_texts("translate", texts)
        found = self.hypotheses(texts, self.encode(texts, first), first, stop)
        return [self.text(several[0]) for several in found]

    def text(self, hypothesis: Hypothesis) -> str:
        """Return the text of a hypothesis."""
        return self.tokenizer.decode_target(hypothesis.tokens)

    def hypotheses(
        self,
        texts: Sequence[str],
        sources: Sequence[Sequence[int]],
        first: int = 0,
        stop: Callable[[], None] = lambda: None,
    ) -> list[list[Hypothesis]]:
        """Return the `search.n_best` translations of each text, best first; those of a blank text are empty.

        `sources` is the result of `encode` for these texts.

        The translations of a text differ in their words. A beam often holds several segmentations of the same words
        into subwords; the one with the highest score represents them. A sentence for which this leaves too few is
        searched again with twice the beam, up to `WIDER` times the beam; it has fewer translations if that finds no
        more.
        """
        search = self.search
        found = [[EMPTY] * search.n_best for _ in texts]
        kept: dict[int, list[Hypothesis]] = {}
        few, beam = [i for i, text in enumerate(texts) if text.strip()], search.rows
        widest = max(beam, min(WIDER * beam, MOST_ROWS))
        while few and beam <= widest:
            asked = search if search.n_best == 1 else replace(search, beam=beam, n_best=beam)
            for i, several in self._decoded(few, sources, asked, first, stop):
                if several:
                    kept[i] = self._different_texts([*kept.get(i, []), *several])
                    found[i] = kept[i][: search.n_best]
                elif i not in kept:
                    self.failed(first + i)
                if beam == search.rows:
                    self.advance(1)
            few, beam = [i for i in few if i in kept and len(kept[i]) < search.n_best], 2 * beam
        return found

    def _decoded(
        self,
        rows: Sequence[int],
        sources: Sequence[Sequence[int]],
        search: Search,
        first: int,
        stop: Callable[[], None],
    ) -> Iterator[tuple[int, list[Hypothesis]]]:
        """Yield each index in `rows` with the hypotheses of its source: none if its logits are not finite."""

        def hypotheses_of(rows: Sequence[int]) -> list[list[Hypothesis]]:
            limits = [search.limit(sources[i], self.longest) for i in rows]
            draws = [(search.effective("seed"), first + i) for i in rows]  # so the rest of a batch changes nothing
            try:
                return decode(self.model, [sources[i] for i in rows], search, limits, draws)
            except NonFiniteLogits:  # of at least one of them
                return [hypotheses for i in rows for hypotheses in hypotheses_of([i])] if len(rows) > 1 else [[]]

        for group in group_by_length([len(sources[i]) for i in rows], POSITIONS // search.rows):
            stop()
            together = [rows[i] for i in group]
            yield from zip(together, hypotheses_of(together), strict=True)

    def _different_texts(self, hypotheses: Iterable[Hypothesis]) -> list[Hypothesis]:
        """Return the best hypothesis of each text, best first; texts that differ only in spaces count as one."""
        best: dict[tuple[str, ...], Hypothesis] = {}
        for hypothesis in sorted(hypotheses, key=lambda h: -h.score):
            best.setdefault(tuple(self.text(hypothesis).split()), hypothesis)
        return list(best.values())

    def encode(self, texts: Sequence[str], first: int = 0) -> list[list[int]]:
        """Return the model's input for each text: its ids, cut at the model's maximum length."""
        longest = self.model.config.max_length
        # No subword has more than 16 characters, so everything cut off here would otherwise be cut off below.
        sources = self.tokenizer.encode_source([text[: 16 * longest] for text in texts])
        for i, ids in enumerate(sources):
            if len(ids) > longest:
                self.cut(first + i)
                sources[i] = [*ids[: longest - 1], EOS]
        return sources

    def score(self, sources: Sequence[str], targets: Sequence[str]) -> list[float]:
        """Return log P(target | source) of each pair of texts, in nats: the sum over the target's tokens and </s>.

        Errors: `UserError` naming the first pair with a side longer than the model's maximum length; also `UserError`
        if the numbers of sources and targets differ.
        """
        require_texts("score", sources, targets)
        if len(sources) != len(targets):
            raise UserError(
                f"score: each source needs one target; got {plural(len(sources), 'source')} and "
                f"{plural(len(targets), 'target')}"
            )
        examples = list(zip(self.tokenizer.encode_source(sources), self.tokenizer.encode_target(targets), strict=True))
        for i, (source, target) in enumerate(examples):
            if max(len(source), len(target) + 1) > self.longest:
                raise UserError(
                    f"score: source and target may have at most {self.longest} subwords, the end included; pair {i} "
                    f"has {len(source)} and {len(target) + 1}; leave it out or shorten it"
                )
        return sentence_log_probs(self.model, examples)

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """Raise `UserError`: this is not a language model."""
        raise UserError(
            "generate: a language model is required; this run is of a model that translates; use translate(texts)"
        )


def load(run: str | os.PathLike[str] | None = None, backend: str = "numpy") -> Translator | TextModel:
    """Return the trained model of a run, which translates and scores text; a language model generates and scores it.

    ::

        model = models.load("runs/phrasebook-transformer-1")
        model.translate(["我有一只猫"])                      # ["I have a cat"]
        model.score(["我有一只猫"], ["I have a cat"])        # [log P(target | source)]

        model = models.load("runs/book-language-1")         # of `tensorlib train --model.kind language`
        model.generate(["In the beginning"])                # ["In the beginning God created the heaven ..."]
        model.score(["In the beginning"])                   # [log P(text)]

    A translator searches with the defaults of `tensorlib translate`, and cuts a text that is longer than the model can
    read, with a warning. A language model draws with the defaults of `tensorlib generate`.

    run: the run's directory, or one checkpoint in it; None means the newest run in runs/, as on the command line.
    backend: "numpy" (CPU) or "cupy" (a CUDA GPU).

    Errors: `UserError` naming what is missing or damaged.
    """
    loaded = load_run(None if run is None else Path(run), backend, lambda text: warnings.warn(text, stacklevel=4))

    if isinstance(loaded.model, LanguageModel):
        return TextModel(loaded.model, loaded.tokenizer)

    def warn_cut(text: int) -> None:
        longest = loaded.model.config.max_length
        warnings.warn(f"text {text}: longer than {longest} subwords; the rest is not translated", stacklevel=4)

    return Translator(loaded.model, loaded.tokenizer, warn_cut, search=Search())
