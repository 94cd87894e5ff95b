"""`tensorlib average`: the mean of the weights of a run's newest checkpoints, written as a new checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.cli.options import Whole
from models.runs.checkpoint import STEP, Checkpoint, read_checkpoint, require_model, step_checkpoints, write_checkpoint
from models.runs.directory import find_run, newest_run, read_config
from models.runs.loading import model_config
from models.system.errors import UserError
from models.text.subwords import Tokenizer
from nn.averaging import average as mean
from tensorlib.messages import plural

__all__ = ["average", "averaged_steps"]


def average(run: Path | None = None, *, last: Whole = 3, out: Path | None = None) -> int:
    """Average the weights of a run's newest checkpoints. The mean often translates better than any of them.

    The result is a new checkpoint, which `translate` and `evaluate` use with --run FILE. How many checkpoints a run
    keeps, and how far apart they are, is set by --keep and --save-every of `train`.

    Args:
        run: the run's directory. [the newest in runs/]
        last: how many of the newest checkpoints to average.
        out: a new file in the run's directory, beside the config and subwords that --run needs.
            [average-<last>.safetensors, overwritten if it exists]
    """
    if last < 1:
        raise UserError(f"average: --last must be at least 1, got {last}")
    run = find_run(run or newest_run(trained=True), "average")
    paths = step_checkpoints(run)[-last:]
    if len(paths) < last:
        fewer = f"use --last {len(paths)}, or " if paths else ""
        raise UserError(
            f"average {run}: {plural(last, 'step checkpoint')} {'is' if last == 1 else 'are'} required, got "
            f"{len(paths)}; {fewer}train with --keep {last}"
        )
    path = out or run / f"average-{last}.safetensors"
    _check_out(out, run)
    newest = read_checkpoint(paths[-1])
    require_model(model_config(read_config(run), Tokenizer.load(run)), newest, paths[-1])
    weights = mean(_weights(paths, newest))
    steps = [int(path.stem.removeprefix("step-")) for path in paths]
    progress = replace(newest.progress, best_step=0, best_loss=None, best_bleu=None, waited=0)  # the mean is not scored
    averaged = replace(newest, model=weights, optimizer={}, latest={}, averaged=steps, progress=progress)
    write_checkpoint(path, averaged)
    print(f"{path}: {averaged_steps(steps)}")
    return 0


def averaged_steps(steps: Sequence[int]) -> str:
    """Return what an averaged checkpoint holds, in words."""
    if len(steps) == 1:
        return f"the weights of step {steps[0]}"
    return f"the mean of the weights of steps {', '.join(map(str, steps))}"


def _check_out(out: Path | None, run: Path) -> None:
    """Raise `UserError` if `out` exists, is named like a step checkpoint, or is outside the run's directory."""
    if out is None:
        return
    if re.fullmatch(STEP, out.name):
        raise UserError(f"average --out {out}: a name unlike that of a step checkpoint is required; name another")
    if out.exists() or out.is_symlink():
        raise UserError(f"average --out {out}: a new file is required; this one exists; name another")
    if out.parent.resolve() != run.resolve():  # weights are useless without the run's config and subwords
        raise UserError(f"average --out {out}: a file in the run's directory is required; try {run / out.name}")


def _weights(paths: list[Path], newest: Checkpoint) -> Iterator[dict[str, np.ndarray]]:
    """Yield the weights of each checkpoint. Raises `UserError` if model, tokenizer or data differ from `newest`."""
    for path in paths:
        checkpoint = read_checkpoint(path)
        for field in ("model_config", "tokenizer", "data"):
            if getattr(checkpoint, field) != getattr(newest, field):
                raise UserError(
                    f"average {path}: a checkpoint of the same run as {paths[-1].name} is required; its "
                    f"{field.replace('_config', '')} differs; remove one of the two"
                )
        yield checkpoint.model
