"""Attention with its projections: heads are laid out for products, with the bias, in one pass, and joined in another.

Shape suffixes: B sentences, L queries or keys, D width, H heads, K head width; P of queries, keys and values.
"""

from __future__ import annotations

import math
from typing import Any

import cupy

from tensorlib.kernels.cuda.attention import attend, attend_gradient, serves_pattern
from tensorlib.kernels.cuda.columns import column_sums, sum_parts
from tensorlib.kernels.cuda.launch import NOT_SERVED, WARP, contiguous, fits, kernel, overrides
from tensorlib.kernels.cuda.products import gemm, rounded
from tensorlib.ops.attention import AttentionPattern
from tensorlib.ops.linalg import rows
from tensorlib.ops.linear import linear_formula
from tensorlib.ops.multi_head_attention import (
    cross_attention_formula,
    cross_attention_gradient,
    self_attention_formula,
    self_attention_gradient,
)

BLOCK = (WARP, 8)  # threads of a block of heads.cu: columns, and rows at a time
SPLIT_ROWS = 32  # rows that a block lays out
MOST_CHUNKS = 65535  # the most blocks along the second axis of a grid


# ---- heads -------------------------------------------------------------------------------------------------------


def split_heads(z_BLC: Any, bias: Any, parts: int, heads: int) -> Any:
    """Return z + bias, whose columns are P H K, laid out as (P, B, H, L, K); `bias` may be None."""
    batch, length, columns = z_BLC.shape
    width = columns // (parts * heads)
    split = cupy.empty((parts, batch, heads, length, width), z_BLC.dtype)
    chunk = max(SPLIT_ROWS, -(-batch * length // MOST_CHUNKS))
    arguments = (
        contiguous(z_BLC), 0 if bias is None else contiguous(bias), batch, length, heads, width, columns, chunk, split
    )  # fmt: skip
    kernel("heads.cu", "split_heads", split.dtype.char)(_grid(columns, batch * length, chunk), BLOCK, arguments)
    return split


def join_heads(split_PBHLK: Any, db: Any = None) -> Any:
    """Return heads side by side, (B, L, P H K); the sums of these columns are written to `db`, if it is given.

    Rows are added up in chunks, and then the chunks, in an order that depends on the shape alone.
    """
    parts, batch, heads, length, width = split_PBHLK.shape
    count, columns = batch * length, parts * heads * width
    z = cupy.empty((batch, length, columns), split_PBHLK.dtype)
    chunk = max(SPLIT_ROWS, math.isqrt(count))  # about as many rows in a chunk as there are chunks
    grid = _grid(columns, count, chunk)
    sums = None if db is None else cupy.empty((grid[1], columns), z.dtype)
    arguments = (contiguous(split_PBHLK), batch, length, heads, width, columns, chunk, z, 0 if sums is None else sums)
    kernel("heads.cu", "join_heads", z.dtype.char)(grid, BLOCK, arguments)
    if sums is not None:
        sum_parts(sums, out=db)
    return z


def _grid(columns: int, count: int, chunk: int) -> tuple[int, int]:
    return -(-columns // WARP), -(-count // chunk)


def _merged(y_BHLK: Any) -> Any:
    """Return the outputs of heads side by side, without a copy if they lie so."""
    batch, heads, length, width = y_BHLK.shape
    beside = y_BHLK.transpose(0, 2, 1, 3)
    return beside.reshape(batch, length, heads * width) if beside.flags.c_contiguous else join_heads(y_BHLK[None])


# ---- forward -----------------------------------------------------------------------------------------------------


def _project(x: Any, w: Any, b: Any, heads: int) -> Any:
    """Return x w + b by heads, (P, B, H, L, K)."""
    z = gemm(rows(x), w).reshape(*x.shape[:2], w.shape[1])
    return split_heads(z, b, w.shape[1] // x.shape[2], heads)


def _serves(pattern: AttentionPattern, *arrays: Any) -> bool:
    return fits(*arrays) and all(a.size for a in arrays) and serves_pattern(pattern)


@overrides(self_attention_formula)
def _self_attention(x: Any, w: Any, b: Any, wo: Any, bo: Any, heads: int, pattern: AttentionPattern) -> Any:
    if not _serves(pattern, x, w, b, wo, bo):
        return NOT_SERVED
    qkv = _project(x, w, b, heads)
    q, k, v = qkv
    y, kept = attend(q, k, v, pattern)
    merged = _merged(y)
    return linear_formula(merged, wo, bo), (qkv, None, merged, kept)


@overrides(cross_attention_formula)
def _cross_attention(
    x: Any, memory: Any, w: Any, b: Any, wo: Any, bo: Any, heads: int, pattern: AttentionPattern
) -> Any:
    if not _serves(pattern, x, memory, w, b, wo, bo):
        return NOT_SERVED
    d = x.shape[2]
    q, kv = _project(x, w[:, :d], b[:d], heads), _project(memory, w[:, d:], b[d:], heads)
    y, kept = attend(q[0], kv[0], kv[1], pattern)
    merged = _merged(y)
    return linear_formula(merged, wo, bo), (q, kv, merged, kept)


# ---- backward ----------------------------------------------------------------------------------------------------


class _Gradients:
    """The gradients of x w + b, from dz = [dq dk dv] by heads; dw and db are written into columns of shared arrays."""

    def __init__(self, w: Any, needs_w: bool, needs_b: bool) -> None:
        self.w = w
        self.dw = cupy.empty(w.shape, w.dtype) if needs_w else None
        self.db = cupy.empty(w.shape[1:], w.dtype) if needs_b else None

    def add(self, dz_PBHLK: Any, x: Any, columns: slice, needs_x: bool) -> Any:
        """Write the gradients of these columns of w and b, and return dx if it is needed."""
        dz = rounded(rows(join_heads(dz_PBHLK, None if self.db is None else self.db[columns])))
        if self.dw is not None:
            gemm(rounded(rows(x)).swapaxes(0, 1), dz, self.dw[:, columns])
        return gemm(dz, rounded(self.w[:, columns]).swapaxes(0, 1)).reshape(x.shape) if needs_x else None


def _output_gradient(dy: Any, merged: Any, wo: Any, needs: tuple[bool, ...]) -> tuple[Any, Any, Any]:
    """Return the gradients of the output projection: of the heads side by side, of wo and of bo."""
    dy_rows = rows(dy)
    dbo = column_sums(dy_rows) if needs[2] else None
    factor = rounded(dy_rows)
    dmerged = gemm(factor, rounded(wo).swapaxes(0, 1)).reshape(merged.shape) if needs[0] else None
    return dmerged, gemm(rounded(rows(merged)).swapaxes(0, 1), factor) if needs[1] else None, dbo


def _by_heads(z: Any, parts: int, heads: int) -> Any:
    """Return a kept projection by heads; another kernel has kept it as (B, L, P D)."""
    return z if z.ndim == 5 else split_heads(z, None, parts, heads)


def _side_by_side(z: Any) -> Any:
    return None if z is None else join_heads(z) if z.ndim == 5 else z


@overrides(self_attention_gradient)
def _self_attention_gradient(
    dy: Any, x: Any, w: Any, wo: Any, kept: Any, heads: int, pattern: AttentionPattern, needs: tuple[bool, ...]
) -> Any:
    projected, _, merged, statistics = kept
    if statistics is None or not _serves(pattern, x, w, wo, dy, projected, merged):
        kept = _side_by_side(projected), None, merged, statistics
        return self_attention_gradient.dispatch(object)(dy, x, w, wo, kept, heads, pattern, needs)
    dmerged, dwo, dbo = _output_gradient(dy, merged, wo, (any(needs[:3]), *needs[3:]))
    if dmerged is None:
        return None, None, None, dwo, dbo
    qkv = _by_heads(projected, 3, heads)
    dqkv, gradients = cupy.empty_like(qkv), _Gradients(w, *needs[1:3])
    (dy_BHTK,) = split_heads(dmerged, None, 1, heads)
    q, k, v = qkv
    attend_gradient(dy_BHTK, q, k, v, pattern, statistics, (True,) * 3, tuple(dqkv))
    return gradients.add(dqkv, x, slice(None), needs[0]), gradients.dw, gradients.db, dwo, dbo


@overrides(cross_attention_gradient)
def _cross_attention_gradient(
    dy: Any, x: Any, memory: Any, w: Any, wo: Any, kept: Any, heads: int, pattern: AttentionPattern,
    needs: tuple[bool, ...],
) -> Any:  # fmt: skip
    q, kv, merged, statistics = kept
    if statistics is None or not _serves(pattern, x, memory, w, wo, dy, q, kv, merged):
        kept = _side_by_side(q), _side_by_side(kv), merged, statistics
        return cross_attention_gradient.dispatch(object)(dy, x, memory, w, wo, kept, heads, pattern, needs)
    dmerged, dwo, dbo = _output_gradient(dy, merged, wo, (any(needs[:4]), *needs[4:]))
    if dmerged is None:
        return None, None, None, None, dwo, dbo
    q, kv = _by_heads(q, 1, heads), _by_heads(kv, 2, heads)
    dq, dkv, gradients = cupy.empty_like(q), cupy.empty_like(kv), _Gradients(w, *needs[2:4])
    (dy_BHTK,) = split_heads(dmerged, None, 1, heads)
    attend_gradient(dy_BHTK, q[0], kv[0], kv[1], pattern, statistics, (True,) * 3, (*dq, *dkv))
    d = x.shape[2]
    dx = gradients.add(dq, x, slice(d), needs[0])
    dmemory = gradients.add(dkv, memory, slice(d, None), needs[1])
    return dx, dmemory, gradients.dw, gradients.db, dwo, dbo
