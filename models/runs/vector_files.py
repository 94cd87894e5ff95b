"""Word vectors on disk: what a directory of `tensorlib embed` holds.

    words.txt             the words, one on each line; line i belongs to row i
    vectors.safetensors   the vectors of the words, those of the words as context, counts, and the settings
    training.safetensors  the same and what is needed to continue, until training ends

Each file is written atomically. What is read is checked, by a digest and by types and ranges, before it is used.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import tensorlib as tl
from models.architectures.embeddings import Embeddings, Loss, Objective
from models.runs.checkpoint import digest
from models.runs.directory import CONFIG, RUNS, TRAINING, VECTORS
from models.runs.nested_dicts import from_dict, section
from models.system.errors import CheckpointError, UserError
from models.system.files import new_directory, require_file
from models.system.terminal import command
from models.text.lines import read_lines
from tensorlib.exchange.safetensors import load_with_metadata, write_atomically
from tensorlib.messages import plural, shown

__all__ = ["TEXT", "TRAINING", "VECTORS", "WORDS", "VectorProgress", "VectorSettings", "VectorState"]
__all__ += [
    "check_settings",
    "create_run",
    "new_model",
    "newest_vectors",
    "read_state",
    "refuse_existing_vectors",
    "require_vectors",
    "write_state",
    "write_word2vec",
    "write_words",
]

WORDS, TEXT = "words.txt", "vectors.txt"
FORMAT = 1
SUFFIX = "-vectors-"
MOST_WORDS = 2**24

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class VectorSettings:
    """The settings of a run. `min_count`, `epochs` and `learning_rate` are chosen by text and loss if they are 0."""

    objective: Objective = "skip-gram"
    loss: Loss = "negative-sampling"
    dim: int = 100
    window: int = 5
    negatives: int = 5
    min_count: int = 0
    subsample: float = 1e-3
    lower: bool = True
    epochs: int = 0
    batch: int = 4096
    optimizer: Literal["adagrad", "sgd"] = "adagrad"
    learning_rate: float = 0.0
    seed: int = 0
    power: float = 0.75  # of the counts, in the distribution of negatives


_RANGES: dict[str, tuple[float, float]] = {
    "dim": (1, 2**16),
    "window": (1, 1000),
    "negatives": (1, 1000),
    "power": (0, 10),
    "min_count": (0, 2**62),
    "subsample": (1e-12, 1),
    "epochs": (0, 2**31),
    "batch": (1, 2**24),
    "learning_rate": (0, 1e6),
    "seed": (0, 2**62),
}


@dataclass
class VectorProgress:
    """How far training has come: batches before this position are done. All zero before the first."""

    epoch: int = 0
    part: int = 0
    batch: int = 0


@dataclass
class VectorState:
    """Everything that a file of vectors holds."""

    model: Embeddings
    settings: VectorSettings
    texts: list[str]  # the absolute names of the text files
    text_digest: str
    progress: VectorProgress = field(default_factory=VectorProgress)
    finished: bool = False


def check_settings(settings: VectorSettings, where: str, flags: bool = True) -> None:
    """Raise `UserError` for a number outside its range, naming it as an option of the command line or as a key."""
    for key, (low, high) in _RANGES.items():
        value = getattr(settings, key)
        if not low <= value <= high:
            name = f"--{key.replace('_', '-')}" if flags else key
            raise UserError(f"{where}: {name} from {low:g} to {high:g} is required; got {value}")


# ---- files -----------------------------------------------------------------------------------------------------------


def write_words(run: Path, words: list[str]) -> None:
    """Write words.txt."""
    write_atomically(run / WORDS, "".join(f"{word}\n" for word in words).encode())


def write_state(run: Path, state: VectorState) -> Path:
    """Write vectors.safetensors if the state is finished, otherwise training.safetensors; return its path."""
    model, path = state.model, run / (VECTORS if state.finished else TRAINING)
    tensors: dict[str, Any] = {"vectors": model.inputs_VD, "contexts": model.outputs_VD, "counts": model.counts_V}
    if not state.finished:
        squares = zip(("vectors", "contexts"), model.squares, strict=True)
        tensors |= {f"squares.{name}": array for name, array in squares if array is not None}
    metadata = {
        "format": FORMAT,
        "settings": asdict(state.settings),
        "texts": state.texts,
        "text_digest": state.text_digest,
        "progress": asdict(state.progress),
        "finished": state.finished,
    }
    tl.save(tensors, path, metadata | {"digest": digest(tensors, metadata)})
    return path


def read_state(path: Path) -> VectorState:
    """Read and check a file that `write_state` wrote. Errors: `CheckpointError` naming the file."""
    require_file(str(path), "vectors")
    where = f"vectors {path}"
    try:
        tensors, metadata = load_with_metadata(path)
        found = metadata.pop("digest", None)
        if metadata.get("format") != FORMAT:
            raise UserError(f"format {FORMAT} is required, got {shown(metadata.get('format'))}")
        if found != digest(tensors, metadata):
            raise UserError("it is damaged: its contents do not fit its digest")
        return _from_parts(tensors, metadata)
    except (UserError, ValueError, KeyError, TypeError, OSError) as error:
        text = str(error).removeprefix("metadata: ")
        raise CheckpointError(f"{where}: a file that `tensorlib embed` wrote is required; {text}; restore it") from None


def _from_parts(tensors: dict[str, np.ndarray], metadata: dict[str, Any]) -> VectorState:
    expected = ["format", "settings", "texts", "text_digest", "progress", "finished"]
    if sorted(metadata) != sorted(expected):
        raise UserError(f"metadata: the keys {', '.join(expected)} are required")
    values = section(metadata["settings"], "metadata", "settings")
    settings = from_dict(VectorSettings, values, "metadata", "settings.", every_field=True)
    if len(values) < len(fields(VectorSettings)):
        raise UserError("metadata: a setting is missing")
    check_settings(settings, "metadata", flags=False)
    progress = from_dict(VectorProgress, section(metadata["progress"], "metadata", "progress"), "metadata", "progress.")
    texts, text_digest, finished = metadata["texts"], metadata["text_digest"], metadata["finished"]
    if min(asdict(progress).values()) < 0 or type(finished) is not bool or not isinstance(text_digest, str):
        raise UserError("metadata: a progress of at least 0, a digest and true or false are required")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError("metadata: a list of files is required")
    words = len(tensors["counts"]) if tensors.get("counts", np.zeros(0)).ndim == 1 else 0
    shapes: dict[str, tuple[int, ...]] = {"counts": (words,)}
    shapes |= dict.fromkeys(("vectors", "contexts"), (words, settings.dim))
    if not finished and settings.optimizer == "adagrad":
        shapes |= dict.fromkeys(("squares.vectors", "squares.contexts"), (words, settings.dim))
    _check_tensors(tensors, shapes)
    model = new_model(tensors["counts"], settings, tensors)
    return VectorState(model, settings, texts, text_digest, progress, finished)


def _check_tensors(tensors: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> None:
    for name in {*tensors} | {*shapes}:
        kind = np.dtype(np.int64 if name == "counts" else np.float32)
        if name not in tensors or name not in shapes or tensors[name].shape != shapes[name]:
            raise UserError(f"the tensors {', '.join(f'{n} {shapes[n]}' for n in shapes)} are required")
        if tensors[name].dtype != kind or not np.isfinite(tensors[name]).all():
            raise UserError(f"finite numbers of {kind} are required in {name}")
        if name != "vectors" and name != "contexts" and tensors[name].min(initial=1) < (name == "counts"):
            raise UserError(f"positive numbers are required in {name}")
    if not 2 <= shapes["counts"][0] <= MOST_WORDS:
        raise UserError(f"2 to {MOST_WORDS:,} words are required")


def new_model(
    counts: NDArray[np.int64], settings: VectorSettings, tensors: dict[str, np.ndarray] | None = None
) -> Embeddings:
    """Return the model that the settings describe, with the tables of a file if they are given."""
    model = Embeddings(
        counts,
        settings.dim,
        settings.objective,
        settings.loss,
        settings.negatives,
        settings.power,
        settings.optimizer == "adagrad" and (tensors is None or "squares.vectors" in tensors),
        settings.seed,
    )
    if tensors is not None:
        model.inputs_VD, model.outputs_VD = tensors["vectors"], tensors["contexts"]
        if "squares.vectors" in tensors:
            model.squares = [tensors["squares.vectors"], tensors["squares.contexts"]]
    return model


def read_words(run: Path, count: int) -> list[str]:
    """Read words.txt. Errors: `UserError` unless it has `count` different words."""
    words = read_lines(run / WORDS)
    if len(words) != count or len({*words}) != count:
        raise UserError(
            f"vectors {run / WORDS}: {count:,} different words are required, one for each vector; got "
            f"{plural(len({*words}), 'word')} on {plural(len(words), 'line')}; restore it"
        )
    return words


def write_word2vec(path: Path, words: list[str], vectors_VD: Floats) -> None:
    """Write vectors in the text format of word2vec, which other programs read: "V D", then a word and its numbers."""
    lines = [f"{len(words)} {vectors_VD.shape[1]}\n"]
    lines += [f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, vectors_VD.tolist(), strict=True)]
    write_atomically(path, "".join(lines).encode())


def create_run(out: Path | None, state: VectorState, words: list[str]) -> Path:
    """Create the directory (`out`, or the next numbered one in runs/) with words.txt and the state before training.

    It is filled under a temporary name and then renamed, so that it is never visible half-written. Errors: `UserError`
    if `out` exists.
    """
    stem = re.sub(r"[^\w.]+", "-", Path(state.texts[0]).stem).strip("-.") or "text"
    with new_directory(out.parent if out else RUNS, "embed") as temporary:
        write_words(temporary, words)
        write_state(temporary, state)
        number = 1
        while True:
            final = out or RUNS / f"{stem}{SUFFIX}{number}"
            if out:
                refuse_existing_vectors(out)
            with suppress(OSError):  # such as a run that has just taken the number
                temporary.rename(final)
                return final
            if out or not final.exists():
                raise UserError(f"embed --out {final}: a new directory is required; it can't be created; name another")
            number += 1


def refuse_existing_vectors(out: Path) -> None:
    """Raise `UserError` if the directory exists: a run must not overwrite another."""
    if out.exists() or out.is_symlink():
        remedy = "add --resume to continue it" if (out / TRAINING).exists() else "name another"
        raise UserError(f"embed --out {out}: a new directory is required; this one exists; {remedy}")


def newest_vectors(finished: bool) -> Path:
    """Return the directory of vectors in runs/ that was begun last, among the finished ones or the others.

    Errors: `UserError` if there is none.
    """
    found = _vectors_in(RUNS)
    if wanted := [path for path in found if (path / VECTORS).exists() == finished]:
        return max(wanted, key=_beginning)
    if found and not finished:
        raise UserError(
            f"embed --resume: a run that was stopped is required; {plural(len(found), 'run')} in {RUNS.absolute()}, "
            "all finished; name another with --out"
        )
    which = (
        f"{len(found)} in {RUNS.absolute()} {'was' if len(found) == 1 else 'were'} stopped"
        if found
        else (f"there is none in {RUNS.absolute()}")
    )
    remedy = f"continue with `{command()} embed --resume`" if found else f"make one with `{command()} embed TEXTFILE`"
    raise UserError(f"embed: a directory of vectors is required; {which}; name one with --run, or {remedy}")


def _vectors_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("[!.]*") if (path / VECTORS).exists() or (path / TRAINING).exists()]


def _beginning(run: Path) -> int:
    words = run / WORDS  # written once, when the run begins
    return words.stat().st_mtime_ns if words.exists() else 0


def require_vectors(run: Path, where: str) -> None:
    """Raise `UserError` unless the directory is one of vectors, finished or not."""
    if (run / VECTORS).exists() or (run / TRAINING).exists():
        return
    if run.is_file():
        found, remedy = "this is a file", f"name its directory, {run.parent}"
    elif (run / CONFIG).exists():
        found, remedy = "this one has a translator or language model", "use it with `translate` or `generate`"
    else:
        found = "this one has no vectors" if run.is_dir() else "there is none of this name"
        known = sorted(_vectors_in(RUNS), key=_beginning)[-3:]
        remedy = f"name one of {', '.join(map(str, known))}" if known else f"make one with `{command()} embed TEXTFILE`"
    raise UserError(f"{where} {run}: a directory that `tensorlib embed` wrote is required; {found}; {remedy}")
