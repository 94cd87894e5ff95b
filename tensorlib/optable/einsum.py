"""Rows of the op table: Sums of products in Einstein's notation."""

from __future__ import annotations

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import Row, at

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "einsum", tl.einsum, np.einsum,
        [
            # one operand: transposed, summed, diagonals, implicit output
            at("ij->ji", (2, 3)), at("ba", (2, 3)), at("ij->", (2, 3)), at("ij->j", (2, 3)), at("ii", (3, 3)),
            at("ii->i", (3, 3)), at("iij->ji", (2, 2, 3)), at("iii->i", (2, 2, 2)), at("ijij->ij", (2, 3, 2, 3)),
            at("->", ()), at("i->i", (0,)), at(" i j -> j i ", (1, 2)),
            # two: products of every kind
            at("ij,jk", (2, 3), (3, 2)), at("ij,kj->ik", (2, 3), (2, 3)), at("i,i", (3,), (3,)), at("i,j", (2,), (3,)),
            at("i,i->i", (3,), (3,)), at("bij,bjk->bik", (2, 1, 3), (2, 3, 2)),
            at("bthk,bshk->bhts", (1, 2, 2, 2), (1, 3, 2, 2)),
            at("ij,ij->", (2, 3), (2, 3)), at("ii,ij->j", (2, 2), (2, 3)), at("ij,k->k", (2, 3), (2,)),
            at("ij,jk->ik", (0, 3), (3, 2)), at("ij,jk->ik", (2, 0), (0, 2)), at(",i->i", (), (3,)),
            at("Ab,bC", (2, 2), (2, 2)),
            # further axes, and sizes of 1, broadcast
            at("...ij->...ji", (2, 2, 3)), at("...", (2, 3)), at("i...->...", (2, 3)), at("b...a", (2, 2, 3)),
            at("...ij,...jk->...ik", (2, 1, 2, 2), (3, 2, 2)), at("...i,...i->...", (2, 3), (3,)),
            at("...,...", (2, 1), (3,)), at("...i,i->...i", (3,), (3,)), at("i,i->i", (1,), (3,)),
            at("ij,jk->ik", (2, 1), (3, 2)),
            # three and four
            at("ij,jk,kl->il", (2, 3), (3, 2), (2, 2)), at("i,ij,j", (2,), (2, 3), (3,)),
            at("i,i,i->i", (3,), (3,), (3,)), at("i,j,k->kji", (2,), (1,), (3,)),
            at("ij,ik,il,jkl->i", (2, 2), (2, 2), (2, 2), (2, 2, 2)),
            at("ij,jk->ik", (2, 3), np.full((3, 2), 0.5)),
        ],
    ),
]  # fmt: skip
