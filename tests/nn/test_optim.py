"""Optimizers against loops in plain NumPy, their state, gradient clipping, and schedules at characteristic steps."""

import math
import re
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

import nn
import tensorlib as tl
from nn import optim, schedules
from nn.optimizer import SMALL
from tests.edges import refused
from tests.strict import STRICT


class Bowl(nn.Module):
    """A loss with a different slope in every direction: sum of (a_i x_i)^2 / 2 + 0.1 x_i^3 over two parameters."""

    def __init__(self, backend="numpy", dtype="float64"):
        rng = np.random.default_rng(0)
        self.w = nn.Parameter(rng.standard_normal((3, 4)), dtype, backend)
        self.b = nn.Parameter(rng.standard_normal(4), dtype, backend)

    def forward(self):
        total = 0.0
        for p in self.parameters():
            slopes = tl.Tensor(np.linspace(0.5, 2, p.size).reshape(p.shape), dtype=p.dtype, backend=p.backend)
            total = total + (slopes * p * p * 0.5 + p * p * p * 0.1).sum()
        return total

    @staticmethod
    def gradient(x):
        return np.linspace(0.5, 2, x.size).reshape(x.shape) * x + 0.3 * x * x


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model().backward()
        optimizer.step()


# ---- against plain NumPy ----


def sgd(x, steps, lr, momentum=0.0, weight_decay=0.0, nesterov=False):
    velocity = np.zeros_like(x)
    for _ in range(steps):
        g = Bowl.gradient(x) + weight_decay * x
        velocity = momentum * velocity + g
        x = x - lr * (g + momentum * velocity if nesterov else velocity)
    return x


