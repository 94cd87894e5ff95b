"""The engine: what is recorded, how gradients flow, what is freed, and what the mistakes are told."""

import gc
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref

import numpy as np
import pytest

import tensorlib as tl


def leaf(values, **options):
    return tl.Tensor(values, requires_grad=True, **options)


def assert_grad(x, expected):
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-6)


# ---- graphs ------------------------------------------------------------------------------------------------------


def test_the_example_of_the_docstring():
    a = leaf(3.0)
    b = a + a
    c = b + b
    c.backward()
    assert_grad(a, 4)


def test_fan_out_is_linear_in_the_number_of_nodes():
    x = leaf(1.0, dtype="float64")
    y = x
    for _ in range(60):
        y = y + y
    started = time.perf_counter()
    y.backward()
    assert_grad(x, 2.0**60)
    assert time.perf_counter() - started < 1  # 2^60 paths would take some years


def test_diamond():
    x = leaf([1.0, 2.0])
    shared = x * x
    ((shared * 3) * (shared + 1)).sum().backward()
    assert_grad(x, [(12 * v**2 + 6) * v for v in (1, 2)])  # d/dx 3 x^2 (x^2 + 1)


def test_a_node_waits_for_all_its_consumers():
    """A short and a long path meet: depth-first order would pass on the first contribution too early."""
    x = leaf(2.0)
    middle = x * 1.0
    long = middle
    for _ in range(5):
        long = long * 1.0
    (middle + long * 10).backward()
    assert_grad(x, 11)


@pytest.mark.parametrize("length", [10, 100_000])
def test_a_long_chain_needs_no_recursion(length):
    x = leaf([1.0])
    y = x
    for _ in range(length):
        y = y + 1.0
    assert y.item() == length + 1
    y.backward()
    assert_grad(x, [1])
    z = x
    for _ in range(length):
        z = z + 1.0
    del z  # freed without a backward pass, without recursion either


def test_several_outputs_one_of_them_unused(backend):
    x = tl.Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True, backend=backend)
    first, _, third = tl.split(x, 3, axis=1)
    assert first.node is third.node
    (first.sum() + 2 * third.sum()).backward(retain_graph=True)
    assert_grad(x, [[1, 0, 2], [1, 0, 2]])
    (dx,) = tl.grad(first.sum(), [x], create_graph=True)
    np.testing.assert_array_equal(dx.numpy(), [[1, 0, 0], [1, 0, 0]])


def test_grad_accumulates_and_does_not_alias():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    seed = np.ones(2, np.float32)
    (x + y).backward(seed)
    assert not np.shares_memory(x.grad.data, y.grad.data)
    assert not np.shares_memory(x.grad.data, seed)
    before = x.grad
    (x * 2).backward(seed)
    assert_grad(x, [3, 3])
    assert_grad(y, [1, 1])
    np.testing.assert_array_equal(before.numpy(), [1, 1])  # who kept the old one still has it
    assert x.grad.is_leaf and not x.grad.requires_grad


def test_a_leaf_that_is_its_own_output():
    x = leaf(2.0)
    x.backward()
    x.backward()
    assert_grad(x, 2)
    (dx,) = tl.grad(x, [x])
    assert dx.item() == 1


def test_leaves_that_require_no_gradient_get_none():
    x, c = leaf([1.0]), tl.Tensor([2.0])
    (x * c).backward()
    assert c.grad is None


def test_gradients_take_the_dtype_of_their_input():
    x, w = leaf([1.0, 2.0], dtype="float32"), leaf([3.0, 4.0], dtype="float64")
    y = x * w
    assert y.dtype == np.float64
    y.sum().backward()
    assert x.grad.dtype == np.float32 and w.grad.dtype == np.float64
    assert_grad(x, [3, 4])
    half = leaf([1.0], dtype="float16")
    (half * x[:1]).sum().backward()
    assert half.grad.dtype == np.float16


def test_the_array_given_may_change_afterwards():
    array = np.array([1.0, 2.0])
    x = leaf(array)
    y = (x * x).sum()
    array[:] = 100
    y.backward()
    assert_grad(x, [2, 4])


