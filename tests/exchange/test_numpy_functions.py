"""NumPy's functions and ufuncs on Tensors."""

import re

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.exchange.numpy_functions import REMEDIES
from tensorlib.optable import ROWS, function_names
from tests.edges import refused
from tests.strict import STRICT

DISPATCHED = type(np.sum)
"""The class of the functions that ask ``__array_function__``."""

SAME_NAME = [row for row in ROWS if isinstance(getattr(np, row.name, None), DISPATCHED | np.ufunc)]
NO_OP = {"linspace"}  # of numbers: a Tensor is no argument of tl.linspace


def outputs(ys):
    return list(ys) if isinstance(ys, tuple | list) else [ys]


def filled(row, sample, convert):
    """Return the arguments of a sample with its arrays converted."""
    arrays = iter(row.arrays(sample))
    given = [next(arrays) if isinstance(a, tuple) else a for a in sample.arguments]
    given = [convert(a) if isinstance(a, np.ndarray) else a for a in given]
    return given, {k: convert(v) if isinstance(v, np.ndarray) else v for k, v in sample.keywords.items()}


def leaf(array, backend="numpy"):
    return tl.Tensor(array, requires_grad=array.dtype.kind == "f", backend=backend)


def gradients(function, arguments, keywords):
    """Return the gradients of the sum of squares of the outputs with respect to the leaves."""
    xs = [x for x in arguments if isinstance(x, tl.Tensor) and x.requires_grad]
    ys = [y for y in outputs(function(*arguments, **keywords)) if y.requires_grad]
    return tl.grad(sum((y * y).sum() for y in ys), xs, allow_unused=True) if ys else ()


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in SAME_NAME if row.name not in NO_OP])
def test_a_function_of_numpy_runs_the_op_of_its_name(row, backend):
    """Its values, shapes and dtypes are NumPy's, and its gradients are those of the op."""
    function, compared = getattr(np, row.name), 0
    for sample in row.samples:
        arrays, options = filled(row, sample, np.copy)
        try:
            expected = function(*arrays, **options)
        except (TypeError, ValueError, np.exceptions.AxisError):
            continue  # a sample with an option that NumPy's function lacks, such as `descending`
        xs, keywords = filled(row, sample, lambda array: leaf(array, backend))
        found = function(*xs, **keywords)
        for y, wanted in zip(outputs(found), outputs(expected), strict=True):
            assert isinstance(y, tl.Tensor) and y.shape == np.shape(wanted) and y.dtype == np.asarray(wanted).dtype
            np.testing.assert_allclose(y.numpy(), wanted, rtol=1e-6, err_msg=f"{row.name}({sample})")
        of_numpys, of_ours = (gradients(f, xs, keywords) for f in (function, getattr(tl, row.name)))
        for dx, wanted in zip(of_numpys, of_ours, strict=True):
            assert dx is None or np.array_equal(dx.numpy(), wanted.numpy(), equal_nan=True), f"{row.name}({sample})"
        compared += 1
    assert compared or row.name in ("astype", "stack", "where")  # whose rows spell the call in another way; see below


def test_most_functions_of_numpy_are_there():
    assert len(SAME_NAME) > 90 and {row.name for row in SAME_NAME} >= {"exp", "sum", "where", "concatenate", "matmul"}
    aliases = {
        np.abs: tl.abs, np.absolute: tl.abs, np.acos: tl.arccos, np.amax: tl.max, np.concat: tl.concatenate,
        np.mod: tl.remainder, np.permute_dims: tl.transpose, np.pow: tl.power, np.true_divide: tl.divide,
    }  # fmt: skip
    x = tl.Tensor([[0.25, 0.5]])
    for theirs, ours in aliases.items():
        for arguments in ([x], [x, x], [[x, x]]):
            try:
                expected = ours(*arguments)
            except (TypeError, ValueError):
                continue
            np.testing.assert_array_equal(theirs(*arguments), expected)


def test_a_formula_written_in_numpy_is_differentiable_as_it_stands(backend):
    def loss(w, x, t):
        h = np.tanh(x @ w) + np.maximum(x, 0) @ w
        p = np.exp(h) / np.sum(np.exp(h), axis=-1, keepdims=True)
        return -np.mean(np.log(np.where(t, p, 1.0 - p))) + 0.1 * np.sqrt(np.sum(np.square(w)))

    rng = np.random.default_rng(0)
    w, x, t = rng.normal(size=(3, 4)), rng.normal(size=(5, 3)), rng.random((5, 4)) < 0.5
    constants = [tl.Tensor(x, backend=backend), tl.Tensor(t, backend=backend)]
    expected = loss(w, x, t)
    tensor = leaf(w, backend)
    value = loss(tensor, *constants)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    value.backward()
    if backend.name == "numpy":
        tl.gradcheck(lambda w: loss(w, x, t), w)
        np.testing.assert_array_equal(tl.grad(loss(tensor, x, t), [tensor])[0].numpy(), tensor.grad.numpy())


