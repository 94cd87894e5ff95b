"""Samples for every formula that a kernel may override: generators of lists of arguments, by the formula's name.

A last argument that is a dict holds the keyword arguments. The sizes lie on both sides of every size at which a kernel
changes its method.
"""

import numpy as np

from tensorlib.ops.activations import gelu_formula
from tensorlib.ops.add_norm import add_norm_formula
from tensorlib.ops.attention import AttentionPattern, attention_formula
from tensorlib.ops.feed_forward import feed_forward_formula
from tensorlib.ops.linear_cross_entropy import linear_cross_entropy_formula
from tensorlib.ops.multi_head_attention import cross_attention_formula, self_attention_formula
from tensorlib.ops.next_position import DecoderLayer, Memory, SubLayer, panels_of
from tensorlib.ops.update_in_place import Guard

SHAPES = [(2, 3), (1, 1), (5, 1), (1, 7), (0, 4), (3, 0, 4), (2, 3, 5), (3, 32), (33, 257), (4,), (2000, 300)]
inf = np.inf


def normal(rng, shape, dtype):
    return np.asarray(3 * rng.standard_normal(shape), dtype)


def softmax_formulas(rng, dtype):
    for shape in SHAPES:
        x = normal(rng, shape, dtype)
        for axis in {0, len(shape) - 1}:
            yield x, axis, None
        yield x, len(shape) - 1, rng.random(shape) < 0.5
        yield x, len(shape) - 1, rng.random(shape[-1:]) < 0.5
    x = normal(rng, (2, 3, 4, 5), dtype)
    for shape in (x.shape, (2, 1, 1, 5), (1, 3, 4, 1), (4, 5)):
        yield x, -1, rng.random(shape) < 0.5
    yield x, 3, (rng.random(x.shape) < 0.5)[:, ::-1, ::-1, ::-1]
    yield x[None], 4, None
    x = normal(rng, (3, 4), dtype)
    yield x, 1, np.zeros((3, 1), bool)
    yield x, 0, np.array([[True], [False], [True]])
    yield np.array([[1e30, -1e30], [-inf, 0], [-inf, -inf]], dtype), 1, None
    yield np.array([[np.nan, 1, 2]], dtype), 1, np.array([False, True, True])
    yield normal(rng, (4, 3), dtype).T, 1, None
    yield np.broadcast_to(x[0], (3, 4)), 1, None
    yield np.arange(6).reshape(2, 3), 1, None


def softmax_gradients(rng, dtype):
    for shape in SHAPES:
        for axis in {0, len(shape) - 1, -1}:
            yield normal(rng, shape, dtype), rng.random(shape).astype(dtype), axis
    yield np.broadcast_to(np.ones(1, dtype), (3, 4)), rng.random((4, 3)).astype(dtype).T, 1
    hidden = np.array([[0.25, 0, 0.75], [0, 1, 0]], dtype)
    yield np.array([[1, np.nan, 2], [inf, 3, -inf]], dtype), hidden, 1  # dy is ignored at hidden positions


# Rows that several warps share, of which a block holds some or one; too wide for registers; more rows than blocks.
NORMS = [(5, 600), (3, 1100), (2, 4096), (2, 4100), (4300, 5)]


def layer_norm_formulas(rng, dtype):
    for shape in SHAPES:
        yield normal(rng, shape, dtype), normal(rng, shape[-1:], dtype), normal(rng, shape[-1:], dtype), 1e-5
    w = normal(rng, (3,), dtype)
    yield normal(rng, (3, 4), dtype).T, w, w, 0.1
    yield normal(rng, (4, 3), dtype), w.astype("float16"), w, 1e-5
    yield normal(rng, (4, 3), dtype), w.astype("float64"), w, 1e-5
    yield np.array([[-1e18, 1e18]], dtype), *np.ones((2, 2), dtype), 1e-5
    yield np.full((2, 3), 1e4, dtype) + normal(rng, (2, 3), dtype), w, w, 1e-5
    for shape in NORMS:
        yield normal(rng, shape, dtype), normal(rng, shape[-1:], dtype), normal(rng, shape[-1:], dtype), 1e-5


def layer_norm_gradients(rng, dtype):
    for x, weight, _, eps in layer_norm_formulas(rng, dtype):
        mean = x.mean(-1, keepdims=True)
        rstd = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
        for needs in ((True, True, True), tuple(rng.random(3) < 0.5)):
            yield normal(rng, x.shape, x.dtype), x, weight, mean, rstd.astype(x.dtype), needs
        yield np.broadcast_to(np.ones(1, x.dtype), x.shape), x, weight, mean, rstd.astype(x.dtype), (True, True, True)
        yield 1e21 * normal(rng, x.shape, x.dtype), x, weight, mean, rstd.astype(x.dtype), (True, True, True)


ALL_FOUR = np.array([1, 2, 0, 1]), np.ones(4, bool)  # targets, and that they count


