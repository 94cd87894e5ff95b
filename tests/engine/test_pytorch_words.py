"""What the messages for PyTorch's names recommend exists, runs, and computes what PyTorch computes."""

import ast
import re

import numpy as np
import pytest

import models
import nn
import tensorlib as tl
from nn import attributes, optim
from tensorlib import pytorch_words as words

TABLES = {
    "methods": words.TENSOR_NAMES, "functions": words.FUNCTION_NAMES, "layers": nn._PYTORCH_NAMES,
    "modules": attributes._PYTORCH_NAMES, "optimizers": optim._PYTORCH_NAMES, "init": nn.init._PYTORCH_NAMES,
    "functional": nn.functional._OTHER_ARGUMENTS,
}  # fmt: skip
OWNERS = {"tl": tl, "nn": nn, "optim": optim, "init": nn.init, "numpy": np, "np": np, "models": models, "x": tl.Tensor}

X, Y, Z = (np.array(values) for values in ([[0.5, -0.75], [2.5, 0.25]], [[2.0, 1.0], [-0.5, 0.75]], [[1.5, 2], [3, 4]]))
IMAGE = np.arange(48.0).reshape(2, 2, 3, 4) ** 2
OPERANDS = {  # what the names in the expressions stand for
    "x": X, "y": Y, "z": Z, "w": X, "data": X, "logits": X, "log_probs": -Z, "xs": [X, Y], "q": X, "k": X, "v": X,
    "mask": X > 0, "condition": X > 0, "targets": np.sign(Y), "indices": np.array([[0, 1], [1, 0]]),
    "ids": np.array([0, 1]),
    "boundaries": np.array([0.0, 1.0]), "weight": 0.25, "low": 0.1, "high": 2.5, "value": 0.5, "threshold": 0.1,
    "margin": 0.5,
    "axis": 1, "axis1": 0, "axis2": 1, "axes": (1, 0), "source": 0, "destination": 1, "shape": (2, 2),
    "dtype": "float64",
    "start": 0, "length": 1, "stop": 1, "num": 3, "i": 1, "n": 2, "parts": 2, "repeats": 2, "ends": [1], "groups": 1,
    "bins": 3, "number": 1, "seed": 0, "std": 1.0, "p": 0.5, "formula": "ij,jk", "path": "", "pad_width": 1,
    "bias": None,
}  # fmt: skip
OTHERS = {  # where an expression needs others
    "interpolate": {"x": IMAGE}, "bilinear": {"weight": np.ones((2, 3, 2))}, "Bilinear": {"weight": np.ones((2, 3, 2))},
    "atleast_1d": {"x": np.array(1.0)}, "mv": {"y": Y[0]}, "addmv": {"x": X[0], "z": Z[0]},
    "vdot": {"x": X[0], "y": Y[0]}, "ger": {"x": X[0], "y": Y[0]}, "nan_to_num": {"x": np.array([np.nan, 1.0])},
    "nansum": {"x": np.array([np.nan, 1.0])},
    "logit": {"x": X / 10 + 0.2}, "arctanh": {"x": X / 10}, "atanh": {"x": X / 10}, "arccosh": {"x": Z},
    "acosh": {"x": Z},
    "xlogy": {"y": Z}, "kthvalue": {"k": 2}, "quantile": {"q": 0.5}, "bernoulli": {"x": np.abs(X) / 3},
    "group_norm": {"x": IMAGE, "groups": 2}, "instance_norm": {"x": IMAGE}, "adaptive_avg_pool2d": {"x": IMAGE},
    "adaptive_max_pool2d": {"x": IMAGE}, "adaptive_avg_pool1d": {"x": IMAGE[0]},
    "baddbmm": dict.fromkeys("xyz", IMAGE[0, :, :2, :2]),
    "bitwise_not": {"x": X > 0}, "embedding_bag": {"weight": X}, "embedding": {"weight": X}, "linear": {"weight": Y},
    "layer_norm": {"weight": X[0]}, "cross_entropy": {"targets": np.array([0, 1])},
    "NLLLoss": {"targets": np.array([0, 1])},
    "KLDivLoss": {"p": X @ X.T}, "acos": {"x": X / 4}, "asin": {"x": X / 4}, "logdet": {"x": X @ X.T},
    "cholesky": {"x": X @ X.T}, "cross": {"x": IMAGE[0, 0, :2, :3], "y": IMAGE[1, 1, :2, :3]},
}  # fmt: skip
OTHERS |= {name: {"x": IMAGE} for name in words.LAYER_NAMES if words.LAYER_NAMES[name] in OTHERS}


