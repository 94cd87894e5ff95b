"""Reductions: edge cases and mistakes."""

import math
from math import inf, nan

import numpy as np
import pytest

import tensorlib as tl
from tests.edges import assert_edge, edge, matrix, refused_of_a_matrix

# ---- extremes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f", [tl.max, tl.amax, lambda x, axis=None: -tl.min(-x, axis), lambda x, axis=None: -(-x).amin(axis)]
)
def test_tied_extremes_share_the_gradient_evenly(f, backend):
    assert_edge(edge(lambda x: f(x, axis=1), [[1, 3, 3], [2, 2, 2]], backend=backend, cotangent=[6, 3]),
                [3, 2], [[0, 3, 3], [1, 1, 1]])  # fmt: skip
    assert_edge(edge(f, [[1, 3], [3, 2]], backend=backend), 3, [[0, 0.5], [0.5, 0]])


def test_an_infinite_gradient_goes_only_to_the_extremes(backend):
    with np.errstate(all="raise"):
        found = edge(lambda x: x.max(axis=1), [[1, 2], [3, 3], [4, 5]], backend=backend, cotangent=[inf, inf, nan])
        assert_edge(found, [2, 3, 5], [[0, inf], [inf, inf], [0, nan]])
        assert_edge(edge(tl.min, [1, 2], backend=backend, cotangent=-inf), 1, [-inf, 0])


def test_nan_is_the_extreme_and_gets_the_gradient(backend):
    with np.errstate(all="raise"):
        assert_edge(edge(tl.max, [1, nan, 2], backend=backend), nan, [0, 1, 0])
        assert_edge(edge(tl.min, [nan, -inf, nan], backend=backend), nan, [0.5, 0, 0.5])


def test_extremes_of_infinities_and_integers(backend):
    assert_edge(edge(tl.max, [-inf, -inf], backend=backend), -inf, [0.5, 0.5])
    integers = tl.Tensor([3, 1, 2], backend=backend)
    assert (integers.max().item(), integers.min().item()) == (3, 1) and integers.min().dtype == "int64"
    assert (tl.argmax([1, 3, 3]).item(), tl.argmin([3, 1, 1]).item()) == (1, 1)


# ---- sums and products -------------------------------------------------------------------------------------------


def test_float16_is_summed_in_float32(backend):
    half = tl.Tensor(np.ones((3000, 2)), dtype="float16", requires_grad=True, backend=backend)
    for f, expected in (
        (tl.sum, 3000),
        (tl.mean, 1),
        (tl.norm, math.sqrt(3000)),
        (tl.logsumexp, math.log(3000 * math.e)),
    ):
        y = f(half, axis=0)
        assert y.dtype == "float16"
        np.testing.assert_array_equal(y.numpy(), np.full(2, expected, np.float16))
    assert_edge([tl.std(half * tl.Tensor([300, 0], dtype="float16", backend=backend), axis=0).numpy()], [0, 0])
    assert tl.prod(tl.Tensor([512, 512, 2**-10], dtype="float16", backend=backend)).item() == 256
    (bias,) = tl.grad((half * 0 + (b := matrix(backend).astype("float16")[0, :2])).sum(), [b])  # the engine's own sum
    assert_edge([bias.numpy()], [3000, 3000])


def test_the_product_is_exact_through_zeros(backend):
    assert_edge(edge(tl.prod, [2, 3, 4], backend=backend), 24, [12, 8, 6])
    assert_edge(edge(tl.prod, [2, 0, 4], backend=backend), 0, [0, 8, 0])
    assert_edge(edge(tl.prod, [0, 3, 0], backend=backend), 0, [0, 0, 0])
    assert_edge(edge(lambda x: x.prod(axis=(0, 2)), [[[0, 2], [3, 4]], [[5, 6], [7, 8]]], backend=backend),
                [0, 672], [[[60, 0], [224, 168]], [[0, 0], [96, 84]]])  # fmt: skip


