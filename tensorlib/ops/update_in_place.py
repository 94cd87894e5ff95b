"""Steps of an optimizer that a device takes without waiting for the host: all parameters in one call, in place.

On a GPU a step of one parameter costs a launch, so these take lists of arrays, which kernels put into tables. What a
step depends on lies on the device: the number by which gradients are multiplied (clipping), whether the step is skipped
(`skip`, because a gradient is not finite), and the number of steps of each parameter. A skipped step changes no bit.

Each is a loop over a formula of `tensorlib.ops.update`. Because they write into the arrays of the parameters, a
recorded step (`tl.capture`) can be replayed: its next replay finds the new values where it read the old ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch, wraps
from typing import Any, NamedTuple

from tensorlib.arrays.backend import Array, namespace_of
from tensorlib.arrays.capturing import step_value
from tensorlib.arrays.shapes import as_dtype, sum_dtype
from tensorlib.ops.update import adam_update, average_update, sgd_update

__all__ = ["Guard", "adam_steps", "average_steps", "scaled", "sgd_steps", "step_guard"]


class Guard(NamedTuple):
    """What a guarded step reads on the device: the float64 by which it multiplies gradients, and a bool to skip it."""

    factor: Array
    skip: Array


def on_lists(formula: Any) -> Any:
    """Let kernels override a formula whose first argument is a sequence of arrays, by the type of the first one."""
    kernels = singledispatch(formula)

    @wraps(formula)
    def call(arrays: Sequence[Array], *others: Any, **named: Any) -> Any:
        return kernels.dispatch(type(arrays[0]))(arrays, *others, **named)

    for name in ("register", "dispatch", "registry"):
        setattr(call, name, getattr(kernels, name))
    return call


@on_lists
def step_guard(
    gradients: Sequence[Array], loss: Array | None, skip: Any, max_norm: float, scale: Array | Callable[[], float]
) -> tuple[Array, Array]:
    """Return the joint norm of all gradients and the factor for them, float64 of shape (); set `skip`, a bool.

    norm = sqrt(sum g^2) / scale;  factor = min(1, max_norm / norm) / scale;  skip = not (norm and loss are finite).
    The gradients are those of the loss times `scale`. As in `clip_grad_norm`, the norm is infinite if the sum of the
    squares overflows their dtype.

    Kernels: cuda/update_in_place.py.
    """
    xp = namespace_of(gradients[0])
    total = xp.zeros((), "float64")
    for g in gradients:
        flat = as_dtype(g.reshape(-1), sum_dtype(g))
        total = total + (flat * flat).sum()
    divisor: Any = _number(scale) if callable(scale) else as_dtype(scale, total.dtype)
    norm = xp.sqrt(total) / divisor
    factor = xp.where(norm > max_norm, max_norm / norm, xp.ones_like(norm)) / divisor
    finite = xp.isfinite(norm)
    skip[...] = ~(finite if loss is None else finite & xp.isfinite(loss.reshape(())))
    return norm, factor


@on_lists
def scaled(gradients: Sequence[Array], factor: float) -> tuple[Array, ...]:
    """Return the gradients times a number, in their dtypes; float16 is multiplied in float32.

    Kernels: cuda/update_in_place.py.
    """
    xp = namespace_of(gradients[0])  # NumPy returns a scalar for an array of shape ()
    return tuple(as_dtype(xp.asarray(as_dtype(g, sum_dtype(g)) * factor), g.dtype) for g in gradients)


@on_lists
def adam_steps(
    ps: Sequence[Array], gs: Sequence[Array], ms: Sequence[Array], vs: Sequence[Array], counts: Sequence[Array],
    guard: Guard | None, *, learning_rate: Callable[[], float], beta1: float, beta2: float, eps: float,
    weight_decay: float, decoupled: bool,
) -> None:  # fmt: skip
    """Take a step of `adam_update` with each parameter p, its gradient g, moments m and v, and count of steps.

    counts: int64 of shape (1,), the steps so far. Gradients have the dtype of their parameter or of the moments, which
    is float32 if the parameter is float16. A step computes in the dtype of the moments.

    Kernels: cuda/update_in_place.py.
    """
    one = adam_update.dispatch(object)
    rate, options = _number(learning_rate), {"beta1": beta1, "beta2": beta2, "eps": eps}
    for p, g, m, v, count in zip(ps, gs, ms, vs, counts, strict=True):
        new_m, new_v, t = m.copy(), v.copy(), count.reshape(()) + 1
        slope, weight = _factored(g, m.dtype, guard), as_dtype(p, m.dtype)
        decay = {"weight_decay": weight_decay, "decoupled": decoupled}
        new = one(weight, slope, new_m, new_v, step=t, learning_rate=rate, **options, **decay)
        _assign(guard, ((p, new), (m, new_m), (v, new_v), (count, count + 1)))


@on_lists
def sgd_steps(
    ps: Sequence[Array], gs: Sequence[Array], velocities: Sequence[Array] | None, counts: Sequence[Array],
    guard: Guard | None, *, learning_rate: Callable[[], float], momentum: float, weight_decay: float, nesterov: bool,
) -> None:  # fmt: skip
    """Take a step of `sgd_update` with each parameter; see `adam_steps`. velocities: None without momentum.

    Kernels: cuda/update_in_place.py.
    """
    one, rate = sgd_update.dispatch(object), _number(learning_rate)
    each: Sequence[Array | None] = velocities or [None] * len(ps)
    for p, g, velocity, count in zip(ps, gs, each, counts, strict=True):
        dtype, moved = sum_dtype(p), None if velocity is None else velocity.copy()
        slope = _factored(g, dtype, guard)
        new = one(as_dtype(p, dtype), slope, moved, rate, momentum, weight_decay, nesterov)
        _assign(guard, ((p, new), (velocity, moved), (count, count + 1)))


@on_lists
def average_steps(es: Sequence[Array], ws: Sequence[Array], skip: Array | None, decay: Callable[[], float]) -> None:
    """Take a step of `average_update` with each average e and parameter w, unless `skip` is true.

    Kernels: cuda/update_in_place.py.
    """
    one, kept = average_update.dispatch(object), _number(decay)
    for e, w in zip(es, ws, strict=True):
        new = e.copy()
        one(new, as_dtype(w, e.dtype), kept)
        _assign(None if skip is None else Guard(e, skip), ((e, new),))


def _number(compute: Callable[[], float]) -> Any:
    """Return a number of this step; while a step is recorded, an array of shape () that holds it at each replay."""
    slot, value = step_value(compute)
    return value if isinstance(slot, int) else slot.view("float64").reshape(())


def _factored(g: Array, dtype: Any, guard: Guard | None) -> Array:
    """Return a gradient in the dtype of its step, multiplied by the guard's factor."""
    g = as_dtype(g, dtype)
    return g if guard is None else g * as_dtype(guard.factor, dtype)


def _assign(guard: Guard | None, pairs: Sequence[tuple[Any, Any]]) -> None:
    """Write each new array into the old one, unless the guard skips the step."""
    for old, new in pairs:
        if old is not None:
            old[...] = new if guard is None else namespace_of(old).where(guard.skip, old, new)
