"""The card, its clocks, and the versions of what is installed, found without importing any of it."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["about", "card", "emulated"]

PACKAGES = (
    "numpy", "cupy-cuda12x", "cupy-cuda13x", "torch", "jax", "jaxlib", "transformers", "pytest", "threadpoolctl",
    "sentencepiece", "safetensors", "sacrebleu", "cyclopts",
)  # fmt: skip
ASKED = "name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,temperature.gpu,power.draw"


def about() -> dict[str, Any]:
    """Return the card, the commit, and the versions."""
    return {
        "card": card(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "commit": output("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
    }


def card() -> dict[str, str]:
    """Return the card's name, memory and clocks at this moment, or what is known of them."""
    values = output("nvidia-smi", f"--query-gpu={ASKED}", "--format=csv,noheader").split("\n")[0].split(", ")
    names = ASKED.split(",")
    return dict(zip(names, values, strict=True)) if len(values) == len(names) else {}


def emulated() -> bool:
    """Return whether the emulated GPU of the tests was asked for, and is there."""
    return os.environ.get("TENSORLIB_TEST_GPU") == "emulated" and find_spec("tests.emulated_gpu") is not None


def installed(name: str) -> str | None:
    """Return the version of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def output(*command: str) -> str:
    """Return what a program prints, or "" if it does not run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
