"""checkpoint: the same gradients, bit for bit, and less memory."""

import gc
import weakref

import numpy as np
import pytest

import tensorlib as tl
from models import Transformer, TransformerConfig


def weights(backend="numpy"):
    rng = np.random.default_rng(0)
    return tl.Tensor(rng.standard_normal((4, 4)), requires_grad=True, backend=backend)


def block(w):
    """Return a stretch with saved inputs, saved outputs, statistics and dropout."""

    def f(h):
        h = tl.dropout(tl.tanh(h @ w), 0.5)
        return tl.softmax(tl.layer_norm(h, w[0], w[1]) @ w)

    return f


def derivatives(compute, backend):
    """Return value, first and second derivatives, and where the generator stands afterwards."""
    tl.seed(3)
    w = weights(backend)
    x = tl.Tensor(np.ones((2, 4)), requires_grad=True, backend=backend)
    y = compute(block(w), x)
    dx, dw = tl.grad((y * y).sum(), [x, w], create_graph=True)
    ddx, ddw = tl.grad((dx * dx).sum() + (dw * dw).sum(), [x, w])
    return [a.numpy().tobytes() for a in (y, dx, dw, ddx, ddw)], tl.default_generator().state


WAYS = {
    "whole": lambda f, x: tl.checkpoint(lambda h: f(f(h)), x),
    "in two": lambda f, x: tl.checkpoint(f, tl.checkpoint(f, x)),
    "nested": lambda f, x: tl.checkpoint(lambda h: tl.checkpoint(f, tl.checkpoint(f, h)), x),
    "nested thrice": lambda f, x: tl.checkpoint(lambda h: tl.checkpoint(lambda g: f(tl.checkpoint(f, g)), h), x),
}


@pytest.mark.parametrize("way", WAYS)
def test_values_and_gradients_of_both_orders_are_the_same_bits(way, backend):
    """With respect to the input, and to the weights that the function finds for itself."""
    assert derivatives(WAYS[way], backend) == derivatives(lambda f, x: f(f(x)), backend)


def test_the_gradients_that_backward_writes_are_the_same_bits():
    def grads(wrap):
        tl.seed(5)
        w = weights()
        x = tl.Tensor(np.ones((2, 4)), requires_grad=True)
        (wrap(block(w), x) ** 2).sum().backward()
        return x.grad.numpy().tobytes(), w.grad.numpy().tobytes()

    assert grads(lambda f, x: f(x)) == grads(lambda f, x: tl.checkpoint(f, x))


def test_dropout_from_a_generator_of_its_own_is_drawn_again_alike():
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


def test_without_recording_it_is_the_function_itself():
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


def test_a_function_that_does_something_else_the_second_time_is_named():
    fickle = iter([tl.tanh, tl.exp, tl.tanh, lambda x: tl.exp(tl.exp(x))])
    x = tl.Tensor(np.ones(3), requires_grad=True)
    for message in (r"ran exp where it ran tanh before \(op 0 of 1\)", "ran 2 ops where it ran 1 before|ran exp where"):
        y = tl.checkpoint(lambda x: next(fickle)(x), x)
        with pytest.raises(RuntimeError, match=f"checkpoint: the function must run the same ops again; it {message}"):
            y.sum().backward()
        assert x.grad is None


def test_a_weight_replaced_since_the_forward_pass_is_an_error():
    w = weights()
    y = tl.checkpoint(lambda x: x @ w, tl.Tensor(np.ones((1, 4)), requires_grad=True))
    w.replace(np.zeros((4, 4)))
    with pytest.raises(RuntimeError, match=r"matmul needs the value that a leaf of shape \(4, 4\) had"):
        y.sum().backward()
