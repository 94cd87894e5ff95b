"""Rows of the op table: products, diagonals and triangles of matrices."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, sample

__all__ = ["ROWS"]

TRIANGLES = [
    sample((3, 3)), sample((2, 4)), sample((4, 2), k=1), sample((3, 3), k=-1), sample((2, 2, 3), k=0), sample((1, 1)),
    sample((0, 3)), sample((3, 0)),
    sample((2, 3), k=5), sample((3, 2), k=-5),
]  # fmt: skip
DIAGONALS = [
    sample((3, 3)), sample((2, 4)), sample((3, 2), offset=1), sample((3, 4), offset=-2), sample((2, 3, 2)),
    sample((2, 3, 3), 0, 1, 2),
    sample((3, 2, 3), -1, -1, 0), sample((2, 3, 2, 2), 1, 3, 1), sample((1, 1)), sample((0, 2)),
    sample((2, 2), offset=4),
]  # fmt: skip

ROWS: list[Row] = [
    Row(
        "matmul", tl.matmul, np.matmul,
        [sample((2, 3), (3, 4)), sample((3,), (3,)), sample((3,), (3, 2)), sample((2, 3), (3,)),
         sample((2, 2, 3), (3, 4)),
         sample((2, 2, 3), (2, 3, 1)), sample((2, 1, 2, 3), (3, 3, 2)), sample((2, 3), (2, 3, 2)),
         sample((3,), (2, 3, 2)),
         sample((2, 2, 3), (3,)), sample((1, 1), (1, 1)), sample((0, 3), (3, 2)), sample((2, 0), (0, 3)),
         sample((2, 3, 0), (0, 2)),
         sample((2, 2, 3), (3, 0)), sample((0, 2, 3), (3, 2)), sample((0, 2, 3), (0, 3, 2)),
         sample((2, 3), np.full((3, 2), 0.5)),
         sample(np.full((2, 3), 0.5), (3, 2)), sample(np.full((2, 2, 3), 0.5), (3, 2)),
         sample((2, 2, 3), np.full((3, 2), 0.5))],
    ),
    Row(
        "dot", tl.dot, np.dot,
        [sample((2, 3), (3, 2)), sample((3,), (3,)), sample((3,), (3, 2)), sample((2, 3), (3,)),
         sample((2, 1, 3), (2, 3, 2)), sample((), (3,)),
         sample((2, 2), ()), sample((), ()), sample((0, 3), (3, 2)), sample((2, 0), (0, 2)), sample((2, 2), 3.0),
         sample((1,), (1,))],
    ),
    Row(
        "tensordot", tl.tensordot, np.tensordot,
        [sample((2, 3), (3, 2), axes=1), sample((2, 2, 3), (2, 3, 2)), sample((2,), (3,), axes=0),
         sample((2, 3, 1), (3, 2, 2), axes=[[1, 0], [0, 1]]), sample((2, 3), (2, 2), axes=[-2, -1]),
         sample((2, 3), (3, 2), axes=[[], []]), sample((0, 3), (3, 2), axes=1), sample((2, 0), (0, 2), axes=1),
         sample((), (), axes=0),
         sample((2, 1), (1, 2), axes=[[1, 0], [0, 1]])],
    ),
    Row(
        "outer", tl.outer, np.outer,
        [sample((2,), (3,)), sample((2, 2), (3,)), sample((), (2,)), sample((0,), (2,)), sample((1,), (1,))],
    ),
    Row("diagonal", tl.diagonal, np.diagonal, DIAGONALS),
    Row("trace", tl.trace, np.trace, DIAGONALS),
    Row("tril", tl.tril, np.tril, TRIANGLES),
    Row("triu", tl.triu, np.triu, TRIANGLES),
]  # fmt: skip