def test_the_second_derivative_of_a_product_at_zeros(backend):
    """Of x y z at (0, 0, 3): d2/dxdy is 3, though the first gradient vanishes."""
    x = tl.Tensor([0.0, 0.0, 3.0], requires_grad=True, backend=backend)
    (dx,) = tl.grad(x.prod(), [x], create_graph=True)
    assert_edge([dx.numpy()], [0, 0, 0])
    for row, expected in zip(dx, ([0, 3, 0], [3, 0, 0], [0, 0, 0]), strict=True):
        assert_edge([tl.grad(row, [x], retain_graph=True)[0].numpy()], expected)


def test_sums_and_products_of_no_elements_and_of_integers(backend):
    nothing = tl.Tensor(np.zeros((0, 2)), backend=backend)
    assert_edge([f(nothing, axis=0).numpy() for f in (tl.sum, tl.prod, tl.norm)], [0, 0], [1, 1], [0, 0])
    numbers = tl.Tensor([2, 3, 0], backend=backend)
    found = numbers.sum(), numbers.prod(), numbers.mean(), numbers.count_nonzero(), numbers.cumsum()[-1]
    assert [y.item() for y in found] == [5, 0, 5 / 3, 2, 5]
    assert [str(y.dtype) for y in found] == ["int64", "int64", "float64", "int64", "int64"]


def test_logsumexp_of_no_elements(backend):
    with np.errstate(all="raise"):
        assert_edge(edge(lambda x: tl.logsumexp(x, axis=1), [[-inf, -inf], [0, -inf]], backend=backend),
                    [-inf, 0], [[0, 0], [1, 0]])  # fmt: skip
        assert_edge([tl.logsumexp(tl.Tensor(np.zeros((0, 2)), backend=backend), axis=0).numpy()], [-inf, -inf])


def test_logsumexp_of_infinity_has_the_gradient_of_the_limit(backend):
    """As that of logaddexp: elements that are inf share it evenly."""
    with np.errstate(all="raise", under="ignore"):
        assert_edge(edge(tl.logsumexp, [1, inf], backend=backend), inf, [0, 1])
        rows = [[inf, 1, inf], [-inf, inf, 0], [0, -inf, -inf]]
        found = edge(lambda x: tl.logsumexp(x, axis=1), rows, backend=backend, dtype="float32")
        assert_edge(found, [inf, inf, 0], [[0.5, 0, 0.5], [0, 1, 0], [1, 0, 0]])
        assert_edge(edge(lambda x: tl.logsumexp(x, axis=(0, 1)), [[inf, 1], [0, inf]], backend=backend),
                    inf, [[0.5, 0], [0, 0.5]])  # fmt: skip
        x = tl.Tensor([1, inf, inf], dtype="float64", requires_grad=True, backend=backend)
        assert_edge([tl.grad(tl.logsumexp(x), [x], create_graph=True)[0].numpy()], [0, 0.5, 0.5])
    with np.errstate(invalid="ignore"):
        assert_edge(edge(tl.logsumexp, [nan, inf], backend=backend), nan, [nan, nan])


def test_a_rounded_logsumexp_does_not_spoil_its_gradient(backend):
    """Beside 1e30, log 2 is lost: exp(x - y) would be 1 for both."""
    for dtype in ("float32", "float64"):
        assert_edge(
            edge(tl.logsumexp, [1e30, 1e30, 0], backend=backend, dtype=dtype), np.array(1e30, dtype), [0.5, 0.5, 0]
        )


# ---- moments and norms -------------------------------------------------------------------------------------------


def test_the_mean_of_no_elements_is_nan(backend):
    assert np.isnan(tl.mean(tl.Tensor(np.zeros((0, 2)), backend=backend)).item())


def test_the_mean_of_equal_numbers_is_that_number(backend):
    """49 times 1/49 is not 1."""
    assert tl.mean(tl.ones(49, "float64", backend=backend)).item() == 1


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_std_of_equal_numbers_is_0_with_gradient_0(dtype, backend):
    with np.errstate(all="raise"):
        for value in ([0.1] * 3, [0, 0], [1e4], [-7] * 7):
            assert_edge(edge(tl.std, value, backend=backend, dtype=dtype), 0, np.zeros(len(value)))
        found = edge(lambda x: tl.std(x, axis=1, ddof=1), [[2, 2, 2], [1, 2, 3]], backend=backend, dtype=dtype)
        assert_edge(found, [0, 1], [[0, 0, 0], [-0.5, 0, 0.5]])


