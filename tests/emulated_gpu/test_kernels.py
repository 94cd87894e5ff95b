"""Kernels on the emulated GPU: the mistakes that it must find, and the numbers that it must compute."""

import numpy as np
import pytest

from tests import ROOT
from tests.emulated_gpu import modules
from tests.emulated_gpu.compiler import compiler
from tests.emulated_gpu.kernels import CompileException, KernelError

pytestmark = pytest.mark.skipif(compiler() is None, reason="compiling CUDA sources for the CPU needs g++")
cupy = modules()["cupy"]


def kernel(body, parameters="const float* x, float* y", before=""):
    return cupy.RawKernel(f'{before}\nextern "C" __global__ void f({parameters}) {{ {body} }}', "f", ("-DN=256",))


def on_device(values, dtype="float32"):
    return cupy.asarray(np.asarray(values, dtype))


def ramp(count=256):
    return on_device(np.arange(count)), cupy.empty(count, "float32")


# ---- barriers and shared memory ----------------------------------------------------------------------------------


REVERSED = "__shared__ float s[N]; s[threadIdx.x] = x[threadIdx.x]; {barrier} y[threadIdx.x] = s[N - 1 - threadIdx.x];"


def test_a_barrier_makes_shared_memory_visible():
    x, y = ramp()
    kernel(REVERSED.format(barrier="__syncthreads();"))((1,), (256,), (x, y))
    np.testing.assert_array_equal(y.get(), np.arange(256)[::-1])


def test_a_missing_barrier_gives_wrong_numbers():
    x, y = ramp()
    kernel(REVERSED.format(barrier=""))((1,), (256,), (x, y))
    assert not np.array_equal(y.get(), np.arange(256)[::-1])


@pytest.mark.parametrize("removed", [None, 0, 1])
def test_either_barrier_of_a_sum_over_a_block_is_needed(removed):
    """In the sources of the library: the second barrier keeps shared memory until all have read it."""
    folder = ROOT / "tensorlib" / "kernels" / "cuda"
    header, source = ((folder / name).read_text(encoding="utf-8") for name in ("rows.cuh", "layer_norm.cu"))
    parts = header.split("__syncthreads();")
    assert len(parts) == 3
    if removed is not None:
        parts[removed : removed + 2] = [parts[removed] + parts[removed + 1]]
    code = source.replace('#include "rows.cuh"', "__syncthreads();".join(parts))
    x = on_device(np.random.default_rng(0).standard_normal((20, 300)))
    y, mean, rstd = cupy.empty((20, 300), "float32"), *(cupy.empty(20, "float32") for _ in range(2))
    arguments = (x, cupy.ones(300, "float32"), cupy.zeros(300, "float32"), 300, 1e-5, y, mean, rstd)
    cupy.RawKernel(code, "layer_norm", ("-Dreal=float",))((20,), (320,), arguments)
    right = np.allclose(y.get().mean(axis=1), 0, atol=1e-6) and np.allclose(y.get().std(axis=1), 1, atol=1e-3)
    assert right == (removed is None)


def test_a_barrier_that_some_threads_miss_is_an_error():
    x, y = ramp()
    broken = kernel("if (threadIdx.x == 7) return; __syncthreads(); y[threadIdx.x] = 1;")
    with pytest.raises(KernelError, match="f: a barrier was reached by 255 of 256 threads; 1 have returned"):
        broken((1,), (256,), (x, y))


def test_shared_memory_holds_nothing_when_a_block_begins():
    x, y = ramp()
    summed = kernel(
        "__shared__ float s[N]; s[threadIdx.x] += x[threadIdx.x]; y[threadIdx.x] = s[threadIdx.x] + of<float>();",
        before="template <class T> __device__ T of() { __shared__ T t[1]; t[0] += 1; return t[0]; }",
    )
    summed((2,), (256,), (x, y))
    assert np.isnan(y.get()).all()


def test_threads_of_two_and_three_axes_have_their_indices():
    y = cupy.empty((2, 3, 4, 2, 3, 4), "int32")
    body = """
        const int thread = (threadIdx.x * blockDim.y + threadIdx.y) * blockDim.z + threadIdx.z;
        const int block = (blockIdx.x * gridDim.y + blockIdx.y) * gridDim.z + blockIdx.z;
        y[block * blockDim.x * blockDim.y * blockDim.z + thread] = 100 * block + thread;
    """
    kernel(body, "int* y")((2, 3, 4), (2, 3, 4), (y,))
    expected = 100 * np.arange(24)[:, None] + np.arange(24)
    np.testing.assert_array_equal(y.get().reshape(24, 24), expected)