# ---- grad --------------------------------------------------------------------------------------------------------


def test_third_order():
    x = leaf([2.0, -3.0], dtype="float64")
    (d1,) = tl.grad((x**4).sum(), [x], create_graph=True)
    (d2,) = tl.grad(d1.sum(), [x], create_graph=True)
    (d3,) = tl.grad(d2.sum(), [x], create_graph=True)
    for d, expected in ((d1, 4 * x**3), (d2, 12 * x**2), (d3, 24 * x)):
        np.testing.assert_allclose(d.numpy(), expected.detach().numpy(), rtol=1e-14)
    assert x.grad is None


def test_create_graph_builds_a_graph_even_inside_no_grad():
    x = leaf(3.0)
    y = x**3
    with tl.no_grad():
        (dx,) = tl.grad(y, [x], create_graph=True)
    (ddx,) = tl.grad(dx, [x])
    assert ddx.item() == 18


def test_without_create_graph_there_is_no_graph_of_the_gradient():
    x = leaf(3.0)
    (dx,) = tl.grad(x**3, [x])
    assert dx.is_leaf and not dx.requires_grad


def test_grad_with_respect_to_an_intermediate():
    x = leaf([1.0, 2.0])
    y = x * 3
    z = (y * y).sum()
    dx, dy = tl.grad(z, [x, y], retain_graph=True)
    np.testing.assert_array_equal(dy.numpy(), [6, 12])
    np.testing.assert_array_equal(dx.numpy(), [18, 36])
    assert not np.shares_memory(dx.data, dy.data)
    (dz,) = tl.grad(z, [z], retain_graph=True)
    assert dz.item() == 1
    assert x.grad is None and y.grad is None
    first, second = tl.grad([z, y], [y, x], [None, np.ones(2)])
    np.testing.assert_array_equal(first.numpy(), [7, 13])
    np.testing.assert_array_equal(second.numpy(), [21, 39])


def test_unused_inputs():
    x, unused = leaf([1.0]), leaf([[2.0]])
    with pytest.raises(
        ValueError, match=r"grad: the outputs do not depend on input 1 of shape \(1, 1\); pass allow_unused"
    ):
        tl.grad(x * 2, [x, unused])
    dx, nothing = tl.grad(x * 2, [x, unused], allow_unused=True)
    assert nothing is None and dx.item() == 2


def test_grad_arguments():
    x = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match=r"grad: the output must be a scalar, got shape \(2,\); sum it"):
        tl.grad(x * 2, [x])
    with pytest.raises(ValueError, match=r"grad: the gradient must have the output's shape \(2,\), got \(3,\)"):
        tl.grad(x * 2, [x], np.ones(3))
    with pytest.raises(ValueError, match="grad: needs one grad_output for each of 1 outputs, got 2"):
        tl.grad(x * 2, [x], [np.ones(2), np.ones(2)])
    with pytest.raises(ValueError, match=r"grad: every input must require a gradient, but one of shape \(1,\)"):
        tl.grad(x * 2, [tl.Tensor([1.0])], np.ones(2))
    with pytest.raises(RuntimeError, match=r"grad: the output of shape \(\) does not require a gradient"):
        tl.grad(x.detach().sum(), [x])


def test_one_array_under_two_tensors_is_told_apart_at_second_order():
    """`save` knows inputs by identity, and x.detach() holds the very same array as x."""
    x = leaf([3.0])
    (dx,) = tl.grad(x * x.detach(), [x], create_graph=True)
    assert not dx.requires_grad or tl.grad(dx, [x], allow_unused=True) == (None,)
    (dx,) = tl.grad(x.detach() * x * x, [x], create_graph=True)
    assert dx.item() == 18
    (ddx,) = tl.grad(dx, [x])
    assert ddx.item() == 6
    (dx,) = tl.grad(x * x.data * x, [x], create_graph=True)
    assert tl.grad(dx, [x])[0].item() == 6


# ---- releasing ---------------------------------------------------------------------------------------------------


