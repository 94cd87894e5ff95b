"""Every op of the table on every array kind: values, gradients of both orders, dtypes, memory; then the edge cases."""

import math

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.checking import LAYOUTS, check, check_sample, gradcheck
from tensorlib.optable import ROWS, function_names

ALL = [pytest.param(row, id=row.name) for row in ROWS]
DIFFERENTIABLE = [pytest.param(row, id=row.name) for row in ROWS if row.differentiable]

inf, nan = math.inf, math.nan


def outputs(ys):
    return list(ys) if isinstance(ys, tuple | list) else [ys]


def tensors(arrays, backend, layout=None):
    xs = [tl.Tensor(a, requires_grad=a.dtype.kind == "f", backend=backend) for a in arrays]
    for x in xs:
        if layout is not None:
            x.replace(layout(x.data, backend.xp))
    return xs


def differentiable_outputs(row, sample, xs, backend):
    return [y for y in outputs(row.bound(sample, backend)(*xs)) if y.requires_grad]


def cotangents_for(ys):
    rng = np.random.default_rng(1)
    return [rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1, 1], y.shape) for y in ys]


def gradients(row, sample, arrays, backend, layout=None):
    """Return the gradient for each input, with random cotangents laid out as `layout` says."""
    xs = tensors(arrays, backend)
    ys = differentiable_outputs(row, sample, xs, backend)
    cs = tensors([c.astype(y.dtype) for c, y in zip(cotangents_for(ys), ys, strict=True)], backend, layout)
    return tl.grad(ys, xs, cs)


def close(x, expected, message):
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-12, atol=1e-12, err_msg=message)


# ---- the table ---------------------------------------------------------------------------------------------------


def test_every_public_function_has_a_row_and_every_row_a_function():
    assert sorted(row.name for row in ROWS) == function_names()


def test_rows_have_samples_enough():
    assert sum(len(row.samples) for row in ROWS) >= 5 * len(ROWS)
    for row in ROWS:
        assert len(row.samples) >= 4, row.name


@pytest.mark.parametrize("row", [p for p in ALL if p.values[0].reference])
def test_value(row, backend):
    """Also with inputs whose elements lie in memory in another way, and with the inputs left as they were."""
    for sample in row.samples:
        arrays = row.arrays(sample)
        expected = outputs(row.bound(sample, None)(*arrays))
        for layout in (None, *LAYOUTS):
            xs = tensors(arrays, backend, layout)
            ys = outputs(row.bound(sample, backend)(*xs))
            for y, e in zip(ys, expected, strict=True):
                assert isinstance(y, tl.Tensor) and y.backend is backend, f"{row.name}({sample})"
                assert (y.shape, y.dtype) == (np.shape(e), np.asarray(e).dtype), f"{row.name}({sample})"
                close(y, e, f"{row.name}({sample})")
                assert not row.differentiable or y.requires_grad == any(x.requires_grad for x in xs)
            for x, array in zip(xs, arrays, strict=True):
                np.testing.assert_array_equal(x.numpy(), array, err_msg=f"{row.name}({sample}) changed its input")


@pytest.mark.parametrize("row", DIFFERENTIABLE)
def test_gradient(row, backend):
    """To second order, against finite differences; on NumPy at all samples and with inputs in every layout."""
    if backend.name == "numpy":
        for sample in row.samples:
            check_sample(row, sample, backend)
    else:
        for sample in row.samples[:3]:
            gradcheck(row.bound(sample, backend), *row.arrays(sample), name=row.name, backend=backend)


@pytest.mark.parametrize("row", DIFFERENTIABLE)
def test_gradient_that_arrives_in_another_layout(row, backend):
    """A broadcast view, as a sum sends it back, among them."""
    for sample in row.samples:
        arrays = row.arrays(sample)
        expected = gradients(row, sample, arrays, backend)
        for layout in LAYOUTS:
            for dx, e in zip(gradients(row, sample, arrays, backend, layout), expected, strict=True):
                close(dx, e.numpy(), f"{row.name}({sample})")
        xs = tensors(arrays, backend)
        ys = differentiable_outputs(row, sample, xs, backend)
        ones = [tl.Tensor(np.ones(y.shape), backend=backend) for y in ys]
        expected = tl.grad(ys, xs, ones, retain_graph=True)
        for dx, e in zip(tl.grad([y.sum() for y in ys], xs), expected, strict=True):
            close(dx, e.numpy(), f"{row.name}({sample})")


