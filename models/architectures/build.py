"""The table of all architectures, by which a config becomes a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import tensorlib as tl
from models.architectures.encoder_decoder import EncoderDecoder
from models.architectures.language import LanguageConfig, LanguageModel
from models.architectures.parameter_shapes import language_shapes, recurrent_shapes, transformer_shapes
from models.architectures.recurrent import RecurrentConfig, RecurrentTranslator
from models.architectures.transformer import Transformer, TransformerConfig
from models.system.errors import UserError
from tensorlib.messages import shown

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Config",
    "build_model",
    "config_from_dict",
    "config_to_dict",
    "parameter_shapes_of",
    "with_vocabularies",
]


Config = TransformerConfig | RecurrentConfig | LanguageConfig


class Architecture(NamedTuple):
    """The config class and the model class of an architecture, and the shapes of a model's parameters."""

    config: type[Config]
    model: Callable[[Any, tl.Generator | None], EncoderDecoder]
    shapes: Callable[[Any], dict[str, tuple[int, ...]]]


DEFAULT = "transformer"
ARCHITECTURES = {DEFAULT: Architecture(TransformerConfig, Transformer, transformer_shapes)}
ARCHITECTURES |= {
    kind: Architecture(RecurrentConfig, RecurrentTranslator, recurrent_shapes) for kind in ("lstm", "gru", "rnn")
}
ARCHITECTURES["language"] = Architecture(LanguageConfig, LanguageModel, language_shapes)


def build_model(config: Config, generator: tl.Generator | None = None) -> EncoderDecoder:
    """Return a new model as `config` describes. Errors: `UserError` for an impossible config."""
    try:
        return ARCHITECTURES[config.kind].model(config, generator)
    except ValueError as error:
        raise UserError(f"model: {str(error).removeprefix(f'{type(config).__name__}: ')}") from None


def with_vocabularies(config: Config, source: int, target: int) -> Config:
    """Return the config with these numbers of subwords; the only text of a language model is the target."""
    if isinstance(config, LanguageConfig):
        return replace(config, vocabulary=target)
    return replace(config, source_vocabulary=source, target_vocabulary=target)


def config_to_dict(config: Config) -> dict[str, Any]:
    """Return a config as a dict, as checkpoints store it.

    "kind" names the architecture. It is omitted for the default one, whose checkpoints keep their bytes this way.
    """
    values = asdict(config)
    if config.kind == DEFAULT:
        del values["kind"]
    return values


def config_from_dict(
    values: Mapping[str, Any], construct: Callable[..., Config] = lambda cls, fields: cls(**fields)
) -> Config:
    """Invert `config_to_dict`; ``construct(cls, fields)`` makes the config, and may check the fields first.

    Errors: ValueError for an unknown kind, TypeError for unknown fields.
    """
    fields = {"kind": DEFAULT, **values}
    name = fields["kind"]
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ValueError(f"model: kind must be one of {', '.join(ARCHITECTURES)}, got {shown(name)}")
    config: Config = construct(ARCHITECTURES[name].config, fields)
    return config


def parameter_shapes_of(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each parameter of ``build_model(config)``, without building it."""
    return ARCHITECTURES[config.kind].shapes(config)
