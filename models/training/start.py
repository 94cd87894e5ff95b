"""From a config to a run that can begin: all is read, learned, built and checked, and its directory made last."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tensorlib as tl
from models.architectures.build import build_model
from models.architectures.transformer import Transformer, TransformerConfig
from models.runs.config import TrainConfig, resumed
from models.runs.directory import create_run, read_config, refuse_existing
from models.system.errors import UserError
from models.system.stopping import Stopper
from models.text.subwords import Tokenizer
from models.training.corpus import Corpus, Examples, encode_corpus, read_corpus, train_tokenizer

__all__ = ["Run", "model_config", "open_backend", "resume_run", "start_run", "tokenizer_digest"]


@dataclass(frozen=True)
class Run:
    """A run directory, and what has been made or read for it."""

    path: Path
    config: TrainConfig
    corpus: Corpus
    tokenizer: Tokenizer
    examples: Examples
    model: Transformer


def open_backend(name: str) -> str:
    """Return the backend's own name. Errors: `UserError` where there is no such backend, or no GPU for it."""
    try:
        return tl.get_backend(name).name
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--backend {name}: {error}") from None


def start_run(config: TrainConfig, out: Path | None, stopper: Stopper) -> Run:
    """Read, learn and build all that training needs; the run's directory comes last, when nothing can be wrong."""
    if out:
        refuse_existing(out)
    backend = open_backend(config.backend)
    corpus = read_corpus(config)
    tokenizer = train_tokenizer(config, corpus)
    examples = encode_corpus(config, corpus, tokenizer)
    model = _new_model(config, tokenizer, backend)
    stopper.patient = True  # from here on a signal waits for the first checkpoint
    return Run(create_run(config, tokenizer, out), config, corpus, tokenizer, examples, model)


def resume_run(path: Path, stopper: Stopper, *layers: tuple[str, Mapping[str, Any]]) -> Run:
    """Read again what a run was begun with; `layers`, as `config_from` takes them, may change a little.

    Nothing is written: whoever goes on with the run keeps the new config in it.
    """
    config = resumed(read_config(path), *layers)
    backend = open_backend(config.backend)
    tokenizer = Tokenizer.load(path)
    corpus = read_corpus(config)
    examples = encode_corpus(config, corpus, tokenizer)
    model = _new_model(config, tokenizer, backend)
    stopper.patient = True
    return Run(path, config, corpus, tokenizer, examples, model)


def _new_model(config: TrainConfig, tokenizer: Tokenizer, backend: str) -> Transformer:
    """Seed all randomness, and draw the first weights from the same stream that dropout goes on with."""
    tl.seed(config.seed)
    model = build_model(model_config(config, tokenizer), tl.default_generator())
    model.to(backend)
    model.train()
    return model


def model_config(config: TrainConfig, tokenizer: Tokenizer) -> TransformerConfig:
    """Return what the model is built from: the config's, with vocabularies as large as the tokenizer's."""
    return replace(config.model, source_vocabulary=tokenizer.source_size, target_vocabulary=tokenizer.target_size)


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Return what tells these subwords from any others."""
    return hashlib.sha256(tokenizer.source.model + b"\0" + tokenizer.target.model).hexdigest()
