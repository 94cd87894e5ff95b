"""Writing a run's checkpoints, restoring the newest one, and removing those that newer ones replace.

A scheduled checkpoint is one that an uninterrupted run also writes. A stopped run may write an extra checkpoint, called
a stopgap, which the next one replaces. A finished run thus has the same checkpoints whether or not it was stopped.

Whether the weights of a checkpoint give a finite loss is known only from the next step. Older checkpoints stay until
then, so that after a divergence one from before it is left.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import numpy as np

import tensorlib as tl
from models.runs.checkpoint import (
    BEST,
    Checkpoint,
    Progress,
    load_weights,
    newest_checkpoint,
    prune,
    read_checkpoint,
    step_path,
    tokenizer_digest,
    write_checkpoint,
)
from models.runs.directory import has_weights
from models.runs.nested_dicts import to_dict
from models.system.errors import CheckpointError, UserError
from models.training.divergence import Diverged
from models.training.milestones import is_due
from models.training.start import Run
from nn import optim
from nn.averaging import ExponentialMovingAverage

__all__ = ["CheckpointSaver", "averaged_weights"]


def averaged_weights(average: ExponentialMovingAverage | None) -> AbstractContextManager[None]:
    """Return a context manager that puts the moving average, if there is one, into the model."""
    return average.applied() if average else nullcontext()


class CheckpointSaver:
    """Writes and restores the weights, optimizer, moving average, progress and random state of a run."""

    def __init__(self, run: Run, optimizer: optim.Optimizer, average: ExponentialMovingAverage | None) -> None:
        self.run, self.config, self.model = run, run.config, run.model
        self.optimizer, self.average = optimizer, average
        self._tokenizer, self._data = tokenizer_digest(run.tokenizer), run.corpus.digest()
        self.scale: optim.LossScale | None = None  # of a run in fp16, which sets it
        self._scale: dict[str, np.ndarray] = {}  # that of the checkpoint that was restored
        self._saved = (-1, -1)  # step and latest validated step of the newest checkpoint
        self._stopgap: Path | None = None
        self._unpruned: Path | None = None  # a scheduled checkpoint, older ones than which may have to be removed

    def restore(self, warn: Callable[[str], None]) -> Progress:
        """Restore the newest usable checkpoint, if there is any, and return the run's progress."""
        found = newest_checkpoint(self.run.path, warn)
        if found is None:
            self._require_beginning(warn)
            return Progress(random=tl.default_generator().state)
        path, checkpoint = found
        self._require_same_text(path, checkpoint)
        load_weights(self.model, checkpoint, path)
        try:
            if self.average:
                self.average.begin()
                self.model.load_state_dict(checkpoint.latest)
            self.optimizer.load_state_dict(checkpoint.optimizer)
        except ValueError as error:
            raise CheckpointError(f"checkpoint {path}: {error}") from None
        self._scale = checkpoint.scale
        tl.default_generator().state = checkpoint.progress.random
        self._record_saved(path, checkpoint.progress)
        return checkpoint.progress

    def follow(self, scale: optim.LossScale | None) -> None:
        """Restore the loss scale of a run in fp16, and save it from now on."""
        self.scale = scale
        if scale is not None and self._scale:
            scale.load_state_dict(self._scale)

    def _require_beginning(self, warn: Callable[[str], None]) -> None:
        """Raise `UserError` if a run without a checkpoint was past its first one: its best weights would be lost."""
        best = self.run.path / BEST
        if not best.exists():
            return
        p = read_checkpoint(best).progress
        every = self.config.save_every
        if p.step > every if every else (p.epoch, p.batch) > (1, 0):
            raise UserError(
                f"run {self.run.path}: a checkpoint step-*.safetensors is required to continue; found only {BEST}, of "
                f"step {p.step}; translate with it, or train again with another --out"
            )
        warn("no checkpoint to continue from; training starts again")

    def _require_same_text(self, path: Path, checkpoint: Checkpoint) -> None:
        for name, ours, theirs in (
            ("tokenizer", self._tokenizer, checkpoint.tokenizer),
            ("data", self._data, checkpoint.data),
        ):
            if ours != theirs:
                raise CheckpointError(
                    f"checkpoint {path}: the {name} that it was trained with is required; the run's {name} differs; "
                    f"restore the original {name}, or train again without --resume"
                )

    def is_saved(self, progress: Progress) -> bool:
        """Return whether the newest checkpoint holds this progress."""
        return self._saved == (progress.step, progress.validated)

    def save(self, progress: Progress) -> None:
        """Write this step's checkpoint, and remove the stopgap."""
        path = step_path(self.run.path, progress.step)
        self._write(path, progress)
        stopgap = self._stopgap
        self._record_saved(path, progress)
        if stopgap and stopgap != path:
            with suppress(PermissionError):  # on Windows, one that is being read stays
                stopgap.unlink(missing_ok=True)

    def prune(self, diverged: bool) -> None:
        """Remove all but the newest checkpoints; to be called once the newest one's weights gave a finite loss.

        If that loss says that the weights `diverged`, the oldest checkpoint, from before that, stays too.
        """
        if self._unpruned:
            prune(self.run.path, self.config.keep, self._unpruned, and_oldest=diverged)
            self._unpruned = None

    def save_best(self, progress: Progress) -> None:
        """Write best.safetensors."""
        self._write(self.run.path / BEST, progress)

    def _record_saved(self, path: Path, progress: Progress) -> None:
        self._saved = (progress.step, progress.validated)
        scheduled = is_due(self.config.save_every, progress, self.config)
        self._unpruned, self._stopgap = (path, None) if scheduled else (None, path)

    def _write(self, path: Path, progress: Progress) -> None:
        with averaged_weights(self.average):
            weights = self.model.state_dict()
        moments, latest = self.optimizer.state_dict(), self.model.state_dict() if self.average else {}
        arrays = [*weights.items(), *moments.items(), *latest.items()]
        scale = self.scale.state_dict() if self.scale else {}
        bad = [name for name, array in arrays if not np.isfinite(array).all()]
        if bad:
            raise Diverged(f"finite weights are required; {bad[0]} is not finite at step {progress.step}")
        config = {k: v for k, v in to_dict(self.config).items() if not k.startswith(("train_", "valid_"))}
        # Like the text's paths, these say where and how a run was trained, not what it is.
        del config["backend"], config["capture"]
        checkpoint = Checkpoint(
            weights,
            moments,
            self.model.config,
            progress,
            config,
            self._tokenizer,
            self._data,
            latest=latest,
            scale=scale,
        )
        try:
            write_checkpoint(path, checkpoint)
        except OSError as error:
            kept = "; earlier checkpoints are intact" if has_weights(self.run.path) else ""
            raise OSError(error.errno, f"{error.strerror or error}{kept}", str(path)) from None
