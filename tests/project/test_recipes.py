"""Every recipe is a valid config, and states what a user wants to know before training for an hour."""

from dataclasses import replace
from pathlib import Path

import pytest

from models import Transformer
from models.runs.config_layers import config_from
from models.runs.toml import read_toml
from tests import ROOT

RECIPES = sorted((ROOT / "examples" / "recipes").glob("*.toml"))


def load(path, monkeypatch):
    monkeypatch.chdir(ROOT)  # paths in a recipe are relative to the root
    return config_from((path.name, read_toml(path)))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_config_on_files_in_data(path, monkeypatch):
    config = load(path, monkeypatch)
    for part in ("train", "valid"):
        files = [getattr(config, f"{part}_{side}") for side in ("source", "target", "tsv")]
        assert all(Path(file).is_relative_to(ROOT / "data") for file in files if file)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_states_its_data_result_time_and_comparison(path):
    head, _, _ = path.read_text().partition("\n\n")
    assert all(line.startswith("#") for line in head.splitlines())
    for word in (
        "Data: ",
        "Reaches: ",
        "Takes: ",
        "Compare: ",
        f"tensorlib train --config examples/recipes/{path.name}",
    ):
        assert f"# {word}" in head or f"#   {word}" in head
    assert "not measured" not in head


SIZES = {"multi30k-de-en": 6.0, "multi30k-de-en-hour": 6.0, "multi30k-en-de": 2.6}  # million parameters


@pytest.mark.parametrize("name, millions", SIZES.items())
def test_a_recipe_has_the_size_it_names(name, millions, monkeypatch):
    config = load(ROOT / "examples" / "recipes" / f"{name}.toml", monkeypatch)
    size = config.tokenizer.vocabulary
    model = Transformer(replace(config.model, source_vocabulary=size, target_vocabulary=size))
    assert round(model.parameter_count() / 1e6, 1) == millions
