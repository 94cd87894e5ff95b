"""Picking and choosing elements: edge cases, and mistakes."""

import numpy as np
import pytest
from edges import edge, matrix

import tensorlib as tl


def test_repeated_indices_add_up(backend):
    ids = np.array([1, 1, 0, 1])
    for f in (lambda x: x[ids], lambda x: x[[1, 1, 0, 1]], lambda x: tl.embedding(x, ids)):
        _, dx = edge(f, [[1.0], [2.0], [3.0]], backend=backend, cotangent=[[1], [10], [100], [1000]])
        np.testing.assert_array_equal(dx, [[100], [1011], [0]])


def test_the_caller_may_change_index_ids_and_condition_before_backward():
    w = tl.Tensor(np.ones((3, 2)), requires_grad=True)
    for use in (lambda i: w[i], lambda i: tl.embedding(w, i)):
        index = np.array([0, 1])
        y = use(index).sum()
        index[:] = 2
        np.testing.assert_array_equal(tl.grad(y, [w])[0].numpy(), [[1, 1], [1, 1], [0, 0]])
    condition = np.array([True, False])
    y = tl.where(condition, w, 0.0).sum()
    condition[:] = False
    np.testing.assert_array_equal(tl.grad(y, [w])[0].numpy(), [[1, 0]] * 3)


def test_embedding_takes_lists_too():
    assert tl.embedding(np.eye(2), [1]).numpy().tolist() == [[0.0, 1.0]]


# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda x: tl.take_along_axis(x, [[0]], axis=7), ValueError, "take_along_axis: axis must lie .* got 7"),
    (lambda x: x[5], IndexError, r"getitem: .*5.*; the Tensor has shape \(2, 3\)"),
    (lambda x: tl.embedding(x, [[0, 1], [2, 0]]), IndexError, r"embedding: token id 2 at position \(1, 0\) is"),
    (lambda x: tl.embedding(x, [-1]), IndexError, r"embedding: token id -1 at position \(0,\)"),
    (lambda x: tl.embedding(x, [0.5]), TypeError, "embedding: token ids must be integers, got dtype float64"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "error", "message"), BAD, ids=[b[2].partition(":")[0] for b in BAD])
def test_mistakes_are_named_with_the_value_and_the_remedy(mistake, error, message, backend):
    with pytest.raises(error, match=message):
        mistake(matrix(backend))
