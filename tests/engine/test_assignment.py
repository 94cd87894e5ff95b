"""Setting the value of a leaf by assignments, and which arrays may share memory."""

import warnings
import weakref

import numpy as np
import pytest

import nn
import tensorlib as tl
from tensorlib.arrays import sharing
from tests.strict import STRICT


def leaf(values=(1.0, 2.0), backend="numpy"):
    return tl.Tensor(list(values), requires_grad=True, backend=backend)


# ---- the first lines of every tutorial -----------------------------------------------------------------------------


def step_by_array(w):
    w.data -= 0.1 * w.grad.data


def step_by_tensor(w):
    w.data -= 0.1 * w.grad


def step_by_new_value(w):
    w.data = w.data - 0.1 * w.grad.data


def step_without_grad_mode(w):
    with tl.no_grad():
        w -= 0.1 * w.grad


@pytest.mark.parametrize("step", [step_by_array, step_by_tensor, step_by_new_value, step_without_grad_mode])
def test_gradient_descent_as_in_a_tutorial(step, backend):
    w = leaf(backend=backend)
    for count in range(1, 4):
        w.grad = None
        (w * w).sum().backward()
        step(w)
        assert w.version == count and w.is_leaf and w.requires_grad and w.dtype == np.float32
    np.testing.assert_allclose(w.numpy(), np.array([1.0, 2.0]) * 0.8**3, rtol=1e-6)


@pytest.mark.parametrize("step", [step_by_array, step_by_tensor, step_by_new_value, step_without_grad_mode])
def test_a_backward_pass_through_the_old_value_is_an_error(step, backend):
    w = leaf(backend=backend)
    w.grad = tl.ones(2, backend=backend)
    y = (w * w).sum()
    step(w)
    with pytest.raises(RuntimeError, match=r"multiply needs the value .* \(version 0\).* replaced since \(version 1\)"):
        y.backward()


def test_assignments_to_a_parameter_of_a_module():
    layer = nn.Linear(2, 1)
    layer.weight.data = np.ones((2, 1))
    layer.weight.data *= 2
    with tl.no_grad():
        layer.weight += 1
    np.testing.assert_array_equal(layer.weight.numpy(), [[3], [3]])
    assert isinstance(layer.weight, nn.Parameter) and layer.weight.version == 3 and layer.weight.name == "weight"


IN_PLACE = {
    "+": lambda x: x.__iadd__(2), "-": lambda x: x.__isub__(2), "*": lambda x: x.__imul__(2),
    "/": lambda x: x.__itruediv__(2), "//": lambda x: x.__ifloordiv__(2), "%": lambda x: x.__imod__(2),
    "**": lambda x: x.__ipow__(2), "@": lambda x: x.__imatmul__(tl.ones((2, 2))),
}  # fmt: skip


@pytest.mark.parametrize("symbol", IN_PLACE)
def test_an_in_place_operator_on_a_leaf_says_what_to_write(symbol):
    w = leaf()
    with pytest.raises(RuntimeError) as error:
        IN_PLACE[symbol](w)
    assert f"w.data {symbol}= ..." in str(error.value) and f"y = w {symbol} ..." in str(error.value)
    assert w.version == 0 and w.numpy().tolist() == [1, 2]
    constant = w.detach()
    expected = IN_PLACE[symbol](constant)
    assert expected is not constant and constant.version == 0
    with tl.no_grad():
        assert IN_PLACE[symbol](w) is w
    np.testing.assert_array_equal(w.numpy(), expected.numpy())
    assert w.version == 1


def test_an_assignment_keeps_shape_and_dtype():
    w = leaf()
    w.data = [3, 4]
    w.data = np.array([5.0, 6.0])
    w.data = tl.Tensor([7, 8])
    assert w.dtype == np.float32 and w.version == 3 and w.numpy().tolist() == [7, 8]
    with tl.no_grad():
        with pytest.raises(ValueError, match=r"-=: the shape must stay \(2,\), got \(3, 2\)"):
            w -= tl.ones((3, 2))
        w.data = w * 2  # without grad mode no gradient is lost
    assert w.numpy().tolist() == [14, 16]


@pytest.mark.parametrize("kind", [nn.Parameter, nn.Buffer])
def test_a_loop_over_a_module_sets_values_without_gradient(kind):
    """The update of a teacher by a moving average, in which nothing requires a gradient."""
    teacher, student = kind(np.ones(2)), leaf([3.0, 5.0])
    teacher.requires_grad = False
    version = teacher.version
    with tl.no_grad():
        for a, b in [(teacher, student)]:
            a *= 0.5
            a += 0.5 * b
    assert teacher.numpy().tolist() == [2, 3] and teacher.version == version + 2
    for a in [teacher]:
        a -= 1  # with grad mode on, too: nothing is lost
    assert teacher.numpy().tolist() == [1, 2]
    with pytest.raises(RuntimeError, match=r"\+=: the value requires a gradient, which .* would not pass on"):
        teacher += student


