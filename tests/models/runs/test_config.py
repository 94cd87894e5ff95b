"""Which value takes precedence, and the errors for values that are not possible."""

import dataclasses
import os
from pathlib import Path

import pytest

from models.runs.config import PRESETS, TrainConfig
from models.runs.config_layers import config_from, resumed
from models.runs.nested_dicts import to_dict
from models.runs.toml import config_toml, read_toml
from models.system.errors import UserError
from models.text.size import TextSize

FILES = {"train_tsv": "/text/t.tsv", "valid_tsv": "/text/v.tsv"}


def config(**given):
    return config_from(("command line", given))


def refusal(*layers, **given):
    with pytest.raises(UserError) as refused:
        config_from(*layers, ("command line", given))
    assert "\n" not in str(refused.value)
    return str(refused.value)


# ---- layers ----


def test_the_preset_follows_the_data():
    assert config().model.width == PRESETS["phrasebook"]["model"]["width"]
    assert config(**FILES).model.max_length == PRESETS["files"]["model"]["max_length"]
    assert config(**FILES).data == "files"


def test_the_size_of_the_text_chooses_what_no_layer_sets():
    small, large = (
        config_from(("command line", FILES | {"optim": {"warmup": 7}}), size=TextSize(pairs)) for pairs in (500, 50_000)
    )
    assert small.model.width < large.model.width and small.steps < large.steps
    assert small.optim.warmup == large.optim.warmup == 7


def test_the_upper_layer_wins_key_by_key():
    toml = {"seed": 1, "model": {"layers": 4, "heads": 2}}
    made = config_from(("a.toml", toml), ("command line", {"model": {"layers": 5}}))
    assert (made.seed, made.model.layers, made.model.heads) == (1, 5, 2)
    assert made.model.width == PRESETS["phrasebook"]["model"]["width"]


@pytest.mark.parametrize(
    "given, other",
    [({"epochs": 3}, "steps"), ({"batch_sentences": 5}, "batch_tokens")],
)
def test_setting_one_alternative_discards_the_other(given, other):
    assert getattr(config(**given), other) == 0


def test_steps_on_the_command_line_replace_epochs_of_the_file():
    made = config_from(("a.toml", {"epochs": 4}), ("command line", {"steps": 9}))
    assert (made.steps, made.epochs) == (9, 0)


def test_other_data_replaces_all_of_the_files_data():
    toml = to_dict(config(train_source="/s", train_target="/t", valid_source="/vs", valid_target="/vt"))
    made = config_from(("a.toml", toml), ("command line", FILES))
    assert (made.train_source, made.train_tsv, made.valid_source) == ("", "/text/t.tsv", "")
    assert config_from(("a.toml", toml), ("command line", {"data": "phrasebook"})).train_source == ""


def test_config_toml_asks_for_the_same_run_again(tmp_path):
    for made in (config(seed=7, model={"dropout": 0}), config(**FILES, steps=3, optim={"betas": [0.8, 0.9]})):
        path = tmp_path / "config.toml"
        path.write_bytes(config_toml(made))
        assert config_from(("config.toml", read_toml(path))) == made


def test_a_kind_of_dropout_that_is_not_set_is_left_out_of_config_toml(tmp_path):
    assert b"attention_dropout" not in config_toml(config())
    made = config(model={"attention_dropout": 0, "dropout": 0.3})
    assert b"attention_dropout = 0.0" in config_toml(made) and b"embedding_dropout" not in config_toml(made)
    assert (made.model.dropout_on("attention"), made.model.dropout_on("embedding")) == (0.0, 0.3)
    with pytest.raises(UserError, match=r"--model.attention-dropout is required to stay 'unset'"):
        resumed(config(), ("command line", {"model": {"attention_dropout": 0.1}}))


def test_config_toml_is_complete():
    assert to_dict(config()).keys() == {f.name for f in dataclasses.fields(TrainConfig)}
    assert "source_vocabulary" not in to_dict(config())["model"]  # the tokenizer says


def test_relative_paths_are_kept_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config(train_tsv="t.tsv", valid_tsv="v.tsv").train_tsv == str(tmp_path / "t.tsv")


# ---- refusals ----


