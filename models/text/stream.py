"""Text as one stream of ids, line ends included, and the windows that a language model reads of it.

Shape suffixes: N ids of the stream, W windows, B windows in a batch, T length of the longest window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from models.text.batching import Batch, pad
from models.text.subwords import Subwords
from models.text.tokens import BOS, EOS, PAD

__all__ = ["decode_text", "encode_lines", "encode_text", "joined", "scored_windows", "window_batch", "windows"]

Stream = NDArray[np.int32]


def encode_lines(subwords: Subwords, lines: Sequence[str]) -> Stream:
    """Return the ids of all lines in one array, with the id of a line end after each.

    Each line is split into subwords alone, so a word has the same subwords at the beginning of a line as elsewhere.
    """
    return joined(subwords, subwords.encode(lines))


def joined(subwords: Subwords, encoded: Iterable[Sequence[int]]) -> Stream:
    """Return the ids of encoded lines in one array, with the id of a line end after each."""
    return np.fromiter((i for ids in encoded for i in (*ids, subwords.line_end)), np.int32)


def encode_text(subwords: Subwords, text: str) -> list[int]:
    r"""Return the ids of a text, whose lines end at "\n".

    >>> tokenizer = models.Tokenizer.train([("a b", "b a")], vocabulary_size=300)
    >>> decode_text(tokenizer.target, encode_text(tokenizer.target, "a\n\n b"))
    'a\n\n b'
    """
    return encode_lines(subwords, text.split("\n"))[:-1].tolist()


def decode_text(subwords: Subwords, ids: Iterable[int]) -> str:
    """Return the text of ids up to the first </s>, with its line ends: the inverse of `encode_text`."""
    lines: list[list[int]] = [[]]
    for i in map(int, ids):
        if i == EOS:
            break
        if i == subwords.line_end:
            lines.append([])
        else:
            lines[-1].append(i)
    return "\n".join(map(subwords.decode, lines))


def windows(count: int, longest: int, offset: int = 0) -> NDArray[np.int64]:
    """Cut `count` ids into windows of `longest`: their starts and stops, (W, 2). Each id is in exactly one.

    The first window ends at `offset`, so that another offset cuts elsewhere; it and the last one may be shorter.

    >>> windows(7, 3, offset=2).tolist()
    [[0, 2], [2, 5], [5, 7]]
    """
    cuts = np.unique([0, *range(offset, count, longest), count])
    return np.stack([cuts[:-1], cuts[1:]], axis=1)


def scored_windows(count: int, longest: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start, first, stop) of overlapping windows: ids[first:stop] are predicted, those before them only read.

    Each id is predicted once. Except in the first window, half of the context is read before the first of them.

    >>> list(scored_windows(7, 4))
    [(0, 0, 4), (2, 4, 6), (3, 6, 7)]
    """
    first, stop = 0, min(count, longest)
    while first < count:
        yield max(stop - longest, 0), first, stop
        first, stop = stop, min(stop + max(longest // 2, 1), count)


def window_batch(windows: Sequence[NDArray[np.integer]], read: Sequence[int] | None = None) -> Batch:
    """Return a batch of windows of a stream, each shifted by one token: <s> a b c predicts a b c d. There is no source.

    read: how many tokens at the beginning of each window are only read; by default none.

    >>> batch = window_batch([np.array([5, 6, 7]), np.array([8])])
    >>> batch.target_in_BT.tolist(), batch.target_out_BT.tolist(), batch.tokens
    ([[2, 5, 6], [2, 8, 0]], [[5, 6, 7], [8, 0, 0]], 4)
    """
    out_BT, lengths_B = pad(windows)
    in_BT = np.concatenate([np.full((len(out_BT), 1), BOS), out_BT[:, :-1]], axis=1)
    if read is not None:
        read_B = np.array(read, np.int64)
        out_BT[np.arange(out_BT.shape[1]) < read_B[:, None]] = PAD  # which no loss counts
        lengths_B = lengths_B - read_B
    none_B = np.zeros(len(out_BT), np.int64)
    return Batch(np.zeros((len(out_BT), 0), np.int64), in_BT, out_BT, none_B, lengths_B)
