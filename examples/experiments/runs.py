"""Runs of `tensorlib train` for experiments, each started once, and resumed if it was interrupted."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from page import whole

from models.evaluation.translator import Translator
from models.runs.config import BleuTokenize
from models.runs.loading import load_run
from models.system.errors import UserError
from models.system.files import read_bytes
from models.text.corpora.phrasebook import phrasebook
from models.text.lines import Pair, read_tsv
from models.training.log import read_log
from tensorlib.exchange.safetensors import write_atomically

__all__ = [
    "add_bleu",
    "add_text",
    "by_length",
    "curve",
    "parts_of_text",
    "settings",
    "text_flags",
    "trained",
    "translator",
]


def add_text(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the text."""
    for part in ("train", "valid", "test"):
        parser.add_argument(f"--{part}-tsv", type=Path, help="lines of a sentence, a tab, its translation")
    parser.add_argument("--pairs", type=whole(0), default=0, help="how many pairs to train on; 0: all")


def add_bleu(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how BLEU finds words."""
    ways, told = get_args(BleuTokenize), 'of BLEU; "none" for text that is already tokenized'
    parser.add_argument("--tokenize", choices=ways, default="13a", help=told)


def settings(o: Any) -> dict[str, Any]:
    """Return all options but the directory, and a digest of each file of text, so that changed text is noticed."""
    found = {name: value for name, value in vars(o).items() if name != "out"}
    if _given(o):
        parts_of_text(o)  # a file that cannot be read is noticed before anything is measured
        files = {part: str(getattr(o, f"{part}_tsv")) for part in ("train", "valid", "test")}
        found["sha256"] = {
            part: hashlib.sha256(read_bytes(path, "reading text")).hexdigest()[:16] for part, path in files.items()
        }
    return found


def text_flags(o: Any) -> list[str]:
    """Return the flags of `tensorlib train` that name the text; none for the phrasebook, if no files are given."""
    if not _given(o):
        return []
    train = o.train_tsv
    if o.pairs:
        pairs, train = parts_of_text(o)[0], o.out / "train.tsv"
        write_atomically(train, "".join(f"{source}\t{target}\n" for source, target in pairs).encode())
    return ["--train-tsv", str(train), "--valid-tsv", str(o.valid_tsv)]


def parts_of_text(o: Any) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Return the pairs to train on, to validate and to test with: those of the files, or of the phrasebook."""
    if not _given(o):
        book = phrasebook()
        return book.train, book.valid, book.test
    train, valid, test = (list(read_tsv(path)) for path in (o.train_tsv, o.valid_tsv, o.test_tsv))
    return train[: o.pairs or None], valid, test


def _given(o: Any) -> bool:
    given = sum(getattr(o, f"{part}_tsv", None) is not None for part in ("train", "valid", "test"))
    if given in (1, 2):
        raise UserError(f"either --train-tsv, --valid-tsv and --test-tsv or none of them are required; got {given}")
    return given == 3


def trained(run: Path, *flags: str) -> Path:
    """Train a run to its end with `tensorlib train`, or finish it if it has begun; exit if that fails."""
    begun = (run / "config.toml").exists()
    options = ["--resume"] if begun else list(flags)
    command = [sys.executable, "-m", "tensorlib", "train", "--out", str(run), *options]
    if code := subprocess.run(command).returncode:
        raise SystemExit(code)
    return run


def curve(run: Path) -> list[dict[str, Any]]:
    """Return each validation of a run: step, loss, BLEU if measured, and the training seconds and tokens up to it.

    Seconds are those of training steps alone, without validation.
    """
    speed = [json.loads(line) for line in (run / "speed.jsonl").read_text("utf-8").splitlines()]
    steps = {entry["step"]: entry for entry in speed if entry["kind"] == "train"}
    points = []
    for entry in read_log(run):
        if entry["kind"] == "valid":
            before = [steps[step] for step in steps if step <= entry["step"]]
            sums = {key: sum(one[key] for one in before) for key in ("seconds", "tokens")}
            points.append({"step": entry["step"], "loss": entry["loss"], "bleu": entry.get("bleu"), **sums})
    return points


def translator(run: Path) -> Translator:
    """Return the run's best model; it translates greedily."""
    loaded = load_run(run, "numpy")
    return Translator(loaded.model, loaded.tokenizer)


def by_length(pairs: Sequence[Pair], edges: Sequence[int]) -> list[list[int]]:
    """Return the indices of the pairs whose source has up to edges[0], edges[1], ... words, and of the rest."""
    sizes = [len(source.split()) for source, _ in pairs]
    bounds = [0, *edges, max(sizes, default=0)]
    return [[i for i, n in enumerate(sizes) if low < n <= high] for low, high in pairwise(bounds)]
