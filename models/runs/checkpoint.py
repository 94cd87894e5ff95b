"""Checkpoints: one safetensors file holds everything that resuming a run needs, and a digest to verify it.

The tensors are named `model.NAME`, `optimizer.NAME` and, with a moving average, `latest.NAME`; in fp16 `scale.NAME` is
the state of the loss scale. The metadata is JSON:
the format number, the other fields of `Checkpoint`, and a digest of everything, because safetensors detects a truncated
file but not a flipped bit.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

import tensorlib as tl
from models.architectures.build import Config, config_from_dict, config_to_dict, parameter_shapes_of
from models.architectures.encoder_decoder import EncoderDecoder
from models.runs.checkpoint_checks import (
    check_config_copy,
    check_keys,
    check_tensors,
    checked_section,
    checked_value,
    require_dict,
)
from models.system.digests import digest
from models.system.errors import CheckpointError, UserError
from models.system.files import require_file
from models.text.subwords import Tokenizer
from tensorlib.exchange.safetensors import load_with_metadata
from tensorlib.messages import shown

__all__ = [
    "Checkpoint",
    "Progress",
    "digest",
    "load_weights",
    "newest_checkpoint",
    "parts",
    "prune",
    "read_checkpoint",
    "require_model",
    "require_room",
    "step_checkpoints",
    "step_path",
    "tokenizer_digest",
    "write_checkpoint",
]

FORMAT = 2  # in format 1 the digest takes the shape () for (1,), and not every key below is present
FORMATS = (1, FORMAT)
LATER = {  # keys that the first checkpoints of format 1 lack
    "progress": ("best_bleu", "waited"),
    "model": ("attention_dropout", "feed_forward_dropout", "embedding_dropout"),
}
BEST = "best.safetensors"
# What the names of step checkpoints that were set aside begin with: because of their weights (see
# training/divergence.py), or because they can't be read.
DIVERGED, UNUSABLE = "diverged-", "unusable-"
OTHERS = "restore it, or remove it to use the run's other checkpoints"
STEP = r"step-\d{8,}\.safetensors"  # matches the names that step_path gives


@dataclass
class Progress:
    """How far a run has come. Together with weights, optimizer, config and text, it determines the rest of the run."""

    step: int = 0  # steps taken, including skipped ones
    epoch: int = 0  # epoch of the next batch, counted from 0
    batch: int = 0  # number of batches of this epoch already used
    random: tuple[int, int] = (0, 0)  # state of the generator that dropout draws from
    skipped: int = 0  # how many steps in a row, up to now, were skipped for a non-finite loss or gradient
    validated: int = 0  # step of the latest validation
    best_step: int = 0  # step of the best validation, by loss or by BLEU as the config says
    best_loss: float | None = None  # loss of the best validation
    best_bleu: float | None = None  # BLEU of the best validation, if measured
    waited: int = 0  # validations since the best one


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file."""

    model: dict[str, np.ndarray]  # the weights to evaluate: the moving average, if there is one (--optim.ema)
    optimizer: dict[str, np.ndarray]
    model_config: Config
    progress: Progress
    config: dict[str, Any]  # a copy of the run's config to look at; loading uses config.toml
    tokenizer: str  # digest of the subword models; with different ones the weights are useless
    data: str  # digest of the text
    # If `model` is a moving average: the weights that training continues from.
    latest: dict[str, np.ndarray] = field(default_factory=dict)
    # If `tensorlib average` wrote the file: the steps whose weights were averaged.
    averaged: list[int] = field(default_factory=list)
    # In fp16: the scale of the loss, and after how many good steps.
    scale: dict[str, np.ndarray] = field(default_factory=dict)


