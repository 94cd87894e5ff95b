"""Arithmetic and logic: edge cases, arrays kept for backward, operators, and mistakes."""

import math
from math import inf, nan

import numpy as np
import pytest

import tensorlib as tl
from tests.edges import assert_edge, edge, matrix, refused_of_a_matrix


def test_ties_of_maximum_and_minimum_are_halved(backend):
    for f, first in ((tl.maximum, [0.5, 1, 0]), (tl.minimum, [0.5, 0, 1])):
        found = edge(f, [1, 5, 1], [1, 2, 3], backend=backend)
        assert_edge(found[1:], first, [1 - d for d in first])


def test_maximum_and_minimum_pass_an_infinite_gradient_to_one_side_only(backend):
    for f, values in ((tl.maximum, [5, 2]), (tl.minimum, [1, 2])):
        assert_edge(edge(f, *values, backend=backend, cotangent=inf)[1:], inf, 0)


def test_nan_passes_through_maximum_and_minimum_with_the_gradient_to_both(backend):
    for f in (tl.maximum, tl.minimum):
        assert_edge(edge(f, [nan, 1], [1, nan], backend=backend), [nan, nan], [1, 1], [1, 1])


def test_power_at_zero(backend):
    value, dx, dy = edge(tl.power, [0, 0, 0, 2], [0, 1, 2, 0], backend=backend)
    assert_edge((value, dx), [1, 0, 0, 1], [0, 1, 0, 0])
    np.testing.assert_allclose(dy, [0, 0, 0, math.log(2)])
    np.testing.assert_allclose(edge(lambda x: x**2, [-3, 0], backend=backend), [[9, 0], [-6, 0]], rtol=1e-15)
    assert_edge(edge(lambda x: x**0, [-3, 0], backend=backend), [1, 1], [0, 0])
    _, dy = edge(lambda y: 2**y, [0.0, 3.0], backend=backend)
    np.testing.assert_allclose(dy, [math.log(2), 8 * math.log(2)], rtol=1e-15)
    with np.errstate(divide="ignore"):
        assert_edge(edge(tl.power, 0, -1, backend=backend), inf, -inf, -inf)
        assert_edge(edge(lambda x: x**0.5, 0, backend=backend), 0, inf)


@pytest.mark.parametrize("exponent", [3, 4, 3.0])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64"])
def test_cubes_and_fourth_powers_match_numpy(exponent, dtype, backend):
    a = np.array([-3, -1, 0, 2, 11]).astype(dtype)
    y = tl.Tensor(a, backend=backend) ** exponent
    assert y.dtype == (a**exponent).dtype
    np.testing.assert_allclose(y.numpy(), a**exponent, rtol=1e-6)
    value, dx = edge(lambda x: x**exponent, [-2, 0, inf], backend=backend)
    assert_edge((value, dx), [(-2) ** exponent, 0, inf], [exponent * (-2) ** (exponent - 1), 0, inf])


def test_an_infinite_gradient_of_a_power_is_not_made_nan(backend):
    assert_edge(edge(lambda x: x**0, 3, backend=backend, cotangent=inf)[1:], 0)
    assert_edge(edge(lambda y: tl.power(0, y), 2, backend=backend, cotangent=inf)[1:], 0)


def test_the_second_derivative_of_a_power_at_exponent_zero(backend):
    """The slope y x^(y-1) is 0 at y = 0, but its derivative with respect to y is 1/x."""
    x, y = (tl.Tensor(v, dtype="float64", requires_grad=True, backend=backend) for v in (4.0, 0.0))
    (dx,) = tl.grad(x**y, [x], create_graph=True)
    assert dx.item() == 0 and tl.grad(dx, [y])[0].item() == 0.25


def test_a_power_of_an_unsigned_exponent(backend):
    """In uint8, 0 - 1 is 255."""
    y = tl.Tensor(np.array([0, 1, 2], np.uint8), backend=backend)
    assert_edge(edge(lambda x: x**y, [3, 3, 3], backend=backend, dtype="float16"), [1, 3, 9], [0, 1, 6])


