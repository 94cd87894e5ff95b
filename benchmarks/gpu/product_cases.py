"""The kernels of products: linear layers, from hidden states to the loss, attention, recurrent layers."""

from __future__ import annotations

from functools import partial
from typing import Any

from gpu.case import DROP, SMOOTHING, Arrays, Build, Case, run
from tensorlib.kernels import overridable
from tensorlib.ops.attention import AttentionPattern

__all__ = ["CASES"]


# ---- products ----------------------------------------------------------------------------------------------------


def linear(make: Arrays, name: str, *more: Any) -> Case:
    n, k, m = make.scale.tokens, make.scale.width, make.scale.hidden
    x, weight, bias = make.normal(n, k), make.normal(k, m), make.normal(m)
    return run(name, x, weight, *((bias,) if name != "product" else ()), *more, flops=2 * n * k * m)


def linear_gradient(make: Arrays) -> Case:
    n, k, m = make.scale.tokens, make.scale.width, make.scale.hidden
    arguments = make.normal(n, m), make.normal(n, k), make.normal(k, m)
    return run("linear_gradient", *arguments, (True,) * 3, flops=4 * n * k * m)


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


# ---- recurrent layers ----------------------------------------------------------------------------------------------


def recurrent(make: Arrays, kind: str, gradient: bool = False) -> Case:
    """All steps of a layer; its products are too small to fill a card, and each waits for the one before."""
    n, length, units = make.scale.recurrent
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[kind]
    u, weight = make.normal(n, length, gates * units), make.normal(units, gates * units) / units
    state = [make.normal(n, units) for _ in range(2 if kind == "lstm" else 1)]
    extra: list[Any] = [make.normal(units)] if kind == "gru" else []
    more: list[Any] = [False] if kind == "rnn" else []
    flops = 2 * n * length * units * gates * units
    if not gradient:
        return run(f"{kind}_steps", u, weight, *extra, *state, *more, None, False, flops=flops)
    rows = [make.normal(n, length, units) for _ in range({"rnn": 2, "gru": 2, "lstm": 4}[kind])]
    if kind == "gru":
        rows += [abs(u) % 1, make.normal(n, length, units)]
    elif kind == "lstm":
        rows.append(abs(u) % 1)
    return run(f"{kind}_steps_gradient", *rows, weight, *more, None, False, flops=flops)


CASES: dict[str, dict[str, Build]] = {
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
    "rnn_steps": {"": partial(recurrent, kind="rnn")},
    "rnn_steps_gradient": {"": partial(recurrent, kind="rnn", gradient=True)},
    "gru_steps": {"": partial(recurrent, kind="gru")},
    "gru_steps_gradient": {"": partial(recurrent, kind="gru", gradient=True)},
    "lstm_steps": {"": partial(recurrent, kind="lstm")},
    "lstm_steps_gradient": {"": partial(recurrent, kind="lstm", gradient=True)},
}
"""By the name of a formula, its cases."""