def cross_entropy_formulas(rng, dtype):
    for rows, classes in ((2, 3), (1, 1), (0, 4), (33, 257), (700, 500)):
        for smoothing in (0.0, 0.1):
            logits, targets = normal(rng, (rows, classes), dtype), rng.integers(0, classes, rows)
            yield logits, targets, rng.random(rows) < 0.7, smoothing
            yield logits, targets, np.zeros(rows, bool), smoothing
    yield np.array([[1e4, -1e4, 0], [-inf, 0, 1]], dtype), np.array([1, 2]), np.array([True, True]), 0.0
    yield np.array([[inf, 0, 1], [inf, 0, inf], [-inf] * 3, [1e30, 1e30, 0]], dtype), *ALL_FOUR, 0.0
    junk = np.array([[-inf, -inf, -inf], [0, 1, 2], [inf, np.nan, 1e30]], dtype)  # an ignored row is never read
    yield junk, np.array([0, 1, 0]), np.array([False, True, False]), 0.1
    yield normal(rng, (5, 3), dtype).T, np.array([0, 1, 4]), np.array([True, False, True]), 0.2
    yield normal(rng, (3, 5), dtype), np.array([0, 1, 4], "int32"), np.array([True, False, True]), 0.2


def cross_entropy_gradients(rng, dtype):
    for logits, targets, counted, smoothing in cross_entropy_formulas(rng, dtype):
        seen = np.where(counted[:, None], logits, 0)
        top = seen.max(-1, keepdims=True)
        top[top == -inf] = 0
        total = np.exp(seen - top).sum(-1, keepdims=True)
        kept = top, np.log(np.where(total == 0, 1, total)).astype(dtype)
        yield normal(rng, (len(logits),), dtype), logits, kept, targets, counted, smoothing
        yield np.broadcast_to(np.ones(1, dtype), (len(logits),)), logits, kept, targets, counted, smoothing
        yield np.where(counted, 1, inf).astype(dtype), logits, kept, targets, counted, smoothing
        yield np.asarray(0.5, dtype), logits, kept, targets, counted, smoothing  # one dloss for all, as for a sum


def dropout_formulas(rng, dtype):
    for shape in [*SHAPES, (), (3, 400_000)]:
        yield normal(rng, shape, dtype), 0.3, 2**70 + 5, 7
    yield np.array([inf, -inf, np.nan, 1, 2], dtype), 0.5, 1, 2
    yield normal(rng, (40, 30), dtype).T, 0.1, 1, 2


def add_dropout_formulas(rng, dtype):
    for shape in [*SHAPES, (), (3, 400_000)]:
        yield normal(rng, shape, dtype), normal(rng, shape, dtype), 0.3, 5, 7
    yield np.zeros(6, dtype), np.array([inf, -inf, np.nan, 1, 2, 3], dtype), 0.5, 1, 2
    yield normal(rng, (40, 30), dtype).T, np.broadcast_to(normal(rng, (40,), dtype), (30, 40)), 0.1, 1, 2


# Sizes below and above the one from which a kernel cuts a product, and products that it cuts along either side.
PRODUCTS = [(2, 3, 4), (1, 1, 1), (0, 3, 2), (3, 0, 2), (2, 3, 0), (40, 30, 50), (700, 64, 80), (70, 300, 900)]
PRODUCTS += [(4300, 2, 3)]  # rows whose sums a GPU cuts into the most chunks


def loss_scale_updates(rng, dtype):
    for scale in (1.0, 2.0, 1024.0, 2.0**24):
        for good in (0, 8, 9):
            for skipped in (False, True):
                yield np.array(scale, "float32"), np.array(good), np.array(skipped), 10, 2.0**24
    yield np.array(8.0, "float32"), np.array(3), True, 10, 2.0**24


def products(rng, dtype):
    for n, k, m in PRODUCTS:
        yield normal(rng, (n, k), dtype), normal(rng, (k, m), dtype)
        yield normal(rng, (k, n), dtype).T, normal(rng, (m, k), dtype).T
        yield normal(rng, (2, n, k), dtype), normal(rng, (k, m), dtype)
        yield normal(rng, (2, n, k), dtype), normal(rng, (2, k, m), dtype)
    yield normal(rng, (40, 30), dtype), normal(rng, (30, 50), "float64")
    yield np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2)
    yield normal(rng, (3,), dtype), normal(rng, (3, 2), dtype)


def linear_formulas(rng, dtype):
    for n, k, m in PRODUCTS:
        weight, bias = normal(rng, (k, m), dtype), normal(rng, (m,), dtype)
        yield normal(rng, (n, k), dtype), weight
        yield normal(rng, (n, k), dtype), weight, bias
        yield normal(rng, (n, 3, k), dtype).swapaxes(0, 1), weight, bias
        yield normal(rng, (k,), dtype), weight, bias
    yield normal(rng, (3, 4), dtype), normal(rng, (4, 2), "float64"), normal(rng, (2,), dtype)


def linear_gradients(rng, dtype):
    for arguments in linear_formulas(rng, dtype):
        x, weight = arguments[:2]
        dz = normal(rng, (*x.shape[:-1], weight.shape[1]), np.result_type(x, weight))
        for needs in ((True, True, True), tuple((rng.random(3) < 0.5).tolist())):
            yield dz, x, weight, needs[: len(arguments)]
        yield np.broadcast_to(np.ones(1, dz.dtype), dz.shape), x, weight, (True, True, True)


def linear_relu_formulas(rng, dtype):
    for arguments in linear_formulas(rng, dtype):
        x, weight, bias = (*arguments, None)[:3]
        yield x, weight, bias, 0.0, 0, 0
        yield x, weight, bias, 0.3, 5, 7