def test_remainder_has_the_sign_of_the_divisor_as_in_python(backend):
    x, y = [7, -7, 7, -7], [3, 3, -3, -3]
    floors = [2, -3, -3, 2]
    assert_edge(edge(tl.remainder, x, y, backend=backend), [1, 2, -2, -1], [1] * 4, [-q for q in floors])
    assert_edge([(tl.Tensor(x, backend=backend) // tl.Tensor(y, backend=backend)).numpy()], floors)
    assert_edge(edge(lambda y: 7 % y, [4.0], backend=backend), [3], [-1])
    assert_edge(edge(lambda x: x % 4, [7.0], backend=backend), [3], [1])
    assert not (tl.ones(2) * tl.Tensor(3.0, requires_grad=True) // 2).requires_grad


def test_clip_passes_the_gradient_at_its_bounds(backend):
    x = [-2, -1, 0, 1, 2]
    assert_edge(edge(lambda x: tl.clip(x, -1, 1), x, backend=backend), [-1, -1, 0, 1, 1], [0, 1, 1, 1, 0])
    assert_edge(edge(lambda x: x.clip(min=-1), x, backend=backend), [-1, -1, 0, 1, 2], [0, 1, 1, 1, 1])
    assert_edge(edge(lambda x: x.clip(None, 1), x, backend=backend), [-2, -1, 0, 1, 1], [1, 1, 1, 1, 0])
    assert_edge(edge(lambda x: tl.clip(x, [-1, -9, 1, -9, -9], 9.0), x, backend=backend)[1:], [0, 1, 0, 1, 1])
    assert_edge(edge(lambda x: x.clip(0, 1), x, backend=backend, cotangent=[inf] * 5)[1:], [0, 0, inf, inf, 0])


def test_clip_gives_the_gradient_outside_to_the_bound(backend):
    assert_edge(edge(tl.clip, [-2, 0, 2], -1, 1, backend=backend), [-1, 0, 1], [0, 1, 0], 1, 1)
    crossed = edge(tl.clip, [-2, 0, 2], 1, -1, backend=backend)  # the upper bound wins, as in NumPy
    assert_edge(crossed, [-1, -1, -1], [0, 0, 0], 0, 3)
    assert_edge(edge(lambda high: tl.clip(0.5, None, high), [0.25, 1], backend=backend), [0.25, 0.5], [1, 0])


def test_clip_without_bounds_copies(backend):
    x = tl.Tensor([1.0], backend=backend)
    assert x.clip().data is not x.data and x.clip().item() == 1


def test_dtypes_match_numpy(backend):
    n = np.array([1, -2, 3])
    x = tl.Tensor(n, backend=backend)
    for found, expected in (
        (tl.clip(x, 0, 2), np.clip(n, 0, 2)), (tl.clip(x, 0.5), np.clip(n, 0.5, None)), (x % 2, n % 2),
        (x // 2, n // 2), (x / 2, n / 2), (tl.reciprocal(x), np.reciprocal(n)), (tl.maximum(x, 0), np.maximum(n, 0)),
        (tl.maximum(x, 0.5), np.maximum(n, 0.5)), (x**2, n**2), (2.0**x, 2.0**n), (x ^ 1, n ^ 1), (~x, ~n),
    ):  # fmt: skip
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found.numpy(), expected)
    half = tl.Tensor([1.5], dtype="float16", backend=backend)
    for y in (half % 1, half // 1, half.clip(0, 1.0), half.maximum(2), 2.5 - half, tl.reciprocal(half)):
        assert y.dtype == "float16"


def test_operators_take_lists_and_arrays_and_numbers_on_either_side(backend):
    a, b = np.array([5.0, -4.0]), [3.0, 2.5]
    x = tl.Tensor(a, backend=backend)
    for found, expected in (
        (x % b, a % b), (b % x, b % a), (7 % x, 7 % a), (x // b, a // b), (b // x, b // a), (7 // x, 7 // a),
        (x > b, a > b), (b > x, b > a), (x == b, a == b), (b != x, b != a), (np.float64(3) <= x, a >= 3),
        (tl.less([1, 2], [2, 1]), [True, False]), (tl.maximum([1, 3], 2), [2, 3]), (+x, a),
    ):  # fmt: skip
        np.testing.assert_array_equal(found.numpy(), expected)
    mask = x > 0
    for found, expected in (
        (mask ^ [True, True], [False, True]), ([True, True] ^ mask, [False, True]), ([True, False] & mask, [1, 0]),
        (mask | [False, True], [True, True]), (True ^ mask, [False, True]), (mask.logical_xor([1, 1]), [0, 1]),
    ):  # fmt: skip
        assert found.dtype == bool
        np.testing.assert_array_equal(found.numpy(), expected)
    if backend.name == "numpy":
        np.testing.assert_array_equal((np.array(b) % x).numpy(), b % a)
        np.testing.assert_array_equal((np.array([True, True]) ^ mask).numpy(), [False, True])


def test_only_arrays_that_wanted_gradients_need_are_kept():
    x, y = tl.ones(3), tl.ones(3) + 1
    wanted = tl.Tensor([1.0, 1.0, 1.0], requires_grad=True)

    def kept(z):
        return [id(array) for array in z.node.saved]

    assert kept(wanted * y) == [id(y.data)] and kept(x * wanted) == [id(x.data)]
    assert kept(wanted * 2) == [id(2)]
    assert kept(wanted / y) == [id(y.data)] and kept(x / wanted) == [id(x.data), id(wanted.data)]
    assert kept(wanted % y) == [] and kept(x % wanted) == [id(x.data), id(wanted.data)]
    other = tl.Tensor([2.0, 2.0, 2.0], requires_grad=True)
    assert kept(wanted * other) == [id(wanted.data), id(other.data)]
    assert len(kept(wanted * wanted)) == 2


METHODS = """
    add arctan2 divide floor_divide greater greater_equal less less_equal logaddexp logical_and logical_or logical_xor
    maximum minimum multiply not_equal remainder subtract clip negative reciprocal isnan isinf isfinite logical_not
""".split()  # noqa: SIM905  # words read better than quoted words


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_the_functions_of_that_name(name):
    x = tl.Tensor([0.3, 0.6, 0.9])
    others = [] if name in METHODS[METHODS.index("negative") :] else [0.5]
    np.testing.assert_array_equal(getattr(x, name)(*others).numpy(), getattr(tl, name)(x, *others).numpy())


# ---- mistakes ----------------------------------------------------------------------------------------------------

BINARY = (
    tl.add, tl.subtract, tl.multiply, tl.divide, tl.power, tl.remainder, tl.floor_divide, tl.maximum, tl.minimum,
    tl.equal, tl.not_equal, tl.less, tl.less_equal, tl.greater, tl.greater_equal, tl.logical_and, tl.logical_or,
    tl.logical_xor, tl.logaddexp, tl.arctan2, tl.clip,
)  # fmt: skip

BAD = [
    (lambda x: tl.clip(x, 0, [1, 2]), ValueError, r"clip: shapes must broadcast, got \(2, 3\) and \(2,\)"),
    (lambda x: x + tl.ones(2, backend=x.backend), ValueError, r"add: .* \(2,\); did you mean y\.reshape\(2, 1\)\?"),
    (lambda x: tl.ones(2, backend=x.backend) * x, ValueError, r"multiply: .*\(2,\) and \(2, 3\); .* x\.reshape"),
    (lambda x: x - x.T, ValueError, r"subtract: .* \(2, 3\) and \(3, 2\); did you mean y\.T\?"),
    (lambda x: x / tl.ones((2, 4), backend=x.backend), ValueError, r"divide: .* \(2, 4\); sizes, from the"),
    (lambda x: x.clip((0, 1)), ValueError, r"clip: shapes must broadcast, got \(2, 3\) and \(2,\)"),
    (lambda x: x & (x > 0), TypeError, r"bitwise_and: needs booleans or integers, got float64; compare first, in par"),
    (lambda x: (x > 0) | 0.5, TypeError, r"bitwise_or: needs booleans or integers, got float; .* \(x > 0\) & \(y > 0"),
    (lambda x: x > 0 & x, TypeError, r"bitwise_and: needs booleans or integers, got float64"),
    (lambda x: x ^ x, TypeError, r"bitwise_xor: needs booleans or integers, got float64"),
    (lambda x: ~x, TypeError, r"invert: needs booleans or integers, got float64"),
    (lambda x: -(x > 0), TypeError, r"negative: operands must be numbers, got bool; use ~ x, or x.astype"),
    (lambda x: (x > 0) - (x > 1), TypeError, r"subtract: operands must be numbers, got bool and bool; use x \^ y, or"),
    (lambda x: tl.Tensor([1, 2], backend=x.backend) ** -1, ValueError, r"power: Integers to negative integer powers"),
    (lambda x: x + "1", TypeError, r"add: data must be numbers, got dtype <U1"),
    (lambda x: x * None, TypeError, r"multiply: data must be numbers, got NoneType"),
    (lambda x: x % [[1, 2], [3]], ValueError, r"remainder: nested lists must form a rectangle"),
    (lambda x: bool(x > 0), ValueError, r"bool: a Tensor of shape \(2, 3\) has no single truth value; use .any\(\)"),
    (lambda x: tl.grad((x // 2).sum(), [x]), RuntimeError, r"grad: the output of shape \(\) does not require"),
]  # fmt: skip


test_mistakes_are_named_with_the_value_and_the_remedy = refused_of_a_matrix(BAD)


@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.__name__)
def test_shapes_that_do_not_broadcast_are_named(op, backend):
    x = matrix(backend)
    with pytest.raises(ValueError, match=rf"{op.__name__}: shapes must broadcast, got \(2, 3\) and \(6,\)"):
        op(x, x.reshape(6))


@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.__name__)
def test_mixed_backends_are_named(op):
    from tests.strict import STRICT

    x, y = matrix("numpy"), matrix(STRICT)
    with pytest.raises(TypeError, match=rf"{op.__name__}: operands must be on one backend, got numpy and strict; move"):
        op(x, y)


def test_x_gets_the_whole_gradient_at_a_bound_of_clip(backend):
    found = edge(tl.clip, [1, 2, 0, 3], [1, 1, 1, 1], [2, 2, 2, 2], backend=backend)
    assert_edge(found, [1, 2, 1, 2], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1])
