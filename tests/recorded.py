"""Small recorded computations for the tests of the graph and its picture."""

import numpy as np

import tensorlib as tl


def leaf(*shape, name="", dtype="float32"):
    x = tl.Tensor(np.ones(shape, dtype), requires_grad=True)
    x.name = name
    return x


def linear(path, x, n, m):
    with tl.module_scope(path):
        return x @ leaf(n, m, name=f"{path}.weight") + leaf(m, name=f"{path}.bias")


def network():
    """Two blocks, each: query and key into attention, a residual add, and one dropout called twice."""
    x = leaf(2, 8)
    for i in range(2):
        path = f"encoder.layers.{i}"
        q, k = linear(f"{path}.attention.query", x, 8, 8), linear(f"{path}.attention.key", x, 8, 8)
        with tl.module_scope(f"{path}.attention"):
            y = q * k
        for _ in range(2):
            with tl.module_scope(f"{path}.dropout"):
                y = tl.dropout(y, 0.1)
            with tl.module_scope(path):
                y = x + y
        x = y
    return x.sum()