@pytest.mark.parametrize("row", DIFFERENTIABLE)
def test_float32(row, backend):
    """Stays float32 beside Python scalars, and its gradient is that of float64 but for rounding."""
    for sample in row.samples:
        narrow = row.arrays(sample, np.float32)
        widened = row.name == "astype" or any(getattr(a, "dtype", None) == np.float64 for a in sample.arguments)
        for y in outputs(row.bound(sample, backend)(*tensors(narrow, backend))):
            assert widened or y.dtype == np.float32, f"{row.name}({sample}) of float32 gives {y.dtype}"
        expected = gradients(row, sample, [a.astype(np.float64) for a in narrow], backend)
        for dx, e in zip(gradients(row, sample, narrow, backend), expected, strict=True):
            assert dx.dtype == np.float32
            if dx.size:
                error = np.abs(dx.numpy() - e.numpy()).max() / max(np.abs(e.numpy()).max(), 1e-3)
                assert error < 2e-5, f"{row.name}({sample}): float32 gradient is off by {error:.1e}"


@pytest.mark.parametrize("row", DIFFERENTIABLE)
def test_runs_twice_alike(row, backend):
    if backend.name == "cupy":
        pytest.skip("add.at on CuPy adds in the order in which threads come")
    for sample in row.samples:
        first, second = (gradients(row, sample, row.arrays(sample), backend) for _ in range(2))
        for dx, again in zip(first, second, strict=True):
            assert dx.numpy().tobytes() == again.numpy().tobytes(), f"{row.name}({sample}) differs from run to run"


@pytest.mark.parametrize("row", DIFFERENTIABLE)
def test_gradients_share_no_memory(row):
    for sample in row.samples:
        xs = tensors(row.arrays(sample), "numpy")
        ys = differentiable_outputs(row, sample, xs, tl.get_backend("numpy"))
        cs = [tl.Tensor(c) for c in cotangents_for(ys)]
        dxs = tl.grad(ys, xs, cs)
        for i, dx in enumerate(dxs):
            for other in (*xs, *ys, *cs, *dxs[:i]):
                assert not np.shares_memory(dx.data, other.data), f"{row.name}({sample}): gradient {i} shares memory"
            assert dx.data.flags.writeable
        for c, fresh in zip(cs, cotangents_for(ys), strict=True):
            np.testing.assert_array_equal(c.numpy(), fresh, err_msg=f"{row.name} changed its cotangent")


@pytest.mark.parametrize("row", DIFFERENTIABLE)
def test_computes_the_gradient_of_each_input_alone(row, backend):
    """With only one input requiring a gradient, it gets the one it gets beside the others."""
    for sample in row.samples:
        arrays = row.arrays(sample)
        expected = gradients(row, sample, arrays, backend)
        for i in range(len(arrays)):
            xs = [tl.Tensor(a, requires_grad=k == i, backend=backend) for k, a in enumerate(arrays)]
            ys = differentiable_outputs(row, sample, xs, backend)
            cs = [tl.Tensor(c, backend=backend) for c in cotangents_for(ys)]
            close(tl.grad(ys, [xs[i]], cs)[0], expected[i].numpy(), f"{row.name}({sample})")


@pytest.mark.parametrize("row", DIFFERENTIABLE)
def test_no_grad_records_nothing(row):
    sample = row.samples[0]
    with tl.no_grad():
        ys = outputs(row.bound(sample, tl.get_backend("numpy"))(*tensors(row.arrays(sample), "numpy")))
    assert all(y.is_leaf and not y.requires_grad for y in ys)


def test_check_reports_instead_of_raising(monkeypatch):
    report, other = check(["tanh", "exp"])
    assert [report.op, other.op] == ["exp", "tanh"] and report.samples >= 5
    assert report.failure is None and 0 < report.first < 1e-9 and 0 < report.second < 1e-9
    assert (report.dtype, report.backend) == ("float64", "numpy")

    from tensorlib.ops.elementwise import Tanh

    monkeypatch.setattr(Tanh, "backward", lambda self, dy: dy * (1 + self.saved[0] * self.saved[0]))
    (report,) = check(["tanh"])
    assert "tanh: first order: gradient of input 0 at element ()" in report.failure
    monkeypatch.setattr(Tanh, "backward", lambda self, dy: dy.nonsense)
    (report,) = check(["tanh"])
    assert report.failure.startswith("tanh: AttributeError") and report.failure.endswith("at tanh(())")
    with pytest.raises(ValueError, match=r"no differentiable op is called cosh; there are add, "):
        check(["cosh"])


