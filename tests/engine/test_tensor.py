"""Tensor as a value: construction, conversion, representation, indexing."""

import inspect
import re

import numpy as np
import pytest

import nn
import tensorlib as tl
from tensorlib.arrays.backend import backend_of, get_backend, namespace_of
from tests.edges import refused
from tests.strict import STRICT


def test_the_dtype_follows_from_the_data():
    assert tl.Tensor([1.0, 2.0]).dtype == np.float32  # Python floats
    assert tl.Tensor(1.5).dtype == np.float32
    assert tl.Tensor([1, 2]).dtype == np.int64
    assert tl.Tensor([True, False]).dtype == bool
    assert tl.Tensor(np.array([1.0])).dtype == np.float64  # an array keeps its dtype
    assert tl.Tensor(np.float64(1)).dtype == np.float64
    assert tl.Tensor([1, 2], dtype="float16").dtype == np.float16
    assert tl.Tensor(np.ones(2, np.float32), dtype=np.float64).dtype == np.float64
    assert tl.Tensor(tl.Tensor([1.0], dtype="float64")).dtype == np.float64
    assert tl.Tensor([]).shape == (0,)


def test_tensor_copies_and_from_numpy_shares(backend):
    array = np.array([1.0, 2.0])
    copied = tl.Tensor(array, backend=backend)
    again = tl.Tensor(copied)
    shared = tl.from_numpy(array)
    array[0] = 9
    assert copied[0].item() == 1 and again[0].item() == 1 and again.backend is backend
    assert shared[0].item() == 9 and shared.data is array
    assert np.shares_memory(shared.numpy(), array)


def test_data_that_cannot_become_a_tensor():
    with pytest.raises(ValueError, match="Tensor: nested lists must form a rectangle"):
        tl.Tensor([[1.0], [1.0, 2.0]])
    for data in ("text", ["a"], None, {}, object()):
        with pytest.raises(TypeError, match="Tensor: data must be numbers, got "):
            tl.Tensor(data)
    with pytest.raises(TypeError, match="requires_grad needs a real floating dtype, got bool; pass dtype='float32'"):
        tl.Tensor([True], requires_grad=True)


def test_a_mistyped_attribute_is_an_error():
    x = tl.Tensor([1.0])
    with pytest.raises(AttributeError):
        x.requires_gard = True
    with pytest.raises(AttributeError):
        x.gard  # noqa: B018


def test_properties(backend):
    x = tl.Tensor([[1.0, 2.0, 3.0]], requires_grad=True, backend=backend)
    assert (x.shape, x.ndim, x.size, x.dtype, len(x)) == ((1, 3), 2, 3, np.float32, 1)
    assert x.backend is backend and x.is_leaf and x.grad is None and x.version == 0 and x.name == ""
    assert x.T.shape == (3, 1) and not x.T.is_leaf
    assert tl.Tensor(2.5, backend=backend).item() == 2.5
    assert float(tl.Tensor([2.5], backend=backend)) == 2.5 and int(tl.Tensor(7, backend=backend)) == 7
    assert bool(tl.Tensor([0.5], backend=backend)) and not tl.Tensor(0, backend=backend)
    with pytest.raises(ValueError, match=r"item: needs exactly one element, got shape \(1, 3\)"):
        x.item()
    with pytest.raises(TypeError, match="len: a 0-d Tensor has no length"):
        len(x.sum())
    assert [row.shape for row in x] == [(3,)]
    assert len({x, x, x.T}) == 2  # hashed by identity


def test_detach_shares_and_forgets(backend):
    x = tl.Tensor([1.0], requires_grad=True, backend=backend)
    y = (x * 2).detach()
    assert y.is_leaf and not y.requires_grad
    assert x.detach().data is x.data


