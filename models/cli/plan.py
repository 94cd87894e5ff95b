"""How `tensorlib train` shows the settings that it chose by the size of the text, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from models.runs.config_checks import flag
from models.runs.defaults import estimated_batches
from models.text.size import measure
from models.training.milestones import estimated_steps
from models.training.rehearsal import STEPS, rehearsed_seconds
from models.training.start import Plan

__all__ = ["estimate_lines", "plan_lines"]


def plan_lines(plan: Plan) -> Iterator[str]:
    """Yield the chosen settings, as flags, with the reason for each group; nothing if none were chosen."""
    if plan.choices:
        yield f"settings chosen for {len(plan.corpus.train):,} pairs (flags and --config override them):"
    for choice in plan.choices:
        yield f"    {_flags(choice.settings)}"
        yield f"        {choice.reason}"


def estimate_lines(plan: Plan) -> Iterator[str]:
    """Yield how long the run will take on this machine, after timing a few steps."""
    config, size = plan.config, measure(plan.corpus.train)
    steps = estimated_steps(config, estimated_batches(size, config.batch_tokens, config.batch_sentences))
    seconds = rehearsed_seconds(config, size.subwords)
    yield (
        f"about {steps:,} steps of {seconds:.2g} s on this machine ({STEPS} were timed): {_duration(steps * seconds)}, "
        "validation not included; nothing was written"
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