# ---- warps -------------------------------------------------------------------------------------------------------

ALL = "0xFFFFFFFFu"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (f"__shfl_xor_sync({ALL}, v, 5)", lambda i: i ^ 5),
        (f"__shfl_sync({ALL}, v, 3)", lambda i: 0 * i + 3),
        (f"__shfl_sync({ALL}, v, threadIdx.x + 1)", lambda i: (i + 1) % 32),
        (f"__shfl_down_sync({ALL}, v, 4)", lambda i: np.where(i + 4 < 32, i + 4, i)),
        (f"__shfl_up_sync({ALL}, v, 4)", lambda i: np.where(i >= 4, i - 4, i)),
        (f"__shfl_sync({ALL}, v, 2, 8)", lambda i: i // 8 * 8 + 2),
        (f"__shfl_down_sync({ALL}, v, 1, 4)", lambda i: np.where(i % 4 < 3, i + 1, i)),
        (f"__shfl_sync({ALL}, (double)v, 9)", lambda i: 0 * i + 9),
        (f"__ballot_sync({ALL}, v % 3 == 0)", lambda i: 0 * i + sum(1 << k for k in range(0, 32, 3))),
        (f"__any_sync({ALL}, v == 4) + 2 * __all_sync({ALL}, v < 32)", lambda i: 0 * i + 3),
    ],
)
def test_functions_of_a_warp(call, expected):
    y = cupy.empty((3, 32), "float64")
    kernel(f"const int v = threadIdx.x % 32; y[threadIdx.x] = {call};", "double* y")((1,), (96,), (y,))
    np.testing.assert_array_equal(y.get(), np.broadcast_to(expected(np.arange(32)), (3, 32)))


def test_a_sum_over_a_warp_by_repeated_shuffles():
    x, y = ramp(64)
    body = (
        f"float v = x[threadIdx.x]; for (int o = 16; o; o /= 2) v += __shfl_xor_sync({ALL}, v, o); y[threadIdx.x] = v;"
    )
    for _ in range(20):  # each launch has another order of the threads
        kernel(body)((1,), (64,), (x, y))
        np.testing.assert_array_equal(y.get(), np.repeat([496.0, 1520.0], 32))


def test_a_shuffle_that_half_of_the_lanes_reach_is_an_error():
    x, y = ramp(32)
    broken = kernel(f"if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync({ALL}, x[threadIdx.x], 1);")
    with pytest.raises(
        KernelError, match="f: __shfl_xor_sync with the mask 0xffffffff was reached by the lanes 0x0000ffff"
    ):
        broken((1,), (32,), (x, y))


def test_lanes_that_call_different_functions_are_an_error():
    x, y = ramp(32)
    broken = kernel(f"if (threadIdx.x < 16) __syncwarp(); else y[0] = __shfl_xor_sync({ALL}, x[threadIdx.x], 1);")
    with pytest.raises(KernelError, match="f: lanes of a warp disagree"):
        broken((1,), (32,), (x, y))


def test_a_shuffle_from_a_lane_that_does_not_take_part_is_an_error():
    x, y = ramp(32)
    broken = kernel("if (threadIdx.x < 4) y[threadIdx.x] = __shfl_sync(0xFu, x[threadIdx.x], 9);")
    with pytest.raises(KernelError, match=r"lane . reads lane 9, which does not take part"):
        broken((1,), (32,), (x, y))


# ---- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "offset"), [(100, 100), (100, -1), (128, 128), (1, 1)])
def test_a_write_outside_an_array_is_an_error(count, offset):
    x, y = ramp(count)
    broken = kernel("y[n] = 5;", "const float* x, float* y, int n")
    where = "before the start" if offset < 0 else "after the end"
    with pytest.raises(KernelError, match=f"f: wrote . bytes {where} of an array of {4 * count} bytes"):
        broken((1,), (1,), (x, y, np.int32(offset)))
    broken((1,), (1,), (x, y, np.int32(0)))  # one mistake is reported once


