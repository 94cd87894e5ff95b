"""A config names its architecture, and is built into a model of it."""

from dataclasses import asdict, replace

import pytest

from models import RecurrentConfig, RecurrentTranslator, Transformer, TransformerConfig
from models.architectures.build import (
    ARCHITECTURES,
    build_model,
    config_from_dict,
    config_to_dict,
    parameter_shapes_of,
)
from models.system.errors import UserError

TINY = TransformerConfig(7, 7, layers=1, width=4, heads=2, feed_forward=6)
CONFIGS = {
    "transformer": TINY,
    "rotary": replace(TINY, positions="rotary"),
    "learned": replace(TINY, positions="learned"),
    **{kind: RecurrentConfig(7, 8, layers=2, width=4, kind=kind) for kind in ("lstm", "gru", "rnn")},
    "additive": RecurrentConfig(7, 8, layers=1, width=4, attention="additive"),
    "none, tied": RecurrentConfig(7, 7, layers=1, width=4, attention="none", tie_embeddings=True),
}
MODELS = {TransformerConfig: Transformer, RecurrentConfig: RecurrentTranslator}


def test_the_dict_of_a_transformer_does_not_name_it():
    assert config_to_dict(TINY) | {"kind": "transformer"} == asdict(TINY) and "kind" not in config_to_dict(TINY)
    assert config_from_dict(config_to_dict(TINY)) == config_from_dict(asdict(TINY)) == TINY


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_comes_back_and_builds_a_model_of_its_architecture(name):
    config = CONFIGS[name]
    again, model = config_from_dict(config_to_dict(config)), build_model(config)
    assert type(again) is type(config) and again == config
    assert type(model) is MODELS[type(config)] and model.config is config
    assert parameter_shapes_of(config) == {name: p.shape for name, p in model.named_parameters()}


def test_every_kind_is_an_architecture():
    assert set(ARCHITECTURES) == {config.kind for config in CONFIGS.values()}


def test_what_cannot_be_built_is_refused_with_its_value():
    with pytest.raises(UserError, match=r"^model: heads must divide width, got 4 and 6$"):
        build_model(TransformerConfig(7, 7, width=6, heads=4))
    with pytest.raises(UserError, match=r"^model: width must be even, .*, got 5; attention must be .*, got 'all'$"):
        build_model(RecurrentConfig(7, 7, width=5, attention="all"))
    with pytest.raises(ValueError, match="kind must be one of transformer, lstm, gru, rnn, got 'perceptron'"):
        config_from_dict({"kind": "perceptron"})
    with pytest.raises(TypeError, match="depth"):
        config_from_dict(asdict(TINY) | {"depth": 3})
