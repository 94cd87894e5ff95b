"""A config names its architecture, and is built into a model of it."""

from dataclasses import asdict, dataclass

import pytest

from models import Transformer, TransformerConfig
from models.architectures.build import ARCHITECTURES, Architecture, build_model, config_from_dict, config_to_dict
from models.system.errors import UserError

TINY = TransformerConfig(7, 7, layers=1, width=4, heads=2, feed_forward=6)


@dataclass(frozen=True)
class OtherConfig(TransformerConfig):
    """A second architecture, for these tests."""


class Other(Transformer):
    """A second architecture, for these tests."""


@pytest.fixture
def two_architectures(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "other", Architecture(OtherConfig, Other))


def test_the_dict_of_a_transformer_does_not_name_it():
    assert config_to_dict(TINY) == asdict(TINY) and "kind" not in asdict(TINY)
    assert config_from_dict(asdict(TINY)) == config_from_dict(asdict(TINY) | {"kind": "transformer"}) == TINY


def test_every_config_comes_back_and_builds_a_model_of_its_architecture(two_architectures):
    other = OtherConfig(**asdict(TINY))
    for config, model in ((TINY, Transformer), (other, Other)):
        again = config_from_dict(config_to_dict(config))
        assert type(again) is type(config) and again == config
        assert type(build_model(config)) is model and build_model(config).config is config
    assert config_to_dict(other)["kind"] == "other"


def test_what_cannot_be_built_is_refused_with_its_value():
    with pytest.raises(UserError, match=r"^model: heads must divide width, got 4 and 6$"):
        build_model(TransformerConfig(7, 7, width=6, heads=4))
    with pytest.raises(ValueError, match="kind must be one of transformer, got 'perceptron'"):
        config_from_dict({"kind": "perceptron"})
    with pytest.raises(TypeError, match="depth"):
        config_from_dict(asdict(TINY) | {"depth": 3})
