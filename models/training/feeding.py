"""How a model is fed in training: which words the decoder has read when it predicts the next one.

    teacher forcing      the true words                one pass computes all positions
    free running         its own predictions           position t needs the prediction at t - 1, so it waits for it
    scheduled sampling   each word true or predicted   the fraction of true words falls during training

Whichever it is, `Feeding.inputs` first finds the decoder's inputs, and one recorded pass over them then gives the loss
of all positions. The inputs are ids: a word is a choice, which has no derivative. So the gradient of that pass is the
whole gradient, except that it ignores how the weights influenced the choices.

Predictions are the likeliest words, made without dropout: they are the words that the model would produce in use.

Shape suffixes: B batch, S source length, T target length, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

import tensorlib as tl
from models.architectures.encoder_decoder import EncoderDecoder
from models.decoding.token_by_token import numbers_of
from models.runs.config import SamplingConfig, TrainConfig
from models.text.batching import Batch
from models.text.tokens import PAD
from models.training.milestones import estimated_steps

__all__ = [
    "Feeding", "FreeRunning", "ScheduledSampling", "TeacherForcing", "changed_fraction", "fed_back",
    "loss_step_by_step", "make_feeding", "true_fraction",
]  # fmt: skip

Ids = NDArray[np.int64]


class Feeding(Protocol):
    """A way of feeding a model."""

    def inputs(self, model: EncoderDecoder, batch: Batch, step: int) -> Ids:
        """Return the decoder's inputs (B, T) for a batch of step `step`, counted from 1; each begins with <s>."""
        ...


def make_feeding(config: TrainConfig, total: int) -> Feeding:
    """Return the config's way of feeding, for a run of `total` steps."""
    if config.feeding == "free-running":
        return FreeRunning()
    return ScheduledSampling(config.sampling, total) if config.feeding == "scheduled-sampling" else TeacherForcing()


class TeacherForcing:
    """Feed the true words: the input at position t is the expected output at t - 1 (Williams and Zipser 1989)."""

    def inputs(self, model: EncoderDecoder, batch: Batch, step: int) -> Ids:
        """Return the target, shifted by one token."""
        return batch.target_in_BT


class FreeRunning:
    """Feed the model's own predictions, as in use; the expected outputs stay those of the true sentence.

    So position t must predict the true word t also after a different beginning.
    """

    def inputs(self, model: EncoderDecoder, batch: Batch, step: int) -> Ids:
        """Return <s>, then the prediction for each position but the last."""
        return fed_back(model, batch, np.zeros(batch.target_in_BT.shape, dtype=bool))


class ScheduledSampling:
    """Feed each word true with probability `true_fraction`, otherwise as predicted (Bengio et al. 2015).

    A recurrent model predicts step by step, each time from the words that it was fed before. A Transformer predicts all
    words in one pass from the true words, and mixes these predictions into the second pass (Mihaylova and Martins
    2019, section 3).
    """

    def __init__(self, config: SamplingConfig, total: int) -> None:
        self.config, self.total = config, total

    def inputs(self, model: EncoderDecoder, batch: Batch, step: int) -> Ids:
        """Return the mixture; the default generator chooses the true words."""
        truth_BT = batch.target_in_BT
        numbers = numbers_of(tl.default_generator().next_draw(), truth_BT.size)
        is_true_BT = numbers.reshape(truth_BT.shape) < true_fraction(self.config, step, self.total)
        if model.recurrent:
            return fed_back(model, batch, is_true_BT)
        with model.evaluating(), tl.no_grad():
            predicted_BT = model(batch.source_BS, truth_BT).argmax(axis=-1).numpy()
        return _mixed(truth_BT, np.concatenate([truth_BT[:, :1], predicted_BT[:, :-1]], axis=1), is_true_BT)