@pytest.mark.parametrize(
    "given, said",
    [
        ({"modle": {}}, "unknown key modle; did you mean model?"),
        ({"model": {"layer": 3}}, "unknown key model.layer; did you mean model.layers?"),
        ({"learning_rate": 1e-3}, "unknown key learning_rate; did you mean optim.learning_rate?"),
        ({"learning-rate": 1e-3}, "unknown key learning-rate; did you mean optim.learning_rate?"),
        ({"lr": 1e-3}, "unknown key lr; did you mean optim.learning_rate?"),
        ({"optim": {"lr": 1e-3}}, "unknown key optim.lr; did you mean optim.learning_rate?"),
        ({"model": {"d_model": 9}}, "unknown key model.d_model; did you mean model.width?"),
        ({"vocab_size": 9}, "unknown key vocab_size; did you mean tokenizer.vocabulary?"),
        ({"qqq": 1}, "unknown key qqq; valid keys: data, "),
        ({"model": {"source_vocabulary": 9}}, "unknown key model.source_vocabulary"),
        ({"model": {"layers": "3"}}, "model.layers must be a whole number, got '3'"),
        ({"model": {"layers": True}}, "model.layers must be a whole number, got True"),
        ({"model": {"layers": 2.0}}, "model.layers must be a whole number, got 2.0"),
        ({"model": {"attention_dropout": "x"}}, "model.attention_dropout must be a number, got 'x'"),
        ({"attention_dropout": 0.1}, "unknown key attention_dropout; did you mean model.attention_dropout?"),
        ({"model": 3}, "model must be a section of keys, got 3"),
        ({"optim": {"name": "adm"}}, "optim.name must be one of adam, adamw, sgd, got 'adm'"),
        ({"optim": {"betas": [0.9]}}, "optim.betas must be a list of 2 numbers, got [0.9]"),
        ({"optim": {"betas": [0.9, "x"]}}, "optim.betas must be a number, got 'x'"),
        ({"tokenizer": {"shared": 1}}, "tokenizer.shared must be true or false, got 1"),
        ({"backend": 1}, "backend must be text in quotes, got 1"),
    ],
)
def test_an_unknown_key_or_wrong_type_is_named_with_its_file(given, said):
    assert refusal(("config a.toml", given)).startswith(f"config a.toml: {said}")


@pytest.mark.parametrize(
    "given, said",
    [
        ({"optim": {"learning_rate": -1.0}}, "--optim.learning-rate must be at least 0, got -1.0"),
        ({"optim": {"learning_rate": 10**400}}, "optim.learning_rate must be at most 9223372036854775807"),
        ({"optim": {"learning_rate": 0}}, "--optim.learning-rate must be above 0, got 0.0"),
        ({"optim": {"learning_rate": float("nan")}}, "optim.learning_rate must be a finite number, got nan"),
        ({"optim": {"name": "sgd"}}, "--optim.name sgd requires --optim.learning-rate, because the default"),
        (FILES | {"optim": {"name": "sgd"}}, "--optim.name sgd requires --optim.learning-rate"),
        ({"optim": {"eps": 0.0}}, "--optim.eps must be from 1e-16 to 1, got 0.0"),
        ({"model": {"width": 10**30}}, "--model.width must be from 1 to 1048576, got 1000000"),
        ({"warmup": 5}, "unknown key warmup; did you mean optim.warmup?"),
        ({"optim": {"betas": [0.9, 1.5]}}, "--optim.betas"),
        ({"optim": {"label_smoothing": 1.0}}, "--optim.label-smoothing"),
        ({"optim": {"accumulate": 0}}, "--optim.accumulate must be at least 1"),
        ({"keep": 0}, "--keep must be at least 1"),
        ({"seed": -1}, "--seed"),
        ({"model": {"heads": 3}}, "heads must divide width, got 3 and 128"),
        ({"model": {"norm": "both"}}, "model.norm must be one of post, pre, got 'both'"),
        ({"steps": 2**63}, "--steps must be from 0 to 9223372036854775807"),
        ({"model": {"dropout": 1.0}}, "dropout"),
        ({"model": {"attention_dropout": 1.0}}, "attention_dropout must lie in [0, 1), got 1.0"),
        ({"model": {"layers": 0}}, "--model.layers must be from 1 to 1000, got 0"),
        ({"steps": 0, "epochs": 0}, "neither --steps nor --epochs"),
        ({"batch_tokens": 5, "batch_sentences": 5}, "either --batch-tokens or --batch-sentences"),
        ({"model": {"tie_embeddings": True}, "tokenizer": {"shared": False}}, "shared vocabulary"),
        ({"train_source": "a", "valid_tsv": "b"}, "--train-source and --train-target"),
        ({"train_tsv": "a"}, "--valid-source and --valid-target, or --valid-tsv alone"),
        ({"train_tsv": "a", "train_source": "b", "train_target": "c", "valid_tsv": "b"}, "--train-tsv alone"),
        ({"data": "phrasebook", "train_tsv": "a"}, "from one place"),
        ({"best_by": "bleu"}, "--best-by bleu needs BLEU; got --bleu-sentences 0"),
        ({"optim": {"ema": 1.0}}, "--optim.ema must be from 0 to"),
        ({"tokenizer": {"dropout": 1.0}}, "--tokenizer.dropout must be from 0 to 0.999, got 1.0"),
        ({"tokenizer": {"dropout": 0.1, "type": "unigram"}}, "--tokenizer.dropout needs --tokenizer.type bpe, whose"),
        ({"patience": -1}, "--patience must be at least 0, got -1"),
        ({"data": "files"}, "--train-source and --train-target"),
    ],
)
def test_an_impossible_value_is_named(given, said):
    assert said in refusal(**given)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("key", ["learning_rate", "clip", "weight_decay", "eps"])
