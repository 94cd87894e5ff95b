"""Arrays, memory, streams and graphs of the emulated GPU: what works, what is refused, and what is counted."""

import gc
from collections import Counter

import numpy as np
import pytest

from tests.emulated_gpu import memory, modules, requested
from tests.emulated_gpu.compiler import compiler
from tests.emulated_gpu.device import HostRace, counted, submit

cupy = modules()["cupy"]
needs_gxx = pytest.mark.skipif(compiler() is None, reason="compiling CUDA sources for the CPU needs g++")


class Recording:
    """``with Recording() as r: ...`` records on a stream with a pool of its own; then ``r.graph.launch()``."""

    def __enter__(self):
        self.pool, self.stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
        self.allocator = cupy.cuda.using_allocator(self.pool.malloc)
        self.stream.__enter__(), self.allocator.__enter__()
        self.stream.begin_capture()
        return self

    def __exit__(self, kind, error, trace):
        try:
            self.graph = self.stream.end_capture()
        except RuntimeError:
            if error is None:
                raise
        finally:
            self.allocator.__exit__(None, None, None), self.stream.__exit__()


# ---- arrays ------------------------------------------------------------------------------------------------------


def test_arrays_know_where_they_are():
    x = cupy.arange(12.0).reshape(3, 4)
    part = x[1:, ::2]
    assert type(x).__module__ == "cupy" and type(x).__name__ == "ndarray"
    assert part.data.ptr == x.data.ptr + x.strides[0] and part.strides == (32, 16) and part.data.device_id == 0
    assert x.base is not None and part.base is x.base and x.base.base is None
    part[...] = 0
    assert x.get().tolist() == [[0, 1, 2, 3], [0, 5, 0, 7], [0, 9, 0, 11]]


def test_an_element_is_a_view():
    x = cupy.zeros(3)
    x[1].fill(5)
    assert x.get().tolist() == [0, 5, 0] and x[0].shape == ()


def test_indices_out_of_range_wrap_around():
    x = cupy.asarray([10, 20, 30])
    assert x[cupy.asarray([3, -4, 1])].get().tolist() == x.take(cupy.asarray([3, -4, 1])).get().tolist() == [10, 30, 20]
    x[cupy.asarray([5])] = 7
    assert x.get().tolist() == [10, 20, 7]


def test_what_cupy_lacks_or_refuses_is_refused():
    x = cupy.zeros(3)
    for use in (lambda: cupy.errstate, lambda: cupy.cuda.no_such_name, lambda: x.__array_namespace__, lambda: x.ctypes):
        with pytest.raises(AttributeError):
            use()
    for use in (lambda: np.asarray(x), lambda: x + np.ones(3), lambda: cupy.exp(np.ones(3)), lambda: cupy.add(x, [1])):
        with pytest.raises(TypeError):
            use()


def test_names_exist_in_the_real_cupy():
    if requested():
        pytest.skip("here the emulated module is in CuPy's place")
    real = pytest.importorskip("cupy", reason="compares with CuPy's names")
    for name, module in modules().items():
        found = real
        for part in name.split(".")[1:]:
            found = getattr(found, part)
        if name != "cupyx":
            lacking = {n for n in vars(module) if n[:1] != "_" and not hasattr(found, n)} - {"is_emulated"}
            assert not lacking, name
    own = {"ndarray": set(), "cuda.Stream": {"is_non_blocking"}, "cuda.MemoryPool": set(), "cuda.Event": set()}
    for path in own:
        mine, theirs = cupy, real
        for part in path.split("."):
            mine, theirs = getattr(mine, part), getattr(theirs, part)
        assert not {n for n in dir(mine) if n[:1] != "_" and not hasattr(theirs, n)}, path


# ---- memory ------------------------------------------------------------------------------------------------------


def test_a_pool_gives_freed_memory_to_later_arrays_of_the_same_stream():
    pool, stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
    with cupy.cuda.using_allocator(pool.malloc):
        x = cupy.zeros(100)
        address = x.data.ptr
        assert (pool.used_bytes(), pool.total_bytes()) == (1024, 1024)
        del x
        assert (pool.used_bytes(), pool.n_free_blocks()) == (0, 1)
        with stream:
            assert cupy.empty(100).data.ptr != address
        y = cupy.empty(90)
        assert y.data.ptr == address and np.isnan(y.get()).all()
    del y
    pool.free_all_blocks()
    assert pool.total_bytes() == 0


