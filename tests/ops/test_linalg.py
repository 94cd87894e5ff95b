"""Products of matrices, einsum, diagonals and triangles: edge cases, and mistakes."""

from math import inf, nan

import numpy as np
import pytest

import tensorlib as tl
from tests.edges import assert_edge, edge, refused_of_a_matrix
from tests.strict import STRICT

# ---- products ----------------------------------------------------------------------------------------------------


def test_matmul_keeps_only_what_the_wanted_gradients_use(backend):
    array = np.ones((2, 2))
    x, y = (tl.Tensor(array, requires_grad=True, backend=backend) for _ in range(2))
    constant = tl.Tensor(array, backend=backend)
    for z, kept in ((x @ constant, [constant]), (constant @ y, [constant]), (x @ y, [x, y])):
        assert [id(a) for a in z.node.saved] == [id(k.data) for k in kept]
    x.replace(x.data * 2)
    tl.grad((x @ constant).sum(), [x])
    z = x @ constant
    x.replace(x.data * 2)
    assert_edge([tl.grad(z.sum(), [x])[0].numpy()], [[2, 2], [2, 2]])  # its gradient needs no x, which may change


def test_a_product_of_float16_is_added_up_in_float32():
    half = tl.Tensor(np.full(3000, 1.0), dtype="float16")
    assert (half @ half).item() == 3000


def test_lists_stand_beside_tensors_of_any_backend(backend):
    x = tl.Tensor([[1.0, 2.0]], backend=backend)
    for y in (x @ [[3.0], [4.0]], tl.einsum("ij,jk", x, [[3.0], [4.0]]), tl.dot(x, [[3.0], [4.0]])):
        assert y.backend is backend and y.item() == 11
    assert tl.outer([1.0, 2.0], x).shape == (2, 2)
    assert tl.tensordot(2.0, x, axes=0).shape == (1, 2)


@pytest.mark.parametrize(
    "product",
    [tl.matmul, tl.dot, tl.outer, lambda x, y: tl.tensordot(x, y, 1), lambda x, y: tl.einsum("ij,jk->ik", x, y)],
)
def test_products_never_mix_backends(product):
    with pytest.raises(TypeError, match="operands must be on one backend, got numpy and strict; move one with"):
        product(tl.ones((2, 2)), tl.Tensor(np.ones((2, 2)), backend=STRICT))


# ---- einsum ------------------------------------------------------------------------------------------------------


def test_einsum_agrees_with_numpy_on_random_subscripts(backend):
    """Up to three operands of up to four axes, letters repeated as they come, sizes of 1 that broadcast, and '...'."""
    rng = np.random.default_rng(0)
    sizes = dict(zip("abcd", (2, 3, 1, 4), strict=True))
    for _ in range(300):
        terms = ["".join(rng.choice([*"abcd"], rng.integers(0, 4))) for _ in range(rng.integers(1, 4))]
        letters = sorted(set("".join(terms)))
        output = "".join(rng.permutation(letters)[: rng.integers(0, len(letters) + 1)])
        dots = rng.random() < 0.3
        arrays = []
        for term in terms:
            narrow = set(rng.choice([*"abcd"], 1)) if rng.random() < 0.2 else set()
            further = [(5, 1)[rng.integers(2)]] if dots else []
            arrays.append(rng.normal(size=[*further, *(1 if c in narrow else sizes[c] for c in term)]))
        subscripts = ",".join("..." * dots + term for term in terms)
        if rng.random() < 0.7:
            subscripts += "->" + "..." * dots + output
        found = tl.einsum(subscripts, *[tl.Tensor(a, backend=backend) for a in arrays]).numpy()
        np.testing.assert_allclose(found, np.einsum(subscripts, *arrays), rtol=1e-12, atol=1e-12, err_msg=subscripts)


def test_einsum_of_the_same_tensor_twice(backend):
    assert_edge(edge(lambda x: tl.einsum("ij,kj->ik", x, x), [[1, 2]], backend=backend), [[5]], [[2, 4]])
    assert_edge(edge(lambda x: tl.einsum("ii,ii", x, x), [[1, 2], [3, 4]], backend=backend), 17, [[2, 0], [0, 8]])


# ---- diagonals and triangles -------------------------------------------------------------------------------------


def test_triangles_drop_what_is_not_finite(backend):
    found = edge(tl.tril, [[1, inf], [2, 3]], backend=backend, cotangent=[[1, inf], [nan, 1]])
    assert_edge(found, [[1, 0], [2, 3]], [[1, 0], [nan, 1]])
    found = edge(lambda x: x.triu(1), [[nan, 2], [inf, 3]], backend=backend, cotangent=[[inf, 1], [1, inf]])
    assert_edge(found, [[0, 2], [0, 0]], [[0, 1], [0, 0]])


def test_triangles_and_diagonals_keep_the_dtype(backend):
    for dtype in ("bool", "int32", "float16", "float32"):
        x = tl.Tensor(np.ones((2, 2)), dtype=dtype, backend=backend)
        for y in (x.tril(), x.triu(1), x.diagonal()):
            assert y.dtype == dtype
    assert_edge([tl.Tensor([[1, 2], [3, 4]], backend=backend).trace().numpy()], 5)


def test_lists_are_taken_too():
    assert tl.matmul([[1.0, 2.0]], tl.ones((2, 1))).numpy().tolist() == [[3.0]]


# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda x: x @ x, ValueError, r"matmul: inner sizes must agree, got \(2, 3\) and \(2, 3\); did you mean"),
    (lambda x: x @ x[0, 0], ValueError, "matmul: both operands must have at least one dimension"),
    (lambda x: x @ 3, ValueError, "matmul: both operands must have at least one dimension, got a scalar; use *"),
    (lambda x: x.reshape(2, 3, 1) @ tl.einsum("ij->ji", x)[:, None, :], ValueError,
     r"matmul: axes before the last two must broadcast, got shapes \(2, 3, 1\) and \(3, 1, 2\)"),
    (lambda x: x.dot(x), ValueError, r"dot: the last axis of x and axis 0 of y .* got shapes \(2, 3\) and \(2, 3\)"),
    (lambda x: x.dot(x[0, :2]), ValueError, r"dot: the last axis of x and axis 0 of y .* \(2, 3\) and \(2,\)"),
    (lambda x: tl.tensordot(x, x, 1), ValueError, r"tensordot: axes that meet .* got 3 on axis 1 of x and 2 on axis 0"),
    (lambda x: tl.tensordot(x, x, 3), ValueError, "tensordot: axes must lie between 0 and .*, 2 and 2; got 3"),
    (lambda x: tl.tensordot(x, x, 1.5), TypeError, "tensordot: axes must be an integer, or the axes of x .* got 1.5"),
    (lambda x: tl.tensordot(x, x, [0, 1, 1]), ValueError, r"tensordot: axes must be a pair, .* got \[0, 1, 1\]"),
    (lambda x: tl.tensordot(x, x, [[0, 1], 0]), ValueError, r"tensordot: needs as many .* got \[0, 1\] and \[0\]"),
    (lambda x: tl.tensordot(x, x, [[0, 0], [0, 1]]), ValueError, r"tensordot: axes must differ, got \(0, 0\)"),
    (lambda x: tl.tensordot(x, x, [2, 0]), ValueError, r"tensordot: axis must lie in \[-2, 2\) .* got 2"),
    (lambda x: x[0].trace(), ValueError, r"trace: needs at least two axes, got shape \(3,\)"),
    (lambda x: x.trace(axis1=1, axis2=-1), ValueError, "trace: axis1 and axis2 must differ, got 1 for both"),
    (lambda x: x.diagonal(axis2=2), ValueError, r"diagonal: axis must lie in \[-2, 2\) .* got 2"),
    (lambda x: x.diagonal(axis1=(0, 1)), TypeError, r"diagonal: axis must be one integer, got \(0, 1\)"),
    (lambda x: x.diagonal(0.5), TypeError, "diagonal: offset must be an integer, got 0.5"),
    (lambda x: x[0].diagonal(), ValueError, r"diagonal: needs at least two axes, got shape \(3,\)"),
    (lambda x: x[0].tril(), ValueError, r"tril: needs a matrix \(..., n, m\), got shape \(3,\)"),
    (lambda x: x.tril(k=None), TypeError, "tril: k must be an integer, got None"),
    (lambda x: x.triu(0.5), TypeError, "triu: k must be an integer, got 0.5"),
    (lambda x: tl.einsum(x, "ij"), TypeError, 'einsum: subscripts must come first, as in "ij,jk->ik", got Tensor'),
    (lambda x: tl.einsum("ij,jk->ik", x), ValueError, "einsum: 'ij,jk->ik' needs 2 operands, got 1"),
    (lambda x: tl.einsum("ij,jk->ik", x, x), ValueError, "einsum: subscript 'j' must have one size, got 3 and 2, in"),
    (lambda x: tl.einsum("...,...", x, x[:, :2]), ValueError, "einsum: axis -1 of '...' must .* got 3 and 2"),
    (lambda x: tl.einsum("ii", x), ValueError, "einsum: subscript 'i' must have one size, got 2 and 3, in 'ii'"),
    (lambda x: tl.einsum("ii", x[:, :1]), ValueError, "einsum: subscript 'i' must have one size, got 2 and 1, in 'ii'"),
    (lambda x: tl.einsum("ii", x[:1]), ValueError, "einsum: subscript 'i' must have one size, got 1 and 3, in 'ii'"),
    (lambda x: tl.einsum("i->i", x), ValueError, r"einsum: 'i' must have a letter .* operand 0 has shape \(2, 3\)"),
    (lambda x: tl.einsum("ijk...", x), ValueError, r"einsum: 'ijk...' must have .* operand 0 has shape \(2, 3\)"),
    (lambda x: tl.einsum("ij->ik", x), ValueError, "einsum: the output has 'k', which no operand has, in 'ij->ik'"),
    (lambda x: tl.einsum("ij->ii", x), ValueError, "einsum: the output may have 'i' only once, in 'ij->ii'"),
    (lambda x: tl.einsum("i1->i", x), ValueError, "einsum: subscripts are letters, .* got '1' in 'i1->i'"),
    (lambda x: tl.einsum("ij->i->j", x), ValueError, "einsum: subscripts are letters, .* got '-' in 'ij->i->j'"),
    (lambda x: tl.einsum("i..", x), ValueError, "einsum: subscripts are letters, .* got '.' in 'i..'"),
    (lambda x: tl.einsum("...j->j", x), ValueError, "einsum: the output must contain '...' .* got 'j'"),
]  # fmt: skip


test_mistakes_are_named_with_the_value_and_the_remedy = refused_of_a_matrix(BAD)
