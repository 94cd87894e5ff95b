"""When a run validates, saves a checkpoint, and ends."""

from __future__ import annotations

import math

from models.runs.checkpoint import Progress
from models.runs.config import TrainConfig

__all__ = ["estimated_steps", "is_done", "is_due", "out_of_patience"]


def is_done(progress: Progress, config: TrainConfig) -> bool:
    """Return whether all steps or epochs are complete, or patience has run out."""
    over = (config.steps and progress.step >= config.steps) or (config.epochs and progress.epoch >= config.epochs)
    return bool(over or out_of_patience(progress, config))


def out_of_patience(progress: Progress, config: TrainConfig) -> bool:
    """Return whether `patience` validations in a row were no better than the best one."""
    return 0 < config.patience <= progress.waited


def is_due(every: int, progress: Progress, config: TrainConfig) -> bool:
    """Return whether an event that recurs every `every` steps (0: at the end of each epoch) is due after this step.

    After the last step every such event is due.
    """
    if progress.step == 0:
        return False
    at_interval = progress.step % every == 0 if every else progress.batch == 0
    return at_interval or is_done(progress, config)


def estimated_steps(config: TrainConfig, batches: int) -> int:
    """Return the number of steps of a run whose first epoch has `batches` batches.

    This is an estimate: if batches are limited by tokens, BPE-dropout makes the number of batches vary between epochs.
    """
    limits = [config.steps, config.epochs * math.ceil(batches / config.optim.accumulate)]
    return min(limit for limit in limits if limit)