SPELLINGS = {
    "positions of NumPy": lambda x: np.sum(x, 1, None, None, True),
    "every option at its default": lambda x: np.sum(a=x, axis=0, dtype=None, out=None, where=True),
    "var with positions": lambda x: np.var(x, 1, None, None, 1, True),
    "a_min": lambda x: np.clip(x, a_min=0.3, a_max=1.0), "None": lambda x: np.clip(x, None, 1.0),
    "min": lambda x: np.clip(x, min=0.3, max=1.0), "axes": lambda x: np.transpose(x, (1, 0)),
    "shape": lambda x: np.reshape(x, (3, 2), order="C"), "take": lambda x: np.take(x, [2, 0], 1, mode="raise"),
    "sort": lambda x: np.sort(x, axis=0, kind="quicksort"), "split": lambda x: np.split(x, 3, 1)[1],
    "stack": lambda x: np.stack([x, x], 1), "where": lambda x: np.where(x > 1, x, -x),
    "tile": lambda x: np.tile(A=x, reps=2), "einsum": lambda x: np.einsum("ij,kj->ik", x, x, optimize=True),
    "norm": lambda x: np.linalg.norm(x), "norm of rows": lambda x: np.linalg.norm(x, 1, axis=1, keepdims=True),
    "Frobenius": lambda x: np.linalg.norm(x, axis=(0, 1)), "norm of a vector": lambda x: np.linalg.norm(x[0], 3),
    "linalg.diagonal": lambda x: np.linalg.diagonal(np.stack([x] * 2)),
    "linalg.trace": lambda x: np.linalg.trace(np.stack([x] * 2), offset=1),
    "linalg.outer": lambda x: np.linalg.outer(x[0], x[1]), "linalg.matmul": lambda x: np.linalg.matmul(x, x.T),
    "linalg.tensordot": lambda x: np.linalg.tensordot(x, x, axes=1 + 1),
    "zeros_like": lambda x: np.zeros_like(x, dtype="int32"), "full_like": lambda x: np.full_like(x, 7),
    "ufunc options": lambda x: np.add(x, 1, out=None, where=True), "astype": lambda x: np.astype(x, "float32"),
    "unstack": lambda x: np.unstack(x, axis=1)[0], "pad": lambda x: np.pad(x, 1, constant_values=2.0),
    "array first": lambda x: np.array([1.0, 2.0, 3.0]) ** x, "scalar first": lambda x: np.float32(2) / x,
    "abs": lambda x: np.abs(-x), "round": lambda x: np.round(x, 1), "invert": lambda x: ~(x > 1),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_call_is_spelled_as_in_numpy(name):
    array = np.array([[0.25, 1.5, 0.75], [2.0, 0.5, 1.25]])
    expected, found = SPELLINGS[name](array), SPELLINGS[name](leaf(array))
    assert isinstance(found, tl.Tensor) and found.dtype == expected.dtype
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


X = tl.Tensor([[1.0, 2.0]], requires_grad=True)
test_an_option_that_the_op_lacks_is_refused = refused(
    [
        (
            lambda: np.sum(X, dtype="float64"),
            TypeError,
            r"np\.sum: dtype= is not .* got 'float64'; use x\.astype\(dtype\)",
        ),
        (lambda: np.sum(X, where=[True, False]), TypeError, r"np\.sum: where= .* got \[True, False\]; use tl\.sum"),
        (
            lambda: np.mean(X, out=np.zeros(2)),
            TypeError,
            r"np\.mean: out= .* ndarray .*; use tl\.mean without it, or x\.numpy",
        ),
        (lambda: np.max(X, initial=3), TypeError, r"np\.max: initial= .* got 3"),
        (lambda: np.std(X, correction=1), TypeError, r"np\.std: correction= .* got 1"),
        (lambda: np.exp(X, dtype="float64"), TypeError, r"np\.exp: dtype= .* got 'float64'"),
        (lambda: np.exp(X, where=np.array([True, False])), TypeError, r"np\.exp: where= "),
        (lambda: np.zeros_like(X, shape=(3,)), TypeError, r"np\.zeros_like: shape= .* got \(3,\)"),
        (lambda: np.reshape(X, 2, order="F"), TypeError, r"np\.reshape: order= .* got 'F'"),
        (
            lambda: np.linalg.norm(X, 2),
            TypeError,
            r"np\.linalg\.norm: ord=2 of a matrix .* shape \(1, 2\) and axis=None",
        ),
        (lambda: np.linalg.norm(X, "nuc", (0, 1)), TypeError, r"np\.linalg\.norm: ord='nuc' of a matrix"),
        (lambda: np.where(X), TypeError, r"np\.where: .*; use tl\.where\(condition, x, y\), or x\.numpy\(\)"),
        (
            lambda: np.add.reduce(X),
            TypeError,
            r"np\.add\.reduce: Tensors have no such op; use tl\.sum\(x, axis=0\), or x\.num",
        ),
        (lambda: np.add.at(np.zeros(2), [0], X), TypeError, r"np\.add\.at: Tensors have no such op"),
        (
            lambda: np.cbrt(X),
            TypeError,
            r"np\.cbrt: .*; use tl\.sign\(x\) \* tl\.abs\(x\) \*\* \(1 / 3\), or x\.numpy\(\)",
        ),
        (
            lambda: np.linalg.svd(X),
            TypeError,
            r"np\.linalg\.svd: Tensors have no such op; use x\.numpy\(\) for a value",
        ),
        (lambda: np.fft.fft(X), TypeError, r"np\.fft\.fft: Tensors have no such op"),
        (lambda: np.allclose(X, X), TypeError, r"requires a gradient.*x\.detach\(\)\.numpy\(\)"),
        (lambda: np.exp(tl.Tensor([1.0], backend=STRICT), out=np.zeros(1)), TypeError, "StrictArray"),
    ]
)


def test_every_other_function_names_the_way():
    """No function of NumPy takes a Tensor silently as an array, except those that only look at it."""
    found = set()
    for module in (np, np.linalg, np.fft):
        for name in dir(module):
            function = getattr(module, name)
            if (
                not isinstance(function, DISPATCHED)
                or name in function_names()
                or function.__name__ in function_names()
            ):
                continue
            try:
                X.__array_function__(function, (tl.Tensor,), (X,), {})
            except TypeError as error:
                if "have no such op" in str(error):
                    assert "x.numpy()" in str(error) and f"{function.__name__}:" in str(error)
                    found.add(name)
    assert len(found) > 150 and {"median", "svd", "fft", "cov", "nonzero", "copyto", "put"} <= found
    for name in ("hypot", "fmod", "arcsinh", "cbrt", "nextafter", "gcd"):
        with pytest.raises(TypeError, match=rf"np\.{name}: Tensors have no such op; use .*x\.numpy\(\)"):
            getattr(np, name)(*[X] * getattr(np, name).nin)


@pytest.mark.filterwarnings("ignore:invalid value|divide by zero")
def test_the_remedies_compute_what_numpys_functions_compute():
    x, y = np.array([[0.5, -2.25], [3.0, 1.5], [-0.75, 2.0]]), np.array([[2.0, 1.5], [-0.5, 0.75], [0.5, -1.5]])
    names = {"tl": tl, "np": np, "numpy": np, "x": tl.Tensor(x), "y": tl.Tensor(y)}
    names["xs"] = [names["x"], names["y"]]
    for name, remedy in REMEDIES.items():
        expression, function = remedy.partition(", with")[0], np
        for part in name.split("."):
            function = getattr(function, part)
        if name == "where":
            continue
        operands = set(re.findall(r"\b(?:xs|y)\b", expression))
        expected = function([x, y]) if "xs" in operands else function(x, y) if "y" in operands else function(x)
        definition = re.search(r", with s = (.*), where", remedy)
        s = eval(definition[1], names) if definition else None
        np.testing.assert_allclose(eval(expression, names | {"s": s}), expected, rtol=1e-12, err_msg=name)


def test_what_numpy_calls_alike_computes_what_numpy_computes_for_more_axes():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, 4)), rng.normal(size=(5, 4))
    names = {"tl": tl, "x": tl.Tensor(x), "y": tl.Tensor(y)}
    np.testing.assert_allclose(eval(REMEDIES["inner"], names), np.inner(x, y))
    names["y"] = tl.Tensor(y[:, :2])
    np.testing.assert_allclose(
        eval(REMEDIES["vdot"], names | {"x": tl.Tensor(x[0, :, :2].copy())} | {"y": tl.Tensor(y[:2, :3])}),
        np.vdot(x[0, :, :2], y[:2, :3]),
    )
    w = tl.Tensor([1.0, 3.0])
    average = REMEDIES["average"].partition("weights w ")[2]
    assert eval(average, {"tl": tl, "x": tl.Tensor([1.0, 2.0]), "w": w}).item() == np.average(
        [1.0, 2.0], weights=[1, 3]
    )


