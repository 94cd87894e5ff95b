"""Every kernel against the formula that it overrides, and everything without kernels."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import backend_named

from tensorlib.kernels import overridable

SHAPES = [(2, 3), (1, 1), (5, 1), (1, 7), (0, 4), (3, 0, 4), (2, 3, 5), (33, 257), (4,), (2000, 300)]
inf = np.inf

# ---- samples: for each formula, lists of arguments ---------------------------------------------------------------


def normal(rng, shape, dtype):
    return (3 * rng.standard_normal(shape)).astype(dtype)


def softmax_formulas(rng, dtype):
    for shape in SHAPES:
        x = normal(rng, shape, dtype)
        for axis in {0, len(shape) - 1}:
            yield x, axis, None
        yield x, len(shape) - 1, rng.random(shape) < 0.5
        yield x, len(shape) - 1, rng.random(shape[-1:]) < 0.5
    x = normal(rng, (3, 4), dtype)
    yield x, 1, np.zeros((3, 1), bool)
    yield x, 0, np.array([[True], [False], [True]])
    yield np.array([[1e30, -1e30], [-inf, 0], [-inf, -inf]], dtype), 1, None
    yield np.array([[np.nan, 1, 2]], dtype), 1, np.array([False, True, True])
    yield normal(rng, (4, 3), dtype).T, 1, None
    yield np.broadcast_to(x[0], (3, 4)), 1, None
    yield np.arange(6).reshape(2, 3), 1, None


def softmax_gradients(rng, dtype):
    for shape in SHAPES:
        for axis in {0, len(shape) - 1}:
            yield normal(rng, shape, dtype), rng.random(shape).astype(dtype), axis
    yield np.broadcast_to(np.ones(1, dtype), (3, 4)), rng.random((4, 3)).astype(dtype).T, 1
    hidden = np.array([[0.25, 0, 0.75], [0, 1, 0]], dtype)
    yield np.array([[1, np.nan, 2], [inf, 3, -inf]], dtype), hidden, 1  # whatever comes to a hidden place is dropped


def layer_norm_formulas(rng, dtype):
    for shape in SHAPES:
        yield normal(rng, shape, dtype), normal(rng, shape[-1:], dtype), normal(rng, shape[-1:], dtype), 1e-5
    w = normal(rng, (3,), dtype)
    yield normal(rng, (3, 4), dtype).T, w, w, 0.1
    yield normal(rng, (4, 3), dtype), w.astype("float16"), w, 1e-5
    yield normal(rng, (4, 3), dtype), w.astype("float64"), w, 1e-5
    yield np.full((2, 3), 1e4, dtype) + normal(rng, (2, 3), dtype), w, w, 1e-5


def layer_norm_gradients(rng, dtype):
    for x, weight, _, eps in layer_norm_formulas(rng, dtype):
        mean = x.mean(-1, keepdims=True)
        rstd = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
        for needs in ((True, True, True), tuple(rng.random(3) < 0.5)):
            yield normal(rng, x.shape, x.dtype), x, weight, mean, rstd.astype(x.dtype), needs
        yield np.broadcast_to(np.ones(1, x.dtype), x.shape), x, weight, mean, rstd.astype(x.dtype), (True, True, True)


def cross_entropy_formulas(rng, dtype):
    for rows, classes in ((2, 3), (1, 1), (0, 4), (33, 257), (700, 500)):
        for smoothing in (0.0, 0.1):
            logits, targets = normal(rng, (rows, classes), dtype), rng.integers(0, classes, rows)
            yield logits, targets, rng.random(rows) < 0.7, smoothing
            yield logits, targets, np.zeros(rows, bool), smoothing
    yield np.array([[1e4, -1e4, 0], [-inf, 0, 1]], dtype), np.array([1, 2]), np.array([True, True]), 0.0
    junk = np.array([[-inf, -inf, -inf], [0, 1, 2], [inf, np.nan, 1e30]], dtype)  # where ignored, it is never looked at
    yield junk, np.array([0, 1, 0]), np.array([False, True, False]), 0.1
    yield normal(rng, (5, 3), dtype).T, np.array([0, 1, 4]), np.array([True, False, True]), 0.2
    yield normal(rng, (3, 5), dtype), np.array([0, 1, 4], "int32"), np.array([True, False, True]), 0.2


def cross_entropy_gradients(rng, dtype):
    for logits, targets, counted, smoothing in cross_entropy_formulas(rng, dtype):
        seen = np.where(counted[:, None], logits, 0)
        top = seen.max(-1, keepdims=True, initial=-1e9)
        lse = (np.log(np.exp(seen - top).sum(-1, keepdims=True)) + top).astype(dtype)
        yield normal(rng, (len(logits),), dtype), logits, lse, targets, counted, smoothing
        yield np.broadcast_to(np.ones(1, dtype), (len(logits),)), logits, lse, targets, counted, smoothing
        yield np.where(counted, 1, inf).astype(dtype), logits, lse, targets, counted, smoothing


def dropout_formulas(rng, dtype):
    for shape in [*SHAPES, ()]:
        yield normal(rng, shape, dtype), rng.random(shape) < 0.7, 1 / 0.7
    yield np.array([inf, -inf, np.nan, 1, 2], dtype), np.array([False, False, False, True, False]), 2.0
    yield np.array([inf, 3, np.nan, 1e30], dtype), np.array([True, False, True, False]), 1.5


def sgd_updates(rng, dtype):
    for shape in SHAPES:
        p, g, velocity = (normal(rng, shape, dtype) for _ in range(3))
        yield p, g, None, 0.1, 0.0, 0.0, False
        yield p, g, None, 0.1, 0.0, 0.01, False
        for nesterov in (False, True):
            yield p, g, velocity, 0.1, 0.9, 0.01, nesterov
    yield normal(rng, (3, 4), dtype).T, normal(rng, (4, 3), dtype), None, 0.1, 0.0, 0.0, False


def adam_updates(rng, dtype):
    common = {"lr": 0.01, "beta1": 0.9, "beta2": 0.98, "eps": 1e-9}
    for shape in SHAPES:
        p, g, m = (normal(rng, shape, dtype) for _ in range(3))
        v = rng.uniform(0.1, 1, shape).astype(dtype)
        for decay, decoupled, step in ((0.0, False, 1), (0.1, False, 7), (0.1, True, 1000)):
            yield p, g, m, v, {**common, "step": step, "weight_decay": decay, "decoupled": decoupled}
    p, g, m = (normal(rng, (4, 3), dtype).T for _ in range(3))
    yield p, g, m, np.ones((3, 4), dtype), {**common, "step": 2, "weight_decay": 0.0, "decoupled": True}


SAMPLES = {
    "softmax_formula": softmax_formulas,
    "softmax_gradient": softmax_gradients,
    "layer_norm_formula": layer_norm_formulas,
    "layer_norm_gradient": layer_norm_gradients,
    "cross_entropy_formula": cross_entropy_formulas,
    "cross_entropy_gradient": cross_entropy_gradients,
    "dropout_formula": dropout_formulas,
    "sgd_update": sgd_updates,
    "adam_update": adam_updates,
}


# ---- the comparison ----------------------------------------------------------------------------------------------


def arrays_in(value, backend):
    """Return all arrays in a result or a list of arguments, on the host, in order."""
    if isinstance(value, tuple | list):
        return [a for part in value for a in arrays_in(part, backend)]
    if isinstance(value, np.generic):
        return [np.asarray(value)]
    return [np.asarray(backend.to_numpy(value))] if hasattr(value, "dtype") else []


def run(function, arguments, backend):
    """Call a kernel or a formula on fresh arrays; return its results and what became of its arguments."""
    fresh = [copied(a, backend) for a in arguments]
    options = fresh.pop() if isinstance(fresh[-1], dict) else {}
    result = function(*fresh, **options)
    return arrays_in(result, backend), arrays_in(fresh, backend)


def copied(value, backend):
    """Copy an array to the backend with its memory layout: broadcast views stay such, transposed ones too."""
    if not isinstance(value, np.ndarray):
        return value
    if value.size and 0 in value.strides:
        core = value[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in value.strides)]
        return backend.xp.broadcast_to(backend.asarray(core), value.shape)
    return backend.asarray(value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["numpy", "cupy"])
@pytest.mark.parametrize("name", sorted(overridable()))
def test_kernel_equals_formula(name, kind, dtype):
    assert name in SAMPLES, f"{name} may be overridden: give it samples in this file"
    backend, formula = backend_named(kind), overridable()[name]
    kernel, plain = formula.dispatch(backend.xp.ndarray), formula.dispatch(object)
    if kernel is plain:
        pytest.skip(f"{name} has no kernel on {kind}")
    allowed = 2e-5 if dtype == "float32" else 1e-12
    for arguments in SAMPLES[name](np.random.default_rng(0), dtype):
        shapes = [a.shape for a in arguments if isinstance(a, np.ndarray)]
        expected, left = run(plain, arguments, backend)
        results, changed = run(kernel, arguments, backend)
        assert len(results) == len(expected), f"{name}{shapes}: results that are None differ"
        for number, (r, e) in enumerate(zip([*results, *changed], [*expected, *left], strict=True)):
            where = f"{name}{shapes}: array {number}"
            assert (r.shape, r.dtype) == (e.shape, e.dtype), where
            tolerance = 2e-3 if r.dtype == "float16" else allowed
            scale = np.abs(e[np.isfinite(e)]).max(initial=1e-3)
            np.testing.assert_allclose(r, e, rtol=0, atol=tolerance * scale, err_msg=where)


def test_every_sample_belongs_to_a_formula():
    assert set(SAMPLES) <= set(overridable())


def test_a_wrong_kernel_is_noticed(monkeypatch):
    """The comparison itself is tested: half a percent is too much, and so is a changed input."""
    formula = overridable()["softmax_gradient"]
    right = formula.registry[object]

    def scaled(dy, y, axis):
        return right(dy, y, axis) * dy.dtype.type(1.005)

    def destructive(dy, y, axis):
        result = right(dy, y, axis)
        y *= 2
        return result

    for wrong in (scaled, destructive):
        monkeypatch.setattr(formula, "dispatch", lambda kind, wrong=wrong: right if kind is object else wrong)
        with pytest.raises(AssertionError, match="softmax_gradient"):
            test_kernel_equals_formula("softmax_gradient", "numpy", "float32")


def test_without_kernels_everything_still_passes():
    code = (
        "import sys, pytest\n"
        "from tensorlib.kernels import overridable\n"
        "assert all(len(f.registry) == 1 for f in overridable().values())\n"
        "chosen = 'softmax or layer_norm or cross_entropy or attention or visible or check'\n"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'tests/test_ops.py', '-k', chosen]))\n"
    )
    root = Path(__file__).parents[1]
    environment = {**os.environ, "TENSORLIB_KERNELS": "0"}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
