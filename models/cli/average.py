"""`tensorlib average`: the mean of a run's last weights, as one more checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.runs.checkpoint import STEP, Checkpoint, read_checkpoint, step_checkpoints, write_checkpoint
from models.runs.directory import find_run, newest_run
from models.system.errors import UserError
from nn.averaging import average as mean

__all__ = ["average"]


def average(run: Path | None = None, *, last: int = 3, out: Path | None = None) -> int:
    """Average the weights of a run's newest checkpoints: it often translates better than any one of them.

    It is written as one more checkpoint, for --run FILE of translate and evaluate. How many a run leaves, and
    how far apart, say --keep and --save-every of train.

    Args:
        run: the run's directory. [the newest in runs/]
        last: how many checkpoints, the newest ones.
        out: the file to write, a new one in the run's directory, where --run finds what belongs to it.
            [average-<last>.safetensors, written anew]
    """
    if last < 1:
        raise UserError(f"average: --last must be at least 1, got {last}")
    run = find_run(run or newest_run(trained=True), "average")
    paths = step_checkpoints(run)[-last:]
    if len(paths) < last:
        more = f"--last {len(paths)} takes all, and " if paths else ""
        raise UserError(
            f"average {run}: {last} checkpoints of steps are required, got {len(paths)}; {more}"
            f"training with --keep {last} leaves as many"
        )
    path = out or run / f"average-{last}.safetensors"
    _check_out(out, run)
    newest = read_checkpoint(paths[-1])
    weights = mean(_weights(paths, newest))
    steps = [int(path.stem.removeprefix("step-")) for path in paths]
    progress = replace(newest.progress, best_step=0, best_loss=None, best_bleu=None, waited=0)  # of other weights
    averaged = replace(newest, model=weights, optimizer={}, latest={}, averaged=steps, progress=progress)
    write_checkpoint(path, averaged)
    print(f"{path}: the mean of the weights of steps {', '.join(map(str, steps))}")
    return 0


def _check_out(out: Path | None, run: Path) -> None:
    """Refuse, before the work, a place where there is something, or where weights could not be used."""
    if out is None:
        return
    if re.fullmatch(STEP, out.name):
        raise UserError(f"average --out {out}: a name of its own is required, not that of a step's checkpoint")
    if out.exists() or out.is_symlink():
        raise UserError(f"average --out {out}: a new file is required; it exists; name another")
    if out.parent.resolve() != run.resolve():  # beside its config and subwords, without which weights say nothing
        raise UserError(f"average --out {out}: a file in the run's directory is required; try {run / out.name}")


def _weights(paths: list[Path], newest: Checkpoint) -> Iterator[dict[str, Any]]:
    """Yield the weights of one checkpoint after another. Errors: `UserError` for one that is of another model."""
    for path in paths:
        checkpoint = read_checkpoint(path)
        for what in ("model_config", "tokenizer", "data"):
            if getattr(checkpoint, what) != getattr(newest, what):
                raise UserError(
                    f"average {path}: a checkpoint of the same run as {paths[-1].name} is required; its "
                    f"{what.replace('_config', '')} is another; remove one of the two"
                )
        yield checkpoint.model
