"""Multi30k German to English by the ten-epoch recipe, trained and evaluated on the GPU: BLEU, and minutes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from gpu.part import Turn
from gpu.step import OURS

__all__ = ["run"]

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "examples" / "recipes" / "multi30k-de-en.toml"
CASE = "de-en, ten epochs"


def run(turn: Turn) -> None:
    """Train by the recipe and evaluate greedily and with a beam of 4, as `benchmarks/multi30k.sh de-en` does."""
    if turn.data is None:
        return turn.row(CASE, OURS, missing="the data: --data DIR names the folder of Multi30k")
    data, out = Path(turn.data), Path(turn.folder) / "multi30k"
    files = {
        f"--{kind}-{side}": data / f"{name}.lc.norm.tok.{language}"
        for kind, name in (("train", "train"), ("valid", "val"))
        for side, language in (("source", "de"), ("target", "en"))
    }
    if absent := [str(path) for path in files.values() if not path.is_file()]:
        return turn.row(CASE, OURS, missing=f"files of the data: {', '.join(absent)}")
    began = time.monotonic()
    arguments = [word for option, path in files.items() for word in (option, str(path))]
    fresh = [
        "--config",
        str(RECIPE),
        "--backend",
        turn.backend,
        *arguments,
        *(["--steps", "2"] if turn.rehearse else []),
    ]
    tensorlib("train", "--out", str(out), *(["--resume"] if out.exists() else fresh))
    seconds = time.monotonic() - began
    turn.row(f"{CASE}, training", OURS, text=f"{seconds / 60:.1f} minutes", value=seconds)
    for beam in (1, 4):
        printed = tensorlib(
            "evaluate", "--run", str(out), "--tokenize", "none", "--beam", str(beam), "--length-penalty", "0.6",
            "--backend", turn.backend,
            "--source", str(data / "test_2016_flickr.lc.norm.tok.de"),
            "--reference", str(data / "test_2016_flickr.lc.norm.tok.en"),
        )  # fmt: skip
        score = re.search(r"BLEU\D*([\d.]+)", printed)
        name = f"{CASE}, {'greedy' if beam == 1 else f'beam {beam}'}"
        found = {"value": float(score[1]), "unit": "BLEU"} if score else {"failed": f"no BLEU in {printed[-200:]!r}"}
        turn.row(name, OURS, **found)


def tensorlib(*arguments: str) -> str:
    """Run a command of tensorlib; return what it prints. Raises RuntimeError with its last line if it fails."""
    command = [sys.executable, "-m", "tensorlib", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    print(done.stdout, done.stderr)
    if done.returncode and "ModuleNotFoundError" in done.stderr:
        raise ImportError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise RuntimeError(f"tensorlib {arguments[0]}: {(done.stderr.strip() or done.stdout).splitlines()[-1:]}")
    return done.stdout
