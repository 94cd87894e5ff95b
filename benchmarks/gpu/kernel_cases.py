"""For each CUDA kernel arguments of a size that fills the card, and the work that it has to do.

Memory-bound kernels are counted in bytes: each array read once and each result written once, which is the least that
any kernel can move. Kernels of products are counted in floating-point operations, 2mkn for a product of (m, k) and
(k, n); attention without what a backward pass computes again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import nn
import tensorlib as tl
from nn import optim
from tensorlib.kernels import overridable
from tensorlib.ops.attention import AttentionPattern

__all__ = ["BEYOND", "CASES", "Case", "Scale"]

DROP = (0.1, 5, 7)  # probability, key, draw
SMOOTHING = 0.1


class Scale(NamedTuple):
    """The sizes of the arrays."""

    rows: int = 65_536
    width: int = 1024
    words: int = 32_000
    hidden: int = 4096
    tokens: int = 8192  # rows of products
    long: tuple[int, int, int, int] = (16, 16, 1024, 64)  # sentences, heads, positions, width of a head
    short: tuple[int, int, int, int] = (64, 16, 64, 64)


TINY = Scale(64, 16, 30, 24, 8, (2, 2, 8, 4), (2, 2, 4, 4))


class Case(NamedTuple):
    """A call, and its work: operations if `flops` is given, or else the bytes of its arguments and results.

    `written` are the bytes of the arguments that the call also writes.
    """

    call: Callable[[], Any]
    arguments: tuple[Any, ...] = ()
    flops: int = 0
    written: int = 0


class Arrays:
    """Makes arrays on a backend."""

    def __init__(self, backend: str, scale: Scale) -> None:
        self.backend, self.scale = tl.get_backend(backend), scale
        self.xp = self.backend.xp
        self.rng = np.random.default_rng(0)
        self.block = self.rng.standard_normal(2**20, dtype="float32")

    def normal(self, *shape: int) -> Any:
        """Return random numbers; a large array repeats a block of them, because the host is slow to draw them."""
        count = math.prod(shape)
        if count <= self.block.size:
            return self.array(self.block[:count].reshape(shape))
        return self.xp.tile(self.array(self.block), -(-count // self.block.size))[:count].reshape(shape)

    def ids(self, count: int, *shape: int) -> Any:
        return self.array(self.rng.integers(0, count, shape))

    def array(self, values: Any) -> Any:
        return self.backend.asarray(values)

    def rows(self, count: int) -> list[Any]:
        return [self.normal(self.scale.rows, self.scale.width) for _ in range(count)]


def run(name: str, *arguments: Any, flops: int = 0, written: int = 0, **options: Any) -> Case:
    """Return the case that calls a formula by its name, by which a kernel runs."""
    formula = overridable()[name]
    return Case(partial(formula, *arguments, **options), (*arguments, *options.values()), flops, written)


# ---- rows --------------------------------------------------------------------------------------------------------


def softmax_gradient(make: Arrays) -> Case:
    dy, y = make.rows(2)
    return run("softmax_gradient", dy, y, -1)


def layer_norm(make: Arrays) -> Case:
    return run("layer_norm_formula", *make.rows(1), *weights(make), 1e-5)


def layer_norm_gradient(make: Arrays) -> Case:
    dy, x = make.rows(2)
    weight, bias = weights(make)
    _, (mean, rstd) = overridable()["layer_norm_formula"](x, weight, bias, 1e-5)
    return run("layer_norm_gradient", dy, x, weight, mean, rstd, (True,) * 3)


def add_norm(make: Arrays) -> Case:
    return run("add_norm_formula", *make.rows(2), *weights(make), 1e-5, DROP)


def add_norm_gradient(make: Arrays) -> Case:
    dy, x, s = make.rows(3)
    weight, bias = weights(make)
    kept = overridable()["add_norm_formula"](x, s, weight, bias, 1e-5, DROP)[1]
    return run("add_norm_gradient", dy, x, s, weight, kept, DROP, (True,) * 4)


def weights(make: Arrays) -> tuple[Any, Any]:
    return make.normal(make.scale.width), make.normal(make.scale.width)


def gelu_gradient(make: Arrays) -> Case:
    dy, x = make.rows(2)
    return run("gelu_gradient", dy, x, overridable()["gelu_formula"](x)[1])


def cross_entropy(make: Arrays, gradient: bool = False) -> Case:
    rows = make.scale.tokens
    logits, targets = make.normal(rows, make.scale.words), make.ids(make.scale.words, rows)
    counted = make.xp.ones(rows, bool)
    if not gradient:
        return run("cross_entropy_formula", logits, targets, counted, SMOOTHING)
    kept = overridable()["cross_entropy_formula"](logits, targets, counted, SMOOTHING)[1]
    dloss = make.normal(rows)
    return run("cross_entropy_gradient", dloss, logits, kept, targets, counted, SMOOTHING)


def sum_rows(make: Arrays) -> Case:
    """Sum gradients of an embedding, whose ids are as frequent as words: the k-th about 1/k."""
    rows, words = make.scale.rows, make.scale.words
    ids = make.array((words ** make.rng.random(rows)).astype("int64") - 1)
    return run("sum_rows_formula", *make.rows(1), ids, words)


def adam(make: Arrays) -> Case:
    p, g, m, v = make.rows(4)
    v = abs(v)
    options = {"learning_rate": 0.01, "beta1": 0.9, "beta2": 0.98, "eps": 1e-9, "weight_decay": 0.0, "decoupled": False}
    return run("adam_update", p, g, m, v, step=3, written=m.nbytes + v.nbytes, **options)


def sgd(make: Arrays) -> Case:
    p, g, velocity = make.rows(3)
    return run("sgd_update", p, g, velocity, 0.1, 0.9, 0.0, False, written=velocity.nbytes)


def average(make: Arrays) -> Case:
    e, w = make.rows(2)
    return run("average_update", e, w, 0.9, written=e.nbytes)


def sampled_linear(make: Arrays, gradient: bool = False) -> Case:
    rows, width = make.scale.rows // 8, make.scale.width
    x, weight, ids = make.normal(rows, width), make.normal(make.scale.words, width), make.ids(make.scale.words, rows, 8)
    if gradient:
        return run("sampled_linear_gradient", make.normal(rows, 8), x, weight, ids=ids, needs=(True, True))
    return run("sampled_linear_formula", x, weight, ids)


# ---- products ----------------------------------------------------------------------------------------------------


def linear(make: Arrays, name: str, *more: Any) -> Case:
    n, k, m = make.scale.tokens, make.scale.width, make.scale.hidden
    x, weight, bias = make.normal(n, k), make.normal(k, m), make.normal(m)
    return run(name, x, weight, *((bias,) if name != "product" else ()), *more, flops=2 * n * k * m)


def linear_gradient(make: Arrays) -> Case:
    n, k, m = make.scale.tokens, make.scale.width, make.scale.hidden
    arguments = make.normal(n, m), make.normal(n, k), make.normal(k, m)
    return run("linear_gradient", *arguments, (True,) * 3, flops=4 * n * k * m)


def linear_relu_gradient(make: Arrays) -> Case:
    dy, y = make.rows(2)
    return run("linear_relu_gradient", dy, y, 1.5)


def feed_forward(make: Arrays, gradient: bool = False) -> Case:
    n, k, m = make.scale.tokens, make.scale.width, make.scale.hidden
    x, w1, b1, w2, b2 = make.normal(n, k), make.normal(k, m), make.normal(m), make.normal(m, k), make.normal(k)
    if not gradient:
        return run("feed_forward_formula", x, w1, b1, w2, b2, *DROP, flops=4 * n * k * m)
    h = overridable()["feed_forward_formula"](x, w1, b1, w2, b2, *DROP)[1]
    return run("feed_forward_gradient", make.normal(n, k), x, w1, h, w2, 1 / 0.9, (True,) * 5, flops=8 * n * k * m)


def linear_cross_entropy(make: Arrays, gradient: bool = False) -> Case:
    """From hidden states to the loss, with the gradients, which a kernel may compute in the forward pass."""
    n, k, m = make.scale.tokens, make.scale.width, make.scale.words
    x, weight = make.normal(n, k), make.normal(k, m) / k
    options = {"classes": (make.ids(m, n), make.xp.ones(n, bool), SMOOTHING), "needs": (True, True)}
    forward, backward = (overridable()[f"linear_cross_entropy_{name}"] for name in ("formula", "gradient"))
    dloss = make.xp.asarray(1.0, "float32")

    def both() -> Any:
        kept = forward(x, weight, **options)[1]
        return backward(dloss, x, weight, **options, kept=kept)

    return Case(both, flops=6 * n * k * m)


# ---- attention ---------------------------------------------------------------------------------------------------


def attention(make: Arrays, shape: str, gradient: bool = False) -> Case:
    b, h, t, k = getattr(make.scale, shape)
    q, key, v = (make.normal(b, h, t, k) for _ in range(3))
    pattern = AttentionPattern(None, False, *DROP)
    product = 2 * b * h * t * t * k
    if not gradient:
        return run("attention_formula", q, key, v, pattern, flops=2 * product)
    kept = overridable()["attention_formula"](q, key, v, pattern)[1]
    return run("attention_gradient", make.normal(b, h, t, k), q, key, v, pattern, kept, (True,) * 3, flops=4 * product)


def sub_layer(make: Arrays, shape: str, cross: bool, gradient: bool = False) -> Case:
    """Attention with its projections, as one op."""
    b, heads, t, k = getattr(make.scale, shape)
    width = heads * k
    sides = [make.normal(b, t, width) / 3 for _ in range(1 + cross)]
    w, bias = make.normal(width, 3 * width) / width, make.normal(3 * width)
    wo, bo = make.normal(width, width) / width, make.normal(width)
    pattern = AttentionPattern(None, not cross, *DROP)
    name = f"{'cross' if cross else 'self'}_attention"
    flops = 8 * b * t * width * width + 4 * b * heads * t * t * k
    if not gradient:
        return run(f"{name}_formula", *sides, w, bias, wo, bo, heads, pattern, flops=flops)
    kept = overridable()[f"{name}_formula"](*sides, w, bias, wo, bo, heads, pattern)[1]
    dy, needs = make.normal(b, t, width), (True,) * (5 + cross)
    return run(f"{name}_gradient", dy, *sides, w, wo, kept, heads, pattern, needs, flops=2 * flops)


# ---- beyond the formulas -----------------------------------------------------------------------------------------


def optimizer(make: Arrays, guarded: bool = False) -> Case:
    """Adam of 64 parameters, as `optim.Adam` updates them; guarded also takes their norm, which reads the gradients."""
    rows, backend = make.scale.rows // 64, make.backend.name
    parameters = [nn.Parameter(tl.Tensor(make.normal(rows, make.scale.width))) for _ in range(64)]
    for p in parameters:
        p.grad = tl.Tensor(make.normal(rows, make.scale.width)).to(backend)
    adam = optim.Adam(parameters, 1e-4)
    size = 64 * rows * make.scale.width * 4
    if not guarded:
        return Case(adam.step, written=7 * size)
    from nn.optim import guarded_step

    loss = tl.Tensor(make.xp.asarray(1.0, "float32"))
    return Case(lambda: guarded_step(adam, loss, max_norm=1.0), written=8 * size)


def random_bits(make: Arrays) -> Case:
    count = make.scale.rows * make.scale.width
    return Case(lambda: make.backend.random_bits(5, 7, count), written=0)


Build = Callable[[Arrays], Case]

CASES: dict[str, dict[str, Build]] = {
    "softmax_formula": {"": lambda make: run("softmax_formula", *make.rows(1), -1, None)},
    "softmax_gradient": {"": softmax_gradient},
    "layer_norm_formula": {"": layer_norm},
    "layer_norm_gradient": {"": layer_norm_gradient},
    "add_norm_formula": {"": add_norm},
    "add_norm_gradient": {"": add_norm_gradient},
    "dropout_formula": {"": lambda make: run("dropout_formula", *make.rows(1), *DROP)},
    "add_dropout_formula": {"": lambda make: run("add_dropout_formula", *make.rows(2), *DROP)},
    "gelu_formula": {"": lambda make: run("gelu_formula", *make.rows(1))},
    "gelu_gradient": {"": gelu_gradient},
    "linear_relu_gradient": {"": linear_relu_gradient},
    "cross_entropy_formula": {"": cross_entropy},
    "cross_entropy_gradient": {"": partial(cross_entropy, gradient=True)},
    "sum_rows_formula": {"": sum_rows},
    "adam_update": {"": adam},
    "sgd_update": {"": sgd},
    "average_update": {"": average},
    "sampled_linear_formula": {"": sampled_linear},
    "sampled_linear_gradient": {"": partial(sampled_linear, gradient=True)},
    "product": {"": partial(linear, name="product")},
    "linear_formula": {"": partial(linear, name="linear_formula")},
    "linear_relu_formula": {"": lambda make: linear(make, "linear_relu_formula", *DROP)},
    "linear_gradient": {"": linear_gradient},
    "feed_forward_formula": {"": feed_forward},
    "feed_forward_gradient": {"": partial(feed_forward, gradient=True)},
    "linear_cross_entropy_formula": {"with its gradient": linear_cross_entropy},
    "linear_cross_entropy_gradient": {},  # measured with the formula
    "attention_formula": {size: partial(attention, shape=size) for size in ("long", "short")},
    "attention_gradient": {size: partial(attention, shape=size, gradient=True) for size in ("long", "short")},
    "self_attention_formula": {s: partial(sub_layer, shape=s, cross=False) for s in ("long", "short")},
    "self_attention_gradient": {s: partial(sub_layer, shape=s, cross=False, gradient=True) for s in ("long", "short")},
    "cross_attention_formula": {s: partial(sub_layer, shape=s, cross=True) for s in ("long", "short")},
    "cross_attention_gradient": {s: partial(sub_layer, shape=s, cross=True, gradient=True) for s in ("long", "short")},
}
"""By the name of a formula, its cases. `kernels.py` names a kernel that has none here."""

BEYOND: dict[str, Build] = {
    "optim.Adam, 64 parameters": optimizer,
    "optim.guarded_step, 64 parameters": partial(optimizer, guarded=True),
    "random bits": random_bits,
}
"""Kernels that override no formula."""
