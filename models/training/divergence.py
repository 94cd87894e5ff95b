"""After divergence: which checkpoint to go back to.

A loss that is not finite shows that an earlier update spoilt the weights. They may have been saved since, as may be
weights whose loss was finite but huge. Such checkpoints are set aside, so that `--resume` continues from an older one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from models.runs.checkpoint import DIVERGED, read_checkpoint, step_checkpoints
from models.system.errors import UserError

__all__ = ["LOWER_RATE", "Diverged", "set_diverged_aside"]

LOWER_RATE = "train again with a lower --optim.learning-rate, or a higher --optim.warmup"


class Diverged(UserError):
    """The weights, or their losses and gradients, are no longer finite; or no validation was better than a guess."""


def set_diverged_aside(run: Path, losses: Sequence[tuple[int, float]], worst: float) -> tuple[Path | None, list[Path]]:
    """Rename the step checkpoints whose weights diverged, and return the newest other one and the new names.

    losses: the step and the loss of each training step. As a step measures the weights before it, the loss after a
    checkpoint is its own. worst: the highest loss of weights that have not diverged. If no checkpoint has a lower one,
    there is none to go back to: weights whose loss is finite but huge would only diverge again.
    """
    paths = step_checkpoints(run)
    own = {path: next((loss for step, loss in losses if step > _step(path)), math.inf) for path in paths}
    newest = next((path for path in reversed(paths) if own[path] <= worst and _is_readable(path)), None)
    aside = []
    for path in reversed(paths[paths.index(newest) + 1 :] if newest else paths):
        aside.append(path.replace(path.with_name(path.name.replace("step-", DIVERGED, 1))))
    return newest, aside[::-1]


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _is_readable(path: Path) -> bool:
    try:
        read_checkpoint(path)
    except UserError:
        return False
    return True