def adam(x, steps, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t in range(1, steps + 1):
        g = Bowl.gradient(x)
        if decoupled:
            x = x - lr * weight_decay * x
        else:
            g = g + weight_decay * x
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        x = x - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
    return x


def adamw(x, steps, weight_decay=0.01, **options):
    return adam(x, steps, weight_decay=weight_decay, decoupled=True, **options)


CASES = [
    (optim.SGD, sgd, {"lr": 0.05}),
    (optim.SGD, sgd, {"lr": 0.05, "weight_decay": 0.1}),
    (optim.SGD, sgd, {"lr": 0.02, "momentum": 0.9}),
    (optim.SGD, sgd, {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}),
    (optim.SGD, sgd, {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
    (optim.SGD, sgd, {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (optim.Adam, adam, {}),
    (optim.Adam, adam, {"lr": 0.02, "betas": (0.8, 0.98), "eps": 1e-4}),
    (optim.Adam, adam, {"lr": 0.02, "weight_decay": 0.1}),
    (optim.AdamW, adamw, {"lr": 0.02}),
    (optim.AdamW, adamw, {"lr": 0.02, "betas": (0.8, 0.98), "weight_decay": 0.3}),
]


def make(optimizer, parameters, options):
    options = dict(options)
    if "lr" in options:
        options["learning_rate"] = options.pop("lr")
    return optimizer(parameters, **options)


@pytest.mark.parametrize(("optimizer", "loop", "options"), CASES)
def test_twenty_steps_equal_a_plain_loop(optimizer, loop, options):
    bowl = Bowl()
    start = bowl.state_dict()
    train(bowl, make(optimizer, bowl.parameters(), options), 20)
    for name, p in bowl.named_parameters():
        np.testing.assert_allclose(p.numpy(), loop(start[name], 20, **options), rtol=1e-12)


@pytest.mark.parametrize(("optimizer", "loop", "options"), [CASES[5], CASES[8], CASES[10]])
def test_steps_agree_on_every_backend_in_float32(optimizer, loop, options, backend):
    bowl = Bowl(backend, "float32")
    start = bowl.state_dict()
    train(bowl, make(optimizer, bowl.parameters(), options), 5)
    for name, p in bowl.named_parameters():
        assert p.dtype == np.float32 and p.backend is tl.get_backend(backend)
        np.testing.assert_allclose(p.numpy(), loop(start[name].astype(float), 5, **options), rtol=2e-5, atol=1e-6)


def test_the_learning_rate_may_be_set_before_each_step():
    bowl = Bowl()
    expected = bowl.state_dict()["b"]
    optimizer = optim.SGD(bowl.parameters(), 1.0)
    for lr in (0.1, 0.01, 0.05):
        optimizer.learning_rate = lr
        train(bowl, optimizer, 1)
        expected = sgd(expected, 1, lr)
    np.testing.assert_allclose(bowl.b.numpy(), expected, rtol=1e-12)


def test_a_parameter_without_a_gradient_stays():
    bowl = Bowl()
    before = bowl.state_dict()
    optimizer = optim.AdamW(bowl.parameters(), 0.1)
    (bowl.w * bowl.w).sum().backward()
    optimizer.step()
    np.testing.assert_array_equal(bowl.b.numpy(), before["b"])
    assert not np.array_equal(bowl.w.numpy(), before["w"])


def test_a_step_between_forward_and_backward_is_an_error_not_a_wrong_number():
    bowl = Bowl()
    optimizer = optim.SGD(bowl.parameters(), 0.1)
    bowl().backward()
    late = bowl()
    optimizer.step()
    with pytest.raises(RuntimeError, match="has been replaced since"):
        late.backward()


def test_an_optimizer_needs_parameters_of_different_names():
    with pytest.raises(ValueError, match="different names"):
        optim.SGD([*nn.Linear(1, 1).parameters(), *nn.Linear(1, 1).parameters()], 0.1)
    loose = optim.SGD([nn.Parameter(np.zeros(2)), nn.Parameter(np.zeros(2))], 0.1)
    assert list(loose.parameters) == ["0", "1"]


# ---- state ----


@pytest.mark.parametrize(("optimizer", "loop", "options"), CASES)
def test_resuming_from_a_state_ends_in_the_same_bytes(optimizer, loop, options):
    straight, resumed = Bowl(dtype="float32"), Bowl(dtype="float32")
    first = make(optimizer, straight.named_parameters(), options)
    train(straight, first, 7)
    resumed.load_state_dict(straight.state_dict())
    second = make(optimizer, resumed.named_parameters(), options)
    second.load_state_dict(first.state_dict())
    for model, opt in ((straight, first), (resumed, second)):
        train(model, opt, 5)
    for name, array in straight.state_dict().items():
        assert array.tobytes() == resumed.state_dict()[name].tobytes()
    assert first.state_dict().keys() == second.state_dict().keys()
    for name, array in first.state_dict().items():
        assert array.tobytes() == second.state_dict()[name].tobytes()


def test_state_is_named_by_parameter_complete_and_a_copy():
    bowl = Bowl()
    optimizer = optim.Adam(bowl.named_parameters(), 0.1)
    assert set(optimizer.state_dict()) == {
        f"{p}.{s}" for p in "wb" for s in ("steps", "m", "v")
    }  # even before the first step
    train(bowl, optimizer, 1)
    state = optimizer.state_dict()
    assert state["w.steps"] == 1 and state["w.m"].any()
    kept = state["w.m"].copy()
    train(bowl, optimizer, 1)
    np.testing.assert_array_equal(state["w.m"], kept)
    optimizer.load_state_dict(state)
    state["w.m"][:] = 99
    np.testing.assert_array_equal(optimizer.state_dict()["w.m"], kept)


def test_a_state_loaded_after_steps_is_the_one_that_the_next_step_reads(backend):
    """Small parameters on NumPy are updated as one array, which must not outlive the state that it was made of."""
    w = nn.Parameter([1.0, 2.0], backend=backend)
    optimizer = optim.Adam([("w", w)], 0.1, betas=(0.5, 0.5))
    for load in (False, False, True):
        if load:
            optimizer.load_state_dict({name: 0 * array for name, array in optimizer.state_dict().items()})
        w.grad = tl.ones_like(w)
        optimizer.step()
    state = optimizer.state_dict()
    assert state["w.steps"] == 1 and state["w.m"].tolist() == state["w.v"].tolist() == [0.5, 0.5]


def test_a_state_that_does_not_fit_is_refused_whole():
    bowl = Bowl()
    optimizer = optim.Adam(bowl.named_parameters(), 0.1)
    train(bowl, optimizer, 2)
    before = optimizer.state_dict()
    state = optimizer.state_dict() | {"w.m": np.zeros(3), "c.m": np.zeros(1)}
    del state["b.v"], state["b.steps"]
    with pytest.raises(ValueError) as caught:
        optimizer.load_state_dict(state)
    for part in ("missing b.v", "missing b.steps", "unexpected c.m", "w.m must have shape (3, 4), got (3,)"):
        assert part in str(caught.value)
    for name, array in optimizer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_steps_are_counted_for_each_parameter():
    bowl = Bowl()
    optimizer = optim.Adam(bowl.named_parameters(), 0.1, eps=0.0)
    for step in range(1, 6):
        bowl.zero_grad()
        bowl.w.grad = tl.ones_like(bowl.w)
        if step == 5:  # the first gradient of b: its moments are corrected as at a first step, so it moves by lr
            before = bowl.b.numpy()
            bowl.b.grad = tl.ones_like(bowl.b)
        optimizer.step()
    np.testing.assert_allclose(before - bowl.b.numpy(), 0.1, rtol=1e-6)


def test_the_state_follows_a_model_that_is_moved_or_converted_after_a_step(backend):
    moved, stayed = Bowl(dtype="float32"), Bowl(dtype="float32")
    first, second = optim.Adam(moved.parameters(), 0.1), optim.Adam(stayed.parameters(), 0.1)
    for model, optimizer in ((moved, first), (stayed, second)):
        train(model, optimizer, 3)
    moved.to(backend)
    for model, optimizer in ((moved, first), (stayed, second)):
        train(model, optimizer, 3)
    assert {type(a) for slots in first.state.values() for a in slots.values()} == {type(moved.w.data)}
    assert first.steps == second.steps == {"w": 6, "b": 6}
    for name, array in stayed.state_dict().items():
        np.testing.assert_allclose(moved.state_dict()[name], array, rtol=1e-5)
    moved.to("numpy").astype("float64")
    train(moved, first, 1)
    assert moved.w.dtype == np.float64 and first.state["w"]["m"].dtype == np.float64


def test_a_refused_gradient_does_not_count_as_a_step():
    bowl = Bowl()
    optimizer = optim.Adam(bowl.parameters(), 0.1)
    bowl.w.grad = tl.ones((4, 3), dtype=bowl.w.dtype)
    with pytest.raises(ValueError, match="must have its shape"):
        optimizer.step()
    assert optimizer.steps == {"w": 0, "b": 0}


# ---- clipping ----


def with_gradients(backend="numpy", *, scale=1.0):
    bowl = Bowl(backend, "float32")
    bowl.w.grad = tl.Tensor(np.full((3, 4), 2.0 * scale), dtype="float32", backend=backend)
    bowl.b.grad = tl.Tensor(np.full(4, -3.0 * scale), dtype="float32", backend=backend)
    return bowl


def test_clip_grad_norm_scales_to_the_norm_and_returns_the_norm_before(backend):
    bowl = with_gradients(backend)
    expected = math.sqrt(12 * 4 + 4 * 9)
    norm = optim.clip_grad_norm(bowl.parameters(), 1.5)
    assert isinstance(norm, float) and norm == pytest.approx(expected, rel=1e-6)
    flat = np.concatenate([p.grad.numpy().reshape(-1) for p in bowl.parameters()])
    assert np.linalg.norm(flat) == pytest.approx(1.5, rel=1e-6)
    np.testing.assert_allclose(bowl.w.grad.numpy(), 2 * 1.5 / expected, rtol=1e-6)
    assert bowl.w.grad.dtype == np.float32 and bowl.w.grad.is_leaf


def test_clip_grad_norm_counts_a_tied_parameter_once():
    w = nn.Parameter([0.0, 0.0])
    w.grad = tl.Tensor([3.0, 4.0])
    assert nn.optim.clip_grad_norm([w, w], 1.0) == 5.0
    np.testing.assert_allclose(w.grad.numpy(), [0.6, 0.8], rtol=1e-6)


def test_clip_grad_norm_leaves_small_gradients_and_missing_ones():
    bowl = with_gradients()
    bowl.b.grad = None
    before = bowl.w.grad
    assert optim.clip_grad_norm(bowl.parameters(), 100.0) == pytest.approx(math.sqrt(48))
    assert bowl.w.grad is before and bowl.b.grad is None
    assert optim.clip_grad_norm(Bowl().parameters(), 1.0) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_clip_grad_norm_refuses_and_names_gradients_that_are_not_finite_and_changes_nothing(bad, backend):
    bowl = with_gradients(backend)
    values = np.full(4, 5.0, np.float32)
    values[2] = bad
    bowl.b.grad = tl.Tensor(values, backend=backend)
    before = bowl.w.grad
    with pytest.raises(ValueError, match="gradients must be finite, but those of b are not"):
        optim.clip_grad_norm(bowl.parameters(), 1.0)
    assert bowl.w.grad is before
    np.testing.assert_array_equal(bowl.b.grad.numpy(), values)


@pytest.mark.parametrize("optimizer", [optim.Adam, optim.AdamW, optim.SGD])
@pytest.mark.parametrize("rows", [5, 20_000])  # one small parameter, which is updated in a batch, and one large
def test_parameters_in_float16_are_updated_in_float32(optimizer, rows, backend):
    """In float16, Adam's eps is 0, so rows without a gradient would become 0 / 0; and 1e-4^2 is 0."""
    start = np.random.default_rng(0).standard_normal((rows, 2)).astype("float16")
    half, single = nn.Parameter(start, backend=backend), nn.Parameter(start, "float32")
    options = {"momentum": 0.9} if optimizer is optim.SGD else {}
    steps_of = [(p, optimizer([p], 0.1, **options)) for p in (half, single)]
    for _ in range(3):
        single.replace(half.numpy().astype("float32"))
        for p, steps in steps_of:
            steps.zero_grad()
            (tl.embedding(p, [0, 1]) * 2**-13).sum().backward()
            with np.errstate(all="raise", under="ignore"):
                steps.step()
        np.testing.assert_array_equal(half.numpy(), single.numpy().astype("float16"))
        assert half.dtype == np.float16


def test_the_state_of_parameters_in_float16_is_float32():
    p = nn.Parameter([1.0], dtype="float16")
    optimizer = optim.Adam([p])
    state = optimizer.state_dict()
    assert {array.dtype.name for array in state.values()} == {"int64", "float32"}
    optimizer.load_state_dict({name: array.astype("float16") for name, array in state.items()})
    assert {array.dtype.name for array in optimizer.state_dict().values()} == {"int64", "float32"}


def test_clip_grad_norm_sums_squares_of_float16_in_float32():
    p = nn.Parameter(np.zeros(4), dtype="float16")
    p.grad = tl.Tensor(np.full(4, 300.0), dtype="float16")  # its square overflows float16
    assert optim.clip_grad_norm([p], math.inf) == 600.0
    assert optim.clip_grad_norm([p], 6.0) == 600.0 and p.grad.dtype == np.float16
    np.testing.assert_allclose(p.grad.numpy(), 3.0, rtol=1e-3)
    p.grad = tl.Tensor(np.full(4, 6e4), dtype="float16")
    optim.clip_grad_norm([p], 1e-4)  # by a factor of 8e-10, which is 0 in float16
    np.testing.assert_allclose(p.grad.numpy(), 5e-5, rtol=1e-2)


def test_clip_grad_norm_reports_that_finite_gradients_overflow():
    with pytest.raises(ValueError, match="the sum of their squares overflows"):
        optim.clip_grad_norm(with_gradients(scale=1e25).parameters(), 1.0)


# ---- schedules ----


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (schedules.constant(0.3), {1: 0.3, 1000: 0.3}),
        (schedules.constant(0.3, warmup=10), {1: 0.03, 5: 0.15, 10: 0.3, 11: 0.3}),
        (
            schedules.noam(512, 4000),
            {1: 512**-0.5 * 4000**-1.5, 4000: 512**-0.5 * 4000**-0.5, 16000: 512**-0.5 * 16000**-0.5},
        ),
        (schedules.noam(64, 100, factor=2.0), {100: 2 / 8 / 10}),
        (schedules.inverse_sqrt(0.5, 100), {1: 0.005, 50: 0.25, 100: 0.5, 400: 0.25, 10000: 0.05}),
        (schedules.cosine(0.4, 10, 110), {1: 0.04, 10: 0.4, 60: 0.2, 110: 0.0, 500: 0.0}),
        (schedules.cosine(0.4, 0, 100, final=0.1), {0: 0.4, 50: 0.25, 100: 0.1, 101: 0.1}),
    ],
)
def test_schedules_at_their_characteristic_steps(schedule, expected):
    for step, rate in expected.items():
        assert schedule(step) == pytest.approx(rate, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    "schedule", [schedules.noam(512, 40), schedules.inverse_sqrt(1.0, 40), schedules.cosine(1.0, 40, 400)]
)
def test_schedules_rise_through_the_warmup_and_fall_after_it(schedule):
    rates = [schedule(step) for step in range(1, 401)]
    assert all(a < b for a, b in pairwise(rates[:40]))
    assert all(a > b for a, b in pairwise(rates[39:]))


# ---- frozen parameters ----


def frozen(*names):
    bowl = Bowl()
    for name in names:
        getattr(bowl, name).requires_grad = False
    return bowl


@pytest.mark.parametrize(
    "make",
    [lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1), lambda p: optim.AdamW(p, 0.1, weight_decay=0.1)],
)
def test_a_frozen_parameter_stays_as_it_is_until_it_is_thawed(make):
    model, alone = frozen("b"), Bowl()
    optimizer, other = make(model.named_parameters()), make([("w", alone.w)])
    before = model.b.numpy().copy()
    model.b.grad = tl.ones(4, dtype="float64")  # of a backward pass before it was frozen
    for _ in range(3):
        model.w.grad = None
        model().backward()
        optimizer.step()
        other.zero_grad()
        alone().backward()
        other.step()
    np.testing.assert_array_equal(model.w.numpy(), alone.w.numpy())
    np.testing.assert_array_equal(model.b.numpy(), before)
    assert not optimizer.state["b"] and optimizer.steps == {"w": 3, "b": 0}
    model.b.requires_grad = True
    train(model, optimizer, 1)
    assert (model.b.numpy() != before).all() and optimizer.steps == {"w": 4, "b": 1}


def test_a_state_fits_whatever_is_frozen():
    model = Bowl()
    optimizer = optim.Adam(model.named_parameters())
    train(model, optimizer, 2)
    thawed = frozen("w")
    fresh = optim.Adam(thawed.named_parameters())
    fresh.load_state_dict(optimizer.state_dict())
    train(thawed, fresh, 1)
    assert fresh.steps == {"w": 2, "b": 3} and fresh.state_dict().keys() == optimizer.state_dict().keys()


# ---- mistakes ----


def parameters():
    return list(Bowl().parameters())


def step_with(gradient):
    bowl = Bowl()
    bowl.w.grad = gradient
    optim.SGD(bowl.parameters(), 0.1).step()


def twice():
    p = nn.Parameter(np.zeros(2))
    return [("a", p), ("b", p)]


def set_after(name, value):
    setattr(optim.SGD(parameters(), 0.1), name, value)


BAD = [
    (lambda: optim.SGD([], 0.1), ValueError, "SGD: needs one or more parameters, got none; a generator is empty once"),
    (lambda: optim.SGD(parameters()[0], 0.1), TypeError, r"SGD: needs an iterable .* got Parameter; pass \[x\]"),
    (lambda: optim.SGD(Bowl(), 0.1), TypeError, r"got tests\.Bowl; pass model\.parameters\(\)"),
    (lambda: optim.SGD(nn.ModuleList([Bowl()]), 0.1), TypeError, r"got ModuleList; pass model\.parameters\(\)"),
    (lambda: optim.SGD(Bowl().state_dict(), 0.1), TypeError, "got dict; pass model.parameters"),
    (lambda: optim.SGD([Bowl()], 0.1), TypeError, r"got tests\.Bowl among them; pass model\.parameters"),
    (lambda: optim.SGD([parameters()], 0.1), TypeError, "got list among them"),
    (lambda: optim.SGD([np.zeros(2)], 0.1), TypeError, r"got numpy\.ndarray among them"),
    (lambda: optim.Adam([parameters()[0] * 2]), ValueError, r"but 0 of shape \(3, 4\) was computed"),
    (lambda: optim.Adam([tl.zeros(2)]), ValueError, r"but 0 of shape \(2,\) requires no gradient; set p\.requires_gr"),
    (lambda: optim.Adam(frozen("w", "b").named_parameters()), ValueError, r"but w of shape .*, nor does any other"),
    (lambda: optim.Adam([parameters()[0] * 2]), ValueError, "0 of shape .* was computed by multiply; make"),
    (lambda: optim.Adam([{"params": parameters()}]), TypeError, "got dict .*; make one optimizer for each"),
    (lambda: optim.Adam(parameters()).param_groups, AttributeError, "'param_groups'; use optimizer.learning_rate"),
    (lambda: optim.Adam(parameters()).learnin_rate, AttributeError, "'learnin_rate'; did you mean learning_rate"),
    (lambda: optim.Adam(parameters()).step(), RuntimeError, r"Adam: step needs a gradient, .*none of 2 "),
    (lambda: optim.Adam(parameters() + parameters()), ValueError, "must have different names, got w twice"),
    (lambda: optim.Adam([parameters()[0]] * 2), ValueError, "w is given twice, first as w"),
    (lambda: optim.Adam(twice()), ValueError, "b is given twice, first as a"),
    (lambda: optim.SGD(parameters(), -1.0), ValueError, r"SGD: learning_rate must not be negative, got -1\.0"),
    (lambda: optim.SGD(parameters(), math.nan), ValueError, "learning_rate must be finite, got nan"),
    (lambda: optim.SGD(parameters(), "0.1"), TypeError, r"learning_rate must not be negative, got '0\.1', which is"),
    (lambda: optim.Adam(parameters(), schedules.constant(1.0)), TypeError, r"a function; set it to schedule\(step\)"),
    (lambda: optim.Adam(parameters(), tl.Tensor(0.1)), TypeError, "learning_rate must not be .* got Tensor"),
    (lambda: set_after("learning_rate", -0.5), ValueError, r"SGD: learning_rate must not be negative, got -0\.5"),
    (lambda: set_after("lr", 0.5), AttributeError, r"SGD: lr is called learning_rate, got lr = 0\.5"),
    (lambda: optim.SGD(parameters(), 0.1, momentum=1.5), ValueError, r"SGD: momentum must lie in \[0, 1\), got 1\.5"),
    (lambda: optim.SGD(parameters(), 0.1, weight_decay=-1), ValueError, "SGD: weight_decay must not be .* got -1"),
    (lambda: optim.SGD(parameters(), 0.1, nesterov=True), ValueError, r"in \(0, 1\) for nesterov, got 0\.0"),
    (lambda: optim.SGD(parameters(), 0.1, 0.9, 0.0, 1), TypeError, "SGD: nesterov must be True or False, got 1"),
    (lambda: optim.Adam(parameters(), betas=(1.0, 0.9)), ValueError, r"betas\[0\] must lie in \[0, 1\), got 1\.0"),
    (lambda: optim.Adam(parameters(), betas=(0.9, -1)), ValueError, r"betas\[1\] must lie in \[0, 1\), got -1"),
    (lambda: optim.Adam(parameters(), betas=0.9), ValueError, r"betas must be two numbers, .* got 0\.9"),
    (lambda: optim.Adam(parameters(), eps=-1e-8), ValueError, "Adam: eps must not be negative, got -1e-08"),
    (lambda: optim.AdamW(parameters(), weight_decay=-0.1), ValueError, r"AdamW: weight_decay must not .* got -0\.1"),
    (lambda: step_with(tl.ones((4, 3))), ValueError, r"of w must have its shape \(3, 4\), got \(4, 3\)"),
    (lambda: step_with(np.ones((3, 4))), TypeError, r"of w must be a Tensor, got numpy\.ndarray"),
    (lambda: step_with(tl.ones((3, 4), backend=STRICT)), TypeError, "on its backend numpy, got strict; move the model"),
    (lambda: optim.SGD(parameters(), 0.1).load_state_dict([1]), TypeError, "mapping of names to arrays, got list"),
    (lambda: optim.SGD(parameters(), 0.1).load_state_dict({}), ValueError, "missing w.steps; missing b.steps"),
    (lambda: optim.clip_grad_norm(parameters(), -1.0), ValueError, r"max_norm must be positive, got -1\.0"),
    (lambda: optim.clip_grad_norm(parameters(), 0), ValueError, "max_norm must be positive, got 0"),
    (lambda: optim.clip_grad_norm(parameters(), None), TypeError, "max_norm must be positive, got None"),
    (lambda: optim.clip_grad_norm(Bowl(), 1.0), TypeError, r"clip_grad_norm: .* got tests\.Bowl; pass model"),
    (lambda: optim.clip_grad_norm(parameters()[0], 1.0), TypeError, r"clip_grad_norm: .* got Parameter; pass \[x\]"),
    (lambda: optim.clip_grad_norm(Bowl().named_parameters(), 1.0), TypeError, "clip_grad_norm: .* got tuple; pass"),
    (lambda: schedules.constant(-0.1), ValueError, r"constant: learning_rate must not be negative, got -0\.1"),
    (lambda: schedules.constant(0.1, warmup=-5), ValueError, "constant: warmup must be .* at least 0, got -5"),
    (lambda: schedules.constant(0.1)(-1), ValueError, "constant: step must be .* at least 0, got -1"),
    (lambda: schedules.noam(0, 100), ValueError, "noam: width must be .* at least 1, got 0"),
    (lambda: schedules.noam(512, 0.1), TypeError, r"noam: warmup must be .* got 0\.1"),
    (lambda: schedules.noam(512, 100, factor=-1), ValueError, "noam: factor must not be negative, got -1"),
    (lambda: schedules.noam(512, 100)(0), ValueError, "noam: step must be .* at least 1, got 0"),
    (lambda: schedules.inverse_sqrt(math.inf, 100), ValueError, "inverse_sqrt: learning_rate must be finite, got inf"),
    (lambda: schedules.inverse_sqrt(0.1, 100)(0), ValueError, "inverse_sqrt: step must be .* at least 1, got 0"),
    (lambda: schedules.cosine(0.1, 10, -1), ValueError, "cosine: total must be .* at least 0, got -1"),
    (lambda: schedules.cosine(0.1, 10, 100, final=-1), ValueError, "cosine: final must not be negative, got -1"),
    (lambda: schedules.cosine(0.1, 10, 100)("3"), TypeError, "cosine: step must be .* got '3'"),
]  # fmt: skip


test_mistakes_are_named_with_what_was_given = refused(BAD)


# ---- small parameters, updated together ----


@pytest.mark.parametrize("kind", [lambda p: optim.Adam(p, 0.1), lambda p: optim.SGD(p, 0.1, momentum=0.9)])
def test_small_parameters_updated_together_get_the_same_bits_as_alone(kind, monkeypatch):
    """With several dtypes, a parameter whose first gradient comes later, and large ones; the same for the state."""

    def train(limit):
        monkeypatch.setattr("nn.optimizer.SMALL", limit)
        rng = np.random.default_rng(0)
        shapes = [(3,), (2, 2), (), (60, 70), (5,), (0,)]
        parameters = [
            nn.Parameter(rng.standard_normal(s).astype("float64" if s == (5,) else "float32")) for s in shapes
        ]
        optimizer = kind(parameters)
        for step in range(4):
            for i, p in enumerate(parameters):
                p.grad = tl.Tensor(rng.standard_normal(p.shape).astype(p.dtype)) if step or i != 1 else None
            optimizer.step()
        return [p.numpy() for p in parameters], optimizer.state_dict()

    (together, state), (alone, state_alone) = train(10**6), train(-1)
    for a, b in zip(together, alone, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype) and a.tobytes() == b.tobytes()
    assert state.keys() == state_alone.keys()
    assert all(state[name].tobytes() == state_alone[name].tobytes() for name in state)


@pytest.mark.parametrize("base", [optim.Optimizer, optim.SGD, optim.Adam])
def test_an_update_that_is_not_elementwise_is_called_for_each_parameter(base):
    class BySize(base):
        def update(self, p, g, state, step):
            return p - g * p.size

    parameters = [nn.Parameter(np.zeros(n, "float32")) for n in (1, 2, 3)]
    optimizer = BySize(parameters, 0.1)
    for p in parameters:
        p.grad = tl.ones_like(p)
    optimizer.step()
    assert [p.numpy().tolist() for p in parameters] == [[-1], [-2, -2], [-3, -3, -3]]


@pytest.mark.parametrize("size", [3, 500_000])  # updated together with others, and on its own
def test_a_step_that_fails_changes_and_counts_nothing(size):
    a, b = nn.Parameter(np.ones(size, "float32")), nn.Parameter(np.ones(2, "float32"))
    optimizer = optim.Adam([a, b], 0.1)
    a.grad, b.grad = tl.ones_like(a), tl.ones_like(a)
    with pytest.raises(ValueError, match="must have its shape"):
        optimizer.step()
    assert optimizer.steps == {"0": 0, "1": 0} and (a.numpy() == 1).all()
    assert not any(moment.any() for moment in optimizer.state["0"].values())
    b.grad = tl.ones_like(b)
    optimizer.step()
    np.testing.assert_allclose(a.numpy(), 0.9, rtol=1e-6)


def test_small_parameters_share_memory_and_large_ones_have_their_own():
    parameters = [nn.Parameter(np.zeros(n, "float32")) for n in (3, SMALL + 1, 5)]
    optimizer = optim.Adam(parameters)
    for _ in range(2):
        for p in parameters:
            p.grad = tl.ones_like(p)
        optimizer.step()
    small, large, other = (p.data for p in parameters)
    assert small.base is other.base and small.base.size == 8
    assert large.base is None or large.base.size == large.size
    assert np.shares_memory(optimizer.state["0"]["m"], optimizer.state["2"]["m"].base)


@pytest.mark.parametrize("kind", [optim.Adam, partial(optim.SGD, momentum=0.5, learning_rate=0.1)])
def test_what_somebody_replaced_between_steps_counts(kind):
    """A parameter, its state, or both; by the optimizer's own batch this must not be overlooked."""
    rng = np.random.default_rng(0)
    values = [rng.normal(size=n).astype("float32") for n in (3, 5)]
    together = [nn.Parameter(v) for v in values]
    apart = [nn.Parameter(v) for v in values]
    joint, single = kind(together), [kind([p]) for p in apart]
    for step in range(5):
        for p in (*together, *apart):
            p.grad = p * 0.5 + 1
        joint.step()
        for optimizer in single:
            optimizer.step()
        if step == 1:
            for p in (together[1], apart[1]):
                p.replace(np.ones(5, "float32"))
        if step == 2:
            joint.load_state_dict({name: array * 2 for name, array in joint.state_dict().items()})
            for optimizer in single:
                optimizer.load_state_dict({name: array * 2 for name, array in optimizer.state_dict().items()})
        if step == 3:
            together[0].data += 1
            apart[0].data += 1
    for p, q in zip(together, apart, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("w.m", np.array([1j, 0]), "w.m must hold real numbers, got dtype complex128"),
        ("w.m", np.array([1e300, 0]), "w.m of dtype float32 cannot hold 1e+300"),
        ("w.steps", np.array(1.5), "w.steps of dtype int64 cannot hold 1.5"),
        ("w.steps", np.array(-1), "w.steps must be at least 0"),
    ],
)
def test_state_that_the_optimizer_cannot_hold_is_refused(name, value, said):
    adam = nn.optim.Adam([("w", nn.Parameter([1.0, 2.0]))], 0.1)
    before = adam.state_dict()
    with pytest.raises(ValueError, match=re.escape(said)):
        adam.load_state_dict(before | {name: value})
    assert all(np.array_equal(array, before[key]) for key, array in adam.state_dict().items())


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda p, g: None, "got None; is its return missing?"),
        (lambda p, g: tl.Tensor(p - g), "got a Tensor of shape (2,) and dtype float32; return its .data"),
        (lambda p, g: (p - g)[:1], "of shape (2,), got a ndarray of shape (1,)"),
        (lambda p, g: 1.0, "got 1.0"),
    ],
)
def test_an_update_that_returns_no_array_of_the_parameters_shape_is_refused(result, said, together):
    class Own(optim.Optimizer):
        elementwise = together

        def update(self, p, g, state, step):
            return result(p, g)

    w = nn.Parameter([1.0, 2.0])
    optimizer, w.grad = Own([w], 0.1), tl.ones(2)
    with pytest.raises(TypeError, match=rf"Own: update must return the new array .*{re.escape(said)}"):
        optimizer.step()
    assert w.numpy().tolist() == [1, 2] and optimizer.steps == {"0": 0}


