"""Word vectors: skip-gram and CBOW (Mikolov et al. 2013a), by negative sampling (Mikolov et al. 2013b) or full softmax.

A word is known by the company it keeps: the vector v_w of a word is trained to predict which words are near it, so
words with similar company get similar vectors. There are two tables, `inputs` with v_w and `outputs` with u_c, because
a word is seldom near itself; the word vectors are the inputs.

    skip-gram   hidden vector h = v_w of one word; predicts each word c near it, one at a time
    CBOW        h = the mean of v_c over all words c near it; predicts the word w itself

    softmax             loss = -log p(c | h),  p(c | h) = exp(<h, u_c>) / sum over all words i of exp(<h, u_i>)
    negative sampling   loss = -log sigma(<h, u_c>) - sum over k negatives n of log sigma(-<h, u_n>)

The softmax takes V inner products for a pair, negative sampling 1 + k. It learns to tell true pairs from those with
noise words n ~ q. Its optimum is <h, u_c> = log p(c | h) - log (k q(c)) (Levy and Goldberg 2014a), so its scores plus
log q(c) are the logits of p(c | h), up to a constant that does not matter: both losses give a distribution over words,
and the same measure (`Quality`) applies to both.

A batch uses few of the rows of the tables. Only those are leaves of the graph and get a gradient (`UsedRows`), and only
those are updated, so that a step costs the same whatever the size of the vocabulary.

Shape suffixes: V words, D width, P examples of a batch, K negatives, C = 1 + K candidates, W places of a window, U
rows in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

import tensorlib as tl
from models.text.random_bits import random_bits, uniform
from models.text.sampling import NO_TOKEN, FrequencyNegatives

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike

__all__ = ["Batch", "Embeddings", "Loss", "Objective", "Quality", "UsedRows", "evaluate", "negative_sampling_loss"]
__all__ += ["softmax_loss", "window_mean"]

Objective = Literal["skip-gram", "cbow"]
Loss = Literal["negative-sampling", "softmax"]
Floats = NDArray[np.float32]
Ids = NDArray[np.int64]

EPSILON = 1e-6  # added to the sum of squared gradients under the root


# ---- the losses ------------------------------------------------------------------------------------------------------


def negative_sampling_loss(hidden_PD: tl.Tensor, outputs_UD: tl.Tensor, ids_PC: TensorLike) -> tl.Tensor:
    """Return the sum over examples of -log sigma(<h, u_0>) - sum over k of log sigma(-<h, u_k>).

    ids_PC: for each example the true word in column 0, and negatives in the others: rows of `outputs_UD`.

    With s = <h, u>, the gradient is sigma(s) - 1 for the true word and sigma(s) for a negative, times u for h and times
    h for u: the true word is pulled towards h, the negatives are pushed away, each by how wrong its score is.

    >>> hidden, outputs = tl.Tensor([[1.0, 0.0]]), tl.Tensor([[2.0, 0.0], [-2.0, 0.0]])
    >>> round(negative_sampling_loss(hidden, outputs, [[0, 1]]).item(), 4)  # 2 log(1 + exp(-2))
    0.2539
    """
    scores_PC = tl.sampled_linear(hidden_PD, outputs_UD, ids_PC)
    signs_C = np.ones(scores_PC.shape[1], scores_PC.dtype)
    signs_C[0] = -1
    return tl.softplus(scores_PC * signs_C).sum()  # -log sigma(s) = softplus(-s)


def softmax_loss(hidden_PD: tl.Tensor, outputs_VD: tl.Tensor, targets_P: TensorLike) -> tl.Tensor:
    """Return the sum over examples of -log softmax(h U^T) at the true word.

    >>> loss = softmax_loss(tl.Tensor([[1.0, 0.0]]), tl.Tensor([[2.0, 0.0], [-2.0, 0.0]]), [0])
    >>> round(loss.item(), 4)  # log(1 + exp(-4))
    0.0181
    """
    return tl.linear_cross_entropy(hidden_PD, outputs_VD.swapaxes(0, 1), None, targets_P, reduction="sum")


def window_mean(inputs_UD: tl.Tensor, windows_PW: ArrayLike) -> tl.Tensor:
    """Return the mean of the vectors of each window, (P, D): h of CBOW. NO_TOKEN marks places without a word.

    >>> window_mean(tl.Tensor([[1.0, 0.0], [3.0, 2.0]]), [[0, 1], [-1, 1]])
    Tensor([[2. 1.]
            [3. 2.]], shape=(2, 2), dtype=float32)
    """
    windows = np.asarray(windows_PW)
    inside_PW = (windows != NO_TOKEN).astype(inputs_UD.dtype)
    weights_PW = inside_PW / np.maximum(inside_PW.sum(axis=1, keepdims=True), 1)
    return tl.einsum("pw,pwd->pd", tl.Tensor(weights_PW), tl.embedding(inputs_UD, np.maximum(windows, 0)))


# ---- sparse updates --------------------------------------------------------------------------------------------------


class UsedRows:
    """The rows of a table that one batch uses, as one leaf of the graph.

    leaf: the rows (U, D), in ascending order of their ids, a copy that requires a gradient.
    ids: the batch's ids with each replaced by the number of its row in `leaf`; NO_TOKEN stays.

    >>> table = np.arange(8.0, dtype=np.float32).reshape(4, 2)
    >>> rows = UsedRows(table, np.array([[3, 1], [3, NO_TOKEN]]))
    >>> rows.leaf.shape, rows.used_U, rows.ids.tolist()
    ((2, 2), array([1, 3]), [[1, 0], [1, -1]])
    >>> tl.embedding(rows.leaf, rows.ids[:, 0]).sum().backward()  # row 3 is used twice
    >>> rows.descend(table, learning_rate=0.5)
    >>> table.tolist()
    [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [5.0, 6.0]]
    """

    def __init__(self, table_VD: Floats, ids: Ids) -> None:
        is_used = np.zeros(len(table_VD) + 1, np.bool_)  # with a last place for NO_TOKEN, -1
        is_used[ids] = True
        self.used_U = np.flatnonzero(is_used[:-1])
        number = np.cumsum(is_used) - 1
        number[NO_TOKEN] = NO_TOKEN
        self.ids = number[ids]
        self.leaf = tl.Tensor(table_VD.take(self.used_U, axis=0), requires_grad=True)

    def descend(self, table_VD: Floats, learning_rate: float, squares_VD: Floats | None = None) -> None:
        """Update the table by the gradient g of the leaf; all other rows stay as they are.

        SGD: w <- w - learning_rate g. With `squares_VD`, Adagrad (Duchi et al. 2011): s <- s + g^2,
        w <- w - learning_rate g / sqrt(s). Adagrad takes small steps for frequent words, whose gradients many examples
        of a batch add up, and large ones for rare words.
        """
        assert self.leaf.grad is not None
        g_UD = self.leaf.grad.data
        if squares_VD is None:
            step_UD = g_UD * np.float32(-learning_rate)
        else:
            sums_UD = squares_VD.take(self.used_U, axis=0)
            sums_UD += g_UD * g_UD
            squares_VD[self.used_U] = sums_UD
            sums_UD += np.float32(EPSILON)
            np.sqrt(sums_UD, out=sums_UD)
            step_UD = np.divide(g_UD, sums_UD, out=sums_UD)
            step_UD *= np.float32(-learning_rate)
        step_UD += self.leaf.data
        table_VD[self.used_U] = step_UD


# ---- the model -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Examples: what is read, a word (P,) or a window (P, W), and the word to predict (P,)."""

    read: Ids
    targets_P: Ids


