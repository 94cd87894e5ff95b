"""A run that diverges leaves a checkpoint from before that, and says how to go on from there."""

import json
import re
import shlex

import numpy as np
import pytest

from models.cli.main import main
from models.evaluation.metrics import token_loss, worst_loss
from models.runs.checkpoint import read_checkpoint, step_checkpoints
from models.runs.loading import load_run
from models.system.errors import UserError
from models.system.stopping import Stopped, Stopper
from models.training.loop import Trainer
from models.training.start import resume_run
from tests.small_runs import StopsAt, config_maker, log_of, resume, train, trainer_for

# Without clipping, each update multiplies the loss by about 10,000, until it is infinite.
EXPLODES = {"name": "sgd", "momentum": 0.0, "learning_rate": 1e7, "warmup": 1000000, "clip": 0.0}
EXPLODES |= {"schedule": "constant", "max_skipped": 3}


@pytest.fixture
def make_config(tmp_path):
    return config_maker(tmp_path)


def exploding(make_config, **given):
    return make_config(**{"steps": 1000, "validate_every": 1000, "save_every": 1, "optim": EXPLODES} | given)


def steps_of(run):
    return [int(path.stem.removeprefix("step-")) for path in step_checkpoints(run)]


def spoil(trainer, factor=1e30):
    """Multiply all weights, as a bad update would."""
    for parameter in trainer.model.parameters():
        parameter.replace(parameter.data * np.float32(factor))


@pytest.mark.parametrize("keep", [1, 3])
def test_a_checkpoint_from_before_is_left_and_resuming_from_it_works(make_config, tmp_path, monkeypatch, capsys, keep):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        train(exploding(make_config, keep=keep), tmp_path / "run")
    message = str(error.value)
    assert "3 steps in a row were skipped" in message and "\n" not in message
    found = re.search(r"; (\S+) is from before that; resume from it with a lower .*: tensorlib (.*)", message)
    losses = {entry["step"]: entry["loss"] for entry in log_of(tmp_path / "run") if entry["kind"] == "train"}
    assert max(losses.values()) > 1e6  # weights whose loss was finite but huge were saved too
    limit = worst_loss(300)
    (step,) = steps_of(tmp_path / "run")
    assert str(step_checkpoints(tmp_path / "run")[0]) == found[1]
    assert losses[step + 1] <= limit < losses[step + 2]
    loaded = load_run(tmp_path / "run" / f"step-{step:08}.safetensors", "numpy")
    examples = trainer_for(make_config(), tmp_path / "other").run.examples.valid
    assert token_loss(loaded.model, examples).loss <= limit
    # what the message says works, here with a rate with which the run goes on
    resumption = shlex.split(found[2].replace("--optim.learning-rate 1e+06", "--optim.learning-rate 100"))
    assert main([*resumption, "--steps", str(step + 5)]) == 0
    assert f"resuming after step {step}" in capsys.readouterr().err
    assert read_checkpoint(tmp_path / "run" / "best.safetensors").progress.step == step + 5
    assert "learning_rate = 100.0" in (tmp_path / "run" / "config.toml").read_text()


def test_nothing_is_saved_or_removed_while_steps_are_skipped(make_config, tmp_path, monkeypatch):
    config = exploding(make_config, steps=20, keep=2, optim=EXPLODES | {"max_skipped": 100})
    trainer = trainer_for(config, tmp_path / "run")
    seen, skip = [], Trainer._skip
    monkeypatch.setattr(Trainer, "_skip", lambda self, *a: skip(self, *a) or seen.append(steps_of(tmp_path / "run")))
    with pytest.raises(UserError, match="a finite validation loss is required"):
        trainer.train()
    assert len(seen) > 1 and all(steps == seen[0] for steps in seen)
    assert trainer.progress.skipped == len(seen)


