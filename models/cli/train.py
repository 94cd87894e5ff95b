"""`tensorlib train`: its options, made from the config's dataclasses, and what it says at the end."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import shlex
import textwrap
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

import tensorlib as tl
from models.evaluation.metrics import exact_match, scores
from models.evaluation.translator import Translator
from models.runs.checkpoint import BEST, load_weights, read_checkpoint
from models.runs.config import PRESETS, TrainConfig, config_from, read_toml, settable
from models.runs.directory import find_run, read_config, remove_unless_trained, write_config
from models.system.errors import UserError
from models.system.stopping import Stopped, Stopper
from models.system.terminal import command
from models.training.loop import Trainer
from models.training.progress import Display, bar
from models.training.start import Run, resume_run, start_run

__all__ = ["train"]

RUN = Group("Run", sort_key=0)
_TITLES = {"text": "Text", "tokenizer": "Tokenizer", "model": "Model", "optim": "Optimizer"}
GROUPS = {section: Group(title, sort_key=i) for i, (section, title) in enumerate(_TITLES.items(), start=1)}


def _options(cls: Any, prefix: str = "") -> type:
    """Return a dataclass like `cls` whose fields, at all depths, are None unless the user says something.

    So the command line tells what was given, and everything else comes from the TOML file and the presets.
    """
    docs, options = _field_docs(cls), []
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}
    for name, kind in settable(cls).items():
        if dataclasses.is_dataclass(kind):
            kind, help_text = _options(kind, f"{name}."), None
        else:
            help_text = f"{docs.get(name, '')} {_defaults(prefix + name, defaults[name])}".strip()
        parameter = Parameter(help=help_text, group=_group(prefix + name))
        options.append((name, Annotated[kind | None, parameter], dataclasses.field(default=None)))
    home = {"__module__": __name__}  # else it is "types", and cyclopts takes it for something built in
    return dataclasses.make_dataclass(cls.__name__, options, kw_only=True, namespace=home)


def _group(key: str) -> Group:
    section = key.partition(".")[0]
    return GROUPS.get("text" if section == "data" or section.startswith(("train_", "valid_")) else section, RUN)


def _field_docs(cls: Any) -> dict[str, str]:
    """Return the docstring below each field, which Python itself doesn't keep."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body
    return {
        field.target.id: " ".join(ast.literal_eval(text.value).split())
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(field.target, ast.Name)
    }


def _defaults(key: str, default: Any) -> str:
    """Say what a key is where nobody sets it: for the phrasebook, and for own text where that differs."""
    values = []
    for preset in PRESETS.values():
        section, _, name = key.rpartition(".")
        values.append((preset.get(section, {}) if section else preset).get(name, default))
    if values[0] == values[1]:
        return "" if values[0] in ("", None) else f"[{values[0]}]"
    return f"[phrasebook {values[0]}; own text {values[1]}]"


Options = Parameter(name="*")(_options(TrainConfig))


def train(
    options: Options | None = None,  # type: ignore[valid-type]
    *,
    config: Annotated[Path | None, Parameter(group=RUN)] = None,
    out: Annotated[Path | None, Parameter(group=RUN)] = None,
    resume: Annotated[bool, Parameter(group=RUN, negative="")] = False,
) -> int:
    """Train a translator: on the built-in phrasebook, or on your own text.

    Defaults in brackets. A TOML file says the same under the same names: --optim.learning-rate 1e-3 is
    learning_rate = 0.001 in its section [optim].

    Args:
        options: what decides the run.
        config: a TOML file; the command line overrides it. Every run writes one, config.toml.
        out: the run's directory, a new one. [runs/<data>-<model>-<number>]
        resume: go on with the run in --out, or with the newest one.
    """
    began = time.monotonic()
    layers = [*([(f"config {config}", read_toml(config))] if config else []), ("command line", _given(options))]
    display = Display()
    with Stopper() as stopper, tl.threads():
        if resume:
            run = resume_run(find_run(out, "--out"), stopper, *layers)
            _introduce(run, display)
            trainer = Trainer(run, display, stopper)
            _go_on(trainer, layers)
            trainer.train()
        else:
            run = start_run(config_from(*layers), out, stopper)
            _train_new(run, display, stopper)
        stopper.patient = False  # all is saved: a signal may end the report at once
        try:
            stopper.check()
            _report(run, time.monotonic() - began)
        except Stopped as stopped:
            stopped.saved = f"after the last step; all is saved in {run.path}"
            raise
    return 0