class Embeddings:
    """Two tables of vectors, of words read and of words predicted, and the step that trains them.

    counts: how often each word occurs, (V,).
    negatives: how many negatives of each example, drawn with p(w) ~ count(w)^power; the softmax needs none.
    adagrad: keep sums of squared gradients, otherwise plain SGD.

    >>> model = Embeddings(counts=[5, 3, 2], width=4)
    >>> batch = Batch(np.array([0, 1]), targets_P=np.array([1, 2]))
    >>> losses = [model.step(batch, random_bits(0, step), learning_rate=0.1) for step in range(100)]
    >>> losses[0] > losses[-1]
    True
    """

    def __init__(
        self,
        counts: ArrayLike,
        width: int = 100,
        objective: Objective = "skip-gram",
        loss: Loss = "negative-sampling",
        negatives: int = 5,
        power: float = 0.75,
        adagrad: bool = True,
        seed: int = 0,
    ) -> None:
        self.counts_V = np.asarray(counts, dtype=np.int64)
        self.objective, self.loss, self.negatives, self.power = objective, loss, negatives, power
        words = len(self.counts_V)
        start_VD = uniform(random_bits(seed), words * width).reshape(words, width) - 0.5
        self.inputs_VD = (start_VD / width).astype(np.float32)  # as in word2vec: small inputs, outputs 0
        self.outputs_VD = np.zeros((words, width), np.float32)
        self.squares = [np.zeros((words, width), np.float32) if adagrad else None for _ in range(2)]
        self.noise = FrequencyNegatives(self.counts_V, power)

    def step(self, batch: Batch, bits: np.random.Philox, learning_rate: float) -> float:
        """Take one step down the gradient of the sum of the examples' losses, and return that sum."""
        inputs = UsedRows(self.inputs_VD, batch.read)
        hidden_PD = self._hidden(inputs.leaf, inputs.ids)
        if self.loss == "softmax":
            outputs = UsedRows(self.outputs_VD, np.arange(len(self.outputs_VD)))
            loss = softmax_loss(hidden_PD, outputs.leaf, batch.targets_P)
        else:
            drawn_PK = self.noise.draw(bits, batch.targets_P, self.negatives)
            outputs = UsedRows(self.outputs_VD, np.concatenate((batch.targets_P[:, None], drawn_PK), axis=1))
            loss = negative_sampling_loss(hidden_PD, outputs.leaf, outputs.ids)
        loss.backward()
        inputs.descend(self.inputs_VD, learning_rate, self.squares[0])
        outputs.descend(self.outputs_VD, learning_rate, self.squares[1])
        return float(loss.item())

    def _hidden(self, inputs_UD: tl.Tensor, read: Ids) -> tl.Tensor:
        return window_mean(inputs_UD, read) if self.objective == "cbow" else tl.embedding(inputs_UD, read)

    def logits(self, read: Ids) -> Floats:
        """Return for each example the logits of p(word | what is read), (P, V); see this file's docstring."""
        with tl.no_grad():
            scores_PV = self._hidden(tl.from_numpy(self.inputs_VD), read).numpy() @ self.outputs_VD.T
        if self.loss == "negative-sampling":
            with np.errstate(divide="ignore"):  # a word that never occurs
                scores_PV += (self.power * np.log(self.counts_V)).astype(np.float32)
        return scores_PV


