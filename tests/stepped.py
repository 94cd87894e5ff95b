"""Small recorded computations for the tests of the page that steps through them."""

import numpy as np

import tensorlib as tl
from models import Transformer, TransformerConfig
from models.text.batching import make_batch
from models.text.tokens import PAD
from tensorlib.engine.recording import recording


def leaf(values, dtype="float32"):
    return tl.Tensor(np.array(values, dtype), requires_grad=True)


def chain():
    a = leaf(1.0)
    b = a + a
    c = b + b
    return a, b, c


def transformer_loss(formulas=True, dropout=0.1):
    """Return a Transformer of two layers and its loss on one sentence pair."""
    tl.seed(3)
    model = Transformer(
        TransformerConfig(20, 20, layers=2, width=16, heads=2, feed_forward=32, max_length=16, dropout=dropout)
    )
    batch = make_batch([([4, 5, 6, 3], [7, 8, 9])])
    with recording(formulas=formulas):
        loss = tl.cross_entropy(
            model.train()(batch.source_BS, batch.target_in_BT), batch.target_out_BT, ignore_index=PAD
        )
    return model, loss