def linear_relu_gradients(rng, dtype):
    for shape in SHAPES:
        yield normal(rng, shape, dtype), np.maximum(normal(rng, shape, dtype), 0), 1.5
    yield np.array([inf, np.nan, inf, 2, 3], dtype), np.array([0, 0, 1, np.nan, -0.0], dtype), 2.0
    yield normal(rng, (2, 3), "float64"), np.maximum(normal(rng, (2, 3), "float32"), 0), 1.5  # of two dtypes


def attentions(rng, dtype):
    """Short sentences, several of which fit a block, and long ones, whose heads are cut into several blocks.

    On a GPU, only the last of them is long.
    """
    for lead, t, s, k, m in [((2, 3), 4, 5, 6, 6), ((), 3, 4, 2, 3), ((5,), 1, 1, 1, 1), ((60, 4), 30, 30, 8, 8),
                             ((2, 2), 450, 450, 4, 4), ((1, 2), 300, 700, 3, 5), ((), 515, 515, 3, 2)]:  # fmt: skip
        q, key, v = (normal(rng, (*lead, n, w), dtype) / 3 for n, w in ((t, k), (s, k), (s, m)))
        some = rng.random((*lead[:1], *(1,) * (len(lead) > 1), 1, s)) < 0.8
        for visible, causal, p in ((None, False, 0.0), (some, False, 0.3), (None, True, 0.3), (some, True, 0.0)):
            yield q, key, v, AttentionPattern(visible, causal, p, 5, 7)
    q, key, v = (normal(rng, (4, 3, 2, 5), dtype).transpose(0, 2, 1, 3) / 3 for _ in range(3))  # heads as strided views
    yield q, key, v, AttentionPattern(None, True, 0.5, 1, 2)
    yield q, key[:1], v[:, :1], AttentionPattern(np.tri(3, dtype=bool), False, 0.0, 0, 0)
    nothing = np.array([True, False, True])[:, None] & np.ones((3, 3), bool)
    yield q, key, v, AttentionPattern(nothing, False, 0.3, 1, 2)
    junk = key.copy()
    junk[0, 0, 1] = np.nan
    yield q, junk, v, AttentionPattern(np.array([True, False, True]), False, 0.0, 0, 0)  # at a hidden position
    yield q[:0], key[:0], v[:0], AttentionPattern(None, False, 0.0, 0, 0)
    yield q[:, :, :, None], key[:, :, :, None], v[:, :, :, None], AttentionPattern(None, False, 0.3, 1, 2)


def attention_gradients(rng, dtype):
    for q, k, v, pattern in attentions(rng, dtype):
        y, kept = attention_formula(q, k, v, pattern)
        for needs in ((True, True, True), tuple((rng.random(3) < 0.5).tolist())):
            yield normal(rng, y.shape, dtype), q, k, v, pattern, kept, needs
        yield np.broadcast_to(np.ones(1, dtype), y.shape), q, k, v, pattern, kept, (True, True, True)
    dy = normal(rng, y.shape, dtype)
    dy[0] = inf
    yield dy, q, k, v, pattern, kept, (True, True, False)
    q, k, v = (normal(rng, (2, 3, 4, 5), dtype) / 3 for _ in range(3))
    pattern = AttentionPattern(np.array([True, False, True, True]), False, 0.0, 0, 0)
    y, kept = attention_formula(q, k, v, pattern)
    v[0, 0, 1] = np.nan  # at a hidden key of one head: dq and dk are finite all the same
    yield normal(rng, y.shape, dtype), q, k, v, pattern, kept, (True, True, True)


def feed_forwards(rng, dtype):
    """Yield few rows, and so many that a kernel cuts them into pieces."""
    for shape, hidden, out in (
        ((2, 3), 4, 3),
        ((1, 1), 1, 1),
        ((0, 3), 2, 3),
        ((3, 100, 5), 9, 5),
        ((700, 60), 50, 40),
    ):
        width = shape[-1]
        w1, b1 = normal(rng, (width, hidden), dtype), normal(rng, (hidden,), dtype)
        w2, b2 = normal(rng, (hidden, out), dtype), normal(rng, (out,), dtype)
        for p in (0.0, 0.3):
            yield normal(rng, shape, dtype), w1, b1, w2, b2, p, 5, 7
    yield normal(rng, (60, 300), dtype).T, *(x.astype("float64") for x in (w1, b1, w2, b2)), 0.3, 5, 7
    yield normal(rng, (60, 300), dtype).T, w1, b1, w2, b2, 0.3, 5, 7
    yield np.broadcast_to(normal(rng, (60,), dtype), (300, 60)), w1, b1, w2, b2, 0.0, 0, 0
    yield np.full((300, 60), np.nan, dtype), w1, b1, w2, b2, 0.0, 0, 0


def feed_forward_gradients(rng, dtype):
    for x, w1, b1, w2, b2, p, key, draw in feed_forwards(rng, dtype):
        y, h = feed_forward_formula.dispatch(object)(x, w1, b1, w2, b2, p, key, draw)
        for needs in ((True,) * 5, tuple((rng.random(5) < 0.5).tolist())):
            yield normal(rng, y.shape, y.dtype), x, w1, h, w2, 1 / (1 - p), needs
        yield np.broadcast_to(np.ones(1, y.dtype), y.shape), x, w1, h, w2, 1 / (1 - p), (True,) * 5