def test_a_run_that_recovers_has_the_checkpoints_of_its_schedule(make_config, tmp_path, monkeypatch):
    """Steps 5 and 6 are skipped, so 6 is not saved; the oldest checkpoints go once a newer one proved good."""
    trainer = trainer_for(make_config(save_every=2, keep=2, steps=10, validate_every=100), tmp_path / "run")
    real, present = Trainer._gradients, {}

    def gradients(self, *arguments):
        present[self.progress.step] = steps_of(tmp_path / "run")
        if self.progress.step in (5, 6):
            raise FloatingPointError("the loss is inf")
        return real(self, *arguments)

    monkeypatch.setattr(Trainer, "_gradients", gradients)
    trainer.train()
    before = [[], [], [2], [2], [2, 4], [2, 4], [2, 4], [2, 4], [2, 4, 8], [4, 8]]  # the next step
    assert list(present.values()) == before
    assert steps_of(tmp_path / "run") == [8, 10]


def test_the_last_step_is_saved_although_it_was_skipped_if_its_validation_is_finite(make_config, tmp_path, monkeypatch):
    trainer, real = trainer_for(make_config(steps=4, save_every=100), tmp_path / "run"), Trainer._gradients

    def gradients(self, *arguments):
        if self.progress.step == 4:
            raise FloatingPointError("the loss is inf")
        return real(self, *arguments)

    monkeypatch.setattr(Trainer, "_gradients", gradients)
    trainer.train()
    assert steps_of(tmp_path / "run") == [4]
    assert resume(tmp_path / "run").finished


def test_weights_that_were_saved_and_then_gave_no_finite_loss_are_set_aside(make_config, tmp_path):
    """Also by a process that is killed in between: the next one skips the same steps."""
    config = make_config(save_every=2, keep=1, optim={"max_skipped": 2})
    trainer = trainer_for(config, tmp_path / "run")
    for _ in range(5):
        trainer.step()
        trainer._after_step()
    spoil(trainer)
    trainer.progress.step += 1
    trainer.saver.save(trainer.progress)
    assert steps_of(tmp_path / "run") == [4, 6]  # 4 stays until 6 has proved good
    trainer.run.lock.release()
    with pytest.raises(UserError, match=r"step-00000004.safetensors is from before that; resume from it"):
        resume(tmp_path / "run")
    assert steps_of(tmp_path / "run") == [4]
    assert [path.name for path in (tmp_path / "run").glob("diverged-*")] == ["diverged-00000006.safetensors"]
    assert resume(tmp_path / "run").finished


def test_without_a_checkpoint_from_before_the_message_promises_none(make_config, tmp_path):
    """As versions left them that saved and pruned while steps were skipped."""
    trainer = trainer_for(make_config(), tmp_path / "run")
    spoil(trainer)
    for step in (3, 4):
        trainer.progress.step = step
        trainer.saver.save(trainer.progress)
    trainer.run.lock.release()
    with pytest.raises(UserError, match=r"no checkpoint is from before that; train again with a lower") as error:
        resume(tmp_path / "run")
    assert "resume" not in str(error.value) and steps_of(tmp_path / "run") == []
    assert len(list((tmp_path / "run").glob("diverged-*"))) == 2
    assert resume(tmp_path / "run").finished  # from the beginning


def test_a_checkpoint_whose_loss_is_finite_but_huge_is_none_to_go_back_to(make_config, tmp_path):
    """Resuming from it would diverge again, for ever."""
    trainer = trainer_for(exploding(make_config), tmp_path / "run")
    spoil(trainer, 1e5)
    trainer.progress.step = 1
    trainer.saver.save(trainer.progress)
    trainer.run.lock.release()
    with pytest.raises(UserError, match=r"no checkpoint is from before that; train again with a lower") as error:
        resume(tmp_path / "run")
    losses = [entry["loss"] for entry in log_of(tmp_path / "run") if entry["kind"] == "train"]
    assert losses and min(losses) > worst_loss(300)  # finite, but worse than a guess from the first step on
    assert "resume" not in str(error.value) and steps_of(tmp_path / "run") == []


