"""Checks of each value of a config, and of their combinations, before any work begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from models.architectures.build import with_vocabularies
from models.architectures.language import LanguageConfig
from models.runs.config import TEXT_FILES, SamplingConfig, TrainConfig
from models.runs.nested_dicts import flat_items, to_dict
from models.system.errors import UserError
from models.system.limits import LARGEST
from tensorlib.messages import shown

__all__ = ["check_config", "check_ranges", "flag", "missed_range"]

_RANGES: dict[str, tuple[float, float]] = {  # a number not listed here must be from 0 to LARGEST
    "keep": (1, LARGEST),
    "tokenizer.vocabulary": (1, 2**20),
    "tokenizer.coverage": (0.98, 1),  # as SentencePiece requires
    "tokenizer.dropout": (0, 0.999),
    "model.vocabulary": (1, 2**20),
    "model.source_vocabulary": (1, 2**20),
    "model.target_vocabulary": (1, 2**20),
    "model.layers": (1, 1000),
    "model.width": (1, 2**20),
    "model.heads": (1, 2**20),
    "model.feed_forward": (1, 2**20),
    "model.max_length": (2, 2**20),
    "sampling.truth": (0, 1),
    "sampling.halfway": (1, LARGEST),
    "optim.betas": (0, 1 - 1e-9),
    "optim.momentum": (0, 1 - 1e-9),
    "optim.eps": (1e-16, 1),  # smaller values vanish beside almost any gradient in float32; 0 may give 0 / 0
    "optim.label_smoothing": (0, 0.999),
    "optim.accumulate": (1, LARGEST),
    "optim.ema": (0, 1 - 1e-9),
    "optim.max_skipped": (1, LARGEST),
    "progress.best_loss": (-LARGEST, LARGEST),  # in a checkpoint; rounding may leave a perfect loss below 0
}


def check_config(config: TrainConfig, origin: Callable[[str], str]) -> None:
    """Check the whole config; `origin(key)` names the layer that sets a dotted key. Errors: `UserError`."""
    _check_files(config)
    check_ranges(to_dict(config), origin)
    _check_model(config, origin)
    _check_combinations(config)


def flag(key: str) -> str:
    """Return the command line's flag for a dotted key."""
    return "--" + key.replace("_", "-")


def _check_files(config: TrainConfig) -> None:
    if isinstance(config.model, LanguageConfig):
        if {key for key in TEXT_FILES if getattr(config, key)} != {"train_text", "valid_text"}:
            raise UserError(
                "config: --train-text and --valid-text, and no other text, are required for --model.kind language; got "
                f"{_text_files(config)}"
            )
        return
    if config.train_text or config.valid_text:
        raise UserError(
            "config: --train-text and --valid-text require a language model; got --model.kind "
            f"{config.model.kind}; add --model.kind language, or give sentences with their translations"
        )
    if config.data != "files":
        return
    for part in ("train", "valid"):
        source, target, tsv = (getattr(config, f"{part}_{side}") for side in ("source", "target", "tsv"))
        if not (bool(source) == bool(target) and bool(tsv) != bool(source)):
            raise UserError(
                f"config: --{part}-source and --{part}-target, or --{part}-tsv alone, are required; got "
                f"{_text_files(config, part)}"
            )


def _text_files(config: TrainConfig, part: str = "") -> str:
    """Return the flags of the text files that are given for a part, or for both."""
    named = [flag(key) for key in TEXT_FILES if key.startswith(part) and getattr(config, key)]
    return ", ".join(named) or "none of them"


def check_ranges(settings: Mapping[str, Any], origin: Callable[[str], str]) -> None:
    """Check each number of a nested dict of settings. Errors: `UserError` naming the flag, its range and its origin."""
    for key, value in flat_items(settings):
        limits = missed_range(key, value)
        if limits:
            raise UserError(f"{origin(key)}: {flag(key)} must be {limits}, got {shown(value)}")


