"""Functions that are the same, written differently, agree at infinities, NaN, zeros, ties, huge and tiny numbers.

On the backend "numpy" kernels run, on the strict one the formulas, so that kernels and formulas are compared too.
"""

from itertools import product
from math import inf, nan

import numpy as np
import pytest

import tensorlib as tl

TINY = 1e-45  # subnormal in float32, 0 in float16
NUMBERS = np.array([0.0, -0.0, 0.5, 1.0, -1.0, 20.0, -20.0, 1000.0, -1000.0, 1e30, -1e30, TINY, -TINY, inf, -inf, nan])
POSITIVE = np.array([0.0, 0.5, 1.0, 3.0, 1000.0, 1e30, inf])
PAIRS = np.array([*product(NUMBERS, NUMBERS)])
ORDERED = PAIRS[~np.isnan(PAIRS).any(axis=1)]
ROWS = np.array([
    [1, 2, 3], [0, 0, 0], [2, 2, -1], [1000, 999, -1000], [1e30, 1e30, -1e30], [1e30, -1e30, 0], [1e-30, -1e-30, 0],
    [TINY, 0, -TINY], [1, inf, 2], [inf, 1, inf], [inf, inf, inf], [1, -inf, 2], [-inf, -inf, -inf], [-inf, 0, inf],
    [nan, 1, 2], [1, nan, inf], [7, 7, 7], [1e4, 1e4, 0],
])  # fmt: skip
FINITE = ROWS[np.isfinite(ROWS).all(axis=1)]
CLASSES = np.arange(len(ROWS)) % 3


def zeros(x):
    return tl.zeros(x.shape, x.dtype, backend=x.backend)


def ones(x):
    return zeros(x) + 1.0


def of_pairs(f):
    return lambda x: f(x[:, 0], x[:, 1])


def of_each_row(f):
    return lambda x: tl.stack([f(row) for row in x])


def bce(logits, target):
    return tl.binary_cross_entropy_with_logits(logits, zeros(logits) + target, reduction="none")


def cross_entropy_of_one(row, target):
    """Return the loss of one row of logits, as the weight of a layer whose input is 1."""
    return tl.linear_cross_entropy(ones(row[:1, None]), row[None], None, [target], reduction="sum")


def attention_weights(row):
    """With the query 1, the scores are the keys; with the unit vectors as values, the output is the weights."""
    return tl.scaled_dot_product_attention(ones(row[:1, None]), row[:, None], unit(row))[0]


def unit(x, size=3):
    return tl.Tensor(np.eye(size), dtype=x.dtype, backend=x.backend)


def gradient_of_logsumexp(x):
    """Return the softmax in another way; its own gradient is a second derivative."""
    return tl.grad(tl.logsumexp(x, axis=1), [x], ones(x[:, 0]), create_graph=True)[0]


def negated_entropies(entropy):
    """Return log-probabilities from the entropy of every class."""
    return lambda x: -tl.stack([entropy(x, np.full(len(ROWS), k)) for k in range(3)], axis=1)