def expression_in(text):
    """Return the expression that a recommendation begins with; "" for a name alone, and for prose."""
    code = re.split(r",? (?:which|or|for|in|with|over|only|whose|and|of|on) |;|: ", text)[0]
    try:
        tree = ast.parse(code, mode="eval")
    except SyntaxError:
        return ""
    computed = isinstance(tree.body, ast.Call | ast.BinOp | ast.Subscript | ast.Compare | ast.UnaryOp)
    return code if computed and "..." not in code.replace("'...", "").replace("[...", "").replace("->...", "") else ""


def value_of(text, names):
    """Return what a recommended expression computes; what follows it may define a name, as in ``..., with s = ...``."""
    if definition := re.search(r", with (\w+) = (.*), where", text):
        names = names | {definition[1]: eval(definition[2], names)}
    return eval(expression_in(text) or text, names)


def operands_for(name, library):
    """Return the values of the names in an expression, arrays as Tensors of a library."""
    given = OPERANDS | OTHERS.get(name, {})
    made = {n: library(v.copy()) if isinstance(v, np.ndarray) else v for n, v in given.items()}
    return made | {"xs": [library(one.copy()) for one in given["xs"]]}


@pytest.mark.parametrize("table", TABLES)
def test_names_that_are_recommended_exist(table):
    for text in TABLES[table].values():
        for owner, path in re.findall(r"(?<![\w.])(tl|nn|optim|init|numpy|np|models|x)((?:\.[A-Za-z_]\w*)+)", text):
            value = OWNERS[owner]
            for name in path[1:].split("."):
                assert hasattr(value, name), text
                value = None if owner == "x" else getattr(value, name)
                if value is None:
                    break


class Part(nn.Module):
    def __init__(self):
        self.weight, self.mean = nn.Parameter(np.ones((2, 3), np.float32)), nn.Buffer(np.ones(2, np.float32))


PATHS = {"get_submodule": "", "get_parameter": "weight", "get_buffer": "mean"}


@pytest.mark.parametrize("table", TABLES)
def test_expressions_that_are_recommended_run(table):
    ran, failed = 0, []
    for name, text in TABLES[table].items():
        code = expression_in(text)
        if not code or "cupy" in code:
            continue
        names = OWNERS | operands_for(name, tl.Tensor)
        names |= {"f": tl.exp, "function": len, "model": Part(), "layer": Part(), "path": PATHS.get(name, "")}
        if name == "grad_fn":
            names["x"] = tl.Tensor(X, requires_grad=True) * 2
        try:
            value_of(text, names)
            ran += 1
        except Exception as error:
            failed.append(f"{name}: {code}: {error!r}")
    assert not failed, "\n".join(failed)
    assert ran >= {"methods": 120, "functions": 120, "layers": 30, "modules": 9, "init": 5, "functional": 5}.get(
        table, 0
    )


