"""The op table: one row per public function of ops/. The tests and ``tensorlib check`` (check.py) go through it.

There is one file of rows for each file of ops. A row gives an op, its NumPy version and the samples to try it at::

    Row("power", tl.power, np.power, [sample((3,), (3,)), sample((2, 3), 2), sample((0,), (0,))], POSITIVE),

``sample`` lists the positional arguments of one call. A *tuple* is a shape: the op gets an array of that shape, filled
from the row's domain, and is differentiated with respect to it. Anything else (a number, an array of ids, a mask) is
passed unchanged, except that the op gets arrays as Tensors. Keyword arguments go both to the op and to its reference.
Every run fills a sample from the same seed.
"""

from __future__ import annotations

import importlib
import pkgutil

from tensorlib import ops, optable
from tensorlib.optable.row import Row, Sample, sample

__all__ = ["ROWS", "Row", "Sample", "function_names", "sample"]

_NOT_ROWS = ("check", "row")
_NOT_OPS = (
    "arguments",
    "loss_scale",
    "next_position",
    "plain",
    "update",
    "update_in_place",
)  # files of ops/ without public functions of Tensors


def _rows() -> list[Row]:
    """Return the rows of all files of this package, family after family."""
    names = sorted(module.name for module in pkgutil.iter_modules(optable.__path__) if module.name not in _NOT_ROWS)
    return [row for name in names for row in importlib.import_module(f"tensorlib.optable.{name}").ROWS]


def function_names() -> list[str]:
    """Return the names of the public functions of Tensors in ops/, each of which needs a row."""
    names: list[str] = []
    for module in pkgutil.iter_modules(ops.__path__):
        if module.name not in _NOT_OPS:
            names += importlib.import_module(f"tensorlib.ops.{module.name}").__all__
    return sorted(names)


ROWS = _rows()
