"""`tensorlib embed`: training, stopping and resuming, looking words up, and every mistake in one line."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import models
import tensorlib as tl
from models.cli.main import main
from models.runs.checkpoint import digest
from models.runs.vector_files import TRAINING, VECTORS, VectorSettings, read_state
from models.system.errors import CheckpointError, UserError
from models.system.stopping import Stopped, Stopper
from models.training.word_vectors import (
    MEASURE,
    batches_of,
    begin,
    chosen,
    held_out_quality,
    parts_of,
    read_corpus,
    train_vectors,
)
from tensorlib.exchange.safetensors import load_with_metadata

TENSORLIB = [sys.executable, "-c", "import sys; from models.cli.main import main; sys.exit(main())"]
SMALL = ["--dim", "8", "--min-count", "1", "--batch", "64"]


def text_of(lines):
    """Return lines about animals and lines about numbers, so that two groups of words occur together."""
    rng = np.random.default_rng(0)
    groups = [
        re.findall(r"\S+", part) for part in ("The cat and a dog, the cow's calf; Bird", "one two three four five six")
    ]
    return "".join(" ".join(rng.choice(groups[i % 2], 6)) + ".\n" for i in range(lines))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(text_of(300))
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    (folder / "text.txt").write_text(text_of(600))
    command = ["embed", "text.txt", *SMALL, "--epochs", "8", "--subsample", "1"]
    done = subprocess.run([*TENSORLIB, *command], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "text-vectors-1", done


def refusal(capsys, *arguments):
    capsys.readouterr()
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == "" and len(lines) == 1, captured
    return lines[0]


# ---- training --------------------------------------------------------------------------------------------------------


def test_a_run_has_its_words_and_vectors_and_says_how_good_they_are(trained):
    run, done = trained
    assert sorted(path.name for path in run.iterdir()) == ["train.lock", VECTORS, "words.txt"]
    words = (run / "words.txt").read_text().splitlines()
    animals, numbers = "the cat and a dog cow's calf bird", "one two three four five six"
    assert sorted(words) == sorted(re.findall(r"\S+", f"{animals} {numbers}"))
    tensors, metadata = load_with_metadata(run / VECTORS)
    assert tensors["vectors"].shape == tensors["contexts"].shape == (14, 8)
    assert tensors["counts"].sum() == 3600 and (np.diff(tensors["counts"]) <= 0).all()
    assert metadata["finished"] is True and metadata["settings"]["epochs"] == 8
    report = done.stdout
    assert "among 14 words" in report and "by these vectors" in report and "by frequency alone" in report
    assert f"--run {os.path.join('runs', 'text-vectors-1')} --near" in report
    ours, theirs = (float(line.split("log-probability ")[1].split(",")[0]) for line in report.splitlines()[1:3])
    assert theirs < -2.4 and ours > theirs + 0.4  # half of the words are ruled out, which is worth log 2 = 0.69


def test_words_that_occur_together_are_near(trained):
    vectors = models.WordVectors.load(trained[0])
    numbers = {"one", "two", "three", "four", "five", "six"}
    assert {word for word, _ in vectors.near("two", 5)} == numbers - {"two"}
    assert not {word for word, _ in vectors.near("dog", 7)} & numbers
    cosines = [cosine for _, cosine in vectors.near("two", 13)]
    assert cosines == sorted(cosines, reverse=True) and len(cosines) == 13


@pytest.mark.parametrize("objective", ["skip-gram", "cbow"])
@pytest.mark.parametrize("loss", ["negative-sampling", "softmax"])
@pytest.mark.parametrize("optimizer", ["adagrad", "sgd"])
def test_every_objective_loss_and_optimizer_trains(here, objective, loss, optimizer, capsys):
    arguments = ["--objective", objective, "--loss", loss, "--optimizer", optimizer, "--epochs", "1", "--out", "run"]
    assert main(["embed", "text.txt", *SMALL, *arguments]) == 0
    state = read_state(here / "run" / VECTORS)
    assert (state.settings.objective, state.settings.loss) == (objective, loss)
    assert np.isfinite(state.model.inputs_VD).all() and state.model.outputs_VD.any()
    assert "saved in run" in capsys.readouterr().out


def vectors_of(run):
    return (run / VECTORS).read_bytes()


def test_equal_seeds_give_equal_bytes(here):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["embed", "text.txt", *SMALL, "--epochs", "1", "--out", name, "--seed", seed]) == 0
    assert vectors_of(here / "a") == vectors_of(here / "b") != vectors_of(here / "c")


class StopsAt(Stopper):
    """Asks for a stop before the nth batch."""

    def __init__(self, nth):
        super().__init__()
        self.left = nth

    def check(self):
        self.left -= 1
        if self.left < 0:
            raise Stopped(signal.SIGINT)


@pytest.mark.parametrize("objective", ["skip-gram", "cbow"])
def test_a_run_that_was_stopped_at_any_batch_ends_with_the_same_bytes(here, monkeypatch, objective):
    monkeypatch.setattr("models.training.word_vectors.PART", 300)  # several parts in an epoch
    settings = ["--epochs", "2", "--objective", objective]
    assert main(["embed", "text.txt", *SMALL, *settings, "--out", "whole"]) == 0
    stops = 0
    for nth in (0, 1, 4, 9, 14):
        run = f"stopped-{nth}"
        monkeypatch.setattr("models.cli.embed.Stopper", lambda nth=nth: StopsAt(nth))
        status = main(["embed", "text.txt", *SMALL, *settings, "--out", run])
        while status == 130:
            stops += 1
            assert not (here / run / VECTORS).exists()
            monkeypatch.setattr("models.cli.embed.Stopper", lambda nth=nth: StopsAt(nth + 7))
            status = main(["embed", "--resume", "--out", run])
        assert status == 0
        assert vectors_of(here / run) == vectors_of(here / "whole")
        assert not (here / run / TRAINING).exists()
    assert stops > 5


def test_ctrl_c_saves_and_says_how_to_resume(here):
    command = ["embed", "text.txt", *SMALL, "--epochs", "1000000", "--out", "run"]
    with subprocess.Popen([*TENSORLIB, *command], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (here / "run" / "writer.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
    assert process.returncode == 130, error
    assert re.search(
        rf"stopped by SIGINT at \d+%; saved {re.escape(os.path.join('run', TRAINING))}; resume with: ", error
    )
    assert "embed --resume --out run" in error and "Traceback" not in error
    state = read_state(here / "run" / TRAINING)
    assert not state.finished


def test_a_finished_run_is_only_reported(trained, capsys):
    before = vectors_of(trained[0])
    assert main(["embed", "--resume", "--out", str(trained[0])]) == 0
    assert "finished" in capsys.readouterr().err and vectors_of(trained[0]) == before


def test_a_loss_that_is_not_finite_ends_in_one_line(here, capsys):
    arguments = ["--optimizer", "sgd", "--learning-rate", "1e6", "--batch", "4096", "--epochs", "20", "--out", "run"]
    assert main(["embed", "text.txt", "--dim", "8", *arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "finite" in error and "start a new run with a lower --learning-rate" in error
    assert not (here / "run").exists()  # its settings would lead there again
    assert main(["embed", "text.txt", *SMALL, "--epochs", "1", "--out", "run"]) == 0


# ---- examples of training --------------------------------------------------------------------------------------------


def test_the_parts_of_an_epoch_have_every_sentence_once_but_the_held_out_ones(here, monkeypatch):
    monkeypatch.setattr("models.training.word_vectors.PART", 300)
    corpus = read_corpus(["text.txt"], VectorSettings(min_count=1))
    first, second = (parts_of(corpus, epoch) for epoch in (0, 1))
    assert len(first) > 3 and corpus.held_out.sum() == 300 // 50
    assert sorted(np.concatenate(first)) == np.flatnonzero(~corpus.held_out).tolist()
    assert [*np.concatenate(first)] != [*np.concatenate(second)]
    assert all(corpus.lengths[part].sum() <= 300 + 6 for part in first)


def test_batches_have_the_pairs_of_the_sentences_and_nothing_else(here):
    corpus = read_corpus(["text.txt"], VectorSettings(min_count=1, window=1, subsample=1, batch=4))
    ends = np.cumsum(corpus.lengths)
    sentences = [corpus.tokens_T[end - n : end].tolist() for end, n in zip(ends, corpus.lengths, strict=True)]
    batches = batches_of(corpus, np.array([7, 2]), 0, 0)
    pairs = [(c, o) for batch in batches for c, o in zip(batch.read.tolist(), batch.targets_P.tolist(), strict=True)]
    expected = [
        (s[i], s[j]) for s in (sentences[7], sentences[2]) for i in range(6) for j in (i - 1, i + 1) if 0 <= j < 6
    ]
    assert pairs == expected
    assert [len(batch.targets_P) for batch in batches] == [4] * 5


def test_every_batch_draws_its_own_negatives(here, monkeypatch):
    drawn = []
    step = "models.architectures.embeddings.Embeddings.step"
    monkeypatch.setattr(step, lambda model, batch, bits, rate: drawn.append(bits.random_raw()) or 0.0)
    corpus = read_corpus(["text.txt"], VectorSettings(min_count=1, epochs=2, batch=100, subsample=1))
    train_vectors(corpus, begin(corpus, ["text.txt"]), here, Stopper(), lambda *_: None)
    assert len({*drawn}) == len(drawn) > 20


@pytest.mark.parametrize("words, expected", [(100, (1, 20)), (10_000, (2, 20)), (1_000_000, (5, 10)), (10**8, (5, 3))])
def test_defaults_suit_the_size_of_the_text(words, expected):
    found = chosen(VectorSettings(), words)
    assert (found.min_count, found.epochs) == expected
    own = VectorSettings(min_count=3, epochs=1, learning_rate=0.5)
    assert chosen(own, words) == own


# ---- looking words up ------------------------------------------------------------------------------------------------


def test_near_and_analogy_print_tables(trained, capsys):
    run = str(trained[0])
    assert main(["embed", "--run", run, "--near", "dog", "--near", "two", "--count", "3"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert (out[0], out[4], len(out)) == ("dog", "two", 8)
    assert [line.split()[1] for line in out[1:4]] == [w for w, _ in models.WordVectors.load(run).near("dog", 3)]
    assert main(["embed", "--run", run, "--analogy", "one", "two", "three", "--count", "2"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "two - one + three" and len(out) == 3


def test_the_newest_run_is_the_default(here, capsys):
    assert main(["embed", "text.txt", *SMALL, "--epochs", "1", "--near", "dog", "--count", "1"]) == 0
    first = capsys.readouterr().out.splitlines()[-2:]
    assert main(["embed", "--near", "dog", "--count", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == first


def test_the_text_format_is_that_of_word2vec(trained):
    run = trained[0]
    assert main(["embed", "--run", str(run), "--text-format"]) == 0
    head, *rows = (run / "vectors.txt").read_text().splitlines()
    (run / "vectors.txt").unlink()
    assert head == "14 8"
    vectors = models.WordVectors.load(run)
    for row in rows:
        word, *numbers = row.split(" ")
        assert (np.array(numbers, dtype=np.float32) == vectors.vector(word)).all()
    assert [row.split(" ")[0] for row in rows] == vectors.words


def test_cosines_and_analogies_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(30)]
    vectors = models.WordVectors(words, rng.standard_normal((30, 5)))
    unit = vectors.vectors_VD / np.linalg.norm(vectors.vectors_VD, axis=1, keepdims=True)
    expected = unit @ unit[3]
    near = vectors.near("w3", 29)
    assert [word for word, _ in near] == [words[i] for i in np.argsort(-expected)[1:]]
    np.testing.assert_allclose([cosine for _, cosine in near], np.sort(expected)[::-1][1:], rtol=1e-5)
    target = unit[4] - unit[3] + unit[5]
    scores = unit @ target / np.linalg.norm(target)
    scores[[3, 4, 5]] = -2
    found = vectors.analogy("w3", "w4", "w5", 1)[0]
    assert found[0] == words[scores.argmax()] and found[1] == pytest.approx(scores.max(), rel=1e-5)
    assert models.WordVectors(["a", "b"], np.zeros((2, 3))).near("a") == [("b", 0.0)]


# ---- mistakes --------------------------------------------------------------------------------------------------------


def test_mistakes_with_text_are_one_line(here, capsys):
    (here / "empty.txt").write_text("")
    (here / "marks.txt").write_text("... !!!\n")
    (here / "one.txt").write_text("word word word\n")
    (here / "column.txt").write_text("a\nb\na\nb\n")
    (here / "latin1.txt").write_bytes("caf\xe9 caf\xe9\n".encode("latin1"))
    assert "empty.txt: at least one line is required; the file is empty" in refusal(capsys, "embed", "empty.txt")
    assert "marks.txt: text with words is required" in refusal(capsys, "embed", "marks.txt")
    assert "at least two words that occur 1 time are required; found 1" in refusal(capsys, "embed", "one.txt")
    assert "at least two words that occur 99,999 times" in refusal(capsys, "embed", "text.txt", "--min-count", "99999")
    assert "a line with two words is required" in refusal(capsys, "embed", "column.txt")
    assert "latin1.txt:1: UTF-8 is required" in refusal(capsys, "embed", "latin1.txt")
    assert "missing.txt: a readable file is required" in refusal(capsys, "embed", "missing.txt")
    assert not (here / "runs").exists()


def test_mistakes_with_options_are_one_line(here, trained, capsys):
    run = str(trained[0])
    assert "a text file is required, or --near" in refusal(capsys, "embed")
    assert "there is none in" in refusal(capsys, "embed", "--near", "dog")
    assert "to look words up, use --run" in refusal(capsys, "embed", "--near", "dog", "--out", "x")
    assert "either text to train on or --run" in refusal(capsys, "embed", "text.txt", "--run", run)
    assert "--dim from 1 to 65536 is required; got 0" in refusal(capsys, "embed", "text.txt", "--dim", "0")
    assert "--subsample from" in refusal(capsys, "embed", "text.txt", "--subsample", "0")
    assert "--learning-rate from 0" in refusal(capsys, "embed", "text.txt", "--learning-rate", "nan")
    assert "--count of at least 1" in refusal(capsys, "embed", "--run", run, "--near", "dog", "--count", "0")
    assert "this one exists; name another" in refusal(capsys, "embed", "text.txt", "--out", ".")
    assert "leave it out" in refusal(capsys, "embed", "--resume", "--out", run, "--dim", "7")
    assert "--analogy needs 3 values" in refusal(capsys, "embed", "--run", run, "--analogy", "a", "b")


def test_settings_beside_resume_are_refused_although_they_are_the_defaults(here, stopped, capsys):
    for option in (["--dim", "100"], ["--seed", "0"], ["--keep-case"], ["--loss", "negative-sampling"]):
        error = refusal(capsys, "embed", "--resume", "--out", "run", *option)
        assert f"takes text and settings from the run; got {option[0]}; leave it out" in error
    assert "got a text file; leave it out" in refusal(capsys, "embed", "text.txt", "--resume", "--out", "run")
    assert "--resume takes the run from --out; got --run; use --resume --out run" in refusal(
        capsys, "embed", "--resume", "--run", "run"
    )


def test_options_without_effect_are_refused(here, trained, capsys):
    run = str(trained[0])
    look_up = ["embed", "--run", run, "--near", "dog"]
    assert "--dim requires a text file to train on" in refusal(capsys, *look_up, "--dim", "7", "--epochs", "3")
    assert "--keep-case requires a text file" in refusal(capsys, *look_up, "--keep-case")
    softmax = ["embed", "text.txt", "--loss", "softmax", "--negatives", "7"]
    assert "--negatives requires --loss negative-sampling" in refusal(capsys, *softmax)
    assert "--near or --analogy is required with --count" in refusal(capsys, "embed", "text.txt", "--count", "3")
    for option in ("--learning-rate", "--epochs", "--min-count"):
        assert f"{option} above 0 is required; got 0" in refusal(capsys, "embed", "text.txt", option, "0")
    assert not (here / "runs").exists()


def test_a_run_that_is_none_of_vectors_is_named_in_one_line(here, trained, capsys):
    run = trained[0]
    look_up = ["--near", "dog"]
    assert "there is none of this name; make one with" in refusal(capsys, "embed", "--run", "nowhere", *look_up)
    error = refusal(capsys, "embed", "--run", str(run / VECTORS), *look_up)
    assert f"this is a file; name its directory, {run}" in error
    (here / "other").mkdir()
    assert "this one has no vectors" in refusal(capsys, "embed", "--run", "other", *look_up)
    (here / "other" / "config.toml").write_text("")
    assert "this one has a translator or language model" in refusal(capsys, "embed", "--run", "other", *look_up)
    assert "there is none of this name" in refusal(capsys, "embed", "--resume", "--out", "nowhere")
    error = refusal(capsys, "inspect", str(run / VECTORS))
    assert "this file has word vectors; look words up with" in error and "embed --run" in error


def test_commands_for_models_lead_to_embed(here, trained, stopped, capsys):
    for command in (["translate", "cat"], ["generate", "cat"], ["average"]):
        at = "--run" if command[0] != "average" else ""
        for run, use in ((trained[0], f"embed --run {trained[0]} --near WORD"), (stopped, "embed --resume --out")):
            line = refusal(capsys, *command, *filter(None, [at, str(run)]))
            assert "this one has word vectors; use `" in line and use in line


def test_the_newest_run_has_any_name_and_resuming_takes_one_that_was_stopped(here, stopped, capsys):
    stopped.rename(here / "stopped")
    small = [*SMALL, "--epochs", "1"]
    assert main(["embed", "text.txt", *small, "--out", os.path.join("runs", "first")]) == 0
    assert re.search("1 run in .*runs, all finished; name another", refusal(capsys, "embed", "--resume"))
    (here / "stopped").rename(here / "runs" / "mine")
    assert main(["embed", "text.txt", *small]) == 0
    assert main(["embed", "--resume"]) == 0
    assert (here / "runs" / "mine" / VECTORS).exists()
    for i, name in enumerate(("mine", "text-vectors-1", "first"), start=1):
        os.utime(here / "runs" / name / "words.txt", (i, i))
    capsys.readouterr()
    assert main(["embed", "--text-format"]) == 0
    assert os.path.join("runs", "first") in capsys.readouterr().out


def test_a_text_too_small_to_measure_on_says_so(here, capsys):
    (here / "one.txt").write_text("a b c d " * 600)
    assert main(["embed", "one.txt", *SMALL, "--epochs", "1"]) == 0
    captured = capsys.readouterr()
    assert "2,400 words in 3 parts of at most 1,000 words" in captured.err
    assert "nothing is measured: a text of 50 lines or more is required" in captured.out


def test_a_text_of_which_nothing_is_left_to_train_on_is_refused(here, capsys):
    (here / "two.txt").write_text("red cat\n")
    assert main(["embed", "two.txt", *SMALL]) == 2
    assert "no epoch had any; use more text, or a --subsample above 0.001" in capsys.readouterr().err
    assert not (here / "runs" / "two-vectors-1").exists()
    assert main(["embed", "two.txt", *SMALL, "--subsample", "1"]) == 0


def test_vectors_with_equal_words_or_without_numbers_are_refused():
    for words, vectors, problem in (
        (["a", "b", "a"], np.ones((3, 2)), "'a' is there twice"),
        (["a", "b"], [[1, 2], [np.nan, 0]], "that of 'b' is not"),
        (["a", "b"], [[1, 2]], r"shape \(1, 2\)"),
    ):
        with pytest.raises(ValueError, match=problem):
            models.WordVectors(words, vectors)


def test_the_learning_rate_falls_linearly(here, monkeypatch):
    rates = []
    step = "models.architectures.embeddings.Embeddings.step"
    monkeypatch.setattr(step, lambda model, batch, bits, rate: rates.append(rate) or 0.0)
    corpus = read_corpus(["text.txt"], VectorSettings(min_count=1, epochs=2, batch=100, subsample=1, learning_rate=0.5))
    train_vectors(corpus, begin(corpus, ["text.txt"]), here, Stopper(), lambda *_: None)
    assert rates[0] == 0.5
    expected = 0.5 * (1 - np.arange(len(rates)) / len(rates))
    np.testing.assert_allclose(rates, expected, atol=0.02)


def test_the_frequency_baseline_leaves_out_frequent_words_as_often_as_training(here):
    """It is the best guess that reads nothing, so it beats the frequencies of the text where those are sub-sampled."""
    corpus = read_corpus(["text.txt"], VectorSettings(min_count=1, subsample=0.001))
    counts_V = corpus.vocabulary.counts_V
    _, unigram, _ = held_out_quality(corpus, begin(corpus, ["text.txt"]))
    sentences = np.flatnonzero(corpus.held_out)
    (batch,) = batches_of(corpus, sentences, MEASURE)
    kept_V = np.sqrt(counts_V * 0.001 * counts_V.sum())  # count times sqrt(threshold / share)
    log_p_V = np.log(kept_V / kept_V.sum())
    assert unigram.log_probability == pytest.approx(log_p_V[batch.targets_P].mean(), rel=1e-6)
    assert unigram.log_probability != pytest.approx(np.log(counts_V / counts_V.sum())[batch.targets_P].mean(), rel=1e-6)


def test_an_unknown_word_leads_to_known_ones(trained, capsys):
    run = str(trained[0])
    assert "'thre' is unknown; did you mean three" in refusal(capsys, "embed", "--run", run, "--near", "thre")
    assert "'Dog' is unknown; did you mean dog?" in refusal(capsys, "embed", "--run", run, "--near", "Dog")
    assert "words.txt has the 14 words" in refusal(capsys, "embed", "--run", run, "--near", "qqqqq")
    with pytest.raises(UserError, match="did you mean three"):
        models.WordVectors.load(run).vector("thre")


@pytest.fixture
def stopped(here):
    corpus = read_corpus(["text.txt"], VectorSettings(dim=8, batch=64))
    state = begin(corpus, ["text.txt"])
    run = here / "run"
    run.mkdir()
    (run / "words.txt").write_text("".join(f"{word}\n" for word in corpus.vocabulary.words))
    with pytest.raises(Stopped):
        train_vectors(corpus, state, run, StopsAt(3), lambda *_: None)
    return run


def test_text_that_has_changed_is_refused(stopped, capsys):
    with open("text.txt", "a") as file:
        file.write("one more line\n")
    assert "it has changed; restore it" in refusal(capsys, "embed", "--resume", "--out", "run")
    assert "this one was stopped; resume it with" in refusal(capsys, "embed", "--run", "run", "--near", "dog")


def test_every_flipped_byte_of_a_stopped_run_is_noticed(stopped):
    data = (stopped / TRAINING).read_bytes()
    for at in np.linspace(0, len(data) - 1, 60).astype(int):
        (stopped / TRAINING).write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(CheckpointError):
            read_state(stopped / TRAINING)
    (stopped / TRAINING).write_bytes(data[:1000])
    with pytest.raises(CheckpointError):
        read_state(stopped / TRAINING)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"finished": 1}, {"texts": "a"}, {"texts": [1]}, {"text_digest": None}, {"more": 1},
        {"progress": {"epoch": -1}}, {"progress": {"epoch": 0.5}}, {"progress": []}, {"progress": {"steps": 1}},
        {"settings": {}}, {"settings.dim": 2**40}, {"settings.dim": 9}, {"settings.dim": "8"}, {"settings.loss": "mse"},
        {"settings.learning_rate": -1}, {"settings.optimizer": "sgd"}, {"settings.window": 0},
        {"settings.power": 1e300},
        {"tensor.counts": np.zeros(14, np.int64)}, {"tensor.counts": np.ones((14, 1), np.int64)},
        {"tensor.vectors": np.full((14, 8), np.nan, np.float32)}, {"tensor.vectors": np.zeros((14, 8))},
        {"tensor.squares.vectors": np.full((14, 8), -1, np.float32)}, {"tensor.extra": np.zeros(1)},
        {"tensor.contexts": np.zeros((13, 8), np.float32)},
    ],
)  # fmt: skip
def test_a_forged_file_is_refused(stopped, change):
    tensors, metadata = load_with_metadata(stopped / TRAINING)
    del metadata["digest"]
    for key, value in change.items():
        section, _, name = key.partition(".")
        if section == "tensor":
            tensors[name] = value
        elif name:
            metadata[section][name] = value
        else:
            metadata[section] = value
    metadata = json.loads(json.dumps(metadata))
    tl.save(tensors, stopped / TRAINING, metadata | {"digest": digest(tensors, metadata)})
    with pytest.raises(CheckpointError, match="a file that `tensorlib embed` wrote is required"):
        read_state(stopped / TRAINING)


def test_words_that_do_not_fit_the_vectors_are_refused(trained, tmp_path):
    for text in ("a\nb\n", "a\n" * 14):
        (tmp_path / VECTORS).write_bytes((trained[0] / VECTORS).read_bytes())
        (tmp_path / "words.txt").write_text(text)
        with pytest.raises(UserError, match="14 different words are required"):
            models.WordVectors.load(tmp_path)
