"""How `tensorlib train` shows the settings that it chose by the size of the text, and why; and what a run will take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from models.runs.config_checks import flag
from models.text.size import utf8_length
from models.training.corpus import Corpus, Examples
from models.training.epochs import Epochs
from models.training.language_corpus import LanguageCorpus
from models.training.milestones import estimated_steps
from models.training.optimizer import unreached_peak
from models.training.rehearsal import STEPS, rehearsed_seconds
from models.training.start import Prepared
from tensorlib.messages import plural

__all__ = ["choice_lines", "estimate_lines", "size_lines"]


def choice_lines(run: Prepared) -> Iterator[str]:
    """Yield the chosen settings, as flags, with the reason for each group; nothing if none were chosen."""
    if run.choices:
        yield f"settings chosen for {amount_of(run.corpus)} (flags and --config override them):"
    for choice in run.choices:
        yield f"    {_flags(choice.settings)}"
        yield f"        {choice.reason}"


def amount_of(corpus: Corpus | LanguageCorpus) -> str:
    """Return how much text there is to train on, in words."""
    if isinstance(corpus, Corpus):
        return plural(len(corpus.train), "pair")
    return f"{plural(utf8_length(corpus.train), 'byte')} of text"


def size_lines(run: Prepared) -> Iterator[str]:
    """Yield what is notable about the text, and how much there is of everything."""
    yield from [*run.corpus.notes, *run.examples.notes]
    kind = "pair" if isinstance(run.examples, Examples) else "token"
    sizes = f"{plural(len(run.examples.train), kind)} to train on, {len(run.examples.valid):,} to validate"
    source, target = run.tokenizer.source_size, run.tokenizer.target_size
    subwords = f"{source:,} subwords" if run.tokenizer.shared else f"{source:,} and {target:,} subwords"
    yield f"{sizes}, {subwords}, {run.model.parameter_count():,} parameters"


def estimate_lines(run: Prepared) -> Iterator[str]:
    """Yield how long the run will take on this machine, after timing a few steps."""
    steps = estimated_steps(run.config, Epochs(run).count(0))
    if warning := unreached_peak(run.config, steps):
        yield warning
    seconds = rehearsed_seconds(run)
    yield (
        f"about {plural(steps, 'step')} of {seconds:.2g} s on this machine ({STEPS} were timed): "
        f"{_duration(steps * seconds)}, validation not included; nothing was written"
    )


def _flags(settings: Mapping[str, Any]) -> str:
    return " ".join(_flag(key, value) for key, value in settings.items())


def _flag(key: str, value: Any) -> str:
    section, dot, name = key.rpartition(".")
    if value is False:
        return flag(f"{section}{dot}no_{name}")
    return flag(key) if value is True else f"{flag(key)} {value}"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400.0), ("hours", 3_600.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{max(seconds, 1):.0f} s"
