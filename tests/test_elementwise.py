"""Functions of one input: edge cases, and mistakes."""

from math import inf

import numpy as np
import pytest
from edges import assert_edge, edge

import tensorlib as tl


def test_kinks(backend):
    assert_edge(edge(tl.relu, [-1, 0, 2], backend=backend), [0, 0, 2], [0, 0, 1])
    assert_edge(edge(tl.abs, [-1, 0, 2], backend=backend), [1, 0, 2], [-1, 0, 1])
    with np.errstate(divide="ignore"):
        assert_edge(edge(tl.sqrt, [0, 4], backend=backend), [0, 2], [inf, 0.25])


def test_a_gradient_that_relu_stops_may_be_infinite(backend):
    with np.errstate(divide="ignore"):
        assert_edge(edge(lambda x: tl.sqrt(tl.relu(x)), [-1, 4], backend=backend), [0, 2], [0, 0.25])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saturated_functions_do_not_overflow(dtype, backend):
    with np.errstate(over="raise", invalid="raise"):
        assert_edge(edge(tl.sigmoid, [-1000, 0, 1000], backend=backend, dtype=dtype), [0, 0.5, 1], [0, 0.25, 0])
        assert_edge(edge(tl.tanh, [-1000, 0, 1000], backend=backend, dtype=dtype), [-1, 0, 1], [0, 1, 0])
        assert_edge(edge(tl.gelu, [-1000, 0, 1000], backend=backend, dtype=dtype), [0, 0, 1000], [0, 0.5, 1])


def test_sigmoid_keeps_its_digits_on_the_left():
    x = np.array([-80.0, -20.0, -1.0])
    np.testing.assert_allclose(tl.sigmoid(tl.Tensor(x)).numpy(), 1 / (1 + np.exp(-x)), rtol=1e-12)
