"""Products with Jacobians and Hessians, and the matrices themselves."""

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.arrays.backend import get_backend
from tensorlib.optable import ROWS
from tests.edges import refused

A = np.random.default_rng(0).standard_normal((3, 4))
X, V, U = (np.random.default_rng(i).standard_normal(n) for i, n in ((1, 4), (2, 4), (3, 3)))


def on(backend, array):
    return tl.Tensor(array, backend=backend)


def close(x, expected, tolerance=1e-12):
    np.testing.assert_allclose(x.numpy(), expected, rtol=tolerance, atol=tolerance)


def layer(backend):
    """Y = tanh(A x), whose Jacobian is diag(1 - y^2) A."""
    a = on(backend, A)
    return lambda x: tl.tanh(a @ x)


JACOBIAN = (1 - np.tanh(A @ X) ** 2)[:, None] * A


def test_products_with_the_jacobian(backend):
    f, x = layer(backend), on(backend, X)
    y, product = tl.vjp(f, x, on(backend, U))
    close(y, np.tanh(A @ X))
    close(product, U @ JACOBIAN)
    y, product = tl.jvp(f, x, on(backend, V))
    close(y, np.tanh(A @ X))
    close(product, JACOBIAN @ V)
    close(tl.jacobian(f, x), JACOBIAN)
    assert not y.requires_grad and not product.requires_grad


def test_the_hessian_and_products_with_it(backend):
    a = on(backend, A)

    def f(x):
        return tl.exp(a @ x).sum()

    expected = A.T @ np.diag(np.exp(A @ X)) @ A
    x = on(backend, X)
    close(tl.hessian(f, x), expected)
    y, product = tl.hvp(f, x, on(backend, V))
    close(product, expected @ V)
    close(y, np.exp(A @ X).sum())


def test_several_inputs_and_outputs(backend):
    x, y = on(backend, X), on(backend, V)

    def f(x, y):
        return x * y, (x * x).sum()

    (dxy, dyx), (dsx, dsy) = tl.jacobian(f, (x, y))
    close(dxy, np.diag(V))
    close(dyx, np.diag(X))
    close(dsx, 2 * X)
    close(dsy, np.zeros(4))
    outputs, (vx, vy) = tl.vjp(f, (x, y), (on(backend, V), on(backend, np.array(3.0))))
    assert len(outputs) == 2
    close(vx, V * V + 6 * X)
    close(vy, V * X)
    outputs, (first, second) = tl.jvp(f, (x, y), (on(backend, V), on(backend, X)))
    close(first, V * V + X * X)
    close(second, 2 * X @ V)
    (hxx, hxy), (hyx, hyy) = tl.hessian(lambda x, y: (x * x * y).sum(), (x, y))
    close(hxx, np.diag(2 * V))
    close(hxy, np.diag(2 * X))
    close(hyx, np.diag(2 * X))
    close(hyy, np.zeros((4, 4)))


def test_shapes_are_those_of_output_and_input():
    x = tl.Tensor(np.ones((2, 3)))
    assert tl.jacobian(lambda x: x.sum(axis=0), x).shape == (3, 2, 3)
    assert tl.jacobian(lambda x: x.sum(), x).shape == (2, 3)
    assert tl.jacobian(lambda x: x[:0], x).shape == (0, 3, 2, 3)
    assert tl.hessian(lambda x: (x * x).sum(), x).shape == (2, 3, 2, 3)
    assert tl.vjp(lambda x: x.sum(), x)[1].shape == (2, 3)
    assert tl.jvp(lambda x: tl.exp(x), tl.Tensor(np.float64(0.0)))[1].item() == 1.0
    assert tl.hvp(lambda x: x**3, tl.Tensor(2.0))[1].item() == 12.0


def test_an_output_that_depends_on_nothing_has_zero_derivatives():
    x = tl.Tensor(X)
    constant = tl.Tensor([1.0, 2.0])
    close(tl.jacobian(lambda x: constant, x), np.zeros((2, 4)))
    close(tl.jvp(lambda x: constant, x, V)[1], [0, 0])
    close(tl.vjp(lambda x: constant, x, [1.0, 1.0])[1], np.zeros(4))
    close(tl.hessian(lambda x: x.sum(), x), np.zeros((4, 4)))


def test_only_the_argument_of_f_is_the_input():
    """Other uses of the same Tensor in f count as constants."""
    x = tl.Tensor([2.0], requires_grad=True)
    close(tl.vjp(lambda z: (z * x).sum(), x)[1], [2.0])
    close(tl.jacobian(lambda z: z * x, x, create_graph=True), [[2.0]])
    assert x.grad is None


def test_results_can_be_differentiated():
    x = tl.Tensor(X, requires_grad=True)
    matrix = tl.jacobian(lambda x: x**3, x, create_graph=True)  # diag(3 x^2)
    close(tl.grad((matrix * matrix).sum(), [x])[0], 36 * X**3)
    w = tl.Tensor(3.0, requires_grad=True, dtype="float64")
    product = tl.jvp(lambda x: w * w * x * x, x, V, create_graph=True)[1]  # 2 w^2 x v
    dw, dx = tl.grad(product.sum(), [w, x])
    close(dw, (4 * 3 * X * V).sum())
    close(dx, 2 * 9 * V)
    product = tl.hvp(lambda x: (x**4).sum(), x, V, create_graph=True)[1]  # 12 x^2 v
    close(tl.grad(product.sum(), [x])[0], 24 * X * V)
    assert not tl.jacobian(lambda x: x**3, x).requires_grad


