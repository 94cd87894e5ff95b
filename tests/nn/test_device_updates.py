"""Updates of all parameters in place on a device, guarded steps, and what holds for arrays, versions and state then.

On NumPy a step gives every parameter a new array; on other backends it writes into the one that the parameter has.
"""

import math
import re

import numpy as np
import pytest

import nn
import tensorlib as tl
from nn import optim
from nn.averaging import ExponentialMovingAverage
from tensorlib.arrays.capturing import Capture, capturing
from tests.strict import STRICT


class Model(nn.Module):
    """Small, with dropout, a parameter of no elements, and a tied one: the first weight is read twice."""

    def __init__(self, backend="numpy", dtype="float64"):
        rng = np.random.default_rng(3)
        self.weight = nn.Parameter(rng.standard_normal((5, 5)))
        self.bias = nn.Parameter(rng.standard_normal(5))
        self.scale = nn.Parameter(np.array(0.5))
        self.nothing = nn.Parameter(np.zeros((0, 5)))
        self.generator, self.rate = tl.Generator(7), 0.25
        self.to(backend), self.astype(dtype)

    def forward(self, x):
        hidden = tl.tanh(x @ self.weight + self.bias)
        y = tl.dropout(hidden, self.rate, generator=self.generator) @ self.weight.T * self.scale
        return (y * y).mean() + self.nothing.sum() + (self.bias * self.bias).sum() * 0.01


def data_for(model, step):
    x = np.random.default_rng(step).standard_normal((7, 5))
    return tl.Tensor(x, dtype=model.weight.dtype, backend=model.weight.backend)


MAKE = {
    "sgd": lambda p: optim.SGD(p, 0.1),
    "momentum": lambda p: optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, 0.02, weight_decay=0.01),
    "adamw": lambda p: optim.AdamW(p, 0.02, weight_decay=0.1),
}
each_optimizer = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


class Training:
    """A model in training with guarded steps, a learning rate that changes, and a moving average."""

    def __init__(self, backend, make=MAKE["adam"], dtype="float64", max_norm=0.5):
        self.model, self.max_norm, self.taken = Model(backend, dtype), max_norm, 0
        self.optimizer = make(self.model.named_parameters())
        self.average = ExponentialMovingAverage(self.model.named_parameters(), 0.9)

    def step(self, poison=None):
        """Take a step, and return the norm. poison: what to do with the loss after its backward pass."""
        self.taken += 1
        self.optimizer.learning_rate = 0.02 / math.sqrt(self.taken)
        self.optimizer.zero_grad()
        loss = self.model(data_for(self.model, self.taken))
        loss.backward()
        if poison:
            loss = poison(self.model, loss)
        norm = optim.guarded_step(self.optimizer, loss, self.max_norm)
        self.average.update(self.taken, unless=self.optimizer.skipped)
        return norm

    def steps(self, count):
        return [self.step().item() for _ in range(count)]

    def state(self):
        """Return everything that steps change, on the host."""
        parts = self.model, self.optimizer, self.average
        return {f"{i} {name}": array.copy() for i, p in enumerate(parts) for name, array in p.state_dict().items()}


def assert_close(found, expected, rtol):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_allclose(found[name], array, rtol=rtol, atol=rtol, err_msg=name)


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), f"{name} changed from {array} to {found[name]}"


# ---- the numbers ----


@pytest.mark.parametrize("make", [MAKE["adam"], MAKE["nesterov"]], ids=["adam", "nesterov"])
def test_a_hundred_steps_with_dropout_clipping_and_an_average_agree_with_numpy(make, backend):
    here, there = Training("numpy", make), Training(backend, make)
    np.testing.assert_allclose(there.steps(100), here.steps(100), rtol=1e-9)
    assert_close(there.state(), here.state(), 1e-9)
    assert here.optimizer.steps == there.optimizer.steps == dict.fromkeys(("weight", "bias", "scale", "nothing"), 100)


