"""Functions of tensorlib paired with those of PyTorch, from which `test_random_programs.py` builds programs.

An op joins by one row in `OPS`. Its domain says what kind of values the op gets, `options` what its arguments are, and
`smooth` where not to compare: at a kink, or at a tie that rounding may decide in either way.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

import tensorlib as tl

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install 'tensorlib[peers]'")
F, T = torch.nn.functional, torch.from_numpy

LARGEST = 96  # elements of a value
NEAR = 1e-6

# ---- keyword arguments for both libraries from a random.Random and the shapes, or None if they don't fit ---------


def anything(r, *shapes):
    return {}


def broadcasting(r, *shapes):
    try:
        return {} if math.prod(np.broadcast_shapes(*shapes)) <= LARGEST else None
    except ValueError:
        return None


def same_shape(r, s, t):
    return {} if s == t and s else None


def an_axis(r, s, *others):
    return {"axis": r.randrange(-len(s), len(s))} if s else None


def some_axes(r, s):
    """Return the axes to reduce: all, one, or several."""
    several = tuple(r.sample(range(len(s)), r.randint(0, len(s))))
    return {"axis": r.choice([None, *range(-len(s), len(s)), several]), "keepdims": r.random() < 0.5}


def joined(r, s, t):
    """Return the axis along which two shapes can be concatenated."""
    fits = [a for a in range(len(s)) if len(s) == len(t) and s[:a] + s[a + 1 :] == t[:a] + t[a + 1 :]]
    return {"axis": r.choice(fits)} if fits and math.prod(s) + math.prod(t) <= LARGEST else None


def products(r, s, t):
    """Accept shapes of matrices or vectors that can be multiplied."""
    if not s or not t or s[-1] != t[max(-2, -len(t))]:
        return None
    return broadcasting(r, (*s[:-2], 1, 1), (*t[:-2], 1, 1)) and {}


def matrices(r, s, *others):
    return {} if len(s) >= 2 else None


def few(r, *shapes):
    return {} if math.prod(map(math.prod, shapes)) <= LARGEST else None


def when(fits, options):
    """Return `options` only if fits(shape) is true."""
    return lambda r, *shapes: options(r, *shapes) if fits(*shapes) else None


def also(options, **choices):
    """Extend `options` by one of the values listed for each keyword, or by the result of a function of (r, shape)."""

    def chosen(r, *shapes):
        found = options(r, *shapes)
        if found is None:
            return None
        return found | {k: v(r, *shapes) if callable(v) else r.choice(v) for k, v in choices.items()}

    return chosen


def indices(r, size, *shape):
    """Return indices into an axis: some positions more than once, some never."""
    return np.array([r.randrange(size) for _ in range(math.prod(shape))], int).reshape(shape)


def mask(r, *shapes):
    """Return a mask of the shape that the inputs broadcast to, with a True in each last row."""
    shape = np.broadcast_shapes(*shapes)
    chosen = np.array([r.random() < 0.6 for _ in range(math.prod(shape))]).reshape(shape)
    if shape:
        chosen[..., 0] = True
    return chosen


def an_index(r, s):
    """Return something to index a shape with: slices, integers, None, ellipsis, duplicates, masks."""
    parts = [
        r.choice([slice(None), slice(None, None, 2), slice(1, None), slice(0, 1), slice(-2, None), r.randrange(n)])
        for n in s[: r.randint(0, len(s))]
    ]
    kind = r.randrange(5)
    if kind == 0 and s:
        parts[:1] = [indices(r, s[0], 4)]
    elif kind == 1 and len(s) > 1:
        parts[:2] = [indices(r, s[0], 2, 3), indices(r, s[1], 3)]
    elif kind == 2:
        parts.insert(r.randint(0, len(parts)), None)
    elif kind == 3 and len(parts) < len(s):
        parts.insert(r.randint(0, len(parts)), Ellipsis)
    elif kind == 4:
        return mask(r, s)
    return tuple(parts)


def a_shape(r, s):
    """Return another shape with the same number of elements."""
    n = math.prod(s)
    return r.choice([(n,), (-1,), s[::-1], (1, *s), (*s, 1), *[(d, n // d) for d in range(2, n) if n % d == 0]])


def targets_for(r, s):
    """Return classes for rows, one of them ignored if there are several."""
    chosen = indices(r, s[-1], *s[:-1])
    if chosen.size > 1:
        chosen[(0,) * chosen.ndim] = -100
    return chosen


def targets_among_rows(r, s):
    """Return classes for rows, where there are as many classes as rows."""
    return targets_for(r, (*s[:-1], math.prod(s[:-1])))


def permuted_positions(r, s):
    """Return indices along axis 0, none of which occurs twice in its column."""
    return np.broadcast_to(np.array(r.sample(range(s[0]), s[0])).reshape(-1, *[1] * (len(s) - 1)), s).copy()


# ---- where it is smooth ----------------------------------------------------------------------------------------------


def away_from(*places):
    """Accept inputs none of whose elements is near one of these points."""
    return lambda xs, y: all(bool(((x - p).abs() > NEAR).all()) for x in xs for p in places)


def apart(xs, y):
    return bool(((xs[0] - xs[1]).abs() > NEAR).all())


def one_apart(xs, y):
    """Accept inputs whose difference is nowhere near 0 or 1."""
    return apart(xs, y) and bool((((xs[0] - xs[1]).abs() - 1).abs() > NEAR).all())


def distinct(xs, y):
    return all(x.numel() < 2 or bool((x.reshape(-1).sort().values.diff() > NEAR).all()) for x in xs)


def not_small(xs, y):
    return bool((y.abs() > 1e-2).all())


def quotient_not_integer(xs, y):
    """Accept inputs whose quotient is nowhere near an integer."""
    quotient = xs[0] / xs[1]
    return bool(((quotient - quotient.round()).abs() > NEAR).all())


# ---- PyTorch, spelled as NumPy ---------------------------------------------------------------------------------------


def over(reduce):
    """Wrap a reduction of PyTorch to take NumPy's axes, where None means all."""

    def reduced(t, axis=None, keepdims=False, **options):
        axes = tuple(range(t.ndim)) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
        if not axes:  # PyTorch would reduce all axes
            return reduce(t[None], dim=(0,), keepdim=False, **options)
        return reduce(t, dim=axes, keepdim=keepdims, **options)

    return reduced


