"""`tensorlib check --causality`: its table, its exit status, and what it refuses."""

import numpy as np
import pytest

import models
import tensorlib as tl
from models.cli.main import main
from tests import small_runs


def test_small_models_are_proved(capsys):
    assert main(["check", "--causality", "transformer", "gru-translator"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["model", "computed", "pairs", "independent"]
    assert [row.split()[0] for row in rows] == ["transformer"] * 3 + ["gru-translator"] * 3
    assert all(row.endswith("  proved") for row in rows)


def test_a_run_is_proved(tmp_path, capsys):
    small_runs.train(small_runs.config_maker(tmp_path)(steps=2), tmp_path / "run")
    capsys.readouterr()
    assert main(["check", "--causality", "--run", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.count(" proved\n") == 3


def test_a_leak_has_a_line_and_status_1(capsys, monkeypatch):
    monkeypatch.setattr(models.Transformer, "visible", lambda self, ids: tl.ones(np.shape(ids), dtype=bool))
    assert main(["check", "--causality", "transformer"]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("not proved") == 3
    first = captured.err.splitlines()[0]
    assert first.startswith(
        "tensorlib: check: transformer, training: logits can depend on padding (19 pairs): those of"
    )
    assert ", by attention in encoder.layers.0.attention at " in first and "transformer.py:" in first


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--run", "x"], "check: --run needs --causality; got --run x alone"),
        (["--causality", "tanh"], "check: no model is called tanh; known: transformer, "),
        (["--causality", "--run", "x", "transformer"], "check: --run names the only model; got also transformer"),
        (["--causality", "--backend", "cupy"], "check: --causality needs --backend numpy, got cupy"),
        (["--causality", "--run", "no-such-run"], "--run no-such-run: a directory that `tensorlib train` wrote"),
    ],
)
def test_what_is_refused(words, expected, capsys):
    assert main(["check", *words]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err and not captured.out
