"""Training word vectors on a text: the examples of each epoch, in batches, and the loop.

Settings, text and the position in it determine everything that follows: a resumed run ends with the same bytes as one
that was never stopped. An epoch goes through the sentences in a new order, in parts of about 50,000 words; each part
draws which frequent words to leave out, the width of each window, and, batch by batch, the negatives.

Shape suffixes: T tokens, P examples of a batch.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.architectures.embeddings import Batch, Quality, evaluate
from models.runs.vector_files import TRAINING, VectorProgress, VectorSettings, VectorState, new_model, write_state
from models.system.errors import UserError
from models.system.stopping import Stopped, Stopper
from models.text.lines import read_lines
from models.text.random_bits import permutation, random_bits
from models.text.sampling import NO_TOKEN, Subsampling, WindowPositives
from models.text.words import Vocabulary, words_of
from models.training.divergence import Diverged
from tensorlib.messages import plural

__all__ = [
    "Corpus",
    "NothingToLearn",
    "Reporter",
    "batches_of",
    "begin",
    "chosen",
    "held_out_quality",
    "read_corpus",
    "train_vectors",
]

PART = 50_000  # words of a part of an epoch
HELD_OUT = 50  # one sentence of this many is kept out of training
MOST_HELD_OUT = 5000  # examples to measure on
SAVE_SECONDS = 60.0
EXAMPLES, SUBSAMPLES, NEGATIVES, MEASURE = range(4)  # which random numbers of a position

Ids = NDArray[np.int64]


# ---- text ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus:
    """A text as ids, without the words that are too rare."""

    vocabulary: Vocabulary
    tokens_T: NDArray[np.int32]
    lengths: Ids
    settings: VectorSettings  # with the values that were chosen by the size of the text
    digest: str

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Whether each sentence is kept out of training."""
        count = len(self.lengths)
        order = permutation(random_bits(self.settings.seed, MEASURE), count)
        return order < count // HELD_OUT


def read_corpus(files: Sequence[str], settings: VectorSettings) -> Corpus:
    """Read text files. Errors: `UserError` for a file that isn't text, and for a text with fewer than two words."""
    lines = [line for file in files for line in read_lines(file)]
    sentences = [words_of(line, settings.lower) for line in lines]
    total = sum(map(len, sentences))
    settings = chosen(settings, total)
    vocabulary = Vocabulary.of(sentences, settings.min_count)
    named = ", ".join(files)
    if not total:
        raise UserError(f"embed {named}: text with words is required; found none; name another file")
    if len(vocabulary) < 2:
        raise UserError(
            f"embed {named}: at least two words that occur {plural(settings.min_count, 'time')} are required; found "
            f"{len(vocabulary)} among {total:,} words; use a lower --min-count, or more text"
        )
    tokens_T, lengths = vocabulary.encode(sentences)
    if lengths.max() < 2:
        raise UserError(f"embed {named}: a line with two words is required; each has only one; join the lines")
    hasher = hashlib.sha256("\n".join(vocabulary.words).encode())
    hasher.update(tokens_T.tobytes() + lengths.tobytes())
    return Corpus(vocabulary, tokens_T, lengths, settings, hasher.hexdigest())


def chosen(settings: VectorSettings, words: int) -> VectorSettings:
    """Return the settings with values that suit a text of this many words in place of zeros."""
    rate = 0.1 if settings.optimizer == "adagrad" else 0.025
    return replace(
        settings,
        min_count=settings.min_count or (5 if words >= 100_000 else 2 if words >= 2000 else 1),
        epochs=settings.epochs or min(max(math.ceil(10_000_000 / max(words, 1)), 3), 20),
        learning_rate=settings.learning_rate or rate,
    )


# ---- examples --------------------------------------------------------------------------------------------------------


def parts_of(corpus: Corpus, epoch: int) -> list[Ids]:
    """Return the numbers of the sentences of each part of an epoch."""
    training = np.flatnonzero(~corpus.held_out)
    order = training[permutation(random_bits(corpus.settings.seed, EXAMPLES, epoch), len(training))]
    ends = np.cumsum(corpus.lengths[order])
    return np.split(order, np.searchsorted(ends, np.arange(PART, ends[-1], PART)))


def batches_of(corpus: Corpus, sentences: Ids, *position: int) -> list[Batch]:
    """Return the examples of some sentences as batches; `position` decides about sub-sampling and windows."""
    settings, lengths = corpus.settings, corpus.lengths[sentences]
    starts = (np.cumsum(corpus.lengths) - corpus.lengths)[sentences]
    at_T = np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    tokens_T, sentence_T = corpus.tokens_T[at_T], np.repeat(np.arange(len(lengths)), lengths)
    bits = random_bits(settings.seed, SUBSAMPLES, *position)
    kept_T = Subsampling(corpus.vocabulary.counts_V, settings.subsample).kept(bits, tokens_T)
    lengths = np.bincount(sentence_T[kept_T], minlength=len(lengths))
    positives = WindowPositives(tokens_T[kept_T], lengths, settings.window)
    if settings.objective == "cbow":
        read, targets = positives.windows(bits), positives.tokens_T
        some = (read != NO_TOKEN).any(axis=1)
        read, targets = read[some], targets[some]
    else:
        read, targets = positives.draw(bits)
    size = settings.batch
    return [Batch(read[i : i + size], targets[i : i + size]) for i in range(0, len(targets), size)]


