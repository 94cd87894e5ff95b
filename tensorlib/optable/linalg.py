"""Rows of the op table: Products of matrices, their diagonals and triangles."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, at

__all__ = ["ROWS"]

TRIANGLES = [
    at((3, 3)), at((2, 4)), at((4, 2), k=1), at((3, 3), k=-1), at((2, 2, 3), k=0), at((1, 1)), at((0, 3)), at((3, 0)),
    at((2, 3), k=5), at((3, 2), k=-5),
]  # fmt: skip
DIAGONALS = [
    at((3, 3)), at((2, 4)), at((3, 2), offset=1), at((3, 4), offset=-2), at((2, 3, 2)), at((2, 3, 3), 0, 1, 2),
    at((3, 2, 3), -1, -1, 0), at((2, 3, 2, 2), 1, 3, 1), at((1, 1)), at((0, 2)), at((2, 2), offset=4),
]  # fmt: skip

ROWS: list[Row] = [
    Row(
        "matmul", tl.matmul, np.matmul,
        [at((2, 3), (3, 4)), at((3,), (3,)), at((3,), (3, 2)), at((2, 3), (3,)), at((2, 2, 3), (3, 4)),
         at((2, 2, 3), (2, 3, 1)), at((2, 1, 2, 3), (3, 3, 2)), at((2, 3), (2, 3, 2)), at((3,), (2, 3, 2)),
         at((2, 2, 3), (3,)), at((1, 1), (1, 1)), at((0, 3), (3, 2)), at((2, 0), (0, 3)), at((2, 3, 0), (0, 2)),
         at((2, 2, 3), (3, 0)), at((0, 2, 3), (3, 2)), at((0, 2, 3), (0, 3, 2)), at((2, 3), np.full((3, 2), 0.5)),
         at(np.full((2, 3), 0.5), (3, 2)), at(np.full((2, 2, 3), 0.5), (3, 2)), at((2, 2, 3), np.full((3, 2), 0.5))],
    ),
    Row(
        "dot", tl.dot, np.dot,
        [at((2, 3), (3, 2)), at((3,), (3,)), at((3,), (3, 2)), at((2, 3), (3,)), at((2, 1, 3), (2, 3, 2)), at((), (3,)),
         at((2, 2), ()), at((), ()), at((0, 3), (3, 2)), at((2, 0), (0, 2)), at((2, 2), 3.0), at((1,), (1,))],
    ),
    Row(
        "tensordot", tl.tensordot, np.tensordot,
        [at((2, 3), (3, 2), axes=1), at((2, 2, 3), (2, 3, 2)), at((2,), (3,), axes=0),
         at((2, 3, 1), (3, 2, 2), axes=[[1, 0], [0, 1]]), at((2, 3), (2, 2), axes=[-2, -1]),
         at((2, 3), (3, 2), axes=[[], []]), at((0, 3), (3, 2), axes=1), at((2, 0), (0, 2), axes=1), at((), (), axes=0),
         at((2, 1), (1, 2), axes=[[1, 0], [0, 1]])],
    ),
    Row("outer", tl.outer, np.outer, [at((2,), (3,)), at((2, 2), (3,)), at((), (2,)), at((0,), (2,)), at((1,), (1,))]),
    Row("diagonal", tl.diagonal, np.diagonal, DIAGONALS),
    Row("trace", tl.trace, np.trace, DIAGONALS),
    Row("tril", tl.tril, np.tril, TRIANGLES),
    Row("triu", tl.triu, np.triu, TRIANGLES),
]  # fmt: skip