def torch_prod(t, dim, keepdim):
    for d in sorted((d % t.ndim for d in dim), reverse=True):
        t = t.prod(dim=d, keepdim=keepdim)
    return t


def defined_variance(r, s):
    """Return options of a variance for which it is defined."""
    found = some_axes(r, s)
    axes = range(len(s)) if found["axis"] is None else np.atleast_1d(np.array(found["axis"], int))
    return found | {"ddof": r.choice([0, 1])} if math.prod(s[a] for a in axes) > 1 else None


def torch_index(index):
    parts = index if isinstance(index, tuple) else (index,)
    return tuple(T(p) if isinstance(p, np.ndarray) else p for p in parts)


def rows_of(x):
    """Return the first and the last row of x, to serve as weight and bias."""
    table = x.reshape(-1, x.shape[-1])
    return table[0], table[-1]


def plane(x):
    """Return x as a batch of one, with the axes before the last two as channels, and its corner as a filter."""
    image = x.reshape(1, -1, *x.shape[-2:])
    return image, image[:, :, :2, :2]


def as_rows(loss, t, targets, **options):
    """Apply a loss of PyTorch, which wants classes on axis 1, to rows of classes."""
    y = loss(t.reshape(-1, t.shape[-1]), T(targets).reshape(-1), **options)
    return y.reshape(targets.shape) if options["reduction"] == "none" else y


