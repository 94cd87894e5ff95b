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


# ---- what a custom op may not do -------------------------------------------------------------------------------------


class Writes(tl.Function):
    """2 x, whose `backward` writes into the gradient, a saved input or a saved output if it is told to."""

    into = None

    def forward(self, x):
        y = x * 2
        self.save(x, y)
        return y

    def backward(self, dy):
        kept = [dy, *self.saved]
        if self.into is not None:
            array = kept[self.into]
            array = array.data if isinstance(array, tl.Tensor) else array
            array *= 5
        return dy * 2


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("into", [0, 2, 1])
def test_backward_cannot_write_into_what_others_share(into, create_graph, monkeypatch):
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    seed = tl.Tensor([1.0, 1.0], dtype="float64")
    x = a * 1.0
    y = Writes.apply(x)
    z = y + b
    monkeypatch.setattr(Writes, "into", into)
    with pytest.raises(ValueError, match=r"^writes: backward must not write into dy or saved arrays"):
        tl.grad([z], [a, b], [seed], create_graph=create_graph, retain_graph=True)
    assert seed.numpy().tolist() == [1.0, 1.0]
    assert y.numpy().tolist() == [2.0, 4.0] and x.numpy().tolist() == [1.0, 2.0]
    monkeypatch.setattr(Writes, "into", None)
    da, db = tl.grad([z], [a, b], [seed], create_graph=create_graph)
    assert da.numpy().tolist() == [2.0, 2.0] and db.numpy().tolist() == [1.0, 1.0]


class Made(tl.Function):
    """What `f` makes of x, with the gradient that `g` makes of dy."""

    def forward(self, x, f=None, g=None):
        self.g = g or (lambda dy: dy)
        return f(x)

    def backward(self, *dys):
        return self.g(dys[0])


NOT_NUMBERS = [
    (lambda x: x.astype(str), "must be numbers, got dtype <U"),
    (lambda x: x.astype(object), "must be numbers, got dtype object"),
    (lambda x: x * 1j, "complex numbers are not supported, got dtype complex128"),
    (lambda x: np.ma.array(x, mask=[True, False]), r"must return an array, .* got MaskedArray .*y\.filled\(0\)"),
    (lambda x: x.view(np.matrix), "must return an array, .* got matrix"),
    (lambda x: x.astype(">f8"), "must return an array, .* got ndarray of dtype >f8; write tl"),
]
if np.dtype(np.longdouble).itemsize > 8:
    NOT_NUMBERS.append((lambda x: x.astype(np.longdouble), "more than 64 bits are not supported, got dtype float128"))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize(("f", "message"), NOT_NUMBERS)
def test_an_op_returns_numbers(f, message, requires_grad):
    x = tl.Tensor([1.0, 2.0], requires_grad, dtype="float64")
    with pytest.raises(TypeError, match="^made: forward:? .*" + message):
        Made.apply(x, f=f)
    with pytest.raises(TypeError, match="^made: forward:? .*" + message):
        Made.apply(x, f=lambda x: (x * 2, f(x)))
    if requires_grad:
        with pytest.raises(TypeError, match="^made: backward:? .*" + message):
            Made.apply(x, f=lambda x: x * 2, g=f).sum().backward()
        assert x.grad is None


def test_an_output_with_a_gradient_is_floating():
    x = leaf([3.0, 1.0])
    wanted = "made: forward must return floating numbers where a gradient is wanted, got int64; set differentiable = F"
    with pytest.raises(TypeError, match=wanted):
        Made.apply(x, f=lambda x: x.argsort())
    assert Made.apply(x.detach(), f=lambda x: x.argsort()).numpy().tolist() == [1, 0]
    doubled, order = Made.apply(x, f=lambda x: (x * 2, x.argsort()), g=lambda dy: dy * 2)
    assert doubled.requires_grad and not order.requires_grad and order.is_leaf
    doubled.sum().backward()
    assert_grad(x, [2, 2])


def test_a_gradient_that_is_an_array_becomes_a_tensor():
    x = leaf([1.0, 2.0])
    (dx,) = tl.grad(Made.apply(x, f=lambda x: x * 2, g=lambda dy: np.full(2, 2.0)).sum(), [x], create_graph=True)
    assert isinstance(dx, tl.Tensor) and dx.numpy().tolist() == [2.0, 2.0]