def test_an_array_that_was_never_written_holds_nan():
    x, y = ramp()
    kernel("y[threadIdx.x] = x[threadIdx.x];")((1,), (256,), (y, x))
    assert np.isnan(x.get()).all() and cupy.empty(3, "int64").get().tolist() == [-1, -1, -1]


def test_an_index_outside_a_shared_array_is_an_error():
    x, y = ramp()
    with pytest.raises(KernelError, match=r"f: line \d+: index 200 is outside its array"):
        kernel("__shared__ float s[128]; s[n] = 0; y[0] = s[n];", "const float* x, float* y, int n")(
            (1,), (1,), (x, y, np.int32(200))
        )


def test_a_misaligned_vector_is_an_error():
    x, y = ramp()
    with pytest.raises(KernelError, match=r"f: line \d+: the address 0x[0-9a-f]+ is misaligned"):
        kernel("y[0] = ((const float4*)(x + 1))->x;")((1,), (1,), (x, y))
    kernel("y[0] = ((const float4*)(x + 4))->x;")((1,), (1,), (x, y))
    assert y.get()[0] == 4


# ---- arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "given", "message"),
    [
        ("int n", 3, "argument 0: the parameter has 4 bytes, got 8 .int64."),
        ("float a", 1.0, "argument 0: the parameter has 4 bytes, got 8 .float64."),
        ("bool b", 1, "argument 0: the parameter has 1 bytes, got 8"),
        ("long long n", 1.0, "argument 0: the parameter is of kind 'i', got float64"),
        ("double a", 1, "argument 0: the parameter is of kind 'f', got int64"),
        ("const float* x", 1.0, "argument 0: the parameter is a pointer, got float64"),
        ("const float* x", 1232, "argument 0: 0x4d0 is no address on the device"),
        ("long long n", cupy.zeros(2), "argument 0: the parameter is no pointer, got an array"),
        (
            "const float* x",
            cupy.zeros(2),
            "argument 0: the parameter points to items of 4 bytes, got an array of float64",
        ),
        ("const float4* x", cupy.zeros(8, "float32")[1:], "argument 0: the address must be a multiple of 16"),
    ],
)
def test_an_argument_of_a_wrong_type_is_an_error(parameter, given, message):
    with pytest.raises(KernelError, match=f"^f: {message}"):
        kernel("", parameter)((1,), (1,), (given,))


def test_the_number_of_arguments_is_checked():
    with pytest.raises(KernelError, match="f: takes 2 arguments, got 1"):
        kernel("")((1,), (1,), (cupy.zeros(2),))


def test_arguments_are_packed_as_cupy_packs_them():
    y = cupy.zeros(6)
    parameters = "double* y, long long n, double a, bool b, unsigned u, unsigned short h, const float* none"
    body = "y[0] = n; y[1] = a; y[2] = b; y[3] = u; y[4] = h; y[5] = none == nullptr;"
    kernel(body, parameters)((1,), (1,), (y, -3, 2.5, True, np.uint32(2**32 - 1), np.uint16(7), 0))
    assert y.get().tolist() == [-3, 2.5, 1, 2**32 - 1, 7, 1]


def test_a_struct_of_pointers_by_value():
    """A table of arrays in one argument; every address in it is checked."""
    arrays = [cupy.zeros(n, "float32") for n in (3, 5)]
    table = np.zeros((), np.dtype([("address", "u8", (2,)), ("size", "i8", (2,))]))
    table["address"], table["size"] = [a.data.ptr for a in arrays], [a.size for a in arrays]
    struct = "struct Table { float* address[2]; long long size[2]; };"
    body = "for (long long i = 0; i < t.size[blockIdx.x] + n; ++i) t.address[blockIdx.x][i] = blockIdx.x + 1;"
    filled = kernel(body, "const Table t, long long n", struct)
    for given in (table, table[()]):
        filled((2,), (1,), (given, 0))
        assert [a.get().tolist() for a in arrays] == [[1, 1, 1], [2, 2, 2, 2, 2]]
    with pytest.raises(KernelError, match=r"wrote . bytes after the end"):
        filled((2,), (1,), (table, 1))


