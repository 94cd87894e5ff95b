"""`models.load`: a run that translates as the command line does, and scores given translations."""

import os
import re
import shutil

import numpy as np
import pytest

import models
import models.evaluation.translator as translator_module
from models.cli.main import main
from models.decoding.checks import NonFiniteLogits
from models.decoding.forced import force_decode
from models.evaluation.translator import Translator
from models.runs.loading import load_run
from models.system.errors import UserError
from models.text.tokens import BOS, EOS
from tests.small_runs import config_maker, train

SOURCES = ["one two 3", "", "seven six five", "two " * 30]
TARGETS = ["two one 3", "one", "", "five"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the directory of a small run, which is the newest in runs/ of the directory above."""
    folder = tmp_path_factory.mktemp("loaded")
    out = folder / "runs" / "text-transformer-1"
    train(config_maker(folder)(), out)
    return out


def test_it_translates_as_the_command_line_does(run, capfdbinary, monkeypatch):
    assert main(["translate", "--run", str(run), *SOURCES[:3]]) == 0
    expected = capfdbinary.readouterr().out.decode().splitlines()
    assert len(set(expected)) == 3 and expected[1] == ""
    monkeypatch.chdir(run.parent.parent)
    for given in (str(run), run, run / "best.safetensors", None):
        assert models.load(given, backend="numpy").translate(SOURCES[:3]) == expected
    assert models.load().translate([]) == []


def test_a_score_is_the_sum_of_the_forced_log_probabilities(run):
    loaded, model = load_run(run, "numpy"), models.load(run)
    sources, targets = loaded.tokenizer.encode_source(SOURCES[:3]), loaded.tokenizer.encode_target(TARGETS[:3])
    scores = model.score(SOURCES[:3], TARGETS[:3])
    forced = force_decode(loaded.model, sources, targets)
    assert scores == pytest.approx([sum(h.log_probs) for h in forced], rel=1e-5)
    for score, source, target in zip(scores, sources, targets, strict=True):  # and one sentence at a time
        logits_TV = loaded.model([source], [[BOS, *target]]).numpy()[0].astype(np.float64)
        log_probs_TV = logits_TV - np.log(np.exp(logits_TV).sum(axis=1, keepdims=True))
        total = sum(log_probs_TV[t, token] for t, token in enumerate([*target, EOS]))
        assert score == pytest.approx(total, rel=1e-5)
    assert all(type(score) is float for score in scores) and model.score([], []) == []


def test_a_text_that_is_too_long_is_cut_with_a_warning_or_not_scored(run):
    model = models.load(run)
    with pytest.warns(UserWarning, match=r"^text 3: longer than 24 subwords; the rest is not translated$") as caught:
        assert len(model.translate(SOURCES)) == 4
    assert os.path.samefile(caught[0].filename, __file__)
    with pytest.raises(UserError, match=r"^score: .* at most 24 subwords, .*; pair 3 has \d\d+ and \d+; leave it out"):
        model.score(SOURCES, TARGETS)


def test_mistakes_are_named(run, tmp_path):
    model = models.load(run)
    with pytest.raises(UserError, match=r"2 sources and 1 target$"):
        model.score(["one", "two"], ["one"])
    for call in (lambda: model.translate("one"), lambda: model.score("one", ["one"])):
        with pytest.raises(TypeError, match=r"a list of texts is required, got the text 'one'; write \[text\]"):
            call()
    given = {"None at index 1": ["one", None], "7 at index 0": [7], "None": None}
    for said, texts in given.items():
        for call in (model.translate, lambda texts: model.score(texts, ["one", "two"])):
            with pytest.raises(TypeError, match=rf"^(translate|score): a list of texts is required, got {said}$"):
                call(texts)
    assert model.translate(np.array(["one two"])) == model.translate(("one two",))
    with pytest.raises(UserError, match=f"{tmp_path}.*has no config.toml"):
        models.load(tmp_path)
    with pytest.raises(UserError, match="nothing"):
        models.load(run, backend="nothing")


def test_weights_that_are_not_the_best_are_said(run, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "best.safetensors").unlink()
    said = f"{copy} has no best.safetensors; the weights of its newest checkpoint, step-00000013.safetensors, are used"
    with pytest.warns(UserWarning, match=f"^{re.escape(said)}$") as caught:
        models.load(copy)
    assert os.path.samefile(caught[0].filename, __file__)
    text = str(tmp_path / "text")
    (tmp_path / "text").write_text("one\n")
    for arguments in (["translate", "one"], ["evaluate", "--source", text, "--reference", text]):
        assert main([arguments[0], "--run", str(copy), *arguments[1:]]) == 0
        assert capsys.readouterr().err == f"tensorlib: {said}\n"
    assert main(["translate", "--run", str(copy / "step-00000013.safetensors"), "one"]) == 0
    assert main(["translate", "--run", str(run), "one"]) == 0 and capsys.readouterr().err == ""


def test_a_model_without_finite_logits_is_refused(run):
    model = models.load(run)
    weight = model.model.output.weight
    weight.replace(weight.numpy() * np.float32(np.nan))
    with pytest.raises(UserError, match="usable logits are required; those for line 1 are NaN or infinite"):
        model.translate(["one two"])
    with pytest.raises(UserError, match="score: usable logits are required; those for pair 0 are NaN or infinite"):
        model.score(SOURCES[:1], TARGETS[:1])
    assert model.translate(["", " "]) == ["", ""]


def test_one_text_without_finite_logits_costs_no_other(run, monkeypatch):
    loaded, failed = load_run(run, "numpy"), []
    expected = models.load(run).translate(SOURCES[:3])
    translator = Translator(loaded.model, loaded.tokenizer, failed=failed.append, search=models.load(run).search)
    decode, (bad,) = translator_module.decode, loaded.tokenizer.encode_source([SOURCES[2]])

    def failing(model, sources, *arguments):
        if bad in sources:
            raise NonFiniteLogits(sources.index(bad))
        return decode(model, sources, *arguments)

    monkeypatch.setattr(translator_module, "decode", failing)
    assert translator.translate(SOURCES[:3], first=10) == [*expected[:2], ""] and failed == [12]
