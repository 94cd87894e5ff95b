"""The backward pass: how gradients flow, `grad` and higher orders, and the state after an error in a pass."""

import time

import numpy as np
import pytest

import tensorlib as tl
from tests.engine.helpers import Failing, Interrupted, assert_grad, leaf

# ---- backward --------------------------------------------------------------------------------------------------------


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
    assert time.perf_counter() - started < 1  # 2^60 paths would take years


def test_diamond():
    x = leaf([1.0, 2.0])
    shared = x * x
    ((shared * 3) * (shared + 1)).sum().backward()
    assert_grad(x, [(12 * v**2 + 6) * v for v in (1, 2)])  # d/dx 3 x^2 (x^2 + 1)


def test_a_node_waits_for_all_its_consumers():
    """A short and a long path meet; depth-first order would pass on the first contribution too early."""
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
    del z  # freeing it without a backward pass does not recurse either


def test_an_op_with_several_outputs_of_which_one_is_unused(backend):
    x = tl.Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True, backend=backend)
    first, _, third = tl.split(x, 3, axis=1)
    assert first.node is third.node
    (first.sum() + 2 * third.sum()).backward(retain_graph=True)
    assert_grad(x, [[1, 0, 2], [1, 0, 2]])
    (dx,) = tl.grad(first.sum(), [x], create_graph=True)
    np.testing.assert_array_equal(dx.numpy(), [[1, 0, 0], [1, 0, 0]])


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


def test_the_array_given_may_change_afterwards():
    array = np.array([1.0, 2.0])
    x = leaf(array)
    y = (x * x).sum()
    array[:] = 100
    y.backward()
    assert_grad(x, [2, 4])


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


# ---- grad ------------------------------------------------------------------------------------------------------------


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


def test_without_create_graph_the_gradient_has_no_graph():
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


# ---- errors during a pass --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", [Failing, Interrupted])
def test_an_error_in_backward_changes_no_grad_and_leaves_the_engine_usable(op):
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


def test_an_error_while_gradients_are_written_changes_no_grad():
    x, w = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    for wrong, other in ((x, w), (w, x)):  # in either order
        wrong.grad, other.grad = tl.ones(3), None
        with pytest.raises(
            ValueError, match=r"x.grad must be None or a Tensor of the shape of x, \(2,\); got shape \(3,\)"
        ):
            (x * w).sum().backward()
        assert other.grad is None


@pytest.mark.parametrize("op", [Failing, Interrupted])
def test_an_error_under_create_graph_restores_the_state(op):
    x = leaf([1.0])
    with tl.no_grad(), pytest.raises(op.error), tl.module_scope("encoder"):
        raise op.error
    with pytest.raises(op.error):
        tl.grad(op.apply(x), [x], create_graph=True)
    assert tl.is_grad_enabled()
    assert (x * 2).node.path == ""
