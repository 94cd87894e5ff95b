"""Products of CuPy arrays by cuBLAS: every layout and precision against NumPy, what is launched, and what is refused.

On the emulated GPU (tests/emulated_gpu) a stand-in for cuBLAS checks each call's arguments.
"""

import gc
import threading

import numpy as np
import pytest

import nn
import tensorlib as tl
from models import Transformer, TransformerConfig, greedy
from tensorlib.arrays.bf16 import rounded_to_bf16
from tensorlib.arrays.capturing import Capture, capturing
from tensorlib.engine.recording import recording
from tensorlib.kernels import enabled
from tests.arrays.test_blas import B, D, H, K, T, cases, random_operands, random_view
from tests.conftest import backend_named
from tests.emulated_gpu.cublas import from_bf16, rounded_to_tf32, to_bf16

pytestmark = pytest.mark.skipif(not enabled(), reason="TENSORLIB_KERNELS=0 registers no kernels")
RNG = np.random.default_rng(0)
ROUNDING = {
    "float32": lambda x: x, "tf32": rounded_to_tf32, "bf16": rounded_to_bf16,
    "fp16": lambda x: x.astype(np.float16).astype(np.float32),
}  # fmt: skip


OF_CUBLAS = {"tf32": 2**-9, "bf16": 2**-6}
"""How far a real GPU's product of float32 operands may be from that of rounded ones, relative to the sum of magnitudes:
cuBLAS may leave small products in float32, or cut off digits instead of rounding: one unit of the last one in each."""


@pytest.fixture
def gpu():
    return backend_named("cupy")


@pytest.fixture
def gemm(gpu):
    from tensorlib.kernels.cuda.products import gemm

    return gemm


def emulated(gpu):
    """Return what the emulated device counts, or skip the test on a real one."""
    if not getattr(gpu.xp, "is_emulated", False):
        pytest.skip("only the emulated GPU counts its work")
    from tests.emulated_gpu import device

    return device


