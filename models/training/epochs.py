"""The training batches of each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.runs.config import TrainConfig
from models.text.batching import Batch, Example, batches, epoch_batches, lengths
from models.text.subwords import Tokenizer
from models.text.tokens import EOS
from models.training.corpus import Examples
from models.training.language_corpus import Streams, Windows

if TYPE_CHECKING:
    from models.training.start import Prepared

__all__ = ["Epochs", "items_of"]


class Epochs:
    """The batches of each epoch. They depend only on the run's config, its text and the number of the epoch.

    Only one epoch is held in memory at a time. What is grouped into batches are the pairs of a parallel text, or the
    windows of a language model's text.
    """

    def __init__(self, run: Prepared) -> None:
        self._number, self._groups = -1, list[NDArray[np.int64]]()
        self._items = items_of(run.config, run.tokenizer, run.examples)

    def count(self, epoch: int) -> int:
        """Return the number of batches in an epoch; epochs are counted from 0."""
        self._turn_to(epoch)
        return len(self._groups)

    def batches(self, epoch: int, first: int, count: int) -> list[Batch]:
        """Return `count` batches of an epoch, starting at batch `first`, or fewer if the epoch ends before."""
        self._turn_to(epoch)
        return self._items.batches(self._groups[first : first + count])

    def shapes(self, epoch: int) -> NDArray[np.int64]:
        """Return the shapes (N, 3) of an epoch's batches: rows, source length, target length."""
        self._turn_to(epoch)
        sizes_N2 = self._items.sizes()
        return np.array([(len(group), *sizes_N2[group].max(axis=0)) for group in self._groups], np.int64).reshape(-1, 3)

    def _turn_to(self, epoch: int) -> None:
        if self._number != epoch:
            self._groups, self._number = self._items.groups(epoch), epoch


def items_of(config: TrainConfig, tokenizer: Tokenizer, examples: Examples | Streams) -> Pairs | Windows:
    """Return what batches are grouped from."""
    if isinstance(examples, Streams):
        return Windows(config, tokenizer, examples)
    return Pairs(config, tokenizer, examples)


class Pairs:
    """The pairs of one epoch, and their grouping into batches.

    Without BPE-dropout the examples are the same in every epoch, and only their grouping differs. With BPE-dropout
    every epoch splits the text into subwords again.
    """

    def __init__(self, config: TrainConfig, tokenizer: Tokenizer, examples: Examples) -> None:
        self._config, self._tokenizer, self._given = config, tokenizer, examples
        self._examples: list[Example] = examples.train

    def groups(self, epoch: int) -> list[NDArray[np.int64]]:
        """Turn to an epoch, counted from 0; return its batches, as arrays of the numbers of examples."""
        c = self._config
        if c.tokenizer.dropout:
            self._examples = self._resegmented(epoch)
        tokens, sentences = c.batch_tokens or None, c.batch_sentences or None
        return epoch_batches(
            self.sizes(),
            seed=c.seed,
            epoch=epoch,
            tokens_per_batch=tokens,
            sentences_per_batch=sentences,
        )

    def sizes(self) -> NDArray[np.int64]:
        """Return the positions (N, 2) of each example, of the epoch that `groups` turned to last."""
        return lengths(self._examples)

    def batches(self, groups: Sequence[NDArray[np.int64]]) -> list[Batch]:
        """Return the batch of each group of the epoch that `groups` turned to last."""
        return list(batches(self._examples, groups))

    def _resegmented(self, epoch: int) -> list[Example]:
        """Return the examples of an epoch, with both sides split at random (Provilkov et al. 2020).

        A random split may have more subwords than the ordinary one; a pair that becomes too long for the model keeps
        its ordinary split.
        """
        tokenizer, pairs = self._tokenizer, self._given.train_pairs
        p, longest = self._config.tokenizer.dropout, self._config.model.max_length
        seeds = np.random.SeedSequence(self._config.seed, spawn_key=(epoch, 1)).generate_state(2)  # one per side
        sources = tokenizer.source.encode_with_dropout([source for source, _ in pairs], p, int(seeds[0]))
        targets = tokenizer.target.encode_with_dropout([target for _, target in pairs], p, int(seeds[1]))
        return [
            (np.array([*source, EOS], np.int32), np.array(target, np.int32))
            if max(len(source), len(target)) + 1 <= longest
            else plain
            for source, target, plain in zip(sources, targets, self._given.train, strict=True)
        ]
