"""checkpoint: the same gradients, bit for bit, and less memory."""

import gc
import weakref

import numpy as np
import pytest

import tensorlib as tl
from models import Transformer, TransformerConfig
from tensorlib.engine.recording import STATE, State


def weights(backend="numpy"):
    rng = np.random.default_rng(0)
    return tl.Tensor(rng.standard_normal((4, 4)), requires_grad=True, backend=backend)


def block(w):
    """Return a function with saved inputs, saved outputs, statistics and dropout."""

    def f(h):
        h = tl.dropout(tl.tanh(h @ w), 0.5)
        return tl.softmax(tl.layer_norm(h, w[0], w[1]) @ w)

    return f


def derivatives(compute, backend):
    """Return value, first and second derivatives, and the state of the generator afterwards."""
    tl.seed(3)
    w = weights(backend)
    x = tl.Tensor(np.ones((2, 4)), requires_grad=True, backend=backend)
    y = compute(block(w), x)
    dx, dw = tl.grad((y * y).sum(), [x, w], create_graph=True)
    ddx, ddw = tl.grad((dx * dx).sum() + (dw * dw).sum(), [x, w])
    return [a.numpy().tobytes() for a in (y, dx, dw, ddx, ddw)], tl.default_generator().state


NESTINGS = {
    "whole": lambda f, x: tl.checkpoint(lambda h: f(f(h)), x),
    "in two": lambda f, x: tl.checkpoint(f, tl.checkpoint(f, x)),
    "nested": lambda f, x: tl.checkpoint(lambda h: tl.checkpoint(f, tl.checkpoint(f, h)), x),
    "nested thrice": lambda f, x: tl.checkpoint(lambda h: tl.checkpoint(lambda g: f(tl.checkpoint(f, g)), h), x),
}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_values_and_gradients_of_both_orders_are_the_same_bits(nesting, backend):
    """With respect to the input, and to weights that the function uses without getting them as arguments."""
    assert derivatives(NESTINGS[nesting], backend) == derivatives(lambda f, x: f(f(x)), backend)


def test_the_gradients_that_backward_writes_are_the_same_bits():
    def grads(wrap):
        tl.seed(5)
        w = weights()
        x = tl.Tensor(np.ones((2, 4)), requires_grad=True)
        (wrap(block(w), x) ** 2).sum().backward()
        return x.grad.numpy().tobytes(), w.grad.numpy().tobytes()

    assert grads(lambda f, x: f(x)) == grads(lambda f, x: tl.checkpoint(f, x))


def test_dropout_from_an_explicit_generator_is_repeated():
    own = tl.Generator(7)
    x = tl.Tensor(np.ones(1000), requires_grad=True)
    y = tl.checkpoint(lambda x: tl.dropout(x * 2, 0.5, own) * x, x)
    after = own.state
    (dx,) = tl.grad(y.sum(), [x])
    np.testing.assert_allclose(dx.numpy(), 2 * y.numpy())
    assert own.state == after


def test_nothing_computed_inside_is_kept_until_backward():
    calls, kept = [], []

    def f(x):
        y = x * 2
        calls.append(1)
        kept.append(weakref.ref(y.data))
        return tl.exp(y) * y

    gc.disable()
    try:
        x = tl.Tensor(np.ones(5), requires_grad=True)
        loss = tl.checkpoint(f, x).sum()
        assert [reference() for reference in kept] == [None] and len(calls) == 1
        loss.backward()
        assert len(calls) == 2
        del loss
        assert all(reference() is None for reference in kept)
    finally:
        gc.enable()


def test_the_graph_of_a_checkpoint_is_freed_without_the_collector():
    class Marker:
        pass

    gc.disable()
    try:
        marker = Marker()
        gone = weakref.ref(marker)

        def f(x, marker=marker):
            return tl.exp(x) * x

        x = tl.Tensor(np.ones(5), requires_grad=True)
        y = tl.checkpoint(f, x)
        del f, marker
        assert gone() is not None
        del y
        assert gone() is None
    finally:
        gc.enable()


def test_two_passes_through_a_retained_graph():
    x = tl.Tensor(np.ones(3), requires_grad=True)
    loss = tl.checkpoint(lambda x: tl.exp(x) * x, x).sum()
    first = tl.grad(loss, [x], retain_graph=True)[0].numpy()
    np.testing.assert_array_equal(tl.grad(loss, [x])[0].numpy(), first)


def test_within_no_grad_it_only_calls_the_function():
    x = tl.Tensor(np.ones(3), requires_grad=True)
    with tl.no_grad():
        assert not tl.checkpoint(lambda x: x * 2, x).requires_grad
    np.testing.assert_array_equal(tl.checkpoint(lambda x, k: x * k, x.detach(), k=3).numpy(), [3, 3, 3])


def test_several_outputs_of_which_one_is_used():
    x = tl.Tensor(np.array([1.0, 2.0]), requires_grad=True)
    _, b = tl.checkpoint(lambda x: (x * x, tl.exp(x) * x), x)
    (dx,) = tl.grad(b.sum(), [x])
    np.testing.assert_allclose(dx.numpy(), np.exp([1.0, 2.0]) * [2.0, 3.0])


