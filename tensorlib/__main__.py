"""The command line: `python -m tensorlib`, and the console script `tensorlib` (console_script.py)."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

__all__ = ["main"]

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class OwnPackages:
    """Finds tensorlib, nn and models in HOME, even if the current directory or PYTHONPATH has others of these names.

    HOME may be site-packages. If it were first on sys.path, any package there could hide the standard library.
    """

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where one of our packages is, or None for any other module."""
        return PathFinder.find_spec(fullname, [HOME]) if fullname in ("tensorlib", "nn", "models") else None


def main() -> int:
    """Run the command line with our own packages; return the exit status."""
    sys.meta_path.insert(0, OwnPackages)
    try:
        command_line = importlib.import_module("models.cli.main")  # the only use of `models` in tensorlib
    except ImportError as error:  # another package has overwritten ours
        print(f"tensorlib: {error}", file=sys.stderr)
        return 1
    status: int = command_line.main()
    return status


if __name__ == "__main__":
    sys.exit(main())
