"""debug: the first NaN or Inf is reported at the op that computes it, and an error in a backward names its op."""

import gc
import subprocess
import sys
import threading
import tracemalloc
import warnings
import weakref

import numpy as np
import pytest

import nn
import tensorlib as tl
from models import Transformer, TransformerConfig
from tensorlib.engine.recording import STATE


def leaf(values, backend="numpy", **options):
    return tl.Tensor(values, requires_grad=True, backend=backend, **options)


def report(f, *arguments):
    """Run f within debug; return the message, and the line of this file that it must name."""
    with pytest.raises(FloatingPointError) as caught, tl.debug():
        f(*arguments)
    line = [entry for entry in caught.traceback if entry.path.name == "test_debug.py"][-1].lineno + 1
    message = str(caught.value)
    assert "\n" not in message
    return message, f"test_debug.py:{line}"


# ---- forward ----------------------------------------------------------------------------------------------------


def test_a_report_has_op_module_line_shapes_ranges_and_a_remedy(backend):
    def decode(x):
        with tl.module_scope("decoder.layers.1.cross_attention"):
            return tl.log(x)

    message, line = report(decode, leaf([[0.0, 1.0, 2.0]], backend))
    assert message.startswith("log: the output must be finite, got 1 -Inf in 3 elements; called at ")
    for part in (
        f"{line}, in module decoder.layers.1.cross_attention",
        "input 0 is (1, 3) float32 in [0, 2]",
        "log(0) is -Inf: keep x above 0, as in tl.log(x + 1e-6)",
    ):
        assert part in message


X = np.array([-1.0, 0.0, 2.0], "float32")

REMEDIES = [
    (lambda x: tl.log(x), "the logarithm of a negative number is NaN"),
    (lambda x: tl.sqrt(x), "the square root of a negative number is NaN"),
    (lambda x: x / 0.0, "input 1 is the number 0; division by 0"),
    (lambda x: 1.0 / x, "division by 0"),
    (lambda x: tl.exp(x * 100.0), "exp overflows above 88.7 in float32"),
    (lambda x: x**0.5, "a negative number to a fractional power is NaN"),
    (lambda x: x**-1.0, "0 to a negative power is Inf"),
    (lambda x: tl.rsqrt(x + 1.0), "division by 0: add a small number"),
    (lambda x: (x.astype("float16") * 60000.0) * 2.0, "the largest float16 is 65504"),
    (lambda x: (x * 1e30) * 1e30, "float32 overflows"),
    (lambda x: x * np.float32("inf"), r"0 · Inf is NaN"),
    (lambda x: tl.Tensor(np.full(3, np.inf), backend=x.backend) - np.inf, "Inf - Inf is NaN"),
    (lambda x: tl.mean(x[:0]), "input 1 is NaN already; the mean or variance of zero elements is NaN"),
    (
        lambda x: tl.softmax(tl.masked_fill(x, x < 9, np.inf)),
        "softmax is undefined for +Inf and for a row of only -Inf",
    ),
]


@pytest.mark.parametrize(("f", "remedy"), REMEDIES, ids=[remedy for _, remedy in REMEDIES])
def test_remedies(f, remedy, backend):
    message, line = report(f, leaf(X, backend))
    assert remedy in message and line in message


def test_a_nan_in_an_input_is_named_with_that_input(backend):
    data = tl.Tensor([[np.nan] * 3, [1.0] * 3], backend=backend)
    weight = leaf(np.ones((3, 2), "float32"), backend)
    weight.name = "output.weight"
    message, _ = report(lambda: data @ weight)
    assert "input 0 is (2, 3) float32 in [1, 1], 3 NaN; input 1 (output.weight) is (3, 2) float32 in [1, 1]" in message
    assert "input 0 already holds 3 NaN in 6 elements" in message


