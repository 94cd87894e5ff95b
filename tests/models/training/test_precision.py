"""Training in bf16: what a step computes in it, and what the command line refuses."""

import numpy as np
import pytest

import tensorlib as tl
from models.cli.main import main
from models.runs import loading
from models.runs.config_layers import resumed
from models.system.errors import UserError
from tensorlib.engine.recording import recording
from tests.small_runs import config_maker, trainer_for


def test_a_step_multiplies_in_bf16_and_keeps_float32_weights(tmp_path, monkeypatch, stand_in):
    make_config = config_maker(tmp_path)
    monkeypatch.setattr(tl, "precision", lambda name: recording(precision=name))  # without asking for the processor
    losses = {}
    for name in ("float32", "bf16"):
        stand_in.shapes.clear()
        config = make_config(precision=name, batch_sentences=64, model={"dropout": 0.0, "width": 64})
        trainer = trainer_for(config, tmp_path / name)
        losses[name] = trainer._gradients(trainer._next_batches(), 100)
        assert bool(stand_in.shapes) == (name == "bf16")
        trainer.optimizer.step()
        assert {p.dtype for p in trainer.model.parameters()} == {np.dtype("float32")}
        stand_in.shapes.clear()
        trainer.model.eval()
        trainer.validate()
        assert not stand_in.shapes
    for exact, rounded in zip(losses["float32"], losses["bf16"], strict=True):
        assert exact != rounded
        assert rounded == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tf32", "--precision tf32: needs --backend cupy; a CPU has float32 and bf16"),
        ("fp16", "--precision fp16: needs --backend cupy; a CPU has float32 and bf16"),
        ("half", "--precision half: must be float32, tf32, bf16 or fp16, got 'half'; did you mean 'fp16'?"),
        ("none", "--precision none: must be float32, tf32, bf16 or fp16, got 'none'"),
        ("bf16", "--precision bf16: requires what is missing; on a GPU, add --backend cupy"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(name, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = loading.refusal
    missing = RuntimeError("precision: bf16 requires what is missing")
    monkeypatch.setattr(loading, "refusal", lambda name, backend: missing if name == "bf16" else found(name, backend))
    assert main(["train", "--precision", name]) == 2
    assert capsys.readouterr().err == f"tensorlib: {message}\n"
    assert not list(tmp_path.iterdir())


def test_a_run_changes_its_precision_only_where_that_is_named(tmp_path):
    config, change = config_maker(tmp_path)(), ("command line", {"precision": "bf16"})
    with pytest.raises(UserError, match=r"--precision is required to stay 'float32'.*--resume-with precision"):
        resumed(config, change)
    assert resumed(config, change, may_change=["precision"]).precision == "bf16"


def test_info_says_whether_there_is_bf16(capsys):
    assert main(["info"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("precision bf16: "))
    assert line == "precision bf16: yes" or line.startswith("precision bf16: no (requires ")


def test_info_gives_the_reason_why_no_gpu_answers_once(monkeypatch, capsys):
    def none_answers(name):
        raise RuntimeError("backend: 'cupy' needs a CUDA GPU, found 0; use 'numpy'")

    monkeypatch.setattr(tl, "get_backend", none_answers)
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "backend cupy: no (needs a CUDA GPU, found 0; use 'numpy')" in lines
    for name in ("tf32", "bf16", "fp16"):
        assert f"precision {name} on a GPU: no (no GPU)" in lines
