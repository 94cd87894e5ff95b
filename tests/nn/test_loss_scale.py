"""The dynamic loss scale: how it follows the steps, its state, and small gradients in fp16."""

import numpy as np
import pytest

import nn
import tensorlib as tl
from nn import optim
from tensorlib.engine.recording import recording
from tests.conftest import backend_named


@pytest.fixture(params=["numpy", "cupy"])
def backend(request):
    return backend_named(request.param)


def expected_scales(first, grow_after, flags):
    """Return the scale after each step, in plain Python."""
    scale, good, found = first, 0, []
    for skipped in flags:
        good = 0 if skipped else good + 1
        if skipped:
            scale = max(scale / 2, 1)
        elif good == grow_after:
            scale, good = min(2 * scale, 2.0**24), 0
        found.append(scale)
    return found


def flag(backend, skipped):
    """Return whether a step was skipped, as an optimizer on a backend says it: a bool of shape ()."""
    return backend.asarray(np.array(bool(skipped)))


@pytest.mark.parametrize(("first", "grow_after", "often"), [(2.0**16, 3, 0.2), (4.0, 2, 0.6), (2.0**23, 1, 0.1)])
def test_it_doubles_after_good_steps_and_halves_at_a_skipped_one(first, grow_after, often, backend):
    flags = np.random.default_rng(0).random(60) < often
    scale, found = optim.LossScale(first, grow_after, backend), []
    for skipped in flags:
        scale.update(flag(backend, skipped))
        found.append(float(scale.value.item()))
    assert found == expected_scales(first, grow_after, flags.tolist())
    assert {1.0, 2.0**24} & set(found) or often == 0.2  # the bounds are reached


def test_a_plain_bool_will_do(backend):
    scale = optim.LossScale(8.0, grow_after=1, backend=backend)
    scale.update(True), scale.update(tl.Tensor(flag(backend, False))), scale.update(False)
    assert scale.value.item() == 16.0


def test_the_scaled_loss_has_scaled_gradients(backend):
    scale = optim.LossScale(256.0, backend=backend)
    w = nn.Parameter(tl.Tensor([1.0, 2.0], backend=backend))
    loss = (w * w).sum()
    scale(loss).backward()
    assert scale(loss).item() == 256 * 5
    np.testing.assert_array_equal(w.grad.numpy(), [512.0, 1024.0])


def test_an_array_taken_earlier_sees_the_update(backend):
    scale = optim.LossScale(8.0, grow_after=1, backend=backend)
    before = scale.value
    scale.update(flag(backend, False))
    assert before.item() == 16.0 and scale.value.data is before.data


def test_state_goes_to_a_checkpoint_and_to_another_backend(backend):
    scale = optim.LossScale(64.0, grow_after=3, backend=backend)
    for _ in range(2):
        scale.update(flag(backend, False))
    state = scale.state_dict()
    assert (state["scale"], state["good"]) == (64.0, 2) and state["scale"].dtype == "float32"
    other = optim.LossScale(1.0, grow_after=3)
    array = other.value.data
    other.load_state_dict(state)
    other.update(False)
    assert other.value.item() == 128.0 and other.value.data is array


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"scale": np.float32(8)}, "missing good"),
        ({"scale": np.float32(0), "good": 1}, "scale must lie between 1 and 16777216.0, got 0.0"),
        ({"scale": np.float32(np.nan), "good": 1}, "got nan"),
        ({"scale": np.float32(8), "good": -1}, "good must lie between 0 and inf, got -1"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(state, message):
    scale = optim.LossScale(4.0)
    with pytest.raises(ValueError, match=rf"^LossScale: the state does not fit: .*{message}"):
        scale.load_state_dict(state)
    assert scale.value.item() == 4.0


@pytest.mark.parametrize("first", [0.0, -1.0, 0.5, 2.0**25, float("nan"), "8"])
def test_first_scales_out_of_range_are_refused(first):
    with pytest.raises((TypeError, ValueError), match=r"^LossScale: first must"):
        optim.LossScale(first)
    with pytest.raises(ValueError, match=r"^LossScale: grow_after must be an integer of at least 1, got 0"):
        optim.LossScale(grow_after=0)


def test_an_update_is_one_launch_and_waits_for_nothing():
    backend = backend_named("cupy")
    if not getattr(backend.xp, "is_emulated", False):
        pytest.skip("only the emulated GPU counts its work")
    from tests.emulated_gpu.device import counted

    scale, skipped = optim.LossScale(backend=backend), flag(backend, True)
    scale.update(skipped)
    with counted() as counts:
        scale.update(skipped)
    assert (counts.launches, counts.fetches, counts.uploads, counts.synchronisations) == (1, 0, 0, 0)


def test_a_captured_update_is_repeated():
    backend = backend_named("cupy")
    scale, skipped = optim.LossScale(64.0, grow_after=2, backend=backend), flag(backend, False)
    scale.update(skipped)
    stream = backend.xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        scale.update(skipped)
        graph = stream.end_capture()
    assert scale.value.item() == 64.0
    graph.launch()
    assert scale.value.item() == 128.0
    skipped[...] = True
    for expected in (64.0, 32.0):
        graph.launch()
        assert scale.value.item() == expected


def test_gradients_that_vanish_in_fp16_survive_scaled():
    """The gradient of a weight is a product of an activation and a small gradient, which fp16 rounds to 0."""
    backend = backend_named("cupy")
    x = tl.Tensor(np.full((4, 3), 2.0, np.float32), backend=backend)
    found = {}
    for name, first in (("plain", 1.0), ("scaled", 2.0**16)):
        w = nn.Parameter(tl.Tensor(np.ones((3, 2), np.float32), backend=backend))
        scale = optim.LossScale(first, backend=backend)
        with recording(precision="fp16"):
            y = x @ w
        scale(y.sum() * 1e-8).backward()
        found[name] = w.grad.numpy() / first
    assert (found["plain"] == 0).all()
    np.testing.assert_allclose(found["scaled"], 8e-8, rtol=1e-3)


def test_training_in_fp16_finds_its_scale():
    """From a scale that is far too large: steps are skipped until gradients are finite, then the loss falls."""
    backend = backend_named("cupy")
    rng = np.random.default_rng(0)
    x, y = (tl.Tensor(rng.standard_normal(s).astype(np.float32), backend=backend) for s in ((16, 4), (16, 2)))
    w = nn.Parameter(tl.Tensor(np.zeros((4, 2), np.float32), backend=backend))
    optimizer, scale = optim.SGD([w], learning_rate=0.1), optim.LossScale(2.0**24, 5, backend)
    losses, skips = [], 0
    for _ in range(40):
        with recording(precision="fp16"):
            loss = ((x @ w - y) ** 2).mean()
        scale(loss).backward()
        skipped = ~backend.xp.isfinite(w.grad.data).all()
        if not bool(skipped):
            w.grad = w.grad / scale.value.item()
            optimizer.step()
            losses.append(loss.item())
        else:
            skips += 1
        scale.update(skipped)
        optimizer.zero_grad()
    assert 0 < skips < 20 and losses[-1] < 0.9 * losses[0]
    assert np.isfinite(w.numpy()).all()