def own_optimizer(formula, together=False, names=(), backend="numpy"):
    """Return an optimizer of a user with this formula for `update`, and its parameter, with a gradient of ones."""

    class Own(optim.Optimizer):
        slots, elementwise = names, together

        def update(self, p, g, state, step):
            return formula(p, g, state)

    w = nn.Parameter(tl.Tensor([1.0, 2.0], backend=backend))
    w.grad = tl.ones_like(w)
    return Own([("w", w)], 0.5), w


def returns_its_state(p, g, state):
    state["avg"] += g
    return state["avg"]


def assigns_what_it_got(p, g, state):
    state["avg"] = g
    return p


def returns_the_gradient(p, g, state):
    return g


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("formula", [returns_its_state, assigns_what_it_got, returns_the_gradient])
def test_a_parameter_shares_no_memory_with_what_an_own_update_returns_or_keeps(formula, together, backend):
    optimizer, w = own_optimizer(formula, together, ("avg",), backend)
    before = w.data
    optimizer.step()
    arrays = [w.data, before, w.grad.data, optimizer.state["w"]["avg"]]
    expected = [backend.to_numpy(a).tolist() for a in arrays]
    for i, array in enumerate(arrays):
        array *= 3  # each can be written to
        others = [backend.to_numpy(a).tolist() for k, a in enumerate(arrays) if k != i]
        assert others == expected[:i] + expected[i + 1 :]
        array /= 3
    optimizer.step()
    assert optimizer.steps == {"w": 2}


