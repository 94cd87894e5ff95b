"""Training: what a step does, and what a run writes."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest

import tensorlib as tl
from models.evaluation.metrics import TokenLoss, exact_match, token_loss
from models.evaluation.translator import Translator
from models.runs.checkpoint import read_checkpoint
from models.runs.config_layers import config_from
from models.system.errors import UserError
from models.text.batching import POSITIONS, make_batch
from models.text.tokens import EOS
from models.training.optimizer import make_optimizer, make_schedule
from nn import optim
from tensorlib.kernels import overridable
from tests.small_runs import MODEL, config_maker, log_of, train, trainer_for, write_pairs


@pytest.fixture
def make_config(tmp_path):
    return config_maker(tmp_path)


# ---- speed ----


@pytest.fixture
def formulas_that_ran():
    """Record which formulas run although there is a kernel for NumPy's arrays."""
    ran, before = set(), {}
    for name, formula in overridable().items():
        plain = before[name] = formula.dispatch(object)
        if formula.dispatch(np.ndarray) is not plain:
            formula.register(object, lambda *a, name=name, plain=plain, **k: ran.add(name) or plain(*a, **k))
    yield ran
    for name, formula in overridable().items():
        formula.register(object, before[name])


def test_a_step_runs_kernels(make_config, tmp_path, formulas_that_ran):
    """A kernel skipped because of an argument's type changes no result, but may cost half the speed."""
    trainer_for(make_config(), tmp_path / "run").step()
    assert formulas_that_ran <= {"product"}  # which is for small matrices


# ---- what a step is ----


def test_every_example_is_used_once_an_epoch(make_config, tmp_path):
    trainer = trainer_for(make_config(steps=0, epochs=2), tmp_path / "run")
    seen = []
    while not trainer.done:
        seen.append([tuple(row[row > 0]) for batch in trainer._next_batches() for row in batch.source_BS])
        trainer.progress.step += 1
    wanted = sorted(tuple(source) for source, _ in trainer.run.examples.train)
    assert trainer.progress.step == 6  # of 6 batches an epoch, two a step
    epochs = [sorted(source for step in steps for source in step) for steps in (seen[:3], seen[3:])]
    assert epochs == [wanted, wanted]


def test_the_tail_of_an_epoch_is_a_separate_step(make_config, tmp_path):
    trainer = trainer_for(make_config(steps=0, epochs=1, optim={"accumulate": 4}), tmp_path / "run")
    assert [len(trainer._next_batches()) for _ in range(2)] == [4, 2]
    assert trainer.done and trainer.total == 2


def test_accumulated_batches_equal_one_large_batch(make_config, tmp_path):
    trainer = trainer_for(make_config(model={"dropout": 0.0}, optim={"clip": 0.0}), tmp_path / "run")
    trainer.model.astype("float64")
    examples = trainer.run.examples.train[:20]
    gradients = []
    for sizes in ([20], [1, 2, 17]):  # very different in tokens
        rows, parts = iter(examples), []
        for size in sizes:
            parts.append(make_batch([next(rows) for _ in range(size)]))
        loss, norm = trainer._gradients(parts, sum(part.tokens for part in parts))
        gradients.append((loss, norm, {n: p.grad.numpy() for n, p in trainer.model.named_parameters()}))
        trainer.model.zero_grad()
    (loss, norm, whole), (loss_parts, norm_parts, parts) = gradients
    assert loss_parts == pytest.approx(loss, rel=1e-9) and norm_parts == pytest.approx(norm, rel=1e-9)
    for name, gradient in whole.items():
        np.testing.assert_allclose(parts[name], gradient, rtol=1e-6, atol=1e-9, err_msg=name)


def split_into(pieces, batches):
    """Yield each batch in pieces of these numbers of examples; the last piece takes the rest."""
    for batch in batches:
        rows = [
            (source[source > 0], target[(target > 0) & (target != EOS)])
            for source, target in zip(batch.source_BS, batch.target_out_BT, strict=True)
        ]
        starts = [sum(pieces[:i]) for i in range(len(pieces))]
        yield from (make_batch(rows[a:b]) for a, b in zip(starts, [*starts[1:], len(rows)], strict=True))