def logcumsumexp(t, axis):
    """Compute torch.logcumsumexp by hand, because its second derivative is wrong where a cotangent is zero."""
    if t.shape[axis] == 0:
        return t.logcumsumexp(axis)
    return torch.stack([t.narrow(axis, 0, k + 1).logsumexp(axis) for k in range(t.shape[axis])], axis)


def attention(x, y, visible):
    """Compute F.scaled_dot_product_attention by hand, because it has no second derivative."""
    scores = x @ y.swapaxes(-1, -2) / math.sqrt(x.shape[-1])
    return scores.masked_fill(~T(visible), -math.inf).softmax(-1) @ (x * y)


def two_layers(x):
    """Return weights and biases of a feed-forward block, made of the rows of x."""
    rows = x.reshape(-1, x.shape[-1])
    return rows.swapaxes(0, 1), rows[:, 0], rows, rows[0]


def hidden(x):
    """Return what a feed-forward block of PyTorch with these weights applies its ReLU to."""
    return x @ two_layers(x)[0] + two_layers(x)[1]


def projections(x):
    """Return fixed weights and biases of attention for the width of x."""
    d = x.shape[-1]
    return np.sin(np.arange(3.0 * d * d)).reshape(d, 3 * d), np.cos(np.arange(3.0 * d)), np.eye(d) + 0.5, np.ones(d)


def self_attention(x):
    """Compute causal attention with projections by one head by hand."""
    w, b, wo, bo = map(T, projections(x))
    q, k, v = (x @ w.to(x.dtype) + b.to(x.dtype)).chunk(3, -1)
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(x.shape[-1])
    past = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    return scores.masked_fill(~past, -math.inf).softmax(-1) @ v @ wo.to(x.dtype) + bo.to(x.dtype)


WEIGHTS = [1.0, 0.5, -1.0, 0.7]  # of the gates of recurrent layers with one unit; W_x is the first row times these


def our_states(function, gates):
    """Return a function that reads the rows of x as one sequence."""

    def states(x):
        rows, w = x.reshape(-1, x.shape[-1]), np.array([WEIGHTS[:gates]])
        more = [w[0, :1]] if gates == 3 else []
        y = function(rows.reshape(1, *rows.shape), rows[:1].swapaxes(0, 1) * w, w, w[0], *more)
        return y[0] if isinstance(y, tuple) else y

    return states


def their_states(gates):
    """Return the same, step by step."""

    def states(x):
        rows, w = x.reshape(-1, x.shape[-1]), T(np.array([WEIGHTS[:gates]]))
        h = c = rows.new_zeros(1, 1)
        found = []
        for row in rows:
            u, q = (row[None] @ (rows[:1].T * w) + w[0]).T[:, None], (h @ w).T[:, None]
            if gates == 1:
                h = (u[0] + q[0]).tanh()
            elif gates == 4:
                i, f, g, o = u + q
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            else:
                z, n = (u[1] + q[1]).sigmoid(), (u[2] + (u[0] + q[0]).sigmoid() * (q[2] + w[0, 0])).tanh()
                h = (1 - z) * n + z * h
            found.append(h)
        return torch.stack(found, 1)

    return states


# ---- the ops ---------------------------------------------------------------------------------------------------------

# The domains of an op's inputs, as expressions that both libraries understand.
DOMAINS = {
    "real": lambda x: x,
    "positive": lambda x: x * x + 0.5,
    "unit": lambda x: x.tanh() * 0.9,
    "wide": lambda x: x * 2.5,  # reaches the flat ends
}


class Op(NamedTuple):
    """One function in both libraries, each called with the inputs and the result of `options`."""

    name: str  # the function's in tensorlib; a suffix after a space distinguishes rows
    ours: Callable
    theirs: Callable
    inputs: int = 1
    options: Callable = anything
    domain: str = "real"
    smooth: Callable = lambda xs, y: True


