"""`tensorlib embed`: word vectors from plain text, and which words are near each other."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

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
    require_vectors,
    write_word2vec,
)
from models.runs.word_vectors import WordVectors
from models.system.errors import UserError
from models.system.files import require_creatable
from models.system.numbers import shown_loss
from models.system.stopping import Stopped, Stopper
from models.system.terminal import command, printable, quoted
from models.text.words import LONGEST
from models.training.divergence import Diverged
from models.training.word_vectors import (
    HELD_OUT,
    Corpus,
    NothingToLearn,
    begin,
    held_out_quality,
    read_corpus,
    train_vectors,
)
from tensorlib.messages import plural

__all__ = ["embed"]

TRAIN, LOOK_UP = Group("Training", sort_key=1), Group("Looking up words", sort_key=2)


def embed(
    *text: Annotated[Path, Parameter(allow_leading_hyphen=False)],
    objective: Annotated[Objective | None, Parameter(group=TRAIN)] = None,
    loss: Annotated[Loss | None, Parameter(group=TRAIN)] = None,
    dim: Annotated[Whole | None, Parameter(group=TRAIN)] = None,
    window: Annotated[Whole | None, Parameter(group=TRAIN)] = None,
    negatives: Annotated[Whole | None, Parameter(group=TRAIN)] = None,
    min_count: Annotated[Whole | None, Parameter(group=TRAIN)] = None,
    subsample: Annotated[float | None, Parameter(group=TRAIN)] = None,
    keep_case: Annotated[bool | None, Parameter(group=TRAIN, negative="")] = None,
    epochs: Annotated[Whole | None, Parameter(group=TRAIN)] = None,
    batch: Annotated[Whole | None, Parameter(group=TRAIN)] = None,
    optimizer: Annotated[Literal["adagrad", "sgd"] | None, Parameter(group=TRAIN)] = None,
    learning_rate: Annotated[float | None, Parameter(group=TRAIN)] = None,
    seed: Annotated[Whole | None, Parameter(group=TRAIN)] = None,
    out: Annotated[Path | None, Parameter(group=TRAIN)] = None,
    resume: Annotated[bool, Parameter(group=TRAIN, negative="", show_default=False)] = False,
    run: Annotated[Path | None, Parameter(group=LOOK_UP)] = None,
    near: Annotated[list[str] | None, Parameter(group=LOOK_UP)] = None,
    analogy: Annotated[tuple[str, str, str] | None, Parameter(group=LOOK_UP)] = None,
    count: Annotated[Whole | None, Parameter(group=LOOK_UP)] = None,
    text_format: Annotated[bool, Parameter(group=LOOK_UP, negative="", show_default=False)] = False,
) -> int:
    """Train word vectors on plain text, and look up which words are near each other.

    Words are runs of letters, marks and digits, with apostrophes inside. One sentence of 50 is kept out of training, to
    measure on. Without a text file, --near, --analogy and --text-format read vectors that were trained before.

    Args:
        text: UTF-8 text files, one sentence or paragraph on each line.
        objective: skip-gram predicts each word near a word, cbow a word from all words near it. [skip-gram]
        loss: negative-sampling, or the full softmax, which is more than ten times as slow. [negative-sampling]
        dim: the width of the vectors. [100]
        window: the largest distance between the words of a pair; each word draws its own, from 1 to this. [5]
        negatives: the number of random words that each pair is compared with. [5]
        min_count: leave out words that occur less often. [1, 2 or 5, by the size of the text]
        subsample: words with a larger share of the text than this are left out at random; 1: none are. [0.001]
        keep_case: distinguish upper and lower case.
        epochs: how often to go through the text. [3 to 20, by the size of the text]
        batch: examples in each step. [4096]
        optimizer: adagrad, or sgd, which needs a small --batch. [adagrad]
        learning_rate: the first learning rate; it falls linearly to 0. [adagrad 0.1, sgd 0.025]
        seed: runs with equal seeds, settings and text give equal bytes. [0]
        out: a new directory for the run. [runs/<text>-vectors-<number>]
        resume: continue the run in --out, or the newest one that was stopped.
        run: a directory that this command wrote. [the newest in runs/]
        near: show the words with the largest cosine with this one; may be repeated.
        analogy: for A B C, show the words that are to C as B is to A: the largest cosine with B - A + C.
        count: how many words to show. [10]
        text_format: also write vectors.txt, in word2vec's text format, which other programs read.
    """
    options = {
        "objective": objective, "loss": loss, "dim": dim, "window": window, "negatives": negatives,
        "min_count": min_count, "subsample": subsample, "keep_case": keep_case, "epochs": epochs, "batch": batch,
        "optimizer": optimizer, "learning_rate": learning_rate, "seed": seed,
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    look_up = bool(near or analogy or text_format)
    _check_combination(text, given, out, resume, run, look_up)
    _check_count(count, bool(near or analogy))
    if resume:
        run = _train([], None, out)
    elif text:
        run = _train([str(file) for file in text], _settings(given), out)
    if look_up:
        _look_up(run or newest_vectors(finished=True), near or [], analogy, count or 10, text_format)
    return 0


def _check_combination(
    text: Sequence[Path], given: dict[str, Any], out: Path | None, resume: bool, run: Path | None, look_up: bool
) -> None:
    """Raise `UserError` for options that contradict each other, or have no effect together."""
    setting = next((f"--{name.replace('_', '-')}" for name in given), "")
    if resume and run:
        raise UserError(f"embed: --resume takes the run from --out; got --run; use --resume --out {quoted(str(run))}")
    if resume and (text or setting):
        which = setting or "a text file"
        raise UserError(f"embed: --resume takes text and settings from the run; got {which}; leave it out")
    if resume:
        return
    if text and run:
        raise UserError(
            "embed: either text to train on or --run is required; got both; for a new run, use --out "
            f"{quoted(str(run))}"
        )
    if not text and out:
        raise UserError(f"embed: --out requires a text file; to look words up, use --run {quoted(str(out))}")
    if not text and setting:
        raise UserError(f"embed: {setting} requires a text file to train on; got none; name one, or leave it out")
    if not text and not look_up:
        raise UserError(
            "embed: a text file is required, or --near, --analogy or --text-format for a finished run; got none"
        )


def _check_count(count: int | None, shows_words: bool) -> None:
    if count is not None and (count < 1 or not shows_words):
        required = "--count of at least 1 is required" if count < 1 else "--near or --analogy is required with --count"
        raise UserError(f"embed: {required}; got --count {count}")


def _settings(given: dict[str, Any]) -> VectorSettings:
    """Return the settings of a new run. Errors: `UserError` for one that is impossible or has no effect."""
    for name in ("min_count", "epochs", "learning_rate"):  # 0 stands for a value that is chosen by the text
        if given.get(name) == 0:
            raise UserError(
                f"embed: --{name.replace('_', '-')} above 0 is required; got 0; leave it out for the default"
            )
    values = {name: value for name, value in given.items() if name != "keep_case"}
    settings = VectorSettings(**values, lower=not given.get("keep_case", False))
    check_settings(settings, "embed")
    if settings.loss == "softmax" and "negatives" in given:
        raise UserError("embed: --negatives requires --loss negative-sampling; got --loss softmax; leave one out")
    return settings


# ---- training --------------------------------------------------------------------------------------------------------


def _train(files: list[str], settings: VectorSettings | None, out: Path | None) -> Path:
    """Train a new run, or without settings continue one, and return its directory."""
    began = time.monotonic()
    tl.keep_memory()
    with Stopper() as stopper, tl.threads():
        if settings is None:
            run = out or newest_vectors(finished=False)
            require_vectors(run, "embed --out")
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
        try:
            with RunLock(run):
                stopper.patient = True
                _loop(corpus, state, run, stopper)
        except Stopped as stopped:
            if stopped.saved:
                stopped.saved += f"; resume with: {command()} embed --resume --out {quoted(str(run))}"
            raise
        except (Diverged, NothingToLearn):  # its settings lead there again, so there is nothing to resume
            if settings is not None:
                shutil.rmtree(run, ignore_errors=True)
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
    whole = corpus.lengths.max() < LONGEST
    parts = plural(sentences, "line") if whole else f"{plural(sentences, 'part')} of at most {plural(LONGEST, 'word')}"
    display.line(
        f"{run}: {plural(len(corpus.tokens_T), 'word')} in {parts}, {len(corpus.vocabulary):,} "
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
    elif not corpus.held_out.any():
        print(
            f"nothing is measured: a text of {HELD_OUT} lines or more is required to keep one out of training; got "
            f"{len(corpus.lengths)}"
        )
    else:
        print("nothing is measured: no two words that the vectors have are near each other in the held-out lines")
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
