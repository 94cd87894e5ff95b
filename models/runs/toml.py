"""Config files: read any TOML file, and format a run's config as TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from models.runs.config import TrainConfig
from models.runs.nested_dicts import to_dict
from models.system.errors import UserError
from models.text.lines import read_text

__all__ = ["config_toml", "read_toml"]

LARGEST_FILE = 2**16  # bytes; the time that tomllib takes grows with the square of a dotted key's length


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Errors: `UserError` naming the file and the line that is wrong."""
    text = read_text(path, "config")
    if len(text) > LARGEST_FILE:
        raise UserError(f"config {path}: at most {LARGEST_FILE:,} characters are required, got {len(text):,}")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also for an integer of more than 4,300 digits
        problem = str(error) or "it is nested too deeply"
        raise UserError(f"config {path}: valid TOML is required; {problem}; correct it") from None


def config_toml(config: TrainConfig) -> bytes:
    """Return the complete config as TOML; a run started from it with `--config` is the same run."""
    return tomli_w.dumps(to_dict(config)).encode()