def test_an_infinity_in_an_input_passes(backend):
    x = leaf([[1.0, 2.0], [3.0, 4.0]], backend)
    hidden = tl.Tensor([[False, True], [False, False]], backend=backend)
    with tl.debug():
        tl.softmax(tl.masked_fill(x, hidden, -np.inf)).sum().backward()
        tl.softmax(tl.where(hidden, -np.inf, x)).sum()
        (x + tl.Tensor([[0.0, -np.inf]], backend=backend)).max()
        tl.where(tl.isfinite(tl.Tensor([np.nan, 1.0], backend=backend)), 1.0, 0.0)  # a test for NaN is not a NaN
    assert np.isfinite(x.grad.numpy()).all()


def test_an_op_that_is_not_recorded_is_checked_too(backend):
    x = tl.Tensor([0.0], backend=backend)
    assert "log: the output" in report(lambda: tl.log(x))[0]
    with tl.no_grad():
        assert "log: the output" in report(lambda: tl.log(leaf([0.0], backend)))[0]


def test_one_of_several_outputs():
    x = leaf([1.0, np.nan])
    assert "split: output 1 must be finite, got 1 NaN in 1 element;" in report(lambda: tl.split(x, 2))[0]


# ---- backward ---------------------------------------------------------------------------------------------------


def test_an_infinite_gradient_is_found_at_the_op_that_computes_it(backend):
    def root(x):
        with tl.module_scope("norm"):
            return tl.sqrt(x)

    x = leaf([0.0, 4.0], backend)
    x.name = "scale"
    with tl.debug():
        loss = (root(x) * 3.0).sum()
    message, _ = report(loss.backward)
    start = "sqrt: backward: the gradient of input 0 (scale) must be finite, got 1 Inf in 2 elements; called at "
    assert message.startswith(start) and "test_debug.py:" in message and ", in module norm; " in message
    for part in ("dy is (2,) float32 in [3, 3]", "the output was (2,) float32 in [0, 2]", "tl.sqrt(x + 1e-12)"):
        assert part in message
    assert x.grad is None  # nothing was written


@pytest.mark.parametrize("create_graph", [False, True])
def test_the_slope_behind_a_where(create_graph, backend):
    x = leaf([0.0, 4.0], backend)
    with tl.debug():
        loss = tl.where(x > 0, tl.sqrt(x), 0.0).sum()
    message, _ = report(lambda: tl.grad(loss, [x], create_graph=create_graph))
    assert message.startswith("sqrt: backward: the gradient of input 0 must be finite, got 1 NaN in 2 elements")
    assert "0 · Inf is NaN: a tl.where after sqrt hides the value" in message


def test_a_gradient_of_a_gradient(backend):
    x = leaf([0.0], backend, dtype="float64")
    with tl.debug():
        (first,) = tl.grad((x**1.5).sum(), [x], create_graph=True)  # 1.5 x^0.5, of slope Inf at 0
    message, _ = report(lambda: tl.grad(first.sum(), [x]))
    assert message.startswith("power: backward: ") and "the slope of x^y at 0 is infinite for y < 1" in message


def test_an_incoming_gradient_that_is_not_finite_is_not_the_ops_fault(backend):
    x = leaf([1.0, 2.0], backend)
    with tl.debug():
        y = x * 2.0
    message, _ = report(lambda: y.backward([1.0, np.nan]))
    assert "multiply: backward" in message and "check the gradient given to backward()" in message


def test_a_gradient_that_is_not_finite_only_at_the_leaf(backend):
    x = leaf([0.1], backend)
    x.name = "bias"
    message, _ = report(lambda: (x * 3e38 + x * 3e38).sum().backward())
    assert message.startswith("backward: the gradient of bias of shape (1,) must be finite, got 1 Inf in 1 element; ")
    with x.register_hook(lambda dx: dx * np.inf):
        message, _ = report(lambda: (x * 2.0).sum().backward())
    assert "their sum overflows, or a hook changed it" in message and x.grad is None


def test_inside_checkpoint(backend):
    x = leaf([0.0, 4.0], backend)
    with tl.debug():
        loss = tl.checkpoint(lambda x: tl.sqrt(x) + 1.0, x).sum()
    message, _ = report(loss.backward)
    assert "sqrt: backward" in message and "test_debug.py" in message
    assert "log: the output" in report(lambda: tl.checkpoint(tl.log, x))[0]


