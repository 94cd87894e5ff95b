"""Small matrix products, by tiles of the result that stay in registers.

BLAS is made for large products: for each one it takes a lock, chooses a method and copies an operand, which together
take longer than the product of one attention head, or of the few rows of a decoding step. Here a tile, a few rows of
`COLUMNS` numbers, is summed up in vector registers (Goto and van de Geijn 2008, section 4):

    for each p:  tile[r, :] += x[r, p] y[p, :]

The numbers y[p, :] of a tile must be contiguous. Where they are not, and at the right edge, they are first copied into
a panel (K, COLUMNS). Every sum runs in the order of p, so the bits do not depend on how a product is divided.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tensorlib.kernels.numba.compiling import compiled
from tensorlib.ops.next_position import COLUMNS

__all__ = ["product", "product_of_panels"]

# The columns of a tile: 16 float32 fill one register of 512 bits or two of 256 bits, 16 float64 twice as many.
_WIDE = binding.get_host_cpu_features().get("avx512f", False)  # such processors have 32 vector registers, others 16
ROWS = 8 if _WIDE else 6  # the most rows of a tile: its sums fill most of the registers
ROWS_OF_FLOAT64 = 6 if _WIDE else 3


# ---- one tile, in the compiler's own instructions ----------------------------------------------------------------


@intrinsic
def _tile(
    typing: Any, rows: Any, x: Any, i: Any, y: Any, j: Any, ahead: Any, z: Any, zi: Any, zj: Any, scale: Any, kept: Any
) -> Any:
    """z[zi : zi + rows, zj : zj + COLUMNS] = scale x[i : i + rows] y[:, j : j + COLUMNS] + kept (the same part of z).

    1 <= rows <= the most rows. y and z have contiguous rows, and at least one. What lies `ahead` bytes after each row
    of y is fetched into the cache: it should be what the next tile reads.
    """

    def emit(context: Any, builder: Any, signature: Any, values: tuple[Any, ...]) -> Any:
        count, x_value, i_, y_value, j_, ahead_, z_value, zi_, zj_, scale_, kept_ = values
        arrays = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip((x, y, z), (x_value, y_value, z_value), strict=True)
        ]
        zero = context.get_constant(types.intp, 0)
        starts = [(arrays[0], i_, zero), (arrays[1], zero, j_), (arrays[2], zi_, zj_)]
        x_start, y_start, z_start = (_address(builder, *start) for start in starts)
        x_strides, (y_step, _), (z_step, _) = (cgutils.unpack_tuple(builder, a.strides, 2) for a in arrays)
        length = cgutils.unpack_tuple(builder, arrays[1].shape, 2)[0]
        end = builder.append_basic_block("end")
        choice = builder.switch(count, end)
        most = ROWS if x.dtype == types.float32 else ROWS_OF_FLOAT64
        for number in range(1, most + 1):  # machine code of its own for each number of rows
            block = builder.append_basic_block(f"rows{number}")
            choice.add_case(context.get_constant(types.intp, number), block)
            builder.position_at_end(block)
            sums = _sums(builder, number, x_start, x_strides, y_start, y_step, length, ahead_)
            _store(builder, sums, z_start, z_step, scale_, kept_)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    index = types.intp
    return types.void(index, x, index, y, index, index, z, index, index, x.dtype, x.dtype), emit


def _address(builder: Any, array: Any, row: Any, column: Any) -> Any:
    """Return a pointer to array[row, column]."""
    row_step, column_step = cgutils.unpack_tuple(builder, array.strides, 2)
    offset = builder.add(builder.mul(row, row_step), builder.mul(column, column_step))
    return cgutils.pointer_add(builder, array.data, offset)


def _sums(builder: Any, rows: int, x: Any, x_strides: Any, y: Any, y_step: Any, length: Any, ahead: Any) -> list[Any]:
    """Emit the loop over p; return the sums of each row, a vector of `COLUMNS` numbers."""
    index, vector = length.type, ir.VectorType(x.type.pointee, COLUMNS)
    starts = [cgutils.pointer_add(builder, x, builder.mul(x_strides[0], index(r))) for r in range(rows)]
    before, loop, after = builder.block, builder.append_basic_block("product"), builder.append_basic_block("summed")
    builder.branch(loop)
    builder.position_at_end(loop)
    p, sums = builder.phi(index), [builder.phi(vector) for _ in range(rows)]
    y_offset = builder.mul(p, y_step)
    y_row = _load(builder, vector, y, y_offset)
    _prefetch(builder, cgutils.pointer_add(builder, y, builder.add(y_offset, ahead)))
    x_offset, new = builder.mul(p, x_strides[1]), []
    for start, total in zip(starts, sums, strict=True):
        number = _in_every_place(builder, vector, _load(builder, vector.element, start, x_offset))
        new.append(_multiply_add(builder, number, y_row, total))
    following = builder.add(p, index(1))
    builder.cbranch(builder.icmp_signed("<", following, length), loop, after)
    for value, first, later in [(p, index(0), following), *zip(sums, [vector(None)] * rows, new, strict=True)]:
        value.add_incoming(first, before)
        value.add_incoming(later, loop)
    builder.position_at_end(after)
    return new


def _store(builder: Any, sums: list[Any], z: Any, z_step: Any, scale: Any, kept: Any) -> None:
    """Emit z = scale sums + kept z, where z is not read if kept is 0."""
    vector = sums[0].type
    scaled = [builder.fmul(_in_every_place(builder, vector, scale), total) for total in sums]
    places = [cgutils.pointer_add(builder, z, builder.mul(z_step, z_step.type(r))) for r in range(len(sums))]
    is_kept = builder.fcmp_unordered("!=", kept, kept.type(0.0))
    with builder.if_else(is_kept) as (then, otherwise):
        with then:
            factor = _in_every_place(builder, vector, kept)
            for value, place in zip(scaled, places, strict=True):
                old = _load(builder, vector, place, z_step.type(0))
                _write(builder, _multiply_add(builder, factor, old, value), place)
        with otherwise:
            for value, place in zip(scaled, places, strict=True):
                _write(builder, value, place)


def _load(builder: Any, kind: Any, start: Any, offset: Any) -> Any:
    loaded = builder.load(cgutils.pointer_add(builder, start, offset, kind.as_pointer()))
    loaded.align = 4  # what arrays guarantee for float32; a vector would be taken for aligned to its whole size
    return loaded


def _prefetch(builder: Any, place: Any) -> None:
    """Emit the instruction to fetch the cache line of an address, which need not exist, for reading."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [byte, number, number, number]), "llvm.prefetch.p0"
    )
    builder.call(function, [builder.bitcast(place, byte), number(0), number(3), number(1)])  # read, keep, data