def test_a_new_run_that_diverges_before_its_first_good_checkpoint_leaves_nothing(make_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = exploding(make_config, optim=EXPLODES | {"learning_rate": 1e18, "warmup": 0})
    (tmp_path / "config.toml").write_bytes(_toml(config))
    assert main(["train", "--config", "config.toml", "--out", "run"]) == 2
    assert not (tmp_path / "run").exists()


def _toml(config):
    from models.runs.toml import config_toml

    return config_toml(config)


@pytest.mark.parametrize("saves", [True, False])
def test_a_stop_while_steps_are_skipped_names_what_is_saved(make_config, tmp_path, monkeypatch, saves):
    config = make_config(save_every=1 if saves else 100, validate_every=100)
    real = Trainer._gradients

    def gradients(self, *arguments):
        if self.progress.step > 2:
            raise FloatingPointError("the loss is inf")
        return real(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Stopped) as stopped:
        patch.setattr(Trainer, "_gradients", gradients)
        train(config, tmp_path / "run", StopsAt(5))
    saved = tmp_path / "run" / "step-00000002.safetensors" if saves else "nothing"
    expected = f"at step 4; not saved, because the latest steps were skipped; {saved} is saved; resume with: tensorlib"
    assert stopped.value.saved.startswith(expected)
    assert steps_of(tmp_path / "run") == ([1, 2] if saves else [])
    assert resume(tmp_path / "run").finished


def test_a_stop_with_weights_that_are_not_finite_is_still_a_stop(make_config, tmp_path):
    trainer = trainer_for(make_config(), tmp_path / "run", StopsAt(1))
    spoil(trainer, "nan")
    with pytest.raises(Stopped) as stopped:
        trainer.train()
    assert re.search("at step 0; not saved, because .* is not finite at step 0; nothing is saved", stopped.value.saved)


def test_weights_that_are_not_finite_at_a_checkpoint_name_the_one_before(make_config, tmp_path):
    trainer = trainer_for(make_config(save_every=2, validate_every=100), tmp_path / "run")
    real = trainer._after_step

    def after_step():
        if trainer.progress.step == 4:
            spoil(trainer, "inf")
        real()

    trainer._after_step = after_step
    message = r"finite weights are required; .* is not finite at step 4; \S*step-00000002.safetensors is from before"
    with pytest.raises(UserError, match=message):
        trainer.train()
    assert steps_of(tmp_path / "run") == [2]


# ---- validations of weights that diverged ----


def test_a_huge_validation_loss_is_shown_in_short_and_is_never_the_best(make_config, tmp_path):
    trainer = trainer_for(make_config(bleu_sentences=2), tmp_path / "run")
    spoil(trainer, 1e5)
    trainer.progress.step = 1
    trainer.validate()
    (entry,) = log_of(tmp_path / "run")
    assert entry["loss"] > 100 and entry["best"] is False
    shown = trainer.display.stream.getvalue()
    assert re.search(
        r"validation loss \S{3,9}, perplexity >1e6, BLEU \d+\.\d\d \(diverged: far worse than a guess\)", shown
    )
    assert not (tmp_path / "run" / "best.safetensors").exists()
    assert (trainer.progress.best_step, trainer.progress.waited) == (0, 1)


def test_a_run_without_a_best_validation_is_reported_all_the_same(make_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("models.training.validation.worst_loss", lambda vocabulary: 0.1)
    (tmp_path / "config.toml").write_bytes(_toml(make_config(steps=4, validate_every=1, patience=2)))
    command = ["train", "--config", "config.toml", "--out", "run"]
    for arguments in (command, ["train", "--resume", "--out", "run"]):
        assert main(arguments) == 2
        shown = capsys.readouterr()
        last = shown.err.splitlines()[-1]
        assert "all diverged with --optim.learning-rate 0.0005; train again with a lower --optim.learning-rate" in last
        assert "at no step better than a guess.\n" in shown.out and "the best so far" not in shown.err
        if arguments is command:
            assert "step 2: ended early; 2 validations in a row did not improve on a guess" in shown.err
            assert shown.err.count("--optim.learning-rate 0.0005 is probably too high: stop training, and") == 2
    assert main(["translate", "--run", "run", "one"]) == 0


def test_a_run_that_diverged_after_its_best_validation_says_so(make_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    worst = iter([100.0, 0.1])
    monkeypatch.setattr("models.training.validation.worst_loss", lambda vocabulary: next(worst))
    (tmp_path / "config.toml").write_bytes(_toml(make_config(steps=4, validate_every=2)))
    assert main(["train", "--config", "config.toml", "--out", "run"]) == 0
    assert re.search(r"; best at step 2\b.*; then it diverged: train again with a lower", capsys.readouterr().out)


def test_every_line_of_the_log_is_json_without_infinity(make_config, tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    with pytest.raises(UserError):
        train(exploding(make_config, validate_every=1), tmp_path / "run")
    for name in ("log.jsonl", "speed.jsonl"):
        for line in (tmp_path / "run" / name).read_text().splitlines():
            json.loads(line, parse_constant=refuse)


def test_evaluate_shows_weights_that_diverged_in_short(make_config, tmp_path, capsys):
    trainer = trainer_for(make_config(), tmp_path / "run")
    spoil(trainer, 1e5)
    trainer.save()
    trainer.run.lock.release()
    assert main(["evaluate", "--run", str(tmp_path / "run"), "--tsv", str(tmp_path / "valid.tsv"), "--errors"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"(?m)^loss        \S{1,9} nats", out) and re.search(r"(?m)^perplexity  >1e6$", out)
    assert not re.search(r"\d{12}", out)


# ---- --resume-with ----


def test_a_setting_of_the_optimizer_changes_only_if_it_is_named(make_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train(make_config(steps=2), tmp_path / "run")
    change = ["train", "--resume", "--out", "run", "--steps", "4", "--optim.clip", "0.5"]
    assert main(change) == 2 and "or add --resume-with optim.clip" in capsys.readouterr().err
    assert main([*change, "--resume-with", "optim.clip"]) == 0
    assert "clip = 0.5" in (tmp_path / "run" / "config.toml").read_text()
    assert main(["train", "--resume", "--out", "run", "--steps", "5"]) == 0  # it stays so
    two = ["--resume-with", "optim.learning-rate", "--resume-with", "optim.warmup"]
    values = ["--optim.learning-rate", "1e-4", "--optim.warmup", "9"]
    assert main(["train", "--resume", "--out", "run", "--steps", "6", *two, *values]) == 0


@pytest.mark.parametrize("key", ["model.layers", "optim.name", "seed", "nothing"])
def test_other_settings_never_change(make_config, tmp_path, key):
    train(make_config(steps=2), tmp_path / "run")
    with pytest.raises(UserError, match=f"--resume-with requires one of .*optim.warmup.*; got {key}"):
        resume_run(tmp_path / "run", Stopper(), may_change=[key])


@pytest.mark.parametrize(
    "given, meant",
    [
        ("lr", "optim.learning_rate"),
        ("lr=3", "optim.learning_rate"),
        ("--optim.lr=3", "optim.learning_rate"),
        ("optim.learning-rate=3", "optim.learning_rate"),
        ("learning-rate", "optim.learning_rate"),
        ("clip_grad_norm", "optim.clip"),
        ("momentum", "optim.momentum"),
        ("optim.warmpu", "optim.warmup"),
    ],
)
def test_a_setting_by_another_name_is_named(make_config, tmp_path, monkeypatch, capsys, given, meant):
    monkeypatch.chdir(tmp_path)
    train(make_config(steps=2), tmp_path / "run")
    assert main(["train", "--resume", "--out", "run", f"--resume-with={given}"]) == 2
    flag = "--" + meant.replace("_", "-")
    assert capsys.readouterr().err.rstrip().endswith(f"; write --resume-with {meant} {flag} VALUE")


def test_a_setting_to_resume_with_needs_a_run_to_resume(capsys):
    assert main(["train", "--resume-with", "optim.clip"]) == 2
    assert "--resume-with requires --resume" in capsys.readouterr().err
