"""Kernels for rows and for sums over rows on a GPU: what the comparison of each kernel with its formula leaves out."""

from itertools import pairwise

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.ops.activations import gelu_formula, gelu_gradient
from tensorlib.ops.add_norm import add_norm_formula, add_norm_gradient
from tensorlib.ops.feed_forward import feed_forward_formula, feed_forward_gradient
from tensorlib.ops.indexing import sum_rows_formula
from tensorlib.ops.linear import linear_formula, linear_gradient
from tensorlib.ops.linear_cross_entropy import linear_cross_entropy_formula, linear_cross_entropy_gradient
from tensorlib.ops.next_position import largest_and_total
from tensorlib.ops.normalize import layer_norm_formula, layer_norm_gradient
from tests.conftest import backend_named, with_kernels

pytestmark = with_kernels

RNG = np.random.default_rng(0)
ALL = (True,) * 5


@pytest.fixture
def gpu():
    return backend_named("cupy")


def on(gpu, *arrays):
    """Return arrays on the GPU; a transposed one stays a transposed view."""
    found = []
    for a in arrays:
        transposed = a.ndim == 2 and a.flags.f_contiguous and not a.flags.c_contiguous
        found.append(gpu.asarray(a.T).T if transposed else gpu.asarray(a))
    return found


