"""The dynamic loss scale: how it follows the steps, its state, and small gradients in fp16."""

import numpy as np
import pytest

import nn
import tensorlib as tl
from nn import optim
from tensorlib.engine.recording import recording
from tests.conftest import backend_named
from tests.strict import STRICT


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


def test_a_loss_scale_needs_a_flag_on_its_backend():
    scale = optim.LossScale(8.0, backend=STRICT)
    with pytest.raises(
        TypeError, match=r"^LossScale: skipped must be on the backend strict, got a ndarray of .* on numpy"
    ):
        scale.update(np.zeros((), bool))
    with pytest.raises(
        TypeError, match=r"^LossScale: skipped must be a bool of shape \(\), got None; pass optimizer.skip"
    ):
        scale.update(None)
    with pytest.raises(TypeError, match=r"^LossScale: the loss must be a Tensor, got float; call scale\(loss\)"):
        scale(1.0)


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


def trained(backend, captured, steps=30):
    """Train a layer in fp16 from a scale that is far too large; return its losses, scales and weights."""
    tl.seed(0)
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 4), (16, 2)))
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)).to(backend)
    optimizer, scale = optim.Adam(model.parameters(), 0.05), optim.LossScale(2.0**22, 5, backend)

    def step(x, y):
        with tl.precision("fp16"):
            loss = ((model(tl.Tensor(x)) - tl.Tensor(y)) ** 2).mean()
        optimizer.zero_grad()
        scale(loss).backward()
        norm = optim.guarded_step(optimizer, loss, max_norm=1.0, loss_scale=scale.value)
        scale.update(optimizer.skipped)
        return loss, norm, tl.Tensor(scale.value.data), tl.Tensor(optimizer.skipped)

    run = tl.capture(step) if captured else step
    arguments = [backend.asarray(a) for a in (x, y)]
    found = [[float(value.item()) for value in run(*arguments)] for _ in range(steps)]
    return found, [p.numpy() for p in model.parameters()]


def test_training_in_fp16_finds_its_scale_captured_or_not():
    """Steps are skipped until gradients are finite, then the loss falls; a captured step does the same."""
    backend = backend_named("cupy")
    (plain, weights), (captured, others) = (trained(backend, captured) for captured in (False, True))
    np.testing.assert_array_equal(plain, captured)  # the norm of a skipped step is NaN
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_array_equal(a, b)
    losses, norms, scales, skips = (list(column) for column in zip(*plain, strict=True))
    first = skips.index(0.0)
    assert 0 < first < 20 and set(losses[: first + 1]) == {losses[0]}  # skipped steps change nothing
    assert losses[-1] < 0.9 * losses[0] and all(
        norm < 100 for norm, skipped in zip(norms, skips, strict=True) if not skipped
    )
    assert scales == expected_scales(2.0**22, 5, skips)