def test_conversion_to_numpy_is_never_silent(backend):
    x = tl.Tensor([1.0, 2.0], requires_grad=True, backend=backend)
    np.testing.assert_array_equal(x.numpy(), [1, 2])
    assert isinstance(x.numpy(), np.ndarray)
    with pytest.raises(TypeError, match=r"requires a gradient, which NumPy would lose; use x.detach\(\).numpy\(\)"):
        np.asarray(x)
    if backend.name == "numpy":
        np.testing.assert_array_equal(np.asarray(x.detach()), [1, 2])
        assert np.asarray(x.detach(), dtype="int8").dtype == np.int8
    else:
        with pytest.raises(TypeError, match=rf"this Tensor is on backend '{backend.name}'; use x.numpy\(\)"):
            np.asarray(x.detach())


def test_moving_between_backends(backend):
    x = tl.Tensor([1.0, 2.0], requires_grad=True)
    y = x.to(backend)
    assert y.backend is backend and y.requires_grad and y.is_leaf
    assert (y is x) == (backend.name == "numpy")
    back = y.to("cpu")
    assert back.backend.name == "numpy"
    np.testing.assert_array_equal(back.numpy(), [1, 2])
    assert x.backend is get_backend("numpy") is get_backend("cpu")
    assert repr(backend) == f"<backend {backend.name}>"


def test_the_namespace_of_a_tensor_and_of_an_array(backend):
    x = tl.Tensor([1.0], backend=backend)
    assert namespace_of(x) is tl
    assert namespace_of(x.data) is backend.xp
    assert backend_of(x.data) is backend
    with pytest.raises(TypeError, match="backend_of: needs an array of NumPy or CuPy, got list"):
        backend_of([1.0])


def test_cupy_without_a_gpu_says_what_to_do():
    try:
        get_backend("cupy")
    except RuntimeError as error:
        assert "use 'numpy'" in str(error) and "'cupy' needs" in str(error)


def test_astype(backend):
    x = tl.Tensor([1.5, -2.0], requires_grad=True, backend=backend)
    assert x.astype("float64").requires_grad and x.astype("float16").dtype == np.float16
    (x.astype("float64") * 2).sum().backward()
    assert x.grad.dtype == np.float32
    assert not x.astype("int64").requires_grad
    np.testing.assert_array_equal(x.astype("int64").numpy(), [1, -2])


def test_functions_that_create_tensors(backend):
    for x, expected in (
        (tl.zeros((2, 1), backend=backend), np.zeros((2, 1), np.float32)),
        (tl.ones(3, backend=backend), np.ones(3, np.float32)),
        (tl.full((2,), 7, "int64", backend), np.full(2, 7)),
        (tl.zeros_like(tl.ones((2,), "float64", backend)), np.zeros(2)),
        (tl.ones_like(tl.zeros((2,), "float16", backend)), np.ones(2, np.float16)),
    ):
        assert x.backend is backend and x.dtype == expected.dtype and not x.requires_grad
        np.testing.assert_array_equal(x.numpy(), expected)


def test_repr(backend):
    suffix = "" if backend.name == "numpy" else f", backend={backend.name}"
    x = tl.Tensor([1.0, 2.5], requires_grad=True, backend=backend)
    assert repr(x) == f"Tensor([1.  2.5], shape=(2,), dtype=float32{suffix}, requires_grad=True)"
    assert repr(x * 2) == f"Tensor([2. 5.], shape=(2,), dtype=float32{suffix}, from=multiply)"
    assert repr(tl.Tensor(3, backend=backend)) == f"Tensor(3, shape=(), dtype=int64{suffix})"
    assert repr(tl.zeros((0, 3), backend=backend)) == f"Tensor([], shape=(0, 3), dtype=float32{suffix})"
    assert repr(tl.Tensor(True, backend=backend)) == f"Tensor(True, shape=(), dtype=bool{suffix})"
    assert len(repr(tl.zeros((100, 100), backend=backend))) < 300
    assert repr(x.detach()) == str(x.detach()) == f"{x.detach()}"


