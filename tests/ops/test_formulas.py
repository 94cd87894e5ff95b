"""Corner cases of gradient formulas that no sample of the op table reaches, found by ``benchmarks/mutants.py``."""

from math import inf

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.arrays.backend import get_backend
from tensorlib.engine.function import Function
from tests.edges import assert_edge, edge

IDS = np.array([[0, 2], [2, 1]])

# Ops whose gradient is computed by another Function: the second derivative runs its backward, and only the third
# checks that this is differentiable in turn.
ADJOINTS = {
    "cumprod": (lambda x: tl.cumprod(x, axis=1), (2, 3)),
    "logcumsumexp": (lambda x: tl.logcumsumexp(x, axis=0), (3, 2)),
    "embedding": (lambda x: tl.embedding(x, IDS), (3, 2)),
    "getitem": (lambda x: x[[0, 2, 0]], (3, 2)),
    "diagonal": (lambda x: tl.diagonal(x), (2, 3)),
    "split": (lambda x: tl.split(x, [1], axis=1)[1], (2, 3)),
    "max_pool": (lambda x: tl.max_pool(x.reshape(1, 1, 2, 3), 2, stride=1), (2, 3)),
    "conv1d": (lambda x: tl.conv1d(x.reshape(1, 1, 5), tl.Tensor([[[1.0, -2.0]]], dtype="float64")), (5,)),
    "softplus": (tl.softplus, (3,)),
    "gelu": (tl.gelu, (3,)),
    "logaddexp": (lambda x: tl.logaddexp(x, 0.5 * x * x), (3,)),
    "layer_norm": (lambda x: tl.layer_norm(x, x[0], x[1]), (2, 3)),
}


@pytest.mark.parametrize("name", ADJOINTS)
def test_the_third_derivative_is_right(name):
    f, shape = ADJOINTS[name]
    rng = np.random.default_rng(0)
    point = rng.permutation(np.prod(shape)).reshape(shape) * 0.2 + rng.uniform(0.4, 0.5, shape)
    c = tl.Tensor(rng.uniform(0.5, 1.5, f(tl.Tensor(point)).shape))

    def slope(x):
        return tl.grad((f(x) ** 3 * c).sum(), [x], create_graph=True)[0]

    tl.gradcheck(slope, point, order=2, name=f"the slope of {name}")


# ---- each input alone, to second order -----------------------------------------------------------------------------


@pytest.mark.parametrize("shapes", [((), (2, 3)), ((1, 1), (4, 3, 1)), ((1,), (2, 1)), ((2, 1), (3, 1, 2))])
def test_gradients_are_summed_over_broadcast_axes(shapes):
    """Even if a broadcast axis is next to one that happens to have size 1."""
    rng = np.random.default_rng(0)
    tl.gradcheck(lambda x, y: x * x * y, *[rng.uniform(0.5, 1.5, shape) for shape in shapes])


def test_a_remainder_by_a_number_to_second_order():
    tl.gradcheck(lambda x: tl.remainder(x, 0.7) * x, np.array([0.3, -0.4, 1.0]))


def test_power_of_a_negative_number_at_exponent_zero():
    x, y = tl.Tensor([-2.0, -2.0], requires_grad=True), tl.Tensor([0.0, 2.0])
    (dx,) = tl.grad((x**y).sum(), [x])
    np.testing.assert_array_equal(dx.numpy(), [0, -4])


# ---- ties ----------------------------------------------------------------------------------------------------------


def test_with_equal_bounds_of_clip_low_gets_the_gradient_below_and_high_above(backend):
    """If the bounds are reversed, high gets all of it, as in PyTorch."""
    found = edge(tl.clip, [0, 3, 1, 1.5], [1, 1, 1, 2], [1, 1, 1, 1], backend=backend)
    assert_edge(found, [1, 1, 1, 1], [0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 1])


@pytest.mark.parametrize("f", [tl.maximum, tl.minimum])
def test_the_half_at_a_tie_is_differentiable_by_the_gradient(f):
    x = tl.Tensor([1.0, 2.0], requires_grad=True)
    dy = tl.Tensor([3.0, 5.0], requires_grad=True)
    (dx,) = tl.grad(f(x, tl.Tensor([1.0, 2.0])), [x], [dy], create_graph=True)
    (back,) = tl.grad(dx.sum(), [dy])
    np.testing.assert_array_equal(back.numpy(), [0.5, 0.5])


def test_an_infinite_gradient_at_a_hidden_position_spoils_no_row_of_softmax(backend):
    """Even if the other rows are finite."""
    visible = np.array([[True, True, False], [True, True, True]])
    x = tl.Tensor(np.zeros((2, 3)), requires_grad=True, backend=backend)
    y = tl.softmax(x, visible=tl.Tensor(visible, backend=backend))
    dy = tl.Tensor(np.array([[1.0, 2.0, inf], [1.0, 2.0, 3.0]]), backend=backend)
    (dx,) = tl.grad(y, [x], [dy])
    np.testing.assert_allclose(dx.numpy(), [[-0.25, 0.25, 0], [-1 / 3, 0, 1 / 3]], atol=1e-15)


# ---- dropout -------------------------------------------------------------------------------------------------------


def test_dropout_keeps_the_random_bits_from_its_threshold_on(monkeypatch):
    bits = np.array([0, 16383, 16384, 65535], np.uint16)
    monkeypatch.setattr(type(get_backend("numpy")), "random_bits", lambda self, key, draw, n: bits[:n])
    monkeypatch.setattr("tensorlib.kernels.numpy.dropout.philox_bits", lambda key, draw, start, n: bits[:n])
    np.testing.assert_array_equal(tl.dropout(tl.Tensor(np.ones(4)), 0.25).numpy(), np.array([0, 0, 1, 1]) / 0.75)
    np.testing.assert_array_equal(tl.dropout(tl.Tensor(np.ones(4)), 1 - 2.0**-16).numpy(), [0, 0, 0, 65536])


# ---- the engine ----------------------------------------------------------------------------------------------------


def test_the_accumulated_gradient_of_a_scalar_stays_an_array():
    x = tl.Tensor(2.0, requires_grad=True)
    for times in (1, 2, 3):
        (x * 3.0).backward()
        assert isinstance(x.grad.data, np.ndarray) and x.grad.item() == 3 * times


@pytest.mark.parametrize("shape", [(3,), (2,), (4, 3), (1,)])
def test_a_gradient_that_does_not_broadcast_to_its_input_is_refused_for_ops_that_broadcast_too(shape):
    class Wrong(Function):
        broadcasts = True

        def forward(self, x, y):
            return x + y

        def backward(self, dz):
            return dz, np.ones(shape)

    y = tl.Tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises(RuntimeError, match=r"wrong: gradient for input 1 must have the input's shape \(2, 3\), got"):
        Wrong.apply(tl.Tensor(np.ones((2, 3)), requires_grad=True), y).sum().backward()


def test_a_node_that_received_no_gradient_is_skipped():
    class Stop(Function):
        def forward(self, x):
            return x * 1

        def backward(self, dy):
            return None

    x = tl.Tensor([1.0, 2.0], requires_grad=True)
    (Stop.apply(x * 2) + x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1, 1])