def test_looking_at_a_tensor_works_as_before():
    x = X.detach()
    assert np.allclose(x, [1, 2]) and np.array_equal(x, x) and np.isclose(x, 1).tolist() == [[True, False]]
    assert np.array2string(x) == "[[1. 2.]]" and np.array_str(x) == "[[1. 2.]]" and str(x) == f"{x}"
    assert np.shape(X) == (1, 2) and np.ndim(X) == 2 and np.size(X) == 2 and np.size(X, 1) == 2
    assert np.result_type(X, np.float64) == np.float64 and not np.iscomplexobj(X) and np.shares_memory(X, X.data)
    np.testing.assert_allclose(x, [[1, 2]])
    np.testing.assert_array_equal(x.sum(), 3)
    np.testing.assert_array_less(x, x + 1)
    with pytest.raises(AssertionError, match="Mismatched elements: 1 / 2"):
        np.testing.assert_array_equal(x, [[1, 3]])


def test_files_are_written_as_before(tmp_path):
    np.save(tmp_path / "x.npy", X.detach())
    np.savez(tmp_path / "x.npz", a=X.detach())
    np.savetxt(tmp_path / "x.txt", X.detach())
    assert np.load(tmp_path / "x.npy").tolist() == np.load(tmp_path / "x.npz")["a"].tolist() == [[1, 2]]


