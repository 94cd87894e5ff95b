"""Hooks on gradients, and gradients kept for Tensors that are not leaves."""

import gc
import weakref

import numpy as np
import pytest

import tensorlib as tl


def leaf(values, backend="numpy"):
    return tl.Tensor(np.array(values, np.float64), requires_grad=True, backend=backend)


def values(x):
    return x.numpy().tolist()


# ---- register_hook -------------------------------------------------------------------------------------------------


def test_a_hook_sees_the_gradient_of_all_uses_together(backend):
    x, seen = leaf([1.0, 2.0], backend), []
    y = x * 3
    y.register_hook(lambda dy: seen.append(values(dy)))
    (y * y + y).sum().backward()
    assert seen == [[7.0, 13.0]]  # 2 y + 1 in one call, not 2 y and 1 in two


def test_the_value_that_a_hook_returns_replaces_the_gradient(backend):
    x = leaf([1.0, 2.0], backend)
    y = x * 3
    y.register_hook(lambda dy: dy * 10)
    y.sum().backward()
    assert values(x.grad) == [30.0, 30.0]


def test_hooks_of_a_leaf_change_its_gradient(backend):
    x = leaf([1.0, -2.0], backend)
    x.register_hook(lambda dx: tl.clip(dx, -1.0, 1.0))
    (x * x * x).sum().backward()
    assert values(x.grad) == [1.0, 1.0]
    assert values(tl.grad((x * 5).sum(), [x])[0]) == [1.0, 1.0]


def scale(g):
    g *= 7


def scale_and_return(g):
    g *= 7
    return g


def assign(g):
    g.data = g.data * 7


def write(g):
    g.data[...] *= 7


def put_in_place(g):
    g.replace((g.data * 7).astype("float32"))


@pytest.mark.parametrize("hook", [scale, scale_and_return, assign, write, put_in_place])
@pytest.mark.parametrize("on_leaf", [False, True])
def test_a_hook_may_change_the_gradient_that_it_got(hook, on_leaf, backend):
    x = leaf([1.0, 2.0], backend)
    y = x * 3
    (x if on_leaf else y).register_hook(hook)
    y.sum().backward()
    assert values(x.grad) == [21.0, 21.0] and x.grad.dtype == np.float64 and not x.grad.name
    assert values(tl.grad((x * x).sum(), [x])[0]) == ([14.0, 28.0] if on_leaf else [2.0, 4.0])


@pytest.mark.parametrize("hook", [scale, scale_and_return])
def test_a_change_by_a_hook_is_differentiated_through(hook):
    x = leaf([1.0, 2.0])
    with x.register_hook(hook):
        (dx,) = tl.grad((x * x).sum(), [x], create_graph=True)
    assert values(dx) == [14.0, 28.0]
    assert values(tl.grad(dx.sum(), [x])[0]) == [14.0, 14.0]


def test_a_change_by_a_hook_changes_no_gradient_that_another_tensor_shares():
    x, y = leaf([1.0]), leaf([1.0])
    y.register_hook(scale)
    (x + y).sum().backward()
    assert values(x.grad) == [1.0] and values(y.grad) == [7.0]


@pytest.mark.parametrize("hook", [scale, assign, write, put_in_place])
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("differentiable", [False, True])
def test_a_change_by_a_hook_changes_neither_its_neighbours_nor_the_callers_gradient(hook, create_graph, differentiable):
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    w = tl.Tensor([1.0, 1.0], dtype="float64", requires_grad=differentiable)
    c = a * 2.0
    c.register_hook(hook if not (create_graph and differentiable) else scale)  # a value with history has no .data = ...
    da, db = tl.grad([c + b], [a, b], [w], create_graph=create_graph)
    assert (values(da), values(db), values(w)) == ([14.0, 14.0], [1.0, 1.0], [1.0, 1.0])


def test_a_hook_may_not_change_the_shape_in_place():
    def widen(g):
        g *= np.ones((2, 1))

    x = leaf([1.0, 2.0])
    x.register_hook(widen)
    for create_graph in (False, True):
        with pytest.raises(ValueError, match=r"register_hook: widen must return None or a gradient of shape \(2,\)"):
            tl.grad(x.sum(), [x], create_graph=create_graph)


