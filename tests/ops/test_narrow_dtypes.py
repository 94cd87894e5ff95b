"""float16 and small integers: counts and sums that the dtype of the array cannot hold."""

import numpy as np
import pytest

import tensorlib as tl
from tests.edges import assert_edge, edge


def numbers(*shape, seed=0):
    """Return float16 numbers from 0.1 to 1: their sums grow with the number of terms."""
    return np.random.default_rng(seed).uniform(0.1, 1, shape).astype(np.float16)


IDS = np.random.default_rng(0).integers(0, 3, 20_000)  # each of three ids some 6,700 times
CLASSES = np.random.default_rng(0).integers(0, 500, 64)

SUMS = {
    "sum": (lambda x: tl.sum(x, 0), (5000, 2)),
    "mean": (lambda x: tl.mean(x, 0), (5000, 2)),
    "var": (lambda x: tl.var(x, 0), (5000, 2)),
    "std": (lambda x: tl.std(x, 0), (5000, 2)),
    "norm": (lambda x: tl.norm(x, 2, 0), (5000, 2)),
    "norm of order 3": (lambda x: tl.norm(x, 3, 0), (5000, 2)),
    "logsumexp": (lambda x: tl.logsumexp(x, 0), (5000, 2)),
    "cumsum": (lambda x: tl.cumsum(x, 0), (5000, 2)),
    "prod": (lambda x: tl.prod(2 * x, 0), (30, 2)),
    "softmax": (lambda x: tl.softmax(x, 0), (5000, 2)),
    "log_softmax": (lambda x: tl.log_softmax(x, 0), (5000, 2)),
    "matmul": (tl.matmul, (20, 5000), (5000, 3)),
    "matmul of a batch": (tl.matmul, (5000, 2, 3), (3, 4)),
    "linear": (tl.linear, (5000, 3), (3, 4), (4,)),
    "linear_relu": (tl.linear_relu, (5000, 3), (3, 4), (4,)),
    "dot": (tl.dot, (5000,), (5000,)),
    "tensordot": (tl.tensordot, (20, 50, 40), (50, 40, 3)),
    "trace": (tl.trace, (3000, 3000)),
    "einsum": (lambda x, y, z: tl.einsum("ij,jk,kl->il", x, y, z), (3, 200), (200, 300), (300, 3)),
    "attention": (lambda q, k, v: tl.scaled_dot_product_attention(8 * q, 8 * k, v), (3, 64, 8), (3, 64, 8), (3, 64, 8)),
    "conv2d": (tl.conv2d, (2, 8, 20, 20), (4, 8, 7, 7), (4,)),
    "avg_pool": (lambda x: tl.avg_pool(x, 60, 1), (1, 1, 300)),
    "max_pool": (lambda x: tl.max_pool(x, 60, 1), (1, 1, 300)),
    "embedding": (lambda x: tl.embedding(x, IDS), (3, 2)),
    "getitem": (lambda x: x[IDS], (3, 2)),
    "take_along_axis": (lambda x: tl.take_along_axis(x, IDS), (3,)),
    "index_add": (lambda x, source: tl.index_add(x, 0, IDS, source), (3, 2), (20_000, 2)),
    "broadcasting": (lambda x, y: x * y, (5000, 2), (2,)),
    "layer_norm": (tl.layer_norm, (5000, 8), (8,), (8,)),
    "batch_norm": (tl.batch_norm, (5000, 2), (2,), (2,)),
    "cosine_similarity": (tl.cosine_similarity, (800,), (1000, 800)),
    "cross_entropy": (lambda x: tl.cross_entropy(8 * x, CLASSES, label_smoothing=0.1), (64, 500)),
    "linear_cross_entropy": (lambda x, w: tl.linear_cross_entropy(8 * x, w, None, CLASSES), (64, 30), (30, 500)),
    "kl_div": (lambda x, y: tl.kl_div(x, y, "sum"), (100, 100), (100, 100)),
    "arctan": (lambda x: tl.arctan(1024 * x), (100,)),
    "arctan2": (lambda y, x: tl.arctan2(1024 * x, 1024 * y), (100,), (100,)),
}  # fmt: skip


