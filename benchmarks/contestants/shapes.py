"""The ops that `ops.py` compares, with their shapes in a step of "small"; recurrent layers have their own shape."""

from __future__ import annotations

from sizes import SIZES

SMALL = SIZES["small"]
ROWS = (SMALL.batch, SMALL.length)
HEADS = (SMALL.batch, SMALL.heads, SMALL.length, SMALL.width // SMALL.heads)
SHAPES: dict[str, tuple[int, ...]] = {
    "add": (10,),
    "softmax": (*HEADS[:3], SMALL.length),
    "layer norm": (*ROWS, SMALL.width),
    "dropout, add, layer norm": (*ROWS, SMALL.width),
    "dropout": (*ROWS, SMALL.feed_forward),
    "linear": (*ROWS, SMALL.width),
    "linear, relu": (*ROWS, SMALL.width),
    "attention": HEADS,
    "attention, causal, dropout": HEADS,
    "embedding": ROWS,
    "cross-entropy": (*ROWS, SMALL.vocabulary),
    "linear, cross-entropy": (*ROWS, SMALL.width),
    "LSTM, 2 layers": (64, 32, 512),
    "GRU, 2 layers": (64, 32, 512),
    "Adam": (SMALL.vocabulary, SMALL.width),
}
"""The shape of the input by op.

For "embedding" it is that of the ids, for "Adam" that of the parameter; recurrent layers read (B, T, D), and their
states have width D.
"""
