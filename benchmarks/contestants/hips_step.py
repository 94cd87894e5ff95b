"""HIPS autograd: a training step on the same NumPy, as its users write it, with plain functions and `value_and_grad`.

Dropout multiplies by masks drawn with NumPy. Adam is written out, in place, like autograd.misc's for flat vectors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import autograd.numpy as np
import numpy
from autograd import value_and_grad
from autograd.tracer import getval
from sizes import DROPOUT, SMOOTHING, Size, batch_of

from contestants import Contestant

RNG = numpy.random.default_rng(0)
Tree = Any


def dense(rows: int, columns: int) -> Tree:
    limit = math.sqrt(6 / (rows + columns))
    weight = RNG.uniform(-limit, limit, (rows, columns)).astype("f")
    return {"w": weight, "b": numpy.zeros(columns, "f")}


def layer_of(size: Size, cross: bool) -> Tree:
    width = size.width
    attention = [{"in": dense(width, 3 * width), "out": dense(width, width)} for _ in range(1 + cross)]
    norms = [{"scale": numpy.ones(width, "f"), "shift": numpy.zeros(width, "f")} for _ in range(2 + cross)]
    hidden, output = dense(width, size.feed_forward), dense(size.feed_forward, width)
    return {"attention": attention, "norms": norms, "hidden": hidden, "output": output}


def parameters_of(size: Size) -> Tree:
    made = {s: [layer_of(size, s == "decoder") for _ in range(size.layers)] for s in ("encoder", "decoder")}
    tables = [RNG.normal(0, size.width**-0.5, (size.vocabulary, size.width)).astype("f") for _ in range(2)]
    return {**made, "source": tables[0], "target": tables[1], "logits": dense(size.width, size.vocabulary)["w"]}


def linear(p: Tree, x: Any) -> Any:
    return np.dot(x, p["w"]) + p["b"]


def dropout(x: Any) -> Any:
    kept = RNG.random(x.shape, dtype="f") >= DROPOUT
    return x * (kept * numpy.float32(1 / (1 - DROPOUT)))


def add_norm(p: Tree, x: Any, y: Any) -> Any:
    z = x + dropout(y)
    centred = z - np.mean(z, axis=-1, keepdims=True)
    deviation = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + numpy.float32(1e-5))
    return centred / deviation * p["scale"] + p["shift"]


def log_softmax(x: Any) -> Any:
    shifted = x - getval(x).max(-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def attend(p: Tree, heads: int, x: Any, memory: Any, hidden: Any = None) -> Any:
    batch, _, width = x.shape

    def split(y: Any) -> Any:
        return np.transpose(np.reshape(y, (batch, -1, heads, width // heads)), (0, 2, 1, 3))

    w, b = p["in"]["w"], p["in"]["b"]
    q = split(np.dot(x, w[:, :width]) + b[:width])
    kv = np.dot(memory, w[:, width:]) + b[width:]
    k, v = split(kv[..., :width]), split(kv[..., width:])
    scores = np.matmul(q, np.swapaxes(k, -1, -2)) * numpy.float32(1 / math.sqrt(width // heads))
    weights = np.exp(log_softmax(scores if hidden is None else scores + hidden))
    return linear(p["out"], np.reshape(np.transpose(np.matmul(dropout(weights), v), (0, 2, 1, 3)), x.shape))


def layer(p: Tree, heads: int, x: Any, memory: Any = None, hidden: Any = None) -> Any:
    norms: Iterator[Tree] = iter(p["norms"])
    x = add_norm(next(norms), x, attend(p["attention"][0], heads, x, x, hidden))
    if memory is not None:
        x = add_norm(next(norms), x, attend(p["attention"][1], heads, x, memory))
    inner = dropout(np.maximum(linear(p["hidden"], x), numpy.float32(0)))
    return add_norm(next(norms), x, linear(p["output"], inner))


def embed(table: Any, ids: Any) -> Any:
    width = table.shape[1]
    angles = numpy.arange(ids.shape[1])[:, None] / 10000 ** (numpy.arange(0, width, 2) / width)
    positions = numpy.stack([numpy.sin(angles), numpy.cos(angles)], -1).reshape(-1, width).astype("f")
    return dropout(table[ids] * numpy.float32(math.sqrt(width)) + positions)


def loss_of(p: Tree, heads: int, source: Any, target_in: Any, target_out: Any) -> Any:
    memory, x = embed(p["source"], source), embed(p["target"], target_in)
    for q in p["encoder"]:
        memory = layer(q, heads, memory)
    hidden = numpy.where(numpy.tri(x.shape[1], dtype=bool), 0, -1e9).astype("f")
    for q in p["decoder"]:
        x = layer(q, heads, x, memory, hidden)
    log_probs = np.reshape(log_softmax(np.dot(x, p["logits"])), (target_out.size, -1))
    right = log_probs[numpy.arange(target_out.size), target_out.reshape(-1)]
    return -((1 - SMOOTHING) * np.mean(right) + SMOOTHING * np.mean(log_probs))


def leaves(tree: Tree) -> list[Any]:
    """Return the arrays of a tree, in order."""
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else None
    return [tree] if inner is None else [leaf for part in inner for leaf in leaves(part)]


def step(size: list[int]) -> Contestant:
    shape = Size(*size)
    parameters, batch = parameters_of(shape), batch_of(shape)
    arrays, gradient = leaves(parameters), value_and_grad(loss_of)
    moments = [(numpy.zeros_like(p), numpy.zeros_like(p)) for p in arrays]
    t = 0

    def step() -> float:
        nonlocal t
        t += 1
        loss, tree = gradient(parameters, shape.heads, *batch)
        rate, second = 1e-4 / (1 - 0.9**t), 1 - 0.999**t
        for p, g, (m, v) in zip(arrays, leaves(tree), moments, strict=True):
            m *= 0.9
            m += 0.1 * g
            v *= 0.999
            v += 0.001 * g * g
            p -= rate * m / (numpy.sqrt(v / second) + 1e-8)
        return float(loss)

    return Contestant(f"HIPS autograd {version('autograd')}, NumPy {numpy.__version__}", {"step": step})
