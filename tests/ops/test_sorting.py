"""Sorting: ties, NaN and mistakes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as shapes

import tensorlib as tl
from tensorlib.ops import sorting
from tests.edges import assert_edge, edge, refused_of_a_matrix


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "uint8", "bool"])
def test_equal_elements_keep_their_order_in_both_directions(dtype, backend):
    a = np.array([[1, 0, 1, 0, 1], [0, 0, 1, 1, 0]]).astype(dtype)
    x = tl.Tensor(a, backend=backend)
    np.testing.assert_array_equal(tl.argsort(x).numpy(), [[1, 3, 0, 2, 4], [0, 1, 4, 2, 3]])
    np.testing.assert_array_equal(tl.argsort(x, descending=True).numpy(), [[0, 2, 4, 1, 3], [2, 3, 0, 1, 4]])
    np.testing.assert_array_equal(tl.argsort(x, axis=0).numpy(), np.argsort(a, axis=0, kind="stable"))
    np.testing.assert_array_equal(tl.sort(x).numpy(), np.sort(a))
    assert tl.sort(x).dtype == a.dtype and tl.argsort(x).dtype == np.int64


def test_nan_counts_as_larger_than_every_number(backend):
    """As in NumPy, and as in torch.sort in both directions."""
    x = [1.0, np.nan, 2.0, -np.inf, np.inf]
    assert_edge(edge(tl.sort, x, backend=backend, cotangent=[1, 2, 3, 4, 5]),
                [-np.inf, 1, 2, np.inf, np.nan], [2, 5, 3, 1, 4])  # fmt: skip
    assert_edge([edge(lambda x: tl.sort(x, descending=True), x, backend=backend)[0]], [np.nan, np.inf, 2, 1, -np.inf])


def test_topk_returns_the_first_of_equal_elements(backend):
    values, indices = tl.topk(tl.Tensor([1.0, 3.0, 3.0, 3.0, 0.0], backend=backend), 2)
    assert_edge([values.numpy(), indices.numpy()], [3, 3], [1, 2])
    assert_edge(edge(lambda x: tl.topk(x, 2)[0], [1.0, 3.0, 3.0], backend=backend)[1:], [0, 1, 1])
    values, indices = tl.topk(tl.Tensor([1.0, 0.0, 0.0], backend=backend), 2, largest=False)
    assert_edge([values.numpy(), indices.numpy()], [0, 0], [1, 2])
    assert indices.dtype == np.int64 and not indices.requires_grad


@settings(max_examples=100, deadline=None)
@given(shapes.arrays(np.float64, shapes.array_shapes(min_side=0, max_dims=3), elements=st.integers(0, 4)), st.data())
def test_sort_argsort_and_topk_agree(a, data):
    axis = data.draw(st.integers(-a.ndim, a.ndim - 1))
    for descending in (False, True):
        order = tl.argsort(a, axis, descending)
        expected = np.sort(a, axis) if not descending else -np.sort(-a, axis)
        np.testing.assert_array_equal(tl.sort(a, axis, descending).numpy(), expected)
        np.testing.assert_array_equal(np.take_along_axis(a, order.numpy(), axis), expected)
        k = data.draw(st.integers(0, a.shape[axis]))
        values, indices = tl.topk(a, k, axis, largest=descending)
        np.testing.assert_array_equal(values.numpy(), np.take(expected, range(k), axis))
        np.testing.assert_array_equal(indices.numpy(), np.take(order.numpy(), range(k), axis))


@pytest.mark.parametrize("limit", [0, 8])  # found by partition, and by repeated argmax
@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("axis", [0, 1])
def test_topk_is_the_start_of_argsort_even_with_ties_and_nan(axis, k, limit, backend, monkeypatch):
    monkeypatch.setattr(sorting, "ARGMAX_LIMIT", limit)
    rng = np.random.default_rng(0)
    distinct, ties = rng.permutation(48).reshape(6, 8).astype("float32"), rng.integers(0, 3, (6, 8))
    for a in (distinct, ties, ties / 2, *[np.where(ties > 0, x, distinct) for x in (np.nan, np.inf, -np.inf)]):
        x = tl.Tensor(a, backend=backend)
        for largest in (True, False):
            values, indices = tl.topk(x, k, axis, largest)
            expected = np.take(tl.argsort(x, axis, descending=largest).numpy(), range(k), axis)
            np.testing.assert_array_equal(indices.numpy(), expected)
            np.testing.assert_array_equal(values.numpy(), np.take_along_axis(a, expected, axis))


def test_topk_sorts_only_what_it_returns(monkeypatch):
    sorted_sizes = []
    monkeypatch.setattr(sorting, "plain", lambda name, x, **o: sorted_sizes.append(x.size) or tl.Tensor(
        np.argsort(x.numpy(), axis=o["axis"], kind="stable")))  # fmt: skip
    x = np.random.default_rng(0).permutation(2000).reshape(2, 1000)
    np.testing.assert_array_equal(tl.topk(x, 3)[0].numpy(), -np.sort(-x)[:, :3])
    assert sorted_sizes == [6]


def test_searchsorted_accepts_numbers_lists_and_tensors(backend):
    x = tl.Tensor([1.0, 2.0, 2.0, 3.0], backend=backend)
    for side, expected in (("left", [1, 0, 4]), ("right", [3, 0, 4])):
        for values in ([2.0, 0.0, 9.0], tl.Tensor([2.0, 0.0, 9.0], backend=backend)):
            y = tl.searchsorted(x, values, side)
            np.testing.assert_array_equal(y.numpy(), expected)
            assert y.backend is backend and not y.requires_grad
    assert x.searchsorted(2.5).shape == () and x.searchsorted(2.5).item() == 3
    np.testing.assert_array_equal(tl.searchsorted([1, 2], tl.Tensor([2], backend=backend)).numpy(), [1])


def test_methods_are_the_functions(backend):
    x = tl.Tensor([[3.0, 1.0, 2.0]], backend=backend)
    np.testing.assert_array_equal(x.sort(descending=True).numpy(), [[3, 2, 1]])
    np.testing.assert_array_equal(x.argsort().numpy(), [[1, 2, 0]])
    np.testing.assert_array_equal(x.topk(1)[1].numpy(), [[0]])


# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda x: x.sort(2), ValueError, r"sort: axis must lie in \[-2, 2\) for 2 dimensions, got 2"),
    (lambda x: x[0, 0].sort(), ValueError, r"sort: axis must lie in \[0, 0\) for 0 dimensions, got -1"),
    (lambda x: x.sort(1.5), TypeError, "sort: axis must be one integer, got 1.5"),
    (lambda x: x.argsort(-3), ValueError, r"argsort: axis must lie in \[-2, 2\) for 2 dimensions, got -3"),
    (lambda x: x.topk(4), ValueError, r"topk: k must lie in \[0, 3\], the size of axis 1; got 4"),
    (lambda x: x.topk(-1), ValueError, "topk: k needs an integer >= 0, got -1"),
    (lambda x: x.topk(1.5), TypeError, "topk: k needs an integer >= 0, got 1.5"),
    (lambda x: x.topk(1, axis=2), ValueError, "topk: axis must lie .* got 2"),
    (lambda x: tl.searchsorted(x, 1.0), ValueError, r"searchsorted: the sorted .* one axis, got shape \(2, 3\)"),
    (lambda x: tl.searchsorted(x[0], 1.0, "middle"), ValueError, "searchsorted: side must be .* got 'middle'"),
]  # fmt: skip


test_mistakes_are_named_with_the_value_and_the_remedy = refused_of_a_matrix(BAD)
