"""What the engine itself costs: a recorded op above NumPy's own, a long chain, memory without the garbage collector.

    python benchmarks/engine.py

Timings are medians; run it on a machine that does nothing else.
"""

from __future__ import annotations

import gc
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

import tensorlib as tl


def microseconds(f: Callable[[], object], calls: int = 20_000, rounds: int = 15) -> float:
    """Return the median time of a call over `rounds` rounds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(calls):
            f()
        times.append((time.perf_counter() - began) / calls * 1e6)
    return statistics.median(times)


def recorded_op() -> None:
    a = np.ones(10, np.float32)
    x = tl.Tensor(a, requires_grad=True)
    numpy, ours = microseconds(lambda: a + a), microseconds(lambda: x + x)
    print(f"add of 10 elements: NumPy {numpy:.2f} us, recorded {ours:.2f} us, so {ours - numpy:.2f} us on top")


def long_chain(length: int = 1_000_000) -> None:
    x = tl.Tensor(1.0, requires_grad=True)
    began = time.perf_counter()
    y = x
    for _ in range(length):
        y = y + 1.0
    built = time.perf_counter()
    y.backward()
    done = time.perf_counter()
    del y
    freed = time.perf_counter()
    assert x.grad is not None and x.grad.item() == 1.0
    print(
        f"chain of {length:,} nodes: {freed - began:.1f} s "
        f"(build {built - began:.1f}, backward {done - built:.1f}, free {freed - done:.1f})"
    )


def memory(steps: int = 2000) -> None:
    rng = np.random.default_rng(0)
    x, w = tl.Tensor(rng.normal(size=(32, 64))), tl.Tensor(rng.normal(size=(64, 64)), requires_grad=True)
    gc.disable()
    tracemalloc.start()
    for step in range(steps):
        if step == 10:
            before = tracemalloc.get_traced_memory()[0]
        w.grad = None
        tl.softmax(tl.relu(x @ w)).square().sum().backward()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    gc.enable()
    print(f"{steps:,} steps without the garbage collector: memory grew by {grown / 1e6:.2f} MB")


if __name__ == "__main__":
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}")
    recorded_op()
    long_chain()
    memory()
