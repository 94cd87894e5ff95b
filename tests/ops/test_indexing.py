"""Selecting elements by position and condition: edge cases and mistakes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as shapes

import tensorlib as tl
from tensorlib.ops.indexing import ScatterAdd, SumRows
from tests.edges import assert_edge, edge, refused_of_a_matrix
from tests.strict import STRICT

IDS = np.array([[0, 2, 2], [1, 0, 2]])


# ---- getitem -----------------------------------------------------------------------------------------------------


@st.composite
def indexed(draw):
    """Draw a shape and an index of it: integers, slices, ellipsis, None, one or several arrays, a mask."""
    shape = draw(shapes.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    together = draw(shapes.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
    parts, axis = [], 0
    ellipsis_at = draw(st.integers(-3, len(shape)))
    while axis < draw(st.integers(0, len(shape))) or (axis == 0 and not parts):
        n = shape[axis]
        kind = draw(st.sampled_from(["integer", "slice", "array", "mask", "list", "none", "numpy"]))
        if kind == "none":
            parts.append(None)
            if len(parts) > 6:
                break
            continue
        if axis == ellipsis_at:
            break
        parts.append(
            {
                "integer": lambda n: draw(st.integers(-n, n - 1)),
                "numpy": lambda n: np.int64(draw(st.integers(-n, n - 1))),
                "slice": lambda n: draw(st.slices(n)),
                "list": lambda n: draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=1)),
                "array": lambda n: draw(shapes.arrays(np.int64, together, elements=st.integers(-n, n - 1))),
                "mask": lambda n: np.arange(n) == draw(st.integers(0, n - 1)),  # one True broadcasts with every array
            }[kind](n)
        )
        axis += 1
    if ellipsis_at == axis:
        parts.append(Ellipsis)
    return shape, tuple(parts) if len(parts) != 1 or draw(st.booleans()) else parts[0]


@settings(max_examples=400, deadline=None)
@given(indexed())
def test_every_index_selects_what_numpy_selects_and_its_gradient_accumulates(case):
    shape, index = case
    array = np.arange(float(np.prod(shape))).reshape(shape)
    expected = array[index]
    c = np.random.default_rng(0).uniform(0.5, 1.5, np.shape(expected))
    added = np.zeros(shape)
    np.add.at(added, index, c)
    for backend in ("numpy", STRICT):
        x = tl.Tensor(array, requires_grad=True, backend=backend)
        y = x[index]
        np.testing.assert_array_equal(y.numpy(), expected)
        (dx,) = tl.grad(y, [x], tl.Tensor(c, backend=backend), create_graph=True)
        np.testing.assert_allclose(dx.numpy(), added, rtol=1e-14)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_mask_over_several_axes_selects_what_numpy_selects(data):
    shape = data.draw(shapes.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3))
    axes = data.draw(st.integers(0, len(shape)))
    mask = data.draw(shapes.arrays(bool, shape[:axes]))
    array = np.random.default_rng(0).normal(size=shape)
    for index in (mask, (mask, ...), (None, mask)):
        for backend in ("numpy", STRICT):
            x = tl.Tensor(array, requires_grad=True, backend=backend)
            np.testing.assert_array_equal(x[index].numpy(), array[index])
            expected = np.zeros(shape)
            expected[index] = 2.0
            np.testing.assert_array_equal(tl.grad((2 * x[index]).sum(), [x])[0].numpy(), expected)


def test_repeated_indices_accumulate(backend):
    ids = np.array([1, 1, 0, 1])
    for f in (
        lambda x: x[ids], lambda x: x[[1, 1, 0, 1]], lambda x: tl.embedding(x, ids), lambda x: tl.take(x, ids, axis=0),
        lambda x: tl.gather(x, 0, ids[:, None]), lambda x: tl.take_along_axis(x, ids[:, None], axis=0),
    ):  # fmt: skip
        _, dx = edge(f, [[1.0], [2.0], [3.0]], backend=backend, cotangent=[[1], [10], [100], [1000]])
        np.testing.assert_array_equal(dx, [[100], [1011], [0]])


def test_an_infinite_gradient_reaches_only_the_selected_elements(backend):
    for f in (
        lambda x: x[1:], lambda x: x[[1, 2]], lambda x: x[np.array([False, True, True])], lambda x: tl.take(x, [1, 2]),
        lambda x: tl.gather(x, 0, [1, 2]), lambda x: tl.sort(x)[1:], lambda x: tl.roll(x, 2)[:2],
        lambda x: tl.pad(x, 1)[2:4],
    ):  # fmt: skip
        assert_edge(edge(f, [1.0, 2.0, 3.0], backend=backend, cotangent=[np.inf, np.nan])[1:], [0, np.inf, np.nan])


def test_indices_may_be_on_the_device_or_on_the_host(backend):
    """A Tensor on the backend of x, a host array, or a list."""
    x = tl.Tensor(np.arange(12.0).reshape(4, 3), backend=backend)
    for index in (IDS, IDS.tolist(), tl.Tensor(IDS, backend=backend), IDS.astype("uint8"), IDS - 4):
        np.testing.assert_array_equal(x[index].numpy(), x.numpy()[IDS])
    for mask in ([True, False, True, False], np.array([1, 0, 1, 0], bool)):
        for given_mask in (mask, tl.Tensor(mask, backend=backend)):
            np.testing.assert_array_equal(x[given_mask].numpy(), x.numpy()[::2])
            np.testing.assert_array_equal(x[given_mask, 1].numpy(), x.numpy()[::2, 1])
            np.testing.assert_array_equal(tl.masked_fill(x.T, given_mask, 0.0).numpy()[:, ::2], 0)
    for number in (2, np.int64(2), tl.Tensor(2, backend=backend), np.array(2), -2):
        np.testing.assert_array_equal(x[number].numpy(), x.numpy()[2])


def test_the_caller_may_change_index_ids_and_condition_before_backward():
    w = tl.Tensor(np.ones((3, 2)), requires_grad=True)
    for use in (
        lambda i: w[i], lambda i: w[i, :], lambda i: tl.embedding(w, i), lambda i: tl.take(w, i, axis=0),
        lambda i: tl.gather(w, 0, i[:, None].repeat(2, axis=1)), lambda i: w[(i > -1).nonzero()[0]],
    ):  # fmt: skip
        index = np.array([0, 1])
        y = use(index).sum()
        index[:] = 2
        np.testing.assert_array_equal(tl.grad(y, [w])[0].numpy(), [[1, 1], [1, 1], [0, 0]])
    condition = np.array([True, False])
    y = tl.where(condition, w, 0.0).sum()
    z = w[:2][condition].sum()
    condition[:] = False
    np.testing.assert_array_equal(tl.grad(y, [w])[0].numpy(), [[1, 0]] * 3)
    np.testing.assert_array_equal(tl.grad(z, [w])[0].numpy(), [[1, 1], [0, 0], [0, 0]])


# ---- scatter, index_add, one_hot ---------------------------------------------------------------------------------


def test_of_sources_for_one_position_the_last_wins_and_gets_the_gradient(backend):
    found = edge(lambda x, s: tl.scatter(x, 0, [2, 0, 2, 2], s), [1.0, 2.0, 3.0], [10.0, 20.0, 30.0, 40.0],
                 backend=backend, cotangent=[1, 10, 100])  # fmt: skip
    assert_edge(found, [20, 2, 40], [0, 10, 0], [0, 1, 0, 100])


def test_scatter_passes_no_infinite_gradient_to_replaced_elements(backend):
    found = edge(lambda x, s: tl.scatter(x, 0, [1, 1], s), [1.0, 2.0], [3.0, 4.0], backend=backend,
                 cotangent=[np.nan, np.inf])  # fmt: skip
    assert_edge(found, [1, 4], [np.nan, 0], [0, np.inf])


def test_sources_for_one_position_accumulate(backend):
    found = edge(lambda x, s: tl.scatter_add(x, 0, [2, 0, 2], s), [1.0, 2.0, 3.0], [10.0, 20.0, 30.0],
                 backend=backend, cotangent=[1, 10, 100])  # fmt: skip
    assert_edge(found, [21, 2, 43], [1, 10, 100], [100, 1, 100])
    found = edge(lambda x, s: tl.index_add(x, 0, [1, 1], s), [[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]],
                 backend=backend)  # fmt: skip
    assert_edge(found[:1], [[1, 2], [43, 64]])


def test_a_scattered_number_takes_the_dtype_of_x(backend):
    for dtype in ("float16", "float32", "float64"):
        x = tl.zeros((2, 3), dtype, backend)
        for f in (tl.scatter, tl.scatter_add):
            assert f(x, 1, [[0]], 2.5).dtype == dtype
            np.testing.assert_array_equal(f(x, 1, [[0]], 2.5).numpy()[0], [2.5, 0, 0])


def test_integers_are_scattered_and_added_too(backend):
    x = tl.arange(3, backend=backend)
    np.testing.assert_array_equal(tl.scatter_add(x, 0, [1, 1], tl.arange(5, 7, backend=backend)).numpy(), [0, 12, 2])
    np.testing.assert_array_equal(tl.index_add(x, 0, [2, 0], [7, 8]).numpy(), [8, 1, 9])
    np.testing.assert_array_equal(tl.scatter(x, 0, [2], -4).numpy(), [0, 1, -4])
    assert tl.scatter_add(x, 0, [1], -3).dtype == np.int64


def test_an_empty_index_changes_nothing(backend):
    x = tl.Tensor([1.0, 2.0], backend=backend)
    for y in (
        tl.scatter(x, 0, [], x),
        tl.scatter_add(x, 0, [], x),
        tl.index_add(x, 0, [], tl.zeros(0, backend=backend)),
    ):
        np.testing.assert_array_equal(y.numpy(), [1, 2])
    assert tl.gather(x, 0, []).shape == tl.take(x, []).shape == x[[]].shape == (0,)


def test_one_hot_of_a_list(backend):
    np.testing.assert_array_equal(tl.one_hot([2, 0], 3).numpy(), [[0, 0, 1], [1, 0, 0]])
    y = tl.one_hot(tl.Tensor([1], backend=backend), 2, dtype=bool)
    assert y.backend is backend and y.dtype == bool and not y.requires_grad


def test_methods_are_the_functions(backend):
    x = tl.Tensor(np.arange(6.0).reshape(2, 3), backend=backend)
    for name, arguments in (
        ("take", ([1, 0], 1)), ("gather", (1, [[0, 0]])), ("scatter", (1, [[2]], 9.0)),
        ("scatter_add", (0, [[1]], 9.0)),
        ("index_add", (0, [1], np.ones((1, 3)))),
    ):  # fmt: skip
        np.testing.assert_array_equal(getattr(x, name)(*arguments).numpy(), getattr(tl, name)(x, *arguments).numpy())


def test_embedding_accepts_lists():
    assert tl.embedding(np.eye(2), [1]).numpy().tolist() == [[0.0, 1.0]]


# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda x: x[5], IndexError, r"getitem: .*5.*; the Tensor has shape \(2, 3\)"),
    (lambda x: x[:, [0, 3, -4]], IndexError,
     r"getitem: indices must lie in \[-3, 3\), the size of axis 1; got 3 at position \(1,\)"),
    (lambda x: x[..., np.array([[0, -4]])], IndexError, r"getitem: .*the size of axis 1; got -4 at position \(0, 1\)"),
    (lambda x: x[[0], 3], IndexError, r"getitem: .*the size of axis 1; got 3$"),
    (lambda x: x[0, 1, [0]], IndexError,
     r"getitem: too many indices, 3 axes are indexed; the Tensor has shape \(2, 3\)"),
    (lambda x: x[0, 1, 0], IndexError, r"getitem: .*too many indices.*; the Tensor has shape \(2, 3\)"),
    (lambda x: x[np.ones(3, bool)], IndexError, r"getitem: a mask must have the sizes .*\(2,\); got shape \(3,\)"),
    (lambda x: x[:, [True, False]], IndexError, r"getitem: a mask must have the sizes .*\(3,\); got shape \(2,\)"),
    (lambda x: x[1.0], TypeError, "getitem: indices must be integers, got dtype float32"),
    (lambda x: x[x], TypeError, "getitem: indices must be integers, got dtype float64"),
    (lambda x: x[[0, 1], [0, 1, 2]], IndexError, r"getitem: .*\(2,\).*\(3,\).*; the Tensor has shape \(2, 3\)"),
    (lambda x: x[x.shape], IndexError, r"getitem: .*2.*; the Tensor has shape \(2, 3\)"),
    (lambda x: tl.embedding(x, [[0, 1], [2, 0]]), IndexError, r"embedding: token id 2 at position \(1, 0\) is"),
    (lambda x: tl.embedding(x, [-1]), IndexError, r"embedding: token id -1 at position \(0,\)"),
    (lambda x: tl.embedding(x, [0.5]), TypeError, "embedding: token ids must be integers, got dtype float32"),
    (lambda x: tl.take_along_axis(x, [[0]], axis=7), ValueError, "take_along_axis: axis must lie .* got 7"),
    (lambda x: tl.take_along_axis(x, [[0, 3]], axis=1), IndexError,
     r"take_along_axis: .*\[-3, 3\).*3 at position \(0, 1\)"),
    (lambda x: tl.take_along_axis(x, [0], axis=1), ValueError, r"take_along_axis: .* got shapes \(1,\) and \(2, 3\)"),
    (lambda x: tl.take_along_axis(x, np.zeros((3, 1), int), axis=1), ValueError,
     r"take_along_axis: .*\(3, 1\) and \(2, 3\)"),
    (lambda x: tl.take(x, [6]), IndexError, r"take: indices must lie in \[-6, 6\), .* got 6 at position \(0,\)"),
    (lambda x: tl.take(x, 2, axis=0), IndexError, r"take: indices must lie in \[-2, 2\), the size of axis 0; got 2$"),
    (lambda x: tl.take(x, [0.5]), TypeError, "take: indices must be integers, got dtype float32"),
    (lambda x: tl.take(x, [[0], [1, 2]]), ValueError, "nested lists must form a rectangle"),
    (lambda x: tl.gather(x, 1, [[0, -1]]), IndexError,
     r"gather: .*\[0, 3\), the size of axis 1; got -1 at position \(0, 1\)"),
    (lambda x: tl.gather(x, 0, [[2]]), IndexError, r"gather: indices must lie in \[0, 2\), the size of axis 0; got 2"),
    (lambda x: tl.gather(x, 1, [0]), ValueError,
     r"gather: index must have 2 axes .* got shape \(1,\) for x of \(2, 3\)"),
    (lambda x: tl.gather(x, 1, np.zeros((3, 1), int)), ValueError,
     r"gather: .*along axis 1; got shape \(3, 1\) for x of"),
    (lambda x: tl.gather(x, [[0]], 1), TypeError, r"gather: axis must be one integer, got \[\[0\]\]"),
    (lambda x: tl.index_add(x, 0, [2], x[:1]), IndexError, r"index_add: .*\[0, 2\), the size of axis 0; got 2"),
    (lambda x: tl.index_add(x, 0, [0], x), ValueError, r"index_add: source must have shape \(1, 3\), got \(2, 3\)"),
    (lambda x: tl.index_add(x, 0, [[0]], x), ValueError, r"index_add: index must have one axis, got shape \(1, 1\)"),
    (lambda x: tl.scatter(x, 1, [[3]], 0.0), IndexError, r"scatter: .*\[0, 3\), the size of axis 1; got 3 at"),
    (lambda x: tl.scatter(x, 0, [0], 0.0), ValueError, r"scatter: index must have 2 axes .* got shape \(1,\)"),
    (lambda x: tl.scatter(x, 0, [[0, 1]], x[:, :1]), ValueError, r"scatter: source .*\(1, 2\); got shape \(2, 1\)"),
    (lambda x: tl.scatter_add(x, 0, [[0, 1]], [1.0]), ValueError, r"scatter_add: source .*\(1, 2\); got shape \(1,\)"),
    (lambda x: tl.scatter_add(x, 0, [[0.0]], 1.0), TypeError, "scatter_add: indices must be integers, got dtype float"),
    (lambda x: tl.scatter_add(x, 2, [[0]], 1.0), ValueError, r"scatter_add: axis must lie in \[-2, 2\).* got 2"),
    (lambda x: tl.one_hot([0, 3], 3), IndexError,
     r"one_hot: .*\[0, 3\), the number of classes; got 3 at position \(1,\)"),
    (lambda x: tl.one_hot([0], -3), ValueError, "one_hot: classes needs an integer >= 0, got -3"),
    (lambda x: tl.one_hot([0.0], 3), TypeError, "one_hot: indices must be integers, got dtype float32"),
    (lambda x: tl.one_hot([0], 3, dtype="float33"), TypeError,
     "one_hot: dtype must be numeric, .* got 'float33'"),
    (lambda x: tl.masked_fill(x, np.zeros((4, 3), bool), 0.0), ValueError,
     r"masked_fill: .* got shapes \(4, 3\) and \(\) and \(2, 3\)"),
    (lambda x: tl.masked_fill(x, np.ones(3), 0.0), TypeError, "masked_fill: mask must be boolean, got dtype float64"),
    (lambda x: tl.embedding(x[0, 0], [0]), ValueError, "embedding: weight must be a table .* got a 0-d Tensor"),
]  # fmt: skip


test_mistakes_are_named_with_the_value_and_the_remedy = refused_of_a_matrix(BAD)


def test_sources_and_ids_on_another_backend_are_refused():
    here, there = tl.Tensor(np.ones((2, 3))), tl.Tensor(np.ones((2, 3)), backend=STRICT)
    for x, source in ((here, there), (there, here)):
        for use, name in (
            (lambda x, s: tl.index_add(x, 0, [0, 1], s), "index_add"),
            (lambda x, s: tl.scatter(x, 0, [[0]], s), "scatter"),
            (lambda x, s: tl.scatter_add(x, 0, [[0]], s), "scatter_add"),
        ):
            with pytest.raises(TypeError, match=rf"{name}: x and source must be on one backend, got {x.backend.name}"):
                use(x, source)
    with pytest.raises(TypeError, match=r"embedding: ids must be on the backend of weight, numpy, .* got strict"):
        tl.embedding(here, tl.Tensor([0], backend=STRICT))


def test_a_tensor_of_indices_on_another_backend_is_refused():
    x = tl.Tensor(np.ones((2, 3)), backend=STRICT)
    ids, mask = tl.Tensor([[0]]), tl.Tensor([True, False])
    for use, name in (
        (lambda: x[ids], "getitem"), (lambda: x[mask], "getitem"), (lambda: tl.take(x, ids), "take"),
        (lambda: tl.gather(x, 0, ids), "gather"), (lambda: tl.scatter(x, 0, ids, 1.0), "scatter"),
        (lambda: tl.masked_fill(x.T, mask, 0.0), "masked_fill"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=rf"{name}: .* on the backend of x, strict, got numpy; move it with .to\("):
            use()


def test_the_adjoints_of_indexing_are_right_to_second_order():
    """They are not public functions, so no row of the table checks them."""
    rng, ids = np.random.default_rng(0), np.array([2, 0, 2])
    tl.gradcheck(lambda x: SumRows.apply(x * x, ids=ids, rows=4), rng.normal(size=(3, 2)))
    tl.gradcheck(lambda x: ScatterAdd.apply(x * x, index=ids, shape=(4, 2)), rng.normal(size=(3, 2)))