@each_optimizer
@pytest.mark.parametrize("max_norm", [None, 0.5, 1e9])
def test_a_guarded_step_is_clipping_and_a_step(max_norm, make, backend):
    guarded, plain = [make(Model(backend).named_parameters()) for _ in range(2)]
    for step in range(3):
        for optimizer in (guarded, plain):
            give_gradients(optimizer, step)
        norm = optim.guarded_step(guarded, tl.Tensor(1.0, backend=backend), max_norm)
        assert norm.dtype == np.float64 and norm.shape == () and norm.backend is backend
        kept = guarded.parameters["weight"].grad.numpy()
        np.testing.assert_array_equal(kept, plain.parameters["weight"].grad.numpy())  # not clipped
        clipped = optim.clip_grad_norm(plain.parameters.values(), max_norm or math.inf)
        plain.step()
        assert norm.item() == pytest.approx(clipped, rel=1e-12)
    assert_close(guarded.state_dict(), plain.state_dict(), 1e-12)
    for name, p in plain.parameters.items():
        np.testing.assert_allclose(guarded.parameters[name].numpy(), p.numpy(), rtol=1e-12)


def give_gradients(optimizer, seed=0):
    rng = np.random.default_rng(seed)
    for p in optimizer.parameters.values():
        p.grad = tl.Tensor(rng.standard_normal(p.shape), dtype=p.dtype, backend=p.backend)


@pytest.mark.parametrize(
    "scale", [1024.0, np.float32(1024), lambda: 1024.0, tl.Tensor(1024.0), tl.Tensor([1024.0]), "LossScale"]
)
def test_the_step_and_the_norm_are_free_of_the_scale_of_the_loss(scale, backend):
    if isinstance(scale, tl.Tensor):
        scale = scale.to(backend)
    elif scale == "LossScale":
        scale = optim.LossScale(1024.0, backend=backend)
    norms, weights = [], []
    for factor, given in ((1.0, 1.0), (1024.0, scale)):
        optimizer = MAKE["momentum"](Model(backend).named_parameters())
        give_gradients(optimizer)
        for p in optimizer.parameters.values():
            p.grad = p.grad * factor
        norms.append(optim.guarded_step(optimizer, tl.Tensor(1.0, backend=backend), 0.5, loss_scale=given).item())
        weights.append(optimizer.parameters["weight"].numpy())
    assert norms[0] == pytest.approx(norms[1], rel=1e-12) and norms[0] > 0.5
    np.testing.assert_allclose(*weights, rtol=1e-12)


def test_three_runs_give_the_same_bits(backend):
    runs = []
    for _ in range(3):
        training = Training(backend, dtype="float32")
        norms = training.steps(6)
        runs.append(training.state() | {"norms": np.array(norms)})
    assert_same_bits(runs[1], runs[0])
    assert_same_bits(runs[2], runs[0])


# ---- steps that are skipped ----


def spoiled_gradient(model, loss):
    values = model.bias.grad.numpy().copy()
    values[3] = np.inf
    model.bias.grad = tl.Tensor(values, backend=model.bias.backend)
    return loss


def overflowing_gradient(model, loss):
    """Each gradient is finite, but not the sum of the squares."""
    model.weight.grad = tl.full_like(model.weight, 1e200)
    return loss


POISONS = {
    "nan": lambda model, loss: loss * np.nan,
    "infinity": lambda model, loss: loss * np.inf,
    "gradient": spoiled_gradient,
    "overflow": overflowing_gradient,
}


@each_optimizer
@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
def test_a_step_that_is_not_finite_changes_no_bit(poison, make, backend):
    training = Training(backend, make)
    training.steps(2)
    before = training.state()
    training.step(poison)
    assert training.optimizer.skipped.item() is True and training.optimizer.skipped.shape == ()
    assert_same_bits(training.state(), before)
    training.step()
    assert training.optimizer.skipped.item() is False
    assert training.optimizer.steps["weight"] == 3


