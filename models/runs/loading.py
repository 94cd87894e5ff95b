"""From a run directory to a model that can be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.architectures.build import build_model
from models.architectures.transformer import Transformer
from models.runs.checkpoint import BEST, load_weights, newest_checkpoint, read_checkpoint
from models.runs.config import TrainConfig
from models.runs.directory import find_run, newest_run, read_config
from models.system.errors import UserError
from models.text.subwords import Tokenizer
from models.training.start import model_config, open_backend, tokenizer_digest

__all__ = ["Loaded", "load_run"]


@dataclass(frozen=True)
class Loaded:
    """A trained model, in evaluation mode, and what belongs to it."""

    path: Path
    """The checkpoint that the weights are from."""
    config: TrainConfig
    tokenizer: Tokenizer
    model: Transformer


def load_run(run: Path | None, backend: str) -> Loaded:
    """Load the best weights of a run (the newest where None), or, where `run` is a file, of that checkpoint in it.

    Errors: `UserError` naming what is missing, damaged, or of another model.
    """
    backend = open_backend(backend)
    file = run if run is not None and run.is_file() else None
    # of runs/ the newest that can be used: one that has just begun, or died early, has nothing to use yet
    directory = find_run(file.parent if file else run or newest_run(trained=True))
    config, tokenizer = read_config(directory), Tokenizer.load(directory)
    path = file or directory / BEST
    if file is None and not path.exists():  # stopped before its first validation
        found = newest_checkpoint(directory)
        if found is None:
            raise UserError(f"run {directory}: a checkpoint is required; there is none yet; train it with --resume")
        path, checkpoint = found
    else:
        checkpoint = read_checkpoint(path)
    if checkpoint.tokenizer != tokenizer_digest(tokenizer):
        raise UserError(
            f"checkpoint {path}: weights of this run's model are required; it was trained with other subwords"
        )
    model = build_model(model_config(config, tokenizer))
    load_weights(model, checkpoint, path)
    return Loaded(path, config, tokenizer, model.to(backend).eval())