def test_memory_that_does_not_fit_is_an_error(monkeypatch):
    monkeypatch.setattr(memory.heap, "limit", memory.heap.used + 4096)
    with pytest.raises(memory.OutOfMemoryError, match="Out of memory allocating"):
        cupy.empty(100_000)
    pool = cupy.cuda.MemoryPool()
    pool.set_limit(size=1024)
    with pytest.raises(memory.OutOfMemoryError, match="limit set to: 1,024 bytes"):
        pool.malloc(4096)


def test_views_keep_memory_alive_and_pointers_reach_it():
    x = cupy.arange(1000.0)
    part, pointer = x[500:], x.data + 8
    del x
    gc.collect()
    cupy.empty(1000).fill(-1)
    assert part.get()[0] == 500 and cupy.ndarray(3, memptr=pointer).get().tolist() == [1, 2, 3]


# ---- capture -----------------------------------------------------------------------------------------------------


def test_recorded_work_runs_at_each_launch_and_not_before():
    x, total = cupy.zeros(3), cupy.zeros(3)
    with Recording() as r:
        y = (2 * x + 1)[1:]
        y += 1
        total += x
        best = cupy.argmax(x)
    assert np.isnan(y.get()).all() and total.get().tolist() == [0, 0, 0]
    for values in ([1.0, 2, 3], [7.0, 6, 5]):
        x.set(np.array(values))
        r.graph.launch()
        np.testing.assert_array_equal(y.get(), 2 * np.array(values[1:]) + 2)
        assert best.item() == np.argmax(values)
    assert total.get().tolist() == [8, 8, 8]


@needs_gxx
def test_kernels_of_every_kind_are_recorded():
    doubled = cupy.RawKernel('extern "C" __global__ void f(float* x) { x[threadIdx.x] *= 2; }', "f")
    added = cupy.ElementwiseKernel("T x, T a", "T y", "y = x + a", "added")
    x, seen = cupy.ones(4, "float32"), []
    with Recording() as r:
        doubled((1,), (4,), (x,))
        y = added(x, 0.5)
        x.data.memset_async(0, 8)
        z = cupy.empty_like(x)
        cupy.cuda.runtime.memcpyAsync(z.data.ptr, x.data.ptr, 16, 3, r.stream.ptr)
        submit(lambda: seen.append(1))
    assert not seen and x.get().tolist() == [1] * 4
    for _ in range(2):
        x.fill(3)
        with counted() as c:
            r.graph.launch()
        assert y.get().tolist() == [6.5] * 4 and z.get().tolist() == [0, 0, 6, 6]
        assert (c.launches, c.graph_launches, c.uploads, c.fetches) == (5, 1, 0, 0)
    assert seen == [1, 1]


@needs_gxx
def test_arrays_of_several_sizes_may_use_the_same_memory_of_a_graph():
    fill = cupy.RawKernel('extern "C" __global__ void f(float* x) { x[threadIdx.x] = threadIdx.x; }', "f")
    with Recording() as r:
        for count in (100, 20, 70, 3):  # each array dies before the next is made
            x = cupy.empty(count, "float32")
            fill((1,), (count,), (x,))
            del x
    assert r.pool.total_bytes() == 512
    r.graph.launch()


def test_a_graph_whose_memory_went_back_to_the_device_is_an_error():
    x = cupy.zeros(3)
    with Recording() as r:
        y = x + 1
    del y
    r.pool.free_all_blocks()
    with pytest.raises(RuntimeError, match="cudaErrorIllegalAddress"):
        r.graph.launch()


def test_a_graph_does_not_own_its_memory():
    """Memory from the common pool goes to others when its array dies, and the graph then reads theirs."""
    x, inner = cupy.ones(1000), cupy.empty(1000)
    with Recording() as r:
        cupy.copyto(inner, x * 2)
        y = inner + 1
    del inner
    other = cupy.zeros(1000)
    r.graph.launch()
    assert other.get()[0] == 2 and y.get()[0] == 3  # the graph wrote into an array of somebody else


