"""Helpers shared by the tests of edge cases."""

import numpy as np
import pytest

import tensorlib as tl


def edge(f, *values, backend, dtype="float64", cotangent=None):
    """Return the value and the gradients of f, as NumPy arrays."""
    xs = [tl.Tensor(v, requires_grad=True, dtype=dtype, backend=backend) for v in values]
    y = f(*xs)
    c = tl.Tensor(np.ones(y.shape) if cotangent is None else cotangent, dtype=y.dtype, backend=backend)
    return y.numpy(), *[dx.numpy() for dx in tl.grad(y, xs, c)]


def assert_edge(found, *expected):
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_array_equal(f, e)


def matrix(backend):
    """Return a Tensor of ones, (2, 3), to provoke errors with."""
    return tl.Tensor(np.ones((2, 3)), requires_grad=True, backend=backend)


def refused(table):
    """Return a test of (call, error, message): each call raises the error, with one line that matches the message."""

    @pytest.mark.parametrize(("call", "error", "message"), table)
    def test(call, error, message):
        with pytest.raises(error, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)

    return test


def refused_of_a_matrix(table):
    """Return the same test for calls that take a matrix, on every backend."""

    @pytest.mark.parametrize(("call", "error", "message"), table)
    def test(call, error, message, backend):
        with pytest.raises(error, match=message) as caught:
            call(matrix(backend))
        assert "\n" not in str(caught.value)

    return test
