"""Steps of an optimizer with all parameters at once, in place: a few launches for a model, none of which waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cupy
import numpy as np

from tensorlib.arrays.capturing import step_value
from tensorlib.arrays.cuda import THREADS
from tensorlib.arrays.shapes import as_dtype, sum_dtype
from tensorlib.kernels.cuda.launch import NOT_SERVED, contiguous, kernel, on_current_device, overrides
from tensorlib.kernels.cuda.tables import LONG_CHUNK, Writable, counters, groups, tables
from tensorlib.ops.update_in_place import Guard, adam_steps, average_steps, scaled, sgd_steps, step_guard

# Kernels for float16, such as "adam_half", have the same arguments and compute in float32.


@overrides(step_guard)
def _step_guard(
    gradients: Sequence[Any], loss: Any, skip: Any, max_norm: float, scale: Any | Callable[[], float]
) -> Any:
    if not on_current_device(*gradients, skip, *([] if loss is None else [loss])):
        return NOT_SERVED
    read = [contiguous(g) for g in gradients]  # a copy must live until the kernels are launched
    launches = [
        (char, chunks, table)
        for char, chosen in groups(read)
        for _, chunks, table in tables([[read[i] for i in chosen]], LONG_CHUNK)
    ]
    partials = cupy.empty(sum(chunks for _, chunks, _ in launches), np.float64)
    start = 0
    for char, chunks, table in launches:
        half = char == "e"
        run = kernel("update_in_place.cu", "squares_half") if half else kernel("update_in_place.cu", "squares", char)
        run((chunks,), (THREADS,), (table, partials[start:]))
        start += chunks
    narrow = any(g.dtype.char != "d" for g in gradients)
    limit = float(np.finfo(np.float32 if narrow else np.float64).max)
    slot, value = step_value(scale) if callable(scale) else (as_dtype(scale, np.dtype(float)), 0.0)
    norm, factor = cupy.empty((), np.float64), cupy.empty((), np.float64)
    value_of_loss = 0 if loss is None else as_dtype(loss, np.dtype(float))
    arguments = (partials, start, value_of_loss, float(max_norm), limit, slot, value, norm, factor, skip)
    kernel("update_in_place.cu", "decide")((1,), (THREADS,), arguments)
    return norm, factor


@overrides(scaled)
def _scaled(gradients: Sequence[Any], factor: float) -> Any:
    if not on_current_device(*gradients):
        return NOT_SERVED
    results = [cupy.empty(g.shape, g.dtype) for g in gradients]
    for char, chosen in groups(gradients):
        half = char == "e"
        run = kernel("update_in_place.cu", "scale_half") if half else kernel("update_in_place.cu", "scale", char)
        columns = [[contiguous(gradients[i]) for i in chosen], [results[i] for i in chosen]]
        for _, chunks, table in tables(columns):
            run((chunks,), (THREADS,), (table, float(factor)))
    return tuple(results)


@overrides(adam_steps)
def _adam_steps(
    ps: Sequence[Any], gs: Sequence[Any], ms: Sequence[Any], vs: Sequence[Any], counts: Sequence[Any],
    guard: Guard | None, *, learning_rate: Callable[[], float], beta1: float, beta2: float, eps: float,
    weight_decay: float, decoupled: bool,
) -> Any:  # fmt: skip
    if not on_current_device(*ps, *gs, *ms, *vs, *counts):
        return NOT_SERVED
    own, (slot, value), (factor, skip) = Writable(), step_value(learning_rate), guard or (0, 0)
    columns = _prepared(own, ps, gs, ms, vs)
    for char, chosen in groups(columns[0]):
        half = char == "e"
        run = kernel("update_in_place.cu", "adam_half") if half else kernel("update_in_place.cu", "adam", char)
        rates = cupy.empty((len(chosen), 2), np.float64)
        _advance([counts[i] for i in chosen], skip, beta1, beta2, slot, value, rates)
        for start, chunks, table in tables([[column[i] for i in chosen] for column in columns]):
            numbers = (beta1, beta2, eps, slot, value, weight_decay, decoupled)
            run((chunks,), (THREADS,), (table, factor, skip, rates[start:], *numbers))
    own.finish()
    return None


@overrides(sgd_steps)
def _sgd_steps(
    ps: Sequence[Any], gs: Sequence[Any], velocities: Sequence[Any] | None, counts: Sequence[Any],
    guard: Guard | None, *, learning_rate: Callable[[], float], momentum: float, weight_decay: float, nesterov: bool,
) -> Any:  # fmt: skip
    if not on_current_device(*ps, *gs, *(velocities or ()), *counts):
        return NOT_SERVED
    own, (slot, value), (factor, skip) = Writable(), step_value(learning_rate), guard or (0, 0)
    columns = _prepared(own, ps, gs, velocities or [None] * len(ps))
    _advance(counts, skip, 0.0, 0.0, slot, value, 0)
    for char, chosen in groups(columns[0]):
        half = char == "e"
        run = kernel("update_in_place.cu", "sgd_half") if half else kernel("update_in_place.cu", "sgd", char)
        for _, chunks, table in tables([[column[i] for i in chosen] for column in columns]):
            numbers = (slot, value, float(momentum), float(weight_decay), nesterov)
            run((chunks,), (THREADS,), (table, factor, skip, *numbers))
    own.finish()
    return None


@overrides(average_steps)
def _average_steps(es: Sequence[Any], ws: Sequence[Any], skip: Any, decay: Callable[[], float]) -> Any:
    if not on_current_device(*es, *ws):
        return NOT_SERVED
    own, (slot, value) = Writable(), step_value(decay)
    averages = [own(e) for e in es]
    weights = [w if w.dtype.char == "e" else as_dtype(w, e.dtype) for e, w in zip(es, ws, strict=True)]
    for char, chosen in groups(weights):
        half = char == "e"
        run = kernel("update_in_place.cu", "average_half") if half else kernel("update_in_place.cu", "average", char)
        columns = [[averages[i] for i in chosen], [contiguous(weights[i]) for i in chosen]]
        for _, chunks, table in tables(columns):
            run((chunks,), (THREADS,), (table, 0 if skip is None else skip, slot, value))
    own.finish()
    return None


def _prepared(own: Writable, ps: Sequence[Any], gs: Sequence[Any], *slots: Sequence[Any]) -> list[list[Any]]:
    """Return parameters, gradients and slots as a kernel takes them: contiguous; float16 only with such a gradient."""
    weights = [own(p, p.dtype if g.dtype == p.dtype else sum_dtype(p)) for p, g in zip(ps, gs, strict=True)]
    gradients = [contiguous(as_dtype(g, w.dtype)) for w, g in zip(weights, gs, strict=True)]
    return [weights, gradients, *([own(array) for array in slot] for slot in slots)]


def _advance(counts: Sequence[Any], skip: Any, beta1: float, beta2: float, slot: Any, value: float, rates: Any) -> None:
    """Count a step of each parameter, and write Adam's rates at that step, unless it is skipped."""
    for start, number, table in counters(counts):
        arguments = (table, skip, beta1, beta2, slot, value, rates if isinstance(rates, int) else rates[start:])
        kernel("update_in_place.cu", "advance")((-(-number // THREADS),), (THREADS,), arguments)
