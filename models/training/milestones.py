"""When things happen in a run: validations, checkpoints, its end."""

from __future__ import annotations

import math

from models.runs.checkpoint import Progress
from models.runs.config import TrainConfig

__all__ = ["estimated_steps", "is_done", "is_due", "out_of_patience"]


def is_done(progress: Progress, config: TrainConfig) -> bool:
    """Return whether all steps or epochs have been taken, or patience has run out."""
    over = (config.steps and progress.step >= config.steps) or (config.epochs and progress.epoch >= config.epochs)
    return bool(over or out_of_patience(progress, config))


def out_of_patience(progress: Progress, config: TrainConfig) -> bool:
    """Return whether `patience` validations in a row were no better than the best one."""
    return 0 < config.patience <= progress.waited


def is_due(every: int, progress: Progress, config: TrainConfig) -> bool:
    """Return whether what happens every `every` steps (0: at the end of each epoch) happens after this step.

    It also happens after the last step.
    """
    if progress.step == 0:
        return False
    at_interval = progress.step % every == 0 if every else progress.batch == 0
    return at_interval or is_done(progress, config)


def estimated_steps(config: TrainConfig, batches: int) -> int:
    """Return the number of steps of a run whose first epoch has `batches` batches.

    An estimate, for with batches by tokens BPE-dropout gives each epoch a slightly different number of them.
    """
    limits = [config.steps, config.epochs * math.ceil(batches / config.optim.accumulate)]
    return min(limit for limit in limits if limit)
