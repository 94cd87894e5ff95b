"""Products in bf16: rounding, what is refused, and kernels against the formula, with a stand-in for oneDNN."""

import ctypes
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorlib as tl
from tensorlib.arrays.bf16 import rounded_to_bf16
from tensorlib.engine.recording import STATE, recording
from tensorlib.kernels import chosen, overridable, precision
from tensorlib.ops.attention import AttentionPattern
from tests.kernels.test_kernels import KEEPING, run

compiled_only = pytest.mark.skipif(chosen() != "numba", reason="no compiled kernels here")
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


# ---- rounding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "rounded"),
    [
        (1.0, 1.0),
        (1 + 2**-8, 1.0),  # halfway: to the even one
        (1 + 3 * 2**-8, 1 + 2**-6),
        (1 + 2**-8 + 2**-20, 1 + 2**-7),
        (-1 - 2**-8 - 2**-20, -1 - 2**-7),
        (3.4e38, np.inf),
        (-np.inf, -np.inf),
        (2.0**-149, 0.0),
        (2.0**-133, 2.0**-133),  # the smallest denormal of bf16
    ],
)
def test_numbers_are_rounded_to_the_nearest(given, rounded):
    assert rounded_to_bf16(np.array(given, np.float32)) == np.float32(rounded)


@given(st.floats(width=32))
def test_what_is_rounded_has_eight_bits_and_is_near(x):
    x = np.array([x], np.float32)
    y = rounded_to_bf16(x)
    if np.isnan(x):
        assert np.isnan(y)
        return
    assert not (y.view(np.uint32) & 0xFFFF)
    if np.isfinite(y):
        error, x64 = abs(float(y[0]) - float(x[0])), abs(float(x[0]))
        assert error <= max(x64 * 2**-8, 2.0**-134)


def test_other_dtypes_and_layouts():
    x = RNG.normal(size=(3, 4))
    assert rounded_to_bf16(x) is x
    y = normal(4, 6)
    np.testing.assert_array_equal(rounded_to_bf16(y.T[::2]), rounded_to_bf16(y).T[::2])
    assert rounded_to_bf16(np.empty((0, 3), np.float32)).shape == (0, 3)


@compiled_only
def test_compiled_rounding_is_that_of_the_formula():
    from tensorlib.kernels.numba.bf16 import round_rows

    x = RNG.integers(0, 2**32, (100, 1001), dtype=np.uint32).view(np.float32)
    y = np.empty(x.shape, np.uint16)
    round_rows(x, y)
    values = (y.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(values, rounded_to_bf16(x))  # a NaN equals a NaN
    assert np.isnan(x).any()


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bfloat16", "", None, 16])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=r"^precision: must be float32, tf32, bf16 or fp16, got "):
        tl.precision(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("fp32", "float32"), ("float16", "fp16"), ("TF32", "tf32"), ("bfloat16", "bf16"), ("torch.bfloat16", "bf16"),
        ("half", "fp16"), (np.float16, "fp16"), (np.dtype("float32"), "float32"), ("high", "tf32"), ("tf_32", "tf32"),
        ("Float32", "float32"),
    ],
)  # fmt: skip
def test_names_of_other_libraries_are_recognized(name, meant):
    with pytest.raises(ValueError, match=rf"^precision: must be .* got .*; did you mean '{meant}'\?$"):
        tl.precision(name)


@pytest.mark.parametrize("name", ["", None, 8, "int8", "float64", [], np.ones(2)])
def test_nothing_is_suggested_where_it_is_unclear_what_is_meant(name):
    with pytest.raises(ValueError, match=r"^precision: must be float32, tf32, bf16 or fp16, got [^;]*$"):
        tl.precision(name)