def test_only_the_gradient_in_a_hook_is_changed_by_an_operator():
    x, seen = leaf([1.0, 2.0]), []
    named = tl.Tensor([1.0, 2.0])
    named.name = "gradient"
    before = named
    named += 1
    assert named is not before and values(before) == [1.0, 2.0]

    def hook(g):
        seen.append(g)
        other = tl.ones(2)
        same = other
        other += 1
        assert values(same) == [1.0, 1.0]

    x.register_hook(hook)
    x.sum().backward()
    after = seen[0]
    after *= 5  # the hook has ended
    assert values(seen[0]) == [1.0, 1.0] and seen[0].name == ""


def test_hooks_run_in_the_order_of_registration_and_can_be_removed():
    x = leaf([2.0])
    first = x.register_hook(lambda dx: dx + 1)
    x.register_hook(lambda dx: dx * 10)
    x.sum().backward()
    assert values(x.grad) == [20.0]
    first.remove()
    first.remove()  # a second time does nothing
    assert values(tl.grad(x.sum(), [x])[0]) == [10.0]
    with x.register_hook(lambda dx: dx * 0):
        assert values(tl.grad(x.sum(), [x])[0]) == [0.0]
    assert values(tl.grad(x.sum(), [x])[0]) == [10.0]


def test_a_hook_may_be_differentiated_through():
    x = leaf([3.0])
    x.register_hook(lambda dx: dx * dx)
    (dx,) = tl.grad((x * x).sum(), [x], create_graph=True)  # (2 x)^2
    assert values(dx) == [36.0]
    (dx2,) = tl.grad(dx.sum(), [x])  # 8 x = 24, which the hook squares as well
    assert values(dx2) == [576.0]


def test_each_output_of_an_op_has_its_own_hooks():
    x, seen = leaf([1.0, 2.0, 3.0, 4.0]), []
    left, right = tl.split(x, 2)
    right.register_hook(lambda dy: seen.append(values(dy)))
    (left * 5 + right * 7).sum().backward()
    (tl.split(x, 2)[0]).sum().backward()
    assert seen == [[7.0, 7.0]]


def test_a_hook_changes_no_gradient_that_another_tensor_shares():
    x, y = leaf([1.0]), leaf([1.0])

    z = x + y
    y.register_hook(lambda dy: dy * 2)
    z.sum().backward()
    assert values(x.grad) == [1.0] and values(y.grad) == [2.0]


def test_mistakes_with_hooks():
    x = leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match=r"register_hook: .* this one of shape \(2,\) does not"):
        x.detach().register_hook(print)
    with pytest.raises(TypeError, match="register_hook: a function of the gradient is required, got int"):
        x.register_hook(3)

    def total(dx):
        return dx.sum()

    for wrong, shown in (("a", "'a'"), ([None], "[None]"), (len, "<built-in function len>")):
        with x.register_hook(lambda dx, wrong=wrong: wrong), pytest.raises(TypeError, match="register_hook") as caught:
            x.sum().backward()
        assert str(caught.value).endswith(f"must return None or a gradient of shape (2,) on numpy, got {shown}")
    x.register_hook(total)
    with pytest.raises(ValueError, match=r"register_hook: total must return None or .* shape \(2,\) .* got \(\)"):
        x.sum().backward()
    assert x.grad is None


def test_ops_in_a_hook_are_recorded_only_under_create_graph():
    x, w, recorded = leaf([1.0]), leaf([3.0]), []
    x.register_hook(lambda dx: recorded.append((dx * w).requires_grad))
    (x * x).sum().backward()
    tl.grad((x * x).sum(), [x])
    tl.grad((x * x).sum(), [x], create_graph=True)
    assert recorded == [False, False, True]


def test_a_gradient_that_a_hook_keeps_shares_no_memory_with_grad():
    x, y, seen = leaf([1.0]), leaf([2.0]), []
    x.register_hook(lambda dx: seen.append((x, dx)))
    y.register_hook(lambda dy: seen.append((y, dy * 2)) or seen[-1][1])
    (x * x + y * y).sum().backward()
    assert len(seen) == 2 and (values(x.grad), values(y.grad)) == ([2.0], [8.0])
    for z, dz in seen:
        assert values(dz) == values(z.grad) and not np.shares_memory(dz.data, z.grad.data)


