"""Training a language model: its windows, what decides the bytes of a run, validation, and what is refused."""

import itertools

import numpy as np
import pytest

import tensorlib as tl
from models.architectures.build import build_model
from models.evaluation.text_model import stream_loss
from models.runs.checkpoint import read_checkpoint
from models.runs.config_layers import config_from
from models.runs.loading import load_run
from models.system.errors import CheckpointError, UserError
from models.system.stopping import Stopped, Stopper
from models.text.stream import encode_lines
from models.text.tokens import BOS, PAD
from models.training.corpus import encode_corpus, read_corpus, train_tokenizer
from models.training.epochs import Epochs
from models.training.start import Plan, prepare_run, resume_run
from models.training.validation import sample_prompts
from tests.small_runs import StopsAt, language_config_maker, log_of, resume, train, trainer_for


@pytest.fixture
def make_config(tmp_path):
    return language_config_maker(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    config = language_config_maker(folder)()
    train(config, folder / "run")
    return config, folder / "run"


def prepared(config):
    return prepare_run(Plan(config, read_corpus(config)))


def epoch(run, number, first=0):
    epochs = Epochs(run)
    return epochs.batches(number, first, epochs.count(number))


def words_of(batches):
    """Return what the batches predict, window by window, in the order of the text if each is cut once."""
    return [row[row != PAD].tolist() for batch in batches for row in batch.target_out_BT]


# ---- the windows of each epoch ----


@pytest.mark.parametrize("limit", [{"batch_sentences": 5}, {"batch_tokens": 50, "batch_sentences": 0}])
@pytest.mark.parametrize("number", [0, 1, 7])
def test_every_token_is_predicted_once_an_epoch_from_the_tokens_before_it(make_config, limit, number):
    run = prepared(make_config(**limit))
    batches, stream = epoch(run, number), run.examples.train.tolist()
    assert sum(batch.tokens for batch in batches) == len(stream)
    for batch in batches:
        assert batch.source_BS.shape == (len(batch.target_in_BT), 0) and batch.target_in_BT.shape[1] <= 12
        assert (batch.target_in_BT[:, 0] == BOS).all()
        for read, predicted in zip(batch.target_in_BT, batch.target_out_BT, strict=True):
            length = np.count_nonzero(predicted)
            assert read[1:length].tolist() == predicted[: length - 1].tolist() and not predicted[length:].any()
    found = words_of(batches)
    assert sorted(map(len, found))[2:] == [12] * (len(found) - 2)  # only the first and the last may be shorter
    rows = {tuple(row) for row in found}
    cuts = [c for c in range(12) if all(tuple(stream[a : a + 12]) in rows for a in range(c, len(stream) - 12, 12))]
    assert cuts  # the windows are those of the text at some offset


def test_each_epoch_cuts_elsewhere_and_in_the_same_way_each_time(make_config):
    run = prepared(make_config())
    seen = [words_of(epoch(run, number)) for number in range(8)]
    assert seen == [words_of(epoch(run, number)) for number in range(8)]
    assert len({len(min(words, key=len)) for words in seen}) > 1 and all(a != b for a, b in itertools.pairwise(seen))
    assert words_of(epoch(prepared(make_config(seed=1)), 0)) != seen[0]
    assert words_of(epoch(run, 2, 3)) == [
        row for batch in epoch(run, 2)[3:] for row in words_of([batch])
    ]  # as when a run resumes there


def test_bpe_dropout_splits_each_epoch_differently(make_config):
    run = prepared(make_config(tokenizer={"dropout": 0.5}))
    subwords = run.tokenizer.target
    lengths = [sum(map(len, words_of(epoch(run, number)))) for number in range(3)]
    assert len(set(lengths)) > 1 and min(lengths) > len(run.examples.train)
    ends = [sum(row.count(subwords.line_end) for row in words_of(epoch(run, number))) for number in range(3)]
    assert ends == [60] * 3  # the line ends of the text


# ---- runs ----


def files(run):
    names = ["config.toml", "log.jsonl", "best.safetensors", max(run.glob("step-*")).name]
    return {name: (run / name).read_bytes() for name in names}


@pytest.mark.parametrize("at_once", [False, True], ids=["saved", "killed"])
@pytest.mark.parametrize("check", [2, 5, 9, 14])
def test_a_stopped_run_ends_in_the_same_bytes(undisturbed, tmp_path, check, at_once):
    config, whole = undisturbed
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", StopsAt(check, at_once))
    resume(tmp_path / "run")
    assert files(tmp_path / "run") == files(whole)


def test_a_run_learns_and_loads_and_its_loss_is_that_of_its_log(undisturbed):
    _, run = undisturbed
    valid = [entry for entry in log_of(run) if entry["kind"] == "valid"]
    assert valid[-1]["loss"] < valid[0]["loss"] and "bleu" not in valid[0]
    loaded = load_run(run, "numpy")
    lines = (run.parent / "valid.txt").read_text().splitlines()
    result = stream_loss(loaded.model, encode_lines(loaded.tokenizer.target, lines))
    assert result.loss == min(entry["loss"] for entry in valid)
    assert read_checkpoint(run / "best.safetensors").model_config == loaded.model.config


def test_text_that_changed_cannot_be_resumed(undisturbed, tmp_path):
    config, _ = undisturbed
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", StopsAt(7))
    other = tmp_path / "other.txt"
    other.write_text("another text\n" * 60)
    stopper = Stopper()
    with pytest.raises(CheckpointError, match="the run's data differs"):
        trainer = resume_run(tmp_path / "run", stopper, ("command line", {"train_text": str(other)}))
        with trainer.lock:
            from models.training.optimizer import make_optimizer
            from models.training.saving import CheckpointSaver

            CheckpointSaver(trainer, make_optimizer(trainer.config, trainer.model), None).restore(warn=print)


def test_the_samples_of_a_validation_are_continuations_of_the_validation_text(undisturbed):
    _, run = undisturbed
    text = (run.parent / "valid.txt").read_text()
    entries = [entry for entry in log_of(run) if entry["kind"] == "valid"]
    for entry in entries:
        assert len(entry["samples"]) == 3
        for sample in entry["samples"]:
            assert sample["source"] + sample["reference"] in text and sample["reference"]
    assert entries[0]["samples"][0]["source"] == entries[-1]["samples"][0]["source"]
    assert (run / "samples.txt").read_text().count("source") == 3


@pytest.mark.parametrize(
    "ids, count, longest", [([9], 3, 8), ([5, 9, 6, 9], 9, 2), ([9] * 50, 3, 100), ([5, 6] * 30, 2, 8)]
)
def test_prompts_begin_with_a_line_have_one_length_and_leave_something_to_predict(ids, count, longest):
    found = sample_prompts(np.array(ids), 9, count, longest)
    assert 0 < len(found) <= count and len({stop - start for start, stop in found}) == 1
    for start, stop in found:
        assert (start == 0 or ids[start - 1] == 9) and start <= stop < len(ids)


def test_drawing_samples_does_not_disturb_the_training_that_follows(make_config, tmp_path):
    shown, quiet = make_config(samples=5, validate_every=2), make_config(samples=0, validate_every=2)
    states = []
    for name, config in (("shown", shown), ("quiet", quiet)):
        train(config, tmp_path / name)
        states.append(read_checkpoint(tmp_path / name / "step-00000013.safetensors").model)
    assert all((states[0][key] == states[1][key]).all() for key in states[0])


def test_a_long_text_of_one_line_and_one_of_one_character_train(make_config, tmp_path):
    (tmp_path / "one.txt").write_text("ab " * 500)
    (tmp_path / "tiny.txt").write_text("x")
    for name in ("one", "tiny"):
        given = {f"{part}_text": str(tmp_path / f"{name}.txt") for part in ("train", "valid")}
        trainer = train(make_config(steps=2, **given), tmp_path / f"run-{name}")
        assert any("also in the training" in note for note in trainer.run.corpus.notes)


# ---- settings ----


def given(**changes):
    return {"train_text": "/t", "valid_text": "/v", "model": {"kind": "language"}} | changes


@pytest.mark.parametrize(
    "settings, said",
    [
        (given(valid_text=""), "--train-text and --valid-text, and no other text, are required .*; got --train-text$"),
        (given(train_tsv="/x"), "got --train-tsv, --train-text, --valid-text"),
        ({"model": {"kind": "language"}}, "for --model.kind language; got none of them"),
        (given(model={}), "--train-text and --valid-text require a language model; got --model.kind transformer"),
        (given(model={"kind": "lstm"}), "got --model.kind lstm"),
        (given(best_by="bleu"), "BLEU compares translations, .*; got --best-by bleu"),
        (given(bleu_sentences=3), "got --bleu-sentences"),
        (given(bleu_tokenize="zh"), "got --bleu-tokenize"),
        (given(tokenizer={"shared": False}), "one vocabulary; leave out --tokenizer.no-shared"),
        (given(data="phrasebook"), "text from one place is required; got data phrasebook and --train-text"),
        (given(model={"kind": "language", "source_vocabulary": 3}), "source_vocabulary"),
        (given(model={"kind": "language", "vocabulary": 3}), "vocabulary"),
        (
            given(model={"kind": "language", "attention": "dot"}),
            "attention is a setting of model.kind lstm or gru or rnn, not of language; valid",
        ),
        (given(model={"kind": "language", "width": 6, "heads": 2}), "must be even for rotary positions, got 6 / 2"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_was_given(settings, said):
    with pytest.raises(UserError, match=said) as refused:
        config_from(("command line", settings))
    assert "\n" not in str(refused.value)


def test_text_named_on_the_command_line_replaces_that_of_the_file():
    config = config_from(("file", {"train_tsv": "/a", "valid_tsv": "/b"}), ("command line", given()))
    assert (config.train_text, config.train_tsv, config.valid_tsv) == ("/t", "", "")


UNREADABLE = [(b"", "the file is empty"), (b"a\xff\n", "UTF-8 is required"), (b"\n\n", "line that is not blank")]


@pytest.mark.parametrize("part", ["train_text", "valid_text"])
@pytest.mark.parametrize("content, said", UNREADABLE)
def test_text_that_cannot_be_read_is_refused(make_config, tmp_path, content, said, part):
    (tmp_path / "bad.txt").write_bytes(content)
    config = make_config(**{part: str(tmp_path / "bad.txt")})
    with pytest.raises(UserError, match=said):
        corpus = read_corpus(config)
        encode_corpus(config, corpus, train_tokenizer(config, corpus))


def test_a_step_of_the_loop_is_a_step_on_the_mean_of_all_tokens(make_config, tmp_path):
    trainer = trainer_for(make_config(model={"dropout": 0.0}, optim={"accumulate": 2, "clip": 0.0}), tmp_path / "run")
    batches = trainer.epochs.batches(0, 0, 2)
    model = build_model(trainer.model.config, tl.Generator(0))
    model.load_state_dict(trainer.model.state_dict())
    total = sum(model.loss(b.source_BS, b.target_in_BT, b.target_out_BT, 0.0, "sum").item() for b in batches) / sum(
        b.tokens for b in batches
    )
    trainer.step()
    assert abs(log_of(tmp_path / "run")[0]["loss"] - total) < 1e-6