def test_var_with_too_few_elements_is_that_of_numpy(backend):
    with np.errstate(all="ignore"):
        assert np.isnan(tl.var(tl.Tensor([3.0], backend=backend), ddof=1).item())
        assert tl.var(tl.Tensor([3.0, 4.0], backend=backend), ddof=2).item() == inf
    assert_edge([tl.var(tl.Tensor([1e9 + 1, 1e9 + 2, 1e9 + 3], dtype="float64", backend=backend), ddof=1).numpy()], 1)


@pytest.mark.parametrize("ord", [0.5, 1, 1.5, 2, 3, inf])
def test_the_gradient_of_a_norm_at_0_is_0(ord, backend):
    with np.errstate(all="raise"):
        assert_edge(edge(lambda x: tl.norm(x, ord), [0, 0, 0], backend=backend), 0, [0, 0, 0])
        assert_edge(edge(lambda x: tl.norm(x, ord, axis=1), [[0, -2], [0, 0]], backend=backend),
                    [2, 0], [[0, -1], [0, 0]])  # fmt: skip


def test_an_infinite_gradient_of_a_norm_does_not_reach_its_zeros(backend):
    for ord, x, expected in ((1.5, [0, 1], [0, inf]), (0.5, [0, 1], [0, inf]), (2, [0, 0], [0, 0])):
        assert_edge(edge(lambda x, p=ord: tl.norm(x, p), x, backend=backend, cotangent=inf)[1:], expected)


@pytest.mark.parametrize(("dtype", "huge", "tiny"), [("float64", 1e300, 1e-300), ("float32", 1e30, 1e-30)])
def test_std_of_huge_and_tiny_numbers(dtype, huge, tiny, backend):
    with np.errstate(over="raise", invalid="raise"):
        for scale in (huge, tiny):
            y, dx = edge(tl.std, np.array([1, -1, 3, -3]) * scale, backend=backend, dtype=dtype)
            np.testing.assert_allclose(y, 5**0.5 * scale, rtol=1e-6)
            np.testing.assert_allclose(dx, np.array([1, -1, 3, -3]) / 4 / 5**0.5, rtol=1e-6)


def test_the_gradient_of_a_tiny_norm_is_not_lost_to_its_square(backend):
    (dx,) = edge(lambda x: tl.norm(x) ** 2, [3e-200, 4e-200], backend=backend)[1:]
    np.testing.assert_allclose(dx, [6e-200, 8e-200], rtol=1e-14)


@pytest.mark.parametrize(("dtype", "huge", "tiny"), [("float64", 1e300, 1e-300), ("float32", 1e30, 1e-30)])
def test_norms_of_huge_and_tiny_numbers(dtype, huge, tiny, backend):
    with np.errstate(over="raise", invalid="raise"):
        for scale in (huge, tiny):
            for ord, expected, gradient in (
                (2, 5, [0.6, -0.8]),
                (1, 7, [1, -1]),
                (inf, 4, [0, -1]),
                (3, 91 ** (1 / 3), None),
            ):
                y, dx = edge(lambda x, p=ord: tl.norm(x, p), np.array([3, -4]) * scale, backend=backend, dtype=dtype)
                np.testing.assert_allclose(y, expected * scale, rtol=1e-6)
                if gradient:
                    np.testing.assert_allclose(dx, gradient, rtol=1e-6)


def test_norms_of_integers_are_exact(backend):
    for x, y in (([3, 4], 5), ([5, 12], 13), ([8, 15], 17), ([[1, 1], [1, 1]], 2)):
        found = tl.norm(tl.Tensor(x, backend=backend))
        assert found.item() == y and found.dtype == "float64"
    assert tl.norm(tl.Tensor([3.0, inf], backend=backend)).item() == inf
    assert np.isnan(tl.norm(tl.Tensor([3.0, nan], backend=backend)).item())


