"""Every kernel against the formula that it overrides; the library without kernels; the memory of kernels."""

import os
import subprocess
import sys
import tracemalloc
from contextlib import nullcontext

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.kernels import chosen, overridable
from tensorlib.kernels.numba import replaced
from tests import ROOT
from tests.conftest import backend_named, only_for_numpy, with_kernels
from tests.kernels.samples import SAMPLES

# These return also what the kernel keeps for its gradient; the formula keeps nothing.
KEEPING = {"attention_formula", "cross_attention_formula", "linear_cross_entropy_formula", "self_attention_formula"}


# ---- the comparison ----------------------------------------------------------------------------------------------


def arrays_in(value, backend):
    """Return all arrays in a result or a list of arguments, on the host, in order."""
    if isinstance(value, tuple | list):
        return [a for part in value for a in arrays_in(part, backend)]
    if isinstance(value, np.generic):
        return [np.asarray(value)]
    return [np.asarray(backend.to_numpy(value))] if hasattr(value, "dtype") else []


def run(function, arguments, backend, function_keeps=False):
    """Call a kernel or a formula on fresh arrays; return its results and its arguments after the call."""
    fresh = [copied(a, backend) for a in arguments]
    options = fresh.pop() if isinstance(fresh[-1], dict) else {}
    result = function(*fresh, **options)
    return arrays_in(result[0] if function_keeps else result, backend), arrays_in(fresh, backend)


def copied(value, backend):
    """Copy an array to the backend with its memory layout: broadcast and transposed views stay such views."""
    if isinstance(value, tuple):
        parts = [copied(part, backend) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, dict):
        return {name: copied(part, backend) for name, part in value.items()}
    if not isinstance(value, np.ndarray):
        return value
    if value.size and 0 in value.strides:
        core = value[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in value.strides)]
        return backend.xp.broadcast_to(backend.asarray(core), value.shape)
    return backend.asarray(value)


@pytest.mark.filterwarnings(
    "ignore:invalid value encountered in (matmul|subtract|multiply)"
)  # infinities are among the samples
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["numpy", "numba", "cupy"])
@pytest.mark.parametrize("name", sorted(overridable()))
def test_kernel_equals_formula(name, kind, dtype):
    assert name in SAMPLES, f"{name} may be overridden: give it samples in tests/kernels/samples.py"
    backend, formula = backend_named("numpy" if kind == "numba" else kind), overridable()[name]
    with only_for_numpy() if kind == "numpy" else nullcontext():
        compare(name, kind, backend, formula, dtype)


def compare(name, kind, backend, formula, dtype):
    kernel, plain = formula.dispatch(backend.xp.ndarray), formula.dispatch(object)
    if kernel is plain or (kind == "numba" and replaced(formula) is None):
        pytest.skip(f"{name} has no kernel for {kind}" if chosen() == "numba" else "no compiled kernels here")
    allowed = 2e-5 if dtype == "float32" else 1e-12
    for arguments in SAMPLES[name](np.random.default_rng(0), dtype):
        shapes = [a.shape for a in arguments if isinstance(a, np.ndarray)]
        expected, left = run(plain, arguments, backend, name in KEEPING)
        results, changed = run(kernel, arguments, backend, name in KEEPING)
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
    """The comparison itself fails for an error of half a percent, and for a changed input."""
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
        "import contextlib, sys, pytest\n"
        "from tensorlib.arrays.backend import get_backend\n"
        "from tensorlib.kernels import overridable\n"
        "with contextlib.suppress(RuntimeError):\n"
        "    get_backend('cupy')\n"  # registers its kernels, if there is a GPU
        "assert all(len(f.registry) == 1 for f in overridable().values())\n"
        "chosen = 'softmax or layer_norm or cross_entropy or attention or visible or check'\n"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'tests/ops/test_table.py', '-k', chosen]))\n"
    )
    environment = {**os.environ, "TENSORLIB_KERNELS": "0"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- memory ------------------------------------------------------------------------------------------------------


def peak_bytes(compute):
    """Return the peak of NumPy's memory during ``compute()`` on one thread."""
    with tl.threads(1):
        tracemalloc.start()
        try:
            compute()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@with_kernels
def test_attention_takes_memory_in_proportion_to_the_length():
    """Forward and backward, causal, with dropout and padding; a matrix of all weights would grow by a factor of 16."""

    def attention(length):
        q, k, v = (tl.Tensor(np.zeros((1, 2, length, 8), "float32"), requires_grad=True) for _ in range(3))
        visible = tl.Tensor(np.ones((1, 1, 1, length), bool))
        y = tl.scaled_dot_product_attention(q, k, v, visible, dropout=0.1, generator=tl.Generator(0), causal=True)
        y.sum().backward()

    short, long = (peak_bytes(lambda n=n: attention(n)) for n in (1024, 4096))
    assert long < 4 * short
    assert long < 4096 * 4096  # a byte for each of one head's weights


@with_kernels
@pytest.mark.parametrize("scale", [1, 0.5])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_logits_of_a_batch_never_exist_as_a_whole(reduction, scale):
    """Also if the loss is scaled, as in training: then its gradient is a NumPy scalar, not an array."""
    rows, width, classes = 2048, 16, 20_000
    x, weight = (tl.Tensor(np.zeros(s, "float32"), requires_grad=True) for s in ((rows, width), (width, classes)))
    options = {"targets": np.zeros(rows, int), "label_smoothing": 0.1, "reduction": reduction}
    peak = peak_bytes(lambda: (tl.linear_cross_entropy(x, weight, None, **options) * scale).backward())
    assert peak < rows * classes * 4 / 4  # a quarter of the logits
