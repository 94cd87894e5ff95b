"""Averages of weights, against values computed by hand."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nn
import tensorlib as tl
from models.cli.main import main
from models.runs.checkpoint import read_checkpoint, step_checkpoints, step_path, write_checkpoint
from nn.averaging import ExponentialMovingAverage, average
from tests.small_runs import config_maker, train, trainer_for


def a_parameter(*values, backend="numpy", dtype="float32"):
    return nn.Parameter(tl.Tensor(np.array(values, dtype), backend=backend).data)


# ---- along training ----


def test_the_moving_average_follows_its_recurrence(backend):
    w = a_parameter(11.0, 0.0, backend=backend)
    moving, first = ExponentialMovingAverage([("w", w)], 0.25), w.data
    seen = [np.array(backend.to_numpy(moving.arrays["w"]))]
    for step, value in ((1, 22.0), (2, 4.0), (3, 4.0)):
        w.replace(tl.Tensor(np.array([value, 0.0], "float32"), backend=backend).data)
        moving.update(step)
        seen.append(np.array(backend.to_numpy(moving.arrays["w"])))
    # d is 2/11, then 3/12 = 1/4, then bounded by 1/4:  2/11 · 11 + 9/11 · 22 = 20;  1/4 · 20 + 3/4 · 4 = 8;  5
    np.testing.assert_allclose(seen, [[11, 0], [20, 0], [8, 0], [5, 0]], rtol=1e-6)
    assert backend.to_numpy(first)[0] == 11  # the average is a copy, and updating it changes no other array


def test_after_long_training_the_decay_is_the_given_one():
    w = a_parameter(0.0, dtype="float64")
    moving = ExponentialMovingAverage([("w", w)], 0.999)
    w.replace(np.array([1.0]))
    moving.update(8989)  # (1 + t) / (10 + t) = 8990/8999 is still below 0.999 here, and no longer from t = 8990 on
    assert moving.arrays["w"][0] == pytest.approx(9 / 8999, rel=1e-9)
    moving.update(10**6)
    assert moving.arrays["w"][0] == pytest.approx(1 - 0.999 * (1 - 9 / 8999), rel=1e-9)


def test_constant_weights_equal_their_average_to_the_bit():
    w = nn.Parameter(np.random.default_rng(0).standard_normal(1000).astype("float32"))
    moving = ExponentialMovingAverage([("w", w)], 0.9)
    for step in range(1, 50):
        moving.update(step)
    np.testing.assert_array_equal(moving.arrays["w"], w.numpy())


def test_the_average_is_in_the_model_only_inside_the_context_even_after_an_error():
    layer = nn.Linear(3, 2)
    moving = ExponentialMovingAverage(layer.named_parameters(), 0.9)
    averaged = layer.state_dict()
    layer.weight.replace(layer.weight.data + 1)
    own = layer.state_dict()
    with pytest.raises(KeyError), moving.applied():
        np.testing.assert_array_equal(layer.weight.numpy(), averaged["weight"])
        raise KeyError
    np.testing.assert_array_equal(layer.weight.numpy(), own["weight"])
    np.testing.assert_array_equal(moving.arrays["weight"], averaged["weight"])


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_the_decay_is_a_fraction(decay):
    with pytest.raises(ValueError, match=rf"ExponentialMovingAverage: decay must lie in \[0, 1\), got {decay}"):
        ExponentialMovingAverage([], decay)


def test_steps_count_from_one():
    with pytest.raises(ValueError, match="step must be an integer of at least 1, got 0"):
        ExponentialMovingAverage([], 0.9).update(0)


# ---- over several states ----


def test_the_mean_of_states_is_taken_name_by_name():
    states = [{"a": np.array([1.0, 2.0], "float32"), "b": np.array(9.0)}, {"a": [2.0, 6.0], "b": 0.0}]
    states.append({"a": tl.Tensor([6.0, 1.0]), "b": 3.0})
    mean = average(iter(states))
    np.testing.assert_array_equal(mean["a"], np.array([3.0, 3.0], "float32"))
    assert mean["a"].dtype == np.float32 and mean["b"] == 4.0


def test_the_mean_is_added_up_in_float64():
    states = [{"a": np.array([x], "float32")} for x in (2.0**24, 1.0, 1.0, 2.0)]
    assert average(states)["a"][0] == 2**22 + 1  # in float32 each 1 would have been lost beside 2^24


def test_states_that_do_not_match_the_first_are_named():
    one = {"a": np.zeros(2), "b": np.zeros(3)}
    with pytest.raises(ValueError, match=r"state 2 does not fit the first: missing b; a must have shape \(2,\), got"):
        average([one, {"a": np.zeros(5)}])
    with pytest.raises(ValueError, match="one or more state_dicts are required, got none"):
        average([])


def test_a_run_keeps_the_average_that_its_steps_make(tmp_path):
    """Compute the recurrence again in float64, from the weights of each step in its checkpoint."""
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
    """Train a run that leaves the checkpoints of steps 3, 6, 9, 12 and 13."""
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
    assert main(["average", str(copy), "--last", "3"]) == 0  # written again after more training, say


def test_an_average_is_a_checkpoint_to_use(copy, tmp_path, capsys):
    file = str(copy / "mean.safetensors")
    assert main(["average", "--run", str(copy), "--last", "2", "--out", file]) == 0
    for command in (["inspect", file], ["translate", "--run", file, "one two"]):
        assert main(command) == 0
    (tmp_path / "text").write_text("one two\n")
    text = str(tmp_path / "text")
    assert main(["evaluate", "--run", file, "--source", text, "--reference", text]) == 0
    assert "the mean of the weights of steps 12, 13" in capsys.readouterr().out


def test_what_cannot_be_averaged_is_refused_in_a_line(copy, capsys, tmp_path):
    assert "--last must be at least 1, got 0" in refused(capsys, copy, "--last", "0")
    assert "not that of a step's checkpoint" in refused(capsys, copy, "--out", str(copy / "step-00000099.safetensors"))
    assert "6 checkpoints of steps are required, got 5; --last 5 takes all" in refused(capsys, copy, "--last", "6")
    assert "a new file is required; it exists" in refused(capsys, copy, "--out", copy / "best.safetensors")
    elsewhere = refused(capsys, copy, "--out", tmp_path / "x.safetensors")  # without config and subwords beside it
    assert f"a file in the run's directory is required; try {copy / 'x.safetensors'}" in elsewhere
    assert "it has no config.toml" in refused(capsys, tmp_path)
    whole = step_path(copy, 9).read_bytes()
    step_path(copy, 9).write_bytes(whole[:-3])
    assert "step-00000009.safetensors: a whole file is required" in refused(capsys, copy)
    step_path(copy, 9).write_bytes(whole)
    other = read_checkpoint(step_path(copy, 9))
    model_config = replace(other.model_config, norm="pre")
    write_checkpoint(step_path(copy, 9), replace(other, model_config=model_config))
    assert "step-00000009.safetensors: a checkpoint of the same run as step-00000013" in refused(capsys, copy)
    assert not list(copy.glob("average*"))
