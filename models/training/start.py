"""Start and resume a run. Everything is read, learned, built and checked before a run's directory is created."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tensorlib as tl
from models.architectures.build import build_model
from models.architectures.transformer import Transformer
from models.runs.checkpoint import require_room
from models.runs.config import TrainConfig
from models.runs.config_layers import Layer, resumed
from models.runs.directory import create_run, read_config, refuse_existing
from models.runs.loading import model_config, open_backend
from models.system.stopping import Stopper
from models.text.subwords import Tokenizer
from models.training.corpus import Corpus, Examples, encode_corpus, read_corpus, train_tokenizer

__all__ = ["Run", "resume_run", "start_run"]


@dataclass(frozen=True)
class Run:
    """A run directory, and everything read or built for training in it."""

    path: Path
    config: TrainConfig
    corpus: Corpus
    tokenizer: Tokenizer
    examples: Examples
    model: Transformer


def start_run(config: TrainConfig, out: Path | None, stopper: Stopper) -> Run:
    """Read, learn and build everything that training needs; last, when nothing else can fail, create the directory."""
    if out:
        refuse_existing(out)
    backend = open_backend(config.backend)
    corpus = read_corpus(config)
    tokenizer = train_tokenizer(config, corpus)
    examples = encode_corpus(config, corpus, tokenizer)
    model = _new_model(config, tokenizer, backend)
    stopper.patient = True  # from here on a signal waits until a checkpoint can be saved
    return Run(create_run(config, tokenizer, out), config, corpus, tokenizer, examples, model)


def resume_run(path: Path, stopper: Stopper, *layers: Layer) -> Run:
    """Read a run's config, tokenizer and text again; `layers`, as for `config_from`, may change a few settings.

    Nothing is written: the caller saves the new config.
    """
    config = resumed(read_config(path), *layers)
    backend = open_backend(config.backend)
    tokenizer = Tokenizer.load(path)
    corpus = read_corpus(config)
    examples = encode_corpus(config, corpus, tokenizer)
    require_room(model_config(config, tokenizer), path)
    model = _new_model(config, tokenizer, backend)
    stopper.patient = True
    return Run(path, config, corpus, tokenizer, examples, model)


def _new_model(config: TrainConfig, tokenizer: Tokenizer, backend: str) -> Transformer:
    """Seed all randomness, and initialize the weights from the random stream that dropout continues."""
    tl.seed(config.seed)
    model = build_model(model_config(config, tokenizer), tl.default_generator())
    model.to(backend)
    model.train()
    return model