def subtracts_in_place(p, g, state):
    p -= 0.5 * g
    return p


def forgets_to_return(p, g, state):
    p -= 0.5 * g


def changes_the_gradient(p, g, state):
    g *= -1
    g += p
    return g


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("formula", [subtracts_in_place, forgets_to_return, changes_the_gradient])
def test_an_own_update_cannot_write_into_the_parameter_or_the_gradient(formula, together):
    optimizer, w = own_optimizer(formula, together)
    loss, seen = (w * w).sum(), w.numpy()
    with pytest.raises(
        ValueError, match=r"^Own: update must not write into p or g, .* such as p - self\.learning_rate"
    ):
        optimizer.step()
    assert seen.tolist() == [1, 2] and w.grad.numpy().tolist() == [1, 1] and w.version == 0
    assert tl.grad(loss, [w])[0].numpy().tolist() == [2, 4]


def test_an_own_update_that_writes_in_place_gets_copies_where_arrays_cannot_be_read_only():
    optimizer, w = own_optimizer(subtracts_in_place, backend=STRICT)
    before = w.data
    optimizer.step()
    assert w.numpy().tolist() == [0.5, 1.5] and STRICT.to_numpy(before).tolist() == [1, 2]


@pytest.mark.parametrize("together", [False, True])
def test_state_that_is_not_declared_is_refused(together):
    def assigns(p, g, state):
        state["avg"] = state["m"] + g
        return p - state["avg"]

    def reads(p, g, state):
        return p - state["avg"]

    def no_array(p, g, state):
        state["m"] = 3
        return p - g

    cases = [
        (assigns, r"Own: update keeps 'avg' in the state, .* slots = \('m', 'avg'\)"),
        (reads, r"update: the state has no 'avg'; declare it in the class: slots = \('m', 'avg'\)"),
        (no_array, r"Own: state\['m'\] must stay an array of shape \(2,\), got 3"),
    ]
    for formula, message in cases:
        optimizer, w = own_optimizer(formula, together, ("m",))
        for _ in range(2):
            with pytest.raises(TypeError, match=message):
                optimizer.step()
        assert w.numpy().tolist() == [1, 2] and optimizer.steps == {"w": 0}
        assert optimizer.state_dict()["w.m"].tolist() == [0, 0] and [*optimizer.state["w"]] == ["m"]