def test_the_first_step_may_be_skipped(backend):
    training = Training(backend)
    before = training.state()
    assert math.isnan(training.step(lambda model, loss: loss * np.nan).item()) is False  # the norm is that of g
    assert_same_bits(training.state(), before)


def test_the_norm_of_a_skipped_step_says_why(backend):
    assert not math.isfinite(Training(backend).step(spoiled_gradient).item())


# ---- errors ----


class Own(optim.Optimizer):
    """An optimizer of a user: its `update` returns a new array."""

    def update(self, p, g, state, step):
        return p - self.learning_rate / step * g


def test_an_update_of_a_user_makes_new_arrays_and_may_be_guarded(backend):
    optimizer = Own(Model(backend).named_parameters(), 0.1)
    weight = optimizer.parameters["weight"]
    earlier, before = weight.data, weight.numpy().copy()
    for loss, moved in ((np.nan, 0), (1.0, 1), (1.0, 1.5)):
        for p in optimizer.parameters.values():
            p.grad = tl.ones_like(p)
        optim.guarded_step(optimizer, tl.Tensor(loss, backend=backend))
        assert optimizer.skipped.item() == np.isnan(loss)
        np.testing.assert_allclose(weight.numpy(), before - 0.1 * moved, rtol=1e-12)
    assert optimizer.steps["weight"] == 2
    np.testing.assert_array_equal(backend.to_numpy(earlier), before)


@pytest.mark.parametrize(
    ("loss", "options", "error", "message"),
    [
        (1.0, {}, TypeError, "guarded_step: the loss must be a Tensor, got float"),
        (tl.ones(2), {}, ValueError, r"guarded_step: the loss must have one element, got shape \(2,\); use .sum\(\)"),
        (tl.ones(()), {"max_norm": -1.0}, ValueError, "guarded_step: max_norm must .* got -1.0"),
        (tl.Tensor(1.0, backend=STRICT), {}, ValueError, "on one backend, got numpy and strict; use model.to"),
        *[
            (tl.ones(()), {"loss_scale": scale}, error, f"guarded_step: loss_scale must .*{message}")
            for scale, error, message in [
                (0, ValueError, "be positive, got 0$"),
                (-1.0, ValueError, "be positive, got -1.0$"),
                (math.inf, ValueError, "be finite, got inf$"),
                ("a", TypeError, "got 'a', which is not a number"),
                (None, TypeError, "got None, which is not a number"),
                (lambda: -8.0, ValueError, "be positive, got -8.0$"),
                (lambda: tl.Tensor(8.0), TypeError, "got Tensor, which is not a number"),
                (tl.Tensor(-2.0), ValueError, "be positive, got -2.0$"),
                (tl.ones(2), ValueError, r"be one number, got a Tensor of shape \(2,\) .*; pass a LossScale, a number"),
                (tl.Tensor(True), ValueError, r"be one number, got a Tensor of shape \(\) and dtype bool"),
                (
                    optim.LossScale(backend=STRICT),
                    ValueError,
                    "loss's backend, numpy, got a Tensor on strict; use Loss",
                ),
            ]
        ],
    ],
)
def test_a_loss_or_a_norm_that_does_not_fit_is_refused(loss, options, error, message):
    optimizer = optim.Adam([nn.Parameter([1.0])])
    with pytest.raises(RuntimeError, match="step needs a gradient"):
        optim.guarded_step(optimizer, tl.ones(()))
    give_gradients(optimizer)
    with pytest.raises(error, match=message):
        optim.guarded_step(optimizer, loss, **options)
    assert optimizer.steps == {"0": 0}


@pytest.mark.parametrize("first", [tl.ones(()), nn.Linear(2, 1), None])
def test_a_guarded_step_needs_an_optimizer_first(first):
    message = (
        f"^guarded_step: needs an optimizer first, got {type(first).__name__}; call guarded_step\\(optimizer, loss"
    )
    with pytest.raises(TypeError, match=message):
        optim.guarded_step(first, tl.ones(()))


