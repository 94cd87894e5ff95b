"""A run that is stopped and resumed writes the same bytes as one that was never stopped."""

import itertools
import os
import re
import shutil
import signal
import warnings

import numpy as np
import pytest

import nn
import tensorlib as tl
from models.cli.main import main
from models.runs.checkpoint import digest, read_checkpoint, step_checkpoints
from models.runs.directory import has_weights
from models.system.errors import UserError
from models.system.stopping import Stopped
from tests.small_runs import StopsAt, config_maker, log_of, resume, train, trainer_for


@pytest.fixture
def make_config(tmp_path):
    return config_maker(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Train a whole run: 26 pairs in batches of 5 make 6 batches per epoch, of which a step takes 2."""
    folder = tmp_path_factory.mktemp("undisturbed")
    config = config_maker(folder)()
    train(config, folder / "run")
    return config, folder / "run"


def files(run):
    names = ["config.toml", "log.jsonl", "best.safetensors", max(run.glob("step-*")).name]
    return {name: (run / name).read_bytes() for name in names}


@pytest.mark.parametrize("at_once", [False, True], ids=["saved", "killed"])
@pytest.mark.parametrize("check", [1, 3, 5, 6, 7, 8, 14, 21])
def test_a_stopped_run_ends_in_the_same_bytes(undisturbed, tmp_path, check, at_once):
    config, whole = undisturbed
    with pytest.raises(Stopped) as stopped:
        train(config, tmp_path / "run", StopsAt(check, at_once))
    if not at_once:
        assert f"--resume --out {tmp_path / 'run'}" in stopped.value.saved
    resume(tmp_path / "run")
    assert files(tmp_path / "run") == files(whole)


def test_a_run_may_be_stopped_at_every_check_in_turn(undisturbed, tmp_path):
    config, whole = undisturbed
    out, stops = tmp_path / "run", 0
    with pytest.raises(Stopped):
        train(config, out, StopsAt(1))
    for _ in range(40):  # each time the first two checks pass and the third stops
        try:
            resume(out, StopsAt(3))
            break
        except Stopped:
            stops += 1
    assert stops > 5 and files(out) == files(whole)


def test_so_may_a_run_with_every_option_of_training(tmp_path):
    given = {
        "tokenizer": {"vocabulary": 330, "dropout": 0.3},
        "optim": {"ema": 0.9},
        "model": {"attention_dropout": 0.1, "embedding_dropout": 0.0},
        "validate_every": 2,
        "bleu_sentences": 4,
        "best_by": "bleu",
        "patience": 5,
    }
    config = config_maker(tmp_path)(**given)
    whole = train(config, tmp_path / "whole")
    assert whole.out_of_patience and whole.progress.step == 12  # BLEU never improves
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train(config, out, StopsAt(1))
    for at_once in itertools.cycle([False, False, True]):
        try:
            resume(out, StopsAt(9, at_once))
            break
        except Stopped:
            continue
    assert files(out) == files(tmp_path / "whole")


def test_a_checkpoint_from_before_bleu_and_patience_resumes(undisturbed, tmp_path):
    """Older checkpoints lack some fields of `Progress`, and the three kinds of dropout."""
    config, whole = undisturbed
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", StopsAt(12))
    path = max((tmp_path / "run").glob("step-*"))
    tensors, metadata = tl.load(path), tl.load_metadata(path)
    for newer in ("best_bleu", "waited"):
        del metadata["progress"][newer]
    for newer in ("attention_dropout", "feed_forward_dropout", "embedding_dropout"):
        del metadata["model"][newer]
    del metadata["digest"]
    tl.save(tensors, path, metadata | {"digest": digest(tensors, metadata)})
    resume(tmp_path / "run")
    assert files(tmp_path / "run") == files(whole)


def test_a_stop_saves_the_step_it_stopped_at(make_config, tmp_path):
    with pytest.raises(Stopped):
        train(make_config(validate_every=100), tmp_path / "run", StopsAt(3))
    assert read_checkpoint(tmp_path / "run" / "step-00000002.safetensors").progress.step == 2
    with pytest.raises(Stopped):  # also before the first step
        train(make_config(), tmp_path / "early", StopsAt(1))
    assert (tmp_path / "early" / "step-00000000.safetensors").exists()


@pytest.mark.parametrize("check", [1, 5, 9])
def test_a_stopped_run_leaves_the_checkpoints_of_an_undisturbed_one(undisturbed, tmp_path, check):
    """Otherwise an average of the newest ones would be of other steps. Stopped twice: before and after resuming."""
    config, whole = undisturbed
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", StopsAt(check))
    with pytest.raises(Stopped):
        resume(tmp_path / "run", StopsAt(3))
    resume(tmp_path / "run")
    assert [path.name for path in step_checkpoints(tmp_path / "run")] == [p.name for p in step_checkpoints(whole)]


def test_a_damaged_newest_checkpoint_costs_steps_not_the_run(undisturbed, tmp_path):
    config, whole = undisturbed
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", StopsAt(12, at_once=True))
    newest = max((tmp_path / "run").glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:-7])
    resume(tmp_path / "run")
    assert files(tmp_path / "run") == files(whole)


def test_a_damaged_checkpoint_is_none_of_those_that_are_kept(make_config, tmp_path, capsys):
    """Otherwise a good one is removed in its place, and `average` fails on it."""
    run = tmp_path / "run"
    train(make_config(keep=3, save_every=2, steps=9), run)
    assert [path.name[5:-12] for path in step_checkpoints(run)] == ["00000006", "00000008", "00000009"]
    newest = step_checkpoints(run)[-1]
    newest.write_bytes(newest.read_bytes()[:-7])
    assert main(["train", "--resume", "--out", str(run), "--steps", "11"]) == 0
    shown = capsys.readouterr().err
    assert "; set aside as unusable-00000009.safetensors; training continues from step-00000008.safetensors\n" in shown
    assert "restore it" not in shown
    assert [path.name[5:-12] for path in step_checkpoints(run)] == ["00000008", "00000010", "00000011"]
    assert main(["average", "--run", str(run)]) == 0 and "steps 8, 10, 11\n" in capsys.readouterr().out
    best = run / "best.safetensors"
    for path in (best, *step_checkpoints(run), run / "average-3.safetensors"):
        path.unlink()
    assert not has_weights(run)


def test_resuming_a_finished_run_changes_nothing(undisturbed):
    before = files(undisturbed[1])
    resume(undisturbed[1])
    assert files(undisturbed[1]) == before


def test_a_run_whose_checkpoints_were_removed_does_not_begin_again(make_config, tmp_path):
    run = tmp_path / "run"
    train(make_config(), run)
    best = (run / "best.safetensors").read_bytes()
    for path in step_checkpoints(run):
        path.unlink()
    with pytest.raises(UserError, match=r"step-\*\.safetensors is required to continue; found only best\.safetensors"):
        resume(run)
    assert (run / "best.safetensors").read_bytes() == best


def killed_at(change, run, config):
    """Start or resume a run in another process, which kills itself at its nth change of a file; return its status."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child of a process with threads must not use them
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = itertools.count(change, -1)
    for name in ("fsync", "mkdir", "rename", "replace", "unlink"):
        really = getattr(os, name)
        setattr(os, name, lambda *a, _do=really, **k: os.kill(os.getpid(), 9) if next(left) == 0 else _do(*a, **k))
    try:
        resume(run) if run.exists() else train(config, run)
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("first", range(2))
def test_killed_at_any_change_of_a_file_a_run_ends_in_the_same_files(make_config, tmp_path, first):
    """Each process gets as far as the next change, a few more than the one before, until one gets to the end."""
    config = make_config(keep=2, bleu_sentences=2, optim={"ema": 0.9})
    train(config, tmp_path / "whole")
    for change in itertools.count(first, 6):
        status = killed_at(change, tmp_path / "run", config)
        if status != -signal.SIGKILL:
            break
    assert status == 0 and change > 20
    assert main(["train", "--resume", "--out", str(tmp_path / "run")]) == 0  # also what the last process left
    assert sorted(os.listdir(tmp_path / "run")) == sorted(os.listdir(tmp_path / "whole"))
    assert sorted(os.listdir(tmp_path)) == ["run", "train.tsv", "valid.tsv", "whole"]
    for name in set(os.listdir(tmp_path / "whole")) - {"speed.jsonl"}:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_schedule_that_training_ends_later_raises_the_rate_which_is_said(make_config, tmp_path, capsys):
    run = tmp_path / "run"
    train(make_config(), run)
    said = re.compile(r"^the learning rate rises from (\S+) to (\S+), because the cosine follows --steps$", re.M)
    assert main(["train", "--resume", "--out", str(run), "--steps", "26"]) == 0
    low, high = map(float, said.search(capsys.readouterr().err).groups())
    rates = [entry["learning_rate"] for entry in log_of(run) if entry["kind"] == "train"]
    assert low == rates[12] == 0 and rates[12] < rates[13] < high
    assert high == pytest.approx(nn.schedules.cosine(5e-4, 3, 26)(13), rel=0.05)  # as if it had been so all along
    changes = ["--resume-with", "optim.learning_rate", "--optim.learning-rate", "1e-3"]  # asks for another rate
    assert main(["train", "--resume", "--out", str(run), "--steps", "40", *changes]) == 0
    assert "rises" not in capsys.readouterr().err
    train(make_config(optim={"schedule": "inverse-sqrt"}), tmp_path / "other")
    assert main(["train", "--resume", "--out", str(tmp_path / "other"), "--steps", "26"]) == 0
    assert "rises" not in capsys.readouterr().err


def test_resuming_a_finished_run_does_what_was_left_undone(make_config, tmp_path, capsys):
    """As after a kill between the last checkpoint and the removal of older ones: it prunes, reports, and succeeds."""
    run = tmp_path / "run"
    train(make_config(save_every=4), run)
    config = run / "config.toml"
    config.write_text(config.read_text().replace("keep = 99", "keep = 2"))
    shutil.copy(run / "step-00000012.safetensors", run / ".step-00000013.safetensors.abcdefgh")
    assert len(step_checkpoints(run)) == 4
    assert main(["train", "--resume", "--out", str(run), "--steps", "13"]) == 0
    shown = capsys.readouterr()
    assert f"run {run}: finished at step 13; to continue, use --steps N above 13" in shown.err
    assert f"removed what a killed process left unfinished: {run}/.step-00000013" in shown.err
    assert "validation chrF" in shown.out
    assert [path.name for path in step_checkpoints(run)] == ["step-00000012.safetensors", "step-00000013.safetensors"]


def test_pruning_never_counts_a_damaged_checkpoint_that_is_to_be_written_again(make_config, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(Stopped):
        train(make_config(keep=1, save_every=2, validate_every=100), run, StopsAt(8, at_once=True))
    assert (run / "step-00000006.safetensors").exists()  # to resume from
    (run / "step-00000008.safetensors").write_bytes(b"torn")
    with pytest.raises(Stopped):
        resume(run, StopsAt(2, at_once=True))
    assert step_checkpoints(run) == [run / "step-00000006.safetensors"]
    assert (run / "unusable-00000008.safetensors").read_bytes() == b"torn"
    assert resume(run).finished


def test_a_checkpoint_that_is_being_read_is_removed_later(make_config, tmp_path, monkeypatch):
    """Windows removes no open file."""
    really = os.unlink

    def unlink(path, **options):
        if str(path).endswith("step-00000003.safetensors"):
            raise PermissionError(13, "The process cannot access the file", str(path))
        really(path, **options)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        train(make_config(keep=1), run)
    assert [path.name for path in step_checkpoints(run)] == ["step-00000003.safetensors", "step-00000013.safetensors"]
    resume(run)
    assert [path.name for path in step_checkpoints(run)] == ["step-00000013.safetensors"]


@pytest.mark.parametrize("log", [None, b"", b"damaged\n"])
def test_a_log_that_is_lost_does_not_end_training(make_config, tmp_path, log):
    trainer = trainer_for(make_config(), tmp_path / "run")
    trainer.validate()
    path = tmp_path / "run" / "log.jsonl"
    path.unlink() if log is None else path.write_bytes(log)
    trainer.train()
    assert trainer.finished


def test_resuming_with_other_text_or_subwords_is_refused(make_config, tmp_path):
    config = make_config(steps=2)
    train(config, tmp_path / "run")
    text = (tmp_path / "train.tsv").read_text()
    (tmp_path / "train.tsv").write_text(text.replace("seven", "eleven"))
    with pytest.raises(UserError, match="the data that it was trained with is required"):
        resume(tmp_path / "run")
    train(config, tmp_path / "other")
    (tmp_path / "train.tsv").write_text(text)
    (tmp_path / "run" / "tokenizer.model").write_bytes((tmp_path / "other" / "tokenizer.model").read_bytes())
    with pytest.raises(UserError):
        resume(tmp_path / "run")


def test_only_the_newest_checkpoints_stay(make_config, tmp_path):
    train(make_config(save_every=1, keep=2, steps=5), tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run").glob("step-*"))
    assert kept == ["step-00000004.safetensors", "step-00000005.safetensors"]


@pytest.mark.parametrize("damage", [b"{", b"\xff\xfe", b"[]", b'{"kind": "train"}', b'{"kind": "train", "step": "x"}'])
def test_a_damaged_line_of_the_log_is_dropped_with_a_warning(undisturbed, tmp_path, damage):
    config, whole = undisturbed
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", StopsAt(8))
    log = tmp_path / "run" / "log.jsonl"
    lines = log.read_bytes().split(b"\n")
    log.write_bytes(b"\n".join([lines[0], damage, *lines[1:]]))
    shown = resume(tmp_path / "run").display.stream.getvalue()
    assert f"{log}: left out line 2, which is damaged" in shown
    assert files(tmp_path / "run") == files(whole)


def test_a_full_disk_names_the_file_and_says_what_remains(make_config, tmp_path, monkeypatch):
    trainer = trainer_for(make_config(), tmp_path / "run")
    trainer.save()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.training.saving.write_checkpoint", full)
    trainer.progress.step = 1
    with pytest.raises(OSError, match=r"No space left on device; earlier checkpoints are intact: .*step-00000001"):
        trainer.save()


def test_weights_that_are_not_finite_are_never_saved(make_config, tmp_path):
    trainer = trainer_for(make_config(), tmp_path / "run")
    weight = next(trainer.model.parameters())
    weight.replace(np.full(weight.shape, np.nan, np.float32))
    with pytest.raises(UserError, match="finite weights are required"):
        trainer.save()
    assert not list((tmp_path / "run").glob("*.safetensors*"))
