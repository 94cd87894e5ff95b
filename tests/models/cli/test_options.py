"""The options of `tensorlib train`, `translate` and `evaluate`."""

import dataclasses
import re

import pytest

from models.cli.main import main
from models.cli.options import BeamOptions, SearchOptions, TrainOptions, given, help_texts, search_of
from models.decoding import settings
from models.decoding.settings import Search
from models.runs.config import TrainConfig
from models.system.errors import UserError


@pytest.mark.parametrize(
    "cls", [Search, TrainConfig, *[f.default_factory for f in dataclasses.fields(TrainConfig)[-3:]]]
)
def test_every_option_has_a_help_text(cls):
    assert help_texts(cls).keys() == {f.name for f in dataclasses.fields(cls)}
    assert all(text.endswith(".") for text in help_texts(cls).values())


def test_only_what_the_user_sets_is_given():
    assert given(TrainOptions()) == given(None) == {}
    assert given(TrainOptions(seed=0, keep=None)) == {"seed": 0}


def test_both_commands_that_search_describe_it_in_the_same_words(capsys):
    defaults = {"beam": settings.DEFAULT_BEAM, "length_penalty": settings.DEFAULT_LENGTH_PENALTY, "max_length": 0}
    for command in ("translate", "evaluate"):
        main([command, "--help"])
        words = " ".join(re.sub("[│\n]", " ", capsys.readouterr().out).split())
        for name, default in defaults.items():
            assert f"{help_texts(Search)[name]} [{default}]" in words


def test_options_become_settings_which_are_checked():
    assert search_of(None) == search_of(SearchOptions()) == search_of(BeamOptions()) == Search()
    assert search_of(BeamOptions(beam=2, max_length=9)) == Search(beam=2, max_length=9)
    with pytest.raises(UserError, match=r"--temperature 2\.0 needs --sample"):
        search_of(SearchOptions(temperature=2.0))


def test_none_is_the_default_of_a_setting_that_contradictions_depend_on():
    unset = {field.name for field in dataclasses.fields(Search) if field.default is None}
    assert unset == settings.UNSET.keys()
    assert [Search().effective(name) for name in settings.UNSET] == [*settings.UNSET.values()]
    assert Search(sample=True, top_k=3).effective("top_k") == 3 and Search(beam=2).rows == 2
