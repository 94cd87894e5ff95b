"""An error if something hides our package `nn`.

`tensorlib.shadowing` warns of the same, but importing tensorlib takes too long for `tensorlib --help`.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

__all__ = ["require_own_nn"]

MARK = '__project__ = "tensorlib"'  # in nn/__init__.py
OURS = Path(__file__).parents[2] / "nn" / "__init__.py"


def require_own_nn() -> None:
    """Raise ImportError if `import nn` would not find the package beside `models`. It is not imported here.

    What hides it is a user's nn.py, or the package nn from PyPI, which pip installs over ours without a word.
    """
    spec = find_spec("nn")
    if spec is None or not OURS.is_file():
        return
    found = spec.origin or next(iter(spec.submodule_search_locations or ()), "a package without files")
    if not (os.path.exists(found) and OURS.samefile(found) and MARK in OURS.read_text(encoding="utf-8")):
        raise ImportError(
            f"models: tensorlib's own package nn is required, but `import nn` finds {found}; "
            "rename that, or reinstall tensorlib in a virtual environment of its own",
            name="nn",
            path=found,
        )