def test_repr_shows_where_a_tensor_comes_from():
    x = tl.Tensor([1.0], requires_grad=True)
    x.name = "encoder.weight"
    assert repr(x).endswith("requires_grad=True, name=encoder.weight)")
    assert repr(nn.Parameter([[1.0], [2.0]])) == (
        "Parameter([[1.]\n           [2.]], shape=(2, 1), dtype=float32, requires_grad=True)"
    )
    with tl.record_source(), tl.module_scope("encoder.layers.0"):
        line, y = inspect.currentframe().f_lineno, x + 1
    assert repr(y).endswith(f"from=add in encoder.layers.0 at test_tensor.py:{line})")
    y.backward()
    assert "from=add" in repr(y)  # also after the graph was released


def test_a_format_specification_applies_to_the_one_number(backend):
    loss = tl.Tensor([[2.34567]], requires_grad=True, backend=backend) * 1
    assert f"{loss:.3f} {loss:10.1e}|{tl.Tensor(7, backend=backend):03d}" == "2.346    2.3e+00|007"
    with pytest.raises(ValueError, match=r"format '\.2f': needs exactly one element, got shape \(3,\)"):
        f"{tl.zeros(3, backend=backend):.2f}"


# ---- as a Python object ----


def test_iteration_gives_rows_and_the_gradient_flows_through_them(backend):
    x = tl.Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True, backend=backend)
    for i, row in enumerate(x):
        np.testing.assert_array_equal(row.numpy(), x.numpy()[i])
        (row * (i + 1)).sum().backward(retain_graph=True)
    np.testing.assert_array_equal(x.grad.numpy(), [[1, 1], [2, 2], [3, 3]])
    x.grad = None
    first, _, last = x  # the row in between is not used, so its gradient is 0
    a, b = first
    (a * 2 + b * 3 + last.sum()).backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[2, 3], [0, 0], [1, 1]])
    assert list(tl.zeros((0, 4), backend=backend)) == []
    assert [row.shape for row in tl.zeros((2, 0), backend=backend)] == [(0,), (0,)]
    with pytest.raises(TypeError, match=r"iter: a 0-d Tensor cannot be iterated over; its value is x\.item\(\)"):
        list(a)
    with pytest.raises(ValueError, match="too many values to unpack"):
        a, b = x


def test_all_rows_come_from_one_node():
    # x[i] for each of n rows would create n gradients with the size of x.
    rows = list(tl.Tensor(np.ones((50, 2)), requires_grad=True))
    assert len({id(row.node.edges[0][0]) for row in rows}) == 1


def test_a_whole_number_is_an_index(backend):
    n = tl.Tensor(3, backend=backend)
    assert list(range(n)) == [0, 1, 2] and "abcd"[n] == "d"
    np.testing.assert_array_equal(np.arange(5)[n:], [3, 4])
    for x, given in (
        (tl.Tensor(3.0), r"got shape \(\) and dtype float32; see int\(x\)"),
        (tl.Tensor([3]), r"got shape \(1,\) and dtype int64"),
        (tl.Tensor(True), r"got shape \(\) and dtype bool"),
    ):
        with pytest.raises(TypeError, match=f"index: needs a 0-d Tensor of integers, {given}"):
            range(5)[x]


def test_in_compares_values(backend):
    x = tl.Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True, backend=backend)
    assert 3 in x and 2.0 in x and np.float64(4) in x and 5 not in x and 0 not in tl.zeros((0,), backend=backend)
    with pytest.raises(TypeError, match="equal: data must be numbers, got dtype <U1"):
        "a" in x  # noqa: B015


