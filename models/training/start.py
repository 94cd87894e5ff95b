"""Plan, prepare, start and resume a run.

Everything is read, learned, built and checked before a run's directory is created; a dry run ends there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import tensorlib as tl
from models.architectures.build import build_model
from models.architectures.encoder_decoder import EncoderDecoder
from models.evaluation.metrics import bleu_tokenizer
from models.runs.checkpoint import require_room
from models.runs.config import BleuTokenize, TrainConfig
from models.runs.config_layers import Layer, config_from, merged, resumed
from models.runs.defaults import Choice, choose
from models.runs.directory import RUNS, create_run, read_config, refuse_existing, remove_temporaries
from models.runs.loading import model_config, open_backend, require_precision
from models.runs.lock import RunLock
from models.system.files import remove_unfinished, require_creatable
from models.system.stopping import Stopper
from models.system.terminal import printable
from models.text.size import StreamSize, TextSize, measure, measure_stream
from models.text.subwords import Tokenizer
from models.training.corpus import Corpus, Examples, encode_corpus, read_corpus, train_tokenizer
from models.training.epochs import items_of
from models.training.language_corpus import LanguageCorpus, Streams

__all__ = ["Plan", "Prepared", "Run", "plan_run", "prepare_run", "resume_run", "start_run"]


@dataclass(frozen=True)
class Prepared:
    """Everything read, learned or built for training."""

    config: TrainConfig
    corpus: Corpus | LanguageCorpus
    tokenizer: Tokenizer
    examples: Examples | Streams
    model: EncoderDecoder
    choices: Sequence[Choice]  # settings that were chosen by the size of the text


@dataclass(frozen=True)
class Run(Prepared):
    """The same, with the run's directory and the right to write in it."""

    path: Path
    lock: RunLock
    notes: list[str]  # what was found in the directory, to be shown


@dataclass(frozen=True)
class Plan:
    """What a new run will do: its config as far as it is known before subwords are learned, and its text."""

    config: TrainConfig
    corpus: Corpus | LanguageCorpus
    layers: Sequence[Layer] = ()  # the settings that are given; if there are none, `config` is complete


def plan_run(out: Path | None, *layers: Layer) -> Plan:
    """Read the text. Nothing is written.

    Errors: `UserError` for settings that are impossible, before the text is read; for a directory that exists or can't
    be created; for text that can't be read.
    """
    config = config_from(*layers)
    if out:
        refuse_existing(out)
    require_creatable(out or RUNS / "1", "train --out" if out else "train")
    open_backend(config.backend)
    require_precision(config)
    return Plan(config, read_corpus(config), layers)


def prepare_run(plan: Plan) -> Prepared:
    """Choose the settings that are left open, and learn and build everything that training needs; write nothing.

    Errors: `UserError` for settings that don't fit the text.
    """
    config, corpus, choices = plan.config, plan.corpus, list[Choice]()
    bleu_tokenize: BleuTokenize = "auto"
    if isinstance(corpus, Corpus):
        references = [target for _, target in corpus.valid]
        bleu_tokenize, reason = bleu_tokenizer(config.bleu_tokenize, references, "--bleu-tokenize")
        corpus.notes.extend([reason] if reason else [])
    size = _size(corpus) if plan.layers and config.data == "files" else None
    if size:
        config = config_from(*plan.layers, size=size)
    tokenizer = train_tokenizer(config, corpus)
    examples = encode_corpus(config, corpus, tokenizer)
    if size:  # the length of training follows the number of batches, which is known now
        size = replace(size, batches=partial(_batches, config, tokenizer, examples))
        config, choices = config_from(*plan.layers, size=size), choose(size, merged(*plan.layers))
    config = replace(config, bleu_tokenize=bleu_tokenize)  # so that all validations, and evaluations, are comparable
    model = _new_model(config, tokenizer, open_backend(config.backend))
    return Prepared(config, corpus, tokenizer, examples, model, choices)


def _size(corpus: Corpus | LanguageCorpus) -> TextSize | StreamSize:
    return measure(corpus.train) if isinstance(corpus, Corpus) else measure_stream(corpus.train)


def _batches(
    config: TrainConfig, tokenizer: Tokenizer, examples: Examples | Streams, positions: int, sentences: int
) -> int:
    """Return the number of batches in an epoch with these limits of a batch, as far as BPE-dropout does not vary it."""
    plain = replace(config.tokenizer, dropout=0.0)
    limited = replace(config, batch_tokens=positions, batch_sentences=sentences, tokenizer=plain)
    return len(items_of(limited, tokenizer, examples).groups(0))


def start_run(plan: Plan, out: Path | None, stopper: Stopper) -> Run:
    """Prepare the run; last, when nothing else can fail, create its directory."""
    prepared = prepare_run(plan)
    stopper.patient = True  # from here on a signal waits until a checkpoint can be saved
    notes = _removed(remove_unfinished(out.parent if out else RUNS))
    path = create_run(prepared.config, prepared.tokenizer, out)
    return Run(**vars(prepared), path=path, lock=RunLock(path), notes=notes)


def resume_run(path: Path, stopper: Stopper, *layers: Layer, may_change: Collection[str] = ()) -> Run:
    """Read a run's config, tokenizer and text again; `layers`, as for `config_from`, may change a few settings.

    may_change: settings that they may change besides those, of `RESUMING_WITH`. No setting is written: the caller saves
    the new config. Errors: `UserError` if another process trains the run.
    """
    lock = RunLock(path)
    try:
        notes = [lock.taken_over] if lock.taken_over else []
        notes += _removed(remove_temporaries(path) + remove_unfinished(path.parent))
        config = resumed(read_config(path), *layers, may_change=may_change)
        backend = open_backend(config.backend)
        require_precision(config)
        tokenizer = Tokenizer.load(path)
        corpus = read_corpus(config)
        examples = encode_corpus(config, corpus, tokenizer)
        require_room(model_config(config, tokenizer), path)
        model = _new_model(config, tokenizer, backend)
    except BaseException:
        lock.release()
        raise
    stopper.patient = True
    return Run(config, corpus, tokenizer, examples, model, (), path, lock, notes)


def _removed(paths: list[Path]) -> list[str]:
    names = ", ".join(printable(str(path)) for path in paths)
    return [f"removed what a killed process left unfinished: {names}"] if paths else []


def _new_model(config: TrainConfig, tokenizer: Tokenizer, backend: str) -> EncoderDecoder:
    """Seed all randomness, and initialize the weights from the random stream that dropout continues."""
    tl.seed(config.seed)
    model = build_model(model_config(config, tokenizer), tl.default_generator())
    model.to(backend)
    model.train()
    return model
