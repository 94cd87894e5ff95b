"""The training part, epoch by epoch: its sentences as ids, and which of them go together in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.text.batching import Batch, Example, batches, encode_pairs, epoch_batches, lengths
from models.text.lines import Pair
from models.text.tokens import EOS
from models.training.start import Run

__all__ = ["Epochs"]


class Epochs:
    """What each epoch trains on: a function of the run's config, its text, and the epoch's number alone.

    Without BPE-dropout the examples are the same in each, and only batches differ. With it every epoch cuts the text
    anew. One epoch is held at a time.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._number = run, -1
        self._examples: list[Example] = run.examples.train
        self._groups: list[Any] = []
        self._pairs = self._short_pairs() if run.config.tokenizer.dropout else []

    def count(self, epoch: int) -> int:
        """Return how many batches an epoch, from 0, has."""
        self._turn_to(epoch)
        return len(self._groups)

    def batches(self, epoch: int, first: int, count: int) -> list[Batch]:
        """Return `count` batches of an epoch from its batch `first` on, fewer where it ends."""
        self._turn_to(epoch)
        return list(batches(self._examples, self._groups[first : first + count]))

    def _turn_to(self, epoch: int) -> None:
        if self._number == epoch:
            return
        c = self._run.config
        if c.tokenizer.dropout:
            self._examples = self._cut_anew(epoch)
        tokens, sentences = c.batch_tokens or None, c.batch_sentences or None
        self._groups = epoch_batches(
            lengths(self._examples),
            seed=c.seed,
            epoch=epoch,
            tokens_per_batch=tokens,
            sentences_per_batch=sentences,
        )
        self._number = epoch

    def _cut_anew(self, epoch: int) -> list[Example]:
        """Return the examples of an epoch, cut at random on both sides (Provilkov et al. 2020).

        Cut into more pieces a pair may become too long for the model; it then stays as it was.
        """
        run = self._run
        p, longest = run.config.tokenizer.dropout, run.config.model.max_length
        seeds = np.random.SeedSequence(run.config.seed, spawn_key=(epoch, 1)).generate_state(2)  # one a side
        sources = run.tokenizer.source.sample([source for source, _ in self._pairs], p, int(seeds[0]))
        targets = run.tokenizer.target.sample([target for _, target in self._pairs], p, int(seeds[1]))
        return [
            (np.array([*source, EOS], np.int32), np.array(target, np.int32))
            if max(len(source), len(target)) + 1 <= longest
            else plain
            for source, target, plain in zip(sources, targets, run.examples.train, strict=True)
        ]

    def _short_pairs(self) -> Sequence[Pair]:
        """Return the pairs that the run's training examples were made of: those that are short enough."""
        pairs = self._run.corpus.train
        sizes = lengths(encode_pairs(self._run.tokenizer, pairs)[0]).max(axis=1)
        return [pair for pair, size in zip(pairs, sizes, strict=True) if size <= self._run.config.model.max_length]