ARGUMENTS = {  # of PyTorch's functions, where they are not the operands in the order of the expression
    "lerp": "x y weight", "softmin": "x axis", "threshold": "x threshold value", "prelu": "x parameter",
    "diag_embed": "x", "group_norm": "x groups", "instance_norm": "x", "margin_ranking_loss": "x y targets margin",
    "adaptive_avg_pool1d": "x one", "adaptive_avg_pool2d": "x one", "adaptive_max_pool2d": "x one",
    "narrow": "x zero start length",
    "select": "x zero i", "clamp_min": "x low", "clamp_max": "x high",
}  # fmt: skip
NO_FUNCTION = {"expand", "expand_as", "detach", "unflatten", "rand_like", "randn_like"}  # methods, and random numbers
HOST = ("inverse", "pinverse", "det", "slogdet", "logdet", "cholesky", "cov", "corrcoef", "cross", "kron", "quantile",
        "matrix_power", "isin", "unique", "bincount")  # fmt: skip
ONE_EXPRESSION = {**words.EXPRESSIONS, **words.ACTIVATIONS, **words.LAYER_EXPRESSIONS}
ONE_EXPRESSION |= {name: words.FUNCTION_NAMES[name] for name in HOST}


def place_of(name, code):
    return re.search(rf"\b{name}\b", code).start()


@pytest.mark.peers
@pytest.mark.parametrize("name", sorted(ONE_EXPRESSION.keys() - NO_FUNCTION))
def test_expressions_compute_what_pytorch_computes(name):
    torch = pytest.importorskip("torch")
    function = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    text = ONE_EXPRESSION[name]
    code = expression_in(text) or text
    names = [n.id for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Name) and n.id in OPERANDS]
    order = ARGUMENTS[name].split() if name in ARGUMENTS else sorted(set(names), key=lambda n: place_of(n, code))
    given = operands_for(name, torch.tensor) | {"one": 1, "zero": 0, "parameter": torch.tensor([0.25]).double()}
    theirs, ours = (
        function(*[given[n] for n in order]),
        value_of(text, OWNERS | operands_for(name, tl.Tensor)),
    )
    if name == "kthvalue":
        theirs = theirs.values
    for a, b in zip(*[y if isinstance(y, tuple) else (y,) for y in (theirs, ours)], strict=True):
        expected, found = np.asarray(a), np.asarray(b)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)
        assert found.shape == expected.shape


INF, NAN = np.inf, np.nan
EDGES = {  # operands at which a plainer formula overflows, loses all digits or is NaN
    "asinh": [[-1e4, -1e18, -1e-8, -0.5, 0.0, 1e-8, 3.0, 1e18, NAN]], "arcsinh": [[-1e4, 1e-30, 1e4]],
    "acosh": [[1.0, 1.0001, 1e4, 1e30, INF, 0.5, NAN]], "arccosh": [[1.0, 1e38]],
    "atanh": [[1e-8, -1e-8, 0.0, 0.5, 1.0, -1.0, 2.0, NAN]], "arctanh": [[-1e-30, 0.999]],
    "hypot": [[1e20, 3.0, 1e-30, INF, 0.0], [1e20, 4.0, 1e-30, 1.0, 0.0]],
    "xlogy": [[0.0, 0.0, 0.0, 2.0, 1e-30, 0.0], [0.0, 2.0, -1.0, 3.0, 0.0, NAN]],
    "copysign": [[1.0, 1.0, -2.0, 3.0, INF, 1.0], [-0.0, 0.0, -INF, INF, -1e-30, 2.0]],
    "nan_to_num": [[NAN, INF, -INF, 1.5]], "nansum": [[NAN, 1.5, 2.0]],
    "isclose": [[INF, INF, 1.0, NAN, 1.0], [INF, -INF, INF, NAN, 1.000001]],
    "equal": [[1.0, 2.0], [1.0]], "allclose": [[INF, 1.0], [INF, 1.0]],
    "median": [[1.0, NAN, 0.0]], "diag_embed": [[1.0, INF, NAN]], "float_power": [[1e20, 2.0], [2.0, 0.5]],
    "trunc": [[-0.5, INF, -INF, NAN, 1e30]], "fix": [[-2.5, INF]], "frac": [[-2.25, 2.25, 0.0]],
    "fmod": [[5.0, -5.0, 5.0, -5.0, 1.0, NAN], [3.0, 3.0, -3.0, INF, 0.0, 1.0]],
    "logit": [[0.0, 1.0, 1e-30, 0.5]], "deg2rad": [[180.0, INF]], "rad2deg": [[3.0, -INF]],
    "hardshrink": [[NAN, INF, 0.5, -0.5]], "softshrink": [[NAN, INF, 0.5, -1e30]], "relu6": [[NAN, INF, -INF]],
    "hardswish": [[NAN, INF, -1e30, 1e30]], "hardsigmoid": [[NAN, INF, -INF]], "selu": [[NAN, INF, -INF, -1e-8]],
    "celu": [[NAN, INF, -INF, -1e-8]], "logsigmoid": [[NAN, INF, -1e30, 1e4]], "tanhshrink": [[1e30, -INF, NAN]],
    "clamp_min": [[NAN, INF, -INF]], "clamp_max": [[NAN, INF, -INF]], "dist": [[INF, 1.0], [-1e20, 1.0]],
    "sgn": [[-INF, -0.0]], "absolute": [[NAN, -INF, -0.0]], "prelu": [[NAN, INF, -INF, 0.0]],
    "threshold": [[NAN, INF, 0.1]], "addcdiv": [[1.0, 0.0], [1.0, 1.0], [0.0, INF]],
}  # fmt: skip
NAMED = ("x", "y", "z")