def test_a_moving_average_refuses_a_flag_or_a_model_on_another_backend():
    model = Model(STRICT)
    average = ExponentialMovingAverage(model.named_parameters(), 0.9)
    with pytest.raises(TypeError, match=r"unless must be on the backend strict, got .* on numpy; pass a bool"):
        average.update(1, unless=np.zeros((), bool))
    model.to("numpy")
    with pytest.raises(TypeError, match=r"on another backend than weight; make it after model\.to"):
        average.update(1)


# ---- in place: arrays, versions, graphs ----


def test_a_step_writes_into_the_array_except_on_numpy(backend):
    training = Training(backend)
    weight, old = training.model.weight, training.model.weight.numpy().copy()
    earlier, detached = weight.data, weight.detach()
    training.step()
    in_place = backend.name != "numpy"
    assert (weight.data is earlier) == in_place
    assert np.array_equal(backend.to_numpy(earlier), old) != in_place
    assert np.array_equal(detached.numpy(), old) != in_place
    assert not np.array_equal(weight.numpy(), old)


def test_a_copy_keeps_its_value(backend):
    training = Training(backend)
    old = training.model.weight.numpy().copy()
    copies = tl.Tensor(training.model.weight), training.model.weight.data.copy(), training.model.weight.numpy()
    training.step()
    for copy in (copies[0].numpy(), backend.to_numpy(copies[1]), copies[2]):
        np.testing.assert_array_equal(copy, old)


def test_each_step_raises_the_version_also_a_skipped_one_on_a_device(backend):
    training = Training(backend)
    versions = [training.model.weight.version]
    for poison in (None, POISONS["nan"]):
        training.step(poison)
        versions.append(training.model.weight.version)
    rises = np.diff(versions).tolist()
    assert rises == ([1, 0] if backend.name == "numpy" else [1, 1])  # a device does not tell


def test_a_graph_that_saved_a_weight_before_a_step_is_noticed(backend):
    training = Training(backend)
    late = training.model(data_for(training.model, 9))
    training.step()
    with pytest.raises(RuntimeError, match="has been replaced since"):
        late.backward()


def test_a_graph_that_saved_a_detached_weight_before_a_step_is_right_or_noticed(backend):
    training = Training(backend)
    x = tl.ones_like(training.model.weight)
    x.requires_grad = True
    product, expected = (x * training.model.weight.detach()).sum(), training.model.weight.numpy().copy()
    training.step()
    if backend.name == "numpy":
        product.backward()
        np.testing.assert_array_equal(x.grad.numpy(), expected)
    else:
        with pytest.raises(RuntimeError, match="has overwritten since the forward pass"):
            product.backward()


# ---- arrays that others install ----


def replace(training):
    training.model.weight.replace(training.model.weight.data * 2)


def assign(training):
    training.model.weight.data = training.model.weight.data + 1


def load_model(training):
    training.model.load_state_dict({name: a * 0.5 for name, a in training.model.state_dict().items()})


def load_optimizer(training):
    training.optimizer.load_state_dict({name: a * 2 for name, a in training.optimizer.state_dict().items()})


def load_average(training):
    training.average.load_state_dict({name: a * 2 for name, a in training.average.state_dict().items()})


def apply_average(training):
    own = {name: p.data for name, p in training.model.named_parameters()}
    with training.average.applied():
        assert not any(p.data is own[name] for name, p in training.model.named_parameters())
        averaged = training.average.state_dict()
        assert_same_bits(training.model.state_dict(), averaged)
    assert all(p.data is own[name] for name, p in training.model.named_parameters())


def narrow(training):
    training.model.astype("float32")
    training.average.begin()


def freeze(training):
    training.model.weight.requires_grad = False
    before = training.model.weight.numpy().copy()
    training.step()
    np.testing.assert_array_equal(training.model.weight.numpy(), before)
    training.model.weight.requires_grad = True


def unused(training):
    """Take a step in which only one parameter has a gradient."""
    training.optimizer.zero_grad()
    training.model.bias.grad = tl.ones_like(training.model.bias)
    before = training.model.weight.numpy().copy()
    optim.guarded_step(training.optimizer, tl.Tensor(1.0, backend=training.model.bias.backend))
    np.testing.assert_array_equal(training.model.weight.numpy(), before)