def test_a_gradient_that_the_user_assigned_is_checked_before_another_is_added():
    for wrong, said in ((0, "int"), (np.zeros(2), "numpy"), (tl.zeros((2, 1)), r"shape \(2, 1\)")):
        w = leaf()
        w.grad = wrong
        with pytest.raises(
            (TypeError, ValueError), match=rf"x.grad must be None or a Tensor of the shape of x, \(2,\); got .*{said}"
        ):
            (w * w).sum().backward()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_sum_with_a_gradient_that_the_user_assigned_has_the_dtype_of_the_leaf(dtype, backend):
    for assigned in ("float16", "float32", "float64", "int64"):
        w = tl.Tensor([1.0, 2.0], requires_grad=True, dtype=dtype, backend=backend)
        w.grad = own = tl.Tensor([10.0, 20.0], dtype=assigned, backend=backend)
        for expected in ([12.0, 24.0], [14.0, 28.0]):
            (w * w).sum().backward()
            assert w.grad.dtype == dtype and w.grad.numpy().tolist() == expected
        assert own.numpy().tolist() == [10.0, 20.0] and own.dtype == assigned  # the sum is another Tensor


def test_the_output_of_a_recorded_op_cannot_be_written_to():
    def element(y):
        y.data[0] = 1

    def operator(y):
        y.data -= 1

    w = leaf()
    y = tl.exp(w)
    before = y.numpy().tolist()
    for write in (element, operator):
        with pytest.raises(ValueError, match="read-only"):
            write(y)
    assert y.numpy().tolist() == before and y.data.tolist() == before
    y.sum().backward()
    assert w.grad.numpy().tolist() == before


def test_a_refused_assignment_to_the_output_of_an_op_is_not_silent_where_arrays_cannot_be_read_only():
    y = tl.exp(leaf(backend=STRICT))
    with pytest.raises(RuntimeError, match=r"data: needs a leaf, .* computed by exp; use x\.detach\(\)"):
        y.data -= 1
    with pytest.raises(RuntimeError, match=r"exp needs a value that an assignment to \.data has overwritten"):
        y.sum().backward()


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_what_was_assigned_is_copied(backend):
    w, array = leaf(backend=backend), tl.Tensor([3.0, 4.0], backend=backend).data
    for assign in (tl.Tensor.data.fset, tl.Tensor.replace):
        assign(w, array)
        loss = (w * w).sum()
        array *= 10
        assert w.numpy().max() < array.max().item()
        (dw,) = tl.grad(loss, [w])
        np.testing.assert_array_equal(dw.numpy(), 2 * w.numpy())


@pytest.mark.parametrize(
    "alias",
    [lambda w: w.detach(), lambda w: w.T, lambda w: w[::-1], lambda w: w.reshape(2, 1), lambda w: w.detach().T],
    ids=["detach", "T", "slice", "reshape", "detach.T"],
)
def test_overwriting_a_leaf_through_a_view_is_noticed(alias, backend):
    w, x = leaf(backend=backend), leaf((3.0, 4.0), backend)
    first = (x.reshape(alias(w).shape) * alias(w)).sum()
    w.data -= 1
    second = (x.reshape(alias(w).shape) * alias(w)).sum()
    with pytest.raises(RuntimeError, match=r"multiply needs a value that an assignment to \.data has overwritten"):
        first.backward()
    second.backward()
    expected = alias(tl.Tensor([0.0, 1.0])).numpy().reshape(-1)
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_overwriting_a_mask_or_indices_is_noticed(backend):
    x = leaf(backend=backend)
    mask, ids = tl.Tensor([True, False], backend=backend), tl.Tensor([0, 0], backend=backend)
    for y, constant in ((tl.where(mask, x, 0.0), mask), (x[ids], ids), (tl.embedding(x, ids), ids)):
        constant.data ^= constant.data
        with pytest.raises(RuntimeError, match="has overwritten since the forward pass"):
            y.sum().backward()


def test_notes_about_memory_end_with_it(backend):
    before = len(sharing.SHARED), len(sharing._OVERWRITTEN)
    w, x = leaf(backend=backend), tl.from_numpy(np.ones(2))
    w.data -= 1
    w.data -= 1
    view = x[1:]
    assert (len(sharing.SHARED), len(sharing._OVERWRITTEN)) == (before[0] + 1, before[1] + 1)
    del x
    assert len(sharing.SHARED) == before[0] + 1  # the view still refers to it
    del w, view
    assert (len(sharing.SHARED), len(sharing._OVERWRITTEN)) == before


def test_a_graph_keeps_its_own_copy_of_shared_memory():
    array = np.array([1.0, 2.0])
    w, shared = tl.Tensor([3.0, 4.0], requires_grad=True, dtype="float64"), tl.from_numpy(array)
    losses = [(w * shared).sum(), (w * shared[::-1].T.reshape(2)).sum(), (w * tl.from_dlpack(array)).sum()]
    array[:] = 100
    assert shared.numpy().tolist() == [100, 100]
    for loss, expected in zip(losses, ([1, 2], [2, 1], [1, 2]), strict=True):
        assert tl.grad(loss, [w])[0].numpy().tolist() == expected


