"""What a training run is told: dataclasses, presets, and how a TOML file and the command line are laid over them.

A key of config.toml and a flag of the command line are the same thing: `batch_tokens = 4096` is
`--batch-tokens 4096`, and `layers = 3` under `[model]` is `--model.layers 3`.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from models.architectures.transformer import TransformerConfig
from models.runs.tables import build, leaves, settable, to_dict
from models.system.errors import UserError
from models.system.files import read_bytes
from models.system.limits import LARGEST

__all__ = ["PRESETS", "OptimConfig", "TokenizerConfig", "TrainConfig", "config_from", "config_toml"]
__all__ += ["read_toml", "resumed", "settable", "to_dict"]

# What is used where neither a TOML file nor the command line says otherwise. What is not here is as the dataclasses
# below have it: for the model, that is the base model of Vaswani et al. 2017.
PRESETS: dict[str, dict[str, Any]] = {
    "phrasebook": {
        "steps": 800,
        "batch_tokens": 1024,
        "validate_every": 200,
        "save_every": 200,
        "tokenizer": {"vocabulary": 2000},
        "model": {"layers": 2, "width": 128, "heads": 4, "feed_forward": 256, "dropout": 0.05, "max_length": 64},
        "optim": {"learning_rate": 3e-3, "schedule": "cosine", "warmup": 100},
    },
    "files": {
        "epochs": 10,
        "batch_tokens": 4096,
        "bleu_sentences": 500,
        "tokenizer": {"vocabulary": 8000},
        "model": {"layers": 3, "width": 256, "heads": 8, "feed_forward": 512, "dropout": 0.1, "max_length": 256},
        "optim": {"learning_rate": 5e-4, "schedule": "inverse-sqrt", "warmup": 1000},
    },
}


@dataclass(frozen=True)
class TokenizerConfig:
    """How text is cut into subwords."""

    vocabulary: int = 8000
    """The most subwords of a vocabulary, specials, bytes and characters included."""
    shared: bool = True
    """One vocabulary for both languages, or one each."""
    type: Literal["bpe", "unigram"] = "bpe"
    """Byte-pair encoding, or a unigram language model."""
    coverage: float = 1.0
    """The part of the text whose characters get a subword; the rest is spelled in bytes."""
    dropout: float = 0.0
    """BPE-dropout: merges left out at random, so that training cuts its text anew in each epoch; 0.1 is usual."""


@dataclass(frozen=True)
class OptimConfig:
    """How parameters are updated."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """The optimizer."""
    learning_rate: float = 5e-4
    """The highest of the schedule; with noam, the factor in front of it."""
    schedule: Literal["inverse-sqrt", "cosine", "noam", "constant"] = "inverse-sqrt"
    """How the learning rate goes on after it has risen."""
    warmup: int = 1000
    """Steps over which the learning rate rises."""
    final_learning_rate: float = 0.0
    """Where a cosine ends."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay of the two moments of Adam and AdamW."""
    eps: float = 1e-9
    """What Adam and AdamW add to the denominator."""
    momentum: float = 0.9
    """The momentum of SGD."""
    weight_decay: float = 0.0
    """L2, or decoupled with AdamW."""
    clip: float = 1.0
    """The largest norm of the gradient; 0: any."""
    label_smoothing: float = 0.1
    """The part of the target's probability that is spread over all subwords."""
    accumulate: int = 1
    """Batches whose gradients make one step."""
    ema: float = 0.0
    """Decay of a moving average of the weights, used for all but training itself; 0.999 is usual, 0: none."""
    max_skipped: int = 10
    """Steps with a loss or gradient that is not finite are skipped; after so many in a row it ends."""


