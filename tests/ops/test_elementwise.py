"""Functions of one input, exponentials and logarithms, trigonometric functions: edge cases, and mistakes."""

import math
from math import inf, nan

import numpy as np
import pytest

import tensorlib as tl
from tests.edges import assert_edge, edge, matrix, refused_of_a_matrix


def test_kinks(backend):
    assert_edge(edge(tl.abs, [-1, 0, 2], backend=backend), [1, 0, 2], [-1, 0, 1])
    with np.errstate(divide="ignore"):
        assert_edge(edge(tl.sqrt, [0, 4], backend=backend), [0, 2], [inf, 0.25])
        assert_edge(edge(tl.log, 0, backend=backend), -inf, inf)


def test_abs_at_zero_stops_an_infinite_gradient(backend):
    with np.errstate(divide="ignore"):
        assert_edge(edge(lambda x: tl.sqrt(tl.abs(x)), [0, -4], backend=backend), [0, 2], [0, -0.25])


def test_rounding_goes_to_the_even_neighbor(backend):
    x = tl.Tensor([-1.5, -0.5, 0.5, 1.5, 2.5, 2.6], backend=backend)
    np.testing.assert_array_equal(x.round().numpy(), [-2, 0, 0, 2, 2, 3])
    np.testing.assert_array_equal(tl.round(tl.Tensor([125, 135], backend=backend), -1).numpy(), [120, 140])


def test_step_functions_have_no_gradient(backend):
    for f in (tl.sign, tl.floor, tl.ceil, tl.round):
        assert not f(matrix(backend)).requires_grad


# ---- exponentials and logarithms ---------------------------------------------------------------------------------


def test_logaddexp_of_infinities(backend):
    """Two -inf get no gradient, as in logsumexp; two inf share it."""
    x, y = [-inf, inf, inf, -inf, 0, -inf], [-inf, inf, 0, 0, -inf, inf]
    with np.errstate(all="raise", under="ignore"):
        found = edge(tl.logaddexp, x, y, backend=backend)
        assert_edge(found, [-inf, inf, inf, 0, 0, inf], [0, 0.5, 1, 0, 1, 0], [0, 0.5, 0, 1, 0, 1])
        assert_edge(edge(lambda x: tl.logaddexp(x, -inf), [-inf, 1], backend=backend), [-inf, 1], [0, 1])
        assert_edge(edge(lambda x: tl.logaddexp(inf, x), [inf, 1], backend=backend), [inf, inf], [0.5, 0])


def test_logaddexp_of_equal_numbers_keeps_its_second_derivative(backend):
    x = tl.Tensor([3.0], dtype="float64", requires_grad=True, backend=backend)
    (dx,) = tl.grad(tl.logaddexp(x, 3.0), [x], create_graph=True)
    assert dx.item() == 0.5 and tl.grad(dx, [x])[0].item() == 0.25


def test_small_numbers_keep_their_digits(backend):
    x = [1e-20, -1e-20]
    for f in (tl.expm1, tl.log1p):
        assert_edge(edge(f, x, backend=backend), x, [1, 1])
    _, dx = edge(tl.expm1, [-30.0], backend=backend)
    np.testing.assert_allclose(dx, np.exp([-30.0]), rtol=1e-14)


def test_sigmoid_keeps_its_digits_on_the_left():
    x = np.array([-80.0, -20.0, -1.0])
    np.testing.assert_allclose(tl.sigmoid(tl.Tensor(x)).numpy(), 1 / (1 + np.exp(-x)), rtol=1e-12)
    np.testing.assert_allclose(tl.softplus(tl.Tensor(x)).numpy(), np.log1p(np.exp(x)), rtol=1e-12)
    np.testing.assert_allclose(tl.log_sigmoid(tl.Tensor(-x)).numpy(), -np.log1p(np.exp(x)), rtol=1e-12)


# ---- the error function ------------------------------------------------------------------------------------------


