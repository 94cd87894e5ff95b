"""tl.depends: what it proves is compared with what changes when elements are changed."""

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.engine.function import Function
from tensorlib.ops.cumulative import Recurrence
from tensorlib.ops.plain import Plain
from tensorlib.optable import ROWS
from tensorlib.transforms.dependence_rules import FORMULAS, RULES

RNG = np.random.default_rng(0)


def leaf(*shape):
    return tl.Tensor(RNG.standard_normal(shape), requires_grad=True)


def changes(f, arrays, i, steps=(1e-3, -0.37, 2.9)):
    """Return which elements of f(*arrays) change when an element of input i does, (*shape of f, *shape of input)."""
    before = f(*arrays)
    found = np.zeros((*before.shape, *arrays[i].shape), bool)
    for place in np.ndindex(arrays[i].shape):
        for step in steps:
            changed = [a.copy() for a in arrays]
            changed[i][place] += step
            after = f(*changed)
            found[(..., *place)] |= (after != before) & ~(np.isnan(after) & np.isnan(before))
    return found


def outputs_of(y):
    return [x for x in (y if isinstance(y, tuple | list) else [y]) if isinstance(x, tl.Tensor) and x.requires_grad]


def recorded(y):
    """Return y and the outputs beside it as one Tensor, since `depends` looks at one result."""
    return tl.concatenate([x.reshape(-1) for x in outputs_of(y)])