@pytest.mark.parametrize("number", [np.array(0.1), np.float64(0.1), 0.1], ids=["array", "scalar", "number"])
@pytest.mark.parametrize("value", [0.1, 0.2, 0.05])
def test_comparisons_do_not_depend_on_the_order(number, value):
    """An array without axes counts as a number, so that 0.1 is compared as float32 with a Tensor of float32."""
    x = tl.Tensor([value])
    found = [
        (number == x, x == number, value == 0.1),
        (number != x, x != number, value != 0.1),
        (number < x, x > number, value > 0.1),
        (number <= x, x >= number, value >= 0.1),
        (number > x, x < number, value < 0.1),
        (number >= x, x <= number, value <= 0.1),
        (np.equal(number, x), np.equal(x, number), value == 0.1),
        (tl.equal(number, x), tl.equal(x, number), value == 0.1),
        (tl.less(number, x), tl.greater(x, number), value > 0.1),
    ]
    for one, other, expected in found:
        assert one.numpy().tolist() == other.numpy().tolist() == [expected]


def test_none_as_ord_is_numpys_default():
    array = np.array([[3.0, 4.0], [6.0, 8.0]])
    x = tl.Tensor(array, requires_grad=True)
    for arguments in ((None, 1), (None, 0, True), (None,), (None, (0, 1))):
        np.testing.assert_allclose(np.linalg.norm(x, *arguments).data, np.linalg.norm(array, *arguments))
    np.linalg.norm(x, ord=None, axis=1).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [[0.6, 0.8], [0.6, 0.8]])


def test_a_mask_is_not_dropped():
    """For np.sum(array, where=x) NumPy asks the mask alone, as np.add.reduce."""
    array, mask = np.array([1.0, 2.0]), tl.Tensor([True, False])
    for call, words in (
        (lambda: np.sum(array, where=mask), r"np\.add\.reduce: where= .*; use tl\.sum\(x\[where\]\), or tl\.where"),
        (lambda: np.sum(X, where=mask), r"np\.sum: where= .*; use tl\.sum\(x\[where\]\), or tl\.where"),
        (lambda: np.max(array, where=mask, initial=0), r"np\.maximum\.reduce: where= .*; use tl\.max\(x\[where\]\)"),
        (lambda: np.mean(X, where=mask), r"np\.mean: where= .*; use tl\.mean\(x\[where\]\)"),
        (lambda: np.add(array, X, where=mask), r"np\.add: where= .*; use tl\.where\(where, result, other\)"),
        (lambda: np.sum(X, where=None), r"np\.sum: where= .*, got None"),
    ):
        with pytest.raises(TypeError, match=words):
            call()
    np.add(array, array, where=mask, out=array)
    assert array.tolist() == [2, 2] and tl.sum(tl.Tensor(array)[mask]).item() == 2