def test_only_the_update_of_a_user_is_guarded():
    class Scheduled(optim.Adam):
        def step(self):
            super().step()

    class Scaled(optim.SGD):
        def update(self, p, g, state, step):
            return super().update(p, 2 * g, state, step)

    assert [c._guarded for c in (optim.SGD, optim.Adam, optim.AdamW, Scheduled, Scaled)] == [False] * 4 + [True]
    w = nn.Parameter([1.0, 2.0])
    optimizer = Scaled([w], 0.5, momentum=0.5)
    for _ in range(2):
        w.grad = tl.ones_like(w)
        optimizer.step()
    assert w.numpy().tolist() == [1 - 1 - 1.5, 2 - 1 - 1.5]


@pytest.mark.parametrize("size", [2, 40_000])  # updated together with others, and on its own
def test_an_own_update_may_call_that_of_the_library(size, backend):
    class Clipped(optim.Adam):
        elementwise = True

        def update(self, p, g, state, step):
            return super().update(p, g.clip(-1, 1), state, step)

    results = []
    for kind, scale in ((Clipped, 5.0), (optim.Adam, 1.0)):
        w = nn.Parameter(np.linspace(-1, 1, size, dtype="float32"), backend=backend)
        optimizer = kind([w], 0.1, weight_decay=0.1)
        for _ in range(3):
            w.grad = tl.full_like(w, scale)
            optimizer.step()
        results.append([w.numpy(), optimizer.state_dict()["0.v"]])
    rounding = 0 if backend.name == "numpy" else 1e-6  # elsewhere the library's own update works in place
    np.testing.assert_allclose(*[w for w, _ in results], rtol=0, atol=rounding)
    np.testing.assert_allclose(*[v for _, v in results], rtol=0, atol=rounding)


@pytest.mark.parametrize("size", [2, 40_000])  # updated together with others, and on its own
def test_the_momentum_may_be_set_between_steps(size):
    def ends(optimizer, set_momentum):
        w = optimizer.parameters["0"]
        for momentum in (0.0, 0.9, 0.9, 0.0):
            if set_momentum:
                optimizer.momentum = momentum
            w.grad = tl.ones_like(w)
            optimizer.step()
        return w.numpy()[0]

    parameters = [nn.Parameter(np.zeros(size, "float32")) for _ in range(2)]
    assert ends(optim.SGD([parameters[0]], 1.0), False) == -4
    assert ends(optim.SGD([parameters[1]], 1.0), True) == pytest.approx(-(1 + 1 + 1.9 + 1))


def test_the_learning_rate_is_not_part_of_the_state():
    """In PyTorch it is. Here a schedule sets it from the number of the step."""
    w = nn.Parameter([1.0])
    optimizer = optim.Adam([w], 0.1)
    other = optim.Adam([w], 0.5)
    other.load_state_dict(optimizer.state_dict())
    assert other.learning_rate == 0.5 and "learning rate" in optim.Adam.state_dict.__doc__
