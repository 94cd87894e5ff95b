"""Averages of weights, against values computed by hand."""

import numpy as np
import pytest

import nn
import tensorlib as tl
from nn import optim
from nn.averaging import ExponentialMovingAverage, average


def parameter_of(*values, backend="numpy", dtype="float32"):
    return nn.Parameter(tl.Tensor(np.array(values, dtype), backend=backend).data)


# ---- along training ----


def test_the_moving_average_follows_its_recurrence(backend):
    w = parameter_of(11.0, 0.0, backend=backend)
    moving, first = ExponentialMovingAverage([("w", w)], 0.25), w.data
    seen = [np.array(backend.to_numpy(moving.arrays["w"]))]
    for step, value in ((1, 22.0), (2, 4.0), (3, 4.0)):
        w.replace(tl.Tensor(np.array([value, 0.0], "float32"), backend=backend).data)
        moving.update(step)
        seen.append(np.array(backend.to_numpy(moving.arrays["w"])))
    # d is 2/11, then 3/12 = 1/4, then bounded by 1/4:  2/11 · 11 + 9/11 · 22 = 20;  1/4 · 20 + 3/4 · 4 = 8;  5
    np.testing.assert_allclose(seen, [[11, 0], [20, 0], [8, 0], [5, 0]], rtol=1e-6)
    assert backend.to_numpy(first)[0] == 11  # the average is a copy: updating it changes no other array


def test_after_long_training_the_decay_is_the_given_one():
    w = parameter_of(0.0, dtype="float64")
    moving = ExponentialMovingAverage([("w", w)], 0.999)
    w.replace(np.array([1.0]))
    moving.update(8989)  # (1 + t) / (10 + t) = 8990/8999 is below 0.999 for the last time at this step
    assert moving.arrays["w"][0] == pytest.approx(9 / 8999, rel=1e-9)
    moving.update(10**6)
    assert moving.arrays["w"][0] == pytest.approx(1 - 0.999 * (1 - 9 / 8999), rel=1e-9)


def test_the_average_of_float16_is_float32(backend):
    """Steps of 1e-3 · 0.01 are far below the spacing of float16 at 1, which is 1e-3."""
    w = parameter_of(1.0, backend=backend, dtype="float16")
    moving = ExponentialMovingAverage([("w", w)], 0.999)
    w.replace(tl.Tensor([1.01], dtype="float16", backend=backend).data)
    for step in range(10_000, 12_000):
        moving.update(step)
    assert moving.arrays["w"].dtype == np.float32
    expected = 1 + (float(np.float16(1.01)) - 1) * (1 - 0.999**2000)
    np.testing.assert_allclose(np.array(backend.to_numpy(moving.arrays["w"])), expected, rtol=1e-5)
    with moving.applied():
        assert w.dtype == np.float16 and w.item() == np.float16(expected)


def test_constant_weights_equal_their_average_to_the_bit():
    w = nn.Parameter(np.random.default_rng(0).standard_normal(1000).astype("float32"))
    moving = ExponentialMovingAverage([("w", w)], 0.9)
    for step in range(1, 50):
        moving.update(step)
    np.testing.assert_array_equal(moving.arrays["w"], w.numpy())


def test_the_average_is_in_the_model_only_within_the_block_also_after_an_exception():
    layer = nn.Linear(3, 2)
    moving = ExponentialMovingAverage(layer.named_parameters(), 0.9)
    averaged = layer.state_dict()
    layer.weight.replace(layer.weight.data + 1)
    own = layer.state_dict()
    with pytest.raises(KeyError), moving.applied():
        np.testing.assert_array_equal(layer.weight.numpy(), averaged["weight"])
        raise KeyError
    np.testing.assert_array_equal(layer.weight.numpy(), own["weight"])
    np.testing.assert_array_equal(moving.arrays["weight"], averaged["weight"])


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_the_decay_must_be_a_fraction(decay):
    with pytest.raises(ValueError, match=rf"ExponentialMovingAverage: decay must lie in \[0, 1\), got {decay}"):
        ExponentialMovingAverage([], decay)


def test_the_average_takes_parameters_with_or_without_names():
    layer = nn.Linear(3, 2)
    with_names, without = (ExponentialMovingAverage(p(), 0.9) for p in (layer.named_parameters, layer.parameters))
    assert list(with_names.arrays) == list(without.arrays) == ["weight", "bias"]
    plain = [nn.Parameter([1.0]), nn.Parameter([2.0])]
    assert list(ExponentialMovingAverage(plain, 0.9).arrays) == ["0", "1"]


def test_the_average_can_be_saved_and_loaded(backend):
    w = parameter_of(1.0, 2.0, backend=backend)
    moving, other = ExponentialMovingAverage([("w", w)], 0.5), ExponentialMovingAverage([("w", w)], 0.5)
    w.replace(tl.Tensor([5.0, 6.0], backend=backend).data)
    for step in (1, 2):
        moving.update(step)
    state = moving.state_dict()
    other.load_state_dict(state)
    for one in (moving, other):
        one.update(3)
    np.testing.assert_array_equal(moving.state_dict()["w"], other.state_dict()["w"])
    assert not np.array_equal(state["w"], moving.state_dict()["w"])  # a copy
    with pytest.raises(ValueError, match=r"ExponentialMovingAverage: the state does not fit: missing w; unexpected v"):
        other.load_state_dict({"v": state["w"]})
    with pytest.raises(TypeError, match=r"ExponentialMovingAverage: the state must be a mapping .*, got list"):
        other.load_state_dict([state["w"]])