@pytest.mark.peers
@pytest.mark.parametrize("name", EDGES)
def test_expressions_compute_what_pytorch_computes_at_the_edges(name):
    torch = pytest.importorskip("torch")
    function = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    arrays = dict(zip(NAMED, [np.array(values, np.float32) for values in EDGES[name]], strict=False))
    parts = ARGUMENTS.get(name, " ".join(arrays)).split()
    given = OPERANDS | {n: torch.tensor(a) for n, a in arrays.items()} | {"parameter": torch.tensor([0.25])}
    expected = np.asarray(function(*[given[n] for n in parts]))
    with np.errstate(all="ignore"):
        found = value_of(ONE_EXPRESSION[name], OWNERS | OPERANDS | {n: tl.Tensor(array) for n, array in arrays.items()})
    np.testing.assert_allclose(np.asarray(found), expected, rtol=2e-6)
    if isinstance(found, tl.Tensor):
        assert found.dtype == expected.dtype


@pytest.mark.peers
@pytest.mark.parametrize("name", ["asinh", "acosh", "atanh", "hypot", "xlogy", "copysign", "nan_to_num", "nansum"])
def test_gradients_of_expressions_are_those_of_pytorch_at_the_edges(name):
    """At finite operands where PyTorch's gradient is finite: a formula by sign(x) would have none at 0."""
    torch = pytest.importorskip("torch")
    arrays = [np.array(values, np.float32) for values in EDGES[name]]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    getattr(torch, name)(*theirs).sum().backward()
    ours = {n: tl.Tensor(a, requires_grad=True) for n, a in zip(NAMED, arrays, strict=False)}
    with np.errstate(all="ignore"):
        value_of(ONE_EXPRESSION[name], OWNERS | ours).sum().backward()
    usual = np.all([np.isfinite(a) & np.isfinite(t.grad.numpy()) for a, t in zip(arrays, theirs, strict=True)], axis=0)
    usual &= ~np.all([(a == 0) for a in arrays], axis=0) | (len(arrays) == 1)
    assert usual.any()
    for t, x in zip(theirs, ours.values(), strict=True):
        if x.grad is None:  # the sign of y is no function with a gradient
            assert not t.grad.any() and name == "copysign"
        else:
            np.testing.assert_allclose(x.grad.numpy()[usual], t.grad.numpy()[usual], rtol=5e-5, atol=1e-20)