@pytest.mark.parametrize("name", SUMS)
def test_float16_gives_the_rounded_values_and_gradients_of_float64(name, backend):
    f, *shapes = SUMS[name]
    arrays = [numbers(*shape, seed=seed) for seed, shape in enumerate(shapes)]

    def values_and_gradients(dtype):
        xs = [tl.Tensor(a, dtype=dtype, requires_grad=True, backend=backend) for a in arrays]
        y = f(*xs)
        dy = tl.Tensor(numbers(*y.shape, seed=9), dtype=dtype, backend=backend)
        return [z.numpy() for z in (y, *tl.grad(y, xs, dy))]

    for half, exact in zip(values_and_gradients("float16"), values_and_gradients("float64"), strict=True):
        assert half.dtype == np.float16
        with np.errstate(over="ignore"):  # a gradient that float16 cannot hold is infinite
            rounded = exact.astype("float16")
        spacing = 2.0**-10 * np.abs(exact).max()  # two roundings: one of the result, one on the way
        np.testing.assert_allclose(half, rounded, rtol=0, atol=min(1.5 * spacing, 65504))


@pytest.mark.parametrize("f", [tl.max, tl.amax, tl.min, tl.amin, lambda x: tl.norm(x, np.inf), lambda x: x.max(axis=0)])
def test_a_count_of_ties_may_exceed_what_float16_holds(f, backend):
    with np.errstate(over="raise", invalid="raise"):
        assert_edge(edge(f, np.ones(70_000), backend=backend, dtype="float16"), 1, np.full(70_000, np.float16(1 / 7e4)))


def multiplied(x, y):
    return tl.einsum("ij,ij->", x, y)


def attended(q, k):
    return tl.scaled_dot_product_attention(q, k, k)


def test_a_float16_operand_does_not_narrow_the_result(backend):
    """The result has the dtype of the widest operand, whichever comes first, as in NumPy."""
    x = tl.Tensor([[1.0, 2.0]], dtype="float16", backend=backend)
    for dtype in ("float32", "float64"):
        y = x.astype(dtype)
        for f in (tl.mse_loss, tl.kl_div, tl.cosine_similarity, multiplied, attended):
            assert f(x, y).dtype == f(y, x).dtype == dtype
    assert tl.mse_loss(x, [[1, 2]]).dtype == tl.norm(x, ord=np.float64(2)).dtype == np.float16


@pytest.mark.parametrize("dtype", ["int8", "uint8", "bool"])
def test_small_integers_are_counted_and_summed_in_wider_numbers(dtype, backend):
    x = tl.Tensor(np.ones(70_000, dtype), backend=backend)
    found = [f(x).item() for f in (tl.sum, tl.mean, tl.std, tl.count_nonzero)]
    assert found == [70_000, 1, 0, 70_000] and tl.cumsum(x)[-1].item() == 70_000
    assert tl.norm(x).item() == pytest.approx(70_000**0.5)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_small_integers_select_from_an_axis_that_they_cannot_count(dtype, backend):
    x = tl.Tensor(np.arange(300.0), backend=backend, requires_grad=True)
    ids = np.array([5, 127, 5], dtype)
    for y in (x[ids], x.take(ids), tl.take_along_axis(x, ids), tl.embedding(x.reshape(300, 1), ids)):
        (dx,) = tl.grad(y.sum(), [x], retain_graph=True)
        assert dx.numpy()[[5, 127]].tolist() == [2, 1] and dx.sum().item() == 3
    assert tl.one_hot(ids, 300).numpy().argmax(axis=1).tolist() == [5, 127, 5]
    logits = tl.zeros((3, 300), backend=backend)
    assert tl.cross_entropy(logits, ids).item() == pytest.approx(np.log(300))
