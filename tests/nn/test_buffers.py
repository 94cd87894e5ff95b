"""Buffers: state of a module that is not learned. It is saved, moved, converted and copied with the parameters."""

import copy
import pickle
import warnings

import numpy as np
import pytest

import nn
import tensorlib as tl
from nn import optim
from nn.averaging import ExponentialMovingAverage, average


class BatchNorm(nn.Module):
    """Batch normalization with running statistics, which count in evaluation, and the number of batches so far."""

    def __init__(self, width, persistent=True):
        self.weight, self.bias = nn.Parameter(tl.ones(width)), nn.Parameter(tl.zeros(width))
        self.mean = nn.Buffer(tl.zeros(width), persistent)
        self.var = nn.Buffer(tl.ones(width), persistent)
        self.batches = nn.Buffer(np.array(0), persistent)

    def forward(self, x):
        if not self.training:
            return tl.batch_norm(x, self.weight, self.bias, self.mean, self.var)
        y, mean, var = tl.batch_norm(x, self.weight, self.bias, return_statistics=True)
        self.mean.replace(0.9 * self.mean.data + 0.1 * mean.data)
        self.var.replace(0.9 * self.var.data + 0.1 * var.data)
        self.batches.replace(self.batches.data + 1)
        return y


class Classifier(nn.Module):
    def __init__(self, persistent=True):
        self.norm = BatchNorm(8, persistent)
        self.hidden, self.output = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.output(tl.relu(self.hidden(self.norm(x))))


NAMES = ["norm.mean", "norm.var", "norm.batches"]


def data(rng, number):
    """Return points around three centres, in coordinates far from zero and of different scales; and their classes."""
    classes = rng.integers(0, 3, number)
    centres = np.random.default_rng(0).standard_normal((3, 8))
    points = (centres[classes] + 0.5 * rng.standard_normal((number, 8))) * np.logspace(-2, 2, 8) + 5 * np.arange(8)
    return points.astype("float32"), classes


def trained(persistent=True):
    tl.seed(1)
    model, rng = Classifier(persistent), np.random.default_rng(1)
    optimizer = optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        x, classes = data(rng, 64)
        optimizer.zero_grad()
        tl.cross_entropy(model(x), classes).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("persistent", [True, False])
def test_a_model_with_running_statistics_is_the_same_after_loading(persistent, tmp_path):
    """Without its statistics it is not: this is what a state_dict without buffers loses silently."""
    model = trained(persistent)
    x, classes = data(np.random.default_rng(2), 1000)
    tl.save(model.state_dict(), tmp_path / "model.safetensors")
    loaded = Classifier(persistent).eval()
    loaded.load_state_dict(tl.load(tmp_path / "model.safetensors"))
    before, after = model(x).numpy(), loaded(x).numpy()
    accuracy = [(logits.argmax(-1) == classes).mean() for logits in (before, after)]
    assert accuracy[0] > 0.95
    if persistent:
        np.testing.assert_array_equal(after, before)
        assert loaded.norm.batches.item() == 60 and loaded.norm.batches.dtype == np.int64
    else:
        assert accuracy[1] < 0.7 and not any(name in model.state_dict() for name in NAMES)


def test_buffers_are_listed_apart_from_parameters_and_named_by_their_path():
    model = Classifier()
    assert [name for name, _ in model.named_buffers()] == NAMES == [b.name for b in model.buffers()]
    assert not {*NAMES} & {name for name, _ in model.named_parameters()}
    assert list(model.state_dict()) == [
        "norm.weight", "norm.bias", *NAMES, "hidden.weight", "hidden.bias", "output.weight", "output.bias"
    ]  # fmt: skip
    assert not any(b.requires_grad for b in model.buffers()) and type(model.norm.mean * 2) is tl.Tensor
    assert repr(model).split("\n")[:2] == [
        "Classifier()  # 211 parameters, 17 numbers in buffers",
        "  norm: BatchNorm()  # 16 parameters, 17 numbers in buffers",
    ]


def test_a_buffer_that_two_modules_share_comes_once_and_stays_shared():
    model = nn.ModuleList([BatchNorm(2), BatchNorm(2)])
    model[1].mean = model[0].mean
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert [name for name, _ in each.named_buffers()] == ["0.mean", "0.var", "0.batches", "1.var", "1.batches"]
        each.load_state_dict(each.state_dict() | {"0.mean": [3.0, 4.0]})
        assert each[1].mean.numpy().tolist() == [3, 4] and each[1].mean is each[0].mean


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("persistent", [True, False])
def test_a_copied_buffer_is_a_buffer(duplicate, persistent):
    twin = duplicate(nn.Buffer([1.0, 2.0], persistent))
    assert type(twin) is nn.Buffer and twin.persistent is persistent and twin.numpy().tolist() == [1, 2]


