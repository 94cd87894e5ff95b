"""The op table: one row per public function of ops/. The tests and ``tensorlib check`` both walk it.

There is one file of rows for each file of ops. A row says where an op is to be tried, and what NumPy makes of it::

    Row("power", tl.power, np.power, [sample((3,), (3,)), sample((2, 3), 2), sample((0,), (0,))], POSITIVE),

``sample`` lists the positional arguments of one sample: a *tuple* is a shape, to be filled from the row's domain
and to be differentiated; anything else (a number, an array of ids, a mask) is handed over as it stands,
arrays as Tensors. Keyword arguments go to the op and to its reference alike. The same seed fills a sample on every run.
"""

from __future__ import annotations

import importlib
import pkgutil

from tensorlib import ops, optable
from tensorlib.optable.row import Row, Sample, sample

__all__ = ["ROWS", "Row", "Sample", "function_names", "sample"]


def _rows() -> list[Row]:
    """Return the rows of every file beside this one, family after family."""
    names = sorted(module.name for module in pkgutil.iter_modules(optable.__path__) if module.name != "row")
    return [row for name in names for row in importlib.import_module(f"tensorlib.optable.{name}").ROWS]


def function_names() -> list[str]:
    """Return the public functions of every file in ops/ that works on Tensors: each of them needs a row."""
    names: list[str] = []
    for module in pkgutil.iter_modules(ops.__path__):
        if module.name not in (
            "arguments",
            "plain",
            "update",
        ):  # these hold no function of Tensors
            names += importlib.import_module(f"tensorlib.ops.{module.name}").__all__
    return sorted(names)


ROWS = _rows()