@dataclass(frozen=True)
class TrainConfig:
    """All that decides a training run, but for the text itself."""

    data: Literal["phrasebook", "files"] = "phrasebook"
    """The built-in phrasebook, or files, which naming one implies."""
    train_source: str = ""
    """Sentences to train on, one a line, UTF-8."""
    train_target: str = ""
    """Their translations, line by line."""
    train_tsv: str = ""
    """Both in one file instead, separated by a tab."""
    valid_source: str = ""
    """Sentences kept out of training, on which progress is measured."""
    valid_target: str = ""
    """Their translations."""
    valid_tsv: str = ""
    """Both in one file instead."""
    backend: str = "numpy"
    """The array library: numpy (CPU) or cupy (a CUDA GPU)."""
    seed: int = 0
    """Where all randomness begins: equal seeds, equal bytes."""
    steps: int = 0
    """Steps to train; 0: no such limit."""
    epochs: int = 0
    """Passes over the text; 0: no such limit."""
    batch_tokens: int = 0
    """Positions in a batch, padding included, on its longer side."""
    batch_sentences: int = 0
    """Sentences in a batch, instead of --batch-tokens."""
    validate_every: int = 0
    """Steps between validations; 0: at the end of each epoch."""
    save_every: int = 0
    """Steps between checkpoints; 0: at the end of each epoch."""
    keep: int = 3
    """How many checkpoints stay, the newest."""
    samples: int = 3
    """Validation sentences whose translation is shown at each validation."""
    bleu_sentences: int = 0
    """Validation sentences that are translated for BLEU at each validation; 0: none."""
    bleu_tokenize: Literal["13a", "none", "intl", "char", "zh"] = "13a"
    """How BLEU finds words; none for text whose words are parted by spaces already."""
    best_by: Literal["loss", "bleu"] = "loss"
    """What makes a validation the best: best.safetensors keeps its weights, and --patience waits for it."""
    patience: int = 0
    """Validations in a row without a better one after which training ends; 0: never."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Text to subwords."""
    model: TransformerConfig = field(default_factory=TransformerConfig)
    """The Transformer."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimizer."""


# Where a layer names one of these, it means: and not the others, whatever the layers below said.
_ALTERNATIVES = (
    (("data",), ("train_source", "train_target"), ("train_tsv",)),
    (("data",), ("valid_source", "valid_target"), ("valid_tsv",)),
    (("steps",), ("epochs",)),
    (("batch_tokens",), ("batch_sentences",)),
)
_FILES = ("train_source", "train_target", "train_tsv", "valid_source", "valid_target", "valid_tsv")
_MAY_CHANGE = (*_FILES, "backend", "steps", "epochs", "validate_every", "save_every", "keep", "samples", "patience")


# ---- from nested dicts to a config ----


def config_from(*layers: tuple[str, Mapping[str, Any]]) -> TrainConfig:
    """Lay (where it is from, nested dict) layers over the preset that fits them, the last one on top.

    Errors: `UserError` naming where, and the key, for a key that there isn't, a value of another type or out of range.
    """
    for where, layer in layers:
        build(TrainConfig, layer, where)  # each by itself, so that the error can say where it is from
    given: dict[str, Any] = {}
    for _, layer in layers:
        given = _overlay(given, layer)
    named = [key for key in _FILES if given.get(key)]
    if named and given.get("data") == "phrasebook":
        raise UserError(f"config: text from one place is required; got data phrasebook and {_flag(named[0])}; give one")
    given["data"] = "files" if named else given.get("data") or "phrasebook"
    config = build(TrainConfig, _overlay(PRESETS[given["data"]], given), "config")
    absolute: dict[str, Any] = {
        key: str(Path(getattr(config, key)).absolute()) for key in named
    }  # a run resumes from any directory
    config = dataclasses.replace(config, **absolute)
    _check(config, layers)
    return config


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Errors: `UserError` naming the file, and the line where its syntax breaks."""
    data = read_bytes(str(path), "config")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"config {path}: TOML is required; {error or 'it is nested too deeply'}") from None


def config_toml(config: TrainConfig) -> bytes:
    """Return config.toml: complete, so that `--config` with it asks for the same run."""
    return tomli_w.dumps(to_dict(config)).encode()


def resumed(old: TrainConfig, *layers: tuple[str, Mapping[str, Any]]) -> TrainConfig:
    """Return the config to go on with: `old` below the layers, which may say only what doesn't make it another run.

    Errors: `UserError` naming the key that can't change.
    """
    new = config_from(("the run's config.toml", to_dict(old)), *layers)
    was = dict(leaves(to_dict(old)))
    for key, value in leaves(to_dict(new)):
        before = was.get(key, "unset")
        if value != before and key not in _MAY_CHANGE:
            raise UserError(
                f"resuming: {_flag(key)} is required to stay {before!r}, as the run began; got {value!r}; leave it "
                "out, or train anew without --resume"
            )
    return new


def _overlay(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return `lower` with what `upper` says on top, section by section."""
    result = dict(lower)
    for group in _ALTERNATIVES:
        # data = "files" says nothing: naming files implies it
        chosen = [keys for keys in group if any(upper.get(key) not in (None, "", 0, "files") for key in keys)]
        for key in (key for keys in group if chosen and keys not in chosen for key in keys):
            result.pop(key, None)
    for key, value in upper.items():
        result[key] = _overlay(result.get(key, {}), value) if isinstance(value, Mapping) else value
    return result


