"""Softmax, its logarithm and attention: edge cases and mistakes."""

import math
from math import inf, nan

import numpy as np
import pytest

import tensorlib as tl
from tests.edges import assert_edge, edge, refused_of_a_matrix

attention = tl.scaled_dot_product_attention


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_of_huge_numbers(dtype, backend):
    value, dx = edge(tl.softmax, [1e30, -1e30, 1e30, 0], backend=backend, dtype=dtype, cotangent=[1, 2, 3, 4])
    assert_edge((value, dx), [0.5, 0, 0.5, 0], [-0.5, 0, 0.5, 0])
    value, dx = edge(tl.log_softmax, [1e30, -1e30], backend=backend, dtype=dtype)
    assert value[0] == 0 and np.isfinite(dx).all()


def test_softmax_over_many_classes_in_half_precision(backend):
    n = 100_000  # that many ones overflow float16, whose maximum is 65504
    value, dx = edge(tl.softmax, np.zeros(n), backend=backend, dtype="float16", cotangent=np.arange(n) == 0)
    assert value.dtype == dx.dtype == np.float16
    np.testing.assert_allclose(value, 1e-5, rtol=1e-2)
    np.testing.assert_allclose(dx[0], 1e-5, rtol=1e-2)
    value, dx = edge(tl.log_softmax, np.zeros(n), backend=backend, dtype="float16", cotangent=np.arange(n) == 0)
    assert value.dtype == dx.dtype == np.float16
    np.testing.assert_allclose(value, -math.log(n), rtol=1e-3)
    np.testing.assert_allclose(dx[:2], [1, -1e-5], rtol=1e-2)


def test_a_slice_of_minus_infinity(backend):
    with np.errstate(all="raise"):
        assert_edge(edge(tl.softmax, [[-inf, -inf], [0, -inf]], backend=backend), [[0, 0], [1, 0]], 0)
        value, dx = edge(tl.log_softmax, [[-inf, -inf], [0, -inf]], backend=backend, cotangent=[[1, 2], [1, 0]])
        assert_edge((value, dx), [[-inf, -inf], [0, -inf]], [[1, 2], [0, 0]])
        assert tl.softmax(tl.Tensor(np.zeros((2, 0)), backend=backend)).shape == (2, 0)
        assert tl.log_softmax(tl.Tensor(np.zeros((2, 0)), backend=backend)).shape == (2, 0)


def test_hidden_positions_may_hold_anything(backend):
    visible = tl.Tensor([True, False, True], backend=backend)
    for junk in (nan, inf, -inf, 1e30):
        value, dx = edge(lambda x: tl.softmax(x, visible=visible), [0, junk, 0], backend=backend, cotangent=[1, 2, 3])
        assert_edge((value, dx), [0.5, 0, 0.5], [-0.5, 0, 0.5])


def test_hidden_positions_pass_no_gradient_whatever_arrives(backend):
    visible = tl.Tensor([True, False, True], backend=backend)
    for junk in (nan, inf, -inf):
        with np.errstate(all="raise"):
            _, dx = edge(lambda x: tl.softmax(x, visible=visible), [0, 0, 0], backend=backend, cotangent=[1, junk, 3])
        assert_edge([dx], [-0.5, 0, 0.5])
    x = tl.Tensor([0.0, 0.0, 0.0], requires_grad=True, backend=backend)
    with np.errstate(divide="ignore", invalid="ignore"):
        tl.where(visible, tl.softmax(x, visible=visible).log(), 0.0)[0].backward()  # log 0 has gradient 0/0
    np.testing.assert_allclose(x.grad.numpy(), [0.5, 0, -0.5])