def test_an_orthogonal_matrix_may_be_wide():
    tall, wide = re.findall(r"w\.replace\(.*?(?:\[0\]|\.T)\)", nn.init._PYTORCH_NAMES["orthogonal_"])
    for code, shape in ((tall, (5, 3)), (wide, (3, 5))):
        w = nn.Parameter(np.zeros(shape, np.float32))
        eval(code, OWNERS | {"w": w})
        small = w.numpy() @ w.numpy().T if shape == (3, 5) else w.numpy().T @ w.numpy()
        np.testing.assert_allclose(small, np.eye(3), atol=1e-6)
        assert w.shape == shape


def test_each_name_has_one_answer():
    """The tables for methods and functions are built on EXPRESSIONS, and NumPy's remedies are taken from it."""
    from tensorlib.exchange.numpy_functions import REMEDIES

    for table in (words.TENSOR_NAMES, words.FUNCTION_NAMES):
        assert {name: table[name] for name in words.EXPRESSIONS} == words.EXPRESSIONS
    alike = REMEDIES.keys() & words.EXPRESSIONS.keys()
    assert {"hypot", "inner", "vdot", "fmod"} <= alike
    assert {name: REMEDIES[name] for name in alike} == {name: words.EXPRESSIONS[name] for name in alike}
    assert "retain_grad(" not in words.TENSOR_NAMES["retains_grad"]


# ---- what runs in both and differs: the table in docs/engine.md ----------------------------------------------------

CUBE = np.arange(12.0).reshape(2, 3, 2) ** 2
RAGGED = np.array([[True, False], [True, True]])
DIFFERENCES = {  # a function of (library, functions of PyTorch or ours, x) and what it gives here
    "transpose": (lambda lib, x: x.transpose(0, 1), X, X),
    "max": (lambda lib, x: x.max(1), X, X.max(1)),
    "sort": (lambda lib, x: x.sort(1), X, np.sort(X, 1)),
    "equal": (lambda lib, x: lib.equal(x, x), X, np.ones((2, 2), bool)),
    "pad": (lambda lib, x: lib.pad(x, (1, 2)), X, np.pad(X, (1, 2))),
    "normalize": (lambda lib, x: lib.normalize(x), CUBE + 1, (CUBE + 1) / np.linalg.norm(CUBE + 1, axis=-1)[..., None]),
    "cosine_similarity": (lambda lib, x: lib.cosine_similarity(x + 1, x + 1), CUBE, np.ones((2, 3))),
    "batch_norm": (lambda lib, x: lib.batch_norm(x, x[0, :, 0] * 0 + 1, x[0, :, 0] + 2), CUBE, None),
    "cross_entropy": (lambda lib, x: lib.cross_entropy(x, lib.argmax(x, 1) * 0 - 100), X, 0.0),
    "softmax": (lambda lib, x: lib.softmax(x - np.inf, -1), X, np.zeros((2, 2))),
    "std": (lambda lib, x: lib.std(x), X, np.std(X)),
    "split": (lambda lib, x: lib.split(x, 1)[0], X, X),
    "repeat": (lambda lib, x: x.repeat(2, 1), X, np.repeat(X, 2, 1)),
}  # fmt: skip


@pytest.mark.peers
@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_is_documented_to_differ_from_pytorch_does(name):
    torch = pytest.importorskip("torch")
    compute, x, expected = DIFFERENCES[name]

    class Torch:
        def __getattr__(self, function):
            return getattr(torch.nn.functional, function, None) or getattr(torch, function)

    theirs, ours = compute(Torch(), torch.tensor(x)), compute(tl, tl.Tensor(x)).numpy()
    if expected is not None:
        np.testing.assert_allclose(ours, expected, rtol=1e-6)
    theirs = np.asarray(theirs[0]) if isinstance(theirs, torch.Tensor) and name == "split" else theirs
    assert isinstance(theirs, tuple | bool) or np.shape(theirs) != ours.shape or not np.allclose(theirs, ours)


