"""Tensors created from numbers: dtypes, rounding, and mistakes."""

import numpy as np
import pytest

import tensorlib as tl
from tests.edges import refused


def test_python_floats_give_float32_and_integers_int64(backend):
    for x, dtype in (
        (tl.arange(3, backend=backend), "int64"), (tl.arange(3.0, backend=backend), "float32"),
        (tl.arange(0, 1, 0.5, backend=backend), "float32"), (tl.arange(np.int64(3), backend=backend), "int64"),
        (tl.arange(3, dtype="float16", backend=backend), "float16"), (tl.linspace(0, 1, backend=backend), "float32"),
        (tl.eye(2, backend=backend), "float32"), (tl.full((), 3, backend=backend), "float32"),
        (tl.zeros(2, int, backend), "int64"), (tl.ones((), np.float64, backend), "float64"),
    ):  # fmt: skip
        assert x.dtype == dtype and x.backend is backend and x.is_leaf and not x.requires_grad


def test_a_float32_sequence_is_the_exact_one_rounded(backend):
    """NumPy's own float32 arange accumulates the rounding error of its step."""
    np.testing.assert_array_equal(tl.arange(0.0, 1000.0, 0.1, backend=backend).numpy(),
                                  np.arange(0.0, 1000.0, 0.1).astype(np.float32))  # fmt: skip
    assert tl.linspace(0, 0.1, 7, backend=backend).numpy()[-1] == np.float32(0.1)


def test_arange_ends_before_stop():
    for arguments in ((0,), (5, 2), (2, 5, -1), (2, 8, 3), (-3,), (5, 0, -2)):
        np.testing.assert_array_equal(tl.arange(*arguments).numpy(), np.arange(*arguments))


def test_shapes_may_be_numbers_lists_and_numpy_integers():
    for shape, expected in ((2, (2,)), ([2, 3], (2, 3)), ((), ()), (np.int64(2), (2,)), ((np.int32(1), 2), (1, 2))):
        assert tl.zeros(shape).shape == tl.ones(shape).shape == tl.full(shape, 1).shape == expected


def test_like_functions_take_their_defaults_from_x(backend):
    x = tl.Tensor([[1, 2]], dtype="float16", requires_grad=True, backend=backend)
    for f in (tl.zeros_like, tl.ones_like, lambda x, *a, **k: tl.full_like(x, 5, *a, **k)):
        y = f(x)
        assert (y.shape, y.dtype, y.backend) == (x.shape, x.dtype, backend) and not y.requires_grad
        for dtype in ("int64", np.dtype("int64"), np.int64):
            assert f(x, dtype).dtype == np.int64
        assert f(x, backend="cpu").backend.name == "numpy"
        assert f([[1, 2]]).dtype == np.int64


def test_two_tensors_share_no_memory():
    x = np.zeros(3)
    y = tl.zeros_like(x)
    y.data[:] = 1
    assert not x.any() and not tl.zeros_like(x).numpy().any()


# ---- mistakes ----------------------------------------------------------------------------------------------------

DTYPES = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64".split()  # noqa: SIM905


@pytest.mark.parametrize("dtype", DTYPES)
def test_creation_is_numpys_in_every_dtype(dtype, backend):
    """Where NumPy's numbers would not fit and wrap around, there is an error instead."""
    calls = [
        *[("arange", a) for a in ((5,), (-3, 4), (5, 0, -1), (0, 10, 3), (0, 0), (2,), (0.0, 5.0, 1.0), (300,))],
        *[("linspace", a) for a in ((-3, 3, 5), (3, -3, 7), (0, 1, 5), (-0.5, 0.5, 3), (0, 10, 0), (0, 10, 1))],
        *[("linspace", (*a, False)) for a in ((-3, 3, 5), (3, -3, 7), (0, 1, 5), (0, 10, 1))],
        *[("eye", a) for a in ((3,), (2, 3), (3, 2, 1), (3, 3, -1), (2, 0))],
        *[(name, (shape,)) for name in ("zeros", "ones") for shape in (2, (2, 3), (), 0)],
        *[("full", ((2, 3), value)) for value in (0, 1, -1, True, 300)],
    ]
    same = 0
    for name, arguments in calls:
        try:
            found = getattr(tl, name)(*arguments, dtype=dtype, backend=backend)
        except ValueError as error:
            assert f"{name}: dtype {dtype} cannot hold" in str(error)
            continue
        expected = getattr(np, name)(*arguments, dtype=dtype)
        assert found.dtype == expected.dtype and found.backend is backend
        np.testing.assert_array_equal(found.numpy(), expected, err_msg=f"{name}{arguments}")
        same += 1
    assert same >= len(calls) - 12


