"""A warning if another module hides our packages `nn` and `models`, whose names are common."""

from __future__ import annotations

import os
import sys
import warnings
from importlib.util import find_spec

__all__ = ["warn_if_shadowed"]

MARK = b'__project__ = "tensorlib"'  # in the __init__.py of both packages
HOME = os.path.dirname(os.path.dirname(__file__))


def warn_if_shadowed() -> None:
    """Warn if `import nn` or `import models` finds a file other than the package next to tensorlib.

    A user's nn.py or models.py is found first if it is in the script's folder or on PYTHONPATH, and pip silently
    installs the package nn from PyPI over ours. This only looks at files: neither package is imported.
    """
    if sys.argv[:1] == ["-m"] and "tensorlib" in sys.orig_argv:
        return  # `python -m tensorlib` always finds our own packages
    for name in ("nn", "models"):
        found, ours = _file_of(name), os.path.join(HOME, name, "__init__.py")
        if found and os.path.isfile(ours) and not _is_ours(found, ours):
            message = (
                f"tensorlib: its own package {name} is required, but `import {name}` finds {found}; "
                "rename that, or reinstall tensorlib in a new virtual environment"
            )
            warnings.warn(message, stacklevel=3)


def _file_of(name: str) -> str | None:
    try:
        spec = find_spec(name)
    except ValueError:  # a module without a spec, such as a stand-in in a test
        return None
    if spec is None:
        return None
    return spec.origin or next(iter(spec.submodule_search_locations or ()), None)


def _is_ours(found: str, ours: str) -> bool:
    if not (os.path.exists(found) and os.path.samefile(found, ours)):
        return False
    with open(ours, "rb") as file:
        return MARK in file.read()