def test_each_layer_of_a_transformer_can_be_a_checkpoint():
    config = TransformerConfig(9, 9, layers=2, width=8, heads=2, feed_forward=16, dropout=0.1)
    source, target = np.array([[4, 5, 3]]), np.array([[1, 6, 7]])

    def gradients(checkpointed):
        tl.seed(1)
        model = Transformer(config, generator=tl.Generator(0))
        if checkpointed:
            for layer in [*model.encoder.layers, *model.decoder.layers]:
                forward = layer.forward
                layer.forward = lambda *xs, forward=forward, **options: tl.checkpoint(forward, *xs, **options)
        (model(source, target) ** 2).sum().backward()
        return {name: p.grad.numpy().tobytes() for name, p in model.named_parameters()}

    assert gradients(True) == gradients(False)


def test_other_ops_the_second_time_are_named():
    fickle = iter([tl.tanh, tl.exp, tl.tanh, lambda x: tl.exp(tl.tanh(x)), tl.tanh, lambda x: tl.exp(tl.exp(x))])
    x = tl.Tensor(np.ones(3), requires_grad=True)
    tanh_to_exp = r"ran exp where it ran tanh before \(op 0 of 1\)"
    for message in (tanh_to_exp, "ran 2 ops where it ran 1 before", tanh_to_exp):
        y = tl.checkpoint(lambda x: next(fickle)(x), x)
        with pytest.raises(RuntimeError, match=f"checkpoint: the function must run the same ops again; it {message}"):
            y.sum().backward()
        assert x.grad is None


def test_other_shapes_the_second_time_are_named():
    rows = iter([2, 3])
    x = tl.Tensor(np.ones(2), requires_grad=True)
    y = tl.checkpoint(lambda x: tl.exp(tl.broadcast_to(x, (next(rows), 2))).sum(), x)
    message = r"ran broadcast_to to \(3, 2\) float64 where it ran broadcast_to to \(2, 2\) float64 before \(op 0 of 3\)"
    with pytest.raises(RuntimeError, match=message):
        y.backward()


def test_a_weight_replaced_since_the_forward_pass_is_an_error():
    w = weights()
    y = tl.checkpoint(lambda x: x @ w, tl.Tensor(np.ones((1, 4)), requires_grad=True))
    w.replace(np.zeros((4, 4)))
    with pytest.raises(RuntimeError, match=r"matmul needs the value that a leaf of shape \(4, 4\) had"):
        y.sum().backward()


@pytest.mark.parametrize("which", ["input", "weight", "constant", "mask"])
def test_a_replaced_value_that_no_op_saved_is_an_error_too(which):
    """Add saves nothing: recomputed with another value, the gradient would silently be wrong."""
    read = {name: tl.Tensor(np.zeros(2), requires_grad=name in ("input", "weight")) for name in ("input", "weight")}
    read |= {name: tl.Tensor(np.zeros(2)) for name in ("constant", "mask")}

    def f(x):
        return tl.exp(x + read["weight"] + read["constant"]) * (read["mask"] > 1)

    y = tl.checkpoint(lambda x: tl.checkpoint(f, x), read["input"]).sum()
    read[which].replace(np.full(2, 5.0))
    with pytest.raises(
        RuntimeError, match=r"a checkpoint needs the value that a leaf of shape \(2,\) had in the forwa"
    ):
        y.backward()
    assert read["weight"].grad is None


def test_a_value_that_the_function_itself_replaces_is_not_an_error():
    """Such as a running mean, which no gradient depends on."""
    mean, x = tl.Tensor(np.zeros(2)), tl.Tensor(np.ones(2), requires_grad=True)

    def f(x):
        mean.replace((mean * 0.9 + x.detach() * 0.1).data)
        return x * x

    tl.checkpoint(f, x).sum().backward()
    assert x.grad.numpy().tolist() == [2.0, 2.0]


def test_a_leaf_freed_after_the_forward_pass_is_not_an_error():
    x = tl.Tensor(np.ones(2), requires_grad=True)
    y = tl.checkpoint(lambda x: tl.exp(x + tl.Tensor(np.ones(2))), x)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp([2.0, 2.0]))


def test_outputs_may_be_nested_and_of_any_kind():
    x = tl.Tensor(np.array([1.0, 2.0]), requires_grad=True)
    (a, (b,)), named, number = tl.checkpoint(lambda x: ((tl.exp(x), (x * x,)), {"c": x * 3 * x}, 7), x)
    (a + b + named["c"]).sum().backward()
    assert number == 7
    np.testing.assert_allclose(x.grad.numpy(), np.exp([1.0, 2.0]) + 8 * np.array([1.0, 2.0]))


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_an_error_in_the_second_run_changes_nothing(error):
    calls, own = [], tl.Generator(3)
    x = tl.Tensor(np.ones(100), requires_grad=True)

    def f(x):
        calls.append(1)
        y = tl.dropout(tl.exp(x), 0.5, own) * x
        if len(calls) == 2:
            raise error("on the way")
        return y * y

    y = tl.checkpoint(f, x)
    after, loss = own.state, y.sum()
    with pytest.raises(error, match="on the way"):
        loss.backward(retain_graph=True)
    assert x.grad is None and own.state == after and STATE.get() == State()
    assert own.next_draw() == after  # draws are no longer repeated
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), 4 * y.numpy())  # y = (m x e^x)^2  =>  dy/dx = 2 y (1 + 1/x)


