"""Conversion of sentence pairs to batches: teacher forcing, padding, and grouping by length.

Shape suffixes: B batch (sentences), S source length, T target length, N examples. No masks are built here: the model
derives them from the ids that equal PAD.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.text.lines import Pair
from models.text.random_bits import permutation, random_bits, uniform
from models.text.tokens import BOS, EOS, PAD

if TYPE_CHECKING:
    from models.text.subwords import Tokenizer

__all__ = ["POSITIONS", "Batch", "Example", "batches", "encode_pairs", "epoch_batches", "lengths", "make_batch", "pad"]
__all__ += ["group_by_length", "teacher_forcing"]

POSITIONS = 4096  # maximum of rows times padded length in a batch that is not used for training

Ids = Sequence[int] | NDArray[np.integer[Any]]
Example = tuple[Ids, Ids]  # source ids, EOS included, and target ids, without BOS and EOS


def teacher_forcing(target_ids: Ids) -> tuple[list[int], list[int]]:
    """Return the decoder's inputs and the expected outputs, which are the same sentence shifted by one token.

        inputs    <s>  I     have  a    cat
        outputs   I    have  a     cat  </s>

    At each position the decoder has read the true words so far, not its own predictions, and must predict the next
    word. So one pass trains all positions at once. The causal mask hides later inputs, so that the decoder cannot
    read the answer at the next position.
    """
    ids = [int(i) for i in target_ids]
    return [BOS, *ids], [*ids, EOS]


@dataclass(frozen=True)
class Batch:
    """A batch of sentences, each row padded with PAD: int64 arrays on the host."""

    source_BS: NDArray[np.int64]  # the encoder's input
    target_in_BT: NDArray[np.int64]  # the decoder's input:        <s> I have a cat
    target_out_BT: NDArray[np.int64]  # the expected output:       I have a cat </s>
    source_lengths_B: NDArray[np.int64]  # EOS included
    target_lengths_B: NDArray[np.int64]  # the same for input and output: BOS or EOS included

    @property
    def tokens(self) -> int:
        """The number of target tokens to predict, EOS included: the denominator of a mean loss."""
        return int(self.target_lengths_B.sum())


def make_batch(examples: Sequence[Example]) -> Batch:
    """Stack examples, padded to the longest. Errors: ValueError if there are no examples.

    >>> batch = models.make_batch([([5, 6, 3], [7]), ([5, 3], [7, 8])])  # 0 <pad>, 2 <s>, 3 </s>
    >>> batch.source_BS
    array([[5, 6, 3],
           [5, 3, 0]])
    >>> batch.target_in_BT
    array([[2, 7, 0],
           [2, 7, 8]])
    >>> batch.target_out_BT
    array([[7, 3, 0],
           [7, 8, 3]])
    """
    if not examples:
        raise ValueError("make_batch: at least one example is required; got none; skip empty batches")
    shifted = [teacher_forcing(target) for _, target in examples]
    source_BS, source_lengths_B = pad([source for source, _ in examples])
    target_in_BT, target_lengths_B = pad([inputs for inputs, _ in shifted])
    target_out_BT, _ = pad([outputs for _, outputs in shifted])
    return Batch(source_BS, target_in_BT, target_out_BT, source_lengths_B, target_lengths_B)


def pad(rows: Sequence[Ids]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stack rows of ids, padded with PAD to the longest; return the array and the lengths of the rows."""
    row_lengths = np.array([len(row) for row in rows], dtype=np.int64)
    padded = np.full((len(rows), row_lengths.max()), PAD, dtype=np.int64)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded, row_lengths


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[Pair]) -> list[Example]:
    """Return each pair as an example."""
    sources = tokenizer.encode_source([source for source, _ in pairs])
    targets = tokenizer.encode_target([target for _, target in pairs])
    # int32 arrays: a list of Python integers would take ten times the memory.
    return [
        (np.array(source, dtype=np.int32), np.array(target, dtype=np.int32))
        for source, target in zip(sources, targets, strict=True)
    ]


