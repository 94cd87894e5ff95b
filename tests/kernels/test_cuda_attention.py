"""Attention on a GPU, real or emulated: both methods, what they keep, and what they must not do."""

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.arrays.capturing import Capture, capturing
from tensorlib.kernels import overridable
from tensorlib.ops.attention import AttentionPattern, attention_formula
from tests.conftest import backend_named, with_kernels
from tests.kernels.samples import SAMPLES
from tests.kernels.test_kernels import compare

pytestmark = with_kernels
NAMES = [
    f"{kind}_{what}" for kind in ("attention", "self_attention", "cross_attention") for what in ("formula", "gradient")
]


@pytest.fixture
def gpu():
    return backend_named("cupy")


@pytest.fixture(params=["short", "long"])
def method(request, gpu, monkeypatch):
    """Each method, for sequences of all lengths."""
    from tensorlib.kernels.cuda import attention

    monkeypatch.setattr(attention, "LONG", 0 if request.param == "long" else 1 << 60)
    return request.param


def operands(rng, lead, queries, keys, width, value_width, dtype="float64"):
    """Return q, k, v and dy, drawn on the host."""
    shapes = ((queries, width), (keys, width), (keys, value_width), (queries, value_width))
    return [rng.standard_normal((*lead, *shape)).astype(dtype) for shape in shapes]


def attended(arrays, backend, visible=None, **options):
    """Return y and the gradients of q, k and v on the host, by the op on a backend."""
    q, k, v, dy = (tl.Tensor(a, requires_grad=True, backend=backend.name) for a in arrays)
    if visible is not None:
        visible = tl.Tensor(visible, backend=backend.name)
    y = tl.scaled_dot_product_attention(q, k, v, visible, generator=tl.Generator(7), **options)
    y.backward(dy.detach())
    return [a.numpy() for a in (y, q.grad, k.grad, v.grad)]


# ---- against the formula and the CPU -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # infinities are among the samples
@pytest.mark.parametrize("name", NAMES)
def test_tiles_equal_the_formula_at_short_lengths_too(name, gpu, monkeypatch):
    from tensorlib.kernels.cuda import attention

    monkeypatch.setattr(attention, "LONG", 0)
    few = [a for a in SAMPLES[name](np.random.default_rng(0), "float64") if max(x.size for x in a[:3]) < 3000]
    monkeypatch.setitem(SAMPLES, name, lambda rng, dtype: few)
    compare(name, "cupy", gpu, overridable()[name], "float64")


# Leading axes, queries, keys and widths: one tile and several, widths of all three sizes, bits that do not align.
CASES = [
    ((2, 3), 5, 5, 4, 4),
    ((2,), 33, 33, 16, 40),
    ((), 130, 130, 33, 8),
    ((1, 2), 70, 90, 100, 128),
    ((1, 1), 3, 600, 5, 5),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_the_op_computes_what_it_computes_on_a_cpu(case, p, method, gpu):
    lead, queries, keys, width, value_width = case
    rng = np.random.default_rng(0)
    arrays = operands(rng, lead, queries, keys, width, value_width)
    causal = queries == keys
    visible = rng.random((*lead[:1], *(1,) * (len(lead) > 1), 1, keys)) < 0.8
    visible[..., :1] = True
    for options in ({"causal": causal}, {"visible": visible, "causal": causal}, {"visible": visible}):
        expected = attended(arrays, tl.get_backend("numpy"), dropout=p, **options)
        for result, e in zip(attended(arrays, gpu, dropout=p, **options), expected, strict=True):
            np.testing.assert_allclose(result, e, rtol=0, atol=1e-12 * max(1, np.abs(e).max()))


@pytest.mark.parametrize("memory", [False, True])
def test_heads_with_their_projections_compute_what_they_compute_on_a_cpu(memory, method, gpu):
    rng, results = np.random.default_rng(0), []
    shapes = (2, 70, 12), (2, 40, 12), (12, 36), (36,), (12, 12), (12,)
    x, source, *weights = (rng.standard_normal(shape) / 3 for shape in shapes)
    visible = rng.random((2, 1, 1, 40 if memory else 70)) < 0.8
    for backend in (tl.get_backend("numpy"), gpu):
        inputs = [tl.Tensor(a, requires_grad=True, backend=backend.name) for a in (x, source, *weights)]
        mask = tl.Tensor(visible, backend=backend.name)
        options = {"heads": 3, "dropout": 0.2, "generator": tl.Generator(1), "visible": mask, "causal": not memory}
        y = tl.multi_head_attention(inputs[0], *inputs[2:], inputs[1] if memory else None, **options)
        (y * y).sum().backward()
        results.append([a.numpy() for a in (y, *(i.grad for i in inputs if i.grad is not None))])
    assert len(results[0]) == 7 - (not memory)
    for e, result in zip(*results, strict=True):
        np.testing.assert_allclose(result, e, rtol=0, atol=1e-12 * max(1, np.abs(e).max()))


@pytest.mark.parametrize("keys", [7, 16, 50, 128])
def test_dropout_drops_the_same_weights_as_on_a_cpu(keys, method, gpu):
    q, k, _, _ = operands(np.random.default_rng(0), (2, 2), 40, keys, 3, 3)
    v = np.broadcast_to(np.eye(keys), (2, 2, keys, keys)).copy()  # y is the weights themselves
    on_cpu, on_gpu = (
        attended((q, k, v, 0 * (q @ k.swapaxes(-1, -2))), b, dropout=0.5)[0] for b in (tl.get_backend("numpy"), gpu)
    )
    np.testing.assert_array_equal(on_gpu == 0, on_cpu == 0)


def test_a_query_that_sees_nothing_gets_zeros_and_no_gradient(method, gpu):
    arrays = operands(np.random.default_rng(0), (1, 2), 70, 70, 4, 4)
    visible = np.ones((70, 70), bool)
    visible[[0, 3, 69]] = False
    for causal in (False, True):
        y, dq, dk, dv = attended(arrays, gpu, visible, dropout=0.1, causal=causal)
        assert (y[..., [0, 3, 69], :] == 0).all() and (dq[..., [0, 3, 69], :] == 0).all()
        assert all(np.isfinite(a).all() for a in (y, dq, dk, dv))
    y, *gradients = attended(arrays, gpu, np.zeros((70, 70), bool))
    assert not y.any() and not any(d.any() for d in gradients)


# ---- what is kept, and where it runs -----------------------------------------------------------------------------


def kept_by(gpu, queries, keys, width, p=0.0):
    q, k, v, _ = (gpu.asarray(a) for a in operands(np.random.default_rng(0), (1, 2), queries, keys, width, width))
    return attention_formula(q, k, v, AttentionPattern(None, False, p, 1, 2))[1]


def test_weights_are_kept_only_where_they_take_less_than_the_operands(gpu):
    few, many, long = kept_by(gpu, 8, 8, 16, 0.1), kept_by(gpu, 100, 100, 4, 0.1), kept_by(gpu, 513, 513, 2)
    assert few.weights.shape == (1, 2, 8, 8) and few.tops is None
    assert many.weights is None and many.tops.shape == (1, 2, 100, 1)
    assert long.weights is None and long.y.shape == (1, 2, 513, 2)


def test_heads_too_wide_for_tiles_take_the_other_method(gpu, monkeypatch):
    from tensorlib.kernels.cuda import attention

    monkeypatch.setattr(attention, "LONG", 0)
    assert kept_by(gpu, 4, 4, 128).y is not None and kept_by(gpu, 4, 4, 129).y is None


def test_three_runs_give_the_same_bits(method, gpu):
    arrays = operands(np.random.default_rng(0), (2, 2), 70, 70, 8, 8, "float32")
    runs = [attended(arrays, gpu, dropout=0.2, causal=True) for _ in range(3)]
    for other in runs[1:]:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(runs[0], other, strict=True))


