"""Reductions: edge cases, and mistakes."""

from math import inf

import numpy as np
import pytest
from edges import assert_edge, edge, matrix

import tensorlib as tl


def test_tied_maxima_share_the_gradient_evenly(backend):
    assert_edge(edge(lambda x: x.max(axis=1), [[1, 3, 3], [2, 2, 2]], backend=backend, cotangent=[6, 3]),
                [3, 2], [[0, 3, 3], [1, 1, 1]])  # fmt: skip
    assert_edge(edge(tl.max, [[1, 3], [3, 2]], backend=backend), 3, [[0, 0.5], [0.5, 0]])


def test_logsumexp_of_nothing(backend):
    with np.errstate(all="raise"):
        assert_edge(edge(lambda x: tl.logsumexp(x, axis=1), [[-inf, -inf], [0, -inf]], backend=backend),
                    [-inf, 0], [[0, 0], [1, 0]])  # fmt: skip
        assert_edge([tl.logsumexp(tl.Tensor(np.zeros((0, 2)), backend=backend), axis=0).numpy()], [-inf, -inf])


def test_the_mean_of_nothing_is_nan(backend):
    assert np.isnan(tl.mean(tl.Tensor(np.zeros((0, 2)), backend=backend)).item())


# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda x: x.sum(axis=2), ValueError, r"sum: axis must lie in \[-2, 2\) for 2 dimensions, got 2"),
    (lambda x: x.max(axis=(0, -2)), ValueError, r"max: axes must differ, got \(0, -2\)"),
    (lambda x: x[:, :0].max(axis=1), ValueError, r"max: needs at least one element .* got shape \(2, 0\)"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "error", "message"), BAD, ids=[b[2].partition(":")[0] for b in BAD])
def test_mistakes_are_named_with_the_value_and_the_remedy(mistake, error, message, backend):
    with pytest.raises(error, match=message):
        mistake(matrix(backend))