@pytest.mark.parametrize("name", ["tf32", "fp16"])
def test_a_cpu_refuses_what_it_does_not_multiply(name):
    with recording(precision=name):
        for multiply in (lambda x: x @ x.T, lambda x: tl.linear(x, x.T)):
            with pytest.raises(RuntimeError, match=rf"^product: precision {name} requires arrays on a GPU, .*use x.to"):
                multiply(tl.ones((2, 3)))
        assert (tl.ones((2, 3), "float64") @ tl.ones((3, 2), "float64")).shape == (2, 2)
    problem = precision.refusal(name, "numpy")
    assert str(problem) == f"precision: {name} requires a GPU, because CPUs do not multiply it; use float32 or bf16"


def test_what_only_the_gpu_has_is_accepted_where_one_answers(monkeypatch):
    gpu = SimpleNamespace(xp=SimpleNamespace(cuda=SimpleNamespace(Device=lambda: device)))
    device = SimpleNamespace(compute_capability="90")
    monkeypatch.setattr(precision, "get_backend", lambda name: gpu)
    with tl.precision("tf32"):
        assert STATE.get().precision == "tf32"
    device.compute_capability = "75"
    assert precision.refusal("fp16") is None
    with pytest.raises(RuntimeError, match=r"^precision: tf32 requires a GPU of compute capability 8.0, got 7.5; use"):
        tl.precision("tf32")


@pytest.fixture
def no_gpu(monkeypatch):
    def none_answers(name):
        raise RuntimeError("backend: 'cupy' needs a CUDA GPU, found 0; use 'numpy'")

    monkeypatch.setattr(precision, "get_backend", none_answers)


def test_without_a_gpu_the_reason_is_that_of_the_cpu(no_gpu):
    with pytest.raises(ValueError, match=r"^precision: fp16 requires a GPU, because CPUs do not multiply it"):
        tl.precision("fp16")
    assert str(precision.refusal("fp16", "cupy")).startswith("backend: 'cupy' needs a CUDA GPU, found 0")


def test_bf16_is_refused_where_something_is_missing(monkeypatch, no_gpu):
    monkeypatch.setattr(precision, "chosen", lambda: "numpy")
    with pytest.raises(RuntimeError, match=r"^precision: bf16 requires kernels compiled by Numba; .*install"):
        tl.precision("bf16")


@compiled_only
@pytest.mark.parametrize(
    ("instructions", "functions", "message"),
    [
        (False, None, "requires a processor with AVX512_BF16"),
        (True, None, "requires oneDNN; pip install"),
        (True, "wrong", "products of the installed oneDNN are wrong"),
    ],
)
def test_bf16_names_what_is_missing(monkeypatch, no_gpu, instructions, functions, message):
    from tensorlib.kernels import numba
    from tensorlib.kernels.numba import onednn

    monkeypatch.setattr(numba, "_REPLACED", {})  # as if no product in bf16 had been asked for
    wrong = functions and onednn.Functions(lambda *_: 0, None, None)  # it writes nothing
    monkeypatch.setattr(precision, "chosen", lambda: "numba")
    monkeypatch.setattr(onednn, "has_instructions", lambda: instructions)
    monkeypatch.setattr(onednn, "functions_of_onednn", lambda: wrong)
    with pytest.raises(RuntimeError, match=f"^precision: bf16 {message}"):
        tl.precision("bf16")


def test_float32_needs_nothing():
    x = tl.Tensor(normal(3, 4))
    with tl.precision("float32"):
        np.testing.assert_array_equal((x @ x.T).numpy(), (x @ x.T).numpy())


# ---- kernels against the formula ---------------------------------------------------------------------------------


HIDDEN = AttentionPattern(RNG.random((16, 1, 1, 20)) < 0.8, True, 0.1, 3, 5)
X, MEMORY, W, B, WO, BO = normal(16, 20, 32), normal(16, 24, 32), normal(32, 96), normal(96), normal(32, 32), normal(32)
W1, B1, W2, B2, WIDE = normal(32, 48), normal(48), normal(48, 32), normal(32), normal(16, 20, 48)
TARGETS = RNG.integers(0, 600, 320), RNG.random(320) < 0.9, 0.1
NEEDED = (True, True, True)