def test_a_number_that_is_not_finite_is_refused(key, value):
    assert f"optim.{key} must be a finite number, got {value}" in refusal(optim={key: value})


def test_a_range_names_the_file_that_the_value_is_from():
    toml = {"keep": 0, "optim": {"eps": 2.0}, "model": {"heads": 3}}
    assert refusal(("config a.toml", toml)).startswith("config a.toml: --keep must")
    assert refusal(("config a.toml", toml), keep=1).startswith("config a.toml: --optim.eps must")
    assert refusal(("config a.toml", toml), keep=-1).startswith("command line: --keep must")
    heads = refusal(("config a.toml", {"model": {"heads": 3}}))
    assert heads == "config a.toml: heads must divide width, got 3 and 128"


def test_a_config_is_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")  # opening it would block forever
    for path, said in ((tmp_path / "fifo", "it is a fifo"), (tmp_path, "it is a directory")):
        with pytest.raises(UserError, match=said):
            read_toml(path)


@pytest.mark.parametrize("text", [b"a = \n", b"[model\n", b"a = 1\na = 2\n"])
def test_broken_toml_names_the_file(tmp_path, text):
    path = tmp_path / "c.toml"
    path.write_bytes(text)
    with pytest.raises(UserError, match=f"config {path}: valid TOML is required; "):
        read_toml(path)


def test_a_config_file_is_read_as_text_is(tmp_path):
    path = tmp_path / "c.toml"
    path.write_bytes(b"\xef\xbb\xbfsteps = 3\r\nseed = 4\r\n")
    assert read_toml(path) == {"steps": 3, "seed": 4}
    path.write_bytes(b"")
    assert read_toml(path) == {}
    for data, said in (
        ("steps = 3\n".encode("utf-16"), "c.toml:1: UTF-8 is required; .* of UTF-16; run iconv -f UTF-16 -t UTF-8 "),
        (b"steps = 3\n# caf\xe9\n", "c.toml:2: UTF-8 is required; found byte 0xe9 at byte column 6"),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=f"^config .*{said}"):
            read_toml(path)


def test_a_missing_toml_file_is_named():
    with pytest.raises(UserError, match=r"config nowhere\.toml: a readable file is required; no such file"):
        read_toml(Path("nowhere.toml"))


# ---- resuming ----


def test_resuming_may_lengthen_a_run_but_not_alter_it():
    old = config(seed=3)
    longer = {"steps": 9, "backend": "cpu", "patience": 3}
    assert resumed(old, ("command line", longer)) == dataclasses.replace(old, **longer)
    for other in (
        {"seed": 4},
        {"model": {"width": 64}},
        {"optim": {"learning_rate": 1.0}},
        {"optim": {"ema": 0.5}},
        FILES,
    ):
        with pytest.raises(UserError, match="is required to stay"):
            resumed(old, ("command line", other))
