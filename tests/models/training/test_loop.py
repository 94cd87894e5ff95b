"""Training: a step is what it says, and a run that is stopped and goes on is the run that was never stopped."""

import io
import itertools
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import tensorlib as tl
from models.evaluation.metrics import TokenLoss, exact_match, token_loss
from models.evaluation.translator import Translator
from models.runs.checkpoint import digest, read_checkpoint, step_checkpoints
from models.runs.config import config_from
from models.system.errors import UserError
from models.system.stopping import Stopped, Stopper
from models.text.batching import POSITIONS, make_batch
from models.text.tokens import EOS
from models.training.loop import make_optimizer, make_schedule
from models.training.progress import Display
from nn import optim
from tensorlib.kernels import overridable
from tests.small_runs import MODEL, StopsAt, config_maker, log_of, resume, train, trainer_for, write_pairs


@pytest.fixture
def make_config(tmp_path):
    return config_maker(tmp_path)


# ---- stopping and going on ----


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Train a whole run: 26 pairs in batches of 5 make 6 an epoch, of which a step takes 2."""
    folder = tmp_path_factory.mktemp("undisturbed")
    config = config_maker(folder)()
    train(config, folder / "run")
    return config, folder / "run"


def files(run):
    names = ["config.toml", "log.jsonl", "best.safetensors", max(run.glob("step-*")).name]
    return {name: (run / name).read_bytes() for name in names}


@pytest.mark.parametrize("at_once", [False, True], ids=["saved", "killed"])
@pytest.mark.parametrize("look", [1, 3, 5, 6, 7, 8, 14, 21])
def test_a_stopped_run_ends_in_the_same_bytes(undisturbed, tmp_path, look, at_once):
    config, whole = undisturbed
    with pytest.raises(Stopped) as stopped:
        train(config, tmp_path / "run", StopsAt(look, at_once))
    if not at_once:
        assert f"--resume --out {tmp_path / 'run'}" in stopped.value.saved
    resume(tmp_path / "run")
    assert files(tmp_path / "run") == files(whole)


def test_a_run_may_be_stopped_at_every_look_in_turn(undisturbed, tmp_path):
    config, whole = undisturbed
    out, looks = tmp_path / "run", 0
    with pytest.raises(Stopped):
        train(config, out, StopsAt(1))
    for _ in range(40):  # each time the first look may pass, the second may not
        try:
            resume(out, StopsAt(3))
            break
        except Stopped:
            looks += 1
    assert looks > 5 and files(out) == files(whole)


def test_so_may_a_run_with_all_that_training_can_be_given(tmp_path):
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
    assert whole.out_of_patience and whole.progress.step == 12  # BLEU never gets better, and this end survives too
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


def test_a_checkpoint_from_before_bleu_and_patience_goes_on(undisturbed, tmp_path):
    """Their `Progress` had no best BLEU and counted no validations; nor had the model kinds of dropout."""
    config, whole = undisturbed
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", StopsAt(12))
    path = max((tmp_path / "run").glob("step-*"))
    tensors, metadata = tl.load(path), tl.load_metadata(path)
    for young in ("best_bleu", "waited"):
        del metadata["progress"][young]
    for young in ("attention_dropout", "feed_forward_dropout", "embedding_dropout"):
        del metadata["model"][young]
    del metadata["digest"]
    tl.save(tensors, path, metadata | {"digest": digest(tensors, metadata)})
    resume(tmp_path / "run")
    assert files(tmp_path / "run") == files(whole)


def test_a_stop_saves_the_step_it_stopped_at(make_config, tmp_path):
    with pytest.raises(Stopped):
        train(make_config(validate_every=100), tmp_path / "run", StopsAt(3))
    assert read_checkpoint(tmp_path / "run" / "step-00000002.safetensors").progress.step == 2
    with pytest.raises(Stopped):  # even before the first step
        train(make_config(), tmp_path / "early", StopsAt(1))
    assert (tmp_path / "early" / "step-00000000.safetensors").exists()


@pytest.mark.parametrize("look", [1, 5, 9])
def test_a_stopped_run_leaves_the_checkpoints_of_an_undisturbed_one(undisturbed, tmp_path, look):
    """Or an average of the newest ones would be of others. Stopped twice: before, and after, it was resumed."""
    config, whole = undisturbed
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", StopsAt(look))
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


def test_resuming_a_finished_run_changes_nothing(undisturbed):
    before = files(undisturbed[1])
    resume(undisturbed[1])
    assert files(undisturbed[1]) == before


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
def test_a_damaged_line_of_the_log_is_dropped_and_told(undisturbed, tmp_path, damage):
    config, whole = undisturbed
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", StopsAt(8))
    log = tmp_path / "run" / "log.jsonl"
    lines = log.read_bytes().split(b"\n")
    log.write_bytes(b"\n".join([lines[0], damage, *lines[1:]]))
    told = resume(tmp_path / "run").display.stream.getvalue()
    assert f"{log}: left out line 2, which is damaged" in told
    assert files(tmp_path / "run") == files(whole)


def test_a_full_disk_names_the_file_and_says_what_stands(make_config, tmp_path, monkeypatch):
    trainer = trainer_for(make_config(), tmp_path / "run")
    trainer.save()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.training.loop.write_checkpoint", full)
    trainer.progress.step = 1
    with pytest.raises(OSError, match=r"No space left on device; the checkpoints before it stand: .*step-00000001"):
        trainer.save()


# ---- speed ----


@pytest.fixture
def formulas_that_ran():
    """Note which formulas run although NumPy's arrays have a kernel for them."""
    ran, before = set(), {}
    for name, formula in overridable().items():
        plain = before[name] = formula.dispatch(object)
        if formula.dispatch(np.ndarray) is not plain:
            formula.register(object, lambda *a, name=name, plain=plain, **k: ran.add(name) or plain(*a, **k))
    yield ran
    for name, formula in overridable().items():
        formula.register(object, before[name])


