"""Updates of parameters on a device, in place, and what a captured step must know of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import tensorlib as tl
from tensorlib.arrays.backend import Array
from tensorlib.arrays.capturing import current_capture
from tensorlib.arrays.shapes import as_dtype, sum_dtype
from tensorlib.ops.update_in_place import Guard

if TYPE_CHECKING:
    from nn.optimizer import Optimizer

__all__ = ["depend", "depend_all", "note_written", "require_no_capture", "skip_flag", "update_on_device"]


def update_on_device(
    optimizer: Optimizer, names: Sequence[str], gradients: Mapping[str, Array], guard: Guard | None
) -> None:
    """Update these parameters, all in a few launches, by writing into their arrays."""
    parameters = [optimizer.parameters[name] for name in names]
    for name in names:
        before = {**optimizer.state[name]}
        optimizer.fit_state(name)
        if any(before.get(slot) is not array for slot, array in optimizer.state[name].items()):
            require_no_capture(f"{type(optimizer).__name__}: the state of {name}")
    there = {name: p for name, p in optimizer.parameters.items() if optimizer.is_in_place(p)}
    counts = optimizer.counts.on_device(names, there)
    state = {slot: [optimizer.state[name][slot] for name in names] for slot in optimizer.slots}
    gs = [_fitting(gradients[name], p) for name, p in zip(names, parameters, strict=True)]
    optimizer.update_in_place([p.array for p in parameters], gs, state, counts, guard)
    note_written(parameters)
    depend(lambda: optimizer.counts.array)
    for setting in optimizer.settings:
        depend(partial(getattr, optimizer, setting))
    depend_all(lambda: [optimizer.state[name].get(slot) for name in names for slot in state])


def _fitting(g: Array, parameter: tl.Tensor) -> Array:
    """Return a gradient in the dtype of its parameter or, if it has another one, in that of the update."""
    return g if g.dtype == parameter.dtype else as_dtype(g, sum_dtype(parameter))


def skip_flag(optimizer: Optimizer, backend: tl.Backend) -> Array:
    """Return `optimizer.skipped` on `backend`, where a guarded step writes it."""
    if type(optimizer.skipped) is not backend.xp.ndarray:
        require_no_capture(f"{type(optimizer).__name__}: the flag of skipped steps")
        optimizer.skipped = backend.xp.zeros((), bool)
    depend(lambda: optimizer.skipped)
    return optimizer.skipped


def note_written(parameters: Sequence[tl.Tensor]) -> None:
    """Note that the arrays of parameters were written to; a replay of a step that is being recorded notes it again.

    Then versions rise, and a backward pass that needs an old value is an error, also if it reads it through `detach`.
    """
    for p in parameters:
        p.data = p.data


def depend(get: Callable[[], object]) -> None:
    """Let a step that is being recorded be recorded anew when ``get()`` returns another object."""
    if (capture := current_capture()) is not None:
        capture.depends_on(get)


def depend_all(get: Callable[[], list[Any]]) -> None:
    """Let a step that is being recorded be recorded anew when one of the arrays that ``get()`` returns is another."""
    if (capture := current_capture()) is not None:
        capture.depends_on_all(get)


def require_no_capture(what: str) -> None:
    """Raise RuntimeError if a step is being recorded: what it makes would be made again at each replay."""
    if current_capture() is not None:
        raise RuntimeError(
            f"{what} must exist before a step is recorded; after a change of backend or dtype, take one step outside "
            "of tl.capture"
        )