TWO = tl.Tensor([1.0, 2.0], requires_grad=True)
MASKED = np.ma.array([1.0, 2.0], mask=[False, True])
BAD = [
    (lambda: tl.Tensor(None), TypeError, "Tensor: data must be numbers, got NoneType"),
    (lambda: tl.Tensor([None]), TypeError, "data must be numbers, got list with NoneType"),
    (lambda: tl.Tensor(nn.Linear(2, 2)), TypeError, "data must be numbers, got Linear; call it first"),
    (lambda: tl.relu(nn.Linear(2, 2)), TypeError, "data must be numbers, got Linear; call it first"),
    (lambda: TWO @ nn.Linear(2, 2), TypeError, "data must be numbers, got Linear; call it first"),
    (lambda: tl.Tensor(x for x in (1, 2)), TypeError, "data must be numbers, got generator"),
    (lambda: tl.Tensor(2**70), TypeError, "data must be numbers, got an integer of more than 64 bits"),
    (lambda: tl.Tensor([1.0], dtype=object), TypeError, "Tensor: dtype must be numeric, .* got <class 'object'>"),
    (lambda: tl.Tensor([1.0], dtype="flaot32"), TypeError, "Tensor: dtype must be numeric, .* got 'flaot32'"),
    (lambda: tl.Tensor([1j]), TypeError, "Tensor: complex numbers are not supported, got dtype complex128; keep"),
    (lambda: tl.Tensor([1.0], dtype="complex64"), TypeError, "Tensor: complex numbers .* got dtype complex64"),
    (lambda: TWO * 1j, TypeError, "multiply: complex numbers are not supported, got dtype complex128"),
    (lambda: abs(1 + 1j * TWO), TypeError, "multiply: complex numbers are not supported"),
    (lambda: TWO + np.complex64(1j), TypeError, "add: complex numbers are not supported"),
    (lambda: np.array([1j, 2j]) * TWO, TypeError, "multiply: complex numbers are not supported"),
    (lambda: tl.where([True], TWO, 1j), TypeError, "where: complex numbers are not supported"),
    (lambda: TWO.astype("complex64"), TypeError, "astype: complex numbers are not supported, got dtype complex64"),
    (lambda: TWO.backward([1j, 1j]), TypeError, "complex numbers are not supported"),
    (lambda: TWO * np.array(["2020-01-01"] * 2, "datetime64[D]"), TypeError, r"multiply: data .* got dtype datetime64"),
    (lambda: tl.Tensor(np.zeros(2, [("a", "f4")])), TypeError, "Tensor: data must be numbers, got dtype .*'a'"),
    (lambda: tl.Tensor([1.0], "float64"), TypeError, r"requires_grad must be True or False, got 'float64'.*dtype="),
    (lambda: tl.Tensor(2, 3), TypeError, "requires_grad must be True or False, got 3"),
    (lambda: tl.Tensor([1], requires_grad=True), TypeError, "needs a real floating dtype, got int64"),
    (lambda: tl.Tensor([1.0], backend="cud"), ValueError, "must be one of numpy, cpu, cupy, cuda, gpu; got 'cud'"),
    (lambda: TWO.to("float64"), ValueError, "backend: must be one of .* got 'float64'"),
    (lambda: TWO.to(3), ValueError, "backend: must be one of .* got 3"),
    (lambda: TWO.astype("flaot32"), TypeError, "flaot32"),
    (lambda: TWO.item(), ValueError, r"item: needs exactly one element, got shape \(2,\); use \.numpy\(\) for all"),
    (lambda: tl.zeros(0).item(), ValueError, r"item: needs exactly one element, got shape \(0,\)"),
    (lambda: float(TWO), ValueError, r"float: needs exactly one element, got shape \(2,\)"),
    (lambda: int(TWO), ValueError, r"int: needs exactly one element, got shape \(2,\)"),
    (lambda: bool(TWO == TWO), ValueError, r"bool: a Tensor of shape \(2,\) has no single truth value; use \.any"),
    (lambda: bool(tl.zeros(0)), ValueError, r"bool: a Tensor of shape \(0,\) has no single truth value"),
    (lambda: len(tl.Tensor(1.0)), TypeError, r"len: a 0-d Tensor has no length; its value is x\.item\(\)"),
    (lambda: TWO.__setitem__(0, 1.0), TypeError, r"setitem: Tensors are values.*use tl\.where\(mask, new, x\)"),
    (lambda: setattr(TWO, "data", 1.0), ValueError, r"data: the shape must stay \(2,\), got \(\)"),
    (lambda: setattr(TWO, "data", "ab"), TypeError, "data must be numbers, got dtype <U2"),
    (lambda: setattr(TWO, "data", TWO * 2), TypeError, r"data: the value requires a gradient.*use value\.detach\(\)"),
    (lambda: setattr(TWO * 1, "data", [1.0, 2.0]), RuntimeError, "data: needs a leaf, .* computed by multiply"),
    (lambda: setattr(tl.ones(2, "int64"), "data", [0.5, 1.0]), TypeError, "the dtype must stay int64, got float32"),
    (lambda: TWO.requires_gard, AttributeError, "requires_gard"),
    (lambda: TWO.replace(tl.zeros(2)), TypeError, r"replace: needs an array, got Tensor; x\.data = value"),
    (lambda: TWO.replace([1.0, 2.0]), TypeError, "replace: needs an array, got list"),
    (lambda: TWO.replace(np.zeros(3)), ValueError, r"replace: the shape must stay \(2,\), got \(3,\)"),
    (lambda: TWO.replace(np.array(["a", "b"])), TypeError, "replace: data must be numbers, got dtype <U1"),
    (lambda: TWO.replace(np.zeros(2, complex)), TypeError, "replace: complex numbers are not supported"),
    (lambda: TWO.replace(MASKED), TypeError, r"replace: a Tensor has no mask, got a MaskedArray; use x\.filled\(0\)"),
    (lambda: tl.Tensor(MASKED), TypeError, "Tensor: a Tensor has no mask"),
    (lambda: tl.exp(MASKED), TypeError, "exp: a Tensor has no mask"),
    (lambda: TWO + MASKED, TypeError, "add: a Tensor has no mask"),
    (lambda: setattr(TWO, "data", MASKED), TypeError, "a Tensor has no mask"),
    (lambda: TWO.replace(np.zeros(2, int)), TypeError, "replace: .* needs a floating dtype, got int64"),
    (lambda: (TWO * 1).replace(np.zeros(2)), RuntimeError, "replace: needs a leaf"),
    (lambda: setattr(TWO * 1, "requires_grad", False), RuntimeError, r"on leaves only; use x\.detach\(\)"),
    (lambda: TWO.backward(), ValueError, r"backward: the output must be a scalar, got shape \(2,\); sum it"),
    (lambda: TWO.detach().sum().backward(), RuntimeError, r"backward: the output of shape \(\) does not require"),
    (lambda: TWO.sum().backward(True), TypeError, r"gradient must be numbers, got True; is it meant as retain_graph"),
    (lambda: TWO.backward([1.0]), ValueError, r"must have the output's shape \(2,\), got \(1,\)"),
    (lambda: TWO.backward("ones"), TypeError, "data must be numbers, got dtype <U4"),
    (lambda: TWO.backward(tl.ones(2, backend=STRICT)), TypeError, "on the output's backend numpy, got strict"),
]  # fmt: skip