BAD = [
    (lambda: tl.zeros((2, -1)), ValueError, r"zeros: shape needs integers >= 0, got \(2, -1\)"),
    (lambda: tl.zeros((2, 1.5)), TypeError, r"zeros: shape needs integers >= 0, got \(2, 1.5\)"),
    (lambda: tl.ones(2.0), TypeError, "ones: shape needs an integer >= 0, got 2.0"),
    (lambda: tl.ones(-2), ValueError, "ones: shape needs an integer >= 0, got -2"),
    (lambda: tl.zeros(tl.zeros((2, 3))), TypeError, r"zeros: shape .* got a Tensor of shape \(2, 3\)"),
    (lambda: tl.zeros("23"), TypeError, "zeros: shape .* got '23'"),
    (lambda: tl.zeros(None), TypeError, "zeros: shape .* got None"),
    (lambda: tl.zeros(2, 3), TypeError, r"zeros: dtype .* got 3; a shape of several axes .*: zeros\(\(2, 3\)\)"),
    (lambda: tl.zeros(2, "float33"), TypeError, "zeros: dtype must be numeric, .* got 'float33'"),
    (lambda: tl.zeros(2, object), TypeError, "zeros: dtype must be numeric, .* got <class 'object'>"),
    (lambda: tl.zeros(2, None), TypeError, "zeros: dtype must be numeric, .* got None"),
    (lambda: tl.zeros(2, backend="torch"), ValueError, "backend: must be one of numpy, .* got 'torch'"),
    (lambda: tl.zeros(2, backend=["numpy"]), ValueError, r"backend: must be one of numpy, .* got \['numpy'\]"),
    (lambda: tl.full(2, [1, 2]), TypeError, r"full: the value must be a number, got \[1, 2\]"),
    (lambda: tl.full(2, tl.ones(2)), TypeError, r"full: the value must be a number, got a Tensor of shape \(2,\)"),
    (lambda: tl.full(2, 1.5, "int64"), ValueError, "full: dtype int64 cannot hold 1.5; pass another dtype"),
    (lambda: tl.full(2, 300, "uint8"), ValueError, "full: dtype uint8 cannot hold 300"),
    (lambda: tl.full(2, float("nan"), "int64"), ValueError, "full: dtype int64 cannot hold nan"),
    (lambda: tl.full_like([1, 2], 0.5), ValueError, "full_like: dtype int64 cannot hold 0.5"),
    (lambda: tl.zeros_like("abc"), TypeError, "zeros_like: data must be numbers"),
    (lambda: tl.arange(0, 5, 0), ValueError, "arange: .* a step that is not 0, got start=0, stop=5, step=0"),
    (lambda: tl.arange(float("inf")), ValueError, "arange: needs finite numbers .* stop=inf"),
    (lambda: tl.arange([3]), TypeError, r"arange: stop must be a number, got \[3\]"),
    (lambda: tl.arange(tl.ones(2), 3), TypeError, r"arange: start must be a number, got a Tensor of shape \(2,\)"),
    (lambda: tl.arange(0.5, 3, dtype="int64"), ValueError, "arange: dtype int64 cannot hold 0.5; pass another dtype"),
    (lambda: tl.arange(0, 3, 1.5, dtype="int8"), ValueError, "arange: dtype int8 cannot hold 1.5"),
    (lambda: tl.arange(-3, 3, dtype="uint8"), ValueError, "arange: dtype uint8 cannot hold -3"),
    (lambda: tl.arange(300, dtype="uint8"), ValueError, "arange: dtype uint8 cannot hold 299"),
    (lambda: tl.arange(3, dtype=bool), ValueError, "arange: dtype bool cannot hold 2"),
    (lambda: tl.linspace(0, 300, 4, dtype="uint8"), ValueError, "linspace: dtype uint8 cannot hold 300"),
    (lambda: tl.linspace(-0.5, 1, 4, dtype="uint8"), ValueError, "linspace: dtype uint8 cannot hold -1"),
    (lambda: tl.linspace(0, float("inf")), ValueError, "linspace: start and stop must be finite, got 0 and inf"),
    (lambda: tl.full(2, 1j), TypeError, r"full: the value must be a real number, got 1j"),
    (lambda: tl.zeros(2, "complex64"), TypeError, "zeros: complex numbers are not supported, got dtype complex64"),
    (lambda: tl.arange(3, dtype="int"[:2]), TypeError, "arange: dtype must be numeric, .* got 'in'"),
    (lambda: tl.linspace(0, 1, -1), ValueError, "linspace: num needs an integer >= 0, got -1"),
    (lambda: tl.linspace(0, 1, 2.5), TypeError, "linspace: num needs an integer >= 0, got 2.5"),
    (lambda: tl.linspace([0], 1, 2), TypeError, r"linspace: start must be a number, got \[0\]"),
    (lambda: tl.eye(-1), ValueError, r"eye: shape needs integers >= 0, got \(-1, -1\)"),
    (lambda: tl.eye((2, 3)), TypeError, r"eye: shape needs integers >= 0, got \(\(2, 3\), \(2, 3\)\)"),
    (lambda: tl.eye(2, 2.5), TypeError, r"eye: shape needs integers >= 0, got \(2, 2.5\)"),
]  # fmt: skip


test_mistakes_are_named_with_the_value_and_the_remedy = refused(BAD)
