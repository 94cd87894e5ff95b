"""Losses: edge cases, and mistakes."""

import math
from math import inf, nan

import numpy as np
import pytest

import tensorlib as tl
from tests.edges import assert_edge, edge, matrix, refused_of_a_matrix

entropy, binary = tl.cross_entropy, tl.binary_cross_entropy_with_logits


def second_order(f, *values, backend):
    """Return the gradients of <gradient of f, 1>, as for a penalty on the gradient."""
    xs = [tl.Tensor(v, requires_grad=True, dtype="float64", backend=backend) for v in values]
    dxs = tl.grad(f(*xs), xs, create_graph=True)
    return [ddx.numpy() for ddx in tl.grad([dx.sum() for dx in dxs], xs, allow_unused=True) if ddx is not None]


# ---- cross-entropy -----------------------------------------------------------------------------------------------


def test_cross_entropy_with_every_target_ignored(backend):
    for reduction in ("mean", "sum"):
        for loss in (entropy, tl.nll_loss):
            found = edge(
                lambda x, r=reduction, loss=loss: loss(x, [7, 7], ignore_index=7, reduction=r),
                np.ones((2, 3)),
                backend=backend,
            )
            assert_edge(found, 0, 0)


@pytest.mark.parametrize("junk", [-inf, inf, nan, 1e300])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ignored_rows_may_hold_anything(junk, smoothing, backend):
    def loss(x):
        return entropy(x, [0, -100], label_smoothing=smoothing)

    clean = edge(loss, [[0.0, 1.0], [0.0, 0.0]], backend=backend)
    with np.errstate(all="raise", under="ignore"):
        found = edge(loss, [[0.0, 1.0], [junk, junk]], backend=backend)
        assert_edge(found, *clean)
        assert (found[1][1] == 0).all()
        (ddx,) = second_order(loss, [[0.0, 1.0], [junk, -junk]], backend=backend)
    assert np.isfinite(ddx).all() and (ddx[1] == 0).all()
    found = edge(lambda x: tl.nll_loss(x, [0, -100]), [[-1.0, -2.0], [junk, junk]], backend=backend)
    assert_edge(found, 1, [[-1, 0], [0, 0]])


def test_ignored_rows_pass_no_gradient_whatever_arrives_there(backend):
    _, dx = edge(
        lambda x: entropy(x, [0, -100], reduction="none"), np.zeros((2, 2)), backend=backend, cotangent=[1, inf]
    )
    assert_edge([dx], [[-0.5, 0.5], [0, 0]])


def test_cross_entropy_over_excluded_classes(backend):
    value, dx = edge(lambda x: entropy(x, [0]), [[1.0, -inf, 1.0]], backend=backend)
    np.testing.assert_allclose(value, math.log(2))
    np.testing.assert_allclose(dx, [[-0.5, 0, 0.5]])
    value, dx = edge(lambda x: entropy(x, [1]), [[1.0, -inf, 1.0]], backend=backend)
    assert value == inf
    np.testing.assert_allclose(dx, [[0.5, -1, 0.5]])


def test_excluded_classes_may_have_probability_zero(backend):
    with np.errstate(all="raise"):
        value, dx, dq = edge(entropy, [[1.0, -inf, 1.0]], [[1.0, 0.0, 0.0]], backend=backend)
        ddx = second_order(entropy, [[1.0, -inf, 1.0]], [[1.0, 0.0, 0.0]], backend=backend)
    np.testing.assert_allclose(value, math.log(2))
    np.testing.assert_allclose(dx, [[-0.5, 0, 0.5]])
    np.testing.assert_allclose(dq, [[math.log(2), 0, math.log(2)]])
    assert all(np.isfinite(d).all() for d in ddx)


def test_probabilities_and_class_numbers_agree(backend):
    x = tl.Tensor(np.random.default_rng(0).standard_normal((4, 3)), backend=backend)
    one_hot = tl.Tensor(np.eye(3)[[2, 0, 1, 1]], backend=backend)
    for options in ({}, {"label_smoothing": 0.2}, {"reduction": "sum"}, {"reduction": "none"}):
        by_number = entropy(x, [2, 0, 1, 1], **options).numpy()
        np.testing.assert_allclose(entropy(x, one_hot, **options).numpy(), by_number, rtol=1e-12)
    np.testing.assert_allclose(tl.nll_loss(x.log_softmax(), [2, 0, 1, 1]).item(), entropy(x, [2, 0, 1, 1]).item())


