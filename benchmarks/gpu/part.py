"""The child process of a part: ``python -m gpu.part MODULE:FUNCTION SETTINGS ROWS`` calls FUNCTION(turn).

Rows are appended to the file ROWS as JSON lines as soon as they are known, so that what was measured remains when the
part is stopped. The part waits for its turn by reading a line from stdin.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Turn", "brief", "problem"]


@dataclass
class Turn:
    """What a part receives: the settings of the run, `row` for its results, `wait` for its turn.

    Attributes:
        rows: the file of results.
        backend: of tensorlib: "cupy", or "numpy" in a rehearsal without an emulated GPU.
        device: of PyTorch: "cuda", or "cpu" in a rehearsal.
        rehearse: whether to use tiny sizes.
        every: whether to measure the whole matrix (--all).
        limit: the seconds that the part may take.
        ready: the seconds after which sides that are not ready are given up.
        data: the folder of Multi30k, or None.
        folder: for files of the part's own.
    """

    rows: Path
    backend: str
    device: str
    rehearse: bool
    every: bool
    limit: float
    ready: float
    data: str | None
    folder: str
    began: float = field(default_factory=time.monotonic)

    def row(self, case: str, side: str, **found: Any) -> None:
        """Write one result: `value` with `unit`, or `text`; or `failed` or `missing`, the reason why there is none."""
        self.write({"case": case, "side": side, **found})

    def wait(self) -> None:
        """Return when it is this part's turn to be timed."""
        self.write({"ready": round(time.monotonic() - self.began, 1)})
        sys.stdin.readline()
        self.began = time.monotonic()

    def left(self) -> float:
        """Return the seconds that are left, with a reserve for closing."""
        return self.limit - 3 - (time.monotonic() - self.began)

    def write(self, line: dict[str, Any]) -> None:
        """Append a line to the results."""
        with self.rows.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def problem(error: BaseException) -> dict[str, str]:
    """Return {"missing": reason} for what is not installed or does not exist yet, {"failed": reason} for the rest."""
    return {"missing" if isinstance(error, ImportError) else "failed": brief(error)}


def brief(error: BaseException) -> str:
    """Return an error in one line, with the place where it was raised."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, ImportError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"


def main() -> int:
    target, settings, rows = sys.argv[1:]
    turn = Turn(Path(rows), **json.loads(settings))
    module, _, function = target.partition(":")
    try:
        getattr(importlib.import_module(module), function)(turn)
    except Exception as error:
        traceback.print_exc()
        turn.write({"case": "", "side": "", **problem(error)})
        return 0 if isinstance(error, ImportError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
