"""Softmax, normalisation, losses, dropout and attention: edge cases, and mistakes."""

import math
from math import inf, nan

import numpy as np
import pytest
from edges import assert_edge, edge, matrix

import tensorlib as tl


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_of_huge_numbers(dtype, backend):
    value, dx = edge(tl.softmax, [1e30, -1e30, 1e30, 0], backend=backend, dtype=dtype, cotangent=[1, 2, 3, 4])
    assert_edge((value, dx), [0.5, 0, 0.5, 0], [-0.5, 0, 0.5, 0])
    value, dx = edge(tl.log_softmax, [1e30, -1e30], backend=backend, dtype=dtype)
    assert value[0] == 0 and np.isfinite(dx).all()
    value, dx = edge(tl.logsumexp, [1e30, -1e30], backend=backend, dtype=dtype)
    assert_edge((value, dx), np.asarray(1e30, dtype), [1, 0])


def test_nothing_visible_gives_zeros_and_no_gradient(backend):
    visible = tl.Tensor([[True, False], [False, False]], backend=backend)
    value, dx = edge(lambda x: tl.softmax(x, visible=visible), [[1, 2], [3, 4]], backend=backend)
    assert_edge((value, dx), [[1, 0], [0, 0]], 0)

    def attend(q, k, v):
        return tl.scaled_dot_product_attention(q, k, v, visible=visible)

    value, *dxs = edge(attend, np.ones((2, 3)), np.full((2, 3), 2.0), [[5, 7], [6, 8]], backend=backend)
    assert_edge([value], [[5, 7], [0, 0]])
    assert all(np.isfinite(dx).all() for dx in dxs)
    assert_edge([dxs[0][1], dxs[2]], 0, [[1, 1], [0, 0]])


def test_hidden_places_may_hold_anything(backend):
    visible = tl.Tensor([True, False, True], backend=backend)
    for junk in (nan, inf, -inf, 1e30):
        value, dx = edge(lambda x: tl.softmax(x, visible=visible), [0, junk, 0], backend=backend, cotangent=[1, 2, 3])
        assert_edge((value, dx), [0.5, 0, 0.5], [-0.5, 0, 0.5])


def test_cross_entropy_with_every_target_ignored(backend):
    for reduction in ("mean", "sum"):
        found = edge(
            lambda x, r=reduction: tl.cross_entropy(x, [7, 7], ignore_index=7, reduction=r),
            np.ones((2, 3)),
            backend=backend,
        )
        assert_edge(found, 0, 0)


def test_cross_entropy_over_classes_ruled_out(backend):
    value, dx = edge(lambda x: tl.cross_entropy(x, [0]), [[1.0, -inf, 1.0]], backend=backend)
    np.testing.assert_allclose(value, math.log(2))
    np.testing.assert_allclose(dx, [[-0.5, 0, 0.5]])


def test_cross_entropy_of_huge_logits(backend):
    value, dx = edge(lambda x: tl.cross_entropy(x, [1]), [[1000, -1000]], backend=backend, dtype="float32")
    assert_edge((value, dx), 2000, [[1, -1]])


def test_half_precision_statistics_do_not_overflow(backend):
    x = tl.Tensor(np.full((1, 4096), 300.0, "float16"), backend=backend)
    assert tl.mean(x).dtype == np.float16 and tl.mean(x).item() == 300
    wave = np.tile(np.array([-100.0, 100.0], "float16"), 2048)[None]
    x = tl.Tensor(wave, backend=backend)
    assert tl.var(x).item() == 10000
    ones = tl.Tensor(np.ones(4096, "float16"), backend=backend)
    y = tl.layer_norm(x, ones, ones)
    assert y.dtype == np.float16
    np.testing.assert_allclose(y.numpy(), np.sign(wave) + 1, atol=1e-2)


def test_dropout_keeps_the_mean_and_draws_again_alike(backend):
    x = tl.Tensor(np.ones((200, 500), np.float32), requires_grad=True, backend=backend)
    y = tl.dropout(x, 0.3, tl.Generator(5))
    kept = y.numpy() != 0
    assert abs(kept.mean() - 0.7) < 0.01
    np.testing.assert_allclose(y.numpy()[kept], 1 / 0.7, rtol=1e-4)
    (dx,) = tl.grad(y.sum(), [x])
    np.testing.assert_array_equal(dx.numpy(), y.numpy())  # as x is one everywhere
    np.testing.assert_array_equal(tl.dropout(x, 0.3, tl.Generator(5)).numpy(), y.numpy())
    generator = tl.Generator(5)
    first, second = tl.dropout(x, 0.3, generator), tl.dropout(x, 0.3, generator)
    assert 0.5 < (first.numpy() == second.numpy()).mean() < 0.65  # 0.7² + 0.3²: independent
    assert tl.dropout(x, 0.0) is x


@pytest.mark.parametrize(
    ("visible", "error", "message"),
    [
        (np.array([0.0, -np.inf, 0.0]), TypeError, "softmax: visible must be boolean, .* got dtype float64"),
        (np.ones((2, 3), bool), ValueError, r"softmax: visible must broadcast to the shape of x, \(3,\); got \(2, 3\)"),
    ],
)
def test_a_mask_that_is_none_is_refused(visible, error, message):
    with pytest.raises(error, match=message):
        tl.softmax(tl.Tensor([1.0, 2.0, 3.0]), visible=visible)


def test_functions_take_lists_and_arrays_too():
    assert tl.softmax([0.0, 0.0]).numpy().tolist() == [0.5, 0.5]
    assert tl.mean([1.0, 3.0]).item() == 2.0
    assert tl.matmul([[1.0, 2.0]], tl.ones((2, 1))).numpy().tolist() == [[3.0]]
    assert tl.cross_entropy(np.zeros((1, 2)), [0]).item() == pytest.approx(np.log(2))
    assert tl.embedding(np.eye(2), [1]).numpy().tolist() == [[0.0, 1.0]]
    assert tl.ones(3).sum(axis=np.int64(0)).item() == 3.0


# ---- mistakes ----------------------------------------------------------------------------------------------------

entropy = tl.cross_entropy

BAD = [
    (lambda x: entropy(x, [0, 3]), IndexError, r"cross_entropy: target 3 at position \(1,\) is outside the 3"),
    (lambda x: entropy(x, [0.0, 1.0]), TypeError, "cross_entropy: targets must be integers, got dtype float64"),
    (lambda x: entropy(x, [0]), ValueError, r"cross_entropy: targets must have .*\(2,\); got \(1,\)"),
    (lambda x: entropy(x, [0, 1], reduction="avg"), ValueError, "cross_entropy: reduction must be .* got 'avg'"),
    (lambda x: entropy(x, [0, 1], label_smoothing=1), ValueError, "label_smoothing must lie in .* got 1"),
    (lambda x: tl.dropout(x, 1.0), ValueError, r"dropout: p must lie in \[0, 1\), got 1.0"),
    (lambda x: tl.layer_norm(x, x[0, :2], x[0]), ValueError, r"layer_norm: .* weight \(2,\), bias \(3,\)"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "error", "message"), BAD, ids=[b[2].partition(":")[0] for b in BAD])
def test_mistakes_are_named_with_the_value_and_the_remedy(mistake, error, message, backend):
    with pytest.raises(error, match=message):
        mistake(matrix(backend))