def add_norms(rng, dtype):
    for shape in [shape for shape in SHAPES + NORMS if 1 not in shape[-1:]]:  # with one column, y does not depend on x
        x, s = normal(rng, shape, dtype), normal(rng, shape, dtype)
        weight, bias = normal(rng, shape[-1:], dtype), normal(rng, shape[-1:], dtype)
        yield x, s, weight, bias, 1e-5, (0.0, 0, 0)
        yield x, s, weight, bias, 0.1, (0.3, 5, 7)
    w = normal(rng, (30,), dtype)
    yield normal(rng, (30, 40), dtype).T, np.broadcast_to(normal(rng, (30,), dtype), (40, 30)), w, w, 0.1, (0.3, 5, 7)
    yield normal(rng, (40, 30), dtype), normal(rng, (40, 30), dtype), w.astype("float64"), w, 0.1, (0.3, 5, 7)
    yield np.zeros((2, 3), dtype), np.array([[inf, np.nan, 1], [1, 2, 3]], dtype), w[:3], w[:3], 0.1, (0.5, 1, 2)


def add_norm_gradients(rng, dtype):
    for x, s, weight, bias, eps, drop in add_norms(rng, dtype):
        kept = add_norm_formula.dispatch(object)(x, s, weight, bias, eps, drop)[1]
        for needs in ((True,) * 4, tuple((rng.random(4) < 0.5).tolist())):
            yield normal(rng, x.shape, x.dtype), x, s, weight, kept, drop, needs
        yield np.broadcast_to(np.ones(1, x.dtype), x.shape), x, s, weight, kept, drop, (True,) * 4


def self_attentions(rng, dtype):
    """Yield few sentences, and so many that a kernel cuts them into pieces; long ones, of several blocks of queries."""
    patterns = [AttentionPattern(None, False, 0.0, 0, 0), AttentionPattern(None, True, 0.3, 5, 7)]
    for batch, length, width, heads in ((2, 3, 4, 2), (1, 1, 1, 1), (0, 3, 4, 2), (60, 9, 8, 2), (9, 300, 4, 1)):
        weights = attention_weights(rng, width, dtype)
        padding = rng.random((batch, 1, 1, length)) < 0.8
        for pattern in [
            *patterns,
            AttentionPattern(padding, True, 0.3, 5, 7),
            AttentionPattern(padding, False, 0.0, 0, 0),
        ]:
            yield normal(rng, (batch, length, width), dtype) / 3, *weights, heads, pattern
    some = rng.random((1, 2, 9, 9)) < 0.7  # also queries that see nothing, and a mask for each head
    x, weights = normal(rng, (60, 9, 8), dtype) / 3, attention_weights(rng, 8, dtype)
    yield x, *weights, 2, AttentionPattern(some, False, 0.3, 1, 2)
    yield x, *weights, 2, AttentionPattern(np.zeros((9, 9), bool), False, 0.0, 0, 0)
    yield x, *[w.astype("float64") for w in weights], 2, patterns[0]
    yield (1e3 * x).astype(dtype), *weights, 2, patterns[0]  # exponentials that would overflow


def attention_weights(rng, width, dtype):
    shapes = ((width, 3 * width), (3 * width,), (width, width), (width,))
    return [np.asarray(normal(rng, shape, "float64") / 3 / width**0.5, dtype) for shape in shapes]


def cross_attentions(rng, dtype):
    for x, *weights, heads, pattern in self_attentions(rng, dtype):
        if pattern.visible is None or pattern.visible.shape[-2] == 1:
            yield x[:, : max(x.shape[1] - 2, 1)], x, *weights, heads, pattern._replace(causal=False)
        else:
            yield x, x + 1, *weights, heads, pattern._replace(causal=False)


def self_attention_gradients(rng, dtype):
    for x, w, b, wo, bo, heads, pattern in self_attentions(rng, dtype):
        y, kept = self_attention_formula(x, w, b, wo, bo, heads, pattern)
        for needs in ((True,) * 5, tuple((rng.random(5) < 0.5).tolist())):
            yield normal(rng, y.shape, y.dtype), x, w, wo, kept, heads, pattern, needs
    dy = normal(rng, y.shape, y.dtype)
    dy[0] = inf
    yield dy, x, w, wo, kept, heads, pattern, (True,) * 5


def cross_attention_gradients(rng, dtype):
    for x, memory, w, b, wo, bo, heads, pattern in cross_attentions(rng, dtype):
        y, kept = cross_attention_formula(x, memory, w, b, wo, bo, heads, pattern)
        for needs in ((True,) * 6, tuple((rng.random(6) < 0.5).tolist())):
            yield normal(rng, y.shape, y.dtype), x, memory, w, wo, kept, heads, pattern, needs


def linear_cross_entropies(rng, dtype):
    sizes = ((2, 3, 4), (1, 1, 1), (0, 3, 4), (33, 5, 257), (300, 4, 1500), (90, 3, 60_000), (1100, 3, 40))
    for n, d, classes in sizes:
        x, weight, bias = normal(rng, (n, d), dtype), normal(rng, (d, classes), dtype), normal(rng, (classes,), dtype)
        targets = rng.integers(0, classes, n)
        for counted in (np.ones(n, bool), rng.random(n) < 0.7, np.zeros(n, bool)):
            for smoothing, needs in (
                (0.0, (True, True, True)),
                (0.1, (False, True, True)),
                (0.1, (True, False, False)),
            ):
                yield x, weight, bias, {"classes": (targets, counted, smoothing), "needs": needs}
        tied = normal(rng, (classes, d), dtype).T
        yield x, tied, {"classes": (targets, np.ones(n, bool), 0.1), "needs": (True, True)}
    for bias, target in (([-inf, 0, 1], 1), ([-inf, 0, 1], 0), ([-inf] * 3, 2)):  # excluded classes
        options = {"classes": (np.array([target, 1]), np.array([True, False]), 0.0), "needs": (False,) * 3}
        yield normal(rng, (2, 4), dtype), normal(rng, (4, 3), dtype), np.array(bias, dtype), options
    far = np.array([[1e4, -1e4, 0], [0, 200, 1]], dtype)
    yield far, np.eye(3, dtype=dtype), {"classes": (np.array([1, 2]), np.ones(2, bool), 0.0), "needs": (True, True)}