def test_graph_and_explain_work_though_arrays_are_dropped():
    x, c, other = tl.Tensor(np.ones(2), requires_grad=True), tl.Tensor(np.ones(2)), leaf_of_one()
    h = x * 2
    loss = tl.checkpoint(lambda h: tl.exp(h) * c, h).sum()
    graph = tl.graph(loss)
    assert [node.op for node in graph] == ["multiply", "exp", "multiply", "sum"]
    assert graph.saved_bytes == h.data.nbytes  # inputs are kept, intermediate values are not
    assert "no path" in str(tl.explain(other, loss))
    assert tl.explain(x, loss).verdict == "fine"
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp([2.0, 2.0]))


def leaf_of_one():
    return tl.Tensor(np.ones(1), requires_grad=True)


def test_debug_checks_the_gradients_but_not_the_second_run():
    x = tl.Tensor(np.array([1.0, 2.0]), requires_grad=True)
    with tl.debug():
        y = tl.checkpoint(lambda x: tl.exp(x) * x, x).sum()
        (dx,) = tl.grad(y, [x], create_graph=True)
        (ddx,) = tl.grad(dx.sum(), [x])
        np.testing.assert_allclose(ddx.numpy(), np.exp([1.0, 2.0]) * [3.0, 4.0])
        zero = tl.Tensor(np.zeros(2), requires_grad=True)
        z = tl.checkpoint(lambda x: tl.sqrt(x) * 2, zero).sum()
        with pytest.raises(FloatingPointError, match=r"sqrt: backward: .* called at .*test_recompute.py"):
            z.backward()


def test_hooks_and_retained_gradients_inside_work_once():
    x, seen, kept = tl.Tensor(np.array([1.0, 2.0]), requires_grad=True), [], []

    def f(x):
        h = tl.exp(x)
        h.register_hook(lambda dy: seen.append(dy) or dy * 2)
        h.retain_grad()
        kept.append(h)
        return h * h

    tl.checkpoint(f, x).sum().backward()
    assert len(seen) == 1
    np.testing.assert_allclose(kept[0].grad.numpy(), 4 * np.exp([1.0, 2.0]))
    np.testing.assert_allclose(x.grad.numpy(), 4 * np.exp([2.0, 4.0]))


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_gradient_may_be_taken_inside(create_graph):
    x = tl.Tensor(np.array([1.0, 2.0]), requires_grad=True)

    def f(x):
        (dx,) = tl.grad((x**3).sum(), [x], create_graph=create_graph)
        return dx * x

    tl.checkpoint(f, x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), (9 if create_graph else 3) * np.array([1.0, 4.0]))


def test_the_caller_sees_once_what_the_function_writes_into_its_arguments():
    def f(x, outputs, cache, counts, again, nested):
        y = tl.tanh(x) * x
        counts += 1
        outputs.append(y)
        cache["y"] = y
        nested["a"][1].append(y * again)
        return y * counts

    def run(call):
        x = tl.Tensor([0.5, 2.0], requires_grad=True)
        outputs, cache, counts, nested = [], {}, np.zeros(2, np.float32), {"a": (1, [])}
        z = call(f, x, outputs, cache, counts, counts, nested=nested)
        found = [z, *outputs, cache["y"], *nested["a"][1]]
        twice = [tl.grad(sum(found).sum(), x, retain_graph=True)[0].numpy().tolist() for _ in range(2)]
        assert len(outputs) == len(cache) == len(nested["a"][1]) == 1 and counts.tolist() == [1, 1]
        return twice, [y.numpy().tolist() for y in found]

    assert run(tl.checkpoint) == run(lambda f, *xs, **options: f(*xs, **options))


def test_an_argument_that_shares_its_memory_keeps_its_gradient():
    x = tl.Tensor([0.5, 2.0], requires_grad=True)
    shared = np.from_dlpack(x.detach())
    y = tl.checkpoint(lambda x: tl.exp(x) * x, x)
    assert y.requires_grad and shared.tolist() == [0.5, 2.0]
    np.testing.assert_allclose(tl.grad(y.sum(), x)[0].numpy(), np.exp([0.5, 2.0]) * [1.5, 3.0], rtol=1e-6)


def test_a_list_that_holds_itself_and_a_class_are_arguments_like_others():
    x = tl.Tensor([0.5, 2.0], requires_grad=True)
    xs = [x]
    xs.append(xs)
    y = tl.checkpoint(lambda xs, dtype: tl.exp(xs[1][0]).astype(dtype), xs, np.float64)
    np.testing.assert_allclose(tl.grad(y.sum(), x)[0].numpy(), np.exp([0.5, 2.0]), rtol=1e-6)