def test_a_hook_may_register_another_on_the_same_op():
    x, seen = leaf([1.0, 2.0]), []
    left, right = tl.split(x, 2)
    left.register_hook(lambda dy: right.register_hook(seen.append) and None)
    (left + right).sum().backward()
    assert values(x.grad) == [1.0, 1.0]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_in_a_hook_changes_no_grad(error):
    x, w, calls = leaf([1.0]), leaf([2.0]), []

    def failing(dx):
        calls.append(dx)
        if len(calls) == 1:
            raise error("in the hook")

    loss = (x * w).sum()
    w.register_hook(failing)
    with pytest.raises(error, match="in the hook"):
        loss.backward(retain_graph=True)
    assert x.grad is None and w.grad is None and tl.is_grad_enabled()
    loss.backward()
    assert values(x.grad) == [2.0] and values(w.grad) == [1.0]


def test_a_hundred_thousand_hooks_on_a_chain():
    x, count = leaf([1.0]), []
    y = x
    for _ in range(100_000):
        y = y + 1.0
        y.register_hook(lambda dy: count.append(1))
    assert tl.explain(x, y.sum()).verdict == "fine" and not count
    y.sum().backward()
    assert len(count) == 100_000 and values(x.grad) == [1.0]


# ---- retain_grad ---------------------------------------------------------------------------------------------------


def test_retain_grad_fills_grad_of_an_intermediate(backend):
    x = leaf([1.0, 2.0], backend)
    y = x * 3
    z = y * y
    assert y.grad is None
    y.retain_grad()
    z.sum().backward()
    assert values(y.grad) == [6.0, 12.0] and z.grad is None
    assert y.grad.is_leaf and not y.grad.requires_grad


def test_retained_gradients_accumulate_like_those_of_leaves():
    x = leaf([1.0])
    y = x * 3
    y.retain_grad()
    y.retain_grad()
    loss = y.sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert values(y.grad) == [2.0] and values(x.grad) == [6.0]
    assert not np.shares_memory(y.grad.data, x.grad.data)


def test_retain_grad_of_the_output_and_of_a_leaf():
    x = leaf([2.0])
    y = (x * x).sum()
    y.retain_grad()
    x.retain_grad()
    y.backward()
    assert y.grad.item() == 1.0 and values(x.grad) == [4.0]


def test_grad_does_not_write_retained_gradients():
    x = leaf([2.0])
    y = x * 3
    y.retain_grad()
    tl.grad(y.sum(), [x])
    assert y.grad is None


def test_retain_grad_keeps_the_gradient_after_its_hooks():
    x = leaf([2.0])
    y = x * 3
    y.retain_grad()
    y.register_hook(lambda dy: dy * 4)
    y.sum().backward()
    assert values(y.grad) == [4.0]


def test_retain_grad_keeps_no_tensor_alive():
    gc.disable()
    try:
        x = leaf([1.0])
        y = x * 3
        y.retain_grad()
        z = y.sum()
        gone = weakref.ref(y)
        del y
        assert gone() is None
        z.backward()
        assert values(x.grad) == [3.0]
    finally:
        gc.enable()


def test_retain_grad_of_a_constant_is_refused():
    with pytest.raises(RuntimeError, match=r"retain_grad: this Tensor of shape \(1,\) does not require a gradient"):
        tl.Tensor([1.0]).retain_grad()


def test_gradients_have_the_dtype_of_their_tensor():
    """Also if a hook returns, or the caller passes, another dtype."""
    x = tl.Tensor([1.0, 2.0], requires_grad=True)
    x.register_hook(lambda dx: np.array([3.0, 4.0]))
    (x * 2).sum().backward()
    assert x.grad.dtype == np.float32 and values(x.grad) == [3.0, 4.0]
    y = tl.Tensor([1.0, 2.0], requires_grad=True)
    y.backward(np.array([5.0, 6.0]))
    assert y.grad.dtype == np.float32 and values(y.grad) == [5.0, 6.0]
    z = tl.Tensor([1.0, 2.0], requires_grad=True)
    z.backward(tl.Tensor(np.array([5.0, 6.0])))
    assert z.grad.dtype == np.float32