@pytest.mark.peers
def test_the_eps_of_rms_norm_differs():
    torch = pytest.importorskip("torch")
    x = np.array([1e-3, 2e-3])
    theirs, ours = torch.nn.functional.rms_norm(torch.tensor(x), (2,)).numpy(), tl.rms_norm(tl.Tensor(x)).numpy()
    mean = np.mean(x * x)
    np.testing.assert_allclose(theirs, x / np.sqrt(mean + np.finfo(np.float64).eps))
    np.testing.assert_allclose(ours, x / np.sqrt(mean + 1e-6))


def test_gradients_of_many_uses_are_summed_in_the_dtype_of_the_tensor():
    x = tl.Tensor(np.ones(1, np.float16), requires_grad=True)
    wide = x.astype("float32")
    for use, expected in ((x, 2048), (wide, 5000)):
        y = tl.stack([use] * 5000).sum()
        assert tl.grad(y, x)[0].item() == expected


@pytest.mark.peers
def test_a_number_that_does_not_fit_wraps_around_in_pytorch():
    torch = pytest.importorskip("torch")
    for number in (300, np.int64(300)):
        assert (torch.tensor([2], dtype=torch.uint8) * number).tolist() == [2 * (300 - 256)]
        with pytest.raises(ValueError, match=r"^multiply: dtype uint8 cannot hold 300"):
            tl.Tensor([2], dtype="uint8") * number
    assert (tl.Tensor([200], dtype="uint8") + np.int64(100)).numpy().tolist() == [44]


def test_where_pytorch_gives_nan_the_gradients_are_zero():
    for function in (tl.softmax, lambda x: tl.logsumexp(x, axis=-1), lambda x: tl.cross_entropy(x, [-100])):
        x = tl.Tensor(np.full((1, 3), -np.inf), requires_grad=True)
        function(x).sum().backward()
        assert x.grad.numpy().tolist() == [[0, 0, 0]]


def test_an_array_that_a_checkpointed_function_reaches_by_itself_is_read_again():
    """As in PyTorch. As an argument it is copied, and a Tensor that it reaches by itself is checked."""
    x, scale = tl.Tensor([1.0, 1.0], requires_grad=True), np.array([3.0, 3.0], np.float32)
    outside, argument = tl.checkpoint(lambda x: x * scale, x), tl.checkpoint(lambda x, scale: x * scale, x, scale)
    tensor = tl.Tensor(scale)
    checked = tl.checkpoint(lambda x: x * tensor, x)
    scale *= 5
    tensor.data *= 5
    assert tl.grad(outside.sum(), x)[0].numpy().tolist() == [15, 15]
    assert tl.grad(argument.sum(), x)[0].numpy().tolist() == [3, 3]
    with pytest.raises(RuntimeError, match=r"a checkpoint needs the value .* replaced since"):
        checked.sum().backward()


def test_a_shape_is_no_weight_of_a_normalization():
    for function in (tl.layer_norm, tl.rms_norm):
        with pytest.raises(
            TypeError, match=rf"{function.__name__}: weight must be floating, got int64; no shape is given"
        ):
            function(CUBE, (3, 2))


def test_a_mask_with_two_axes_is_of_queries_and_keys_also_if_there_are_as_many_sentences():
    rng = np.random.default_rng(0)
    q = tl.Tensor(rng.normal(size=(2, 1, 2, 4)))
    mask = np.array([[True, False], [True, True]])
    attend = tl.scaled_dot_product_attention
    np.testing.assert_allclose(attend(q, q, q, mask).numpy()[:, 0], attend(q[:, 0], q[:, 0], q[:, 0], mask).numpy())
    with pytest.raises(ValueError, match=r"would be read as \(T, S\), but looks like padding"):
        attend(q, q, q, mask[::-1].copy())
