"""The ops that `ops.py` compares, and the shapes of a step of "small" in which they are compared."""

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
    "Adam": (SMALL.vocabulary, SMALL.width),
}
"""Name and shape of the input; for "embedding" of the ids, for "Adam" of the parameter."""
