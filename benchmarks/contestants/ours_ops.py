"""tensorlib: single ops, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sizes import DROPOUT, SMOOTHING

import nn
import tensorlib as tl
from contestants import Contestant
from contestants.ours import LIBRARY
from contestants.shapes import SHAPES, SMALL
from tensorlib import Tensor

RNG = np.random.default_rng(0)
WIDTH, HIDDEN, WORDS = SMALL.width, SMALL.feed_forward, SMALL.vocabulary


def leaf(*shape: int) -> Tensor:
    return Tensor(RNG.normal(size=shape).astype("f"), requires_grad=True)


def forward_backward(f: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], None]:
    """Return a step that computes f(*inputs) and the gradients of all inputs from a fixed gradient of the output."""
    y = f(*inputs)
    dy = None if y.shape == () else Tensor(RNG.normal(size=y.shape).astype("f"))

    def step() -> None:
        for x in inputs:
            x.grad = None
        f(*inputs).backward(dy)

    return step


def ids(name: str) -> np.ndarray:
    return RNG.integers(0, WORDS, SHAPES[name][:2])


def dense(op: Callable[..., Tensor], shape: tuple[int, ...]) -> Callable[[], None]:
    return forward_backward(op, leaf(*shape), leaf(WIDTH, HIDDEN), leaf(HIDDEN))


def recurrent(kind: Callable[..., nn.Module], x: Tensor) -> Callable[[], None]:
    layers = kind(x.shape[-1], x.shape[-1], 2)
    return forward_backward(lambda x, *weights: layers(x)[0], x, *layers.parameters())


def adam(shape: tuple[int, ...]) -> Callable[[], None]:
    parameter = nn.Parameter(RNG.normal(size=shape).astype("f"))
    parameter.grad = leaf(*shape).detach()
    return nn.optim.Adam([parameter], 1e-4).step


def every() -> Contestant:
    inputs = {name: leaf(*shape) for name, shape in SHAPES.items() if name not in ("embedding", "Adam")}
    words, targets, projected_targets = ids("embedding"), ids("cross-entropy"), ids("linear, cross-entropy")
    qkv = [leaf(*SHAPES["attention"]) for _ in range(3)]
    norm = nn.LayerNorm(WIDTH)
    steps = {
        "add": forward_backward(lambda x: x + x, inputs["add"]),
        "softmax": forward_backward(tl.softmax, inputs["softmax"]),
        "layer norm": forward_backward(tl.layer_norm, inputs["layer norm"], norm.weight, norm.bias),
        "dropout, add, layer norm": forward_backward(
            lambda x, y, w, b: tl.layer_norm(x + tl.dropout(y, DROPOUT), w, b),
            inputs["dropout, add, layer norm"], leaf(*SHAPES["dropout, add, layer norm"]), norm.weight, norm.bias,
        ),
        "dropout": forward_backward(lambda x: tl.dropout(x, DROPOUT), inputs["dropout"]),
        "linear": dense(tl.linear, SHAPES["linear"]),
        "linear, relu": dense(tl.linear_relu, SHAPES["linear, relu"]),
        "attention": forward_backward(tl.scaled_dot_product_attention, *qkv),
        "attention, causal, dropout": forward_backward(
            lambda q, k, v: tl.scaled_dot_product_attention(q, k, v, causal=True, dropout=DROPOUT), *qkv
        ),
        "embedding": forward_backward(lambda w: tl.embedding(w, words), leaf(WORDS, WIDTH)),
        "cross-entropy": forward_backward(
            lambda x: tl.cross_entropy(x, targets, label_smoothing=SMOOTHING), inputs["cross-entropy"]
        ),
        "linear, cross-entropy": forward_backward(
            lambda x, w: tl.linear_cross_entropy(x, w, None, projected_targets, label_smoothing=SMOOTHING),
            inputs["linear, cross-entropy"], leaf(WIDTH, WORDS),
        ),
        "LSTM, 2 layers": recurrent(nn.LSTM, inputs["LSTM, 2 layers"]),
        "GRU, 2 layers": recurrent(nn.GRU, inputs["GRU, 2 layers"]),
        "Adam": adam(SHAPES["Adam"]),
    }  # fmt: skip
    return Contestant(LIBRARY, steps)
