"""`tensorlib inspect`: the contents of a checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from models.cli.average import averaged_steps
from models.runs.checkpoint import read_checkpoint
from models.runs.vector_files import TRAINING, VECTORS
from models.system.errors import UserError
from models.system.numbers import shown_loss
from models.system.terminal import command, quoted

__all__ = ["inspect"]


def inspect(checkpoint: Path, /) -> int:
    """Show what is in a checkpoint. The exit status is 0 only if the checkpoint is undamaged.

    Args:
        checkpoint: a file that `tensorlib train` wrote.
    """
    if checkpoint.name in (VECTORS, TRAINING) and checkpoint.is_file():
        raise UserError(
            f"inspect {checkpoint}: a checkpoint that `tensorlib train` wrote is required; this file has word vectors; "
            f"look words up with `{command()} embed --run {quoted(str(checkpoint.parent))} --near WORD`"
        )
    found = read_checkpoint(checkpoint)
    progress = found.progress
    print(f"{checkpoint}: whole, {checkpoint.stat().st_size:,} bytes")
    print(f"step {progress.step}, epoch {progress.epoch + 1}, {progress.batch} of its batches used")
    if progress.best_loss is not None:
        bleu = "" if progress.best_bleu is None else f", BLEU {progress.best_bleu:.2f}"
        print(f"best validation loss {shown_loss(progress.best_loss)}{bleu}, at step {progress.best_step}")
    if found.averaged:
        print(averaged_steps(found.averaged))
    if found.latest:
        print("the weights are a moving average; the latest weights, from which training continues, are included")
    settings = ", ".join(f"{key} {value}" for key, value in asdict(found.model_config).items() if value is not None)
    print(f"model: {sum(a.size for a in found.model.values()):,} parameters; {settings}")
    if found.optimizer:
        name = found.config.get("optim", {}).get("name", "unknown")  # an old checkpoint may lack settings
        print(f"optimizer: {name}, {sum(a.size for a in found.optimizer.values()):,} numbers")
    for name, array in found.model.items():
        print(f"    {name:<52} {array.dtype}  {' x '.join(map(str, array.shape))}")
    return 0
