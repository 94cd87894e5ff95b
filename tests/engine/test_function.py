"""Function: operands that are not Tensors, and ops written outside the library."""

import numpy as np
import pytest

import tensorlib as tl
from tests.engine.helpers import assert_grad, leaf


def test_operands_that_are_not_tensors(backend):
    x = tl.Tensor([16.0, 64.0], requires_grad=True, backend=backend)
    for y in (x / np.sqrt(64), np.float64(2) * x, 1 - x, 2**x, x + 1, x * np.int64(3), [1.0, 2.0] - x):
        assert isinstance(y, tl.Tensor) and y.dtype == np.float32 and y.requires_grad and y.backend is backend
    host = tl.Tensor([1.0, 2.0], requires_grad=True)
    for y in (np.ones(2, np.float32) * host, np.ones((3, 2), np.float32) + host, np.ones((3, 2), np.float32) @ host):
        assert isinstance(y, tl.Tensor) and y.dtype == np.float32
    assert (np.ones(2, np.float32) < host).dtype == bool
    assert tl.exp(1.0).dtype == np.float32 and tl.exp(1.0).item() == pytest.approx(np.e)
    assert tl.add(np.ones(2, np.float16), 2.0).dtype == np.float16
    assert tl.where(tl.Tensor([True, False], backend=backend), 1.0, 0.0).dtype == np.float32
    np.testing.assert_array_equal(tl.where(tl.Tensor([True, False], backend=backend), 2, 3).numpy(), [2, 3])


def test_one_array_in_two_tensors_has_two_gradients_at_second_order():
    """`save` identifies inputs by identity, and x.detach() has the same array as x."""
    x = leaf([3.0])
    (dx,) = tl.grad(x * x.detach(), [x], create_graph=True)
    assert not dx.requires_grad or tl.grad(dx, [x], allow_unused=True) == (None,)
    (dx,) = tl.grad(x.detach() * x * x, [x], create_graph=True)
    assert dx.item() == 18
    (ddx,) = tl.grad(dx, [x])
    assert ddx.item() == 6
    (dx,) = tl.grad(x * x.data * x, [x], create_graph=True)
    assert tl.grad(dx, [x])[0].item() == 6


# ---- custom ops ------------------------------------------------------------------------------------------------------


class Cube(tl.Function):
    """y = x^3  =>  dx = 3 x^2 dy."""

    def forward(self, x):
        self.save(x)
        return x * x * x

    def backward(self, dy):
        (x,) = self.saved
        return 3 * x * x * dy


def test_a_custom_op(backend):
    tl.gradcheck(lambda x: Cube.apply(x), np.array([[1.0, -2.0]]), backend=backend)
    y = Cube.apply(tl.Tensor([2.0], requires_grad=True, backend=backend))
    assert y.item() == 8 and y.node.name == "cube"


def test_custom_ops_that_break_the_rules():
    class SavesSomethingElse(tl.Function):
        def forward(self, x):
            self.save(x * 2)
            return x * 2

    class TooMany(Cube):
        def backward(self, dy):
            return dy, dy

    class WrongShape(Cube):
        def backward(self, dy):
            return dy.sum(axis=0)

    class NoBackward(tl.Function):
        def forward(self, x):
            return x * 1

    x = leaf([1.0, 2.0])
    with pytest.raises(
        ValueError, match=r"saves_something_else: save\(\) keeps inputs or outputs .* shape \(2,\); keep"
    ):
        SavesSomethingElse.apply(x)
    with pytest.raises(RuntimeError, match="too_many: backward must return 1 gradients, got 2"):
        TooMany.apply(x).sum().backward()
    with pytest.raises(
        RuntimeError, match=r"wrong_shape: gradient for input 0 must have the input's shape \(2,\), got \(\)"
    ):
        WrongShape.apply(x).sum().backward()
    with pytest.raises(NotImplementedError, match="NoBackward: backward is missing"):
        NoBackward.apply(x).sum().backward()
    with pytest.raises(NotImplementedError, match="Function: forward is missing"):
        tl.Function.apply(x)


def test_needs_tells_which_gradients_are_wanted():
    seen = []

    class Product(tl.Function):
        def forward(self, x, y):
            self.save(x, y)
            return x * y

        def backward(self, dz):
            x, y = self.saved
            seen.append(self.needs)
            return dz * y if self.needs[0] else None, dz * x if self.needs[1] else None

    x, y = leaf([2.0]), leaf([3.0])
    Product.apply(x, y).backward()
    Product.apply(x, y.detach()).backward()
    Product.apply(2.0, y).backward()
    assert seen == [(True, True), (True, False), (False, True)]
    assert_grad(x, [6])
    assert_grad(y, [4])


class OneWay(tl.Function):
    """x + y; no gradient flows to y."""

    broadcasts = True

    def forward(self, x, y):
        return x + y

    def backward(self, dz):
        return dz, None


def test_an_op_may_let_no_gradient_flow_to_an_input():
    x, y = leaf([1.0]), leaf([2.0])
    OneWay.apply(x, y).sum().backward()
    assert_grad(x, [1])
    assert y.grad is None
    (OneWay.apply(x, y) + y * 3).sum().backward()
    assert_grad(y, [3])
    assert tl.grad(OneWay.apply(x, y), [y], allow_unused=True) == (None,)