def test_a_draw_of_a_captured_step_is_read_from_its_slot(method, gpu):
    q, k, v, _ = (gpu.asarray(a) for a in operands(np.random.default_rng(0), (2, 2), 20, 20, 4, 4))
    generator, results = tl.Generator(3), []
    capture = Capture(gpu.xp.zeros(512, "uint64"))
    with capturing(capture):
        draws = [generator.next_draw() for _ in range(2)]
    for start in (0, 5):  # the generator's position when the step is replayed
        generator.state = generator.state[0], start
        capture.slots[: capture.used] = gpu.asarray(capture.words())
        plain = [generator.next_draw() for _ in range(2)]
        for recorded, direct in zip(draws, plain, strict=True):
            y, expected = (
                attention_formula(q, k, v, AttentionPattern(None, True, 0.5, *d))[0] for d in (recorded, direct)
            )
            np.testing.assert_array_equal(gpu.to_numpy(y), gpu.to_numpy(expected))
            results.append(gpu.to_numpy(y).tobytes())
    assert len(set(results)) == 4


def test_nothing_leaves_the_device(method, gpu):
    if not getattr(gpu.xp, "is_emulated", False):
        pytest.skip("only the emulated GPU counts what leaves it")
    from tests.emulated_gpu.device import counted

    tensors = [
        tl.Tensor(a, requires_grad=True, backend="cupy") for a in operands(np.random.default_rng(0), (2, 2), 9, 9, 4, 4)
    ]
    shapes = (2, 9, 4), (4, 12), 12, (4, 4), 4
    x, w, b, wo, bo = (tl.Tensor(np.ones(shape), requires_grad=True, backend="cupy") for shape in shapes)
    with counted() as counts:
        y = tl.scaled_dot_product_attention(*tensors[:3], dropout=0.1, generator=tl.Generator(0), causal=True)
        y.backward(tensors[3].detach())
        z = tl.multi_head_attention(x, w, b, wo, bo, heads=2, dropout=0.1, generator=tl.Generator(0))
        z.backward(z.detach())
    assert (counts.fetches, counts.uploads, counts.synchronisations) == (0, 0, 0)


def test_memory_of_long_sequences_grows_with_their_length(gpu):
    """Backward of 700 positions: a matrix of weights would take 3.9 MB, the operands take 0.2 MB."""
    length = 700
    q, k, v, dy = operands(np.random.default_rng(0), (1, 1), length, length, 8, 8)
    pool = gpu.xp.cuda.MemoryPool()
    with gpu.xp.cuda.using_allocator(pool.malloc):
        attended((q, k, v, dy), gpu, causal=True, dropout=0.1)
    assert pool.total_bytes() < length * length * 8 / 4