# ---- edge cases --------------------------------------------------------------------------------------------------


def edge(f, *values, backend, dtype="float64", cotangent=None):
    """Return the value and the gradients of f, as NumPy arrays."""
    xs = [tl.Tensor(v, requires_grad=True, dtype=dtype, backend=backend) for v in values]
    y = f(*xs)
    c = tl.Tensor(np.ones(y.shape) if cotangent is None else cotangent, dtype=y.dtype, backend=backend)
    return y.numpy(), *[dx.numpy() for dx in tl.grad(y, xs, c)]


def assert_edge(found, *expected):
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_array_equal(f, e)


def test_tied_maxima_share_the_gradient_evenly(backend):
    assert_edge(edge(lambda x: x.max(axis=1), [[1, 3, 3], [2, 2, 2]], backend=backend, cotangent=[6, 3]),
                [3, 2], [[0, 3, 3], [1, 1, 1]])  # fmt: skip
    assert_edge(edge(tl.max, [[1, 3], [3, 2]], backend=backend), 3, [[0, 0.5], [0.5, 0]])


def test_ties_of_maximum_and_minimum_are_halved(backend):
    for f, first in ((tl.maximum, [0.5, 1, 0]), (tl.minimum, [0.5, 0, 1])):
        found = edge(f, [1, 5, 1], [1, 2, 3], backend=backend)
        assert_edge(found[1:], first, [1 - d for d in first])


def test_kinks(backend):
    assert_edge(edge(tl.relu, [-1, 0, 2], backend=backend), [0, 0, 2], [0, 0, 1])
    assert_edge(edge(tl.abs, [-1, 0, 2], backend=backend), [1, 0, 2], [-1, 0, 1])
    with np.errstate(divide="ignore"):
        assert_edge(edge(tl.sqrt, [0, 4], backend=backend), [0, 2], [inf, 0.25])


def test_a_gradient_that_relu_stops_may_be_infinite(backend):
    with np.errstate(divide="ignore"):
        assert_edge(edge(lambda x: tl.sqrt(tl.relu(x)), [-1, 4], backend=backend), [0, 2], [0, 0.25])