def test_cross_entropy_of_huge_logits(backend):
    value, dx = edge(lambda x: entropy(x, [1]), [[1000, -1000]], backend=backend, dtype="float32")
    assert_edge((value, dx), 2000, [[1, -1]])


def test_cross_entropy_of_many_classes_and_rows_in_half_precision(backend):
    value, dx = edge(lambda x: entropy(x, [0]), np.zeros((1, 100_000)), backend=backend, dtype="float16")
    assert value.dtype == dx.dtype == np.float16
    np.testing.assert_allclose(value, math.log(100_000), rtol=1e-3)
    np.testing.assert_allclose(dx[0, :2], [-1, 1e-5], rtol=1e-2)
    value, dx = edge(
        lambda x: tl.nll_loss(x, np.zeros(100_000, int)), np.full((100_000, 1), -2.0), backend=backend, dtype="float16"
    )
    assert value.dtype == np.float16 and value == 2


def test_targets_may_change_after_the_forward_pass(backend):
    targets = np.array([0, 1])
    x = tl.Tensor(np.zeros((2, 2)), requires_grad=True, backend=backend)
    loss = entropy(x, targets, reduction="sum") + tl.nll_loss(x, targets, reduction="sum")
    targets[:] = 1
    assert_edge([tl.grad(loss, [x])[0].numpy()], [[-1.5, 0.5], [0.5, -1.5]])


def test_targets_may_be_lists_of_any_kind():
    assert entropy(np.zeros((1, 2)), [0]).item() == pytest.approx(math.log(2))
    assert entropy([[0.0, 0.0]], [[0.5, 0.5]]).item() == pytest.approx(math.log(2))
    assert entropy(np.zeros((0, 2)), []).item() == 0
    assert tl.nll_loss([[-1.0, -3.0]], np.array([1], "uint8")).item() == 3
    assert tl.mse_loss([1.0, 2.0], [0.0, 0.0]).item() == 2.5
    assert binary([0.0], [1]).item() == pytest.approx(math.log(2))


# ---- between numbers, and between probabilities ------------------------------------------------------------------


def test_equal_huge_logits_share_the_probability(backend):
    """A logsumexp of 1e30 is rounded, so that logits - logsumexp would give each of them the probability 1."""
    for dtype in ("float32", "float64"):
        value, dx = edge(lambda x: tl.cross_entropy(x, [0]), [[1e30, 1e30, -1e30]], backend=backend, dtype=dtype)
        np.testing.assert_allclose(value, math.log(2), rtol=1e-6)
        np.testing.assert_array_equal(dx, [[-0.5, 0.5, 0]])


def test_a_row_without_a_possible_class_has_an_infinite_loss(backend):
    with np.errstate(all="raise"):
        assert_edge(edge(lambda x: tl.cross_entropy(x, [1]), [[-inf, -inf]], backend=backend), inf, [[0, -1]])


def test_certain_logits_cost_nothing_if_they_are_right(backend):
    with np.errstate(all="raise"):
        value, dx, dt = edge(lambda x, t: tl.binary_cross_entropy_with_logits(x, t, reduction="sum"),
                             [-inf, inf], [0, 1], backend=backend)  # fmt: skip
        assert_edge((value, dx), 0, [0, 0])
        assert np.isfinite(dt).all()
        assert edge(tl.binary_cross_entropy_with_logits, [inf], [0.0], backend=backend)[0] == inf


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_binary_cross_entropy_of_huge_logits(dtype, backend):
    def loss(x, t):
        return binary(x, t, reduction="none")

    with np.errstate(all="raise", under="ignore"):
        found = edge(loss, [1000, 1000, -1000, -1000, 0], [1, 0, 1, 0, 0.5], backend=backend, dtype=dtype)
    assert found[0].dtype == found[1].dtype == dtype
    np.testing.assert_allclose(found[0], [0, 1000, 1000, 0, math.log(2)], rtol=1e-3)
    assert_edge(found[1:], [0, 1, -1, 0, 0], [-1000, -1000, 1000, 1000, 0])


def test_binary_cross_entropy_is_exact_where_the_probability_rounds_to_one(backend):
    x = tl.Tensor([20.0], backend=backend)
    assert binary(x, [1.0]).item() == pytest.approx(2.0611536e-9, rel=1e-5)
    assert binary(-x, [1.0], 3.0).item() == pytest.approx(60, rel=1e-5)


