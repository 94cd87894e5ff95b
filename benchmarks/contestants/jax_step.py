"""JAX: a training step as its users write it, with pure functions of a tree of parameters, jitted as a whole.

The old parameters and moments are donated, so that they are updated in place. Dropout draws with jax.random.
There are no padding masks, because there is no padding. Adam is written out, like optax's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from sizes import DROPOUT, SMOOTHING, Size, batch_of

from contestants import Contestant

Tree = Any


# ---- parameters --------------------------------------------------------------------------------------------------


def dense(keys: Iterator[Any], rows: int, columns: int, bias: bool = True) -> Tree:
    weight = jax.nn.initializers.glorot_uniform()(next(keys), (rows, columns))
    return {"w": weight, "b": jnp.zeros(columns)} if bias else {"w": weight}


def norm(width: int) -> Tree:
    return {"scale": jnp.ones(width), "shift": jnp.zeros(width)}


def attention_of(keys: Iterator[Any], width: int) -> Tree:
    return {"q": dense(keys, width, width), "kv": dense(keys, width, 2 * width), "out": dense(keys, width, width)}


def layer_of(keys: Iterator[Any], size: Size, cross: bool) -> Tree:
    width = size.width
    made = {"attention": attention_of(keys, width), "hidden": dense(keys, width, size.feed_forward)}
    made |= {"output": dense(keys, size.feed_forward, width), "norms": [norm(width) for _ in range(2 + cross)]}
    return made | ({"cross": attention_of(keys, width)} if cross else {})


def parameters_of(size: Size) -> Tree:
    keys = iter(jax.random.split(jax.random.key(0), 200))
    table = partial(jax.random.normal, shape=(size.vocabulary, size.width))
    return {
        "source": table(next(keys)) * size.width**-0.5,
        "target": table(next(keys)) * size.width**-0.5,
        "encoder": [layer_of(keys, size, cross=False) for _ in range(size.layers)],
        "decoder": [layer_of(keys, size, cross=True) for _ in range(size.layers)],
        "logits": dense(keys, size.width, size.vocabulary, bias=False),
    }


# ---- the model ---------------------------------------------------------------------------------------------------


def linear(p: Tree, x: Any) -> Any:
    return x @ p["w"] + p["b"] if "b" in p else x @ p["w"]


def dropout(keys: Iterator[Any], x: Any) -> Any:
    return jnp.where(jax.random.bernoulli(next(keys), 1 - DROPOUT, x.shape), x / (1 - DROPOUT), 0)


def add_norm(p: Tree, keys: Iterator[Any], x: Any, y: Any) -> Any:
    z = x + dropout(keys, y)
    centred = z - z.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["shift"]


def attend(p: Tree, keys: Iterator[Any], heads: int, x: Any, memory: Any, causal: bool) -> Any:
    def split(y: Any) -> Any:
        return y.reshape(*y.shape[:2], heads, -1)

    q, (k, v) = split(linear(p["q"], x)), map(split, jnp.split(linear(p["kv"], memory), 2, axis=-1))
    scores = jnp.einsum("bthk,bshk->bhts", q, k) / math.sqrt(q.shape[-1])
    if causal:
        scores = jnp.where(jnp.tri(x.shape[1], dtype=bool), scores, -jnp.inf)
    weights = dropout(keys, jax.nn.softmax(scores))
    return linear(p["out"], jnp.einsum("bhts,bshk->bthk", weights, v).reshape(x.shape))


def layer(p: Tree, keys: Iterator[Any], heads: int, x: Any, memory: Any = None) -> Any:
    norms = iter(p["norms"])
    x = add_norm(next(norms), keys, x, attend(p["attention"], keys, heads, x, x, causal=memory is not None))
    if memory is not None:
        x = add_norm(next(norms), keys, x, attend(p["cross"], keys, heads, x, memory, causal=False))
    hidden = dropout(keys, jax.nn.relu(linear(p["hidden"], x)))
    return add_norm(next(norms), keys, x, linear(p["output"], hidden))


def embed(table: Any, keys: Iterator[Any], ids: Any) -> Any:
    width = table.shape[1]
    angles = jnp.arange(ids.shape[1])[:, None] / 10000 ** (jnp.arange(0, width, 2) / width)
    positions = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(-1, width)
    return dropout(keys, table[ids] * math.sqrt(width) + positions)


def loss_of(p: Tree, key: Any, heads: int, source: Any, target_in: Any, target_out: Any) -> Any:
    keys = iter(jax.random.split(key, 200))
    memory, x = embed(p["source"], keys, source), embed(p["target"], keys, target_in)
    for q in p["encoder"]:
        memory = layer(q, keys, heads, memory)
    for q in p["decoder"]:
        x = layer(q, keys, heads, x, memory)
    log_probs = jax.nn.log_softmax(linear(p["logits"], x))
    right = jnp.take_along_axis(log_probs, target_out[..., None], axis=-1)
    return -((1 - SMOOTHING) * right.mean() + SMOOTHING * log_probs.mean())


# ---- the step ----------------------------------------------------------------------------------------------------


@partial(jax.jit, donate_argnums=0, static_argnames="heads")
def train(state: Tree, batch: Any, heads: int) -> tuple[Tree, Any]:
    """Return the state after one step of Adam, and the loss before it."""
    p, m, v, t = state
    loss, g = jax.value_and_grad(loss_of)(p, jax.random.fold_in(jax.random.key(1), t), heads, *batch)
    t = t + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
    rate, second = 1e-4 / (1 - 0.9**t), 1 - 0.999**t
    p = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v / second) + 1e-8), p, m, v)
    return (p, m, v, t), loss


def step(size: list[int]) -> Contestant:
    shape = Size(*size)
    p = parameters_of(shape)
    state = (p, jax.tree.map(jnp.zeros_like, p), jax.tree.map(jnp.zeros_like, p), jnp.zeros((), jnp.int32))
    batch = tuple(jnp.asarray(ids) for ids in batch_of(shape))

    def step() -> float:
        nonlocal state
        state, loss = train(state, batch, shape.heads)
        jax.block_until_ready(state)
        return float(loss)

    return Contestant(f"JAX {jax.__version__}, jit", {"step": step})
