"""Second derivatives at kinks: NaN where no local rule can know them, and their values where they exist."""

from math import inf, nan

import numpy as np
import pytest

import tensorlib as tl

ZEROS = np.zeros(2)
KINKS = {
    "norm": (tl.norm, ZEROS),
    "square of a norm": (lambda x: x.norm() ** 2, ZEROS),  # truly 2 I, but so is the product rule's 0 · inf
    "norm of order 3": (lambda x: tl.norm(x, 3), ZEROS),
    "norm of order 1.5": (lambda x: tl.norm(x, 1.5), ZEROS),
    "std": (tl.std, np.ones(2)),
    "variance by std": (lambda x: tl.std(x) ** 2, np.ones(2)),
    "arctan2": (lambda x: tl.arctan2(x[0], x[1]), ZEROS),
    "power at (0, 0)": (lambda x: x[0] ** x[1], ZEROS),
}


@pytest.mark.parametrize("name", KINKS)
def test_the_second_derivative_at_a_kink_is_nan_and_the_first_0(name, backend):
    f, x = KINKS[name]
    x = tl.Tensor(x, requires_grad=True, backend=backend)
    with np.errstate(all="raise"):
        (dx,) = tl.grad(f(x), [x])
        (differentiable,) = tl.grad(f(x), [x], create_graph=True)
    np.testing.assert_array_equal(dx.numpy(), ZEROS)
    np.testing.assert_array_equal(differentiable.numpy(), ZEROS)
    with np.errstate(all="ignore"):
        (second,) = tl.grad(differentiable.sum(), [x])
    np.testing.assert_array_equal(second.numpy(), [nan, nan])


def test_a_kink_spoils_only_its_own_row(backend):
    x = tl.Tensor([[0.0, 0.0], [3.0, 4.0], [1e-200, 0.0]], dtype="float64", requires_grad=True, backend=backend)
    (dx,) = tl.grad((x.norm(axis=1) ** 2).sum(), [x], create_graph=True)
    with np.errstate(all="ignore"):
        (second,) = tl.grad(dx.sum(), [x])
    np.testing.assert_allclose(second.numpy(), [[nan, nan], [2, 2], [2, 2]], rtol=1e-14)


def test_an_order_below_2_has_a_kink_at_each_zero(backend):
    x = tl.Tensor([0.0, 1.0, 1.0], dtype="float64", requires_grad=True, backend=backend)
    for order, expected in ((1.5, [nan, 0, 0]), (0.5, [nan, 0, 0]), (2.5, [0, 0, 0])):
        (dx,) = tl.grad(tl.norm(x, order), [x], create_graph=True)
        assert dx.numpy()[0] == 0
        with np.errstate(all="ignore"):
            (second,) = tl.grad(dx.sum(), [x])
        np.testing.assert_allclose(second.numpy(), expected, atol=1e-14)


def test_a_derivative_along_a_direction_is_that_of_the_first_gradient():
    """It is taken from a gradient with respect to the cotangent, in which the kink is a constant."""
    _, slope = tl.jvp(tl.norm, ZEROS, np.ones(2))
    assert slope.item() == 0


def test_a_power_of_0_has_a_kink_up_to_the_exponent_1(backend):
    """The mixed derivative (1 + y log x) x^(y-1) of x^y is -inf at x = 0 for y <= 1, and 0 above."""
    for y, mixed, curvature in ((0.5, nan, 0), (1.0, nan, 0), (1.5, 0, 0), (0.0, nan, nan)):
        base = tl.Tensor(0.0, dtype="float64", requires_grad=True, backend=backend)
        exponent = tl.Tensor(y, dtype="float64", requires_grad=True, backend=backend)
        with np.errstate(all="ignore"):
            dx, dy = tl.grad(base**exponent, [base, exponent], create_graph=True)
            pairs = ((dx, exponent), (dy, base), (dy, exponent))
            found = [tl.grad(d, [z], retain_graph=True)[0].item() for d, z in pairs]
        np.testing.assert_array_equal(found, [mixed, mixed, curvature])


