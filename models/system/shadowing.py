"""The check that no other module named `nn` hides our package.

The check itself is in tensorlib/shadowing.py. That file is loaded by its path, because importing tensorlib takes too
long for `tensorlib --help`.
"""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

__all__ = ["require_own_nn"]

CHECK = Path(__file__).parents[2] / "tensorlib" / "shadowing.py"


def require_own_nn() -> None:
    """Raise ImportError if `import nn` would not find the package beside `models`. Do not import `nn`."""
    spec = spec_from_file_location("tensorlib_shadowing", CHECK) if CHECK.is_file() else None
    if spec is None or spec.loader is None:
        return  # there is no tensorlib beside models
    shadowing = module_from_spec(spec)
    spec.loader.exec_module(shadowing)
    if found := shadowing.hiding_file("nn"):
        raise ImportError(shadowing.problem("nn", found), name="nn", path=found)