def transpose(training):
    """Give a parameter an array that is not contiguous."""
    weight = training.model.weight.data
    training.model.weight.replace(weight.T.copy().T, copy=False)


CHANGES = [
    replace, assign, load_model, load_optimizer, load_average, apply_average, narrow, freeze, unused, transpose,
]  # fmt: skip


@each_optimizer
@pytest.mark.parametrize("change", CHANGES)
def test_steps_go_on_with_what_was_changed_between_them(change, make, backend):
    here, there = Training("numpy", make), Training(backend, make)
    for training in (here, there):
        training.steps(3)
        change(training)
        training.steps(3)
    assert_close(there.state(), here.state(), 1e-5 if change is narrow else 1e-10)
    assert here.optimizer.steps == there.optimizer.steps


def test_steps_go_on_on_another_backend(backend):
    here, there = Training("numpy"), Training("numpy")
    for training, backends in ((here, ("numpy", "numpy")), (there, (backend, "numpy"))):
        for name in backends:
            training.steps(2)
            state = training.average.state_dict()
            training.model.to(name)
            training.average.begin(), training.average.load_state_dict(state)
        training.steps(2)
    assert_close(there.state(), here.state(), 1e-10)


@each_optimizer
def test_a_checkpoint_moves_between_backends(make, backend):
    straight = Training("numpy", make)
    straight.steps(6)
    there = Training(backend, make)
    there.steps(2)
    for name in ("numpy", backend):  # from the backend to NumPy, and back
        resumed = Training(name, make)
        for part in ("model", "optimizer", "average"):
            state = getattr(there, part).state_dict()
            getattr(resumed, part).load_state_dict(state)
            assert_same_bits(getattr(resumed, part).state_dict(), state)
        resumed.taken, resumed.model.generator.state = there.taken, there.model.generator.state
        resumed.steps(2)
        there = resumed
    assert_close(there.state(), straight.state(), 1e-10)


@pytest.mark.parametrize("make", [MAKE["adam"], MAKE["nesterov"]])
def test_weights_in_float16_are_updated_in_float32(make, backend):
    half = make([("w", p := nn.Parameter(np.linspace(-2, 2, 9), "float16", backend))])
    single = make([("w", q := nn.Parameter(p.numpy().astype("float32"), "float32", backend))])
    average = ExponentialMovingAverage([("w", p)], 0.9)
    for step in range(1, 4):
        q.replace(p.data.astype("float32"))
        p.grad = tl.full_like(p, 2**-14)  # its square is 0 in float16
        q.grad = tl.full_like(q, 2**-14)
        for optimizer in (half, single):
            optim.guarded_step(optimizer, tl.Tensor(1.0, backend=backend), 1e-4)
        average.update(step, unless=half.skipped)
        np.testing.assert_array_equal(p.numpy(), q.numpy().astype("float16"))
    assert p.dtype == np.float16 and average.arrays["w"].dtype == np.float32
    assert half.state_dict()["w.m" if make is MAKE["adam"] else "w.velocity"].dtype == np.float32


# ---- what a step costs, and captured steps ----


@pytest.fixture
def gpu():
    """Return the module cupy, of a GPU or of the emulated one; skip where there is neither."""
    try:
        return tl.get_backend("cupy").xp
    except RuntimeError as error:
        pytest.skip(str(error))