def test_third_derivatives_pass_through_an_op_with_a_kink(backend):
    t = tl.Tensor(0.75, dtype="float64", requires_grad=True, backend=backend)
    square = 1 + 0.75**2  # the third derivatives of sqrt(t^2 + 1), the norm of (t, 1), and of arctan(t)
    for f, expected in (
        (tl.norm(tl.stack([t, tl.ones_like(t)])), -3 * 0.75 / square**2.5),
        (tl.arctan2(t, tl.ones_like(t)), (6 * 0.75**2 - 2) / square**3),
    ):
        derivative = f
        for _ in range(3):
            (derivative,) = tl.grad(derivative, [t], create_graph=True)
        assert derivative.item() == pytest.approx(expected, rel=1e-12)


EXISTING = {
    "huber_loss": (lambda x: tl.huber_loss(x, ZEROS, reduction="sum"), ZEROS, np.eye(2)),
    "normalize": (lambda x: tl.normalize(x, eps=0.5).sum() ** 2, ZEROS, np.full((2, 2), 8)),
    "normalize of order 1.5": (lambda x: tl.normalize(x, 1.5, eps=0.5).sum() ** 2, ZEROS, np.full((2, 2), 8)),
    "cosine_similarity": (lambda x: tl.cosine_similarity(x, np.array([3.0, 4.0]), eps=0.5) ** 2, ZEROS,
                          8 * np.outer([0.6, 0.8], [0.6, 0.8])),
    "std of one element": (lambda x: tl.std(x[:, None], axis=1).sum(), np.ones(2), np.zeros((2, 2))),
    "norm of order 3": (lambda x: tl.norm(x, 3), np.array([0.0, 1.0]), np.zeros((2, 2))),
    "power at (0, 2)": (lambda x: x[0] ** x[1], np.array([0.0, 2.0]), [[2, 0], [0, 0]]),
    "power at (0, 3)": (lambda x: x[0] ** x[1], np.array([0.0, 3.0]), np.zeros((2, 2))),
    "power at (2, 0)": (lambda x: x[0] ** x[1], np.array([2.0, 0.0]), [[0, 0.5], [0.5, np.log(2) ** 2]]),
    "sqrt": (lambda x: tl.sqrt(x).sum(), np.zeros(1), [[-inf]]),
    "power 1.5": (lambda x: (x**1.5).sum(), np.zeros(1), [[inf]]),
    "relu": (lambda x: (tl.relu(x) ** 2).sum(), np.zeros(1), [[0]]),  # the branch that the first derivative takes
    "elu": (lambda x: tl.elu(x).sum(), np.zeros(1), [[1]]),
    "l1_loss": (lambda x: tl.l1_loss(x, ZEROS), ZEROS, np.zeros((2, 2))),
    "tied maxima": (lambda x: tl.max(x) ** 2, np.ones(2), np.full((2, 2), 0.5)),
    "logsumexp of infinity": (tl.logsumexp, np.array([1, inf]), np.zeros((2, 2))),
    "logsumexp of nothing": (tl.logsumexp, np.array([-inf, -inf]), np.zeros((2, 2))),
    "logcumsumexp of infinity": (lambda x: tl.logcumsumexp(x)[-1], np.array([1, inf]), np.zeros((2, 2))),
    "huge arctan2": (lambda x: tl.arctan2(x[0], x[1]) * 1e200, np.array([1e100, 1e100]), [[-0.5, 0], [0, 0.5]]),
}  # fmt: skip


@pytest.mark.parametrize("name", EXISTING)
def test_where_a_second_derivative_exists_it_is_right(name):
    f, x, expected = EXISTING[name]
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(tl.hessian(f, x).numpy(), expected, atol=1e-12)