test_errors_contain_the_value_given = refused(BAD)


def test_an_array_of_a_subclass_is_an_ordinary_array():
    x, matrix = tl.Tensor([[1.0, 2.0], [3.0, 4.0]]), np.matrix([[1.0, 0.0], [0.0, 1.0]])
    for y in (x * matrix, matrix * x, tl.multiply(x, tl.Tensor(matrix))):
        assert type(y.data) is np.ndarray and y.numpy().tolist() == [[1, 0], [0, 4]]  # not the product of matrices
    x.replace(matrix)
    assert type(x.data) is np.ndarray and (x * x).numpy().tolist() == matrix.tolist()


def test_replace_converts_the_byte_order():
    x = tl.zeros(2)
    x.replace(np.array([1.0, 2.0], ">f4"))
    assert x.dtype.isnative and x.numpy().tolist() == [1, 2]


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long double is float64 here")
def test_replace_refuses_more_than_64_bits():
    with pytest.raises(TypeError, match="replace: numbers of more than 64 bits are not supported, got dtype float"):
        tl.zeros(2).replace(np.zeros(2, np.longdouble))


@pytest.mark.skipif(np.dtype("longdouble").itemsize == 8, reason="longdouble is float64 here")
def test_numbers_of_more_than_64_bits_are_refused():
    with pytest.raises(TypeError, match=r"Tensor: numbers of more than 64 bits are not supported, .*; use float64"):
        tl.Tensor(np.ones(2, "longdouble"))


