"""Rows of the op table: dropout. Only the generator determines which elements stay, so `dropout` has no reference."""

from __future__ import annotations

import tensorlib as tl
from tensorlib.optable.row import Row, dropout_mask, sample

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "dropout", lambda x, p: tl.dropout(x, p, tl.Generator(7)), None,
        [sample((3, 4), 0.5), sample((7,), 0.1), sample((2, 3), 0.0), sample((0, 2), 0.5), sample((), 0.3)],
    ),
    Row(
        "add_dropout", lambda x, y, p: tl.add_dropout(x, y, p, tl.Generator(7)),
        lambda x, y, p: x + y * dropout_mask(y.shape, p),
        [sample((3, 4), (3, 4), 0.5), sample((7,), (7,), 0.1), sample((2, 3), (2, 3), 0.0), sample((0, 2), (0, 2), 0.5),
         sample((), (), 0.3)],
    ),
]  # fmt: skip
