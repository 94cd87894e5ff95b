"""Create run directories atomically, and find existing ones."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from models.runs.checkpoint import BEST, DIVERGED, STEP, UNUSABLE
from models.runs.config import TrainConfig
from models.runs.config_layers import config_from
from models.runs.lock import RunLock
from models.runs.toml import config_toml, read_toml
from models.system.errors import UserError
from models.system.files import new_directory
from models.system.terminal import command, quoted
from models.text.subwords import Tokenizer
from tensorlib.exchange.safetensors import write_atomically

__all__ = ["RUNS", "TRAINING", "VECTORS", "create_run", "find_run", "has_weights", "newest_run", "read_config"]
__all__ += ["refuse_existing", "remove_temporaries", "remove_unless_trained", "write_config"]

RUNS = Path("runs")
CONFIG = "config.toml"
VECTORS, TRAINING = "vectors.safetensors", "training.safetensors"  # of `tensorlib embed`; the first when it has ended


def refuse_existing(out: Path) -> None:
    """Raise `UserError` if the directory exists: a run must not overwrite another."""
    if out.exists() or out.is_symlink():
        remedy = "add --resume to continue it" if os.path.isfile(out / CONFIG) else "name another"
        raise UserError(f"train --out {out}: a new directory is required; this one exists; {remedy}")


def create_run(config: TrainConfig, tokenizer: Tokenizer, out: Path | None) -> Path:
    """Create the run's directory (`out`, or the next numbered one in runs/) with the config and tokenizer in it.

    The directory is filled under a temporary name and then renamed. It is thus never visible half-written, and two runs
    that begin at the same time get different numbers. Errors: `UserError` if `out` exists or can't be created.
    """
    parent = out.parent if out else RUNS
    with new_directory(parent, "train") as temporary:
        tokenizer.save(temporary)
        write_config(temporary, config)
        return _rename(temporary, out) if out else _rename_to_number(temporary, parent / _name(config))


def _rename(temporary: Path, final: Path) -> Path:
    refuse_existing(final)
    try:
        temporary.rename(final)
    except OSError:
        refuse_existing(final)  # another process has just created it
        raise
    return final


def _rename_to_number(temporary: Path, stem: Path) -> Path:
    while True:
        taken = [_number(path) for path in stem.parent.glob(f"{stem.name}-*")]
        final = stem.with_name(f"{stem.name}-{max(taken, default=0) + 1}")
        try:
            temporary.rename(final)  # fails if another run has just taken the number
            return final
        except OSError:
            if not final.exists():
                raise


def _name(config: TrainConfig) -> str:
    """Return `<data>-<kind>`: <data> is "phrasebook", or the name of the directory with the training text."""
    file = config.train_source or config.train_tsv or config.train_text
    data = Path(file).parent.name if file else config.data
    name = re.sub(r"[^\w.]+", "-", data).strip("-.") or "text"
    return f"{name}-{config.model.kind}"


def _number(path: Path) -> int:
    last = path.name.rpartition("-")[2]
    return int(last) if re.fullmatch("[0-9]{1,9}", last) else 0


def write_config(run: Path, config: TrainConfig) -> None:
    """Write config.toml atomically."""
    write_atomically(run / CONFIG, config_toml(config))


def read_config(run: Path) -> TrainConfig:
    """Read a run's config.toml. Errors: `UserError` naming the file."""
    where = f"config {run / CONFIG}"
    values = read_toml(run / CONFIG)
    missing = [name for name in ("tokenizer", "model", "optim") if name not in values]
    if missing:  # their defaults would be those of another run
        raise UserError(f"{where}: all that `tensorlib train` wrote is required; [{missing[0]}] is missing; restore it")
    try:
        return config_from((where, values))
    except UserError as error:  # one about a combination of settings begins "config:", without a file
        raise UserError(f"{where}: {error.args[0].removeprefix(f'{where}: ').removeprefix('config: ')}") from None


def newest_run(trained: bool = False) -> Path:
    """Return the run in runs/ that began last. If `trained`, consider only runs that have weights.

    Errors: `UserError` if there is no such run.
    """
    runs = _runs_in(RUNS)
    found = [path for path in runs if has_weights(path)] if trained else runs
    if not found:
        which = "there is none" if not runs else f"found {len(runs)} without a checkpoint"
        raise UserError(f"a run is required; {which} in {RUNS.absolute()}; start one with `{command()} train`")
    return max(found, key=_beginning)


def _runs_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("[!.]*") if os.path.isfile(path / CONFIG)]


def has_weights(run: Path) -> bool:
    """Return whether a run's directory holds a checkpoint, other than one that was set aside."""
    return any(not path.name.startswith((DIVERGED, UNUSABLE)) for path in run.glob("*.safetensors"))


def remove_unless_trained(run: Path) -> None:
    """Remove a new run that failed before its first checkpoint: nothing in it is worth resuming."""
    try:
        lock = RunLock(run)
    except (UserError, OSError):  # another process has just resumed it
        return
    with lock:
        if has_weights(run):
            return
        (run / CONFIG).unlink(missing_ok=True)  # from here on it is not a run that a process could resume
    shutil.rmtree(run, ignore_errors=True)  # after the release, because Windows removes no open file


def remove_temporaries(run: Path) -> list[Path]:
    """Remove the temporary files that killed processes left in a run's directory, and return their paths.

    The caller has the run's `RunLock`. `tensorlib average` needs none, so its files go once they are an hour old.
    """
    removed = []
    for path in run.iterdir():
        name = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}", path.name)
        if not name or not path.is_file():
            continue
        ours = name[1] == BEST or re.fullmatch(STEP, name[1]) or not name[1].endswith(".safetensors")
        with suppress(OSError):
            if ours or time.time() - path.stat().st_mtime > 3600:
                path.unlink()
                removed.append(path)
    return sorted(removed)


def _beginning(run: Path) -> tuple[int, int]:
    # The tokenizer is written once, when the run begins; config.toml is written again when the run resumes.
    written = max((file.stat().st_mtime_ns for file in run.glob("tokenizer*.model")), default=0)
    return written, _number(run)


def find_run(run: Path | None, flag: str = "--run") -> Path:
    """Return a run's directory: `run`, as given by `flag`, or the newest. Errors: `UserError` if it is not a run."""
    if run is None:
        return newest_run()
    if os.path.isfile(run / CONFIG):
        return run
    if os.path.isfile(run / VECTORS) or os.path.isfile(run / TRAINING):
        ended = os.path.isfile(run / VECTORS)
        use = f"--run {quoted(str(run))} --near WORD" if ended else f"--resume --out {quoted(str(run))}"
        raise UserError(
            f"{flag} {run}: a directory that `tensorlib train` wrote is required; this one has word vectors; use "
            f"`{command()} embed {use}`"
        )
    problem = "this is a file" if os.path.isfile(run) else "there is none of this name"
    problem = f"this one has no {CONFIG}" if os.path.isdir(run) else problem
    if has_weights(run):
        raise UserError(f"{flag} {run}: a directory that `tensorlib train` wrote is required; {problem}; restore it")
    known = sorted({*_runs_in(run.parent), *_runs_in(run.parent.parent), *_runs_in(RUNS)}, key=_beginning)[-3:]
    remedy = f"name one of {', '.join(map(str, known))}" if known else f"start one with `{command()} train`"
    raise UserError(f"{flag} {run}: a directory that `tensorlib train` wrote is required; {problem}; {remedy}")
