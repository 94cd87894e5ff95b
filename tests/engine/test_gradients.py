"""Gradients in a backward pass: their sums, dtypes and memory."""

import numpy as np

import tensorlib as tl
from tests.engine.helpers import assert_grad, leaf


def test_grad_accumulates_and_does_not_alias():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    seed = np.ones(2, np.float32)
    (x + y).backward(seed)
    assert not np.shares_memory(x.grad.data, y.grad.data)
    assert not np.shares_memory(x.grad.data, seed)
    before = x.grad
    (x * 2).backward(seed)
    assert_grad(x, [3, 3])
    assert_grad(y, [1, 1])
    np.testing.assert_array_equal(before.numpy(), [1, 1])  # the earlier .grad is unchanged
    assert x.grad.is_leaf and not x.grad.requires_grad


def test_gradients_take_the_dtype_of_their_input():
    x, w = leaf([1.0, 2.0], dtype="float32"), leaf([3.0, 4.0], dtype="float64")
    y = x * w
    assert y.dtype == np.float64
    y.sum().backward()
    assert x.grad.dtype == np.float32 and w.grad.dtype == np.float64
    assert_grad(x, [3, 4])
    half = leaf([1.0], dtype="float16")
    (half * x[:1]).sum().backward()
    assert half.grad.dtype == np.float16


def test_an_array_that_an_op_keeps_does_not_become_a_gradient():
    kept = np.full(2000, 3.0)

    class Constant(tl.Function):
        def forward(self, x):
            return x

        def backward(self, dy):
            return kept

    class OneAndItsView(tl.Function):
        def forward(self, x, y):
            return x + y.T

        def backward(self, dy):
            g = dy * 2
            return g, g.T

    x = tl.Tensor(np.ones(2000), requires_grad=True)
    Constant.apply(x).sum().backward()
    assert not np.shares_memory(x.grad.data, kept)
    y, z = (tl.Tensor(np.ones((50, 50)), requires_grad=True) for _ in range(2))
    OneAndItsView.apply(y, z).sum().backward()
    assert not np.shares_memory(y.grad.data, z.grad.data)


def test_gradients_of_ops_that_return_new_arrays_share_no_memory_although_they_are_not_copied():
    """Neither with each other, nor with those of a second pass, nor with saved arrays."""
    x, w, b = (tl.Tensor(np.ones(shape), requires_grad=True) for shape in ((40, 50), (50, 60), (60,)))
    loss = tl.linear_cross_entropy(tl.linear_relu(x, w, b), w.T.copy(), None, np.zeros(40, int))
    passes = [tl.grad(loss, [x, w, b], retain_graph=True) for _ in range(2)]
    arrays = [dx.data for dxs in passes for dx in dxs] + [x.data, w.data, b.data]
    for i, a in enumerate(arrays):
        assert not any(np.shares_memory(a, other) for other in arrays[:i])
