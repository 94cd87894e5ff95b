"""How BLAS reads strided arrays: planned calls, run by a stand-in for cuBLAS on NumPy's memory, against NumPy."""

import ctypes

import numpy as np
import pytest

from tensorlib.arrays.blas import View, contiguous_strides, plan_gemm
from tests.emulated_gpu.cublas import Cublas

RNG = np.random.default_rng(0)


def view_of(x):
    return View(x.shape, tuple(s // x.itemsize for s in x.strides))


def multiplied(a, b, out=None, rounds=2):
    """Return the plan of a b, and the product that it computes: copies are made as the plan says, in two rounds."""
    assert rounds >= 0
    plan = plan_gemm(view_of(a), view_of(b), None if out is None else view_of(out))
    if out is None:
        out = np.full(plan.shape, np.nan)
    if any(plan.copied) or plan.expanded:
        if plan.expanded:
            a, b = (np.broadcast_to(x, (*plan.shape[:-2], *x.shape[-2:])).copy() for x in (a, b))
        a, b = (x.copy() if copied else x for x, copied in zip((a, b), plan.copied, strict=False))
        out[...] = multiplied(a, b, None if plan.copied[2] else out, rounds - 1)[1]
    elif 0 in plan.shape or not a.shape[-1]:
        out[...] = 0
    else:
        run(plan, a, b, out)
    return plan, out


def run(plan, a, b, out):
    """Call the stand-in for a plan, once for each matrix of the batch axes but the last."""
    library, handle, one, zero = Cublas(), ctypes.c_void_p(), ctypes.c_double(1), ctypes.c_double(0)
    library.create(ctypes.byref(handle))
    library.set_workspace(handle, ctypes.c_void_p(4096), ctypes.c_size_t(32 << 20))
    arrays = [*((b, a) if plan.swapped else (a, b)), out]
    first, second, result = (x.ctypes.data for x in arrays)
    counts, steps = (1, *plan.counts), [(0, *s) for s in plan.steps]
    along = [ctypes.c_longlong(own[-1]) for own in steps]
    for index in np.ndindex(counts[:-1]):
        places = [
            ctypes.c_void_p(x + 8 * sum(i * s for i, s in zip(index, own[:-1], strict=True)))
            for x, own in zip((first, second, result), steps, strict=True)
        ]
        library.gemm_strided(
            handle, *map(int, plan.transposed), *plan.sizes, ctypes.byref(one), places[0], 1, plan.leading[0],
            along[0], places[1], 1, plan.leading[1], along[1], ctypes.byref(zero), places[2], 1, plan.leading[2],
            along[2], counts[-1], 70, -1,
        )  # fmt: skip


def normal(*shape):
    return RNG.standard_normal(shape)


B, T, S, H, K = 3, 5, 7, 4, 6
D = H * K


def heads(x, number):
    """Return part `number` of projections (B, T, 3D) as heads (B, H, T, K), a view."""
    return x[..., number * D : (number + 1) * D].reshape(*x.shape[:2], H, K).swapaxes(1, 2)


def cases():
    """Yield a name, a and b, and in how many batch axes the call ends; BLAS must read each as it lies."""
    x, w, dz, qkv = normal(B, T, D), normal(D, 3 * D), normal(B * T, 3 * D), normal(B, T, 3 * D)
    rows = x.reshape(B * T, D)
    contiguous = normal(B, H, T, K)
    room = normal(B, H, 32, K)[:, :, :9]
    return [
        ("two matrices", rows, w, 0),
        ("a batch of rows", x, w, 0),
        ("columns of a wider weight", rows, w[:, D:], 0),
        ("first columns of a weight", x, w[:, :D], 0),
        ("dz W^T", dz, w.T, 0),
        ("x^T dz", rows.T, dz, 0),
        ("both transposed", w.T, rows.T, 0),
        ("tied to the embedding", rows, normal(50, D).T, 0),
        ("one row", rows[:1], w, 0),
        ("one row of each sentence", x[:, -1:], w, 0),
        ("one column", rows, w[:, :1], 0),
        ("a column times a row", rows[:, :1], w[:1], 0),
        ("a batch", normal(B, T, D), normal(B, D, S), 1),
        ("contiguous heads", contiguous, normal(B, H, S, K).swapaxes(-1, -2), 1),
        ("scores of heads side by side", heads(qkv, 0), heads(qkv, 1).swapaxes(-1, -2), 2),
        ("weights times heads side by side", normal(B, H, T, T), heads(qkv, 2), 2),
        ("gradient of keys side by side", normal(B, H, T, T).swapaxes(-1, -2), heads(qkv, 0), 2),
        ("decoding, keys in a room", normal(B, H, 1, K), room.swapaxes(-1, -2), 1),
        ("decoding, weights times values in a room", normal(B, H, 1, 9), room, 1),
        ("decoding, q a view", heads(qkv[:, :1], 0), room.swapaxes(-1, -2), 2),
        ("every sentence but the last position", x[:, :-1], w, 1),
        ("a broadcast batch on the left", normal(1, T, D), normal(B, D, S), 1),
        ("a broadcast axis on each side", normal(B, 1, T, K), normal(H, K, S), 2),
        ("one sentence, several heads", heads(qkv[:1], 0), heads(qkv[:1], 1).swapaxes(-1, -2), 1),
        ("a matrix on the left of a batch", normal(T, D), normal(B, D, S), 1),
    ]


@pytest.mark.parametrize(("name", "a", "b", "left"), cases(), ids=lambda v: v if isinstance(v, str) else "")
def test_blas_reads_what_a_model_multiplies_as_it_lies(name, a, b, left):
    plan, out = multiplied(a, b)
    assert not any(plan.copied) and not plan.expanded
    assert len(plan.counts) == left
    np.testing.assert_allclose(out, a @ b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "a", "b", "copied"),
    [
        ("a negative stride", normal(4, 5)[::-1], normal(5, 6), (True, False, False)),
        ("a negative stride of the batch", normal(2, 5, 6), normal(2, 6, 3)[::-1], (False, True, False)),
        ("a row for all rows", np.broadcast_to(normal(5), (4, 5)), normal(5, 6), (True, False, False)),
        ("no stride of 1", normal(8, 10)[::2, ::2], normal(5, 12)[:, ::2], (True, True, False)),
        ("windows", np.lib.stride_tricks.sliding_window_view(normal(9), 5), normal(5, 6), (True, False, False)),
    ],
)
def test_only_these_are_copied(name, a, b, copied):
    plan, out = multiplied(a, b)
    assert plan.copied == copied
    np.testing.assert_allclose(out, a @ b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "left", "copied"),
    [
        (lambda: np.empty((T, 3 * D))[:, D : 2 * D], 0, False),  # columns of a wider gradient
        (lambda: np.empty((D, T)).T, 0, False),  # the transpose, as for a tied weight
        (lambda: np.empty((2 * T, 2 * D))[::2, ::2], 0, True),
        (lambda: np.empty((T, D))[::-1], 0, True),
        (lambda: np.broadcast_to(np.empty(D), (T, D)), 0, True),
    ],
)
def test_where_a_result_may_be_written(make, left, copied):
    a, b, out = normal(T, S), normal(S, D), make()
    plan = plan_gemm(view_of(a), view_of(b), view_of(out))
    assert plan.copied == (False, False, copied) and len(plan.counts) == left
    if 0 not in out.strides:
        np.testing.assert_allclose(multiplied(a, b, out)[1], a @ b, rtol=1e-12, atol=1e-12)


