"""Training on a device: the same run as on the host, whose steps nothing waits for."""

import io
import os
from dataclasses import replace

import numpy as np
import pytest

import tensorlib as tl
from models.cli.display import Display
from models.runs.checkpoint import read_checkpoint, step_checkpoints
from models.system.errors import UserError
from models.system.stopping import Stopper
from models.training import loop, start
from models.training.divergence import Diverged
from models.training.results import MOST, Results, TakenStep
from tensorlib.arrays.backend import Pending
from tests.conftest import backend_named
from tests.emulated_gpu.device import counted
from tests.small_runs import config_maker, language_config_maker, log_of, trainer_for
from tests.transfers import counted_transfers


@pytest.fixture
def make_config(tmp_path):
    return config_maker(tmp_path)


@pytest.fixture(params=["strict", "cupy"])
def device(request):
    """Return a GPU, or one of its stand-ins."""
    return backend_named(request.param)


def trainer_on(device, config, out, dtype="float32"):
    """Return the trainer of a new run with its model on a device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "open_backend", lambda name: device)
        patch.setattr(start, "require_precision", lambda config: None)
        trainer = trainer_for(config, out)
    trainer.model.astype(dtype)
    if trainer.average:
        trainer.average.begin()
    return trainer


def train_steps(trainer, count):
    """Take steps without validations and checkpoints; return the state in which the run then is."""
    for _ in range(count):
        trainer.step()
    trainer.wait()
    trainer.log.close()
    average = trainer.average.state_dict() if trainer.average else {}
    return [trainer.model.state_dict(), trainer.optimizer.state_dict(), average]


KINDS = {
    "transformer": (config_maker, {}),
    "accumulated": (config_maker, {"optim": {"accumulate": 3, "ema": 0.9}}),
    "pre-norm": (config_maker, {"model": {"norm": "pre", "tie_embeddings": True, "positions": "rotary"}}),
    "sgd": (config_maker, {"optim": {"accumulate": 1, "name": "sgd", "learning_rate": 0.1, "clip": 0.0}}),
    "language": (language_config_maker, {"optim": {"accumulate": 1}}),
}
ONE = {"optim": {"accumulate": 1, "ema": 0.9}}


# ---- the same as on the host ----


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_takes_the_steps_of_the_host(tmp_path, kind, device):
    """Dropout is on: the device draws the same numbers. Without a ladder it also sees the same shapes."""
    maker, given = KINDS[kind]
    config = replace(maker(tmp_path)(**given), capture=False)
    host = train_steps(trainer_on("numpy", config, tmp_path / "host", "float64"), 8)
    other = train_steps(trainer_on(device, config, tmp_path / "device", "float64"), 8)
    for expected, found in zip(host, other, strict=True):
        assert expected.keys() == found.keys()
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-11, err_msg=name)
    logs = [log_of(tmp_path / name) for name in ("host", "device")]
    for expected, found in zip(*logs, strict=True):
        assert list(expected) == list(found) and expected.pop("kind") == found.pop("kind")
        assert found == pytest.approx(expected, rel=1e-9)


def test_a_hundred_steps_agree_with_the_host(make_config, tmp_path, device):
    """float64, dropout on: 1e-9 after 100 steps."""
    config = replace(make_config(steps=100, **ONE), capture=False)
    host = train_steps(trainer_on("numpy", config, tmp_path / "host", "float64"), 100)
    other = train_steps(trainer_on(device, config, tmp_path / "device", "float64"), 100)
    for expected, found in zip(host, other, strict=True):
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-9, err_msg=name)


# ---- captured ----


def uncaptured(step, backend, **options):
    """Stand in for `tl.capture`: run the step each time."""
    return lambda *arrays: step(*(None if a is None else backend.asarray(a) for a in arrays))


@pytest.mark.parametrize("kind", ["transformer", "accumulated", "language"])
def test_captured_steps_give_the_bits_of_uncaptured_ones(tmp_path, kind, device, monkeypatch):
    maker, given = KINDS[kind]
    config = maker(tmp_path)(**given)
    states = [train_steps(trainer_on(device, config, tmp_path / f"captured-{i}"), 12) for i in range(2)]
    monkeypatch.setattr(tl, "capture", uncaptured)
    states.append(train_steps(trainer_on(device, config, tmp_path / "uncaptured"), 12))
    for others in states[1:]:
        for expected, found in zip(states[0], others, strict=True):
            for name, array in expected.items():
                np.testing.assert_array_equal(found[name], array, err_msg=name)
    logs = [(tmp_path / name / "log.jsonl").read_bytes() for name in ("captured-0", "captured-1", "uncaptured")]
    assert logs[0] == logs[1] == logs[2]


def test_only_the_batch_is_uploaded_and_nothing_is_fetched(make_config, tmp_path, monkeypatch):
    """The stand-in names the lines. What `fetch_later` copies is not waited for, so it is no fetch."""
    config = make_config(**ONE)
    monkeypatch.setattr(tl, "capture", uncaptured)  # what is uploaded in a step that is recorded is an error anyway
    trainer = trainer_on(backend_named("strict"), config, tmp_path / "run")
    for _ in range(3):
        trainer.step()
    with counted_transfers() as found:
        trainer.step()
    assert len(found.uploads) == 4, found.uploads  # sources, inputs and outputs of the decoder, 1 / tokens
    assert len(found.fetches) <= 1, found.fetches


# ---- what is wrong with a batch, a step, or the memory ----


def test_ids_outside_the_vocabulary_give_the_error_of_the_host(make_config, tmp_path, device):
    trainers = [trainer_on(home, make_config(), tmp_path / str(i)) for i, home in enumerate(["numpy", device])]
    for part, value in (("source_BS", 10**6), ("target_in_BT", -1), ("target_out_BT", 10**6)):
        messages = []
        for trainer in trainers:
            batches = trainer.epochs.batches(0, 0, 1)
            getattr(batches[0], part)[1, 0] = value
            trainer._next_batches = lambda batches=batches: batches
            with pytest.raises(IndexError) as error:
                trainer.step()
            messages.append(str(error.value))
        assert messages[0] == messages[1] and f"{value} at position" in messages[0]


def spoilt(trainer, first, last):
    """Make the loss of these steps infinite, by a learning rate that the optimizer is not to use."""
    real = trainer.device_step

    def step(batches, tokens, number):
        if first <= number <= last:
            tokens = 5e-324  # 1 / tokens is inf
        return real(batches, tokens, number)

    trainer.device_step = step


def test_a_step_that_is_not_finite_changes_no_bit_and_is_logged(make_config, tmp_path, device):
    trainer = trainer_on(device, make_config(**ONE), tmp_path / "run")
    for _ in range(3):
        trainer.step()
    spoilt(trainer, 4, 4)
    before = [trainer.model.state_dict(), trainer.optimizer.state_dict(), trainer.average.state_dict()]
    trainer.step()
    after = [trainer.model.state_dict(), trainer.optimizer.state_dict(), trainer.average.state_dict()]
    for expected, found in zip(before, after, strict=True):
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    trainer.wait()
    assert trainer.progress.skipped == 1
    assert log_of(tmp_path / "run")[3:] == [{"kind": "skipped", "step": 4, "epoch": 1, "reason": "the loss is inf"}]
    trainer.step()
    trainer.wait()
    assert trainer.progress.skipped == 0 and log_of(tmp_path / "run")[4]["kind"] == "train"


def test_too_many_skipped_steps_end_the_run_a_few_steps_late(make_config, tmp_path, device):
    config = make_config(steps=40, validate_every=40, save_every=2, optim={"accumulate": 1, "max_skipped": 3})
    trainer = trainer_on(device, config, tmp_path / "run")
    spoilt(trainer, 6, 99)
    with pytest.raises(Diverged, match=r"3 steps in a row were skipped \(the loss is inf\)"):
        trainer.train()
    log = log_of(tmp_path / "run")
    assert [entry["step"] for entry in log if entry["kind"] == "skipped"] == [6, 7, 8]
    assert trainer.progress.step <= 8 + MOST + 1
    assert read_checkpoint(step_checkpoints(tmp_path / "run")[-1]).progress.step == 4


def test_out_of_memory_is_one_line_and_leaves_the_last_checkpoint(make_config, tmp_path, device, monkeypatch):
    trainer = trainer_on(device, make_config(**ONE), tmp_path / "run")
    real = trainer.device_step

    def step(batches, tokens, number):
        if number == 5:
            raise MemoryError("Out of memory allocating 1,024 bytes (allocated so far: 512 bytes).")
        return real(batches, tokens, number)

    trainer.device_step = step
    with pytest.raises(UserError) as error:
        trainer.train()
    message = str(error.value)
    assert message.startswith("train: out of memory in step 5")
    assert "--batch-sentences" in message and "step-00000003.safetensors" in message and "\n" not in message
    assert read_checkpoint(step_checkpoints(tmp_path / "run")[-1]).progress.step == 3
    assert [entry["step"] for entry in log_of(tmp_path / "run") if entry["kind"] == "train"] == [1, 2, 3, 4]


# ---- runs ----


def test_a_run_on_a_device_writes_what_one_on_the_host_writes(make_config, tmp_path, device):
    for name, home in (("host", "numpy"), ("device", device)):
        trainer_on(home, make_config(bleu_sentences=2), tmp_path / name).train()
    logs = [log_of(tmp_path / name) for name in ("host", "device")]
    assert [(list(entry), entry["kind"], entry["step"]) for entry in logs[0]] == [
        (list(entry), entry["kind"], entry["step"]) for entry in logs[1]
    ]
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("host", "device")]
    assert files[0] == files[1]


@pytest.mark.parametrize("first", ["host", "device"])
def test_a_run_continues_on_the_other_backend(make_config, tmp_path, device, first):
    homes = {"host": "numpy", "device": device}
    config = replace(make_config(steps=6, optim={"accumulate": 1, "ema": 0.9, "schedule": "constant"}), capture=False)
    whole = trainer_on("numpy", replace(config, steps=12), tmp_path / "whole")
    whole.train()
    trainer_on(homes.pop(first), config, tmp_path / "run").train()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "open_backend", lambda name: homes.popitem()[1])
        trainer = loop.Trainer(*_resumed(tmp_path / "run", steps=12))
    trainer.train()
    losses = [
        [entry["loss"] for entry in log_of(tmp_path / name) if entry["kind"] == "train"] for name in ("whole", "run")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def _resumed(path, **changed):
    stopper = Stopper()
    return start.resume_run(path, stopper, ("command line", changed)), Display(io.StringIO()), stopper


def test_results_come_in_order_and_only_a_few_steps_late():
    class Slow(Pending):
        def __init__(self, number):
            self.number = number

        def ready(self):
            return False

        def value(self):
            return np.array([self.number, 1.0, 0.0])

    results, seen = Results(), []
    for number in range(1, 11):
        results.add(TakenStep(number, 1, 7, 0.1, 0.0), Slow(number))
        seen += [result.loss for result in results.arrived()]
        assert len(seen) == max(number - MOST, 0)
    seen += [result.loss for result in results.arrived(wait=True)]
    assert seen == list(range(1, 11))


# ---- fp16, and what a captured step does beside its kernels ----


def test_fp16_scales_the_loss_and_a_checkpoint_holds_the_scale(make_config, tmp_path):
    device = backend_named("cupy")
    config = make_config(steps=3, validate_every=3, optim={"accumulate": 2}, model={"dropout": 0.0})
    losses = {}
    for name in ("float32", "fp16"):
        trainer = trainer_on(device, replace(config, precision=name), tmp_path / name)
        trainer.train()
        losses[name] = [entry["loss"] for entry in log_of(tmp_path / name) if entry["kind"] == "train"]
    assert losses["fp16"] == pytest.approx(losses["float32"], rel=0.01) and losses["fp16"] != losses["float32"]
    path = step_checkpoints(tmp_path / "fp16")[-1]
    saved = read_checkpoint(path).scale
    assert saved["scale"] == 2**16 and saved["good"] == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "open_backend", lambda name: device)
        patch.setattr(start, "require_precision", lambda config: None)
        resumed = loop.Trainer(*_resumed(tmp_path / "fp16", steps=6))
    assert resumed.device_step.scale.state_dict() == saved
    resumed.log.close()
    resumed.run.lock.release()


def test_a_replayed_step_launches_one_graph_and_waits_for_nothing(make_config, tmp_path):
    """Counted by the emulated GPU; a real one does not count."""
    device = backend_named("cupy")
    if os.environ.get("TENSORLIB_TEST_GPU") != "emulated":
        pytest.skip("a real GPU does not count")
    trainer = trainer_on(device, make_config(batch_sentences=26, **ONE), tmp_path / "run")
    for _ in range(4):
        trainer.step()
    with counted() as found:
        trainer.step()
    assert found.graph_launches == 1
    assert found.uploads == 1, found  # the batch, and the numbers that change from step to step
    # The copy of the three results, and the event of one that has arrived: neither waits for this step.
    assert found.fetches <= 1 and found.synchronisations <= 1, found
