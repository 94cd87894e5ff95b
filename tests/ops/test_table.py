"""Every op of the table on every backend: values, gradients of both orders, dtypes, memory."""

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.optable import ROWS, function_names
from tensorlib.optable.check import LAYOUTS, check, check_sample
from tensorlib.transforms.gradcheck import gradcheck

ALL = [pytest.param(row, id=row.name) for row in ROWS]
DIFFERENTIABLE = [pytest.param(row, id=row.name) for row in ROWS if row.differentiable]


def outputs(ys):
    return list(ys) if isinstance(ys, tuple | list) else [ys]


def tensors(arrays, backend, layout=None):
    xs = [tl.Tensor(a, requires_grad=a.dtype.kind == "f", backend=backend) for a in arrays]
    for x in xs:
        if layout is not None:
            x.replace(layout(x.data, backend.xp), copy=False)
    return xs


def differentiable_outputs(row, sample, xs, backend):
    return [y for y in outputs(row.bound(sample, backend)(*xs)) if y.requires_grad]


def cotangents_for(ys):
    rng = np.random.default_rng(1)
    return [rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1, 1], y.shape) for y in ys]


def gradients(row, sample, arrays, backend, layout=None):
    """Return the gradient of each input, for random cotangents in the given memory layout."""
    xs = tensors(arrays, backend)
    ys = differentiable_outputs(row, sample, xs, backend)
    cs = tensors([c.astype(y.dtype) for c, y in zip(cotangents_for(ys), ys, strict=True)], backend, layout)
    return tl.grad(ys, xs, cs)


def close(x, expected, message):
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-12, atol=1e-12, err_msg=message)


# ---- the table ---------------------------------------------------------------------------------------------------


def test_every_public_function_has_a_row_and_every_row_a_function():
    assert sorted(row.name for row in ROWS) == function_names()


def test_rows_have_enough_samples():
    assert sum(len(row.samples) for row in ROWS) >= 5 * len(ROWS)
    for row in ROWS:
        assert len(row.samples) >= 4, row.name


@pytest.mark.parametrize("row", [p for p in ALL if p.values[0].reference])
def test_value(row, backend):
    """In every memory layout of the inputs, which are left unchanged."""
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
    """To second order, against finite differences; on NumPy for all samples and with inputs in every layout."""
    if backend.name == "numpy":
        for sample in row.samples:
            check_sample(row, sample, backend)
    else:
        for sample in row.samples[:3]:
            gradcheck(row.bound(sample, backend), *row.arrays(sample), name=row.name, backend=backend)


@pytest.mark.parametrize("row", DIFFERENTIABLE)
def test_gradient_that_arrives_in_another_layout(row, backend):
    """Including a broadcast view, such as the gradient of a sum."""
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
    """The result stays float32 with Python scalars, and its gradient is that of float64 up to rounding."""
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
def test_two_runs_give_the_same_bits(row, backend):
    if backend.name == "cupy":
        pytest.skip("add.at on CuPy adds in the order in which threads arrive")
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
    """An input gets the same gradient whether or not the others require one."""
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

    from tensorlib.ops.trigonometric import Tanh

    monkeypatch.setattr(Tanh, "backward", lambda self, dy: dy * (1 + self.saved[0] * self.saved[0]))
    (report,) = check(["tanh"])
    assert "tanh: first order: gradient of input 0 (x) at element ()" in report.failure
    monkeypatch.setattr(Tanh, "backward", lambda self, dy: dy.nonsense)
    (report,) = check(["tanh"])
    assert report.failure.startswith("tanh: AttributeError") and report.failure.endswith("at tanh(())")
    with pytest.raises(ValueError, match=r"no differentiable op is called cosin; known: .*add, subtract, "):
        check(["cosin"])