def step_path(run: Path, step: int) -> Path:
    """Return the path of a step's checkpoint."""
    return run / f"step-{step:08d}.safetensors"


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically; equal checkpoints give equal bytes. Errors: OSError, e.g. for a full disk."""
    tensors, metadata = parts(checkpoint)
    tl.save(tensors, path, metadata | {"digest": digest(tensors, metadata)})


def parts(checkpoint: Checkpoint) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the tensors of a checkpoint's file, and its metadata without the digest."""
    tensors = {f"model.{name}": array for name, array in checkpoint.model.items()}
    tensors |= {f"optimizer.{name}": array for name, array in checkpoint.optimizer.items()}
    tensors |= {f"latest.{name}": array for name, array in checkpoint.latest.items()}
    tensors |= {f"scale.{name}": array for name, array in checkpoint.scale.items()}
    metadata = {
        "format": FORMAT,
        "model": config_to_dict(checkpoint.model_config),
        "progress": asdict(checkpoint.progress),
        "config": checkpoint.config,
        "tokenizer": checkpoint.tokenizer,
        "data": checkpoint.data,
        "averaged": checkpoint.averaged,
    }
    return tensors, metadata


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, and verify that it is undamaged and could have been written by `tensorlib train`.

    The memory needed is bounded by the size of the file. Errors: `CheckpointError`, which names the file.
    """
    try:
        require_file(str(path), "checkpoint", "name a file in it, such as best.safetensors")
        tensors, metadata = _verified(path)
        checkpoint = _from_parts(tensors, metadata, f"checkpoint {path}: metadata")
    except UserError as error:
        raise CheckpointError(*error.args) from None
    except RecursionError:
        raise CheckpointError(f"checkpoint {path}: metadata: it is nested too deeply") from None
    step = checkpoint.progress.step
    if re.fullmatch(STEP, path.name) and path.name != step_path(path.parent, step).name:
        raise CheckpointError(f"checkpoint {path}: the step that its name says is required; got step {step}")
    return checkpoint


def _verified(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the tensors and the metadata, without the digest, of a file that matches its digest."""
    try:
        _require_safetensors(path)
        tensors, metadata = load_with_metadata(path)
    except OSError as error:
        reason = (error.strerror or "no such file").lower()
        raise UserError(f"checkpoint {path}: a readable file is required; {reason}") from None
    except ValueError as error:
        reason = str(error).partition("safetensors file: ")[2] or str(error)
        raise UserError(f"{_damaged(path)} is damaged: {reason}; {OTHERS}") from None
    if "format" not in metadata:
        raise UserError(f"checkpoint {path}: a file of `tensorlib train` is required; this one lacks its metadata")
    recorded, number = metadata.pop("digest", None), metadata["format"]
    if type(number) is not int or number not in FORMATS:
        raise UserError(f"checkpoint {path}: format {FORMAT} is required, got {shown(number)}; train again")
    if recorded != digest(tensors, metadata):
        raise UserError(f"{_damaged(path)} does not match its own digest; {OTHERS}")
    return tensors, metadata


def _damaged(path: Path) -> str:
    return f"checkpoint {path}: an undamaged file is required; this one"


def _require_safetensors(path: Path) -> None:
    """Raise `UserError` for a file of a different type, such as config.toml, which `load` would report as damaged."""
    with path.open("rb") as file:
        start = file.read(9)
    if not start:
        raise UserError(f"{_damaged(path)} is empty; {OTHERS}")
    if len(start) == 9 and start[8:] != b"{":  # 8 bytes with the length of a JSON object, then the object
        raise UserError(
            f"checkpoint {path}: a .safetensors file of `tensorlib train` is required; this one begins with "
            f"{start.decode('ascii', 'replace')!r}, as no .safetensors file does; restore it, or name another"
        )


def _from_parts(tensors: Mapping[str, np.ndarray], metadata: dict[str, Any], where: str) -> Checkpoint:
    """Check every part of the file, and return them. Errors: `UserError` with `where` and the key or the tensor."""
    old = metadata["format"] < FORMAT
    values = {"averaged": [], **metadata} if old else metadata
    keys = ("format", "model", "progress", "config", "tokenizer", "data", "averaged")
    check_keys(values, keys, where)
    progress = checked_section(Progress, values["progress"], where, "progress", LATER["progress"] if old else ())
    for name in ("epoch", "skipped", "validated", "best_step", "waited"):
        count = getattr(progress, name)
        if count > progress.step:
            raise UserError(f"{where}: progress.{name} must be at most {progress.step}, the step; got {count}")
    config = _model_config(values["model"], where, LATER["model"] if old else ())
    check_tensors(tensors, config, progress.step, where.removesuffix(": metadata"))
    return Checkpoint(
        model=_part(tensors, "model."),
        optimizer=_part(tensors, "optimizer."),
        model_config=config,
        progress=progress,
        config=check_config_copy(values["config"], where),
        tokenizer=checked_value(str, values["tokenizer"], where, "tokenizer"),
        data=checked_value(str, values["data"], where, "data"),
        latest=_part(tensors, "latest."),
        scale=_part(tensors, "scale."),
        averaged=checked_value(list[int], values["averaged"], where, "averaged"),
    )