def test_a_step_runs_kernels(make_config, tmp_path, formulas_that_ran):
    """A kernel that is passed by, for the type of an argument, changes no result and may cost half the speed."""
    trainer_for(make_config(), tmp_path / "run").step()
    assert formulas_that_ran <= {"product"}  # which is for small matrices


# ---- what is shown while it runs ----


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def shown_on(stream, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    display = Display(stream)
    display.begin(99, 1000)
    display._shown = -math.inf
    display.step(100, 7.1, 400, 9e-4, 0.1)
    display.end()
    return stream.getvalue()


def test_the_bar_has_room_in_80_columns(monkeypatch):
    text = shown_on(Terminal(), monkeypatch)
    assert "loss 7.10 · 4.0k tok/s · lr 9e-4]" in text
    last = next(line for line in text.split("\r") if "loss" in line)
    assert len(last) <= 80 and "|" in last


def test_the_bar_is_ascii_where_that_is_all_there_is(monkeypatch):
    class Ascii(Terminal):
        encoding = "ascii"

    text = shown_on(Ascii(), monkeypatch)
    assert "loss 7.10, 4.0k tok/s, lr 9e-4]" in text and text.isascii()


def test_steps_beyond_the_estimate_are_not_more_than_all():
    display = Display(io.StringIO())
    display.begin(10, 11)
    for step in (11, 12):
        display._shown = -math.inf
        display.step(step, 7.1, 400, 9e-4, 0.1)
    assert [line.split()[1] for line in display.stream.getvalue().splitlines()] == ["11/11", "12/12"]


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_a_display_that_nobody_reads_is_quiet(kind):
    class Closed(kind):
        left = 2

        def write(self, text):
            self.left -= 1
            if self.left < 0:
                raise BrokenPipeError

    display = Display(Closed())
    display.begin(0, 10)
    for step in range(1, 4):
        display.step(step, 1.0, 10, 1e-3, 0.1)
        display.line("a line")
    display.end()


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stopper() as stopper:
            stopper.patient = True
            signal.raise_signal(signal.SIGINT)
            stopper.check()
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(Stopped, match="SIGHUP"):
                stopper.check()
    finally:
        signal.signal(signal.SIGINT, before)


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


def test_the_tail_of_an_epoch_is_a_step_of_its_own(make_config, tmp_path):
    trainer = trainer_for(make_config(steps=0, epochs=1, optim={"accumulate": 4}), tmp_path / "run")
    assert [len(trainer._next_batches()) for _ in range(2)] == [4, 2]
    assert trainer.done and trainer.total == 2


def test_accumulated_batches_equal_one_large_batch(make_config, tmp_path):
    trainer = trainer_for(make_config(model={"dropout": 0.0}, optim={"clip": 0.0}), tmp_path / "run")
    trainer.model.astype("float64")
    examples = trainer.run.examples.train[:20]
    gradients = []
    for sizes in ([20], [1, 2, 17]):  # very unlike in tokens
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


def cut_into(pieces, batches):
    """Return the batches with each cut into so many examples at a time; the last piece takes what is left."""
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
        pieces = list(cut_into([1, 2, 3], next_batches()))  # of an epoch's 26 examples: 1 + 2 + 7 twice, 1 + 2 + 3
        sizes.append(sorted(len(piece.source_BS) for piece in pieces))
        return pieces

    parts._next_batches = next_parts
    for trainer in (whole, parts):
        trainer.model.astype("float64")
        for _ in range(50):
            trainer.step()
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
    with pytest.raises(UserError, match=r"3 steps in a row had none .the loss is inf.*lower --optim.learning-rate"):
        trainer.train()
    assert [entry["kind"] for entry in log_of(tmp_path / "run")] == ["skipped"] * 3


def test_a_divergence_is_one_error_and_no_warning(make_config, tmp_path, recwarn):
    rate = {"learning_rate": 1e18, "schedule": "constant", "warmup": 0}
    with pytest.raises(UserError, match=r"finite .*lower --optim\.learning-rate, or raise --optim\.warmup"):
        train(make_config(optim=rate, validate_every=2), tmp_path / "run")
    assert not [str(w.message) + " " + w.filename + ":" + str(w.lineno) for w in recwarn.list]


def test_a_validation_loss_that_is_not_finite_names_the_remedy(make_config, tmp_path, monkeypatch):
    trainer = trainer_for(make_config(), tmp_path / "run")
    monkeypatch.setattr("models.training.validation.token_loss", lambda *a: TokenLoss(float("nan"), 1))
    with pytest.raises(UserError, match=r"got nan at step 0; lower --optim\.learning-rate"):
        trainer.validate()


def test_weights_that_are_not_finite_are_never_saved(make_config, tmp_path):
    trainer = trainer_for(make_config(), tmp_path / "run")
    weight = next(trainer.model.parameters())
    weight.replace(np.full(weight.shape, np.nan, np.float32))
    with pytest.raises(UserError, match="finite weights are required"):
        trainer.save()
    assert not list((tmp_path / "run").glob("*.safetensors*"))


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


def test_the_log_says_what_happened(undisturbed):
    log = log_of(undisturbed[1])
    steps = [entry for entry in log if entry["kind"] == "train"]
    assert [entry["step"] for entry in steps] == list(range(1, 14))
    assert [entry["epoch"] for entry in steps] == [1 + i // 3 for i in range(13)]
    assert [entry["step"] for entry in log if entry["kind"] == "valid"] == [4, 8, 12, 13]
    assert all(entry["gradient_norm"] > 0 and entry["tokens"] > 0 for entry in steps)
    assert steps[-1]["loss"] < steps[0]["loss"]
    best = min((entry for entry in log if entry["kind"] == "valid"), key=lambda entry: entry["loss"])
    assert read_checkpoint(undisturbed[1] / "best.safetensors").progress.best_loss == best["loss"]
    assert best["samples"][0].keys() == {"source", "reference", "output"}


def test_eight_pairs_are_learned_by_heart(tmp_path):
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


def test_a_line_too_long_for_the_model_is_cut_and_told(make_config, tmp_path):
    trainer = trainer_for(make_config(), tmp_path / "run")
    cut = []
    translator = Translator(trainer.model, trainer.run.tokenizer, cut.append)
    outputs = translator.translate(["one", "x" * 1_000_000, "two"], first=10)
    assert len(outputs) == 3 and cut == [11]


def test_keeping_memory_does_no_harm():
    tl.keep_memory()
    assert np.ones(10**6).sum() == 10**6


def test_an_optimizer_keeps_memory_unless_it_is_told_not_to():
    """Mallopt is called when the first optimizer is made, once, and not on import."""
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
