"""The cost of the engine itself: a recorded op, a long chain, memory without the garbage collector, a small expression.

    python benchmarks/engine.py

Compares a recorded op with NumPy's, and an expression with PyTorch's. Timings are medians over rounds in which the
compared functions take turns; run the program on an idle machine. PyTorch is measured if it is installed (extra
`peers`), in the same process: nothing here is large enough to use a second thread.
"""

from __future__ import annotations

import gc
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

import tensorlib as tl
from models.system.machine import processor


def microseconds(*fs: Callable[[], object], calls: int = 20_000, rounds: int = 15) -> list[float]:
    """Return the median time of a call of each function over rounds in which the functions take turns."""
    times: list[list[float]] = [[] for _ in fs]
    for _ in range(rounds):
        for f, taken in zip(fs, times, strict=True):
            began = time.perf_counter()
            for _ in range(calls):
                f()
            taken.append((time.perf_counter() - began) / calls * 1e6)
    return list(map(statistics.median, times))


def recorded_op() -> None:
    a = np.ones(10, np.float32)
    x = tl.Tensor(a, requires_grad=True)
    numpy, ours = microseconds(lambda: a + a, lambda: x + x)
    print(f"add of 10 elements: NumPy {numpy:.2f} us, recorded {ours:.2f} us, so recording adds {ours - numpy:.2f} us")


def expression(x: Any, y: Any, exp: Callable[[Any], Any], tanh: Callable[[Any], Any]) -> Any:
    """Return a scalar that 12 ops compute from two tensors of tensorlib or PyTorch."""
    a = x * y + x
    b = tanh(a - y) * exp(-x)
    return (b * b + a / (y * y)) * b


def forward_backward(x: Any, y: Any, exp: Callable[[Any], Any], tanh: Callable[[Any], Any]) -> Callable[[], object]:
    def step() -> None:
        x.grad = y.grad = None
        expression(x, y, exp, tanh).backward()

    return step


def scalar_expression() -> None:
    x, y = tl.Tensor(0.5, requires_grad=True), tl.Tensor(1.5, requires_grad=True)
    steps = [forward_backward(x, y, tl.exp, tl.tanh)]
    try:
        import torch

        u, v = torch.tensor(0.5, requires_grad=True), torch.tensor(1.5, requires_grad=True)
        steps.append(forward_backward(u, v, torch.exp, torch.tanh))
    except ImportError:
        pass
    times = microseconds(*steps, calls=2000)
    text = f"tensorlib {times[0]:.1f} us"
    if len(times) > 1:
        assert x.grad is not None and u.grad is not None and abs(x.grad.item() - u.grad.item()) < 1e-5
        text += f", PyTorch {torch.__version__} {times[1]:.1f} us, so {times[1] / times[0]:.2f} times as fast"
    print(f"scalar expression of 12 ops, forward and backward: {text}")


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
    print(f"{processor()}; Python {platform.python_version()}, NumPy {np.__version__}")
    recorded_op()
    long_chain()
    memory()
    scalar_expression()  # last: it imports PyTorch
