"""The gradient of an embedding: rows summed by id, without a loop over rows and in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tensorlib.ops.indexing import sum_rows_formula

__all__ = ["FEW", "Occurrences"]

FEW = 16  # if an id occurs more often than this, its rows are summed by a separate call


class Occurrences:
    """Where each id occurs in an array of ids: its positions in ascending order, the most frequent ids first.

    found_U: the U different ids.
    order: all positions; those of the id found_U[i] are the counts_U[i] elements from starts_U[i] on.
    many: how many ids occur more than FEW times.
    """

    def __init__(self, ids: np.ndarray, rows: int) -> None:
        flat = ids.reshape(-1)
        self.order = _stable_order(flat, rows)
        ordered = flat[self.order]
        starts = np.flatnonzero(np.concatenate((np.ones(1, bool), ordered[1:] != ordered[:-1])))
        counts = np.diff(starts, append=flat.size)
        frequent_first = np.argsort(-counts, kind="stable")
        self.starts_U, self.counts_U = starts[frequent_first], counts[frequent_first]
        self.found_U = ordered[self.starts_U]
        self.many = int(np.searchsorted(-self.counts_U, -FEW))

    def of_frequent(self) -> Iterator[np.ndarray]:
        """Yield the positions of each id that occurs more than FEW times."""
        for start, count in zip(self.starts_U[: self.many].tolist(), self.counts_U[: self.many].tolist(), strict=True):
            yield self.order[start : start + count]

    def nth_of_others(self) -> Iterator[np.ndarray]:
        """Yield the positions of the first occurrences of the other ids, then of the second ones, and so on.

        They belong to found_U[many : many + length], because the ids that occur most often are the first.
        """
        starts_U, counts_U = self.starts_U[self.many :], self.counts_U[self.many :]
        for nth, length in enumerate(np.searchsorted(-counts_U, -np.arange(FEW)).tolist()):
            if not length:
                return
            yield self.order[starts_U[:length] + nth]


def _stable_order(ids: np.ndarray, rows: int) -> np.ndarray:
    """Return the positions in the order of their ids; equal ids stay in order. NumPy sorts 16 bits in linear time."""
    low = ids.astype(np.uint16)
    order = np.argsort(low, kind="stable")
    for shift in range(16, (rows - 1).bit_length(), 16):
        order = order[np.argsort((ids >> shift).astype(np.uint16)[order], kind="stable")]
    return order


@sum_rows_formula.register(np.ndarray)
def _sum_rows_kernel(x: np.ndarray, ids: np.ndarray, rows: int) -> np.ndarray:
    width = x.shape[ids.ndim :]
    y = np.zeros((rows, *width), x.dtype)
    if not ids.size:
        return y
    x = x.reshape(ids.size, *width)
    occurrences = Occurrences(ids, rows)
    sums = np.empty((len(occurrences.found_U), *width), x.dtype)
    for i, positions in enumerate(occurrences.of_frequent()):
        sums[i] = x.take(positions, axis=0).sum(axis=0)
    others = sums[occurrences.many :]
    for nth, positions in enumerate(occurrences.nth_of_others()):
        if nth:
            others[: len(positions)] += x.take(positions, axis=0)
        else:
            others[:] = x.take(positions, axis=0)
    y[occurrences.found_U] = sums
    return y