def row(name, theirs, options=anything, inputs=1, domain="real", smooth=lambda xs, y: True):
    """Return a row for a function of tensorlib that takes the result of `options`."""
    function = name.partition(" ")[0]
    return Op(name, lambda *xs, **o: getattr(tl, function)(*xs, **o), theirs, inputs, options, domain, smooth)


def same(names, domain="real", smooth=lambda xs, y: True, inputs=1, module=torch):
    """Return a row for each of these elementwise functions, which have the same name in both libraries."""
    return [row(name, getattr(module, name), broadcasting, inputs, domain, smooth) for name in names.split()]


KINDS = ["mean", "sum", "none"]
LAST_AT_LEAST_TWO = when(lambda s: len(s) > 0 and s[-1] > 1, anything)
PLANES = when(lambda s: len(s) >= 2 and min(s[-2:]) >= 2, anything)

OPS = [
    # elementwise
    *same("exp exp2 expm1 sin cos tanh sinh cosh square sigmoid arctan erf negative"),
    *same("log log2 log10 log1p sqrt rsqrt reciprocal", "positive"),
    *same("tan arcsin arccos", "unit"),
    *same("abs", smooth=away_from(0)),
    *same("relu leaky_relu softsign elu", smooth=away_from(0), module=F),
    *same("hardtanh", "wide", away_from(-1, 1), module=F),
    *same("silu mish softplus", "wide", module=F),
    row("log_sigmoid", F.logsigmoid, domain="wide"),
    row("leaky_relu sloped", F.leaky_relu, also(anything, negative_slope=[0.2, -0.5]), smooth=away_from(0)),
    row("gelu", F.gelu, also(anything, approximate=["none", "tanh"])),
    row("clip", lambda t, **o: t.clip(**o), also(anything, min=[-0.5, None], max=[0.7]), smooth=away_from(-0.5, 0.7)),
    row("glu", F.glu, when(lambda s: s and s[-1] % 2 == 0, anything)),
    row("swiglu", lambda t: F.silu(t.chunk(2, -1)[0]) * t.chunk(2, -1)[1],
        when(lambda s: s and s[-1] % 2 == 0, anything)),
    # of two inputs
    *same("add subtract multiply logaddexp", inputs=2),
    *same("divide arctan2", "positive", inputs=2),
    row("power", torch.pow, broadcasting, 2, "positive"),
    *same("maximum minimum", smooth=apart, inputs=2),
    *same("remainder", "positive", quotient_not_integer, inputs=2),
    Op("where", lambda x, y, condition: tl.where(condition, x, y),
       lambda x, y, condition: torch.where(T(condition), x, y), 2, also(broadcasting, condition=mask)),
    row("masked_fill", lambda t, mask, value: t.masked_fill(T(mask), value),
        also(anything, mask=mask, value=[0.0, -1.5])),
    # Python numbers, and one value used several times
    Op("add number", lambda x: 1.5 - x + 2, lambda x: 1.5 - x + 2),
    Op("power number", lambda x: x**3 - x**2, lambda x: x**3 - x**2),
    Op("power of number", lambda x: 2.0**x, lambda x: 2.0**x),
    Op("divide number", lambda x: 2 / x + x / 3, lambda x: 2 / x + x / 3, domain="positive"),
    Op("multiply itself", lambda x: x * x + x, lambda x: x * x + x),
    Op("subtract itself", lambda x: x - x * 0.5 + (-x), lambda x: x - x * 0.5 + (-x)),
    # reductions
    row("sum", over(torch.sum), some_axes),
    row("mean", over(torch.mean), some_axes),
    row("var", over(lambda t, ddof, **o: torch.var(t, correction=ddof, **o)), defined_variance),
    row("std", over(lambda t, ddof, **o: torch.std(t, correction=ddof, **o)), defined_variance, smooth=not_small),
    row("max", over(torch.amax), some_axes, smooth=distinct),
    row("min", over(torch.amin), some_axes, smooth=distinct),
    row("amax", over(torch.amax), some_axes, smooth=distinct),
    row("amin", over(torch.amin), some_axes, smooth=distinct),
    row("prod", over(torch_prod), some_axes),
    row("logsumexp", over(torch.logsumexp), some_axes),
    row("norm", over(lambda t, ord, **o: torch.linalg.vector_norm(t, ord, **o)), also(some_axes, ord=[1, 2, 3]),
        smooth=lambda xs, y: not_small(xs, y) and away_from(0)(xs, y)),
    # cumulative
    row("cumsum", lambda t, axis: t.cumsum(axis), an_axis),
    row("cumprod", lambda t, axis: t.cumprod(axis), an_axis),
    row("logcumsumexp", logcumsumexp, an_axis),
    row("softmax", lambda t, axis: t.softmax(axis), an_axis),
    row("softmax visible", lambda t, visible: t.masked_fill(~T(visible), -math.inf).softmax(-1),
        also(when(len, anything), visible=mask)),
    row("log_softmax", lambda t, axis: t.log_softmax(axis), an_axis),
    # shapes
    Op("reshape", lambda x, shape: tl.reshape(x, shape), lambda t, shape: t.reshape(shape),
       options=also(anything, shape=a_shape)),
    Op("transpose", lambda x, order: tl.transpose(x, order) if order else x, lambda t, order: t.permute(order),
       options=also(anything, order=lambda r, s: r.sample(range(len(s)), len(s)))),
    Op("swapaxes", lambda x: x.swapaxes(-1, -2), lambda t: t.swapaxes(-1, -2), options=matrices),
    Op("moveaxis", lambda x: tl.moveaxis(x, 0, -1), lambda t: t.moveaxis(0, -1), options=matrices),
    row("flatten", torch.flatten),
    row("copy", torch.clone),
    row("expand_dims", lambda t, axis: t.unsqueeze(axis), also(anything, axis=lambda r, s: r.randint(0, len(s)))),
    row("squeeze", lambda t: t.squeeze()),
    Op("broadcast_to", lambda x, shape: tl.broadcast_to(x, shape), lambda t, shape: t.expand(shape),
       options=also(when(lambda s: math.prod(s) * 2 <= LARGEST, anything),
                    shape=lambda r, s: (2, *[3 if n == 1 and math.prod(s) < 16 else n for n in s]))),
    row("flip", lambda t, axis: t.flip(axis), an_axis),
    row("roll", lambda t, shift, axis: t.roll(shift, axis), also(an_axis, shift=[1, -2, 5])),
    row("repeat", lambda t, repeats, axis: t.repeat_interleave(repeats, axis),
        when(lambda s: math.prod(s) * 3 <= LARGEST, also(an_axis, repeats=[1, 2, 3]))),
    row("tile", lambda t, reps: t.tile(reps),
        when(lambda s: math.prod(s) * 4 <= LARGEST, also(anything, reps=[(2,), (2, 1), (2, 2)]))),
    row("pad", lambda t, pad_width, constant_values: F.pad(t, (*pad_width[1], *pad_width[0]), value=constant_values),
        when(lambda s: len(s) == 2 and math.prod(s) < 24,
             also(anything, pad_width=[((1, 0), (0, 2)), ((0, 0), (1, 1))], constant_values=[0.0, 0.5]))),
    Op("concatenate", lambda x, y, axis: tl.concatenate([x, y], axis),
       lambda x, y, axis: torch.cat([x, y], axis), 2, joined),
    Op("concatenate itself", lambda x: tl.concatenate([x, x * 2, x]), lambda x: torch.cat([x, x * 2, x]),
       options=when(lambda s: s and math.prod(s) * 3 <= LARGEST, anything)),
    Op("stack", lambda x, y: tl.stack([x, y], -1), lambda x, y: torch.stack([x, y], -1), 2,
       lambda r, s, t: {} if s == t and math.prod(s) * 2 <= LARGEST else None),
    Op("split", lambda x: tl.split(x, [1], axis=-1), lambda x: x.tensor_split([1], dim=-1), options=LAST_AT_LEAST_TWO),
    row("unstack", lambda t, axis: t.unbind(axis), when(lambda s: s and max(s) <= 4, an_axis)),
    # selection
    Op("getitem", lambda x, index: x[index], lambda t, index: t[torch_index(index)],
       options=also(anything, index=an_index)),
    Op("getitem backwards", lambda x: x[::-1], lambda t: t.flip(0), options=when(len, anything)),
    row("take", lambda t, indices, axis: t.index_select(axis, T(indices)),
        lambda r, s: {"axis": len(s) - 1, "indices": indices(r, s[-1], 4)} if s else None),
    row("take_along_axis", lambda t, indices, axis: t.take_along_dim(T(indices), axis),
        lambda r, s: {"axis": len(s) - 1, "indices": indices(r, s[-1], *s[:-1], 3)} if s else None),
    row("gather", lambda t, axis, index: t.gather(axis, T(index)),
        lambda r, s: {"axis": len(s) - 1, "index": indices(r, s[-1], *s[:-1], 3)} if s else None),
    Op("scatter_add", lambda x, y, index: tl.scatter_add(x, 0, index, y),
       lambda x, y, index: x.scatter_add(0, T(index), y), 2,
       also(same_shape, index=lambda r, s, t: indices(r, s[0], *s))),
    Op("scatter", lambda x, y, index: tl.scatter(x, 0, index, y),
       lambda x, y, index: x.scatter(0, T(index), y), 2,
       also(same_shape, index=lambda r, s, t: permuted_positions(r, s))),
    Op("index_add", lambda x, y, index: tl.index_add(x, 0, index, y),
       lambda x, y, index: x.index_add(0, T(index), y), 2,
       also(same_shape, index=lambda r, s, t: indices(r, s[0], s[0]))),
    row("embedding", lambda t, ids: t[T(ids)],
        lambda r, s: {"ids": indices(r, s[0], 2, 3)} if s and math.prod(s[1:]) * 6 <= LARGEST else None),
    row("sampled_linear", lambda x, w, ids: (x[..., None, :] * w[T(ids)]).sum(-1),
        lambda r, s, t: {"ids": indices(r, t[0], *s[:-1], 2)}
        if s and len(t) == 2 and s[-1] == t[-1] and math.prod(s) * 2 <= LARGEST else None, 2),
    row("sort", lambda t, axis, descending: t.sort(dim=axis, descending=descending).values,
        also(an_axis, descending=[False, True]), smooth=distinct),
    Op("topk", lambda x, k, largest: tl.topk(x, k, largest=largest)[0],
       lambda t, k, largest: t.topk(k, largest=largest).values,
       options=when(len, also(anything, k=lambda r, s: r.randint(1, s[-1]), largest=[True, False])), smooth=distinct),
    # products and matrices
    row("matmul", torch.matmul, products, 2),
    row("dot", torch.matmul, lambda r, s, t: products(r, s, t) if max(len(s), len(t)) <= 2 else None, 2),
    Op("matmul itself", lambda x: x @ x.swapaxes(-1, -2), lambda x: x @ x.swapaxes(-1, -2), options=matrices),
    row("outer", lambda x, y: torch.outer(x.reshape(-1), y.reshape(-1)), few, 2),
    Op("tensordot", lambda x, y: tl.tensordot(x, y, 1), lambda x, y: torch.tensordot(x, y, 1), 2,
       lambda r, s, t: few(r, s[:-1], t[1:]) if s and t and s[-1] == t[0] else None),
    Op("einsum", lambda x: tl.einsum("...ij,...kj->...ki", x, x), lambda x: torch.einsum("...ij,...kj->...ki", x, x),
       options=matrices),
    Op("einsum trace", lambda x: tl.einsum("...ii->...i", x), lambda x: torch.einsum("...ii->...i", x),
       options=when(lambda s: len(s) > 1 and s[-1] == s[-2], anything)),
    row("diagonal", torch.diagonal, also(matrices, offset=[0, 1])),
    row("trace", torch.trace, when(lambda s: len(s) == 2, anything)),
    Op("tril", lambda x, k: tl.tril(x, k), lambda t, k: t.tril(k), options=also(matrices, k=[0, -1, 1])),
    Op("triu", lambda x, k: tl.triu(x, k), lambda t, k: t.triu(k), options=also(matrices, k=[0, -1, 1])),
    Op("linear", lambda x: tl.linear(x, x.reshape(-1, x.shape[-1]).swapaxes(0, 1), x.reshape(-1, x.shape[-1])[:, 0]),
       lambda x: F.linear(x, x.reshape(-1, x.shape[-1]), x.reshape(-1, x.shape[-1])[:, 0]),
       options=when(lambda s: s and math.prod(s) <= 24, anything)),
    Op("linear_relu", lambda x: tl.linear_relu(x, x.reshape(-1, x.shape[-1]).swapaxes(0, 1)),
       lambda x: F.linear(x, x.reshape(-1, x.shape[-1])).relu(),
       options=when(lambda s: s and math.prod(s) <= 24, anything),
       smooth=lambda xs, y: bool((F.linear(xs[0], xs[0].reshape(-1, xs[0].shape[-1])).abs() > 1e-2).all())),
    Op("feed_forward", lambda x: tl.feed_forward(x, *two_layers(x)), lambda x: hidden(x).relu() @ two_layers(x)[2] +
       two_layers(x)[3], options=when(lambda s: s and math.prod(s) <= 24, anything),
       smooth=lambda xs, y: bool((hidden(xs[0]).abs() > 1e-2).all())),
    # normalization and attention
    Op("add_norm", lambda x, y: tl.add_norm(x, y, *rows_of(y)),
       lambda x, y: F.layer_norm(x + y, x.shape[-1:], *rows_of(y)), 2,
       lambda r, s, t: {} if s and s == t and s[-1] > 1 else None),
    Op("layer_norm", lambda x, y: tl.layer_norm(x, *rows_of(y)),
       lambda x, y: F.layer_norm(x, x.shape[-1:], *rows_of(y)), 2,
       lambda r, s, t: {} if s and t and s[-1] == t[-1] > 1 else None),
    Op("rms_norm", lambda x: tl.rms_norm(x, rows_of(x)[0], 1e-3),
       lambda x: F.rms_norm(x, x.shape[-1:], rows_of(x)[0], 1e-3), options=when(len, anything)),
    Op("batch_norm", lambda x: tl.batch_norm(x, eps=1e-3),
       lambda x: F.batch_norm(x, None, None, training=True, eps=1e-3),
       options=when(lambda s: len(s) > 1 and math.prod(s) > s[1], anything)),
    Op("normalize", lambda x: tl.normalize(x), lambda x: F.normalize(x, dim=-1), options=when(len, anything),
       smooth=lambda xs, y: bool((xs[0].norm(dim=-1) > 1e-2).all())),
    Op("cosine_similarity", lambda x, y: tl.cosine_similarity(x, y),
       lambda x, y: F.cosine_similarity(x, y, dim=-1), 2, same_shape,
       smooth=lambda xs, y: all(bool((x.norm(dim=-1) > 1e-2).all()) for x in xs)),
    Op("multi_head_attention", lambda x: tl.multi_head_attention(x, *projections(x), heads=1, causal=True),
       self_attention, options=when(lambda s: len(s) == 3 and math.prod(s) <= 36, anything)),
    Op("scaled_dot_product_attention", lambda x, y, visible: tl.scaled_dot_product_attention(x, y, x * y, visible),
       attention, 2,
       when(lambda s, t: s == t and len(s) >= 2, also(anything, visible=lambda r, s, t: mask(r, (s[-2], s[-2]))))),
    *[Op(name, our_states(getattr(tl, name), gates), their_states(gates),
         options=when(lambda s: s and 0 < math.prod(s) <= 24, anything))
      for name, gates in (("rnn", 1), ("lstm", 4), ("gru", 3))],
    # losses
    Op("cross_entropy", lambda x, targets, **o: tl.cross_entropy(x, targets, **o),
       lambda t, targets, **o: as_rows(F.cross_entropy, t, targets, **o),
       options=when(len, also(anything, reduction=KINDS, label_smoothing=[0.0, 0.2], targets=targets_for))),
    Op("linear_cross_entropy",
       lambda x, t, **o: tl.linear_cross_entropy(x, x.reshape(-1, x.shape[-1]).swapaxes(0, 1), None, t, **o),
       lambda x, t, **o: as_rows(F.cross_entropy, F.linear(x, x.reshape(-1, x.shape[-1])), t, **o),
       options=when(lambda s: s and math.prod(s) <= 24,
                    also(anything, reduction=KINDS, label_smoothing=[0.0, 0.2], t=targets_among_rows))),
    Op("nll_loss", lambda x, targets, **o: tl.nll_loss(x, targets, **o),
       lambda t, targets, **o: as_rows(F.nll_loss, t, targets, **o),
       options=when(len, also(anything, reduction=KINDS, targets=targets_for))),
    row("mse_loss", F.mse_loss, also(same_shape, reduction=KINDS), 2),
    row("l1_loss", F.l1_loss, also(same_shape, reduction=KINDS), 2, smooth=apart),
    row("huber_loss", F.huber_loss, also(same_shape, reduction=KINDS), 2, smooth=one_apart),
    Op("binary_cross_entropy_with_logits",
       lambda x, y, reduction: tl.binary_cross_entropy_with_logits(x * 3, y.sigmoid(), reduction=reduction),
       lambda x, y, reduction: F.binary_cross_entropy_with_logits(x * 3, y.sigmoid(), reduction=reduction), 2,
       also(same_shape, reduction=KINDS)),
    Op("kl_div", lambda x, y, reduction: tl.kl_div(tl.log_softmax(x), tl.softmax(y), reduction=reduction),
       lambda x, y, reduction: F.kl_div(x.log_softmax(-1), y.softmax(-1), reduction=reduction), 2,
       also(same_shape, reduction=KINDS)),
    # convolution and pooling
    Op("conv1d", lambda x: tl.conv1d(x.reshape(1, 1, -1), x.reshape(1, 1, -1)[:, :, :2], padding=1, stride=2),
       lambda x: F.conv1d(x.reshape(1, 1, -1), x.reshape(1, 1, -1)[:, :, :2], padding=1, stride=2),
       options=when(lambda s: math.prod(s) > 1, anything)),
    Op("conv2d", lambda x, **o: tl.conv2d(*plane(x), **o), lambda x, **o: F.conv2d(*plane(x), **o),
       options=also(PLANES, padding=[0, 1], stride=[1, 2], dilation=[1])),
    Op("max_pool", lambda x, **o: tl.max_pool(plane(x)[0], 2, **o), lambda x, **o: F.max_pool2d(plane(x)[0], 2, **o),
       options=also(PLANES, stride=[1, 2], padding=[0, 1]), smooth=distinct),
    Op("avg_pool", lambda x, **o: tl.avg_pool(plane(x)[0], 2, **o), lambda x, **o: F.avg_pool2d(plane(x)[0], 2, **o),
       options=also(PLANES, stride=[1, 2])),
    # outside the graph
    Op("detach", lambda x: x.detach(), lambda x: x.detach()),
]  # fmt: skip