def missed_range(key: str, value: Any) -> str | None:
    """Return the range of a dotted key's numbers, such as "at least 1", if the value or an item of it is outside."""
    low, high = _RANGES.get(key, (0, LARGEST))
    numbers = value if isinstance(value, list) else [value]
    if not any(isinstance(n, int | float) and not low <= n <= high for n in numbers):
        return None
    if high == LARGEST and all(n < low for n in numbers):
        return f"at least {low}"
    return f"from {low} to {f'{high:.1e}' if high == LARGEST and isinstance(value, float) else high}"


def _check_model(config: TrainConfig, origin: Callable[[str], str]) -> None:
    try:
        with_vocabularies(config.model, 1, 1).check()
    except ValueError as error:
        keys = [f.name for f in dataclasses.fields(config.model)]
        where = {origin(f"model.{key}") for key in keys} - {"config"}
        problem = str(error).removeprefix(f"{type(config.model).__name__}: ")
        raise UserError(f"{where.pop() if len(where) == 1 else 'config'}: {problem}") from None


def _check_combinations(config: TrainConfig) -> None:
    if not (config.steps or config.epochs):
        raise UserError("config: a limit is required; got neither --steps nor --epochs above 0; give one of them")
    if not config.optim.learning_rate:
        raise UserError("config: --optim.learning-rate must be above 0, got 0.0; with 0, training changes nothing")
    if bool(config.batch_tokens) == bool(config.batch_sentences):
        raise UserError(
            f"config: either --batch-tokens or --batch-sentences must be above 0, and the other 0; got "
            f"{config.batch_tokens} and {config.batch_sentences}"
        )
    if isinstance(config.model, LanguageConfig):
        _check_language(config)
    if config.model.tie_embeddings and not config.tokenizer.shared:
        raise UserError(
            "config: --model.tie-embeddings needs a shared vocabulary; got --tokenizer.no-shared; leave out one of them"
        )
    _check_sampling(config)
    if config.best_by == "bleu" and not config.bleu_sentences:
        raise UserError("config: --best-by bleu needs BLEU; got --bleu-sentences 0; raise it, for example to 500")
    if config.tokenizer.dropout and config.tokenizer.type != "bpe":
        raise UserError(
            f"config: --tokenizer.dropout needs --tokenizer.type bpe, whose merges it leaves out; got "
            f"{config.tokenizer.type}; leave out one of the two flags"
        )


def _check_sampling(config: TrainConfig) -> None:
    """Raise `UserError` for a setting of scheduled sampling without effect, and for a constant without a value."""
    sampling = config.sampling
    if sampling != SamplingConfig() and config.feeding != "scheduled-sampling":
        raise UserError(
            "config: settings of --sampling need --feeding scheduled-sampling; got --feeding "
            f"{config.feeding}; add it, or leave them out"
        )
    if sampling.decay == "constant" and sampling.truth is None:
        raise UserError("config: --sampling.decay constant needs --sampling.truth; got none; add it, for example 0.5")
    if sampling.decay == "constant" and sampling.halfway is not None:
        raise UserError(
            f"config: --sampling.decay constant never changes; got --sampling.halfway {sampling.halfway}; leave it out"
        )


def _check_language(config: TrainConfig) -> None:
    """Raise `UserError` for a setting that has no meaning without translations."""
    if config.feeding == "free-running":
        raise UserError(
            "config: --feeding free-running needs a source; a language model has none, so it would write the same "
            "words in every window; use teacher-forcing or scheduled-sampling"
        )
    if not config.tokenizer.shared:
        raise UserError("config: a language model has one text, and one vocabulary; leave out --tokenizer.no-shared")
    if config.best_by == "bleu" or config.bleu_sentences or config.bleu_tokenize != "auto":
        given = "--best-by bleu" if config.best_by == "bleu" else "--bleu-tokenize"
        given = "--bleu-sentences" if config.bleu_sentences else given
        raise UserError(
            f"config: BLEU compares translations, which a language model does not make; got {given}; leave it out"
        )
