"""Checkpoints: one safetensors file holds everything that resuming a run needs, and a digest to verify it.

The tensors are named `model.NAME`, `optimizer.NAME` and, with a moving average, `latest.NAME`. The metadata is JSON:
the format number, the other fields of `Checkpoint`, and a digest of everything, because safetensors detects a truncated
file but not a flipped bit.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

import tensorlib as tl
from models.architectures.build import config_from_dict, config_to_dict
from models.architectures.transformer import Transformer, TransformerConfig
from models.system.errors import UserError
from models.system.files import require_file
from models.text.subwords import Tokenizer
from tensorlib.exchange.safetensors import load_with_metadata

__all__ = [
    "Checkpoint",
    "Progress",
    "digest",
    "load_weights",
    "newest_checkpoint",
    "prune",
    "read_checkpoint",
    "step_checkpoints",
    "step_path",
    "tokenizer_digest",
    "write_checkpoint",
]

FORMAT = 1
BEST = "best.safetensors"
DIVERGED = "diverged-"  # begins the names of step checkpoints that were set aside: see training/divergence.py
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
    model_config: TransformerConfig
    progress: Progress
    config: dict[str, Any]  # a copy of the run's config to look at; loading uses config.toml
    tokenizer: str  # digest of the subword models; with different ones the weights are useless
    data: str  # digest of the text
    # If `model` is a moving average: the weights that training continues from.
    latest: dict[str, np.ndarray] = field(default_factory=dict)
    # If `tensorlib average` wrote the file: the steps whose weights were averaged.
    averaged: list[int] = field(default_factory=list)


def step_path(run: Path, step: int) -> Path:
    """Return the path of a step's checkpoint."""
    return run / f"step-{step:08d}.safetensors"


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically; equal checkpoints give equal bytes. Errors: OSError, e.g. for a full disk."""
    tensors = {f"model.{name}": array for name, array in checkpoint.model.items()}
    tensors |= {f"optimizer.{name}": array for name, array in checkpoint.optimizer.items()}
    tensors |= {f"latest.{name}": array for name, array in checkpoint.latest.items()}
    metadata = {
        "format": FORMAT,
        "model": config_to_dict(checkpoint.model_config),
        "progress": asdict(checkpoint.progress),
        "config": checkpoint.config,
        "tokenizer": checkpoint.tokenizer,
        "data": checkpoint.data,
    }
    if checkpoint.averaged:
        metadata["averaged"] = checkpoint.averaged
    tl.save(tensors, path, metadata | {"digest": digest(tensors, metadata)})


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint. Errors: `UserError` naming the file if it is not an undamaged checkpoint."""
    require_file(str(path), "checkpoint", "name a file in it, such as best.safetensors")
    try:
        _require_safetensors(path)
        tensors, metadata = load_with_metadata(path)
    except OSError as error:
        reason = (error.strerror or "no such file").lower()
        raise UserError(f"checkpoint {path}: a readable file is required; {reason}") from None
    except (ValueError, RecursionError) as error:
        reason = str(error).partition("safetensors file: ")[2] or str(error)
        raise UserError(f"checkpoint {path}: an undamaged file is required; this one is damaged: {reason}") from None
    if not isinstance(metadata, dict) or "format" not in metadata:
        raise UserError(f"checkpoint {path}: a file of `tensorlib train` is required; this one lacks its metadata")
    recorded = metadata.pop("digest", None)
    if metadata["format"] != FORMAT:
        raise UserError(f"checkpoint {path}: format {FORMAT} is required, got {metadata['format']!r}; train again")
    if recorded != digest(tensors, metadata):
        raise UserError(f"checkpoint {path}: an undamaged file is required; this one does not match its own digest")
    try:
        return _from_parts(tensors, metadata)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"checkpoint {path}: metadata as `tensorlib train` writes it is required; {reason}") from None


def _require_safetensors(path: Path) -> None:
    """Raise `UserError` for a file of a different type, such as config.toml, which `load` would report as damaged."""
    with path.open("rb") as file:
        start = file.read(9)
    if len(start) == 9 and start[8:] != b"{":  # 8 bytes with the length of a JSON object, then the object
        raise UserError(
            f"checkpoint {path}: a .safetensors file of `tensorlib train` is required; this one begins with "
            f"{start.decode('ascii', 'replace')!r}, as no .safetensors file does; name another file"
        )


def _from_parts(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> Checkpoint:
    values = dict(metadata["progress"])
    values["random"] = tuple(values["random"])
    values.setdefault("best_bleu", None)  # older checkpoints have neither `best_bleu` nor `waited`
    averaged = metadata.get("averaged", [])
    counts = [value for name, value in values.items() if name not in ("random", "best_loss", "best_bleu")]
    if (
        not all(type(n) is int and n >= 0 for n in [*counts, *values["random"], *averaged])
        or len(values["random"]) != 2
    ):
        raise ValueError(f"progress {metadata['progress']}, averaged {averaged}")
    if not (isinstance(metadata["config"], dict) and isinstance(averaged, list)):
        raise TypeError(f"averaged {averaged!r}, config {type(metadata['config']).__name__}")
    if not all(isinstance(values[best], float | None) for best in ("best_loss", "best_bleu")):
        raise TypeError(f"best loss {values['best_loss']!r}, best BLEU {values['best_bleu']!r}")
    return Checkpoint(
        model=_part(tensors, "model."),
        optimizer=_part(tensors, "optimizer."),
        model_config=config_from_dict(metadata["model"]),
        progress=Progress(**values),
        config=metadata["config"],
        tokenizer=metadata["tokenizer"],
        data=metadata["data"],
        latest=_part(tensors, "latest."),
        averaged=averaged,
    )


def _part(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def digest(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> str:
    """Return a digest of the tensors' names, dtypes, shapes and values, and of the metadata, as yet without digest."""
    hasher = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        hasher.update(f"{name} {array.dtype.str} {array.shape}".encode())
        hasher.update(array.reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Return a digest of the subword models of both sides."""
    return hashlib.sha256(tokenizer.source.model + b"\0" + tokenizer.target.model).hexdigest()


def load_weights(model: Transformer, checkpoint: Checkpoint, path: Path) -> None:
    """Load a checkpoint's weights into a model. Errors: `UserError` naming each difference of the model configs."""
    ours, theirs = model.config, checkpoint.model_config
    differences = [
        f"{f.name} {getattr(theirs, f.name)} instead of {getattr(ours, f.name)}"
        for f in fields(ours)
        if getattr(ours, f.name) != getattr(theirs, f.name)
    ]
    if differences:
        raise UserError(
            f"checkpoint {path}: weights of this run's model are required; this file has {', '.join(differences)}"
        )
    try:
        model.load_state_dict(checkpoint.model)
    except ValueError as error:
        raise UserError(f"checkpoint {path}: {error}") from None


def newest_checkpoint(run: Path, warn: Callable[[str], None] | None = None) -> tuple[Path, Checkpoint] | None:
    """Return the newest usable step checkpoint of a run, or None; call `warn(text)` for each newer, unusable one.

    Errors: `UserError` if there are checkpoints but none is usable, because starting over silently would lose them.
    """
    paths = step_checkpoints(run)
    for path in reversed(paths):
        try:
            return path, read_checkpoint(path)
        except UserError as error:
            if warn:
                warn(f"{error}; trying the previous checkpoint")
    if paths:
        raise UserError(f"run {run}: a usable checkpoint is required; found {len(paths)}, none usable; train again")
    return None


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