SIBLINGS = {
    "softplus": (NUMBERS, [
        tl.softplus, lambda x: tl.logaddexp(x, zeros(x)), lambda x: -tl.log_sigmoid(-x), lambda x: bce(x, 0.0),
        lambda x: bce(-x, 1.0),
    ]),
    "sigmoid": (NUMBERS, [
        tl.sigmoid, lambda x: 0.5 + 0.5 * tl.tanh(0.5 * x), lambda x: tl.exp(tl.log_sigmoid(x)),
    ]),
    "sigmoid as a softmax": (NUMBERS[NUMBERS <= 1000], [
        tl.sigmoid, lambda x: tl.softmax(tl.stack([x, zeros(x)]), axis=0)[0],
    ]),
    "silu": (NUMBERS, [
        tl.silu, lambda x: x * tl.sigmoid(x), lambda x: tl.glu(tl.concatenate([x, x])),
        lambda x: tl.swiglu(tl.concatenate([x, ones(x)])),
    ]),
    "square": (NUMBERS, [
        tl.square, lambda x: x * x, lambda x: x**2, lambda x: tl.power(x, ones(x) * 2.0),
        lambda x: tl.mse_loss(x, zeros(x), "none"), lambda x: x**2.0,
    ]),
    "1": (NUMBERS[:-1], [lambda x: x**0, lambda x: tl.power(x, zeros(x)), lambda x: 1.0 + 0.0 * tl.clip(x, -1.0, 1.0)]),
    "reciprocal": (NUMBERS, [tl.reciprocal, lambda x: 1.0 / x, lambda x: x**-1.0, lambda x: tl.power(x, -ones(x))]),
    "sqrt": (POSITIVE, [tl.sqrt, lambda x: x**0.5, lambda x: tl.power(x, 0.5 * ones(x))]),
    "rsqrt": (POSITIVE, [tl.rsqrt, lambda x: x**-0.5, lambda x: 1.0 / tl.sqrt(x)]),
    "exp": (NUMBERS, [tl.exp, lambda x: tl.exp2(x / np.log(2)), lambda x: tl.expm1(x) + 1.0]),
    "log": (POSITIVE, [tl.log, lambda x: tl.log2(x) * np.log(2), lambda x: tl.log10(x) * np.log(10)]),
    "abs": (NUMBERS, [
        tl.abs, lambda x: tl.l1_loss(x, zeros(x), "none"), lambda x: tl.norm(x[:, None], 1, axis=1),
        lambda x: tl.norm(x[:, None], inf, axis=1),
    ]),
    "abs of finite numbers": (NUMBERS[np.abs(NUMBERS) <= 1000], [
        tl.abs, lambda x: tl.norm(x[:, None], 2, axis=1), lambda x: tl.norm(x[:, None], 3, axis=1),
    ]),
    "half the square": (np.array([0, 1, -1, 0.5, 9]), [
        lambda x: 0.5 * x * x, lambda x: tl.huber_loss(x, zeros(x), 10.0, "none"),
    ]),
    "hidden": (NUMBERS, [
        lambda x: tl.where(NUMBERS > 0, 0.0, x), lambda x: tl.masked_fill(x, NUMBERS > 0, 0.0),
    ]),
    "logaddexp": (PAIRS, [
        of_pairs(tl.logaddexp), lambda x: tl.logsumexp(x, axis=1), lambda x: tl.logcumsumexp(x, axis=1)[:, 1],
        lambda x: tl.logsumexp(x[:, :, None], axis=(1, 2)),
    ]),
    "maximum": (ORDERED, [
        of_pairs(tl.maximum), of_pairs(lambda x, y: -tl.minimum(-x, -y)), lambda x: tl.amax(x, 1),
        lambda x: -tl.min(-x, 1), lambda x: tl.max_pool(x[None], 2)[0, :, 0],
    ]),
    "softmax": (ROWS, [
        tl.softmax, lambda x: tl.exp(tl.log_softmax(x)), of_each_row(attention_weights),
        lambda x: tl.softmax(x, visible=tl.ones(x.shape, bool, backend=x.backend)),
    ]),
    "softmax as a gradient": (ROWS[(ROWS <= 1e4).all(axis=1)], [tl.softmax, gradient_of_logsumexp]),
    "log_softmax": (ROWS, [
        tl.log_softmax, negated_entropies(lambda x, k: tl.cross_entropy(x, k, reduction="none")),
        negated_entropies(lambda x, k: tl.nll_loss(tl.log_softmax(x), k, reduction="none")),
    ]),
    "cross_entropy": (ROWS, [
        lambda x: tl.cross_entropy(x, CLASSES, reduction="none"),
        lambda x: tl.nll_loss(tl.log_softmax(x), CLASSES, reduction="none"),
        lambda x: tl.cross_entropy(x, unit(x)[CLASSES], reduction="none"),
        lambda x: tl.kl_div(tl.log_softmax(x), unit(x)[CLASSES], "none").sum(axis=1),
        lambda x: tl.stack([cross_entropy_of_one(x[i], CLASSES[i]) for i in range(len(x))]),
    ]),
    "smoothed cross_entropy": (ROWS[~np.isinf(ROWS).any(axis=1)], [
        lambda x: tl.cross_entropy(x, CLASSES[: len(x)], label_smoothing=0.1, reduction="none"),
        lambda x: tl.cross_entropy(x, unit(x)[CLASSES[: len(x)]], label_smoothing=0.1, reduction="none"),
    ]),
    "sum": (ROWS, [
        lambda x: tl.sum(x, 1), lambda x: 3 * tl.mean(x, 1), lambda x: tl.einsum("ij->i", x),
        lambda x: tl.cumsum(x, 1)[:, -1], lambda x: 3 * tl.avg_pool(x[None], 3)[0, :, 0], lambda x: x @ ones(x[0]),
    ]),
    "prod": (ROWS, [
        lambda x: tl.prod(x, 1), lambda x: tl.cumprod(x, 1)[:, -1],
    ]),
    "var": (FINITE[np.abs(FINITE).max(axis=1) < 1e5], [
        lambda x: tl.var(x, 1), lambda x: tl.std(x, 1) ** 2, lambda x: tl.mean((x - x.mean(1, True)).square(), 1),
        lambda x: tl.norm(x - x.mean(1, True), 2, 1) ** 2 / 3,
    ]),
    "std": (FINITE, [lambda x: tl.std(x, 1), lambda x: tl.norm(x - x.mean(1, True), 2, 1) / np.sqrt(3)]),
    "max": (ROWS, [lambda x: tl.max(x, 1), lambda x: -tl.amin(-x, 1), lambda x: tl.max_pool(x[None], 3)[0, :, 0]]),
    "a product": (ROWS, [
        lambda x: tl.matmul(x, unit(x)), lambda x: tl.dot(x, unit(x)), lambda x: tl.tensordot(x, unit(x), 1),
        lambda x: tl.einsum("ij,jk->ik", x, unit(x)), lambda x: tl.linear(x, unit(x)),
        lambda x: tl.linear(x, unit(x), zeros(x[0])), lambda x: (x[:, :, None] * unit(x)).sum(axis=1),
        lambda x: tl.conv1d(x[:, :, None], unit(x)[:, :, None])[:, :, 0],
        lambda x: tl.matmul(x[:, None], unit(x))[:, 0],
    ]),
}  # fmt: skip