def test_a_second_backward_pass_needs_retain_graph():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert_grad(x, [4, 8])
    with pytest.raises(RuntimeError, match=r"backward: the graph behind sum was already released .* retain_graph=True"):
        y.backward()
    shared = x * x
    shared.sum().backward()
    with pytest.raises(RuntimeError, match="the graph behind multiply was already released"):
        shared.mean().backward()


def without_collector(f):
    gc.collect()
    gc.disable()
    try:
        return f()
    finally:
        gc.enable()


@pytest.mark.parametrize("create_graph", [False, True])
def test_the_graph_is_freed_without_the_collector(create_graph):
    def run():
        x = leaf(np.ones((4, 5)))
        hidden = tl.tanh(x @ x.T)
        loss = tl.softmax(hidden + hidden).max()
        arrays = [weakref.ref(t) for t in (hidden.data, loss.data, x.data)]
        (dx,) = tl.grad(loss, [x], create_graph=create_graph)
        if create_graph:
            tl.grad(dx.sum(), [x])
        del x, hidden, loss, dx
        return arrays

    assert [array() for array in without_collector(run)] == [None] * 3


def test_backward_frees_what_it_needed_though_the_loss_lives_on():
    x = leaf(np.ones(5))
    hidden = tl.exp(x)
    array = weakref.ref(hidden.data)
    loss = (hidden * hidden).sum()
    del hidden
    assert array() is not None
    loss.backward()
    assert array() is None


def test_two_thousand_steps_do_not_grow():
    def steps(count):
        w = leaf(np.ones((16, 16), np.float32))
        for _ in range(count):
            loss = (tl.relu(w @ w) - tl.layer_norm(w, w[0], w[1])).square().mean()
            loss.backward()
            w.replace(w.data - 1e-6 * w.grad.data)
            w.grad = None

    def run():
        steps(20)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        steps(2000)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        return grown

    assert without_collector(run) < 5e6


def test_without_recording_intermediate_values_are_freed():
    x = leaf(np.ones(3))
    with tl.no_grad():
        hidden = tl.exp(x)
        array = weakref.ref(hidden.data)
        y = tl.exp(hidden)
    del hidden
    assert array() is None and y.is_leaf and not y.requires_grad


# ---- grad mode ---------------------------------------------------------------------------------------------------


def test_no_grad_as_context_and_decorator():
    x = leaf(1.0)

    @tl.no_grad()
    def double(value):
        """Twice."""
        assert not tl.is_grad_enabled()
        return value * 2

    with tl.no_grad():
        assert not tl.is_grad_enabled() and not (x * 2).requires_grad
        with tl.no_grad():
            pass
        assert not tl.is_grad_enabled()
    assert tl.is_grad_enabled()
    for _ in range(2):  # the decorator may be entered again
        assert not double(x).requires_grad
    assert double.__name__ == "double" and double.__doc__ == "Twice."
    assert (x * 2).requires_grad


def test_no_grad_ends_with_an_exception():
    with pytest.raises(KeyboardInterrupt), tl.no_grad():
        raise KeyboardInterrupt
    assert tl.is_grad_enabled()


def test_no_grad_holds_for_its_thread_only():
    seen = []
    with tl.no_grad():
        thread = threading.Thread(target=lambda: seen.append(tl.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_threads_on_separate_graphs():
    results, start = {}, threading.Barrier(4)

    def work(number):
        start.wait()
        x = leaf(np.full(50, number + 1.0))
        for step in range(50):
            if step % 2:
                with tl.no_grad():
                    assert not (x * x).requires_grad
            y = x
            for _ in range(20):
                y = y * 1.0 + x
            y.sum().backward()
        results[number] = x.grad.numpy()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 1, 2, 3]
    for dx in results.values():
        np.testing.assert_array_equal(dx, 50 * 21)


def test_threads_with_everything_on():
    """Hooks, checkpoints, debug, second derivatives and generators of their own, in four threads at once."""

    def work(number):
        found, own = [], tl.Generator(number)
        for _ in range(10):
            x, seen = leaf(np.full(20, 1.0 + number)), []
            x.register_hook(seen.append)
            with tl.debug(), tl.module_scope(f"thread{number}"):
                y = tl.checkpoint(lambda x: tl.dropout(tl.exp(x / 4), 0.5, own) * x, x)
                assert y.node.path == f"thread{number}"
                (dx,) = tl.grad(y.sum(), [x], create_graph=True)
                (dx * dx).sum().backward()
            found.append((dx.numpy().tobytes(), x.grad.numpy().tobytes(), len(seen)))
        return found

    alone, together, start = [work(n) for n in range(4)], {}, threading.Barrier(4)

    def run(number):
        start.wait()
        together[number] = work(number)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[n] for n in range(4)] == alone


