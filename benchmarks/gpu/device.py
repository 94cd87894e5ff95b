"""tensorlib's device in a process: waiting for it, the memory that a step takes, and the seconds of a kernel."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import tensorlib as tl
from gpu.machine import emulated

__all__ = ["open_backend", "seconds_of"]

Wait = Callable[[], None]
Peak = Callable[[Callable[[], Any]], dict[str, int]]
Free = Callable[[], int]


def open_backend(name: str) -> tuple[Wait, Peak, Free]:
    """Open the device; return what waits for it, what measures the memory of a step, and what counts its free bytes."""
    if name == "numpy":
        return (lambda: None), _peak_on_host, lambda: 0
    if emulated():
        from tests.emulated_gpu import install

        install()
    import cupy

    tl.get_backend("cupy")

    def wait() -> None:
        cupy.cuda.Device().synchronize()

    def peak(step: Callable[[], Any]) -> dict[str, int]:
        return _peak_on_device(step, wait)

    if emulated():
        return wait, _peak_on_host, lambda: 0
    return wait, peak, lambda: cupy.cuda.runtime.memGetInfo()[0]


def _peak_on_device(step: Callable[[], Any], wait: Wait) -> dict[str, int]:
    """Return the most bytes of arrays that a step holds in addition to those before it."""
    import cupy

    wait()

    class Hook(cupy.cuda.MemoryHook):
        """Counts the bytes of arrays that live."""

        name = "peak"
        live = most = 0

        def malloc_postprocess(self, **found: Any) -> None:
            self.live += found["mem_size"]
            self.most = max(self.most, self.live)

        def free_postprocess(self, **found: Any) -> None:
            self.live -= found["mem_size"]

    with Hook() as hook:
        step()
        wait()
    return {"bytes": hook.most}


def _peak_on_host(step: Callable[[], Any]) -> dict[str, int]:
    tracemalloc.start()
    try:
        step()
        return {"bytes": tracemalloc.get_traced_memory()[1]}
    finally:
        tracemalloc.stop()


def seconds_of(call: Callable[[], Any], backend: str, least: float = 0.02, repeats: int = 5) -> float:
    """Return the seconds of a call on the device: the median over some turns of as many calls as `least` needs."""
    call()
    timed = _timed_on_host if backend == "numpy" or emulated() else _timed_on_device
    calls = min(50, max(1, round(least / max(timed(call, 1), 1e-6))))
    return statistics.median(timed(call, calls) for _ in range(repeats))


def _timed_on_device(call: Callable[[], Any], calls: int) -> float:
    import cupy

    first, last = cupy.cuda.Event(), cupy.cuda.Event()
    first.record()
    for _ in range(calls):
        call()
    last.record()
    last.synchronize()
    return cupy.cuda.get_elapsed_time(first, last) / 1e3 / calls


def _timed_on_host(call: Callable[[], Any], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls
