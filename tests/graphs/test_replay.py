"""Values and gradients found again from the record: they are those of the forward and the backward pass."""

import tracemalloc

import numpy as np
import pytest

import nn
import tensorlib as tl
from models import Transformer, TransformerConfig
from tensorlib.graphs.building import recorded_nodes
from tensorlib.graphs.measuring import joined, measured
from tensorlib.graphs.replay import replayed
from tests.recorded import leaf


def small_loss():
    config = TransformerConfig(20, 20, layers=2, width=16, heads=2, feed_forward=32, max_length=16)
    model = Transformer(config)
    ids = np.array([[4, 5, 6, 3], [7, 8, 9, 3]])
    return model, tl.cross_entropy(model.train()(ids, ids), ids)


def test_every_value_is_computed_again_with_the_same_dropout():
    _, loss = small_loss()
    *_, (node, _, outputs) = replayed(recorded_nodes([loss], "test")[::-1])
    assert node is loss.node
    assert outputs[0] == loss.data


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: tl.softmax(x, axis=0) * 3,
        lambda x: sum(tl.split(x * x, 2, axis=1)),
        lambda x: x[[0, 2], 1:] ** 2,
        lambda x: tl.where(x > 0, x, 0.5),
        lambda x: tl.checkpoint(lambda x: tl.tanh(tl.exp(x)), x),
        lambda x: tl.dropout(x, 0.5) @ np.ones((4, 2)),
        lambda x: tl.sort(x, axis=1)[0] if hasattr(tl, "sort") else x,
    ],
)
def test_ops_with_attributes_and_constants_are_computed_again(compute):
    x = tl.Tensor(np.random.default_rng(0).standard_normal((4, 4)), requires_grad=True)
    y = compute(x)
    *_, (node, _, outputs) = replayed(recorded_nodes([y], "test")[::-1])
    assert node is y.node
    np.testing.assert_array_equal(outputs[y.output_index], y.numpy())


def test_values_are_dropped_after_their_last_use():
    y = leaf(3)
    for _ in range(50):
        y = tl.tanh(y)
    alive = []
    for _, _, outputs in replayed(recorded_nodes([y], "test")[::-1]):
        alive.append(outputs[0].__array_interface__["data"][0])
    assert len(set(alive)) < 10  # the memory of few arrays is used again and again


def test_measured_gradients_are_those_of_backward_and_leave_no_trace():
    model, loss = small_loss()
    g = tl.graph(loss, gradients=True, values=True)
    assert all(p.grad is None for p in model.parameters())
    loss.backward()
    norms = {leaf.name: g.gradients["leaf", leaf.number, 0].norm for leaf in g.parameters}
    expected = {p.name: float(np.linalg.norm(p.grad.numpy())) for p in model.parameters()}
    assert norms == pytest.approx(expected, rel=1e-4)
    assert g.values["node", len(g) - 1, 0].elements == pytest.approx((loss.item(),))


def test_the_gradient_of_several_results_is_that_of_their_sum():
    x = leaf(2)
    g = tl.graph([x * 2, x * 3], gradients=True)
    assert g.gradients["leaf", 0, 0].elements == (5.0, 5.0)


def test_an_op_that_fails_the_second_time_is_named():
    class Once(tl.Function):
        calls = 0

        def forward(self, x):
            type(self).calls += 1
            if self.calls > 1:
                raise OSError("gone")
            return x * 1

        def backward(self, dy):
            return dy

    with pytest.raises(RuntimeError, match=r"graph: the op once could not be run again: gone"):
        tl.graph(Once.apply(leaf(2)), values=True)


def test_what_is_said_about_an_array():
    m = measured(np.array([[3.0, np.nan], [-4.0, 0.0]]))
    assert (m.low, m.high, m.zeros, m.not_finite, m.elements) == (-4.0, 3.0, 1, 1, ())
    assert np.isnan(m.norm)
    assert measured(np.zeros((0, 3))).size == 0
    assert measured(np.array([True, False])).elements == (True, False)
    a, b = np.array([1.0, 2.0, 3.0, 4.0, 9.0]), np.array([0.0, -2.0, 5.0, 1.0, 2.0])
    both, whole = joined([measured(a), measured(b)]), measured(np.concatenate([a, b]))
    assert (both.low, both.high, both.arrays) == (-2.0, 9.0, 2)
    assert (both.mean, both.std) == pytest.approx((whole.mean, whole.std))
    assert (both.least_norm, both.norm) == (measured(b).norm, measured(a).norm)