def linear_cross_entropy_gradients(rng, dtype):
    for *operands, options in linear_cross_entropies(rng, dtype):
        kept = linear_cross_entropy_formula(*operands, **options)[1]
        for dloss in (1.0, -0.3):
            yield np.asarray(dloss, dtype), *operands, {**options, "kept": kept}


def sums_of_rows(rng, dtype):
    for shape, width, rows in (((2, 3), 4, 5), ((0,), 2, 3), ((40, 10), 3, 1000), ((40, 10), 3, 8), ((300,), 1, 1)):
        yield normal(rng, (*shape, width), dtype), rng.integers(0, rows, shape), rows
    yield normal(rng, (50, 300), dtype), rng.integers(0, 9, 50), 9
    yield normal(rng, (70_000, 1), dtype), (1000 * rng.random(70_000) ** 4).astype("int64"), 1000
    yield normal(rng, (3000, 2), dtype), (200_000 * rng.random(3000) ** 9).astype("int64"), 200_000
    yield normal(rng, (70,), dtype), np.arange(70) % 5 * (np.arange(70) % 7 > 3), 5
    yield normal(rng, (30, 2, 2), dtype), np.minimum(rng.geometric(0.3, 30), 19).astype("int32"), 20


def scatter_adds(rng, dtype):
    """Yield integers for the first axes or for one axis; others, with slices between; integers that repeat."""
    ids = rng.integers(-4, 4, (3, 2))
    rows = np.arange(5)[:, None]
    for index, shape in (
        (ids, (4, 3)),
        ((ids,), (4, 3)),
        ((ids, ids + 1), (4, 6)),
        ((rows, rng.integers(0, 7, (5, 3))), (5, 7)),
        ((rows[:4], ids[:1] % 4, ids[:1]), (4, 4, 4, 2)),
        ((slice(None), ids), (2, 4, 3)),
        ((slice(None), slice(None), rng.integers(0, 9, 4).astype("uint8")), (2, 3, 9)),
        ((slice(1, 3), ids), (4, 4)),
        ((ids, slice(None), ids), (4, 3, 5)),
        ((slice(None), ids, ids), (2, 4, 4)),
        ((ids[:0],), (4, 3)),
    ):
        yield normal(rng, np.empty(shape, "int8")[index].shape, dtype), index, shape


def sampled_linears(rng, dtype):
    """Yield calls in which ids occur once, a few times, and often, of one and of several blocks of rows."""
    sizes = [((2, 3), 4, 5, 9), ((), 3, 2, 4), ((1,), 1, 1, 1), ((40,), 6, 3, 7), ((300,), 6, 100, 90)]
    sizes += [((2000,), 6, 100, 70_000), ((0,), 3, 2, 4), ((3,), 0, 2, 4), ((3,), 2, 0, 4)]
    for shape, k, width, rows in sizes:
        ids = (rows * rng.random((*shape, k)) ** 2).astype("int64")
        yield normal(rng, (*shape, width), dtype), normal(rng, (rows, width), dtype), ids
    yield normal(rng, (3, 4), dtype).T, normal(rng, (5, 3), dtype)[:, ::-1], rng.integers(0, 5, (4, 2)).astype("uint8")
    yield normal(rng, (4, 3), dtype), normal(rng, (5, 3), "float16"), rng.integers(0, 5, (4, 2))


def sampled_linear_gradients(rng, dtype):
    for x, weight, ids in sampled_linears(rng, dtype):
        for needs in ((True, True), (True, False), (False, True)):
            yield normal(rng, ids.shape, dtype), x, weight, {"ids": ids, "needs": needs}
    options = {"ids": rng.integers(0, 5, (4, 2)), "needs": (True, True)}
    yield np.broadcast_to(np.ones(1, dtype), (4, 2)), normal(rng, (4, 3), dtype), normal(rng, (5, 3), dtype), options
    yield normal(rng, (4, 2), dtype), normal(rng, (4, 3), dtype), normal(rng, (5, 3), "float64"), options


def sgd_updates(rng, dtype):
    for shape in SHAPES:
        p, g, velocity = (normal(rng, shape, dtype) for _ in range(3))
        yield p, g, None, 0.1, 0.0, 0.0, False
        yield p, g, None, 0.1, 0.0, 0.01, False
        for nesterov in (False, True):
            yield p, g, velocity, 0.1, 0.9, 0.01, nesterov
    yield normal(rng, (3, 4), dtype).T, normal(rng, (4, 3), dtype), None, 0.1, 0.0, 0.0, False