def test_power_at_zero(backend):
    value, dx, dy = edge(tl.power, [0, 0, 0, 2], [0, 1, 2, 0], backend=backend)
    assert_edge((value, dx), [1, 0, 0, 1], [0, 1, 0, 0])
    np.testing.assert_allclose(dy, [0, 0, 0, math.log(2)])
    assert_edge(edge(lambda x: x**2, [-3, 0], backend=backend), [9, 0], [-6, 0])
    assert_edge(edge(lambda x: x**0, [-3, 0], backend=backend), [1, 1], [0, 0])
    _, dy = edge(lambda y: 2**y, [0.0, 3.0], backend=backend)
    np.testing.assert_allclose(dy, [math.log(2), 8 * math.log(2)], rtol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_of_huge_numbers(dtype, backend):
    value, dx = edge(tl.softmax, [1e30, -1e30, 1e30, 0], backend=backend, dtype=dtype, cotangent=[1, 2, 3, 4])
    assert_edge((value, dx), [0.5, 0, 0.5, 0], [-0.5, 0, 0.5, 0])
    value, dx = edge(tl.log_softmax, [1e30, -1e30], backend=backend, dtype=dtype)
    assert value[0] == 0 and np.isfinite(dx).all()
    value, dx = edge(tl.logsumexp, [1e30, -1e30], backend=backend, dtype=dtype)
    assert_edge((value, dx), np.asarray(1e30, dtype), [1, 0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saturated_functions_do_not_overflow(dtype, backend):
    with np.errstate(over="raise", invalid="raise"):
        assert_edge(edge(tl.sigmoid, [-1000, 0, 1000], backend=backend, dtype=dtype), [0, 0.5, 1], [0, 0.25, 0])
        assert_edge(edge(tl.tanh, [-1000, 0, 1000], backend=backend, dtype=dtype), [-1, 0, 1], [0, 1, 0])
        assert_edge(edge(tl.gelu, [-1000, 0, 1000], backend=backend, dtype=dtype), [0, 0, 1000], [0, 0.5, 1])


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


def test_logsumexp_of_nothing(backend):
    with np.errstate(all="raise"):
        assert_edge(edge(lambda x: tl.logsumexp(x, axis=1), [[-inf, -inf], [0, -inf]], backend=backend),
                    [-inf, 0], [[0, 0], [1, 0]])  # fmt: skip
        assert_edge([tl.logsumexp(tl.Tensor(np.zeros((0, 2)), backend=backend), axis=0).numpy()], [-inf, -inf])


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


def test_the_mean_of_nothing_is_nan(backend):
    assert np.isnan(tl.mean(tl.Tensor(np.zeros((0, 2)), backend=backend)).item())


def test_repeated_indices_add_up(backend):
    ids = np.array([1, 1, 0, 1])
    for f in (lambda x: x[ids], lambda x: x[[1, 1, 0, 1]], lambda x: tl.embedding(x, ids)):
        _, dx = edge(f, [[1.0], [2.0], [3.0]], backend=backend, cotangent=[[1], [10], [100], [1000]])
        np.testing.assert_array_equal(dx, [[100], [1011], [0]])


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


# ---- mistakes ----------------------------------------------------------------------------------------------------

entropy = tl.cross_entropy

BAD = [
    (lambda x: x + x.reshape(6), ValueError, r"add: shapes must broadcast, got \(2, 3\) and \(6,\)"),
    (lambda x: x == x.reshape(6), ValueError, r"equal: shapes must broadcast, got \(2, 3\) and \(6,\)"),
    (lambda x: x @ x, ValueError, r"matmul: inner sizes must agree, got \(2, 3\) and \(2, 3\); did you mean"),
    (lambda x: x @ x[0, 0], ValueError, "matmul: both operands must have at least one dimension"),
    (lambda x: x.sum(axis=2), ValueError, r"sum: axis must lie in \[-2, 2\) for 2 dimensions, got 2"),
    (lambda x: x.max(axis=(0, -2)), ValueError, r"max: axes must differ, got \(0, -2\)"),
    (lambda x: x[:, :0].max(axis=1), ValueError, r"max: needs at least one element .* got shape \(2, 0\)"),
    (lambda x: x.transpose(0, 2), ValueError, r"transpose: axis must lie in \[-2, 2\) for 2 dimensions, got 2"),
    (lambda x: x.transpose(0), ValueError, r"transpose: axes must be a permutation of 2 axes, got \(0,\)"),
    (lambda x: x.swapaxes(0, 5), ValueError, "swapaxes: axis must lie .* got 5"),
    (lambda x: x.reshape(4, 2), ValueError, r"reshape: .*\(operands of shape \(2, 3\)\)"),
    (lambda x: x.squeeze(0), ValueError, r"squeeze: axis 0 must have size 1, got shape \(2, 3\)"),
    (lambda x: tl.split(x, 2, axis=1), ValueError, "split: 2 equal parts must fit axis 1 of size 3"),
    (lambda x: tl.split(x, [2, 1], axis=1), ValueError, r"split: positions must rise from 0 to 3, .* got \[2, 1\]"),
    (lambda x: tl.concatenate([]), ValueError, "concatenate: needs at least one Tensor, got none"),
    (lambda x: tl.take_along_axis(x, [[0]], axis=7), ValueError, "take_along_axis: axis must lie .* got 7"),
    (lambda x: x[5], IndexError, r"getitem: .*5.*; the Tensor has shape \(2, 3\)"),
    (lambda x: tl.embedding(x, [[0, 1], [2, 0]]), IndexError, r"embedding: token id 2 at position \(1, 0\) is"),
    (lambda x: tl.embedding(x, [-1]), IndexError, r"embedding: token id -1 at position \(0,\)"),
    (lambda x: tl.embedding(x, [0.5]), TypeError, "embedding: token ids must be integers, got dtype float64"),
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
        mistake(tl.Tensor(np.ones((2, 3)), requires_grad=True, backend=backend))


# ---- what a caller may do, and what is refused ----


def test_sigmoid_keeps_its_digits_on_the_left():
    x = np.array([-80.0, -20.0, -1.0])
    np.testing.assert_allclose(tl.sigmoid(tl.Tensor(x)).numpy(), 1 / (1 + np.exp(-x)), rtol=1e-12)


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
