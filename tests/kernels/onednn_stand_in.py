"""NumPy in the place of oneDNN, so that products in bf16 can be tested on a processor without bf16."""

import ctypes
from functools import cache

import numpy as np


def matrix(address, rows, columns, step, number):
    """Return the matrix at an address."""
    flat = np.ctypeslib.as_array((number * ((rows - 1) * step + columns)).from_address(address))
    item = flat.itemsize
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (step * item, item))


def operand(address, letter, rows, columns, step):
    """Return the bf16 matrix at an address as float32, transposed if the letter is T."""
    shape = (columns, rows) if letter == ord("T") else (rows, columns)
    values = (matrix(address, *shape, step, ctypes.c_uint16).astype(np.uint32) << 16).view(np.float32)
    return values.T if letter == ord("T") else values


class StandIn:
    """NumPy in the place of oneDNN, with a list of the products that were asked for."""

    def __init__(self, product_type):
        self.shapes, self.limits, self.status = [], [], 0

        def product(tx, ty, m, n, k, alpha, x, ldx, y, ldy, beta, z, ldz):
            self.shapes.append((m, n, k))
            result = matrix(z, m, n, ldz, ctypes.c_float)
            new = alpha * (operand(x, tx, m, k, ldx) @ operand(y, ty, k, n, ldy))
            result[:] = new + beta * result if beta else new
            return self.status

        self.functions = (
            product_type(product),
            ctypes.CFUNCTYPE(None, ctypes.c_int)(self.limits.append),
            ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7),
        )


@cache
def connected():
    """Return a stand-in for oneDNN that compiled kernels of this process call from now on."""
    from tensorlib.kernels.numba import connect_bf16, onednn

    made = StandIn(onednn._Product)
    assert onednn.check(made.functions[0])
    made.shapes.clear()
    connect_bf16(onednn.Functions(*made.functions))
    return made