# ---- the measure -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quality:
    """How well words are predicted from what is near them, on examples that were not trained on.

    log_probability: the mean of log p(word | what is read), over all words of the vocabulary.
    recall: the share of the examples whose word is among the 10 most probable ones.
    rank: the mean rank of the word among all words, 1 for the most probable one.
    """

    log_probability: float
    recall: float
    rank: float


TOP = 10
BLOCK = 256  # examples whose logits exist at once


def evaluate(model: Embeddings | None, batch: Batch, counts_V: NDArray[Any]) -> Quality:
    """Return the quality of a model, or, if it is None, of p(w) ~ counts_V, which reads nothing.

    >>> batch = Batch(np.array([0, 1]), targets_P=np.array([0, 2]))
    >>> unigram = evaluate(None, batch, np.array([2, 1, 1]))
    >>> round(unigram.log_probability, 4), unigram.recall, unigram.rank  # words 1 and 2 share ranks 2 and 3
    (-1.0397, 1.0, 1.75)
    """
    totals = np.zeros(3)
    for start in range(0, len(batch.targets_P), BLOCK):
        targets_P = batch.targets_P[start : start + BLOCK]
        if model is None:
            logits_PV = np.broadcast_to(np.log(counts_V), (len(targets_P), len(counts_V)))
        else:
            logits_PV = model.logits(batch.read[start : start + BLOCK])
        own_P1 = np.take_along_axis(logits_PV, targets_P[:, None], axis=1)
        top_P1 = logits_PV.max(axis=1, keepdims=True)
        log_sum_P1 = top_P1 + np.log(np.exp(logits_PV - top_P1).sum(axis=1, keepdims=True, dtype=np.float64))
        ties_P = (logits_PV == own_P1).sum(axis=1)
        rank_P = (logits_PV > own_P1).sum(axis=1) + (ties_P + 1) / 2  # equal ones share their ranks
        totals += (own_P1 - log_sum_P1).sum(dtype=np.float64), (rank_P <= TOP).sum(), rank_P.sum()
    return Quality(*(totals / max(len(batch.targets_P), 1)).tolist())
