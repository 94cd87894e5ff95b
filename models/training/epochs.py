"""The training batches of each epoch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.text.batching import Batch, Example, batches, epoch_batches, lengths
from models.text.tokens import EOS
from models.training.start import Prepared

__all__ = ["Epochs"]


class Epochs:
    """The batches of each epoch. They depend only on the run's config, its text and the number of the epoch.

    Without BPE-dropout the examples are the same in every epoch, and only their grouping differs. With BPE-dropout
    every epoch splits the text into subwords again. Only one epoch is held in memory at a time.
    """

    def __init__(self, run: Prepared) -> None:
        self._run, self._number = run, -1
        self._examples: list[Example] = run.examples.train
        self._groups: list[NDArray[np.int64]] = []

    def count(self, epoch: int) -> int:
        """Return the number of batches in an epoch; epochs are counted from 0."""
        self._turn_to(epoch)
        return len(self._groups)

    def batches(self, epoch: int, first: int, count: int) -> list[Batch]:
        """Return `count` batches of an epoch, starting at batch `first`, or fewer if the epoch ends before."""
        self._turn_to(epoch)
        return list(batches(self._examples, self._groups[first : first + count]))

    def _turn_to(self, epoch: int) -> None:
        if self._number == epoch:
            return
        c = self._run.config
        if c.tokenizer.dropout:
            self._examples = self._resegmented(epoch)
        tokens, sentences = c.batch_tokens or None, c.batch_sentences or None
        self._groups = epoch_batches(
            lengths(self._examples),
            seed=c.seed,
            epoch=epoch,
            tokens_per_batch=tokens,
            sentences_per_batch=sentences,
        )
        self._number = epoch

    def _resegmented(self, epoch: int) -> list[Example]:
        """Return the examples of an epoch, with both sides split at random (Provilkov et al. 2020).

        A random split may have more subwords than the ordinary one; a pair that becomes too long for the model keeps
        its ordinary split.
        """
        run = self._run
        tokenizer, pairs = run.tokenizer, run.examples.train_pairs
        p, longest = run.config.tokenizer.dropout, run.config.model.max_length
        seeds = np.random.SeedSequence(run.config.seed, spawn_key=(epoch, 1)).generate_state(2)  # one per side
        sources = tokenizer.source.encode_with_dropout([source for source, _ in pairs], p, int(seeds[0]))
        targets = tokenizer.target.encode_with_dropout([target for _, target in pairs], p, int(seeds[1]))
        return [
            (np.array([*source, EOS], np.int32), np.array(target, np.int32))
            if max(len(source), len(target)) + 1 <= longest
            else plain
            for source, target, plain in zip(sources, targets, run.examples.train, strict=True)
        ]
