"""`tensorlib info`: the facts that a bug report should contain."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import tensorlib as tl
from tensorlib.kernels import chosen
from tensorlib.kernels.numba import available
from tensorlib.kernels.precision import refusal
from tensorlib.messages import plural

__all__ = ["info"]

PACKAGES = (
    "numpy",
    "sentencepiece",
    "safetensors",
    "sacrebleu",
    "threadpoolctl",
    "cupy",
    "numba",
    "onednn-cpu-gomp",
    "graphviz",
    "graphviz-pure",
)


def info() -> int:
    """Show versions, backends, the GPU, and each library that runs threads in training; for BLAS also its kernels."""
    from threadpoolctl import threadpool_info

    with suppress(ImportError):  # `info` must run even if a package is missing
        import models.training.loop  # noqa: F401  # loads the libraries, such as sentencepiece's OpenMP

    print(f"tensorlib {tl.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print("packages: " + ", ".join(f"{name} {_version(name)}" for name in PACKAGES))
    print("backend numpy: yes")
    gpu = _gpu()
    print(f"backend cupy: {gpu}")
    print(f"kernels: {_kernels()}")
    print(f"precision bf16: {_precision('bf16', 'numpy')}")
    for name in ("tf32", "bf16", "fp16"):
        print(f"precision {name} on a GPU: {_precision(name, 'cupy') if gpu.startswith('yes') else 'no (no GPU)'}")
    for pool in threadpool_info():
        kernels = f", {pool['architecture']} kernels" if "architecture" in pool else ""
        name = f"{pool['internal_api']} {pool.get('version') or ''}".strip()
        print(f"{pool['user_api']}: {name}{kernels}, {plural(pool['num_threads'], 'thread')}")
    return 0


def _kernels() -> str:
    """Return which kernels run on the CPU, and what would be faster."""
    names = {"0": "none, because TENSORLIB_KERNELS=0,", "numpy": "NumPy's", "numba": "compiled by Numba"}
    faster = " (pip install numba for faster ones)" if chosen() == "numpy" and not available() else ""
    return f"{names[chosen()]} on {plural(tl.thread_count(), 'thread')}{faster}"


def _precision(name: str, backend: str) -> str:
    """Return whether products on a backend can be computed in a precision, or what they require."""
    problem = refusal(name, backend)
    return "yes" if problem is None else f"no ({str(problem).removeprefix(f'precision: {name} ')})"


def _version(package: str) -> str:
    names = ("cupy-cuda13x", "cupy-cuda12x", "cupy") if package == "cupy" else (package,)
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "not installed"


def _gpu() -> str:
    try:
        backend = tl.get_backend("cupy")
    except RuntimeError as error:
        reason = str(error).removeprefix("backend: 'cupy' ")
        return f"no ({reason})"
    device = backend.xp.cuda.runtime.getDeviceProperties(0)
    return f"yes, {device['name'].decode()}, {device['totalGlobalMem'] / 2**30:.0f} GiB"