def adam_updates(rng, dtype):
    common = {"learning_rate": 0.01, "beta1": 0.9, "beta2": 0.98, "eps": 1e-9}
    for shape in SHAPES:
        p, g, m = (normal(rng, shape, dtype) for _ in range(3))
        v = rng.uniform(0.1, 1, shape).astype(dtype)
        for decay, decoupled, step in ((0.0, False, 1), (0.1, False, 7), (0.1, True, 1000)):
            yield p, g, m, v, {**common, "step": step, "weight_decay": decay, "decoupled": decoupled}
    p, g, m = (normal(rng, (4, 3), dtype).T for _ in range(3))
    yield p, g, m, np.ones((3, 4), dtype), {**common, "step": 2, "weight_decay": 0.0, "decoupled": True}


def average_updates(rng, dtype):
    for shape in SHAPES:
        yield normal(rng, shape, dtype), normal(rng, shape, dtype), 0.9
    yield normal(rng, (3, 4), dtype).T, normal(rng, (4, 3), dtype), 0.99


FEW_SHAPES = [(2, 3), (0, 4), (), (5000,), (4,)]


def lists(rng, dtype, count=4):
    """Yield `count` tuples of arrays of the same shapes: of several, of empty ones, and of ones not contiguous."""
    yield [tuple(normal(rng, shape, dtype) for shape in FEW_SHAPES) for _ in range(count)]
    yield [(normal(rng, (4, 3), dtype).T, normal(rng, (2, 3), dtype)[:, ::2]) for _ in range(count)]
    yield [(np.zeros((0, 3), dtype),) for _ in range(count)]


def many(rng, dtype, count=4):
    """Return `count` tuples of more arrays than fit into a table."""
    return [tuple(normal(rng, (1,), dtype) for _ in range(490)) for _ in range(count)]


def squares(arrays):
    return tuple(np.asarray(array * array) for array in arrays)


def guards():
    """Yield no guard, one that scales gradients, and one that skips the step."""
    yield None
    yield Guard(np.array(0.25), np.array(False))
    yield Guard(np.array(np.nan), np.array(True))


def counts_for(arrays):
    return tuple(np.array([7 * i], np.int64) for i in range(len(arrays)))


def step_guards(rng, dtype):
    for (gradients,) in lists(rng, dtype, 1):
        for loss in (None, np.array(2, dtype), np.array([np.nan], dtype)):
            yield gradients, loss, np.array(loss is None), 0.5, lambda: 2.0
            yield gradients, loss, np.array(False), inf, np.array(0.5, "float32")
    yield *many(rng, dtype, 1), None, np.array(True), 0.5, lambda: 1.0
    yield (normal(rng, (40_000,), dtype), normal(rng, (3,), dtype)), None, np.array(True), 1.0, lambda: 1.0
    for bad in (np.nan, inf):
        yield (np.ones(3, dtype), np.array([1, bad], dtype)), None, np.array(False), 1.0, lambda: 1.0
    yield (np.full(5, 300, "float16"), np.ones((2, 2), dtype)), None, np.array(True), 1.0, lambda: 1.0
    yield (np.full(5, np.finfo(dtype).max, dtype),), None, np.array(False), 1.0, lambda: 1.0  # its square overflows


def lists_to_scale(rng, dtype):
    for (gradients,) in lists(rng, dtype, 1):
        yield gradients, 0.3
    yield *many(rng, dtype, 1), 0.3
    yield (np.array([6e4, -6e4, 0, 5e-8, inf], "float16"), normal(rng, (3,), dtype)), 1e-9
    yield (np.arange(65536, dtype="uint16").view("float16"),), 1.0  # each float16, converted and back
    yield (rng.standard_normal(9999).astype("float16"),), 0.7


def steps_of_adam(rng, dtype):
    common = {"learning_rate": lambda: 0.01, "beta1": 0.9, "beta2": 0.98, "eps": 1e-9}
    ps, gs, ms, vs = many(rng, dtype)
    yield ps, gs, ms, squares(vs), counts_for(ps), None, {**common, "weight_decay": 0.0, "decoupled": True}
    for guard in guards():
        for ps, gs, ms, vs in lists(rng, dtype):
            state = ps, gs, ms, squares(vs), counts_for(ps), guard
            for decay, decoupled in ((0.0, False), (0.1, False), (0.1, True)):
                yield *state, {**common, "weight_decay": decay, "decoupled": decoupled}
        half = tuple(normal(rng, (n,), "float16") for n in (3, 5000))
        slopes = half[0] * half[0], half[1].astype("float32")  # of the dtype of a parameter, and of its moments
        ms, vs = (tuple(rng.random(p.shape, "float32") for p in half) for _ in range(2))
        options = {**common, "weight_decay": 0.1, "decoupled": True}
        yield half, slopes, ms, vs, counts_for(half), guard, options
        mixed = (normal(rng, (2,), "float32"), normal(rng, (2,), "float64"), normal(rng, (2,), "float32"))
        yield mixed, mixed, mixed, squares(mixed), counts_for(mixed), guard, options


def steps_of_sgd(rng, dtype):
    options = {"learning_rate": lambda: 0.1, "momentum": 0.9, "weight_decay": 0.0, "nesterov": False}
    ps, gs, velocities = many(rng, dtype, 3)
    yield ps, gs, velocities, counts_for(ps), None, options
    for guard in guards():
        for ps, gs, velocities in lists(rng, dtype, 3):
            for momentum, decay, nesterov in ((0.0, 0.0, False), (0.9, 0.1, False), (0.9, 0.0, True)):
                options = options | {"momentum": momentum, "weight_decay": decay, "nesterov": nesterov}
                state = ps, gs, velocities if momentum else None, counts_for(ps), guard
                yield *state, options
        half = (normal(rng, (3,), "float16"), normal(rng, (2, 2), "float16"))
        slopes, velocities = (half[0], half[1].astype("float32")), tuple(p.astype("float32") for p in half)
        yield half, slopes, velocities, counts_for(half), guard, options