REFUSED = {
    "get": (lambda x: x.get(), "D2H transfers are disallowed"),
    "item": (lambda x: x[0].item(), "D2H transfers are disallowed"),
    "float": (lambda x: float(x[0]), "D2H transfers are disallowed"),
    "bool": (lambda x: bool(x[0]), "D2H transfers are disallowed"),
    "asnumpy": (lambda x: cupy.asnumpy(x), "D2H transfers are disallowed"),
    "nonzero": (lambda x: cupy.flatnonzero(x), "D2H transfers are disallowed"),
    "mask": (lambda x: x[x > 0], "D2H transfers are disallowed"),
    "asarray": (lambda x: cupy.asarray([1.0]), "H2D transfers are disallowed"),
    "set": (lambda x: x.set(np.zeros(3)), "H2D transfers are disallowed"),
    "index list": (lambda x: x[[0, 1]], "H2D transfers are disallowed"),
    "stack": (lambda x: cupy.stack([x] * 9), "H2D transfers are disallowed"),
    "matmul": (lambda x: x @ x, "calling cuBLAS API during stream capture is currently unsupported"),
    "dot": (lambda x: cupy.dot(x, x), "calling cuBLAS API during stream capture is currently unsupported"),
    "tensordot": (lambda x: cupy.tensordot(x, x, 1), "calling cuBLAS API during stream capture"),
    "einsum": (lambda x: cupy.einsum("i,i", x, x), "calling cuBLAS API during stream capture"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cupy_refuses_while_capturing_is_refused_and_the_capture_goes_on(name):
    use, message = REFUSED[name]
    x = cupy.zeros(3)
    with Recording() as r:
        with pytest.raises((RuntimeError, NotImplementedError), match=message):
            use(x)
        x += 1
    r.graph.launch()
    assert x.get().tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "use",
    [
        lambda stream: stream.synchronize(),
        lambda stream: stream.done,
        lambda stream: stream.record().done,
        lambda stream: stream.record().synchronize(),
        lambda stream: cupy.cuda.runtime.deviceSynchronize(),
    ],
)
def test_waiting_while_capturing_invalidates_the_capture(use):
    r = Recording()
    refused = pytest.raises(RuntimeError, match=r"cudaErrorStreamCaptureUnsupported|cudaErrorCapturedEvent")
    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureInvalidated"), r, refused:
        use(r.stream)
    assert not r.stream.is_capturing()


def test_the_default_stream_does_not_capture():
    with pytest.raises(RuntimeError, match="cannot capture on the default"):
        cupy.cuda.Stream.null.begin_capture()


# ---- counts ------------------------------------------------------------------------------------------------------


def test_copies_and_waits_are_counted():
    with counted() as c:
        x = cupy.asarray([1.0, 2.0])
        y = x + 1
        y.get()
        bool(y[0] > 0)
        cupy.cuda.Stream.null.synchronize()
    assert Counter(vars(c)) == Counter(launches=2, graph_launches=0, uploads=1, fetches=2, synchronisations=3)


def test_pinned_memory_and_asynchronous_copies():
    pinned = np.frombuffer(cupy.cuda.alloc_pinned_memory(24), np.float64, 3)
    pinned[...] = [1, 2, 3]
    x = cupy.empty(3)
    with counted() as c:
        x.data.copy_from_host_async(pinned.ctypes.data, 24)
        out = modules()["cupyx"].empty_pinned(3)
        (x * 2).get(out=out, blocking=False)
        event = cupy.cuda.get_current_stream().record()
        assert np.isnan(out).all() and not event.done and event.done
    assert out.tolist() == [2, 4, 6] and (c.uploads, c.fetches, c.synchronisations) == (1, 1, 0)


@pytest.mark.parametrize("wait", ["event", "stream", "device", "get"])
def test_a_copy_into_pinned_memory_arrives_when_it_is_waited_for(wait):
    x, out = cupy.ones(3), modules()["cupyx"].empty_pinned(3)
    x.get(out=out, blocking=False)
    event = cupy.cuda.Stream.null.record()
    x += 1  # later work does not change what was copied
    assert np.isnan(out).all()
    {
        "event": event.synchronize,
        "stream": cupy.cuda.Stream.null.synchronize,
        "device": cupy.cuda.runtime.deviceSynchronize,
        "get": x.get,
    }[wait]()
    assert out.tolist() == [1, 1, 1]


def test_pinned_memory_must_not_change_while_a_copy_reads_it():
    pinned, x = modules()["cupyx"].zeros_pinned(3), cupy.empty(3)
    for wait in (True, False):
        x.data.copy_from_host_async(pinned.ctypes.data, 24)
        if wait:
            cupy.cuda.Stream.null.record().synchronize()
        pinned += 1
    with pytest.raises(HostRace, match="pinned memory was changed before the copy that reads it had ended"):
        cupy.cuda.Stream.null.synchronize()


def test_work_on_the_default_stream_breaks_the_capture_of_a_blocking_stream():
    stream = cupy.cuda.Stream()
    x = cupy.zeros(3)
    with stream:
        stream.begin_capture()
        x += 1
    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureImplicit"):
        x += 1
    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()
