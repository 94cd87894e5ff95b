"""A few shapes for all batches of a run, because each shape of a captured step is recorded as a CUDA graph of its own.

Batches differ in rows and in both lengths, so a run has hundreds of shapes. A ladder has a few, and each batch is
padded with PAD to the one that adds the fewest positions. Padding is never read and has no loss, so it changes a loss
only by rounding, but dropout then draws other numbers than for the batch itself.

The shapes are those of the batches of the first epochs, merged two by two where that costs least. They follow from the
config and the text alone, so a run that is resumed has the same ones.

`python benchmarks/ladder.py` shows how many shapes some texts need, and what the padding costs.

Shape suffixes: B batch, S source length, T target length, N shapes, 3: rows, source length, target length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.text.batching import Batch
from models.text.tokens import PAD

__all__ = ["SHAPES", "Ladder", "positions"]

SHAPES = 24  # at most; each takes a recording, and memory for its graph
COMPARED = 256  # merging compares all pairs of shapes
COARSE = 8  # rows and lengths of a batch that no shape has room for are rounded up to multiples of this

Shapes = NDArray[np.int64]


def positions(shapes: Shapes) -> NDArray[np.int64]:
    """Return the positions of batches of these shapes (..., 3), of sources and targets: what a step's cost grows with.

    >>> positions(np.array([64, 10, 12]))
    np.int64(1408)
    """
    return shapes[..., 0] * (shapes[..., 1] + shapes[..., 2])


@dataclass(frozen=True)
class Ladder:
    """The shapes (N, 3) that batches are padded to.

    >>> ladder = Ladder.for_batches(np.array([[8, 5, 6], [8, 6, 6], [4, 20, 21]]), most=2)
    >>> ladder.shape_for((8, 5, 5)), ladder.shape_for((3, 9, 9)), ladder.shape_for((8, 50, 9))
    ((8, 6, 6), (4, 20, 21), (8, 56, 16))
    """

    shapes_N3: Shapes

    @classmethod
    def for_batches(cls, batches_N3: Shapes, most: int = SHAPES) -> Ladder:
        """Return at most `most` shapes that have room for batches of these shapes, which may repeat."""
        shapes_N3, counts_N = np.unique(batches_N3, axis=0, return_counts=True)
        step = 1
        while len(shapes_N3) > COMPARED:
            step *= 2
            rounded_N3 = _rounded_up(batches_N3, np.array([1, step, step]) if step < COARSE else np.full(3, step))
            shapes_N3, counts_N = np.unique(rounded_N3, axis=0, return_counts=True)
        while len(shapes_N3) > most:
            shapes_N3, counts_N = _merged(shapes_N3, counts_N)
        return cls(shapes_N3)

    def shape_for(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape that a batch of this shape is padded to: the smallest one with room for it.

        If there is none, as may happen in later epochs, its own is rounded up.
        """
        given_3 = np.array(shape)
        fitting_N3 = self.shapes_N3[(self.shapes_N3 >= given_3).all(axis=1)]
        if len(fitting_N3):
            found_3 = fitting_N3[positions(fitting_N3).argmin()]
        else:
            found_3 = _rounded_up(given_3, np.full(3, COARSE))
        rows, source, target = found_3.tolist()
        return rows, source, target

    def padded(self, batch: Batch) -> Batch:
        """Return the batch with more padding: sentences that consist of it are added at the end."""
        (rows, source), target = batch.source_BS.shape, batch.target_in_BT.shape[1]
        rows, source, target = self.shape_for((rows, source, target))
        return Batch(
            _padded(batch.source_BS, (rows, source)),
            _padded(batch.target_in_BT, (rows, target)),
            _padded(batch.target_out_BT, (rows, target)),
            _padded(batch.source_lengths_B, (rows,), 0),
            _padded(batch.target_lengths_B, (rows,), 0),
        )

    def added(self, batches_N3: Shapes) -> float:
        """Return how many positions padding adds to batches of these shapes, as a fraction of those that they have."""
        padded_N3 = np.array([self.shape_for((b, s, t)) for b, s, t in batches_N3.tolist()])
        return float(positions(padded_N3).sum() / positions(batches_N3).sum()) - 1


def _merged(shapes_N3: Shapes, counts_N: NDArray[np.int64]) -> tuple[Shapes, NDArray[np.int64]]:
    """Return the shapes with one less: the two that can be merged with the fewest positions added to their batches."""
    merged_NN3 = np.maximum(shapes_N3[:, None], shapes_N3)
    spent_N = counts_N * positions(shapes_N3)
    added_NN = positions(merged_NN3) * (counts_N[:, None] + counts_N) - (spent_N[:, None] + spent_N)
    np.fill_diagonal(added_NN, added_NN.max() + 1)
    i, j = np.unravel_index(added_NN.argmin(), added_NN.shape)
    shapes_N3, counts_N = shapes_N3.copy(), counts_N.copy()
    shapes_N3[i], counts_N[i] = merged_NN3[i, j], counts_N[i] + counts_N[j]
    return np.delete(shapes_N3, j, axis=0), np.delete(counts_N, j)


def _rounded_up(shapes: Shapes, multiples_3: Shapes) -> Shapes:
    return -(-shapes // multiples_3) * multiples_3


def _padded(array: NDArray[np.int64], shape: tuple[int, ...], value: int = PAD) -> NDArray[np.int64]:
    result = np.full(shape, value, dtype=np.int64)
    result[tuple(slice(n) for n in array.shape)] = array
    return result
