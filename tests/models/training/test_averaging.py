"""Averages of weights in training runs, and the command `tensorlib average`."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.cli.main import main
from models.runs.checkpoint import read_checkpoint, step_checkpoints, step_path, write_checkpoint
from tests.small_runs import config_maker, train, trainer_for


def test_a_run_keeps_the_average_of_its_steps(tmp_path):
    """Recompute the recurrence in float64 from the weights in the checkpoint of each step."""
    train(config_maker(tmp_path)(steps=5, save_every=1, optim={"ema": 0.3}), tmp_path / "run")
    checkpoints = [read_checkpoint(path) for path in step_checkpoints(tmp_path / "run")]
    first = trainer_for(config_maker(tmp_path)(), tmp_path / "other").model.state_dict()
    wanted = {name: array.astype("float64") for name, array in first.items()}
    for step, (checkpoint, d) in enumerate(zip(checkpoints, [2 / 11, 3 / 12, 0.3, 0.3, 0.3], strict=True), start=1):
        assert checkpoint.progress.step == step
        for name, array in checkpoint.latest.items():
            wanted[name] = d * wanted[name] + (1 - d) * array
            np.testing.assert_allclose(checkpoint.model[name], wanted[name], rtol=1e-5, atol=1e-7)


# ---- tensorlib average ----


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Train a run that keeps the checkpoints of steps 3, 6, 9, 12 and 13."""
    folder = tmp_path_factory.mktemp("averaged")
    train(config_maker(folder)(), folder / "run")
    return folder / "run"


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "copy"))


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main(["average", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_the_newest_checkpoints_are_averaged(copy, capsys):
    assert main(["average", str(copy), "--last", "3"]) == 0
    assert "the mean of the weights of steps 9, 12, 13" in capsys.readouterr().out
    found = read_checkpoint(copy / "average-3.safetensors")
    parts = [read_checkpoint(step_path(copy, step)).model for step in (9, 12, 13)]
    for name, array in found.model.items():
        wanted = np.mean([part[name].astype("float64") for part in parts], axis=0).astype("float32")
        np.testing.assert_array_equal(array, wanted)
    assert found.averaged == [9, 12, 13] and found.progress.best_loss is None
    assert (
        main(["average", str(copy), "--last", "3"]) == 0
    )  # an existing average may be overwritten, for example after more training


def test_an_average_can_be_used_as_a_checkpoint(copy, tmp_path, capsys):
    file = str(copy / "mean.safetensors")
    assert main(["average", "--run", str(copy), "--last", "2", "--out", file]) == 0
    for command in (["inspect", file], ["translate", "--run", file, "one two"]):
        assert main(command) == 0
    (tmp_path / "text").write_text("one two\n")
    text = str(tmp_path / "text")
    assert main(["evaluate", "--run", file, "--source", text, "--reference", text]) == 0
    assert "the mean of the weights of steps 12, 13" in capsys.readouterr().out


def test_unusable_checkpoints_are_refused_in_one_line(copy, capsys, tmp_path):
    assert "--last must be at least 1, got 0" in refused(capsys, copy, "--last", "0")
    assert "unlike that of a step checkpoint" in refused(capsys, copy, "--out", str(copy / "step-00000099.safetensors"))
    assert "6 step checkpoints are required, got 5; use --last 5, or" in refused(capsys, copy, "--last", "6")
    assert "a new file is required; this one exists" in refused(capsys, copy, "--out", copy / "best.safetensors")
    elsewhere = refused(capsys, copy, "--out", tmp_path / "x.safetensors")  # where there is no config and no tokenizer
    assert f"a file in the run's directory is required; try {copy / 'x.safetensors'}" in elsewhere
    assert "this one has no config.toml" in refused(capsys, tmp_path)
    whole = step_path(copy, 9).read_bytes()
    step_path(copy, 9).write_bytes(whole[:-3])
    assert "step-00000009.safetensors: an undamaged file is required" in refused(capsys, copy)
    step_path(copy, 9).write_bytes(whole)
    other = read_checkpoint(step_path(copy, 9))
    model_config = replace(other.model_config, dropout=0.7)
    write_checkpoint(step_path(copy, 9), replace(other, model_config=model_config))
    assert "step-00000009.safetensors: a checkpoint of the same run as step-00000013" in refused(capsys, copy)
    assert not list(copy.glob("average*"))
