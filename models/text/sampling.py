"""Samplers of positives and negatives: which pairs a model is to bring together, and which apart.

Learning by contrast needs no labels. A *positive* is a pair that occurred: a word and a word near it, a sentence and
its translation, a user and an item that was clicked. A *negative* is a pair that did not, and because almost no pair
did, it has to be sampled. Positives say what is alike; without negatives, mapping everything to one point would be
perfect. The choice of the negatives decides what is learned and how fast:

    uniform      any item: unbiased, but mostly rare ones, which the model soon tells apart without effort
    frequency    often the frequent ones: an item must be more than popular to score high
    in batch     the other rows' positives: nothing to compute that is not computed already
    hard         those that the model still confuses with the positive: the largest gradient, and the largest risk,
                 because what a model ranks high and nobody clicked may be a positive that was not observed

Every sampler gets its randomness as raw bits (see `models.text.random_bits`), so the samples depend on seed and
position alone. All arrays are int64 on the host. Shape suffixes: N items (or words), P pairs, K negatives of each
pair, B rows of a batch, T tokens, W = 2 * window places around a token, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.text.random_bits import permutation, uniform

__all__ = ["AliasTable", "FrequencyNegatives", "HardNegatives", "InBatchNegatives", "KnownPositives", "Negatives"]
__all__ += ["NO_TOKEN", "PairPositives", "Subsampling", "UniformNegatives", "WindowPositives"]

_ROUNDS = 8  # of drawing again what cannot be used
NO_TOKEN = -1  # fills the places of a window that lie outside of the sentence

Ids = NDArray[np.int64]


class Negatives(Protocol):
    """A source of items that do not belong to an anchor."""

    def draw(self, bits: np.random.Philox, anchors_P: ArrayLike, count: int) -> Ids:
        """Return `count` negatives of each anchor, (P, K)."""


# ---- positives -------------------------------------------------------------------------------------------------------


class PairPositives:
    """Given pairs, each once an epoch, in random order: sentences and translations, users and clicked items.

    >>> from models.text.random_bits import random_bits
    >>> clicks = PairPositives([0, 0, 1], [7, 8, 9])  # user 0 clicked 7 and 8, user 1 clicked 9
    >>> clicks.draw(random_bits(0, 1))  # seed 0, epoch 1
    (array([1, 0, 0]), array([9, 8, 7]))
    """

    def __init__(self, anchors: ArrayLike, positives: ArrayLike) -> None:
        self.anchors_P, self.positives_P = _ids(anchors, "anchors"), _ids(positives, "positives")
        if self.anchors_P.shape != self.positives_P.shape:
            raise ValueError(
                f"PairPositives: as many anchors as positives are required; got {len(self.anchors_P)} and "
                f"{len(self.positives_P)}; pass one positive for each anchor"
            )

    def draw(self, bits: np.random.Philox) -> tuple[Ids, Ids]:
        """Return all pairs in random order."""
        order = permutation(bits, len(self.anchors_P))
        return self.anchors_P[order], self.positives_P[order]


class WindowPositives:
    """Words that occur near each other: the skip-gram pairs of Mikolov et al. 2013a.

    The pairs of position t are (w_t, w_{t+j}) with 0 < |j| <= R_t, within the sentence, where R_t is uniform in
    1 ... window, drawn anew in each epoch. So a word at distance j is a positive with probability
    (window - j + 1) / window: near words count more.

    tokens: the ids of all sentences, one after the other, (T,).
    lengths: the number of tokens of each sentence.

    >>> from models.text.random_bits import random_bits
    >>> sentences = WindowPositives([5, 6, 7, 8, 9], lengths=[3, 2], window=1)
    >>> sentences.draw(random_bits(0, 1))
    (array([5, 6, 6, 7, 8, 9]), array([6, 5, 7, 6, 9, 8]))
    >>> sentences.windows(random_bits(0, 1))  # the same, as CBOW reads it; -1: outside of the sentence
    array([[-1,  6],
           [ 5,  7],
           [ 6, -1],
           [-1,  9],
           [ 8, -1]])
    """

    def __init__(self, tokens: ArrayLike, lengths: ArrayLike, window: int) -> None:
        self.tokens_T, self.lengths = _ids(tokens, "tokens"), _ids(lengths, "lengths")
        self.window = _at_least_1("WindowPositives", "window", window)
        if self.lengths.sum() != len(self.tokens_T):
            raise ValueError(
                f"WindowPositives: lengths of sentences that add up to the {len(self.tokens_T)} tokens are required; "
                f"got a sum of {self.lengths.sum()}"
            )

    def draw(self, bits: np.random.Philox) -> tuple[Ids, Ids]:
        """Return all (word, word near it), in the order of the text."""
        windows_TW = self.windows(bits)
        inside_TW = windows_TW != NO_TOKEN
        return np.repeat(self.tokens_T, inside_TW.sum(axis=1)), windows_TW[inside_TW]

    def windows(self, bits: np.random.Philox) -> Ids:
        """Return the words near each position, (T, W) from left to right, NO_TOKEN outside of sentence or radius."""
        count = len(self.tokens_T)
        radius_T = 1 + (uniform(bits, count) * self.window).astype(np.int64)
        sentence_T = np.repeat(np.arange(len(self.lengths)), self.lengths)
        windows_TW = np.full((count, 2 * self.window), NO_TOKEN, dtype=np.int64)
        for distance in range(1, min(self.window, count - 1) + 1):
            same = sentence_T[distance:] == sentence_T[:-distance]
            left, right = self.tokens_T[:-distance], self.tokens_T[distance:]
            windows_TW[distance:, self.window - distance] = np.where(
                same & (radius_T[distance:] >= distance), left, NO_TOKEN
            )
            windows_TW[:-distance, self.window + distance - 1] = np.where(
                same & (radius_T[:-distance] >= distance), right, NO_TOKEN
            )
        return windows_TW


class Subsampling:
    """Sub-sampling of frequent words: each occurrence of word w is kept with probability min(1, sqrt(t / f(w))).

    f(w) is the word's share of the text and t the threshold (Mikolov et al. 2013b, equation 5). Frequent words are near
    everything and say little; without most of them training is faster, and a window of the same width reaches further.

    >>> Subsampling([900, 90, 10], threshold=0.01).probability_N.round(3)
    array([0.105, 0.333, 1.   ])
    """

    def __init__(self, counts: ArrayLike, threshold: float) -> None:
        counts_N = _weights("Subsampling", counts)
        if not threshold > 0:
            raise ValueError(f"Subsampling: a threshold above 0 is required; got {threshold}")
        share_N = counts_N / counts_N.sum()
        with np.errstate(divide="ignore"):  # a word that never occurs is kept always
            self.probability_N = np.minimum(1.0, np.sqrt(threshold / share_N))

    def kept(self, bits: np.random.Philox, tokens_T: ArrayLike) -> NDArray[np.bool_]:
        """Return which of the tokens to keep this time, (T,)."""
        tokens = _ids(tokens_T, "tokens")
        return uniform(bits, len(tokens)) < self.probability_N[tokens]


# ---- drawing by weight -----------------------------------------------------------------------------------------------


class AliasTable:
    """Draws from a discrete distribution, p_i = w_i / sum_j w_j, in constant time: the alias method (Vose 1991).

    The distribution is cut into N columns of equal probability 1 / N, each with at most two outcomes: `i` itself below
    the height h_i, `alias_i` above it. So a draw is one random number u: its column is floor(u N), and the rest of u N
    is the height.

        p_i = (h_i + sum over j with alias_j = i of (1 - h_j)) / N

    >>> from models.text.random_bits import random_bits
    >>> table = AliasTable([1, 1, 2])
    >>> table.probabilities()
    array([0.25, 0.25, 0.5 ])
    >>> np.bincount(table.draw(random_bits(0), 1000)).tolist()
    [257, 231, 512]
    """

    def __init__(self, weights: ArrayLike) -> None:
        weights_N = _weights("AliasTable", weights)
        height = (weights_N / weights_N.sum() * len(weights_N)).tolist()  # in this order, a tiny sum does not overflow
        alias = list(range(len(height)))
        small = [i for i, h in enumerate(height) if h < 1]
        large = [i for i, h in enumerate(height) if h >= 1]
        while small and large:  # fill the column of a small one with a part of a large one
            i, j = small.pop(), large[-1]
            alias[i] = j
            height[j] -= 1 - height[i]
            if height[j] < 1:
                small.append(large.pop())
        for i in small + large:  # 1 but for rounding
            height[i] = 1.0
        self.height_N = np.array(height)
        self.alias_N = np.array(alias, dtype=np.int64)

    def draw(self, bits: np.random.Philox, count: int) -> Ids:
        """Return `count` independent outcomes."""
        place = uniform(bits, count) * len(self.height_N)
        column = place.astype(np.int64)
        return np.where(place - column < self.height_N[column], column, self.alias_N[column])

    def probabilities(self) -> NDArray[np.float64]:
        """Return the probability of each outcome, (N,), computed from the table itself."""
        moved = np.bincount(self.alias_N, weights=1 - self.height_N, minlength=len(self.height_N))
        return (self.height_N + moved) / len(self.height_N)


# ---- negatives -------------------------------------------------------------------------------------------------------


class KnownPositives:
    """The set of known pairs (anchor, item), which are never to be negatives.

    >>> known = KnownPositives([0, 0, 1], [7, 8, 9], size=10)
    >>> known.contains([0, 1], [[7, 9], [7, 9]])
    array([[ True, False],
           [False,  True]])
    """

    def __init__(self, anchors: ArrayLike, positives: ArrayLike, size: int) -> None:
        self.size = _at_least_1("KnownPositives", "size", size)
        items = _ids(positives, "positives")
        if items.size and not 0 <= items.min() <= items.max() < size:
            raise ValueError(f"KnownPositives: items in 0..{size - 1} are required; got {items.min()}..{items.max()}")
        self._codes = np.unique(_ids(anchors, "anchors") * size + items)

    def contains(self, anchors_P: ArrayLike, items_PK: ArrayLike) -> NDArray[np.bool_]:
        """Return whether (anchor p, item pk) is a known pair, (P, K). Errors: ValueError for an item that is none."""
        items = np.asarray(items_PK, dtype=np.int64)
        if items.size and not 0 <= items.min() <= items.max() < self.size:
            raise ValueError(
                f"KnownPositives: items in 0..{self.size - 1} are required; got {items.min()}..{items.max()}"
            )
        codes_PK = np.asarray(anchors_P, dtype=np.int64)[:, None] * self.size + items
        if not len(self._codes):
            return np.zeros(codes_PK.shape, dtype=np.bool_)
        at = np.minimum(np.searchsorted(self._codes, codes_PK), len(self._codes) - 1)
        return self._codes[at] == codes_PK

    def of(self, anchor: int) -> Ids:
        """Return the known items of one anchor, ascending."""
        first, last = np.searchsorted(self._codes, [anchor * self.size, (anchor + 1) * self.size])
        return self._codes[first:last] - anchor * self.size


class _Independent:
    """Negatives drawn independently of the anchor, except that known positives are drawn again.

    At most `_ROUNDS` times: what then still collides, for an anchor that has nearly every item, is drawn from that
    anchor's own distribution. Both ways give p(i | not a positive of the anchor), exactly.
    """

    def __init__(self, weights_N: NDArray[np.float64], known: KnownPositives | None) -> None:
        if known is not None and known.size != len(weights_N):
            raise ValueError(
                f"{type(self).__name__}: known positives among the same {len(weights_N)} items are required; got some "
                f"among {known.size}"
            )
        self.size, self.known = len(weights_N), known
        self._weights_N = weights_N

    def _items(self, bits: np.random.Philox, count: int) -> Ids:
        raise NotImplementedError

    def draw(self, bits: np.random.Philox, anchors_P: ArrayLike, count: int) -> Ids:
        """Return `count` negatives of each anchor, (P, K). Errors: ValueError for an anchor that has every item."""
        anchors = _ids(anchors_P, "anchors")
        items_PK = self._items(bits, len(anchors) * count).reshape(len(anchors), count)
        if self.known is None:
            return items_PK
        rows, columns = np.nonzero(self.known.contains(anchors, items_PK))
        for _ in range(_ROUNDS):
            if not len(rows):
                return items_PK
            items_PK[rows, columns] = self._items(bits, len(rows))
            again = self.known.contains(anchors[rows], items_PK[rows, columns][:, None])[:, 0]
            rows, columns = rows[again], columns[again]
        for row, column, u in zip(rows.tolist(), columns.tolist(), uniform(bits, len(rows)).tolist(), strict=True):
            items_PK[row, column] = self._allowed(int(anchors[row]), u)
        return items_PK

    def _allowed(self, anchor: int, u: float) -> int:
        assert self.known is not None
        weights_N = self._weights_N.copy()
        weights_N[self.known.of(anchor)] = 0
        total_N = np.cumsum(weights_N)
        if total_N[-1] == 0:
            raise ValueError(
                f"{type(self).__name__}: an item that is not a positive is required; anchor {anchor} has all; remove it"
            )
        return int(np.searchsorted(total_N, u * total_N[-1], side="right"))


class UniformNegatives(_Independent):
    """Negatives that are any item with the same probability, p(i) = 1 / N.

    known: pairs that are never returned.

    >>> from models.text.random_bits import random_bits
    >>> UniformNegatives(10).draw(random_bits(0, 1), [0, 0, 1], count=4)
    array([[6, 4, 3, 4],
           [8, 9, 2, 0],
           [1, 3, 0, 4]])
    >>> UniformNegatives(3, KnownPositives([0], [1], size=3)).draw(random_bits(0, 1), [0], count=6)
    array([[2, 0, 0, 0, 2, 2]])
    """

    def __init__(self, size: int, known: KnownPositives | None = None) -> None:
        super().__init__(np.ones(_at_least_1("UniformNegatives", "size", size)), known)

    def _items(self, bits: np.random.Philox, count: int) -> Ids:
        return (uniform(bits, count) * self.size).astype(np.int64)


class FrequencyNegatives(_Independent):
    """Negatives by frequency, p(i) = c_i^power / sum_j c_j^power, with the power 3/4 of Mikolov et al. 2013b.

    Power 1 is the unigram distribution, power 0 is uniform; 3/4 lies between them and worked best in the paper.

    counts: how often each item occurs, (N,).
    known: pairs that are never returned.

    >>> from models.text.random_bits import random_bits
    >>> negatives = FrequencyNegatives([16, 1, 0])
    >>> negatives.table.probabilities().round(3)
    array([0.889, 0.111, 0.   ])
    >>> negatives.draw(random_bits(0, 1), [2, 1], count=5)
    array([[0, 0, 0, 0, 0],
           [0, 0, 0, 0, 0]])
    """

    def __init__(self, counts: ArrayLike, power: float = 0.75, known: KnownPositives | None = None) -> None:
        counts_N = _weights("FrequencyNegatives", counts)
        if not 0 <= power < np.inf:
            raise ValueError(f"FrequencyNegatives: a power of at least 0 is required; got {power}")
        super().__init__(counts_N**power, known)
        self.table = AliasTable(self._weights_N)

    def _items(self, bits: np.random.Philox, count: int) -> Ids:
        return self.table.draw(bits, count)


class InBatchNegatives:
    """The positives of other rows of a batch, which the model encodes anyway: the rows after a row, round the end.

    So B rows give B (B - 1) negatives for one product of matrices, and nothing is drawn. A frequent item is in many
    batches, so these negatives come by frequency (power 1). Some may be positives of the row: `KnownPositives.contains`
    tells.

    >>> InBatchNegatives().draw(positives_B=[7, 8, 9], count=2)
    array([[8, 9],
           [9, 7],
           [7, 8]])
    """

    def draw(self, positives_B: ArrayLike, count: int) -> Ids:
        """Return `count` positives of other rows for each row, (B, K). Errors: ValueError if there are fewer."""
        items_B = _ids(positives_B, "positives")
        rows = len(items_B)
        if not 0 <= count < max(rows, 1):
            raise ValueError(f"InBatchNegatives: at most {max(rows, 1) - 1} of {rows} rows are required; got {count}")
        return items_B[(np.arange(rows)[:, None] + np.arange(1, count + 1)) % max(rows, 1)]


class HardNegatives:
    """The items that the model scores highest for an anchor among those that are not its positives.

    scores: returns the scores of all items for each of these anchors, (P,) -> (P, N). A product of vectors, usually.
    known: pairs that are never returned: without them, the hardest "negatives" would be the positives.
    among, candidates: the best of `candidates` items drawn by another sampler, not of all (dynamic negative sampling,
        Zhang et al. 2013). So the negatives vary, and a positive that was never observed is not drawn every time.
        An item that is drawn twice for an anchor counts once.

    >>> from models.text.random_bits import random_bits
    >>> vectors_ND = np.array([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.0, 1.0]])
    >>> known = KnownPositives([0, 3], [0, 3], size=4)
    >>> HardNegatives(lambda anchors: vectors_ND[anchors] @ vectors_ND.T, known).draw(random_bits(0), [0, 3], count=2)
    array([[1, 2],
           [2, 1]])
    """

    def __init__(
        self,
        scores: Callable[[Ids], NDArray[np.floating]],
        known: KnownPositives | None = None,
        among: Negatives | None = None,
        candidates: int = 0,
    ) -> None:
        if (among is None) != (candidates == 0):
            raise ValueError("HardNegatives: `among` and a number of candidates are required together; got one of them")
        self.scores, self.known, self.among, self.candidates = scores, known, among, candidates

    def draw(self, bits: np.random.Philox, anchors_P: ArrayLike, count: int) -> Ids:
        """Return the `count` hardest negatives of each anchor, (P, K), all different, the hardest first.

        An anchor with fewer different ones among its candidates gets new candidates, a few times. Errors: ValueError if
        it still has fewer, or if a score is NaN or infinite.
        """
        anchors = _ids(anchors_P, "anchors")
        scores_PN = np.asarray(self.scores(anchors), np.float64)
        if not np.isfinite(scores_PN).all():
            raise ValueError("HardNegatives: finite scores are required; some are NaN or infinite")
        if self.among is None:
            items_PC = np.tile(np.arange(scores_PN.shape[1]), (len(anchors), 1))
        else:
            items_PC = self.among.draw(bits, anchors, self.candidates)
        usable_PC = self._usable(anchors, items_PC)
        for _ in range(_ROUNDS):
            few = np.flatnonzero(usable_PC.sum(axis=1) < count)
            if self.among is None or not len(few):
                break
            items_PC[few] = self.among.draw(bits, anchors[few], self.candidates)
            usable_PC[few] = self._usable(anchors[few], items_PC[few])
        scores_PC = np.where(usable_PC, np.take_along_axis(scores_PN, items_PC, axis=1), -np.inf)
        fewest = usable_PC.sum(axis=1).min(initial=items_PC.shape[1])
        if fewest < count:
            raise ValueError(
                f"HardNegatives: {count} different items that are not positives are required for each anchor; an "
                f"anchor has {fewest}; ask for fewer{', or draw more candidates' if self.among else ''}"
            )
        if count < scores_PC.shape[1]:
            best_PK = np.argpartition(-scores_PC, count - 1, axis=1)[:, :count]
        else:
            best_PK = np.broadcast_to(np.arange(count), scores_PC.shape)
        order_PK = np.argsort(-np.take_along_axis(scores_PC, best_PK, axis=1), axis=1, kind="stable")
        return np.take_along_axis(items_PC, np.take_along_axis(best_PK, order_PK, axis=1), axis=1)

    def _usable(self, anchors_P: Ids, items_PC: Ids) -> NDArray[np.bool_]:
        """Return which candidates are no positives, and no repetitions of earlier ones, (P, C)."""
        usable_PC = ~_repeated(items_PC)
        return usable_PC if self.known is None else usable_PC & ~self.known.contains(anchors_P, items_PC)


def _repeated(items_PC: Ids) -> NDArray[np.bool_]:
    """Return whether an earlier place of the same row has the same item, (P, C)."""
    order_PC = np.argsort(items_PC, axis=1, kind="stable")
    sorted_PC = np.take_along_axis(items_PC, order_PC, axis=1)
    repeated_PC = np.zeros(items_PC.shape, bool)
    np.put_along_axis(repeated_PC, order_PC[:, 1:], sorted_PC[:, 1:] == sorted_PC[:, :-1], axis=1)
    return repeated_PC


# ---- checks ----------------------------------------------------------------------------------------------------------


def _ids(values: ArrayLike, name: str) -> Ids:
    ids = np.asarray(values)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise ValueError(f"{name}: a list of integers is required; got shape {ids.shape} of {ids.dtype}")
    return ids.astype(np.int64, copy=False)


def _weights(operation: str, values: ArrayLike) -> NDArray[np.float64]:
    weights_N = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        usable = weights_N.ndim == 1 and (weights_N >= 0).all() and 0 < weights_N.sum() < np.inf  # NaN is not >= 0
    if not usable:
        raise ValueError(
            f"{operation}: a list of numbers of at least 0, with a finite sum above 0, is required; got "
            f"{np.array2string(weights_N, threshold=8)}"
        )
    return weights_N


def _at_least_1(operation: str, name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{operation}: {name} of at least 1 is required; got {value}")
    return int(value)