def samples():
    """Return names of formulas with arguments that are large enough for their kernels."""
    rows, weight, bias = normal(320, 32), normal(32, 600), normal(600)
    options = {"classes": TARGETS, "needs": NEEDED}
    yield "product", (normal(320, 130), normal(130, 110))
    yield "product", (normal(130, 320).T, normal(120, 130).T)
    yield "product", (normal(5, 64, 130), normal(130, 110))
    yield "linear_formula", (X, W, B)
    yield "linear_formula", (X, normal(96, 32).T)
    yield "linear_gradient", (normal(16, 20, 96), X, W, NEEDED)
    yield "linear_gradient", (normal(16, 20, 96), X, normal(96, 32).T, NEEDED)
    yield "linear_relu_formula", (X, W1, B1, 0.3, 1, 2)
    yield "feed_forward_formula", (X, W1, B1, W2, B2, 0.3, 1, 2)
    yield "feed_forward_gradient", (normal(16, 20, 32), X, W1, np.maximum(WIDE, 0), W2, 1.5, (True,) * 5)
    yield "self_attention_formula", (X, W, B, WO, BO, 4, HIDDEN)
    yield "cross_attention_formula", (X, MEMORY, W, B, WO, BO, 4, HIDDEN._replace(visible=None, causal=False))
    yield "linear_cross_entropy_formula", (rows, weight, bias, options)
    yield "linear_cross_entropy_formula", (rows, normal(600, 32).T, bias, options)


@contextmanager
def formula_of_product():
    """Let formulas round the operands of every product, also of small ones, as `product` says."""
    product = overridable()["product"]
    kernel = product.dispatch(np.ndarray)
    product.register(np.ndarray, product.dispatch(object))
    try:
        yield
    finally:
        product.register(np.ndarray, kernel)


@pytest.mark.parametrize(("name", "arguments"), [*samples()])
def test_kernels_compute_the_rounded_formula(name, arguments, stand_in):
    formula = overridable()[name]
    stand_in.shapes.clear()
    backend = tl.get_backend("numpy")
    with recording(precision="bf16"):
        with formula_of_product():
            expected, _ = run(formula.dispatch(object), arguments, backend, name in KEEPING)
        between = len(stand_in.shapes)
        results, _ = run(formula.dispatch(np.ndarray), arguments, backend, name in KEEPING)
    exact, _ = run(formula.dispatch(np.ndarray), arguments, backend, name in KEEPING)
    assert len(stand_in.shapes) > between  # the kernel has multiplied in bf16
    for r, e, f in zip(results, expected, exact, strict=True):
        scale = np.abs(e).max()
        np.testing.assert_allclose(r, e, rtol=0, atol=3e-3 * scale)  # rounding what is nearly halfway between two
        assert np.abs(r - e).mean() <= 0.2 * np.abs(f - e).mean() + 1e-6 * scale


@pytest.mark.parametrize("name", ["self", "cross"])
def test_gradients_of_attention(name, stand_in):
    def gradients(formulas):
        arrays = [tl.Tensor(a, requires_grad=True) for a in (X, MEMORY, W, B, WO, BO)]
        x, memory, *weights = arrays
        with recording(precision="bf16", formulas=formulas):
            y = tl.multi_head_attention(x, *weights, memory=memory if name == "cross" else None, heads=4)
        y.backward(tl.Tensor(np.ones(y.shape, np.float32)))
        return [y.numpy(), *[a.grad.numpy() for a in arrays if a.grad is not None]]

    for r, e in zip(gradients(False), gradients(True), strict=True):
        np.testing.assert_allclose(r, e, rtol=0, atol=5e-3 * np.abs(e).max())


def test_a_gradient_is_computed_in_the_precision_of_its_op(stand_in):
    x, w = tl.Tensor(normal(600, 128), requires_grad=True), tl.Tensor(normal(128, 100), requires_grad=True)
    dy = tl.Tensor(normal(600, 100))
    with recording(precision="bf16"):
        inside = x @ w
    stand_in.shapes.clear()
    inside.backward(dy)
    assert len(stand_in.shapes) >= 2
    rounded = x.grad.numpy()
    outside = x @ w
    x.grad = None
    stand_in.shapes.clear()
    with recording(precision="bf16"):
        outside.backward(dy)
    assert not stand_in.shapes
    assert 0 < np.abs(x.grad.numpy() - rounded).max() < 0.02 * np.abs(rounded).max()