# ---- accidents ---------------------------------------------------------------------------------------------------


class Failing(tl.Function):
    error: type[BaseException] = ValueError

    def forward(self, x):
        return x * 1

    def backward(self, dy):
        raise self.error("on the way")


class Interrupted(Failing):
    error = KeyboardInterrupt


@pytest.mark.parametrize("op", [Failing, Interrupted])
def test_an_accident_in_backward_leaves_the_engine_usable_and_grads_untouched(op):
    x, w = leaf([1.0]), leaf([2.0])
    (x * w).backward()
    loss = ((op.apply(x) * 3) + w * 5).sum()
    with pytest.raises(op.error, match="on the way"):
        loss.backward()
    assert_grad(x, [2])
    assert_grad(w, [1])
    assert tl.is_grad_enabled()
    (x * w).backward()
    assert_grad(x, [4])


def test_an_accident_while_gradients_are_written_writes_none():
    x, w = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    for wrong, other in ((x, w), (w, x)):  # whichever comes first
        wrong.grad, other.grad = tl.ones(3), None
        with pytest.raises(ValueError, match="broadcast"):
            (x * w).sum().backward()
        assert other.grad is None


def test_exceptions_keep_nothing_alive():
    def run():
        x = leaf(np.ones(5))
        hidden = tl.exp(x)
        for mistake in (
            lambda: Failing.apply(hidden * hidden).sum().backward(),
            lambda: tl.grad(Failing.apply(hidden * hidden).sum(), [x], create_graph=True),
            lambda: tl.add(hidden, np.ones(3)),
            lambda: tl.debug()(tl.log)(hidden * 0),
        ):
            with pytest.raises((ValueError, FloatingPointError)):
                mistake()
        return weakref.ref(hidden.data)

    assert without_collector(run)() is None


@pytest.mark.parametrize("op", [Failing, Interrupted])
def test_an_accident_under_create_graph_restores_the_state(op):
    x = leaf([1.0])
    with tl.no_grad(), pytest.raises(op.error), tl.module_scope("encoder"):
        raise op.error
    with pytest.raises(op.error):
        tl.grad(op.apply(x), [x], create_graph=True)
    assert tl.is_grad_enabled()
    assert (x * 2).node.path == ""


def test_a_value_replaced_since_the_forward_pass_is_an_error():
    w = leaf([1.0, 2.0])
    w.name = "encoder.weight"
    y = (w * w).sum()
    w.replace(np.array([5.0, 5.0], np.float32))
    with pytest.raises(RuntimeError, match=r"multiply needs .* encoder.weight of shape \(2,\) .*version 0.*version 1"):
        y.backward()
    assert w.grad is None
    unused = (w + 1).sum()  # add keeps nothing, so it does not mind
    w.replace(np.zeros(2, np.float32))
    unused.backward()
    assert_grad(w, [1, 1])
    with pytest.raises(RuntimeError, match="replace: needs a leaf"):
        (w * 2).replace(np.zeros(2, np.float32))


# ---- mistakes ----------------------------------------------------------------------------------------------------