def normal(*shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


# ---- from hidden states to the loss ------------------------------------------------------------------------------


def loss_case(rows, width, classes, dtype, tied=False):
    """Return x, weight and bias, and targets of which some do not count."""
    weight = normal(classes, width, dtype=dtype).T if tied else normal(width, classes, dtype=dtype)
    operands = normal(rows, width, dtype=dtype), weight, normal(classes, dtype=dtype)
    return operands, RNG.integers(0, classes, rows), RNG.random(rows) < 0.8


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rows", [1, 130, 400])
def test_gradients_that_come_with_the_loss_are_those_of_the_formula(gpu, monkeypatch, rows, tied, dtype):
    """Rows of one block, and of several, whose contributions add up."""
    from tensorlib.kernels.cuda import linear_cross_entropy

    monkeypatch.setattr(linear_cross_entropy, "ROWS", 128)
    operands, targets, counted = loss_case(rows, 5, 300, dtype, tied)
    operands = on(gpu, *operands)
    options = {"classes": (*on(gpu, targets, counted), 0.1), "needs": (True, True, True)}
    loss, kept = linear_cross_entropy_formula(*operands, **options)
    dloss = gpu.asarray(np.asarray(0.25, dtype))
    found = linear_cross_entropy_gradient(dloss, *operands, **options, kept=kept)
    expected = linear_cross_entropy_gradient.dispatch(object)(dloss, *operands, **options, kept=None)
    for d, e in zip(found, expected, strict=True):
        d, e = gpu.to_numpy(d), gpu.to_numpy(e)
        np.testing.assert_allclose(d, e, rtol=0, atol=(1e-5 if dtype == "float32" else 1e-13) * np.abs(e).max())
    assert loss.shape == () and found[1].strides == operands[1].strides


def test_gradients_that_are_not_needed_are_not_computed(gpu):
    operands, targets, counted = loss_case(9, 3, 20, "float32")
    for needs in ((True, False, False), (False, True, False), (False, False, True), (False, False, False)):
        classes = (*on(gpu, targets, counted), 0.0)
        kept = linear_cross_entropy_formula(*on(gpu, *operands), classes=classes, needs=needs)[1]
        assert tuple(d is not None for d in kept) == needs


def test_blocks_of_rows_cover_all_rows_and_hold_a_bounded_number_of_logits():
    pytest.importorskip("cupy")
    backend_named("cupy")
    from tensorlib.kernels.cuda.linear_cross_entropy import BLOCK_BYTES, ROWS, row_blocks

    for rows in (1, 127, 128, 1024, 1025, 2048, 5000, 100_000):
        for classes in (1, 8000, 60_000, 250_000):
            blocks = row_blocks(rows, 4 * classes)
            assert blocks[0].start == 0 and blocks[-1].stop == rows
            assert all(a.stop == b.start for a, b in pairwise(blocks))
            heights = {b.stop - b.start for b in blocks}
            assert max(heights) <= ROWS and 4 * classes * max(heights) <= BLOCK_BYTES


def test_a_target_on_the_gpu_outside_the_classes_gives_nan(gpu):
    """Nothing is fetched to check it, and nothing outside the row is read."""
    x, weight = on(gpu, normal(3, 4), normal(4, 5))
    for wrong in (5, -1):
        loss = tl.linear_cross_entropy(tl.Tensor(x), tl.Tensor(weight), None, gpu.asarray(np.array([0, wrong, 1])))
        assert np.isnan(loss.item())


# ---- embeddings --------------------------------------------------------------------------------------------------


def test_ids_on_the_gpu_outside_the_table_wrap_around_in_the_gradient_as_in_the_rows_read(gpu):
    table, ids = tl.Tensor(gpu.asarray(normal(5, 3)), requires_grad=True), gpu.asarray(np.array([-1, 7, 4, 2]))
    rows = tl.embedding(table, ids)
    np.testing.assert_array_equal(rows.numpy(), table.numpy()[[4, 2, 4, 2]])
    rows.sum().backward()
    np.testing.assert_array_equal(table.grad.numpy()[:, 0], [0, 0, 2, 0, 2])


def test_sorting_by_comparisons_equals_a_stable_argsort(gpu):
    from tensorlib.kernels.cuda.indexing import sort_ids

    for count in (1, 15, 16, 17, 500):
        ids = RNG.integers(0, 7, count)
        order, ordered = (gpu.to_numpy(a) for a in sort_ids(gpu.asarray(ids), 7))
        np.testing.assert_array_equal(order, np.argsort(ids, kind="stable"))
        np.testing.assert_array_equal(ordered, np.sort(ids))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("parts", "batch", "length", "heads", "width"),
    [(3, 2, 17, 2, 5), (1, 40, 1, 1, 3), (2, 3, 50, 3, 8), (1, 3, 700, 1, 2)],
)
def test_heads_are_laid_out_and_joined_again(parts, batch, length, heads, width, dtype, gpu):
    """A thread reads four rows at once, of one or several sentences; the last rows of a chunk may be fewer."""
    from tensorlib.kernels.cuda.multi_head_attention import join_heads, split_heads

    z = normal(batch, length, parts * heads * width, dtype=dtype)
    bias = normal(z.shape[2], dtype=dtype)
    for added in (None, bias):
        expected = (z if added is None else z + added).reshape(batch, length, parts, heads, width)
        expected = expected.transpose(2, 0, 3, 1, 4)
        split = split_heads(gpu.asarray(z), None if added is None else gpu.asarray(added), parts, heads)
        np.testing.assert_array_equal(gpu.to_numpy(split), expected)
    db = gpu.xp.empty(z.shape[2], dtype)
    for sums in (None, db):
        joined = gpu.to_numpy(join_heads(split, sums))
        np.testing.assert_array_equal(joined, z + bias)
    np.testing.assert_allclose(gpu.to_numpy(db), joined.astype(float).sum((0, 1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("recorded", [False, True])
def test_many_ids_are_sorted_by_cupy_except_in_a_recorded_step(recorded, gpu, monkeypatch):
    from tensorlib.kernels.cuda import indexing

    monkeypatch.setattr(indexing, "MOST_COMPARED", 100)
    monkeypatch.setattr(indexing, "current_capture", lambda: object() if recorded else None)
    sorts, argsort = [], gpu.xp.argsort
    monkeypatch.setattr(gpu.xp, "argsort", lambda *given, **named: sorts.append(1) or argsort(*given, **named))
    for count in (100, 101):
        ids = RNG.integers(-3, 9, count)
        order, ordered = (gpu.to_numpy(a) for a in indexing.sort_ids(gpu.asarray(ids), 7))
        np.testing.assert_array_equal(order, np.argsort(ids % 7, kind="stable"))
        np.testing.assert_array_equal(ordered, np.sort(ids % 7))
        assert len(sorts) == (count > 100 and not recorded)


# ---- the likeliest tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_largest_of_a_row_come_in_the_order_of_a_stable_sort(gpu, dtype):
    """Also among many equal numbers, infinities and NaN, which comes first; and for any number of them."""
    x = RNG.choice(
        [-np.inf, -1, -0.0, 0, 0.5, 1, np.inf, np.nan], (6, 700), p=[0.3, 0.3, 0.1, 0.1, 0.1, 0.096, 2e-3, 2e-3]
    )
    x = np.concatenate([x, np.where(np.isfinite(x), x, -np.inf), normal(2, 700)]).astype(dtype)
    order = np.argsort(-x, kind="stable")  # NaN last
    order = np.take_along_axis(order, np.argsort(~np.isnan(np.take_along_axis(x, order, 1)), kind="stable"), 1)
    for count in (1, 5, 8, 9, 40):
        best, columns, total = (gpu.to_numpy(a) for a in largest_and_total(gpu.asarray(x), count))
        np.testing.assert_array_equal(columns, order[:, :count])
        np.testing.assert_array_equal(best, np.take_along_axis(x, columns, 1))
        assert (np.isnan(total) == np.isnan(x).any(axis=1)).all()


# ---- the same bits in every run ----------------------------------------------------------------------------------


def calls(gpu):
    """Yield a name and a function that calls a kernel on the same arrays each time."""
    x, s, w, b, dy = on(gpu, normal(700, 70), normal(700, 70), normal(70), normal(70), normal(700, 70))
    drop = (0.3, 5, 7)
    kept = add_norm_formula(x, s, w, b, 1e-5, drop)[1]
    yield "add_norm", lambda: add_norm_formula(x, s, w, b, 1e-5, drop)[0]
    yield "add_norm gradient", lambda: add_norm_gradient(dy, x, s, w, kept, drop, ALL[:4])
    yield "layer_norm", lambda: layer_norm_formula(x, w, b, 1e-5)[0]
    yield "layer_norm gradient", lambda: layer_norm_gradient(dy, x, w, *kept, ALL[:3])
    w1, w2 = on(gpu, normal(70, 90), normal(90, 70))
    b1 = gpu.asarray(normal(90))
    h = feed_forward_formula(x, w1, b1, w2, b, *drop)[1]
    yield "feed_forward", lambda: feed_forward_formula(x, w1, b1, w2, b, *drop)
    yield "feed_forward gradient", lambda: feed_forward_gradient(dy, x, w1, h, w2, 1.4, ALL)
    yield "linear", lambda: linear_formula(x, w1, b1)
    yield "linear gradient", lambda: linear_gradient(dy, h, w2, ALL[:3])
    yield "gelu", lambda: gelu_formula(x)
    yield "gelu gradient", lambda: gelu_gradient(dy, x, s)
    ids = gpu.asarray(np.minimum(RNG.geometric(0.1, 700), 49))
    yield "rows by id", lambda: sum_rows_formula(dy, ids, 50)
    classes = (ids, ids != 3, 0.1)
    yield "likeliest tokens", lambda: largest_and_total(x, 5)
    yield "loss", lambda: linear_cross_entropy_formula(x, w1, b1, classes=classes, needs=ALL[:3])


def flat(value):
    return [a for part in value for a in flat(part)] if isinstance(value, tuple | list) else [value]


def test_three_runs_give_the_same_bits(gpu):
    for name, call in calls(gpu):
        first = [gpu.to_numpy(a).tobytes() for a in flat(call())]
        for _ in range(2):
            assert [gpu.to_numpy(a).tobytes() for a in flat(call())] == first, name


def test_no_kernel_leaves_the_gpu(gpu):
    """The emulated GPU counts what a call copies to or from the device, and what waits for it."""
    if not getattr(gpu.xp, "is_emulated", False):
        pytest.skip("only the emulated GPU counts copies")
    from tests.emulated_gpu.device import counted

    for name, call in calls(gpu):
        call()  # compiles
        with counted() as counts:
            call()
        assert counts.launches, name
        assert (counts.fetches, counts.uploads, counts.synchronisations) == (0, 0, 0), name


def test_a_graph_repeats_every_kernel(gpu):
    """What capture refuses would raise here; a replay reads the arrays as they are then."""
    for name, call in calls(gpu):
        expected = [gpu.to_numpy(a) for a in flat(call())]  # compiles
        stream = gpu.xp.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            try:
                results = flat(call())
            finally:
                graph = stream.end_capture()
            graph.launch(stream)
        stream.synchronize()
        for result, e in zip(results, expected, strict=True):
            np.testing.assert_array_equal(gpu.to_numpy(result), e, err_msg=name)
