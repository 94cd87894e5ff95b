"""A file of a run that is missing, empty, cut or replaced: each message names it, and says what can be done."""

import re
import shutil

import pytest

from models.cli.main import main
from models.runs.checkpoint import step_checkpoints
from models.runs.config_layers import config_from
from models.runs.nested_dicts import to_dict
from tests.forgery import check_message
from tests.small_runs import config_maker, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    train(config_maker(folder)(steps=6, save_every=2), folder / "run")
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "run")
    shutil.copy(trained.parent / "valid.tsv", tmp_path / "valid.tsv")
    return tmp_path / "run"


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "cut to nearly nothing": lambda path: path.write_bytes(path.read_bytes()[:7]),
    "text instead": lambda path: path.write_text("This is not what you expect.\n" * 9),
}
COMMANDS = {
    "resume": "train --resume --out run --steps 8",
    "translate": "translate --run run one",
    "evaluate": "evaluate --run run --tsv valid.tsv",
    "average": "average run --last 2",
    "inspect": "inspect run/best.safetensors",
}
# By the file that is damaged, the commands that succeed without it.
SUCCEED = {
    "config.toml": ["inspect"],
    "tokenizer.model": ["inspect"],
    "best.safetensors": ["average", "resume"],  # which makes a new one
    "step-*.safetensors": ["translate", "evaluate", "inspect"],
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", SUCCEED)
def test_each_message_names_the_file_at_fault_and_a_remedy(run, capsys, name, command, damage):
    for path in run.glob(name):
        DAMAGE[damage](path)
    status = main(COMMANDS[command].split())
    last = capsys.readouterr().err.splitlines()[-1:]
    succeeds = command in SUCCEED[name]
    succeeds |= (name, damage) == ("best.safetensors", "missing") and command != "inspect"  # the newest one serves
    assert status == (0 if succeeds else 2), last
    if not succeeds:
        check_message(last[0], "run")
        assert re.search(name.replace("*", r"(\*|\d{8})"), last[0]) or (name, command) == (
            "step-*.safetensors",
            "average",
        )
        assert not any(other in last[0] for other in ("config.toml", "tokenizer.model") if other != name)
        assert re.search("; (correct|restore|copy|name|check|train|translate|an earlier)", last[0])


def test_a_run_with_the_files_of_another_is_refused_with_both_possibilities(run, tmp_path, capsys):
    other = tmp_path / "other"
    train(config_maker(tmp_path)(steps=1, model={"width": 8}, tokenizer={"vocabulary": 290}), other)
    for name, said in (
        (
            "config.toml",
            "best.safetensors: weights of this run's model are required; this file has width 16 instead of 8",
        ),
        ("tokenizer.model", "best.safetensors: weights of this run's model are required; these were trained with diff"),
        (
            "best.safetensors",
            "best.safetensors: weights of this run's model are required; these were trained with diff",
        ),
    ):
        kept = (run / name).read_bytes()
        shutil.copy(other / name, run / name)
        assert main(["translate", "--run", "run", "one"]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert said in line and "is from another run: restore the right one" in line
        (run / name).write_bytes(kept)


def test_a_checkpoint_of_another_kind_of_model_is_refused(run, tmp_path, capsys):
    other, values = tmp_path / "other", to_dict(config_maker(tmp_path)(steps=6, save_every=2))
    values["model"] = {"kind": "rnn", "layers": 1, "width": 16}
    train(config_from(("test", values)), other)
    for path in other.glob("*.safetensors"):
        shutil.copy(path, run / path.name)
    for command in COMMANDS:
        if command != "inspect":
            assert main(COMMANDS[command].split()) == 2
            line = capsys.readouterr().err.splitlines()[-1]
            assert "weights of this run's model are required; this file has kind rnn instead of transformer" in line


def test_a_config_without_a_section_is_refused(run, capsys):
    text = (run / "config.toml").read_text()
    for section in ("tokenizer", "model", "optim"):
        (run / "config.toml").write_text(re.sub(rf"(?s)\[{section}\]\n.*?(\n\[|\Z)", r"\1", text))
        assert main(["train", "--resume", "--out", "run"]) == 2
        said = f"run/config.toml: all that `tensorlib train` wrote is required; [{section}] is missing; restore it"
        assert said in capsys.readouterr().err


def test_a_checkpoint_is_named_once_if_there_is_no_earlier_one(run, capsys):
    for path in step_checkpoints(run):
        DAMAGE["cut"](path)
    assert main(["train", "--resume", "--out", "run"]) == 2
    *_, third, last = capsys.readouterr().err.splitlines()
    assert "step-00000002.safetensors" in third and "trying" not in third
    assert "found 3, none usable (step-00000002.safetensors, step-00000004.safetensors, step-00000006.safet" in last


# ---- runs that are not there ----


def test_a_run_that_is_not_there_is_said_with_those_that_are(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "runs" / "a-1")
    (tmp_path / "folder").mkdir()
    shutil.copy(run / "best.safetensors", tmp_path / "folder" / "best.safetensors")
    for given, problem in (
        ("nosuch", "there is none of this name; name one of run, runs/a-1"),
        ("nosuch/deeper", "there is none of this name; name one of run, runs/a-1"),
        ("run/step-00000009.safetensors", "there is none of this name; name one of run, runs/a-1"),
        ("runs", "this one has no config.toml; name one of run, runs/a-1"),
        ("folder", "this one has no config.toml; restore it"),
    ):
        for arguments in (["train", "--resume", "--out", given], ["translate", "--run", given, "one"]):
            assert main(arguments) == 2
            flag = "--out" if arguments[0] == "train" else "--run"
            said = f"{flag} {given}: a directory that `tensorlib train` wrote is required; {problem}"
            assert said in capsys.readouterr().err
    assert main(["train", "--resume", "--out", "valid.tsv"]) == 2
    assert "--out valid.tsv: a directory that `tensorlib train` wrote is required; this is a file; name one of run" in (
        capsys.readouterr().err
    )
    assert main(["translate", "--run", "folder/best.safetensors", "one"]) == 2
    said = (
        "--run folder/best.safetensors: a checkpoint in its run's directory is required, with config.toml and the subw"
    )
    assert said in capsys.readouterr().err


def test_without_any_run_the_first_command_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["translate", "--run", "nosuch", "one"]) == 2
    assert "there is none of this name; start one with `tensorlib train`" in capsys.readouterr().err