def _model_config(values: Any, where: str, later: tuple[str, ...]) -> Config:
    given = require_dict(values, where, "model")
    try:
        config = config_from_dict(given, lambda cls, fields: checked_section(cls, fields, where, "model", later))
        config.check()
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    return config


def _part(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Return a digest of the subword models of both sides."""
    return hashlib.sha256(tokenizer.source.model + b"\0" + tokenizer.target.model).hexdigest()


def require_model(config: Config, checkpoint: Checkpoint, path: Path) -> None:
    """Raise `CheckpointError` naming each difference unless a checkpoint has the weights of this model."""
    theirs = checkpoint.model_config
    compared = [f.name for f in fields(config)] if type(config) is type(theirs) else ["kind"]
    differences = [
        f"{name} {getattr(theirs, name)} instead of {getattr(config, name)}"
        for name in compared
        if getattr(config, name) != getattr(theirs, name)
    ]
    if differences:
        raise CheckpointError(
            f"checkpoint {path}: weights of this run's model are required; this file has {', '.join(differences)}; "
            "either it or config.toml is from another run: restore the right one"
        )


def require_room(config: Config, run: Path) -> None:
    """Raise `UserError` if no step checkpoint of the run is large enough for the weights of this model.

    A config.toml that was changed is thus refused before a model of any size is built from it.
    """
    files = step_checkpoints(run)
    needed = 4 * sum(map(math.prod, parameter_shapes_of(config).values()))
    largest = max((file.stat().st_size for file in files), default=needed)
    if largest < needed:
        newest_checkpoint(run)  # raises if they are at fault: cut off, for example
        raise UserError(
            f"run {run}: the config.toml that it began with is required; the model of this one needs {needed:,} bytes, "
            f"but the largest checkpoint has {largest:,}; restore it"
        )


def load_weights(model: EncoderDecoder, checkpoint: Checkpoint, path: Path) -> None:
    """Load a checkpoint's weights into a model. Errors: those of `require_model`."""
    require_model(model.config, checkpoint, path)
    try:
        model.load_state_dict(checkpoint.model)
    except ValueError as error:
        raise CheckpointError(f"checkpoint {path}: {error}") from None


def newest_checkpoint(run: Path, warn: Callable[[str], None] | None = None) -> tuple[Path, Checkpoint] | None:
    """Return the newest usable step checkpoint of a run, or None.

    If training falls back to it, which `warn` says, each newer, unusable one is set aside, so that it isn't counted
    among those that a run keeps, or averages; `warn(text)` is called for it.

    Errors: `UserError` if there are checkpoints but none is usable, because starting over silently would lose them.
    """
    paths, unusable = step_checkpoints(run), []
    for path in reversed(paths):
        try:
            found = path, read_checkpoint(path)
        except UserError as error:
            unusable.append((path, str(error)))
            continue
        if warn:
            for bad, problem in unusable:
                warn(f"{problem.removesuffix(f'; {OTHERS}')}; {_set_aside(bad)}; training continues from {path.name}")
        return found
    if warn:
        for _, problem in unusable:
            warn(problem)
    if paths:
        names = ", ".join(path.name for path in paths[-3:])
        raise UserError(
            f"run {run}: a usable checkpoint is required; found {len(paths)}, none usable ({names}); restore one, or "
            "train again with another --out"
        )
    return None


def _set_aside(path: Path) -> str:
    """Rename an unusable step checkpoint, and say so."""
    try:
        return f"set aside as {path.replace(path.with_name(path.name.replace('step-', UNUSABLE, 1))).name}"
    except OSError as error:
        return f"it stays, because it can't be renamed ({error.strerror or error})"


def step_checkpoints(run: Path) -> list[Path]:
    """Return the step checkpoints of a run, oldest first."""
    paths = (path for path in run.iterdir() if re.fullmatch(STEP, path.name))
    return sorted(paths, key=lambda path: int(path.stem.removeprefix("step-")))


def prune(run: Path, keep: int, newest: Path | None = None, and_oldest: bool = False) -> None:
    """Remove all step checkpoints up to `newest` except the last `keep` and, if `and_oldest`, the first."""
    paths = step_checkpoints(run)
    end = paths.index(newest) + 1 if newest in paths else len(paths)  # damaged ones may follow it
    for path in paths[:end][and_oldest:-keep]:
        with suppress(PermissionError):  # on Windows, one that is being read stays until the next time
            path.unlink(missing_ok=True)
