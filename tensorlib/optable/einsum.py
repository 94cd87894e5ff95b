"""Rows of the op table: sums of products in Einstein notation."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, sample

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "einsum", tl.einsum, np.einsum,
        [
            # one operand: transposed, summed, diagonals, implicit output
            sample("ij->ji", (2, 3)), sample("ba", (2, 3)), sample("ij->", (2, 3)), sample("ij->j", (2, 3)),
            sample("ii", (3, 3)),
            sample("ii->i", (3, 3)), sample("iij->ji", (2, 2, 3)), sample("iii->i", (2, 2, 2)),
            sample("ijij->ij", (2, 3, 2, 3)),
            sample("->", ()), sample("i->i", (0,)), sample(" i j -> j i ", (1, 2)),
            # two operands: every kind of product
            sample("ij,jk", (2, 3), (3, 2)), sample("ij,kj->ik", (2, 3), (2, 3)), sample("i,i", (3,), (3,)),
            sample("i,j", (2,), (3,)),
            sample("i,i->i", (3,), (3,)), sample("bij,bjk->bik", (2, 1, 3), (2, 3, 2)),
            sample("bthk,bshk->bhts", (1, 2, 2, 2), (1, 3, 2, 2)),
            sample("ij,ij->", (2, 3), (2, 3)), sample("ii,ij->j", (2, 2), (2, 3)), sample("ij,k->k", (2, 3), (2,)),
            sample("ij,jk->ik", (0, 3), (3, 2)), sample("ij,jk->ik", (2, 0), (0, 2)), sample(",i->i", (), (3,)),
            sample("Ab,bC", (2, 2), (2, 2)),
            # an ellipsis, and axes of size 1, which broadcast
            sample("...ij->...ji", (2, 2, 3)), sample("...", (2, 3)), sample("i...->...", (2, 3)),
            sample("b...a", (2, 2, 3)),
            sample("...ij,...jk->...ik", (2, 1, 2, 2), (3, 2, 2)), sample("...i,...i->...", (2, 3), (3,)),
            sample("...,...", (2, 1), (3,)), sample("...i,i->...i", (3,), (3,)), sample("i,i->i", (1,), (3,)),
            sample("ij,jk->ik", (2, 1), (3, 2)),
            # three and four operands
            sample("ij,jk,kl->il", (2, 3), (3, 2), (2, 2)), sample("i,ij,j", (2,), (2, 3), (3,)),
            sample("i,i,i->i", (3,), (3,), (3,)), sample("i,j,k->kji", (2,), (1,), (3,)),
            sample("ij,ik,il,jkl->i", (2, 2), (2, 2), (2, 2), (2, 2, 2)),
            sample("ij,jk->ik", (2, 3), np.full((3, 2), 0.5)),
        ],
    ),
]  # fmt: skip
