"""The options of `tensorlib train`."""

import dataclasses

import pytest

from models.cli.options import TrainOptions, given, help_texts
from models.runs.config import TrainConfig


@pytest.mark.parametrize("cls", [TrainConfig, *[f.default_factory for f in dataclasses.fields(TrainConfig)[-3:]]])
def test_every_option_has_a_help_text(cls):
    assert help_texts(cls).keys() == {f.name for f in dataclasses.fields(cls)}
    assert all(text.endswith(".") for text in help_texts(cls).values())


def test_only_what_the_user_sets_is_given():
    assert given(TrainOptions()) == given(None) == {}
    assert given(TrainOptions(seed=0, keep=None)) == {"seed": 0}