def test_a_step_takes_a_few_launches_and_neither_fetches_nor_uploads(gpu):
    if not getattr(gpu, "is_emulated", False):
        pytest.skip("only the emulated GPU counts")
    from tests.emulated_gpu.device import counted

    parameters = [nn.Parameter(np.ones(3, "float32"), backend="cupy") for _ in range(250)]
    optimizer = optim.Adam(parameters)
    average = ExponentialMovingAverage(parameters, 0.9)
    loss = tl.Tensor(1.0, backend="cupy")
    for step in (1, 2):
        for p in parameters:
            p.grad = tl.ones_like(p)
        with counted() as counts:
            optim.guarded_step(optimizer, loss, 1.0)
            average.update(step, unless=optimizer.skipped)
    assert counts.fetches == counts.uploads == counts.synchronisations == 0
    assert counts.launches <= 12  # norm 2, decision 1 and its loss in float64 1, counts 1, Adam 3, average 2
    for p in parameters:
        p.grad = tl.ones_like(p)
    with counted() as counts:
        optim.clip_grad_norm(parameters, 1.0)
    assert counts.fetches == 1 and counts.launches <= 6


def test_a_recorded_step_reads_learning_rate_decay_and_counts_anew_at_each_replay(gpu):
    """Recorded by hand, without `tl.capture`: the kernels alone must do what an uncaptured step does, to the bit."""
    plain, recorded = Training("cupy"), Training("cupy")
    for training in (plain, recorded):
        training.step()
    give_gradients(recorded.optimizer, 5), give_gradients(plain.optimizer, 5)
    loss = tl.Tensor(1.0, backend="cupy")

    def step(training):
        optim.guarded_step(training.optimizer, loss, 0.5)
        training.average.update(lambda: training.taken, unless=training.optimizer.skipped)

    capture, stream = Capture(gpu.zeros(512, "uint64")), gpu.cuda.Stream(non_blocking=True)
    gpu.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        try:
            with capturing(capture):
                step(recorded)
        finally:
            graph = stream.end_capture()
    for taken in range(2, 6):
        for training in (plain, recorded):
            training.taken, training.optimizer.learning_rate = taken, 0.1 / taken
        words = np.zeros(512, "uint64")
        words[: capture.used] = capture.words()
        capture.slots.set(words)
        graph.launch()
        capture.replayed()
        step(plain)
    gpu.cuda.Device().synchronize()
    assert_same_bits(recorded.state(), plain.state())
    assert recorded.optimizer.steps["weight"] == 5


class CapturedTraining(Training):
    """The same steps, captured; x is what changes from call to call."""

    def __init__(self, make, wrap=tl.capture):
        super().__init__("cupy", make)
        self.run = wrap(self.body)

    def body(self, x, factor):
        self.optimizer.zero_grad()
        loss = self.model(tl.Tensor(x)) * tl.Tensor(factor)
        loss.backward()
        norm = optim.guarded_step(self.optimizer, loss, self.max_norm)
        self.average.update(lambda: self.taken, unless=self.optimizer.skipped)
        return loss, norm, self.optimizer.skipped

    def step(self, factor=1.0):
        self.taken += 1
        self.optimizer.learning_rate = 0.02 / math.sqrt(self.taken)
        x = data_for(self.model, self.taken).data[: 7 - self.taken % 2]  # two shapes
        return [bits_of(y) for y in self.run(x, self.model.weight.backend.asarray(np.array(factor)))]


def bits_of(y):
    return (y.numpy() if isinstance(y, tl.Tensor) else y.get()).tobytes()


@each_optimizer
def test_captured_steps_have_the_same_bits(make, gpu):
    """Among them: skipped steps, two shapes, arrays and settings that change between steps, and frozen parameters."""
    results = []
    for wrap in (tl.capture, lambda step: step):
        training = CapturedTraining(make, wrap)
        returned = [training.step() for _ in range(7)]
        for change in (replace, load_model, load_optimizer, load_average, apply_average):
            change(training)
            returned += [training.step(), training.step(np.inf), training.step(np.nan), training.step()]
        training.optimizer.weight_decay = 0.25
        returned += [training.step() for _ in range(4)]
        training.model.bias.requires_grad = False
        returned += [training.step() for _ in range(4)]
        training.model.bias.requires_grad = True
        returned += [training.step() for _ in range(4)]
        versions = {f"version of {name}": np.array(p.version) for name, p in training.model.named_parameters()}
        results.append((returned, training.state() | versions))
    assert results[0][0] == results[1][0]
    assert_same_bits(results[0][1], results[1][1])
    skipped = [bool(step[2][0]) for step in results[0][0]]
    assert sum(skipped) == 10 and not skipped[-1]