LAYER = nn.Linear(3, 2)
NOT_PARAMETERS = [
    (LAYER, "iterable of one or more parameters, got Linear; pass model.parameters()"),
    (LAYER.state_dict(), "got dict; pass model.parameters()"),
    ([("w", np.ones(2))], "needs parameters, got numpy.ndarray among them"),
    ([], "needs one or more parameters, got none; a generator is empty once it is used up"),
    ([*LAYER.named_parameters(), *LAYER.named_parameters()], "weight is given twice"),
    ([*LAYER.named_parameters(), *nn.Linear(3, 2).named_parameters()], "different names, got weight twice"),
]


@pytest.mark.parametrize(("given", "message"), NOT_PARAMETERS)
def test_the_average_refuses_other_things_than_parameters(given, message):
    with pytest.raises((TypeError, ValueError), match=f"ExponentialMovingAverage: .*{message}"):
        ExponentialMovingAverage(given, 0.9)


def test_steps_are_counted_from_one():
    with pytest.raises(ValueError, match="step must be an integer of at least 1, got 0"):
        ExponentialMovingAverage([("w", parameter_of(1.0))], 0.9).update(0)
    for step, got in ((-5, "-5"), (0, "0"), (2.5, "2.5"), (None, "None")):
        average = ExponentialMovingAverage([("w", parameter_of(1.0))], 0.9)
        with pytest.raises((TypeError, ValueError), match=f"step must be an integer of at least 1, got {got}$"):
            average.update(lambda step=step: step)


@pytest.mark.parametrize("form", ["bool", "numpy.bool", "array", "Tensor"])
def test_a_flag_that_skips_a_step_may_be_a_bool_an_array_or_a_tensor(form, backend):
    w = parameter_of(0.0, backend=backend)
    average = ExponentialMovingAverage([("w", w)], 0.5)
    w.replace(backend.asarray(np.ones(1, "float32")))
    for skipped, expected in ((True, 0.0), (False, 1 - 2 / 11)):
        array = backend.asarray(np.array(skipped))
        flag = {"bool": skipped, "numpy.bool": np.bool_(skipped), "array": array, "Tensor": tl.Tensor(array)}[form]
        average.update(1, unless=flag)
        np.testing.assert_allclose(average.state_dict()["w"], expected, rtol=1e-6)


NOT_FLAGS = [
    ("yes", "'yes'"),
    (optim.SGD([parameter_of(1.0)], 0.1), "SGD"),
    (1, "1"),
    (np.zeros(2, bool), r"a ndarray of shape \(2,\) and dtype bool"),
    (np.zeros((), "float32"), r"a ndarray of shape \(\) and dtype float32"),
    (tl.Tensor([True]), r"a Tensor of shape \(1,\) and dtype bool"),
]


@pytest.mark.parametrize(("flag", "got"), NOT_FLAGS, ids=[got for _, got in NOT_FLAGS])
def test_other_flags_are_refused_and_change_nothing(flag, got):
    w = parameter_of(0.0)
    average, scale = ExponentialMovingAverage([("w", w)], 0.5), optim.LossScale(8.0, grow_after=1)
    w.replace(np.ones(1, "float32"))
    with pytest.raises(
        TypeError, match=rf"^ExponentialMovingAverage: unless must be a bool of shape \(\), got .*{got}"
    ):
        average.update(1, unless=flag)
    with pytest.raises(TypeError, match=rf"^LossScale: skipped must be a bool of shape \(\), got .*{got}"):
        scale.update(flag)
    assert average.state_dict()["w"] == 0 and scale.value.item() == 8


# ---- over several states ----


def test_the_mean_of_states_is_taken_name_by_name():
    states = [{"a": np.array([1.0, 2.0], "float32"), "b": np.array(9.0)}, {"a": [2.0, 6.0], "b": 0.0}]
    states.append({"a": tl.Tensor([6.0, 1.0]), "b": 3.0})
    mean = average(iter(states))
    np.testing.assert_array_equal(mean["a"], np.array([3.0, 3.0], "float32"))
    assert mean["a"].dtype == np.float32 and mean["b"] == 4.0


def test_the_mean_is_summed_in_float64():
    states = [{"a": np.array([x], "float32")} for x in (2.0**24, 1.0, 1.0, 2.0)]
    assert average(states)["a"][0] == 2**22 + 1  # in float32 each 1 would be lost when added to 2^24


def test_states_that_do_not_fit_the_first_are_named():
    one = {"a": np.zeros(2), "b": np.zeros(3)}
    with pytest.raises(ValueError, match=r"state 2 does not fit the first: missing b; a must have shape \(2,\), got"):
        average([one, {"a": np.zeros(5)}])
    with pytest.raises(ValueError, match="one or more state_dicts are required, got none"):
        average([])
    with pytest.raises(TypeError, match=r"average: needs an iterable of state_dicts, got str; pass model.state_dict"):
        average(one)
