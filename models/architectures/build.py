"""The table of all architectures, by which a config becomes a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import tensorlib as tl
from models.architectures.parameter_shapes import parameter_shapes
from models.architectures.transformer import Transformer, TransformerConfig
from models.system.errors import UserError
from tensorlib.messages import shown

__all__ = ["ARCHITECTURES", "Architecture", "build_model", "config_from_dict", "config_to_dict", "parameter_shapes_of"]


class Architecture(NamedTuple):
    """The config class and the model class of an architecture, and the shapes of a model's parameters."""

    config: type[TransformerConfig]
    model: type[Transformer]
    shapes: Callable[[Any], dict[str, tuple[int, ...]]] = parameter_shapes


DEFAULT = "transformer"
ARCHITECTURES = {DEFAULT: Architecture(TransformerConfig, Transformer)}


def build_model(config: TransformerConfig, generator: tl.Generator | None = None) -> Transformer:
    """Return a new model as `config` describes. Errors: `UserError` for an impossible config."""
    try:
        return ARCHITECTURES[_name_of(config)].model(config, generator)
    except ValueError as error:
        raise UserError(f"model: {str(error).removeprefix(f'{type(config).__name__}: ')}") from None


def config_to_dict(config: TransformerConfig) -> dict[str, Any]:
    """Return a config as a dict, as checkpoints store it.

    "kind" names the architecture. It is omitted for the default one, whose checkpoints keep their bytes this way.
    """
    name = _name_of(config)
    return ({} if name == DEFAULT else {"kind": name}) | asdict(config)


def config_from_dict(
    values: Mapping[str, Any], construct: Callable[..., TransformerConfig] = lambda cls, fields: cls(**fields)
) -> TransformerConfig:
    """Invert `config_to_dict`; ``construct(cls, fields)`` makes the config, and may check the fields first.

    Errors: ValueError for an unknown kind, TypeError for unknown fields.
    """
    fields = {**values}
    name = fields.pop("kind", DEFAULT)
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ValueError(f"model: kind must be one of {', '.join(ARCHITECTURES)}, got {shown(name)}")
    config: TransformerConfig = construct(ARCHITECTURES[name].config, fields)
    return config


def parameter_shapes_of(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each parameter of ``build_model(config)``, without building it."""
    return ARCHITECTURES[_name_of(config)].shapes(config)


def _name_of(config: TransformerConfig) -> str:
    names = {architecture.config: name for name, architecture in ARCHITECTURES.items()}
    return names[type(config)]
