"""`tensorlib train`: train a new run, or resume one, and report the result."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import tensorlib as tl
from models.architectures.language import LanguageModel
from models.cli.display import Display, bar
from models.cli.options import RUN, TrainOptions, given
from models.cli.plan import choice_lines, estimate_lines, size_lines
from models.evaluation.metrics import exact_match, scores
from models.evaluation.translator import Translator
from models.runs.checkpoint import BEST, load_weights, newest_checkpoint, read_checkpoint
from models.runs.directory import find_run, read_config, remove_unless_trained, write_config
from models.runs.toml import read_toml
from models.system.errors import UserError
from models.system.stopping import Stopped, Stopper
from models.system.terminal import command, quoted
from models.training.corpus import Corpus
from models.training.divergence import LOWER_RATE, Diverged
from models.training.feeding import changed_fraction
from models.training.loop import Trainer
from models.training.optimizer import raised_rate
from models.training.start import Run, plan_run, prepare_run, resume_run, start_run
from models.training.validation import sample_lines, validate
from tensorlib.kernels import compile_ahead
from tensorlib.messages import plural

__all__ = ["train"]


def train(
    options: TrainOptions | None = None,  # type: ignore[valid-type]
    *,
    config: Annotated[Path | None, Parameter(group=RUN)] = None,
    out: Annotated[Path | None, Parameter(group=RUN)] = None,
    resume: Annotated[bool, Parameter(group=RUN, negative="")] = False,
    resume_with: Annotated[list[str] | None, Parameter(group=RUN, negative="")] = None,
    dry_run: Annotated[bool, Parameter(group=RUN, negative="")] = False,
) -> int:
    """Train a translator: on the built-in phrasebook, or on your own text. Or a language model: on any text.

    Defaults are in brackets; for your own text, many follow its size. A TOML file may contain the same settings, with
    underscores in their names: --optim.learning-rate 1e-3 is learning_rate = 0.001 in section [optim].

    Args:
        options: the settings of the run.
        config: a TOML file of settings; the command line overrides it. Every run writes such a file, config.toml.
        out: a new directory for the run. [runs/<data>-<model>-<number>]
        resume: continue the run in --out, or the newest one. A finished run is only reported.
        resume_with: a setting, such as optim.learning_rate, that this command changes although it changes the rest of
            the run; may be repeated.
        dry_run: do everything up to the first step; show the settings of a new run and the time that it would take on
            this machine; write nothing.
    """
    if resume_with and not resume:
        raise UserError(f"train: --resume-with requires --resume; got --resume-with {resume_with[0]} without it")
    if resume and dry_run:
        raise UserError("train: either --resume or --dry-run is required; got both; leave out one of them")
    began = time.monotonic()
    layers = [*([(f"config {config}", read_toml(config))] if config else []), ("command line", given(options))]
    with Stopper() as stopper, tl.threads():
        if resume:
            keys = [key.replace("-", "_") for key in resume_with or ()]
            run = resume_run(find_run(out, "--out"), stopper, *layers, may_change=keys)
            diverged = _train_on(run, stopper)
        else:
            plan = plan_run(out, *layers)
            if plan.config.backend == "numpy" and plan.config.model.kind == "transformer":
                compile_ahead(plan.config.precision)  # while text is prepared
            if dry_run:
                prepared = prepare_run(plan)
                print("\n".join([*choice_lines(prepared), *size_lines(prepared), *estimate_lines(prepared)]))
                return 0
            run = start_run(plan, out, stopper)
            diverged = _train_new(run, stopper)
        stopper.patient = False  # everything is saved: a signal may end the report at once
        try:
            stopper.check()
            _report(run, time.monotonic() - began, diverged)
        except Stopped as stopped:
            stopped.saved = f"after the last step; everything is saved in {run.path}"
            raise
    return 0


def _train_on(run: Run, stopper: Stopper) -> bool:
    """Continue a run, or only do what a finished run left undone. Return whether it ended diverged."""
    display = Display()
    with run.lock:
        _introduce(run, display)
        trainer = Trainer(run, display, stopper)
        _announce_resumption(trainer)
        trainer.train()
        return trainer.diverged


def _train_new(run: Run, stopper: Stopper) -> bool:
    """Train a new run, and return whether it ended diverged. If it fails before its first checkpoint, remove it."""
    display = Display()
    with run.lock:
        try:
            for line in choice_lines(run):
                display.line(line)
            _introduce(run, display)
            trainer = Trainer(run, display, stopper)
            trainer.train()
            return trainer.diverged
        except Stopped:
            raise
        except Exception:
            run.lock.release()
            remove_unless_trained(run.path)
            raise


def _introduce(run: Run, display: Display) -> None:
    *notes, sizes = size_lines(run)
    for line in [*run.notes, *notes, f"{run.path}: {sizes}"]:
        display.line(line)


def _announce_resumption(trainer: Trainer) -> None:
    """Show where the run resumes, and save its new config. Errors: `UserError` if the run is past its new end."""
    run, step, before = trainer.run, trainer.progress.step, read_config(trainer.run.path)
    new_end = any(getattr(run.config, key) != getattr(before, key) for key in ("steps", "epochs", "patience"))
    if trainer.done and new_end:
        raise UserError(f"run {run.path}: {_ending(trainer)}")
    if trainer.finished:  # a script that resumes until it succeeds ends here
        trainer.display.line(f"run {run.path}: {_ending(trainer)}")
    elif step:
        trainer.display.line(f"resuming after step {step}")
        if raised := raised_rate(before, run.config, trainer.epochs.count(0), step):
            trainer.display.line(raised)
        if changed := changed_fraction(before, run.config, trainer.epochs.count(0), step):
            trainer.display.line(changed)
    if run.config != before:
        write_config(run.path, run.config)


def _ending(trainer: Trainer) -> str:
    """Return how a finished run ended, and which option continues it."""
    config, p = trainer.config, trainer.progress
    if trainer.out_of_patience:
        early = f"ended early at step {p.step}, {plural(p.waited, 'validation')} after the best one"
        return f"{early}; to continue, use --patience N above {p.waited}, or 0"
    longer = f"--steps N above {p.step}" if config.steps else f"--epochs N above {p.epoch}"
    return f"finished at step {p.step}; to continue, use {longer}"


def _report(run: Run, seconds: float, diverged: bool) -> None:
    """Print how good the best weights are on held-out text, and a command to try them.

    diverged: whether the last weights are far worse than a guess. Raises `Diverged` if all that were validated are.
    """
    path = run.path / BEST
    found = newest_checkpoint(run.path) if not path.exists() else None  # if every validation said that it diverged
    path, checkpoint = found or (path, read_checkpoint(path))
    load_weights(run.model, checkpoint, path)
    example = _report_text(run) if isinstance(run.model, LanguageModel) else _report_translations(run)
    minutes, rest = divmod(round(seconds), 60)
    step = checkpoint.progress.best_step
    best = f"best at step {step}" if step else "at no step better than a guess"
    if step and diverged:
        best += f"; then it diverged: {LOWER_RATE}"
    print(f"saved in {run.path} after {minutes}:{rest:02}; {best}.{' Try:' if step else ''}")
    if not step:
        raise Diverged(
            f"train: a validation better than a guess is required; all diverged with --optim.learning-rate "
            f"{run.config.optim.learning_rate:g}; {LOWER_RATE}"
        )
    name = "generate" if isinstance(run.model, LanguageModel) else "translate"
    dashes = "-- " * example.startswith("-")
    print(f"    {command()} {name} --run {quoted(str(run.path))} {dashes}{_quoted(example)}")


def _report_text(run: Run) -> str:
    """Print the result of a validation with a few continuations; return a prompt to try."""
    try:
        result = validate(run.model, run)
    except FloatingPointError as loss:  # of weights that diverged
        print(f"validation loss {loss}")
        return ""
    print(result)
    for line in sample_lines(result):
        print(line)
    prompts = [" ".join(sample["source"].partition("\n")[0].split()[:4]) for sample in result.samples]
    return next((prompt for prompt in prompts if prompt), "")


def _report_translations(run: Run) -> str:
    """Print how good translations are, and a few of them; return a sentence to try."""
    corpus = run.corpus
    assert isinstance(corpus, Corpus)
    pairs = corpus.test or corpus.valid
    sources, references = [s for s, _ in pairs], [r for _, r in pairs]
    with bar("translating", len(sources)) as waiting:
        outputs = Translator(run.model, run.tokenizer, advance=waiting.update).translate(sources)
    rows = list(zip(sources, references, outputs, strict=True))
    if corpus.test:
        exact = exact_match(outputs, references)
        print(f"held-out sentences translated exactly: {exact:.1%} of {len(pairs):,}")
        rows.sort(key=lambda row: row[0] != "我有一只猫")
    else:
        score = scores(outputs, references, run.config.bleu_tokenize)
        print(f"validation BLEU {score.bleu:.2f}  {score.bleu_signature}")
        print(f"validation chrF {score.chrf:.2f}  {score.chrf_signature}")
    shown = rows[:8]
    for source, reference, output in shown if run.config.samples else ():
        print(f"    {source} -> {output}" + ("" if output == reference else f"  [{reference}]"))
    return rows[0][0] if corpus.test else min((source for source, _, _ in shown), key=len)


def _quoted(text: str) -> str:
    """Return text quoted for a shell. Use double quotes, which are easier to read, if they suffice."""
    return quoted(text) if set(text) & set('"$`\\!') else f'"{text}"'
