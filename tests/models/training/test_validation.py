"""Validation: what it measures, which weights are best, when training ends early, and the pictures of it."""

import json
import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from models.cli.main import main
from models.decoding.checks import NonFiniteLogits
from models.evaluation.metrics import scores, token_loss
from models.evaluation.translator import Translator
from models.runs.checkpoint import Progress, read_checkpoint
from models.runs.directory import read_config
from models.training.curves import write_curves, write_samples
from models.training.validation import Validation, record_validation
from tests.small_runs import config_maker, log_of, train, trainer_for


@pytest.fixture
def make_config(tmp_path):
    return config_maker(tmp_path)


def found(loss, bleu=None):
    return Validation(loss, 1.0, bleu, [])


def scripted(monkeypatch, *validations):
    """Let the validations of the next run return these results, one after another."""
    ahead = iter(validations)
    monkeypatch.setattr("models.training.loop.validate", lambda *arguments: next(ahead))


# ---- what is measured ----


@pytest.mark.parametrize("bleu_sentences, samples", [(4, 2), (2, 4)])
@pytest.mark.parametrize("tokenize", ["13a", "none"])
def test_bleu_is_that_of_the_first_sentences(make_config, tmp_path, monkeypatch, tokenize, bleu_sentences, samples):
    config = make_config(bleu_sentences=bleu_sentences, bleu_tokenize=tokenize, samples=samples)
    trainer = trainer_for(config, tmp_path / "run")
    references = [reference for _, reference in trainer.run.corpus.valid]
    said = [f"{references[0]}!", f"{references[1]}, {references[1]}", "one two", "four five", "never asked for"]
    monkeypatch.setattr(Translator, "translate", lambda self, texts, stop: said[: len(texts)])
    trainer.validate()
    (entry,) = log_of(tmp_path / "run")
    n = bleu_sentences
    assert entry["bleu"] == scores(said[:n], references[:n], tokenize).bleu
    other = {"13a": "none", "none": "13a"}[tokenize]
    assert entry["bleu"] != scores(said[:n], references[:n], other).bleu  # tokenization is part of the score
    assert [sample["output"] for sample in entry["samples"]] == said[:samples]
    assert re.search(rf"perplexity [\d.]+, BLEU {entry['bleu']:.2f} \(the best so far\)", shown(trainer))


def test_bleu_is_measured_only_on_request(make_config, tmp_path):
    trainer = train(make_config(steps=1, bleu_sentences=0), tmp_path / "run")
    assert all("bleu" not in entry for entry in log_of(tmp_path / "run")) and "BLEU" not in shown(trainer)


def test_a_sentence_that_cannot_be_decoded_counts_as_empty(make_config, tmp_path, monkeypatch):
    def failing(*arguments):
        raise NonFiniteLogits(0)

    monkeypatch.setattr("models.evaluation.translator.decode", failing)
    train(make_config(steps=1, bleu_sentences=4, samples=2), tmp_path / "run")
    entry = log_of(tmp_path / "run")[-1]
    assert entry["bleu"] == 0.0 and [sample["output"] for sample in entry["samples"]] == ["", ""]


