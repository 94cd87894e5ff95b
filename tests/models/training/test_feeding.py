"""What the decoder reads in training: true words, its own predictions, or a mixture."""

import doctest
import math

import numpy as np
import pytest

import models.training.feeding
import tensorlib as tl
from models.architectures.language import LanguageConfig, LanguageModel
from models.architectures.recurrent import RecurrentConfig, RecurrentTranslator
from models.architectures.transformer import Transformer, TransformerConfig
from models.decoding.token_by_token import greedy
from models.runs.checkpoint import step_path
from models.runs.config import SamplingConfig
from models.system.errors import UserError
from models.system.stopping import Stopped
from models.text.batching import make_batch
from models.text.tokens import BOS, PAD
from models.training.feeding import (
    FreeRunning,
    ScheduledSampling,
    TeacherForcing,
    changed_fraction,
    fed_back,
    loss_step_by_step,
    true_fraction,
)
from tests.small_runs import StopsAt, config_maker, language_config_maker, resume, train

EXAMPLES = [([5, 6, 7, 3], [8, 9, 10, 11, 5]), ([9, 3], [6, 4]), ([4, 8, 3], [7, 7, 9, 4])]


@pytest.fixture
def make_config(tmp_path):
    return config_maker(tmp_path)


@pytest.fixture(params=["transformer", "transformer-learned", "lstm", "gru-none", "language"])
def model(request):
    """Return a model in float64, in training mode, with dropout, and large enough weights for varied predictions."""
    kind, _, option = request.param.partition("-")
    generator = tl.Generator(0)
    if kind == "transformer":
        positions = option or "sinusoidal"
        config = TransformerConfig(12, 12, 2, 8, 2, 16, dropout=0.5, norm="pre", positions=positions, max_length=20)
        made = Transformer(config, generator)
    elif kind == "language":
        made = LanguageModel(LanguageConfig(12, 2, 8, 2, 16, dropout=0.5, max_length=20), generator)
    else:
        made = RecurrentTranslator(RecurrentConfig(12, 12, 2, 8, option or "dot", dropout=0.5, kind=kind), generator)
    for parameter in made.parameters():
        parameter.replace(3 * parameter.numpy())
    return made.astype("float64").train()


def batch_for(model, times=1):
    """Return a batch of the examples, whose sources a language model does not have."""
    no_source = isinstance(model, LanguageModel)
    return make_batch([([] if no_source else source, target) for source, target in EXAMPLES * times])


def likeliest(model, batch, inputs_BT):
    with model.evaluating(), tl.no_grad():
        return model(batch.source_BS, inputs_BT).argmax(axis=-1).numpy()


def test_teacher_forcing_feeds_the_shifted_target(model):
    batch = batch_for(model)
    np.testing.assert_array_equal(TeacherForcing().inputs(model, batch, 1), batch.target_in_BT)


def test_free_running_feeds_each_prediction_back(model):
    batch = batch_for(model)
    fed_BT = FreeRunning().inputs(model, batch, 1)
    truth_BT = batch.target_in_BT
    real_BT = truth_BT[:, 1:] != PAD
    assert (fed_BT[:, 0] == BOS).all() and (fed_BT[truth_BT == PAD] == PAD).all()
    np.testing.assert_array_equal(fed_BT[:, 1:][real_BT], likeliest(model, batch, fed_BT)[:, :-1][real_BT])
    assert (fed_BT != truth_BT).any()
    greedy_targets = greedy(model, [source[source > 0].tolist() for source in batch.source_BS], max_length=3)
    for fed, target in zip(fed_BT, greedy_targets, strict=True):  # the same words as in use, up to the first </s>
        count = min(len(target), (fed != PAD).sum() - 1)
        assert fed[1 : 1 + count].tolist() == target[:count]


def test_true_words_everywhere_are_teacher_forcing(model):
    batch = batch_for(model)
    fed_BT = fed_back(model, batch, np.ones(batch.target_in_BT.shape, dtype=bool))
    np.testing.assert_array_equal(fed_BT, batch.target_in_BT)


@pytest.mark.parametrize("cache", [True, False])
def test_one_pass_over_the_inputs_is_the_step_by_step_form(model, cache):
    model.eval()  # each form would draw other dropout
    batch = batch_for(model)
    inputs_BT = FreeRunning().inputs(model, batch, 1)
    results = []
    for loss in (
        lambda: model.loss(batch.source_BS, inputs_BT, batch.target_out_BT, reduction="sum"),
        lambda: loss_step_by_step(model, batch, cache),
    ):
        value = loss()
        value.backward()
        results.append([value.numpy(), *(p.grad.numpy() for p in model.parameters() if p.grad is not None)])
        model.zero_grad()
    assert len(results[0]) == len(results[1]) > 10
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
def test_scheduled_sampling_mixes_true_and_predicted_words(model, truth):
    tl.seed(1)
    batch = batch_for(model, 20)
    feeding = ScheduledSampling(SamplingConfig("constant", truth), 100)
    inputs_BT, truth_BT = feeding.inputs(model, batch, 1), batch.target_in_BT
    # A recurrent model predicts from the mixture, a Transformer in a first pass from the true words.
    read_BT = inputs_BT if model.recurrent else truth_BT
    predicted_BT = likeliest(model, batch, read_BT)[:, :-1]
    inputs_BT, truth_BT = inputs_BT[:, 1:], truth_BT[:, 1:]
    assert ((inputs_BT == truth_BT) | (inputs_BT == predicted_BT)).all()
    assert (np.diff(predicted_BT, axis=1) != 0).mean() > 0.1  # so that a shift would be seen
    differ_BT = (predicted_BT != truth_BT) & (truth_BT != PAD)
    share = (inputs_BT == truth_BT)[differ_BT].mean()
    assert abs(share - truth) < 4 * math.sqrt(truth * (1 - truth) / differ_BT.sum()) + 1e-9


