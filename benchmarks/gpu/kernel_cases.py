"""For each CUDA kernel its cases; those of products are in `product_cases.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import nn
import tensorlib as tl
from gpu import product_cases
from gpu.case import DROP, SMOOTHING, Arrays, Build, Case, run
from nn import optim
from tensorlib.kernels import overridable

__all__ = ["BEYOND", "CASES", "ON_A_GPU"]


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
    """Sum gradients of an embedding."""
    return run("sum_rows_formula", *make.rows(1), words_of(make), make.scale.words)


def scatter_add(make: Arrays) -> Case:
    """Add rows into the rows of a larger array, as the gradient of an index."""
    return run("scatter_add_formula", *make.rows(1), words_of(make), (make.scale.words, make.scale.width))


def largest(make: Arrays) -> Case:
    """Find the likeliest tokens of a beam of 4."""
    return run("largest_and_total", make.normal(make.scale.tokens, make.scale.words), 5)


def reorder(make: Arrays) -> Case:
    """Let all rows of a beam of 4 continue another one, over 16 positions."""
    rows = 4 * max(1, make.scale.rows // 64)
    kept = make.normal(rows, 1, 16, make.scale.width)
    before = make.array([row ^ 3 for row in range(rows)])
    return run("reorder_rows", kept, before, make.array([16]), 4, written=kept.nbytes)


def words_of(make: Arrays) -> Any:
    """Return an id for each row, as frequent as words: the k-th about 1/k."""
    words = make.scale.words
    return make.array((words ** make.rng.random(make.scale.rows)).astype("int64") - 1)


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


def linear_relu_gradient(make: Arrays) -> Case:
    dy, y = make.rows(2)
    return run("linear_relu_gradient", dy, y, 1.5)


# ---- all parameters of an optimizer at once ----------------------------------------------------------------------


def lists(make: Arrays, count: int) -> list[list[Any]]:
    """Return lists of 64 arrays each, as if of a model with 64 parameters."""
    return [[make.normal(make.scale.rows // 64, make.scale.width) for _ in range(64)] for _ in range(count)]


def bytes_of(arrays: list[Any]) -> int:
    return sum(array.nbytes for array in arrays)


def counts(make: Arrays) -> list[Any]:
    return [make.array(np.zeros(1, np.int64)) for _ in range(64)]


def adam_steps(make: Arrays) -> Case:
    ps, gs, ms, vs = lists(make, 4)
    vs = [abs(v) for v in vs]
    options = {"beta1": 0.9, "beta2": 0.98, "eps": 1e-9, "weight_decay": 0.0, "decoupled": False}
    state = ps, gs, ms, vs, counts(make), None
    return run("adam_steps", *state, learning_rate=lambda: 1e-6, written=3 * bytes_of(ps), **options)


def sgd_steps(make: Arrays) -> Case:
    ps, gs, velocities = lists(make, 3)
    options = {"momentum": 0.9, "weight_decay": 0.0, "nesterov": False}
    state = ps, gs, velocities, counts(make), None
    return run("sgd_steps", *state, learning_rate=lambda: 1e-6, written=2 * bytes_of(ps), **options)


def average_steps(make: Arrays) -> Case:
    es, ws = lists(make, 2)
    return run("average_steps", es, ws, None, lambda: 0.9, written=bytes_of(es))


def step_guard(make: Arrays) -> Case:
    loss, skip = make.array(np.ones((), "float32")), make.array(np.zeros((), bool))
    return run("step_guard", *lists(make, 1), loss, skip, 1.0, lambda: 1.0)


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


def split_heads(make: Arrays) -> Case:
    """Lay out queries, keys and values by heads, with the bias."""
    from tensorlib.kernels.cuda.multi_head_attention import split_heads

    batch, heads, length, width = make.scale.long
    z, bias = make.normal(batch, length, 3 * heads * width), make.normal(3 * heads * width)
    return Case(lambda: split_heads(z, bias, 3, heads), (z, bias))


def join_heads(make: Arrays) -> Case:
    """Lay heads side by side again, and add up the gradient of the bias."""
    from tensorlib.kernels.cuda.multi_head_attention import join_heads

    batch, heads, length, width = make.scale.long
    split, db = make.normal(3, batch, heads, length, width), make.normal(3 * heads * width)
    return Case(lambda: join_heads(split, db), (split,), written=db.nbytes)


def rounded(make: Arrays, precision: str) -> Case:
    """Round both operands of a product to 16 bits."""
    from tensorlib.kernels.cuda.rounding import rounded_pair

    x, y = make.rows(2)
    return Case(lambda: rounded_pair(x, y, precision), (x, y))


def copies(make: Arrays, number: int) -> Case:
    """Copy arrays in one launch."""
    from tensorlib.arrays.cuda import copy_arrays

    sources = [make.normal(make.scale.rows // number, make.scale.width) for _ in range(number)]
    pairs = [(make.xp.empty_like(source), source) for source in sources]
    return Case(lambda: copy_arrays(pairs), (sources,), written=bytes_of(sources))


CASES: dict[str, dict[str, Build]] = {
    **product_cases.CASES,
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
    "erf_formula": {"": lambda make: run("erf_formula", *make.rows(1))},
    "sum_rows_formula": {"": sum_rows},
    "scatter_add_formula": {"": scatter_add},
    "largest_and_total": {"": largest},
    "reorder_rows": {"": reorder},
    "adam_update": {"": adam},
    "sgd_update": {"": sgd},
    "average_update": {"": average},
    "scaled": {"": lambda make: run("scaled", *lists(make, 1), 0.5)},
    "adam_steps": {"": adam_steps},
    "sgd_steps": {"": sgd_steps},
    "average_steps": {"": average_steps},
    "step_guard": {"": step_guard},
    "loss_scale_update": {},  # of two numbers
    "sampled_linear_formula": {"": sampled_linear},
    "sampled_linear_gradient": {"": partial(sampled_linear, gradient=True)},
}
"""By the name of a formula, its cases. `kernels.py` names a kernel that has none here."""

BEYOND: dict[str, Build] = {
    "optim.Adam, 64 parameters": optimizer,
    "optim.guarded_step, 64 parameters": partial(optimizer, guarded=True),
    "random bits": random_bits,
}
"""Kernels that override no formula."""

ON_A_GPU: dict[str, Build] = {
    "split heads": split_heads,
    "join heads": join_heads,
    "round operands to bf16": partial(rounded, precision="bf16"),
    "round operands to fp16": partial(rounded, precision="fp16"),
    "copy one array": partial(copies, number=1),
    "copy 64 arrays": partial(copies, number=64),
}
"""Kernels that only a GPU has."""