# Differences that are meant: at inf the softmax is NaN, as in PyTorch, but the gradient of `logsumexp` is its limit;
# `relu`, `clip` and `maximum` have different gradients at a tie; `logsumexp` is less accurate than `logaddexp` near 0.
TOLERANCE = {"float16": 4e-3, "float32": 2e-6, "float64": 1e-14}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", SIBLINGS)
def test_siblings_agree_at_the_edges(name, dtype, backend):
    numbers, functions = SIBLINGS[name]
    if backend.name == "cupy" and dtype == "float32":
        numbers = np.where(
            np.abs(numbers) < np.finfo(dtype).tiny, np.copysign(0.0, numbers), numbers
        )  # see docs/gpu.md
    with np.errstate(all="ignore"):
        found = [value_and_gradient(f, numbers.astype(dtype), backend) for f in functions]
    for other in found[1:]:
        for f, g, what in zip(found[0], other, ("value", "gradient"), strict=True):
            assert f.dtype == g.dtype == dtype
            tolerance = TOLERANCE[dtype]
            np.testing.assert_allclose(g, f, rtol=8 * tolerance, atol=tolerance, err_msg=f"{name}: {what}")


def value_and_gradient(f, x, backend):
    x = tl.Tensor(x, requires_grad=True, backend=backend)
    y = f(x)
    dy = tl.Tensor(np.arange(1, y.size + 1).reshape(y.shape) % 7 + 1.0, dtype=y.dtype, backend=backend)
    return y.numpy(), tl.grad(y, [x], dy)[0].numpy()
