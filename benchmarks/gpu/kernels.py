"""Each CUDA kernel at a size that fills the card: bytes or floating-point operations a second, for the ceilings' table.

Kernels of products are also measured in bf16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

from gpu.case import TINY, Arrays, Build, Scale
from gpu.device import open_backend, seconds_of
from gpu.kernel_cases import BEYOND, CASES, ON_A_GPU
from gpu.ours import in_precision
from gpu.part import Turn, problem
from gpu.step import OURS
from tensorlib.kernels import overridable

__all__ = ["run"]


def run(turn: Turn) -> None:
    open_backend(turn.backend)
    make = Arrays(turn.backend, TINY if turn.rehearse else Scale())
    for name, build in cases(make, turn):
        try:
            rows = measured(build, make, turn)
        except Exception as error:
            rows = {"float32": problem(error)}
        for precision, found in rows.items():
            turn.row(f"{name}{'' if precision == 'float32' else f', {precision}'}", OURS, **found)
        if turn.backend == "cupy" and not turn.rehearse:
            make.xp.get_default_memory_pool().free_all_blocks()


def cases(make: Arrays, turn: Turn) -> Iterator[tuple[str, Build]]:
    """Yield the cases of all kernels that are registered for the backend, then those that override no formula."""
    for name, formula in overridable().items():
        if formula.dispatch(make.xp.ndarray) is formula.dispatch(object):
            continue
        if name not in CASES:
            if turn.backend == "cupy":
                turn.row(name, OURS, missing="a size in benchmarks/gpu/kernel_cases.py")
            continue
        for variant, build in CASES[name].items():
            yield f"{name}{variant and f', {variant}'}", build
    yield from BEYOND.items()
    if turn.backend == "cupy":
        yield from ON_A_GPU.items()


def measured(build: Build, make: Arrays, turn: Turn) -> dict[str, dict[str, Any]]:
    """Return for each precision the rate of a kernel and its seconds."""
    case = build(make)
    found = {}
    for precision in ("float32", "bf16") if case.flops else ("float32",):
        try:
            with in_precision(precision) if precision != "float32" else nullcontext():
                work = case.flops or traffic(case.arguments, case.call()) + case.written
                seconds = seconds_of(case.call, turn.backend, 0.001 if turn.rehearse else 0.02)
        except Exception as error:
            if precision == "float32":
                raise
            found[precision] = problem(error)
        else:
            unit = "FLOP/s" if case.flops else "B/s"
            found[precision] = {"value": work / seconds, "unit": unit, "seconds": seconds, "precision": precision}
    return found


def traffic(*values: Any) -> int:
    """Return the bytes of all arrays in some arguments and results, each counted once."""
    seen: dict[int, int] = {}
    pending = list(values)
    while pending:
        value = pending.pop()
        if isinstance(value, tuple | list):
            pending += value
        elif isinstance(value, Mapping):
            pending += value.values()
        elif hasattr(value, "nbytes"):
            seen[id(value)] = value.nbytes
    return sum(seen.values())