def normal(*shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


def on_gpu(gpu, x, dtype=None):
    """Return a host array on the GPU with its strides: a view of an array that holds all that lies between."""
    item, dtype = x.itemsize, np.dtype(dtype or x.dtype)
    if not x.size:
        return gpu.asarray(np.ascontiguousarray(x).astype(dtype))
    low = sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True) if s < 0) // item
    high = sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True) if s > 0) // item
    memory = np.full(high - low + 1, np.nan, x.dtype)
    steps = tuple(s for s in x.strides)
    inside = np.lib.stride_tricks.as_strided(memory[-low:], x.shape, steps)
    inside[...] = x
    whole = gpu.asarray(memory.astype(dtype))
    first = whole[-low:]
    strides = tuple(s // item * dtype.itemsize for s in steps)
    return gpu.xp.ndarray(x.shape, dtype, memptr=first.data, strides=strides)


def assert_near(gpu, found, expected, tolerance=2e-6, further=0.0):
    """Compare within a tolerance relative to the largest number, and `further` for each."""
    found = gpu.to_numpy(found)
    assert found.shape == expected.shape
    scale = max(np.abs(expected).max(initial=0), 1e-30)
    worst = (np.abs(found - expected) - further).max(initial=0)
    assert worst <= tolerance * scale


def of_cublas(gpu, a, b, precision):
    """Return how far each number of a b may be from the product of rounded operands: 0 on the emulated GPU."""
    if getattr(gpu.xp, "is_emulated", False):
        return 0.0
    return OF_CUBLAS.get(precision, 0.0) * (np.abs(a).astype(float) @ np.abs(b))


# ---- layouts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "a", "b", "left"), cases(), ids=lambda v: v if isinstance(v, str) else "")
def test_products_of_a_model(name, a, b, left, dtype, gpu, gemm):
    a, b = a.astype(dtype, order="K"), b.astype(dtype, order="K")
    found = gemm(on_gpu(gpu, a), on_gpu(gpu, b))
    assert found.dtype == dtype and found.flags.c_contiguous
    assert_near(gpu, found, a.astype(float) @ b, 2e-6 if dtype == "float32" else 1e-14)


def test_an_odd_number_of_heads_is_multiplied(gpu, gemm):
    """The lists of addresses lie one after the other; the stand-in refuses one that does not begin at 16 bytes."""
    qkv = normal(3, T, 9, K)
    q, k = (qkv[:, :, i::3].swapaxes(1, 2) for i in (0, 1))
    found = gemm(on_gpu(gpu, q), on_gpu(gpu, k).swapaxes(-1, -2))
    assert_near(gpu, found, q.astype(float) @ k.swapaxes(-1, -2))


@pytest.mark.parametrize("shapes", [((0, 3), (3, 2)), ((3, 0), (0, 2)), ((2, 3), (3, 0)), ((0, 2, 3), (3, 4))])
def test_products_of_nothing(shapes, gpu, gemm):
    a, b = (normal(*shape) for shape in shapes)
    np.testing.assert_array_equal(gpu.to_numpy(gemm(gpu.asarray(a), gpu.asarray(b))), a @ b)
    out = gpu.asarray(np.full((a @ b).shape, 3.0, np.float32))
    gemm(gpu.asarray(a), gpu.asarray(b), out, beta=0.5)
    np.testing.assert_array_equal(gpu.to_numpy(out), np.full((a @ b).shape, 1.5))


@pytest.mark.parametrize("precision", ROUNDING)
def test_random_views(precision, gpu, gemm):
    rng = np.random.default_rng(2)
    for _ in range(150):
        a, b = random_operands(rng, np.float32)
        rounding = ROUNDING[precision]
        expected = rounding(a).astype(float) @ rounding(b)
        further = of_cublas(gpu, a, b, precision)
        found = gemm(on_gpu(gpu, a), on_gpu(gpu, b), precision=precision)
        assert_near(gpu, found, expected, further=further)
        target = random_view(rng, expected.shape, np.float32)
        if 0 in target.strides:
            continue
        alpha, beta = (float(x) for x in rng.choice([0.0, 1.0, 0.5, -2.0], 2))
        out = on_gpu(gpu, target)
        assert gemm(on_gpu(gpu, a), on_gpu(gpu, b), out, alpha, beta, precision=precision) is out
        assert_near(gpu, out, alpha * expected + beta * target, further=abs(alpha) * further)


def test_beta_0_does_not_read_what_is_there(gpu, gemm):
    a, b = normal(4, 5), normal(5, 6)
    for steps in (1, 2):  # as it lies, and through a copy
        out = on_gpu(gpu, np.full((4 * steps, 6 * steps), np.nan, np.float32)[::steps, ::steps])
        gemm(gpu.asarray(a), gpu.asarray(b), out, alpha=0.5)
        assert_near(gpu, out, 0.5 * (a @ b))


def test_gradients_add_up_in_place(gpu, gemm):
    x, dz, total = normal(7, 5), normal(7, 6), normal(5, 6)
    out = gpu.asarray(total)
    for _ in range(2):
        gemm(gpu.asarray(x).swapaxes(0, 1), gpu.asarray(dz), out=out, beta=1.0)
    assert_near(gpu, out, total + 2 * (x.T @ dz))


def test_a_product_is_written_into_columns_and_leaves_the_others(gpu, gemm):
    x, w = normal(6, 5), normal(5, 4)
    out = gpu.asarray(np.ones((6, 12), np.float32))
    gemm(gpu.asarray(x), gpu.asarray(w), out=out[:, 4:8])
    found = gpu.to_numpy(out)
    np.testing.assert_allclose(found[:, 4:8], x @ w, rtol=1e-5)
    assert (found[:, :4] == 1).all() and (found[:, 8:] == 1).all()


# ---- precision ---------------------------------------------------------------------------------------------------


def test_operands_of_16_bits(gpu, gemm):
    a, b = normal(B, T, D), normal(D, 2 * D)
    for given, to, back in (
        ("float16", lambda x: x.astype(np.float16), lambda x: x.astype(np.float32)),
        ("uint16", to_bf16, from_bf16),
    ):
        left, right = gpu.asarray(to(a)), gpu.asarray(to(b))
        expected = back(to(a)).astype(float) @ back(to(b))
        assert gemm(left, right).dtype == "float32"
        assert_near(gpu, gemm(left, right), expected)
        narrow = gemm(left, right, dtype=given)
        assert narrow.dtype == given
        np.testing.assert_allclose(back(gpu.to_numpy(narrow)), expected, rtol=0, atol=2**-8 * np.abs(expected).max())


def test_the_other_operand_of_one_of_16_bits_is_rounded(gpu, gemm):
    a, b = normal(B, T, D), normal(D, K)
    for narrow, rounding in ((to_bf16, rounded_to_bf16), (lambda x: x.astype(np.float16), ROUNDING["fp16"])):
        expected = rounding(a).astype(float) @ rounding(b)
        assert_near(gpu, gemm(gpu.asarray(narrow(a)), gpu.asarray(b)), expected)
        assert_near(gpu, gemm(gpu.asarray(a)[::-1], gpu.asarray(narrow(b)).T.copy().T), expected[::-1])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_operands_are_rounded_to_the_nearest(precision, gpu, monkeypatch):
    from tensorlib.kernels.cuda import rounding

    monkeypatch.setattr(rounding, "LEAST", 0)

    bits = RNG.integers(0, 2**32, 20000, dtype=np.uint32)
    special = [
        0.0,
        -0.0,
        1.0,
        65504,
        65519.996,
        65520,
        1e38,
        2**-14,
        2**-24,
        2**-25,
        3 * 2**-25,
        np.inf,
        -np.inf,
        np.nan,
    ]
    close = np.repeat(normal(500).view(np.uint32) & 0xFFFF0000, 3) + np.tile([0x7FFF, 0x8000, 0x8001], 500)
    x = np.concatenate([bits, close]).astype(np.uint32).view(np.float32)
    x = np.concatenate([x, np.array(special, np.float32)])
    with np.errstate(over="ignore"):
        expected = rounded_to_bf16(x) if precision == "bf16" else x.astype(np.float16).astype(np.float32)
    found = gpu.to_numpy(rounding.rounded(gpu.asarray(x), precision))
    assert found.dtype == ("uint16" if precision == "bf16" else "float16")
    np.testing.assert_array_equal(from_bf16(found) if precision == "bf16" else found.astype(np.float32), expected)


def test_rounded_operands_keep_their_layout(gpu):
    from tensorlib.kernels.cuda.rounding import rounded

    rng = np.random.default_rng(3)
    for _ in range(200):
        x = random_view(rng, tuple(int(n) for n in rng.integers(1, 4, rng.integers(1, 7)))).astype(
            np.float32, order="K"
        )
        found = rounded(on_gpu(gpu, x), "fp16")
        np.testing.assert_array_equal(gpu.to_numpy(found), x.astype(np.float16))
    x = on_gpu(gpu, normal(5, 7).T)
    assert rounded(x, "fp16").strides == (2, 14)
    assert rounded(x, "tf32") is x and rounded(x, "float32") is x
    assert rounded(x, "bf16") is x  # too small for a launch of its own
    assert rounded(on_gpu(gpu, np.zeros((2048, 2048), np.float32)), "bf16").dtype == "uint16"
    double = x.astype("float64")
    assert rounded(double, "bf16") is double


@pytest.mark.parametrize("precision", ROUNDING)
def test_layers_multiply_in_the_precision_around_them(precision, gpu):
    x, w, dy = normal(B, T, D), normal(D, K), normal(B, T, K)
    rounding = ROUNDING[precision]

    def computed(dtype):
        a, b = (tl.Tensor(v.astype(dtype), backend=gpu, requires_grad=True) for v in (x, w))
        with recording(precision=precision):
            y = tl.linear(a, b)
        y.backward(tl.Tensor(dy.astype(dtype), backend=gpu))  # outside, in the precision of the op
        return [v.data for v in (y, a.grad, b.grad)]

    pairs = [(x, w), (dy, w.T), (x.reshape(-1, D).T, dy.reshape(-1, K))]
    for found, (a, b) in zip(computed("float32"), pairs, strict=True):
        expected = rounding(a).astype(float) @ rounding(b)
        assert_near(gpu, found, expected, further=of_cublas(gpu, a, b, precision))
    for found, (a, b) in zip(computed("float64"), pairs, strict=True):  # float64 is not touched
        assert_near(gpu, found, a.astype(float) @ b.astype(float), 1e-13)


def test_attention_is_rounded_too_on_a_gpu(gpu):
    q, k, v = (tl.Tensor(normal(B, H, T, K), backend=gpu) for _ in range(3))
    exact = tl.scaled_dot_product_attention(q, k, v).numpy()
    with recording(precision="bf16"):
        rounded = tl.scaled_dot_product_attention(q, k, v).numpy()
    assert 0 < np.abs(rounded - exact).max() < 0.03 * np.abs(exact).max()


def test_large_products_in_bf16_round_their_operands_in_memory(gpu, gemm):
    device = emulated(gpu)
    a, b = gpu.asarray(normal(3100, 8)), gpu.asarray(normal(8, 3100))
    for size, launches in ((3100, 2), (64, 1)):  # one launch rounds both operands
        with device.counted() as counts:
            found = gemm(a[:size], b[:, :size], precision="bf16")
        assert counts.launches == launches
        expected = rounded_to_bf16(gpu.to_numpy(a[:size])) @ rounded_to_bf16(
            np.ascontiguousarray(gpu.to_numpy(b)[:, :size])
        )
        assert_near(gpu, found, expected, 1e-5)


def test_a_number_too_large_for_fp16_becomes_infinite(gpu, gemm):
    a, b = np.array([[1e5, 1.0]], np.float32), np.ones((2, 1), np.float32)
    assert np.isinf(gpu.to_numpy(gemm(gpu.asarray(a), gpu.asarray(b), precision="fp16"))).all()
    assert np.isfinite(gpu.to_numpy(gemm(gpu.asarray(a), gpu.asarray(b), precision="bf16"))).all()


# ---- models ------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_other_products(gpu, monkeypatch):
    """Fail where CuPy's own product runs, which a capture refuses."""
    emulated(gpu)
    from tests.emulated_gpu import arrays

    monkeypatch.setattr(arrays, "library", lambda name: pytest.fail(f"CuPy's own {name} was called"))


def test_the_products_of_a_step_and_of_decoding_go_through_it(gpu, no_other_products):
    ids = np.random.default_rng(0).integers(4, 11, (3, 6))
    config = TransformerConfig(source_vocabulary=11, target_vocabulary=11, layers=1, width=16, heads=2, dropout=0.1)
    losses, norms = {}, {}
    for precision in ROUNDING:
        tl.seed(0)
        model = Transformer(config).to(gpu)
        with recording(precision=precision):
            loss = model.loss(ids, ids[:, :-1], ids[:, 1:], 0.1, "sum")
        loss.backward()
        losses[precision] = loss.item()
        norms[precision] = np.sqrt(sum((p.grad.numpy().astype(float) ** 2).sum() for p in model.parameters()))
    assert len(set(losses.values())) == 3  # TF32 and fp16 have equally many digits
    for values in (losses, norms):
        for precision, error in (("tf32", 2e-3), ("fp16", 2e-3), ("bf16", 2e-2)):
            assert values[precision] == pytest.approx(values["float32"], rel=error)
    translated = greedy(model.eval(), ids, max_length=5)
    assert len(translated) == len(ids)


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_products_of_recurrent_layers_go_through_it(layer, gpu, no_other_products):
    made = layer(4, 6).to(gpu)
    states = made(tl.Tensor(normal(2, 3, 4), backend=gpu))
    (states[0] if isinstance(states, tuple) else states).sum().backward()
    assert all(p.grad is not None for p in made.parameters())


def test_other_products_go_through_it(gpu, no_other_products):
    x, y = (tl.Tensor(normal(B, H, T, K), backend=gpu, requires_grad=True) for _ in range(2))
    total = tl.einsum("bhtk,bhsk->bhts", x, y).sum() + tl.tensordot(x, y, ([0, 3], [0, 3])).sum()
    (total + tl.dot(x, y[0, 0, 0]).sum()).backward()
    a, b = x.numpy(), y.numpy()
    from_heads = np.broadcast_to(b.sum(2, keepdims=True), a.shape)
    from_axes = np.broadcast_to(b.sum((1, 2), keepdims=True), a.shape)
    np.testing.assert_allclose(x.grad.numpy(), from_heads + from_axes + b[0, 0, 0], rtol=1e-4, atol=1e-5)


# ---- what is launched --------------------------------------------------------------------------------------------


def heads(x, number):
    return x[..., number * D : (number + 1) * D].reshape(*x.shape[:2], H, K).swapaxes(1, 2)


def test_launches_of_a_product(gpu, gemm):
    device = emulated(gpu)
    x, w, qkv = (gpu.asarray(normal(*shape)) for shape in ((B, T, D), (D, 3 * D), (B, T, 3 * D)))
    q, k = heads(qkv, 0), heads(qkv, 1).swapaxes(-1, -2)
    for count, multiply in (
        (1, lambda: gemm(x, w)),
        (1, lambda: gemm(x, w[:, D:])),
        (1, lambda: gemm(w.swapaxes(0, 1), x.reshape(-1, D).swapaxes(0, 1))),
        (2, lambda: gemm(q, k)),  # addresses of the heads, and the products
        (2, lambda: gemm(x, w, precision="fp16")),
        (4, lambda: gemm(q, k, precision="fp16")[..., ::2]),  # two copies instead of the addresses
    ):
        multiply()
        with device.counted() as counts:
            multiply()
        assert (counts.launches, counts.fetches, counts.uploads, counts.synchronisations) == (count, 0, 0, 0)


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("name", "first", "positions", "room", "launches"),
    [
        ("as they lie", 0, 8, 0, 2),
        ("an operand begins elsewhere", 1, 8, 0, 3),
        ("matrices of the result", 0, 6, 0, 3),
        ("rows of an operand", 0, 8, 1, 3),
    ],
)
def test_tensor_cores_are_given_aligned_matrices_only(name, first, positions, room, launches, precision, gpu, gemm):
    """Heads side by side are multiplied where they lie, or copied; the stand-in refuses unaligned addresses."""
    device = emulated(gpu)
    memory = gpu.asarray(normal(first + 2 * positions * (48 + room)))
    rows = memory[first:].reshape(2, positions, 48 + room)
    if precision == "fp16":  # rounding to 16 bits would lay them out anew
        rows = memory.astype("float16")[first:].reshape(rows.shape)
    q, k = (rows[..., i : i + 16].reshape(2, positions, 2, 8).swapaxes(1, 2) for i in (0, 16))
    with device.counted() as counts:
        found = gemm(q, k.swapaxes(-1, -2), precision=precision)
    assert counts.launches == launches
    x, y = (ROUNDING[precision](gpu.to_numpy(a)) for a in (q, k))
    assert_near(gpu, found, x.astype(float) @ y.swapaxes(-1, -2))
    whole = gpu.asarray(normal(2, positions, 2, positions))  # into columns that lie side by side
    before, out = gpu.to_numpy(whole).copy(), whole.swapaxes(1, 2)
    assert gemm(q, k.swapaxes(-1, -2), out, beta=1.0, precision=precision) is out
    assert_near(gpu, whole, before + gpu.to_numpy(found).swapaxes(1, 2))