def test_backward_mistakes(backend):
    x = tl.Tensor([1.0, 2.0], requires_grad=True, backend=backend)
    with pytest.raises(ValueError, match=r"backward: the output must be a scalar, got shape \(2,\); sum it, or give"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"backward: the gradient must have the output's shape \(2,\), got \(1, 2\)"):
        (x * 2).backward(np.ones((1, 2)))
    for y in (x.detach().sum(), tl.Tensor(1.0), (x > 1).sum()):
        with pytest.raises(RuntimeError, match=r"backward: the output of shape .* does not require a gradient"):
            y.backward()
    with pytest.raises(
        TypeError, match="Tensor: requires_grad needs a real floating dtype, got int64; pass dtype='float32'"
    ):
        tl.Tensor([1, 2], requires_grad=True, backend=backend)
    with pytest.raises(ValueError, match=r"bool: a Tensor of shape \(2,\) has no single truth value; use .any\(\)"):
        bool(x > 1)
    with pytest.raises(TypeError, match=r"setitem: Tensors are values .* use tl.where"):
        x[0] = 5.0


def test_mixed_backends():
    from tests.strict import STRICT

    x, y = tl.Tensor([1.0]), tl.Tensor([2.0], backend=STRICT)
    for f in (
        lambda: x + y,
        lambda: y + x,
        lambda: y * x.data,
        lambda: tl.maximum(x, y),
        lambda: tl.concatenate([x, y]),
    ):
        with pytest.raises(
            TypeError, match=r"operands must be on one backend, got (numpy and strict|strict and numpy); move"
        ):
            f()
    with pytest.raises(TypeError, match="backward: the gradient must be on the output's backend numpy, got strict"):
        tl.Tensor([1.0], requires_grad=True).backward(y)
    with pytest.raises(ValueError, match="backend: must be one of numpy, cpu, cupy, cuda, gpu; got 'tpu'"):
        tl.Tensor([1.0], backend="tpu")


def test_operands_that_are_no_tensors(backend):
    x = tl.Tensor([16.0, 64.0], requires_grad=True, backend=backend)
    for y in (x / np.sqrt(64), np.float64(2) * x, 1 - x, 2**x, x + 1, x * np.int64(3), [1.0, 2.0] - x):
        assert isinstance(y, tl.Tensor) and y.dtype == np.float32 and y.requires_grad and y.backend is backend
    host = tl.Tensor([1.0, 2.0], requires_grad=True)
    for y in (np.ones(2, np.float32) * host, np.ones((3, 2), np.float32) + host, np.ones((3, 2), np.float32) @ host):
        assert isinstance(y, tl.Tensor) and y.dtype == np.float32
    assert (np.ones(2, np.float32) < host).dtype == bool
    assert tl.exp(1.0).dtype == np.float32 and tl.exp(1.0).item() == pytest.approx(np.e)
    assert tl.add(np.ones(2, np.float16), 2.0).dtype == np.float16
    assert tl.where(tl.Tensor([True, False], backend=backend), 1.0, 0.0).dtype == np.float32
    np.testing.assert_array_equal(tl.where(tl.Tensor([True, False], backend=backend), 2, 3).numpy(), [2, 3])


# ---- an op of one's own ------------------------------------------------------------------------------------------


class Cube(tl.Function):
    """y = x^3  =>  dx = 3 x^2 dy."""

    def forward(self, x):
        self.save(x)
        return x * x * x

    def backward(self, dy):
        (x,) = self.saved
        return 3 * x * x * dy


def test_a_custom_op(backend):
    tl.gradcheck(lambda x: Cube.apply(x), np.array([[1.0, -2.0]]), backend=backend)
    y = Cube.apply(tl.Tensor([2.0], requires_grad=True, backend=backend))
    assert y.item() == 8 and y.node.name == "cube"


