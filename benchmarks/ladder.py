"""Print how many shapes the batches of some texts are padded to on a GPU, and what the padding costs.

    python benchmarks/ladder.py                                        the phrasebook
    python benchmarks/ladder.py --source train.de --target train.en    a parallel text of your own, too

The shapes are chosen by the first three epochs; the cost is that of the three after them, in positions. A batch that no
shape has room for is rounded up, and recorded as a shape of its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from models.text.batching import encode_pairs, epoch_batches, lengths
from models.text.corpora.phrasebook import phrasebook
from models.text.lines import Pair, read_parallel
from models.text.subwords import Tokenizer
from models.training.ladder import SHAPES, Ladder

PHRASEBOOK = ({"tokens_per_batch": 1024},)
TEXT = (
    {"tokens_per_batch": 2048},
    {"tokens_per_batch": 4096},
    {"tokens_per_batch": 8192},
    {"sentences_per_batch": 64},
    {"sentences_per_batch": 128},
)


def shapes(lengths_N2: np.ndarray, epochs: range, **limit: int) -> np.ndarray:
    """Return the shapes of all batches of some epochs."""
    groups = [g for epoch in epochs for g in epoch_batches(lengths_N2, seed=0, epoch=epoch, **limit)]
    return np.array([(len(group), *lengths_N2[group].max(axis=0)) for group in groups])


def encoded_lengths(pairs: list[Pair], vocabulary: int) -> np.ndarray:
    """Return the lengths (N, 2) of pairs in subwords learned from them."""
    tokenizer = Tokenizer.train(
        pairs, vocabulary_size=vocabulary, shared=True, model_type="bpe", character_coverage=1.0
    )
    return lengths(encode_pairs(tokenizer, pairs))


def row(name: str, lengths_N2: np.ndarray, limit: dict[str, Any], most: int) -> str:
    """Return the line of one text and one limit of a batch."""
    ladder = Ladder.for_batches(shapes(lengths_N2, range(3), **limit), most)
    later_N3 = shapes(lengths_N2, range(3, 6), **limit)
    known = {tuple(shape) for shape in ladder.shapes_N3.tolist()}
    used = [ladder.shape_for((b, s, t)) for b, s, t in later_N3.tolist()]
    others = [shape for shape in used if shape not in known]
    ((setting, number),) = limit.items()
    return (
        f"| {name} | {setting.replace('_per_batch', '')} {number:,} | {len(np.unique(later_N3, axis=0))} | "
        f"{len(known)} | {100 * ladder.added(later_N3):.1f} % | {100 * len(others) / len(used):.1f} % |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--target", type=Path)
    parser.add_argument("--vocabulary", type=int, default=8000)
    options = parser.parse_args()
    texts = [("phrasebook", encoded_lengths(phrasebook().train, 2000), PHRASEBOOK)]
    if options.source:
        pairs = read_parallel(str(options.source), str(options.target), print)
        texts.append((options.source.name, encoded_lengths(pairs, options.vocabulary), TEXT))
    print("| text | batch | shapes of batches | shapes of the ladder | positions added | batches that fit none |")
    print("|---|---|---|---|---|---|")
    for name, lengths_N2, limits in texts:
        for limit in limits:
            for most in (8, SHAPES, 24):
                print(row(name, lengths_N2, limit, most), flush=True)


if __name__ == "__main__":
    main()