def held_out_quality(corpus: Corpus, state: VectorState) -> tuple[Quality, Quality, int]:
    """Return the quality on sentences kept out of training, that of the unigram distribution, and how many examples.

    Frequent words are left out as often as in training, and the unigram distribution takes that into account.
    """
    whole = replace(corpus, settings=replace(corpus.settings, batch=MOST_HELD_OUT))
    sentences = np.flatnonzero(corpus.held_out)
    found = batches_of(whole, sentences, MEASURE) if len(sentences) else []
    batch = found[0] if found else Batch(np.zeros(0, np.int64), np.zeros(0, np.int64))
    counts_V = corpus.vocabulary.counts_V
    expected_V = counts_V * Subsampling(counts_V, corpus.settings.subsample).probability_N
    return evaluate(state.model, batch, counts_V), evaluate(None, batch, expected_V), len(batch.targets_P)


# ---- training --------------------------------------------------------------------------------------------------------


class Reporter(Protocol):
    """Shows progress."""

    def __call__(self, done: float, loss: float, examples: int, seconds: float) -> None:
        """Show the share of training that is done, and the latest batch: mean loss, examples, seconds."""


def train_vectors(corpus: Corpus, state: VectorState, run: Path, stopper: Stopper, report: Reporter) -> None:
    """Train from the state's position to the end, and write the vectors.

    Saves every minute, and if a signal asks for a stop, and then raises `Stopped`. Errors: `Diverged` if the loss or a
    vector is not finite, and `NothingToLearn` if there was no example; what was saved before stays.
    """
    settings, saved, learned = state.settings, time.monotonic(), state.progress != VectorProgress()
    for done, batch, bits in _remaining(corpus, state.progress):
        if stopped := _asked(stopper):
            stopped.saved = f"at {done:.0%}; saved {_save(run, state)}"
            raise stopped
        if time.monotonic() - saved > SAVE_SECONDS:
            _save(run, state)
            saved = time.monotonic()
        began = time.perf_counter()
        rate = settings.learning_rate * max(1 - done, 1e-4)  # falls linearly, as in word2vec
        with np.errstate(all="ignore"):
            loss = state.model.step(batch, bits, rate) / len(batch.targets_P)
        if not math.isfinite(loss):
            raise _diverged(f"a finite loss is required; it is {loss}", settings)
        report(done, loss, len(batch.targets_P), time.perf_counter() - began)
        state.progress.batch, learned = state.progress.batch + 1, True
    if not learned:
        larger = f", or a --subsample above {settings.subsample:g}, up to 1" if settings.subsample < 1 else ""
        raise NothingToLearn(f"embed: words near each other are required; no epoch had any; use more text{larger}")
    state.progress, state.finished = VectorProgress(settings.epochs), True
    _save(run, state)
    (run / TRAINING).unlink(missing_ok=True)


class NothingToLearn(UserError):
    """No example was left to train on."""


def _save(run: Path, state: VectorState) -> Path:
    """Write the state, and return the file. Errors: `Diverged` if a vector is not finite."""
    if not (np.isfinite(state.model.inputs_VD).all() and np.isfinite(state.model.outputs_VD).all()):
        raise _diverged("finite vectors are required; some are not", state.settings)
    return write_state(run, state)


def _diverged(problem: str, settings: VectorSettings) -> Diverged:
    return Diverged(
        f"embed: {problem}, with a learning rate of {settings.learning_rate:g}; start a new run with a lower "
        "--learning-rate"
    )


def _asked(stopper: Stopper) -> Stopped | None:
    try:
        stopper.check()
    except Stopped as stopped:
        return stopped
    return None


def _remaining(corpus: Corpus, progress: VectorProgress) -> Iterator[tuple[float, Batch, np.random.Philox]]:
    """Yield the share of training done, the next batch and its random numbers; move `progress` between batches."""
    settings = corpus.settings
    while progress.epoch < settings.epochs:
        parts = parts_of(corpus, progress.epoch)
        while progress.part < len(parts):
            position = (progress.epoch, progress.part)
            batches = batches_of(corpus, parts[progress.part], *position)
            while progress.batch < len(batches):
                share = (progress.part + progress.batch / len(batches)) / len(parts)
                bits = random_bits(settings.seed, NEGATIVES, *position, progress.batch)
                yield (progress.epoch + share) / settings.epochs, batches[progress.batch], bits
            progress.part, progress.batch = progress.part + 1, 0
        progress.epoch, progress.part = progress.epoch + 1, 0


def begin(corpus: Corpus, files: Sequence[str]) -> VectorState:
    """Return the state before the first batch."""
    model = new_model(corpus.vocabulary.counts_V, corpus.settings)
    return VectorState(model, corpus.settings, [str(Path(file).absolute()) for file in files], corpus.digest)
