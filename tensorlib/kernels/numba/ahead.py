"""Compiling the kernels of a Transformer's training step, and of decoding, before the first step, in another thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np

from tensorlib.engine.recording import recording
from tensorlib.ops.add_norm import add_norm_formula, add_norm_gradient
from tensorlib.ops.attention import AttentionPattern
from tensorlib.ops.dropout import add_dropout_formula, dropout_formula
from tensorlib.ops.feed_forward import feed_forward_formula, feed_forward_gradient
from tensorlib.ops.indexing import sum_rows_formula
from tensorlib.ops.linear_cross_entropy import linear_cross_entropy_formula
from tensorlib.ops.multi_head_attention import (
    cross_attention_formula,
    cross_attention_gradient,
    self_attention_formula,
    self_attention_gradient,
)
from tensorlib.ops.next_position import (
    DecoderLayer,
    Memory,
    SubLayer,
    decoder_step,
    largest_and_total,
    panel_product,
    panels_of,
)
from tensorlib.ops.normalize import layer_norm_formula, layer_norm_gradient
from tensorlib.ops.update import adam_update

__all__ = ["compile_ahead"]

SENTENCES, LENGTH, WIDTH = 16, 32, 16  # enough rows for kernels that leave few rows to NumPy
DROP = 0.1, 0, 0


def compile_ahead(precision: str = "float32") -> threading.Thread:
    """Start a thread that calls these kernels on small arrays in float32, and return it.

    The thread ends early if the program ends: a thread that is in the middle of compiling cannot be stopped.
    """
    thread = threading.Thread(target=_call_all, args=(precision,), name="tensorlib-compiling")
    thread.start()
    return thread


def _call_all(precision: str) -> None:
    with recording(precision=precision):
        for _ in _steps():
            if not threading.main_thread().is_alive():
                return


def _steps() -> Iterator[None]:
    """Call the kernels in the order in which a step needs them, and yield where the thread may end."""
    x, d = np.ones((SENTENCES, LENGTH, WIDTH), np.float32), np.float32
    w, b, wo, one = (np.ones(shape, d) for shape in ((WIDTH, 3 * WIDTH), 3 * WIDTH, (WIDTH, WIDTH), WIDTH))
    rows, ids, counted = x.reshape(-1, WIDTH), np.zeros(SENTENCES * LENGTH, np.int64), np.ones(SENTENCES * LENGTH, bool)
    pattern = AttentionPattern(None, True, *DROP)
    dropout_formula(x, *DROP)
    _, own = self_attention_formula(x, w, b, wo, one, 2, pattern)
    yield
    _, cross = cross_attention_formula(x, x, w, b, wo, one, 2, pattern)
    _, norm = add_norm_formula(x, x, one, one, 1e-5, DROP)
    yield
    _, h = feed_forward_formula(x, wo, one, wo, one, *DROP)
    linear_cross_entropy_formula(rows, w, b, classes=(ids, counted, 0.1), needs=(True, True, True))
    yield
    add_norm_gradient(x, x, x, one, norm, DROP, (True,) * 4)
    feed_forward_gradient(x, x, wo, h, wo, 1.0, (True,) * 5)
    yield
    cross_attention_gradient(x, x, x, w, wo, cross, 2, pattern, (True,) * 6)
    yield
    self_attention_gradient(x, x, w, wo, own, 2, pattern, (True,) * 5)
    sum_rows_formula(rows, ids, 9)
    yield
    m, v = np.zeros(WIDTH, d), np.zeros(WIDTH, d)
    settings = {"learning_rate": 0.1, "beta1": 0.9, "beta2": 0.9, "eps": 1e-8, "weight_decay": 0.0}
    adam_update(one, one, m, v, step=1, decoupled=False, **settings)
    yield
    yield from _decoding(x[:, 0].copy(), one)
    add_dropout_formula(x, x, *DROP)  # this and the last two serve norm="pre"
    _, (mean, rstd) = layer_norm_formula(x, one, one, 1e-5)
    layer_norm_gradient(x, x, one, mean, rstd, (True,) * 3)


def _decoding(x: np.ndarray, one: np.ndarray) -> Iterator[None]:
    """Call the kernels of a decoding step."""
    square, wide = (panels_of(np.ones((WIDTH, columns), x.dtype)) for columns in (WIDTH, 3 * WIDTH))
    narrow = SubLayer(square, one, square, one, one, one, 1e-5, False)
    layer = DecoderLayer(narrow._replace(first=wide, first_bias=np.ones(3 * WIDTH, x.dtype)), narrow, narrow)
    every = np.arange(SENTENCES)
    memory = Memory([np.ones((SENTENCES, 1, 2 * WIDTH), x.dtype)], np.ones((SENTENCES, 1), bool), every)
    decoder_step(x, [layer], [np.empty((1, SENTENCES, 2 * WIDTH), x.dtype)], every[:, None], memory, 2)
    yield
    largest_and_total(panel_product(x, square, WIDTH), 1)
    yield