def test_a_shared_tensor_that_comes_to_require_a_gradient_has_memory_of_its_own():
    array = np.array([1.0, 2.0])
    x = tl.from_numpy(array)
    x.requires_grad = True
    loss = (x * x).sum()
    array[:] = 100
    (dx,) = tl.grad(loss, [x], create_graph=True)
    assert dx.numpy().tolist() == [2, 4] and x.numpy().tolist() == [1, 2]


def test_the_gradient_given_to_backward_may_change_later():
    x, seed = leaf(), np.array([1.0, 2.0], np.float32)
    (x * 3).backward(seed)
    for given in (seed, tl.from_numpy(seed)):
        (dx,) = tl.grad(x * x, [x], grad_outputs=[given], create_graph=True)
        seed *= 10
        np.testing.assert_array_equal(tl.grad(dx.sum(), [x])[0].numpy(), seed / 5)
    assert x.grad.numpy().tolist() == [3, 6]


def test_a_hook_may_write_to_the_gradient_that_it_gets():
    x, y = leaf(), leaf()
    returned = np.array([5.0, 5.0], np.float32)

    def double(dx):
        dx.data *= 2

    x.register_hook(double)
    y.register_hook(lambda dx: returned)
    (x + y).sum().backward()  # Add hands one array to both
    returned[:] = 0
    assert x.grad.numpy().tolist() == [2, 2] and y.grad.numpy().tolist() == [5, 5]


def test_a_checkpoint_keeps_the_arrays_that_it_was_given():
    x, array, listed = leaf(), np.array([3.0, 4.0], np.float32), [np.array([5.0, 6.0], np.float32)]
    shared = tl.from_numpy(np.array([7.0, 8.0], np.float32))
    y = tl.checkpoint(lambda x, a, b, c: x * a * b[0] * c, x, array, listed, c=shared)
    array[:], listed[0][:], shared.data[:] = 0, 0, 0
    y.sum().backward()
    assert x.grad.numpy().tolist() == [105, 192]


def test_a_released_node_keeps_no_array(backend):
    x = leaf(backend=backend)
    mask, ids = tl.Tensor([True, False], backend=backend), tl.Tensor([0, 1], backend=backend)
    for op, constant in ((lambda: tl.where(mask, x, 0.0), mask), (lambda: tl.embedding(x, ids), ids)):
        y = op()
        array = weakref.ref(y.node.condition if constant is mask else y.node.ids)
        y.sum().backward()
        constant.replace(constant.data)
        assert array() is None and "from=" in repr(y)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_a_gradient_that_a_number_loses_is_said():
    x, array = leaf([2.0]), np.zeros(2)
    for take in (
        lambda: array.__setitem__(0, x), lambda: array.fill(x), lambda: float(x), lambda: np.float64(x * 1),
    ):  # fmt: skip
        with pytest.warns(
            UserWarning, match=r"float: this Tensor requires a gradient.*x\.item\(\).*tl\.stack"
        ) as record:
            take()
        assert record[0].filename == __file__
    assert array.tolist() == [2, 2]
    with pytest.warns(UserWarning, match="int: this Tensor requires a gradient"):
        int(x)


def test_a_copy_without_history_is_said(backend):
    x = leaf()
    with pytest.warns(UserWarning, match=r"Tensor\(\.\.\.\): the copy has no history.*x\.copy\(\)") as record:
        tl.Tensor(x * 2)
    assert record[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for copied in (tl.Tensor(x), tl.Tensor((x * 2).detach()), tl.Tensor(x * 2, requires_grad=True), x.to(backend)):
            assert copied.is_leaf
    if backend.name != "numpy":
        with pytest.warns(UserWarning, match="to: the copy has no history"):
            (x * 2).to(backend)


def test_a_number_is_taken_without_a_word_where_no_gradient_is_lost():
    x = leaf([2.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert x.item() == 2 and f"{x:.1f}" == "2.0" and bool(x) and 2 in x
        assert float(x.detach()) == 2 and int(x.detach()) == 2
        with tl.no_grad():
            assert float(x) == 2


# ---- own ops ---------------------------------------------------------------------------------------------------------


class Rectified(tl.Function):
    def forward(self, x):
        x[x < 0] = 0
        self.save(x)
        return x

    def backward(self, dy):
        (x,) = self.saved
        return dy * (x > 0)


class Doubled(tl.Function):
    def forward(self, x):
        x *= 2
        return x

    def backward(self, dy):
        return dy * 2


@pytest.mark.parametrize("op", [Rectified, Doubled])
def test_an_own_op_cannot_write_into_its_inputs(op):
    w, array = leaf([-1.0, 2.0]), np.array([-1.0, 2.0])
    for given in (w, array, w * 1.0):
        with pytest.raises(ValueError, match=f"{op.__name__}: forward must not write into its inputs"):
            op.apply(given)
    assert w.numpy().tolist() == array.tolist() == [-1, 2]