def test_erf_matches_the_standard_library_to_the_last_digits(backend):
    x = np.concatenate([np.linspace(-7, 7, 20_001), np.linspace(0.468, 0.47, 201), 10.0 ** np.arange(-36, 38, 2)])
    expected = [math.erf(v) for v in x]
    found = tl.erf(tl.Tensor(x, backend=backend)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    single = tl.erf(tl.Tensor(x, dtype="float32", backend=backend))
    assert single.dtype == "float32"
    np.testing.assert_allclose(single.numpy(), expected, rtol=5e-7)


def test_erf_far_out(backend):
    with np.errstate(all="raise", under="ignore"):
        for dtype, far in (("float16", 6e4), ("float32", 1e38), ("float64", 1e300)):
            found = edge(tl.erf, [-inf, -far, 0, far, inf], backend=backend, dtype=dtype)
            assert_edge(found[:1], [-1, -1, 0, 1, 1])
            np.testing.assert_allclose(found[1], [0, 0, 2 / math.sqrt(math.pi), 0, 0], rtol=1e-3)
    assert np.isnan(tl.erf(tl.Tensor(nan, backend=backend)).item())
    assert math.copysign(1, tl.erf(tl.Tensor([-0.0], backend=backend)).item()) == -1


# ---- trigonometric functions -------------------------------------------------------------------------------------


def test_the_angle_of_a_point_in_each_quadrant(backend):
    y, x = [0, 1, 1, 1, 0, -1, -1, -1], [1, 1, 0, -1, -1, -1, 0, 1]
    value, *_ = edge(tl.arctan2, y, x, backend=backend)
    np.testing.assert_allclose(value, np.arange(8) * math.pi / 4 - np.array([0] * 5 + [2 * math.pi] * 3), rtol=1e-15)


def test_the_angle_at_the_origin_has_gradient_zero(backend):
    assert_edge(edge(tl.arctan2, 0, 0, backend=backend), 0, 0, 0)
    for scale in (1e-200, 1, 1e200):  # whose squares leave the dtype; 3 is no power of two
        _, dy, dx = edge(tl.arctan2, [0, 3 * scale, 4 * scale], [3 * scale, 0, 3 * scale], backend=backend)
        np.testing.assert_allclose(dy * scale, [1 / 3, 0, 0.12], rtol=1e-14)
        np.testing.assert_allclose(dx * scale, [0, -1 / 3, -0.16], rtol=1e-14)


def test_arcsin_and_arccos_at_their_ends(backend):
    with np.errstate(divide="ignore"):
        assert_edge(edge(tl.arcsin, [-1, 1], backend=backend)[1:], [inf, inf])
        assert_edge(edge(tl.arccos, [-1, 1], backend=backend)[1:], [-inf, -inf])
    with np.errstate(invalid="ignore"):
        assert np.isnan(tl.arcsin(tl.Tensor(1.5, backend=backend)).item())


# ---- dtypes and methods ------------------------------------------------------------------------------------------

NUMPYS = """
    abs arccos arcsin arctan ceil cos cosh exp exp2 expm1 floor log log10 log1p log2 reciprocal round sign sin sinh
    sqrt square tan tanh
""".split()  # noqa: SIM905  # words read better than quoted words


@pytest.mark.parametrize("name", NUMPYS)
def test_dtypes_match_numpy(name, backend):
    for dtype in ("int64", "float16", "float32"):
        a = np.array([1, 1], dtype)
        y = getattr(tl, name)(tl.Tensor(a, backend=backend))
        expected = getattr(np, name)(a)
        assert y.dtype == expected.dtype
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", [*NUMPYS, "erf", "rsqrt", "sigmoid"])
def test_methods_are_the_functions_of_that_name(name):
    x = tl.Tensor([0.3, 0.6])
    np.testing.assert_array_equal(getattr(x, name)().numpy(), getattr(tl, name)(x).numpy())


def test_functions_that_numpy_lacks_give_float64_for_integers(backend):
    x = tl.Tensor([-1, 0, 2], backend=backend)
    for f in (tl.sigmoid, tl.softplus, tl.log_sigmoid, tl.erf, tl.rsqrt):
        assert f(x * x + 1).dtype == "float64"


@pytest.mark.parametrize("dtype", ["uint8", "int8", "bool", "int64"])
def test_small_integers_do_not_wrap_around(dtype, backend):
    """-x is 256 - x for a uint8 and an error for a boolean; NumPy's exponential of either is float16."""
    a = np.array([[3, 1, 2], [0, 5, 4]]).astype(dtype)
    x, wide = (tl.Tensor(z, backend=backend) for z in (a, a.astype("float64")))
    for f in (tl.sigmoid, tl.softplus, tl.log_sigmoid, tl.silu, tl.mish, tl.elu, tl.gelu, tl.softsign, tl.softmax,
              tl.log_softmax, tl.logsumexp, tl.logcumsumexp, tl.var, tl.std, tl.norm):  # fmt: skip
        assert f(x).dtype == "float64"
        np.testing.assert_array_equal(f(x).numpy(), f(wide).numpy(), err_msg=f.__name__)
    for loss in (tl.mse_loss, tl.l1_loss, tl.huber_loss):
        assert loss(x, x[::-1]).item() == loss(wide, wide[::-1]).item()


def test_the_square_of_booleans_matches_numpy(backend):
    assert tl.square(tl.Tensor([True, False], backend=backend)).dtype == np.square(np.array([True, False])).dtype


def test_numbers_and_lists_and_arrays_are_accepted(backend):
    assert tl.cos(0.0).item() == 1 and tl.exp2([1.0, 3.0]).numpy().tolist() == [2, 8]
    assert tl.log_sigmoid(0.0).item() == pytest.approx(-math.log(2))
    assert tl.sin(backend.asarray([0.0])).backend is backend


# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda x: x.round(1.5), TypeError, r"round: decimals must be an integer, got 1.5"),
    (lambda x: x.round([1, 2]), TypeError, r"round: decimals must be an integer, got \[1, 2\]"),
    (lambda x: tl.exp("1"), TypeError, r"exp: data must be numbers, got dtype <U1"),
    (lambda x: tl.sin(None), TypeError, r"sin: data must be numbers, got NoneType"),
    (lambda x: tl.log([[1.0], [1.0, 2.0]]), ValueError, r"log: nested lists must form a rectangle"),
    (lambda x: tl.grad(x.floor().sum(), [x]), RuntimeError, r"grad: the output of shape \(\) does not require a grad"),
    (lambda x: tl.cos(x, x), TypeError, r"cos\(\) takes 1 positional argument but 2 were given"),
    (lambda x: x.exp(axis=0), TypeError, r"exp\(\) got an unexpected keyword argument 'axis'"),
    (lambda x: tl.arctan2(x), TypeError, r"arctan2\(\) missing 1 required positional argument: 'x'"),
]  # fmt: skip


test_mistakes_are_named_with_the_value_and_the_remedy = refused_of_a_matrix(BAD)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_second_derivatives_of_arcsin_and_arccos_are_infinite_at_their_poles(dtype):
    """As in PyTorch: that of arcsin is x / (1 - x^2)^(3/2)."""
    x = tl.Tensor([-1.0, 1.0, 0.0, 0.5, -0.999, 1 - 2.0**-20], requires_grad=True, dtype=dtype)
    points = x.numpy().astype(np.float64)
    with np.errstate(divide="ignore"):
        second = points / ((1 - points) * (1 + points)) ** 1.5
        for f, sign in ((tl.arcsin, 1), (tl.arccos, -1)):
            (plain,) = tl.grad(f(x).sum(), x)
            (first,) = tl.grad(f(x).sum(), x, create_graph=True)
            (found,) = tl.grad(first.sum(), x)
            np.testing.assert_allclose(first.numpy(), plain.numpy(), rtol=1e-6 if dtype == "float32" else 1e-15)
            np.testing.assert_allclose(found.numpy(), sign * second, rtol=1e-5 if dtype == "float32" else 1e-12)
    assert found.numpy()[:2].tolist() == [np.inf, -np.inf]