def test_they_work_within_no_grad():
    with tl.no_grad():
        close(tl.jacobian(lambda x: x * x, tl.Tensor(X)), np.diag(2 * X))
    assert tl.is_grad_enabled()


def test_create_graph_works_within_no_grad():
    x = tl.Tensor(X, requires_grad=True)
    total = (x * x).sum()
    with tl.no_grad():
        matrix = tl.jacobian(lambda x: x**3, x, create_graph=True)
        twice = tl.grad(total, [x, x], create_graph=True)
    close(tl.grad((matrix * matrix).sum(), [x])[0], 36 * X**3)
    close(tl.grad(twice[1].sum(), [x])[0], np.full(4, 2.0))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("row", [row for row in ROWS if row.differentiable], ids=lambda row: row.name)
def test_both_products_of_every_op_agree(row, dtype):
    """<u, J v> = <J^T u, v>: through the op's gradient, and through the gradient of that gradient."""
    sample = row.samples[0]
    f = row.bound(sample, get_backend("numpy"))
    arrays = tuple(a for a in row.arrays(sample, dtype))
    rng = np.random.default_rng(0)

    def floats(*xs):
        ys = f(*xs)
        return tuple(y for y in (ys if isinstance(ys, tuple | list) else (ys,)) if y.dtype.kind == "f")

    vs = tuple(tl.Tensor(rng.standard_normal(a.shape).astype(dtype)) for a in arrays)
    ys, along = tl.jvp(floats, arrays, vs)
    us = tuple(tl.Tensor(rng.standard_normal(y.shape).astype(y.dtype)) for y in ys)
    _, back = tl.vjp(floats, arrays, us)
    assert [d.dtype for d in along] == [y.dtype for y in ys] and [d.dtype for d in back] == [a.dtype for a in arrays]
    left, right = (
        [(u.numpy().astype(float) * d.numpy()) for u, d in pairs]
        for pairs in (zip(us, along, strict=True), zip(vs, back, strict=True))
    )
    scale = sum(np.abs(p).sum() for p in (*left, *right))
    tolerance = {"float16": 2e-2, "float32": 1e-5, "float64": 1e-13}[dtype]
    assert abs(sum(p.sum() for p in left) - sum(p.sum() for p in right)) <= tolerance * scale


def test_dtypes_are_kept_and_arrays_accepted():
    y, product = tl.jvp(lambda x: x * x, np.float32([1, 2]), [1.0, 1.0])
    assert product.numpy().tolist() == [2.0, 4.0]
    assert y.dtype == product.dtype == np.float32
    assert tl.hessian(lambda x: (x * x).sum(), (np.float32([1.0]),))[0][0].numpy().tolist() == [[2.0]]


x3 = tl.Tensor([1.0, 2.0, 3.0])

BAD = [
    (lambda: tl.vjp(lambda x: x, x3), ValueError, r"vjp: v is required unless the output is a scalar; .* \(3,\)"),
    (lambda: tl.vjp(lambda x: x, x3, tl.ones(2)), ValueError, r"vjp: v must have the shape of the output, \(3,\); .*2"),
    (lambda: tl.jvp(lambda x: x.sum(), x3, tl.ones((1, 3))), ValueError, r"jvp: .* of the input, \(3,\); got \(1, 3\)"),
    (
        lambda: tl.jvp(lambda x, y: x, (x3, x3), (x3,)),
        ValueError,
        "jvp: v must hold 2 vectors, one for each Tensor of the input; got 1",
    ),
    (lambda: tl.hvp(lambda x: x, x3, x3), ValueError, r"hvp: f must return one scalar, but it returned shape \(3,\)"),
    (lambda: tl.hessian(lambda x: (x.sum(), x.sum()), x3), ValueError, r"hessian: .* returned shape \(\), \(\)"),
    (lambda: tl.jacobian(lambda x: x, [1, 2]), TypeError, "jacobian: input 0 must be .* got int64; use .astype"),
    (lambda: tl.jacobian(lambda x: x > 0, x3), TypeError, "jacobian: f must return .* it returned a bool Tensor"),
    (lambda: tl.jacobian(lambda x: x.numpy(), x3), TypeError, "jacobian: f must return .* it returned a ndarray"),
]


test_mistakes_are_named_with_the_value_and_the_remedy = refused(BAD)


@pytest.mark.parametrize("transform", [tl.vjp, tl.jvp, tl.hvp, tl.jacobian, tl.hessian])
def test_a_list_of_numbers_holds_several_inputs(transform):
    """As in JAX. For one input it would be an array."""
    name = transform.__name__
    with pytest.raises(
        TypeError, match=rf"{name}: a list holds several inputs, .* each of 2 .*; for one input pass a Ten"
    ):
        transform(lambda x: (x * x).sum(), [1.0, 2.0])
    with pytest.raises(TypeError, match=rf"{name}: a tuple holds several inputs, .* missing a required argument: 'y'"):
        transform(lambda x, y: x * y, (2.0,))
    with pytest.raises(TypeError, match=r"^inside$"):  # an error of f itself is its own
        transform(wrong_inside, (2.0,))


def wrong_inside(x):
    raise TypeError("inside")


def test_several_inputs_may_be_a_list():
    assert [x.item() for x in tl.jacobian(lambda x, y: x * y, [2.0, 3.0])] == [3.0, 2.0]
