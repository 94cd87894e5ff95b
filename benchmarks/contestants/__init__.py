"""The contestants: each module builds those of one library, which run in their own processes (`worker.py`).

A module may import only its own library at the top, so that no process loads the library of another contestant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Contestant"]


@dataclass
class Contestant:
    """The functions that a worker can run. A step returns a number (a loss, say), or None, after all work is done.

    Attributes:
        library: name and version, for the report.
        steps: the functions, by name.
        finish: called once at the end; its result is sent to the parent.
    """

    library: str
    steps: dict[str, Callable[[], Any]]
    finish: Callable[[], dict[str, Any]] = field(default=dict)
