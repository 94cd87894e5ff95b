"""Matrix products of a few rows, by tiles of the result that stay in registers.

BLAS is made for large products: it copies the matrix into another layout each time, which for 25 rows takes half as
long as multiplying. Here it is copied once, into panels of `COLUMNS` columns (`next_position.panels_of`). A tile of the
result, some rows by the columns of a panel, is summed up in vector registers (Goto and van de Geijn 2008, section 4):

    for each p:  tile[r, :] += x[r, p] panel[p, :]

Every sum runs in the order of p, so the bits do not depend on how the rows are divided.
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

__all__ = ["product_of_panels"]

# The columns of a tile: 16 float32 fill one register of 512 bits or two of 256 bits, 16 float64 twice as many.
_WIDE = binding.get_host_cpu_features().get("avx512f", False)  # such processors have 32 vector registers, others 16
ROWS = 8 if _WIDE else 6  # the most rows of a tile: its sums fill most of the registers
ROWS_OF_FLOAT64 = 6 if _WIDE else 3


# ---- one tile, in the compiler's own instructions ----------------------------------------------------------------


@intrinsic
def _tile(typing: Any, rows: Any, x: Any, i: Any, panel: Any, ahead: Any, z: Any, j: Any) -> Any:
    """z[i : i + rows, j : j + COLUMNS] = x[i : i + rows] panel, for 1 <= rows <= the most rows of a tile.

    panel and z have contiguous rows. What lies `ahead` bytes after each row of the panel is fetched into the cache.
    """

    def emit(context: Any, builder: Any, signature: Any, values: tuple[Any, ...]) -> Any:
        count, x_value, i_, panel_value, ahead_, z_value, j_ = values
        x_, panel_, z_ = (
            context.make_array(kind)(context, builder, value)
            for kind, value in ((x, x_value), (panel, panel_value), (z, z_value))
        )
        x_start, z_start = _address(builder, x_, i_, i_.type(0)), _address(builder, z_, i_, j_)
        x_strides, (z_step, _) = (cgutils.unpack_tuple(builder, array.strides, 2) for array in (x_, z_))
        end = builder.append_basic_block("end")
        choice = builder.switch(count, end)
        most = ROWS if x.dtype == types.float32 else ROWS_OF_FLOAT64
        for number in range(1, most + 1):  # machine code of its own for each number of rows
            block = builder.append_basic_block(f"rows{number}")
            choice.add_case(count.type(number), block)
            builder.position_at_end(block)
            for r, total in enumerate(_sums(builder, number, x_start, x_strides, panel_, ahead_)):
                _write(builder, total, cgutils.pointer_add(builder, z_start, builder.mul(z_step, z_step.type(r))))
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    index = types.intp
    return types.void(index, x, index, panel, index, z, index), emit


def _address(builder: Any, array: Any, row: Any, column: Any) -> Any:
    """Return a pointer to array[row, column]."""
    row_step, column_step = cgutils.unpack_tuple(builder, array.strides, 2)
    offset = builder.add(builder.mul(row, row_step), builder.mul(column, column_step))
    return cgutils.pointer_add(builder, array.data, offset)


def _sums(builder: Any, rows: int, x: Any, x_strides: Any, panel: Any, ahead: Any) -> list[Any]:
    """Emit the loop over p; return the sums of each row, a vector of `COLUMNS` numbers."""
    length, index = cgutils.unpack_tuple(builder, panel.shape, 2)[0], ahead.type
    step, vector = cgutils.unpack_tuple(builder, panel.strides, 2)[0], ir.VectorType(x.type.pointee, COLUMNS)
    starts = [cgutils.pointer_add(builder, x, builder.mul(x_strides[0], index(r))) for r in range(rows)]
    following_panel = cgutils.pointer_add(builder, panel.data, ahead)
    before, loop, after = builder.block, builder.append_basic_block("product"), builder.append_basic_block("summed")
    builder.branch(loop)
    builder.position_at_end(loop)
    p, sums = builder.phi(index), [builder.phi(vector) for _ in range(rows)]
    offset, x_offset, new = builder.mul(p, step), builder.mul(p, x_strides[1]), []
    panel_row = _load(builder, vector, panel.data, offset)
    _prefetch(builder, cgutils.pointer_add(builder, following_panel, offset))
    for start, total in zip(starts, sums, strict=True):
        number = _in_every_place(builder, vector, _load(builder, vector.element, start, x_offset))
        new.append(_multiply_add(builder, number, panel_row, total))
    following = builder.add(p, index(1))
    builder.cbranch(builder.icmp_signed("<", following, length), loop, after)
    for value, first, later in [(p, index(0), following), *zip(sums, [vector(None)] * rows, new, strict=True)]:
        value.add_incoming(first, before)
        value.add_incoming(later, loop)
    builder.position_at_end(after)
    return new


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
def product_with_panel(x: Any, panel: Any, ahead: int, z: Any, j: int) -> None:
    """Write x panel to the columns of z from j on."""
    most, count = ROWS if x.itemsize == 4 else ROWS_OF_FLOAT64, x.shape[0]
    tiles = (count + most - 1) // most
    step = (count + tiles - 1) // tiles  # all nearly full: a tile of one row takes nearly as long as a full one
    for i in range(0, count, step):
        _tile(min(step, count - i), x, i, panel, ahead, z, j)


@compiled
def product_of_panels(x: Any, panels: Any, z: Any) -> None:
    """Write x W to z, for the panels of W; all arrays have elements, and contiguous rows."""
    full, rest = z.shape[1] // COLUMNS, z.shape[1] % COLUMNS
    for n in range(full):
        product_with_panel(x, panels[n], panels.strides[0], z, n * COLUMNS)
    if rest:
        padded = np.empty((len(x), COLUMNS), x.dtype)
        product_with_panel(x, panels[full], 0, padded, 0)
        for i in range(z.shape[0]):
            for c in range(rest):
                z[i, full * COLUMNS + c] = padded[i, c]
