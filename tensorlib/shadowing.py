"""Files that hide our packages `nn` and `models`, whose names are common.

A user's nn.py or models.py is found first if it is in the script's folder or on PYTHONPATH, and pip silently installs
the package nn from PyPI over ours. `import tensorlib` warns of such a file; `import models` fails with a foreign nn.
models/system/shadowing.py loads this file by its path, so it imports nothing but the standard library.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from importlib.util import find_spec

__all__ = ["hiding_file", "problem", "warn_if_shadowed"]

MARK = b'__project__ = "tensorlib"'  # in the __init__.py of both packages
HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGES = tuple(os.path.join(HOME, name, "") for name in ("tensorlib", "nn", "models"))


def warn_if_shadowed() -> None:
    """Warn if `import nn` or `import models` finds a file other than the package next to tensorlib."""
    if sys.argv[:1] == ["-m"] and "tensorlib" in sys.orig_argv:
        return  # `python -m tensorlib` always finds our own packages
    for name in ("nn", "models"):
        if found := hiding_file(name):
            _warn_at_the_users_import(problem(name, found))


def _warn_at_the_users_import(message: str) -> None:
    """Warn at the line outside our packages whose import led here, whichever package it imports."""
    frame = sys._getframe(1)
    while frame.f_back and _is_internal(frame.f_code.co_filename):
        frame = frame.f_back
    module, registry = frame.f_globals.get("__name__"), frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, UserWarning, frame.f_code.co_filename, frame.f_lineno, module, registry)


def _is_internal(filename: str) -> bool:
    return filename.startswith(("<frozen importlib", *PACKAGES)) or filename == importlib.__file__


def problem(name: str, found: str) -> str:
    """Return the message for a file `found` that hides our package `name`."""
    return (
        f"tensorlib's own package {name} is required, but `import {name}` finds {found}; "
        "rename that file or folder, or reinstall tensorlib in a new virtual environment"
    )


def hiding_file(name: str) -> str | None:
    """Return the path that `import name` finds instead of the package beside tensorlib, or None if nothing hides it.

    Only the file system is searched: the package is not imported.
    """
    ours = os.path.join(HOME, name, "__init__.py")
    try:
        spec = find_spec(name)
    except ValueError:  # a module without a spec, such as a stand-in in a test
        return None
    if spec is None or not os.path.isfile(ours):
        return None
    found = spec.origin or next(iter(spec.submodule_search_locations or ()), "a package without files")
    return None if _is_ours(found, ours) else found


def _is_ours(found: str, ours: str) -> bool:
    if not (os.path.exists(found) and os.path.samefile(found, ours)):
        return False
    with open(ours, "rb") as file:
        return MARK in file.read()