# ---- every op of the table against what changes ----------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in ROWS if row.differentiable], ids=lambda row: row.name)
def test_what_changes_is_among_what_can_depend(row):
    """The steps are tiny, so that indices such as those of a sort, which count as constants, stay the same."""
    for sample in row.samples:
        arrays = row.arrays(sample)
        f = row.bound(sample, tl.get_backend("numpy"))
        xs = [tl.Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
        if sum(a.size for a in arrays) > 150 or not outputs_of(f(*xs)):
            continue

        def values(*given, f=f):
            tl.seed(0)  # the same dropout masks in every call
            return recorded(f(*[tl.Tensor(a, requires_grad=a.dtype.kind == "f") for a in given])).numpy()

        y = recorded(f(*xs))
        for i, x in enumerate(xs):
            if x.requires_grad:
                can = tl.depends(y, on=x)
                assert not can.without_rule, f"{row.name}({sample}): {can.without_rule}"
                with np.errstate(all="ignore"):
                    does = changes(values, arrays, i, steps=(1e-7,))
                assert not (does & ~can.array).any(), f"{row.name}({sample}), input {i}"


def test_every_op_that_can_be_recorded_has_a_rule():
    ops = {cls for cls in Function.__subclasses__() if cls.__module__.startswith("tensorlib.ops")}
    ops |= {sub for cls in ops for sub in cls.__subclasses__()}
    assert ops - {Plain} == {*RULES, *FORMULAS}


# ---- the rules are exact, not only safe ------------------------------------------------------------------------------

V = np.array([[True, False, True, True], [False, True, False, False], [True, True, True, True]])
BIAS = np.where(V, 0.0, -np.inf)
TRI = np.tri(4)
X, W = (3, 4), (4, 2)
EXACT = {
    "add": (lambda x, y: x + y, (3, 4), (4,)),
    "multiply by a mask": (lambda x: x * V, X),
    "matmul": (lambda x, w: x @ w, X, W),
    "matmul with zeros": (lambda x: TRI @ x, (4, 2)),
    "matmul of a batch with zeros": (lambda x: x @ (TRI > TRI.T), (2, 3, 4)),
    "linear with zeros": (lambda x: tl.linear(x, TRI, np.zeros(4)), (3, 4)),
    "where": (lambda x, y: tl.where(V, x, y), X, X),
    "softmax": (lambda x: tl.softmax(x), X),
    "softmax of visible": (lambda x: tl.softmax(x, visible=V[[0, 2]]), (2, 4)),
    "softmax after where": (lambda x: tl.softmax(tl.where(V[[0, 2]], x, -np.inf)), (2, 4)),
    "softmax after masked_fill": (lambda x: tl.softmax(tl.masked_fill(x, ~V[[0, 2]], -np.inf)), (2, 4)),
    "softmax after adding -inf": (lambda x: tl.softmax(x + BIAS[[0, 2]]), (2, 4)),
    "softmax after subtracting inf": (lambda x: tl.softmax(x - -BIAS[[0, 2]]), (2, 4)),
    "log_softmax after where": (lambda x: tl.log_softmax(tl.where(V[[0, 2]], x, -np.inf)), (2, 4)),
    "softmax by hand": (
        lambda x: (lambda e: e / e.sum(axis=-1, keepdims=True))(tl.exp(tl.where(V[[0, 2]], x, -np.inf))), (2, 4)
    ),
    "softmax, then a mask": (lambda x: tl.softmax(x) * V, X),
    "weighted sum": (lambda x: tl.softmax(tl.where(V[[0, 2]], x, -np.inf)) @ (TRI * np.arange(1, 5)[:, None]), (2, 4)),
    "layer_norm": (lambda x: tl.layer_norm(x), X),
    "sum": (lambda x: x.sum(axis=0), X),
    "cumsum": (lambda x: tl.cumsum(x, axis=1), X),
    "recurrence": (lambda x, a: Recurrence.apply(x, a, axis=0), (4,), (4,)),
    "transpose, reshape, slice": (lambda x: x.swapaxes(0, 1).reshape(2, 6)[:, 1:4], X),
    "concatenate": (lambda x, y: tl.concatenate([x, y, x], axis=1), X, (3, 1)),
    "roll": (lambda x: tl.roll(x, 1, axis=1), X),
    "pad": (lambda x: tl.pad(x, 1), X),
    "embedding": (lambda w: tl.embedding(w, [[2, 0], [2, 3]]), W),
    "convolution": (lambda x, w: tl.conv1d(x, w, padding=1), (1, 1, 5), (1, 1, 3)),
    "scatter": (lambda x: tl.index_add(tl.zeros((5, 4), dtype="float64"), 0, [4, 0, 4], x), X),
    "rnn": (lambda x, h: tl.rnn(x, np.eye(2) + 1, np.eye(2) + 1, np.zeros(2), h, visible=V[:2, :3]),
            (2, 3, 2), (2, 2)),
    "lstm": (lambda x: tl.concatenate(tl.lstm(x, np.ones((2, 8)), np.ones((2, 8)), np.ones(8), reverse=True)),
             (1, 3, 2)),
    "causal attention": (lambda q, k, v: tl.scaled_dot_product_attention(q, k, v, causal=True)[1:],
                         (3, 2), (3, 2), (3, 2)),
}  # fmt: skip


@pytest.mark.parametrize("f, shapes", [(f, shapes) for f, *shapes in EXACT.values()], ids=EXACT)
def test_what_can_depend_does(f, shapes):
    arrays = [RNG.uniform(0.3, 1.2, shape) for shape in shapes]
    xs = [tl.Tensor(a, requires_grad=True) for a in arrays]
    for i, x in enumerate(xs):
        does = changes(lambda *given: f(*[tl.Tensor(a) for a in given]).numpy(), arrays, i, steps=(0.21, -0.17))
        np.testing.assert_array_equal(tl.depends(f(*xs), on=x).array, does)


def random_graph(rng, x, y):
    """Return a random composition of ops with masks, from two (3, 3) Tensors."""
    values = [x, y]
    for _ in range(int(rng.integers(2, 7))):
        a, b = (values[int(rng.integers(len(values)))] for _ in range(2))
        mask, number = rng.random((3, 3)) < 0.6, int(rng.integers(9))
        mask |= np.eye(3, dtype=bool)
        values.append([
            lambda a=a, b=b: a @ b, lambda a=a, b=b: a * b, lambda a=a, m=mask: a * m,
            lambda a=a, m=mask: tl.softmax(tl.where(m, a, -np.inf)), lambda a=a, m=mask: tl.softmax(a, visible=m),
            lambda a=a: a.swapaxes(0, 1), lambda a=a, b=b, m=mask: tl.where(m, a, b),
            lambda a=a: tl.cumsum(a, axis=0), lambda a=a, m=mask: a @ m.astype(float),
        ][number]())  # fmt: skip
    return tl.tanh(values[-1] + 0 * x)


@pytest.mark.parametrize("seed", range(150))
def test_random_graphs(seed):
    arrays = [np.random.default_rng(seed).uniform(-1, 1, (3, 3)) for _ in range(2)]

    def f(*given):
        return random_graph(np.random.default_rng(seed), *given)

    xs = [tl.Tensor(a, requires_grad=True) for a in arrays]
    for i, can in enumerate(tl.depends(f(*xs), on=xs)):
        does = changes(lambda *given: f(*[tl.Tensor(a) for a in given]).numpy(), arrays, i)
        assert not (does & ~can.array).any()


# ---- what is not a constant ------------------------------------------------------------------------------------------


def all_of(dependence):
    return bool(dependence.array.all())


def test_zeros_of_parameters_and_of_data_are_not_masks():
    """The proof is for all weights: one that is 0 today excludes nothing."""
    x, w = leaf(3), tl.Tensor(np.zeros(3), requires_grad=True)
    assert all_of(tl.depends((x * w).sum(), on=x))
    assert all_of(tl.depends(x.reshape(1, 3) @ w.reshape(3, 1), on=x))
    assert not tl.depends((x * np.zeros(3)).sum(), on=x).array.any()
    zero = tl.Tensor(np.zeros((2, 3)), requires_grad=True)
    assert all_of(tl.depends((zero * x).sum(axis=0).sum(), on=x))


def test_an_infinity_of_data_is_not_a_mask():
    """-inf selected by a mask hides an element; a score that is -inf by its value does not."""
    x = tl.Tensor([[-np.inf, 1.0, 2.0]], requires_grad=True)
    assert all_of(tl.depends(tl.softmax(x), on=x))


def test_a_large_negative_number_is_not_a_mask():
    x = leaf(2, 3)
    y = tl.softmax(tl.where(np.tri(2, 3, dtype=bool), x, -1e9))
    assert tl.depends(y, on=x)[0, 2, 0, 0], "in exact arithmetic the share of a hidden position is not 0"


def test_every_draw_of_dropout_counts():
    x = leaf(50)
    for y in (tl.dropout(x, 0.9), tl.add_dropout(tl.zeros(50, dtype="float64"), x, 0.9)):
        np.testing.assert_array_equal(tl.depends(y, on=x).array, np.eye(50, dtype=bool))
    ones = tl.dropout(tl.Tensor(np.ones(50), requires_grad=True), 0.9)  # mostly zeros in this draw
    assert tl.depends((ones * x).sum(), on=x).array.all()
    fixed = tl.dropout(tl.where(np.zeros(50, bool), leaf(50), 1.0), 0.9)  # ones, of which this draw drops most
    assert (fixed.numpy() == 0).sum() > 30
    assert tl.depends((fixed * x).sum(), on=x).array.all()
    hidden = tl.softmax(tl.where(np.tri(3, dtype=bool), leaf(3, 3), -np.inf))
    v = leaf(3, 1)
    assert tl.depends(tl.dropout(hidden, 0.5) @ v, on=v, axes=[0], axes_of_y=[0]).array.tolist() == np.tri(3).tolist()


def test_constants_made_of_x_are_constants():
    """The limit of the proof, the same as that of gradients."""
    x = leaf(3)
    y = tl.where(x > 0, 1.0, 2.0) * leaf(3) + x.detach()
    assert not tl.depends(y, on=x).array.any()


# ---- ops of others, composed ops, several inputs -------------------------------------------------------------------


class Square(tl.Function):
    def forward(self, x):
        self.save(x)
        return x * x

    def backward(self, dy):
        return 2 * self.saved[0] * dy


def test_an_op_without_a_rule_depends_on_everything_and_is_named():
    x = leaf(2, 2)
    with tl.record_source():
        y = Square.apply(x) * np.array([1.0, 0.0])
    dependence = tl.depends(y, on=x)
    assert dependence[:, 0].all() and not dependence[:, 1].any()
    [named] = dependence.without_rule
    assert "square" in named and "test_dependence.py" in named and "square" in repr(dependence)


def test_sublayers_in_one_op_and_in_several():
    x, memory = leaf(2, 3, 4), leaf(2, 5, 4)
    w, wo, b = leaf(4, 12), leaf(4, 4), leaf(12)
    visible = np.arange(5) < np.array([5, 2]).reshape(2, 1, 1, 1)

    def sublayers():
        y = tl.multi_head_attention(x, w, b, wo, wo[0], heads=2, causal=True)
        y = tl.multi_head_attention(y, w, b, wo, wo[0], memory, visible, heads=2, dropout=0.1)
        return tl.add_norm(x, tl.feed_forward(y, w, b, leaf(12, 4), wo[0], dropout=0.1), wo[0], wo[1], dropout=0.1)

    y = sublayers()
    with tl.record_formulas():
        composed = sublayers()
    found = tl.depends(y, on=[x, memory], axes=(0, 1), axes_of_y=(0, 1))
    for one, other in zip(found, tl.depends(composed, on=[x, memory], axes=(0, 1), axes_of_y=(0, 1)), strict=True):
        np.testing.assert_array_equal(one.array, other.array)
    for b_, c in np.ndindex(2, 2):
        np.testing.assert_array_equal(found[0][b_, :, c], np.tri(3) * (b_ == c))
        np.testing.assert_array_equal(found[1][b_, :, c], np.tile(visible[c].reshape(1, 5) & (b_ == c), (3, 1)))


def test_an_intermediate_result_cuts_what_is_behind_it():
    x = leaf(3)
    h = tl.exp(x)
    y = h[::-1] + x
    assert tl.depends(y, on=h).array.tolist() == np.eye(3)[::-1].astype(bool).tolist()
    assert tl.depends(y, on=[x, h])[0].array.tolist() == np.eye(3, dtype=bool).tolist(), "only past h"
    assert tl.depends(x, on=x).array.tolist() == np.eye(3, dtype=bool).tolist()
    assert not tl.depends(leaf(2) * 1, on=x).array.any()


def test_more_labels_than_a_word_has_bits():
    x = leaf(20, 10)
    y = tl.cumsum(x.reshape(-1))
    np.testing.assert_array_equal(tl.depends(y, on=x).array.reshape(200, 200), np.tri(200, dtype=bool))


def test_axes_in_any_order_and_none():
    x = leaf(2, 3, 4)
    y = x.sum(axis=2)
    whole = tl.depends(y, on=x, axes=(1, 0), axes_of_y=(-1, 0))
    assert whole.array.shape == (3, 2, 3, 2)
    np.testing.assert_array_equal(whole.array.reshape(6, 6), np.eye(6, dtype=bool))
    assert tl.depends(y, on=x, axes=(), axes_of_y=()).array.shape == ()
    assert np.asarray(whole) is whole.array and np.asarray(whole, dtype=int).sum() == 6


# ---- paths -----------------------------------------------------------------------------------------------------------


def test_a_path_names_every_op_module_and_line():
    x = leaf(2, 3)
    with tl.record_source(), tl.module_scope("layer.1"):
        h = tl.softmax(x, axis=0)
        y = (h @ leaf(3, 3)).sum(axis=0)
    path = tl.depends(y, on=x).path(2, 1, 0)
    assert [step.op for step in path] == ["leaf", "softmax", "matmul", "sum"]
    assert path[0].element == (1, 0) and path[-1].element == (2,)
    assert all(step.module == "layer.1" and "test_dependence.py" in step.source for step in path[1:])
    assert "softmax in layer.1 at " in str(path[1]) and "of (2, 3)" in str(path[1])


def test_a_path_within_a_composed_op_and_an_op_without_a_rule():
    x = leaf(1, 3, 4)
    y = Square.apply(tl.multi_head_attention(x, leaf(4, 12), leaf(12), leaf(4, 4), leaf(4), heads=2, causal=True))
    path = tl.depends(y, on=x, axes=[1], axes_of_y=[1]).path(0, 2)
    assert [step.op for step in path] == ["leaf", "self_attention", "square"]
    assert path[0].element[1] == 2 and path[1].element[1] == 2


def test_errors():
    x = leaf(3)
    y = x * 2
    with pytest.raises(ValueError, match=r"path: .* where the array of shape \(3, 3\) is True, got \(0, 1\)"):
        tl.depends(y, on=x).path(0, 1)
    with pytest.raises(TypeError, match="depends: on must be a Tensor, got"):
        tl.depends(y, on=[np.ones(3)])
    with pytest.raises(ValueError, match="depends: on, a Tensor of shape \\(3,\\), must be recorded"):
        tl.depends(y, on=tl.ones(3))
    with pytest.raises(ValueError, match=r"depends: axes must be axes of a Tensor of shape \(3,\), got .*1"):
        tl.depends(y, on=x, axes=[1])
    with pytest.raises(ValueError, match="depends: axes_of_y must not repeat an axis"):
        tl.depends(y, on=x, axes_of_y=[0, -1])
    y.sum().backward()
    with pytest.raises(RuntimeError, match="depends: the graph of y was released by an earlier backward pass"):
        tl.depends(y, on=x)