def test_half_precision_losses_do_not_overflow(backend):
    x, zeros = tl.Tensor(np.full(1000, 300.0, "float16"), backend=backend), np.zeros(1000, "float16")
    for loss, expected in ((tl.l1_loss, 300), (tl.huber_loss, 299.5), (binary, 300)):
        y = loss(x, zeros)
        assert y.dtype == np.float16 and y.item() == expected
    x = tl.Tensor(np.full(100_000, 200.0, "float16"), backend=backend)
    assert tl.mse_loss(x, np.zeros(100_000, "float16")).item() == 40_000  # the sum is 4e9
    y = tl.kl_div(tl.Tensor(np.full(1000, -100.0, "float16"), backend=backend), np.ones(1000, "float16"))
    assert y.dtype == np.float16 and y.item() == 100


def test_losses_of_equal_inputs_are_zero(backend):
    for loss in (tl.mse_loss, tl.l1_loss, tl.huber_loss):
        found = edge(lambda x, y, loss=loss: loss(x, y, reduction="sum"), [1.0, 2.0], [1.0, 2.0], backend=backend)
        assert_edge(found, 0, 0, 0)


def test_huber_loss_at_its_bend_and_far_beyond(backend):
    with np.errstate(all="raise"):
        found = edge(
            lambda x: tl.huber_loss(x, [0, 0, 0], 2.0, "none"), [2, -2, 1e30], backend=backend, dtype="float32"
        )
    assert_edge(found, [2, 2, np.float32(2e30)], [2, -2, 2])


def test_kl_div_of_impossible_outcomes(backend):
    log_q, p = [-1.0, -inf, -2.0], [0.5, 0.0, 0.0]
    with np.errstate(all="raise"):
        value, dq, dp = edge(lambda q, p: tl.kl_div(q, p, "none"), log_q, p, backend=backend)
        ddx = second_order(lambda q, p: tl.kl_div(q, p, "sum"), log_q, p, backend=backend)
    np.testing.assert_allclose(value, [0.5 * (math.log(0.5) + 1), 0, 0])
    np.testing.assert_allclose(dq, [-0.5, 0, 0])
    np.testing.assert_allclose(dp, [math.log(0.5) + 2, 0, 0])
    assert all(np.isfinite(d).all() for d in ddx)
    log_p = [math.log(0.5), -inf, -inf]
    with np.errstate(all="raise"):
        value, dq, dp = edge(lambda q, p: tl.kl_div(q, p, "none", log_target=True), log_q, log_p, backend=backend)
    np.testing.assert_allclose(value, [0.5 * (math.log(0.5) + 1), 0, 0])
    assert np.isfinite(dq).all() and np.isfinite(dp).all()


# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda x: entropy(x, [0, 3]), IndexError, r"cross_entropy: target 3 at position \(1,\) is outside the 3"),
    (lambda x: entropy(x, [-1, 0]), IndexError, r"cross_entropy: target -1 at position \(0,\)"),
    (lambda x: entropy(x, [0.0, 1.0]), TypeError, r"cross_entropy: .* integers .*\(2,\), or probabilities .*\(2, 3\); "
                                                  r"got dtype float32 of shape \(2,\)"),
    (lambda x: entropy(x, [0]), ValueError, r"cross_entropy: targets must have .*\(2,\); got \(1,\)"),
    (lambda x: entropy(x, [0, 1], reduction="avg"), ValueError, "cross_entropy: reduction must be .* got 'avg'"),
    (lambda x: entropy(x, [0, 1], label_smoothing=1), ValueError, "label_smoothing must lie in .* got 1"),
    (lambda x: entropy(x.astype("int64"), [0, 1]), TypeError, "cross_entropy: .* floating dtype, got int64; use .a"),
    (lambda x: entropy(x[:, :0], [0, 1]), ValueError, r"cross_entropy: .* must hold the classes, got shape \(2, 0\)"),
    (lambda x: entropy(x[0, 0], 0), ValueError, r"cross_entropy: .* must hold the classes, got shape \(\)"),
    (lambda x: entropy(x.reshape(2, 3, 1), [[0, 1, 0]] * 2), IndexError, r"outside the 1 classes; for yes or no"),
    (lambda x: entropy(x, [1, 3]), IndexError, "outside the 3 classes; number the classes from 0, .*=3 if it"),
    (lambda x: entropy(x.reshape(1, 2, 3), [[0, 1, 0]]), ValueError, r"\(1, 2\); got \(1, 3\); .* tl.moveaxis"),
    (lambda x: entropy(x, np.eye(2, 3, dtype=int)), ValueError, r"got \(2, 3\); .* targets\.astype\('float32'\)"),
    (lambda x: entropy(x[:, :1], np.zeros((2, 1))), ValueError, r"with one the loss is always 0; got .*2, 1"),
    (lambda x: tl.nll_loss(x, [0, 5]), IndexError, r"nll_loss: target 5 at position \(1,\) is outside the 3"),
    (lambda x: tl.nll_loss(x, [0.0, 1.0]), TypeError, "nll_loss: targets must be integers .* got dtype float32"),
    (lambda x: tl.nll_loss(x, [[0, 1]]), ValueError, r"nll_loss: targets must have .*\(2,\); got \(1, 2\)"),
    (lambda x: tl.nll_loss(x, [0, 1], reduction=None), ValueError, "nll_loss: reduction must be .* got None"),
    (lambda x: tl.mse_loss(x, x[0]), ValueError, r"mse_loss: .* the same shape, got \(2, 3\) and \(3,\)"),
    (lambda x: tl.mse_loss(x[:, :1], x[:, 0]), ValueError, r"got \(2, 1\) and \(2,\); use targets.reshape"),
    (lambda x: tl.mse_loss(x, x, "average"), ValueError, "mse_loss: reduction must be .* or 'none', got 'average'"),
    (lambda x: tl.l1_loss(x, 1.0), ValueError, r"l1_loss: .* the same shape, got \(2, 3\) and \(\)"),
    (lambda x: tl.l1_loss(x, x, "batchmean"), ValueError, "l1_loss: reduction must be .* got 'batchmean'"),
    (lambda x: tl.huber_loss(x, x.T), ValueError, r"huber_loss: .* got \(2, 3\) and \(3, 2\)"),
    (lambda x: tl.huber_loss(x, x, 0), ValueError, "huber_loss: delta must be larger than 0, got 0"),
    (lambda x: tl.huber_loss(x, x, math.nan), ValueError, "huber_loss: delta must be larger than 0, got nan"),
    (lambda x: tl.huber_loss(x, x, 1, "all"), ValueError, "huber_loss: reduction must be .* got 'all'"),
    (lambda x: binary(x, x[0]), ValueError, r"binary_cross_entropy_with_logits: .* got \(2, 3\) and \(3,\)"),
    (lambda x: binary(x, x, np.ones((2, 2, 3))), ValueError, r"pos_weight must .* \(2, 3\); got \(2, 2, 3\)"),
    (lambda x: binary(x, x, np.ones(2)), ValueError, r"shapes must broadcast, got \(2, 3\) and \(2,\)"),
    (lambda x: binary(x, x, None, ""), ValueError, "binary_cross_entropy_with_logits: reduction must be .* got ''"),
    (lambda x: tl.kl_div(x, x[:1]), ValueError, r"kl_div: .* got \(2, 3\) and \(1, 3\)"),
    (lambda x: tl.kl_div(x, x, "batch"), ValueError, "kl_div: reduction must be .* or 'batchmean', got 'batch'"),
    (lambda x: tl.kl_div(x[0, 0], x[0, 0], "batchmean"), ValueError, r"kl_div: .* axis for the batch, got shape \(\)"),
]  # fmt: skip


test_mistakes_are_named_with_the_value_and_the_remedy = refused_of_a_matrix(BAD)


def test_targets_on_another_backend_are_refused():
    from tests.strict import STRICT

    with pytest.raises(TypeError, match=r"cross_entropy: targets must be on the backend .* numpy, .* got strict"):
        entropy(matrix("numpy"), tl.Tensor([0, 1], backend=STRICT))
    assert entropy(matrix(STRICT), tl.Tensor([0, 1])).item() == pytest.approx(math.log(3))
    with pytest.raises(TypeError, match=r"mse_loss: both arguments .* on one backend, got numpy and strict"):
        tl.mse_loss(matrix("numpy"), matrix(STRICT))
    for here, there in (("numpy", STRICT), (STRICT, "numpy")):
        with pytest.raises(TypeError, match="cross_entropy: targets must be on the backend of the first argument"):
            entropy(matrix(here), matrix(there))


@pytest.mark.parametrize("weight", [2, 2.0, np.int64(2), np.float64(2), np.float32(2)])
def test_a_number_as_pos_weight_does_not_widen_the_dtype(weight):
    loss = tl.binary_cross_entropy_with_logits(tl.zeros((2,)), [1.0, 0.0], pos_weight=weight)
    assert loss.dtype == "float32" and loss.item() == pytest.approx(1.5 * math.log(2))