def test_logsumexp_of_huge_numbers(backend):
    for dtype in ("float32", "float64"):
        value, dx = edge(tl.logsumexp, [1e30, -1e30], backend=backend, dtype=dtype)
        assert_edge((value, dx), np.asarray(1e30, dtype), [1, 0])


def test_means_and_variances_in_half_precision_do_not_overflow(backend):
    x = tl.Tensor(np.full((1, 4096), 300.0, "float16"), backend=backend)
    assert tl.mean(x).dtype == np.float16 and tl.mean(x).item() == 300
    wave = np.tile(np.array([-100.0, 100.0], "float16"), 2048)[None]
    assert tl.var(tl.Tensor(wave, backend=backend)).item() == 10000


def test_lists_and_axes_of_numpy_are_accepted():
    assert tl.mean([1.0, 3.0]).item() == 2.0
    assert tl.ones(3).sum(axis=np.int64(0)).item() == 3.0


# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda x: x.sum(axis=2), ValueError, r"sum: axis must lie in \[-2, 2\) for 2 dimensions, got 2"),
    (lambda x: x.sum(axis=1.0), TypeError, "sum: axis must be an integer, a tuple of integers or None, got 1.0"),
    (lambda x: x.prod(axis=(0, 1.5)), TypeError, r"prod: axis must be an integer, .* got \(0, 1.5\)"),
    (lambda x: x.prod(axis=-3), ValueError, r"prod: axis must lie in \[-2, 2\) .* got -3"),
    (lambda x: x.prod(dim=1), TypeError, r"prod\(\) got an unexpected keyword argument 'dim'"),
    (lambda x: x.max(axis=(0, -2)), ValueError, r"max: axes must differ, got \(0, -2\)"),
    (lambda x: x.min(axis=(1, 1)), ValueError, r"min: axes must differ, got \(1, 1\)"),
    (lambda x: x[:, :0].max(axis=1), ValueError, r"max: needs at least one element .* got shape \(2, 0\)"),
    (lambda x: x[:0].min(), ValueError, r"min: needs at least one element .* got shape \(0, 3\)"),
    (lambda x: x.mean(axis="1"), TypeError, "mean: axis must be an integer, .* got '1'"),
    (lambda x: x.var(axis=4), ValueError, "var: axis must lie in .* got 4"),
    (lambda x: x.var(ddof=None), TypeError, "var: ddof must be a number, got None"),
    (lambda x: x.std(axis=4), ValueError, "std: axis must lie in .* got 4"),
    (lambda x: x.std(ddof="1"), TypeError, "std: ddof must be a number, got '1'"),
    (lambda x: x.logsumexp(axis=2), ValueError, "logsumexp: axis must lie in .* got 2"),
    (lambda x: x.norm("fro"), ValueError, "norm: ord must be a number above 0, .* got 'fro'; for the Frobenius norm"),
    (lambda x: x.norm(0), ValueError, "norm: ord must be a number above 0, or math.inf, got 0"),
    (lambda x: x.norm(-inf), ValueError, "norm: ord must be a number above 0, or math.inf, got -inf"),
    (lambda x: x.norm(x), ValueError, "norm: ord must be a number above 0, or math.inf, got a Tensor of shape"),
    (lambda x: x.norm(axis=2), ValueError, "norm: axis must lie in .* got 2"),
    (lambda x: x.any(axis=2), ValueError, "any: axis must lie in .* got 2"),
    (lambda x: x.all(axis="a"), TypeError, "all: axis must be an integer, .* got 'a'"),
    (lambda x: x.count_nonzero(axis=-3), ValueError, "count_nonzero: axis must lie in .* got -3"),
    (lambda x: x.argmax(axis=2), ValueError, "argmax: axis must lie in .* got 2"),
    (lambda x: x.argmax(axis=(0, 1)), TypeError, r"argmax: axis must be one integer, got \(0, 1\)"),
    (lambda x: x[:0].argmin(axis=0), ValueError, r"argmin: needs at least one element .* got shape \(0, 3\)"),
    (lambda x: x[:0].argmax(), ValueError, r"argmax: needs at least one element .* got shape \(0, 3\)"),
]  # fmt: skip


test_mistakes_are_named_with_the_value_and_the_remedy = refused_of_a_matrix(BAD)