def steps_of_averages(rng, dtype):
    yield *many(rng, dtype, 2), None, lambda: 0.9
    for skip in (None, np.array(False), np.array(True)):
        for es, ws in lists(rng, dtype, 2):
            yield es, ws, skip, lambda: 0.9
        yield (normal(rng, (3,), "float32"),), (normal(rng, (3,), "float16"),), skip, lambda: 0.9


def recurrences(rng, dtype):
    """Yield the sizes of recurrent layers, a mask and a direction; the products of the last one are cut in two."""
    for sentences, length, units in ((2, 3, 4), (1, 1, 1), (0, 2, 3), (3, 5, 7), (40, 3, 150)):
        yield sentences, length, units, None, False
        yield sentences, length, units, rng.random((sentences, length)) < 0.7, True


def rnn_steps(rng, dtype):
    for n, length, units, visible, reverse in [*recurrences(rng, dtype), (100, 2, 150, None, False)]:
        u, weight = normal(rng, (n, length, units), dtype), normal(rng, (units, units), dtype) / units
        for relu in (False, True):
            yield u, weight.astype(dtype), normal(rng, (n, units), dtype), relu, visible, reverse
    yield u[:, ::2], weight.astype("float64"), normal(rng, (n, units), dtype), False, None, False


def rnn_steps_gradients(rng, dtype):
    for n, length, units, visible, reverse in [*recurrences(rng, dtype), (100, 2, 150, None, False)]:
        dh, h = (normal(rng, (n, length, units), dtype) for _ in range(2))
        weight = (normal(rng, (units, units), dtype) / units).astype(dtype)
        for relu in (False, True):
            yield dh, h, weight, relu, visible, reverse
    yield dh, h, weight.astype("float64"), False, None, False


def lstm_steps(rng, dtype):
    for n, length, units, visible, reverse in recurrences(rng, dtype):
        u, weight = normal(rng, (n, length, 4 * units), dtype), normal(rng, (units, 4 * units), dtype) / units
        yield u, weight.astype(dtype), *(normal(rng, (n, units), dtype) for _ in range(2)), visible, reverse
    yield u[:, ::2], weight.astype("float64"), *(normal(rng, (n, units), dtype) for _ in range(2)), None, False


def lstm_steps_gradients(rng, dtype):
    for n, length, units, visible, reverse in recurrences(rng, dtype):
        states = [normal(rng, (n, length, units), dtype) for _ in range(4)]
        gates, weight = rng.random((n, length, 4 * units)).astype(dtype), normal(rng, (units, 4 * units), dtype)
        yield *states, gates, (weight / units).astype(dtype), visible, reverse
    yield *states, gates, weight.astype("float64"), None, False


def gru_steps(rng, dtype):
    for n, length, units, visible, reverse in recurrences(rng, dtype):
        u, weight = normal(rng, (n, length, 3 * units), dtype), normal(rng, (units, 3 * units), dtype) / units
        bias, h = normal(rng, (units,), dtype), normal(rng, (n, units), dtype)
        yield u, weight.astype(dtype), bias, h, visible, reverse
    yield u[:, ::2], weight.astype("float64"), bias, h, None, False


def gru_steps_gradients(rng, dtype):
    for n, length, units, visible, reverse in recurrences(rng, dtype):
        dh, h, m = (normal(rng, (n, length, units), dtype) for _ in range(3))
        gates, weight = rng.random((n, length, 3 * units)).astype(dtype), normal(rng, (units, 3 * units), dtype)
        yield dh, h, gates, m, (weight / units).astype(dtype), visible, reverse
    yield dh, h, gates, m, weight.astype("float64"), None, False


def gelus(rng, dtype):
    for shape in [*SHAPES, ()]:
        yield (normal(rng, shape, dtype),)
    yield (normal(rng, (40, 30), dtype).T,)
    yield (np.array([inf, -inf, np.nan, 1e30, -1e30, 0], dtype),)


def gelu_gradients(rng, dtype):
    for (x,) in gelus(rng, dtype):
        portion = gelu_formula.dispatch(object)(x)[1]
        yield normal(rng, x.shape, dtype), x, np.asarray(portion)
        yield np.broadcast_to(np.ones((), dtype), x.shape), x, np.asarray(portion)


def sublayers(rng, dtype, width, first, inner, pre):
    """Return the parameters of a sub-layer: matrices (width, first) and (inner, width), as panels."""
    matrices = [panels_of.dispatch(object)(normal(rng, shape, dtype)) for shape in ((width, first), (inner, width))]
    vectors = [normal(rng, (size,), dtype) for size in (first, width, width, width)]
    return SubLayer(matrices[0], vectors[0], matrices[1], vectors[1], vectors[2], vectors[3], 1e-5, pre)


