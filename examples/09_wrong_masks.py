"""Wrong masks, planted and found.

`tl.depends` proves from the recorded graph, in one pass and without training, which words each position can see: where
it says no, no values of the words and of the weights can make a difference. The last part does the same with whole
Transformers, as `tensorlib check --causality` does.
"""

import numpy as np

import models
import nn
import tensorlib as tl
from models.evaluation.causality import prove

WORDS = ["<s>", "I", "have", "a", "cat"]
T, D = len(WORDS), 8
PAST = np.tri(T, dtype=bool)  # position t sees positions 0 to t


def right(scores):
    """Hide the future before the softmax."""
    return tl.softmax(tl.where(PAST, scores, -np.inf))


def off_by_one(scores):
    """Let each position see the word that it must predict."""
    return tl.softmax(tl.where(np.tri(T, k=1, dtype=bool), scores, -np.inf))


def wrong_polarity(scores):
    """Hide what should be seen; the last position, which then sees nothing, gets zeros."""
    return tl.softmax(tl.where(PAST, -np.inf, scores))


def mask_after_softmax(scores):
    """Hide the weights, after the words of the future have had their share of the sum."""
    weights = tl.softmax(scores)
    return weights * PAST


def not_quite_hidden(scores):
    """Hide the future by a large negative number, whose exponential is tiny, but not 0."""
    return tl.softmax(tl.where(PAST, scores, -1e4))


random = np.random.default_rng(0)
words_TD = tl.Tensor(random.normal(size=(T, D)), requires_grad=True)
to_q, to_k, to_v = (tl.Tensor(random.normal(size=(D, D)), requires_grad=True) for _ in range(3))

for masked_softmax in (right, off_by_one, wrong_polarity, mask_after_softmax, not_quite_hidden):
    with tl.record_source():
        scores_TT = (words_TD @ to_q) @ (words_TD @ to_k).swapaxes(0, 1) / np.sqrt(D)
        y_TD = masked_softmax(scores_TT) @ (words_TD @ to_v)
    sees = tl.depends(y_TD, on=words_TD, axes=[0], axes_of_y=[0])

    print(f"\n{masked_softmax.__name__}: {masked_softmax.__doc__.splitlines()[0]}")
    for word, row in zip(WORDS, sees.array, strict=True):
        print(
            f"    {word:>5} sees {'  '.join(w if seen else '.' * len(w) for w, seen in zip(WORDS, row, strict=True))}"
        )
    future = np.argwhere(sees.array & ~PAST)
    if len(future):
        t, later = future[0].tolist()
        steps = [f"{step.op} (line {step.source.rpartition(':')[2]})" for step in sees.path(t, later)[1:]]
        print(f"    {len(future)} leaks; {WORDS[t]!r} sees {WORDS[later]!r} by {', '.join(steps)}")
    else:
        print("    proved: no position sees a later one")


class SeesPadding(models.Transformer):
    """A Transformer that attends to padding."""

    def visible(self, ids_BS):
        """Return a mask that hides nothing."""
        return tl.ones(np.shape(ids_BS), dtype=bool)


class ReadsTheAnswer(models.Transformer):
    """A Transformer whose decoder reads at each position the word that it must predict there."""

    def decoder_output(self, target_ids, memory, source_visible):
        """Return the decoder's output for targets that are shifted back."""
        return super().decoder_output(np.roll(target_ids, -1, axis=1), memory, source_visible)


class BatchNorm(nn.LayerNorm):
    """A norm over the sentences of the batch, which then read each other."""

    def forward(self, x):
        """Return x with mean 0 and variance 1 over its first axis."""
        centred = x - x.mean(axis=0)
        return centred / tl.sqrt((centred * centred).mean(axis=0) + 1e-5) * self.weight + self.bias


class NormOverBatch(models.Transformer):
    """A Transformer with one such norm."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.encoder.layers[0].feed_forward_residual.norm = BatchNorm(self.config.width)


config = models.TransformerConfig(32, 32, layers=1, width=D, heads=2, feed_forward=16, max_length=16)
for kind in (models.Transformer, SeesPadding, ReadsTheAnswer, NormOverBatch):
    print(f"\n{kind.__name__}: {kind.__doc__.splitlines()[0]}")
    for report in prove(kind(config)):
        print(f"    {report.way}: {'NOT PROVED' if report.failures else 'proved'}")
        if report.way == "training":
            print("".join(f"        {failure}\n" for failure in report.failures), end="")