def true_fraction(config: SamplingConfig, step: int, total: int) -> float:
    """Return the probability that a word is the true one, at a step counted from 1.

    After h = `halfway` steps, by default half of `total`, it is 1/2:

        linear            1 - i / 2h
        exponential       k^i                     with k^h = 1/2
        inverse-sigmoid   k / (k + exp(i / k))    with k ln k = h; this one begins a little below 1
        constant          `truth`

    Here i is the number of earlier steps (Bengio et al. 2015, section 2.4). It never falls below `truth`.

    >>> [round(true_fraction(SamplingConfig(halfway=10, truth=0.2), step, 0), 2) for step in (1, 11, 21)]
    [1.0, 0.5, 0.2]
    """
    i, h = step - 1, config.halfway or max(total / 2, 1)
    match config.decay or "linear":
        case "linear":
            fraction = 1 - i / (2 * h)
        case "exponential":
            fraction = 0.5 ** (i / h)
        case "inverse-sigmoid":
            k = _root_of_k_log_k(h)
            fraction = 1 / (1 + math.exp(min(i / k, 700)) / k)
        case "constant":
            fraction = 0.0
    return max(fraction, config.truth or 0.0)


def changed_fraction(before: TrainConfig, after: TrainConfig, batches: int, step: int) -> str:
    """Return a message if a run that continues after `step` is fed other fractions of true words than it was, else "".

    That is so if they follow the length of training, which is new. batches: the number in the first epoch.
    """
    if after.feeding != "scheduled-sampling":
        return ""
    old, new = (true_fraction(c.sampling, step + 1, estimated_steps(c, batches)) for c in (before, after))
    if abs(old - new) < 0.001:
        return ""
    end = "--steps" if after.steps else "--epochs"
    return f"the fraction of true words changes from {old:.2g} to {new:.2g}, because --sampling.halfway follows {end}"


def _root_of_k_log_k(h: float) -> float:
    """Return k >= 1 with k ln k = h, by Newton's method, which approaches from above."""
    k = h + math.e  # where k ln k > h
    for _ in range(60):
        k -= (k * math.log(k) - h) / (math.log(k) + 1)
    return k


def fed_back(model: EncoderDecoder, batch: Batch, is_true_BT: NDArray[np.bool_]) -> Ids:
    """Return the inputs of a model that reads its own predictions wherever `is_true_BT` is False.

    The first word is always <s>, and padding stays padding. Each step costs one position, because the model's state
    keeps what it needs of the words before.
    """
    with model.evaluating(), tl.no_grad():
        visible_BS = model.visible(batch.source_BS)
        state = model.start(model.encode(batch.source_BS, visible_BS), visible_BS)
        fed: list[Ids] = [batch.target_in_BT[:, 0]]
        for t in range(1, batch.target_in_BT.shape[1]):
            logits_BV, state = model.decode_step(fed[-1], state)
            fed.append(_mixed(batch.target_in_BT[:, t], logits_BV.argmax(axis=-1).numpy(), is_true_BT[:, t]))
    return np.stack(fed, axis=1)


def loss_step_by_step(model: EncoderDecoder, batch: Batch, cache: bool = True) -> tl.Tensor:
    """Return the summed loss of free running as a textbook describes it: one recorded step after another.

    It has the same value and gradient as the pass over the inputs of `FreeRunning`, if there is no dropout, and takes
    much longer. Without `cache` every step computes the whole beginning again, as a model without a state must.
    """
    visible_BS = model.visible(batch.source_BS)
    memory = model.encode(batch.source_BS, visible_BS)
    state, fed_BT, losses = model.start(memory, visible_BS), batch.target_in_BT[:, :1], []
    for t in range(batch.target_in_BT.shape[1]):
        if cache:
            logits_BV, state = model.decode_step(fed_BT[:, -1], state)
        else:
            logits_BV = model.decode(fed_BT, memory, visible_BS)[:, -1]
        losses.append(tl.cross_entropy(logits_BV, batch.target_out_BT[:, t], ignore_index=PAD, reduction="sum"))
        if t + 1 < batch.target_in_BT.shape[1]:
            # argmax ends the history: no gradient flows through the choice of a word
            predicted_B = logits_BV.argmax(axis=-1).numpy()
            next_B = _mixed(batch.target_in_BT[:, t + 1], predicted_B, np.zeros(len(predicted_B), dtype=bool))
            fed_BT = np.concatenate([fed_BT, next_B[:, None]], axis=1)
    return tl.stack(losses).sum()


def _mixed(truth: Ids, predicted: Ids, is_true: NDArray[np.bool_]) -> Ids:
    """Return the true ids where `is_true` and where they are padding, and the predicted ones elsewhere."""
    return np.where(is_true | (truth == PAD), truth, predicted)