def lengths(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Return the number of positions of each example, (N, 2): source with EOS, target with BOS or EOS."""
    sizes = [(len(source), len(target) + 1) for source, target in examples]
    return np.array(sizes, dtype=np.int64).reshape(-1, 2)


def epoch_batches(
    lengths: ArrayLike,
    *,
    seed: int,
    epoch: int,
    tokens_per_batch: int | None = None,
    sentences_per_batch: int | None = None,
    noise: float = 1.0,
) -> list[NDArray[np.int64]]:
    """Group one epoch's examples into batches: index arrays in training order, each example in exactly one.

    The result depends on the arguments alone, so resuming epoch e after k batches means continuing at its element k.

    lengths: (N, 2), as returned by `lengths`.
    tokens_per_batch: the maximum of rows times padded length, where the longer of source and target counts. It keeps
        memory and time per batch even. An example that exceeds it forms a batch alone.
    sentences_per_batch: the number of rows of each batch (one may have fewer). Give exactly one of the two limits.
    noise: each length is shifted by up to this many positions before sorting, so that different sentences share a
        batch in each epoch. On 29,000 captions in batches of 128, with noise 0, 1 and 2, tokens fill 96, 91 and 86 % of
        the positions, and 45, 8 and 4 % of a sentence's neighbours share its batch again in the next epoch.

    Errors: ValueError for a limit below 1, for both limits or neither, and for lengths of the wrong shape.
    """
    sizes_N2 = np.asarray(lengths, dtype=np.int64)
    if sizes_N2.ndim != 2 or sizes_N2.shape[1] != 2:
        raise ValueError(
            f"epoch_batches: lengths must have shape (examples, 2), source and target; got shape {sizes_N2.shape}; "
            "use lengths(examples)"
        )
    limit = _only_limit(tokens_per_batch, sentences_per_batch)
    bits = random_bits(seed, epoch)  # a new stream for each epoch
    shifts_N2 = noise * (2 * uniform(bits, sizes_N2.size).reshape(-1, 2) - 1)
    order = _by_length(sizes_N2 + shifts_N2, ties=uniform(bits, len(sizes_N2)))
    if tokens_per_batch is None:
        starts = list(range(limit, len(order), limit))
    else:
        starts = _split_points(sizes_N2[order].max(axis=1), limit)
    groups = np.split(order, starts) if len(order) else []
    return [groups[i] for i in permutation(bits, len(groups))]


def _only_limit(tokens_per_batch: int | None, sentences_per_batch: int | None) -> int:
    given = [limit for limit in (tokens_per_batch, sentences_per_batch) if limit is not None]
    if len(given) != 1 or given[0] < 1:
        raise ValueError(
            f"epoch_batches: tokens_per_batch or sentences_per_batch is required, and must be at least 1; got "
            f"{tokens_per_batch} and {sentences_per_batch}; give one of them"
        )
    return given[0]


def _by_length(sizes_N2: NDArray[np.float64], ties: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sort so that neighbours are similar on both sides: by source length, then by target length.

    Target lengths ascend within one source length and descend within the next, so that they do not jump from one
    source length to the next.
    """
    source, target = np.rint(sizes_N2).T
    upwards = np.where(source % 2 == 0, target, -target)
    return np.lexsort((ties, upwards, source))


def group_by_length(sizes: Sequence[int], positions: int = POSITIONS) -> list[list[int]]:
    """Group items of similar size, longest first, as lists of indices. A group has at most `positions` positions.

    Padding counts. An item that is longer than `positions` forms a group alone.
    """
    sizes_N = np.array(sizes, dtype=np.int64)
    order = np.argsort(-sizes_N, kind="stable")
    return [group.tolist() for group in np.split(order, _split_points(sizes_N[order], positions)) if len(group)]


def _split_points(sizes_N: NDArray[np.int64], positions: int) -> list[int]:
    """Return the start of each batch except the first; a batch ends where one more row would exceed `positions`."""
    starts: list[int] = []
    first = longest = 0
    for i, size in enumerate(sizes_N.tolist()):
        longest = max(longest, size)
        if i > first and longest * (i + 1 - first) > positions:
            starts.append(i)
            first, longest = i, size
    return starts


def batches(examples: Sequence[Example], groups: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
    """Yield the batch of each group, made on demand; `groups` is the result of `epoch_batches` or a tail of it."""
    for group in groups:
        yield make_batch([examples[i] for i in group])
