"""Dropout: edge cases, and mistakes."""

from math import inf, nan

import numpy as np
import pytest

import tensorlib as tl
from tests.edges import edge, refused_of_a_matrix


def test_dropout_keeps_the_mean_and_redraws_the_same_mask(backend):
    x = tl.Tensor(np.ones((200, 500), np.float32), requires_grad=True, backend=backend)
    y = tl.dropout(x, 0.3, tl.Generator(5))
    kept = y.numpy() != 0
    assert abs(kept.mean() - 0.7) < 0.01
    np.testing.assert_allclose(y.numpy()[kept], 1 / 0.7, rtol=1e-4)
    (dx,) = tl.grad(y.sum(), [x])
    np.testing.assert_array_equal(dx.numpy(), y.numpy())  # since x is one everywhere
    np.testing.assert_array_equal(tl.dropout(x, 0.3, tl.Generator(5)).numpy(), y.numpy())
    generator = tl.Generator(5)
    first, second = tl.dropout(x, 0.3, generator), tl.dropout(x, 0.3, generator)
    assert 0.5 < (first.numpy() == second.numpy()).mean() < 0.65  # 0.7² + 0.3²: independent
    assert tl.dropout(x, 0.0) is x


@pytest.mark.parametrize("junk", [inf, -inf, nan])
def test_dropped_elements_are_zero_whatever_they_were(junk, backend):
    def half(x):
        return tl.dropout(x, 0.5, tl.Generator(0))

    kept = edge(half, np.ones(50), backend=backend)[0] != 0
    value, dx = edge(half, np.full(50, junk), backend=backend, cotangent=np.full(50, junk))
    assert 10 < kept.sum() < 40
    for found in (value, dx):
        np.testing.assert_array_equal(found, np.where(kept, junk, 0))


BAD = [
    (lambda x: tl.dropout(x, 1.0), ValueError, r"dropout: p must lie in \[0, 1\), got 1.0"),
    (lambda x: tl.dropout(x, -0.1), ValueError, r"dropout: p must lie in \[0, 1\), got -0.1"),
    (lambda x: tl.dropout(x, "0.1"), TypeError, "dropout: p must be a number, got '0.1'"),
    (lambda x: tl.dropout(x.astype("int64"), 0.5), TypeError, "dropout: x must .* floating dtype, got int64; use .a"),
    (lambda x: tl.add_dropout(x, [[1]], 0.5), TypeError, "add_dropout: y must .* floating dtype, got int64; use .a"),
]  # fmt: skip


test_mistakes_are_named_with_the_value_and_the_remedy = refused_of_a_matrix(BAD)


def test_a_probability_next_to_1_keeps_one_element_in_65536(backend):
    y = tl.dropout(tl.ones(1_000_000, backend=backend), 1 - 1e-9, tl.Generator(1)).numpy()
    kept = y[y != 0]
    assert 3 <= kept.size <= 40 and set(kept.tolist()) == {65536.0}
