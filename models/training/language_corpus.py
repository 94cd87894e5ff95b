"""The text that a language model trains on, as lines and as one stream of ids, and the windows of each epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.runs.config import TrainConfig
from models.system.errors import UserError
from models.text.batching import Batch, epoch_batches
from models.text.lines import read_lines
from models.text.stream import encode_lines, joined, window_batch, windows
from models.text.subwords import Tokenizer
from tensorlib.messages import plural

__all__ = ["LanguageCorpus", "Streams", "Windows", "encode_streams", "read_language_corpus"]


@dataclass(frozen=True)
class LanguageCorpus:
    """The lines of the text to train on and of that to validate on."""

    train: list[str]
    valid: list[str]
    notes: list[str]  # messages for the user

    def digest(self) -> str:
        """Return a digest of both texts; a run resumes only if they have not changed."""
        hasher = hashlib.sha256()
        for part in (self.train, self.valid):
            for line in part:
                hasher.update(line.encode("utf-8", "surrogatepass") + b"\n")
            hasher.update(b"\0")
        return hasher.hexdigest()


@dataclass(frozen=True)
class Streams:
    """Both texts as ids, (N,) each, in which line ends are tokens."""

    train: NDArray[np.int32]
    train_lines: list[str]
    valid: NDArray[np.int32]
    notes: list[str]


def read_language_corpus(config: TrainConfig) -> LanguageCorpus:
    """Read the text that the config names. Errors: `UserError` naming an unreadable or empty file."""
    train, valid = read_lines(config.train_text), read_lines(config.valid_text)
    known, full = set(train), [line for line in valid if line.strip()]
    for name, lines in ((config.train_text, train), (config.valid_text, valid)):
        if not any(line.strip() for line in lines):
            raise UserError(f"reading text {name}: a line that is not blank is required; there is none")
    leaked, notes = sum(line in known for line in full), []
    if 2 * leaked > len(full):
        notes.append(
            f"valid: {leaked:,} of {plural(len(full), 'line')} {'is' if leaked == 1 else 'are'} also in the training "
            "text, so the validation does not show how well other text is predicted; keep them apart"
        )
    return LanguageCorpus(train, valid, notes)


def encode_streams(corpus: LanguageCorpus, tokenizer: Tokenizer) -> Streams:
    """Encode both texts."""
    train, valid = (encode_lines(tokenizer.target, lines) for lines in (corpus.train, corpus.valid))
    return Streams(train, corpus.train, valid, [])


class Windows:
    """The windows of one epoch, each of at most max_length positions, and their grouping into batches.

    Every epoch cuts at another offset, so that each token is predicted from contexts of different lengths; in each it
    is predicted once. All depends only on the config, the text and the number of the epoch. With BPE-dropout, every
    epoch also splits the text into subwords again.
    """

    def __init__(self, config: TrainConfig, tokenizer: Tokenizer, streams: Streams) -> None:
        self._config, self._tokenizer, self._streams = config, tokenizer, streams
        self._stream, self._spans_W2 = streams.train, np.zeros((0, 2), np.int64)

    def groups(self, epoch: int) -> list[NDArray[np.int64]]:
        """Turn to an epoch, counted from 0; return its batches, as arrays of the numbers of windows."""
        c, longest = self._config, self._config.model.max_length
        split, cut = np.random.SeedSequence(c.seed, spawn_key=(epoch, 1)).generate_state(2).tolist()
        if c.tokenizer.dropout:
            subwords, p = self._tokenizer.target, c.tokenizer.dropout
            self._stream = joined(subwords, subwords.encode_with_dropout(self._streams.train_lines, p, split))
        self._spans_W2 = windows(len(self._stream), longest, cut % longest)
        tokens, sentences = c.batch_tokens or None, c.batch_sentences or None
        return epoch_batches(
            self.sizes(), seed=c.seed, epoch=epoch, tokens_per_batch=tokens, sentences_per_batch=sentences
        )

    def sizes(self) -> NDArray[np.int64]:
        """Return the positions (N, 2) of each window, of the epoch that `groups` turned to last; there is no source."""
        return np.diff(self._spans_W2, axis=1) * [0, 1]

    def batches(self, groups: Sequence[NDArray[np.int64]]) -> list[Batch]:
        """Return the batch of each group of the epoch that `groups` turned to last."""
        return [window_batch([self._stream[slice(*self._spans_W2[i])] for i in group]) for group in groups]
