"""`tensorlib embed`: word vectors from plain text, and which words are near each other."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

import tensorlib as tl
from models.architectures.embeddings import Loss, Objective
from models.cli.display import Display, bar
from models.cli.options import Whole
from models.runs.lock import RunLock
from models.runs.vector_files import (
    TEXT,
    TRAINING,
    VECTORS,
    VectorSettings,
    VectorState,
    check_settings,
    create_run,
    newest_vectors,
    read_state,
    refuse_existing_vectors,
    write_word2vec,
)
from models.runs.word_vectors import WordVectors
from models.system.errors import UserError
from models.system.files import require_creatable
from models.system.numbers import shown_loss
from models.system.stopping import Stopped, Stopper
from models.system.terminal import command, printable, quoted
from models.training.word_vectors import Corpus, begin, held_out_quality, read_corpus, train_vectors
from tensorlib.messages import plural

__all__ = ["embed"]

TRAIN, LOOK_UP = Group("Training", sort_key=1), Group("Looking up words", sort_key=2)


def embed(
    *text: Annotated[Path, Parameter(allow_leading_hyphen=False)],
    objective: Annotated[Objective, Parameter(group=TRAIN)] = "skip-gram",
    loss: Annotated[Loss, Parameter(group=TRAIN)] = "negative-sampling",
    dim: Annotated[Whole, Parameter(group=TRAIN)] = 100,
    window: Annotated[Whole, Parameter(group=TRAIN)] = 5,
    negatives: Annotated[Whole, Parameter(group=TRAIN)] = 5,
    min_count: Annotated[Whole, Parameter(group=TRAIN, show_default=False)] = 0,
    subsample: Annotated[float, Parameter(group=TRAIN)] = 1e-3,
    keep_case: Annotated[bool, Parameter(group=TRAIN, negative="", show_default=False)] = False,
    epochs: Annotated[Whole, Parameter(group=TRAIN, show_default=False)] = 0,
    batch: Annotated[Whole, Parameter(group=TRAIN)] = 4096,
    optimizer: Annotated[Literal["adagrad", "sgd"], Parameter(group=TRAIN)] = "adagrad",
    learning_rate: Annotated[float, Parameter(group=TRAIN, show_default=False)] = 0.0,
    seed: Annotated[Whole, Parameter(group=TRAIN)] = 0,
    out: Annotated[Path | None, Parameter(group=TRAIN)] = None,
    resume: Annotated[bool, Parameter(group=TRAIN, negative="", show_default=False)] = False,
    run: Annotated[Path | None, Parameter(group=LOOK_UP)] = None,
    near: Annotated[list[str] | None, Parameter(group=LOOK_UP)] = None,
    analogy: Annotated[tuple[str, str, str] | None, Parameter(group=LOOK_UP)] = None,
    count: Annotated[Whole, Parameter(group=LOOK_UP)] = 10,
    text_format: Annotated[bool, Parameter(group=LOOK_UP, negative="", show_default=False)] = False,
) -> int:
    """Train word vectors on plain text, and look up which words are near each other.

    Words are runs of letters, marks and digits, with apostrophes inside. One sentence of 50 is kept out of training, to
    measure on. Without a text file, --near, --analogy and --text-format read vectors that were trained before.

    Args:
        text: UTF-8 text files, one sentence or paragraph on each line.
        objective: skip-gram predicts each word near a word, cbow a word from all words near it.
        loss: negative-sampling, or the full softmax, which is more than ten times as slow.
        dim: the width of the vectors.
        window: how far the words of a pair are apart at most; drawn anew from 1 to this at each word.
        negatives: how many noise words each pair is compared with.
        min_count: leave out words that occur less often. [1, 2 or 5, by the size of the text]
        subsample: the share of the text from which on a word counts as frequent, and is left out at random; 1: never.
        keep_case: distinguish upper and lower case.
        epochs: how often to go through the text. [3 to 20, by the size of the text]
        batch: examples of a step.
        optimizer: adagrad, or sgd, which needs a small --batch.
        learning_rate: the first learning rate; it falls linearly to 0. [adagrad 0.1, sgd 0.025]
        seed: runs with equal seeds, settings and text give equal bytes.
        out: a new directory for the run. [runs/<text>-vectors-<number>]
        resume: continue the run in --out, or the newest one, which was stopped.
        run: a directory that this command wrote. [the newest in runs/]
        near: show the words with the largest cosine with this one; may be repeated.
        analogy: for A B C, show the words that are to C as B is to A: the largest cosine with B - A + C.
        count: how many words to show.
        text_format: also write vectors.txt, in word2vec's text format, which other programs read.
    """
    settings = VectorSettings(
        objective, loss, dim, window, negatives, min_count, subsample, not keep_case, epochs, batch, optimizer,
        learning_rate, seed,
    )  # fmt: skip
    _check(settings, count)
    if text or resume:
        if run:
            raise UserError(
                f"embed: either text to train on or --run is required; got both; for a new run, use --out {run}"
            )
        run = _train([str(file) for file in text], settings, out, resume)
    elif out:
        raise UserError(f"embed: --out requires a text file; to look words up, use --run {out}")
    elif not (near or analogy or text_format):
        raise UserError("embed: a text file is required, or --near, --analogy or --text-format for a finished run")
    _look_up(run or newest_vectors(finished=True), near or [], analogy, count, text_format)
    return 0


def _check(settings: VectorSettings, count: int) -> None:
    check_settings(settings, "embed")
    if count < 1:
        raise UserError(f"embed: --count of at least 1 is required; got {count}")


# ---- training --------------------------------------------------------------------------------------------------------


def _train(files: list[str], settings: VectorSettings, out: Path | None, resume: bool) -> Path:
    """Train a new run, or continue one, and return its directory."""
    began = time.monotonic()
    tl.keep_memory()
    with Stopper() as stopper, tl.threads():
        if resume:
            run = out or newest_vectors(finished=False)
            if files or settings != VectorSettings():
                raise UserError("embed: --resume takes text and settings from the run; got some; leave them out")
            if (run / VECTORS).exists():
                print(f"{run}: finished", file=sys.stderr)
                return run
            state = read_state(run / TRAINING)
            corpus = _same_corpus(run, state)
        else:
            if out:
                refuse_existing_vectors(out)
                require_creatable(out, "embed")
            corpus = read_corpus(files, settings)
            state = begin(corpus, files)
            run = create_run(out, state, corpus.vocabulary.words)
        with RunLock(run):
            stopper.patient = True
            try:
                _loop(corpus, state, run, stopper)
            except Stopped as stopped:
                if stopped.saved:
                    stopped.saved += f"; resume with: {command()} embed --resume --out {quoted(str(run))}"
                raise
            stopper.patient = False
        _report(corpus, state, run, time.monotonic() - began)
    return run


def _same_corpus(run: Path, state: VectorState) -> Corpus:
    corpus = read_corpus(state.texts, state.settings)
    if corpus.digest != state.text_digest:
        raise UserError(f"embed {run}: the text that the run began with is required; it has changed; restore it")
    return corpus


def _loop(corpus: Corpus, state: VectorState, run: Path, stopper: Stopper) -> None:
    settings, sentences = corpus.settings, len(corpus.lengths)
    display = Display()
    display.line(
        f"{run}: {plural(len(corpus.tokens_T), 'word')} in {plural(sentences, 'line')}, {len(corpus.vocabulary):,} "
        f"different ones that occur at least {plural(settings.min_count, 'time')}; {plural(settings.epochs, 'epoch')}"
    )
    progress = _Progress(display)
    try:
        train_vectors(corpus, state, run, stopper, progress)
    finally:
        progress.end()


class _Progress:
    """Shows how much is done: a bar on a terminal, elsewhere a line every ten seconds."""

    def __init__(self, display: Display) -> None:
        self._display, self._bar = display, bar("training", 100)
        self._bar.bar_format = "{l_bar}{bar}| [{elapsed}, {remaining} left{postfix}]"
        self._recent: deque[tuple[float, int, float]] = deque(maxlen=50)
        self._shown = time.monotonic()

    def __call__(self, done: float, loss: float, examples: int, seconds: float) -> None:
        self._recent.append((loss * examples, examples, seconds))
        wait = Display.SECONDS if self._bar.disable else 0.2
        if time.monotonic() - self._shown < wait:
            return
        self._shown = time.monotonic()
        losses, count, passed = (sum(column) for column in zip(*self._recent, strict=True))
        state = f"loss {shown_loss(losses / count, 3)}, {count / passed:,.0f} pairs/s"
        if self._bar.disable:
            self._display.line(f"{done:.0%}  {state}")
        else:
            self._bar.set_postfix_str(state, refresh=False)
            self._bar.update(100 * done - self._bar.n)

    def end(self) -> None:
        self._bar.close()


def _report(corpus: Corpus, state: VectorState, run: Path, seconds: float) -> None:
    """Print how well near words of held-out sentences are predicted, and a command to try the vectors."""
    quality, unigram, examples = held_out_quality(corpus, state)
    words = corpus.vocabulary.words
    if examples:
        print(f"predicting {plural(examples, 'word')} near others in held-out sentences, among {len(words):,} words:")
        for name, found in (("by these vectors", quality), ("by frequency alone", unigram)):
            print(
                f"    {name:19} mean log-probability {found.log_probability:.3f}, among the first 10 "
                f"{found.recall:.1%}, mean rank {found.rank:,.0f}"
            )
    minutes, rest = divmod(round(seconds), 60)
    print(f"saved in {run} after {minutes}:{rest:02}. Try:")
    example = words[min(len(words) - 1, 50)]
    print(f"    {command()} embed --run {quoted(str(run))} --near {quoted(example)}", flush=True)


# ---- looking up words ------------------------------------------------------------------------------------------------


def _look_up(
    run: Path, near: Sequence[str], analogy: tuple[str, str, str] | None, count: int, text_format: bool
) -> None:
    if not (near or analogy or text_format):
        return
    vectors = WordVectors.load(run)
    tables = [(word, vectors.near(word, count)) for word in near]
    if analogy:
        a, b, c = analogy
        tables.append((f"{b} - {a} + {c}", vectors.analogy(a, b, c, count)))
    for title, rows in tables:
        print(printable(title))
        for word, cosine in rows:
            print(f"    {cosine:6.3f}  {printable(word)}")
    if text_format:
        write_word2vec(run / TEXT, vectors.words, vectors.vectors_VD)
        print(f"written: {run / TEXT}")
