"""Normalization: edge cases and mistakes."""

from math import inf, nan

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.ops.normalize import layer_norm_gradient
from tests.edges import assert_edge, edge, refused_of_a_matrix

WAVE = np.tile(np.array([-300.0, 300.0]), 2048)  # its squares sum to 3.7e8, far beyond float16


def test_half_precision_statistics_do_not_overflow(backend):
    ones = tl.Tensor(np.ones(4096, "float16"), backend=backend)
    x = tl.Tensor(WAVE[None], dtype="float16", requires_grad=True, backend=backend)
    for y, expected in ((tl.layer_norm(x, ones, ones), np.sign(WAVE) + 1), (tl.rms_norm(x, ones), np.sign(WAVE))):
        assert y.dtype == np.float16
        np.testing.assert_allclose(y.numpy()[0], expected, atol=1e-2)
        (dx,) = tl.grad(y.sum(), [x])
        assert dx.dtype == np.float16 and np.isfinite(dx.numpy()).all()
    y, mean, var = tl.batch_norm(x.reshape(4096, 1), return_statistics=True)
    assert y.dtype == np.float16 and mean.dtype == var.dtype == np.float32
    assert_edge([mean.numpy(), var.numpy(), y.numpy()[:, 0]], [0], [90_000], np.sign(WAVE))
    y = tl.normalize(x)
    np.testing.assert_allclose(y.numpy()[0], np.sign(WAVE) / 64, rtol=1e-2)
    assert tl.cosine_similarity(x, x).numpy().tolist() == [1] and tl.cosine_similarity(x, x).dtype == np.float16


def test_the_gradient_of_a_half_precision_bias_is_summed_wider(backend):
    x = tl.Tensor(np.zeros((5000, 1)), dtype="float16", backend=backend)
    bias = tl.Tensor([0.0], dtype="float16", requires_grad=True, backend=backend)
    (dbias,) = tl.grad(tl.layer_norm(x, None, bias).sum(), [bias])
    assert dbias.dtype == np.float16 and dbias.item() == 5000  # in float16 a sum of ones stops at 2048


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_layer_norm_computes_only_the_gradients_needed(wanted, backend, monkeypatch):
    found = []

    def spy(*arguments):
        found.append(layer_norm_gradient(*arguments))
        return found[-1]

    monkeypatch.setattr("tensorlib.ops.normalize.layer_norm_gradient", spy)
    arrays = (np.array([[1.0, 2.0, 4.0]]), np.ones(3), np.zeros(3))
    xs = [tl.Tensor(a, requires_grad=w, backend=backend) for a, w in zip(arrays, wanted, strict=True)]
    for create_graph in (False, True):
        tl.grad(tl.layer_norm(*xs).sum(), [x for x in xs if x.requires_grad], create_graph=create_graph)
        assert tuple(dx is not None for dx in found.pop()) == wanted


def test_batch_norm_returns_the_statistics_it_used(backend):
    x = tl.Tensor(np.arange(12.0).reshape(3, 2, 2), requires_grad=True, backend=backend)
    y, mean, var = tl.batch_norm(x, return_statistics=True)
    assert_edge([mean.numpy()], [4.5, 6.5])
    np.testing.assert_allclose(var.numpy(), x.numpy().var(axis=(0, 2)))
    again = tl.batch_norm(x, mean=mean.detach(), var=var.detach())
    np.testing.assert_allclose(again.numpy(), y.numpy())
    for through, given in ((y, False), (again, True)):  # with batch statistics, shifting x changes nothing
        (dx,) = tl.grad(through.sum(), [x])
        assert (np.abs(dx.numpy()).max() > 0.1) == given


