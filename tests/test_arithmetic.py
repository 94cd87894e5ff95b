"""Arithmetic and comparison: edge cases, and mistakes."""

import math

import numpy as np
import pytest
from edges import assert_edge, edge, matrix

import tensorlib as tl


def test_ties_of_maximum_and_minimum_are_halved(backend):
    for f, first in ((tl.maximum, [0.5, 1, 0]), (tl.minimum, [0.5, 0, 1])):
        found = edge(f, [1, 5, 1], [1, 2, 3], backend=backend)
        assert_edge(found[1:], first, [1 - d for d in first])


def test_power_at_zero(backend):
    value, dx, dy = edge(tl.power, [0, 0, 0, 2], [0, 1, 2, 0], backend=backend)
    assert_edge((value, dx), [1, 0, 0, 1], [0, 1, 0, 0])
    np.testing.assert_allclose(dy, [0, 0, 0, math.log(2)])
    assert_edge(edge(lambda x: x**2, [-3, 0], backend=backend), [9, 0], [-6, 0])
    assert_edge(edge(lambda x: x**0, [-3, 0], backend=backend), [1, 1], [0, 0])
    _, dy = edge(lambda y: 2**y, [0.0, 3.0], backend=backend)
    np.testing.assert_allclose(dy, [math.log(2), 8 * math.log(2)], rtol=1e-15)


# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda x: x + x.reshape(6), ValueError, r"add: shapes must broadcast, got \(2, 3\) and \(6,\)"),
    (lambda x: x == x.reshape(6), ValueError, r"equal: shapes must broadcast, got \(2, 3\) and \(6,\)"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "error", "message"), BAD, ids=[b[2].partition(":")[0] for b in BAD])
def test_mistakes_are_named_with_the_value_and_the_remedy(mistake, error, message, backend):
    with pytest.raises(error, match=message):
        mistake(matrix(backend))
