"""Activations: kinks, saturation in every dtype, gates, and mistakes."""

from math import inf

import numpy as np
import pytest

import tensorlib as tl
from tests.edges import assert_edge, edge, refused_of_a_matrix


def test_kinks(backend):
    assert_edge(edge(tl.relu, [-1, 0, 2], backend=backend), [0, 0, 2], [0, 0, 1])
    assert_edge(edge(tl.leaky_relu, [-1, 0, 2], backend=backend), [-0.01, 0, 2], [0.01, 0.01, 1])
    assert_edge(edge(lambda x: tl.elu(x, 0.5), [0, 2], backend=backend), [0, 2], [0.5, 1])
    assert_edge(edge(tl.softsign, [-1, 0, 1], backend=backend), [-0.5, 0, 0.5], [0.25, 1, 0.25])


def test_relu_of_nan_is_nan_with_its_gradient(backend):
    """As in PyTorch; a gradient of 0 would hide the NaN."""
    assert_edge(edge(tl.relu, [np.nan, -1], backend=backend), [np.nan, 0], [1, 0])


def test_hardtanh_stops_the_gradient_at_its_bounds(backend):
    assert_edge(edge(tl.hardtanh, [-2, -1, 0, 1, 2], backend=backend), [-1, -1, 0, 1, 1], [0, 0, 1, 0, 0])
    assert_edge(edge(lambda x: tl.hardtanh(x, 0, 6), [0, 3, 6], backend=backend), [0, 3, 6], [0, 1, 0])


def test_a_gradient_that_an_activation_stops_may_be_infinite(backend):
    with np.errstate(divide="ignore"):
        assert_edge(edge(lambda x: tl.sqrt(tl.relu(x)), [-1, 4], backend=backend), [0, 2], [0, 0.25])
    for f in (tl.relu, tl.hardtanh):
        assert_edge(edge(f, [-2, 0.5], backend=backend, cotangent=[inf, inf])[1:], [0, inf])


SATURATED = {  # f, values at -1000 and 1000, slopes there
    "sigmoid": (tl.sigmoid, (0, 1), (0, 0)),
    "tanh": (tl.tanh, (-1, 1), (0, 0)),
    "softplus": (tl.softplus, (0, 1000), (0, 1)),
    "log_sigmoid": (tl.log_sigmoid, (-1000, 0), (1, 0)),
    "gelu": (tl.gelu, (0, 1000), (0, 1)),
    "gelu, tanh": (lambda x: tl.gelu(x, approximate="tanh"), (0, 1000), (0, 1)),
    "silu": (tl.silu, (0, 1000), (0, 1)),
    "mish": (tl.mish, (0, 1000), (0, 1)),
    "elu": (tl.elu, (-1, 1000), (0, 1)),
    "hardtanh": (tl.hardtanh, (-1, 1), (0, 0)),
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", SATURATED)
def test_saturated_functions_do_not_overflow(name, dtype, backend):
    """Values, first and second derivatives are exact to the last digit."""
    f, values, slopes = SATURATED[name]
    with np.errstate(all="raise", under="ignore"):
        x = tl.Tensor([-1000.0, 1000.0], dtype=dtype, requires_grad=True, backend=backend)
        y = f(x)
        c = tl.Tensor([1.5, -1.5], dtype=dtype, requires_grad=True, backend=backend)
        (dx,) = tl.grad(y, [x], [c], create_graph=True)
        assert y.dtype == dx.dtype == dtype
        assert_edge([y.numpy(), dx.numpy()], values, [1.5 * slopes[0], -1.5 * slopes[1]])
        v = tl.Tensor([1.5, 1.5], dtype=dtype, backend=backend)
        ddx, dc = tl.grad(dx, [x, c], [v], allow_unused=True)
        assert ddx is None or not ddx.numpy().any()
        assert_edge([dc.numpy()], [1.5 * slopes[0], 1.5 * slopes[1]])
        (dx,) = tl.grad(f(x), [x], [c])  # and on arrays as on Tensors
        assert_edge([dx.numpy()], [1.5 * slopes[0], -1.5 * slopes[1]])


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_beyond_the_cubes_of_its_dtype(approximate, backend):
    with np.errstate(all="raise", under="ignore"):
        for dtype, far in (("float16", 6e4), ("float32", 1e38), ("float64", 1e300)):
            x = np.array([-far, far], dtype)
            found = edge(lambda x: tl.gelu(x, approximate), x, backend=backend, dtype=dtype)
            assert_edge(found, [0, x[1]], [0, 1])


def test_gelu_of_float16_keeps_its_digits_on_the_left(backend):
    x = np.array([-4.0, -3.0, -2.0], np.float16)
    for approximate in ("none", "tanh"):
        expected = tl.gelu(tl.Tensor(x.astype(np.float64)), approximate).numpy()
        found = tl.gelu(tl.Tensor(x, backend=backend), approximate)
        assert found.dtype == "float16"
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3)