def test_in_the_transformer_with_the_path_of_its_module():
    tl.seed(0)
    size = {"source_vocabulary": 11, "target_vocabulary": 11, "layers": 2, "width": 8, "heads": 2, "feed_forward": 8}
    model = Transformer(TransformerConfig(**size))
    weight = model.decoder.layers[1].cross_attention.output.weight
    broken = weight.numpy().copy()
    broken[0, 0] = np.nan
    weight.replace(broken)
    ids = np.full((2, 3), 5)
    with pytest.raises(FloatingPointError) as caught, tl.debug():
        model(ids, ids)
    message = str(caught.value)
    assert (
        "in module decoder.layers.1.cross_attention.output; " in message
        and "models/architectures/transformer.py:" in message
    )
    assert "(decoder.layers.1.cross_attention.output.weight) is (8, 8)" in message
    assert "input 1 already holds 1 NaN in 64 elements" in message


# ---- errors in backward, and lines ------------------------------------------------------------------------------


class Wrong(tl.Function):
    mistake = staticmethod(lambda dy: 1 // 0)

    def forward(self, x):
        return x + 1

    def backward(self, dy):
        return self.mistake(dy)


MISTAKES = [
    (lambda dy: 1 // 0, ZeroDivisionError, "wrong: backward failed: ZeroDivisionError"),
    (lambda dy: (dy, dy), RuntimeError, "wrong: backward must return 1 gradients, got 2"),
    (lambda dy: dy[:1], RuntimeError, r"wrong: gradient for input 0 must have the input's shape \(2,\), got \(1,\)"),
    (lambda dy: 3.0, TypeError, "wrong: backward must return arrays, got float for input 0"),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES, ids=[m for _, _, m in MISTAKES])
def test_an_error_in_a_backward_names_the_op_and_where_it_was_called(mistake, error, message, monkeypatch):
    monkeypatch.setattr(Wrong, "mistake", staticmethod(mistake))
    x = leaf([1.0, 2.0])
    with tl.module_scope("encoder"):
        y = Wrong.apply(x).sum()
    hint = "in module encoder; run the forward pass within tl.debug"
    with pytest.raises(error, match=rf"{message}.*; the op is {hint}"):
        y.backward()
    with tl.debug():
        y = Wrong.apply(x).sum()
    with pytest.raises(error, match=rf"{message}.*; the op is outside any module; recorded at .*test_debug.py:\d+$"):
        y.backward()  # debug need not be on


class Doubling(nn.Module):
    def forward(self, x):
        return tl.checkpoint(lambda x: x * 2, x)


def test_the_line_is_the_users_whatever_is_in_between():
    x = leaf([1.0, 2.0])
    with tl.debug():
        assert "test_debug.py" in Doubling()(x).node.source  # in a user's module, called by nn and checkpoint
        assert "test_debug.py" in nn.Linear(2, 2)(x).node.source  # for nn's modules, the line that called them
        assert "test_debug.py" in tl.vjp(tl.tanh, x, [1.0, 1.0], create_graph=True)[0].node.source
        (slope,) = tl.grad(tl.softmax(x)[0], [x], create_graph=True)  # its formula is called through functools
        assert all("test_debug.py" in node.source for node in tl.graph(slope))


def test_a_package_whose_name_begins_as_ours_does_is_the_users(tmp_path):
    package = tmp_path / "nn_experiments"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "run.py").write_text("import tensorlib as tl\n\n\ndef run(x):\n    return tl.log(x)\n")
    code = (
        "import nn_experiments.run, tensorlib as tl\nwith tl.debug():\n    nn_experiments.run.run(tl.Tensor([0.0]))\n"
    )
    where = [path for path in sys.path if path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {[str(tmp_path), *where]!r}\n{code}"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert "called at nn_experiments/run.py:5;" in done.stderr  # and from the current directory


# ---- the block itself -------------------------------------------------------------------------------------------


def test_off_outside_the_block_and_restored_after_an_error():
    before, numpy_before = STATE.get(), np.geterr()
    with pytest.raises(KeyError), tl.debug():
        raise KeyError
    with pytest.raises(FloatingPointError), tl.debug():
        tl.log(tl.Tensor([0.0]))
    assert STATE.get() is before or STATE.get() == before
    assert np.geterr() == numpy_before
    with np.errstate(divide="ignore"):
        assert tl.log(leaf([0.0])).node.source is None


def test_as_a_decorator_and_nested():
    @tl.debug()
    def run(x):
        return tl.log(x)

    for _ in range(2):
        with pytest.raises(FloatingPointError):
            run(leaf([0.0]))
    with tl.debug():
        with tl.debug():
            pass
        with pytest.raises(FloatingPointError):
            tl.log(leaf([0.0]))


def test_numpy_does_not_warn_in_addition():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "exp overflows" in report(tl.exp, leaf([1000.0]))[0]
        assert "Inf" in report(lambda: tl.sqrt(leaf([0.0])).sum().backward())[0]


def test_other_threads_are_not_disturbed():
    found = []

    def elsewhere():
        with np.errstate(divide="ignore"):
            found.append(tl.log(leaf([0.0])).item())

    with tl.debug():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert found == [-np.inf]


def test_values_and_gradients_are_what_they_are_without():
    x = leaf(np.linspace(-2, 2, 12).reshape(3, 4))

    def run():
        (dx,) = tl.grad((tl.softmax(tl.tanh(x) @ x.T) ** 2.0).sum(), [x])
        return dx.numpy()

    plain = run()
    with tl.debug():
        np.testing.assert_array_equal(run(), plain)


def test_no_memory_grows_and_no_cycle_remains():
    w, x = leaf(np.ones((64, 64), "float32")), tl.Tensor(np.ones((64, 64), "float32"))

    def step():
        with tl.debug():
            h = tl.tanh(x @ w)
            mask = h > 0.5
            cut = tl.where(mask, h.detach(), 0.0) * w
            loss = cut.sum() + h.sum()
            loss.backward()
        tl.explain(w, (x @ w).sum())
        w.grad = None
        return weakref.ref(h), weakref.ref(loss.node), weakref.ref(mask.cut.origins[0][0])

    gc.disable()
    tracemalloc.start()
    try:
        step()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(50):
            references = step()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert all(reference() is None for reference in references)
    assert after - before < 100_000  # one array per step would be 819,200; Python's free lists fill


def test_a_mask_that_outlives_the_block_holds_nothing():
    x = leaf([1.0, 2.0])
    with tl.debug():
        h = x * 2.0
        mask = h > 3.0
        node, array = weakref.ref(h.node), mask.data
    gc.disable()
    try:
        del h, mask
        assert node() is None and array[1]
    finally:
        gc.enable()


def test_no_cut_is_noted_outside():
    x = leaf([1.0, 2.0])
    with tl.debug():
        constant = x.detach()
    assert constant.cut is not None
    y = (constant * 2.0) * x
    assert not hasattr(constant * 2.0, "cut") and y.node.cuts == () and not hasattr(x.detach(), "cut")


SECOND = {"norm": tl.norm, "std": tl.std, "arctan2": lambda x: tl.arctan2(x, x).sum()}


@pytest.mark.parametrize("name", SECOND)
def test_a_second_derivative_at_a_kink_is_explained(name):
    x = tl.Tensor([0.0, 0.0], requires_grad=True)
    with tl.debug():
        (dx,) = tl.grad(SECOND[name](x), [x], create_graph=True)
        with pytest.raises(
            FloatingPointError, match=r"called at .*test_debug\.py:\d+; .*; norm, std and arct"
        ) as caught:
            tl.grad(dx.sum(), [x])
    assert str(caught.value).endswith("as in tl.sqrt((x * x).sum() + 1e-12) in place of tl.norm(x)")