@pytest.mark.parametrize("precision", ROUNDING)
def test_a_captured_product_is_repeated(precision, gpu, gemm):
    xp = gpu.xp
    x, w, qkv = (normal(*shape) for shape in ((B, T, D), (D, D), (B, T, 3 * D)))
    inputs = [gpu.asarray(a) for a in (x, w, qkv)]

    def step(x, w, qkv):
        scores = gemm(heads(qkv, 0), heads(qkv, 1).swapaxes(-1, -2), alpha=0.25, precision=precision)
        return gemm(x, w, precision=precision), scores

    plain = [gpu.to_numpy(y) for y in step(*inputs)]
    stream, pool, capture = xp.cuda.Stream(non_blocking=True), xp.cuda.MemoryPool(), Capture(xp.zeros(512, "uint64"))
    with stream, xp.cuda.using_allocator(pool.malloc), capturing(capture):
        stream.begin_capture()
        try:
            results = step(*inputs)
        finally:
            graph = stream.end_capture()
    for array in inputs:
        array *= 0.5
    graph.launch()
    for found, expected, factor in zip(results, plain, (0.25, 0.25), strict=True):
        np.testing.assert_array_equal(gpu.to_numpy(found), factor * expected)


def test_the_workspace_of_a_captured_product_outlives_its_thread(gpu, gemm):
    xp, made = gpu.xp, {}
    x = gpu.asarray(normal(8, 8))

    def record():
        capture = made["capture"] = Capture(xp.zeros(512, "uint64"))
        stream = made["stream"] = xp.cuda.Stream(non_blocking=True)
        with stream:
            gemm(x, x)
            with capturing(capture):
                stream.begin_capture()
                made["result"] = gemm(x, x)
                made["graph"] = stream.end_capture()

    thread = threading.Thread(target=record)
    thread.start(), thread.join()
    del made["stream"]
    made["graph"].launch()  # the stand-in refuses a workspace that has been freed
    assert_near(gpu, made["result"], gpu.to_numpy(x) @ gpu.to_numpy(x), 1e-5)