def test_gradients_of_parts_and_the_update_may_be_captured_apart(gpu):
    def train(wrap):
        training = Training("cupy")

        def part(x):
            loss = training.model(tl.Tensor(x))
            loss.backward()
            return loss.detach()

        def update(loss):
            norm = optim.guarded_step(training.optimizer, loss, 0.5)
            training.optimizer.zero_grad()
            return norm

        part, update = wrap(part), wrap(update)
        norms = []
        for step in range(6):
            losses = [part(data_for(training.model, 2 * step + i).data[: 5 + i]) for i in range(2)]
            norms.append(update(losses[0] + losses[1]).numpy())
        return training.state() | {"norms": np.array(norms)}

    assert_same_bits(train(tl.capture), train(lambda step: step))


class Noting(Capture):
    """A capture that notes on what a recorded step depends."""

    def __init__(self):
        super().__init__(STRICT.xp.zeros(512, "uint64"))
        self.gets = []

    def depends_on(self, get):
        self.gets.append(lambda: [get()])

    def depends_on_all(self, get):
        self.gets.append(get)

    def reads(self, leaf):
        self.gets.append(lambda: [leaf.array, leaf.requires_grad])

    def changed(self, change):
        """Return how many objects differ after a change."""
        before = [get() for get in self.gets]
        change()
        after = [get() for get in self.gets]
        return sum(y is not x for xs, ys in zip(before, after, strict=True) for x, y in zip(xs, ys, strict=True))


def noted_step():
    """Return a training, and what a recorded step of it depends on."""
    training = Training(STRICT)
    training.step()
    with capturing(capture := Noting()):
        optim.guarded_step(training.optimizer, tl.Tensor(1.0, backend=STRICT))
        training.average.update(lambda: training.taken, unless=training.optimizer.skipped)
    return training, capture


def test_a_recorded_step_depends_on_arrays_and_settings():
    training, capture = noted_step()
    for change in (replace, load_model, load_optimizer, load_average, narrow):
        assert capture.changed(lambda change=change: change(training)), change.__name__
    assert capture.changed(lambda: setattr(training.optimizer, "betas", (0.5, 0.5)))
    assert capture.changed(lambda: setattr(training.optimizer, "weight_decay", 0.5))
    assert capture.changed(lambda: setattr(training.model.bias, "requires_grad", False))


def test_a_recorded_step_does_not_depend_on_values():
    training, capture = noted_step()
    assert not capture.changed(lambda: setattr(training.optimizer, "learning_rate", 0.125))
    assert not capture.changed(lambda: apply_average(training))
    assert not capture.changed(lambda: training.steps(2))


def test_a_replay_is_noticed_by_a_graph_that_saved_a_weight_before(gpu):
    training = CapturedTraining(MAKE["adam"])
    for _ in range(4):
        training.step()
    late, version = training.model(data_for(training.model, 1)), training.model.weight.version
    training.step()
    assert training.model.weight.version == version + 1
    with pytest.raises(RuntimeError, match="has been replaced since"):
        late.backward()


def test_what_a_recorded_step_cannot_do_is_refused():
    fresh, own = Training(STRICT), Own(Model(STRICT).named_parameters(), 0.1)
    for optimizer in (fresh.optimizer, own):
        give_gradients(optimizer)
    steps = [
        (
            fresh.optimizer.step,
            "Adam: the state of weight must exist before a step is recorded; .* take one step outside",
        ),
        (
            own.step,
            "Own: update makes a new array of weight, which a recorded step would not see; take the step outside",
        ),
    ]
    with capturing(Noting()):
        for step, message in steps:
            with pytest.raises(RuntimeError, match=message):
                step()
        with pytest.raises(TypeError, match=re.escape("got 3; use average.update(lambda: progress.step)")):
            fresh.average.update(3)