def decoder_steps(rng, dtype):
    cases = (1, 8, 2, 1, 1), (3, 12, 3, 4, 5), (17, 32, 2, 2, 3), (70, 20, 1, 3, 4), (0, 8, 2, 2, 3), (9, 8, 2, 2, 0)
    for rows, width, heads, length, source in cases:
        for pre in (False, True):
            layers = tuple(
                DecoderLayer(
                    sublayers(rng, dtype, width, 3 * width, width, pre),
                    sublayers(rng, dtype, width, width, width, pre),
                    sublayers(rng, dtype, width, 3 * width + 1, 3 * width + 1, pre),
                )
                for _ in range(2)
            )
            kept = tuple(normal(rng, (length + 1, rows + 2, 2 * width), dtype) for _ in layers)
            slot = rng.integers(0, rows + 2, (rows, length))
            slot[:, -1] = rng.permutation(rows + 2)[:rows]
            sources = rows // 3 + 1
            visible = rng.random((sources, source)) < 0.7
            visible[0] = False  # such a source gives nothing
            keys_values = tuple(normal(rng, (sources, source, 2 * width), dtype) for _ in layers)
            memory = Memory(keys_values, visible, rng.integers(0, sources, rows))
            yield normal(rng, (rows, width), dtype), layers, kept, slot, memory, heads


def projections(rng, dtype):
    for rows, width, columns in ((1, 1, 1), (7, 5, 16), (6, 9, 33), (50, 32, 48), (150, 8, 20), (0, 3, 4)):
        panels = panels_of.dispatch(object)(normal(rng, (width, columns), dtype))
        yield normal(rng, (rows, width), dtype), panels, columns


def matrices(rng, dtype):
    for shape in ((1, 1), (3, 16), (20, 48), (5, 33), (4, 0)):
        yield (normal(rng, shape, dtype),)
        yield (normal(rng, shape[::-1], dtype).T,)


def rows_of_logits(rng, dtype):
    for rows, columns, count in ((1, 1, 1), (3, 5, 5), (2, 64, 3), (4, 65, 64), (50, 3000, 4), (3, 200, 70), (2, 9, 1)):
        x = normal(rng, (rows, columns), dtype)
        x[0] = np.round(x[0])  # with ties
        yield x, count
    x[0, 1:], x[1, :-1] = -inf, -inf
    yield x, 4
    yield np.full((2, 5), -inf, dtype), 2
    yield np.full((2, 40), 0.5, dtype), 20
    yield np.array([[-inf, 2, -inf, -inf], [0, -0.0, -1, 0]], dtype), 4
    yield np.array([[1, inf, 2, inf], [-inf, inf, 0, 1]], dtype), 2
    yield normal(rng, (9, 4), dtype).T, 3


def rows_in_another_order(rng, dtype):
    for sources, beam, positions in ((1, 1, 1), (3, 4, 5), (2, 16, 70), (2, 17, 3), (0, 2, 3)):
        kept = normal(rng, (sources * beam, 2, positions, 8), dtype)
        rows = rng.integers(0, beam, sources * beam) + np.repeat(np.arange(sources) * beam, beam)
        for length in (0, positions // 2, positions):
            yield kept, rows, np.array([length]), beam
    yield np.asfortranarray(normal(rng, (4, 2, 3, 5), dtype)), np.array([1, 0, 3, 3]), np.array([2]), 2


SAMPLES = {
    "reorder_rows": rows_in_another_order,
    "decoder_step": decoder_steps,
    "largest_and_total": rows_of_logits,
    "panels_of": matrices,
    "panel_product": projections,
    "erf_formula": gelus,
    "gelu_formula": gelus,
    "gelu_gradient": gelu_gradients,
    "add_norm_formula": add_norms,
    "add_norm_gradient": add_norm_gradients,
    "cross_attention_formula": cross_attentions,
    "cross_attention_gradient": cross_attention_gradients,
    "feed_forward_formula": feed_forwards,
    "feed_forward_gradient": feed_forward_gradients,
    "self_attention_formula": self_attentions,
    "self_attention_gradient": self_attention_gradients,
    "lstm_steps": lstm_steps,
    "rnn_steps": rnn_steps,
    "rnn_steps_gradient": rnn_steps_gradients,
    "lstm_steps_gradient": lstm_steps_gradients,
    "gru_steps": gru_steps,
    "gru_steps_gradient": gru_steps_gradients,
    "softmax_formula": softmax_formulas,
    "softmax_gradient": softmax_gradients,
    "layer_norm_formula": layer_norm_formulas,
    "layer_norm_gradient": layer_norm_gradients,
    "cross_entropy_formula": cross_entropy_formulas,
    "cross_entropy_gradient": cross_entropy_gradients,
    "dropout_formula": dropout_formulas,
    "add_dropout_formula": add_dropout_formulas,
    "loss_scale_update": loss_scale_updates,
    "product": products,
    "linear_formula": linear_formulas,
    "linear_gradient": linear_gradients,
    "linear_relu_formula": linear_relu_formulas,
    "linear_relu_gradient": linear_relu_gradients,
    "attention_formula": attentions,
    "attention_gradient": attention_gradients,
    "linear_cross_entropy_formula": linear_cross_entropies,
    "linear_cross_entropy_gradient": linear_cross_entropy_gradients,
    "sampled_linear_formula": sampled_linears,
    "sampled_linear_gradient": sampled_linear_gradients,
    "scatter_add_formula": scatter_adds,
    "sum_rows_formula": sums_of_rows,
    "sgd_update": sgd_updates,
    "adam_update": adam_updates,
    "average_update": average_updates,
    "step_guard": step_guards,
    "scaled": lists_to_scale,
    "adam_steps": steps_of_adam,
    "sgd_steps": steps_of_sgd,
    "average_steps": steps_of_averages,
}
