"""PyTorch: single ops, forward and backward, from torch.nn.functional."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from sizes import DROPOUT, SMOOTHING

from contestants import Contestant
from contestants.shapes import SHAPES, SMALL
from contestants.torch_step import LIBRARY

WIDTH, HIDDEN, WORDS = SMALL.width, SMALL.feed_forward, SMALL.vocabulary


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(shape, requires_grad=True)


def forward_backward(f: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Callable[[], None]:
    """Return a step that computes f(*inputs) and the gradients of all inputs from a fixed gradient of the output."""
    y = f(*inputs)
    dy = None if y.shape == () else torch.randn(y.shape)

    def step() -> None:
        for x in inputs:
            x.grad = None
        f(*inputs).backward(dy)

    return step


def ids(name: str) -> torch.Tensor:
    return torch.randint(0, WORDS, SHAPES[name][:2])


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=SMOOTHING)


def recurrent(kind: Callable[..., torch.nn.Module], x: torch.Tensor) -> Callable[[], None]:
    layers = kind(x.shape[-1], x.shape[-1], 2, batch_first=True)
    return forward_backward(lambda x, *weights: layers(x)[0], x, *layers.parameters())


def adam(shape: tuple[int, ...]) -> Callable[[], None]:
    parameter = torch.nn.Parameter(torch.randn(shape))
    parameter.grad = torch.randn(shape)
    return torch.optim.Adam([parameter], 1e-4, fused=True).step


def every() -> Contestant:
    torch.manual_seed(0)
    inputs = {name: leaf(*shape) for name, shape in SHAPES.items() if name not in ("embedding", "Adam")}
    words, targets = ids("embedding"), ids("cross-entropy")
    qkv = [leaf(*SHAPES["attention"]) for _ in range(3)]
    dense, scale = (leaf(HIDDEN, WIDTH), leaf(HIDDEN)), (leaf(WIDTH), leaf(WIDTH))
    normed, attention = (WIDTH,), F.scaled_dot_product_attention
    steps = {
        "add": forward_backward(lambda x: x + x, inputs["add"]),
        "softmax": forward_backward(lambda x: F.softmax(x, -1), inputs["softmax"]),
        "layer norm": forward_backward(lambda x, w, b: F.layer_norm(x, normed, w, b), inputs["layer norm"], *scale),
        "dropout, add, layer norm": forward_backward(
            lambda x, y, w, b: F.layer_norm(x + F.dropout(y, DROPOUT), normed, w, b),
            inputs["dropout, add, layer norm"], leaf(*SHAPES["dropout, add, layer norm"]), *scale,
        ),
        "dropout": forward_backward(lambda x: F.dropout(x, DROPOUT), inputs["dropout"]),
        "linear": forward_backward(F.linear, inputs["linear"], *dense),
        "linear, relu": forward_backward(lambda x, w, b: F.relu(F.linear(x, w, b)), inputs["linear, relu"], *dense),
        "attention": forward_backward(attention, *qkv),
        "attention, causal, dropout": forward_backward(
            lambda q, k, v: attention(q, k, v, dropout_p=DROPOUT, is_causal=True), *qkv
        ),
        "embedding": forward_backward(lambda w: F.embedding(words, w), leaf(WORDS, WIDTH)),
        "cross-entropy": forward_backward(lambda x: loss_of(x, targets), inputs["cross-entropy"]),
        "linear, cross-entropy": forward_backward(
            lambda x, w: loss_of(F.linear(x, w), targets), inputs["linear, cross-entropy"], leaf(WORDS, WIDTH)
        ),
        "LSTM, 2 layers": recurrent(torch.nn.LSTM, inputs["LSTM, 2 layers"]),
        "GRU, 2 layers": recurrent(torch.nn.GRU, inputs["GRU, 2 layers"]),
        "Adam": adam(SHAPES["Adam"]),
    }  # fmt: skip
    return Contestant(LIBRARY, steps)