def _train_new(run: Run, display: Display, stopper: Stopper) -> None:
    """Train a new run. If it fails before its first checkpoint, its directory goes: it would only be in the way."""
    try:
        _introduce(run, display)
        Trainer(run, display, stopper).train()
    except Stopped:
        raise
    except Exception:
        remove_unless_trained(run.path)
        raise


def _go_on(trainer: Trainer, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Say from where a run goes on, and keep its new config. Errors: `UserError` for an end that is past already."""
    run, step = trainer.run, trainer.progress.step
    changed = run.config != read_config(run.path)
    if trainer.finished or (trainer.done and changed):
        finished = f"run {run.path}: {_end(trainer)} trains on"
        if any(key in layer for _, layer in layers for key in ("steps", "epochs", "patience")):
            raise UserError(finished)
        trainer.display.line(finished)
    elif step:
        trainer.display.line(f"going on after step {step}")
    if changed:
        write_config(run.path, run.config)


def _end(trainer: Trainer) -> str:
    """Say how a finished run ended, and what would take it further."""
    config, p = trainer.config, trainer.progress
    if trainer.out_of_patience:
        early = f"ended early at step {p.step}, {p.waited} validations after the best one"
        return f"{early}; --patience N above {p.waited}, or 0,"
    more = f"--steps N above {p.step}" if config.steps else f"--epochs N above {p.epoch}"
    return f"finished at step {p.step}; {more}"


def _given(options: Any) -> dict[str, Any]:
    values = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)} if options else {}
    values = {name: _given(v) if dataclasses.is_dataclass(v) else v for name, v in values.items()}
    empty = [name for name, value in values.items() if value == ""]
    if empty:  # an empty variable of a shell script; it must not mean: the phrasebook
        raise UserError(
            f"train: --{empty[0].replace('_', '-')} is required to name something; got nothing; leave it out"
        )
    return {name: value for name, value in values.items() if value is not None}


def _introduce(run: Run, display: Display) -> None:
    for note in [*run.corpus.notes, *run.examples.notes]:
        display.line(note)
    sizes = f"{len(run.examples.train):,} pairs to train on, {len(run.examples.valid):,} to validate"
    source, target = run.tokenizer.source_size, run.tokenizer.target_size
    subwords = f"{source:,} subwords" if run.tokenizer.shared else f"{source:,} and {target:,} subwords"
    display.line(f"{run.path}: {sizes}, {subwords}, {run.model.parameter_count():,} parameters")


def _report(run: Run, seconds: float) -> None:
    """Say how good the best weights are, on text that training has not seen, and what to do with them."""
    path = run.path / BEST
    checkpoint = read_checkpoint(path)
    load_weights(run.model, checkpoint, path)
    pairs = run.corpus.test or run.corpus.valid
    sources, references = [s for s, _ in pairs], [r for _, r in pairs]
    with bar("translating", len(sources)) as waiting:
        outputs = Translator(run.model, run.tokenizer, advance=waiting.update).translate(sources)
    shown = list(zip(sources, references, outputs, strict=True))
    if run.corpus.test:
        right = exact_match(outputs, references)
        print(f"held-out sentences translated exactly: {right:.1%} of {len(pairs):,}")
        shown.sort(key=lambda row: row[0] != "我有一只猫")
    else:
        score = scores(outputs, references, run.config.bleu_tokenize)
        print(f"validation BLEU {score.bleu:.2f}  {score.bleu_signature}")
        print(f"validation chrF {score.chrf:.2f}  {score.chrf_signature}")
    for source, reference, output in shown[:8]:
        print(f"    {source} -> {output}" + ("" if output == reference else f"  [{reference}]"))
    minutes, rest = divmod(round(seconds), 60)
    print(f"saved in {run.path} after {minutes}:{rest:02}; best at step {checkpoint.progress.best_step}. Try:")
    print(f"    {command()} translate --run {shlex.quote(str(run.path))} {_quoted(shown[0][0])}")


def _quoted(text: str) -> str:
    """Return text as a shell takes it: in double quotes, which read best, where these do."""
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'