def test_the_two_forms_of_gelu_are_close_and_differ():
    x = tl.Tensor(np.linspace(-5, 5, 1001))
    distance = np.abs(tl.gelu(x).numpy() - tl.gelu(x, approximate="tanh").numpy()).max()
    assert 1e-4 < distance < 5e-4


def test_gates_split_their_input_in_two(backend):
    x = tl.Tensor([[2.0, 3.0, 0.0, 0.0], [1.0, 1.0, 50.0, -50.0]], backend=backend)
    np.testing.assert_allclose(tl.glu(x).numpy(), [[1, 1.5], [1, 0]], atol=1e-20)
    np.testing.assert_allclose(tl.glu(x, axis=0).numpy(), tl.glu(x.T).T.numpy())
    a, b = tl.split(x, 2, axis=1)
    np.testing.assert_array_equal(tl.swiglu(x).numpy(), (tl.silu(a) * b).numpy())


def test_dtypes_and_kinds_of_input(backend):
    x = tl.Tensor([-1, 2], backend=backend)
    assert tl.relu(x).dtype == "int64" and tl.relu(x).numpy().tolist() == [0, 2]
    for f in (tl.leaky_relu, tl.elu, tl.gelu, tl.silu, tl.mish, tl.softsign, tl.glu, tl.swiglu):
        assert f(x).dtype == "float64"
        assert f([1.0, 2.0]).dtype == "float32"
        assert f(backend.asarray([1.0, 2.0], "float16")).dtype == "float16"


# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda x: tl.gelu(x, "exact"), ValueError, r"gelu: approximate must be 'none' or 'tanh', got 'exact'"),
    (lambda x: tl.gelu(x, True), ValueError, r"gelu: approximate must be 'none' or 'tanh', got True"),
    (lambda x: tl.glu(x), ValueError, r"glu: the size along axis 1 must be even, got shape \(2, 3\)"),
    (lambda x: tl.swiglu(x), ValueError, r"swiglu: the size along axis 1 must be even, got shape \(2, 3\)"),
    (lambda x: tl.glu(x, axis=2), ValueError, r"glu: axis must lie in \[-2, 2\) for 2 dimensions, got 2"),
    (lambda x: tl.swiglu(x[0, 0]), ValueError, r"swiglu: axis must lie in \[0, 0\) for 0 dimensions, got -1"),
    (lambda x: tl.hardtanh(x, 1, -1), ValueError, r"hardtanh: min_val must not be above max_val, got 1 and -1; swap"),
    (lambda x: tl.leaky_relu(x, [0.1, 0.2]), ValueError, r"leaky_relu: shapes must broadcast, got \(2,\) and \(2, 3\)"),
    (lambda x: tl.elu(x, "1"), TypeError, r"elu: data must be numbers, got dtype <U1"),
    (lambda x: tl.relu("x"), TypeError, r"relu: data must be numbers, got dtype <U1"),
]  # fmt: skip


test_mistakes_are_named_with_the_value_and_the_remedy = refused_of_a_matrix(BAD)