def test_buffers_move_and_convert_with_the_model(backend):
    x, _ = data(np.random.default_rng(3), 16)
    model = trained()
    expected = model(x).numpy()
    moved = copy.deepcopy(model).to(backend)
    assert all(b.backend is tl.get_backend(backend) for b in moved.buffers())
    np.testing.assert_allclose(moved(tl.Tensor(x, backend=backend)).numpy(), expected, rtol=1e-4, atol=1e-5)
    moved.load_state_dict(model.state_dict())
    assert all(b.backend is tl.get_backend(backend) for b in moved.buffers())
    wide = model.astype("float64")
    assert [b.dtype.name for b in wide.buffers()] == ["float64", "float64", "int64"]
    wide.load_state_dict(moved.state_dict())
    assert wide.norm.var.dtype == np.float64 and isinstance(wide.norm.var, nn.Buffer)


def test_a_state_without_a_buffer_is_refused_and_a_count_is_not_rounded():
    model = Classifier()
    state = model.state_dict()
    del state["norm.var"]
    with pytest.raises(ValueError, match=r"missing norm\.var"):
        model.load_state_dict(state | {"norm.mean": np.ones(8)})
    assert not model.norm.mean.numpy().any()
    model.load_state_dict({"norm.batches": 7.0}, strict=False)
    with pytest.raises(ValueError, match=r"norm\.batches of dtype int64 cannot hold 7\.5"):
        model.load_state_dict({"norm.batches": 7.5}, strict=False)
    assert model.norm.batches.item() == 7


def test_functional_call_also_takes_buffers():
    norm = BatchNorm(2).eval()
    y = nn.functional_call(norm, {"mean": tl.Tensor([1.0, 2.0])}, tl.Tensor([[1.0, 2.0]]))
    assert not y.numpy().any() and not norm.mean.numpy().any() and type(norm.mean) is nn.Buffer


def test_averages_leave_counts_whole_and_buffers_at_their_last_value():
    states = [{"w": np.array([1.0, 3.0]), "n": np.array(3)}, {"w": np.array([2.0, 4.0]), "n": np.array(6)}]
    mean = average(states)
    assert mean["w"].tolist() == [1.5, 3.5] and mean["n"] == 6 and mean["n"].dtype == np.int64
    norm = BatchNorm(2)
    moving = ExponentialMovingAverage(norm.named_parameters(), 0.9)
    norm(tl.Tensor([[1.0, 10.0], [3.0, 30.0]]))
    moving.update(1)
    with moving.applied():
        np.testing.assert_allclose(norm.state_dict()["mean"], [0.2, 2.0], rtol=1e-6)


# ---- what is no buffer ----


@pytest.mark.parametrize(
    ("value", "kind"),
    [(tl.zeros(2), "Tensor"), (np.zeros(2), "numpy.ndarray"), (tl.ones(2) * 2, "Tensor"), (np.array(1.0), "numpy")],
)
def test_a_floating_array_that_would_not_be_saved_is_pointed_to(value, kind):
    with pytest.warns(
        UserWarning, match=rf"Module\.mean: a floating {kind}.* state_dict.*; assign nn\.Buffer"
    ) as caught:
        nn.Module().mean = value
    with pytest.warns(UserWarning, match=r"Module\.w: .* requires a gradient .*; assign nn\.Parameter"):
        nn.Module().w = tl.Tensor([1.0], requires_grad=True)
    assert caught[0].filename == __file__ and "\n" not in str(caught[0].message)


@pytest.mark.parametrize(
    "value",
    [1.0, np.float32(1), np.sqrt(64), np.arange(3), np.dtype("float32"), [1.0], None, nn.Buffer([1.0]), tl.Tensor([1]),
     nn.Parameter([1.0]) * 2, nn.Parameter([1.0])],
    ids=str,
)  # fmt: skip
def test_settings_counts_and_results_of_a_forward_pass_are_not(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.Module().x = value


def test_a_tensor_that_is_no_buffer_is_still_moved_and_converted(backend):
    module = nn.Module()
    with pytest.warns(UserWarning, match="nn.Buffer"):
        module.table = tl.ones(2)
    module.to(backend).astype("float64")
    assert module.table.backend is tl.get_backend(backend) and module.table.dtype == np.float64
    assert not module.state_dict() and not list(module.buffers())


def test_a_buffer_is_not_lost_to_an_assignment_or_a_list():
    norm = BatchNorm(2)
    for wrong in (0.9 * norm.mean, np.zeros(2), 1.0):
        with pytest.raises(TypeError, match=r"BatchNorm\.mean: must stay a Buffer, got .*; use \.replace\(x"):
            norm.mean = wrong
    with pytest.raises(TypeError, match=r"BatchNorm\.many: modules, parameters and buffers in a plain list"):
        norm.many = [nn.Buffer([1.0])]
    norm.mean = nn.Buffer([5.0, 6.0], persistent=False)
    assert "mean" not in norm.state_dict() and norm.mean.name == "mean"
    norm.mean = None
    assert [name for name, _ in norm.named_buffers()] == ["var", "batches"]