def test_second_derivatives_and_checkpoints_keep_the_precision(stand_in):
    x, w = tl.Tensor(normal(600, 128), requires_grad=True), tl.Tensor(normal(128, 100), requires_grad=True)
    with recording(precision="bf16"):
        y = tl.checkpoint(lambda x: tl.tanh(x @ w), x)
        z = ((x @ w) ** 2).sum()
    stand_in.shapes.clear()
    y.sum().backward()
    assert len(stand_in.shapes) >= 3  # forward again, and two gradients
    (dx,) = tl.grad(z, [x], create_graph=True)
    stand_in.shapes.clear()
    (dx**2).sum().backward()
    assert stand_in.shapes


def test_onednns_openmp_is_limited_and_restored(stand_in):
    stand_in.limits.clear()
    with recording(precision="bf16"):
        tl.linear(X, W, B)
    assert stand_in.limits[:2] == [1, 7]
    assert stand_in.limits[::2] == [1] * (len(stand_in.limits) // 2)


def test_bits_are_the_same_on_any_number_of_threads(stand_in):
    def results(number):
        tl.seed(0)
        arrays = [tl.Tensor(a, requires_grad=True) for a in (X, W1, B1, W2, B2)]
        with tl.threads(number), recording(precision="bf16"):
            tl.feed_forward(*arrays, dropout=0.1).sum().backward()
        return [a.grad.numpy().tobytes() for a in arrays]

    assert results(1) == results(3)


@compiled_only
def test_the_convention_of_onednn_is_that_of_its_float32_product():
    """`dnnl_sgemm` has the same arguments, and runs on every processor."""
    from tensorlib.kernels.numba import onednn

    paths = onednn._paths()
    if not paths:
        pytest.skip("oneDNN is not installed")
    product = ctypes.cast(ctypes.CDLL(paths[0]).dnnl_sgemm, onednn._Product)
    x, y, z = normal(7, 5), normal(6, 7), np.ones((5, 6), np.float32)
    status = product(ord("T"), ord("T"), 5, 6, 7, 2.0, x.ctypes.data, 5, y.ctypes.data, 7, 1.0, z.ctypes.data, 6)
    assert status == 0
    np.testing.assert_allclose(z, 2 * x.T @ y.T + 1, rtol=1e-5)


def test_products_of_few_rows_are_exact(stand_in):
    x, w = tl.Tensor(normal(100, 300), requires_grad=True), tl.Tensor(normal(300, 400), requires_grad=True)
    results = []
    for name in ("float32", "bf16"):
        x.grad = w.grad = None
        with recording(precision=name):
            y, z = tl.linear(x, w), x @ w
        y.sum().backward()
        results.append([y.numpy(), z.numpy(), x.grad.numpy(), w.grad.numpy()])
    for exact, rounded in zip(*results, strict=True):
        np.testing.assert_array_equal(rounded, exact)
    assert not stand_in.shapes


def test_a_product_that_fails_is_nan(stand_in, monkeypatch):
    monkeypatch.setattr(stand_in, "status", 1)
    with recording(precision="bf16"):
        assert np.isnan(tl.linear(X, W, B).numpy()).all()


@compiled_only
def test_a_numba_that_cannot_be_imported_is_named(monkeypatch, no_gpu):
    from tensorlib.kernels import numba

    def fail():
        raise ImportError("Numba needs NumPy 2.3 or less")

    monkeypatch.setattr(numba, "_REPLACED", {})
    monkeypatch.setattr(numba, "_import_numba", fail)
    with pytest.raises(RuntimeError, match=r"bf16 requires Numba, which cannot be imported: Numba needs NumPy"):
        tl.precision("bf16")