def test_a_fully_hidden_row_gives_zeros_and_no_gradient(backend):
    visible = tl.Tensor([[True, False], [False, False]], backend=backend)
    value, dx = edge(lambda x: tl.softmax(x, visible=visible), [[1, 2], [3, 4]], backend=backend)
    assert_edge((value, dx), [[1, 0], [0, 0]], 0)

    def attend(q, k, v):
        return tl.scaled_dot_product_attention(q, k, v, visible=visible)

    value, *dxs = edge(attend, np.ones((2, 3)), np.full((2, 3), 2.0), [[5, 7], [6, 8]], backend=backend)
    assert_edge([value], [[5, 7], [0, 0]])
    assert all(np.isfinite(dx).all() for dx in dxs)
    assert_edge([dxs[0][1], dxs[2]], 0, [[1, 1], [0, 0]])


def test_attention_over_no_positions_gives_zeros(backend):
    with np.errstate(all="raise"):
        found = edge(
            tl.scaled_dot_product_attention, np.ones((2, 3)), np.ones((0, 3)), np.ones((0, 4)), backend=backend
        )
        assert_edge(found[:2], np.zeros((2, 4)), np.zeros((2, 3)))
        assert found[2].shape == (0, 3) and found[3].shape == (0, 4)
        value, *_ = edge(attention, *[np.zeros((2, 0))] * 2, [[1.0], [3.0]], backend=backend)
        assert_edge([value], [[2], [2]])  # of width 0, all scores are 0


@pytest.mark.parametrize(
    ("visible", "error", "message"),
    [
        (np.array([0.0, -np.inf, 0.0]), TypeError, "softmax: visible must be boolean, .* got dtype float64"),
        (np.ones((2, 3), bool), ValueError, r"softmax: visible must broadcast to \(3,\), got \(2, 3\)"),
    ],
)
def test_an_invalid_mask_is_refused(visible, error, message):
    with pytest.raises(error, match=message):
        tl.softmax(tl.Tensor([1.0, 2.0, 3.0]), visible=visible)


def test_lists_are_accepted():
    assert tl.softmax([0.0, 0.0]).numpy().tolist() == [0.5, 0.5]
    assert tl.log_softmax([0.0]).numpy().tolist() == [0.0]
    assert tl.scaled_dot_product_attention([[1.0]], [[2.0]], [[3.0, 4.0]]).numpy().tolist() == [[3.0, 4.0]]


# ---- mistakes ----------------------------------------------------------------------------------------------------


def test_lists_go_to_the_backend_of_the_tensor(backend):
    v = tl.Tensor([[3.0, 4.0]], backend=backend)
    assert attention([[1.0]], [[2.0]], v).backend is backend
    assert tl.stack([[[1.0, 2.0]], v]).backend is backend


BAD = [
    (lambda x: tl.softmax(x, axis=2), ValueError, r"softmax: axis must lie in \[-2, 2\) for 2 dimensions, got 2"),
    (lambda x: tl.softmax(x, axis=None), TypeError, "^softmax: axis must be one integer, got None"),
    (lambda x: tl.log_softmax(x, (0, 1)), TypeError, r"log_softmax: axis must be one integer, got \(0, 1\)"),
    (lambda x: tl.log_softmax(x, -3), ValueError, r"log_softmax: axis must lie in \[-2, 2\) .* got -3"),
    (lambda x: x[0, 0].softmax(), ValueError, "softmax: axis must lie in .* 0 dimensions, got -1"),
    (lambda x: attention(x, x[:, :2], x), ValueError, r"must agree in K and S, got \(2, 3\), \(2, 2\) and \(2, 3\)"),
    (lambda x: attention(x, x, x[:1]), ValueError, r"must agree in K and S, .* and \(1, 3\)"),
    (lambda x: attention(x[0], x, x), ValueError, r"scaled_dot_product_attention: .* got \(3,\), \(2, 3\)"),
    (lambda x: attention(x, x, x, visible=[[True] * 3]), ValueError, r"must broadcast to \(2, 2\), got \(1, 3\)"),
    (lambda x: attention(x, x, x, dropout=1.5), ValueError, r"attention: dropout must lie in \[0, 1\), got 1.5"),
]  # fmt: skip


test_mistakes_are_named_with_the_value_and_the_remedy = refused_of_a_matrix(BAD)