def test_an_array_in_another_byte_order_is_converted():
    swapped = np.array([1.0, 2.0], np.dtype("f4").newbyteorder("S"))
    x = tl.Tensor([3.0, 4.0], requires_grad=True)
    for y in (
        tl.Tensor(swapped),
        tl.Tensor([1.0, 2.0], dtype=swapped.dtype),
        x * swapped,
        swapped * x,
        tl.exp(swapped),
    ):
        assert y.dtype == np.float32 and y.dtype.isnative
    assert tl.grad((x * swapped).sum(), [x])[0].numpy().tolist() == [1, 2]


def test_python_floats_are_float32_in_every_function():
    for f in (
        tl.add,
        tl.subtract,
        tl.multiply,
        tl.divide,
        tl.power,
        tl.maximum,
        tl.remainder,
        tl.arctan2,
        tl.logaddexp,
    ):
        for a, b in (
            ([1.5, 2.0], 1),
            ([1.5, 2.0], 2.5),
            (1, [1.5, 2.0]),
            (1.5, 2.5),
            (1.5, 2),
            (2, 1.5),
            ([1.5], [2.5]),
        ):
            assert f(a, b).dtype == np.float32, f"{f.__name__}({a}, {b})"
    for y in (tl.where([True, False], [1.5, 2.5], 1), tl.where([True], 2, 1.5), tl.clip([1.5, 2.5], 0, 1), tl.exp(1.5)):
        assert y.dtype == np.float32
    assert tl.power(2, 3).dtype == np.int64 and tl.add(1, True).dtype == np.int64


def test_every_method_is_the_function_of_that_name(backend):
    """x.f(...) equals tl.f(x, ...) for every f."""
    x = tl.Tensor(np.random.default_rng(0).uniform(0.5, 2, (2, 3)), backend=backend)
    for name in ("abs", "exp", "log", "relu", "sigmoid", "sqrt", "square", "tanh", "copy", "sum", "mean", "var", "max",
                 "logsumexp", "softmax", "log_softmax", "transpose", "argmax", "squeeze"):  # fmt: skip
        np.testing.assert_array_equal(getattr(x, name)().numpy(), getattr(tl, name)(x).numpy(), err_msg=name)
    np.testing.assert_array_equal(x.reshape(3, 2).numpy(), tl.reshape(x, (3, 2)).numpy())
    np.testing.assert_array_equal(x.swapaxes(0, 1).numpy(), x.T.numpy())
    np.testing.assert_array_equal(x.masked_fill(x > 1, 0.0).numpy(), tl.where(x > 1, 0.0, x).numpy())
    np.testing.assert_array_equal(x.split(3, axis=1)[1].numpy(), x[:, 1:2].numpy())
    assert (x > 0).all().item() and not (x < 0).any().item()


def test_operators(backend):
    a, b = np.array([4.0, 9.0]), np.array([2.0, 3.0])
    x, y = tl.Tensor(a, backend=backend), tl.Tensor(b, backend=backend)
    for found, expected in (
        (x + y, a + b), (x - y, a - b), (x * y, a * b), (x / y, a / b), (x**y, a**b), (-x, -a), (abs(-x), a),
        (x @ y, a @ b), (2 + x, 2 + a), (2 - x, 2 - a), (2 * x, 2 * a), (2 / x, 2 / a), (2**x, 2**a),
        (x == y, a == b), (x != y, a != b), (x < y, a < b), (x <= y, a <= b), (x > y, a > b), (x >= y, a >= b),
        ((x > 4) & (y > 2), (a > 4) & (b > 2)), ((x > 4) | (y > 2), (a > 4) | (b > 2)), (~(x > 4), ~(a > 4)),
        (x > 4, a > 4), (np.int64(4) < x, a > 4), (True & (x > 4), a > 4), (False | (x > 4), a > 4),
    ):  # fmt: skip
        assert isinstance(found, tl.Tensor) and found.dtype == expected.dtype
        np.testing.assert_array_equal(found.numpy(), expected)
    before = x
    x += 1
    assert x is not before  # rebound, not changed in place
    np.testing.assert_array_equal(before.numpy(), a)