# ---- what can't be, told before anything is begun ----

Layers = tuple[tuple[str, Mapping[str, Any]], ...]


def _check(config: TrainConfig, layers: Layers) -> None:
    _check_files(config)
    _check_ranges(config, layers)
    try:
        dataclasses.replace(config.model, source_vocabulary=1, target_vocabulary=1).check()
    except ValueError as error:
        keys = ("width", "heads", "dropout", "attention_dropout", "feed_forward_dropout", "embedding_dropout")
        where = {_origin(f"model.{key}", layers) for key in keys} - {"config"}
        problem = str(error).removeprefix("TransformerConfig: ")
        raise UserError(f"{where.pop() if len(where) == 1 else 'config'}: {problem}") from None
    if not (config.steps or config.epochs):
        raise UserError("config: an end is required; got neither --steps nor --epochs above 0; give one")
    if bool(config.batch_tokens) == bool(config.batch_sentences):
        raise UserError(
            f"config: either --batch-tokens or --batch-sentences is required; got {config.batch_tokens} and "
            f"{config.batch_sentences}; give one of them, above 0"
        )
    if config.model.tie_embeddings and not config.tokenizer.shared:
        raise UserError("config: tied embeddings need a shared vocabulary; leave out one of the two flags")
    if config.best_by == "bleu" and not config.bleu_sentences:
        raise UserError("config: --best-by bleu needs BLEU; got --bleu-sentences 0; give some, as 500")
    if config.tokenizer.dropout and config.tokenizer.type != "bpe":
        raise UserError(
            f"config: --tokenizer.dropout leaves out merges of BPE; got --tokenizer.type {config.tokenizer.type}; "
            "leave out one of the two flags"
        )


def _check_ranges(config: TrainConfig, layers: Layers) -> None:
    for key, value in leaves(to_dict(config)):
        low, high = _RANGES.get(key, (0, LARGEST))
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(n, int | float) and not low <= n <= high for n in numbers):
            limits = f"at least {low}" if high == LARGEST and all(n < low for n in numbers) else f"from {low} to {high}"
            raise UserError(f"{_origin(key, layers)}: {_flag(key)} must be {limits}, got {value}")


def _origin(key: str, layers: Layers) -> str:
    """Return where a key's value is from: the uppermost layer that has it."""
    for where, layer in reversed(layers):
        if key in dict(leaves(layer)):
            return where
    return "config"


_RANGES: dict[str, tuple[float, float]] = {
    "keep": (1, LARGEST),
    "tokenizer.vocabulary": (1, 2**20),
    "tokenizer.coverage": (0.5, 1),
    "tokenizer.dropout": (0, 0.999),
    "model.layers": (1, 1000),
    "model.width": (1, 2**20),
    "model.heads": (1, 2**20),
    "model.feed_forward": (1, 2**20),
    "model.max_length": (2, 2**20),
    "optim.betas": (0, 1 - 1e-9),
    "optim.momentum": (0, 1 - 1e-9),
    "optim.eps": (1e-16, 1),  # below that float32 loses it beside any gradient, and 0 / 0 is left
    "optim.label_smoothing": (0, 0.999),
    "optim.accumulate": (1, LARGEST),
    "optim.ema": (0, 1 - 1e-9),
    "optim.max_skipped": (1, LARGEST),
}


def _check_files(config: TrainConfig) -> None:
    if config.data != "files":
        return
    for part in ("train", "valid"):
        source, target, tsv = (getattr(config, f"{part}_{side}") for side in ("source", "target", "tsv"))
        if not (bool(source) == bool(target) and bool(tsv) != bool(source)):
            raise UserError(
                f"config: --{part}-source and --{part}-target, or --{part}-tsv alone, are required; got "
                f"{', '.join(_flag(k) for k in _FILES if k.startswith(part) and getattr(config, k)) or 'none of them'}"
            )


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")