def test_contiguous_heads_are_joined_by_the_product_itself():
    weights, values, joined = normal(B, H, T, S), normal(B, H, S, K), np.empty((B, T, D))
    plan, _ = multiplied(weights, values, joined.reshape(B, T, H, K).swapaxes(1, 2))
    assert not any(plan.copied) and len(plan.counts) == 2
    np.testing.assert_allclose(joined, (weights @ values).swapaxes(1, 2).reshape(B, T, D), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shapes", [((0, 3), (3, 2)), ((3, 0), (0, 2)), ((2, 3), (3, 0)), ((0, 2, 3), (3, 4))])
def test_products_of_nothing(shapes):
    a, b = (normal(*shape) for shape in shapes)
    _, out = multiplied(a, b)
    np.testing.assert_array_equal(out, a @ b)


def test_five_batch_axes_that_do_not_merge():
    a, b = normal(2, 1, 3, 1, 2, 4, 5), normal(1, 2, 1, 3, 1, 5, 6)
    plan, out = multiplied(a, b)
    assert plan.expanded
    np.testing.assert_allclose(out, a @ b, rtol=1e-12, atol=1e-12)
    reversed_axes = np.empty((2, 3, 2, 3, 2, 4, 6)).transpose(4, 3, 2, 1, 0, 5, 6)
    np.testing.assert_allclose(multiplied(a, b, np.empty((2, 2, 3, 3, 2, 4, 6)))[1], a @ b, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"gemm: out must have shape \(2, 2, 3, 3, 2, 4, 6\), got \(2, 3, 2"):
        plan_gemm(view_of(a), view_of(b), view_of(reversed_axes))


def random_view(rng, shape, dtype=float):
    """Return an array of this shape that is a view: its axes in any order of memory, padded, stepped, broadcast."""
    order = rng.permutation(len(shape))
    padded = [int(shape[i]) + int(rng.choice([0, 0, 0, 1, 3])) for i in order]
    steps = [int(rng.choice([1, 1, 1, 1, 2, -1])) for _ in order]
    base = rng.standard_normal([n * abs(s) for n, s in zip(padded, steps, strict=True)]).astype(dtype)
    x = base[tuple(slice(None, None, s) for s in steps)][tuple(slice(0, int(shape[i])) for i in order)]
    x = x.transpose(np.argsort(order))
    if shape and rng.random() < 0.15:
        axis = int(rng.integers(len(shape)))
        if shape[axis]:
            x = np.broadcast_to(x.take([0], axis), shape)
    return x


def random_operands(rng, dtype=float):
    """Return a and b, random views that may be multiplied."""
    lead = [int(n) for n in rng.choice([1, 1, 2, 3, 0], size=rng.integers(0, 5), p=[0.2, 0.2, 0.3, 0.28, 0.02])]
    m, k, n = (int(s) for s in rng.choice([0, 1, 1, 2, 3, 5], size=3, p=[0.02, 0.18, 0.2, 0.2, 0.2, 0.2]))

    def own(lead):
        kept = [n if rng.random() < 0.7 else 1 for n in lead]
        return kept[int(rng.integers(0, len(kept) + 1)) if rng.random() < 0.3 else 0 :]

    return random_view(rng, (*own(lead), m, k), dtype), random_view(rng, (*own(lead), k, n), dtype)


def test_random_views():
    rng, as_they_lie = np.random.default_rng(1), 0
    for _ in range(600):
        a, b = random_operands(rng)
        plan, out = multiplied(a, b)
        as_they_lie += not any(plan.copied)
        np.testing.assert_allclose(out, a @ b, rtol=1e-11, atol=1e-11, err_msg=f"{view_of(a)} {view_of(b)}")
        target = random_view(rng, out.shape)
        if 0 not in target.strides:
            multiplied(a, b, target)
            np.testing.assert_allclose(target, a @ b, rtol=1e-11, atol=1e-11, err_msg=f"{view_of(target)}")
    assert 100 < as_they_lie < 590


def test_a_wrong_leading_dimension_is_noticed():
    a, b, out = normal(4, 5), normal(5, 6), np.empty((4, 6))
    plan = plan_gemm(view_of(a), view_of(b))
    with pytest.raises(AssertionError, match="leading dimension 3 < 5 rows"):
        run(plan._replace(leading=(6, 3, 6)), a, b, out)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ((3,), (3, 2), r"gemm: a \(\.\.\., M, K\) and b \(\.\.\., K, N\) are required, got \(3,\) and \(3, 2\)"),
        ((2, 3), (4, 5), r"are required, got \(2, 3\) and \(4, 5\)"),
        ((2, 2, 3), (3, 3, 5), r"gemm: axes before the last two must broadcast, got \(2, 2, 3\) and \(3, 3, 5\)"),
    ],
)
def test_shapes_that_do_not_fit(a, b, message):
    with pytest.raises(ValueError, match=message):
        plan_gemm(View(a, contiguous_strides(a)), View(b, contiguous_strides(b)))
