"""The CUDA sources compile for sm_90. NVRTC needs no GPU, so a machine without one still catches a typing error."""

import re

import numpy as np
import pytest

import tensorlib as tl


def cuda():
    pytest.importorskip("cupy", reason="compiling needs CuPy (extra `cuda`)")
    from tensorlib.kernels import cuda

    return cuda


def compiled(code, options=()):
    """Return the PTX of CUDA source, or fail with what the compiler says."""
    from cupy_backends.cuda.libs import nvrtc

    try:
        program = nvrtc.createProgram(code, "source.cu", (), ())
    except Exception as error:
        pytest.skip(f"no NVRTC here: {str(error).splitlines()[0]}")
    try:
        nvrtc.compileProgram(program, ("--gpu-architecture=sm_90", *options))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    return nvrtc.getPTX(program).decode()


@pytest.mark.parametrize("real", ["float", "double"])
def test_every_source_compiles_for_sm_90(real):
    sources = sorted(cuda().SOURCES.glob("*.cu"))
    assert sources
    for path in sources:
        names = re.findall(r'^(?:extern "C" __global__ void|ROW_KERNEL) (\w+)', path.read_text(encoding="utf-8"), re.M)
        ptx = compiled(cuda().source(path.stem), cuda().options(real[0]))
        assert names and set(re.findall(r"\.entry (\w+)", ptx)) == set(names), path


def test_a_source_that_is_wrong_is_noticed():
    cuda()
    with pytest.raises(pytest.fail.Exception, match="undefined"):
        compiled('extern "C" __global__ void f(float* x) { x[0] = y; }')


def test_gpu_draws_the_same_numbers_as_numpy():
    try:
        gpu = tl.get_backend("cupy")
    except RuntimeError as error:
        pytest.skip(str(error))
    for key, draw, count in [(0, 0, 1), (7, 3, 1000), (2**100 + 5, 2**40, 4097)]:
        for dtype in ("uint8", "uint16", "uint32", "uint64"):
            host = tl.get_backend("numpy").random_bits(key, draw, count, dtype)
            np.testing.assert_array_equal(gpu.to_numpy(gpu.random_bits(key, draw, count, dtype)), host)
