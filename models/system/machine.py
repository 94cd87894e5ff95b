"""The machine that a figure was measured on."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

__all__ = ["blas", "cores", "machine", "processor"]


def machine() -> str:
    """Return one line: the processor, its cores, the BLAS kernels that run, Python and NumPy."""
    import numpy as np

    return f"{processor()}; {blas()}; Python {platform.python_version()}; NumPy {np.__version__}"


def processor() -> str:
    """Return the name of the CPU, and the number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{name}, {cores()} cores"


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def blas() -> str:
    """Return the name, version and kernels of the BLAS that NumPy has loaded, such as "openblas 0.3.31 SkylakeX"."""
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    keys = ("internal_api", "version", "architecture")
    return ", ".join(" ".join(str(pool[key]) for key in keys if pool.get(key)) for pool in pools) or "unknown BLAS"
