"""The CUDA sources compile for three GPUs. NVRTC needs none, so a machine without one still finds a mistake in them."""

import re

import numpy as np
import pytest

import tensorlib as tl
from tests import ROOT

SOURCES = sorted((ROOT / "tensorlib").rglob("*.cu"))
FLUSH = "-ftz=true"  # CuPy adds it to the options of every kernel (_compile_with_cache_cuda in cupy/cuda/compiler.py)
TARGETS = ("sm_80", "sm_90", "sm_100")  # A100, H100, B200


def cuda():
    pytest.importorskip("cupy", reason="compiling needs CuPy (extra `cuda`)")
    from tensorlib.arrays import cuda

    return cuda


def compiled(code, options=(), target="sm_90"):
    """Return the PTX of a CUDA source, compiled as CuPy does, or fail with the messages of the compiler."""
    from cupy_backends.cuda.libs import nvrtc

    try:
        program = nvrtc.createProgram(code, "source.cu", (), ())
    except Exception as error:
        pytest.skip(f"no NVRTC here: {str(error).splitlines()[0]}")
    try:
        nvrtc.compileProgram(program, (f"--gpu-architecture={target}", *options, FLUSH))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    return nvrtc.getPTX(program).decode()


def kernels_in(path):
    """Return the names of the kernels that a source defines."""
    head = re.compile(r'^(?:extern "C" __global__ void|[A-Z]+_KERNEL) (\w+)', re.MULTILINE)
    return set(head.findall(path.read_text(encoding="utf-8")))


def test_there_are_sources_in_both_rooms():
    assert {path.parent.relative_to(ROOT / "tensorlib").as_posix() for path in SOURCES} == {"arrays", "kernels/cuda"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_header_that_a_source_includes_exists(path):
    headers = re.findall(r'#include "(.+)"', path.read_text(encoding="utf-8"))
    assert all((path.parent / h).is_file() or (ROOT / "tensorlib/arrays" / h).is_file() for h in headers)


@pytest.mark.parametrize("room", ["arrays", "kernels/cuda"])
def test_every_kernel_that_python_launches_is_in_the_source_named(room):
    folder = ROOT / "tensorlib" / room
    code = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    launched = re.findall(r'(?:kernel\(|by_rows\()f?"(\w+)(\{\w+[^"]*\})?\.cu", "(\w+)"', code)
    files = {path.stem for path in folder.glob("*.cu")}
    named = {  # by file; the end of a file's name may be computed, such as a width
        (path, name)
        for file, end, name in launched
        for path in files
        if path == file or (end and path.startswith(file))
    }
    assert {path for path, _ in named} == files and {file for file, end, _ in launched if not end} <= files
    assert all(name in kernels_in(folder / f"{path}.cu") for path, name in named)


def test_a_launch_finds_its_kernel_by_names_alone(monkeypatch):
    cuda()
    from tensorlib.kernels.cuda import launch

    found = launch.kernel("heads.cu", "split_heads", "f")
    monkeypatch.setattr(launch, "HERE", None)  # no path is made again
    assert launch.kernel("heads.cu", "split_heads", "f") is found
    assert launch.kernel.cache_info().maxsize is None


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_source_compiles_for_every_target(path, real, target):
    ptx = compiled(cuda().inlined(path), cuda().options(real[0]), target)
    names = kernels_in(path)
    assert names and set(re.findall(r"\.entry (\w+)", ptx)) == names


def test_a_mistake_in_a_source_is_noticed():
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