def test_the_decays_are_those_of_the_paper():
    for step in (1, 5, 50, 101, 150, 400):
        i = step - 1

        def fraction(decay, step=step, **more):
            return true_fraction(SamplingConfig(decay, halfway=100, **more), step, 1000)

        assert fraction("linear") == pytest.approx(max(0, 1 - i / 200))
        assert fraction("linear", truth=0.3) == pytest.approx(max(0.3, 1 - i / 200))
        assert fraction("exponential") == pytest.approx((0.5**0.01) ** i)
        k = 29.536599  # k ln k = 100
        assert fraction("inverse-sigmoid") == pytest.approx(k / (k + math.exp(i / k)), rel=1e-6)
        assert fraction("constant", truth=0.3) == 0.3
    assert true_fraction(SamplingConfig(), 51, 100) == 0.5  # half of the run's steps
    for decay in ("linear", "exponential", "inverse-sigmoid"):
        assert true_fraction(SamplingConfig(decay), 10**6, 10) == pytest.approx(0, abs=1e-9)  # without overflow


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
@pytest.mark.parametrize("feeding", ["free-running", "scheduled-sampling"])
def test_a_resumed_run_is_the_run_that_was_never_stopped(make_config, tmp_path, kind, feeding):
    model = {"kind": kind} if kind == "transformer" else {"kind": "lstm", "attention": "none"}
    config = make_config(feeding=feeding, steps=6, save_every=2)
    if kind == "lstm":
        from models.runs.config_layers import config_from  # the standard model's settings are a Transformer's

        given = {"train_tsv": config.train_tsv, "valid_tsv": config.valid_tsv, "steps": 6, "batch_sentences": 5}
        given |= {"save_every": 2, "keep": 99, "validate_every": 4, "best_by": "loss", "tokenizer": {"vocabulary": 300}}
        given |= {"feeding": feeding, "model": model | {"layers": 1, "width": 8}}
        config = config_from(("test", given))
    train(config, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(config, tmp_path / "parts", StopsAt(4))
    resume(tmp_path / "parts")
    for name in ("log.jsonl", step_path(tmp_path, 6).name):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_language_model_cannot_run_free(tmp_path):
    config = language_config_maker(tmp_path)(feeding="scheduled-sampling")
    assert config.feeding == "scheduled-sampling"
    with pytest.raises(UserError, match="free-running needs a source; a language model has none"):
        language_config_maker(tmp_path)(feeding="free-running")


def test_more_steps_change_the_fraction_of_true_words(make_config):
    before, after = (make_config(feeding="scheduled-sampling", steps=steps) for steps in (6, 12))
    assert changed_fraction(before, after, 6, 6) == (
        "the fraction of true words changes from 0 to 0.5, because --sampling.halfway follows --steps"
    )
    assert not changed_fraction(before, before, 6, 6)
    fixed = [make_config(feeding="scheduled-sampling", steps=n, sampling={"halfway": 4}) for n in (6, 12)]
    assert not changed_fraction(*fixed, 6, 6)
    assert not changed_fraction(make_config(steps=6), make_config(steps=12), 6, 6)


def test_feeding_changes_what_is_learned(make_config, tmp_path):
    weights = []
    for feeding in ("teacher-forcing", "free-running", "scheduled-sampling"):
        trainer = train(make_config(feeding=feeding, steps=3), tmp_path / feeding)
        weights.append(trainer.model.output.weight.numpy())
    assert not any((weights[i] == weights[j]).all() for i, j in ((0, 1), (0, 2), (1, 2)))


def test_settings_of_scheduled_sampling_need_it(make_config):
    with pytest.raises(UserError, match="--feeding scheduled-sampling; got --feeding free-running; add it"):
        make_config(feeding="free-running", sampling={"truth": 0.5})
    with pytest.raises(UserError, match="--sampling need --feeding scheduled-sampling; got --feeding teacher-forcing"):
        make_config(sampling={"decay": "linear"})  # also a default value, if it is given
    with pytest.raises(UserError, match=r"--sampling\.decay constant needs --sampling\.truth; got none"):
        make_config(feeding="scheduled-sampling", sampling={"decay": "constant"})
    with pytest.raises(UserError, match=r"constant never changes; got --sampling\.halfway 3; leave it out"):
        make_config(feeding="scheduled-sampling", sampling={"decay": "constant", "truth": 0.5, "halfway": 3})
    with pytest.raises(UserError, match=r"--sampling.truth must be from 0 to 1, got 1.5"):
        make_config(feeding="scheduled-sampling", sampling={"truth": 1.5})


def test_the_example_runs():
    assert doctest.testmod(models.training.feeding).failed == 0