@pytest.mark.parametrize("given", [np.zeros(2), "text", [1], np.zeros((0,))])
def test_what_cupy_refuses_as_an_argument_is_refused(given):
    with pytest.raises(TypeError, match=r"Unsupported type|trying to pass a numpy.ndarray of shape"):
        kernel("", "const float* x")((1,), (1,), (given,))


def test_a_block_beyond_the_launch_bounds_is_an_error():
    code = 'extern "C" __global__ void __launch_bounds__(128) f(float* y) {}'
    bounded, y = cupy.RawKernel(code, "f"), cupy.empty(1, "float32")
    bounded((1,), (128,), (y,))
    for blocks, threads in [((1,), (129,)), ((1, 2**16), (1,)), ((2**31,), (1,))]:
        with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
            bounded(blocks, threads, (y,))


def test_a_mistake_in_a_source_is_an_error():
    with pytest.raises(CompileException, match="undefined_name"):
        kernel("y[0] = undefined_name;")((1,), (1,), ramp())


def test_a_sum_of_floating_point_numbers_by_atomic_additions_is_refused():
    with pytest.raises(CompileException, match="gives other bits in each run"):
        kernel("atomicAdd(y, 1.0f);")((1,), (1,), ramp())


# ---- numbers -----------------------------------------------------------------------------------------------------


def test_functions_of_a_float_are_computed_in_float():
    x, y = on_device(np.linspace(0.1, 3, 50)), cupy.empty((5, 50), "float32")
    body = "const int i = threadIdx.x; y[i] = exp(x[i]); y[50 + i] = log(x[i]); y[100 + i] = tanh(x[i]); "
    body += "y[150 + i] = sqrt(x[i]); y[200 + i] = x[i] * x[i] - x[i];"
    kernel(body)((1,), (50,), (x, y))
    h = x.get()
    expected = [np.exp(h), np.log(h), np.tanh(h), np.sqrt(h), h * h - h]
    assert all(e.dtype == np.float32 for e in expected)
    np.testing.assert_allclose(y.get(), expected, rtol=3e-7)
    np.testing.assert_array_equal(y.get()[4], expected[4])  # no fused multiply-add


def test_bits_and_integers():
    y = cupy.empty(6, "uint64")
    body = """
        y[0] = __umul64hi(0xFFFFFFFFFFFFFFFFULL, 3); y[1] = __float_as_uint(1.0f);
        y[2] = __int_as_float(0x7F800000) > 1;
        y[3] = min(3u, 2u) + max(1, 7); y[4] = __popc(255u) + __clz(1); y[5] = 0; atomicAdd(&y[5], 4ULL);
    """
    kernel(body, "unsigned long long* y")((1,), (1,), (y,))
    assert y.get().tolist() == [2, 0x3F800000, 1, 9, 39, 4]


# ---- elementwise kernels -----------------------------------------------------------------------------------------


def test_an_elementwise_kernel_broadcasts_and_takes_its_type_from_the_arrays():
    x, y = on_device(np.arange(6).reshape(2, 3).T, "float64"), on_device([1, 2], "float64")
    z = cupy.ElementwiseKernel("T x, T y, T a, int64 m", "T z", "z = a * x + y + m", "k")(x, y, 0.5, 7)
    assert z.dtype == np.float64
    np.testing.assert_array_equal(z.get(), x.get() / 2 + [1, 2] + 7)


def test_an_elementwise_kernel_writes_into_given_arrays_and_raw_ones():
    x, m, total = on_device([1, 2, 3]), on_device([0, 1, 0]), cupy.zeros(4, "float32")
    step = cupy.ElementwiseKernel(
        "T x, raw T all", "T m, raw T total", "m += x; total[i + 1] = all[_ind.size() - 1 - i]", "k"
    )
    step(x, x, m, total)
    assert m.get().tolist() == [1, 3, 3] and total.get().tolist() == [0, 3, 2, 1]


def test_an_elementwise_kernel_refuses_types_that_differ():
    double = cupy.ElementwiseKernel("T x, T y", "T z", "z = x + y", "k")
    with pytest.raises(TypeError, match="Type is mismatched"):
        double(cupy.zeros(2, "float32"), cupy.zeros(2, "float64"))
    with pytest.raises(TypeError, match="Unsupported type"):
        double(cupy.zeros(2), np.zeros(2))