def test_vectors_of_zeros_stay_zero_with_finite_gradients(backend):
    for ord in (1, 2, 3, inf):
        with np.errstate(all="raise"):
            found = edge(lambda x, ord=ord: tl.normalize(x, ord, eps=0.5), [[0, 0], [3, 0]], backend=backend)
        assert_edge([found[0][0], found[1][0]], [0, 0], [2, 2])
        np.testing.assert_allclose(found[0][1], [1, 0])
        assert np.isfinite(found[1]).all()
    with np.errstate(all="raise"):
        value, dx, dy = edge(tl.cosine_similarity, [[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], backend=backend)
    assert_edge((value, dx, dy), [0, 0], 0, [[0, 0], [1e8, 0]])


def test_constant_rows_are_normalized_to_the_bias(backend):
    with np.errstate(all="raise"):
        value, dx = edge(lambda x: tl.layer_norm(x, None, [1.0, 2.0]), [[3.0, 3.0]], backend=backend)
        assert_edge((value, dx), [[1, 2]], 0)
        value, dx = edge(lambda x: tl.batch_norm(x, None, [1.0, 2.0]), [[3.0, 4.0]], backend=backend)
        assert_edge((value, dx), [[1, 2]], 0)
        value, dx = edge(tl.rms_norm, [[0.0, 0.0]], backend=backend)
        np.testing.assert_allclose(dx, 1000)
        assert tl.layer_norm(tl.Tensor(np.zeros((2, 0)), backend=backend)).shape == (2, 0)


def test_lists_are_accepted():
    assert tl.layer_norm([[1.0, 3.0]], [1.0, 1.0], [0.0, 0.0], eps=0.0).numpy().tolist() == [[-1, 1]]
    assert tl.rms_norm([2.0, -2.0], eps=0.0).numpy().tolist() == [1, -1]
    assert tl.batch_norm([[1.0], [3.0]], eps=0.0).numpy().tolist() == [[-1], [1]]
    assert tl.normalize([0.0, 2.0]).numpy().tolist() == [0, 1]
    assert tl.cosine_similarity([0.0, 2.0], [0.0, 3.0]).item() == 1


# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda x: tl.layer_norm(x, x[0, :2], x[0]), ValueError, r"layer_norm: weight .* \(3,\) .*; got \(2,\)"),
    (lambda x: tl.layer_norm(x, x[0], x), ValueError, r"layer_norm: bias must .* last axis .* got \(2, 3\)"),
    (lambda x: tl.layer_norm(x[0, 0]), ValueError, r"layer_norm: x must have a last axis, got shape \(\)"),
    (lambda x: tl.layer_norm(x.astype("int32")), TypeError, "layer_norm: x must .* floating dtype, got int32; use ."),
    (lambda x: tl.rms_norm(x, x[0, :1]), ValueError, r"rms_norm: weight must .* \(3,\) .* got \(1,\)"),
    (lambda x: tl.rms_norm([1, 2]), TypeError, "rms_norm: x must be of a floating dtype, got int64; use .astype"),
    (lambda x: tl.batch_norm(x, x[0, :2]), ValueError, r"batch_norm: weight must .* axis 1 of x, \(3,\) .* got \(2,\)"),
    (lambda x: tl.batch_norm(x[0]), ValueError, r"batch_norm: x must have an axis 1, got shape \(3,\)"),
    (lambda x: tl.batch_norm(x, mean=x[0]), ValueError, "batch_norm: mean and var must come together, got only mean"),
    (lambda x: tl.batch_norm(x, var=x[0]), ValueError, "batch_norm: mean and var must come together, got only var"),
    (lambda x: tl.batch_norm(x, mean=x[0], var=x), ValueError, r"batch_norm: var must .* got \(2, 3\)"),
    (lambda x: tl.normalize(x, 0.5), ValueError, "normalize: ord must be 1 or more .* got 0.5"),
    (lambda x: tl.normalize(x, nan), ValueError, "normalize: ord must be 1 or more .* got nan"),
    (lambda x: tl.normalize(x, axis=5), ValueError, r"axis must lie in \[-2, 2\) for 2 dimensions, got 5"),
    (lambda x: tl.normalize([1, 2]), TypeError, "normalize: x must be of a floating dtype, got int64; use .astype"),
    (lambda x: tl.cosine_similarity(x, x[:, :2]), ValueError, r"cosine_similarity: .* got \(2, 3\) and \(2, 2\)"),
    (lambda x: tl.cosine_similarity(x, x, axis=2), ValueError, r"axis must lie in \[-2, 2\) for 2 dimensions, got 2"),
]  # fmt: skip


test_mistakes_are_named_with_the_value_and_the_remedy = refused_of_a_matrix(BAD)
