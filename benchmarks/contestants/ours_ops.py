"""tensorlib: single ops, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sizes import DROPOUT, SMOOTHING

import nn
import tensorlib as tl
from contestants import Contestant
from contestants.ours import LIBRARY, causal_attention, keep_memory
from contestants.shapes import SHAPES, SMALL

RNG = np.random.default_rng(0)
WIDTH, HIDDEN, WORDS = SMALL.width, SMALL.feed_forward, SMALL.vocabulary


def leaf(*shape: int) -> tl.Tensor:
    return tl.Tensor(RNG.normal(size=shape).astype("f"), requires_grad=True)


def forward_backward(f: Callable[..., Any], *inputs: tl.Tensor) -> Callable[[], None]:
    """Return a step that computes f(*inputs) and the gradients of all inputs, from one that is given."""
    y = f(*inputs)
    dy = None if y.shape == () else tl.Tensor(RNG.normal(size=y.shape).astype("f"))

    def step() -> None:
        for x in inputs:
            x.grad = None
        f(*inputs).backward(dy)

    return step


def ids(name: str) -> np.ndarray:
    return RNG.integers(0, WORDS, SHAPES[name][:2])


def normed(shape: tuple[int, ...]) -> Callable[[], None]:
    """Return the end of a sub-layer: through nn's own module where there is one for it."""
    layer = nn.LayerNorm(shape[-1])
    fused = getattr(tl, "residual_layer_norm", None) or getattr(tl, "dropout_add_layer_norm", None)

    def f(x: Any, y: Any, w: Any, b: Any) -> Any:
        return fused(x, y, w, b, dropout=DROPOUT) if fused else tl.layer_norm(x + tl.dropout(y, DROPOUT), w, b)

    return forward_backward(f, leaf(*shape), leaf(*shape), layer.weight, layer.bias)


def dense(shape: tuple[int, ...], relu: bool) -> Callable[[], None]:
    """Return a dense layer, with the activation in one op where tensorlib has that."""
    fused = getattr(tl, "linear_relu", None) if relu else tl.linear
    f = fused or (lambda x, w, b: tl.relu(tl.linear(x, w, b)))
    return forward_backward(f, leaf(*shape), leaf(WIDTH, HIDDEN), leaf(HIDDEN))


def projected_loss(name: str) -> Callable[[], None]:
    """Return the loss from hidden states, in one op where tensorlib has that."""
    targets = ids(name)
    fused = getattr(tl, "linear_cross_entropy", None)

    def f(x: Any, w: Any) -> Any:
        if fused:
            return fused(x, w, None, targets, label_smoothing=SMOOTHING)
        return tl.cross_entropy(x @ w, targets, label_smoothing=SMOOTHING)

    return forward_backward(f, leaf(*SHAPES[name]), leaf(WIDTH, WORDS))


def adam(shape: tuple[int, ...]) -> Callable[[], None]:
    parameter = nn.Parameter(RNG.normal(size=shape).astype("f"))
    parameter.grad = leaf(*shape).detach()
    return nn.optim.Adam([parameter], 1e-4).step


def every() -> Contestant:
    keep_memory()
    inputs = {name: leaf(*shape) for name, shape in SHAPES.items() if name not in ("embedding", "Adam")}
    heads, words, targets = SHAPES["attention"], ids("embedding"), ids("cross-entropy")
    qkv = [leaf(*heads) for _ in range(3)]
    norm = nn.LayerNorm(WIDTH)
    steps = {
        "add": forward_backward(lambda x: x + x, inputs["add"]),
        "softmax": forward_backward(tl.softmax, inputs["softmax"]),
        "layer norm": forward_backward(tl.layer_norm, inputs["layer norm"], norm.weight, norm.bias),
        "dropout, add, layer norm": normed(SHAPES["dropout, add, layer norm"]),
        "dropout": forward_backward(lambda x: tl.dropout(x, DROPOUT), inputs["dropout"]),
        "linear": dense(SHAPES["linear"], relu=False),
        "linear, relu": dense(SHAPES["linear, relu"], relu=True),
        "attention": forward_backward(tl.scaled_dot_product_attention, *qkv),
        "attention, causal, dropout": forward_backward(causal_attention(heads[2], DROPOUT), *qkv),
        "embedding": forward_backward(lambda w: tl.embedding(w, words), leaf(WORDS, WIDTH)),
        "cross-entropy": forward_backward(
            lambda x: tl.cross_entropy(x, targets, label_smoothing=SMOOTHING), inputs["cross-entropy"]
        ),
        "linear, cross-entropy": projected_loss("linear, cross-entropy"),
        "Adam": adam(SHAPES["Adam"]),
    }
    return Contestant(LIBRARY, steps)
