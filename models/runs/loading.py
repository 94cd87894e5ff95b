"""From a run directory to a model ready for use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tensorlib as tl
from models.architectures.build import Config, build_model, with_vocabularies
from models.architectures.encoder_decoder import EncoderDecoder
from models.runs.checkpoint import (
    BEST,
    load_weights,
    newest_checkpoint,
    read_checkpoint,
    require_model,
    tokenizer_digest,
)
from models.runs.config import TrainConfig
from models.runs.directory import CONFIG, find_run, newest_run, read_config
from models.system.errors import CheckpointError, UserError
from models.text.subwords import Tokenizer
from tensorlib.kernels.precision import GPU_ONLY, refusal

__all__ = ["Loaded", "load_run", "model_config", "open_backend", "require_precision"]


@dataclass(frozen=True)
class Loaded:
    """A trained model in evaluation mode, with its tokenizer and config."""

    path: Path  # the checkpoint that the weights are from
    config: TrainConfig
    tokenizer: Tokenizer
    model: EncoderDecoder


def load_run(run: Path | None, backend: str, warn: Callable[[str], None] = lambda text: None) -> Loaded:
    """Load the best weights of a run (None: the newest run) or, if `run` is a file, the weights of that checkpoint.

    A run without best weights, such as one stopped before its first validation, has those of its newest checkpoint;
    then `warn(text)` is called.

    Errors: `UserError` naming a file that is missing or damaged, or that belongs to a different model.
    """
    backend = open_backend(backend)
    file = run if run is not None and run.is_file() else None
    if file and not (file.parent / CONFIG).is_file():
        if file.suffix != ".safetensors":
            raise UserError(
                f"--run {file}: a run's directory, or a checkpoint in it, is required; this is another file"
            )
        raise UserError(
            f"--run {file}: a checkpoint in its run's directory is required, with {CONFIG} and the subwords beside it; "
            f"{file.parent.absolute()} has no {CONFIG}; name another"
        )
    # By default, take the newest run with weights: a run that has just begun, or failed early, has nothing to load.
    directory = find_run(file.parent if file else run or newest_run(trained=True))
    config, tokenizer = read_config(directory), Tokenizer.load(directory)
    path = file or directory / BEST
    if file is None and not path.exists():
        found = newest_checkpoint(directory)
        if found is None:
            raise UserError(f"run {directory}: a checkpoint is required; the run has none yet; train it with --resume")
        path, checkpoint = found
        warn(f"{directory} has no {BEST}; the weights of its newest checkpoint, {path.name}, are used")
    else:
        checkpoint = read_checkpoint(path)
    if checkpoint.tokenizer != tokenizer_digest(tokenizer):
        raise CheckpointError(
            f"checkpoint {path}: weights of this run's model are required; these were trained with different subwords; "
            "either it or the tokenizer is from another run: restore the right one"
        )
    settings = model_config(config, tokenizer)
    require_model(settings, checkpoint, path)  # before a model of that size is built
    model = build_model(settings)
    load_weights(model, checkpoint, path)
    return Loaded(path, config, tokenizer, model.to(backend).eval())


def open_backend(name: str) -> str:
    """Return a backend's canonical name. Errors: `UserError` if there is no such backend, or no GPU for it."""
    try:
        return tl.get_backend(name).name
    except (RuntimeError, ValueError) as error:
        reason = str(error).removeprefix("backend: ").removeprefix("'cupy' ")
        raise UserError(f"--backend {name}: {reason}") from None


def require_precision(config: TrainConfig) -> None:
    """Raise `UserError` if this machine, or the config's backend, does not multiply in the config's precision."""
    name, backend = config.precision, open_backend(config.backend)
    problem = refusal(name, backend)
    if problem is None:
        return
    reason = str(problem).removeprefix("precision: ").removeprefix(f"{name} ")
    if backend == "numpy" and name in GPU_ONLY:
        reason = "needs --backend cupy; a CPU has float32 and bf16"
    elif backend == "numpy" and name == "bf16":
        reason += "; on a GPU, add --backend cupy"
    raise UserError(f"--precision {name}: {reason}")


def model_config(config: TrainConfig, tokenizer: Tokenizer) -> Config:
    """Return the run's model config with the tokenizer's vocabulary sizes."""
    return with_vocabularies(config.model, tokenizer.source_size, tokenizer.target_size)