def test_threads_and_streams_have_handles_of_their_own(gpu, gemm):
    from tensorlib.kernels.cuda.cublas import current_handle

    handles, x = set(), gpu.asarray(normal(8, 8))
    threads = [threading.Thread(target=lambda: (gemm(x, x), handles.add(current_handle()[1].value))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handles.add(current_handle()[1].value)
    assert len(handles) >= 2
    for _ in range(2):
        with gpu.xp.cuda.Stream(non_blocking=True):
            assert_near(gpu, gemm(x, x), gpu.to_numpy(x) @ gpu.to_numpy(x), 1e-5)
        gemm(x, x)


def test_the_handle_of_a_thread_that_has_ended_goes_to_the_next_one(gpu, gemm):
    from tensorlib.kernels.cuda.cublas import current_handle

    found, x = [], gpu.asarray(normal(8, 8))

    def work():
        with gpu.xp.cuda.Stream(non_blocking=True):
            y = gemm(x, x)
        found.append((current_handle()[1].value, gpu.to_numpy(y)))

    for _ in range(4):
        thread = threading.Thread(target=work)
        thread.start(), thread.join()
    assert len({handle for handle, _ in found}) == 1 and found[0][0] != current_handle()[1].value
    for _, y in found:
        assert_near(gpu, gpu.asarray(y), gpu.to_numpy(x) @ gpu.to_numpy(x), 1e-5)


def test_a_workspace_lives_as_long_as_its_stream(gpu, gemm):
    from tensorlib.kernels.cuda.cublas import _THREAD

    x = gpu.asarray(normal(8, 8))
    gemm(x, x)
    (handle,) = _THREAD.handles.values()
    before = len(handle.workspaces)
    for _ in range(5):
        with gpu.xp.cuda.Stream(non_blocking=True):
            gemm(x, x)
    gemm(x, x)
    assert len(handle.workspaces) == before
    for _ in range(3):  # another object each time for one stream of another library
        with gpu.xp.cuda.ExternalStream(gpu.xp.cuda.Stream.null.ptr):
            gemm(x, x)
            gc.collect()
            assert_near(gpu, gemm(x, x), gpu.to_numpy(x) @ gpu.to_numpy(x), 1e-5)


def test_a_workspace_gets_memory_that_the_common_pool_does_not_use(gpu, gemm, monkeypatch):
    emulated(gpu)
    from tests.emulated_gpu.memory import heap

    x = gpu.asarray(normal(8, 8))
    gemm(x, x)  # loads what has to be loaded
    freed = gpu.xp.empty(64 << 20, "uint8")
    del freed  # to the pool
    monkeypatch.setattr(heap, "limit", heap.used + (1 << 20))
    with gpu.xp.cuda.Stream(non_blocking=True):
        assert_near(gpu, gemm(x, x), gpu.to_numpy(x) @ gpu.to_numpy(x), 1e-5)


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (
            (2, 3),
            (4, 5),
            {},
            r"gemm: a \(\.\.\., M, K\) and b \(\.\.\., K, N\) are required, got \(2, 3\) and \(4, 5\)",
        ),
        ((3,), (3, 5), {}, r"are required, got \(3,\) and \(3, 5\)"),
        ((2, 3), (3, 5), {"dtype": "float64"}, r"the result of float32 and float32 must be float32, got float64"),
        ((2, 3), (3, 5), {"out": (2, 4)}, r"gemm: out must have shape \(2, 5\), got \(2, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused(a, b, options, message, gpu, gemm):
    options = {k: gpu.asarray(normal(*v)) if k == "out" else v for k, v in options.items()}
    with pytest.raises(ValueError, match=message):
        gemm(gpu.asarray(normal(*a)), gpu.asarray(normal(*b)), **options)


def test_two_dtypes_are_refused_by_gemm_and_promoted_by_ops(gpu, gemm):
    a, b = normal(2, 3), normal(3, 4, dtype="float64")
    with pytest.raises(ValueError, match=r"gemm: both operands must be .*, got float32 and float64"):
        gemm(gpu.asarray(a), gpu.asarray(b))
    z = tl.Tensor(a, backend=gpu) @ tl.Tensor(b, backend=gpu)
    np.testing.assert_allclose(z.numpy(), a @ b, rtol=1e-12)
    half = tl.Tensor(a, backend=gpu).astype("float16") @ tl.Tensor(a.T, backend=gpu).astype("float16")
    assert half.dtype == "float16"


def test_an_error_of_cublas_is_one_line(gpu, gemm, monkeypatch):
    from tensorlib.kernels.cuda import cublas

    failing = cublas.library()._replace(gemm=lambda *arguments: 3)
    monkeypatch.setattr(cublas, "library", lambda: failing)
    x = gpu.asarray(normal(2, 2))
    with pytest.raises(RuntimeError, match=r"^gemm: \(2, 2\) \(2, 2\) float32: cuBLAS returned ALLOC_FAILED; free mem"):
        gemm(x, x)


def test_a_missing_library_is_named(gpu, monkeypatch):
    pathfinder = pytest.importorskip("cuda.pathfinder", reason="the name of the library comes from cuda-pathfinder")
    from tensorlib.kernels.cuda import cublas

    original = getattr(cublas, "find_library", None)
    if original is None:
        pytest.skip("the library was replaced before it was looked for")

    def missing(name):
        raise pathfinder.DynamicLibNotFoundError("no libcublas.so\nhere")

    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", missing)
    with pytest.raises(RuntimeError, match=r"^products: cuBLAS is required, .* \(no libcublas.so\); pip install"):
        original()
