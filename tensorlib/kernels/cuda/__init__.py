"""Kernels for CuPy arrays, registered when CuPy's backend is first used.

At the sizes of a translation model a step on a GPU spends its time on launches, not on arithmetic: a formula of ten
NumPy calls takes ten launches, a kernel takes one. The kernels compute in the dtype of their arrays, float32 or
float64; for all other arrays the formula runs.
"""

from tensorlib.kernels.cuda import (
    activations,
    add_norm,
    attention,
    crossentropy,
    dropout,
    feed_forward,
    indexing,
    linear,
    linear_cross_entropy,
    loss_scale,
    multi_head_attention,
    next_position,
    normalize,
    products,
    recurrent,
    softmax,
    update,
    update_in_place,
)

__all__ = [
    "activations",
    "add_norm",
    "attention",
    "crossentropy",
    "dropout",
    "feed_forward",
    "indexing",
    "linear",
    "linear_cross_entropy",
    "loss_scale",
    "multi_head_attention",
    "next_position",
    "normalize",
    "products",
    "recurrent",
    "softmax",
    "update",
    "update_in_place",
]
