"""Validation: how good the model is on text kept out of training, and whether it still improves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.architectures.encoder_decoder import EncoderDecoder
from models.architectures.language import LanguageModel
from models.evaluation.metrics import TokenLoss, scores, token_loss, worst_loss
from models.evaluation.text_model import SAMPLED, TextLoss, TextModel, stream_loss
from models.evaluation.translator import Translator
from models.runs.checkpoint import Progress
from models.runs.config import TrainConfig
from models.system.numbers import shown_loss, shown_perplexity
from models.system.terminal import printable
from models.text.size import utf8_length
from models.text.stream import decode_text
from models.training.corpus import Corpus, Examples
from models.training.divergence import LOWER_RATE
from models.training.language_corpus import LanguageCorpus, Streams
from models.training.milestones import out_of_patience
from models.training.start import Run
from tensorlib.messages import plural

__all__ = ["Validation", "record_validation", "report_lines", "sample_lines", "sample_prompts", "validate"]

SAMPLE_TOKENS = 24  # of the prompts that a language model continues at each validation, and of their continuations


@dataclass(frozen=True)
class Validation:
    """The result of one validation."""

    loss: float
    perplexity: float
    bleu: float | None  # of greedy translations of the first `bleu_sentences`; None if the config asks for none
    samples: list[dict[str, str]]  # source, reference and output of a few sentences; of prompts, their continuations
    diverged: bool = False  # the loss is above `worst_loss`; such weights are never the best
    byte_perplexity: float | None = None  # of a language model

    def __str__(self) -> str:
        bleu = "" if self.bleu is None else f", BLEU {self.bleu:.2f}"
        perplexity = shown_perplexity(self.perplexity)
        if self.byte_perplexity is not None:
            perplexity += f" a token, {shown_perplexity(self.byte_perplexity, 3)} a byte"
        return f"validation loss {shown_loss(self.loss)}, perplexity {perplexity}{bleu}"


def validate(model: EncoderDecoder, run: Run, stop: Callable[[], None] = lambda: None) -> Validation:
    """Measure the loss on the validation text, and translate or continue some of it; call `stop` between batches.

    Raises FloatingPointError, with the loss as its message, if the loss is not finite.
    """
    if isinstance(model, LanguageModel):
        return _validate_language(model, run, stop)
    config, corpus, examples = run.config, run.corpus, run.examples
    assert isinstance(corpus, Corpus) and isinstance(examples, Examples)
    result = _finite(token_loss(model, examples.valid, stop))
    pairs = corpus.valid[: max(config.samples, config.bleu_sentences)]
    sources, references = [s for s, _ in pairs], [r for _, r in pairs]
    translator = Translator(model, run.tokenizer, failed=lambda line: None)  # then the translation stays empty
    outputs = translator.translate(sources, stop=stop)
    n = config.bleu_sentences
    bleu = scores(outputs[:n], references[:n], config.bleu_tokenize).bleu if n else None
    rows = list(zip(sources, references, outputs, strict=True))[: config.samples]
    samples = [{"source": s, "reference": r, "output": o} for s, r, o in rows]
    return Validation(result.loss, result.perplexity, bleu, samples, _diverged(result, run))


def _validate_language(model: LanguageModel, run: Run, stop: Callable[[], None]) -> Validation:
    """Do the same with a language model: its samples are continuations, drawn in the same way at each validation."""
    corpus, streams, config = run.corpus, run.examples, run.config
    assert isinstance(corpus, LanguageCorpus) and isinstance(streams, Streams)
    result = _finite(stream_loss(model, streams.valid, stop))
    text = TextLoss(result.loss, result.tokens, utf8_length(corpus.valid))
    search = replace(SAMPLED, seed=config.seed, max_length=SAMPLE_TOKENS)
    writer = TextModel(model, run.tokenizer, search, failed=lambda line: None)  # then the continuation stays empty
    prompts = sample_prompts(streams.valid, run.tokenizer.target.line_end, config.samples, model.config.max_length)
    ids = [streams.valid[start:stop].tolist() for start, stop in prompts]
    samples = []
    for (start, end), prompt, found in zip(prompts, ids, writer.continuations(ids, stop=stop), strict=True):
        source = decode_text(run.tokenizer.target, prompt)
        texts = [
            decode_text(run.tokenizer.target, streams.valid[start : end + SAMPLE_TOKENS]),
            writer.text(prompt, found),
        ]
        reference, output = (text.removeprefix(source) for text in texts)
        samples.append({"source": source, "reference": reference, "output": output})
    return Validation(result.loss, result.perplexity, None, samples, _diverged(result, run), text.byte_perplexity)


def sample_prompts(ids: NDArray[np.int32], line_end: int, count: int, longest: int) -> list[tuple[int, int]]:
    """Return start and stop of up to `count` prompts of one length, spread over a text; each begins with a line."""
    length = min(SAMPLE_TOKENS, longest // 2, len(ids) // 2)
    starts = [0, *(np.flatnonzero(ids == line_end) + 1).tolist()]
    fitting = [start for start in starts if start + length < len(ids)]
    count = min(count, len(fitting))
    return [(start, start + length) for start in (fitting[i * len(fitting) // count] for i in range(count))]


def _finite(result: TokenLoss) -> TokenLoss:
    if not math.isfinite(result.loss):
        raise FloatingPointError(f"{result.loss}")
    return result


def _diverged(result: TokenLoss, run: Run) -> bool:
    return result.loss > worst_loss(run.tokenizer.target_size)


def sample_lines(result: Validation) -> Iterator[str]:
    """Yield a line for each sample, with the reference if it differs; a line end in it is shown as a slash."""
    for sample in result.samples:
        wrong = "" if sample["output"] == sample["reference"] else f"  [{sample['reference']}]"
        yield printable(f"    {sample['source']} -> {sample['output']}{wrong}".replace("\n", " / "))


def record_validation(result: Validation, progress: Progress, config: TrainConfig) -> bool:
    """Record the result for the current step in `progress`; return whether it is the best so far."""
    if config.best_by == "bleu":
        before, now = progress.best_bleu, result.bleu
        best = before is None or (now is not None and now > before)
    else:
        best = progress.best_loss is None or result.loss < progress.best_loss
    best = best and not result.diverged
    progress.validated = progress.step
    progress.waited = 0 if best else progress.waited + 1
    if best:
        progress.best_step, progress.best_loss, progress.best_bleu = progress.step, result.loss, result.bleu
    return best


def report_lines(result: Validation, best: bool, progress: Progress, config: TrainConfig, total: int) -> Iterator[str]:
    """Yield the lines that show a recorded result; `total` is the estimated number of steps."""
    star = " (the best so far)" if best else " (diverged: far worse than a guess)" if result.diverged else ""
    yield f"step {progress.step}/{max(total, progress.step)}  {result}{star}"
    if result.diverged:
        rate = f"--optim.learning-rate {config.optim.learning_rate:g}"
        yield f"    {rate} is probably too high: stop training, and {LOWER_RATE}"
    yield from sample_lines(result)
    if out_of_patience(progress, config):
        best_step = f"step {progress.best_step}" if progress.best_step else "a guess"
        waited = plural(progress.waited, "validation")
        yield f"step {progress.step}: ended early; {waited} in a row did not improve on {best_step}"
