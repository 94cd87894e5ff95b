"""`tensorlib generate`, and the other commands with a run of a language model."""

import io
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

import models
from models.cli.main import main
from models.evaluation.text_model import TextModel
from models.runs.checkpoint import read_checkpoint
from models.runs.loading import load_run
from models.system.errors import UserError
from tests.small_runs import config_maker, language_config_maker, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a directory with a run of a language model and one of a translator."""
    folder = tmp_path_factory.mktemp("runs")
    train(language_config_maker(folder)(steps=6), folder / "language")
    train(config_maker(folder)(steps=1), folder / "translator")
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return "language"


def printed(capfdbinary, *arguments):
    assert main(list(arguments)) == 0
    return capfdbinary.readouterr().out.decode()


def refusal(capsys, *arguments):
    capsys.readouterr()
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1, captured.err
    return captured.err


def with_input(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))


# ---- generate ----


def test_a_prompt_is_continued_in_the_same_way_each_time(run, capfdbinary):
    command = ["generate", "--run", run, "one two", "--max-length", "30"]
    text = printed(capfdbinary, *command)
    assert text.startswith("one two") and len(text) > len("one two\n")
    assert printed(capfdbinary, *command) == text
    assert printed(capfdbinary, *command, "--seed", "0", "--temperature", "0.8") == text
    assert printed(capfdbinary, *command, "--seed", "1") != text
    assert printed(capfdbinary, *command, "--beam", "1") != text


def test_lines_in_give_as_many_lines_out_and_do_not_disturb_each_other(run, capfdbinary, monkeypatch):
    lines = ["one two", "", "three", "one two", "a line with 猫 and more  "]
    with_input(monkeypatch, "\n".join(lines).encode())
    command = ["generate", "--run", run, "--line", "--max-length", "25"]
    found = printed(capfdbinary, *command).split("\n")
    assert found[-1] == "" and len(found) == len(lines) + 1
    for line, text in zip(lines, found, strict=False):
        assert text.startswith(line.rstrip(" "))
    for count in (1, 3):
        with_input(monkeypatch, "\n".join(lines[:count]).encode())
        assert printed(capfdbinary, *command).split("\n")[:-1] == found[:count]


def test_texts_of_several_lines_are_separated_by_a_blank_line(run, capfdbinary):
    loaded = load_run(Path(run), "numpy")
    texts = TextModel(loaded.model, loaded.tokenizer).generate(["one", "two\nthree"])
    assert printed(capfdbinary, "generate", "--run", run, "one", "two\nthree") == "\n\n".join(texts) + "\n"
    assert texts[1].startswith("two\nthree")


def test_bytes_that_are_not_utf8_are_named_and_read(run, capfdbinary, monkeypatch):
    with_input(monkeypatch, b"one \xff two\nthree\n")
    assert main(["generate", "--run", run, "--line", "--max-length", "3"]) == 0
    captured = capfdbinary.readouterr()
    assert captured.out.decode().startswith("one \ufffd two") and captured.out.count(b"\n") == 2
    said = b"standard input, line 1: byte 0xff at byte column 5 is not UTF-8; read as U+FFFD"
    assert captured.err == b"tensorlib: " + said + b"\n"


@pytest.mark.parametrize("beam", [[], ["--beam", "2"]])
def test_length_is_limited_and_may_exceed_the_context(run, capfdbinary, beam):
    counts = []
    tokenizer = load_run(Path(run), "numpy").tokenizer
    for length in ("1", "5", "40"):  # the context is 12
        text = printed(capfdbinary, "generate", "--run", run, "one two", "--max-length", length, *beam)
        counts.append(len(tokenizer.target.encode([text.replace("\n", " ")])[0]))
    assert counts[0] <= counts[1] < counts[2]


def test_a_prompt_beyond_the_context_is_read_at_its_end_with_a_note(run, capfdbinary):
    assert main(["generate", "--run", run, "one two " * 30, "--max-length", "2"]) == 0
    captured = capfdbinary.readouterr()
    assert captured.out.decode().startswith(("one two " * 30).rstrip())
    assert captured.err == b"tensorlib: prompt 1: longer than the context of 12 subwords; only its end is read\n"


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--beam", "2", "--top-k", "3"], "--beam searches and draws nothing; got --top-k too; leave one"),
        (["--temperature", "0"], "--temperature must be a finite number above 0, got 0.0"),
        (["--top-p", "1.5"], r"--top-p must lie in (0, 1], got 1.5"),
        (["--beam", "0"], "--beam must be at least 1, got 0"),
        (["--max-length", "0"], "--max-length must be at least 1, got 0"),
        (["--max-length", "-3"], "--max-length must be at least 1, got -3"),
        (["--min-length", "9", "--max-length", "3"], "--min-length must be at most --max-length, got 9 and 3"),
        (["--run", "nothing"], "there is none of this name"),
        (["--backend", "abacus"], "--backend abacus"),
        (["--length", "3"], "Unknown option: --length"),
    ],
)
def test_impossible_options_are_refused_in_one_line(run, capsys, arguments, said):
    assert said in refusal(capsys, "generate", *(["--run", run] if "--run" not in arguments else []), *arguments, "x")


# ---- the other commands ----


def test_each_command_names_the_one_for_this_kind_of_model(run, capsys):
    assert "this run is of a language model; use `" in refusal(capsys, "translate", "--run", run, "one")
    assert "generate`" in refusal(capsys, "translate", "--run", run, "--attention", "a.html", "one")
    assert "evaluate --text FILE`" in refusal(capsys, "evaluate", "--run", run, "--tsv", "valid.tsv")
    assert "evaluate --text FILE`" in refusal(capsys, "evaluate", "--run", run)
    said = refusal(capsys, "generate", "--run", "translator", "one")
    assert "a language model is required" in said and "translate`" in said
    said = refusal(capsys, "evaluate", "--run", "translator", "--text", "valid.txt")
    assert "a language model is required" in said and "--source and --reference" in said


def test_evaluate_measures_each_token_and_each_byte_of_a_text(run, folder, capsys):
    assert main(["evaluate", "--run", run, "--text", "valid.txt"]) == 0
    out = capsys.readouterr().out
    text = (folder / "valid.txt").read_bytes()
    loaded = load_run(folder / run, "numpy")
    model = models.load(folder / run)
    log_prob = model.score([text.decode()])[0]
    tokens = len(loaded.tokenizer.target.encode([text.decode().replace("\n", "")])[0])
    assert f"10 lines, {len(text)} bytes, " in out and tokens > 0
    assert f"{np.exp(-log_prob / len(text)):.4f} per byte ({-log_prob / len(text) / np.log(2):.4f} bits)" in out
    best = read_checkpoint(folder / run / "best.safetensors").progress.best_loss
    assert f"loss        {best:.4f} nats per token" in out and f"perplexity  {np.exp(best):.3f} per token" in out


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--tsv", "valid.tsv"], "no option for translations is allowed; got --tsv"),
        (["--beam", "3"], "got an option of beam search"),
        (["--errors", "3"], "got --errors"),
        (["--output", "o.txt"], "got --output"),
        (["--tokenize", "char"], "got --tokenize"),
    ],
)
def test_options_for_translations_are_refused(run, capsys, arguments, said):
    assert said in refusal(capsys, "evaluate", "--run", run, "--text", "valid.txt", *arguments)


@pytest.mark.parametrize(
    "content, said", [(b"", "is empty"), (b"\xff", "UTF-8 is required"), (b"\xff\xfea\0", "UTF-16")]
)
def test_text_that_cannot_be_read_is_refused(run, capsys, tmp_path, content, said):
    (tmp_path / "bad.txt").write_bytes(content)
    assert said in refusal(capsys, "evaluate", "--run", run, "--text", str(tmp_path / "bad.txt"))
    assert "directory" in refusal(capsys, "evaluate", "--run", run, "--text", str(tmp_path))
    assert "nowhere" in refusal(capsys, "evaluate", "--run", run, "--text", "nowhere")


def test_a_run_is_inspected_averaged_and_drawn(run, folder, capsys, tmp_path):
    assert main(["inspect", f"{run}/best.safetensors"]) == 0
    assert "kind language" in (out := capsys.readouterr().out) and "embedding.weight" in out
    assert main(["average", run, "--last", "2"]) == 0
    assert main(["generate", "--run", f"{run}/average-2.safetensors", "one", "--max-length", "2"]) == 0
    (folder / run / "average-2.safetensors").unlink()
    for name, arguments in (("run", ["--run", run]), ("small", ["--model", "language"])):
        assert main(["draw", *arguments, "--out", str(tmp_path / f"{name}.dot")]) == 0
        assert "decoder" in (tmp_path / f"{name}.dot").read_text()


def test_training_ends_with_a_command_to_try(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["train", "--model.kind", "language", "--model.layers", "1", "--model.width", "16", "--steps", "2"]
    texts = ["--train-text", str(folder / "train.txt"), "--valid-text", str(folder / "valid.txt")]
    assert main([*command, *texts, "--dry-run"]) == 0
    dry = capsys.readouterr().out
    assert "settings chosen for 1," in dry and "bytes of text" in dry and "--optim.label-smoothing 0.0" in dry
    assert "tokens to train on" in dry and not (tmp_path / "runs").exists()
    assert main([*command, *texts]) == 0
    captured = capsys.readouterr()
    name = f"runs/{folder.name}-language-1"
    assert f'generate --run {name} "' in captured.out and " a byte\n" in captured.out
    assert main(["train", "--resume", "--out", name]) == 0  # a finished run is only reported


def test_a_command_to_try_works_with_text_that_begins_with_a_dash(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.txt").write_text("- red dog 5\n- blue cat 7\n" * 20)
    Path("valid.txt").write_text("- red cat 5\n" * 3)
    command = ["train", "--model.kind", "language", "--model.layers", "1", "--model.width", "16", "--steps", "2"]
    assert main([*command, "--train-text", "train.txt", "--valid-text", "valid.txt"]) == 0
    tried = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert tried[-2:] == ["--", "- red cat 5"]
    assert main([*tried[1:-2], "--max-length", "2", *tried[-2:]]) == 0
    assert "follows the word --" in refusal(capsys, *tried[1:-2], tried[-1])


# ---- from Python ----


def test_load_returns_what_generates_and_scores(folder):
    model = models.load(folder / "language")
    assert isinstance(model, TextModel)
    assert model.generate([]) == model.score([]) == []
    texts = model.generate(["one two ", ""])
    assert texts[0].startswith("one two") and texts == model.generate(["one two", ""])
    scores = model.score(["one two", "one two three", "", "two one"])
    assert scores[1] < scores[0] < scores[2] == 0.0
    with pytest.raises(UserError, match=r"use generate\(prompts\) or score\(texts\)"):
        model.translate(["one"])
    with pytest.raises(UserError, match=r"use translate\(texts\)"):
        models.load(folder / "translator").generate(["one"])
    with pytest.raises(TypeError, match="a list of texts is required, got the text 'one'"):
        model.generate("one")


def test_a_score_is_the_sum_over_tokens_each_read_once(folder):
    model = models.load(folder / "language")
    text = " ".join(["one two three four"] * 8)
    ids = model.encode(text)
    assert len(ids) > 12
    log_probs, longest = [], 12
    first, stop = 0, 12
    while first < len(ids):
        start = max(stop - longest, 0)
        logits = model.model([[]], [[2, *ids[start : stop - 1]]]).numpy()[0].astype(float)
        table = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        log_probs += [table[t - start, ids[t]] for t in range(first, stop)]
        first, stop = stop, min(stop + 6, len(ids))
    assert len(log_probs) == len(ids) and abs(model.score([text])[0] - sum(log_probs)) < 1e-3


def test_spoilt_weights_are_refused_with_the_number_of_the_prompt(folder):
    model = models.load(folder / "language")
    weight = model.model.embedding.weight
    weight.replace(np.full(weight.shape, np.nan, np.float32))
    with pytest.raises(UserError, match="those for line 1 are NaN or infinite"):
        model.generate(["one", "two"])
    with pytest.raises(UserError, match="those for line 1 are NaN or infinite"):
        model.score(["one"])