def test_indices_may_be_tensors(backend):
    x = tl.Tensor(np.arange(12.0).reshape(4, 3), backend=backend)
    ids, mask = tl.Tensor([3, 0, 3], backend=backend), tl.Tensor([True, False, False, True], backend=backend)
    np.testing.assert_array_equal(x[ids].numpy(), x.numpy()[[3, 0, 3]])
    np.testing.assert_array_equal(x[mask].numpy(), x.numpy()[[0, 3]])
    np.testing.assert_array_equal(x[ids, 1].numpy(), x.numpy()[[3, 0, 3], 1])
    np.testing.assert_array_equal(tl.embedding(x, ids).numpy(), x.numpy()[[3, 0, 3]])
    np.testing.assert_array_equal(tl.take_along_axis(x, [[1], [0], [2], [2]], axis=1).numpy(), [[1], [3], [8], [11]])


def test_generators():
    a, b = tl.Generator(3), tl.Generator(3)
    assert [a.next_draw() for _ in range(3)] == [(3, 0), (3, 1), (3, 2)]
    assert a.state == (3, 3) and repr(a) == "Generator(seed=3, draws=3)"
    first, second = b.numpy().normal(size=4), b.numpy().normal(size=4)
    assert not np.array_equal(first, second)
    b.state = (3, 0)
    np.testing.assert_array_equal(b.numpy().normal(size=4), first)
    tl.seed(5)
    x = tl.ones(1000)
    y = tl.dropout(x, 0.5)
    tl.seed(5)
    np.testing.assert_array_equal(tl.dropout(x, 0.5).numpy(), y.numpy())
    assert not np.array_equal(tl.dropout(x, 0.5).numpy(), y.numpy())
    with pytest.raises(ValueError, match=r"Generator: seed must lie in \[0, 2\*\*128\), got -1"):
        tl.Generator(-1)
    with pytest.raises(ValueError, match="seed"):
        tl.seed(-1)


def test_versions_count_from_zero_also_for_computed_values():
    x = tl.Tensor([1.0])
    assert (x.version, (x * 2).version, x.detach().version) == (0, 0, 0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_in_a_list_have_the_dtype_of_what_they_meet(dtype):
    x = tl.Tensor(np.ones(2, dtype))
    expected = np.ones(2, dtype) * np.array([0.1, 0.2], dtype)
    made = [x * [0.1, 0.2], [0.1, 0.2] * x, tl.multiply(x, [0.1, 0.2]), np.multiply(x, [0.1, 0.2])]
    made += [tl.minimum(x, [0.1, 0.2]), tl.where([False, False], x, [0.1, 0.2]), tl.stack([x, [0.1, 0.2]])[1]]
    for y in made:
        assert y.dtype == dtype and y.numpy().tolist() == expected.tolist()


def test_arrays_in_a_list_keep_their_dtype():
    assert tl.Tensor([np.float64(16777217)]).item() == tl.Tensor([np.array([16777217.0])]).item() == 16777217
    assert tl.Tensor([[np.float32(1)]]).dtype == np.float32 and tl.Tensor([1.0]).dtype == np.float32


@pytest.mark.parametrize(
    "value, dtype", [(300, "uint8"), (-1, "uint8"), (2**40, "int32"), (1e20, "int64"), (np.nan, "int32")]
)
def test_an_integer_that_does_not_fit_is_refused(value, dtype):
    with pytest.raises(
        ValueError, match=rf"integers from .* are required for {dtype}, got {re.escape(str(value))}; use a wider dtype"
    ):
        tl.Tensor([0, value], dtype=dtype)