def test_fifty_accumulated_steps_equal_fifty_of_large_batches(make_config, tmp_path):
    """Adam divides rounding errors by tiny gradients, so both runs are in float64: there 1e-6 is far from rounding."""
    config = make_config(batch_sentences=10, model={"dropout": 0.0}, optim={"accumulate": 1, "clip": 1.0})
    whole, parts = (trainer_for(config, tmp_path / name) for name in ("whole", "parts"))
    next_batches, sizes = parts._next_batches, []

    def next_parts():
        pieces = list(split_into([1, 2, 3], next_batches()))  # of an epoch's 26 examples: 1 + 2 + 7 twice, 1 + 2 + 3
        sizes.append(sorted(len(piece.source_BS) for piece in pieces))
        return pieces

    parts._next_batches = next_parts
    for trainer in (whole, parts):
        trainer.model.astype("float64")
        for _ in range(50):
            trainer.step()
        trainer.log.close()  # now, because the cycle through `next_parts` delays collection
    assert {tuple(size) for size in sizes} == {(1, 2, 7), (1, 2, 3)}
    losses = [[entry["loss"] for entry in log_of(tmp_path / name)] for name in ("whole", "parts")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
    for name, weight in whole.model.state_dict().items():
        np.testing.assert_allclose(parts.model.state_dict()[name], weight, rtol=1e-6, atol=1e-9, err_msg=name)


def state_of(trainer):
    return {**trainer.model.state_dict(), **trainer.optimizer.state_dict()}


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_no_bit_and_is_logged(make_config, tmp_path, monkeypatch, broken):
    trainer = trainer_for(make_config(), tmp_path / "run")
    trainer.display.begin(0, 13)
    trainer.step()
    before = state_of(trainer)
    with monkeypatch.context() as patch:
        if broken == "loss":
            real = tl.linear_cross_entropy
            patch.setattr(tl, "linear_cross_entropy", lambda *a, **k: real(*a, **k) * float("nan"))
        else:
            patch.setattr(optim, "clip_grad_norm", lambda *a: (_ for _ in ()).throw(ValueError("inf")))
        trainer.step()
    after = state_of(trainer)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert trainer.progress.step == 2 and trainer.progress.skipped == 1
    assert log_of(tmp_path / "run")[-1]["kind"] == "skipped"
    trainer.step()
    assert trainer.progress.skipped == 0
    assert any(not np.array_equal(before[name], value) for name, value in state_of(trainer).items())


def test_a_really_infinite_gradient_is_skipped(make_config, tmp_path):
    trainer = trainer_for(make_config(), tmp_path / "run")
    trainer.display.begin(0, 13)
    for parameter in trainer.model.parameters():
        parameter.replace(parameter.data * np.float32(1e30))
    before = state_of(trainer)
    trainer.step()
    assert trainer.progress.skipped == 1
    assert all(np.array_equal(before[name], value) for name, value in state_of(trainer).items())


def test_too_many_skipped_steps_end_the_run(make_config, tmp_path, monkeypatch):
    real = tl.linear_cross_entropy
    trainer = trainer_for(make_config(optim={"max_skipped": 3}), tmp_path / "run")
    monkeypatch.setattr(tl, "linear_cross_entropy", lambda *a, **k: real(*a, **k) * float("inf"))
    with pytest.raises(UserError, match=r"3 steps in a row were skipped .the loss is inf.*lower --optim.learning-rate"):
        trainer.train()
    assert [entry["kind"] for entry in log_of(tmp_path / "run")] == ["skipped"] * 3


def test_a_divergence_is_one_error_and_no_warning(make_config, tmp_path, recwarn):
    rate = {"learning_rate": 1e18, "schedule": "constant", "warmup": 0}
    with pytest.raises(UserError, match=r"finite .*lower --optim\.learning-rate, or a higher --optim\.warmup"):
        train(make_config(optim=rate, validate_every=2), tmp_path / "run")
    assert not [str(w.message) + " " + w.filename + ":" + str(w.lineno) for w in recwarn.list]


def test_a_validation_loss_that_is_not_finite_names_the_remedy(make_config, tmp_path, monkeypatch):
    trainer = trainer_for(make_config(validate_every=1), tmp_path / "run")
    monkeypatch.setattr("models.training.validation.token_loss", lambda *a: TokenLoss(float("nan"), 1))
    with pytest.raises(UserError, match=r"got nan at step 1; train again with a lower --optim\.learning-rate"):
        trainer.train()


def test_the_learning_rate_follows_the_schedule(make_config, tmp_path):
    config = make_config(optim={"schedule": "constant", "warmup": 4, "learning_rate": 0.01})
    train(config, tmp_path / "run")
    rates = [entry["learning_rate"] for entry in log_of(tmp_path / "run") if entry["kind"] == "train"]
    assert rates[:5] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])


@pytest.mark.parametrize("name, step, rate", [("cosine", 100, 0.1), ("inverse-sqrt", 40, 0.5), ("constant", 40, 1.0)])
def test_schedules_by_name(make_config, name, step, rate):
    config = make_config(optim={"schedule": name, "warmup": 10, "learning_rate": 1.0, "final_learning_rate": 0.1})
    assert make_schedule(config, 100)(step) == pytest.approx(rate)


def test_noam_is_the_papers(make_config):
    config = make_config(optim={"schedule": "noam", "warmup": 4, "learning_rate": 2.0})
    assert make_schedule(config, 100)(16) == pytest.approx(2 * MODEL["width"] ** -0.5 * 16**-0.5)


