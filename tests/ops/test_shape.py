"""Moving elements: edge cases and mistakes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorlib as tl
from tests.edges import edge, refused_of_a_matrix


def test_lists_and_arrays_are_accepted_like_tensors():
    rows = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    for r in (rows, np.array(rows)):
        a = np.array(rows)
        for found, expected in (
            (tl.transpose(r), a.T), (tl.swapaxes(r, 0, 1), a.T), (tl.moveaxis(r, 0, 1), a.T),
            (tl.flatten(r), a.ravel()), (tl.expand_dims(r, (0, 3)), a[None, :, :, None]),
            (tl.squeeze(r), a), (tl.split(r, 3, axis=1)[2], a[:, 2:]), (tl.stack([r]), a[None]),
            (tl.concatenate([r, tl.Tensor(rows)]), np.concatenate([a, a])), (tl.flip(r), np.flip(a)),
            (tl.unstack(r)[1], a[1]), (tl.roll(r, 1), np.roll(a, 1)), (tl.pad(r, 1), np.pad(a, 1)),
            (tl.broadcast_to(r, (2, 2, 3)), np.stack([a, a])), (tl.astype(r, int), a.astype(int)),
            (tl.repeat(r, 2), np.repeat(a, 2)), (tl.tile(r, 2), np.tile(a, 2)), (tl.copy(r), a),
        ):  # fmt: skip
            np.testing.assert_array_equal(found.numpy(), expected)


def test_arguments_have_numpys_names():
    a = np.arange(6.0).reshape(2, 3)
    x = tl.Tensor(a)
    for name, options in (("reshape", {"shape": (3, 2)}), ("reshape", {"shape": 6}), ("transpose", {"axes": (1, 0)}),
                          ("transpose", {"axes": None}), ("full_like", {"fill_value": 2.0})):  # fmt: skip
        np.testing.assert_array_equal(getattr(tl, name)(x, **options).numpy(), getattr(np, name)(a, **options))
    np.testing.assert_array_equal(tl.full((2,), fill_value=3).numpy(), [3, 3])
    np.testing.assert_array_equal(tl.split(x, indices_or_sections=[1], axis=1)[1].numpy(), a[:, 1:])


def test_split_accepts_numpy_integers_and_positions(backend):
    x = tl.Tensor(np.arange(6.0), backend=backend)
    for sections in (np.int64(2), [3], (3,), np.array([3])):
        np.testing.assert_array_equal(tl.split(x, sections)[1].numpy(), [3, 4, 5])


def test_pad_accepts_the_widths_that_numpy_accepts(backend):
    a = np.arange(6.0).reshape(2, 3)
    x = tl.Tensor(a, backend=backend)
    for width in (2, (1, 2), ((1, 2),), ((1, 2), (0, 1)), [1, 0], np.array([[1, 0], [2, 1]]), [[1], [2]]):
        for mode in ("constant", "edge", "reflect", "symmetric", "wrap"):
            np.testing.assert_array_equal(tl.pad(x, width, mode).numpy(), np.pad(a, width, mode))
    np.testing.assert_array_equal(tl.pad(x, {-1: (0, 2), 0: 1}).numpy(), np.pad(a, ((1, 1), (0, 2))))
    assert tl.pad(x.astype("int64"), 1, constant_values=7).dtype == np.int64
    assert np.isinf(tl.pad(x, 1, constant_values=-np.inf).numpy()[0, 0])


def test_repeats_may_be_a_tensor(backend):
    x = tl.Tensor([1.0, 2.0, 3.0], backend=backend)
    for counts in ([2, 0, 1], np.array([2, 0, 1]), tl.Tensor([2, 0, 1], backend=backend)):
        np.testing.assert_array_equal(x.repeat(counts).numpy(), [1, 1, 3])


def test_padding_by_selection_accumulates_the_gradients(backend):
    _, dx = edge(lambda x: tl.pad(x, (2, 1), "reflect"), [1.0, 2.0, 3.0], backend=backend,
                 cotangent=[1, 10, 100, 1000, 10000, 100000])  # fmt: skip
    np.testing.assert_array_equal(dx, [100, 1010 + 100000, 10001])


def test_unstack_is_the_inverse_of_stack(backend):
    x = tl.Tensor(np.arange(6.0).reshape(2, 3), backend=backend)
    for axis in (0, 1, -1):
        np.testing.assert_array_equal(tl.stack(tl.unstack(x, axis), axis).numpy(), x.numpy())
    assert tl.unstack(x[:0]) == ()


def test_methods_are_the_functions(backend):
    x = tl.Tensor(np.arange(6.0).reshape(2, 3), backend=backend)
    for name, arguments in (
        ("flatten", (0, 1)), ("flip", (0,)), ("roll", (1, 1)), ("repeat", (2, 0)), ("tile", (2,)), ("moveaxis", (0, 1)),
        ("broadcast_to", ((2, 2, 3),)),
    ):  # fmt: skip
        np.testing.assert_array_equal(getattr(x, name)(*arguments).numpy(), getattr(tl, name)(x, *arguments).numpy())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=3), st.data())
def test_roll_flip_tile_and_pad_move_as_numpys_do(shape, data):
    a = np.random.default_rng(0).normal(size=shape)
    axes = data.draw(st.lists(st.integers(-len(shape), len(shape) - 1), min_size=1, max_size=3).map(tuple))
    shifts = data.draw(st.lists(st.integers(-4, 4), min_size=len(axes), max_size=len(axes)).map(tuple))
    np.testing.assert_array_equal(tl.roll(a, shifts, axes).numpy(), np.roll(a, shifts, axes))
    np.testing.assert_array_equal(tl.flip(a, axes[0]).numpy(), np.flip(a, axes[0]))
    reps = data.draw(st.lists(st.integers(0, 3), max_size=4).map(tuple))
    np.testing.assert_array_equal(tl.tile(a, reps).numpy(), np.tile(a, reps))
    width = data.draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=a.ndim, max_size=a.ndim))
    for mode in ("constant", "edge", "reflect", "symmetric", "wrap") if a.size else ("constant",):
        np.testing.assert_array_equal(tl.pad(a, width, mode).numpy(), np.pad(a, width, mode))


# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda x: x.transpose(0, 2), ValueError, r"transpose: axis must lie in \[-2, 2\) for 2 dimensions, got 2"),
    (lambda x: x.transpose(0), ValueError, r"transpose: axes must be a permutation of 2 axes, got \(0,\)"),
    (lambda x: x.swapaxes(0, 5), ValueError, "swapaxes: axis must lie .* got 5"),
    (lambda x: x.moveaxis((0, 1), 0), ValueError, r"moveaxis: each axis needs one destination, got \(0, 1\) to \(0,\)"),
    (lambda x: x.moveaxis(0, 2), ValueError, "moveaxis: axis must lie .* got 2"),
    (lambda x: x.moveaxis((0, 0), (0, 1)), ValueError, r"moveaxis: axes must differ, got \(0, 0\)"),
    (lambda x: x.flatten(1, 0), ValueError, "flatten: start_axis must not be greater than end_axis, got 1 and 0"),
    (lambda x: x.flatten(2), ValueError, "flatten: axis must lie .* got 2"),
    (lambda x: x.reshape(4, 2), ValueError, r"reshape: .* stay 6, that of \(2, 3\), got 8 for \(4, 2\); .* \(-1, 2\)$"),
    (lambda x: x.reshape(5, 5), ValueError, r"reshape: .* stay 6, that of \(2, 3\), got 25 for \(5, 5\)$"),
    (lambda x: x.reshape(-1, 4), ValueError, r"must be a multiple of 4, got 6 of shape \(2, 3\) for \(-1, 4\)"),
    (lambda x: x.reshape(-1, -1), ValueError, r"reshape: at most one size may be -1, .* got \(-1, -1\)"),
    (lambda x: x.reshape(0, -1), ValueError, r"must be a multiple of 0, got 6 of shape"),
    (lambda x: x.squeeze(0), ValueError, r"squeeze: axis 0 must have size 1, got shape \(2, 3\)"),
    (lambda x: tl.expand_dims(x, 3), ValueError, "expand_dims: axis must lie .* got 3"),
    (lambda x: x.broadcast_to((2, 4)), ValueError, r"broadcast_to: .* got \(2, 3\) for \(2, 4\); tl.expand_dims"),
    (lambda x: x.broadcast_to((3,)), ValueError, r"broadcast_to: .* got \(2, 3\) for \(3,\)"),
    (lambda x: x.broadcast_to((2, -1)), ValueError, r"broadcast_to: shape needs integers >= 0, got \(2, -1\)"),
    (lambda x: tl.split(x, 2, axis=1), ValueError, "split: 2 equal parts must fit axis 1 of size 3"),
    (lambda x: tl.split(x, [2, 1], axis=1), ValueError, r"split: positions must rise from 0 to 3, .* got \[2, 1\]"),
    (lambda x: tl.split(x, 1.5), TypeError, "split: sections needs an integer >= 0, got 1.5"),
    (lambda x: tl.unstack(x, 2), ValueError, "unstack: axis must lie .* got 2"),
    (lambda x: tl.concatenate([]), ValueError, "concatenate: needs at least one Tensor, got none"),
    (lambda x: tl.concatenate(x, x), TypeError, r"concatenate: needs the Tensors in one list, concatenate\(\[x, y\]\)"),
    (lambda x: tl.concatenate([x, x.T]), ValueError,
     r"concatenate: .*axis 0, got \(2, 3\) first and \(3, 2\) as number 1"),
    (lambda x: tl.concatenate([x, x[0]]), ValueError, r"concatenate: .* got \(2, 3\) first and \(3,\) as number 1"),
    (lambda x: tl.stack([x, x[:1]]), ValueError,
     r"stack: shapes must be equal, got \(2, 3\) first and \(1, 3\) as number 1"),
    (lambda x: tl.stack([]), ValueError, "stack: needs at least one Tensor, got none"),
    (lambda x: tl.stack([x], axis=3), ValueError, r"stack: axis must lie in \[-3, 3\).* got 3"),
    (lambda x: x.astype("float33"), TypeError, "astype: dtype must be numeric, .* got 'float33'"),
    (lambda x: x.astype(str), TypeError, "astype: dtype must be numeric, .* got <class 'str'>"),
    (lambda x: x.flip(2), ValueError, "flip: axis must lie .* got 2"),
    (lambda x: x.flip((0, 0)), ValueError, r"flip: axes must differ, got \(0, 0\)"),
    (lambda x: x.roll(1, 2), ValueError, "roll: axis must lie .* got 2"),
    (lambda x: x.roll((1, 2), (0, 1, 0)), ValueError, r"roll: .* got shifts \(1, 2\) for axes \(0, 1, 0\)"),
    (lambda x: x.roll(1.5), TypeError, "roll: shift must be an integer, got 1.5"),
    (lambda x: x.repeat(-1), ValueError, "repeat: repeats must be at least 0, got -1"),
    (lambda x: x.repeat(1.5), TypeError, "repeat: repeats must be integers, got dtype float32"),
    (lambda x: x.repeat([1, 2, 3], axis=0), ValueError, r"repeat: needs one number or 2, .* axis 0; got shape \(3,\)"),
    (lambda x: x.repeat(2, axis=2), ValueError, "repeat: axis must lie .* got 2"),
    (lambda x: x.tile((2, -1)), ValueError, r"tile: reps needs integers >= 0, got \(2, -1\)"),
    (lambda x: x.tile(0.5), TypeError, "tile: reps needs an integer >= 0, got 0.5"),
    (lambda x: tl.pad(x, -1), ValueError, "pad: pad_width must be integers >= 0, got -1; slices remove elements"),
    (lambda x: tl.pad(x, 0.5), ValueError, "pad: pad_width must be integers >= 0, got 0.5"),
    (lambda x: tl.pad(x, ((1, 1),) * 3), ValueError, r"pad: .* each of 2 axes; got \(\(1, 1\), \(1, 1\), \(1, 1\)\)"),
    (lambda x: tl.pad(x, ((1, 1), (1,))), ValueError, r"pad: pad_width must be a number, .* got \(\(1, 1\), \(1,\)\)"),
    (lambda x: tl.pad(x, {2: 1}), ValueError, "pad: axis must lie .* got 2"),
    (lambda x: tl.pad(x, 1, "mirror"), ValueError, "pad: mode must be 'constant', 'edge', .* got 'mirror'"),
    (lambda x: tl.pad(x[:0], 1, "edge"), ValueError,
     r"pad: mode 'edge' needs an element along axis 0, got shape \(0, 3\)"),
    (lambda x: tl.pad(x.astype(int), 1, constant_values=0.5), ValueError, "pad: dtype int64 cannot hold 0.5"),
    (lambda x: tl.pad(x, 1, constant_values=x), TypeError,
     r"pad: the value must be a number, got a Tensor of shape \(2, 3\)"),
]  # fmt: skip


test_mistakes_are_named_with_the_value_and_the_remedy = refused_of_a_matrix(BAD)
