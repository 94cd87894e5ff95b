"""Checks of a checkpoint before anything is built from it: types and ranges of its values, shapes of its tensors.

A digest shows damage, not forgery: whoever changes a file can compute its digest again. The types are those of the
dataclasses' fields, the ranges those of the config, and the shapes follow from the model's config.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from models.architectures.build import Config, parameter_shapes_of
from models.runs.config import TrainConfig
from models.runs.config_checks import missed_range
from models.runs.nested_dicts import checked, flat_items, from_dict
from models.system.errors import UserError
from nn.states import shape_mismatches
from tensorlib.messages import shown

__all__ = ["check_config_copy", "check_keys", "check_tensors", "checked_section", "checked_value", "require_dict"]

SLOTS = ("steps", "m", "v", "velocity")  # what the optimizers of a run keep for each parameter

T = TypeVar("T")


def check_keys(given: Collection[str], expected: Collection[str], where: str) -> None:
    """Raise `UserError` naming the first key that is missing or unknown."""
    for key in expected:
        if key not in given:
            raise UserError(f"{where}: {key} is required; it is missing")
    for key in given:
        if key not in expected:
            raise UserError(f"{where}: unknown key {_cut(key)}; valid keys: {', '.join(expected)}")


def checked_value(kind: Any, value: Any, where: str, key: str) -> Any:
    """Return the value as `kind` requires. Errors: `UserError` naming the key, for a wrong type or range."""
    result = checked(kind, value, where, key)
    _check_range(key, value, where, key)
    return result


def checked_section(cls: type[T], values: Any, where: str, name: str, later: Collection[str] = ()) -> T:
    """Return a section of the metadata as an instance of the dataclass `cls`.

    Every field must be present, except those in `later`, which some checkpoints are too old to have. Errors:
    `UserError` naming the key, for one that is missing, unknown, or of a wrong type or range.
    """
    given = require_dict(values, where, name)
    made = from_dict(cls, given, where, f"{name}.", every_field=True)
    missing = [f.name for f in fields(cls) if f.name not in given and f.name not in later]  # type: ignore[arg-type]
    if missing:
        raise UserError(f"{where}: {name}.{missing[0]} is required; it is missing")
    for key, value in given.items():
        _check_range(f"{name}.{key}", value, where, f"{name}.{key}")
    return made


def check_config_copy(values: Any, where: str) -> dict[str, Any]:
    """Return the copy of the run's config, in which keys may be missing. Errors: as of `checked_section`."""
    given = require_dict(values, where, "config")
    from_dict(TrainConfig, given, where, "config.")
    for key, value in flat_items(given):
        _check_range(key, value, where, f"config.{key}")
    return given


def check_tensors(tensors: Mapping[str, np.ndarray], config: Config, step: int, where: str) -> None:
    """Raise `UserError` unless the tensors are those of this model and its optimizer, with finite numbers."""
    shapes = parameter_shapes_of(config)
    expected = {f"model.{name}": shape for name, shape in shapes.items()}
    if any(name.startswith("latest.") for name in tensors):
        expected |= {f"latest.{name}": shape for name, shape in shapes.items()}
    expected |= _optimizer_shapes(tensors, shapes)
    if any(name.startswith("scale.") for name in tensors):
        expected |= {"scale.scale": (), "scale.good": ()}
    problems = shape_mismatches(expected, {name: array.shape for name, array in tensors.items()})
    if problems:
        more = f"; and {len(problems) - 3:,} more" if len(problems) > 3 else ""
        listed = "; ".join(_cut(problem, 160) for problem in problems[:3])
        raise UserError(f"{where}: tensors that fit the file's own model are required; {listed}{more}")
    for name, array in tensors.items():
        counts = (name.startswith("optimizer.") and name.endswith(".steps")) or name == "scale.good"
        required = np.dtype(np.int64 if counts else np.float32)
        if array.dtype != required:
            raise UserError(f"{where}: {name} must have dtype {required}, got {array.dtype}")
        if counts and not 0 <= array <= step:
            raise UserError(f"{where}: {name} must be from 0 to {step}, the step; got {array}")
        if not np.isfinite(array).all():
            raise UserError(f"{where}: finite weights are required; {name} is not finite")


def _optimizer_shapes(
    tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes that `Optimizer.state_dict` has for the parameters and the slots that occur in the names.

    The optimizer may have fewer parameters than the model.
    """
    pairs = [name.removeprefix("optimizer.").rpartition(".") for name in tensors if name.startswith("optimizer.")]
    found = {parameter for parameter, _, _ in pairs}
    slots = [slot for slot in SLOTS if any(slot == last for _, _, last in pairs)]
    return {
        f"optimizer.{name}.{slot}": shapes[name] if slot != "steps" else ()
        for name in shapes
        if name in found
        for slot in {"steps", *slots}
    }


def require_dict(values: Any, where: str, name: str) -> dict[str, Any]:
    """Return the values if they are a dict. Errors: `UserError` naming them."""
    if not isinstance(values, dict):
        raise UserError(f"{where}: {name} must be a JSON object, got {shown(values)}")
    return values


def _check_range(key: str, value: Any, where: str, shown_key: str) -> None:
    limits = missed_range(key, value)
    if limits:
        raise UserError(f"{where}: {shown_key} must be {limits}, got {shown(value)}")


def _cut(text: str, longest: int = 80) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."