def test_a_module_that_is_drawn_alone_needs_no_loss():
    g = tl.graph(nn.Linear(3, 4), np.ones((2, 3), "float32"), gradients=True)
    assert [(leaf.kind, leaf.name) for leaf in g.leaves] == [
        ("input", "x"),
        ("parameter", "weight"),
        ("parameter", "bias"),
    ]
    assert g.gradients["node", len(g) - 1, 0].norm == pytest.approx(np.sqrt(8))


# ---- what a graph keeps of its constants ----


def test_large_constants_are_not_kept_alive():
    x = tl.Tensor(np.ones(1 << 20, np.float32), requires_grad=True)
    tracemalloc.start()
    try:
        y = x
        for _ in range(5):
            y = y + tl.Tensor(np.full(1 << 20, 0.5, np.float32))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2.5 * x.data.nbytes  # the last value, and what one addition makes
    assert len(tl.graph(y)) == 5
    with pytest.raises(
        RuntimeError, match=r"^derive: add: its constant input of shape \(1048576,\) .* no longer there"
    ):
        tl.derive(y.sum())


def test_constants_that_exist_are_found():
    x, c = tl.Tensor(np.ones(1 << 17, np.float32), requires_grad=True), tl.Tensor(np.arange(1 << 17, dtype="f"))
    other = tl.from_numpy(np.ones(2, np.float32))  # noqa: F841  # memory that the caller shares, but not of c
    y = x + c
    *_, (_, inputs, _) = replayed(recorded_nodes([y], "test"))
    assert inputs[1] is c.array


def test_a_small_array_of_the_caller_is_copied():
    a, x = np.ones(3, np.float32), tl.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    y, z = x + a, x + tl.from_numpy(a)
    a[:] = 100
    for found in (y, z):
        *_, (_, _, outputs) = replayed(recorded_nodes([found], "test"))
        np.testing.assert_array_equal(outputs[0], [2, 3, 4])


@pytest.mark.parametrize("name", ["graph", "step_through", "derive"])
def test_data_that_was_replaced_since_is_an_error(name, tmp_path):
    w = tl.Tensor([1.0, 2.0], requires_grad=True)
    y = (w + 1).sum()  # neither op notes the version of w, whose value no gradient needs
    w.data = np.array([100.0, 200.0], np.float32)
    look = {
        "graph": lambda: tl.graph(y, values=True),
        "step_through": lambda: tl.step_through(y, tmp_path / "steps.html"),
        "derive": lambda: tl.derive(y),
    }
    with pytest.raises(RuntimeError, match=f"^{name}: the ops give another value .* before an update"):
        look[name]()


def test_drawing_a_module_leaves_the_random_numbers_of_training():
    x, layer = np.ones((2, 50), np.float32), nn.Dropout(0.5)
    tl.seed(3)
    expected = tl.dropout(x, 0.5).numpy()
    tl.seed(3)
    tl.graph(layer, x)
    np.testing.assert_array_equal(tl.dropout(x, 0.5).numpy(), expected)


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (lambda y: tl.graph(3), "graph: needs a Tensor, several Tensors, a module or a function, got int"),
        (lambda y: tl.graph(y, names=["y"]), "graph: names must be a dict, .* got list"),
        (lambda y: tl.derive(y, names="y"), "derive: names must be a dict, .* got str"),
        (lambda y: tl.draw(y, "y.svg", show=None), "draw: show must be some of .*; got None"),
        (lambda y: tl.depends(y, on=3), "depends: on must be a Tensor or a list of Tensors, got int"),
    ],
)
def test_arguments_of_other_types(look, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        look(tl.exp(tl.Tensor(1.0, requires_grad=True)))
