"""Layers of settings: defaults of the dataclasses < defaults for the data < TOML file < command line.

A layer is a nested dict, as parsed from TOML, together with its origin, which error messages name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from models.runs.config import PRESETS, TEXT_FILES, OptimConfig, TrainConfig, model_keys
from models.runs.config_checks import check_config, check_ranges, flag
from models.runs.defaults import choose, usual_size
from models.runs.nested_dicts import flat_items, from_dict, nested, to_dict
from models.runs.other_names import our_key
from models.system.errors import UserError
from models.text.size import StreamSize, TextSize

__all__ = ["RESUMING_WITH", "Layer", "config_from", "merged", "resumed"]

Layer = tuple[str, Mapping[str, Any]]  # (origin, values)

# A layer that sets one alternative of a group discards the group's other alternatives from the layers below.
_ALTERNATIVES = (
    (("data",), ("train_source", "train_target"), ("train_tsv",), ("train_text",)),
    (("data",), ("valid_source", "valid_target"), ("valid_tsv",), ("valid_text",)),
    (("steps",), ("epochs",)),
    (("batch_tokens",), ("batch_sentences",)),
)
_RESUMING_MAY_CHANGE = {*TEXT_FILES, "backend", "capture", "steps", "epochs", "validate_every", "save_every"}
_RESUMING_MAY_CHANGE |= {"keep", "samples", "patience"}

# With one of these, the rest of the run is no longer that of the run that began; it must be named with --resume-with.
RESUMING_WITH = {f"optim.{field.name}" for field in dataclasses.fields(OptimConfig)} - {"optim.name", "optim.ema"}
RESUMING_WITH |= {"precision"}


def config_from(*layers: Layer, size: TextSize | StreamSize | None = None) -> TrainConfig:
    """Merge layers, the last one on top, over the defaults for their data.

    The defaults for text files follow their size; before the text is read, it is taken to be of a usual size.

    Errors: `UserError` naming the key and its layer for an unknown key, and for a value of the wrong type or out of
    range; `UserError` naming the flags for settings that don't fit together.
    """
    origin = partial(_origin, layers=layers)
    given = merged(*layers)
    check_ranges(given, origin)
    _require_rate(given.get("optim", {}))
    defaults = PRESETS[given["data"]]
    if given["data"] == "files":
        chosen = [choice.settings for choice in choose(size or usual_size(given), given)]
        defaults = _merge(defaults, nested({key: value for settings in chosen for key, value in settings.items()}))
    config = from_dict(TrainConfig, _merge(_for_model(defaults, given), given), "config")
    # Absolute paths, so that a run can be resumed from any directory.
    absolute: dict[str, Any] = {key: str(Path(path).absolute()) for key in TEXT_FILES if (path := getattr(config, key))}
    config = dataclasses.replace(config, **absolute)
    check_config(config, origin)
    return config


def _require_rate(optim: Mapping[str, Any]) -> None:
    """Raise `UserError` for SGD without a learning rate: all defaults are Adam's, a hundredth of what SGD needs."""
    if optim.get("name") == "sgd" and "learning_rate" not in optim:
        raise UserError(
            "config: --optim.name sgd requires --optim.learning-rate, because the default is a rate for Adam; try 0.3"
        )


def merged(*layers: Layer) -> dict[str, Any]:
    """Return the settings that layers give, the last layer on top, and the kind of data that they imply.

    Errors: `UserError` naming the key and its layer for an unknown key and for a value of the wrong type.
    """
    kinds = [
        model["kind"] for _, layer in layers if isinstance(model := layer.get("model"), Mapping) and "kind" in model
    ]
    for where, layer in layers:  # check each layer separately, so that the error can name it
        model = layer.get("model")
        known = {"model": {"kind": kinds[-1], **model}} if kinds and isinstance(model, Mapping) else {}
        from_dict(TrainConfig, {**layer, **known}, where)
    given: dict[str, Any] = {}
    for _, layer in layers:
        given = _merge(given, layer)
    named = [key for key in TEXT_FILES if given.get(key)]
    if named and given.get("data") == "phrasebook":
        raise UserError(f"config: text from one place is required; got data phrasebook and {flag(named[0])}; give one")
    given["data"] = "files" if named else given.get("data") or "phrasebook"
    return given


def resumed(old: TrainConfig, *layers: Layer, may_change: Collection[str] = ()) -> TrainConfig:
    """Return the config to resume with: `old` overridden by the layers.

    They may change only `_RESUMING_MAY_CHANGE`, and of `RESUMING_WITH` those in `may_change`. Errors: `UserError` that
    names the key that must not change.
    """
    if unknown := sorted(set(may_change) - RESUMING_WITH):
        known, meant = ", ".join(sorted(RESUMING_WITH)), our_key(unknown[0], RESUMING_WITH)
        remedy = f"write --resume-with {meant} {flag(meant)} VALUE" if meant else "start a new run for it"
        raise UserError(f"resuming: --resume-with requires one of {known}; got {unknown[0]}; {remedy}")
    for _, layer in layers:  # first, because a model of another kind has other settings
        _require_same("model.kind", old.model.kind, dict(flat_items(layer)).get("model.kind", old.model.kind))
    new = config_from(("the run's config.toml", to_dict(old)), *layers)
    before = dict(flat_items(to_dict(old)))
    for key, value in flat_items(to_dict(new)):
        if key not in {*_RESUMING_MAY_CHANGE, *may_change}:
            _require_same(key, before.get(key, "unset"), value)
    return new


def _require_same(key: str, required: Any, value: Any) -> None:
    """Raise `UserError` if a setting of a run that is resumed differs from the one that it began with."""
    if value != required:
        other = f"add --resume-with {key}" if key in RESUMING_WITH else "start a new run without --resume"
        raise UserError(
            f"resuming: {flag(key)} is required to stay {required!r}, as when the run began; got {value!r}; leave "
            f"it out, or {other}"
        )


def _for_model(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `defaults` without settings of the model that a model of the given kind does not have."""
    known = model_keys(given.get("model", {}))
    model = {key: value for key, value in defaults.get("model", {}).items() if key in known}
    return {**defaults, "model": model}


def _merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return `lower` updated with `upper`, section by section."""
    result = dict(lower)
    for group in _ALTERNATIVES:
        # data = "files" does not count as a choice, because it must be combined with file names.
        chosen = [keys for keys in group if any(upper.get(key) not in (None, "", 0, "files") for key in keys)]
        for key in (key for keys in group if chosen and keys not in chosen for key in keys):
            result.pop(key, None)
    for key, value in upper.items():
        result[key] = _merge(result.get(key, {}), value) if isinstance(value, Mapping) else value
    return result


def _origin(key: str, layers: tuple[Layer, ...]) -> str:
    """Return the origin of the topmost layer that sets a key, or "config" if none does."""
    for where, layer in reversed(layers):
        if key in dict(flat_items(layer)):
            return where
    return "config"
