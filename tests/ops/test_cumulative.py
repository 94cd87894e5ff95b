"""Running sums and products: edge cases, and mistakes."""

from math import inf

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.ops.cumulative import Recurrence
from tests.edges import assert_edge, edge, refused_of_a_matrix


def test_the_running_product_is_exact_through_zeros(backend):
    def cumprod(x):
        return tl.cumprod(x, axis=-1)

    assert_edge(edge(cumprod, [2, 3, 4], backend=backend), [2, 6, 24], [16, 10, 6])
    assert_edge(edge(cumprod, [2, 0, 4], backend=backend), [2, 0, 0], [1, 10, 0])
    assert_edge(edge(cumprod, [[0, 3, 0], [0, 0, 5]], backend=backend), np.zeros((2, 3)), [[4, 0, 0], [1, 0, 0]])


def test_the_second_derivative_of_a_running_product_at_zeros(backend):
    """For x + xy + xyz at (0, 0, 3): d2/dxdy is 1 + 3, and d2/dydz is x = 0."""
    x = tl.Tensor([0.0, 0.0, 3.0], requires_grad=True, backend=backend)
    (dx,) = tl.grad(x.cumprod().sum(), [x], create_graph=True)
    for row, expected in zip(dx, ([0, 4, 0], [4, 0, 0], [0, 0, 0]), strict=True):
        assert_edge([tl.grad(row, [x], retain_graph=True)[0].numpy()], expected)


def test_a_running_product_that_overflows_leaves_earlier_gradients_intact(backend):
    """For y_0 alone, dx is (1, 0, 0), although x_1 x_2 x_3 would overflow."""
    if backend.name == "cupy":
        pytest.skip("a parallel scan multiplies x_2 and x_3 first, which overflows")
    found = edge(tl.cumprod, [1e-300, 1e300, 1e200, 1e-200], backend=backend, cotangent=[1, 0, 0, 0])
    assert_edge(found[1:], [1, 0, 0, 0])


def test_logcumsumexp_below_and_far_above_0(backend):
    with np.errstate(all="raise", under="ignore"):
        assert_edge(edge(tl.logcumsumexp, [-inf, -inf, -1000, -inf, 0, 1000], backend=backend),
                    [-inf, -inf, -1000, -1000, 0, 1000], [0, 0, 2, 0, 1, 1])  # fmt: skip
        assert_edge(edge(tl.logcumsumexp, [1e30, -1e30, 1e30], backend=backend), [1e30] * 3, [2.5, 0, 0.5])
        assert_edge(edge(tl.logcumsumexp, [1, inf, 2, inf], backend=backend), [1, inf, inf, inf], [1, 2.5, 0, 0.5])
        y, dx = edge(tl.logcumsumexp, [0.0] * 5, backend=backend)
    np.testing.assert_allclose(y, np.log(np.arange(1, 6)), rtol=1e-15)
    np.testing.assert_allclose(dx, [sum(1 / k for k in range(i, 6)) for i in range(1, 6)], rtol=1e-15)


def test_logcumsumexp_ends_in_logsumexp(backend):
    x = tl.Tensor(np.random.default_rng(0).normal(0, 30, (37, 3)), backend=backend)
    np.testing.assert_allclose(x.logcumsumexp(axis=0)[-1].numpy(), x.logsumexp(axis=0).numpy(), rtol=1e-14)


def test_running_sums_of_float16_are_computed_in_float32(backend):
    half = tl.Tensor(np.ones(3000), dtype="float16", requires_grad=True, backend=backend)
    assert half.cumsum().dtype == "float16" and half.cumsum()[-1].item() == 3000
    assert_edge([tl.grad(half.cumsum()[-1], [half])[0].numpy()], np.ones(3000))
    assert tl.grad(half.cumsum().mean(), [half])[0].dtype == "float16"
    assert (half * 0).logcumsumexp()[-1].item() == np.float16(np.log(3000))


def test_without_an_axis_x_is_flattened(backend):
    x = tl.Tensor([[1.0, 2.0], [3.0, 4.0]], backend=backend)
    assert_edge([x.cumsum().numpy(), x.cumprod().numpy()], [1, 3, 6, 10], [1, 2, 6, 24])
    assert tl.cumsum(3.0).shape == (1,)
    assert tl.logcumsumexp([0, 0]).dtype == "float64"


# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda x: x.cumsum(axis=2), ValueError, r"cumsum: axis must lie in \[-2, 2\) for 2 dimensions, got 2"),
    (lambda x: x.cumsum(axis=(0, 1)), TypeError, r"cumsum: axis must be one integer, got \(0, 1\)"),
    (lambda x: x.cumprod(axis=-3), ValueError, "cumprod: axis must lie in .* got -3"),
    (lambda x: x.cumprod(axis="0"), TypeError, "cumprod: axis must be one integer, got '0'"),
    (lambda x: x.logcumsumexp(axis=1.0), TypeError, "logcumsumexp: axis must be one integer, got 1.0"),
    (lambda x: x.logcumsumexp(dim=1), TypeError, r"logcumsumexp\(\) got an unexpected keyword argument 'dim'"),
    (lambda x: tl.cumsum(x[0, 0], axis=0), ValueError, r"cumsum: axis must lie in \[0, 0\) for 0 dimensions, got 0"),
    (lambda x: tl.cumprod("12"), TypeError, "cumprod: data must be numbers, got dtype <U2"),
]  # fmt: skip


test_mistakes_are_named_with_the_value_and_the_remedy = refused_of_a_matrix(BAD)


def test_the_recurrence_behind_running_products_is_right_to_second_order():
    """It is not a public function, so no row of the table checks it."""
    rng = np.random.default_rng(0)
    for axis, shape in ((0, (4,)), (1, (2, 3)), (0, (3, 2))):
        x, a = rng.normal(size=shape), rng.normal(size=shape)
        tl.gradcheck(lambda x, a, axis=axis: Recurrence.apply(x, a, axis=axis), x, a)