def test_a_run_keeps_how_bleu_finds_words(tmp_path, capsys):
    pairs = [("a cat", "一只猫"), ("a dog", "一只狗"), ("a bird", "一只鸟")]
    (tmp_path / "text.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in pairs * 3))
    files = {"train_tsv": str(tmp_path / "text.tsv"), "valid_tsv": str(tmp_path / "text.tsv")}
    trainer = train(config_maker(tmp_path)(steps=1, bleu_sentences=3, **files), tmp_path / "run")
    assert trainer.run.corpus.notes[-1:] == ["BLEU: words found by zh, because the references are in Chinese"]
    assert read_config(tmp_path / "run").bleu_tokenize == trainer.config.bleu_tokenize == "zh"
    assert main(["evaluate", "--run", str(tmp_path / "run"), "--tsv", str(tmp_path / "text.tsv")]) == 0
    assert "|tok:zh|" in capsys.readouterr().out
    for asked, said in (("13a", "use --tokenize zh"), ("auto", "words found by zh, because")):
        arguments = ["--run", str(tmp_path / "run"), "--tsv", str(tmp_path / "text.tsv"), "--tokenize", asked]
        assert main(["evaluate", *arguments]) == 0
        assert said in capsys.readouterr().out
    explicit = train(config_maker(tmp_path)(steps=1, bleu_tokenize="13a", **files), tmp_path / "explicit")
    assert explicit.config.bleu_tokenize == "13a" and "use --bleu-tokenize zh" in explicit.run.corpus.notes[-1]


def shown(trainer):
    return trainer.display.stream.getvalue()


# ---- which is the best ----


def test_the_best_is_the_lowest_loss_or_the_highest_bleu(make_config):
    by_loss, by_bleu = (make_config(best_by=kind, bleu_sentences=1) for kind in ("loss", "bleu"))
    validations = [found(3.0, 10.0), found(2.0, 9.0), found(2.5, 11.0), found(2.0, 11.0)]
    bests = []
    for config in (by_loss, by_bleu):
        progress, waited = Progress(), []
        for step, validation in enumerate(validations, start=1):
            progress.step = step
            record_validation(validation, progress, config)
            waited.append(progress.waited)
        bests.append((progress.best_step, progress.best_loss, progress.best_bleu, progress.validated, waited))
    assert bests == [(2, 2.0, 9.0, 4, [0, 0, 1, 2]), (3, 2.5, 11.0, 4, [0, 1, 0, 1])]  # an equal one is not better


def test_the_best_weights_by_bleu_are_kept(make_config, tmp_path, monkeypatch):
    scripted(monkeypatch, found(1.0, 5.0), found(2.0, 7.0), found(0.5, 6.0), found(0.4, 6.0))
    train(make_config(best_by="bleu", bleu_sentences=2), tmp_path / "run")
    best = read_checkpoint(tmp_path / "run" / "best.safetensors").progress
    assert (best.step, best.best_loss, best.best_bleu) == (8, 2.0, 7.0)  # validated at 4, 8, 12, 13


# ---- ending early ----

NO_CHANGE = {"learning_rate": 1e-30, "schedule": "constant", "warmup": 0}  # by a step with this optimizer


def test_training_ends_after_patience_validations_without_a_better_one(make_config, tmp_path, monkeypatch):
    scripted(monkeypatch, found(3.0), found(2.0), found(2.1), found(1.9), found(1.9), found(1.95))
    trainer = train(make_config(steps=99, validate_every=2, patience=2, save_every=100), tmp_path / "run")
    assert trainer.progress.step == 12 and trainer.finished  # the best at 8; 10 and 12 were no better
    assert "step 12: ended early; 2 validations in a row did not improve on step 8" in shown(trainer)
    assert read_checkpoint(tmp_path / "run" / "step-00000012.safetensors").progress.waited == 2


def test_a_run_that_learns_nothing_ends_when_patience_does(make_config, tmp_path):
    trainer = train(make_config(steps=99, validate_every=1, patience=3, optim=NO_CHANGE), tmp_path / "run")
    assert (trainer.progress.best_step, trainer.progress.step) == (1, 4)


def test_without_patience_nothing_ends_early(make_config, tmp_path):
    trainer = train(make_config(steps=6, validate_every=1, optim=NO_CHANGE), tmp_path / "run")
    assert trainer.progress.step == 6 and "ended early" not in shown(trainer)


def test_resuming_a_run_that_ended_early_says_how_to_continue(make_config, tmp_path, capsys):
    out = tmp_path / "run"
    train(make_config(steps=99, validate_every=1, patience=3, optim=NO_CHANGE), out)
    resume = ["train", "--resume", "--out", str(out)]
    early = "ended early at step 4, 3 validations after the best one; to continue, use --patience N above 3, or 0"
    assert main(resume) == 0 and early in capsys.readouterr().err
    assert main([*resume, "--steps", "200"]) == 2 and early in capsys.readouterr().err
    assert main([*resume, "--patience", "5"]) == 0
    assert max(out.glob("step-*")) == out / "step-00000006.safetensors"


# ---- curves and samples ----


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    folder = tmp_path_factory.mktemp("drawn")
    train(config_maker(folder)(bleu_sentences=3), folder / "run")
    return folder / "run"


def texts_of(svg):
    return [element.text for element in ElementTree.parse(svg).iter() if element.tag.endswith("}text")]


def test_the_curves_say_what_the_log_says(drawn):
    best = min((e["loss"], e["step"]) for e in log_of(drawn) if e["kind"] == "valid")
    assert f"lowest validation loss {best[0]:.3f}, at step {best[1]}" in texts_of(drawn / "loss.svg")
    best = max((e["bleu"], -e["step"]) for e in log_of(drawn) if "bleu" in e)
    assert f"highest validation BLEU {best[0]:.2f}, at step {-best[1]}" in texts_of(drawn / "bleu.svg")
    assert {"step", "training, with dropout and smoothing", "validation"} <= set(texts_of(drawn / "loss.svg"))


def test_equal_logs_give_equal_pictures(drawn):
    before = [(drawn / name).read_bytes() for name in ("loss.svg", "bleu.svg")]
    write_curves(drawn)
    assert [(drawn / name).read_bytes() for name in ("loss.svg", "bleu.svg")] == before


def test_without_matplotlib_nothing_is_drawn(drawn, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed
    (tmp_path / "log.jsonl").write_bytes((drawn / "log.jsonl").read_bytes())
    write_curves(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_samples_show_each_translation_once_it_changes(tmp_path):
    entries = [{"kind": "train", "step": 1, "loss": 1.0, "tokens": 1}]
    for step, output in ((5, ""), (10, "b"), (15, "b"), (20, "a")):
        sample = {"source": "甲", "reference": "a", "output": output}
        entries.append({"kind": "valid", "step": step, "loss": 1.0, "samples": [sample]})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    write_samples(tmp_path)
    rows = (tmp_path / "samples.txt").read_text("utf-8").split("\n\n")[1].splitlines()
    assert rows == ["source        甲", "reference     a", "step 5", "step 10       b", "step 20       a"]


def test_a_run_writes_its_samples(make_config, tmp_path):
    trainer = train(make_config(steps=2, samples=2), tmp_path / "run")
    text = (tmp_path / "run" / "samples.txt").read_text("utf-8")
    assert all(side in text for pair in trainer.run.corpus.valid[:2] for side in pair)


# ---- with a moving average ----


def test_validation_and_the_best_weights_are_of_the_moving_average(make_config, tmp_path):
    trainer = train(make_config(steps=6, validate_every=6, optim={"ema": 0.9}), tmp_path / "run")
    measured = log_of(tmp_path / "run")[-1]["loss"]
    best = read_checkpoint(tmp_path / "run" / "best.safetensors")
    own = token_loss(trainer.model, trainer.run.examples.valid).loss
    trainer.model.load_state_dict(best.model)
    assert token_loss(trainer.model, trainer.run.examples.valid).loss == measured != own