@pytest.mark.parametrize("name, kind", [("adam", optim.Adam), ("adamw", optim.AdamW), ("sgd", optim.SGD)])
def test_optimizers_by_name(make_config, tmp_path, name, kind):
    config = make_config(optim={"name": name, "weight_decay": 0.5, "momentum": 0.25, "betas": [0.5, 0.75]})
    made = make_optimizer(config, trainer_for(config, tmp_path / "run").model)
    assert type(made) is kind and made.weight_decay == 0.5
    assert made.momentum == 0.25 if name == "sgd" else made.betas == (0.5, 0.75)


# ---- what a run writes ----


def test_the_log_says_what_happened(make_config, tmp_path):
    train(make_config(), tmp_path / "run")
    log = log_of(tmp_path / "run")
    steps = [entry for entry in log if entry["kind"] == "train"]
    assert [entry["step"] for entry in steps] == list(range(1, 14))
    assert [entry["epoch"] for entry in steps] == [1 + i // 3 for i in range(13)]
    assert [entry["step"] for entry in log if entry["kind"] == "valid"] == [4, 8, 12, 13]
    assert all(entry["gradient_norm"] > 0 and entry["tokens"] > 0 for entry in steps)
    assert steps[-1]["loss"] < steps[0]["loss"]
    best = min((entry for entry in log if entry["kind"] == "valid"), key=lambda entry: entry["loss"])
    assert read_checkpoint(tmp_path / "run" / "best.safetensors").progress.best_loss == best["loss"]
    assert best["samples"][0].keys() == {"source", "reference", "output"}


def test_eight_pairs_are_memorized(tmp_path):
    write_pairs(tmp_path, 8)
    (tmp_path / "valid.tsv").write_bytes((tmp_path / "train.tsv").read_bytes())
    config = config_from(
        (
            "test",
            {
                "train_tsv": str(tmp_path / "train.tsv"),
                "valid_tsv": str(tmp_path / "valid.tsv"),
                "steps": 150,
                "batch_sentences": 8,
                "validate_every": 150,
                "tokenizer": {"vocabulary": 300},
                "model": MODEL | {"width": 64, "feed_forward": 64, "dropout": 0.0},
                "optim": {"learning_rate": 0.01, "warmup": 20, "schedule": "cosine", "label_smoothing": 0.0},
            },
        )
    )
    trainer = train(config, tmp_path / "run")
    assert trainer.progress.best_loss < 0.01
    pairs = trainer.run.corpus.valid
    outputs = Translator(trainer.model, trainer.run.tokenizer).translate([source for source, _ in pairs])
    assert exact_match(outputs, [reference for _, reference in pairs]) == 1.0


# ---- evaluation ----


def test_the_token_loss_does_not_depend_on_the_batches(make_config, tmp_path):
    trainer = trainer_for(make_config(), tmp_path / "run")
    examples = trainer.run.examples.train
    many = examples * (1 + POSITIONS // sum(len(s) + len(t) for s, t in examples))  # more than fit in a batch
    one, all_of_them = token_loss(trainer.model, examples), token_loss(trainer.model, many)
    assert all_of_them.loss == pytest.approx(one.loss, rel=1e-5)
    assert one.tokens == sum(len(t) + 1 for _, t in examples)
    assert one.perplexity == pytest.approx(math.exp(one.loss))
    assert trainer.model.training  # as it was


def test_a_translation_does_not_depend_on_its_neighbours(make_config, tmp_path):
    trainer = train(make_config(), tmp_path / "run")
    translator = Translator(trainer.model, trainer.run.tokenizer)
    texts = ["one two", "", "three " * 30, "   ", "four", "one"]
    together = translator.translate(texts)
    assert together == [translator.translate([text])[0] for text in texts]
    assert together[1] == together[3] == ""


def test_a_line_too_long_for_the_model_is_truncated_with_a_warning(make_config, tmp_path):
    trainer = trainer_for(make_config(), tmp_path / "run")
    cut = []
    translator = Translator(trainer.model, trainer.run.tokenizer, cut.append)
    outputs = translator.translate(["one", "x" * 1_000_000, "two"], first=10)
    assert len(outputs) == 3 and cut == [11]


def test_keeping_memory_does_no_harm():
    tl.keep_memory()
    assert np.ones(10**6).sum() == 10**6


def test_an_optimizer_keeps_memory_unless_disabled():
    """Mallopt is called once, when the first optimizer is created, and not on import."""
    code = (
        "import ctypes, numpy as np, nn, tensorlib as tl\n"
        "from nn import optim\n"
        "from tensorlib.arrays import memory\n"
        "calls = []\n"
        "class Library:\n"
        "    gnu_get_libc_version = None\n"
        "    def __init__(self, name): pass\n"
        "    def mallopt(self, *setting): calls.append(setting)\n"
        "memory.ctypes.CDLL = Library\n"
        "for _ in range(2): optim.SGD([nn.Parameter(np.ones(1))], 0.1)\n"
        "print(len(calls))\n"
    )
    for value, calls in (("1", "4"), ("0", "0")):
        environment = {**os.environ, "TENSORLIB_KEEP_MEMORY": value}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == calls
