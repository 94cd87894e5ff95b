"""Validation: how good the model is on text kept out of training, and whether it gets better still."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.architectures.transformer import Transformer
from models.evaluation.metrics import scores, token_loss
from models.evaluation.translator import Translator
from models.runs.checkpoint import Progress
from models.runs.config import TrainConfig
from models.training.start import Run

__all__ = ["Validation", "out_of_patience", "record_validation", "validate"]


@dataclass(frozen=True)
class Validation:
    """What one validation found."""

    loss: float
    perplexity: float
    bleu: float | None
    """BLEU of the first `bleu_sentences`, translated greedily; None where the config asks for none."""
    samples: list[dict[str, str]]
    """Of the first few sentences: source, reference and output."""

    def __str__(self) -> str:
        bleu = "" if self.bleu is None else f", BLEU {self.bleu:.2f}"
        return f"validation loss {self.loss:.4f}, perplexity {self.perplexity:.2f}{bleu}"


def validate(model: Transformer, run: Run, stop: Callable[[], None] = lambda: None) -> Validation:
    """Measure the loss on the validation part, and translate some of it. `stop` is called between batches.

    Raises FloatingPointError, with the loss as its text, where that is not finite.
    """
    config = run.config
    with np.errstate(all="ignore"):  # after a divergence all is infinite, and one message enough
        result = token_loss(model, run.examples.valid, stop)
    if not math.isfinite(result.loss):
        raise FloatingPointError(f"{result.loss}")
    pairs = run.corpus.valid[: max(config.samples, config.bleu_sentences)]
    sources, references = [s for s, _ in pairs], [r for _, r in pairs]
    outputs = Translator(model, run.tokenizer).translate(sources, stop=stop)
    n = config.bleu_sentences
    bleu = scores(outputs[:n], references[:n], config.bleu_tokenize).bleu if n else None
    rows = list(zip(sources, references, outputs, strict=True))[: config.samples]
    samples = [{"source": s, "reference": r, "output": o} for s, r, o in rows]
    return Validation(result.loss, result.perplexity, bleu, samples)


def record_validation(found: Validation, progress: Progress, config: TrainConfig) -> bool:
    """Put into `progress` what the validation of its step found; return whether that is the best so far."""
    if config.best_by == "bleu":
        before, now = progress.best_bleu, found.bleu
        best = before is None or (now is not None and now > before)
    else:
        best = progress.best_loss is None or found.loss < progress.best_loss
    progress.validated = progress.step
    progress.waited = 0 if best else progress.waited + 1
    if best:
        progress.best_step, progress.best_loss, progress.best_bleu = progress.step, found.loss, found.bleu
    return best


def out_of_patience(progress: Progress, config: TrainConfig) -> bool:
    """Return whether so many validations in a row have found nothing better that training is to end."""
    return 0 < config.patience <= progress.waited
