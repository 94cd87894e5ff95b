"""The CUDA sources compile for sm_90. NVRTC needs no GPU, so a machine without one still catches a typing error."""

from pathlib import Path

import numpy as np
import pytest

import tensorlib as tl
from tensorlib import kernels

SOURCES = sorted((Path(kernels.__file__).parent / "cuda_src").glob("*.cu"))


def test_there_are_sources():
    assert SOURCES


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_compiles_for_sm_90(path):
    pytest.importorskip("cupy", reason="compiling needs CuPy (extra `cuda`)")
    from cupy_backends.cuda.libs import nvrtc

    try:
        program = nvrtc.createProgram(path.read_text(encoding="utf-8"), path.name, (), ())
    except Exception as error:
        pytest.skip(f"no NVRTC here: {str(error).splitlines()[0]}")
    try:
        nvrtc.compileProgram(program, ("--gpu-architecture=sm_90",))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    assert path.stem.encode() in nvrtc.getPTX(program)


def test_gpu_draws_the_same_numbers_as_numpy():
    try:
        gpu = tl.get_backend("cupy")
    except RuntimeError as error:
        pytest.skip(str(error))
    for key, draw, count in [(0, 0, 1), (7, 3, 1000), (2**100 + 5, 2**40, 4097)]:
        host = tl.get_backend("numpy").random_bits(key, draw, count)
        np.testing.assert_array_equal(gpu.to_numpy(gpu.random_bits(key, draw, count)), host)
