"""Who is measured: each module builds contestants of one library, for a process of its own (`worker.py`).

A module here may import only its own library at the top, so that no process pays for another's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Contestant"]


@dataclass
class Contestant:
    """What a worker can be asked to run. A step returns a number (a loss, say), or None, after all work is done."""

    library: str
    """Name and version, for the report."""
    steps: dict[str, Callable[[], Any]]
    """What can be run, by name."""
    finish: Callable[[], dict[str, Any]] = field(default=dict)
    """Called once at the end; what it returns goes to the parent."""