def test_custom_ops_that_break_the_rules():
    class SavesSomethingElse(tl.Function):
        def forward(self, x):
            self.save(x * 2)
            return x * 2

    class TooMany(Cube):
        def backward(self, dy):
            return dy, dy

    class WrongShape(Cube):
        def backward(self, dy):
            return dy.sum(axis=0)

    class Untold(tl.Function):
        def forward(self, x):
            return x * 1

    x = leaf([1.0, 2.0])
    with pytest.raises(
        ValueError, match=r"saves_something_else: save\(\) keeps inputs or outputs .* shape \(2,\); put"
    ):
        SavesSomethingElse.apply(x)
    with pytest.raises(RuntimeError, match="too_many: backward must return 1 gradients, got 2"):
        TooMany.apply(x).sum().backward()
    with pytest.raises(
        RuntimeError, match=r"wrong_shape: gradient for input 0 must have the input's shape \(2,\), got \(\)"
    ):
        WrongShape.apply(x).sum().backward()
    with pytest.raises(NotImplementedError, match="Untold: backward is missing"):
        Untold.apply(x).sum().backward()
    with pytest.raises(NotImplementedError, match="Function: forward is missing"):
        tl.Function.apply(x)


def test_needs_says_which_gradients_are_wanted():
    seen = []

    class Product(tl.Function):
        def forward(self, x, y):
            self.save(x, y)
            return x * y

        def backward(self, dz):
            x, y = self.saved
            seen.append(self.needs)
            return dz * y if self.needs[0] else None, dz * x if self.needs[1] else None

    x, y = leaf([2.0]), leaf([3.0])
    Product.apply(x, y).backward()
    Product.apply(x, y.detach()).backward()
    Product.apply(2.0, y).backward()
    assert seen == [(True, True), (True, False), (False, True)]
    assert_grad(x, [6])
    assert_grad(y, [4])


def test_nodes_know_where_they_were_made():
    x = leaf([1.0])
    with tl.module_scope("encoder.layers.0"):
        y = x * 2
    assert y.node.path == "encoder.layers.0" and y.node.source is None
    with tl.record_source():
        z = x * 2
    assert z.node.source.startswith(__file__) and z.node.path == ""


def test_a_deep_graph_that_lives_to_the_end_of_the_interpreter_is_freed_without_a_crash():
    code = (
        "import tensorlib as tl\nx = y = tl.Tensor([1.0], requires_grad=True)\nfor _ in range(100_000): y = y + 1.0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")


class OneWay(tl.Function):
    """x + y, of which y is told nothing."""

    broadcasts = True

    def forward(self, x, y):
        return x + y

    def backward(self, dz):
        return dz, None


def test_an_op_may_let_no_gradient_flow_to_an_input():
    x, y = leaf([1.0]), leaf([2.0])
    OneWay.apply(x, y).sum().backward()
    assert_grad(x, [1])
    assert y.grad is None
    (OneWay.apply(x, y) + y * 3).sum().backward()
    assert_grad(y, [3])
    assert tl.grad(OneWay.apply(x, y), [y], allow_unused=True) == (None,)


def test_an_array_that_an_op_keeps_does_not_become_a_gradient():
    kept = np.full(2000, 3.0)

    class Constant(tl.Function):
        def forward(self, x):
            return x

        def backward(self, dy):
            return kept

    class OneAndItsView(tl.Function):
        def forward(self, x, y):
            return x + y.T

        def backward(self, dy):
            g = dy * 2
            return g, g.T

    x = tl.Tensor(np.ones(2000), requires_grad=True)
    Constant.apply(x).sum().backward()
    assert not np.shares_memory(x.grad.data, kept)
    y, z = (tl.Tensor(np.ones((50, 50)), requires_grad=True) for _ in range(2))
    OneAndItsView.apply(y, z).sum().backward()
    assert not np.shares_memory(y.grad.data, z.grad.data)


def test_gradients_of_ops_that_give_new_arrays_are_not_copied():
    """And share memory with nothing all the same: with each other, a second pass, or what was saved."""
    x, w, b = (tl.Tensor(np.ones(shape), requires_grad=True) for shape in ((40, 50), (50, 60), (60,)))
    loss = tl.linear_cross_entropy(tl.linear_relu(x, w, b), w.T.copy(), None, np.zeros(40, int))
    passes = [tl.grad(loss, [x, w, b], retain_graph=True) for _ in range(2)]
    arrays = [dx.data for dxs in passes for dx in dxs] + [x.data, w.data, b.data]
    for i, a in enumerate(arrays):
        assert not any(np.shares_memory(a, other) for other in arrays[:i])
