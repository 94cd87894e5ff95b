"""Validation: how good the model is on text kept out of training, and whether it still improves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from models.architectures.encoder_decoder import EncoderDecoder
from models.evaluation.metrics import scores, token_loss, worst_loss
from models.evaluation.translator import Translator
from models.runs.checkpoint import Progress
from models.runs.config import TrainConfig
from models.system.numbers import shown_loss, shown_perplexity
from models.training.divergence import LOWER_RATE
from models.training.milestones import out_of_patience
from models.training.start import Run
from tensorlib.messages import plural

__all__ = ["Validation", "record_validation", "report_lines", "validate"]


@dataclass(frozen=True)
class Validation:
    """The result of one validation."""

    loss: float
    perplexity: float
    bleu: float | None  # of greedy translations of the first `bleu_sentences`; None if the config asks for none
    samples: list[dict[str, str]]  # source, reference and output of the first few sentences
    diverged: bool = False  # the loss is above `worst_loss`; such weights are never the best

    def __str__(self) -> str:
        bleu = "" if self.bleu is None else f", BLEU {self.bleu:.2f}"
        return f"validation loss {shown_loss(self.loss)}, perplexity {shown_perplexity(self.perplexity)}{bleu}"


def validate(model: EncoderDecoder, run: Run, stop: Callable[[], None] = lambda: None) -> Validation:
    """Measure the loss on the validation text, and translate some of that text. `stop` is called between batches.

    Raises FloatingPointError, with the loss as its message, if the loss is not finite.
    """
    config = run.config
    result = token_loss(model, run.examples.valid, stop)
    if not math.isfinite(result.loss):
        raise FloatingPointError(f"{result.loss}")
    pairs = run.corpus.valid[: max(config.samples, config.bleu_sentences)]
    sources, references = [s for s, _ in pairs], [r for _, r in pairs]
    translator = Translator(model, run.tokenizer, failed=lambda line: None)  # then the translation stays empty
    outputs = translator.translate(sources, stop=stop)
    n = config.bleu_sentences
    bleu = scores(outputs[:n], references[:n], config.bleu_tokenize).bleu if n else None
    rows = list(zip(sources, references, outputs, strict=True))[: config.samples]
    samples = [{"source": s, "reference": r, "output": o} for s, r, o in rows]
    diverged = result.loss > worst_loss(run.tokenizer.target_size)
    return Validation(result.loss, result.perplexity, bleu, samples, diverged)


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
    for sample in result.samples:
        wrong = "" if sample["output"] == sample["reference"] else f"  [{sample['reference']}]"
        yield f"    {sample['source']} -> {sample['output']}{wrong}"
    if out_of_patience(progress, config):
        best_step = f"step {progress.best_step}" if progress.best_step else "a guess"
        waited = plural(progress.waited, "validation")
        yield f"step {progress.step}: ended early; {waited} in a row did not improve on {best_step}"