def _write(builder: Any, value: Any, place: Any) -> None:
    builder.store(value, builder.bitcast(place, value.type.as_pointer())).align = 4


def _in_every_place(builder: Any, vector: Any, number: Any) -> Any:
    place = ir.IntType(32)
    first = builder.insert_element(vector(ir.Undefined), number, place(0))
    return builder.shuffle_vector(first, vector(ir.Undefined), ir.VectorType(place, COLUMNS)([0] * COLUMNS))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, rounded once where the processor has an instruction for it."""
    kind = ir.FunctionType(a.type, [a.type] * 3)
    name = f"llvm.fmuladd.v{COLUMNS}{'f32' if isinstance(a.type.element, ir.FloatType) else 'f64'}"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


# ---- products ----------------------------------------------------------------------------------------------------


@compiled
def fill_panel(y: Any, panel: Any) -> None:
    """Copy y, of at most `COLUMNS` columns, to the panel; the columns after it become 0."""
    zero = panel.dtype.type(0)
    for c in range(COLUMNS):
        if c < y.shape[1]:
            for p in range(y.shape[0]):
                panel[p, c] = y[p, c]
        else:
            for p in range(y.shape[0]):
                panel[p, c] = zero


@compiled
def product_with_panel(x: Any, y: Any, j: int, ahead: int, z: Any, zj: int, scale: Any, kept: Any) -> None:
    """Write scale x y[:, j : j + COLUMNS] + kept z to the same number of columns of z, from column zj on."""
    most, count = ROWS if x.itemsize == 4 else ROWS_OF_FLOAT64, x.shape[0]
    tiles = (count + most - 1) // most
    step = (
        count + tiles - 1
    ) // tiles  # tiles of nearly the same height: a flat one takes nearly as long as a high one
    for i in range(0, count, step):
        _tile(min(step, count - i), x, i, y, j, ahead, z, i, zj, scale, kept)


@compiled
def product(x: Any, y: Any, z: Any, scale: Any, kept: Any) -> None:
    """Write scale x y + kept z to z, which has contiguous rows; x and y may have any strides, but not be empty."""
    plain = y.strides[1] == y.itemsize
    edge = z.shape[1] % COLUMNS
    panel = np.empty((0 if plain and not edge else len(y), COLUMNS), x.dtype)
    for j in range(0, z.shape[1] - edge, COLUMNS):
        if plain:
            product_with_panel(x, y, j, COLUMNS * y.itemsize, z, j, scale, kept)
        else:
            fill_panel(y[:, j : j + COLUMNS], panel)
            product_with_panel(x, panel, 0, 0, z, j, scale, kept)
    if edge:
        fill_panel(y[:, z.shape[1] - edge :], panel)
        product_at_edge(x, panel, z[:, z.shape[1] - edge :], scale, kept)


@compiled
def product_of_panels(x: Any, panels: Any, z: Any) -> None:
    """Write x y to z, where ``panels[n]`` holds the columns of y from n `COLUMNS` on, as `panels_of` returns them."""
    one, zero = x.dtype.type(1), x.dtype.type(0)
    edge = z.shape[1] % COLUMNS
    for n in range(z.shape[1] // COLUMNS):
        product_with_panel(x, panels[n], 0, panels.strides[0], z, n * COLUMNS, one, zero)
    if edge:
        product_at_edge(x, panels[-1], z[:, z.shape[1] - edge :], one, zero)


@compiled
def product_at_edge(x: Any, panel: Any, z: Any, scale: Any, kept: Any) -> None:
    """Write scale x panel + kept z to z, which has fewer columns than the panel."""
    padded = np.empty((len(x), COLUMNS), x.dtype)
    product_with_panel(x, panel, 0, 0, padded, 0, scale, x.dtype.type(0))
    for i in range(z.shape[0]):
        for c in range(z.shape[1]):
            z[i, c] = padded[i, c] + kept * z[i, c] if kept else padded[i, c]
